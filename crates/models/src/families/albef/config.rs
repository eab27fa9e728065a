//! What an ALBEF is: read from a `config.json`, or told by the tensors of a released checkpoint.

use super::names;
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
pub enum AlbefTask {
    /// `ALBEF.pth`: a contrastive space, a matching head and a masked-language-model head.
    Pretraining,
    /// `flickr30k.pth`, `mscoco.pth` and `refcoco.pth`: a contrastive space and a matching head.
    Retrieval,
    /// `vqa.pth`: a decoder of answers that reads the states of questions about pictures.
    QuestionAnswering,
    /// `pretrain_model_nlvr.pth`: to which of two pictures a text belongs, if to any.
    TextAssignment,
    /// NLVR2: whether a text is true of two pictures.
    Nlvr,
    /// SNLI-VE: whether a picture contradicts a text, leaves it open or entails it.
    Entailment,
}

impl AlbefTask {
    const ALL: [Self; 6] = [
        Self::Pretraining,
        Self::Retrieval,
        Self::QuestionAnswering,
        Self::TextAssignment,
        Self::Nlvr,
        Self::Entailment,
    ];

    /// The value of the field `task`: the authors' script that makes such a checkpoint, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pretraining => "pretrain",
            Self::Retrieval => "retrieval",
            Self::QuestionAnswering => "vqa",
            Self::TextAssignment => "pretrain_nlvr",
            Self::Nlvr => "nlvr",
            Self::Entailment => "ve",
        }
    }

    fn of_name(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|task| task.name() == name);
        found.ok_or_else(|| Error::Config {
            place: "task".to_owned(),
            expected: Self::ALL.map(Self::name).join(", "),
            found: format!("{name:?}"),
        })
    }

    /// Whether a text is read beside two pictures.
    pub fn reads_two_pictures(self) -> bool {
        matches!(self, Self::TextAssignment | Self::Nlvr)
    }

    /// Whether there is a space that pictures and texts share.
    pub fn has_shared_space(self) -> bool {
        self.matches_pairs() || self == Self::TextAssignment
    }

    /// Whether there is a head that judges pairs.
    pub fn matches_pairs(self) -> bool {
        matches!(self, Self::Pretraining | Self::Retrieval)
    }

    /// The classes of texts about pictures, where there is a head for them.
    pub fn classes(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Nlvr => Some(&["false", "true"]),
            Self::Entailment => Some(&["contradiction", "neutral", "entailment"]),
            Self::TextAssignment => Some(&["first", "second", "neither"]),
            _ => None,
        }
    }

    /// By the parts that a released checkpoint has.
    pub(super) fn of_parts(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let has = |part: &str| checkpoint.tensors().any(|t| t.name.starts_with(part));
        let classes = checkpoint.shape("cls_head.2.weight");
        let classes = classes.map(|shape| shape.first().copied().unwrap_or(0));
        Ok(match classes {
            _ if has("text_decoder.") => Self::QuestionAnswering,
            _ if has("ta_head.") => Self::TextAssignment,
            Some(2) => Self::Nlvr,
            Some(_) => Self::Entailment,
            None if has("text_encoder.cls.") => Self::Pretraining,
            None if has("itm_head.") => Self::Retrieval,
            None => {
                return Err(Error::Config {
                    place: checkpoint.name().to_owned(),
                    expected: "tensors named itm_head, text_decoder, cls_head or ta_head"
                        .to_owned(),
                    found: "none".to_owned(),
                });
            }
        })
    }
}

/// Sizes and variant of the family, and how it is trained; field names as in the authors' `configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct AlbefConfig {
    /// What it is made of.
    pub task: AlbefTask,
    /// The picture encoder.
    pub vision: VisionTowerConfig,
    /// The text encoder and, from its layer `fusion_layer` on, the fusion encoder: as many layers as the task has.
    pub text: BertConfig,
    /// Width `E` of the space that pictures and texts share.
    pub embed_dim: usize,
    /// Vectors that the contrastive loss remembers; 0 for none.
    pub queue_size: usize,
    /// How slowly the momentum model follows.
    pub momentum: f32,
    /// The initial temperature of the contrastive loss.
    pub temp: f32,
    /// The weight of distillation.
    pub alpha: f32,
    /// Whether there is distillation, and for other tasks than pre-training and retrieval a momentum model.
    pub distill: bool,
    /// The share of tokens that are masked.
    pub mlm_probability: f64,
    /// Answers that are ranked by their whole likelihood.
    pub k_test: usize,
    /// Padding, `[PAD]`.
    pub pad_token_id: u32,
    /// What texts begin with, `[CLS]`.
    pub cls_token_id: u32,
    /// What ends an answer, `[SEP]`; no other text has one.
    pub sep_token_id: u32,
    /// What hides a word, `[MASK]`.
    pub mask_token_id: u32,
}

