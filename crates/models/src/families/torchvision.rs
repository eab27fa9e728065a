//! torchvision's classifiers: an encoder of pictures with a head for the classes of ImageNet.
//!
//! ```text
//!   ResNet: pixels -> encoder -> mean -> linear -------------------------------> logits
//!   VGG:    pixels -> encoder -> means of 7 x 7 cells -> 3 linear with ReLU ---> logits
//! ```
//!
//! They are the encoders of captioners ([`super::nic`]) with the head that they were trained with. A model's directory
//! holds `model.safetensors` or the `.pth` that torchvision publishes, and a `config.json` of `architecture`,
//! `num_classes` and `library_name`; a checkpoint alone tells its sizes by its tensors.
//!
//! | results of the reference | |
//! |---|---|
//! | from `pixel_values` | `features`, the last map; `features.I` after stage `I`; `logits` |
//! | and `labels` | `loss`, the cross-entropy |
//!
//! Legend: `B` pictures, `H`, `W` height and width, `D` channels of the last map, `C` classes.

use crate::capability::Pictures;
use crate::encoders::check_size;
use crate::encoders::cnn::{self, CHANNELS, Cnn, CnnConfig, VggConfig};
use crate::error::{Error, expect};
use crate::reference::{Inputs, Outputs, Reference, Value};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::Deserialize;
use vlm_nn::ops::{self, Activation};
use vlm_nn::weights::{Checkpoint, Init, Rule, Weights};
use vlm_nn::{Linear, Statistics, adaptive_average};

/// This family's `library_name` in `config.json`.
pub const LIBRARY_NAME: &str = "torchvision";

/// Cells a side of the means that VGG's head reads.
const CELLS: usize = 7;

/// Sizes of a [`Classifier`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassifierConfig {
    /// The encoder.
    pub encoder: CnnConfig,
    /// Classes `C`.
    pub num_classes: usize,
    /// Width between the three layers of VGG's head.
    pub hidden_size: usize,
}

/// `config.json`. The constructor's arguments that change sizes are optional.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    architecture: String,
    num_classes: Option<usize>,
    #[serde(rename = "library_name")]
    _library_name: String,
    layers: Option<[usize; 4]>,
    width: Option<usize>,
    width_per_group: Option<usize>,
    stages: Option<Vec<Vec<usize>>>,
    hidden_size: Option<usize>,
    /// Descriptions, which change nothing.
    #[serde(rename = "model_type")]
    _model_type: Option<String>,
    #[serde(rename = "architectures")]
    _architectures: Option<Vec<String>>,
    #[serde(rename = "torchvision_version")]
    _torchvision_version: Option<String>,
    #[serde(rename = "weights")]
    _weights: Option<String>,
    #[serde(rename = "label_names")]
    _label_names: Option<Vec<String>>,
    #[serde(rename = "id2label")]
    _id2label: Option<serde_json::Value>,
    #[serde(rename = "label2id")]
    _label2id: Option<serde_json::Value>,
}

impl ClassifierConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// Another architecture, keys that are not understood, or sizes out of range.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let found: Published = serde_json::from_str(json)?;
        let mut encoder = CnnConfig::named(&found.architecture)?;
        let refuse = |place: &str, given: bool| {
            let expected = format!("nothing for {}", found.architecture);
            expect(!given, place, expected, "a value")
        };
        match &mut encoder {
            CnnConfig::Resnet(c) => {
                refuse("stages", found.stages.is_some())?;
                refuse("hidden_size", found.hidden_size.is_some())?;
                let width = found.width.unwrap_or(c.width);
                // a bottleneck's channels are a share of 64ths of its stage's
                c.inner_width = match found.width_per_group {
                    Some(group) if c.bottleneck => width.saturating_mul(group) / 64,
                    Some(_) => return refuse("width_per_group", true).map(|()| unreachable!()),
                    None => c.inner_width / c.width * width,
                };
                c.width = width;
                c.layers = found.layers.unwrap_or(c.layers);
            }
            CnnConfig::Vgg(c) => {
                refuse("layers", found.layers.is_some())?;
                refuse("width", found.width.is_some())?;
                refuse("width_per_group", found.width_per_group.is_some())?;
                if let Some(stages) = found.stages {
                    c.stages = stages;
                }
            }
        }
        let config = Self {
            encoder,
            num_classes: found.num_classes.unwrap_or(1000),
            hidden_size: found.hidden_size.unwrap_or(4096),
        };
        config.validate()?;
        Ok(config)
    }

    /// What the tensors of a checkpoint with our names tell.
    fn told(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let encoder = CnnConfig::told(checkpoint, "encoder.")?;
        let rows = |name: &str| checkpoint.shape(name).and_then(|s| s.first().copied());
        let config = Self {
            encoder,
            num_classes: rows("head.2.weight").or(rows("head.0.weight")).unwrap_or(0),
            hidden_size: rows("head.0.weight").unwrap_or(0),
        };
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), Error> {
        self.encoder.validate()?;
        check_size("num_classes", self.num_classes, 1 << 20)?;
        check_size("hidden_size", self.hidden_size, 1 << 16)
    }
}

/// Whether a checkpoint without a config is one of torchvision's.
pub fn recognised(checkpoint: &Checkpoint) -> bool {
    let all = |names: &[&str]| names.iter().all(|name| checkpoint.contains(name));
    all(&[
        "conv1.weight",
        "layer1.0.conv1.weight",
        "layer4.0.conv1.weight",
        "fc.weight",
    ]) || all(&[
        "features.0.weight",
        "classifier.0.weight",
        "classifier.6.weight",
    ])
}

