//! The same operations composed of Burn's own: the path of devices without our kernels, and the reference
//! of the fused path in tests. Shapes are those of the functions in [`super`].

use super::{
    Activation, AdamWStep, AttentionOptions, Roi, RoiAlignShape, RopeLayout, RopeOptions, Window,
};
use burn::tensor::{Int, Tensor, TensorData, activation as act};

pub(crate) fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    match activation {
        Activation::None => x,
        Activation::Relu => act::relu(x),
        Activation::Gelu => act::gelu(x),
        Activation::GeluTanh => {
            let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044715) * 0.797_884_560_8;
            x * (inner.tanh() + 1.0) * 0.5
        }
        Activation::QuickGelu => x.clone() * act::sigmoid(x * 1.702),
        Activation::Silu => x.clone() * act::sigmoid(x),
    }
}

/// See [`super::linear`].
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<D>>,
    activation: Activation,
) -> Tensor<D> {
    let [n, k] = weight.dims();
    let mut shape = x.dims();
    let m: usize = shape[..D - 1].iter().product();
    shape[D - 1] = n;
    let mut y = x.reshape([m, k]).matmul(weight.transpose()); // [M, N]
    if let Some(bias) = bias {
        y = y + bias.reshape([1, n]);
    }
    let y = activate(y, activation).reshape(shape); // [.., N]
    match residual {
        Some(residual) => y + residual,
        None => y,
    }
}

/// See [`super::layer_norm`].
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = centred.clone().powi_scalar(2).mean_dim(D - 1);
    centred / (variance + eps).sqrt() * gamma.unsqueeze() + beta.unsqueeze()
}

/// See [`super::batch_norm`].
pub fn batch_norm(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f32,
    relu: bool,
) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
    let mean = x.clone().mean_dim(0); // [1, C]
    let centred = x - mean.clone();
    let variance = centred.clone().powi_scalar(2).mean_dim(0);
    let scale = gamma.unsqueeze() / (variance.clone() + eps).sqrt();
    let y = centred * scale + beta.unsqueeze();
    let y = match relu {
        true => act::relu(y),
        false => y,
    };
    (
        y,
        mean.detach().squeeze_dim(0),
        variance.detach().squeeze_dim(0),
    )
}

/// See [`super::rms_norm`].
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, eps: f32) -> Tensor<D> {
    let mean_square = x.clone().powi_scalar(2).mean_dim(D - 1);
    x / (mean_square + eps).sqrt() * gamma.unsqueeze()
}

/// See [`super::rope`].
pub fn rope(x: Tensor<3>, options: RopeOptions) -> Tensor<3> {
    let ([b, t, d], rotation) = (x.dims(), &options.rotation);
    let (heads, pairs) = (options.heads, rotation.rotary_dim() / 2);
    let sequences = rotation.tokens() / t.max(1);
    let table = |values: &[f32]| {
        let data = TensorData::new(values.to_vec(), [sequences, t, 1, pairs]);
        Tensor::<4>::from_data(data, &x.device())
    };
    let (cos, sin) = (table(rotation.cos()), table(rotation.sin()));
    let head = d / heads;
    let x4 = x.clone().reshape([b, t, heads, head]);
    let rest = (head > 2 * pairs).then(|| x4.clone().narrow(3, 2 * pairs, head - 2 * pairs));
    // [B, T, H, 2, pairs] or [B, T, H, pairs, 2]
    let (shape, axis) = match options.layout {
        RopeLayout::Halves => ([b, t, heads, 2, pairs], 3),
        RopeLayout::Pairs => ([b, t, heads, pairs, 2], 4),
    };
    let turned: Tensor<5> = x4.narrow(3, 0, 2 * pairs).reshape(shape);
    let part = |i| {
        let part = turned.clone().narrow(axis, i, 1);
        part.reshape([b, t, heads, pairs])
    };
    let (first, second) = (part(0), part(1));
    let new_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let new_second = second * cos + first * sin;
    let new = Tensor::stack::<5>(vec![new_first, new_second], axis);
    let new: Tensor<4> = new.reshape([b, t, heads, 2 * pairs]);
    let parts = [Some(new), rest].into_iter().flatten().collect();
    Tensor::cat(parts, 3).reshape([b, t, d])
}

