//! ResNet (He et al., "Deep residual learning for image recognition", 2016) and ResNeXt (Xie et al., "Aggregated residual
//! transformations for deep neural networks", 2017) as detectors use them: a map of features after every stage, and
//! norms that stay as they are, or learn where one is trained from nothing.
//!
//! ```text
//!   pixels -> 7 x 7 /2 -> max /2 -> layer1 -> layer2 /2 -> layer3 /2 -> layer4 /2
//! ```
//!
//! Pictures have their channels last. Legend: `B` pictures, `H`, `W` height and width, `C` channels.

use super::vit::check_size;
use crate::error::{Error, expect};
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use vlm_nn::ops::Activation;
use vlm_nn::weights::Weights;
use vlm_nn::{BatchNorm2d, Conv2d, Statistics};

/// Sizes of a [`ResNetStages`].
#[derive(Clone, Debug, PartialEq)]
pub struct ResNetStagesConfig {
    /// Bottlenecks of each stage; a detector may leave out the last stages.
    pub layers: Vec<usize>,
    /// Channels of the stem.
    pub stem_width: usize,
    /// Channels that leave the first stage; each later stage has twice as many.
    pub width: usize,
    /// Groups of the 3 x 3 convolutions.
    pub groups: usize,
    /// Channels of each group in the first stage.
    pub width_per_group: usize,
    /// Whether the first convolution of a stage moves by two pixels, as in the original ResNet, or the 3 x 3 one.
    pub stride_in_1x1: bool,
    /// Added to the variance in every norm; 0 in released detectors.
    pub norm_eps: f64,
}

impl ResNetStagesConfig {
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        expect(
            (1..=4).contains(&self.layers.len()),
            "layers",
            "one to four stages",
            self.layers.len(),
        )?;
        for &blocks in &self.layers {
            check_size("layers", blocks, 256)?;
        }
        for (name, value) in [
            ("stem_width", self.stem_width),
            ("width", self.width),
            ("groups", self.groups),
            ("width_per_group", self.width_per_group),
        ] {
            check_size(name, value, 4096)?;
        }
        expect(
            self.norm_eps >= 0.0 && self.norm_eps < 1.0,
            "norm_eps",
            "0 to 1",
            self.norm_eps,
        )
    }

    /// Channels that leave stage `i`, from 0.
    pub fn outputs(&self, i: usize) -> usize {
        self.width << i
    }

    fn inner(&self, i: usize) -> usize {
        (self.groups * self.width_per_group) << i
    }
}

#[derive(Module, Debug)]
struct Shortcut {
    conv: Conv2d,
    norm: BatchNorm2d,
}

/// Three convolutions around which the input is added; parameters `conv1` to `conv3`, `norm1` to `norm3` and, where the
/// size changes, `shortcut`.
#[derive(Module, Debug)]
pub struct Bottleneck {
    conv1: Conv2d,
    norm1: BatchNorm2d,
    conv2: Conv2d,
    norm2: BatchNorm2d,
    conv3: Conv2d,
    norm3: BatchNorm2d,
    shortcut: Option<Shortcut>,
}

impl Bottleneck {
    fn new(
        w: &mut Weights,
        c: &ResNetStagesConfig,
        [inputs, inner, outputs]: [usize; 3],
        stride: usize,
    ) -> Self {
        let conv = |w: &mut Weights, name: &str, channels, window, groups| {
            w.scope(name, |w| {
                Conv2d::grouped(w, channels, window, groups, false)
            })
        };
        let norm = |w: &mut Weights, name: &str, channels| {
            w.scope(name, |w| BatchNorm2d::with_eps(w, channels, c.norm_eps))
        };
        let (first, second) = if c.stride_in_1x1 {
            (stride, 1)
        } else {
            (1, stride)
        };
        Self {
            conv1: conv(w, "conv1", [inputs, inner], [1, first, 0], 1),
            norm1: norm(w, "norm1", inner),
            conv2: conv(w, "conv2", [inner, inner], [3, second, 1], c.groups),
            norm2: norm(w, "norm2", inner),
            conv3: conv(w, "conv3", [inner, outputs], [1, 1, 0], 1),
            norm3: norm(w, "norm3", outputs),
            shortcut: (stride > 1 || inputs != outputs).then(|| {
                w.scope("shortcut", |w| Shortcut {
                    conv: conv(w, "conv", [inputs, outputs], [1, stride, 0], 1),
                    norm: norm(w, "norm", outputs),
                })
            }),
        }
    }