/// A checkpoint with our names for its tensors: weights, or anything that there is one of per weight, such as gradients.
pub fn translated(checkpoint: Checkpoint) -> Checkpoint {
    let checkpoint = checkpoint.translated(&[
        Rule::Ignore("**.num_batches_tracked"),
        Rule::Name("fc.*", "head.0.*"),
        Rule::Name("classifier.0.*", "head.0.*"),
        Rule::Name("classifier.3.*", "head.1.*"),
        Rule::Name("classifier.6.*", "head.2.*"),
    ]);
    cnn::torchvision_names(checkpoint, "", "encoder.")
}

/// The model.
#[derive(Module, Debug)]
pub struct Classifier {
    encoder: Cnn,
    head: Vec<Linear>,
    #[module(skip)]
    config: ClassifierConfig,
}

impl Classifier {
    /// Builds the model of a validated config.
    pub fn new(w: &mut Weights, c: &ClassifierConfig) -> Self {
        let (features, classes) = (c.encoder.features(), c.num_classes);
        let widths = match &c.encoder {
            CnnConfig::Resnet(_) => vec![features, classes],
            CnnConfig::Vgg(VggConfig { .. }) => {
                vec![
                    features * CELLS * CELLS,
                    c.hidden_size,
                    c.hidden_size,
                    classes,
                ]
            }
        };
        let layer = |(i, pair): (usize, &[usize])| {
            w.scope(&format!("head.{i}"), |w| {
                Linear::new(w, pair[0], pair[1], true, Init::fan_in(pair[0]))
            })
        };
        let head = widths.windows(2).enumerate().map(layer).collect();
        Self {
            encoder: w.scope("encoder", |w| Cnn::new(w, &c.encoder)),
            head,
            config: c.clone(),
        }
    }

    /// A published model with its `config.json`.
    ///
    /// # Errors
    /// A config that is not understood, or weights that do not match it.
    pub fn load(config: &str, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let config = ClassifierConfig::parse(config)?;
        super::filled(translated(checkpoint), device, |w| Self::new(w, &config))
    }

    /// A published checkpoint without a config.
    ///
    /// # Errors
    /// Tensors of no such model.
    pub fn from_original(checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let checkpoint = translated(checkpoint);
        let config = ClassifierConfig::told(&checkpoint)?;
        super::filled(checkpoint, device, |w| Self::new(w, &config))
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// The encoder.
    pub fn encoder(&self) -> &Cnn {
        &self.encoder
    }

    /// # Shapes
    /// `features: [B, D, H, W]` from the encoder; gives `[B, C]`.
    fn head(&self, features: Tensor<4>) -> Tensor<2> {
        let cells = match &self.config.encoder {
            CnnConfig::Resnet(_) => 1,
            CnnConfig::Vgg(_) => CELLS,
        };
        let mut x: Tensor<2> = adaptive_average(features, [cells; 2]).flatten(1, 3); // [B, D * cells * cells]
        for (i, layer) in self.head.iter().enumerate() {
            let activation = match i + 1 == self.head.len() {
                true => Activation::None,
                false => Activation::Relu,
            };
            x = layer.fused(x, activation, None);
        }
        x
    }

    /// Logits of the classes.
    ///
    /// # Shapes
    /// Gives `[B, C]`.
    ///
    /// # Errors
    /// Pictures of another form, or smaller than 32 pixels a side.
    pub fn logits(&self, pictures: &Pictures, statistics: Statistics) -> Result<Tensor<2>, Error> {
        let pixels = pictures.fixed(CHANNELS)?;
        Ok(self.head(self.encoder.features(pixels, statistics)?))
    }

    /// The mean cross-entropy of classes.
    ///
    /// # Shapes
    /// A label in `0..C` for each picture; gives `[1]`.
    ///
    /// # Errors
    /// As [`Self::logits`]; labels of another number or beyond the classes.
    pub fn loss(
        &self,
        pictures: &Pictures,
        labels: &[i64],
        statistics: Statistics,
    ) -> Result<Tensor<1>, Error> {
        let logits = self.logits(pictures, statistics)?;
        self.cross_entropy(logits, labels)
    }

    fn cross_entropy(&self, logits: Tensor<2>, labels: &[i64]) -> Result<Tensor<1>, Error> {
        let [b, c] = logits.dims();
        expect(labels.len() == b, "labels", format!("{b}"), labels.len())?;
        let known = |label: &&i64| !usize::try_from(**label).is_ok_and(|l| l < c);
        if let Some(bad) = labels.iter().find(known) {
            expect(false, "labels", format!("classes below {c}"), bad)?;
        }
        let targets = TensorData::new(labels.to_vec(), [b]);
        let targets = Tensor::<1, Int>::from_data(targets, &logits.device());
        Ok(ops::cross_entropy(logits, targets, 0.0).mean())
    }
}

impl Reference for Classifier {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        let device = self.devices().into_iter().next().expect("parameters");
        let Some(pixels) = inputs.floats::<4>("pixel_values", &device)? else {
            return Ok(outputs);
        };
        let pixels = Pictures::Fixed(pixels).fixed(CHANNELS)?;
        let mut trace = Some(Vec::new());
        let features = self
            .encoder
            .traced(pixels, Statistics::Running, &mut trace)?;
        for (i, map) in trace.unwrap_or_default().into_iter().enumerate() {
            outputs.insert(format!("features.{}", i + 1), Value::floats(map));
        }
        let logits = self.head(features.clone());
        outputs.insert("features".to_owned(), Value::floats(features));
        outputs.insert("logits".to_owned(), Value::floats(logits.clone()));
        if let Some((_, labels)) = inputs.integers::<1>("labels")? {
            let loss = self.cross_entropy(logits, &labels)?;
            outputs.insert("loss".to_owned(), Value::floats(loss));
        }
        Ok(outputs)
    }
}
