//! Convolution in groups (Xie et al., "Aggregated residual transformations for deep neural networks", 2017): the
//! channels are cut into groups, each with its own kernels.
//!
//! Group after group is copied together, convolved as any other picture, and copied to its place: two passes over the
//! picture beside nine products a number and more.

use crate::conv::{ConvShape, conv2d, conv2d_input_gradient, conv2d_weight_gradient};
use crate::cpu_features::Precision;
use crate::gemm::linear::finish_rows;
use crate::gemm::{Epilogue, PackedWeights};
use crate::parallel;
use crate::scratch::with_scratch;

/// Columns `from..` of the rows of `x` `[.., columns]`: `part` `[.., width]`.
fn gather(x: &[f32], columns: usize, from: usize, part: &mut [f32], width: usize) {
    if part.is_empty() {
        return;
    }
    let per_task = parallel::rows_per_task(width);
    parallel::for_each_chunk(part, per_task * width, |task, part| {
        let rows = x[task * per_task * columns..].chunks_exact(columns);
        for (row, part) in rows.zip(part.chunks_exact_mut(width)) {
            part.copy_from_slice(&row[from..][..width]);
        }
    });
}

/// The transpose of [`gather`].
fn scatter(part: &[f32], width: usize, x: &mut [f32], columns: usize, from: usize) {
    if part.is_empty() {
        return;
    }
    let per_task = parallel::rows_per_task(width);
    parallel::for_each_chunk(x, per_task * columns, |task, x| {
        let parts = part[task * per_task * width..].chunks_exact(width);
        for (x, part) in x.chunks_exact_mut(columns).zip(parts) {
            x[from..][..width].copy_from_slice(part);
        }
    });
}

/// The shape of one group, and how many pixels go in and come out.
fn part(s: ConvShape, groups: usize) -> (ConvShape, usize, usize) {
    assert!(
        groups > 0 && s.channels.is_multiple_of(groups),
        "conv2d: {} channels are no {groups} groups",
        s.channels
    );
    let channels = s.channels / groups;
    let pixels = s.batch * s.out_height() * s.out_width();
    (
        ConvShape { channels, ..s },
        s.batch * s.height * s.width,
        pixels,
    )
}

/// Convolution of `x` `[B, H, W, C]` with a weight of `[O / G, KH * KW * C / G]` for each of `G` groups, then the
/// epilogue of a linear layer: `out` `[B, OH, OW, O]`.
pub fn conv2d_grouped(
    x: &[f32],
    weights: &[PackedWeights],
    s: ConvShape,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    if let [weight] = weights {
        return conv2d(x, weight, s, epilogue, out);
    }
    let (one, inputs, pixels) = part(s, weights.len());
    let outputs = weights[0].outputs();
    let n = outputs * weights.len();
    assert_eq!(
        x.len(),
        inputs * s.channels,
        "conv2d: x is not [B, H, W, C]"
    );
    assert_eq!(out.len(), pixels * n, "conv2d: out is not [B, OH, OW, O]");
    let room = inputs * one.channels;
    with_scratch(room + pixels * outputs, |scratch| {
        let (xs, ys) = scratch.split_at_mut(room);
        for (g, weight) in weights.iter().enumerate() {
            gather(x, s.channels, g * one.channels, xs, one.channels);
            conv2d(xs, weight, one, Epilogue::NONE, ys);
            scatter(ys, outputs, out, n, g * outputs);
        }
    });
    finish_rows(epilogue, n, out);
}

/// The gradient of [`conv2d_grouped`] by `x`: overwrites `dx` `[B, H, W, C]` from `dy` `[B, OH, OW, O]` and `weight`
/// `[O, KH * KW * C / G]`, group after group.
pub fn conv2d_grouped_input_gradient(
    precision: Precision,
    dy: &[f32],
    weight: &[f32],
    s: ConvShape,
    groups: usize,
    dx: &mut [f32],
) {
    if groups == 1 {
        return conv2d_input_gradient(precision, dy, weight, s, dx);
    }
    let (one, inputs, pixels) = part(s, groups);
    if dx.is_empty() || pixels == 0 {
        return dx.fill(0.0);
    }
    let n = dy.len() / pixels;
    let outputs = n / groups;
    let room = inputs * one.channels;
    with_scratch(room + pixels * outputs, |scratch| {
        let (xs, ys) = scratch.split_at_mut(room);
        for (g, weight) in weight.chunks_exact(weight.len() / groups).enumerate() {
            gather(dy, n, g * outputs, ys, outputs);
            conv2d_input_gradient(precision, ys, weight, one, xs);
            scatter(xs, one.channels, dx, s.channels, g * one.channels);
        }
    });
}

/// The gradient of [`conv2d_grouped`] by the weight: overwrites `dw` `[O, KH * KW * C / G]` from `dy`
/// `[B, OH, OW, O]` and `x` `[B, H, W, C]`.
pub fn conv2d_grouped_weight_gradient(
    precision: Precision,
    dy: &[f32],
    x: &[f32],
    s: ConvShape,
    groups: usize,
    dw: &mut [f32],
) {
    if groups == 1 {
        return conv2d_weight_gradient(precision, dy, x, s, dw);
    }
    let (one, inputs, pixels) = part(s, groups);
    if x.is_empty() || pixels == 0 {
        return dw.fill(0.0);
    }
    let n = dy.len() / pixels;
    let outputs = n / groups;
    let room = inputs * one.channels;
    let each = dw.len() / groups;
    with_scratch(room + pixels * outputs, |scratch| {
        let (xs, ys) = scratch.split_at_mut(room);
        for (g, dw) in dw.chunks_exact_mut(each).enumerate() {
            gather(dy, n, g * outputs, ys, outputs);
            gather(x, s.channels, g * one.channels, xs, one.channels);
            conv2d_weight_gradient(precision, ys, xs, one, dw);
        }
    });
}
