//! What an Oscar+ is: read from a released `config.json` and told by the parts of its checkpoint.

use crate::encoders::published::Fields;
use crate::encoders::{BertConfig, check_size};
use crate::error::{Error, expect};
use serde_json::Value;
use vlm_nn::ops::Activation;
use vlm_nn::weights::Checkpoint;

/// What a checkpoint was trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OscarTask {
    /// `BertImgForPreTraining`: masked tokens, and whether words, tags and picture belong together.
    Pretraining,
    /// `BertForImageCaptioning`.
    Captioning,
    /// `ImageBertForSequenceClassification`: VQA with its answers, retrieval with two classes.
    Classification,
    /// `ImageBertForMultipleChoice`: several triplets, one answer (NLVR2).
    Choice,
}

/// The loss of a classification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OscarLoss {
    /// Binary cross-entropy of each class, times the number of classes (VQA).
    Binary,
    /// Cross-entropy of classes.
    Classes,
}

/// Layers on the pooled state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OscarClassifier {
    /// One layer.
    Linear,
    /// Two layers with a ReLU between them, and a norm behind it if `norm`.
    Mlp {
        /// Width of the hidden layer, in hidden sizes.
        scale: usize,
        /// Whether there is a norm.
        norm: bool,
    },
}

/// Sizes and variant of the family; field names as in released files.
#[derive(Clone, Debug, PartialEq)]
pub struct OscarConfig {
    /// What it is made of.
    pub task: OscarTask,
    /// The fusion encoder.
    pub bert: BertConfig,
    /// Numbers of a region: features, and six of its place where there are 2,054.
    pub img_feature_dim: usize,
    /// What is added to the variance in the norm of regions, if there is one.
    pub img_layer_norm_eps: Option<f64>,
    /// Classes of a classification.
    pub num_labels: usize,
    /// Triplets to one answer.
    pub num_choice: usize,
    /// Layers of a classification.
    pub classifier: OscarClassifier,
    /// Its loss.
    pub loss: OscarLoss,
    /// Classes of the contrastive loss of pre-training: together, other tags, other words.
    pub num_contrast_classes: usize,
    /// Share of the triplets of pre-training that get another picture's text; those with another picture's tags make it
    /// up to a half.
    pub texta_false_prob: f64,
    /// Share of a text's tokens that are hidden to be told.
    pub mask_prob: f64,
    /// Most hidden tokens of a caption in captioning.
    pub max_masked_tokens: usize,
    /// Label smoothing of the captioning loss.
    pub label_smoothing: f32,
    /// Whether the captioner's output layer is the table of word embeddings.
    pub tie_weights: bool,
    /// Most tokens of words and tags together, as the released commands cut them: 70 of captions, 128 of questions, 55 of
    /// statements about two pictures.
    pub max_seq_length: usize,
    /// Most tokens of a caption; the positions of its tags begin there.
    pub max_seq_a_length: usize,
    /// Most regions of a picture, the first ones: 50, or 40 of statements about two pictures.
    pub max_img_seq_length: usize,
    /// Names of the classes of a classification; their numbers if nobody named them.
    pub answers: Vec<String>,
    /// The token that fills rows.
    pub pad_token_id: u32,
    /// The token that begins texts.
    pub cls_token_id: u32,
    /// The token that ends texts and tags.
    pub sep_token_id: u32,
    /// The token that stands for the next word of a caption.
    pub mask_token_id: u32,
}

/// More classes than any vocabulary of answers has.
const MOST_LABELS: usize = 1 << 20;

/// What a released config says of training and of other kinds of models.
const WITHOUT_EFFECT: &[&str] = &[
    "adapt",
    "attention_probs_dropout_prob",
    "code_dim",
    "code_level",
    "code_size",
    "code_voc",
    "drop_out",
    "drop_worst_after",
    "drop_worst_ratio",
    "freeze_embedding",
    "hidden_dropout_prob",
    "initializer_range",
    "num_classes",
    "od_label_conf",
    "output_past",
    "stack_layer",
    "use_b",
];

/// A flag that some releases write as a number and some as null.
fn loose_flag(fields: &Fields, name: &str) -> Result<bool, Error> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::Number(n)) => Ok(n.as_f64() != Some(0.0)),
        Some(_) => fields.flag(name, false),
    }
}

/// Whether a config is of this family: its `model_type` says so, or there is none, as in released ones, and it tells the
/// width of regions.
pub fn is_config(config: &Value) -> bool {
    match config.get("model_type") {
        None => config.get("img_feature_dim").is_some() && config.get("img_feature_type").is_some(),
        Some(family) => family.as_str() == Some(super::FAMILY),
    }
}

