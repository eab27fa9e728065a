//! Naive `f64` versions of every operation: what the fast kernels are tested against. Gradients are
//! here only where finite differences of the forward pass would be too slow.

use crate::activation::Activation;
use crate::attention::AttentionShape;
use crate::conv::ConvShape;
use crate::optim::AdamW;
use crate::rope::RopeLayout;

/// `f32` to `f64`, elementwise.
pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// `a[m, k] b[k, n]`, row-major.
pub fn matmul(a: &[f64], b: &[f64], m: usize, k: usize, n: usize) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for i in 0..m {
        for p in 0..k {
            for j in 0..n {
                out[i * n + j] += a[i * k + p] * b[p * n + j];
            }
        }
    }
    out
}

/// The transpose of `x` `[rows, cols]`.
pub fn transpose(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..rows * cols)
        .map(|at| x[at % rows * cols + at / rows])
        .collect()
}

/// `x[m, k] weight[n, k]^T + bias`.
pub fn linear(
    x: &[f64],
    weight: &[f64],
    bias: Option<&[f64]>,
    m: usize,
    k: usize,
    n: usize,
) -> Vec<f64> {
    let mut out = matmul(x, &transpose(weight, n, k), m, k, n);
    if let Some(bias) = bias {
        for (at, y) in out.iter_mut().enumerate() {
            *y += bias[at % n];
        }
    }
    out
}

/// Sums of the columns of rows of `n`.
pub fn column_sum(x: &[f64], n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n];
    for (at, x) in x.iter().enumerate() {
        out[at % n] += x;
    }
    out
}

/// The activation of one number.
pub fn activation(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Silu => x * sigmoid(x),
    }
}

/// Layer normalisation of rows of `gamma.len()`.
pub fn layer_norm(x: &[f64], gamma: &[f64], beta: Option<&[f64]>, eps: f64) -> Vec<f64> {
    let width = gamma.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (variance + eps).sqrt();
        out.extend(
            row.iter()
                .enumerate()
                .map(|(j, x)| (x - mean) * scale * gamma[j] + beta.map_or(0.0, |beta| beta[j])),
        );
    }
    out
}

/// Batch normalisation of the columns of rows of `gamma.len()`, by their own statistics, and perhaps ReLU.
pub fn batch_norm(x: &[f64], gamma: &[f64], beta: &[f64], eps: f64, relu: bool) -> Vec<f64> {
    let width = gamma.len();
    let rows = (x.len() / width) as f64;
    let mut out = vec![0.0; x.len()];
    for column in 0..width {
        let values = || x.iter().skip(column).step_by(width);
        let mean = values().sum::<f64>() / rows;
        let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / rows;
        for (out, x) in out.iter_mut().skip(column).step_by(width).zip(values()) {
            let y = (x - mean) / (variance + eps).sqrt() * gamma[column] + beta[column];
            *out = if relu { y.max(0.0) } else { y };
        }
    }
    out
}

/// Root-mean-square normalisation of rows of `gamma.len()`.
pub fn rms_norm(x: &[f64], gamma: &[f64], eps: f64) -> Vec<f64> {
    let width = gamma.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let square = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
        let scale = 1.0 / (square + eps).sqrt();
        out.extend(row.iter().zip(gamma).map(|(x, gamma)| x * scale * gamma));
    }
    out
}

/// Softmax of rows of `n`; a row of minus infinities gives zeros.
pub fn softmax_rows(x: &[f64], n: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(n) {
        let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if maximum == f64::NEG_INFINITY {
            out.extend(row.iter().map(|_| 0.0));
            continue;
        }
        let sum: f64 = row.iter().map(|x| (x - maximum).exp()).sum();
        out.extend(row.iter().map(|x| (x - maximum).exp() / sum));
    }
    out
}

/// Logarithm of the softmax of rows of `n`.
pub fn log_softmax_rows(x: &[f64], n: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(n) {
        let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - maximum).exp()).sum();
        out.extend(row.iter().map(|x| x - maximum - sum.ln()));
    }
    out
}

/// Per-row cross-entropy; negative targets give 0.
pub fn cross_entropy(logits: &[f64], targets: &[i64], label_smoothing: f64) -> Vec<f64> {
    let classes = logits.len() / targets.len();
    let log_p = log_softmax_rows(logits, classes);
    let rows = log_p.chunks_exact(classes).zip(targets);
    rows.map(|(log_p, &target)| {
        if target < 0 {
            return 0.0;
        }
        let mean = log_p.iter().sum::<f64>() / classes as f64;
        -(1.0 - label_smoothing) * log_p[target as usize] - label_smoothing * mean
    })
    .collect()
}

