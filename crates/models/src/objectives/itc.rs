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
    let b = image.dims()[0];
    let device = image.device();
    let logits = image.matmul(text.transpose()) * logit_scale.exp().unsqueeze(); // [B, B]
    let targets = Tensor::<1, Int>::arange(0..b as i64, &device);
    let image_to_text = ops::cross_entropy(logits.clone(), targets.clone(), 0.0).mean();
    let text_to_image = ops::cross_entropy(logits.transpose(), targets, 0.0).mean();
    (image_to_text + text_to_image) / 2.0
}
