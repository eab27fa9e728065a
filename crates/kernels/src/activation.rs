//! Activation functions and their derivatives.

use crate::gemm::column_sum;
use crate::parallel;
use crate::simd::{Simd, math, simd_dispatch};

/// An elementwise nonlinearity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// x
    None,
    /// max(x, 0)
    Relu,
    /// x Phi(x), through the error function (Hendrycks and Gimpel 2016), to 1e-6 absolute
    Gelu,
    /// The tanh approximation of GELU: x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))
    GeluTanh,
    /// x sigmoid(1.702 x), as in OpenAI's CLIP
    QuickGelu,
    /// x sigmoid(x), also called swish
    Silu,
}

/// An activation as a type, so that the choice is made once and not per vector.
pub(crate) trait Function {
    fn value<S: Simd>(s: S, x: S::V) -> S::V;
    fn derivative<S: Simd>(s: S, x: S::V) -> S::V;
}

pub(crate) struct Identity;
pub(crate) struct Relu;
pub(crate) struct Gelu;
pub(crate) struct GeluTanh;
/// x sigmoid(SCALE x)
pub(crate) struct Gated<const QUICK: bool>;

const QUICK_GELU_SCALE: f32 = 1.702;

impl Function for Identity {
    #[inline(always)]
    fn value<S: Simd>(_: S, x: S::V) -> S::V {
        x
    }
    #[inline(always)]
    fn derivative<S: Simd>(s: S, _: S::V) -> S::V {
        s.splat(1.0)
    }
}

impl Function for Relu {
    #[inline(always)]
    fn value<S: Simd>(s: S, x: S::V) -> S::V {
        s.max(s.zero(), x)
    }
    #[inline(always)]
    fn derivative<S: Simd>(s: S, x: S::V) -> S::V {
        s.select_less(s.zero(), x, s.splat(1.0), s.zero())
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn value<S: Simd>(s: S, x: S::V) -> S::V {
        s.mul(x, math::normal_cdf(s, x).0)
    }
    #[inline(always)]
    fn derivative<S: Simd>(s: S, x: S::V) -> S::V {
        const INV_SQRT_2PI: f32 = 0.398_942_3;
        let (cdf, density) = math::normal_cdf(s, x);
        s.mul_add(s.mul(x, density), s.splat(INV_SQRT_2PI), cdf)
    }
}

/// 2 sqrt(2 / pi)
const TANH_SCALE: f32 = 1.595_769;
const TANH_CUBIC: f32 = 0.044_715;

impl Function for GeluTanh {
    #[inline(always)]
    fn value<S: Simd>(s: S, x: S::V) -> S::V {
        let inner = s.mul_add(s.mul(x, x), s.splat(TANH_CUBIC), s.splat(1.0));
        let u = s.mul(s.mul(x, s.splat(TANH_SCALE)), inner);
        s.mul(x, math::sigmoid(s, u))
    }
    #[inline(always)]
    fn derivative<S: Simd>(s: S, x: S::V) -> S::V {
        let one = s.splat(1.0);
        let square = s.mul(x, x);
        let inner = s.mul_add(square, s.splat(TANH_CUBIC), one);
        let x_scaled = s.mul(x, s.splat(TANH_SCALE));
        let g = math::sigmoid(s, s.mul(x_scaled, inner));
        let slope = s.mul_add(square, s.splat(3.0 * TANH_CUBIC), one);
        let curve = s.mul(s.mul(g, s.sub(one, g)), s.mul(x_scaled, slope));
        s.add(g, curve)
    }
}

impl<const QUICK: bool> Gated<QUICK> {
    const SCALE: f32 = if QUICK { QUICK_GELU_SCALE } else { 1.0 };
}

impl<const QUICK: bool> Function for Gated<QUICK> {
    #[inline(always)]
    fn value<S: Simd>(s: S, x: S::V) -> S::V {
        s.mul(x, math::sigmoid(s, s.mul(x, s.splat(Self::SCALE))))
    }
    #[inline(always)]
    fn derivative<S: Simd>(s: S, x: S::V) -> S::V {
        let one = s.splat(1.0);
        let u = s.mul(x, s.splat(Self::SCALE));
        let g = math::sigmoid(s, u);
        s.mul(g, s.mul_add(u, s.sub(one, g), one))
    }
}

/// Calls `$kernel::<_, F>($args)` with the type `F` of the activation.
macro_rules! with_function {
    ($activation:expr, $kernel:ident($($arg:expr),* $(,)?)) => {{
        use $crate::activation::*;
        match $activation {
            Activation::None => $kernel::<_, Identity>($($arg),*),
            Activation::Relu => $kernel::<_, Relu>($($arg),*),
            Activation::Gelu => $kernel::<_, Gelu>($($arg),*),
            Activation::GeluTanh => $kernel::<_, GeluTanh>($($arg),*),
            Activation::QuickGelu => $kernel::<_, Gated<true>>($($arg),*),
            Activation::Silu => $kernel::<_, Gated<false>>($($arg),*),
        }
    }};
}
pub(crate) use with_function;

#[inline(always)]
fn forward_with<S: Simd, F: Function>(s: S, x: &[f32], out: &mut [f32]) {
    for (x, out) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
        s.store(out, F::value(s, s.load(x)));
    }
}

