//! Convolutional encoders of pictures, with torchvision's arithmetic: ResNet (He et al., 2016) and VGG (Simonyan &
//! Zisserman, 2015).
//!
//! ```text
//!   ResNet: pixels -> 7x7 convolution /2 -> max pooling /2 -> 4 stages of blocks, /2 each but the first -> [B, D, H/32, W/32]
//!   VGG:    pixels -> 5 stages of 3x3 convolutions, each with max pooling /2 ---------------------------> [B, D, H/32, W/32]
//! ```
//!
//! Legend: `B` pictures, `H`, `W` height and width, `D` channels of the last map.

use super::residual::{BlockWidths, EXPANSION, ResidualBlock, Skipping, conv, norm};
use super::vit::check_size;
use crate::error::{Error, expect};
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vlm_nn::weights::{Checkpoint, Weights};
use vlm_nn::{BatchNorm2d, Conv2d, Statistics};

/// Colour channels.
pub const CHANNELS: usize = 3;
/// The fewest pixels a side of which a map has at least one place.
pub const SMALLEST: usize = 32;

/// Sizes of a `ResNet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// Blocks of each stage.
    pub layers: [usize; 4],
    /// Whether blocks are bottlenecks of three convolutions, or else of two.
    pub bottleneck: bool,
    /// Width of the first stage; each later one is twice as wide.
    pub width: usize,
    /// Channels inside the bottlenecks of the first stage, which grow as the width does; `width` but for the wide ResNets
    /// (Zagoruyko & Komodakis, 2016), where it is twice that.
    pub inner_width: usize,
}

/// Sizes of a `Vgg`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VggConfig {
    /// Channels of each convolution of each stage.
    pub stages: Vec<Vec<usize>>,
    /// Whether a batch norm follows each convolution.
    pub batch_norm: bool,
    /// Whether the last stage ends with pooling too, as torchvision's does; Show, Attend and Tell looks at the map before
    /// it.
    pub last_pooling: bool,
}

/// Sizes of a [`Cnn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CnnConfig {
    /// Residual.
    Resnet(ResNetConfig),
    /// Plain.
    Vgg(VggConfig),
}

impl CnnConfig {
    /// Names that [`Self::named`] knows.
    pub const NAMES: [&str; 15] = [
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "wide_resnet50_2",
        "wide_resnet101_2",
        "vgg11",
        "vgg11_bn",
        "vgg13",
        "vgg13_bn",
        "vgg16",
        "vgg16_bn",
        "vgg19",
        "vgg19_bn",
    ];

    /// The architecture that torchvision calls so.
    ///
    /// # Errors
    /// Another name.
    pub fn named(architecture: &str) -> Result<Self, Error> {
        let resnet = |layers, bottleneck, inner_width| {
            Self::Resnet(ResNetConfig {
                layers,
                bottleneck,
                width: 64,
                inner_width,
            })
        };
        let vgg = |convolutions: [usize; 5], batch_norm| {
            let widths = [64, 128, 256, 512, 512];
            let stages = convolutions.iter().zip(widths);
            Self::Vgg(VggConfig {
                stages: stages.map(|(&count, width)| vec![width; count]).collect(),
                batch_norm,
                last_pooling: true,
            })
        };
        let (plain, batch_norm) = match architecture.strip_suffix("_bn") {
            Some(plain) => (plain, true),
            None => (architecture, false),
        };
        Ok(match (plain, batch_norm) {
            ("resnet18", false) => resnet([2, 2, 2, 2], false, 64),
            ("resnet34", false) => resnet([3, 4, 6, 3], false, 64),
            ("resnet50", false) => resnet([3, 4, 6, 3], true, 64),
            ("resnet101", false) => resnet([3, 4, 23, 3], true, 64),
            ("resnet152", false) => resnet([3, 8, 36, 3], true, 64),
            ("wide_resnet50_2", false) => resnet([3, 4, 6, 3], true, 128),
            ("wide_resnet101_2", false) => resnet([3, 4, 23, 3], true, 128),
            ("vgg11", bn) => vgg([1, 1, 2, 2, 2], bn),
            ("vgg13", bn) => vgg([2, 2, 2, 2, 2], bn),
            ("vgg16", bn) => vgg([2, 2, 3, 3, 3], bn),
            ("vgg19", bn) => vgg([2, 2, 4, 4, 4], bn),
            _ => {
                return Err(Error::Config {
                    place: "architecture".to_owned(),
                    expected: format!("one of {}", Self::NAMES.join(", ")),
                    found: format!("{architecture:?}"),
                });
            }
        })
    }

