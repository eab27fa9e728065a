//! The text half of a dual encoder: a transformer that ends in one vector per text, in the variants of CLIP (Radford
//! et al., 2021), open_clip (Ilharco et al., 2021) and SigLIP (Zhai et al., 2023).
//!
//! Legend: `B` texts, `T` tokens, `D` width, `E` width of the output.

use super::vit::{check_heads, check_size};
use crate::capability::Tokens;
use crate::error::Error;
use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{Block, Embedding, KeyMask, LayerNorm, Linear, TransformerConfig};

/// Which token stands for the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextPooling {
    /// The first of those with the largest id: the end-of-text token of OpenAI's vocabulary is its last.
    LargestId,
    /// The first with this id, or the first of all if none has it.
    FirstOf(u32),
    /// The last position, padding or not.
    LastPosition,
    /// The first position.
    FirstPosition,
}

impl TextPooling {
    /// The position that stands for a row.
    fn position(self, row: &[u32]) -> usize {
        match self {
            Self::LargestId => {
                let largest = row.iter().max();
                row.iter().position(|id| Some(id) == largest).unwrap_or(0)
            }
            Self::FirstOf(end) => row.iter().position(|&id| id == end).unwrap_or(0),
            Self::LastPosition => row.len().saturating_sub(1),
            Self::FirstPosition => 0,
        }
    }
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
    /// Initial factor on what blocks add, see [`TransformerConfig::layer_scale`].
    pub layer_scale: Option<f32>,
    /// Which token stands for the text.
    pub pooling: TextPooling,
    /// Width `E` of the linear map at the end, if there is one.
    pub projection_dim: Option<usize>,
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
            ("projection_size", self.output_size(), 16384),
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

    /// Width `E` of the tower's vectors.
    pub fn output_size(&self) -> usize {
        self.projection_dim.unwrap_or(self.hidden_size)
    }

    /// Whether texts are filled with padding to the longest length, and the padding is read like text: where what
    /// stands for the text sees all that follows, or is the last position.
    pub fn fixed_length(&self) -> bool {
        !self.causal || self.pooling == TextPooling::LastPosition
    }
}

/// What a text encoder makes of texts.
#[derive(Clone, Debug)]
pub struct TextStates {
    /// `[B, T, D]`: normalised, after the last block.
    pub last_hidden_state: Tensor<3>,
    /// `[B, D]`: that of the token that stands for the text.
    pub pooled: Tensor<2>,
    /// `[B, E]`: projected, not normalised to unit length.
    pub embeds: Tensor<2>,
}

/// The tower.
#[derive(Module, Debug)]
pub struct TextTower {
    token: Embedding,
    position: Embedding,
    blocks: Vec<Block>,
    post_norm: LayerNorm,
    projection: Option<Linear>,
    #[module(skip)]
    config: TextTowerConfig,
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
            layer_scale: c.layer_scale,
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
            projection: c.projection_dim.map(|e| {
                let init = Init::fan_in(d);
                w.scope("projection", |w| {
                    Linear::new(w, d, e, c.projection_bias, init)
                })
            }),
            config: c.clone(),
        }
    }

    /// The config that the tower was built from.
    pub fn config(&self) -> &TextTowerConfig {
        &self.config
    }

    /// Encodes texts whose padding is told by `keys`; `positions` replaces the tokens' places in the text, and `trace`
    /// takes the input of each block and the output of the last.
    ///
    /// # Shapes
    /// `positions: [1 or B, T]` in the range of the table.
    ///
    /// # Errors
    /// No tokens, an id that the model does not know, or more tokens than it has positions.
    pub fn encode(
        &self,
        texts: &Tokens,
        keys: &KeyMask,
        positions: Option<Tensor<2, Int>>,
        mut trace: Option<&mut Vec<Tensor<3>>>,
    ) -> Result<TextStates, Error> {
        let c = &self.config;
        let device = self.position.range(0, 1).device();
        let ids = texts.to_device(c.vocab_size, c.max_position_embeddings, &device)?;
        let [b, t] = ids.dims();
        check_size("input_ids", b.min(t), usize::MAX)?;
        let positions = match positions {
            Some(positions) => self.position.forward(positions),
            None => self.position.range(0, t),
        };
        let mut x = self.token.forward(ids) + positions; // [B, T, D]
        for block in &self.blocks {
            if let Some(trace) = &mut trace {
                trace.push(x.clone());
            }
            x = block.masked(x, keys, None);
        }
        if let Some(trace) = &mut trace {
            trace.push(x.clone());
        }
        let x = self.post_norm.forward(x);
        let rows = texts.rows().iter().enumerate();
        let index = rows.map(|(row, ids)| (row * t + c.pooling.position(ids)) as i64);
        let index = TensorData::new(index.collect::<Vec<_>>(), [b]);
        let flat = x.clone().reshape([b * t, c.hidden_size]);
        let pooled = flat.select(0, Tensor::from_data(index, &device)); // [B, D]
        let embeds = match &self.projection {
            Some(projection) => projection.forward(pooled.clone()),
            None => pooled.clone(),
        };
        Ok(TextStates {
            last_hidden_state: x,
            pooled,
            embeds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_that_stands_for_a_text_follows_the_rule() {
        let row = [48, 3, 49, 49, 1];
        for (pooling, expected) in [
            (TextPooling::LargestId, 2),
            (TextPooling::FirstOf(49), 2),
            (TextPooling::FirstOf(1), 4),
            (TextPooling::FirstOf(7), 0),
            (TextPooling::LastPosition, 4),
            (TextPooling::FirstPosition, 0),
        ] {
            assert_eq!(pooling.position(&row), expected, "{pooling:?}");
        }
    }
}
