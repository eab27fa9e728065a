//! Qwen2 (Qwen team, "Qwen2 technical report", 2024), and Llama (Touvron et al., 2023), which differs in three
//! details: a decoder-only language model with RMSNorm, rotary positions, grouped-query attention and SwiGLU.
//!
//! ```text
//!   ids -> embedding -> [ norm -> attention -> + -> norm -> SwiGLU -> + ] x L -> norm -> head (often the embedding)
//! ```
//!
//! Inference works on plain slices, not on Burn tensors: a token of a small model takes a few milliseconds, and what
//! surrounds its matrix products would cost a good part of that. Weights are floats or the blocks of GGUF files
//! ([`Matrix`]).
//!
//! Legend: `B` texts, `t` new tokens of each, `D` width, `V` vocabulary.

use crate::decoders::kv_cache::KvCache;
use crate::decoders::matrix::{Matrix, Precision, multiply_shared};
use crate::decoders::tensors::Tensors;
use crate::encoders::check_size;
use crate::error::{Error, expect};
use crate::generate::Autoregressive;
use serde::Deserialize;
use vlm_kernels::memory::unfilled;
use vlm_kernels::{
    Activation, AttentionShape, HeadsMut, Rotation, add_to, gate_in_place, in_team,
    inverse_frequencies, rms_norm, rope,
};

pub use vlm_kernels::RopeLayout;

/// This family's `model_type` in `config.json`, and `general.architecture` in GGUF files.
pub const MODEL_TYPE: &str = "qwen2";

/// Sizes of the family; field names as in published `config.json` files.
#[derive(Clone, Debug, PartialEq)]
pub struct Qwen2Config {
    /// Tokens `V`.
    pub vocab_size: usize,
    /// Width `D`.
    pub hidden_size: usize,
    /// Width of the gated MLPs.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads: a divisor of the query heads.
    pub num_key_value_heads: usize,
    /// Channels of a head, an even number.
    pub head_dim: usize,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Which channels turn together.
    pub rope_layout: RopeLayout,
    /// Whether queries, keys and values have a bias: Qwen2's do, Llama's do not.
    pub attention_bias: bool,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
}

#[derive(Deserialize)]
struct Json {
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    #[serde(default = "default_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_parameters: Option<RopeJson>,
    #[serde(default)]
    tie_word_embeddings: bool,
}

#[derive(Deserialize)]
struct RopeJson {
    rope_theta: Option<f64>,
}

fn default_eps() -> f64 {
    1e-6
}

impl Qwen2Config {
    /// Reads and validates a published `config.json`.
    ///
    /// # Errors
    /// A field of the wrong type, missing, out of range, or that does not fit another.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let json: Json = serde_json::from_str(json)?;
        expect(
            json.model_type.as_deref() == Some(MODEL_TYPE),
            "model_type",
            format!("{MODEL_TYPE:?}"),
            format!("{:?}", json.model_type.unwrap_or_default()),
        )?;
        let rope_theta = json.rope_parameters.and_then(|r| r.rope_theta);
        let config = Self {
            vocab_size: json.vocab_size,
            hidden_size: json.hidden_size,
            intermediate_size: json.intermediate_size,
            num_hidden_layers: json.num_hidden_layers,
            num_attention_heads: json.num_attention_heads,
            num_key_value_heads: json.num_key_value_heads.unwrap_or(json.num_attention_heads),
            head_dim: json
                .head_dim
                .unwrap_or(json.hidden_size / json.num_attention_heads.max(1)),
            max_position_embeddings: json.max_position_embeddings,
            rms_norm_eps: json.rms_norm_eps,
            rope_theta: rope_theta.or(json.rope_theta).unwrap_or(10_000.0),
            rope_layout: RopeLayout::Halves,
            attention_bias: true,
            tie_word_embeddings: json.tie_word_embeddings,
        };
        config.validate()?;
        Ok(config)
    }

    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 20),
            ("hidden_size", self.hidden_size, 65536),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("num_hidden_layers", self.num_hidden_layers, 512),
            ("num_attention_heads", self.num_attention_heads, 1024),
            ("head_dim", self.head_dim, 1024),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                1 << 24,
            ),
        ];
        for (name, value, max) in sizes {
            check_size(name, value, max)?;
        }
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        expect(
            kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "num_key_value_heads",
            format!("a divisor of num_attention_heads {heads}"),
            kv_heads,
        )?;
        expect(
            self.head_dim.is_multiple_of(2),
            "head_dim",
            "an even number",
            self.head_dim,
        )?;
        expect(
            self.rms_norm_eps >= 0.0 && self.rms_norm_eps < 1.0,
            "rms_norm_eps",
            "a number from 0 to 1",
            self.rms_norm_eps,
        )?;
        expect(
            self.rope_theta >= 1.0 && self.rope_theta.is_finite(),
            "rope_theta",
            "a number of at least 1",
            self.rope_theta,
        )
    }

    fn q_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    fn kv_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}

