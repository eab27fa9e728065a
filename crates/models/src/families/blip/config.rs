//! What a BLIP is: read from a published `config.json`, or told by the tensors of the authors' own checkpoints.

use crate::encoders::published::activation;
use crate::encoders::{
    BertConfig, BertCrossAttention, VisionPooling, VisionTowerConfig, check_size,
};
use crate::error::{Error, expect};
use serde::Deserialize;
use serde_json::{Map, Value};
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

/// Fields of other classes' configs, of generation, training and bookkeeping, which change no output.
const WITHOUT_EFFECT: &[&str] = &[
    "add_cross_attention",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "decoder_pad_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "encoder_hidden_size",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "text_config_dict",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    "vision_config_dict",
];

/// Fields that are understood with one value only.
const ONLY: &[(&str, &str)] = &[
    ("cross_attention_hidden_size", "null"),
    ("num_channels", "3"),
    ("position_embedding_type", "\"absolute\""),
    ("pruned_heads", "{}"),
    ("quantization_config", "null"),
];

/// Refuses fields that might mean something.
fn check_rest(place: &str, rest: &Map<String, Value>) -> Result<(), Error> {
    for (name, value) in rest {
        if name.starts_with('_') || WITHOUT_EFFECT.contains(&name.as_str()) {
            continue;
        }
        let only = ONLY.iter().find(|(field, _)| field == name);
        let place = format!("{place}{name}");
        match only {
            Some((_, only)) => {
                let found = value.to_string();
                expect(found == *only || value.is_null(), &place, *only, found)?;
            }
            None => expect(false, &place, "a field of BLIP", value)?,
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Json {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    text_config: Option<TextJson>,
    vision_config: Option<VisionJson>,
    projection_dim: Option<usize>,
    image_text_hidden_size: Option<usize>,
    logit_scale_init_value: Option<f32>,
    #[serde(rename = "label_smoothing")]
    _label_smoothing: Option<f32>,
    tie_word_embeddings: Option<bool>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
struct TextJson {
    #[serde(rename = "model_type")]
    _model_type: Option<String>,
    #[serde(rename = "architectures")]
    _architectures: Option<Vec<String>>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    bos_token_id: Option<u32>,
    pad_token_id: Option<u32>,
    sep_token_id: Option<u32>,
    #[serde(rename = "projection_dim")]
    _projection_dim: Option<usize>,
    is_decoder: Option<bool>,
    tie_word_embeddings: Option<bool>,
    label_smoothing: Option<f32>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
struct VisionJson {
    #[serde(rename = "model_type")]
    _model_type: Option<String>,
    #[serde(rename = "architectures")]
    _architectures: Option<Vec<String>>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    #[serde(rename = "projection_dim")]
    _projection_dim: Option<usize>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

const IMAGE_SIDE: usize = 4096;

impl BlipConfig {
    /// Reads and validates a published `config.json`; the checkpoint says what the model is made of where
    /// `architectures` does not.
    ///
    /// # Errors
    /// A field of the wrong type, out of range, that does not fit another, or that is not understood.
    pub fn parse(json: &str, checkpoint: &Checkpoint) -> Result<Self, Error> {
        let json: Json = serde_json::from_str(json)?;
        expect(
            json.model_type.as_deref() == Some(super::MODEL_TYPE),
            "model_type",
            format!("{:?}", super::MODEL_TYPE),
            format!("{:?}", json.model_type.unwrap_or_default()),
        )?;
        let text = json.text_config.unwrap_or_default();
        let vision = json.vision_config.unwrap_or_default();
        check_rest("", &json.rest)?;
        check_rest("text_config.", &text.rest)?;
        check_rest("vision_config.", &vision.rest)?;
        let task = match json.architectures.as_deref() {
            None | Some([]) => BlipTask::of_parts(checkpoint)?,
            Some([class, ..]) => BlipTask::of_class(class)?,
        };
        let vision = vision.sizes()?;
        expect(
            text.is_decoder != Some(false) || task == BlipTask::Contrastive,
            "text_config.is_decoder",
            "true, for layers with cross-attention",
            "false",
        )?;
        let contrastive = task == BlipTask::Contrastive;
        let projection_dim = if contrastive {
            json.projection_dim.unwrap_or(512)
        } else {
            json.image_text_hidden_size.unwrap_or(256)
        };
        let config = Self {
            task,
            projection_dim,
            logit_scale_init_value: json.logit_scale_init_value.unwrap_or(2.6592),
            label_smoothing: text.label_smoothing.unwrap_or(0.0),
            // either of the two ties: the decoder's config, or that of the model around it
            tie_word_embeddings: json.tie_word_embeddings.unwrap_or(true)
                || text.tie_word_embeddings.unwrap_or(true),
            bos_token_id: text.bos_token_id.unwrap_or(30522),
            sep_token_id: text.sep_token_id.unwrap_or(102),
            pad_token_id: text.pad_token_id.unwrap_or(0),
            enc_token_id: None,
            question_padding_masked: false,
            temperature: false,
            text: text.sizes(task, vision.hidden_size)?,
            vision,
        };
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
            image_size: positions[1].saturating_sub(1).isqrt().saturating_mul(patch),
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
            pooling: VisionPooling::ClassToken,
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

impl TextJson {
    fn sizes(self, task: BlipTask, vision_width: usize) -> Result<BertConfig, Error> {
        let act = self.hidden_act.as_deref().unwrap_or("gelu");
        Ok(BertConfig {
            vocab_size: self.vocab_size.unwrap_or(30524),
            max_position_embeddings: self.max_position_embeddings.unwrap_or(512),
            type_vocab_size: 0,
            hidden_size: self.hidden_size.unwrap_or(768),
            intermediate_size: self.intermediate_size.unwrap_or(3072),
            num_hidden_layers: self.num_hidden_layers.unwrap_or(12),
            num_attention_heads: self.num_attention_heads.unwrap_or(8),
            hidden_act: activation("text_config.hidden_act", act)?,
            layer_norm_eps: self.layer_norm_eps.unwrap_or(1e-12),
            // the config's encoder_hidden_size is overwritten by the pictures' width
            cross_attention: self
                .is_decoder
                .unwrap_or(true)
                .then_some(BertCrossAttention {
                    from_layer: 0,
                    memory_width: vision_width,
                }),
            padding_idx: Some(self.pad_token_id.unwrap_or(0) as usize),
            pooler: task == BlipTask::Contrastive,
        })
    }
}

impl VisionJson {
    fn sizes(self) -> Result<VisionTowerConfig, Error> {
        let act = self.hidden_act.as_deref().unwrap_or("gelu");
        let (image_size, patch_size) = (
            self.image_size.unwrap_or(384),
            self.patch_size.unwrap_or(16),
        );
        check_size("vision_config.image_size", image_size, IMAGE_SIDE)?;
        check_size("vision_config.patch_size", patch_size, image_size)?;
        Ok(VisionTowerConfig {
            // pixels beyond a whole number of patches are not looked at
            image_size: image_size / patch_size * patch_size,
            patch_size,
            num_channels: 3,
            hidden_size: self.hidden_size.unwrap_or(768),
            intermediate_size: self.intermediate_size.unwrap_or(3072),
            num_hidden_layers: self.num_hidden_layers.unwrap_or(12),
            num_attention_heads: self.num_attention_heads.unwrap_or(12),
            layer_norm_eps: self.layer_norm_eps.unwrap_or(1e-5),
            hidden_act: activation("vision_config.hidden_act", act)?,
            patch_bias: true,
            pre_norm: false,
            layer_scale: None,
            naflex: false,
            pooling: VisionPooling::ClassToken,
            projection_dim: None,
        })
    }
}
