//! Two encoders, one space: what CLIP, SigLIP and SigLIP 2 have in common, and either half on its own.
//!
//! ```text
//!   pixels -> ViT or ResNet -> l2 --+
//!                                   +-- scale * dot products (+ bias) -> softmax or sigmoid
//!   ids -> text tower ------> l2 ---+
//! ```
//!
//! The families ([`super::clip`], [`super::siglip`]) and open_clip ([`super::open_clip`]) say which
//! towers, read their published configs and translate their published names.
//!
//! Legend: `B` pictures or pairs, `K` texts, `C` channels, `T` tokens, `E` shared space.

use crate::capability::{EmbedImage, EmbedText, Pictures, Similarity, Tokens};
use crate::encoders::{
    ModifiedResNet, ModifiedResNetConfig, TextStates, TextTower, TextTowerConfig, VisionStates,
    VisionTower, VisionTowerConfig,
};
use crate::error::{Error, expect};
use crate::objectives::{itc_logits, l2_normalize, scale_at_most, siglip_logits};
use crate::reference::{Inputs, Outputs, Reference, Value};
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{KeyMask, Statistics};

/// The picture half.
#[derive(Clone, Debug, PartialEq)]
pub enum VisionEncoderConfig {
    /// A transformer.
    Vit(VisionTowerConfig),
    /// CLIP's ResNet.
    ResNet(ModifiedResNetConfig),
}

impl VisionEncoderConfig {
    fn validate(&self) -> Result<(), Error> {
        match self {
            Self::Vit(c) => c.validate(),
            Self::ResNet(c) => c.validate(),
        }
    }

    /// Width `E` of its vectors.
    pub fn output_size(&self) -> usize {
        match self {
            Self::Vit(c) => c.output_size(),
            Self::ResNet(c) => c.output_size,
        }
    }
}

/// How pairs are told apart in training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Symmetric cross-entropy over the batch (CLIP).
    Softmax,
    /// Each pair on its own (SigLIP).
    Sigmoid,
}

/// How the temperature and bias of the logits start, and what they are trained by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitsConfig {
    /// The loss.
    pub objective: Objective,
    /// Logarithm of the initial inverse temperature.
    pub logit_scale: f32,
    /// Initial bias, if there is one.
    pub logit_bias: Option<f32>,
}

/// Whose code the model's outputs are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `transformers`.
    HuggingFace,
    /// open_clip, which also reads OpenAI's files.
    OpenClip,
}

/// Sizes of a dual encoder, or of one of its halves.
#[derive(Clone, Debug, PartialEq)]
pub struct DualEncoderConfig {
    /// The published `model_type`, or `open_clip`.
    pub model_type: &'static str,
    /// Whose outputs the model has.
    pub layout: Layout,
    /// The picture half.
    pub vision: Option<VisionEncoderConfig>,
    /// The text half.
    pub text: Option<TextTowerConfig>,
    /// What makes logits of both.
    pub logits: Option<LogitsConfig>,
}