/// One AdamW step as PyTorch documents it: the new parameter and moments.
pub fn adamw(param: f64, grad: f64, m: f64, v: f64, hp: AdamW) -> [f64; 3] {
    let [lr, beta1, beta2] = [hp.lr, hp.beta1, hp.beta2].map(f64::from);
    let decayed = param - lr * f64::from(hp.weight_decay) * param;
    let m = beta1 * m + (1.0 - beta1) * grad;
    let v = beta2 * v + (1.0 - beta2) * grad * grad;
    let m_hat = m / (1.0 - beta1.powf(hp.step as f64));
    let v_hat = v / (1.0 - beta2.powf(hp.step as f64));
    [
        decayed - lr * m_hat / (v_hat.sqrt() + f64::from(hp.eps)),
        m,
        v,
    ]
}

/// The mask of [`attention`]: the value added to the score of `(b, h, query, key)`.
pub type AddedScore<'a> = dyn Fn(usize, usize, usize, usize) -> f64 + 'a;

/// Probabilities `[batch, heads, q_len, k_len]`.
fn probabilities(
    s: AttentionShape,
    q: &[f64],
    k: &[f64],
    added: &AddedScore,
    scale: f64,
) -> Vec<f64> {
    let group = s.heads / s.kv_heads;
    let mut scores = Vec::new();
    for b in 0..s.batch {
        for h in 0..s.heads {
            for i in 0..s.q_len {
                for j in 0..s.k_len {
                    let q = &q[((b * s.q_len + i) * s.heads + h) * s.head_dim..][..s.head_dim];
                    let k = &k[((b * s.k_len + j) * s.kv_heads + h / group) * s.head_dim..];
                    let dot: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                    scores.push(dot * scale + added(b, h, i, j));
                }
            }
        }
    }
    softmax_rows(&scores, s.k_len)
}

/// Attention on contiguous `[batch, len, heads, head_dim]`; hide a key by adding minus infinity.
pub fn attention(
    s: AttentionShape,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    added: &AddedScore,
    scale: f64,
) -> Vec<f64> {
    let group = s.heads / s.kv_heads;
    let p = probabilities(s, q, k, added, scale);
    let mut out = vec![0.0; s.batch * s.q_len * s.heads * s.head_dim];
    for (at, p) in p.iter().enumerate() {
        let (row, j) = (at / s.k_len, at % s.k_len);
        let (b, h, i) = (
            row / s.q_len / s.heads,
            row / s.q_len % s.heads,
            row % s.q_len,
        );
        for d in 0..s.head_dim {
            out[((b * s.q_len + i) * s.heads + h) * s.head_dim + d] +=
                p * v[((b * s.k_len + j) * s.kv_heads + h / group) * s.head_dim + d];
        }
    }
    out
}

/// Gradients of [`attention`] by `q`, `k` and `v`.
pub fn attention_backward(
    s: AttentionShape,
    dout: &[f64],
    q: &[f64],
    k: &[f64],
    v: &[f64],
    added: &AddedScore,
    scale: f64,
) -> [Vec<f64>; 3] {
    let group = s.heads / s.kv_heads;
    let p = probabilities(s, q, k, added, scale);
    let mut dq = vec![0.0; q.len()];
    let mut dk = vec![0.0; k.len()];
    let mut dv = vec![0.0; v.len()];
    for (row, p) in p.chunks_exact(s.k_len).enumerate() {
        let (b, h, i) = (
            row / s.q_len / s.heads,
            row / s.q_len % s.heads,
            row % s.q_len,
        );
        let query = ((b * s.q_len + i) * s.heads + h) * s.head_dim;
        let key = |j: usize| ((b * s.k_len + j) * s.kv_heads + h / group) * s.head_dim;
        let dp: Vec<f64> = (0..s.k_len)
            .map(|j| {
                (0..s.head_dim)
                    .map(|d| dout[query + d] * v[key(j) + d])
                    .sum()
            })
            .collect();
        let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        for j in 0..s.k_len {
            let ds = p[j] * (dp[j] - mean) * scale;
            for d in 0..s.head_dim {
                dq[query + d] += ds * k[key(j) + d];
                dk[key(j) + d] += ds * q[query + d];
                dv[key(j) + d] += p[j] * dout[query + d];
            }
        }
    }
    [dq, dk, dv]
}

