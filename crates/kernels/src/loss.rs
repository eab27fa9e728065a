//! Cross-entropy over logits, and the softmax it rests on.

use crate::parallel;
use crate::simd::{Simd, math, simd_dispatch};

#[inline(always)]
fn row_maximum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut maximum = s.splat(f32::NEG_INFINITY);
    for x in x.chunks(S::LANES) {
        let v = s.keep_first(s.load(x), x.len(), f32::NEG_INFINITY);
        maximum = s.max(maximum, v);
    }
    s.maximum(maximum)
}

/// The sum of e^(x - maximum) over a row.
#[inline(always)]
fn exp_sum<S: Simd>(s: S, x: &[f32], maximum: f32) -> f32 {
    let mut sum = s.zero();
    for x in x.chunks(S::LANES) {
        let e = math::exp(s, s.sub(s.load(x), s.splat(maximum)));
        sum = s.add(sum, s.keep_first(e, x.len(), 0.0));
    }
    s.sum(sum)
}

#[inline(always)]
fn softmax_kernel<S: Simd>(s: S, x: &[f32], n: usize, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let maximum = s.splat(row_maximum(s, x));
        let mut sum = s.zero();
        for (x, out) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
            let e = math::exp(s, s.sub(s.load(x), maximum));
            sum = s.add(sum, s.keep_first(e, x.len(), 0.0));
            s.store(out, e);
        }
        let scale = s.splat(1.0 / s.sum(sum));
        for out in out.chunks_mut(S::LANES) {
            s.store(out, s.mul(s.load(out), scale));
        }
    }
}

#[inline(always)]
fn log_softmax_kernel<S: Simd>(s: S, x: &[f32], n: usize, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let maximum = row_maximum(s, x);
        let log_sum = exp_sum(s, x, maximum).ln();
        for (x, out) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
            let shifted = s.sub(s.load(x), s.splat(maximum));
            s.store(out, s.sub(shifted, s.splat(log_sum)));
        }
    }
}

#[inline(always)]
fn loss_kernel<S: Simd>(
    s: S,
    logits: &[f32],
    targets: &[i64],
    label_smoothing: f32,
    losses: &mut [f32],
) {
    let classes = logits.len() / targets.len();
    let rows = logits.chunks_exact(classes).zip(targets);
    for ((x, &target), loss) in rows.zip(losses) {
        *loss = 0.0;
        if target < 0 {
            continue;
        }
        let maximum = row_maximum(s, x);
        let log_sum = exp_sum(s, x, maximum).ln();
        let log_probability = |x: f32| (x - maximum) - log_sum;
        *loss = -(1.0 - label_smoothing) * log_probability(x[target as usize]);
        if label_smoothing != 0.0 {
            let mut sum = s.zero();
            for x in x.chunks(S::LANES) {
                let shifted = s.sub(s.load(x), s.splat(maximum));
                sum = s.add(sum, s.keep_first(shifted, x.len(), 0.0));
            }
            let mean = s.sum(sum) / classes as f32 - log_sum;
            *loss -= label_smoothing * mean;
        }
    }
}

#[inline(always)]
fn gradient_kernel<S: Simd>(
    s: S,
    dlosses: &[f32],
    logits: &[f32],
    targets: &[i64],
    label_smoothing: f32,
    dlogits: &mut [f32],
) {
    let classes = logits.len() / targets.len();
    let rows = logits.chunks_exact(classes).zip(targets).zip(dlosses);
    for (((x, &target), &dloss), dx) in rows.zip(dlogits.chunks_exact_mut(classes)) {
        if target < 0 {
            dx.fill(0.0);
            continue;
        }
        let maximum = s.splat(row_maximum(s, x));
        let mut sum = s.zero();
        for (x, dx) in x.chunks(S::LANES).zip(dx.chunks_mut(S::LANES)) {
            let e = math::exp(s, s.sub(s.load(x), maximum));
            sum = s.add(sum, s.keep_first(e, x.len(), 0.0));
            s.store(dx, e);
        }
        let scale = s.splat(dloss / s.sum(sum));
        let uniform = s.splat(dloss * label_smoothing / classes as f32);
        for dx in dx.chunks_mut(S::LANES) {
            s.store(dx, s.sub(s.mul(s.load(dx), scale), uniform));
        }
        dx[target as usize] -= dloss * (1.0 - label_smoothing);
    }
}

