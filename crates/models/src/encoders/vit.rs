//! Vision Transformer (Dosovitskiy et al., 2021), without a class token.
//!
//! Legend: `B` batch, `C` channels, `N` patches, `D` width.

use crate::error::{Error, expect};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{Block, ConvStem, LayerNorm, PatchEmbedding, TransformerConfig};

/// How pixels become patch vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// One linear layer per patch.
    Patch,
    /// Strided 3x3 convolutions ([`ConvStem`]).
    Conv,
}

/// Sizes of a [`Vit`]; field names as in published `config.json` files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Height and width of a picture, in pixels.
    pub image_size: usize,
    /// Height and width of a patch, in pixels.
    pub patch_size: usize,
    /// Colour channels.
    pub num_channels: usize,
    /// How pixels become patch vectors.
    pub stem: Stem,
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
}

/// Bounds that no sensible config leaves, so that a hostile one cannot ask for unbounded memory.
pub(crate) fn check_size(place: &str, value: usize, max: usize) -> Result<(), Error> {
    expect(
        (1..=max).contains(&value),
        place,
        format!("1 to {max}"),
        value,
    )
}

pub(crate) fn check_heads(place: &str, width: usize, heads: usize) -> Result<(), Error> {
    expect(
        heads > 0 && width.is_multiple_of(heads),
        place,
        format!("a divisor of hidden_size {width}"),
        heads,
    )
}

impl VisionConfig {
    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        check_size("vision_config.image_size", self.image_size, 4096)?;
        check_size("vision_config.patch_size", self.patch_size, self.image_size)?;
        check_size("vision_config.num_channels", self.num_channels, 16)?;
        check_size("vision_config.hidden_size", self.hidden_size, 16384)?;
        check_size(
            "vision_config.intermediate_size",
            self.intermediate_size,
            65536,
        )?;
        check_size(
            "vision_config.num_hidden_layers",
            self.num_hidden_layers,
            256,
        )?;
        check_heads(
            "vision_config.num_attention_heads",
            self.hidden_size,
            self.num_attention_heads,
        )?;
        expect(
            self.image_size.is_multiple_of(self.patch_size),
            "vision_config.patch_size",
            format!("a divisor of image_size {}", self.image_size),
            self.patch_size,
        )?;
        expect(
            self.stem == Stem::Patch || self.patch_size.is_power_of_two(),
            "vision_config.patch_size",
            "a power of two with the conv stem",
            self.patch_size,
        )
    }

    /// Patches of a picture.
    pub fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}

#[derive(Module, Debug)]
enum Embed {
    Patch(PatchEmbedding),
    Conv(ConvStem),
}

/// The encoder: patch vectors plus positions, pre-norm blocks, a final norm.
#[derive(Module, Debug)]
pub struct Vit {
    embed: Embed,
    position: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Vit {
    /// Builds the encoder of a validated config.
    pub fn new(w: &mut Weights, c: &VisionConfig) -> Self {
        let embed = w.scope("embed", |w| match c.stem {
            Stem::Patch => Embed::Patch(w.scope("Patch", |w| {
                PatchEmbedding::new(w, c.num_channels, c.patch_size, c.hidden_size)
            })),
            Stem::Conv => Embed::Conv(w.scope("Conv", |w| {
                ConvStem::new(
                    w,
                    c.num_channels,
                    c.patch_size,
                    c.hidden_size,
                    c.layer_norm_eps,
                )
            })),
        });
        let block = TransformerConfig {
            width: c.hidden_size,
            heads: c.num_attention_heads,
            hidden: c.intermediate_size,
            layers: c.num_hidden_layers,
            activation: Activation::Gelu,
            eps: c.layer_norm_eps,
            causal: false,
            layer_scale: None,
        };
        Self {
            embed,
            position: w.param(
                "position",
                [c.num_patches(), c.hidden_size],
                Init::Normal(0.1),
            ),
            blocks: (0..c.num_hidden_layers)
                .map(|i| w.scope(&format!("blocks.{i}"), |w| Block::new(w, &block)))
                .collect(),
            norm: w.scope("norm", |w| {
                LayerNorm::new(w, c.hidden_size, c.layer_norm_eps)
            }),
        }
    }

    /// # Shapes
    /// `pixel_values: [B, C, H, W]`; gives `[B, N, D]`.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let x = match &self.embed {
            Embed::Patch(embed) => embed.forward(pixel_values),
            Embed::Conv(stem) => stem.forward(pixel_values),
        }; // [B, N, D]
        let mut x = x + self.position.val().unsqueeze();
        for block in &self.blocks {
            x = block.forward(x, None);
        }
        self.norm.forward(x)
    }
}