impl OscarTask {
    /// The task of a config's `task`.
    fn named(name: &str) -> Result<Self, Error> {
        match name {
            "pretrain" => Ok(Self::Pretraining),
            "captioning" => Ok(Self::Captioning),
            "vqa" | "retrieval" => Ok(Self::Classification),
            "nlvr" => Ok(Self::Choice),
            _ => Err(Error::Config {
                place: "task".to_owned(),
                expected: "pretrain, captioning, vqa, retrieval or nlvr".to_owned(),
                found: format!("{name:?}"),
            }),
        }
    }

    /// The task that the parts of a checkpoint tell.
    fn told(checkpoint: &Checkpoint, hidden_size: usize) -> Result<Self, Error> {
        let has = |part: &str| has(checkpoint, part);
        if has("classifier.") {
            // how many pooled states the classifier reads
            let first = ["classifier.0.weight", "classifier.weight"];
            let read = first.iter().find_map(|name| checkpoint.shape(name)?.get(1));
            let several = read.is_some_and(|&inputs| inputs > hidden_size);
            return Ok(match several {
                true => Self::Choice,
                false => Self::Classification,
            });
        }
        if has("cls.seq_relationship.") {
            return Ok(Self::Pretraining);
        }
        if has("cls.predictions.") {
            return Ok(Self::Captioning);
        }
        Err(Error::Config {
            place: checkpoint.name().to_owned(),
            expected: "tensors named classifier, cls.predictions or cls.seq_relationship"
                .to_owned(),
            found: "none".to_owned(),
        })
    }
}

/// Whether names of a checkpoint begin so.
fn has(checkpoint: &Checkpoint, part: &str) -> bool {
    checkpoint.tensors().any(|t| t.name.starts_with(part))
}

/// The answers that a config lists.
fn listed(fields: &Fields, num_labels: usize) -> Result<Vec<String>, Error> {
    let number = |i: usize| format!("answer {i}");
    let Some(Value::Array(given)) = fields.get("answers") else {
        return Ok((0..num_labels.min(MOST_LABELS)).map(number).collect());
    };
    let words: Option<Vec<String>> = given
        .iter()
        .map(|answer| answer.as_str().map(str::to_owned))
        .collect();
    let words = words.filter(|words| words.len() == num_labels);
    words.ok_or_else(|| Error::Config {
        place: "answers".to_owned(),
        expected: format!("{num_labels} texts, as num_labels says"),
        found: format!("a list of {}", given.len()),
    })
}

