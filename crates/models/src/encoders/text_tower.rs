//! The text half of a dual encoder: a transformer that ends in one vector per text, in the variants of CLIP (Radford
//! et al., 2021) and SigLIP (Zhai et al., 2023).
//!
//! Legend: `B` texts, `T` tokens, `D` width, `E` width of the output.

use super::text_transformer::last_tokens;
use super::vit::{check_heads, check_size};
use crate::error::Error;
use burn::module::Module;
use burn::tensor::{Int, Tensor};
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{Block, Embedding, LayerNorm, Linear, TransformerConfig};

/// Which token stands for the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextPooling {
    /// The last one that is no padding, as CLIP reads its end-of-text token.
    EndOfText,
    /// The last position, padding or not, as SigLIP does.
    LastPosition,
}

/// Sizes and variant of a [`TextTower`].
#[derive(Clone, Debug, PartialEq)]
pub struct TextTowerConfig {
    /// Tokens.
    pub vocab_size: usize,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Width `D`.
    pub hidden_size: usize,
    /// Width of the MLPs.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f64,
    /// Activation of the MLPs.
    pub hidden_act: Activation,
    /// Whether a token sees only those before it.
    pub causal: bool,
    /// Which token stands for the text.
    pub pooling: TextPooling,
    /// Width `E` of the linear map at the end.
    pub projection_dim: usize,
    /// Whether that map has a bias.
    pub projection_bias: bool,
}

impl TextTowerConfig {
    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 20),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                1 << 17,
            ),
            ("hidden_size", self.hidden_size, 16384),
            ("intermediate_size", self.intermediate_size, 65536),
            ("num_hidden_layers", self.num_hidden_layers, 256),
            ("projection_size", self.projection_dim, 16384),
        ];
        for (name, value, max) in sizes {
            check_size(&format!("text_config.{name}"), value, max)?;
        }
        check_heads(
            "text_config.num_attention_heads",
            self.hidden_size,
            self.num_attention_heads,
        )
    }
}

/// The tower.
#[derive(Module, Debug)]
pub struct TextTower {
    token: Embedding,
    position: Embedding,
    blocks: Vec<Block>,
    post_norm: LayerNorm,
    projection: Linear,
    #[module(skip)]
    pooling: TextPooling,
}

impl TextTower {
    /// Builds the tower of a validated config.
    pub fn new(w: &mut Weights, c: &TextTowerConfig) -> Self {
        let d = c.hidden_size;
        let block = TransformerConfig {
            width: d,
            heads: c.num_attention_heads,
            hidden: c.intermediate_size,
            layers: c.num_hidden_layers,
            activation: c.hidden_act,
            eps: c.layer_norm_eps,
            causal: c.causal,
        };
        Self {
            token: w.scope("token", |w| {
                Embedding::new(w, c.vocab_size, d, Init::NORMAL)
            }),
            position: w.scope("position", |w| {
                Embedding::new(w, c.max_position_embeddings, d, Init::Normal(0.01))
            }),
            blocks: (0..c.num_hidden_layers)
                .map(|i| w.scope(&format!("blocks.{i}"), |w| Block::new(w, &block)))
                .collect(),
            post_norm: w.scope("post_norm", |w| LayerNorm::new(w, d, c.layer_norm_eps)),
            projection: w.scope("projection", |w| {
                let init = Init::fan_in(d);
                Linear::new(w, d, c.projection_dim, c.projection_bias, init)
            }),
            pooling: c.pooling,
        }
    }

    /// One vector per text, not normalised to unit length.
    ///
    /// # Shapes
    /// `ids: [B, T]`, padded behind; `lengths` gives each row's tokens without padding. Gives `[B, E]`.
    pub fn forward(&self, ids: Tensor<2, Int>, lengths: &[usize]) -> Tensor<2> {
        let [b, t] = ids.dims();
        assert_eq!(b, lengths.len(), "text tower: rows and lengths differ");
        let mut x = self.token.forward(ids) + self.position.range(0, t); // [B, T, D]
        for block in &self.blocks {
            x = block.forward(x, None);
        }
        let d = x.dims()[2];
        let pooled = match self.pooling {
            TextPooling::LastPosition => x.narrow(1, t - 1, 1).reshape([b, d]),
            TextPooling::EndOfText => last_tokens(x, lengths, 0..b),
        }; // [B, D]
        self.projection.forward(self.post_norm.forward(pooled))
    }
}
