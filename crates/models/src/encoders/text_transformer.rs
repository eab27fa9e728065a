//! A causal text transformer: the text tower of contrastive models (Radford et al., 2021).
//!
//! Legend: `B` batch, `T` tokens, `D` width.

use super::vit::{check_heads, check_size};
use crate::error::Error;
use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{Block, Embedding, KvCache, TransformerConfig};

/// Sizes of the text side; field names as in published `config.json` files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Tokens `V`.
    pub vocab_size: usize,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Width `D`.
    pub hidden_size: usize,
    /// Width of the MLPs.
    pub intermediate_size: usize,
    /// Blocks of the text tower.
    pub num_hidden_layers: usize,
    /// Blocks of the multimodal decoder on top of it.
    pub num_multimodal_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f64,
}

impl TextConfig {
    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        check_size("text_config.vocab_size", self.vocab_size, 1 << 20)?;
        check_size(
            "text_config.max_position_embeddings",
            self.max_position_embeddings,
            1 << 17,
        )?;
        check_size("text_config.hidden_size", self.hidden_size, 16384)?;
        check_size(
            "text_config.intermediate_size",
            self.intermediate_size,
            65536,
        )?;
        check_size("text_config.num_hidden_layers", self.num_hidden_layers, 256)?;
        check_size(
            "text_config.num_multimodal_layers",
            self.num_multimodal_layers,
            256,
        )?;
        check_heads(
            "text_config.num_attention_heads",
            self.hidden_size,
            self.num_attention_heads,
        )
    }

    /// The stack that `layers` of these blocks form.
    pub(crate) fn blocks(&self, layers: usize) -> TransformerConfig {
        TransformerConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            hidden: self.intermediate_size,
            layers,
            activation: Activation::Gelu,
            eps: self.layer_norm_eps,
            causal: true,
            layer_scale: None,
        }
    }
}

/// Token and position embeddings under causal pre-norm blocks; no final norm.
#[derive(Module, Debug)]
pub struct TextTransformer {
    token: Embedding,
    position: Embedding,
    blocks: Vec<Block>,
}

impl TextTransformer {
    /// Builds the tower of a validated config.
    pub fn new(w: &mut Weights, c: &TextConfig) -> Self {
        let block = c.blocks(c.num_hidden_layers);
        let width = c.hidden_size;
        Self {
            token: w.scope("token", |w| {
                Embedding::new(w, c.vocab_size, width, Init::NORMAL)
            }),
            position: w.scope("position", |w| {
                Embedding::new(w, c.max_position_embeddings, width, Init::Normal(0.01))
            }),
            blocks: (0..c.num_hidden_layers)
                .map(|i| w.scope(&format!("blocks.{i}"), |w| Block::new(w, &block)))
                .collect(),
        }
    }

    /// With caches (one per block) `ids` follow the cached positions.
    ///
    /// # Shapes
    /// `ids: [B, T]`; gives `[B, T, D]`.
    pub fn forward(&self, ids: Tensor<2, Int>, caches: Option<&mut [KvCache]>) -> Tensor<3> {
        let t = ids.dims()[1];
        let past = caches
            .as_ref()
            .and_then(|c| c.first())
            .map_or(0, KvCache::len);
        let mut x = self.token.forward(ids) + self.position.range(past, t); // [B, T, D]
        match caches {
            Some(caches) => {
                for (block, cache) in self.blocks.iter().zip(caches) {
                    x = block.forward(x, Some(cache));
                }
            }
            None => {
                for block in &self.blocks {
                    x = block.forward(x, None);
                }
            }
        }
        x
    }

    /// Empty caches for [`Self::forward`].
    pub fn caches(&self) -> Vec<KvCache> {
        vec![KvCache::default(); self.blocks.len()]
    }
}

/// What `rows` of texts have at their last token that is no padding; `lengths` counts those tokens of every row.
///
/// # Shapes
/// `hidden: [B, T, D]`; gives `[rows, D]`.
pub(crate) fn last_tokens(
    hidden: Tensor<3>,
    lengths: &[usize],
    rows: impl Iterator<Item = usize>,
) -> Tensor<2> {
    let [b, t, d] = hidden.dims();
    let last: Vec<i64> = rows
        .map(|row| (row * t + lengths[row] - 1) as i64)
        .collect();
    let count = last.len();
    let index = Tensor::from_data(TensorData::new(last, [count]), &hidden.device());
    hidden.reshape([b * t, d]).select(0, index)
}
