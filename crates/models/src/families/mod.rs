//! One file per family: its config, composition, weight names and loss.

pub mod blip;
pub mod clip;
pub mod coca;
pub mod qwen2;
pub mod siglip;

use crate::capability::{AnswerQuestion, EmbedImage, EmbedText, Generate, ScorePair};
use crate::error::Error;
use crate::reference::Reference;
use burn::module::Module;
use burn::tensor::Device;
use vlm_nn::weights::{Checkpoint, Weights};

/// A model of any family.
#[derive(Debug)]
pub enum Model {
    /// Captioning, question answering and retrieval with one kind of text model.
    Blip(blip::Blip),
    /// Contrastive captioner.
    Coca(coca::Coca),
    /// Contrastive language-image pre-training.
    Clip(clip::Clip),
    /// CLIP with a sigmoid loss.
    Siglip(siglip::Siglip),
}

/// What a picture must be for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSize {
    /// Colour channels.
    pub num_channels: usize,
    /// Side in pixels; none for a model that takes any size.
    pub image_size: Option<usize>,
}

/// What the text side of a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSize {
    /// Tokens that it knows.
    pub vocab_size: usize,
    /// Most tokens of a text.
    pub max_positions: usize,
}

/// Fills the model that `build` makes from a checkpoint with our names, strictly.
fn filled<T>(
    checkpoint: Checkpoint,
    device: &Device,
    build: impl FnOnce(&mut Weights) -> T,
) -> Result<T, Error> {
    let mut weights = Weights::from_checkpoint(checkpoint, device);
    let model = build(&mut weights);
    weights.finish()?;
    Ok(model)
}

impl Model {
    /// Builds the model that a `config.json` describes and fills it from its checkpoint, which has its published names.
    ///
    /// # Errors
    /// A config that is not understood, or weights that do not match it.
    pub fn load(config: &str, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let value: serde_json::Value = serde_json::from_str(config)?;
        let model_type = value.get("model_type").and_then(|t| t.as_str());
        match model_type {
            Some(coca::MODEL_TYPE) => {
                let config = coca::CocaConfig::parse(config)?;
                let build = |w: &mut Weights| coca::Coca::new(w, &config);
                Ok(Self::Coca(filled(checkpoint, device, build)?))
            }
            Some(blip::MODEL_TYPE) => Ok(Self::Blip(blip::Blip::load(config, checkpoint, device)?)),
            Some(clip::MODEL_TYPE) => {
                let config = clip::ClipConfig::parse(config)?;
                let build = |w: &mut Weights| clip::Clip::new(w, &config);
                Ok(Self::Clip(filled(
                    clip::translated(checkpoint),
                    device,
                    build,
                )?))
            }
            Some(siglip::MODEL_TYPE) => {
                let config = siglip::SiglipConfig::parse(config)?;
                let build = |w: &mut Weights| siglip::Siglip::new(w, &config);
                Ok(Self::Siglip(filled(
                    siglip::translated(checkpoint),
                    device,
                    build,
                )?))
            }
            _ => Err(Error::Config {
                place: "model_type".to_owned(),
                expected: "\"blip\", \"clip\", \"coca\" or \"siglip\"".to_owned(),
                found: model_type.map_or("nothing".to_owned(), |t| format!("{t:?}")),
            }),
        }
    }

    /// Builds the model that a checkpoint without a config holds: its layout and sizes are told by the names and
    /// shapes of its tensors, as the original code does.
    ///
    /// # Errors
    /// Names of no known layout, or weights that do not fit the sizes that some of them tell.
    pub fn recognise(checkpoint: Checkpoint, _device: &Device) -> Result<Self, Error> {
        // one arm per original layout: `if NAME::recognised(&checkpoint) { return NAME::from_original(checkpoint, device); }`
        let some: Vec<&str> = checkpoint.tensors().map(|t| t.name).take(3).collect();
        Err(Error::Config {
            place: checkpoint.name().to_owned(),
            expected: "a config.json, or tensors named as a layout that tells its sizes".to_owned(),
            found: format!("{} ...", some.join(", ")),
        })
    }

