//! A BERT that writes: the masked-language-model head, and generation by feeding it causally.
//!
//! Legend: `B` memories, `Q` texts per memory, `R = B * Q` texts, `T` tokens, `D` width, `V` vocabulary.

use crate::capability;
use crate::encoders::{Bert, BertConfig, BertMemory, BertPass};
use crate::generate::Autoregressive;
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{Embedding, KeyMask, KvCache, LayerNorm, Linear};

/// The masked-language-model head; parameters `transform`, `norm`, `bias` and, if untied, `decoder`.
#[derive(Module, Debug)]
pub struct MlmHead {
    transform: Linear,
    norm: LayerNorm,
    decoder: Option<Linear>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
}

impl MlmHead {
    /// `tied`: the output layer is the table of word embeddings.
    pub fn new(w: &mut Weights, c: &BertConfig, tied: bool) -> Self {
        let (d, v, init) = (c.hidden_size, c.vocab_size, Init::NORMAL);
        Self {
            transform: w.scope("transform", |w| Linear::new(w, d, d, true, init)),
            norm: w.scope("norm", |w| LayerNorm::new(w, d, c.layer_norm_eps)),
            decoder: (!tied).then(|| w.scope("decoder", |w| Linear::new(w, d, v, false, init))),
            bias: w.param("bias", [v], Init::Zeros),
            activation: c.hidden_act,
        }
    }

    /// # Shapes
    /// `x: [R, T, D]`, `token` the word embeddings; gives logits `[R, T, V]`.
    pub fn forward(&self, x: Tensor<3>, token: &Embedding) -> Tensor<3> {
        let x = self
            .norm
            .forward(self.transform.fused(x, self.activation, None));
        match &self.decoder {
            None => token.similarities(x, self.bias.val()),
            Some(decoder) => decoder.forward(x) + self.bias.val().unsqueeze(),
        }
    }
}

/// A [`Bert`] with a head; parameters `bert` and `head`.
#[derive(Module, Debug)]
pub struct BertDecoder {
    bert: Bert,
    head: MlmHead,
}

impl BertDecoder {
    /// Builds the decoder of a validated config.
    pub fn new(w: &mut Weights, c: &BertConfig, tied: bool) -> Self {
        Self {
            bert: w.scope("bert", |w| Bert::new(w, c)),
            head: w.scope("head", |w| MlmHead::new(w, c, tied)),
        }
    }

    /// The layers without the head.
    pub fn bert(&self) -> &Bert {
        &self.bert
    }

    /// The head on states of the last layer.
    ///
    /// # Shapes
    /// `x: [R, T, D]`; gives `[R, T, V]`.
    pub fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        self.head.forward(x, self.bert.token())
    }

    /// Logits of whole texts.
    ///
    /// # Shapes
    /// `ids: [R, T]`; gives `[R, T, V]`.
    pub fn forward(&self, ids: Tensor<2, Int>, pass: BertPass) -> Tensor<3> {
        let layers = 0..self.bert.config().num_hidden_layers;
        let x = self.bert.forward(self.bert.embed(ids, 0), layers, pass);
        self.logits(x)
    }

    /// Starts one text per row of `memory`, or any number of texts if it has one row.
    pub fn decode(&self, memory: BertMemory) -> BertDecoding<'_> {
        BertDecoding {
            caches: self.bert.caches(),
            memory,
            prompt: Vec::new(),
            seen: Vec::new(),
            last: Vec::new(),
            decoder: self,
        }
    }
}

/// Texts in the making.
#[derive(Debug)]
pub struct BertDecoding<'a> {
    decoder: &'a BertDecoder,
    memory: BertMemory,
    caches: Vec<KvCache>,
    /// Which tokens of the prompt are no padding; empty for all.
    prompt: Vec<Vec<bool>>,
    /// Which positions so far are no padding, by row; empty while all are.
    seen: Vec<Vec<bool>>,
    /// The last token's position, by row, where there is padding.
    last: Vec<i64>,
}

impl BertDecoding<'_> {
    /// Tells which tokens of the prompts, fed first and at once, are no padding.
    ///
    /// A prompt's positions count its tokens, padding stands at 0, and what is generated continues from the last column's
    /// position, as transformers does it.
    #[must_use]
    pub fn with_padding(mut self, prompt: &[Vec<bool>]) -> Self {
        if prompt.iter().flatten().any(|seen| !seen) {
            self.prompt = prompt.to_vec();
        }
        self
    }

    /// The position of each new token, row by row, where there is padding.
    fn positions_of(&mut self, t: usize) -> Option<Vec<i64>> {
        if !self.prompt.is_empty() {
            self.seen = std::mem::take(&mut self.prompt);
            let mut positions = Vec::with_capacity(self.seen.len() * t);
            for row in &self.seen {
                let mut tokens = 0;
                positions.extend(row.iter().map(|&seen| {
                    tokens += i64::from(seen);
                    if seen { tokens - 1 } else { 0 }
                }));
            }
            self.last = positions.chunks(t).map(|row| row[t - 1]).collect();
            return Some(positions);
        }
        if self.seen.is_empty() {
            return None;
        }
        for row in &mut self.seen {
            row.extend(std::iter::repeat_n(true, t));
        }
        let positions = self
            .last
            .iter()
            .flat_map(|&last| last + 1..=last + t as i64);
        let positions = positions.collect();
        self.last.iter_mut().for_each(|last| *last += t as i64);
        Some(positions)
    }
}

impl Autoregressive for BertDecoding<'_> {
    fn vocab_size(&self) -> usize {
        self.decoder.bert.config().vocab_size
    }

    fn max_positions(&self) -> usize {
        self.decoder.bert.config().max_position_embeddings
    }

    fn positions(&self) -> usize {
        self.caches.first().map_or(0, KvCache::len)
    }

    fn feed(&mut self, tokens: &[Vec<u32>]) -> Vec<Vec<f32>> {
        let (rows, t) = (tokens.len(), tokens.first().map_or(0, Vec::len));
        let ids: Vec<i64> = tokens.iter().flatten().map(|&id| i64::from(id)).collect();
        assert_eq!(ids.len(), rows * t, "rows of tokens differ in length");
        let bert = &self.decoder.bert;
        let device = self.memory.device().clone();
        let int = |values| Tensor::<2, Int>::from_data(TensorData::new(values, [rows, t]), &device);
        let past = self.positions();
        let x = match self.positions_of(t) {
            Some(positions) => bert.embed_at(int(ids), int(positions)),
            None => bert.embed(int(ids), past),
        }; // [R, T, D]
        let pass = BertPass {
            causal: true,
            keys: KeyMask::new(&self.seen),
            memory: Some(&self.memory),
            caches: Some(&mut self.caches),
        };
        let x = bert.forward(x, 0..bert.config().num_hidden_layers, pass);
        let logits = self.decoder.logits(x.narrow(1, t - 1, 1)); // [R, 1, V]
        capability::rows(logits)
    }

    fn select(&mut self, rows: &[usize]) {
        let device = self.memory.device();
        let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), device);
        for cache in &mut self.caches {
            cache.select(&index);
        }
        // one memory is shared by all rows as it is
        if self.memory.rows() > 1 {
            self.memory.select(rows);
        }
        if !self.seen.is_empty() {
            self.seen = rows.iter().map(|&r| self.seen[r].clone()).collect();
            self.last = rows.iter().map(|&r| self.last[r]).collect();
        }
    }
}
