//! Recurrent decoders of captions.
//!
//! ```text
//!   picture ----+  (once, at t = -1: Vinyals et al., "Show and tell", 2015)
//!               v
//!   ids -> embedding -> LSTM or GRU -> head -> logits
//!
//!   map --> soft attention <-- state   (at every t: Xu et al., "Show, attend and tell", 2015)
//!               v gated
//!   ids -> embedding, context -> LSTM or GRU cell -> head -> logits
//! ```
//!
//! Legend: `B` pictures, `R` texts, `T` tokens, `N` places of a map, `D` its channels, `E` width of the embedding, `H`
//! units, `A` width of the attention, `V` vocabulary.

use crate::capability::rows;
use crate::generate::Autoregressive;
use burn::module::Module;
use burn::tensor::activation::{relu, sigmoid, softmax};
use burn::tensor::{Int, Tensor, TensorData};
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{Embedding, Linear, Rnn, RnnCell, RnnKind, RnnState};

/// Sizes of a recurrent decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecurrentConfig {
    /// LSTM or GRU.
    pub kind: RnnKind,
    /// Tokens `V`.
    pub vocab_size: usize,
    /// Width `E` of the embedding.
    pub embed_size: usize,
    /// Units `H`.
    pub hidden_size: usize,
    /// Layers, one on top of the other.
    pub num_layers: usize,
    /// Most tokens of a text.
    pub max_length: usize,
}

/// The decoder of Show and Tell; parameters `embed`, `rnn` and `head`.
#[derive(Module, Debug)]
pub struct RnnDecoder {
    embed: Embedding,
    rnn: Rnn,
    head: Linear,
    #[module(skip)]
    config: RecurrentConfig,
}

impl RnnDecoder {
    /// A decoder that is shown vectors of the embedding's width.
    pub fn new(w: &mut Weights, c: &RecurrentConfig) -> Self {
        let (e, h) = (c.embed_size, c.hidden_size);
        Self {
            embed: w.scope("embed", |w| {
                Embedding::new(w, c.vocab_size, e, Init::fan_in(e))
            }),
            rnn: w.scope("rnn", |w| Rnn::new(w, c.kind, e, h, c.num_layers)),
            head: w.scope("head", |w| {
                Linear::new(w, h, c.vocab_size, true, Init::fan_in(h))
            }),
            config: *c,
        }
    }

    /// States after the picture and after each token.
    ///
    /// # Shapes
    /// `pictures: [B, E]`, `ids: [R, T]`, where `B` divides `R`: texts of one picture stand together. Gives
    /// `[R, 1 + T, H]`.
    pub fn states(&self, pictures: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
        let ([b, e], r) = (pictures.dims(), ids.dims()[0]);
        let pictures: Tensor<3> = pictures.unsqueeze_dim(1); // [B, 1, E]
        let pictures = pictures.repeat_dim(1, r / b).reshape([r, 1, e]);
        let x = Tensor::cat(vec![pictures, self.embed.forward(ids)], 1); // [R, 1 + T, E]
        self.rnn.forward(x, None).0
    }

    /// # Shapes
    /// `states: [.., H]`; gives `[.., V]`.
    pub fn head<const D: usize>(&self, states: Tensor<D>) -> Tensor<D> {
        self.head.forward(states)
    }

    /// Starts one text per picture, or any number of texts about a single one.
    ///
    /// # Shapes
    /// `pictures: [B, E]`.
    pub fn decode(&self, pictures: Tensor<2>) -> RnnDecoding<'_> {
        let (_, states) = self.rnn.forward(pictures.unsqueeze_dim(1), None);
        RnnDecoding {
            decoder: self,
            states,
            fed: 0,
        }
    }
}

/// Tokens of as many rows, one length each.
fn ids<const D: usize>(tokens: &[Vec<u32>], like: &Tensor<D>) -> Tensor<2, Int> {
    let (rows, t) = (tokens.len(), tokens.first().map_or(0, Vec::len));
    let ids: Vec<i64> = tokens.iter().flatten().map(|&id| i64::from(id)).collect();
    assert_eq!(ids.len(), rows * t, "rows of tokens differ in length");
    Tensor::from_data(TensorData::new(ids, [rows, t]), &like.device())
}

fn index<const D: usize>(rows: &[usize], like: &Tensor<D>) -> Tensor<1, Int> {
    let rows: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), &like.device())
}

/// Texts in the making.
#[derive(Debug)]
pub struct RnnDecoding<'a> {
    decoder: &'a RnnDecoder,
    states: Vec<RnnState>,
    fed: usize,
}

