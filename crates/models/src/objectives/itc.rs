use burn::module::Param;
use burn::tensor::{Int, Tensor};
use vlm_nn::ops;

/// Rows scaled to unit length.
///
/// # Shapes
/// `[B, E]` to `[B, E]`.
pub fn l2_normalize(x: Tensor<2>) -> Tensor<2> {
    let norm = (x.clone().powi_scalar(2).sum_dim(1) + 1e-12).sqrt(); // [B, 1]
    x / norm
}

/// Image-text contrastive loss (Radford et al., 2021): symmetric cross-entropy over the batch's similarities.
///
/// # Shapes
/// `image, text: [B, E]` of unit length, pairs in the same row; `logit_scale: [1]`, the logarithm of the inverse
/// temperature. Gives `[1]`.
pub fn itc(image: Tensor<2>, text: Tensor<2>, logit_scale: Tensor<1>) -> Tensor<1> {
    itc_logits(image.matmul(text.transpose()) * logit_scale.exp().unsqueeze())
}

/// A logarithm of the inverse temperature in training, brought down to at most `most`.
pub fn scale_at_most(logit_scale: Param<Tensor<1>>, most: f32) -> Param<Tensor<1>> {
    let (id, scale, mapper) = logit_scale.consume();
    let scale = Tensor::from_inner(scale.inner().clamp_max(most));
    Param::from_mapped_value(id, scale.require_grad(), mapper)
}

/// [`itc`] of logits.
///
/// # Shapes
/// `logits: [B, B]`, pairs on the diagonal; gives `[1]`.
pub fn itc_logits(logits: Tensor<2>) -> Tensor<1> {
    let b = logits.dims()[0];
    let targets = Tensor::<1, Int>::arange(0..b as i64, &logits.device());
    let rows = ops::cross_entropy(logits.clone(), targets.clone(), 0.0).mean();
    let columns = ops::cross_entropy(logits.transpose(), targets, 0.0).mean();
    (rows + columns) / 2.0
}
