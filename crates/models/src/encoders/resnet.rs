//! CLIP's ResNet (Radford et al., 2021), after He et al., "Bag of tricks for image classification", 2019: three
//! convolutions as a stem, average pooling wherever a stride would skip pixels (Zhang, "Making convolutional networks
//! shift-invariant again", 2019), and attention in place of the final mean.
//!
//! ```text
//!   pixels -> stem /4 -> 4 stages of bottlenecks, /2 each but the first -> mean token + positions -> attention -> [E]
//! ```
//!
//! Legend: `B` pictures, `H`, `W` height and width, `D` channels of the last stage (32 times the width), `E` width of
//! the output.

use super::residual::{BlockWidths, EXPANSION, ResidualBlock, Skipping, conv, norm, shrunk};
use super::vit::{check_heads, check_size};
use crate::capability::Pictures;
use crate::error::{Error, expect};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use vlm_nn::ops::{self, AttentionOptions};
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{BatchNorm2d, Conv2d, Linear, Statistics};

/// Colour channels.
const CHANNELS: usize = 3;
/// Pixels that become one position of the last stage, in either direction.
const SHRINKING: usize = 32;

/// Sizes of a [`ModifiedResNet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModifiedResNetConfig {
    /// Height and width of a picture, in pixels.
    pub image_size: usize,
    /// Bottlenecks of each stage.
    pub layers: [usize; 4],
    /// Width of the first stage; each later one is twice as wide.
    pub width: usize,
    /// Heads of the attention at the end.
    pub heads: usize,
    /// Width `E` of the output.
    pub output_size: usize,
}

impl ModifiedResNetConfig {
    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        check_size("vision_cfg.image_size", self.image_size, 4096)?;
        expect(
            self.image_size >= SHRINKING,
            "vision_cfg.image_size",
            format!("at least {SHRINKING}"),
            self.image_size,
        )?;
        // the stem rounds up where it halves, the rest down
        expect(
            self.image_size.div_ceil(2) / 16 == self.image_size / SHRINKING,
            "vision_cfg.image_size",
            format!("a multiple of {SHRINKING}"),
            self.image_size,
        )?;
        for blocks in self.layers {
            check_size("vision_cfg.layers", blocks, 256)?;
        }
        check_size("vision_cfg.width", self.width, 1024)?;
        expect(
            self.width.is_multiple_of(2),
            "vision_cfg.width",
            "an even number",
            self.width,
        )?;
        check_size("embed_dim", self.output_size, 16384)?;
        check_heads("vision_cfg.head_width", self.features(), self.heads)
    }

    /// Channels `D` of the last stage.
    pub fn features(&self) -> usize {
        self.width * 8 * EXPANSION
    }
}

/// The mean of all positions attends to them.
#[derive(Module, Debug)]
struct AttentionPool {
    position: Param<Tensor<2>>,
    q: Linear,
    kv: Linear,
    out: Linear,
    heads: usize,
}

impl AttentionPool {
    fn new(w: &mut Weights, c: &ModifiedResNetConfig) -> Self {
        let d = c.features();
        let positions = 1 + (c.image_size / SHRINKING).pow(2);
        let init = Init::fan_in(d);
        Self {
            position: w.param("position", [positions, d], init),
            q: w.scope("q", |w| Linear::new(w, d, d, true, init)),
            kv: w.scope("kv", |w| Linear::new(w, d, 2 * d, true, init)),
            out: w.scope("out", |w| Linear::new(w, d, c.output_size, true, init)),
            heads: c.heads,
        }
    }

