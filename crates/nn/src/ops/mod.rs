//! The hot operations of every model, fused where the device has our kernels.
//!
//! On the CPU (Burn's Flex backend) each function is one call into `vlm-kernels` with a hand-written
//! backward pass; on any other device the same function is composed of Burn operations, and autodiff comes
//! for free. Models call these functions and never ask which path they took.
//!
//! Legend: `B` batch, `T` tokens (`Tq` queries, `Tk` keys), `D` width, `K` inputs, `N` outputs, `V` vocabulary.

mod autodiff;
mod backend;
pub mod composed;
mod flex;
mod packed;
mod vision;

use backend::{Maybe, VlmOps};
use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::{Device, Int, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use vision::{BatchNormOptions, ConvOptions, RoiAlignOptions, VisionOps};

pub use backend::{AdamWStep, AttentionOptions, LinearOptions, RopeOptions, Window};
pub use packed::{PackedWeight, WeightFormat};
pub use vlm_kernels::{
    Activation, BoxExtent, Precision, Roi, RoiAlignShape, RopeLayout, Rotation, box_iou,
    inverse_frequencies, nms,
};

static PRECISION: AtomicU8 = AtomicU8::new(0);

/// Sets the arithmetic of matrix products in this process; sums, weights and everything else stay f32.
///
/// It is a property of the run, as the number of threads is, and not of a model. [`Precision::Bf16`] falls
/// back to f32 where the CPU has no such instructions.
pub fn set_precision(precision: Precision) {
    PRECISION.store(u8::from(precision == Precision::Bf16), Ordering::Relaxed);
}

/// The arithmetic that matrix products use now.
pub fn precision() -> Precision {
    if PRECISION.load(Ordering::Relaxed) == 1 {
        Precision::Bf16
    } else {
        Precision::F32
    }
}

static WEIGHTS: AtomicU8 = AtomicU8::new(0);

/// Sets how inference on the CPU keeps the weights of linear layers in this process; training, and devices without our
/// kernels, use floats whatever is set.
pub fn set_weight_format(format: WeightFormat) {
    let number = match format {
        WeightFormat::Float => 0,
        WeightFormat::Int8 => 1,
        WeightFormat::Int4 => 2,
    };
    WEIGHTS.store(number, Ordering::Relaxed);
}

/// How inference keeps the weights of linear layers now.
pub fn weight_format() -> WeightFormat {
    match WEIGHTS.load(Ordering::Relaxed) {
        1 => WeightFormat::Int8,
        2 => WeightFormat::Int4,
        _ => WeightFormat::Float,
    }
}

/// Whether `device` runs the fused operations.
fn fused(device: &Device) -> bool {
    matches!(
        device.clone().inner().as_dispatch(),
        DispatchDevice::Flex(_)
    )
}

fn maybe<const D: usize>(t: Option<Tensor<D>>) -> Maybe<Dispatch> {
    match t {
        Some(t) => Maybe::Some(t.into_dispatch()),
        None => Maybe::None,
    }
}

/// `activation(x w^T + bias) + residual`.
///
/// # Shapes
/// `x: [.., K]`, `weight: [N, K]` (as PyTorch stores it), `bias: [N]`, `residual: [.., N]`; gives `[.., N]`.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<D>>,
    activation: Activation,
) -> Tensor<D> {
    linear_with(x, weight, None, bias, residual, activation)
}

/// As [`linear`] with a weight that lasts: `packed` keeps what inference would otherwise prepare on every call.
///
/// # Shapes
/// As [`linear`].
pub fn linear_kept<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    packed: &PackedWeight,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<D>>,
    activation: Activation,
) -> Tensor<D> {
    linear_with(x, weight, Some(packed), bias, residual, activation)
}

fn linear_with<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    packed: Option<&PackedWeight>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<D>>,
    activation: Activation,
) -> Tensor<D> {
    check_linear(x.dims(), &weight, residual.as_ref());
    if !fused(&x.device()) {
        return composed::linear(x, weight, bias, residual, activation);
    }
    Tensor::from_dispatch(Dispatch::vlm_linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        maybe(bias),
        maybe(residual),
        linear_options(activation, packed),
    ))
}