impl DualEncoderConfig {
    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        if let Some(vision) = &self.vision {
            vision.validate()?;
        }
        if let Some(text) = &self.text {
            text.validate()?;
        }
        if let (Some(vision), Some(text)) = (&self.vision, &self.text) {
            expect(
                vision.output_size() == text.output_size(),
                "projection_dim",
                format!("the text's {}", text.output_size()),
                vision.output_size(),
            )?;
        }
        Ok(())
    }

    /// The transformers of a model that has both.
    #[cfg(test)]
    pub(crate) fn parts(self) -> (VisionTowerConfig, TextTowerConfig) {
        match (self.vision, self.text) {
            (Some(VisionEncoderConfig::Vit(vision)), Some(text)) => (vision, text),
            other => panic!("{other:?}"),
        }
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct DualEncoder {
    vision: Option<VisionTower>,
    resnet: Option<ModifiedResNet>,
    text: Option<TextTower>,
    logit_scale: Option<Param<Tensor<1>>>,
    logit_bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    config: DualEncoderConfig,
    #[module(skip)]
    statistics: Statistics,
}

fn missing<T>(place: &str, expected: &str, model_type: &str) -> Result<T, Error> {
    Err(Error::Config {
        place: place.to_owned(),
        expected: expected.to_owned(),
        found: format!("{model_type}, which has none"),
    })
}

impl DualEncoder {
    /// Builds the model of a validated config.
    pub fn new(w: &mut Weights, c: &DualEncoderConfig) -> Self {
        let (vision, resnet) = match &c.vision {
            Some(VisionEncoderConfig::Vit(c)) => (Some(c), None),
            Some(VisionEncoderConfig::ResNet(c)) => (None, Some(c)),
            None => (None, None),
        };
        let one = |w: &mut Weights, name, value| w.param(name, [1], Init::Constant(value));
        Self {
            vision: vision.map(|c| w.scope("vision", |w| VisionTower::new(w, c))),
            resnet: resnet.map(|c| w.scope("resnet", |w| ModifiedResNet::new(w, c))),
            text: (c.text.as_ref()).map(|c| w.scope("text", |w| TextTower::new(w, c))),
            logit_scale: c.logits.map(|l| one(w, "logit_scale", l.logit_scale)),
            logit_bias: (c.logits.and_then(|l| l.logit_bias))
                .map(|bias| one(w, "logit_bias", bias)),
            config: c.clone(),
            statistics: Statistics::Running,
        }
    }

    /// The same model with the given statistics in the norms of a ResNet: those of the batch to train them, the stored
    /// ones, which is the default, for everything else.
    #[must_use]
    pub fn with_statistics(mut self, statistics: Statistics) -> Self {
        self.statistics = statistics;
        self
    }

    /// The same model in training, with a logarithm of the inverse temperature of at most `most`.
    #[must_use]
    pub fn with_scale_at_most(mut self, most: f32) -> Self {
        self.logit_scale = self.logit_scale.map(|scale| scale_at_most(scale, most));
        self
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &DualEncoderConfig {
        &self.config
    }

    /// Whether pictures have vectors in a space shared with text.
    pub fn embeds_images(&self) -> bool {
        match &self.config.vision {
            Some(VisionEncoderConfig::Vit(c)) => {
                let pooled = c.pooling != crate::encoders::VisionPooling::None;
                pooled && (self.config.logits.is_some() || c.projection_dim.is_some())
            }
            Some(VisionEncoderConfig::ResNet(_)) => true,
            None => false,
        }
    }

    /// Whether texts have vectors in a space shared with pictures.
    pub fn embeds_texts(&self) -> bool {
        let text = self.config.text.as_ref();
        text.is_some_and(|c| self.config.logits.is_some() || c.projection_dim.is_some())
    }

    /// The number of parameters; running statistics are none.
    pub fn parameters(&self) -> usize {
        vlm_nn::weights::count(self)
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        let scale = self.logit_scale.as_ref().map(|s| s.val().device());
        scale.unwrap_or_else(|| {
            let devices = self.devices();
            devices.into_iter().next().expect("a model has parameters")
        })
    }

    /// What the picture half makes of pictures, which may have another size than the config's if positions may be
    /// interpolated; `mask` replaces the padding that the shapes of patches tell, and `trace` takes the hidden states.
    ///
    /// # Errors
    /// Pictures in another form or size than the model takes, or a model without a picture half.
    fn vision_states(
        &self,
        pictures: &Pictures,
        interpolate: bool,
        mask: Option<KeyMask>,
        trace: Option<&mut Vec<Tensor<3>>>,
    ) -> Result<VisionStates, Error> {
        if let Some(resnet) = &self.resnet {
            return Ok(VisionStates {
                last_hidden_state: None,
                pooled: None,
                embeds: Some(resnet.encode(pictures, self.statistics)?),
            });
        }
        let Some(tower) = &self.vision else {
            return missing(
                "pixel_values",
                "a model of pictures",
                self.config.model_type,
            );
        };
        let (x, keys) = tower.embedded(pictures, interpolate)?;
        Ok(tower.encode(x, &mask.unwrap_or(keys), trace))
    }

    /// Unit vectors of pictures.
    ///
    /// # Shapes
    /// Gives `[B, E]`.
    ///
    /// # Errors
    /// As [`EmbedImage::embed_image`]; another size is interpolated if asked for.
    pub fn image_vectors(
        &self,
        pictures: &Pictures,
        interpolate: bool,
    ) -> Result<Tensor<2>, Error> {
        let states = self.vision_states(pictures, interpolate, None, None)?;
        match states.embeds {
            Some(embeds) => Ok(l2_normalize(embeds)),
            None => missing("vision", "a pooling head", self.config.model_type),
        }
    }

    fn text_tower(&self) -> Result<&TextTower, Error> {
        match &self.text {
            Some(tower) => Ok(tower),
            None => missing("input_ids", "a model of text", self.config.model_type),
        }
    }

    /// `logits`: of pairs of unit vectors.
    ///
    /// # Shapes
    /// `image: [B, E]`, `text: [K, E]`; gives `[K, B]`.
    ///
    /// # Errors
    /// Half a model.
    pub fn logits_per_text(&self, image: Tensor<2>, text: Tensor<2>) -> Result<Tensor<2>, Error> {
        let Some(scale) = &self.logit_scale else {
            return missing(
                "logit_scale",
                "a model of pictures and text",
                self.config.model_type,
            );
        };
        let logits = text.matmul(image.transpose()) * scale.val().exp().unsqueeze();
        Ok(match &self.logit_bias {
            Some(bias) => logits + bias.val().unsqueeze(),
            None => logits,
        })
    }

    /// The loss of unit vectors, pairs in the same row.
    ///
    /// # Shapes
    /// `image, text: [B, E]`; gives `[1]`.
    ///
    /// # Errors
    /// Half a model, or other numbers of pictures than of texts.
    pub fn contrast(&self, image: Tensor<2>, text: Tensor<2>) -> Result<Tensor<1>, Error> {
        let [b, k] = [image.dims()[0], text.dims()[0]];
        expect(
            b == k,
            "loss",
            format!("a text for each of {b} pictures"),
            k,
        )?;
        let logits = self.logits_per_text(image, text)?;
        Ok(match self.config.logits.map(|l| l.objective) {
            Some(Objective::Sigmoid) => siglip_logits(logits),
            _ => itc_logits(logits),
        })
    }

    /// The contrastive loss of pairs.
    ///
    /// # Shapes
    /// Gives `[1]`.
    ///
    /// # Errors
    /// Pictures or ids that do not fit the model.
    pub fn loss(&self, pictures: &Pictures, texts: &Tokens) -> Result<Tensor<1>, Error> {
        self.contrast(
            self.image_vectors(pictures, false)?,
            self.embed_text(texts)?,
        )
    }
}

impl EmbedImage for DualEncoder {
    fn embed_image(&self, pictures: &Pictures) -> Result<Tensor<2>, Error> {
        self.image_vectors(pictures, false)
    }
}

impl EmbedText for DualEncoder {
    /// Padding of texts of a fixed length is read like text; with a causal mask it is not seen where it matters, unless
    /// it is in front.
    fn embed_text(&self, texts: &Tokens) -> Result<Tensor<2>, Error> {
        let tower = self.text_tower()?;
        let in_front = |row: &Vec<bool>| row.first() == Some(&false);
        let keys = if tower.config().causal && texts.mask().iter().any(in_front) {
            KeyMask::new(texts.mask())
        } else {
            KeyMask::default()
        };
        Ok(l2_normalize(tower.encode(texts, &keys, None, None)?.embeds))
    }

    fn similarity(&self) -> Similarity {
        match (&self.logit_scale, &self.logit_bias) {
            (Some(scale), Some(bias)) => Similarity::sigmoid(scale, bias),
            (Some(scale), None) => Similarity::softmax(scale),
            (None, _) => Similarity::Softmax { scale: 1.0 },
        }
    }
}

/// Pictures of a golden file, and their padding where it is given.
fn pictures(
    inputs: &Inputs,
    naflex: bool,
    device: &Device,
) -> Result<Option<(Pictures, Option<KeyMask>)>, Error> {
    if !naflex {
        for name in ["pixel_values", "image"] {
            if let Some(pixels) = inputs.floats::<4>(name, device)? {
                return Ok(Some((Pictures::Fixed(pixels), None)));
            }
        }
        return Ok(None);
    }
    let Some(pixel_values) = inputs.floats::<3>("pixel_values", device)? else {
        return Ok(None);
    };
    let Some((shape, sizes)) = inputs.integers::<2>("spatial_shapes")? else {
        return missing("spatial_shapes", "rows and columns of patches", "the file");
    };
    expect(
        shape[1] == 2,
        "spatial_shapes",
        "[B, 2]",
        format!("{shape:?}"),
    )?;
    let spatial_shapes: Vec<[usize; 2]> = sizes
        .chunks(2)
        .map(|pair| [0, 1].map(|i| usize::try_from(pair[i]).unwrap_or(0)))
        .collect();
    let n = pixel_values.dims()[1];
    let mask = mask(inputs, "pixel_attention_mask", [spatial_shapes.len(), n])?;
    let pictures = Pictures::Patches {
        pixel_values,
        spatial_shapes,
    };
    Ok(Some((pictures, mask.map(|mask| KeyMask::new(&mask)))))
}

/// An attention mask: anything but zero is a token.
fn mask(
    inputs: &Inputs,
    name: &str,
    expected: [usize; 2],
) -> Result<Option<Vec<Vec<bool>>>, Error> {
    let Some((shape, mask)) = inputs.integers::<2>(name)? else {
        return Ok(None);
    };
    expect(
        shape == expected,
        name,
        format!("{expected:?}"),
        format!("{shape:?}"),
    )?;
    let rows = mask.chunks(shape[1].max(1));
    let rows = rows.map(|row| row.iter().map(|&x| x != 0).collect());
    Ok(Some(rows.collect()))
}

/// Texts of a golden file, with their mask where it is given.
fn texts(inputs: &Inputs) -> Result<Option<Tokens>, Error> {
    for name in ["input_ids", "text"] {
        let Some((shape, ids)) = inputs.integers::<2>(name)? else {
            continue;
        };
        let mask = mask(inputs, "attention_mask", shape)?;
        let known = |&id: &i64| u32::try_from(id).ok();
        let Some(ids) = ids.iter().map(known).collect::<Option<Vec<u32>>>() else {
            return Err(Error::Config {
                place: name.to_owned(),
                expected: "ids from 0".to_owned(),
                found: "a negative one".to_owned(),
            });
        };
        let rows = ids.chunks(shape[1].max(1)).map(<[u32]>::to_vec);
        return Tokens::new(rows.collect(), mask).map(Some);
    }
    Ok(None)
}

/// `position_ids`, checked against the table.
fn positions(
    inputs: &Inputs,
    count: usize,
    device: &Device,
) -> Result<Option<Tensor<2, Int>>, Error> {
    inputs.ids("position_ids", count, device)
}

/// Results under the names of one class.
struct Named(Outputs);

impl Named {
    fn put<const D: usize>(&mut self, names: &[&str], tensor: &Tensor<D>) {
        let value = Value::floats(tensor.clone());
        for name in names {
            self.0.insert((*name).to_owned(), value.clone());
        }
    }

    /// `hidden_states.0`, the input of the first block, and so on.
    fn trace(&mut self, prefix: &str, states: &[Tensor<3>]) {
        for (i, state) in states.iter().enumerate() {
            self.put(&[&format!("{prefix}hidden_states.{i}")], state);
        }
    }
}

impl DualEncoder {
    /// What the reference calls features: open_clip the unit vectors of its forward pass, Hugging Face what
    /// `get_image_features` and `get_text_features` give before they are scaled.
    fn features<'a>(&self, embeds: &'a Tensor<2>, unit: &'a Tensor<2>) -> &'a Tensor<2> {
        match self.config.layout {
            Layout::HuggingFace => embeds,
            Layout::OpenClip => unit,
        }
    }

    fn vision_outputs(&self, inputs: &Inputs, out: &mut Named) -> Result<Option<Tensor<2>>, Error> {
        let naflex = self.vision.as_ref().is_some_and(|v| v.config().naflex);
        let Some((pictures, mask)) = pictures(inputs, naflex, &self.device())? else {
            return Ok(None);
        };
        let interpolate = inputs.flag("interpolate_pos_encoding", false)?;
        let mut trace = Vec::new();
        let states = self.vision_states(&pictures, interpolate, mask, Some(&mut trace))?;
        let whole = self.config.logits.is_some();
        let prefix = if whole { "vision_model_output." } else { "" };
        out.trace(prefix, &trace);
        if let Some(last) = &states.last_hidden_state {
            out.put(&[&format!("{prefix}last_hidden_state")], last);
        }
        // in the whole model the pooled state is the projected one
        let pooled = if whole {
            &states.embeds
        } else {
            &states.pooled
        };
        if let Some(pooled) = pooled {
            out.put(&[&format!("{prefix}pooler_output")], pooled);
        }
        let Some(embeds) = states.embeds else {
            return Ok(None);
        };
        if !whole {
            if self.embeds_images() {
                out.put(&["image_embeds"], &embeds);
            }
            return Ok(None);
        }
        let unit = l2_normalize(embeds.clone());
        out.put(&["image_embeds"], &unit);
        out.put(&["image_features"], self.features(&embeds, &unit));
        Ok(Some(unit))
    }

    fn text_outputs(&self, inputs: &Inputs, out: &mut Named) -> Result<Option<Tensor<2>>, Error> {
        let Some(texts) = texts(inputs)? else {
            return Ok(None);
        };
        let tower = self.text_tower()?;
        let keys = KeyMask::new(texts.mask());
        let count = tower.config().max_position_embeddings;
        let positions = positions(inputs, count, &self.device())?;
        let mut trace = Vec::new();
        let states: TextStates = tower.encode(&texts, &keys, positions, Some(&mut trace))?;
        let whole = self.config.logits.is_some();
        let prefix = if whole { "text_model_output." } else { "" };
        out.trace(prefix, &trace);
        out.put(
            &[&format!("{prefix}last_hidden_state")],
            &states.last_hidden_state,
        );
        // SigLIP's text model ends with the projection, CLIP's with the token's state
        let projected = whole || tower.config().projection_bias;
        let pooled = if projected {
            &states.embeds
        } else {
            &states.pooled
        };
        out.put(&[&format!("{prefix}pooler_output")], pooled);
        if !whole {
            if self.embeds_texts() {
                out.put(&["text_embeds"], &states.embeds);
            }
            return Ok(None);
        }
        let unit = l2_normalize(states.embeds.clone());
        out.put(&["text_embeds"], &unit);
        out.put(&["text_features"], self.features(&states.embeds, &unit));
        Ok(Some(unit))
    }
}

/// Inputs: `pixel_values` or `image` with `interpolate_pos_encoding`, or patches with `spatial_shapes` and
/// `pixel_attention_mask`; `input_ids` or `text` with `attention_mask` and `position_ids`; `return_loss`.
///
/// Outputs of the whole model: `image_embeds`, `text_embeds`, `image_features`, `text_features` (of Hugging Face's
/// classes not scaled to unit length), `logits_per_image`, `logits_per_text` (also `image_logits`, `text_logits`), `loss`, `logit_scale` (the factor
/// itself), `logit_bias`, and of either half `vision_model_output.` or `text_model_output.` with `last_hidden_state`,
/// `pooler_output` and `hidden_states.N`. A half on its own gives these without prefix, and `image_embeds` or
/// `text_embeds` not normalised, as its class does.
impl Reference for DualEncoder {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut out = Named(Outputs::new());
        let image = self.vision_outputs(inputs, &mut out)?;
        let text = self.text_outputs(inputs, &mut out)?;
        if let Some(scale) = &self.logit_scale {
            let scale: Tensor<1> = scale.val().exp();
            out.0.insert("logit_scale".to_owned(), scalar(scale));
        }
        if let Some(bias) = &self.logit_bias {
            out.0.insert("logit_bias".to_owned(), scalar(bias.val()));
        }
        if let (Some(image), Some(text)) = (image, text) {
            let logits = self.logits_per_text(image.clone(), text.clone())?;
            out.put(&["logits_per_text", "text_logits"], &logits);
            out.put(&["logits_per_image", "image_logits"], &logits.transpose());
            if inputs.flag("return_loss", false)? || image.dims()[0] == text.dims()[0] {
                let loss = self.contrast(image, text)?;
                out.0.insert("loss".to_owned(), scalar(loss));
            }
        }
        Ok(out.0)
    }
}

/// A single number.
fn scalar(tensor: Tensor<1>) -> Value {
    Value {
        shape: Vec::new(),
        ..Value::floats(tensor)
    }
}
