use crate::attention::{CrossAttention, KeyMask, KvCache, SelfAttention};
use crate::mlp::Mlp;
use crate::norm::LayerNorm;
use crate::ops::Activation;
use crate::weights::{Init, Weights};
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// Sizes of a stack of pre-norm transformer blocks.
#[derive(Clone, Copy, Debug)]
pub struct TransformerConfig {
    /// Width of the residual stream.
    pub width: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
    /// Width of the MLP.
    pub hidden: usize,
    /// Blocks in the stack, which scales the initial output projections.
    pub layers: usize,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Added to the variance in every LayerNorm.
    pub eps: f64,
    /// Whether position `i` sees only `0..=i`.
    pub causal: bool,
    /// Initial factor on each channel of what attention and MLP add, learned (Touvron et al., "Going deeper with image
    /// transformers", 2021); none for no such factors.
    pub layer_scale: Option<f32>,
}

impl TransformerConfig {
    fn out_init(&self) -> Init {
        Init::fan_in(2 * self.layers * self.width)
    }
}

/// A pre-norm transformer block: self-attention, then an MLP.
#[derive(Module, Debug)]
pub struct Block {
    norm1: LayerNorm,
    attn: SelfAttention,
    scale1: Option<Param<Tensor<1>>>,
    norm2: LayerNorm,
    mlp: Mlp,
    scale2: Option<Param<Tensor<1>>>,
}

/// `x + f(x)`, where `f` adds to what it is given; with factors on the channels of `f`.
fn added(
    x: Tensor<3>,
    scale: Option<&Param<Tensor<1>>>,
    f: impl FnOnce(Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    match scale {
        None => f(x),
        Some(scale) => x.clone() + f(x.zeros_like()) * scale.val().unsqueeze(),
    }
}

impl Block {
    /// One block of a stack.
    pub fn new(w: &mut Weights, c: &TransformerConfig) -> Self {
        let out = c.out_init();
        let scale = |w: &mut Weights, name| {
            let init = c.layer_scale.map(Init::Constant);
            init.map(|init| w.param(name, [c.width], init))
        };
        Self {
            norm1: w.scope("norm1", |w| LayerNorm::new(w, c.width, c.eps)),
            attn: w.scope("attn", |w| {
                SelfAttention::new(w, c.width, c.heads, c.causal, out)
            }),
            scale1: scale(w, "scale1"),
            norm2: w.scope("norm2", |w| LayerNorm::new(w, c.width, c.eps)),
            mlp: w.scope("mlp", |w| Mlp::new(w, c.width, c.hidden, c.activation, out)),
            scale2: scale(w, "scale2"),
        }
    }

    /// # Shapes
    /// `[B, T, D]` to `[B, T, D]`. With a cache, `x` holds the positions that follow the cached ones.
    pub fn forward(&self, x: Tensor<3>, cache: Option<&mut KvCache>) -> Tensor<3> {
        self.masked(x, &KeyMask::default(), cache)
    }

    /// The same for sequences with padding; `keys` has a row of all positions, cached ones included, per sequence.
    ///
    /// # Shapes
    /// `[B, T, D]` to `[B, T, D]`.
    pub fn masked(&self, x: Tensor<3>, keys: &KeyMask, cache: Option<&mut KvCache>) -> Tensor<3> {
        let h = self.norm1.forward(x.clone());
        let x = added(x, self.scale1.as_ref(), |x| {
            self.attn.masked(h, x, self.attn.causal(), keys, cache)
        });
        let h = self.norm2.forward(x.clone());
        added(x, self.scale2.as_ref(), |x| self.mlp.forward(h, x))
    }
}

/// A pre-norm decoder block: self-attention, cross-attention to a memory, then an MLP.
#[derive(Module, Debug)]
pub struct DecoderBlock {
    norm1: LayerNorm,
    attn: SelfAttention,
    norm_cross: LayerNorm,
    cross: CrossAttention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl DecoderBlock {
    /// One block of a stack that attends to a memory of `memory_width`.
    pub fn new(w: &mut Weights, c: &TransformerConfig, memory_width: usize) -> Self {
        let out = c.out_init();
        Self {
            norm1: w.scope("norm1", |w| LayerNorm::new(w, c.width, c.eps)),
            attn: w.scope("attn", |w| {
                SelfAttention::new(w, c.width, c.heads, c.causal, out)
            }),
            norm_cross: w.scope("norm_cross", |w| LayerNorm::new(w, c.width, c.eps)),
            cross: w.scope("cross", |w| {
                CrossAttention::new(w, c.width, memory_width, c.heads, out)
            }),
            norm2: w.scope("norm2", |w| LayerNorm::new(w, c.width, c.eps)),
            mlp: w.scope("mlp", |w| Mlp::new(w, c.width, c.hidden, c.activation, out)),
        }
    }

    /// See [`CrossAttention::keys_values`].
    pub fn keys_values(&self, memory: Tensor<3>) -> Tensor<3> {
        self.cross.keys_values(memory)
    }

    /// [`Self::forward`] for texts and memories with padding; `keys` has a row of `T` positions for each text, `memory` one
    /// of `N` for each memory.
    pub fn masked(
        &self,
        x: Tensor<3>,
        keys: &KeyMask,
        kv: Tensor<3>,
        memory: &KeyMask,
    ) -> Tensor<3> {
        let h = self.norm1.forward(x.clone());
        let x = self.attn.masked(h, x, self.attn.causal(), keys, None);
        let h = self.norm_cross.forward(x.clone());
        let x = self.cross.masked(h, kv, x, memory);
        self.mlp.forward(self.norm2.forward(x.clone()), x)
    }

    /// Where each head of the cross-attention looks, see [`CrossAttention::weights`].
    pub fn cross_weights(&self, x: Tensor<3>, kv: Tensor<3>) -> Tensor<4> {
        let x = self.attn.forward(self.norm1.forward(x.clone()), x);
        self.cross.weights(self.norm_cross.forward(x), kv)
    }

    /// # Shapes
    /// `x: [B * Q, T, D]`, `kv: [B, N, 2D]` from [`Self::keys_values`]; gives `[B * Q, T, D]`.
    pub fn forward(&self, x: Tensor<3>, kv: Tensor<3>, cache: Option<&mut KvCache>) -> Tensor<3> {
        let h = self.norm1.forward(x.clone());
        let x = match cache {
            Some(cache) => self.attn.forward_cached(h, x, cache),
            None => self.attn.forward(h, x),
        };
        let x = self
            .cross
            .forward(self.norm_cross.forward(x.clone()), kv, x);
        self.mlp.forward(self.norm2.forward(x.clone()), x)
    }
}
