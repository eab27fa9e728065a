//! CLIP: contrastive language-image pre-training (Radford et al., "Learning transferable visual models from natural
//! language supervision", 2021).
//!
//! ```text
//!   pixels -> ViT, class token -> projection -> l2 --+
//!                                                    +-- ITC
//!   ids -> text tower, at <eos> -> projection -> l2 -+
//! ```
//!
//! Legend: `B` pairs, `C` channels, `T` tokens, `E` shared space.

use crate::capability::{EmbedImage, EmbedText, Pictures, Similarity, Tokens};
use crate::encoders::published::{TOWERS, TextJson, VisionJson};
use crate::encoders::{
    TextPooling, TextTower, TextTowerConfig, VisionPooling, VisionTower, VisionTowerConfig,
};
use crate::error::{Error, expect};
use crate::objectives::{itc, l2_normalize};
use crate::reference::{Inputs, Outputs, Reference, Value};
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};
use serde::Deserialize;
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Checkpoint, Init, Rule, Weights};

/// This family's `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "clip";

/// A published checkpoint with our names for its parameters.
pub fn translated(checkpoint: Checkpoint) -> Checkpoint {
    let own = [
        Rule::Name("vision_model.embeddings.class_embedding", "vision.class"),
        Rule::Name("vision_model.pre_layrnorm.*", "vision.pre_norm.*"),
        Rule::Name("visual_projection.*", "vision.projection.*"),
        Rule::Name("text_projection.*", "text.projection.*"),
    ];
    checkpoint.translated(&[TOWERS, &own].concat())
}

/// What a published `config.json` gives; what it leaves out has the published default.
#[derive(Deserialize)]
struct Json {
    model_type: Option<String>,
    #[serde(default)]
    vision_config: VisionJson,
    #[serde(default)]
    text_config: TextJson,
    projection_dim: Option<usize>,
    logit_scale_init_value: Option<f32>,
}

/// Sizes of the family.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// The picture encoder; its projection is the shared space.
    pub vision: VisionTowerConfig,
    /// The text encoder, with the same projection.
    pub text: TextTowerConfig,
    /// Logarithm of the initial inverse temperature.
    pub logit_scale_init_value: f32,
}

impl ClipConfig {
    /// Reads and validates a published `config.json`.
    ///
    /// # Errors
    /// A field of the wrong type, out of range, or that does not fit another.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let json: Json = serde_json::from_str(json)?;
        expect(
            json.model_type.as_deref() == Some(MODEL_TYPE),
            "model_type",
            format!("{MODEL_TYPE:?}"),
            format!("{:?}", json.model_type.unwrap_or_default()),
        )?;
        let projection_dim = json.projection_dim.unwrap_or(512);
        let config = Self {
            vision: json.vision_config.over(VisionTowerConfig {
                image_size: 224,
                patch_size: 32,
                num_channels: 3,
                hidden_size: 768,
                intermediate_size: 3072,
                num_hidden_layers: 12,
                num_attention_heads: 12,
                layer_norm_eps: 1e-5,
                hidden_act: Activation::QuickGelu,
                patch_bias: false,
                pre_norm: true,
                pooling: VisionPooling::ClassToken,
                projection_dim: Some(projection_dim),
            })?,
            text: json.text_config.over(TextTowerConfig {
                vocab_size: 49408,
                max_position_embeddings: 77,
                hidden_size: 512,
                intermediate_size: 2048,
                num_hidden_layers: 12,
                num_attention_heads: 8,
                layer_norm_eps: 1e-5,
                hidden_act: Activation::QuickGelu,
                causal: true,
                pooling: TextPooling::EndOfText,
                projection_dim,
                projection_bias: false,
            })?,
            logit_scale_init_value: json.logit_scale_init_value.unwrap_or(2.6592),
        };
        config.validate()?;
        Ok(config)
    }

    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        self.vision.validate()?;
        self.text.validate()?;
        expect(
            self.vision.output_size() == self.text.projection_dim,
            "projection_dim",
            format!("the text's {}", self.text.projection_dim),
            self.vision.output_size(),
        )
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct Clip {
    vision: VisionTower,
    text: TextTower,
    logit_scale: Param<Tensor<1>>,
    #[module(skip)]
    config: ClipConfig,
}

impl Clip {
    /// Builds the model of a validated config.
    pub fn new(w: &mut Weights, c: &ClipConfig) -> Self {
        Self {
            vision: w.scope("vision", |w| VisionTower::new(w, &c.vision)),
            text: w.scope("text", |w| TextTower::new(w, &c.text)),
            logit_scale: w.param("logit_scale", [1], Init::Constant(c.logit_scale_init_value)),
            config: c.clone(),
        }
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The picture encoder.
    pub fn vision(&self) -> &VisionTower {
        &self.vision
    }

    /// # Shapes
    /// `[B, C, H, W]`; gives unit vectors `[B, E]`.
    fn image_vectors(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        l2_normalize(self.vision.forward(pixel_values))
    }

    /// # Shapes
    /// `[B, T]`; gives unit vectors `[B, E]`.
    fn text_vectors(&self, ids: Tensor<2, Int>, lengths: &[usize]) -> Tensor<2> {
        l2_normalize(self.text.forward(ids, lengths))
    }

    /// The contrastive loss of pairs.
    ///
    /// # Shapes
    /// `pixel_values: [B, C, H, W]`, `ids: [B, T]` with their `lengths`; gives `[1]`.
    pub fn loss(
        &self,
        pixel_values: Tensor<4>,
        ids: Tensor<2, Int>,
        lengths: &[usize],
    ) -> Tensor<1> {
        itc(
            self.image_vectors(pixel_values),
            self.text_vectors(ids, lengths),
            self.logit_scale.val(),
        )
    }
}

impl EmbedImage for Clip {
    fn embed_image(&self, pictures: &Pictures) -> Result<Tensor<2>, Error> {
        let pixels = pictures.fixed(self.config.vision.num_channels)?;
        Ok(self.image_vectors(pixels))
    }
}

impl EmbedText for Clip {
    fn embed_text(&self, texts: &Tokens) -> Result<Tensor<2>, Error> {
        let (text, device) = (&self.config.text, self.logit_scale.val().device());
        let ids = texts.to_device(text.vocab_size, text.max_position_embeddings, &device)?;
        Ok(self.text_vectors(ids, &texts.lengths()))
    }

    fn similarity(&self) -> Similarity {
        Similarity::softmax(&self.logit_scale)
    }
}

/// `pixel_values` gives `image_embeds`, `input_ids` gives `text_embeds`.
impl Reference for Clip {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        let device = self.logit_scale.val().device();
        if let Some(pixels) = inputs.floats::<4>("pixel_values", &device)? {
            let image = self.embed_image(&Pictures::Fixed(pixels))?;
            outputs.insert("image_embeds".to_owned(), Value::floats(image));
        }
        if let Some((shape, ids)) = inputs.integers::<2>("input_ids")? {
            let rows = ids.chunks(shape[1].max(1));
            let rows = rows.map(|row| row.iter().map(|&id| id as u32).collect());
            let text = self.embed_text(&Tokens::new(rows.collect(), None)?)?;
            outputs.insert("text_embeds".to_owned(), Value::floats(text));
        }
        Ok(outputs)
    }
}
