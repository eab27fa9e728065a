//! The picture half of a dual encoder: a ViT (Dosovitskiy et al., 2021) that ends in one vector per picture, in the
//! variants of CLIP (Radford et al., 2021) and SigLIP (Zhai et al., 2023).
//!
//! Legend: `B` pictures, `C` channels, `N` patches, `D` width, `E` width of the output.

use super::vit::{check_heads, check_size};
use crate::error::{Error, expect};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use vlm_nn::ops::{self, Activation, AttentionOptions};
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{Block, LayerNorm, Linear, Mlp, TransformerConfig, interpolated_2d};

/// How the patches become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisionPooling {
    /// A class token in front of the patches, normalised at the end.
    ClassToken,
    /// A learned query attends to the normalised patches, and an MLP follows (Lee et al., "Set transformer", 2019).
    Attention,
}

/// Sizes and variant of a [`VisionTower`].
#[derive(Clone, Debug, PartialEq)]
pub struct VisionTowerConfig {
    /// Height and width of a picture, in pixels.
    pub image_size: usize,
    /// Height and width of a patch, in pixels.
    pub patch_size: usize,
    /// Colour channels.
    pub num_channels: usize,
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
    /// Whether the patch embedding has a bias.
    pub patch_bias: bool,
    /// Whether a LayerNorm stands before the first block.
    pub pre_norm: bool,
    /// How the patches become one vector.
    pub pooling: VisionPooling,
    /// Width `E` of a linear map without bias at the end, if there is one.
    pub projection_dim: Option<usize>,
}

impl VisionTowerConfig {
    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("image_size", self.image_size, 4096),
            ("patch_size", self.patch_size, self.image_size),
            ("num_channels", self.num_channels, 16),
            ("hidden_size", self.hidden_size, 16384),
            ("intermediate_size", self.intermediate_size, 65536),
            ("num_hidden_layers", self.num_hidden_layers, 256),
        ];
        for (name, value, max) in sizes {
            check_size(&format!("vision_config.{name}"), value, max)?;
        }
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
        )
    }

    /// Patches of a picture.
    pub fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Width `E` of the tower's vectors.
    pub fn output_size(&self) -> usize {
        self.projection_dim.unwrap_or(self.hidden_size)
    }
}

/// A learned query that attends to the patches.
#[derive(Module, Debug)]
struct AttentionPooling {
    probe: Param<Tensor<3>>,
    q: Linear,
    kv: Linear,
    out: Linear,
    norm: LayerNorm,
    mlp: Mlp,
    heads: usize,
}

impl AttentionPooling {
    fn new(w: &mut Weights, c: &VisionTowerConfig) -> Self {
        let d = c.hidden_size;
        let init = Init::NORMAL;
        Self {
            probe: w.param("probe", [1, 1, d], init),
            q: w.scope("q", |w| Linear::new(w, d, d, true, init)),
            kv: w.scope("kv", |w| Linear::new(w, d, 2 * d, true, init)),
            out: w.scope("out", |w| Linear::new(w, d, d, true, init)),
            norm: w.scope("norm", |w| LayerNorm::new(w, d, c.layer_norm_eps)),
            mlp: w.scope("mlp", |w| {
                Mlp::new(w, d, c.intermediate_size, c.hidden_act, init)
            }),
            heads: c.num_attention_heads,
        }
    }

    /// `x: [B, N, D]`; gives `[B, D]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let [b, _, d] = x.dims();
        let q = self.q.forward(self.probe.val()).repeat_dim(0, b); // [B, 1, D]
        let options = AttentionOptions {
            heads: self.heads,
            causal: false,
            past: 0,
            scale: ((d / self.heads) as f32).powf(-0.5),
            key_lengths: None,
            key_mask: None,
        };
        let x = self
            .out
            .forward(ops::cross_attention(q, self.kv.forward(x), options)); // [B, 1, D]
        let x = self.mlp.forward(self.norm.forward(x.clone()), x);
        x.reshape([b, d])
    }
}

/// The tower.
#[derive(Module, Debug)]
pub struct VisionTower {
    patch: Linear,
    class: Option<Param<Tensor<1>>>,
    position: Param<Tensor<2>>,
    pre_norm: Option<LayerNorm>,
    blocks: Vec<Block>,
    post_norm: LayerNorm,
    pool: Option<AttentionPooling>,
    projection: Option<Linear>,
    patch_size: usize,
}

