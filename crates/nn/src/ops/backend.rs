//! The backend extension: which fused operations exist. Burn's Flex (CPU) backend computes them in [`super::flex`],
//! differentiation is in [`super::autodiff`]; other devices take [`super::composed`].

use super::packed::{PackedWeight, WeightFormat};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, ExtensionType, backend_extension};
use burn::tensor::Shape;
use std::sync::Arc;
use vlm_kernels::{Activation, ConvShape, Precision, RopeLayout, Rotation};

/// An optional tensor argument: the extension macro does not map `Option<FloatTensor>`.
#[derive(ExtensionType, Clone, Debug)]
pub enum Maybe<B: Backend> {
    /// The tensor.
    Some(FloatTensor<B>),
    /// Not given.
    None,
}

/// What [`linear`](super::linear) does besides the product.
#[derive(Clone, Debug)]
pub struct LinearOptions {
    /// Applied to `x w^T + bias`, before the residual is added.
    pub activation: Activation,
    /// Arithmetic of the product; sums are always f32.
    pub precision: Precision,
    /// Where the packed weight is kept between calls, if it is.
    pub packed: Option<PackedWeight>,
    /// How it is kept there.
    pub weights: WeightFormat,
}

/// The shape-independent part of an attention call.
#[derive(Clone, Debug)]
pub struct AttentionOptions {
    /// Number of heads; divides the width.
    pub heads: usize,
    /// Query `i` sees keys `0..=i + past`.
    pub causal: bool,
    /// Keys that precede the first query (a KV cache); only read when `causal`.
    pub past: usize,
    /// Factor on the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Per batch row the number of valid keys; keys beyond it are not seen.
    pub key_lengths: Option<Arc<[u32]>>,
    /// `[B, Tk]` row by row: whether a key is seen at all; or `[B, Tq, Tk]`: whether a query sees a key. For padding in
    /// front or between; padding behind needs only `key_lengths`. A query that sees no key gives zeros.
    pub key_mask: Option<Arc<[bool]>>,
}

/// What turns the heads of a tensor.
#[derive(Clone, Debug)]
pub struct RopeOptions {
    /// Number of heads; divides the width.
    pub heads: usize,
    /// Which elements of a head turn together.
    pub layout: RopeLayout,
    /// The angles, of `B * T` tokens or of `T` that all sequences share.
    pub rotation: Arc<Rotation>,
}

/// One fused AdamW update; see [`vlm_kernels::AdamW`].
pub type AdamWStep = vlm_kernels::AdamW;

