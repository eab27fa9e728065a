//! NIC, the neural image captioner of Vinyals et al., "Show and tell", 2015, and its successor with attention, Xu et al.,
//! "Show, attend and tell", 2015.
//!
//! ```text
//!   Show and Tell            pixels -> CNN -> mean -> linear -> norm -> [B, E] --(t = -1)--> LSTM <- ids -- LM
//!   Show, Attend and Tell    pixels -> CNN -> means of cells --------> [B, N, D] <-(every t)-> LSTM <- ids -- LM
//!                                                                                 where it looked -- sums to 1
//! ```
//!
//! Any of [`CnnConfig`](crate::encoders::CnnConfig)'s encoders and an LSTM or a GRU make a captioner. `names` has the
//! checkpoints that are read.
//!
//! Legend: `B` pictures, `R` texts, `T` tokens, `N` places of the map, `D` its channels, `E` width of the embedding, `H`
//! units, `V` vocabulary.

mod config;
mod names;
mod reference;

pub use config::{AttentionConfig, NicConfig, RnnType};
pub use names::{is_original as recognised, translated};

use crate::capability::{Attend, AttentionMaps, Generate, Pictures, Tokens};
use crate::decoders::{AttentionDecoder, RnnDecoder};
use crate::encoders::Cnn;
use crate::encoders::cnn::CHANNELS;
use crate::error::{Error, expect};
use crate::generate::Autoregressive;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use vlm_nn::ops;
use vlm_nn::weights::{Checkpoint, Init, Weights};
use vlm_nn::{BatchNorm2d, Linear, Statistics, adaptive_average};

/// This family's `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "nic";

/// Pictures to what the decoder is shown.
#[derive(Module, Debug)]
struct Encoder {
    cnn: Cnn,
    linear: Option<Linear>,
    norm: Option<BatchNorm2d>,
}

/// The model.
#[derive(Module, Debug)]
pub struct Nic {
    encoder: Encoder,
    decoder: Option<RnnDecoder>,
    attention: Option<AttentionDecoder>,
    #[module(skip)]
    config: NicConfig,
    #[module(skip)]
    statistics: Statistics,
}

/// The parts of the loss, `[1]` each.
#[derive(Clone, Debug)]
pub struct Losses {
    /// The weighted sum.
    pub total: Tensor<1>,
    /// The mean cross-entropy of the tokens.
    pub caption: Tensor<1>,
    /// How far the attention to a place is from 1 in sum over a text, squared; not yet weighted.
    pub attention: Option<Tensor<1>>,
}

/// What a pass over whole texts gives.
struct Pass {
    /// `[R, T, H]`: the states that predict each of `targets`.
    states: Tensor<3>,
    /// `[R, T, N]`: where each step looked; none without attention.
    weights: Option<Tensor<3>>,
    /// `[R, T, 1]`: 1 where there is a target.
    mask: Tensor<3>,
    /// `[R * T]`: negative where there is none.
    targets: Tensor<1, Int>,
    count: usize,
}

impl Nic {
    /// Builds the model of a validated config.
    pub fn new(w: &mut Weights, c: &NicConfig) -> Self {
        let features = c.encoder.features();
        let encoder = w.scope("encoder", |w| {
            let plain = c.attention.is_none();
            let mut scoped = |name: &str| w.scope(name, |w| Cnn::new(w, &c.encoder));
            Encoder {
                cnn: scoped("cnn"),
                linear: plain.then(|| {
                    w.scope("linear", |w| {
                        Linear::new(w, features, c.embed_size, true, Init::fan_in(features))
                    })
                }),
                norm: plain.then(|| {
                    let norm = w.scope("norm", |w| BatchNorm2d::new(w, c.embed_size));
                    norm.with_momentum(0.01)
                }),
            }
        });
        let sizes = c.decoder();
        Self {
            encoder,
            decoder: c
                .attention
                .is_none()
                .then(|| w.scope("decoder", |w| RnnDecoder::new(w, &sizes))),
            attention: c.attention.as_ref().map(|a| {
                w.scope("attention", |w| {
                    AttentionDecoder::new(w, &sizes, features, a.attention_dim)
                })
            }),
            config: c.clone(),
            statistics: Statistics::Running,
        }
    }

    /// A model with its `config.json`, whose tensors may have published names or ours.
    ///
    /// # Errors
    /// A config that is not understood, or weights that do not match it.
    pub fn load(config: &str, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let config = NicConfig::parse(config)?;
        let checkpoint = match recognised(&checkpoint) {
            true => translated(checkpoint),
            false => checkpoint,
        };
        super::filled(checkpoint, device, |w| Self::new(w, &config))
    }

    /// A published checkpoint without a config.
    ///
    /// # Errors
    /// Tensors that such a model does not have, or that it lacks.
    pub fn from_original(checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let checkpoint = translated(checkpoint);
        let config = NicConfig::told(&checkpoint)?;
        super::filled(checkpoint, device, |w| Self::new(w, &config))
    }

