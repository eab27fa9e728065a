use crate::linear::Linear;
use crate::ops::{self, Activation, AttentionOptions};
use crate::weights::{Init, Weights};
use burn::module::Module;
use burn::tensor::{Int, Tensor};

/// The keys and values that one layer has seen, packed `[B, T, 2D]`.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    kv: Option<Tensor<3>>,
}

impl KvCache {
    /// Positions held.
    pub fn len(&self) -> usize {
        self.kv.as_ref().map_or(0, |kv| kv.dims()[1])
    }

    /// Whether nothing is held yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `[B, t, 2D]` and gives all that is held.
    fn append(&mut self, new: Tensor<3>) -> Tensor<3> {
        let kv = match self.kv.take() {
            Some(kv) => Tensor::cat(vec![kv, new], 1),
            None => new,
        };
        self.kv = Some(kv.clone());
        kv
    }

    /// Replaces the batch rows by `rows`, as beam search does when hypotheses are dropped and doubled.
    pub fn select(&mut self, rows: &Tensor<1, Int>) {
        self.kv = self.kv.take().map(|kv| kv.select(0, rows.clone()));
    }
}

fn options(heads: usize, width: usize, causal: bool, past: usize) -> AttentionOptions {
    AttentionOptions {
        heads,
        causal,
        past,
        scale: ((width / heads) as f32).powf(-0.5),
        key_lengths: None,
    }
}

/// Multi-head self-attention with a packed projection; parameters `qkv` and `out`.
#[derive(Module, Debug)]
pub struct SelfAttention {
    qkv: Linear,
    out: Linear,
    heads: usize,
    width: usize,
    causal: bool,
}

impl SelfAttention {
    /// `heads` divides `width`; `out` initialises the output projection.
    pub fn new(w: &mut Weights, width: usize, heads: usize, causal: bool, out: Init) -> Self {
        Self {
            qkv: w.scope("qkv", |w| {
                Linear::new(w, width, 3 * width, true, Init::fan_in(width))
            }),
            out: w.scope("out", |w| Linear::new(w, width, width, true, out)),
            heads,
            width,
            causal,
        }
    }

    /// # Shapes
    /// `x, residual: [B, T, D]`; gives `residual + attention(x)`, `[B, T, D]`.
    pub fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let options = options(self.heads, self.width, self.causal, 0);
        let y = ops::self_attention(self.qkv.forward(x), options); // [B, T, D]
        self.out.fused(y, Activation::None, Some(residual))
    }

    /// The same for the `T` positions that follow those in `cache`, which then holds them too.
    pub fn forward_cached(
        &self,
        x: Tensor<3>,
        residual: Tensor<3>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let past = cache.len();
        let qkv = self.qkv.forward(x); // [B, T, 3D]
        let q = qkv.clone().narrow(2, 0, self.width);
        let kv = cache.append(qkv.narrow(2, self.width, 2 * self.width)); // [B, past + T, 2D]
        let options = options(self.heads, self.width, self.causal, past);
        let y = ops::cross_attention(q, kv, options); // [B, T, D]
        self.out.fused(y, Activation::None, Some(residual))
    }
}

/// Multi-head attention to another sequence; parameters `q`, `kv` and `out`.
#[derive(Module, Debug)]
pub struct CrossAttention {
    q: Linear,
    kv: Linear,
    out: Linear,
    heads: usize,
    width: usize,
}

impl CrossAttention {
    /// From queries of `width` to a memory of `memory_width`; `heads` divides `width`.
    pub fn new(
        w: &mut Weights,
        width: usize,
        memory_width: usize,
        heads: usize,
        out: Init,
    ) -> Self {
        Self {
            q: w.scope("q", |w| {
                Linear::new(w, width, width, true, Init::fan_in(width))
            }),
            kv: w.scope("kv", |w| {
                Linear::new(w, memory_width, 2 * width, true, Init::fan_in(memory_width))
            }),
            out: w.scope("out", |w| Linear::new(w, width, width, true, out)),
            heads,
            width,
        }
    }

    /// Keys and values of a memory, computed once and used by every text about it.
    ///
    /// # Shapes
    /// `memory: [B, N, M]`; gives `[B, N, 2D]`.
    pub fn keys_values(&self, memory: Tensor<3>) -> Tensor<3> {
        self.kv.forward(memory)
    }

    /// # Shapes
    /// `x, residual: [B * Q, T, D]`, `kv: [B, N, 2D]`: `Q` texts in a row look at the same memory; gives
    /// `residual + attention(x)`, `[B * Q, T, D]`.
    pub fn forward(&self, x: Tensor<3>, kv: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let ([rows, t, d], b) = (x.dims(), kv.dims()[0]);
        let texts = rows / b;
        let q = self.q.forward(x).reshape([b, texts * t, d]);
        let y = ops::cross_attention(q, kv, options(self.heads, self.width, false, 0));
        self.out
            .fused(y.reshape([rows, t, d]), Activation::None, Some(residual))
    }
}