/// Fused operations, dispatched at run time to the device's backend.
#[backend_extension(Flex, Autodiff)]
pub trait VlmOps: Backend {
    /// `activation(x w^T + bias) + residual`; `x: [.., K]`, `w: [N, K]`, `bias: [N]`, `residual: [.., N]`.
    fn vlm_linear(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
        #[extension_type] residual: Maybe<Self>,
        options: LinearOptions,
    ) -> FloatTensor<Self>;
    /// Two linear layers, the second on what the first gives; only the second has a `residual`.
    fn vlm_mlp(
        x: FloatTensor<Self>,
        w1: FloatTensor<Self>,
        #[extension_type] bias1: Maybe<Self>,
        w2: FloatTensor<Self>,
        #[extension_type] bias2: Maybe<Self>,
        #[extension_type] residual: Maybe<Self>,
        options: [LinearOptions; 2],
    ) -> FloatTensor<Self>;
    /// LayerNorm over the last dimension.
    fn vlm_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
    /// Attention of a packed projection with itself: `[B, T, 3D]` to `[B, T, D]`.
    fn vlm_self_attention(qkv: FloatTensor<Self>, options: AttentionOptions) -> FloatTensor<Self>;
    /// Attention of `q: [B, Tq, D]` to packed keys and values `kv: [B, Tk, 2D]`, giving `[B, Tq, D]`.
    fn vlm_cross_attention(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self>;
    /// Per-row loss `[M]` of `logits: [M, V]`; negative targets give 0.
    fn vlm_cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        label_smoothing: f32,
    ) -> FloatTensor<Self>;
    /// Rows of `table: [V, D]` at `ids: [B, T]`, giving `[B, T, D]`.
    fn vlm_embedding(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self>;
    /// RMSNorm over the last dimension.
    fn vlm_rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f32) -> FloatTensor<Self>;
    /// The heads of `x: [B, T, D]`, turned.
    fn vlm_rope(x: FloatTensor<Self>, options: RopeOptions) -> FloatTensor<Self>;
    /// `activation(gate) * up` of rows `[gate, up]`: `[.., 2 W]` to `[.., W]`.
    fn vlm_gated(gate_up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;
    /// Windows of `x: [B, H, W, C]` as rows: `[B, OH, OW, KH * KW * C]` (im2col, channels last).
    fn vlm_unfold(x: FloatTensor<Self>, window: Window) -> FloatTensor<Self>;
    /// Non-overlapping patches of `x: [B, C, H, W]`: `[B, H/p * W/p, C * p * p]`.
    fn vlm_patchify(x: FloatTensor<Self>, patch: usize) -> FloatTensor<Self>;
    /// One AdamW update of `(param, m, v)`; in place where a buffer is not shared. Not differentiable.
    fn vlm_adamw(
        param: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// A sliding window over a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Step down and right.
    pub stride: [usize; 2],
    /// Zeros added on every side, down and right.
    pub padding: [usize; 2],
}

impl Window {
    pub(super) fn over(self, [batch, height, width, channels]: [usize; 4]) -> ConvShape {
        ConvShape {
            batch,
            height,
            width,
            channels,
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
        }
    }
}

/// Gradients of a linear layer; absent where nobody asked.
pub struct LinearGrads<B: Backend> {
    pub x: Option<FloatTensor<B>>,
    pub w: Option<FloatTensor<B>>,
    pub bias: Option<FloatTensor<B>>,
}

/// Kernels that the hand-written backward passes need; never dispatched.
pub trait VlmGrad: VlmOps {
    /// Like `vlm_linear`, and the pre-activation where the backward pass needs it.
    fn linear_train(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        options: LinearOptions,
    ) -> (FloatTensor<Self>, Maybe<Self>);
    fn linear_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        pre_activation: Maybe<Self>,
        options: LinearOptions,
        wanted: [bool; 3],
    ) -> LinearGrads<Self>;
    fn layer_norm_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        eps: f32,
    ) -> [FloatTensor<Self>; 3];
    /// Like `vlm_self_attention`, and the logarithm of every query's sum of exponentials, `[B, H, T]`.
    fn self_attention_train(
        qkv: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> [FloatTensor<Self>; 2];
    /// `saved` is what `self_attention_train` gave.
    fn self_attention_backward(
        dy: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        saved: [FloatTensor<Self>; 2],
        options: AttentionOptions,
    ) -> FloatTensor<Self>;
    /// Like `vlm_cross_attention`, and the logarithm of every query's sum of exponentials, `[B, H, Tq]`.
    fn cross_attention_train(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> [FloatTensor<Self>; 2];
    /// `saved` is what `cross_attention_train` gave.
    fn cross_attention_backward(
        dy: FloatTensor<Self>,
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        saved: [FloatTensor<Self>; 2],
        options: AttentionOptions,
    ) -> [FloatTensor<Self>; 2];
    fn rms_norm_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        eps: f32,
    ) -> [FloatTensor<Self>; 2];
    fn rope_backward(dy: FloatTensor<Self>, options: RopeOptions) -> FloatTensor<Self>;
    fn gated_backward(
        dy: FloatTensor<Self>,
        gate_up: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;
    fn cross_entropy_backward(
        dlosses: FloatTensor<Self>,
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        label_smoothing: f32,
    ) -> FloatTensor<Self>;
    fn rows_backward(
        dy: FloatTensor<Self>,
        ids: IntTensor<Self>,
        table: Shape,
    ) -> FloatTensor<Self>;
    fn unfold_backward(dy: FloatTensor<Self>, window: Window, input: Shape) -> FloatTensor<Self>;
    fn patchify_backward(dy: FloatTensor<Self>, patch: usize, input: Shape) -> FloatTensor<Self>;
}