fn linear_options(activation: Activation, packed: Option<&PackedWeight>) -> LinearOptions {
    LinearOptions {
        activation,
        precision: precision(),
        packed: packed.cloned(),
        weights: weight_format(),
    }
}

/// The shape of what a linear layer makes of `x`; panics where operands do not fit.
fn check_linear<const D: usize>(
    x: [usize; D],
    weight: &Tensor<2>,
    residual: Option<&Tensor<D>>,
) -> [usize; D] {
    let [n, k] = weight.dims();
    let found = x[D - 1];
    assert_eq!(found, k, "linear: expected input width {k}, found {found}");
    let mut y = x;
    y[D - 1] = n;
    if let Some(r) = residual {
        let found = r.dims();
        assert_eq!(found, y, "linear: residual and output differ in shape");
    }
    y
}

/// A linear layer of an [`mlp`]: `activation(x w^T + bias)`.
#[derive(Debug)]
pub struct MlpLayer<'a> {
    /// `[N, K]`
    pub weight: Tensor<2>,
    /// Keeps what inference prepares of the weight.
    pub packed: &'a PackedWeight,
    /// `[N]`
    pub bias: Option<Tensor<1>>,
    /// What follows.
    pub activation: Activation,
}

/// Two linear layers one after the other, and `residual` added: the same numbers as [`linear_kept`] twice. Inference on the
/// CPU keeps what is between them in the caches where that is faster.
///
/// # Shapes
/// `x: [.., K]`, weights `[H, K]` and `[N, H]`, `residual: [.., N]`; gives `[.., N]`.
pub fn mlp<const D: usize>(
    x: Tensor<D>,
    [first, second]: [MlpLayer; 2],
    residual: Option<Tensor<D>>,
) -> Tensor<D> {
    let hidden = check_linear(x.dims(), &first.weight, None);
    check_linear(hidden, &second.weight, residual.as_ref());
    if !fused(&x.device()) {
        let hidden = composed::linear(x, first.weight, first.bias, None, first.activation);
        let (weight, bias) = (second.weight, second.bias);
        return composed::linear(hidden, weight, bias, residual, second.activation);
    }
    let options = [&first, &second].map(|l| linear_options(l.activation, Some(l.packed)));
    Tensor::from_dispatch(Dispatch::vlm_mlp(
        x.into_dispatch(),
        first.weight.into_dispatch(),
        maybe(first.bias),
        second.weight.into_dispatch(),
        maybe(second.bias),
        maybe(residual),
        options,
    ))
}

/// LayerNorm over the last dimension (Ba et al., 2016), population variance.
///
/// # Shapes
/// `x: [.., D]`, `gamma, beta: [D]`; gives `[.., D]`.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
) -> Tensor<D> {
    if !fused(&x.device()) {
        return composed::layer_norm(x, gamma, beta, eps);
    }
    Tensor::from_dispatch(Dispatch::vlm_layer_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        eps,
    ))
}

/// Multi-head attention of a packed projection with itself.
///
/// # Shapes
/// `qkv: [B, T, 3D]`, queries first, then keys, then values; gives `[B, T, D]`.
pub fn self_attention(qkv: Tensor<3>, options: AttentionOptions) -> Tensor<3> {
    let width = qkv.dims()[2];
    assert_eq!(
        width % (3 * options.heads),
        0,
        "self-attention: packed width {width} is no multiple of 3 x {} heads",
        options.heads
    );
    if !fused(&qkv.device()) {
        return composed::self_attention(qkv, options);
    }
    Tensor::from_dispatch(Dispatch::vlm_self_attention(qkv.into_dispatch(), options))
}

/// Multi-head attention of `q` to packed keys and values.
///
/// # Shapes
/// `q: [B, Tq, D]`, `kv: [B, Tk, 2D]`, keys first; gives `[B, Tq, D]`.
pub fn cross_attention(q: Tensor<3>, kv: Tensor<3>, options: AttentionOptions) -> Tensor<3> {
    let ([b, _, d], [kb, _, kd]) = (q.dims(), kv.dims());
    assert_eq!(
        (b, 2 * d),
        (kb, kd),
        "cross-attention: queries and packed keys differ"
    );
    assert_eq!(
        d % options.heads,
        0,
        "cross-attention: width {d}, {} heads",
        options.heads
    );
    if !fused(&q.device()) {
        return composed::cross_attention(q, kv, options);
    }
    Tensor::from_dispatch(Dispatch::vlm_cross_attention(
        q.into_dispatch(),
        kv.into_dispatch(),
        options,
    ))
}