    /// The family's name, as in `model_type`.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Blip(_) => blip::MODEL_TYPE,
            Self::Coca(_) => coca::MODEL_TYPE,
            Self::Clip(_) => clip::MODEL_TYPE,
            Self::Siglip(_) => siglip::MODEL_TYPE,
        }
    }

    /// What pictures must be.
    pub fn pictures(&self) -> PictureSize {
        let (num_channels, image_size) = match self {
            Self::Blip(m) => (m.config().vision.num_channels, m.config().vision.image_size),
            Self::Coca(m) => {
                let vision = &m.config().vision_config;
                (vision.num_channels, vision.image_size)
            }
            Self::Clip(m) => (m.config().vision.num_channels, m.config().vision.image_size),
            Self::Siglip(m) => (m.config().vision.num_channels, m.config().vision.image_size),
        };
        PictureSize {
            num_channels,
            image_size: Some(image_size),
        }
    }

    /// What texts must be.
    pub fn texts(&self) -> TextSize {
        let (vocab_size, max_positions) = match self {
            Self::Blip(m) => (
                m.config().text.vocab_size,
                m.config().text.max_position_embeddings,
            ),
            Self::Coca(m) => {
                let text = &m.config().text_config;
                (text.vocab_size, text.max_position_embeddings)
            }
            Self::Clip(m) => (
                m.config().text.vocab_size,
                m.config().text.max_position_embeddings,
            ),
            Self::Siglip(m) => (
                m.config().text.vocab_size,
                m.config().text.max_position_embeddings,
            ),
        };
        TextSize {
            vocab_size,
            max_positions,
        }
    }

    /// The number of parameters.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Blip(m) => m.num_params(),
            Self::Coca(m) => m.num_params(),
            Self::Clip(m) => m.num_params(),
            Self::Siglip(m) => m.num_params(),
        }
    }

    fn unsupported<T>(&self, task: &'static str, able: &'static str) -> Result<T, Error> {
        Err(Error::Unsupported {
            family: self.family(),
            task,
            able,
        })
    }

    /// # Errors
    /// A family without a language-model head.
    pub fn generate(&self) -> Result<&dyn Generate, Error> {
        match self {
            Self::Blip(m) => m.can_caption().map(|()| m as _),
            Self::Coca(m) => Ok(m),
            _ => self.unsupported("write text", "blip and coca"),
        }
    }

    /// # Errors
    /// A family that does not read questions before it answers.
    pub fn answer_question(&self) -> Result<&dyn AnswerQuestion, Error> {
        match self {
            Self::Blip(m) => m.can_answer().map(|()| m as _),
            _ => self.unsupported("answer questions", "blip and coca"),
        }
    }

    /// # Errors
    /// A family without an image-text matching head.
    pub fn score_pair(&self) -> Result<&dyn ScorePair, Error> {
        match self {
            Self::Blip(m) => m.can_judge().map(|()| m as _),
            _ => self.unsupported("judge pairs", "blip"),
        }
    }

    /// # Errors
    /// A family without a contrastive space.
    pub fn embed_image(&self) -> Result<&dyn EmbedImage, Error> {
        match self {
            Self::Blip(m) => m.can_embed().map(|()| m as _),
            Self::Coca(m) => Ok(m),
            Self::Clip(m) => Ok(m),
            Self::Siglip(m) => Ok(m),
        }
    }

    /// # Errors
    /// A family without a contrastive space.
    pub fn embed_text(&self) -> Result<&dyn EmbedText, Error> {
        match self {
            Self::Blip(m) => m.can_embed().map(|()| m as _),
            Self::Coca(m) => Ok(m),
            Self::Clip(m) => Ok(m),
            Self::Siglip(m) => Ok(m),
        }
    }

    /// # Errors
    /// A family of ours, which has no reference implementation.
    pub fn reference(&self) -> Result<&dyn Reference, Error> {
        match self {
            Self::Coca(_) => {
                self.unsupported("be compared with a reference", "blip, clip and siglip")
            }
            Self::Blip(m) => Ok(m),
            Self::Clip(m) => Ok(m),
            Self::Siglip(m) => Ok(m),
        }
    }
}
