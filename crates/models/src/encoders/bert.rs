//! BERT (Devlin et al., 2019) as vision-language models use it: an encoder of text, an encoder of text that looks at a
//! picture, and a decoder of text about either.
//!
//! ```text
//!   ids -> word + position (+ type) -> norm -> layer 0 .. k-1        self-attention, MLP
//!                                           -> layer k .. L-1        self-attention, cross-attention, MLP
//!                                                       ^ memory     (each followed by residual sum and norm)
//! ```
//!
//! ALBEF (Li et al., 2021) has cross-attention in the upper half of the layers, BLIP (Li et al., 2022) in all of them,
//! and leaves it out where there is no memory. Whether a token sees those after it is asked of every pass, because one
//! set of layers may be both an encoder and a decoder. The language-model head and generation are in
//! [`crate::decoders::BertDecoder`].
//!
//! Legend: `B` memories (pictures or questions), `Q` texts per memory, `R = B * Q` texts, `T` tokens, `N` positions of
//! the memory, `D` width, `M` memory width, `V` vocabulary.

use super::vit::{check_heads, check_size};
use crate::error::{Error, expect};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::ops::Range;
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{CrossAttention, Embedding, KeyMask, KvCache, LayerNorm, Linear, Mlp, SelfAttention};

/// Sizes and variant of a [`Bert`]; most field names as in published `config.json` files.
///
/// | use | `type_vocab_size` | `cross_attention` | `pooler` |
/// |---|---|---|---|
/// | BERT itself | 2 | none | true |
/// | BLIP, every text model | 0 | from layer 0 | only in the contrastive `BlipModel` |
/// | ALBEF, encoder of 12 layers | 2 | from layer 6 | false |
/// | ALBEF, answer decoder of 6 layers | 2 | from layer 0 | false |
/// | ALBEF, NLVR2: 18 layers, two memories in turn | 2 | from layer 6, paired | false |
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Tokens `V`.
    pub vocab_size: usize,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Kinds of segments; 0 for a model without segment embeddings.
    pub type_vocab_size: usize,
    /// Width `D`.
    pub hidden_size: usize,
    /// Width of the MLPs.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Activation of the MLPs and of the language-model head.
    pub hidden_act: Activation,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f64,
    /// Cross-attention, if there is any.
    pub cross_attention: Option<BertCrossAttention>,
    /// The padding token, whose vector looking it up never trains (`padding_idx` of PyTorch's embeddings).
    pub padding_idx: Option<usize>,
    /// Whether there is a linear layer with tanh on the first token's state ([`Bert::pooled`]).
    pub pooler: bool,
}

/// Which layers attend to a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BertCrossAttention {
    /// The first layer that does; all later ones do as well.
    pub from_layer: usize,
    /// Width `M` of the memory.
    pub memory_width: usize,
    /// Whether these layers come in pairs that share keys and values, as ALBEF's two-image model has them: the first of
    /// a pair reads the second's.
    pub paired: bool,
}

impl BertConfig {
    /// `place` is the part of the config that the sizes come from, such as `text_config`.
    ///
    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self, place: &str) -> Result<(), Error> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 20),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                1 << 17,
            ),
            ("hidden_size", self.hidden_size, 16384),
            ("intermediate_size", self.intermediate_size, 65536),
            ("num_hidden_layers", self.num_hidden_layers, 256),
        ];
        for (name, value, max) in sizes {
            check_size(&format!("{place}.{name}"), value, max)?;
        }
        if self.type_vocab_size > 0 {
            let name = format!("{place}.type_vocab_size");
            check_size(&name, self.type_vocab_size, 1 << 10)?;
        }
        if let Some(cross) = &self.cross_attention {
            let name = format!("{place}.encoder_width");
            check_size(&name, cross.memory_width, 16384)?;
            let last = self.num_hidden_layers;
            expect(
                cross.from_layer < last,
                &format!("{place}.fusion_layer"),
                format!("below num_hidden_layers {last}"),
                cross.from_layer,
            )?;
            expect(
                !cross.paired || (last - cross.from_layer).is_multiple_of(2),
                &format!("{place}.num_hidden_layers"),
                "pairs of layers with cross-attention",
                last - cross.from_layer,
            )?;
        }
        check_heads(
            &format!("{place}.num_attention_heads"),
            self.hidden_size,
            self.num_attention_heads,
        )
    }
}