/// Cross-entropy of each row; a negative target is ignored and gives 0.
///
/// # Shapes
/// `logits: [M, V]`, `targets: [M]` in `0..V` or negative; gives `[M]`.
pub fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    label_smoothing: f32,
) -> Tensor<1> {
    if !fused(&logits.device()) {
        return composed::cross_entropy(logits, targets, label_smoothing);
    }
    Tensor::from_dispatch(Dispatch::vlm_cross_entropy(
        logits.into_dispatch(),
        targets.into_dispatch(),
        label_smoothing,
    ))
}

/// Rows of a table.
///
/// # Shapes
/// `table: [V, D]`, `ids: [B, T]` in `0..V`; gives `[B, T, D]`.
pub fn embedding(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    if !fused(&table.device()) {
        return composed::embedding(table, ids);
    }
    Tensor::from_dispatch(Dispatch::vlm_embedding(
        table.into_dispatch(),
        ids.into_dispatch(),
    ))
}

/// RMSNorm over the last dimension (Zhang & Sennrich, 2019): no mean is subtracted.
///
/// # Shapes
/// `x: [.., D]`, `gamma: [D]`; gives `[.., D]`.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, eps: f32) -> Tensor<D> {
    if !fused(&x.device()) {
        return composed::rms_norm(x, gamma, eps);
    }
    Tensor::from_dispatch(Dispatch::vlm_rms_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        eps,
    ))
}

/// Rotary position embedding (Su et al., 2021) of the heads of queries or keys.
///
/// # Shapes
/// `x: [B, T, D]`, heads side by side; `options.rotation` has `B * T` tokens or `T`; gives `[B, T, D]`.
pub fn rope(x: Tensor<3>, options: RopeOptions) -> Tensor<3> {
    let [b, t, d] = x.dims();
    assert_eq!(
        d % options.heads,
        0,
        "rope: width {d}, {} heads",
        options.heads
    );
    let (head, turned) = (d / options.heads, options.rotation.rotary_dim());
    assert!(
        turned <= head,
        "rope: {turned} rotary elements in heads of {head}"
    );
    let tokens = options.rotation.tokens();
    assert!(
        tokens == t || tokens == b * t,
        "rope: expected {t} or {b} x {t} positions, found {tokens}"
    );
    if !fused(&x.device()) {
        return composed::rope(x, options);
    }
    Tensor::from_dispatch(Dispatch::vlm_rope(x.into_dispatch(), options))
}

/// A gated activation (Shazeer, 2020): `activation(gate) * up` of a joint projection; with SiLU it is SwiGLU.
///
/// # Shapes
/// `gate_up: [.., 2 W]`, the gate first; gives `[.., W]`.
pub fn gated<const D: usize>(gate_up: Tensor<D>, activation: Activation) -> Tensor<D> {
    let width = gate_up.dims()[D - 1];
    assert_eq!(width % 2, 0, "gated: {width} columns are no two halves");
    if !fused(&gate_up.device()) {
        return composed::gated(gate_up, activation);
    }
    Tensor::from_dispatch(Dispatch::vlm_gated(gate_up.into_dispatch(), activation))
}

/// Sliding windows as rows (im2col), channels last: with [`linear`] this is a convolution.
///
/// # Shapes
/// `x: [B, H, W, C]`; gives `[B, OH, OW, KH * KW * C]`.
pub fn unfold(x: Tensor<4>, window: Window) -> Tensor<4> {
    if !fused(&x.device()) {
        return composed::unfold(x, window);
    }
    Tensor::from_dispatch(Dispatch::vlm_unfold(x.into_dispatch(), window))
}

