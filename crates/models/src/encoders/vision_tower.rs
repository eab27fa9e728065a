//! The picture half of a dual encoder: a ViT (Dosovitskiy et al., 2021) that ends in one vector per picture, in the
//! variants of CLIP (Radford et al., 2021), open_clip (Ilharco et al., 2021), SigLIP (Zhai et al., 2023) and SigLIP 2
//! with pictures of any shape (NaFlex; Tschannen et al., 2025).
//!
//! Legend: `B` pictures, `C` channels, `N` patches, `P` patch side, `T` tokens (patches and a class token), `D` width,
//! `E` width of the output.

use super::vit::{check_heads, check_size};
use crate::capability::Pictures;
use crate::error::{Error, expect};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use vlm_nn::ops::{self, Activation};
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{
    Block, CrossAttention, Interpolation, KeyMask, LayerNorm, Linear, Mlp, TransformerConfig,
    resized_grid,
};

/// How the patches become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisionPooling {
    /// A class token in front of the patches, normalised at the end.
    ClassToken,
    /// A class token in front of the patches, all normalised at the end.
    NormThenClassToken,
    /// The mean of the normalised patches; the class token in front of them is left out.
    NormThenMean,
    /// The normalised mean of the patches; the class token in front of them is left out.
    MeanThenNorm,
    /// A learned query attends to the normalised patches, and an MLP follows (Lee et al., "Set transformer", 2019).
    Attention,
    /// Not at all.
    None,
}

impl VisionPooling {
    /// Whether there is a class token.
    fn class_token(self) -> bool {
        !matches!(self, Self::Attention | Self::None)
    }
}

/// Sizes and variant of a [`VisionTower`].
#[derive(Clone, Debug, PartialEq)]
pub struct VisionTowerConfig {
    /// Height and width of a picture, in pixels; what is left over behind the last whole patch is not seen.
    pub image_size: [usize; 2],
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
    /// Initial factor on what blocks add, see [`TransformerConfig::layer_scale`].
    pub layer_scale: Option<f32>,
    /// Whether pictures come as patches, of any number of rows and columns, for which the positions of a picture of
    /// `image_size` are interpolated.
    pub naflex: bool,
    /// How the patches become one vector.
    pub pooling: VisionPooling,
    /// Width `E` of a linear map without bias at the end, if there is one.
    pub projection_dim: Option<usize>,
}

impl VisionTowerConfig {
    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        let [height, width] = self.image_size;
        let sizes = [
            ("image_size", height, 4096),
            ("image_size", width, 4096),
            ("patch_size", self.patch_size, height.min(width)),
            ("num_channels", self.num_channels, 16),
            ("hidden_size", self.hidden_size, 16384),
            ("intermediate_size", self.intermediate_size, 65536),
            ("num_hidden_layers", self.num_hidden_layers, 256),
            (
                "projection_dim",
                self.projection_dim.unwrap_or(self.hidden_size),
                16384,
            ),
        ];
        for (name, value, max) in sizes {
            check_size(&format!("vision_config.{name}"), value, max)?;
        }
        check_heads(
            "vision_config.num_attention_heads",
            self.hidden_size,
            self.num_attention_heads,
        )
    }

    /// Rows and columns of patches of a picture.
    pub fn grid(&self) -> [usize; 2] {
        self.image_size.map(|side| side / self.patch_size)
    }

    /// Patches of a picture.
    pub fn num_patches(&self) -> usize {
        self.grid().iter().product()
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
    attn: CrossAttention,
    norm: LayerNorm,
    mlp: Mlp,
}

impl AttentionPooling {
    fn new(w: &mut Weights, c: &VisionTowerConfig) -> Self {
        let (d, heads, init) = (c.hidden_size, c.num_attention_heads, Init::NORMAL);
        Self {
            probe: w.param("probe", [1, 1, d], init),
            attn: w.scope("attn", |w| CrossAttention::new(w, d, d, heads, init)),
            norm: w.scope("norm", |w| LayerNorm::new(w, d, c.layer_norm_eps)),
            mlp: w.scope("mlp", |w| {
                Mlp::new(w, d, c.intermediate_size, c.hidden_act, init)
            }),
        }
    }

    /// `x: [B, N, D]`; gives `[B, D]`.
    fn forward(&self, x: Tensor<3>, keys: &KeyMask) -> Tensor<2> {
        let [b, _, d] = x.dims();
        let probe = self.probe.val().repeat_dim(0, b); // [B, 1, D]
        let (kv, nothing) = (self.attn.keys_values(x), probe.zeros_like());
        let x = self.attn.masked(probe, kv, nothing, keys); // [B, 1, D]
        let x = self.mlp.forward(self.norm.forward(x.clone()), x);
        x.reshape([b, d])
    }
}

