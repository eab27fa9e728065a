//! What a BLIP is: read from a published `config.json`, or told by the tensors of the authors' own checkpoints.

use crate::encoders::published::Fields;
use crate::encoders::{
    BertConfig, BertCrossAttention, VisionPooling, VisionTowerConfig, check_size,
};
use crate::error::{Error, expect};
use serde_json::Value;
use vlm_nn::ops::Activation;
use vlm_nn::weights::Checkpoint;

/// What a checkpoint was trained for, which says what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlipTask {
    /// `BlipForConditionalGeneration`: a decoder that reads the picture.
    Captioning,
    /// `BlipForQuestionAnswering`: a question encoder that reads the picture, a decoder that reads the question's states.
    QuestionAnswering,
    /// `BlipForImageTextRetrieval`: a text encoder with a contrastive space and a matching head.
    Retrieval,
    /// `BlipModel`: two towers with a contrastive space; the text's is read through a pooler.
    Contrastive,
    /// The authors' pre-training checkpoints: everything that captioning and retrieval have.
    Pretraining,
}

impl BlipTask {
    /// Whether there is a text encoder.
    pub fn encodes_text(self) -> bool {
        self != Self::Captioning
    }

    /// Whether there is a text decoder.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Retrieval | Self::Contrastive)
    }

    /// Whether there is a head that judges pairs.
    pub fn matches_pairs(self) -> bool {
        matches!(self, Self::Retrieval | Self::Pretraining)
    }

    /// Whether there is a space that pictures and texts share.
    pub fn has_shared_space(self) -> bool {
        self.matches_pairs() || self == Self::Contrastive
    }

    fn of_class(class: &str) -> Result<Self, Error> {
        match class {
            "BlipForConditionalGeneration" => Ok(Self::Captioning),
            "BlipForQuestionAnswering" => Ok(Self::QuestionAnswering),
            "BlipForImageTextRetrieval" => Ok(Self::Retrieval),
            "BlipModel" => Ok(Self::Contrastive),
            _ => Err(Error::Config {
                place: "architectures".to_owned(),
                expected: "BlipForConditionalGeneration, BlipForQuestionAnswering, BlipForImageTextRetrieval or \
                           BlipModel"
                    .to_owned(),
                found: class.to_owned(),
            }),
        }
    }

    /// By the parts that a checkpoint of either layout has.
    fn of_parts(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let has = |part: &str| checkpoint.tensors().any(|t| t.name.starts_with(part));
        if has("text_model.") {
            Ok(Self::Contrastive)
        } else if has("itm_head.") {
            let decoder = has("text_decoder.");
            Ok(if decoder {
                Self::Pretraining
            } else {
                Self::Retrieval
            })
        } else if has("text_decoder.") {
            let encoder = has("text_encoder.");
            Ok(if encoder {
                Self::QuestionAnswering
            } else {
                Self::Captioning
            })
        } else {
            Err(Error::Config {
                place: checkpoint.name().to_owned(),
                expected: "tensors named text_decoder, itm_head or text_model".to_owned(),
                found: "none".to_owned(),
            })
        }
    }
}

/// Sizes and variant of the family.
#[derive(Clone, Debug, PartialEq)]
pub struct BlipConfig {
    /// What it is made of.
    pub task: BlipTask,
    /// The picture encoder.
    pub vision: VisionTowerConfig,
    /// The text encoder and, apart from what its cross-attention reads, the decoder.
    pub text: BertConfig,
    /// Width `E` of the space that pictures and texts share.
    pub projection_dim: usize,
    /// Logarithm of the initial inverse temperature of the contrastive loss.
    pub logit_scale_init_value: f32,
    /// Label smoothing of the language-modelling loss.
    pub label_smoothing: f32,
    /// Whether the decoder's output layer is its table of word embeddings.
    pub tie_word_embeddings: bool,
    /// The token that begins what the decoder writes, `[DEC]`.
    pub bos_token_id: u32,
    /// The token that ends it, `[SEP]`.
    pub sep_token_id: u32,
    /// Padding.
    pub pad_token_id: u32,
    /// The token that begins what reads a picture, `[ENC]`, in the authors' own code; transformers leaves `[CLS]` there.
    pub enc_token_id: Option<u32>,
    /// Whether an answer's training leaves out the padding of its question, as the authors' own code does; transformers
    /// builds that mask and drops it on the way. When they generate, both read it all.
    pub question_padding_masked: bool,
    /// Whether the checkpoint holds the temperature of the contrastive loss.
    pub temperature: bool,
}

