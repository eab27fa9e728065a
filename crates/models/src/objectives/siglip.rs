use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Int, Tensor};

/// Sigmoid image-text loss (Zhai et al., 2023): each picture and text of the batch is told apart on its own, a
/// picture's own text from all others.
///
/// # Shapes
/// `logits: [B, B]`, scaled and with the bias, pairs on the diagonal. Gives `[1]`, the sum over all pairs divided by
/// `B`.
pub fn siglip_logits(logits: Tensor<2>) -> Tensor<1> {
    let b = logits.dims()[0];
    let rows = Tensor::<1, Int>::arange(0..b as i64, &logits.device());
    let columns: Tensor<2, Int> = rows.clone().unsqueeze(); // [1, B]
    let rows: Tensor<2, Int> = rows.unsqueeze_dim(1); // [B, 1]
    let own = rows.repeat_dim(1, b).equal(columns.repeat_dim(0, b)); // [B, B]
    let labels = own.float() * 2.0 - 1.0;
    -log_sigmoid(logits * labels).sum() / b as f32
}