/// What a picture encoder makes of pictures.
#[derive(Clone, Debug)]
pub struct VisionStates {
    /// `[B, T, D]`: after the last block; normalised where the pooling reads normalised patches. A tower of
    /// convolutions has none.
    pub last_hidden_state: Option<Tensor<3>>,
    /// `[B, D]`, if the encoder pools.
    pub pooled: Option<Tensor<2>>,
    /// `[B, E]`: projected, if the encoder pools, not normalised to unit length.
    pub embeds: Option<Tensor<2>>,
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
    #[module(skip)]
    config: VisionTowerConfig,
}

impl VisionTower {
    /// Builds the tower of a validated config.
    pub fn new(w: &mut Weights, c: &VisionTowerConfig) -> Self {
        let d = c.hidden_size;
        let inputs = c.num_channels * c.patch_size.pow(2);
        let classes = usize::from(c.pooling.class_token());
        let block = TransformerConfig {
            width: d,
            heads: c.num_attention_heads,
            hidden: c.intermediate_size,
            layers: c.num_hidden_layers,
            activation: c.hidden_act,
            eps: c.layer_norm_eps,
            causal: false,
            layer_scale: c.layer_scale,
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
            config: c.clone(),
        }
    }

    /// The config that the tower was built from.
    pub fn config(&self) -> &VisionTowerConfig {
        &self.config
    }

    /// Where the tower lies.
    pub fn device(&self) -> Device {
        self.position.val().device()
    }

    /// The norm behind the last block.
    pub fn post_norm(&self) -> &LayerNorm {
        &self.post_norm
    }

    /// Positions of a picture of `grid` patches.
    ///
    /// # Shapes
    /// Gives `[1, T, D]`.
    fn positions(&self, grid: [usize; 2]) -> Tensor<3> {
        let (table, own) = (self.position.val(), self.config.grid());
        if grid == own {
            return table.unsqueeze();
        }
        let [rows, d] = table.dims();
        let classes = rows - own[0] * own[1];
        let patches = table.clone().slice([classes..rows, 0..d]);
        let patches = resized_grid(patches, own, grid, Interpolation::Bicubic, false);
        let table = if classes > 0 {
            Tensor::cat(vec![table.slice([0..classes, 0..d]), patches], 0)
        } else {
            patches
        };
        table.unsqueeze()
    }

