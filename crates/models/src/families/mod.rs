//! One file per family: its config, composition, weight names and loss.

pub mod clip;
pub mod coca;
pub mod qwen2;
pub mod siglip;

use crate::capability::{EmbedImage, EmbedText, Generate};
use crate::encoders::VisionConfig;
use crate::error::{Error, expect};
use burn::tensor::Device;
use vlm_nn::weights::{Checkpoint, Weights};

/// A model of any family.
#[derive(Debug)]
pub enum Model {
    /// Contrastive captioner.
    Coca(coca::Coca),
}

impl Model {
    /// Builds the model that a `config.json` describes and fills it from its checkpoint.
    ///
    /// # Errors
    /// A config that is not understood, or weights that do not match it.
    pub fn load(config: &str, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let value: serde_json::Value = serde_json::from_str(config)?;
        let model_type = value.get("model_type").and_then(|t| t.as_str());
        expect(
            model_type == Some(coca::MODEL_TYPE),
            "model_type",
            format!("{:?}", coca::MODEL_TYPE),
            model_type.map_or("nothing".to_owned(), |t| format!("{t:?}")),
        )?;
        let config = coca::CocaConfig::parse(config)?;
        let mut weights = Weights::from_checkpoint(checkpoint, device);
        let model = coca::Coca::new(&mut weights, &config);
        weights.finish()?;
        Ok(Self::Coca(model))
    }

    /// The family's name, as in `model_type`.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Coca(_) => coca::MODEL_TYPE,
        }
    }

    /// The picture encoder's sizes.
    pub fn vision(&self) -> &VisionConfig {
        match self {
            Self::Coca(m) => &m.config().vision_config,
        }
    }

    /// The number of parameters.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Coca(m) => vlm_nn::weights::count(m),
        }
    }

    /// The number of tokens that the text side knows.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Coca(m) => m.config().text_config.vocab_size,
        }
    }

    /// The most tokens of a text.
    pub fn max_positions(&self) -> usize {
        match self {
            Self::Coca(m) => m.config().text_config.max_position_embeddings,
        }
    }

    /// # Errors
    /// A family without a language-model head.
    pub fn generate(&self) -> Result<&dyn Generate, Error> {
        match self {
            Self::Coca(m) => Ok(m),
        }
    }

    /// # Errors
    /// A family without a contrastive space.
    pub fn embed_image(&self) -> Result<&dyn EmbedImage, Error> {
        match self {
            Self::Coca(m) => Ok(m),
        }
    }

    /// # Errors
    /// A family without a contrastive space.
    pub fn embed_text(&self) -> Result<&dyn EmbedText, Error> {
        match self {
            Self::Coca(m) => Ok(m),
        }
    }
}
