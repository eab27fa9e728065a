use super::{Fuse, FusionConfig, TextStates, mean_place};
use burn::module::Module;
use burn::tensor::Tensor;
use vlm_nn::Linear;
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Init, Weights};

/// Concatenation: the means of both sides, one after the other, in an MLP.
#[derive(Module, Debug)]
pub struct Early {
    hidden: Linear,
    head: Linear,
}

impl Early {
    /// Builds the part of a config.
    pub fn new(w: &mut Weights, c: &FusionConfig) -> Self {
        let both = 2 * c.width;
        Self {
            hidden: w.scope("hidden", |w| {
                Linear::new(w, both, both, true, Init::fan_in(both))
            }),
            head: c.head(w, "head", both),
        }
    }
}

impl Fuse for Early {
    fn fuse(&self, places: Tensor<3>, text: &TextStates) -> Tensor<2> {
        let x = Tensor::cat(vec![mean_place(&places), text.mean()], 1); // [R, 2D]
        self.head
            .forward(self.hidden.fused(x, Activation::Gelu, None))
    }
}