    /// What the first block reads of pictures of one size: patches and positions, and the first norm if there is one.
    /// Pixels beyond a whole number of patches are left out; for another number of patches the positions are
    /// interpolated.
    ///
    /// # Shapes
    /// `pixel_values: [B, C, H, W]`; gives `[B, T, D]`.
    ///
    /// # Panics
    /// If a picture is smaller than a patch.
    pub fn embed(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let p = self.config.patch_size;
        let [b, c, h, w] = pixel_values.dims();
        let grid = [h / p, w / p];
        let whole = pixel_values.slice([0..b, 0..c, 0..grid[0] * p, 0..grid[1] * p]);
        let mut x = self.patch.forward(ops::patchify(whole, p)); // [B, N, D]
        if let Some(class) = &self.class {
            let class: Tensor<3> = class.val().unsqueeze(); // [1, 1, D]
            x = Tensor::cat(vec![class.repeat_dim(0, b), x], 1); // [B, 1 + N, D]
        }
        let x = x + self.positions(grid);
        match &self.pre_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    /// The same of patches of pictures of different shapes, each with positions interpolated for its own.
    ///
    /// # Shapes
    /// `pixel_values: [B, N, P * P * C]`; gives `[B, N, D]`.
    fn embed_patches(&self, pixel_values: Tensor<3>, shapes: &[[usize; 2]]) -> Tensor<3> {
        let n = pixel_values.dims()[1];
        let (table, own) = (self.position.val(), self.config.grid());
        let rows = shapes.iter().map(|&shape| {
            let count = shape[0] * shape[1];
            let table = resized_grid(table.clone(), own, shape, Interpolation::Bilinear, true);
            // PyTorch 2.15 on a CPU, and so the reference, gives every row of a single column the first row's value,
            // unless the number of rows stays
            let table = if shape[1] == 1 && shape[0] != own[0] {
                table.narrow(0, 0, 1).repeat_dim(0, count)
            } else {
                table
            };
            if count == n {
                return table.unsqueeze();
            }
            // padding has the first patch's position
            let first = table.clone().narrow(0, 0, 1).repeat_dim(0, n - count);
            Tensor::cat(vec![table, first], 0).unsqueeze()
        });
        self.patch.forward(pixel_values) + Tensor::cat(rows.collect(), 0)
    }

    /// Checks pictures and gives their patches' vectors and which of these are no padding.
    ///
    /// # Shapes
    /// Gives `[B, T, D]`.
    ///
    /// # Errors
    /// Pictures of another form, number of channels or size; another size is allowed if positions may be interpolated.
    pub fn embedded(
        &self,
        pictures: &Pictures,
        interpolate: bool,
    ) -> Result<(Tensor<3>, KeyMask), Error> {
        let c = &self.config;
        match pictures {
            Pictures::Patches {
                pixel_values,
                spatial_shapes,
            } if c.naflex => {
                let [b, n, width] = pixel_values.dims();
                let expected = c.num_channels * c.patch_size.pow(2);
                expect(
                    width == expected,
                    "pixel_values",
                    format!("{expected} numbers a patch"),
                    width,
                )?;
                expect(
                    b == spatial_shapes.len() && b > 0,
                    "spatial_shapes",
                    format!("a row for each of {b} pictures"),
                    spatial_shapes.len(),
                )?;
                let count = |[rows, columns]: [usize; 2]| rows.checked_mul(columns);
                let fits = |shape: &&[usize; 2]| {
                    !count(**shape).is_some_and(|count| (1..=n).contains(&count))
                };
                if let Some(bad) = spatial_shapes.iter().find(fits) {
                    expect(
                        false,
                        "spatial_shapes",
                        format!("1 to {n} patches a picture"),
                        format!("{bad:?}"),
                    )?;
                }
                let row = |&[rows, columns]: &[usize; 2]| -> Vec<bool> {
                    (0..n).map(|i| i < rows * columns).collect()
                };
                let mask: Vec<Vec<bool>> = spatial_shapes.iter().map(row).collect();
                let x = self.embed_patches(pixel_values.clone(), spatial_shapes);
                Ok((x, KeyMask::new(&mask)))
            }
            _ if c.naflex => Err(Error::Config {
                place: "pixel_values".to_owned(),
                expected: format!("patches of {0} x {0} pixels in rows", c.patch_size),
                found: "pictures of another kind".to_owned(),
            }),
            pictures => {
                let pixels = pictures.fixed(c.num_channels)?;
                let [_, _, h, w] = pixels.dims();
                if interpolate {
                    let least = h.min(w);
                    let p = c.patch_size;
                    expect(
                        least >= p,
                        "pixel_values",
                        format!("at least {p} pixels"),
                        least,
                    )?;
                } else {
                    expect(
                        [h, w] == c.image_size,
                        "pixel_values",
                        format!("{} x {} pixels", c.image_size[0], c.image_size[1]),
                        format!("{h} x {w}"),
                    )?;
                }
                Ok((self.embed(pixels), KeyMask::default()))
            }
        }
    }

    /// The blocks, whose inputs and last output `trace` takes.
    fn through(
        &self,
        mut x: Tensor<3>,
        keys: &KeyMask,
        mut trace: Option<&mut Vec<Tensor<3>>>,
    ) -> Tensor<3> {
        for block in &self.blocks {
            if let Some(trace) = &mut trace {
                trace.push(x.clone());
            }
            x = block.masked(x, keys, None);
        }
        if let Some(trace) = trace {
            trace.push(x.clone());
        }
        x
    }

    /// Everything behind the patches' vectors; `trace` takes the input of each block and the output of the last.
    ///
    /// # Shapes
    /// `x: [B, T, D]` from [`Self::embedded`].
    pub fn encode(
        &self,
        x: Tensor<3>,
        keys: &KeyMask,
        trace: Option<&mut Vec<Tensor<3>>>,
    ) -> VisionStates {
        let x = self.through(x, keys, trace);
        let [b, t, d] = x.dims();
        let class = |x: Tensor<3>| x.narrow(1, 0, 1).reshape([b, d]);
        let mean = |x: Tensor<3>| x.narrow(1, 1, t - 1).mean_dim(1).reshape([b, d]);
        let norm = &self.post_norm;
        let (last, pooled) = match self.config.pooling {
            VisionPooling::ClassToken => (x.clone(), Some(norm.forward(class(x)))),
            VisionPooling::NormThenClassToken => {
                let x = norm.forward(x);
                (x.clone(), Some(class(x)))
            }
            VisionPooling::NormThenMean => (x.clone(), Some(mean(norm.forward(x)))),
            VisionPooling::MeanThenNorm => (x.clone(), Some(norm.forward(mean(x)))),
            VisionPooling::Attention | VisionPooling::None => {
                let x = norm.forward(x);
                let pooled = self.pool.as_ref().map(|p| p.forward(x.clone(), keys));
                (x, pooled)
            }
        };
        let embeds = match (&self.projection, &pooled) {
            (Some(projection), Some(pooled)) => Some(projection.forward(pooled.clone())),
            _ => pooled.clone(),
        };
        VisionStates {
            last_hidden_state: Some(last),
            pooled,
            embeds,
        }
    }

    /// One vector per picture, not normalised to unit length, of pictures of any size.
    ///
    /// # Shapes
    /// `pixel_values: [B, C, H, W]`; gives `[B, E]`.
    ///
    /// # Panics
    /// On a tower that does not pool.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        let x = self.embed(pixel_values);
        let states = self.encode(x, &KeyMask::default(), None);
        states.embeds.expect("a tower that pools")
    }
}
