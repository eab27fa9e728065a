//! The backend extension: which fused operations exist, and how Burn's Flex (CPU) backend computes them
//! with `vlm-kernels`. Differentiation is in [`super::autodiff`]; other devices take [`super::composed`].

use super::packed::{Kept, PackedWeight, WeightFormat};
use super::precision;
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, ExtensionType, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bytes, DType, Shape};
use std::sync::Arc;
use vlm_kernels as kernels;
use vlm_kernels::memory::unfilled;
use vlm_kernels::{
    Activation, AttentionShape, ConvShape, Epilogue, HeadsMut, HeadsRef, Mask, MatRef,
    PackedWeights, Precision,
};

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

/// One fused AdamW update; see [`kernels::AdamW`].
pub type AdamWStep = kernels::AdamW;

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
    fn self_attention_backward(
        dy: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self>;
    fn cross_attention_backward(
        dy: FloatTensor<Self>,
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> [FloatTensor<Self>; 2];
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

pub(super) fn f32s(t: &FlexTensor) -> &[f32] {
    t.as_slice().expect("contiguous f32 tensor")
}

/// Ids as i64, whatever integer type the device uses.
fn ids(t: &FlexTensor) -> Vec<i64> {
    let t = t.to_contiguous();
    match t.dtype() {
        DType::I64 => t.as_slice::<i64>().expect("contiguous ids").to_vec(),
        DType::I32 => t
            .as_slice::<i32>()
            .expect("contiguous ids")
            .iter()
            .map(|&x| i64::from(x))
            .collect(),
        other => panic!("ids: expected i32 or i64, found {other:?}"),
    }
}

pub(super) fn tensor(data: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let shape = shape.into();
    debug_assert_eq!(data.len(), shape.num_elements());
    FlexTensor::new(
        Bytes::from_elems(data),
        Layout::contiguous(shape),
        DType::F32,
    )
}

fn with_last(shape: &Shape, last: usize) -> Shape {
    let mut dims = shape.to_vec();
    *dims.last_mut().expect("at least one dimension") = last;
    Shape::from(dims)
}

pub(super) fn dims<const D: usize>(t: &FlexTensor) -> [usize; D] {
    t.shape()
        .to_vec()
        .try_into()
        .expect("rank checked by the tensor-level wrapper")
}

pub(super) fn contiguous(t: Maybe<Flex>) -> Option<FlexTensor> {
    match t {
        Maybe::Some(t) => Some(t.to_contiguous()),
        Maybe::None => None,
    }
}

fn linear_flex(
    x: FlexTensor,
    w: FlexTensor,
    bias: Maybe<Flex>,
    residual: Maybe<Flex>,
    options: LinearOptions,
    train: bool,
) -> (FlexTensor, Maybe<Flex>) {
    let x = x.to_contiguous();
    let [n, k] = dims(&w);
    let m = x.shape().num_elements() / k.max(1);
    let shape = with_last(&x.shape(), n);
    let (bias, residual) = (contiguous(bias), contiguous(residual));
    let mut y = unfilled(m * n);
    let mut pre = (train && options.activation != Activation::None).then(|| unfilled(m * n));
    let epilogue = Epilogue {
        bias: bias.as_ref().map(f32s),
        activation: options.activation,
        residual: residual.as_ref().map(f32s),
        pre_activation: pre.as_deref_mut(),
    };
    let products = options.precision;
    match &options.packed {
        Some(kept)
            if !train
                && (options.weights != WeightFormat::Float
                    || PackedWeights::pay_off(products, m)) =>
        {
            match &*kept.get(&w, products, options.weights) {
                Kept::Float(w) => kernels::linear_packed(f32s(&x), w, m, epilogue, &mut y),
                Kept::Int8(w) => {
                    kernels::quant::linear_int8(f32s(&x), w, m, epilogue, &mut y);
                }
                Kept::Blocks(w) => {
                    w.matmul(f32s(&x), m, &mut y);
                    kernels::gemm::linear::finish_rows(epilogue, n, &mut y);
                }
            }
        }
        _ => {
            if let (Some(kept), true) = (&options.packed, train) {
                kept.clear();
            }
            let w = w.to_contiguous();
            kernels::linear(products, f32s(&x), f32s(&w), m, k, n, epilogue, &mut y);
        }
    }
    let pre = match pre {
        Some(pre) => Maybe::Some(tensor(pre, shape.clone())),
        None => Maybe::None,
    };
    (tensor(y, shape), pre)
}

impl AttentionOptions {
    /// What is added to the scores of `[B, Tq, Tk]`, where keys are hidden one by one.
    fn added(&self, batch: usize, q_len: usize, k_len: usize) -> Option<Vec<f32>> {
        let seen = self.key_mask.as_deref()?;
        let by_pair = seen.len() == batch * q_len * k_len;
        assert!(
            by_pair || seen.len() == batch * k_len,
            "attention: key_mask is neither [{batch}, {k_len}] nor [{batch}, {q_len}, {k_len}]"
        );
        let mut values = vec![f32::NEG_INFINITY; batch * q_len * k_len];
        for (row, values) in values.chunks_mut(k_len.max(1)).enumerate() {
            let (b, i) = (row / q_len, row % q_len);
            let until = if self.causal {
                k_len.min(i + self.past + 1)
            } else {
                k_len
            };
            let of = if by_pair { row } else { b };
            let seen = &seen[of * k_len..][..until];
            for (value, _) in values.iter_mut().zip(seen).filter(|(_, seen)| **seen) {
                *value = 0.0;
            }
        }
        Some(values)
    }

    /// The mask for the kernels; `added` is from [`Self::added`].
    fn mask<'a>(&self, added: Option<&'a [f32]>, q_len: usize, k_len: usize) -> Mask<'a> {
        match added {
            Some(values) => Mask::Additive {
                values,
                batch_stride: q_len * k_len,
                head_stride: 0,
            },
            None if self.causal => Mask::Causal { past: self.past },
            None => Mask::None,
        }
    }

    fn shape(&self, batch: usize, q_len: usize, k_len: usize, width: usize) -> AttentionShape {
        AttentionShape {
            batch,
            q_len,
            k_len,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: width / self.heads,
        }
    }
}

