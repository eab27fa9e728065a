use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Int, Tensor};

/// Sigmoid image-text loss (Zhai et al., 2023): each picture and text of the batch is told apart on its own, a
/// picture's own text from all others.
///
/// # Shapes
/// `image, text: [B, E]` of unit length, pairs in the same row; `logit_scale: [1]`, the logarithm of the inverse
/// temperature; `logit_bias: [1]`. Gives `[1]`, the sum over all pairs divided by `B`.
pub fn siglip(
    image: Tensor<2>,
    text: Tensor<2>,
    logit_scale: Tensor<1>,
    logit_bias: Tensor<1>,
) -> Tensor<1> {
    let b = image.dims()[0];
    let device = image.device();
    let scale = logit_scale.exp().unsqueeze();
    let logits = text.matmul(image.transpose()) * scale + logit_bias.unsqueeze(); // [B, B]
    let rows = Tensor::<1, Int>::arange(0..b as i64, &device);
    let columns: Tensor<2, Int> = rows.clone().unsqueeze(); // [1, B]
    let rows: Tensor<2, Int> = rows.unsqueeze_dim(1); // [B, 1]
    let own = rows.repeat_dim(1, b).equal(columns.repeat_dim(0, b)); // [B, B]
    let labels = own.float() * 2.0 - 1.0;
    -log_sigmoid(logits * labels).sum() / b as f32
}