    /// The model whose batch norms divide by other statistics: those of the batch to train them.
    #[must_use]
    pub fn with_statistics(mut self, statistics: Statistics) -> Self {
        self.statistics = statistics;
        self
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &NicConfig {
        &self.config
    }

    /// Where the model lies.
    pub fn device(&self) -> Device {
        let devices = self.devices();
        devices.into_iter().next().expect("a model has parameters")
    }

    /// What the decoder is shown of pictures.
    ///
    /// # Shapes
    /// `[B, 3, H, W]`; gives `[B, 1, E]`, or with attention `[B, N, D]`, places in rows from top to bottom.
    ///
    /// # Errors
    /// Pictures of another form or too small for the encoder.
    pub fn picture_states(&self, pictures: &Pictures) -> Result<Tensor<3>, Error> {
        let pixels = pictures.fixed(CHANNELS)?;
        let map = self.encoder.cnn.features(pixels, self.statistics)?;
        let [b, d, _, _] = map.dims();
        let side = self.config.attention.as_ref().map_or(1, |a| a.map_size);
        let map = adaptive_average(map, [side; 2]).reshape([b, d, side * side]);
        let map = map.swap_dims(1, 2); // [B, N, D]
        let (Some(linear), Some(norm)) = (&self.encoder.linear, &self.encoder.norm) else {
            return Ok(map);
        };
        let x = linear.forward(map.reshape([b, d]));
        Ok(norm.vectors(x, self.statistics).unsqueeze_dim(1))
    }

    /// Whole texts, each begun and ended, about pictures.
    fn pass(&self, memory: &Tensor<3>, texts: &Tokens) -> Result<Pass, Error> {
        let (b, r) = (memory.dims()[0], texts.rows().len());
        let fits = r > 0 && (b == 1 || r.is_multiple_of(b));
        expect(
            fits,
            "input_ids",
            format!("texts for each of {b} pictures"),
            r,
        )?;
        let t = texts.rows()[0].len();
        expect(t > 1, "input_ids", "at least two tokens", t)?;
        let most = self.config.max_length + 1;
        let ids = texts.to_device(self.config.vocab_size, most, &memory.device())?;
        let read = ids.clone().narrow(1, 0, t - 1); // [R, T - 1]
        let (states, weights, first) = match (&self.decoder, &self.attention) {
            // the picture predicts the first token
            (Some(decoder), _) => {
                let [b, _, e] = memory.dims();
                let picture = memory.clone().reshape([b, e]);
                (decoder.states(picture, read), None, 0)
            }
            (_, Some(attention)) => {
                let (states, weights) = attention.states(memory.clone(), read);
                (states, Some(weights), 1)
            }
            (None, None) => unreachable!("built as one of both"),
        };
        let (mut targets, mut mask) = (Vec::new(), Vec::new());
        for (row, seen) in texts.rows().iter().zip(texts.mask()) {
            for (&id, &seen) in row.iter().zip(seen).skip(first) {
                targets.push(if seen { i64::from(id) } else { -1 });
                mask.push(f32::from(u8::from(seen)));
            }
        }
        let count = targets.iter().filter(|&&id| id >= 0).count();
        let n = targets.len();
        let device = memory.device();
        Ok(Pass {
            states,
            weights,
            mask: Tensor::from_data(TensorData::new(mask, [r, n / r, 1]), &device),
            targets: Tensor::from_data(TensorData::new(targets, [n]), &device),
            count,
        })
    }

    fn head(&self, states: Tensor<3>) -> Tensor<3> {
        match (&self.decoder, &self.attention) {
            (Some(decoder), _) => decoder.head(states),
            (_, Some(attention)) => attention.head(states),
            (None, None) => unreachable!("built as one of both"),
        }
    }

    /// The loss of texts, each begun and ended; their mask tells what is padding.
    ///
    /// Without attention the picture is to predict the token that begins, as in the tutorial whose checkpoints are read.
    ///
    /// # Errors
    /// Pictures or ids that do not fit the model, or a number of texts that is no multiple of the number of pictures.
    pub fn loss(&self, pictures: &Pictures, texts: &Tokens) -> Result<Losses, Error> {
        let pass = self.pass(&self.picture_states(pictures)?, texts)?;
        let logits = self.head(pass.states.clone());
        Ok(self.losses(pass, logits))
    }

    fn losses(&self, pass: Pass, logits: Tensor<3>) -> Losses {
        let [r, t, v] = logits.dims();
        let losses = ops::cross_entropy(logits.reshape([r * t, v]), pass.targets, 0.0);
        let caption = losses.sum() / pass.count.max(1) as f32;
        let attention = pass.weights.map(|weights| {
            let over_text = (weights * pass.mask).sum_dim(1); // [R, 1, N]
            (over_text - 1.0).powi_scalar(2).mean()
        });
        let mut total = caption.clone();
        if let (Some(attention), Some(config)) = (&attention, &self.config.attention) {
            let attention: Tensor<1> = attention.clone();
            total = total + attention * config.alpha_c;
        }
        Losses {
            total,
            caption,
            attention,
        }
    }
}

impl Generate for Nic {
    fn encode(&self, pictures: &Pictures) -> Result<Tensor<3>, Error> {
        self.picture_states(pictures)
    }

    fn decode(&self, memory: Tensor<3>) -> Box<dyn Autoregressive + '_> {
        match (&self.decoder, &self.attention) {
            (Some(decoder), _) => {
                let [b, _, e] = memory.dims();
                Box::new(decoder.decode(memory.reshape([b, e])))
            }
            (_, Some(attention)) => Box::new(attention.decode(memory)),
            (None, None) => unreachable!("built as one of both"),
        }
    }
}

impl Attend for Nic {
    fn attend(&self, memory: Tensor<3>, texts: &Tokens) -> Result<AttentionMaps, Error> {
        let attention = self.attention.as_ref().ok_or(Error::Unsupported {
            family: "nic without attention",
            task: "tell where it looked",
            able: "coca and nic with attention",
        })?;
        let side = self.config.attention.as_ref().map_or(1, |a| a.map_size);
        let most = self.config.max_length + 1;
        let ids = texts.to_device(self.config.vocab_size, most, &memory.device())?;
        let (_, weights) = attention.states(memory, ids);
        Ok(AttentionMaps {
            weights,
            grid: [side; 2],
        })
    }
}