/// Fields of the authors' configs about data and optimisation, and of BERT's without effect on numbers.
const WITHOUT_EFFECT: &[&str] = &[
    "architectures",
    "attention_probs_dropout_prob",
    "batch_size",
    "batch_size_test",
    "batch_size_train",
    "eval_ema",
    "hidden_dropout_prob",
    "optimizer",
    "schedular",
    "warm_up",
];

/// BERT's ids, where the vocabulary is large enough for them.
fn token_ids(vocab_size: usize) -> [u32; 3] {
    let last = u32::try_from(vocab_size.saturating_sub(1)).unwrap_or(0);
    [101, 102, 103].map(|id: u32| id.min(last))
}

/// The released vision transformer: DeiT-base.
fn vision(image_res: [usize; 2]) -> VisionTowerConfig {
    VisionTowerConfig {
        image_size: image_res,
        patch_size: 16,
        num_channels: 3,
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        layer_norm_eps: 1e-6,
        hidden_act: Activation::Gelu,
        patch_bias: true,
        pre_norm: false,
        layer_scale: None,
        naflex: false,
        pooling: VisionPooling::NormThenClassToken,
        projection_dim: None,
    }
}

impl AlbefConfig {
    /// Reads and validates a `config.json` with the fields of the authors' `configs/*.yaml`: `image_res` (also a
    /// list of height and width, which theirs cannot be), `vision_width`, `embed_dim`, `queue_size`, `momentum`, `temp`, `alpha`, `distill`, `mlm_probability`, `k_test`;
    /// what stands in their `config_bert.json` as the object `bert_config`; what their code fixes as the object
    /// `vision_config` (`patch_size`, `embed_dim`, `depth`, `num_heads`, `mlp_ratio`); and `task`, which the checkpoint
    /// tells where the field does not. What is left out has the released value.
    ///
    /// # Errors
    /// A field of the wrong type, out of range, that does not fit another, or that is not understood; no task.
    pub fn parse(json: &str, checkpoint: Option<&Checkpoint>) -> Result<Self, Error> {
        let json: Value = serde_json::from_str(json)?;
        let fields = Fields::of(&json)?;
        let model_type = fields.text("model_type", "")?;
        expect(
            model_type == super::MODEL_TYPE,
            "model_type",
            format!("{:?}", super::MODEL_TYPE),
            format!("{model_type:?}"),
        )?;
        let task = match (fields.text("task", "")?, checkpoint) {
            ("", Some(checkpoint)) => AlbefTask::of_parts(checkpoint)?,
            (name, _) => AlbefTask::of_name(name)?,
        };
        // the authors name the file there; released models have the released one
        let named = fields.get("bert_config").is_some_and(Value::is_string);
        let bert = fields.part(if named { "" } else { "bert_config" })?;
        let vit = fields.part("vision_config")?;
        let image_res = if task.is_pretraining() { 256 } else { 384 };
        let image_res = fields.sides("image_res", [image_res; 2])?;
        let default = vision(image_res);
        let vision_width = fields.size("vision_width", default.hidden_size)?;
        let mlp_ratio = vit.number("mlp_ratio", 4.0)?;
        let width = vit.size("embed_dim", vision_width)?;
        let hidden = width as f64 * mlp_ratio;
        expect(
            (1.0..=65536.0).contains(&hidden),
            "vision_config.mlp_ratio",
            "1 to 65536 channels",
            mlp_ratio,
        )?;
        let vision = VisionTowerConfig {
            patch_size: vit.size("patch_size", default.patch_size)?,
            hidden_size: width,
            intermediate_size: hidden as usize,
            num_hidden_layers: vit.size("depth", default.num_hidden_layers)?,
            num_attention_heads: vit.size("num_heads", default.num_attention_heads)?,
            ..default
        };
        expect(
            width == vision_width,
            "vision_width",
            format!("vision_config.embed_dim {width}"),
            vision_width,
        )?;
        let vocab_size = bert.size("vocab_size", 30522)?;
        let [cls, sep, mask] = token_ids(vocab_size);
        let id = |name: &str, default: u32| -> Result<u32, Error> {
            let id = bert.optional_size(name)?;
            Ok(id.map_or(default, |id| u32::try_from(id).unwrap_or(u32::MAX)))
        };
        let pad_token_id = id("pad_token_id", 0)?;
        let encoder_width = bert.size("encoder_width", vision_width)?;
        expect(
            encoder_width == vision_width,
            "bert_config.encoder_width",
            format!("vision_width {vision_width}"),
            encoder_width,
        )?;
        let text = BertConfig {
            vocab_size,
            max_position_embeddings: bert.size("max_position_embeddings", 512)?,
            type_vocab_size: bert.size("type_vocab_size", 2)?,
            hidden_size: bert.size("hidden_size", 768)?,
            intermediate_size: bert.size("intermediate_size", 3072)?,
            num_hidden_layers: bert.size("num_hidden_layers", 12)?,
            num_attention_heads: bert.size("num_attention_heads", 12)?,
            hidden_act: bert.activation(Activation::Gelu)?,
            layer_norm_eps: bert.number("layer_norm_eps", 1e-12)?,
            cross_attention: Some(BertCrossAttention {
                from_layer: bert.size("fusion_layer", 6)?,
                memory_width: vision_width,
                paired: false,
            }),
            padding_idx: Some(pad_token_id as usize),
            pooler: false,
        };
        text.validate("bert_config")?;
        let config = Self {
            task,
            vision,
            text: for_task(text, task),
            embed_dim: fields.size("embed_dim", 256)?,
            queue_size: fields.size("queue_size", 65536)?,
            momentum: fields.number("momentum", 0.995)? as f32,
            temp: fields.number("temp", 0.07)? as f32,
            alpha: fields.number("alpha", 0.4)? as f32,
            distill: fields.flag("distill", true)?,
            mlm_probability: fields.number("mlm_probability", 0.15)?,
            k_test: fields.size("k_test", 128)?,
            pad_token_id,
            cls_token_id: id("cls_token_id", cls)?,
            sep_token_id: id("sep_token_id", sep)?,
            mask_token_id: id("mask_token_id", mask)?,
        };
        let bert_type = bert.text("model_type", "bert")?;
        for (name, found, only) in [
            ("bert_config.model_type", bert_type, "bert"),
            (
                "bert_config.position_embedding_type",
                bert.text("position_embedding_type", "absolute")?,
                "absolute",
            ),
            ("eos", fields.text("eos", "[SEP]")?, "[SEP]"),
        ] {
            expect(found == only, name, only, found)?;
        }
        for part in [&fields, &bert, &vit] {
            part.skip(WITHOUT_EFFECT);
            part.finish()?;
        }
        config.validate()?;
        Ok(config)
    }

    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        self.vision.validate()?;
        self.text.validate("bert_config")?;
        check_size("embed_dim", self.embed_dim, 16384)?;
        check_size("k_test", self.k_test, 1 << 20)?;
        expect(
            self.queue_size <= 1 << 20,
            "queue_size",
            "at most 1048576",
            self.queue_size,
        )?;
        expect(
            self.temp.is_finite() && self.temp > 0.0,
            "temp",
            "above 0",
            self.temp,
        )?;
        for (name, share) in [
            ("momentum", f64::from(self.momentum)),
            ("alpha", f64::from(self.alpha)),
            ("mlm_probability", self.mlm_probability),
        ] {
            expect((0.0..=1.0).contains(&share), name, "0 to 1", share)?;
        }
        for (name, id) in [
            ("pad_token_id", self.pad_token_id),
            ("cls_token_id", self.cls_token_id),
            ("sep_token_id", self.sep_token_id),
            ("mask_token_id", self.mask_token_id),
        ] {
            expect(
                (id as usize) < self.text.vocab_size,
                &format!("bert_config.{name}"),
                format!("below vocab_size {}", self.text.vocab_size),
                id,
            )?;
        }
        // the authors build the answer decoder for a memory of the pictures' width and give it the questions' states
        expect(
            self.task != AlbefTask::QuestionAnswering
                || self.text.hidden_size == self.vision.hidden_size,
            "bert_config.hidden_size",
            format!("vision_width {}", self.vision.hidden_size),
            self.text.hidden_size,
        )
    }

    /// The first layer with cross-attention.
    pub fn fusion_layer(&self) -> usize {
        let cross = self.text.cross_attention;
        cross.map_or(self.text.num_hidden_layers, |cross| cross.from_layer)
    }

    /// The answer decoder's sizes: as many layers as there are with cross-attention, all of which have it.
    pub fn decoder(&self) -> BertConfig {
        BertConfig {
            num_hidden_layers: self.text.num_hidden_layers - self.fusion_layer(),
            cross_attention: Some(BertCrossAttention {
                from_layer: 0,
                memory_width: self.text.hidden_size,
                paired: false,
            }),
            ..self.text.clone()
        }
    }

    /// The same sizes for another task, as the authors fine-tune what they pre-trained.
    #[must_use]
    pub fn for_task(&self, task: AlbefTask) -> Self {
        let mut text = self.text.clone();
        let fusion = self.fusion_layer();
        if self.task.reads_two_pictures() {
            text.num_hidden_layers = fusion + (text.num_hidden_layers - fusion) / 2;
        }
        Self {
            task,
            text: for_task(text, task),
            ..self.clone()
        }
    }

    /// What a released checkpoint holds, told by the shapes of its tensors; everything else is fixed in the authors'
    /// code. Its models have 64 channels per head; one narrower than that has one head.
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
        let numbers = |of: String, inside: &'static str| {
            let number = move |name: &str| -> Option<usize> {
                let (number, rest) = name.strip_prefix(&of)?.split_once('.')?;
                rest.starts_with(inside).then_some(number.parse().ok()?)
            };
            checkpoint.tensors().filter_map(move |t| number(t.name))
        };
        let layers = |of: String| {
            numbers(of, "")
                .max()
                .map_or(0, |last| last.saturating_add(1))
        };
        let heads = |width: usize| (width / 64).max(1);
        let task = AlbefTask::of_parts(checkpoint)?;
        let patches = shape("visual_encoder.patch_embed.proj.weight", 4)?;
        let positions = shape("visual_encoder.pos_embed", 3)?;
        let (width, patch) = (patches[0], patches[3]);
        let side = positions[1].saturating_sub(1).isqrt();
        let vision = VisionTowerConfig {
            patch_size: patch,
            num_channels: patches[1],
            hidden_size: width,
            intermediate_size: shape("visual_encoder.blocks.0.mlp.fc1.weight", 2)?[0],
            num_hidden_layers: layers("visual_encoder.blocks.".to_owned()),
            num_attention_heads: heads(width),
            ..vision([side.saturating_mul(patch); 2])
        };
        let bert = names::text_encoder(checkpoint);
        let words = shape(&format!("{bert}embeddings.word_embeddings.weight"), 2)?;
        let positions = shape(&format!("{bert}embeddings.position_embeddings.weight"), 2)?;
        let types = shape(&format!("{bert}embeddings.token_type_embeddings.weight"), 2)?;
        let hidden = format!("{bert}encoder.layer.0.intermediate.dense.weight");
        let layer = format!("{bert}encoder.layer.");
        let num_hidden_layers = layers(layer.clone());
        let text = BertConfig {
            vocab_size: words[0],
            max_position_embeddings: positions[0],
            type_vocab_size: types[0],
            hidden_size: words[1],
            intermediate_size: shape(&hidden, 2)?[0],
            num_hidden_layers,
            num_attention_heads: heads(words[1]),
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            cross_attention: Some(BertCrossAttention {
                from_layer: numbers(layer, "crossattention.")
                    .min()
                    .unwrap_or(num_hidden_layers),
                memory_width: width,
                paired: task.reads_two_pictures(),
            }),
            padding_idx: Some(0),
            pooler: false,
        };
        let embed_dim = match task.has_shared_space() {
            true => shape("vision_proj.weight", 2)?[0],
            false => 256,
        };
        let queue_size = match checkpoint.contains("image_queue") {
            true => shape("image_queue", 2)?[1],
            false => 0,
        };
        let [cls_token_id, sep_token_id, mask_token_id] = token_ids(words[0]);
        let config = Self {
            task,
            vision,
            text,
            embed_dim,
            queue_size,
            momentum: 0.995,
            temp: 0.07,
            alpha: 0.4,
            distill: true,
            mlm_probability: 0.15,
            k_test: 128,
            pad_token_id: 0,
            cls_token_id,
            sep_token_id,
            mask_token_id,
        };
        config.validate()?;
        Ok(config)
    }
}

impl AlbefTask {
    /// Whether the authors train for it at the smaller size.
    fn is_pretraining(self) -> bool {
        matches!(self, Self::Pretraining | Self::TextAssignment)
    }
}

/// The text encoder of a task: for two pictures each layer with cross-attention is there twice.
fn for_task(mut text: BertConfig, task: AlbefTask) -> BertConfig {
    if let Some(cross) = &mut text.cross_attention {
        cross.paired = task.reads_two_pictures();
        if cross.paired {
            text.num_hidden_layers += text.num_hidden_layers - cross.from_layer;
        }
    }
    text
}
