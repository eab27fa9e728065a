//! Gated activations (Shazeer 2020): `activation(gate) * up`, with SiLU as SwiGLU.
//!
//! Gate and up come from one joint projection, rows of `[gate, up]`, `width` elements each, or (where
//! nothing is trained) from two.

use crate::activation::{Activation, Function, with_function};
use crate::parallel;
use crate::simd::{Simd, simd_dispatch};

#[inline(always)]
fn forward_with<S: Simd, F: Function>(s: S, gate_up: &[f32], width: usize, out: &mut [f32]) {
    for (gate_up, out) in gate_up
        .chunks_exact(2 * width)
        .zip(out.chunks_exact_mut(width))
    {
        let (gate, up) = gate_up.split_at(width);
        let inputs = gate.chunks(S::LANES).zip(up.chunks(S::LANES));
        for ((gate, up), out) in inputs.zip(out.chunks_mut(S::LANES)) {
            s.store(out, s.mul(F::value(s, s.load(gate)), s.load(up)));
        }
    }
}

#[inline(always)]
fn forward_kernel<S: Simd>(
    s: S,
    activation: Activation,
    gate_up: &[f32],
    width: usize,
    out: &mut [f32],
) {
    with_function!(activation, forward_with(s, gate_up, width, out));
}

simd_dispatch! {
    fn forward(activation: Activation, gate_up: &[f32], width: usize, out: &mut [f32])
        = forward_kernel;
}

#[inline(always)]
fn backward_with<S: Simd, F: Function>(
    s: S,
    gate_up: &[f32],
    dout: &[f32],
    width: usize,
    dgate_up: &mut [f32],
) {
    let rows = gate_up
        .chunks_exact(2 * width)
        .zip(dout.chunks_exact(width));
    for ((gate_up, dout), d) in rows.zip(dgate_up.chunks_exact_mut(2 * width)) {
        let (gate, up) = gate_up.split_at(width);
        let (dgate, dup) = d.split_at_mut(width);
        for at in (0..width).step_by(S::LANES) {
            let (gate, dout) = (s.load(&gate[at..]), s.load(&dout[at..]));
            let slope = s.mul(F::derivative(s, gate), s.load(&up[at..]));
            s.store(&mut dgate[at..], s.mul(dout, slope));
            s.store(&mut dup[at..], s.mul(dout, F::value(s, gate)));
        }
    }
}

#[inline(always)]
fn backward_kernel<S: Simd>(
    s: S,
    activation: Activation,
    gate_up: &[f32],
    dout: &[f32],
    width: usize,
    dgate_up: &mut [f32],
) {
    with_function!(activation, backward_with(s, gate_up, dout, width, dgate_up));
}

simd_dispatch! {
    fn backward(
        activation: Activation, gate_up: &[f32], dout: &[f32], width: usize, dgate_up: &mut [f32],
    ) = backward_kernel;
}

#[inline(always)]
fn in_place_with<S: Simd, F: Function>(s: S, gate: &[f32], up: &mut [f32]) {
    for (gate, up) in gate.chunks(S::LANES).zip(up.chunks_mut(S::LANES)) {
        let gated = s.mul(F::value(s, s.load(gate)), s.load(up));
        s.store(up, gated);
    }
}

#[inline(always)]
fn in_place_kernel<S: Simd>(s: S, activation: Activation, gate: &[f32], up: &mut [f32]) {
    with_function!(activation, in_place_with(s, gate, up));
}

simd_dispatch! {
    fn in_place(activation: Activation, gate: &[f32], up: &mut [f32]) = in_place_kernel;
}

/// `up *= activation(gate)`, elementwise.
pub fn gate_in_place(activation: Activation, gate: &[f32], up: &mut [f32]) {
    assert_eq!(gate.len(), up.len(), "gated: gate and up differ in length");
    let chunk = parallel::elements_per_task();
    parallel::for_each_chunk(up, chunk, |i, up| {
        in_place(activation, &gate[i * chunk..][..up.len()], up);
    });
}

fn check(gate_up: usize, width: usize, out: usize) {
    assert_eq!(gate_up, 2 * out, "gated: gate_up is not twice out");
    assert!(
        out == 0 || (width > 0 && out.is_multiple_of(width)),
        "gated: out is not made of rows of {width}"
    );
}

/// `out[i] = activation(gate[i]) * up[i]` for rows of `gate_up` `[m, 2, width]`; `out` `[m, width]`.
pub fn gated(activation: Activation, gate_up: &[f32], width: usize, out: &mut [f32]) {
    check(gate_up.len(), width, out.len());
    let chunk = parallel::rows_per_task(width) * width;
    parallel::for_each_chunk(out, chunk, |i, out| {
        forward(
            activation,
            &gate_up[2 * i * chunk..][..2 * out.len()],
            width,
            out,
        );
    });
}

/// The gradient of [`gated`]: `dgate_up` `[m, 2, width]` from `dout` `[m, width]` and the forward pass's input.
pub fn gated_backward(
    activation: Activation,
    gate_up: &[f32],
    dout: &[f32],
    width: usize,
    dgate_up: &mut [f32],
) {
    check(gate_up.len(), width, dout.len());
    assert_eq!(
        gate_up.len(),
        dgate_up.len(),
        "gated: gate_up and dgate_up differ in length"
    );
    let chunk = parallel::rows_per_task(width) * width;
    parallel::for_each_chunk(dgate_up, 2 * chunk, |i, d| {
        let gate_up = &gate_up[2 * i * chunk..][..d.len()];
        let dout = &dout[i * chunk..][..d.len() / 2];
        backward(activation, gate_up, dout, width, d);
    });
}