    /// What the names and shapes of a checkpoint's tensors tell, which has our names under `prefix`.
    ///
    /// # Errors
    /// Tensors of no such network.
    pub fn told(checkpoint: &Checkpoint, prefix: &str) -> Result<Self, Error> {
        let shape = |name: &str| checkpoint.shape(&format!("{prefix}{name}"));
        let channels = |name: &str| shape(name).and_then(|s| s.first().copied());
        let count = |part: &str| {
            let weight = |i: &usize| shape(&format!("{part}.{i}.conv1.weight")).is_some();
            (0..1024).take_while(weight).count()
        };
        let config = if let Some(width) = channels("resnet.conv1.weight") {
            let bottleneck = shape("resnet.layer1.0.conv3.weight").is_some();
            Self::Resnet(ResNetConfig {
                layers: [1, 2, 3, 4].map(|i| count(&format!("resnet.layer{i}"))),
                bottleneck,
                width,
                inner_width: match bottleneck {
                    true => channels("resnet.layer1.0.conv1.weight").unwrap_or(width),
                    false => width,
                },
            })
        } else {
            let stage = |s: usize| {
                let channels = |j| channels(&format!("vgg.stages.{s}.{j}.conv.weight"));
                (0..64).map_while(channels).collect::<Vec<usize>>()
            };
            let stages = (0..64).map(stage).take_while(|stage| !stage.is_empty());
            Self::Vgg(VggConfig {
                stages: stages.collect(),
                batch_norm: shape("vgg.stages.0.0.norm.weight").is_some(),
                last_pooling: true,
            })
        };
        config.validate()?;
        Ok(config)
    }

    /// # Errors
    /// The first size that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        match self {
            Self::Resnet(c) => {
                for blocks in c.layers {
                    check_size("encoder.layers", blocks, 256)?;
                }
                check_size("encoder.width", c.width, 1024)?;
                check_size("encoder.inner_width", c.inner_width, 4096)?;
                expect(
                    c.bottleneck || c.inner_width == c.width,
                    "encoder.inner_width",
                    "the width, as blocks without a bottleneck have no other",
                    c.inner_width,
                )
            }
            Self::Vgg(c) => {
                check_size("encoder.stages", c.stages.len(), 5)?;
                for stage in &c.stages {
                    check_size("encoder.stages", stage.len(), 64)?;
                }
                for &channels in c.stages.iter().flatten() {
                    check_size("encoder.stages", channels, 8192)?;
                }
                Ok(())
            }
        }
    }

    /// Channels `D` of the last map.
    pub fn features(&self) -> usize {
        match self {
            Self::Resnet(c) if c.bottleneck => 8 * c.width * EXPANSION,
            Self::Resnet(c) => 8 * c.width,
            Self::Vgg(c) => *c.stages.iter().flatten().next_back().unwrap_or(&0),
        }
    }
}

/// Residual network.
#[derive(Module, Debug)]
struct ResNet {
    conv1: Conv2d,
    norm1: BatchNorm2d,
    layer1: Vec<ResidualBlock>,
    layer2: Vec<ResidualBlock>,
    layer3: Vec<ResidualBlock>,
    layer4: Vec<ResidualBlock>,
}