simd_dispatch! {
    fn softmax_chunk(x: &[f32], n: usize, out: &mut [f32]) = softmax_kernel;
}
simd_dispatch! {
    fn log_softmax_chunk(x: &[f32], n: usize, out: &mut [f32]) = log_softmax_kernel;
}
simd_dispatch! {
    fn loss_chunk(logits: &[f32], targets: &[i64], label_smoothing: f32, losses: &mut [f32])
        = loss_kernel;
}
simd_dispatch! {
    fn gradient_chunk(
        dlosses: &[f32], logits: &[f32], targets: &[i64], label_smoothing: f32,
        dlogits: &mut [f32],
    ) = gradient_kernel;
}

fn check_targets(logits: &[f32], targets: &[i64]) -> usize {
    assert_eq!(
        logits.len() % targets.len(),
        0,
        "cross-entropy: logits are not [rows, classes] for {} targets",
        targets.len()
    );
    let classes = logits.len() / targets.len();
    for (row, &target) in targets.iter().enumerate() {
        assert!(
            target < classes as i64,
            "cross-entropy: target {target} of row {row} is not below {classes} classes"
        );
    }
    classes
}

/// Per-row cross-entropy of `logits` `[m, v]` and `targets` `[m]` (negative: ignored, loss 0).
///
/// With label smoothing `s` the target distribution is `(1 - s) * one_hot + s / v`
/// (Szegedy et al. 2016), as in PyTorch's `cross_entropy(..., reduction="none")`.
pub fn cross_entropy(logits: &[f32], targets: &[i64], label_smoothing: f32, losses: &mut [f32]) {
    assert_eq!(
        targets.len(),
        losses.len(),
        "cross-entropy: targets and losses differ in length"
    );
    if targets.is_empty() {
        return;
    }
    let classes = check_targets(logits, targets);
    let rows = parallel::rows_per_task(classes);
    parallel::for_each_chunk(losses, rows, |i, losses| {
        let (at, count) = (i * rows, losses.len());
        loss_chunk(
            &logits[at * classes..][..count * classes],
            &targets[at..][..count],
            label_smoothing,
            losses,
        );
    });
}

/// Gradient of [`cross_entropy`] by the logits, given that by the losses.
pub fn cross_entropy_backward(
    dlosses: &[f32],
    logits: &[f32],
    targets: &[i64],
    label_smoothing: f32,
    dlogits: &mut [f32],
) {
    assert_eq!(
        targets.len(),
        dlosses.len(),
        "cross-entropy: targets and dlosses differ in length"
    );
    assert_eq!(
        logits.len(),
        dlogits.len(),
        "cross-entropy: logits and dlogits differ in length"
    );
    if targets.is_empty() {
        return;
    }
    let classes = check_targets(logits, targets);
    let rows = parallel::rows_per_task(classes);
    parallel::for_each_chunk(dlogits, rows * classes, |i, dlogits| {
        let (at, count) = (i * rows, dlogits.len() / classes);
        gradient_chunk(
            &dlosses[at..][..count],
            &logits[at * classes..][..count * classes],
            &targets[at..][..count],
            label_smoothing,
            dlogits,
        );
    });
}

fn in_row_chunks(x: &[f32], n: usize, out: &mut [f32], run: fn(&[f32], usize, &mut [f32])) {
    assert_eq!(x.len(), out.len(), "softmax: x and out differ in length");
    if x.is_empty() {
        return;
    }
    assert!(
        n > 0 && x.len().is_multiple_of(n),
        "softmax: x is not made of rows of {n}"
    );
    let chunk = parallel::rows_per_task(n) * n;
    parallel::for_each_chunk(out, chunk, |i, out| {
        run(&x[i * chunk..][..out.len()], n, out);
    });
}

/// Softmax of each row of `n` elements.
pub fn softmax_rows(x: &[f32], n: usize, out: &mut [f32]) {
    in_row_chunks(x, n, out, softmax_chunk);
}

/// Logarithm of the softmax of each row of `n` elements.
pub fn log_softmax_rows(x: &[f32], n: usize, out: &mut [f32]) {
    in_row_chunks(x, n, out, log_softmax_chunk);
}
