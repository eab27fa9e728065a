//! Which parts a model of the tree is made of.

use super::MODEL_TYPE;
use crate::encoders::handcrafted::HandcraftedConfig;
use crate::encoders::{CnnConfig, TextConfig, VisionConfig, check_heads, check_size};
use crate::error::{Error, expect};
use crate::families::nic::RnnType;
use crate::fusion::{FusionConfig, FusionKind};
use serde::{Deserialize, Serialize};

/// The encoder of pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisionPart {
    /// Formulas without parameters; levels from 0 to 1.
    Handcrafted(HandcraftedConfig),
    /// Convolutions.
    Cnn {
        /// Sizes.
        sizes: CnnConfig,
        /// Height and width of a picture, in pixels.
        image_size: usize,
    },
    /// A transformer.
    Vit(VisionConfig),
}

/// The encoder of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextPart {
    /// Counts of words, weighted.
    BagOfWords,
    /// Recurrent layers.
    Rnn(RnnType),
    /// Causal attention.
    Transformer,
}

/// A model of the tree: a picture's encoder, a text's encoder, a fusion, and what it is trained for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeConfig {
    /// Always `tree`.
    pub model_type: String,
    /// The encoder of pictures.
    pub vision: VisionPart,
    /// The encoder of texts.
    pub text: TextPart,
    /// How both are joined.
    pub fusion: FusionKind,
    /// Width `D` of all parts but the vision encoder's inside.
    pub hidden_size: usize,
    /// Layers of the text encoder and of the fusion, where they have layers.
    pub num_layers: usize,
    /// Attention heads, where there is attention.
    pub num_heads: usize,
    /// Tokens `V`.
    pub vocab_size: usize,
    /// Most tokens of a text.
    pub max_length: usize,
    /// Answers `A` that questions may have; 0 for a model that answers none.
    pub num_answers: usize,
    /// The answers as words, in the order of their numbers; none for a model whose numbers others give a meaning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// Whether it writes captions.
    pub captions: bool,
    /// Whether texts are learned to belong to pictures: a space that both share, and matching. Without it, questions
    /// alone are learned from.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub contrast: bool,
    /// Begins a caption.
    pub bos_token_id: u32,
    /// Ends a caption.
    pub eos_token_id: u32,
    /// Fills texts of a batch to equal length.
    pub pad_token_id: u32,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_yes(flag: &bool) -> bool {
    *flag
}

impl TreeConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// Keys that are not understood, or sizes that are out of range or do not fit each other.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let config: Self = serde_json::from_str(json)?;
        config.validate()?;
        Ok(config)
    }

    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        let model_type = self.model_type.as_str();
        expect(
            model_type == MODEL_TYPE,
            "model_type",
            MODEL_TYPE,
            model_type,
        )?;
        match &self.vision {
            VisionPart::Handcrafted(c) => c.validate()?,
            VisionPart::Cnn { sizes, image_size } => {
                sizes.validate()?;
                check_size("vision.image_size", *image_size, 4096)?;
            }
            VisionPart::Vit(c) => c.validate()?,
        }
        for (name, value, max) in [
            ("hidden_size", self.hidden_size, 16384),
            ("num_layers", self.num_layers, 64),
            ("vocab_size", self.vocab_size, 1 << 20),
            ("max_length", self.max_length, 1 << 16),
        ] {
            check_size(name, value, max)?;
        }
        check_heads("num_heads", self.hidden_size, self.num_heads)?;
        let answers = self.num_answers;
        expect(answers <= 1 << 20, "num_answers", "at most 2^20", answers)?;
        expect(
            self.contrast || answers > 0 && !self.captions,
            "contrast",
            "true, or answers (num_answers) and no captions",
            self.contrast,
        )?;
        let words = self.answers.len();
        expect(
            words == 0 || words == answers,
            "answers",
            format!("num_answers = {answers} words, or none"),
            words,
        )?;
        for (name, id) in [
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
            ("pad_token_id", self.pad_token_id),
        ] {
            let most = self.vocab_size - 1;
            expect(id as usize <= most, name, format!("at most {most}"), id)?;
        }
        Ok(())
    }

    /// Height and width of a picture, in pixels.
    pub fn image_size(&self) -> usize {
        match &self.vision {
            VisionPart::Handcrafted(c) => c.image_size,
            VisionPart::Cnn { image_size, .. } => *image_size,
            VisionPart::Vit(c) => c.image_size,
        }
    }

    /// Sizes of the fusion: its scores are those of the answers, and two of whether a text belongs to a picture.
    pub(super) fn fusion(&self) -> FusionConfig {
        FusionConfig {
            kind: self.fusion,
            width: self.hidden_size,
            heads: self.num_heads,
            layers: self.num_layers,
            outputs: self.num_answers + if self.contrast { 2 } else { 0 },
        }
    }

    /// Sizes of a text transformer.
    pub(super) fn transformer(&self) -> TextConfig {
        TextConfig {
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_length,
            hidden_size: self.hidden_size,
            intermediate_size: 4 * self.hidden_size,
            num_hidden_layers: self.num_layers,
            num_multimodal_layers: 1,
            num_attention_heads: self.num_heads,
            layer_norm_eps: 1e-6,
        }
    }
}
