//! Elementary functions on vectors.

use super::Simd;

/// e^x to 2e-7 relative. Below -87 the result is 0, above 88 it stays at e^88; NaN stays NaN.
///
/// Cody-Waite reduction to [-ln 2 / 2, ln 2 / 2] and the polynomial of Cephes `expf`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    const LOWEST: f32 = -87.0;
    const HIGHEST: f32 = 88.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const POLYNOMIAL: [f32; 6] = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    // The constant comes first so that a NaN in `x` passes through.
    let clamped = s.max(s.splat(LOWEST), s.min(s.splat(HIGHEST), x));
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    let r = s.neg_mul_add(n, s.splat(LN2_HIGH), clamped);
    let r = s.neg_mul_add(n, s.splat(LN2_LOW), r);
    let mut p = s.splat(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = s.mul_add(p, r, s.splat(*c));
    }
    let p = s.mul_add(s.mul(p, r), r, s.add(r, s.splat(1.0)));
    let y = s.scale_by_power_of_two(p, n);
    s.select_less(x, s.splat(LOWEST), s.zero(), y)
}

/// 1 / (1 + e^-x)
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.zero(), x))))
}

/// The standard normal distribution at `x`: (Phi(x), e^(-x^2 / 2)), Phi to 1.5e-7 absolute.
///
/// Abramowitz and Stegun 7.1.26 for erfc(|x| / sqrt 2).
#[inline(always)]
pub(crate) fn normal_cdf<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    const POLYNOMIAL: [f32; 5] = [
        1.061_405_4,
        -1.453_152,
        1.421_413_7,
        -0.284_496_74,
        0.254_829_6,
    ];
    let one = s.splat(1.0);
    let z = s.mul(s.abs(x), s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let density = exp(s, s.mul(s.mul(x, x), s.splat(-0.5)));
    let t = s.div(one, s.mul_add(z, s.splat(0.327_591_1), one));
    let mut p = s.splat(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = s.mul_add(p, t, s.splat(*c));
    }
    let tail = s.mul(s.mul(p, t), s.mul(density, s.splat(0.5)));
    let cdf = s.select_less(x, s.zero(), tail, s.sub(one, tail));
    (cdf, density)
}