/// Rotary embedding of one head whose first `2 * angles.len()` elements form pairs.
pub fn rope(x: &[f64], layout: RopeLayout, angles: &[f64]) -> Vec<f64> {
    let mut out = x.to_vec();
    for (j, angle) in angles.iter().enumerate() {
        let [a, b] = match layout {
            RopeLayout::Halves => [j, j + angles.len()],
            RopeLayout::Pairs => [2 * j, 2 * j + 1],
        };
        out[a] = x[a] * angle.cos() - x[b] * angle.sin();
        out[b] = x[b] * angle.cos() + x[a] * angle.sin();
    }
    out
}

/// A convolution by definition: `x` `[B, H, W, C]`, `weight` `[outputs, KH, KW, C]`; gives `[B, OH, OW, outputs]`.
pub fn conv2d(x: &[f64], weight: &[f64], outputs: usize, s: ConvShape) -> Vec<f64> {
    let window = s.kernel[0] * s.kernel[1] * s.channels;
    let mut out = Vec::new();
    for indices in unfold_indices(s).chunks_exact(window.max(1)) {
        for o in 0..outputs {
            let weight = &weight[o * window..][..window];
            let seen = indices.iter().zip(weight);
            out.push(seen.map(|(i, w)| i.map_or(0.0, |i| x[i] * w)).sum());
        }
    }
    out
}

/// The gradients of [`conv2d`] by `x` and `weight`.
pub fn conv2d_backward(
    dy: &[f64],
    x: &[f64],
    weight: &[f64],
    outputs: usize,
    s: ConvShape,
) -> [Vec<f64>; 2] {
    let window = s.kernel[0] * s.kernel[1] * s.channels;
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
    for (row, indices) in unfold_indices(s).chunks_exact(window.max(1)).enumerate() {
        for o in 0..outputs {
            let dy = dy[row * outputs + o];
            for (j, index) in indices.iter().enumerate() {
                if let Some(index) = *index {
                    dx[index] += dy * weight[o * window + j];
                    dw[o * window + j] += dy * x[index];
                }
            }
        }
    }
    [dx, dw]
}

/// The index into `[B, H, W, C]` of every element of `unfold`'s output, `None` outside the picture.
pub fn unfold_indices(s: ConvShape) -> Vec<Option<usize>> {
    let mut out = Vec::new();
    for b in 0..s.batch {
        for oy in 0..s.out_height() {
            for ox in 0..s.out_width() {
                for ky in 0..s.kernel[0] {
                    for kx in 0..s.kernel[1] {
                        for c in 0..s.channels {
                            let y = (oy * s.stride[0] + ky).checked_sub(s.padding[0]);
                            let x = (ox * s.stride[1] + kx).checked_sub(s.padding[1]);
                            let inside = y.zip(x).filter(|&(y, x)| y < s.height && x < s.width);
                            out.push(
                                inside.map(|(y, x)| {
                                    ((b * s.height + y) * s.width + x) * s.channels + c
                                }),
                            );
                        }
                    }
                }
            }
        }
    }
    out
}

/// The dense weight `[O, KH * KW * C]` that does what one in groups does, `[O, KH * KW * C / G]`: zero between groups.
pub fn ungrouped(weight: &[f64], outputs: usize, channels: usize, groups: usize) -> Vec<f64> {
    let (inside, each) = (channels / groups, outputs / groups);
    let window = weight.len() / outputs;
    let mut dense = vec![0.0; outputs * window * groups];
    for (i, &w) in weight.iter().enumerate() {
        let (o, at) = (i / window, i % window);
        let channel = o / each * inside + at % inside;
        dense[(o * window / inside + at / inside) * channels + channel] = w;
    }
    dense
}

