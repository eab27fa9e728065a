//! Sizes of a captioner: from a `config.json`, or told by the tensors of its checkpoint.

use super::MODEL_TYPE;
use crate::decoders::RecurrentConfig;
use crate::encoders::{CnnConfig, check_size};
use crate::error::{Error, expect};
use serde::{Deserialize, Serialize};
use vlm_nn::RnnKind;
use vlm_nn::weights::Checkpoint;

/// Kind of the recurrent layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RnnType {
    /// Long short-term memory.
    Lstm,
    /// Gated recurrent unit.
    Gru,
}

/// Soft attention over the encoder's map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionConfig {
    /// Width `A` in which states and places are compared.
    pub attention_dim: usize,
    /// The map is brought to so many places a side by means of cells.
    #[serde(default = "map_size")]
    pub map_size: usize,
    /// Weight of the loss that makes the attention to every place sum to 1 over a text (doubly stochastic attention).
    #[serde(default = "alpha_c")]
    pub alpha_c: f64,
}

fn map_size() -> usize {
    14
}

fn alpha_c() -> f64 {
    1.0
}

/// Sizes of a [`super::Nic`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicConfig {
    /// Always `nic`.
    pub model_type: String,
    /// The encoder of pictures: a name of torchvision's or sizes.
    #[serde(deserialize_with = "named_or_sizes")]
    pub encoder: CnnConfig,
    /// Kind of the recurrent layers.
    pub rnn_type: RnnType,
    /// Tokens `V`.
    pub vocab_size: usize,
    /// Width `E` of the embedding.
    pub embed_size: usize,
    /// Units `H`.
    pub hidden_size: usize,
    /// Recurrent layers; 1 with attention.
    #[serde(default = "one")]
    pub num_layers: usize,
    /// Attention at every step; none for a picture that is shown once.
    #[serde(default)]
    pub attention: Option<AttentionConfig>,
    /// Most tokens of a text.
    #[serde(default = "max_length")]
    pub max_length: usize,
    /// Height and width of a picture, in pixels.
    #[serde(default = "image_size")]
    pub image_size: usize,
    /// Begins a text.
    pub bos_token_id: u32,
    /// Ends a text.
    pub eos_token_id: u32,
    /// Fills texts of a batch to equal length.
    #[serde(default)]
    pub pad_token_id: u32,
}

fn one() -> usize {
    1
}

fn max_length() -> usize {
    50
}

fn image_size() -> usize {
    224
}

fn named_or_sizes<'de, D: serde::Deserializer<'de>>(from: D) -> Result<CnnConfig, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Found {
        Name(String),
        Sizes(CnnConfig),
    }
    match Found::deserialize(from)? {
        Found::Name(name) => CnnConfig::named(&name).map_err(serde::de::Error::custom),
        Found::Sizes(sizes) => Ok(sizes),
    }
}

impl NicConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// Keys that are not understood, or sizes that are out of range or do not fit each other.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let config: Self = serde_json::from_str(json)?;
        config.validate()?;
        Ok(config)
    }

    /// The config of a checkpoint with our names, as its tensors tell it.
    ///
    /// # Errors
    /// Tensors that are missing or fit no captioner.
    pub(super) fn told(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let shape = |name: &str| {
            let shape = checkpoint.shape(name).map(<[usize]>::to_vec);
            shape.ok_or_else(|| Error::Config {
                place: checkpoint.name().to_owned(),
                expected: format!("a tensor for {name}"),
                found: "none".to_owned(),
            })
        };
        let extent = |name: &str, side: usize| {
            let shape = shape(name)?;
            shape.get(side).copied().ok_or_else(|| Error::Config {
                place: name.to_owned(),
                expected: format!("at least {} dimensions", side + 1),
                found: format!("{shape:?}"),
            })
        };
        let attends = checkpoint.contains("attention.encoder_att.weight");
        let part = if attends { "attention" } else { "decoder" };
        let cell = if attends {
            "attention.cell"
        } else {
            "decoder.rnn.layers.0"
        };
        let (vocab_size, embed_size) = (
            extent(&format!("{part}.embed.weight"), 0)?,
            extent(&format!("{part}.embed.weight"), 1)?,
        );
        let (rows, hidden_size) = (
            extent(&format!("{cell}.hh.weight"), 0)?,
            extent(&format!("{cell}.hh.weight"), 1)?,
        );
        let layer = |i: &usize| checkpoint.contains(&format!("decoder.rnn.layers.{i}.hh.weight"));
        let attention = attends.then(|| extent("attention.encoder_att.weight", 0));
        let attention = attention.transpose()?.map(|attention_dim| AttentionConfig {
            attention_dim,
            map_size: map_size(),
            alpha_c: alpha_c(),
        });
        let last = u32::try_from(vocab_size.saturating_sub(1)).unwrap_or(u32::MAX);
        let mut encoder = CnnConfig::told(checkpoint, "encoder.cnn.")?;
        if let (CnnConfig::Vgg(c), true) = (&mut encoder, attends) {
            c.last_pooling = false;
        }
        let config = Self {
            model_type: MODEL_TYPE.to_owned(),
            encoder,
            rnn_type: match rows == 3 * hidden_size {
                true => RnnType::Gru,
                false => RnnType::Lstm,
            },
            vocab_size,
            embed_size,
            hidden_size,
            num_layers: if attends {
                1
            } else {
                (0..64).take_while(layer).count()
            },
            // as each repository orders its vocabulary, prepares pictures and limits texts
            bos_token_id: if attends { last.saturating_sub(1) } else { 1 },
            eos_token_id: if attends { last } else { 2 },
            pad_token_id: 0,
            image_size: if attends { 256 } else { 224 },
            max_length: if attends { 51 } else { 20 },
            attention,
        };
        config.validate()?;
        Ok(config)
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let model_type = self.model_type.as_str();
        expect(
            model_type == MODEL_TYPE,
            "model_type",
            MODEL_TYPE,
            model_type,
        )?;
        self.encoder.validate()?;
        for (name, value, max) in [
            ("vocab_size", self.vocab_size, 1 << 20),
            ("embed_size", self.embed_size, 16384),
            ("hidden_size", self.hidden_size, 16384),
            ("num_layers", self.num_layers, 64),
            ("max_length", self.max_length, 1 << 16),
            ("image_size", self.image_size, 4096),
        ] {
            check_size(name, value, max)?;
        }
        for (name, id) in [
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
            ("pad_token_id", self.pad_token_id),
        ] {
            let most = self.vocab_size - 1;
            expect(id as usize <= most, name, format!("at most {most}"), id)?;
        }
        if let Some(attention) = &self.attention {
            check_size("attention.attention_dim", attention.attention_dim, 16384)?;
            check_size("attention.map_size", attention.map_size, 64)?;
            let weight = attention.alpha_c;
            let sound = weight.is_finite() && weight >= 0.0;
            expect(sound, "attention.alpha_c", "0 or more", weight)?;
            let layers = self.num_layers;
            expect(layers == 1, "num_layers", "1 with attention", layers)?;
        }
        Ok(())
    }

    /// Sizes of the decoder.
    pub(super) fn decoder(&self) -> RecurrentConfig {
        RecurrentConfig {
            kind: match self.rnn_type {
                RnnType::Lstm => RnnKind::Lstm,
                RnnType::Gru => RnnKind::Gru,
            },
            vocab_size: self.vocab_size,
            embed_size: self.embed_size,
            hidden_size: self.hidden_size,
            num_layers: self.num_layers,
            max_length: self.max_length,
        }
    }
}
