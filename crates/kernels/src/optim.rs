//! AdamW (Loshchilov and Hutter 2019) and the gradient norm.

use crate::parallel;
use crate::simd::{Simd, simd_dispatch};
use rayon::prelude::*;

/// Settings of one AdamW step, with PyTorch's meaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the corrected second moment.
    pub eps: f32,
    /// Decoupled weight decay: the parameter shrinks by `lr * weight_decay`.
    pub weight_decay: f32,
    /// Number of this step, from 1.
    pub step: u64,
}

/// What a step multiplies by, worked out once.
#[derive(Clone, Copy)]
struct Factors {
    beta1: f32,
    beta2: f32,
    eps: f32,
    shrink: f32,
    step_size: f32,
    /// Reciprocal square root of the second moment's bias correction.
    root_correction: f32,
}

impl Factors {
    fn new(hp: AdamW) -> Self {
        assert!(hp.step >= 1, "AdamW: steps count from 1");
        let power = |beta: f32| f64::from(beta).powf(hp.step as f64);
        Self {
            beta1: hp.beta1,
            beta2: hp.beta2,
            eps: hp.eps,
            shrink: (1.0 - f64::from(hp.lr) * f64::from(hp.weight_decay)) as f32,
            step_size: (f64::from(hp.lr) / (1.0 - power(hp.beta1))) as f32,
            root_correction: (1.0 / (1.0 - power(hp.beta2)).sqrt()) as f32,
        }
    }
}

#[inline(always)]
fn adamw_kernel<S: Simd>(
    s: S,
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    f: Factors,
) {
    let (beta1, beta2) = (s.splat(f.beta1), s.splat(f.beta2));
    let (new1, new2) = (s.splat(1.0 - f.beta1), s.splat(1.0 - f.beta2));
    let (eps, shrink) = (s.splat(f.eps), s.splat(f.shrink));
    let (step_size, correction) = (s.splat(f.step_size), s.splat(f.root_correction));
    let state = m.chunks_mut(S::LANES).zip(v.chunks_mut(S::LANES));
    let param = param.chunks_mut(S::LANES);
    for ((p, g), (m, v)) in param.zip(grad.chunks(S::LANES)).zip(state) {
        let g = s.load(g);
        let first = s.mul_add(s.load(m), beta1, s.mul(g, new1));
        let second = s.mul_add(s.load(v), beta2, s.mul(s.mul(g, g), new2));
        let root = s.mul_add(s.sqrt(second), correction, eps);
        let update = s.mul(step_size, s.div(first, root));
        s.store(m, first);
        s.store(v, second);
        s.store(p, s.sub(s.mul(s.load(p), shrink), update));
    }
}

simd_dispatch! {
    fn adamw_chunk(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], f: Factors)
        = adamw_kernel;
}

/// One AdamW step in place: `m` and `v` are the moments, zero before the first step.
pub fn adamw(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], hp: AdamW) {
    let len = param.len();
    assert_eq!(len, grad.len(), "AdamW: param and grad differ in length");
    assert_eq!(len, m.len(), "AdamW: param and m differ in length");
    assert_eq!(len, v.len(), "AdamW: param and v differ in length");
    let factors = Factors::new(hp);
    let chunk = parallel::elements_per_task();
    if len <= chunk {
        return adamw_chunk(param, grad, m, v, factors);
    }
    param
        .par_chunks_mut(chunk)
        .zip(grad.par_chunks(chunk))
        .zip(m.par_chunks_mut(chunk))
        .zip(v.par_chunks_mut(chunk))
        .for_each(|(((p, g), m), v)| adamw_chunk(p, g, m, v, factors));
}

/// The compiler vectorises the fixed number of independent `f64` sums.
#[inline(always)]
fn square_sum_kernel<S: Simd>(_: S, x: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    let (blocks, rest) = x.as_chunks::<16>();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*x) * f64::from(*x);
    }
    sums.iter().sum()
}

simd_dispatch! {
    fn square_sum_chunk(x: &[f32]) -> f64 = square_sum_kernel;
}

/// The sum of the squares of `x`, in `f64`.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let chunk = 4 * parallel::elements_per_task();
    if x.len() <= chunk {
        return square_sum_chunk(x);
    }
    // Collected first and added in order: the same on every run.
    let partial: Vec<f64> = x.par_chunks(chunk).map(square_sum_chunk).collect();
    partial.iter().sum()
}
