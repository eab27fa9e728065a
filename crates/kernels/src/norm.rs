//! Layer normalisation (Ba et al. 2016) and root-mean-square normalisation (Zhang and Sennrich 2019).
//!
//! Rows have the width of `gamma`. Backward passes recompute the statistics from `x`.

use crate::parallel;
use crate::simd::{Simd, simd_dispatch};

/// The mean (0 for RMS normalisation) of a row and the reciprocal of its standard deviation.
#[inline(always)]
fn statistics<S: Simd, const CENTRE: bool>(s: S, x: &[f32], eps: f32) -> (f32, f32) {
    let width = x.len() as f32;
    let mean = if CENTRE {
        let mut sum = s.zero();
        for x in x.chunks(S::LANES) {
            sum = s.add(sum, s.load(x));
        }
        s.sum(sum) / width
    } else {
        0.0
    };
    let mut squares = s.zero();
    for x in x.chunks(S::LANES) {
        // Lanes beyond the row must not contribute (0 - mean)^2.
        let centred = s.keep_first(s.sub(s.load(x), s.splat(mean)), x.len(), 0.0);
        squares = s.mul_add(centred, centred, squares);
    }
    (mean, 1.0 / (s.sum(squares) / width + eps).sqrt())
}

#[inline(always)]
fn forward_kernel<S: Simd, const CENTRE: bool>(
    s: S,
    x: &[f32],
    gamma: &[f32],
    beta: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    let width = gamma.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let (mean, scale) = statistics::<S, CENTRE>(s, x, eps);
        let (mean, scale) = (s.splat(mean), s.splat(scale));
        let rows = x.chunks(S::LANES).zip(gamma.chunks(S::LANES));
        match beta {
            Some(beta) => {
                let rows = rows.zip(beta.chunks(S::LANES));
                for (((x, gamma), beta), out) in rows.zip(out.chunks_mut(S::LANES)) {
                    let normal = s.mul(s.sub(s.load(x), mean), scale);
                    s.store(out, s.mul_add(normal, s.load(gamma), s.load(beta)));
                }
            }
            None => {
                for ((x, gamma), out) in rows.zip(out.chunks_mut(S::LANES)) {
                    let normal = s.mul(s.sub(s.load(x), mean), scale);
                    s.store(out, s.mul(normal, s.load(gamma)));
                }
            }
        }
    }
}

/// Writes `dx` and adds to `sums`: dgamma, then (with `CENTRE`) dbeta.
#[inline(always)]
fn backward_kernel<S: Simd, const CENTRE: bool>(
    s: S,
    dy: &[f32],
    x: &[f32],
    gamma: &[f32],
    eps: f32,
    dx: &mut [f32],
    sums: &mut [f32],
) {
    let width = gamma.len();
    let (dgamma, dbeta) = sums.split_at_mut(width);
    let rows = dy.chunks_exact(width).zip(x.chunks_exact(width));
    for ((dy, x), dx) in rows.zip(dx.chunks_exact_mut(width)) {
        let (mean, scale) = statistics::<S, CENTRE>(s, x, eps);
        let (mean, scale) = (s.splat(mean), s.splat(scale));
        let mut sum = s.zero();
        let mut sum_normal = s.zero();
        for at in (0..width).step_by(S::LANES) {
            let dy = s.load(&dy[at..]);
            let normal = s.mul(s.sub(s.load(&x[at..]), mean), scale);
            let weighted = s.mul(dy, s.load(&gamma[at..]));
            // Lanes beyond the row have dy = 0 and gamma = 0.
            sum = s.add(sum, weighted);
            sum_normal = s.mul_add(weighted, normal, sum_normal);
            let dgamma = &mut dgamma[at..];
            s.store(dgamma, s.mul_add(dy, normal, s.load(dgamma)));
            if CENTRE {
                let dbeta = &mut dbeta[at..];
                s.store(dbeta, s.add(dy, s.load(dbeta)));
            }
        }
        let mean_weighted = s.splat(if CENTRE {
            s.sum(sum) / width as f32
        } else {
            0.0
        });
        let mean_normal = s.splat(s.sum(sum_normal) / width as f32);
        for at in (0..width).step_by(S::LANES) {
            let normal = s.mul(s.sub(s.load(&x[at..]), mean), scale);
            let weighted = s.mul(s.load(&dy[at..]), s.load(&gamma[at..]));
            let centred = s.sub(weighted, mean_weighted);
            let d = s.mul(scale, s.neg_mul_add(normal, mean_normal, centred));
            s.store(&mut dx[at..], d);
        }
    }
}

