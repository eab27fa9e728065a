use crate::linear::Linear;
use crate::ops::{self, Activation};
use crate::weights::{Init, Weights};
use burn::module::Module;
use burn::tensor::Tensor;

/// Two linear layers with an activation between them: `fc2(act(fc1(x)))`.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// From `width` through `hidden` back to `width`; `out` initialises the second weight.
    pub fn new(
        w: &mut Weights,
        width: usize,
        hidden: usize,
        activation: Activation,
        out: Init,
    ) -> Self {
        Self {
            fc1: w.scope("fc1", |w| {
                Linear::new(w, width, hidden, true, Init::fan_in(2 * width))
            }),
            fc2: w.scope("fc2", |w| Linear::new(w, hidden, width, true, out)),
            activation,
        }
    }

    /// # Shapes
    /// `x, residual: [B, T, D]`; gives `residual + mlp(x)`, `[B, T, D]`.
    pub fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let layers = [
            self.fc1.layer(self.activation),
            self.fc2.layer(Activation::None),
        ];
        ops::mlp(x, layers, Some(residual))
    }
}