impl ResNet {
    fn new(w: &mut Weights, c: &ResNetConfig) -> Self {
        let expansion = if c.bottleneck { EXPANSION } else { 1 };
        let stage = |w: &mut Weights, i: usize| {
            let outputs = (c.width << i) * expansion;
            let block = |j: usize| {
                let (inputs, stride) = match (i, j) {
                    (0, 0) => (c.width, 1),
                    (_, 0) => (outputs / 2, 2),
                    _ => (outputs, 1),
                };
                let widths = BlockWidths {
                    inputs,
                    inner: c.bottleneck.then_some(c.inner_width << i),
                    outputs,
                };
                w.scope(&format!("layer{}.{j}", i + 1), |w| {
                    ResidualBlock::new(w, widths, stride, Skipping::Strided)
                })
            };
            (0..c.layers[i]).map(block).collect()
        };
        Self {
            conv1: conv(w, "conv1", [CHANNELS, c.width], [7, 2, 3]),
            norm1: norm(w, "norm1", c.width),
            layer1: stage(w, 0),
            layer2: stage(w, 1),
            layer3: stage(w, 2),
            layer4: stage(w, 3),
        }
    }

    fn forward(
        &self,
        x: Tensor<4>,
        s: Statistics,
        trace: &mut Option<Vec<Tensor<4>>>,
    ) -> Tensor<4> {
        let x = relu(self.norm1.forward(self.conv1.forward(x), s));
        let mut x = pooled(x, 3, 1); // [B, width, H / 4, W / 4]
        for layer in [&self.layer1, &self.layer2, &self.layer3, &self.layer4] {
            for block in layer {
                x = block.forward(x, s);
            }
            if let Some(trace) = trace {
                trace.push(x.clone());
            }
        }
        x
    }
}

/// A convolution of a [`Vgg`].
#[derive(Module, Debug)]
struct VggLayer {
    conv: Conv2d,
    norm: Option<BatchNorm2d>,
}

/// Plain network of small convolutions.
#[derive(Module, Debug)]
struct Vgg {
    stages: Vec<Vec<VggLayer>>,
    last_pooling: bool,
}

impl Vgg {
    fn new(w: &mut Weights, c: &VggConfig) -> Self {
        let mut inputs = CHANNELS;
        let mut layer = |(s, j, outputs): (usize, usize, usize)| {
            let widths = [inputs, outputs];
            inputs = outputs;
            w.scope(&format!("stages.{s}.{j}"), |w| VggLayer {
                conv: w.scope("conv", |w| Conv2d::new(w, widths, [3, 1, 1], true)),
                norm: c.batch_norm.then(|| norm(w, "norm", outputs)),
            })
        };
        let stages = c.stages.iter().enumerate();
        let stages = stages.map(|(s, stage)| {
            let layers = stage.iter().enumerate();
            layers.map(|(j, &outputs)| layer((s, j, outputs))).collect()
        });
        Self {
            stages: stages.collect(),
            last_pooling: c.last_pooling,
        }
    }

    fn forward(
        &self,
        mut x: Tensor<4>,
        s: Statistics,
        trace: &mut Option<Vec<Tensor<4>>>,
    ) -> Tensor<4> {
        for (i, stage) in self.stages.iter().enumerate() {
            for layer in stage {
                x = layer.conv.forward(x);
                if let Some(norm) = &layer.norm {
                    x = norm.forward(x, s);
                }
                x = relu(x);
            }
            if i + 1 < self.stages.len() || self.last_pooling {
                x = pooled(x, 2, 0);
            }
            if let Some(trace) = trace {
                trace.push(x.clone());
            }
        }
        x
    }
}

/// The largest of each window of `size` pixels, every second one.
fn pooled(x: Tensor<4>, size: usize, padding: usize) -> Tensor<4> {
    let options = MaxPoolOptions::new([size; 2])
        .with_stride([2; 2])
        .with_padding([padding; 2]);
    max_pool2d(x, options)
}