/// Part `part` of `parts` equal column blocks of a packed `[B, T, parts * width]` projection.
fn heads(data: &[f32], t: usize, width: usize, part: usize, parts: usize) -> HeadsRef<'_> {
    HeadsRef {
        data,
        offset: part * width,
        batch_stride: t * parts * width,
        row_stride: parts * width,
    }
}

impl VlmOps for Flex {
    fn vlm_linear(
        x: FlexTensor,
        w: FlexTensor,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        options: LinearOptions,
    ) -> FlexTensor {
        linear_flex(x, w, bias, residual, options, false).0
    }

    fn vlm_layer_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, eps: f32) -> FlexTensor {
        let (x, gamma, beta) = (
            x.to_contiguous(),
            gamma.to_contiguous(),
            beta.to_contiguous(),
        );
        let mut y = unfilled(x.shape().num_elements());
        kernels::layer_norm(f32s(&x), f32s(&gamma), Some(f32s(&beta)), eps, &mut y);
        tensor(y, x.shape())
    }

    fn vlm_self_attention(qkv: FlexTensor, options: AttentionOptions) -> FlexTensor {
        let qkv = qkv.to_contiguous();
        let [b, t, packed] = dims(&qkv);
        let d = packed / 3;
        let added = options.added(b, t, t);
        let mut out = unfilled(b * t * d);
        let part = |i| heads(f32s(&qkv), t, d, i, 3);
        kernels::attention(
            precision(),
            options.shape(b, t, t, d),
            part(0),
            part(1),
            part(2),
            options.mask(added.as_deref(), t, t),
            options.key_lengths.as_deref(),
            options.scale,
            HeadsMut {
                data: &mut out,
                offset: 0,
                batch_stride: t * d,
                row_stride: d,
            },
        );
        tensor(out, [b, t, d])
    }

    fn vlm_cross_attention(q: FlexTensor, kv: FlexTensor, options: AttentionOptions) -> FlexTensor {
        let (q, kv) = (q.to_contiguous(), kv.to_contiguous());
        let [b, tq, d] = dims(&q);
        let [_, tk, _] = dims(&kv);
        let added = options.added(b, tq, tk);
        let mut out = unfilled(b * tq * d);
        kernels::attention(
            precision(),
            options.shape(b, tq, tk, d),
            heads(f32s(&q), tq, d, 0, 1),
            heads(f32s(&kv), tk, d, 0, 2),
            heads(f32s(&kv), tk, d, 1, 2),
            options.mask(added.as_deref(), tq, tk),
            options.key_lengths.as_deref(),
            options.scale,
            HeadsMut {
                data: &mut out,
                offset: 0,
                batch_stride: tq * d,
                row_stride: d,
            },
        );
        tensor(out, [b, tq, d])
    }

    fn vlm_cross_entropy(
        logits: FlexTensor,
        targets: FlexTensor,
        label_smoothing: f32,
    ) -> FlexTensor {
        let logits = logits.to_contiguous();
        let [m, _] = dims(&logits);
        let mut losses = unfilled(m);
        kernels::cross_entropy(f32s(&logits), &ids(&targets), label_smoothing, &mut losses);
        tensor(losses, [m])
    }

    fn vlm_embedding(table: FlexTensor, tokens: FlexTensor) -> FlexTensor {
        let table = table.to_contiguous();
        let [_, d] = dims(&table);
        let [b, t] = dims(&tokens);
        let mut out = unfilled(b * t * d);
        kernels::gather_rows(f32s(&table), d, &ids(&tokens), &mut out);
        tensor(out, [b, t, d])
    }

    fn vlm_unfold(x: FlexTensor, window: Window) -> FlexTensor {
        let x = x.to_contiguous();
        let shape = window.over(dims(&x));
        let (oh, ow) = (shape.out_height(), shape.out_width());
        let row = window.kernel[0] * window.kernel[1] * shape.channels;
        let mut out = unfilled(shape.batch * oh * ow * row);
        let batch = shape.batch;
        kernels::unfold(f32s(&x), shape, &mut out);
        tensor(out, [batch, oh, ow, row])
    }

    fn vlm_patchify(x: FlexTensor, patch: usize) -> FlexTensor {
        let x = x.to_contiguous();
        let [b, c, h, w] = dims(&x);
        let mut out = unfilled(b * c * h * w);
        kernels::patchify(f32s(&x), [b, c, h, w], patch, &mut out);
        tensor(out, [b, (h / patch) * (w / patch), c * patch * patch])
    }

    fn vlm_adamw(
        param: FlexTensor,
        grad: FlexTensor,
        m: FlexTensor,
        v: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let grad = grad.to_contiguous();
        // `storage_mut` copies a shared buffer; a view into a larger buffer is made whole first.
        let own = |t: FlexTensor| {
            let whole = t
                .as_slice::<f32>()
                .is_some_and(|s| s.len() * 4 == t.bytes().len());
            if whole { t } else { t.to_contiguous() }
        };
        let (mut param, mut m, mut v) = (own(param), own(m), own(v));
        kernels::adamw(
            param.storage_mut(),
            f32s(&grad),
            m.storage_mut(),
            v.storage_mut(),
            step,
        );
        (param, m, v)
    }
}

