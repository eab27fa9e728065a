//! What the published CLIP-like checkpoints have in common: reading their configs, names of activations and of a
//! block's parameters.

use super::{TextTowerConfig, VisionTowerConfig};
use crate::error::Error;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use vlm_nn::ops::Activation;
use vlm_nn::weights::Rule;

/// The activation that a config's `hidden_act` names.
fn activation(place: &str, name: &str) -> Result<Activation, Error> {
    match name {
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_accurate" => {
            Ok(Activation::GeluTanh)
        }
        "quick_gelu" => Ok(Activation::QuickGelu),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        "linear" => Ok(Activation::None),
        _ => Err(Error::Config {
            place: place.to_owned(),
            expected: "gelu, gelu_pytorch_tanh, gelu_new, gelu_fast, quick_gelu, relu, silu, \
                       swish or linear"
                .to_owned(),
            found: format!("{name:?}"),
        }),
    }
}

/// The fields of a published config, each read by its name, and what is not read refused.
#[derive(Debug)]
pub struct Fields<'a> {
    place: String,
    map: Option<&'a Map<String, Value>>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    /// The fields of a whole file.
    ///
    /// # Errors
    /// Not an object.
    pub fn of(value: &'a Value) -> Result<Self, Error> {
        let map = value.as_object();
        let fields = Self {
            place: String::new(),
            map,
            read: RefCell::default(),
        };
        match map {
            Some(_) => Ok(fields),
            None => fields.wrong("config", "an object", value),
        }
    }

    fn wrong<T>(&self, name: &str, expected: &str, found: &Value) -> Result<T, Error> {
        Err(Error::Config {
            place: self.name(name),
            expected: expected.to_owned(),
            found: found.to_string(),
        })
    }

    /// The full name of a field.
    pub fn name(&self, field: &str) -> String {
        if self.place.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.place)
        }
    }

    /// The value of a field as it stands there, which from now on counts as understood.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(field.to_owned());
        self.map?.get(field)
    }

    /// Whether this part is there.
    pub fn is_given(&self) -> bool {
        self.map.is_some()
    }

    /// Whether a field is there and not null.
    pub fn has(&self, field: &str) -> bool {
        self.get(field).is_some_and(|value| !value.is_null())
    }

    /// The fields of a part; one that is left out or null has no fields.
    ///
    /// # Errors
    /// Not an object.
    pub fn part(&self, field: &str) -> Result<Self, Error> {
        let map = match self.get(field) {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => return self.wrong(field, "an object", other),
        };
        Ok(Self {
            place: self.name(field),
            map,
            read: RefCell::default(),
        })
    }

    fn read<T>(
        &self,
        field: &str,
        expected: &str,
        default: T,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, Error> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => match convert(value) {
                Some(value) => Ok(value),
                None => self.wrong(field, expected, value),
            },
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Something else, null included.
    pub fn size(&self, field: &str, default: usize) -> Result<usize, Error> {
        self.read(field, "a whole number", default, whole)
    }

    /// A whole number, or none where the field is left out or null.
    ///
    /// # Errors
    /// Something else.
    pub fn optional_size(&self, field: &str) -> Result<Option<usize>, Error> {
        if !self.has(field) {
            return Ok(None);
        }
        self.size(field, 0).map(Some)
    }

    /// One side of a square, given as a number or as two that are equal.
    ///
    /// # Errors
    /// Something else.
    pub fn side(&self, field: &str, default: usize) -> Result<usize, Error> {
        let expected = "a whole number, or two that are equal";
        self.read(field, expected, default, |value| match value {
            Value::Array(pair) if pair.len() == 2 && pair[0] == pair[1] => whole(&pair[0]),
            value => whole(value),
        })
    }

    /// Height and width: a number for both, or two.
    ///
    /// # Errors
    /// Something else.
    pub fn sides(&self, field: &str, default: [usize; 2]) -> Result<[usize; 2], Error> {
        let expected = "a whole number, or two of them";
        self.read(field, expected, default, |value| match value {
            Value::Array(pair) if pair.len() == 2 => Some([whole(&pair[0])?, whole(&pair[1])?]),
            value => whole(value).map(|side| [side; 2]),
        })
    }

    /// A number.
    ///
    /// # Errors
    /// Something else.
    pub fn number(&self, field: &str, default: f64) -> Result<f64, Error> {
        self.read(field, "a number", default, Value::as_f64)
    }

    /// A number, or none where the field is left out or null.
    ///
    /// # Errors
    /// Something else.
    pub fn optional_number(&self, field: &str) -> Result<Option<f64>, Error> {
        if !self.has(field) {
            return Ok(None);
        }
        self.number(field, 0.0).map(Some)
    }

    /// True or false.
    ///
    /// # Errors
    /// Something else.
    pub fn flag(&self, field: &str, default: bool) -> Result<bool, Error> {
        self.read(field, "true or false", default, Value::as_bool)
    }

    /// A word.
    ///
    /// # Errors
    /// Something else.
    pub fn text(&self, field: &str, default: &'a str) -> Result<&'a str, Error> {
        self.read(field, "a text", default, Value::as_str)
    }

    /// `hidden_act`.
    ///
    /// # Errors
    /// An activation that is not known.
    pub fn activation(&self, default: Activation) -> Result<Activation, Error> {
        const FIELD: &str = "hidden_act";
        match self.get(FIELD) {
            None => Ok(default),
            Some(_) => activation(&self.name(FIELD), self.text(FIELD, "")?),
        }
    }

    /// Counts fields as understood.
    pub fn skip(&self, fields: &[&str]) {
        for field in fields {
            self.get(field);
        }
    }

    /// Refuses what nobody read and what would change the model if it were understood: a number or `true`. `null`,
    /// `false`, names with an underscore in front, and words and lists, which only describe, are let pass.
    ///
    /// # Errors
    /// The first such field.
    pub fn finish(&self) -> Result<(), Error> {
        let read = self.read.borrow();
        let mut fields = self.map.into_iter().flatten();
        let odd = fields.find(|(name, value)| {
            let active = match value {
                Value::Bool(on) => *on,
                Value::Number(_) => true,
                _ => false,
            };
            let known = read.contains(*name) || GENERIC.contains(&name.as_str());
            active && !known && !name.starts_with('_')
        });
        match odd {
            None => Ok(()),
            Some((name, value)) => self.wrong(name, "no such field, it is not understood", value),
        }
    }

    /// As [`Self::finish`], with anything that is given refused, words and lists included.
    ///
    /// # Errors
    /// The first such field.
    pub fn finish_strictly(&self) -> Result<(), Error> {
        let read = self.read.borrow();
        let mut fields = self.map.into_iter().flatten();
        let odd = fields.find(|(name, value)| {
            !matches!(value, Value::Null | Value::Bool(false)) && !read.contains(*name)
        });
        match odd {
            None => Ok(()),
            Some((name, value)) => self.wrong(name, "no such field, it is not understood", value),
        }
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|x| usize::try_from(x).ok())
}

/// Fields of any Hugging Face config that do not change what a dual encoder computes: how it was initialised, dropout
/// (zero in every published checkpoint), and what older versions wrote of text generation.
const GENERIC: &[&str] = &[
    "attention_dropout",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "decoder_start_token_id",
    "diversity_penalty",
    "dropout",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "gradient_checkpointing",
    "initializer_factor",
    "initializer_range",
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
    "projection_dim",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "temperature",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "top_k",
    "top_p",
    "torchscript",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

impl VisionTowerConfig {
    /// A family's default with the fields that `vision_config` of a published `config.json` gives.
    pub(crate) fn published(fields: &Fields, default: Self) -> Result<Self, Error> {
        let d = default;
        Ok(Self {
            image_size: [fields.side("image_size", d.image_size[0])?; 2],
            patch_size: fields.side("patch_size", d.patch_size)?,
            num_channels: fields.size("num_channels", d.num_channels)?,
            hidden_size: fields.size("hidden_size", d.hidden_size)?,
            intermediate_size: fields.size("intermediate_size", d.intermediate_size)?,
            num_hidden_layers: fields.size("num_hidden_layers", d.num_hidden_layers)?,
            num_attention_heads: fields.size("num_attention_heads", d.num_attention_heads)?,
            layer_norm_eps: fields.number("layer_norm_eps", d.layer_norm_eps)?,
            hidden_act: fields.activation(d.hidden_act)?,
            ..d
        })
    }
}

impl TextTowerConfig {
    /// As [`VisionTowerConfig::published`].
    pub(crate) fn published(fields: &Fields, default: Self) -> Result<Self, Error> {
        let d = default;
        Ok(Self {
            vocab_size: fields.size("vocab_size", d.vocab_size)?,
            max_position_embeddings: fields
                .size("max_position_embeddings", d.max_position_embeddings)?,
            hidden_size: fields.size("hidden_size", d.hidden_size)?,
            intermediate_size: fields.size("intermediate_size", d.intermediate_size)?,
            num_hidden_layers: fields.size("num_hidden_layers", d.num_hidden_layers)?,
            num_attention_heads: fields.size("num_attention_heads", d.num_attention_heads)?,
            layer_norm_eps: fields.number("layer_norm_eps", d.layer_norm_eps)?,
            hidden_act: fields.activation(d.hidden_act)?,
            ..d
        })
    }
}

/// Embeddings, blocks and final norms of both towers; what differs between families is with the family.
pub const TOWERS: &[Rule] = &[
    Rule::Flatten(
        "vision_model.embeddings.patch_embedding.weight",
        "vision.patch.weight",
    ),
    Rule::Name(
        "vision_model.embeddings.patch_embedding.bias",
        "vision.patch.bias",
    ),
    Rule::Name(
        "vision_model.embeddings.position_embedding.weight",
        "vision.position",
    ),
    Rule::Name("vision_model.post_layernorm.*", "vision.post_norm.*"),
    Rule::Name("text_model.embeddings.token_embedding.*", "text.token.*"),
    Rule::Name(
        "text_model.embeddings.position_embedding.*",
        "text.position.*",
    ),
    Rule::Name("text_model.final_layer_norm.*", "text.post_norm.*"),
    Rule::Flatten("logit_scale", "logit_scale"),
    Rule::Flatten("logit_bias", "logit_bias"),
    // written by versions that kept them
    Rule::Ignore("**.embeddings.position_ids"),
    Rule::Name(
        "*_model.encoder.layers.*.layer_norm*.*",
        "*.blocks.*.norm*.*",
    ),
    Rule::Name("*_model.encoder.layers.*.mlp.*.*", "*.blocks.*.mlp.*.*"),
    Rule::Stack(
        &[
            "*_model.encoder.layers.*.self_attn.q_proj.*",
            "*_model.encoder.layers.*.self_attn.k_proj.*",
            "*_model.encoder.layers.*.self_attn.v_proj.*",
        ],
        "*.blocks.*.attn.qkv.*",
    ),
    Rule::Name(
        "*_model.encoder.layers.*.self_attn.out_proj.*",
        "*.blocks.*.attn.out.*",
    ),
];

/// The rules that translate timm's names of a vision transformer under one prefix (with its dot), which ALBEF and BLIP
/// have, to those of a [`super::VisionTower`] under another, as a `&[Rule]`.
macro_rules! timm_vision_rules {
    ($from:literal, $to:literal) => {
        &[
            Rule::Squeeze(concat!($from, "cls_token"), concat!($to, "class")),
            Rule::Squeeze(concat!($from, "pos_embed"), concat!($to, "position")),
            Rule::Flatten(
                concat!($from, "patch_embed.proj.weight"),
                concat!($to, "patch.weight"),
            ),
            Rule::Name(
                concat!($from, "patch_embed.proj.bias"),
                concat!($to, "patch.bias"),
            ),
            Rule::Name(
                concat!($from, "blocks.*.attn.proj.*"),
                concat!($to, "blocks.*.attn.out.*"),
            ),
            Rule::Name(concat!($from, "blocks.**"), concat!($to, "blocks.**")),
            Rule::Name(concat!($from, "norm.*"), concat!($to, "post_norm.*")),
        ]
    };
}

pub(crate) use timm_vision_rules;

#[cfg(test)]
mod tests {
    use crate::families::{clip, siglip};

    #[test]
    fn what_a_config_leaves_out_has_the_published_default_and_null_is_refused() {
        let config = clip::parse(r#"{"model_type": "clip", "vision_config": {"patch_size": 16}}"#);
        let (vision, text) = config.expect("defaults for the rest").parts();
        assert_eq!((vision.patch_size, vision.image_size), (16, [224; 2]));
        assert_eq!((text.hidden_size, text.vocab_size), (512, 49408));
        let config = r#"{"model_type": "siglip", "text_config": {"projection_size": null}}"#;
        let (_, text) = siglip::parse(config)
            .expect("a projection as wide as the text")
            .parts();
        assert_eq!(text.projection_dim, Some(768));
        for field in ["hidden_size", "hidden_act", "layer_norm_eps"] {
            for tower in ["vision_config", "text_config"] {
                let config = format!(r#"{{"{tower}": {{"{field}": null}}, "model_type": "clip"}}"#);
                let error = clip::parse(&config).expect_err(field).to_string();
                assert!(error.contains("null"), "{field}: {error}");
                let error = siglip::parse(&config.replace("clip", "siglip"));
                let error = error.expect_err(field).to_string();
                assert!(error.contains("null"), "{field}: {error}");
            }
        }
    }

    #[test]
    fn fields_that_would_change_the_model_are_refused_and_others_let_pass() {
        for (field, ok) in [
            (r#""num_registers": 4"#, false),
            (r#""qk_norm": true"#, false),
            (r#""qk_norm": false"#, true),
            (r#""num_beams": 1"#, true),
            (r#""_attn_implementation_autoset": true"#, true),
            (r#""_name_or_path": "somewhere""#, true),
            (r#""id2label": {"0": "LABEL_0"}"#, true),
        ] {
            let config = format!(r#"{{"model_type": "clip", "vision_config": {{{field}}}}}"#);
            let parsed = clip::parse(&config);
            assert_eq!(parsed.is_ok(), ok, "{field}: {parsed:?}");
        }
    }
}