/// The encoder.
#[derive(Module, Debug)]
pub struct Cnn {
    resnet: Option<ResNet>,
    vgg: Option<Vgg>,
    #[module(skip)]
    config: CnnConfig,
}

impl Cnn {
    /// Builds the encoder of a validated config.
    pub fn new(w: &mut Weights, config: &CnnConfig) -> Self {
        let (mut resnet, mut vgg) = (None, None);
        match config {
            CnnConfig::Resnet(c) => resnet = Some(w.scope("resnet", |w| ResNet::new(w, c))),
            CnnConfig::Vgg(c) => vgg = Some(w.scope("vgg", |w| Vgg::new(w, c))),
        }
        Self {
            resnet,
            vgg,
            config: config.clone(),
        }
    }

    /// The config that the encoder was built from.
    pub fn config(&self) -> &CnnConfig {
        &self.config
    }

    /// The last map.
    ///
    /// # Shapes
    /// `[B, 3, H, W]`; gives `[B, D, H / 32, W / 32]`, sides rounded up by a ResNet and down by a VGG.
    ///
    /// # Errors
    /// Pictures too small for one place.
    pub fn features(&self, pixels: Tensor<4>, statistics: Statistics) -> Result<Tensor<4>, Error> {
        self.traced(pixels, statistics, &mut None)
    }

    /// [`Self::features`]; `trace` takes the map after each stage.
    pub(crate) fn traced(
        &self,
        pixels: Tensor<4>,
        statistics: Statistics,
        trace: &mut Option<Vec<Tensor<4>>>,
    ) -> Result<Tensor<4>, Error> {
        let [_, _, h, w] = pixels.dims();
        expect(
            h >= SMALLEST && w >= SMALLEST,
            "pixel_values",
            format!("at least {SMALLEST} x {SMALLEST} pixels"),
            format!("{h} x {w}"),
        )?;
        Ok(match (&self.resnet, &self.vgg) {
            (Some(resnet), _) => resnet.forward(pixels, statistics, trace),
            (_, Some(vgg)) => vgg.forward(pixels, statistics, trace),
            (None, None) => unreachable!("built as one of both"),
        })
    }
}

/// A checkpoint whose tensors under `prefix` have torchvision's names, with ours for them: `bn1`, `downsample`, and the
/// numbers that VGG's layers have in its sequence.
///
/// A sequence of the children of a torchvision ResNet, as captioners take it apart, is understood too.
#[must_use]
pub fn torchvision_names(checkpoint: Checkpoint, prefix: &str, ours: &str) -> Checkpoint {
    let vgg = VggPlaces::of(&checkpoint, prefix);
    checkpoint.renamed(|name| {
        let rest = name.strip_prefix(prefix)?;
        let new = match rest.strip_prefix("features.") {
            Some(layer) => format!("vgg.{}", vgg.name(layer)?),
            None => format!("resnet.{}", resnet_name(rest)?),
        };
        Some(format!("{ours}{new}"))
    })
}

/// Our name for a part of a ResNet.
fn resnet_name(name: &str) -> Option<String> {
    // children of the module by number: convolution, norm, activation, pooling and the four stages
    let children = [
        ("0.", "conv1."),
        ("1.", "bn1."),
        ("4.", "layer1."),
        ("5.", "layer2."),
        ("6.", "layer3."),
        ("7.", "layer4."),
    ];
    let child = children
        .iter()
        .find_map(|(number, child)| Some(format!("{child}{}", name.strip_prefix(number)?)));
    let name = child.unwrap_or_else(|| name.to_owned());
    let known = name.starts_with("conv1.") || name.starts_with("bn1.") || name.starts_with("layer");
    known.then(|| {
        name.replace("downsample.0.", "shortcut.conv.")
            .replace("downsample.1.", "shortcut.norm.")
            .replace("bn1.", "norm1.")
            .replace("bn2.", "norm2.")
            .replace("bn3.", "norm3.")
    })
}