/// The name of a parameter in GGUF files.
pub fn gguf_name(name: &str) -> String {
    let Some(rest) = name.strip_prefix("model.layers.") else {
        let (base, end) = name.rsplit_once('.').unwrap_or((name, ""));
        let base = match base {
            "model.embed_tokens" => "token_embd",
            "model.norm" => "output_norm",
            "lm_head" => "output",
            other => other,
        };
        return format!("{base}.{end}");
    };
    let (layer, rest) = rest.split_once('.').unwrap_or((rest, ""));
    let (part, end) = rest.rsplit_once('.').unwrap_or((rest, ""));
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => other,
    };
    format!("blk.{layer}.{part}.{end}")
}

#[derive(Debug)]
struct Layer {
    input_norm: Vec<f32>,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    biases: Option<[Vec<f32>; 3]>,
    out: Matrix,
    post_norm: Vec<f32>,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

/// The model.
#[derive(Debug)]
pub struct Qwen2 {
    config: Qwen2Config,
    precision: Precision,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Option<Matrix>,
}

impl Qwen2 {
    /// Builds the model of a validated config; `precision` is that of attention.
    ///
    /// # Errors
    /// A parameter that is missing or of another shape.
    pub fn new(
        source: &mut dyn Tensors,
        config: &Qwen2Config,
        precision: Precision,
    ) -> Result<Self, Error> {
        let c = config;
        let (d, hidden) = (c.hidden_size, c.intermediate_size);
        let (q_width, kv_width) = (c.q_width(), c.kv_width());
        let embedding = source.matrix("model.embed_tokens.weight", c.vocab_size, d)?;
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for i in 0..c.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{i}.{part}");
            let mut matrix = |part: &str, rows, cols| source.matrix(&name(part), rows, cols);
            let q = matrix("self_attn.q_proj.weight", q_width, d)?;
            let k = matrix("self_attn.k_proj.weight", kv_width, d)?;
            let v = matrix("self_attn.v_proj.weight", kv_width, d)?;
            let out = matrix("self_attn.o_proj.weight", d, q_width)?;
            let gate = matrix("mlp.gate_proj.weight", hidden, d)?;
            let up = matrix("mlp.up_proj.weight", hidden, d)?;
            let down = matrix("mlp.down_proj.weight", d, hidden)?;
            let mut vector = |part: &str, len| source.vector(&name(part), len);
            let biases = if c.attention_bias {
                Some([
                    vector("self_attn.q_proj.bias", q_width)?,
                    vector("self_attn.k_proj.bias", kv_width)?,
                    vector("self_attn.v_proj.bias", kv_width)?,
                ])
            } else {
                None
            };
            layers.push(Layer {
                input_norm: vector("input_layernorm.weight", d)?,
                post_norm: vector("post_attention_layernorm.weight", d)?,
                q,
                k,
                v,
                biases,
                out,
                gate,
                up,
                down,
            });
        }
        Ok(Self {
            norm: source.vector("model.norm.weight", d)?,
            head: if c.tie_word_embeddings {
                None
            } else {
                Some(source.matrix("lm_head.weight", c.vocab_size, d)?)
            },
            config: c.clone(),
            precision,
            embedding,
            layers,
        })
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &Qwen2Config {
        &self.config
    }