/// One layer: each part is followed by the residual sum and a norm.
#[derive(Module, Debug)]
struct BertLayer {
    attn: SelfAttention,
    attn_norm: LayerNorm,
    cross: Option<CrossAttention>,
    cross_norm: Option<LayerNorm>,
    mlp: Mlp,
    mlp_norm: LayerNorm,
}

impl BertLayer {
    fn new(w: &mut Weights, c: &BertConfig, layer: usize) -> Self {
        let cross = c.cross_attention.filter(|cross| layer >= cross.from_layer);
        let (d, heads, init) = (c.hidden_size, c.num_attention_heads, Init::NORMAL);
        let norm = |w: &mut Weights| LayerNorm::new(w, d, c.layer_norm_eps);
        Self {
            attn: w.scope("attn", |w| SelfAttention::new(w, d, heads, false, init)),
            attn_norm: w.scope("attn_norm", norm),
            cross: cross.map(|cross| {
                let reads = cross.paired && (layer - cross.from_layer).is_multiple_of(2);
                w.scope("cross", |w| match reads {
                    true => CrossAttention::reading(w, d, heads, init),
                    false => CrossAttention::new(w, d, cross.memory_width, heads, init),
                })
            }),
            cross_norm: cross.map(|_| w.scope("cross_norm", norm)),
            mlp: w.scope("mlp", |w| {
                Mlp::new(w, d, c.intermediate_size, c.hidden_act, init)
            }),
            mlp_norm: w.scope("mlp_norm", norm),
        }
    }
}

/// What the cross-attention layers read: keys and values, computed once and used by every text about them.
#[derive(Clone, Debug)]
pub struct BertMemory {
    /// `[B, N, 2D]` for each layer with cross-attention.
    layers: Vec<(Tensor<3>, KeyMask)>,
    device: Device,
}

impl BertMemory {
    /// Keeps the given rows, in this order; a row may be given more than once.
    pub fn select(&mut self, rows: &[usize]) {
        let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
        let index = TensorData::new(index, [rows.len()]);
        let index = Tensor::<1, Int>::from_data(index, &self.device);
        for (kv, keys) in &mut self.layers {
            *kv = kv.clone().select(0, index.clone());
            *keys = keys.select(rows);
        }
    }

    /// Where it lies.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How many memories, `B`; 0 for a model without cross-attention.
    pub fn rows(&self) -> usize {
        self.layers.first().map_or(0, |(kv, _)| kv.dims()[0])
    }
}

/// How a pass through the layers looks at the text and at the memory.
#[derive(Debug, Default)]
pub struct BertPass<'a> {
    /// Whether position `i` sees only `0..=i`.
    pub causal: bool,
    /// Which positions are no padding, those in the caches included.
    pub keys: KeyMask,
    /// What the cross-attention layers read; without it they are left out.
    pub memory: Option<&'a BertMemory>,
    /// One per layer, for the positions that follow those that it holds.
    pub caches: Option<&'a mut [KvCache]>,
}

/// The model without a language-model head.
#[derive(Module, Debug)]
pub struct Bert {
    token: Embedding,
    position: Embedding,
    token_type: Option<Embedding>,
    norm: LayerNorm,
    layers: Vec<BertLayer>,
    pooler: Option<Linear>,
    #[module(skip)]
    config: BertConfig,
}

