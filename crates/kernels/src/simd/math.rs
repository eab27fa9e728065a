//! Elementary functions on vectors.

use super::Simd;

/// 2^(n - q) for integral `n` in -126..=127 and |q| <= 1/2, to 1e-7 relative.
///
/// The polynomial interpolates 2^-q, weighted by 2^q, at the Chebyshev nodes.
#[inline(always)]
fn power_of_two<S: Simd>(s: S, n: S::V, q: S::V) -> S::V {
    const POLYNOMIAL: [f32; 7] = [
        1.546_144_5e-4,
        -1.340_042_8e-3,
        9.618_057e-3,
        -5.550_327e-2,
        2.402_265e-1,
        -6.931_472e-1,
        1.0,
    ];
    let mut p = s.splat(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = s.mul_add(p, q, s.splat(*c));
    }
    s.scale_by_power_of_two(p, n)
}

/// e^x to 2e-7 relative, growing to 1e-6 at the ends (5e-6 without fused multiply-add). Below -87
/// the result is 0, above 88 it stays at e^88; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    const LOWEST: f32 = -87.0;
    const HIGHEST: f32 = 88.0;
    let log2_e = s.splat(std::f32::consts::LOG2_E);
    // The constant comes first so that a NaN in `x` passes through.
    let clamped = s.max(s.splat(LOWEST), s.min(s.splat(HIGHEST), x));
    let n = s.round(s.mul(clamped, log2_e));
    let y = power_of_two(s, n, s.neg_mul_add(clamped, log2_e, n));
    s.select_less(x, s.splat(LOWEST), s.zero(), y)
}

/// 2^t for t <= 0 (or barely above), as [`exp`]: 0 below -126, NaN stays NaN.
#[inline(always)]
pub(crate) fn exp2_nonpositive<S: Simd>(s: S, t: S::V) -> S::V {
    let lowest = s.splat(-126.0);
    let clamped = s.max(lowest, t);
    let n = s.round(clamped);
    let y = power_of_two(s, n, s.sub(n, clamped));
    s.select_less(t, lowest, s.zero(), y)
}

/// 1 / (1 + e^-x)
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.reciprocal(s.add(one, exp(s, s.sub(s.zero(), x))))
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
    // e^-80 is nothing beside 1, and its products below are no denormal numbers, which take twice the time.
    let exponent = s.max(s.splat(-80.0), s.mul(s.mul(x, x), s.splat(-0.5)));
    let density = exp(s, exponent);
    let t = s.reciprocal(s.mul_add(z, s.splat(0.327_591_1), one));
    let mut p = s.splat(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = s.mul_add(p, t, s.splat(*c));
    }
    let tail = s.mul(s.mul(p, t), s.mul(density, s.splat(0.5)));
    let cdf = s.select_less(x, s.zero(), tail, s.sub(one, tail));
    (cdf, density)
}
