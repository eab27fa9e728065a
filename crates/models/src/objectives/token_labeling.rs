use burn::tensor::{Int, Tensor};
use vlm_nn::ops;

/// What each patch shows.
#[derive(Clone, Debug)]
pub struct TokenLabels {
    /// `[B, N, G]`: one class of each of the `G` groups, negative where nothing is to be learned.
    pub classes: Tensor<3, Int>,
    /// `[B, N, C]`: zero, or a large negative number for a class that never occurs in training together with the
    /// patch's other attributes.
    pub adjustment: Tensor<3>,
}

/// Token labeling (Jiang et al., "All tokens matter: token labeling for training better vision transformers",
/// 2021): every patch names what it shows. Cross-entropy, averaged over the labelled patches of each group of
/// classes and over the groups, so that a group that only few patches have a label of counts as much as the others.
///
/// The logits are adjusted by the logarithm of each class's prior given the patch's other attributes (Menon et al.,
/// "Long-tail learning via logit adjustment", 2021), where that prior is zero in training: such a class is left
/// out of the softmax. Else "never with this colour" would be learned as "not this shape", long before shapes are.
///
/// # Shapes
/// `logits: [B, N, C]`, where the groups of `classes` share out the `C` columns. Gives `[1]`.
pub fn token_labeling(logits: Tensor<3>, labels: TokenLabels, classes: &[usize]) -> Tensor<1> {
    let [b, n, c] = logits.dims();
    let logits = (logits + labels.adjustment).reshape([b * n, c]);
    let labels = labels.classes.reshape([b * n, classes.len()]);
    let mut first = 0;
    let mut total: Option<Tensor<1>> = None;
    for (group, &count) in classes.iter().enumerate() {
        let part = logits.clone().narrow(1, first, count); // [B * N, classes of the group]
        let targets = labels.clone().narrow(1, group, 1).reshape([b * n]);
        let labelled = targets
            .clone()
            .greater_equal_elem(0)
            .float()
            .sum()
            .clamp_min(1.0);
        let loss = ops::cross_entropy(part, targets, 0.0).sum() / labelled;
        total = Some(match total {
            Some(total) => total + loss,
            None => loss,
        });
        first += count;
    }
    total.expect("at least one group of classes") / classes.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn a_class_with_prior_zero_is_neither_predicted_nor_pushed_down() {
        let device = Device::flex().autodiff();
        let tensor = |v: &[f32]| {
            Tensor::<3>::from_data(TensorData::new(v.to_vec(), [1, 1, v.len()]), &device)
        };
        let logits = tensor(&[1.0, 2.0, 5.0, 0.5, 0.25]).require_grad();
        let labels = TokenLabels {
            classes: Tensor::from_data(TensorData::new(vec![0i64, 1], [1, 1, 2]), &device),
            adjustment: tensor(&[0.0, 0.0, -1e4, 0.0, 0.0]),
        };
        let loss = token_labeling(logits.clone(), labels, &[3, 2]);
        // by hand: -ln(e^1 / (e^1 + e^2)) and -ln(e^0.25 / (e^0.5 + e^0.25)), averaged over the two groups
        let expected = ((1.0 + 1f32.exp()).ln() + (1.0 + 0.25f32.exp()).ln()) / 2.0;
        let found: Vec<f32> = loss.clone().into_data().try_to_vec().expect("f32");
        assert!((found[0] - expected).abs() < 1e-6, "{found:?} {expected}");
        let gradients = loss.backward();
        let gradient = logits.grad(&gradients).expect("a gradient");
        let gradient: Vec<f32> = gradient.into_data().try_to_vec().expect("f32");
        assert_eq!(gradient[2], 0.0);
        assert!(gradient[0] < -0.1 && gradient[1] > 0.1 && gradient[3] > 0.1 && gradient[4] < -0.1);
    }
}
