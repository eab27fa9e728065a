//! SigLIP: CLIP with a sigmoid loss of every pair on its own (Zhai et al., "Sigmoid loss for language image
//! pre-training", 2023).
//!
//! ```text
//!   pixels -> ViT -> attention pooling -> l2 --------+
//!                                                    +-- sigmoid
//!   ids -> text tower, last position -> head -> l2 --+
//! ```
//!
//! Legend: `B` pairs, `C` channels, `T` tokens, `E` shared space.

use crate::capability::{EmbedImage, EmbedText, Pictures, Similarity, Tokens};
use crate::encoders::published::{TOWERS, TextJson, VisionJson};
use crate::encoders::{
    TextPooling, TextTower, TextTowerConfig, VisionPooling, VisionTower, VisionTowerConfig,
};
use crate::error::{Error, expect};
use crate::objectives::{l2_normalize, siglip};
use crate::reference::{Inputs, Outputs, Reference, Value};
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};
use serde::Deserialize;
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Checkpoint, Init, Rule, Weights};

/// This family's `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "siglip";

/// A published checkpoint with our names for its parameters.
pub fn translated(checkpoint: Checkpoint) -> Checkpoint {
    let own = [
        Rule::Name("vision_model.head.probe", "vision.pool.probe"),
        Rule::Cut(
            "vision_model.head.attention.in_proj_weight",
            &[("vision.pool.q.weight", 1), ("vision.pool.kv.weight", 2)],
        ),
        Rule::Cut(
            "vision_model.head.attention.in_proj_bias",
            &[("vision.pool.q.bias", 1), ("vision.pool.kv.bias", 2)],
        ),
        Rule::Name(
            "vision_model.head.attention.out_proj.*",
            "vision.pool.out.*",
        ),
        Rule::Name("vision_model.head.layernorm.*", "vision.pool.norm.*"),
        Rule::Name("vision_model.head.mlp.*.*", "vision.pool.mlp.*.*"),
        Rule::Name("text_model.head.*", "text.projection.*"),
        Rule::Flatten("logit_bias", "logit_bias"),
    ];
    checkpoint.translated(&[TOWERS, &own].concat())
}

#[derive(Default, Deserialize)]
struct SiglipTextJson {
    #[serde(flatten)]
    tower: TextJson,
    projection_size: Option<usize>,
}

/// What a published `config.json` gives; what it leaves out has the published default.
#[derive(Deserialize)]
struct Json {
    model_type: Option<String>,
    #[serde(default)]
    vision_config: VisionJson,
    #[serde(default)]
    text_config: SiglipTextJson,
}

/// Sizes of the family.
#[derive(Clone, Debug, PartialEq)]
pub struct SiglipConfig {
    /// The picture encoder; its width is the shared space.
    pub vision: VisionTowerConfig,
    /// The text encoder, projected to the same width.
    pub text: TextTowerConfig,
}

impl SiglipConfig {
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
        let mut text = json.text_config.tower.over(TextTowerConfig {
            vocab_size: 32000,
            max_position_embeddings: 64,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            layer_norm_eps: 1e-6,
            hidden_act: Activation::GeluTanh,
            causal: false,
            pooling: TextPooling::LastPosition,
            projection_dim: 768,
            projection_bias: true,
        })?;
        text.projection_dim = json.text_config.projection_size.unwrap_or(text.hidden_size);
        let config = Self {
            vision: json.vision_config.over(VisionTowerConfig {
                image_size: 224,
                patch_size: 16,
                num_channels: 3,
                hidden_size: 768,
                intermediate_size: 3072,
                num_hidden_layers: 12,
                num_attention_heads: 12,
                layer_norm_eps: 1e-6,
                hidden_act: Activation::GeluTanh,
                patch_bias: true,
                pre_norm: false,
                pooling: VisionPooling::Attention,
                projection_dim: None,
            })?,
            text,
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
            "text_config.projection_size",
            format!("vision_config.hidden_size {}", self.vision.output_size()),
            self.text.projection_dim,
        )
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct Siglip {
    vision: VisionTower,
    text: TextTower,
    logit_scale: Param<Tensor<1>>,
    logit_bias: Param<Tensor<1>>,
    #[module(skip)]
    config: SiglipConfig,
}

impl Siglip {
    /// Builds the model of a validated config.
    pub fn new(w: &mut Weights, c: &SiglipConfig) -> Self {
        Self {
            vision: w.scope("vision", |w| VisionTower::new(w, &c.vision)),
            text: w.scope("text", |w| TextTower::new(w, &c.text)),
            logit_scale: w.param("logit_scale", [1], Init::Constant(10f32.ln())),
            logit_bias: w.param("logit_bias", [1], Init::Constant(-10.0)),
            config: c.clone(),
        }
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &SiglipConfig {
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

    /// The sigmoid loss of pairs.
    ///
    /// # Shapes
    /// `pixel_values: [B, C, H, W]`, `ids: [B, T]` with their `lengths`; gives `[1]`.
    pub fn loss(
        &self,
        pixel_values: Tensor<4>,
        ids: Tensor<2, Int>,
        lengths: &[usize],
    ) -> Tensor<1> {
        siglip(
            self.image_vectors(pixel_values),
            self.text_vectors(ids, lengths),
            self.logit_scale.val(),
            self.logit_bias.val(),
        )
    }
}

impl EmbedImage for Siglip {
    fn embed_image(&self, pictures: &Pictures) -> Result<Tensor<2>, Error> {
        let pixels = pictures.fixed(self.config.vision.num_channels)?;
        Ok(self.image_vectors(pixels))
    }
}

impl EmbedText for Siglip {
    fn embed_text(&self, texts: &Tokens) -> Result<Tensor<2>, Error> {
        let (text, device) = (&self.config.text, self.logit_scale.val().device());
        let ids = texts.to_device(text.vocab_size, text.max_position_embeddings, &device)?;
        Ok(self.text_vectors(ids, &texts.lengths()))
    }

    fn similarity(&self) -> Similarity {
        Similarity::sigmoid(&self.logit_scale, &self.logit_bias)
    }
}

/// `pixel_values` gives `image_embeds`, `input_ids` gives `text_embeds`.
impl Reference for Siglip {
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
