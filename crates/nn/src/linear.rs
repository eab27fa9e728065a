use crate::ops::{self, Activation, MlpLayer, PackedWeight};
use crate::weights::{Init, Weights};
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// An affine map over the last dimension, its weight stored `[out, in]` as in PyTorch checkpoints.
///
/// Inference on the CPU keeps a packed copy of the weight: see [`PackedWeight`] for what it costs.
#[derive(Module, Debug)]
pub struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    packed: PackedWeight,
}

impl Linear {
    /// A layer from `inputs` to `outputs` with parameters `weight` and, if asked for, `bias`.
    pub fn new(w: &mut Weights, inputs: usize, outputs: usize, bias: bool, init: Init) -> Self {
        Self {
            weight: w.param("weight", [outputs, inputs], init),
            bias: bias.then(|| w.param("bias", [outputs], Init::Zeros)),
            packed: PackedWeight::default(),
        }
    }

    /// # Shapes
    /// `x: [.., in]`; gives `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.fused(x, Activation::None, None)
    }

    /// This layer and what follows it, for [`ops::mlp`].
    pub(crate) fn layer(&self, activation: Activation) -> MlpLayer<'_> {
        MlpLayer {
            weight: self.weight.val(),
            packed: &self.packed,
            bias: self.bias.as_ref().map(|b| b.val()),
            activation,
        }
    }

    /// `activation(x w^T + b) + residual` in one pass.
    ///
    /// # Shapes
    /// `x: [.., in]`, `residual: [.., out]`; gives `[.., out]`.
    pub fn fused<const D: usize>(
        &self,
        x: Tensor<D>,
        activation: Activation,
        residual: Option<Tensor<D>>,
    ) -> Tensor<D> {
        let bias = self.bias.as_ref().map(|b| b.val());
        ops::linear_kept(
            x,
            self.weight.val(),
            &self.packed,
            bias,
            residual,
            activation,
        )
    }
}