    /// # Shapes
    /// `[B, H, W, C]`; gives `[B, H / stride, W / stride, outputs]`, rounded up.
    pub fn forward(&self, x: Tensor<4>, statistics: Statistics) -> Tensor<4> {
        let short = match &self.shortcut {
            Some(s) => normed(&s.conv, &s.norm, x.clone(), statistics, Activation::None),
            None => x.clone(),
        };
        let x = normed(&self.conv1, &self.norm1, x, statistics, Activation::Relu);
        let x = normed(&self.conv2, &self.norm2, x, statistics, Activation::Relu);
        relu(match statistics {
            Statistics::Running => {
                let (norm, none) = (Some(&self.norm3), Activation::None);
                self.conv3.fused(x, norm, none, Some(short))
            }
            Statistics::Batch => {
                normed(&self.conv3, &self.norm3, x, statistics, Activation::None) + short
            }
        })
    }
}

/// A convolution and its norm: one operation where the norm's statistics are known beforehand.
fn normed(
    conv: &Conv2d,
    norm: &BatchNorm2d,
    x: Tensor<4>,
    statistics: Statistics,
    activation: Activation,
) -> Tensor<4> {
    if statistics == Statistics::Running {
        return conv.fused(x, Some(norm), activation, None);
    }
    norm.channels_last(conv.channels_last(x), statistics, activation)
}

/// The bottlenecks of stage `i`, from 0, under the current scope with their numbers.
pub fn stage(w: &mut Weights, c: &ResNetStagesConfig, i: usize, blocks: usize) -> Vec<Bottleneck> {
    let block = |j: usize| {
        let inputs = match (i, j) {
            (0, 0) => c.stem_width,
            (_, 0) => c.outputs(i - 1),
            _ => c.outputs(i),
        };
        let stride = if i > 0 && j == 0 { 2 } else { 1 };
        let channels = [inputs, c.inner(i), c.outputs(i)];
        w.scope(&j.to_string(), |w| Bottleneck::new(w, c, channels, stride))
    };
    (0..blocks).map(block).collect()
}

/// The network; parameters `conv1`, `norm1` and `layer1` to `layer4`.
#[derive(Module, Debug)]
pub struct ResNetStages {
    conv1: Conv2d,
    norm1: BatchNorm2d,
    layer1: Vec<Bottleneck>,
    layer2: Vec<Bottleneck>,
    layer3: Vec<Bottleneck>,
    layer4: Vec<Bottleneck>,
}

impl ResNetStages {
    /// Builds the network of a validated config for pictures of three channels.
    pub fn new(w: &mut Weights, c: &ResNetStagesConfig) -> Self {
        let layer = |w: &mut Weights, i: usize| {
            let blocks = c.layers.get(i).copied().unwrap_or(0);
            w.scope(&format!("layer{}", i + 1), |w| stage(w, c, i, blocks))
        };
        Self {
            conv1: w.scope("conv1", |w| {
                Conv2d::new(w, [3, c.stem_width], [7, 2, 3], false)
            }),
            norm1: w.scope("norm1", |w| {
                BatchNorm2d::with_eps(w, c.stem_width, c.norm_eps)
            }),
            layer1: layer(w, 0),
            layer2: layer(w, 1),
            layer3: layer(w, 2),
            layer4: layer(w, 3),
        }
    }

    /// The features after each stage.
    ///
    /// # Shapes
    /// `x: [B, H, W, 3]`; gives `[B, H / 4, W / 4, C]`, `[B, H / 8, W / 8, 2 C]` and so on, rounded up.
    pub fn forward(&self, x: Tensor<4>, statistics: Statistics) -> Vec<Tensor<4>> {
        let x = normed(&self.conv1, &self.norm1, x, statistics, Activation::Relu);
        let x = x.permute([0, 3, 1, 2]); // [B, stem, H / 2, W / 2]
        let window = MaxPoolOptions::new([3, 3]).with_stride([2, 2]);
        let x = max_pool2d(x, window.with_padding([1, 1]));
        let mut x = x.permute([0, 2, 3, 1]); // [B, H / 4, W / 4, stem]
        let layers = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        let mut features = Vec::new();
        for layer in layers.into_iter().filter(|layer| !layer.is_empty()) {
            x = layer
                .iter()
                .fold(x, |x, block| block.forward(x, statistics));
            features.push(x.clone());
        }
        features
    }
}
