use crate::ops;
use crate::weights::{Init, Weights};
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// LayerNorm over the last dimension, parameters `weight` and `bias`.
#[derive(Module, Debug)]
pub struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    /// A norm over `width` channels.
    pub fn new(w: &mut Weights, width: usize, eps: f64) -> Self {
        Self {
            weight: w.param("weight", [width], Init::Ones),
            bias: w.param("bias", [width], Init::Zeros),
            eps,
        }
    }

    /// # Shapes
    /// `[.., D]` to `[.., D]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.weight.val(), self.bias.val(), self.eps as f32)
    }
}