/// Fields of other classes and of older versions, which change no output.
const WITHOUT_EFFECT: &[&str] = &[
    "add_cross_attention",
    "attention_probs_dropout_prob",
    "encoder_hidden_size",
    "hidden_dropout_prob",
    "is_decoder",
    "label_smoothing",
    "type_vocab_size",
];

/// Fields that are understood with one value only.
fn check_fixed(fields: &Fields) -> Result<(), Error> {
    for (name, only) in [
        ("num_channels", "3"),
        ("position_embedding_type", "\"absolute\""),
        ("pruned_heads", "{}"),
        ("quantization_config", "{}"),
    ] {
        let found = fields.get(name).filter(|found| !found.is_null());
        let found = found.map_or(only.to_owned(), ToString::to_string);
        expect(found == only, &fields.name(name), only, found)?;
    }
    Ok(())
}

impl BlipConfig {
    /// Reads and validates a published `config.json`; the checkpoint says what the model is made of where
    /// `architectures` does not.
    ///
    /// # Errors
    /// A field of the wrong type, out of range, that does not fit another, or that is not understood.
    pub fn parse(json: &str, checkpoint: &Checkpoint) -> Result<Self, Error> {
        let json: Value = serde_json::from_str(json)?;
        let fields = Fields::of(&json)?;
        let model_type = fields.text("model_type", "")?;
        expect(
            model_type == super::MODEL_TYPE,
            "model_type",
            format!("{:?}", super::MODEL_TYPE),
            format!("{model_type:?}"),
        )?;
        let (text, vision) = (fields.part("text_config")?, fields.part("vision_config")?);
        let class = fields.get("architectures").and_then(|list| list.get(0));
        let task = match class.and_then(Value::as_str) {
            None => BlipTask::of_parts(checkpoint)?,
            Some(class) => BlipTask::of_class(class)?,
        };
        let decoder = text.flag("is_decoder", true)?;
        expect(
            decoder || task == BlipTask::Contrastive,
            "text_config.is_decoder",
            "true, for layers with cross-attention",
            "false",
        )?;
        // both are there in every config, and each class reads one
        let (contrastive, retrieval) = (
            fields.size("projection_dim", 512)?,
            fields.size("image_text_hidden_size", 256)?,
        );
        // either of the two ties: the decoder's config, or that of the model around it
        let tied =
            fields.flag("tie_word_embeddings", true)? || text.flag("tie_word_embeddings", true)?;
        let id = |name: &str, default: u32| -> Result<u32, Error> {
            let id = text.optional_size(name)?;
            Ok(id.map_or(default, |id| u32::try_from(id).unwrap_or(u32::MAX)))
        };
        let vision_sizes = published_vision(&vision)?;
        let pad_token_id = id("pad_token_id", 0)?;
        let config = Self {
            task,
            projection_dim: if task == BlipTask::Contrastive {
                contrastive
            } else {
                retrieval
            },
            logit_scale_init_value: fields.number("logit_scale_init_value", 2.6592)? as f32,
            label_smoothing: text.number("label_smoothing", 0.0)? as f32,
            tie_word_embeddings: tied,
            bos_token_id: id("bos_token_id", 30522)?,
            sep_token_id: id("sep_token_id", 102)?,
            pad_token_id,
            enc_token_id: None,
            question_padding_masked: false,
            temperature: false,
            text: BertConfig {
                vocab_size: text.size("vocab_size", 30524)?,
                max_position_embeddings: text.size("max_position_embeddings", 512)?,
                type_vocab_size: 0,
                hidden_size: text.size("hidden_size", 768)?,
                intermediate_size: text.size("intermediate_size", 3072)?,
                num_hidden_layers: text.size("num_hidden_layers", 12)?,
                num_attention_heads: text.size("num_attention_heads", 8)?,
                hidden_act: text.activation(Activation::Gelu)?,
                layer_norm_eps: text.number("layer_norm_eps", 1e-12)?,
                // the config's encoder_hidden_size is overwritten by the pictures' width
                cross_attention: decoder.then_some(BertCrossAttention {
                    from_layer: 0,
                    memory_width: vision_sizes.hidden_size,
                    paired: false,
                }),
                padding_idx: Some(pad_token_id as usize),
                pooler: task == BlipTask::Contrastive,
            },
            vision: vision_sizes,
        };
        for part in [&fields, &text, &vision] {
            part.skip(WITHOUT_EFFECT);
            check_fixed(part)?;
            part.finish()?;
        }
        // transformers builds the answer decoder for a memory of the pictures' width and gives it the questions' states
        expect(
            task != BlipTask::QuestionAnswering
                || config.text.hidden_size == config.vision.hidden_size,
            "text_config.hidden_size",
            format!("vision_config.hidden_size {}", config.vision.hidden_size),
            config.text.hidden_size,
        )?;
        config.validate()?;
        Ok(config)
    }

    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        self.vision.validate()?;
        self.text.validate("text_config")?;
        check_size("projection_dim", self.projection_dim, 16384)?;
        expect(
            (0.0..=1.0).contains(&self.label_smoothing),
            "text_config.label_smoothing",
            "0 to 1",
            self.label_smoothing,
        )?;
        expect(
            self.logit_scale_init_value.is_finite(),
            "logit_scale_init_value",
            "a number",
            self.logit_scale_init_value,
        )?;
        let ids = [
            ("bos_token_id", Some(self.bos_token_id)),
            ("sep_token_id", Some(self.sep_token_id)),
            ("pad_token_id", Some(self.pad_token_id)),
            ("enc_token_id", self.enc_token_id),
        ];
        // an encoder never begins or ends a text of its own
        for (name, id) in ids.into_iter().filter(|_| self.task.writes()) {
            let Some(id) = id else { continue };
            expect(
                (id as usize) < self.text.vocab_size,
                &format!("text_config.{name}"),
                format!("below vocab_size {}", self.text.vocab_size),
                id,
            )?;
        }
        Ok(())
    }

    /// The decoder's sizes: those of the text encoder, except for what it reads.
    pub fn decoder(&self) -> BertConfig {
        let memory_width = match self.task {
            BlipTask::QuestionAnswering => self.text.hidden_size,
            _ => self.vision.hidden_size,
        };
        BertConfig {
            cross_attention: Some(BertCrossAttention {
                from_layer: 0,
                memory_width,
                paired: false,
            }),
            ..self.text.clone()
        }
    }

    /// What a checkpoint of the authors' own code holds, told by the shapes of its tensors; everything else is fixed in
    /// that code. Its models have 64 channels per head; one narrower than that has one head.
    ///
    /// # Errors
    /// Tensors that are missing, or of shapes that no such model has.
    pub fn of_original(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let shape = |name: &str, rank: usize| -> Result<Vec<usize>, Error> {
            let found = checkpoint.shape(name);
            match found {
                Some(shape) if shape.len() == rank => Ok(shape.to_vec()),
                _ => Err(Error::Config {
                    place: format!("{}: {name}", checkpoint.name()),
                    expected: format!("a tensor of {rank} dimensions"),
                    found: found.map_or("nothing".to_owned(), |shape| format!("{shape:?}")),
                }),
            }
        };
        let layers = |of: &str| {
            let number = |name: &str| -> Option<usize> {
                let rest = name.strip_prefix(of)?;
                rest.split('.').next()?.parse().ok()
            };
            let numbers = checkpoint.tensors().filter_map(|t| number(t.name));
            numbers.max().map_or(0, |last| last.saturating_add(1))
        };
        let heads = |width: usize| (width / 64).max(1);
        let task = BlipTask::of_parts(checkpoint)?;
        let patches = shape("visual_encoder.patch_embed.proj.weight", 4)?;
        let positions = shape("visual_encoder.pos_embed", 3)?;
        let (width, patch) = (patches[0], patches[3]);
        let vision = VisionTowerConfig {
            image_size: [positions[1].saturating_sub(1).isqrt().saturating_mul(patch); 2],
            patch_size: patch,
            num_channels: patches[1],
            hidden_size: width,
            intermediate_size: shape("visual_encoder.blocks.0.mlp.fc1.weight", 2)?[0],
            num_hidden_layers: layers("visual_encoder.blocks."),
            num_attention_heads: heads(width),
            layer_norm_eps: 1e-6,
            hidden_act: Activation::Gelu,
            patch_bias: true,
            pre_norm: false,
            layer_scale: None,
            naflex: false,
            pooling: VisionPooling::NormThenClassToken,
            projection_dim: None,
        };
        let bert = if task.encodes_text() {
            "text_encoder."
        } else {
            "text_decoder.bert."
        };
        let words = shape(&format!("{bert}embeddings.word_embeddings.weight"), 2)?;
        let positions = shape(&format!("{bert}embeddings.position_embeddings.weight"), 2)?;
        let hidden = shape(
            &format!("{bert}encoder.layer.0.intermediate.dense.weight"),
            2,
        )?;
        let text = BertConfig {
            vocab_size: words[0],
            max_position_embeddings: positions[0],
            type_vocab_size: 0,
            hidden_size: words[1],
            intermediate_size: hidden[0],
            num_hidden_layers: layers(&format!("{bert}encoder.layer.")),
            num_attention_heads: heads(words[1]),
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            cross_attention: Some(BertCrossAttention {
                from_layer: 0,
                memory_width: width,
                paired: false,
            }),
            padding_idx: Some(0),
            pooler: false,
        };
        let projection_dim = if task.has_shared_space() {
            shape("vision_proj.weight", 2)?[0]
        } else {
            256
        };
        // [DEC] and [ENC] were added to BERT's vocabulary as its last tokens
        let last = u32::try_from(words[0].saturating_sub(1)).unwrap_or(0);
        let config = Self {
            task,
            vision,
            text,
            projection_dim,
            logit_scale_init_value: (1f32 / 0.07).ln(),
            label_smoothing: 0.1,
            tie_word_embeddings: true,
            bos_token_id: last.saturating_sub(1),
            sep_token_id: 102.min(last),
            pad_token_id: 0,
            enc_token_id: task.encodes_text().then_some(last),
            question_padding_masked: true,
            temperature: checkpoint.contains("temp"),
        };
        config.validate()?;
        Ok(config)
    }
}

fn published_vision(fields: &Fields) -> Result<VisionTowerConfig, Error> {
    let default = VisionTowerConfig {
        image_size: [384; 2],
        patch_size: 16,
        num_channels: 3,
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        layer_norm_eps: 1e-5,
        hidden_act: Activation::Gelu,
        patch_bias: true,
        pre_norm: false,
        layer_scale: None,
        naflex: false,
        pooling: VisionPooling::NormThenClassToken,
        projection_dim: None,
    };
    let config = VisionTowerConfig::published(fields, default)?;
    // a list is a type that the class cannot calculate with
    for side in ["image_size", "patch_size"] {
        let list = fields.get(side).filter(|side| side.is_array());
        expect(
            list.is_none(),
            &fields.name(side),
            "a whole number",
            "a list",
        )?;
    }
    Ok(config)
}