impl Bert {
    /// Builds the model of a validated config; parameters `token`, `position`, `token_type`, `norm`, `layers.*` and
    /// `pooler`.
    pub fn new(w: &mut Weights, c: &BertConfig) -> Self {
        let (d, init) = (c.hidden_size, Init::NORMAL);
        let table = |w: &mut Weights, rows: usize| Embedding::new(w, rows, d, init);
        Self {
            token: w.scope("token", |w| table(w, c.vocab_size)),
            position: w.scope("position", |w| table(w, c.max_position_embeddings)),
            token_type: (c.type_vocab_size > 0)
                .then(|| w.scope("token_type", |w| table(w, c.type_vocab_size))),
            norm: w.scope("norm", |w| LayerNorm::new(w, d, c.layer_norm_eps)),
            layers: (0..c.num_hidden_layers)
                .map(|i| w.scope(&format!("layers.{i}"), |w| BertLayer::new(w, c, i)))
                .collect(),
            pooler: c
                .pooler
                .then(|| w.scope("pooler", |w| Linear::new(w, d, d, true, init))),
            config: c.clone(),
        }
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The word embeddings, to which a language-model head may be tied.
    pub fn token(&self) -> &Embedding {
        &self.token
    }

    /// Word, position and segment embeddings, summed and normalised; every token is of segment 0.
    ///
    /// # Shapes
    /// `ids: [R, T]`, at positions `past..past + T`; gives `[R, T, D]`.
    ///
    /// # Panics
    /// If there are fewer position embeddings than `past + T`.
    pub fn embed(&self, ids: Tensor<2, Int>, past: usize) -> Tensor<3> {
        let t = ids.dims()[1];
        self.embedded(self.words(ids) + self.position.range(past, t))
    }

    /// The same with the position of each token.
    ///
    /// # Shapes
    /// `ids, positions: [R, T]`; gives `[R, T, D]`.
    pub fn embed_at(&self, ids: Tensor<2, Int>, positions: Tensor<2, Int>) -> Tensor<3> {
        self.embedded(self.words(ids) + self.position.forward(positions))
    }

    /// The same with the position and the segment of each token.
    ///
    /// # Shapes
    /// `ids, positions, segments: [R, T]`; gives `[R, T, D]`.
    pub fn embed_segments(
        &self,
        ids: Tensor<2, Int>,
        positions: Tensor<2, Int>,
        segments: Tensor<2, Int>,
    ) -> Tensor<3> {
        let x = self.words(ids) + self.position.forward(positions);
        self.norm.forward(match &self.token_type {
            Some(token_type) => x + token_type.forward(segments),
            None => x,
        })
    }

    fn words(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let words = self.token.forward(ids.clone());
        match self.config.padding_idx {
            Some(padding) if words.is_autodiff() => {
                let is_padding = ids.equal_elem(padding as i64).unsqueeze_dim::<3>(2); // [R, T, 1]
                let is_padding = is_padding.expand(words.dims());
                words.clone().mask_where(is_padding, words.detach())
            }
            _ => words,
        }
    }

    fn embedded(&self, x: Tensor<3>) -> Tensor<3> {
        let x = match &self.token_type {
            Some(token_type) => x + token_type.range(0, 1),
            None => x,
        };
        self.norm.forward(x)
    }

    /// Keys and values of a memory for every layer with cross-attention; of several memories, the layers read one after
    /// the other in turn, as ALBEF's two-image model does.
    ///
    /// # Shapes
    /// `memories: [B, N, M]` each, with which of its positions are no padding.
    pub fn memory(&self, memories: &[(Tensor<3>, KeyMask)]) -> BertMemory {
        let layers = self.layers.iter().filter_map(|layer| layer.cross.as_ref());
        let layers: Vec<_> = layers.collect();
        // the first of a pair reads the second's keys and values
        let owner = |i: usize| layers[i + usize::from(!layers[i].has_keys_values())];
        let layers = (0..layers.len()).map(owner).zip(memories.iter().cycle());
        let device = memories.first().map(|(memory, _)| memory.device());
        BertMemory {
            device: device.unwrap_or_default(),
            layers: layers
                .map(|(cross, (memory, keys))| (cross.keys_values(memory.clone()), keys.clone()))
                .collect(),
        }
    }

    /// Some of the layers.
    ///
    /// # Shapes
    /// `x: [R, T, D]` from [`Self::embed`] or the layers before; gives `[R, T, D]`.
    pub fn forward(&self, x: Tensor<3>, layers: Range<usize>, mut pass: BertPass) -> Tensor<3> {
        layers.fold(x, |x, i| self.layer(i, x, &mut pass))
    }

    /// All layers; gives the embeddings and every layer's output.
    ///
    /// # Shapes
    /// `x: [R, T, D]` from [`Self::embed`]; gives `[R, T, D]` each.
    pub fn hidden_states(&self, x: Tensor<3>, mut pass: BertPass) -> Vec<Tensor<3>> {
        let mut states = vec![x];
        for i in 0..self.layers.len() {
            states.push(self.layer(i, states[i].clone(), &mut pass));
        }
        states
    }

    fn layer(&self, i: usize, x: Tensor<3>, pass: &mut BertPass) -> Tensor<3> {
        let layer = &self.layers[i];
        let cache = pass.caches.as_deref_mut().map(|caches| &mut caches[i]);
        let x = layer
            .attn
            .masked(x.clone(), x, pass.causal, &pass.keys, cache);
        let mut x = layer.attn_norm.forward(x);
        if let (Some(cross), Some(norm), Some(memory)) =
            (&layer.cross, &layer.cross_norm, pass.memory)
        {
            let first = self.config.cross_attention.map_or(0, |c| c.from_layer);
            let (kv, keys) = &memory.layers[i - first];
            x = norm.forward(cross.masked(x.clone(), kv.clone(), x, keys));
        }
        layer.mlp_norm.forward(layer.mlp.forward(x.clone(), x))
    }

    /// Empty caches for a [`BertPass`].
    pub fn caches(&self) -> Vec<KvCache> {
        vec![KvCache::default(); self.layers.len()]
    }

    /// The first token's state through the pooler, if there is one.
    ///
    /// # Shapes
    /// `x: [R, T, D]` from the last layer; gives `[R, D]`.
    pub fn pooled(&self, x: &Tensor<3>) -> Option<Tensor<2>> {
        let pooler = self.pooler.as_ref()?;
        Some(pooler.forward(first_token(x)).tanh())
    }
}

/// # Shapes
/// `x: [R, T, D]`; gives the first token's state, `[R, D]`.
pub fn first_token(x: &Tensor<3>) -> Tensor<2> {
    let [r, _, d] = x.dims();
    x.clone().narrow(1, 0, 1).reshape([r, d])
}

/// The rules that translate the published names of a BERT under one prefix (with its dot) to ours under another: the
/// embeddings, layers and pooler as a `&[Rule]`.
macro_rules! bert_rules {
    ($from:literal, $to:literal) => {
        &[
            Rule::Name(
                concat!($from, "embeddings.word_embeddings.*"),
                concat!($to, "token.*"),
            ),
            Rule::Name(
                concat!($from, "embeddings.position_embeddings.*"),
                concat!($to, "position.*"),
            ),
            Rule::Name(
                concat!($from, "embeddings.token_type_embeddings.*"),
                concat!($to, "token_type.*"),
            ),
            Rule::Name(
                concat!($from, "embeddings.LayerNorm.*"),
                concat!($to, "norm.*"),
            ),
            Rule::Stack(
                &[
                    concat!($from, "encoder.layer.*.attention.self.query.*"),
                    concat!($from, "encoder.layer.*.attention.self.key.*"),
                    concat!($from, "encoder.layer.*.attention.self.value.*"),
                ],
                concat!($to, "layers.*.attn.qkv.*"),
            ),
            Rule::Name(
                concat!($from, "encoder.layer.*.attention.output.dense.*"),
                concat!($to, "layers.*.attn.out.*"),
            ),
            Rule::Name(
                concat!($from, "encoder.layer.*.attention.output.LayerNorm.*"),
                concat!($to, "layers.*.attn_norm.*"),
            ),
            Rule::Name(
                concat!($from, "encoder.layer.*.crossattention.self.query.*"),
                concat!($to, "layers.*.cross.q.*"),
            ),
            Rule::Stack(
                &[
                    concat!($from, "encoder.layer.*.crossattention.self.key.*"),
                    concat!($from, "encoder.layer.*.crossattention.self.value.*"),
                ],
                concat!($to, "layers.*.cross.kv.*"),
            ),
            Rule::Name(
                concat!($from, "encoder.layer.*.crossattention.output.dense.*"),
                concat!($to, "layers.*.cross.out.*"),
            ),
            Rule::Name(
                concat!($from, "encoder.layer.*.crossattention.output.LayerNorm.*"),
                concat!($to, "layers.*.cross_norm.*"),
            ),
            Rule::Name(
                concat!($from, "encoder.layer.*.intermediate.dense.*"),
                concat!($to, "layers.*.mlp.fc1.*"),
            ),
            Rule::Name(
                concat!($from, "encoder.layer.*.output.dense.*"),
                concat!($to, "layers.*.mlp.fc2.*"),
            ),
            Rule::Name(
                concat!($from, "encoder.layer.*.output.LayerNorm.*"),
                concat!($to, "layers.*.mlp_norm.*"),
            ),
            Rule::Name(concat!($from, "pooler.dense.*"), concat!($to, "pooler.*")),
        ]
    };
}

/// As [`bert_rules`] for a language-model head, whose published names begin with `cls.predictions.` after the prefix.
macro_rules! bert_head_rules {
    ($from:literal, $to:literal) => {
        &[
            Rule::Name(
                concat!($from, "cls.predictions.transform.dense.*"),
                concat!($to, "transform.*"),
            ),
            Rule::Name(
                concat!($from, "cls.predictions.transform.LayerNorm.*"),
                concat!($to, "norm.*"),
            ),
            Rule::Name(concat!($from, "cls.predictions.bias"), concat!($to, "bias")),
            Rule::Name(
                concat!($from, "cls.predictions.decoder.weight"),
                concat!($to, "decoder.weight"),
            ),
        ]
    };
}

pub(crate) use {bert_head_rules, bert_rules};