    /// Bytes of memory that the matrices take.
    pub fn bytes(&self) -> usize {
        let layers = self
            .layers
            .iter()
            .flat_map(|l| [&l.q, &l.k, &l.v, &l.out, &l.gate, &l.up, &l.down].map(Matrix::bytes));
        let head = self.head.as_ref().map_or(0, Matrix::bytes);
        self.embedding.bytes() + head + layers.sum::<usize>()
    }

    /// Bits of a weight of the blocks' gate projections, which are the bulk of a model; none where they are floats.
    pub fn integer_bits(&self) -> Option<u32> {
        match self.layers.first().map(|layer| &layer.gate) {
            Some(Matrix::Blocks(blocks)) => {
                let format = blocks.format();
                // scales are less than a bit a weight
                Some((8 * format.block_bytes() / format.block_len()) as u32)
            }
            _ => None,
        }
    }

    /// Whether keys and values are kept in half precision.
    fn halves(&self) -> bool {
        self.precision != Precision::F32 || self.integer_bits().is_some()
    }

    /// Starts texts that nothing was fed yet.
    pub fn decode(&self) -> Decoding<'_> {
        let c = &self.config;
        Decoding {
            model: self,
            frequencies: inverse_frequencies(c.head_dim, c.rope_theta),
            caches: vec![KvCache::new(self.halves()); self.layers.len()],
            rows: 0,
            positions: 0,
        }
    }

    /// Logits of every position of whole texts, without a cache.
    ///
    /// # Shapes
    /// `ids: [B][T]`; gives `[B, T, V]`.
    pub fn logits(&self, ids: &[Vec<u32>]) -> Vec<f32> {
        let x = self.decode().hidden_states(ids);
        self.head(&x, x.len() / self.config.hidden_size)
    }

    /// `x: [m, D]` after the last block; gives `[m, V]`.
    fn head(&self, x: &[f32], m: usize) -> Vec<f32> {
        let x = self.norm(x, &self.norm);
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        head.multiply(&x, m, None)
    }

    fn norm(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let mut out = unfilled(x.len());
        rms_norm(x, weight, self.config.rms_norm_eps as f32, &mut out);
        out
    }
}

/// Texts in the making, with their keys and values.
#[derive(Debug)]
pub struct Decoding<'a> {
    model: &'a Qwen2,
    frequencies: Vec<f32>,
    caches: Vec<KvCache>,
    rows: usize,
    positions: usize,
}

impl Decoding<'_> {
    /// Forgets what was fed; memory is kept.
    pub fn clear(&mut self) {
        self.positions = 0;
    }

    /// Feeds tokens and gives what the last block makes of them.
    ///
    /// # Shapes
    /// `tokens: [B][t]`; gives `[B, t, D]`.
    fn hidden_states(&mut self, tokens: &[Vec<u32>]) -> Vec<f32> {
        let c = &self.model.config;
        let (rows, t) = (tokens.len(), tokens.first().map_or(0, Vec::len));
        assert!(
            tokens.iter().all(|row| row.len() == t),
            "rows of tokens differ in length"
        );
        if rows != self.rows {
            assert_eq!(self.positions, 0, "rows were added to texts in the making");
            self.rows = rows;
            self.caches.fill(KvCache::new(self.model.halves()));
        }
        let (d, m) = (c.hidden_size, rows * t);
        let mut x = unfilled(m * d);
        for (x, &id) in x.chunks_exact_mut(d).zip(tokens.iter().flatten()) {
            self.model.embedding.row(id as usize, x);
        }
        let past = self.positions;
        let positions: Vec<u32> = (past..past + t).map(|p| p as u32).collect();
        let rotation = Rotation::new(&positions, &self.frequencies);
        for (layer, cache) in self.model.layers.iter().zip(&mut self.caches) {
            let h = self.model.norm(&x, &layer.input_norm); // [B, t, D]
            let attention = Attention {
                config: c,
                precision: self.model.precision,
                layer,
                rotation: &rotation,
            };
            let y = attention.run(cache, &h, [rows, t, past]);
            add_to(&mut x, &y);
            let h = self.model.norm(&x, &layer.post_norm);
            add_to(&mut x, &swiglu(layer, &h, m));
        }
        self.positions += t;
        x
    }
}

