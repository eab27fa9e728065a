use burn::tensor::{Int, Tensor};
use vlm_nn::ops;

/// Language-model loss: cross-entropy summed over the positions that have a target and divided by `count`, which
/// is their number, or that of all batches that share a mean.
///
/// # Shapes
/// `logits: [R, T, V]`; `targets: [R, T]`, negative where nothing is to be predicted. Gives `[1]`.
pub fn lm(logits: Tensor<3>, targets: Tensor<2, Int>, count: usize) -> Tensor<1> {
    let [r, t, v] = logits.dims();
    let losses = ops::cross_entropy(logits.reshape([r * t, v]), targets.reshape([r * t]), 0.0);
    losses.sum() / count.max(1) as f32
}
