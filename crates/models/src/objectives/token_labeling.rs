use burn::tensor::{Int, Tensor};
use vlm_nn::ops;

/// Token labeling (Jiang et al., "All tokens matter: token labeling for training better vision transformers",
/// 2021): every patch names what it shows. Cross-entropy, averaged over the labelled patches of each group of
/// classes and over the groups, so that a group that only few patches have a label of counts as much as the others.
///
/// # Shapes
/// `logits: [B, N, C]`, where the groups of `classes` share out the `C` columns; `labels: [B, N, G]`, one class of
/// each of the `G` groups, negative where nothing is to be learned. Gives `[1]`.
pub fn token_labeling(logits: Tensor<3>, labels: Tensor<3, Int>, classes: &[usize]) -> Tensor<1> {
    let [b, n, c] = logits.dims();
    let logits = logits.reshape([b * n, c]);
    let labels = labels.reshape([b * n, classes.len()]);
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
