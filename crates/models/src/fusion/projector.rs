use super::merged_attention::merged;
use super::{Fuse, FusionConfig, TextStates};
use crate::encoders::last_tokens;
use burn::module::Module;
use burn::tensor::Tensor;
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{Block, KeyMask, LayerNorm, Linear};

/// Places go through an MLP into the space of the tokens and stand before them; a causal model reads both, and its last
/// state is judged (Liu et al., "Visual instruction tuning", 2023).
#[derive(Module, Debug)]
pub struct Projector {
    fc1: Linear,
    fc2: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Projector {
    /// Builds the part of a config.
    pub fn new(w: &mut Weights, c: &FusionConfig) -> Self {
        let (d, config) = (c.width, c.blocks(true));
        let mut linear =
            |name: &str| w.scope(name, |w| Linear::new(w, d, d, true, Init::fan_in(d)));
        let (fc1, fc2) = (linear("fc1"), linear("fc2"));
        let block = |i: usize| w.scope(&format!("blocks.{i}"), |w| Block::new(w, &config));
        Self {
            fc1,
            fc2,
            blocks: (0..c.layers).map(block).collect(),
            norm: w.scope("norm", |w| LayerNorm::new(w, d, 1e-6)),
            head: c.head(w, "head", d),
        }
    }
}

impl Fuse for Projector {
    fn fuse(&self, places: Tensor<3>, text: &TextStates) -> Tensor<2> {
        let places = self
            .fc2
            .forward(self.fc1.fused(places, Activation::Gelu, None));
        let (mut x, mask) = merged(places, text); // [R, N + T, D]
        let keys = KeyMask::new(&mask);
        for block in &self.blocks {
            x = block.masked(x, &keys, None);
        }
        // up to the last token that is no padding
        let last = |row: &Vec<bool>| row.iter().rposition(|seen| *seen).map_or(0, |i| i + 1);
        let lengths: Vec<usize> = mask.iter().map(last).collect();
        let last = last_tokens(x, &lengths, 0..lengths.len()); // [R, D]
        self.head.forward(self.norm.forward(last))
    }
}