    /// `[B, D, H, W]` to `[B, E]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let [b, d, h, w] = x.dims();
        let x = x.reshape([b, d, h * w]).swap_dims(1, 2); // [B, H * W, D]
        let x = Tensor::cat(vec![x.clone().mean_dim(1), x], 1); // [B, 1 + H * W, D]
        let x = x + self.position.val().unsqueeze();
        let options = AttentionOptions {
            heads: self.heads,
            causal: false,
            past: 0,
            scale: ((d / self.heads) as f32).powf(-0.5),
            key_lengths: None,
            key_mask: None,
        };
        let q = self.q.forward(x.clone().narrow(1, 0, 1)); // [B, 1, D]
        let x = ops::cross_attention(q, self.kv.forward(x), options);
        self.out.forward(x.reshape([b, d]))
    }
}

/// The tower.
#[derive(Module, Debug)]
pub struct ModifiedResNet {
    conv1: Conv2d,
    norm1: BatchNorm2d,
    conv2: Conv2d,
    norm2: BatchNorm2d,
    conv3: Conv2d,
    norm3: BatchNorm2d,
    layer1: Vec<ResidualBlock>,
    layer2: Vec<ResidualBlock>,
    layer3: Vec<ResidualBlock>,
    layer4: Vec<ResidualBlock>,
    pool: AttentionPool,
    #[module(skip)]
    config: ModifiedResNetConfig,
}

impl ModifiedResNet {
    /// Builds the tower of a validated config.
    pub fn new(w: &mut Weights, c: &ModifiedResNetConfig) -> Self {
        let half = c.width / 2;
        let layer = |w: &mut Weights, i: usize| {
            let width = c.width << i;
            let block = |j: usize| {
                let (inputs, stride) = match (i, j) {
                    (0, 0) => (width, 1),
                    (_, 0) => (EXPANSION * width / 2, 2),
                    _ => (EXPANSION * width, 1),
                };
                let name = format!("layer{}.{j}", i + 1);
                let widths = BlockWidths {
                    inputs,
                    inner: Some(width),
                    outputs: EXPANSION * width,
                };
                w.scope(&name, |w| {
                    ResidualBlock::new(w, widths, stride, Skipping::Pooled)
                })
            };
            (0..c.layers[i]).map(block).collect()
        };
        Self {
            conv1: conv(w, "conv1", [CHANNELS, half], [3, 2, 1]),
            norm1: norm(w, "norm1", half),
            conv2: conv(w, "conv2", [half, half], [3, 1, 1]),
            norm2: norm(w, "norm2", half),
            conv3: conv(w, "conv3", [half, c.width], [3, 1, 1]),
            norm3: norm(w, "norm3", c.width),
            layer1: layer(w, 0),
            layer2: layer(w, 1),
            layer3: layer(w, 2),
            layer4: layer(w, 3),
            pool: w.scope("pool", |w| AttentionPool::new(w, c)),
            config: c.clone(),
        }
    }

    /// The config that the tower was built from.
    pub fn config(&self) -> &ModifiedResNetConfig {
        &self.config
    }

    /// One vector per picture, not normalised to unit length.
    ///
    /// # Shapes
    /// Gives `[B, E]`.
    ///
    /// # Errors
    /// Pictures of another form or size.
    pub fn encode(&self, pictures: &Pictures, statistics: Statistics) -> Result<Tensor<2>, Error> {
        let mut x = pictures.fixed(CHANNELS)?;
        let ([_, _, h, w], side) = (x.dims(), self.config.image_size);
        expect(
            [h, w] == [side; 2],
            "pixel_values",
            format!("{side} x {side} pixels"),
            format!("{h} x {w}"),
        )?;
        let stem = [
            (&self.conv1, &self.norm1),
            (&self.conv2, &self.norm2),
            (&self.conv3, &self.norm3),
        ];
        for (conv, norm) in stem {
            x = relu(norm.forward(conv.forward(x), statistics));
        }
        x = shrunk(x, 2); // [B, width, H / 4, W / 4]
        let layers = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        for block in layers.into_iter().flatten() {
            x = block.forward(x, statistics);
        }
        Ok(self.pool.forward(x)) // from [B, D, H / 32, W / 32]
    }
}