simd_dispatch! {
    fn layer_forward(x: &[f32], gamma: &[f32], beta: Option<&[f32]>, eps: f32, out: &mut [f32])
        = forward_kernel::<_, true>;
}
simd_dispatch! {
    fn rms_forward(x: &[f32], gamma: &[f32], beta: Option<&[f32]>, eps: f32, out: &mut [f32])
        = forward_kernel::<_, false>;
}
simd_dispatch! {
    fn layer_backward(
        dy: &[f32], x: &[f32], gamma: &[f32], eps: f32, dx: &mut [f32], sums: &mut [f32],
    ) = backward_kernel::<_, true>;
}
simd_dispatch! {
    fn rms_backward(
        dy: &[f32], x: &[f32], gamma: &[f32], eps: f32, dx: &mut [f32], sums: &mut [f32],
    ) = backward_kernel::<_, false>;
}

fn check_rows(x: &[f32], width: usize, other: usize) {
    assert!(width > 0, "norm: gamma is empty");
    assert_eq!(
        x.len() % width,
        0,
        "norm: x is not made of rows of gamma's width"
    );
    assert_eq!(x.len(), other, "norm: input and output differ in length");
}

/// `out = (x - mean) / sqrt(variance + eps) * gamma + beta` for each row of `gamma.len()` elements.
pub fn layer_norm(x: &[f32], gamma: &[f32], beta: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let width = gamma.len();
    check_rows(x, width, out.len());
    assert!(
        beta.is_none_or(|b| b.len() == width),
        "norm: beta and gamma differ in length"
    );
    let chunk = parallel::rows_per_task(width) * width;
    parallel::for_each_chunk(out, chunk, |i, out| {
        layer_forward(&x[i * chunk..][..out.len()], gamma, beta, eps, out);
    });
}

/// `out = x / sqrt(mean(x^2) + eps) * gamma` for each row of `gamma.len()` elements.
pub fn rms_norm(x: &[f32], gamma: &[f32], eps: f32, out: &mut [f32]) {
    let width = gamma.len();
    check_rows(x, width, out.len());
    let chunk = parallel::rows_per_task(width) * width;
    parallel::for_each_chunk(out, chunk, |i, out| {
        rms_forward(&x[i * chunk..][..out.len()], gamma, None, eps, out);
    });
}

/// Runs `backward(dy, x, dx, sums)` over chunks of rows and returns the sums of all chunks, added
/// in the chunks' order.
fn backward_in_chunks(
    dy: &[f32],
    x: &[f32],
    width: usize,
    sums_width: usize,
    dx: &mut [f32],
    backward: impl Fn(&[f32], &[f32], &mut [f32], &mut [f32]) + Sync + Send,
) -> Vec<f32> {
    let chunk = parallel::rows_per_task(width).max(16) * width;
    let chunks = x.len().div_ceil(chunk).max(1);
    let mut partial = vec![0.0; chunks * sums_width];
    parallel::for_each_chunk2((dx, chunk), (&mut partial, sums_width), |i, dx, sums| {
        let at = i * chunk;
        backward(&dy[at..][..dx.len()], &x[at..][..dx.len()], dx, sums);
    });
    let (total, rest) = partial.split_at_mut(sums_width);
    for sums in rest.chunks_exact(sums_width) {
        for (t, s) in total.iter_mut().zip(sums) {
            *t += s;
        }
    }
    partial.truncate(sums_width);
    partial
}

/// Gradients of [`layer_norm`]; all outputs are overwritten.
pub fn layer_norm_backward(
    dy: &[f32],
    x: &[f32],
    gamma: &[f32],
    eps: f32,
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: Option<&mut [f32]>,
) {
    let width = gamma.len();
    check_rows(x, width, dy.len());
    check_rows(x, width, dx.len());
    let sums = backward_in_chunks(dy, x, width, 2 * width, dx, |dy, x, dx, sums| {
        layer_backward(dy, x, gamma, eps, dx, sums);
    });
    dgamma.copy_from_slice(&sums[..width]);
    if let Some(dbeta) = dbeta {
        dbeta.copy_from_slice(&sums[width..]);
    }
}

/// Gradients of [`rms_norm`]; all outputs are overwritten.
pub fn rms_norm_backward(
    dy: &[f32],
    x: &[f32],
    gamma: &[f32],
    eps: f32,
    dx: &mut [f32],
    dgamma: &mut [f32],
) {
    let width = gamma.len();
    check_rows(x, width, dy.len());
    check_rows(x, width, dx.len());
    let sums = backward_in_chunks(dy, x, width, width, dx, |dy, x, dx, sums| {
        rms_backward(dy, x, gamma, eps, dx, sums);
    });
    dgamma.copy_from_slice(&sums);
}