impl OscarConfig {
    /// Reads and validates a `config.json`. What the model is made of, `task` and `classifier` (linear or mlp) say, which
    /// this program writes, or else the parts of the checkpoint, as released ones leave it to.
    ///
    /// # Errors
    /// A field of the wrong type, out of range, that does not fit another, or that is not understood; a checkpoint
    /// without a head.
    pub fn parse(json: &str, checkpoint: &Checkpoint) -> Result<Self, Error> {
        let json: Value = serde_json::from_str(json)?;
        let fields = Fields::of(&json)?;
        let kind = fields.text("img_feature_type", "")?;
        expect(
            !kind.starts_with("dis_code"),
            "img_feature_type",
            "features of a region detector, such as \"faster_r-cnn\"",
            format!("{kind:?}"),
        )?;
        let hidden_size = fields.size("hidden_size", 768)?;
        let num_choice = fields.size("num_choice", 2)?;
        let named = fields.text("task", "")?;
        let (task, mlp) = match named {
            "" => (
                OscarTask::told(checkpoint, hidden_size)?,
                has(checkpoint, "classifier.0."),
            ),
            name => {
                let classifier = fields.text("classifier", "linear")?;
                expect(
                    ["linear", "mlp"].contains(&classifier),
                    "classifier",
                    "\"linear\" or \"mlp\"",
                    format!("{classifier:?}"),
                )?;
                (OscarTask::named(name)?, classifier == "mlp")
            }
        };
        let norm = loose_flag(&fields, "use_img_layernorm")?;
        let img_eps = fields.number("img_layer_norm_eps", 1e-12)?;
        let scale = fields.size("cls_hidden_scale", 2)?;
        let num_labels = fields.size("num_labels", 2)?;
        let positions = fields.size("max_position_embeddings", 512)?;
        let loss_type = match fields.get("loss_type").and_then(Value::as_str) {
            None if named == "vqa" => Some("bce"),
            given => given,
        };
        let binary = loss_type == Some("bce");
        let num_contrast_classes = fields.size("num_contrast_classes", 2)?;
        // the released pre-training exchanges texts only where there is a class for it
        let false_texts = if num_contrast_classes > 2 { 0.25 } else { 0.0 };
        let (longest, most_regions) = match task {
            OscarTask::Choice => (55, 40),
            OscarTask::Classification if binary || num_labels > 2 => (128, 50),
            _ => (70, 50),
        };
        let max_seq_length = fields.size("max_seq_length", positions.min(longest))?;
        let token = |name: &str, default: u32| -> Result<u32, Error> {
            Ok(u32::try_from(fields.size(name, default as usize)?).unwrap_or(u32::MAX))
        };
        let config = Self {
            task,
            bert: BertConfig {
                vocab_size: fields.size("vocab_size", 30522)?,
                max_position_embeddings: positions,
                type_vocab_size: fields.size("type_vocab_size", 2)?,
                hidden_size,
                intermediate_size: fields.size("intermediate_size", 3072)?,
                num_hidden_layers: fields.size("num_hidden_layers", 12)?,
                num_attention_heads: fields.size("num_attention_heads", 12)?,
                hidden_act: fields.activation(Activation::Gelu)?,
                layer_norm_eps: fields.number("layer_norm_eps", 1e-12)?,
                cross_attention: None,
                padding_idx: Some(0),
                // a caption has no use for it, but released captioners carry it along
                pooler: task != OscarTask::Captioning || has(checkpoint, "bert.pooler."),
            },
            img_feature_dim: fields.size("img_feature_dim", 2054)?,
            img_layer_norm_eps: norm.then_some(img_eps),
            num_labels,
            num_choice: if task == OscarTask::Choice {
                num_choice
            } else {
                1
            },
            classifier: if mlp {
                OscarClassifier::Mlp {
                    scale,
                    norm: norm && task == OscarTask::Choice,
                }
            } else {
                OscarClassifier::Linear
            },
            loss: match loss_type {
                Some("bce") => OscarLoss::Binary,
                Some("kl") => {
                    return Err(Error::Config {
                        place: "loss_type".to_owned(),
                        expected: "\"bce\", \"xe\" or \"sfmx\"".to_owned(),
                        found: "\"kl\"".to_owned(),
                    });
                }
                _ => OscarLoss::Classes,
            },
            num_contrast_classes,
            texta_false_prob: fields.number("texta_false_prob", false_texts)?,
            mask_prob: fields.number("mask_prob", 0.15)?,
            max_masked_tokens: fields.size("max_masked_tokens", 3)?,
            label_smoothing: fields.number("label_smoothing", 0.0)? as f32,
            tie_weights: task == OscarTask::Pretraining
                || loose_flag(&fields, "tie_weights")?
                || !named.is_empty() && !fields.has("tie_weights"),
            max_seq_length,
            max_seq_a_length: fields.size("max_seq_a_length", max_seq_length.min(70) * 4 / 7)?,
            max_img_seq_length: fields.size("max_img_seq_length", most_regions)?,
            answers: listed(&fields, num_labels)?,
            // those of BERT's vocabulary
            pad_token_id: token("pad_token_id", 0)?,
            cls_token_id: token("cls_token_id", 101)?,
            sep_token_id: token("sep_token_id", 102)?,
            mask_token_id: token("mask_token_id", 103)?,
        };
        fields.skip(WITHOUT_EFFECT);
        fields.finish()?;
        config.validate()?;
        Ok(config)
    }

    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        self.bert.validate("config")?;
        check_size("img_feature_dim", self.img_feature_dim, 16384)?;
        check_size("num_labels", self.num_labels, MOST_LABELS)?;
        check_size("num_choice", self.num_choice, 64)?;
        check_size("num_contrast_classes", self.num_contrast_classes, 64)?;
        if let OscarClassifier::Mlp { scale, .. } = self.classifier {
            check_size("cls_hidden_scale", scale, 64)?;
        }
        expect(
            (0.0..1.0).contains(&self.label_smoothing),
            "label_smoothing",
            "0 to 1",
            self.label_smoothing,
        )?;
        expect(
            (0.0..=0.5).contains(&self.texta_false_prob),
            "texta_false_prob",
            "0 to 0.5",
            self.texta_false_prob,
        )?;
        expect(
            self.mask_prob > 0.0 && self.mask_prob <= 1.0,
            "mask_prob",
            "above 0 and at most 1",
            self.mask_prob,
        )?;
        check_size("max_masked_tokens", self.max_masked_tokens, 1 << 16)?;
        if self.task == OscarTask::Pretraining {
            expect(
                self.num_contrast_classes > 1,
                "num_contrast_classes",
                "2 or 3",
                self.num_contrast_classes,
            )?;
        }
        let positions = self.bert.max_position_embeddings;
        expect(
            self.max_seq_length <= positions,
            "max_seq_length",
            format!("at most max_position_embeddings, {positions}"),
            self.max_seq_length,
        )?;
        expect(
            (1..self.max_seq_length).contains(&self.max_seq_a_length),
            "max_seq_a_length",
            format!("1 to less than max_seq_length, {}", self.max_seq_length),
            self.max_seq_a_length,
        )
    }
}