impl VlmGrad for Flex {
    fn linear_train(
        x: FlexTensor,
        w: FlexTensor,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        options: LinearOptions,
    ) -> (FlexTensor, Maybe<Self>) {
        linear_flex(x, w, bias, residual, options, true)
    }

    fn linear_backward(
        dy: FlexTensor,
        x: FlexTensor,
        w: FlexTensor,
        pre_activation: Maybe<Self>,
        options: LinearOptions,
        [want_x, want_w, want_bias]: [bool; 3],
    ) -> LinearGrads<Self> {
        let mut dy = dy.to_contiguous();
        let (x, w) = (x.to_contiguous(), w.to_contiguous());
        let [n, k] = dims(&w);
        let m = dy.shape().num_elements() / n.max(1);
        if let Maybe::Some(pre) = pre_activation {
            let mut d = unfilled(m * n);
            kernels::activation_backward(options.activation, f32s(&pre), f32s(&dy), &mut d);
            dy = tensor(d, dy.shape());
        }
        let dy_matrix = MatRef::row_major(f32s(&dy), m, n);
        let dx = want_x.then(|| {
            let mut dx = unfilled(m * k);
            let w = MatRef::row_major(f32s(&w), n, k);
            kernels::matmul(options.precision, dy_matrix, w, &mut dx);
            tensor(dx, x.shape())
        });
        let dw = want_w.then(|| {
            let mut dw = unfilled(n * k);
            let x = MatRef::row_major(f32s(&x), m, k);
            kernels::matmul(options.precision, dy_matrix.t(), x, &mut dw);
            tensor(dw, [n, k])
        });
        let db = want_bias.then(|| {
            let mut db = unfilled(n);
            kernels::column_sum(f32s(&dy), n, &mut db);
            tensor(db, [n])
        });
        LinearGrads {
            x: dx,
            w: dw,
            bias: db,
        }
    }