impl VisionTower {
    /// Builds the tower of a validated config.
    pub fn new(w: &mut Weights, c: &VisionTowerConfig) -> Self {
        let d = c.hidden_size;
        let inputs = c.num_channels * c.patch_size.pow(2);
        let classes = usize::from(c.pooling == VisionPooling::ClassToken);
        let block = TransformerConfig {
            width: d,
            heads: c.num_attention_heads,
            hidden: c.intermediate_size,
            layers: c.num_hidden_layers,
            activation: c.hidden_act,
            eps: c.layer_norm_eps,
            causal: false,
        };
        let norm = |w: &mut Weights| LayerNorm::new(w, d, c.layer_norm_eps);
        Self {
            patch: w.scope("patch", |w| {
                let init = Init::fan_in(inputs);
                Linear::new(w, inputs, d, c.patch_bias, init)
            }),
            class: (classes > 0).then(|| w.param("class", [d], Init::NORMAL)),
            position: w.param("position", [classes + c.num_patches(), d], Init::NORMAL),
            pre_norm: c.pre_norm.then(|| w.scope("pre_norm", norm)),
            blocks: (0..c.num_hidden_layers)
                .map(|i| w.scope(&format!("blocks.{i}"), |w| Block::new(w, &block)))
                .collect(),
            post_norm: w.scope("post_norm", norm),
            pool: (c.pooling == VisionPooling::Attention)
                .then(|| w.scope("pool", |w| AttentionPooling::new(w, c))),
            projection: c.projection_dim.map(|e| {
                let init = Init::fan_in(d);
                w.scope("projection", |w| Linear::new(w, d, e, false, init))
            }),
            patch_size: c.patch_size,
        }
    }

    /// Where the tower lies.
    pub fn device(&self) -> Device {
        self.position.val().device()
    }

    /// Patches, positions and the first norm, if there is one: what the first block reads. Pixels beyond a whole number
    /// of patches are left out; for another number of patches the positions are interpolated.
    ///
    /// # Shapes
    /// `pixel_values: [B, C, H, W]`; gives `[B, N, D]` or `[B, 1 + N, D]`.
    ///
    /// # Panics
    /// If a picture is smaller than a patch.
    pub fn embed(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let [b, _, h, w] = pixel_values.dims();
        let p = self.patch_size;
        let grid = [h / p, w / p];
        let pixels = pixel_values.narrow(2, 0, grid[0] * p);
        let pixels = pixels.narrow(3, 0, grid[1] * p);
        let mut x = self.patch.forward(ops::patchify(pixels, p)); // [B, N, D]
        if let Some(class) = &self.class {
            let class: Tensor<3> = class.val().unsqueeze(); // [1, 1, D]
            x = Tensor::cat(vec![class.repeat_dim(0, b), x], 1); // [B, 1 + N, D]
        }
        x = x + self.positions(grid).unsqueeze();
        match &self.pre_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    /// Position embeddings for so many rows and columns of patches, the class token's first if there is one.
    fn positions(&self, grid: [usize; 2]) -> Tensor<2> {
        let table = self.position.val();
        let classes = usize::from(self.class.is_some());
        let patches = table.dims()[0] - classes;
        let side = patches.isqrt();
        if [side; 2] == grid {
            return table;
        }
        let patches = table.clone().narrow(0, classes, patches);
        let patches = interpolated_2d(patches, [side; 2], grid);
        if classes == 0 {
            return patches;
        }
        Tensor::cat(vec![table.narrow(0, 0, classes), patches], 0)
    }

    /// Hidden states of all tokens after the last block, the class token first if there is one.
    ///
    /// # Shapes
    /// As [`Self::embed`].
    pub fn hidden_states(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let x = self.embed(pixel_values);
        self.blocks
            .iter()
            .fold(x, |x, block| block.forward(x, None))
    }

    /// [`Self::embed`] and every block's output.
    pub fn trace(&self, pixel_values: Tensor<4>) -> Vec<Tensor<3>> {
        let mut states = vec![self.embed(pixel_values)];
        for (i, block) in self.blocks.iter().enumerate() {
            states.push(block.forward(states[i].clone(), None));
        }
        states
    }

    /// The final norm on every token, as what attends to a picture reads it.
    ///
    /// # Shapes
    /// `x` from [`Self::hidden_states`]; gives the same.
    pub fn normalized(&self, x: Tensor<3>) -> Tensor<3> {
        self.post_norm.forward(x)
    }

    /// One vector per picture, not normalised to unit length.
    ///
    /// # Shapes
    /// `pixel_values: [B, C, H, W]`; gives `[B, E]`.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        let x = self.hidden_states(pixel_values);
        let [b, _, d] = x.dims();
        let pooled = match &self.pool {
            Some(pool) => pool.forward(self.post_norm.forward(x)),
            None => self.post_norm.forward(x.narrow(1, 0, 1).reshape([b, d])),
        }; // [B, D]
        match &self.projection {
            Some(projection) => projection.forward(pooled),
            None => pooled,
        }
    }
}
