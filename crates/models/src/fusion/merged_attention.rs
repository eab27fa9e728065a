use super::{Fuse, FusionConfig, TextStates, masked_mean};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{Block, KeyMask, LayerNorm, Linear};

/// One sequence of places and tokens, told apart by a vector for each side; its mean is judged.
#[derive(Module, Debug)]
pub struct MergedAttention {
    side: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

/// Places before tokens, and which of both are no padding.
pub(super) fn merged(places: Tensor<3>, text: &TextStates) -> (Tensor<3>, Vec<Vec<bool>>) {
    let n = places.dims()[1];
    let mask = text.mask.iter().map(|row| {
        let places = std::iter::repeat_n(true, n);
        places.chain(row.iter().copied()).collect()
    });
    let mask = mask.collect();
    (Tensor::cat(vec![places, text.states.clone()], 1), mask)
}

impl MergedAttention {
    /// Builds the part of a config.
    pub fn new(w: &mut Weights, c: &FusionConfig) -> Self {
        let config = c.blocks(false);
        let block = |i: usize| w.scope(&format!("blocks.{i}"), |w| Block::new(w, &config));
        let blocks = (0..c.layers).map(block).collect();
        Self {
            side: w.param("side", [2, c.width], Init::NORMAL),
            blocks,
            norm: w.scope("norm", |w| LayerNorm::new(w, c.width, 1e-6)),
            head: c.head(w, "head", c.width),
        }
    }
}

impl Fuse for MergedAttention {
    fn fuse(&self, places: Tensor<3>, text: &TextStates) -> Tensor<2> {
        let side = |i: usize| self.side.val().narrow(0, i, 1).unsqueeze::<3>(); // [1, 1, D]
        let text = TextStates {
            states: text.states.clone() + side(1),
            mask: text.mask.clone(),
        };
        let (mut x, mask) = merged(places + side(0), &text); // [R, N + T, D]
        let keys = KeyMask::new(&mask);
        for block in &self.blocks {
            x = block.masked(x, &keys, None);
        }
        self.head.forward(self.norm.forward(masked_mean(x, &mask)))
    }
}