impl Autoregressive for RnnDecoding<'_> {
    fn vocab_size(&self) -> usize {
        self.decoder.config.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.decoder.config.max_length
    }

    fn positions(&self) -> usize {
        self.fed
    }

    fn feed(&mut self, tokens: &[Vec<u32>]) -> Vec<Vec<f32>> {
        // a single picture is shared by all texts until they differ
        if self.states[0].hidden.dims()[0] != tokens.len() {
            self.select(&vec![0; tokens.len()]);
        }
        let ids = ids(tokens, &self.states[0].hidden);
        let [r, t] = ids.dims();
        let x = self.decoder.embed.forward(ids); // [R, t, E]
        let states = std::mem::take(&mut self.states);
        let (x, states) = self.decoder.rnn.forward(x, Some(states));
        (self.states, self.fed) = (states, self.fed + t);
        let last = x
            .narrow(1, t - 1, 1)
            .reshape([r, self.decoder.config.hidden_size]);
        rows(self.decoder.head(last))
    }

    fn select(&mut self, rows: &[usize]) {
        let index = index(rows, &self.states[0].hidden);
        let states = std::mem::take(&mut self.states).into_iter();
        self.states = states.map(|state| state.select(&index)).collect();
    }
}

/// The decoder of Show, Attend and Tell with soft attention; parameters `encoder_att`, `decoder_att`, `full_att`,
/// `init_h`, `init_c` (of an LSTM), `f_beta`, `embed`, `cell` and `head`.
#[derive(Module, Debug)]
pub struct AttentionDecoder {
    encoder_att: Linear,
    decoder_att: Linear,
    full_att: Linear,
    init_h: Linear,
    init_c: Option<Linear>,
    f_beta: Linear,
    embed: Embedding,
    cell: RnnCell,
    head: Linear,
    #[module(skip)]
    config: RecurrentConfig,
}

/// A map with what attention makes of it once for all texts.
#[derive(Clone, Debug)]
struct Attended {
    /// `[B, N, D]`
    map: Tensor<3>,
    /// `[B, N, A]`
    keys: Tensor<3>,
}

impl AttentionDecoder {
    /// A decoder that looks at maps of `features` channels with an attention of width `attention_dim`; it has one layer
    /// whatever the config says.
    pub fn new(
        w: &mut Weights,
        c: &RecurrentConfig,
        features: usize,
        attention_dim: usize,
    ) -> Self {
        let (e, h, a) = (c.embed_size, c.hidden_size, attention_dim);
        let mut linear = |name: &str, inputs: usize, outputs: usize| {
            w.scope(name, |w| {
                Linear::new(w, inputs, outputs, true, Init::fan_in(inputs))
            })
        };
        Self {
            encoder_att: linear("encoder_att", features, a),
            decoder_att: linear("decoder_att", h, a),
            full_att: linear("full_att", a, 1),
            init_h: linear("init_h", features, h),
            init_c: (c.kind == RnnKind::Lstm).then(|| linear("init_c", features, h)),
            f_beta: linear("f_beta", h, features),
            head: linear("head", h, c.vocab_size),
            embed: w.scope("embed", |w| {
                Embedding::new(w, c.vocab_size, e, Init::fan_in(e))
            }),
            cell: w.scope("cell", |w| RnnCell::new(w, c.kind, e + features, h)),
            config: *c,
        }
    }

    fn attended(&self, map: Tensor<3>) -> Attended {
        Attended {
            keys: self.encoder_att.forward(map.clone()),
            map,
        }
    }

    /// What is remembered before the first token: a function of the map's mean.
    fn initial(&self, map: &Tensor<3>) -> RnnState {
        let [b, _, d] = map.dims();
        let mean = map.clone().mean_dim(1).reshape([b, d]);
        RnnState {
            hidden: self.init_h.forward(mean.clone()),
            cell: self.init_c.as_ref().map(|init| init.forward(mean)),
        }
    }