/// RoIAlign by its definition: the mean of bilinear samples, each of which is 0 more than a cell outside the features.
/// `x` `[H, W]` is one channel of one picture; gives `output` cells of one box.
pub fn roi_align(
    x: &[f64],
    [height, width]: [usize; 2],
    corners: [f64; 4],
    s: crate::RoiAlignShape,
) -> Vec<f64> {
    let at = |y: f64, x_: f64| {
        if y < -1.0 || y > height as f64 || x_ < -1.0 || x_ > width as f64 {
            return 0.0;
        }
        // beyond the outermost centres the value stays
        let y = y.clamp(0.0, height as f64 - 1.0);
        let x_ = x_.clamp(0.0, width as f64 - 1.0);
        let mut sum = 0.0;
        // all others are further than one away
        let two = |place: f64, extent: usize| place as usize..(place as usize + 2).min(extent);
        for row in two(y, height) {
            for column in two(x_, width) {
                let near = |a: f64, b: usize| (1.0 - (a - b as f64).abs()).max(0.0);
                sum += near(y, row) * near(x_, column) * x[row * width + column];
            }
        }
        sum
    };
    let offset = if s.aligned { 0.5 } else { 0.0 };
    let [x1, y1, x2, y2] = corners.map(|c| c * f64::from(s.scale) - offset);
    let least = if s.aligned { f64::NEG_INFINITY } else { 1.0 };
    let cell = [(y2 - y1).max(least), (x2 - x1).max(least)];
    let cell = [cell[0] / s.output[0] as f64, cell[1] / s.output[1] as f64];
    let samples = cell.map(|c| match s.sampling_ratio {
        0 => c.ceil().max(0.0) as usize,
        n => n,
    });
    let mut out = Vec::new();
    for ph in 0..s.output[0] {
        for pw in 0..s.output[1] {
            let mut sum = 0.0;
            for i in 0..samples[0] {
                for j in 0..samples[1] {
                    let y = y1 + cell[0] * (ph as f64 + (i as f64 + 0.5) / samples[0] as f64);
                    let x_ = x1 + cell[1] * (pw as f64 + (j as f64 + 0.5) / samples[1] as f64);
                    sum += at(y, x_);
                }
            }
            out.push(sum / (samples[0] * samples[1]).max(1) as f64);
        }
    }
    out
}

/// Non-maximum suppression by its definition: a box is kept if no kept box of higher score overlaps it by more than the
/// threshold. Gives the kept boxes in the order of their scores.
pub fn nms(boxes: &[[f64; 4]], scores: &[f64], threshold: f64, added: f64) -> Vec<usize> {
    let side = |from: f64, to: f64| (to - from + added).max(0.0);
    let area = |b: [f64; 4]| side(b[0], b[2]) * side(b[1], b[3]);
    let overlap = |a: [f64; 4], b: [f64; 4]| {
        let both = [
            a[0].max(b[0]),
            a[1].max(b[1]),
            a[2].min(b[2]),
            a[3].min(b[3]),
        ];
        area(both) / (area(a) + area(b) - area(both))
    };
    let mut left: Vec<usize> = (0..boxes.len()).collect();
    let mut kept = Vec::new();
    while !left.is_empty() {
        let best = left
            .iter()
            .copied()
            .reduce(|a, b| if scores[b] > scores[a] { b } else { a })
            .expect("not empty");
        kept.push(best);
        left.retain(|&i| i != best && overlap(boxes[best], boxes[i]) <= threshold);
    }
    kept
}

/// The index into `[B, C, H, W]` of every element of `patchify`'s output.
pub fn patch_indices([batch, channels, height, width]: [usize; 4], patch: usize) -> Vec<usize> {
    let mut out = Vec::new();
    for b in 0..batch {
        for gy in 0..height / patch {
            for gx in 0..width / patch {
                for c in 0..channels {
                    for py in 0..patch {
                        for px in 0..patch {
                            let (y, x) = (gy * patch + py, gx * patch + px);
                            out.push(((b * channels + c) * height + y) * width + x);
                        }
                    }
                }
            }
        }
    }
    out
}

/// `x`, rows of `cols`, rounded to 8 bits in blocks of `block` (the last of a row may be shorter):
/// the nearest multiples of `max |x| / 127`, computed as products with quantized weights define it.
pub fn round_to_int8(x: &[f32], cols: usize, block: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks(cols.max(1)) {
        for x in row.chunks(block) {
            let largest = x.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let (scale, inverse) = if largest == 0.0 {
                (0.0, 0.0)
            } else {
                (largest / 127.0, 127.0 / largest)
            };
            out.extend(x.iter().map(|x| {
                let code = (x * inverse).round_ties_even();
                f64::from(code) * f64::from(scale)
            }));
        }
    }
    out
}