/// The attention of one layer.
struct Attention<'a> {
    config: &'a Qwen2Config,
    precision: Precision,
    layer: &'a Layer,
    rotation: &'a Rotation,
}

impl Attention<'_> {
    /// Grouped-query attention of `h: [B, t, D]` to itself and the cache; gives `[B, t, D]`.
    fn run(&self, cache: &mut KvCache, h: &[f32], [rows, t, past]: [usize; 3]) -> Vec<f32> {
        let Self {
            config: c,
            precision,
            layer,
            rotation,
        } = *self;
        let m = rows * t;
        let [qb, kb, vb] = match &layer.biases {
            Some(biases) => biases.each_ref().map(|b| Some(b.as_slice())),
            None => [None; 3],
        };
        let [mut q, mut k, v] =
            multiply_shared(h, m, [(&layer.q, qb), (&layer.k, kb), (&layer.v, vb)]);
        for (x, heads) in [
            (&mut q, c.num_attention_heads),
            (&mut k, c.num_key_value_heads),
        ] {
            let size = [rows, t, heads, c.head_dim];
            let x = HeadsMut::contiguous(x, t, heads * c.head_dim);
            rope(x, size, c.rope_layout, rotation);
        }
        let shape = AttentionShape {
            batch: rows,
            q_len: t,
            k_len: past + t,
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: c.head_dim,
        };
        let y = cache.attend(precision, shape, &q, [&k, &v]);
        layer.out.multiply(&y, m, None)
    }
}

/// `down(silu(gate(h)) * up(h))` (Shazeer, "GLU variants improve transformer", 2020), `[m, D]` to `[m, D]`.
fn swiglu(layer: &Layer, h: &[f32], m: usize) -> Vec<f32> {
    let [gate, mut up] = multiply_shared(h, m, [(&layer.gate, None), (&layer.up, None)]);
    gate_in_place(Activation::Silu, &gate, &mut up);
    layer.down.multiply(&up, m, None)
}

impl Autoregressive for Decoding<'_> {
    fn vocab_size(&self) -> usize {
        self.model.config.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.model.config.max_position_embeddings
    }

    fn positions(&self) -> usize {
        self.positions
    }

    fn feed(&mut self, tokens: &[Vec<u32>]) -> Vec<Vec<f32>> {
        let d = self.model.config.hidden_size;
        let t = tokens.first().map_or(0, Vec::len);
        if t == 0 {
            return vec![Vec::new(); tokens.len()];
        }
        let logits = in_team(|| {
            let x = self.hidden_states(tokens);
            let mut last = Vec::with_capacity(tokens.len() * d);
            for text in x.chunks_exact(t * d) {
                last.extend_from_slice(&text[(t - 1) * d..]);
            }
            self.model.head(&last, tokens.len())
        });
        if tokens.len() == 1 {
            // as they are: a large vocabulary is worth not copying
            return vec![logits];
        }
        logits
            .chunks_exact(self.vocab_size())
            .map(<[f32]>::to_vec)
            .collect()
    }

    fn select(&mut self, rows: &[usize]) {
        for cache in &mut self.caches {
            cache.select(rows);
        }
        self.rows = rows.len();
    }
}