    /// One token: the new state, and where it looked, `[R, N]`.
    ///
    /// # Shapes
    /// `token: [R, E]`; the map has a row for each text, or one for all.
    fn step(&self, at: &Attended, token: Tensor<2>, state: RnnState) -> (RnnState, Tensor<2>) {
        let [b, n, d] = at.map.dims();
        let query = self.decoder_att.forward(state.hidden.clone()); // [R, A]
        let r = query.dims()[0];
        let score = relu(at.keys.clone() + query.unsqueeze_dim(1)); // [R, N, A]
        let score = self.full_att.forward(score).reshape([r, n]);
        let weights = softmax(score, 1); // [R, N]
        let context = if b == 1 {
            weights.clone().matmul(at.map.clone().reshape([n, d]))
        } else {
            let weights: Tensor<3> = weights.clone().unsqueeze_dim(1); // [R, 1, N]
            weights.matmul(at.map.clone()).reshape([r, d])
        }; // [R, D]
        let gate = sigmoid(self.f_beta.forward(state.hidden.clone())); // [R, D]
        let x = Tensor::cat(vec![token, gate * context], 1); // [R, E + D]
        (self.cell.forward(x, state), weights)
    }

    /// States after each token, and where each step looked.
    ///
    /// # Shapes
    /// `map: [B, N, D]`, `ids: [R, T]`, where `B` divides `R`: texts of one picture stand together. Gives `[R, T, H]` and
    /// `[R, T, N]`, whose rows sum to 1.
    pub fn states(&self, map: Tensor<3>, ids: Tensor<2, Int>) -> (Tensor<3>, Tensor<3>) {
        let ([b, n, d], [r, t]) = (map.dims(), ids.dims());
        let map = if b == 1 || b == r {
            map
        } else {
            let map: Tensor<4> = map.unsqueeze_dim(1); // [B, 1, N, D]
            map.repeat_dim(1, r / b).reshape([r, n, d])
        };
        let at = self.attended(map);
        let mut state = self.initial(&at.map);
        if state.hidden.dims()[0] != r {
            state = state.select(&index(&vec![0; r], &at.map));
        }
        let x = self.embed.forward(ids); // [R, T, E]
        let e = x.dims()[2];
        let (mut states, mut weights) = (Vec::with_capacity(t), Vec::with_capacity(t));
        for step in 0..t {
            let token = x.clone().narrow(1, step, 1).reshape([r, e]);
            let (new, looked) = self.step(&at, token, state);
            states.push(new.hidden.clone());
            weights.push(looked);
            state = new;
        }
        (Tensor::stack(states, 1), Tensor::stack(weights, 1))
    }

    /// # Shapes
    /// `states: [.., H]`; gives `[.., V]`.
    pub fn head<const D: usize>(&self, states: Tensor<D>) -> Tensor<D> {
        self.head.forward(states)
    }

    /// Starts one text per map, or any number of texts about a single one.
    ///
    /// # Shapes
    /// `map: [B, N, D]`.
    pub fn decode(&self, map: Tensor<3>) -> AttentionDecoding<'_> {
        let at = self.attended(map);
        AttentionDecoding {
            state: Some(self.initial(&at.map)),
            decoder: self,
            at,
            fed: 0,
        }
    }
}

/// Texts in the making.
#[derive(Debug)]
pub struct AttentionDecoding<'a> {
    decoder: &'a AttentionDecoder,
    at: Attended,
    /// None only while a step takes it.
    state: Option<RnnState>,
    fed: usize,
}

impl AttentionDecoding<'_> {
    fn state(&mut self) -> RnnState {
        self.state.take().expect("a state between steps")
    }
}

impl Autoregressive for AttentionDecoding<'_> {
    fn vocab_size(&self) -> usize {
        self.decoder.config.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.decoder.config.max_length
    }

    fn positions(&self) -> usize {
        self.fed
    }

    fn feed(&mut self, tokens: &[Vec<u32>]) -> Vec<Vec<f32>> {
        let r = tokens.len();
        let mut state = self.state();
        if state.hidden.dims()[0] != r {
            state = state.select(&index(&vec![0; r], &self.at.map));
        }
        let ids = ids(tokens, &self.at.map);
        let t = ids.dims()[1];
        let x = self.decoder.embed.forward(ids); // [R, t, E]
        let e = x.dims()[2];
        for step in 0..t {
            let token = x.clone().narrow(1, step, 1).reshape([r, e]);
            state = self.decoder.step(&self.at, token, state).0;
        }
        let logits = self.decoder.head(state.hidden.clone());
        (self.state, self.fed) = (Some(state), self.fed + t);
        rows(logits)
    }

    fn select(&mut self, rows: &[usize]) {
        let index = index(rows, &self.at.map);
        self.state = Some(self.state().select(&index));
        // one map is shared by all rows as it is
        if self.at.map.dims()[0] > 1 {
            let select = |t: &Tensor<3>| t.clone().select(0, index.clone());
            self.at = Attended {
                map: select(&self.at.map),
                keys: select(&self.at.keys),
            };
        }
    }
}