/// Where VGG's convolutions stand in its sequence of convolutions, norms, activations and pooling.
struct VggPlaces {
    convolutions: Vec<usize>,
    batch_norm: bool,
}

impl VggPlaces {
    fn of(checkpoint: &Checkpoint, prefix: &str) -> Self {
        let layer = |name: &str, end: &str| {
            let name = name.strip_prefix(prefix)?.strip_prefix("features.")?;
            name.strip_suffix(end)?.parse::<usize>().ok()
        };
        let with_four_sides = checkpoint.tensors().filter(|t| t.shape.len() == 4);
        let convolutions: BTreeSet<usize> = with_four_sides
            .filter_map(|t| layer(t.name, ".weight"))
            .collect();
        Self {
            convolutions: convolutions.into_iter().collect(),
            batch_norm: checkpoint
                .tensors()
                .any(|t| layer(t.name, ".running_mean").is_some()),
        }
    }

    /// `stages.S.J.conv.weight` for `N.weight`.
    fn name(&self, name: &str) -> Option<String> {
        let (number, parameter) = name.split_once('.')?;
        let number: usize = number.parse().ok()?;
        // norms stand behind their convolutions
        let (place, kind) = match self.convolutions.binary_search(&number) {
            Ok(place) => (place, "conv"),
            Err(after) => (after.checked_sub(1)?, "norm"),
        };
        // from one convolution to the next: itself, its norm, its activation, and at a stage's end its pooling
        let without_pooling = if self.batch_norm { 3 } else { 2 };
        let (mut stage, mut layer) = (0, 0);
        for pair in self.convolutions[..=place].windows(2) {
            if pair[1] - pair[0] > without_pooling {
                (stage, layer) = (stage + 1, 0);
            } else {
                layer += 1;
            }
        }
        Some(format!("stages.{stage}.{layer}.{kind}.{parameter}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_resnet_are_found_by_name_and_by_number() {
        for (name, ours) in [
            ("conv1.weight", Some("conv1.weight")),
            ("bn1.running_var", Some("norm1.running_var")),
            ("1.bias", Some("norm1.bias")),
            ("4.0.conv1.weight", Some("layer1.0.conv1.weight")),
            ("layer3.22.bn3.bias", Some("layer3.22.norm3.bias")),
            (
                "7.0.downsample.1.weight",
                Some("layer4.0.shortcut.norm.weight"),
            ),
            ("fc.weight", None),
            ("2.weight", None),
        ] {
            assert_eq!(resnet_name(name).as_deref(), ours, "{name}");
        }
    }

    #[test]
    fn the_stages_of_a_vgg_end_where_numbers_leave_room_for_pooling() {
        for (convolutions, batch_norm, names) in [
            (
                // vgg11: convolution, activation and pooling, twice; then two convolutions a stage
                vec![0, 3, 6, 8, 11, 13, 16, 18],
                false,
                [
                    ("0.bias", "stages.0.0.conv.bias"),
                    ("8.weight", "stages.2.1.conv.weight"),
                ],
            ),
            (
                // vgg13_bn
                vec![0, 3, 7, 10],
                true,
                [
                    ("8.weight", "stages.1.0.norm.weight"),
                    ("10.weight", "stages.1.1.conv.weight"),
                ],
            ),
        ] {
            let places = VggPlaces {
                convolutions,
                batch_norm,
            };
            for (name, ours) in names {
                assert_eq!(places.name(name).as_deref(), Some(ours));
            }
        }
    }

    #[test]
    fn architectures_have_their_published_numbers_of_features() {
        for name in CnnConfig::NAMES {
            let config = CnnConfig::named(name).unwrap();
            config.validate().unwrap();
            let expected = match name {
                _ if name.starts_with("vgg") => 512,
                "resnet18" | "resnet34" => 512,
                _ => 2048,
            };
            assert_eq!(config.features(), expected, "{name}");
        }
        let error = CnnConfig::named("alexnet").unwrap_err().to_string();
        assert!(error.contains("resnet152"), "{error}");
    }
}
