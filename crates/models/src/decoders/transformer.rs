//! The multimodal half of a captioning transformer: causal blocks that attend to the picture.
//!
//! Legend: `B` pictures, `Q` texts per picture, `T` tokens, `N` patches, `D` width, `M` memory width,
//! `V` vocabulary.

use crate::encoders::TextConfig;
use burn::module::Module;
use burn::tensor::Tensor;
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{DecoderBlock, KvCache, LayerNorm, Linear};

/// Decoder blocks, a final norm and the language-model head.
#[derive(Module, Debug)]
pub struct MultimodalDecoder {
    blocks: Vec<DecoderBlock>,
    norm: LayerNorm,
    head: Linear,
}

impl MultimodalDecoder {
    /// Builds the decoder of a validated config over a memory of `memory_width`.
    pub fn new(w: &mut Weights, c: &TextConfig, memory_width: usize) -> Self {
        let block = c.blocks(c.num_multimodal_layers);
        Self {
            blocks: (0..c.num_multimodal_layers)
                .map(|i| {
                    w.scope(&format!("blocks.{i}"), |w| {
                        DecoderBlock::new(w, &block, memory_width)
                    })
                })
                .collect(),
            norm: w.scope("norm", |w| {
                LayerNorm::new(w, c.hidden_size, c.layer_norm_eps)
            }),
            head: w.scope("head", |w| {
                Linear::new(w, c.hidden_size, c.vocab_size, false, Init::NORMAL)
            }),
        }
    }

    /// Keys and values of the pictures for every block.
    ///
    /// # Shapes
    /// `memory: [B, N, M]`; gives `[B, N, 2D]` each.
    pub fn keys_values(&self, memory: &Tensor<3>) -> Vec<Tensor<3>> {
        self.blocks
            .iter()
            .map(|b| b.keys_values(memory.clone()))
            .collect()
    }

    /// # Shapes
    /// `x: [B * Q, T, D]` from the text tower, `memory` from [`Self::keys_values`]; gives logits
    /// `[B * Q, T, V]`.
    pub fn forward(
        &self,
        mut x: Tensor<3>,
        memory: &[Tensor<3>],
        caches: Option<&mut [KvCache]>,
    ) -> Tensor<3> {
        match caches {
            Some(caches) => {
                for ((block, kv), cache) in self.blocks.iter().zip(memory).zip(caches) {
                    x = block.forward(x, kv.clone(), Some(cache));
                }
            }
            None => {
                for (block, kv) in self.blocks.iter().zip(memory) {
                    x = block.forward(x, kv.clone(), None);
                }
            }
        }
        self.head.forward(self.norm.forward(x))
    }

    /// Where the texts look: the mean over heads and blocks.
    ///
    /// # Shapes
    /// As [`Self::forward`]; gives `[B * Q, T, N]`, whose rows sum to 1.
    pub fn cross_weights(&self, mut x: Tensor<3>, memory: &[Tensor<3>]) -> Tensor<3> {
        let [rows, t, _] = x.dims();
        let mut all = Vec::with_capacity(self.blocks.len());
        for (block, kv) in self.blocks.iter().zip(memory) {
            let weights = block.cross_weights(x.clone(), kv.clone()).mean_dim(1); // [B * Q, 1, T, N]
            all.push(weights.reshape([rows, t, kv.dims()[1]]));
            x = block.forward(x, kv.clone(), None);
        }
        Tensor::stack::<4>(all, 0).mean_dim(0).squeeze_dim(0)
    }

    /// Empty caches for [`Self::forward`].
    pub fn caches(&self) -> Vec<KvCache> {
        vec![KvCache::default(); self.blocks.len()]
    }
}