/// See [`super::gated`].
pub fn gated<const D: usize>(gate_up: Tensor<D>, activation: Activation) -> Tensor<D> {
    let width = gate_up.dims()[D - 1] / 2;
    let gate = gate_up.clone().narrow(D - 1, 0, width);
    activate(gate, activation) * gate_up.narrow(D - 1, width, width)
}

fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [b, t, d] = x.dims();
    x.reshape([b, t, heads, d / heads]).swap_dims(1, 2) // [B, H, T, D/H]
}

/// See [`super::self_attention`].
pub fn self_attention(qkv: Tensor<3>, options: AttentionOptions) -> Tensor<3> {
    let d = qkv.dims()[2] / 3;
    let q = qkv.clone().narrow(2, 0, d);
    cross_attention(q, qkv.narrow(2, d, 2 * d), options)
}

/// See [`super::cross_attention`].
pub fn cross_attention(q: Tensor<3>, kv: Tensor<3>, options: AttentionOptions) -> Tensor<3> {
    let ([b, tq, d], tk) = (q.dims(), kv.dims()[1]);
    let device = q.device();
    let k = split_heads(kv.clone().narrow(2, 0, d), options.heads);
    let v = split_heads(kv.narrow(2, d, d), options.heads);
    let q = split_heads(q, options.heads);
    let mut scores = q.matmul(k.transpose()) * options.scale; // [B, H, Tq, Tk]
    if options.causal || options.key_lengths.is_some() || options.key_mask.is_some() {
        let lengths = options.key_lengths.as_deref();
        let mut bias = vec![0f32; b * tq * tk];
        for (row, values) in bias.chunks_mut(tk).enumerate() {
            let (batch, i) = (row / tq, row % tq);
            let seen = if options.causal {
                i + options.past + 1
            } else {
                tk
            };
            let seen = seen.min(lengths.map_or(tk, |l| l[batch] as usize));
            values[seen.min(tk)..].fill(-1e30);
            if let Some(mask) = options.key_mask.as_deref() {
                // of each key, or of each pair of query and key
                let of = if mask.len() == b * tq * tk {
                    row
                } else {
                    batch
                };
                let hidden = mask[of * tk..][..tk].iter().map(|seen| !seen);
                for (value, _) in values.iter_mut().zip(hidden).filter(|(_, hidden)| *hidden) {
                    *value = -1e30;
                }
            }
        }
        let bias = Tensor::<1>::from_floats(bias.as_slice(), &device).reshape([b, 1, tq, tk]);
        scores = scores + bias;
    }
    act::softmax(scores, 3)
        .matmul(v) // [B, H, Tq, D/H]
        .swap_dims(1, 2)
        .reshape([b, tq, d])
}

/// See [`super::cross_entropy`].
pub fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    label_smoothing: f32,
) -> Tensor<1> {
    let [m, v] = logits.dims();
    let log_probs = act::log_softmax(logits, 1); // [M, V]
    let ignored = targets.clone().lower_elem(0);
    let index = targets.mask_fill(ignored.clone(), 0).reshape([m, 1]);
    let nll = log_probs.clone().gather(1, index).reshape([m]).neg();
    let uniform = log_probs.sum_dim(1).reshape([m]).neg() / v as f32;
    let losses = nll * (1.0 - label_smoothing) + uniform * label_smoothing;
    losses.mask_fill(ignored, 0.0)
}

/// See [`super::embedding`].
pub fn embedding(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    let ([b, t], d) = (ids.dims(), table.dims()[1]);
    table.select(0, ids.reshape([b * t])).reshape([b, t, d])
}

