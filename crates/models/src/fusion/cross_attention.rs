use super::{Fuse, FusionConfig, TextStates, masked_mean};
use burn::module::Module;
use burn::tensor::Tensor;
use vlm_nn::weights::Weights;
use vlm_nn::{DecoderBlock, KeyMask, LayerNorm, Linear};

/// Layers of the text that look at the places of the picture; the mean of the tokens is judged.
#[derive(Module, Debug)]
pub struct CrossAttentionFusion {
    blocks: Vec<DecoderBlock>,
    norm: LayerNorm,
    head: Linear,
}

/// A stack of blocks that look at another sequence of the same width.
pub(super) fn looking(w: &mut Weights, c: &FusionConfig) -> Vec<DecoderBlock> {
    let config = c.blocks(false);
    let block = |i: usize| {
        w.scope(&format!("blocks.{i}"), |w| {
            DecoderBlock::new(w, &config, c.width)
        })
    };
    (0..c.layers).map(block).collect()
}

impl CrossAttentionFusion {
    /// Builds the part of a config.
    pub fn new(w: &mut Weights, c: &FusionConfig) -> Self {
        Self {
            blocks: looking(w, c),
            norm: w.scope("norm", |w| LayerNorm::new(w, c.width, 1e-6)),
            head: c.head(w, "head", c.width),
        }
    }
}

impl Fuse for CrossAttentionFusion {
    fn fuse(&self, places: Tensor<3>, text: &TextStates) -> Tensor<2> {
        let keys = text.keys();
        let mut x = text.states.clone();
        for block in &self.blocks {
            let kv = block.keys_values(places.clone());
            x = block.masked(x, &keys, kv, &KeyMask::default());
        }
        self.head
            .forward(self.norm.forward(masked_mean(x, &text.mask)))
    }
}
