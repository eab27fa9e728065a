use super::{Fuse, FusionConfig, TextStates, mean_place};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use vlm_nn::Linear;
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Init, Weights};

/// Score averaging: each side scores on its own, and learned weights that sum to 1 average both. What depends on both sides
/// together, it cannot tell.
#[derive(Module, Debug)]
pub struct Late {
    picture: Side,
    text: Side,
    weights: Param<Tensor<1>>,
}

/// An MLP on one mean.
#[derive(Module, Debug)]
struct Side {
    hidden: Linear,
    head: Linear,
}

impl Side {
    fn new(w: &mut Weights, c: &FusionConfig) -> Self {
        let width = c.width;
        Self {
            hidden: w.scope("hidden", |w| {
                Linear::new(w, width, width, true, Init::fan_in(width))
            }),
            head: c.head(w, "head", width),
        }
    }

    fn scores(&self, mean: Tensor<2>) -> Tensor<2> {
        let hidden = self.hidden.fused(mean, Activation::Gelu, None);
        self.head.forward(hidden)
    }
}

impl Late {
    /// Builds the part of a config.
    pub fn new(w: &mut Weights, c: &FusionConfig) -> Self {
        Self {
            picture: w.scope("picture", |w| Side::new(w, c)),
            text: w.scope("text", |w| Side::new(w, c)),
            weights: w.param("weights", [2], Init::Zeros),
        }
    }
}

impl Fuse for Late {
    fn fuse(&self, places: Tensor<3>, text: &TextStates) -> Tensor<2> {
        let weights = softmax(self.weights.val(), 0);
        let weight = |i: usize| weights.clone().narrow(0, i, 1).unsqueeze::<2>(); // [1, 1]
        let picture = self.picture.scores(mean_place(&places));
        picture * weight(0) + self.text.scores(text.mean()) * weight(1)
    }
}