/// Convolution in `groups` groups of channels, channels last: `activation(conv(x, weight) + bias) + residual`.
///
/// # Shapes
/// `x: [B, H, W, C]`, `weight: [O, KH * KW * C / groups]` with the channel last, `bias: [O]`, `residual: [B, OH, OW, O]`;
/// gives `[B, OH, OW, O]`.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<4>>,
    window: Window,
    groups: usize,
    activation: Activation,
) -> Tensor<4> {
    let ([_, _, _, c], [o, k]) = (x.dims(), weight.dims());
    assert!(
        groups > 0 && c.is_multiple_of(groups) && o.is_multiple_of(groups),
        "convolution: {c} channels to {o} are no {groups} groups"
    );
    assert_eq!(
        k,
        window.kernel[0] * window.kernel[1] * c / groups,
        "convolution: the weight does not fit {c} channels in {groups} groups"
    );
    if !fused(&x.device()) {
        return composed::conv2d(x, weight, bias, residual, window, groups, activation);
    }
    let options = ConvOptions {
        window,
        groups,
        activation,
        precision: precision(),
    };
    Tensor::from_dispatch(Dispatch::vlm_conv2d(
        x.into_dispatch(),
        weight.into_dispatch(),
        maybe(bias),
        maybe(residual),
        options,
    ))
}

/// RoIAlign (He et al., "Mask R-CNN", 2017): a grid of features for each box, each cell the mean of bilinear samples.
/// Differentiable by the features, not by the boxes.
///
/// # Shapes
/// `x: [B, H, W, C]`; gives `[R, PH, PW, C]` for `R` boxes.
pub fn roi_align(x: Tensor<4>, rois: &[Roi], shape: RoiAlignShape) -> Tensor<4> {
    if !fused(&x.device()) {
        return composed::roi_align(x, rois, shape);
    }
    let options = RoiAlignOptions {
        rois: Arc::from(rois),
        shape,
    };
    Tensor::from_dispatch(Dispatch::vlm_roi_align(x.into_dispatch(), options))
}

/// BatchNorm with the statistics of the batch (Ioffe & Szegedy, 2015), channels last, and perhaps ReLU behind it. Gives the
/// mean and the variance (of the population) of each channel as well, which no gradient reaches.
///
/// # Shapes
/// `x: [R, C]`, `gamma, beta: [C]`; gives `[R, C]` and `[C]` twice.
pub fn batch_norm(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
    relu: bool,
) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
    if !fused(&x.device()) {
        return composed::batch_norm(x, gamma, beta, eps, relu);
    }
    let (y, mean, variance) = Dispatch::vlm_batch_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        BatchNormOptions { eps, relu },
    );
    (
        Tensor::from_dispatch(y),
        Tensor::from_dispatch(mean),
        Tensor::from_dispatch(variance),
    )
}

/// Non-overlapping patches in the order of a flattened convolution weight: channel, row, column.
///
/// # Shapes
/// `x: [B, C, H, W]`, `patch` divides `H` and `W`; gives `[B, H/patch * W/patch, C * patch * patch]`.
pub fn patchify(x: Tensor<4>, patch: usize) -> Tensor<3> {
    let [_, _, h, w] = x.dims();
    assert!(
        patch > 0 && h % patch == 0 && w % patch == 0,
        "patchify: {h} x {w} pixels are not a whole number of {patch}-pixel patches"
    );
    if !fused(&x.device()) {
        return composed::patchify(x, patch);
    }
    Tensor::from_dispatch(Dispatch::vlm_patchify(x.into_dispatch(), patch))
}

/// One AdamW update (Loshchilov & Hutter, 2019), PyTorch's semantics. Tensors without a graph.
///
/// # Shapes
/// All of one shape; gives the new `(param, m, v)`.
pub fn adamw<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    m: Tensor<D>,
    v: Tensor<D>,
    step: AdamWStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    if !fused(&param.device()) {
        return composed::adamw(param, grad, m, v, step);
    }
    let (param, m, v) = Dispatch::vlm_adamw(
        param.into_dispatch(),
        grad.into_dispatch(),
        m.into_dispatch(),
        v.into_dispatch(),
        step,
    );
    (
        Tensor::from_dispatch(param),
        Tensor::from_dispatch(m),
        Tensor::from_dispatch(v),
    )
}