#[inline(always)]
fn forward_kernel<S: Simd>(s: S, activation: Activation, x: &[f32], out: &mut [f32]) {
    with_function!(activation, forward_with(s, x, out));
}

#[inline(always)]
fn backward_with<S: Simd, F: Function>(s: S, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let inputs = x.chunks(S::LANES).zip(dy.chunks(S::LANES));
    for ((x, dy), dx) in inputs.zip(dx.chunks_mut(S::LANES)) {
        s.store(dx, s.mul(s.load(dy), F::derivative(s, s.load(x))));
    }
}

/// As [`backward_with`] for rows as long as `sums`, to which they are added.
#[inline(always)]
fn backward_summing_with<S: Simd, F: Function>(
    s: S,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    sums: &mut [f32],
) {
    let width = sums.len();
    let inputs = x.chunks_exact(width).zip(dy.chunks_exact(width));
    for ((x, dy), dx) in inputs.zip(dx.chunks_exact_mut(width)) {
        for at in (0..width).step_by(S::LANES) {
            let d = s.mul(s.load(&dy[at..]), F::derivative(s, s.load(&x[at..])));
            s.store(&mut dx[at..], d);
            let sums = &mut sums[at..];
            s.store(sums, s.add(s.load(sums), d));
        }
    }
}

#[inline(always)]
fn backward_summing_kernel<S: Simd>(
    s: S,
    activation: Activation,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    sums: &mut [f32],
) {
    with_function!(activation, backward_summing_with(s, x, dy, dx, sums));
}

#[inline(always)]
fn backward_kernel<S: Simd>(s: S, activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    with_function!(activation, backward_with(s, x, dy, dx));
}

simd_dispatch! {
    fn forward(activation: Activation, x: &[f32], out: &mut [f32]) = forward_kernel;
}
simd_dispatch! {
    fn backward(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) = backward_kernel;
}

simd_dispatch! {
    fn backward_summing(
        activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32], sums: &mut [f32],
    ) = backward_summing_kernel;
}

/// `out = activation(x)`, elementwise.
pub fn activation_forward(activation: Activation, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "activation: x and out differ in length");
    let chunk = parallel::elements_per_task();
    parallel::for_each_chunk(out, chunk, |i, out| {
        forward(activation, &x[i * chunk..][..out.len()], out);
    });
}

/// `dx = dy * activation'(x)`, elementwise; `x` is the input of the forward pass.
pub fn activation_backward(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!(x.len(), dx.len(), "activation: x and dx differ in length");
    assert_eq!(dy.len(), dx.len(), "activation: dy and dx differ in length");
    let chunk = parallel::elements_per_task();
    parallel::for_each_chunk(dx, chunk, |i, dx| {
        let at = i * chunk;
        backward(activation, &x[at..][..dx.len()], &dy[at..][..dx.len()], dx);
    });
}

/// As [`activation_backward`], and the sums of the columns of `dx` `[m, n]`, n = `sums.len()`: the gradient of the bias
/// that was added before the activation.
pub fn activation_backward_summing(
    activation: Activation,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    sums: &mut [f32],
) {
    let n = sums.len();
    assert_eq!(x.len(), dx.len(), "activation: x and dx differ in length");
    assert_eq!(dy.len(), dx.len(), "activation: dy and dx differ in length");
    sums.fill(0.0);
    if dx.is_empty() {
        return;
    }
    assert!(
        n > 0 && dx.len().is_multiple_of(n),
        "activation: dx is not made of rows of {n}"
    );
    let chunk = parallel::rows_per_task(n).max(16) * n;
    let mut partial = vec![0.0; dx.len().div_ceil(chunk) * n];
    parallel::for_each_chunk2((dx, chunk), (&mut partial, n), |i, dx, sums| {
        let (x, dy) = (&x[i * chunk..][..dx.len()], &dy[i * chunk..][..dx.len()]);
        backward_summing(activation, x, dy, dx, sums);
    });
    column_sum(&partial, n, sums);
}