/// See [`super::unfold`].
pub fn unfold(x: Tensor<4>, window: Window) -> Tensor<4> {
    let [kh, kw] = window.kernel;
    let [sh, sw] = window.stride;
    let [ph, pw] = window.padding;
    let x = x.pad([(0, 0), (ph, ph), (pw, pw), (0, 0)], 0.0);
    let [b, h, w, c] = x.dims();
    let (oh, ow) = ((h - kh) / sh + 1, (w - kw) / sw + 1);
    let mut columns = Vec::with_capacity(kh * kw);
    for dy in 0..kh {
        for dx in 0..kw {
            let (end_y, end_x) = (dy + (oh - 1) * sh + 1, dx + (ow - 1) * sw + 1);
            columns.push(x.clone().slice(burn::tensor::s![
                0..b,
                dy..end_y;sh,
                dx..end_x;sw,
                0..c
            ])); // [B, OH, OW, C]
        }
    }
    Tensor::cat(columns, 3)
}

/// See [`super::conv2d`].
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<4>>,
    window: Window,
    groups: usize,
    activation: Activation,
) -> Tensor<4> {
    let (inputs, outputs) = (x.dims()[3] / groups, weight.dims()[0] / groups);
    let parts = (0..groups).map(|g| {
        let x = unfold(x.clone().narrow(3, g * inputs, inputs), window); // [B, OH, OW, K * K * C / G]
        let weight = weight.clone().narrow(0, g * outputs, outputs);
        let bias = bias.clone().map(|b| b.narrow(0, g * outputs, outputs));
        linear(x, weight, bias, None, activation)
    });
    let y = Tensor::cat(parts.collect(), 3); // [B, OH, OW, O]
    match residual {
        Some(residual) => y + residual,
        None => y,
    }
}

/// See [`super::roi_align`]: a sparse matrix, the same number of terms in every row, times the pixels.
pub fn roi_align(x: Tensor<4>, rois: &[Roi], shape: RoiAlignShape) -> Tensor<4> {
    let dims = x.dims();
    let [b, h, w, c] = dims;
    let device = x.device();
    let cells = vlm_kernels::roi_align_terms(dims, rois, shape);
    let most = cells.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let mut places = vec![0i64; cells.len() * most];
    let mut weights = vec![0f32; cells.len() * most];
    for (i, terms) in cells.iter().enumerate() {
        for (j, &(place, weight)) in terms.iter().enumerate() {
            places[i * most + j] = place as i64;
            weights[i * most + j] = weight;
        }
    }
    let n = cells.len();
    let output = [rois.len(), shape.output[0], shape.output[1], c];
    if n * c == 0 {
        return Tensor::zeros(output, &device);
    }
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [n * most]), &device);
    let weights = Tensor::<3>::from_data(TensorData::new(weights, [n, 1, most]), &device);
    let pixels = x.reshape([b * h * w, c]).select(0, places); // [N * terms, C]
    weights.matmul(pixels.reshape([n, most, c])).reshape(output)
}

/// See [`super::patchify`].
pub fn patchify(x: Tensor<4>, patch: usize) -> Tensor<3> {
    let [b, c, h, w] = x.dims();
    let (gh, gw) = (h / patch, w / patch);
    x.reshape([b, c, gh, patch, gw, patch])
        .permute([0, 2, 4, 1, 3, 5]) // [B, GH, GW, C, P, P]
        .reshape([b, gh * gw, c * patch * patch])
}

/// See [`super::adamw`].
pub fn adamw<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    m: Tensor<D>,
    v: Tensor<D>,
    step: AdamWStep,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let m = m * step.beta1 + grad.clone() * (1.0 - step.beta1);
    let v = v * step.beta2 + grad.powi_scalar(2) * (1.0 - step.beta2);
    let t = i32::try_from(step.step).unwrap_or(i32::MAX);
    let m_hat = m.clone() / (1.0 - step.beta1.powi(t));
    let v_hat = v.clone() / (1.0 - step.beta2.powi(t));
    let update = m_hat / (v_hat.sqrt() + step.eps) * step.lr;
    (param * (1.0 - step.lr * step.weight_decay) - update, m, v)
}