    fn layer_norm_backward(
        dy: FlexTensor,
        x: FlexTensor,
        gamma: FlexTensor,
        eps: f32,
    ) -> [FlexTensor; 3] {
        let (dy, x, gamma) = (dy.to_contiguous(), x.to_contiguous(), gamma.to_contiguous());
        let [d] = dims(&gamma);
        let mut dx = unfilled(x.shape().num_elements());
        let (mut dgamma, mut dbeta) = (unfilled(d), unfilled(d));
        kernels::layer_norm_backward(
            f32s(&dy),
            f32s(&x),
            f32s(&gamma),
            eps,
            &mut dx,
            &mut dgamma,
            Some(&mut dbeta),
        );
        [
            tensor(dx, x.shape()),
            tensor(dgamma, [d]),
            tensor(dbeta, [d]),
        ]
    }

    fn self_attention_backward(
        dy: FlexTensor,
        qkv: FlexTensor,
        options: AttentionOptions,
    ) -> FlexTensor {
        let (dy, qkv) = (dy.to_contiguous(), qkv.to_contiguous());
        let [b, t, packed] = dims(&qkv);
        let d = packed / 3;
        let added = options.added(b, t, t);
        let mut dqkv = unfilled(b * t * packed);
        kernels::attention_backward_packed(
            precision(),
            options.shape(b, t, t, d),
            heads(f32s(&dy), t, d, 0, 1),
            f32s(&qkv),
            options.mask(added.as_deref(), t, t),
            options.key_lengths.as_deref(),
            options.scale,
            None,
            &mut dqkv,
        );
        tensor(dqkv, [b, t, packed])
    }

    fn cross_attention_backward(
        dy: FlexTensor,
        q: FlexTensor,
        kv: FlexTensor,
        options: AttentionOptions,
    ) -> [FlexTensor; 2] {
        let (dy, q, kv) = (dy.to_contiguous(), q.to_contiguous(), kv.to_contiguous());
        let [b, tq, d] = dims(&q);
        let [_, tk, _] = dims(&kv);
        let added = options.added(b, tq, tk);
        let (mut dq, mut dkv) = (unfilled(b * tq * d), unfilled(b * tk * 2 * d));
        kernels::attention_backward_packed_kv(
            precision(),
            options.shape(b, tq, tk, d),
            heads(f32s(&dy), tq, d, 0, 1),
            heads(f32s(&q), tq, d, 0, 1),
            f32s(&kv),
            options.mask(added.as_deref(), tq, tk),
            options.key_lengths.as_deref(),
            options.scale,
            None,
            HeadsMut {
                data: &mut dq,
                offset: 0,
                batch_stride: tq * d,
                row_stride: d,
            },
            &mut dkv,
        );
        [tensor(dq, [b, tq, d]), tensor(dkv, [b, tk, 2 * d])]
    }

    fn cross_entropy_backward(
        dlosses: FlexTensor,
        logits: FlexTensor,
        targets: FlexTensor,
        label_smoothing: f32,
    ) -> FlexTensor {
        let (dlosses, logits) = (dlosses.to_contiguous(), logits.to_contiguous());
        let mut dlogits = unfilled(logits.shape().num_elements());
        kernels::cross_entropy_backward(
            f32s(&dlosses),
            f32s(&logits),
            &ids(&targets),
            label_smoothing,
            &mut dlogits,
        );
        tensor(dlogits, logits.shape())
    }

    fn rows_backward(dy: FlexTensor, tokens: FlexTensor, table: Shape) -> FlexTensor {
        let dy = dy.to_contiguous();
        let mut dtable = vec![0f32; table.num_elements()];
        kernels::scatter_add_rows(f32s(&dy), table[1], &ids(&tokens), &mut dtable);
        tensor(dtable, table)
    }

    fn unfold_backward(dy: FlexTensor, window: Window, input: Shape) -> FlexTensor {
        let dy = dy.to_contiguous();
        let mut dx = unfilled(input.num_elements());
        let shape = window.over([input[0], input[1], input[2], input[3]]);
        kernels::fold(f32s(&dy), shape, &mut dx);
        tensor(dx, input)
    }

    fn patchify_backward(dy: FlexTensor, patch: usize, input: Shape) -> FlexTensor {
        let dy = dy.to_contiguous();
        let mut dx = unfilled(input.num_elements());
        kernels::unpatchify(
            f32s(&dy),
            [input[0], input[1], input[2], input[3]],
            patch,
            &mut dx,
        );
        tensor(dx, input)
    }
}
