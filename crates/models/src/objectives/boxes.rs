use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;

/// Smooth L1 loss (Girshick, "Fast R-CNN", 2015), summed: half the square over `beta` where the difference is below
/// `beta`, and the difference less half of `beta` beyond.
///
/// # Shapes
/// `x`, `target` of one shape; gives `[1]`.
pub fn smooth_l1<const D: usize>(x: Tensor<D>, target: Tensor<D>, beta: f32) -> Tensor<1> {
    let far = (x - target).abs();
    let near = far.clone().clamp_max(beta);
    (near.clone() * (far - near * 0.5) / beta).sum()
}

/// Binary cross-entropy of logits, their mean.
///
/// # Shapes
/// `logits: [N]`, `truths` of them; gives `[1]`.
pub fn binary_cross_entropy(logits: Tensor<1>, truths: &[bool]) -> Tensor<1> {
    let signs: Vec<f32> = truths.iter().map(|&t| if t { 1.0 } else { -1.0 }).collect();
    let signs = Tensor::<1>::from_floats(signs.as_slice(), &logits.device());
    -log_sigmoid(logits * signs).mean()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn row(values: [f32; 4], device: &Device) -> Tensor<1> {
        Tensor::from_floats(values, device)
    }

    #[test]
    fn losses_and_their_slopes_are_those_of_the_definition() {
        let device = Device::flex().autodiff();
        let x = row([0.05, -0.3, 2.0, 1.0], &device).require_grad();
        let target = row([0.0, 0.0, -1.0, 1.0], &device);
        let loss = smooth_l1(x.clone(), target, 0.1);
        // 0.5 * 0.05^2 / 0.1 + (0.3 - 0.05) + (3 - 0.05) + 0
        let found = loss.clone().into_scalar::<f32>();
        assert!((found - 3.2125).abs() < 1e-6, "{found}");
        let slopes: Vec<f32> = x
            .grad(&loss.backward())
            .unwrap()
            .into_data()
            .try_to_vec()
            .unwrap();
        for (a, b) in slopes.iter().zip([0.5, -1.0, 1.0, 0.0]) {
            assert!((a - b).abs() < 1e-6, "{slopes:?}");
        }
        let x = row([0.0, 2.0, -100.0, 100.0], &device).require_grad();
        let loss = binary_cross_entropy(x.clone(), &[true, false, true, true]);
        // ln 2, ln(1 + e^2), 100, 0
        let expected = (2f32.ln() + (1.0 + 2f32.exp()).ln() + 100.0) / 4.0;
        let found = loss.clone().into_scalar::<f32>();
        assert!((found - expected).abs() < 1e-5, "{found}");
        let slopes: Vec<f32> = x
            .grad(&loss.backward())
            .unwrap()
            .into_data()
            .try_to_vec()
            .unwrap();
        let sigmoid = 1.0 / (1.0 + (-2f32).exp());
        for (a, b) in slopes.iter().zip([-0.125, 0.25 * sigmoid, -0.25, 0.0]) {
            assert!((a - b).abs() < 1e-6, "{slopes:?}");
        }
    }
}
