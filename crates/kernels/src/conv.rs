//! Convolution as matrix products: windows to rows (im2col), its transpose, and patches.
//!
//! [`conv2d()`] and its gradients unfold a *band* of output rows at a time, so that working memory does not grow with the
//! batch or the picture.

use crate::cpu_features::Precision;
use crate::gemm::{Epilogue, MatRef, PackedWeights, linear_packed, matmul, matmul_add};
use crate::parallel;
use crate::scratch::with_scratch;
use std::ops::Range;

/// A two-dimensional convolution over channels-last pictures `[batch, height, width, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Number of pictures.
    pub batch: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Channels of the input.
    pub channels: usize,
    /// Window: rows, columns.
    pub kernel: [usize; 2],
    /// Step of the window: rows, columns.
    pub stride: [usize; 2],
    /// Zeros around the picture: rows above and below, columns left and right.
    pub padding: [usize; 2],
}

fn output_extent(input: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    assert!(
        kernel > 0 && stride > 0,
        "conv: kernel and stride are at least 1"
    );
    match (input + 2 * padding).checked_sub(kernel) {
        Some(room) => room / stride + 1,
        None => 0,
    }
}

impl ConvShape {
    /// Rows of the output.
    pub fn out_height(&self) -> usize {
        output_extent(self.height, self.kernel[0], self.stride[0], self.padding[0])
    }

    /// Columns of the output.
    pub fn out_width(&self) -> usize {
        output_extent(self.width, self.kernel[1], self.stride[1], self.padding[1])
    }

    /// Elements of one window.
    fn window(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.channels
    }

    fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.window()
    }

    /// The kernel columns of the window at output column `ox` that lie inside the picture, and the
    /// input column of the first of them.
    fn columns_inside(&self, ox: usize) -> (std::ops::Range<usize>, usize) {
        let left = ox * self.stride[1];
        let first = self.padding[1].saturating_sub(left).min(self.kernel[1]);
        let end = (self.width + self.padding[1])
            .saturating_sub(left)
            .clamp(first, self.kernel[1]);
        (first..end, (left + first).saturating_sub(self.padding[1]))
    }
}

/// Windows of `x` `[B, H, W, C]` as rows: `out` `[B * OH * OW, KH * KW * C]`, zero where a window
/// leaves the picture.
pub fn unfold(x: &[f32], s: ConvShape, out: &mut [f32]) {
    assert_eq!(x.len(), s.input_len(), "unfold: x is not [B, H, W, C]");
    assert_eq!(
        out.len(),
        s.output_len(),
        "unfold: out is not [B * OH * OW, KH * KW * C]"
    );
    unfold_rows(x, s, 0, out);
}

/// The windows of whole output rows from `first` (of `B * OH`), as many as `out` holds.
fn unfold_rows(x: &[f32], s: ConvShape, first: usize, out: &mut [f32]) {
    let (oh, ow, c) = (s.out_height(), s.out_width(), s.channels);
    let row = ow * s.window();
    if out.is_empty() {
        return;
    }
    let rows_per_task = parallel::rows_per_task(row);
    parallel::for_each_chunk(out, rows_per_task * row, |task, out| {
        for (i, out) in out.chunks_exact_mut(row).enumerate() {
            let at = first + task * rows_per_task + i;
            let (b, oy) = (at / oh, at % oh);
            for (at, segment) in out.chunks_exact_mut(s.kernel[1] * c).enumerate() {
                let (ox, ky) = (at / s.kernel[0], at % s.kernel[0]);
                let y = oy * s.stride[0] + ky;
                let (inside, first) = s.columns_inside(ox);
                if y < s.padding[0] || y - s.padding[0] >= s.height || inside.is_empty() {
                    segment.fill(0.0);
                    continue;
                }
                let y = y - s.padding[0];
                let source = ((b * s.height + y) * s.width + first) * c;
                let (start, end) = (inside.start * c, inside.end * c);
                segment[..start].fill(0.0);
                segment[start..end].copy_from_slice(&x[source..][..end - start]);
                segment[end..].fill(0.0);
            }
        }
    });
}

/// The transpose of [`unfold`]: overwrites `dx` `[B, H, W, C]` with the sum, over all windows that
/// see an element, of its entries in `cols` `[B * OH * OW, KH * KW * C]`.
pub fn fold(cols: &[f32], s: ConvShape, dx: &mut [f32]) {
    assert_eq!(dx.len(), s.input_len(), "fold: dx is not [B, H, W, C]");
    assert_eq!(
        cols.len(),
        s.output_len(),
        "fold: cols is not [B * OH * OW, KH * KW * C]"
    );
    dx.fill(0.0);
    fold_rows(cols, s, 0..s.batch * s.out_height(), dx);
}

/// Adds the windows of the output rows `rows` (of `B * OH`) to `dx`.
fn fold_rows(cols: &[f32], s: ConvShape, rows: Range<usize>, dx: &mut [f32]) {
    let (oh, ow, c, window) = (s.out_height(), s.out_width(), s.channels, s.window());
    let row = s.width * c;
    if dx.is_empty() || rows.is_empty() {
        return;
    }
    // The input rows that these windows may see, as the first and one past the last of `B * H`.
    let top = |row: usize| {
        let y = (row % oh * s.stride[0]).saturating_sub(s.padding[0]);
        row / oh * s.height + y.min(s.height)
    };
    let bottom = |row: usize| {
        let y = (row % oh * s.stride[0] + s.kernel[0]).saturating_sub(s.padding[0]);
        row / oh * s.height + y.min(s.height)
    };
    let (first_input, end_input) = (top(rows.start), bottom(rows.end - 1));
    if first_input >= end_input {
        return;
    }
    // One input row gathers from the windows that cover it, so tasks never write the same element.
    let rows_per_task = parallel::rows_per_task(row * s.kernel[0]);
    let seen = &mut dx[first_input * row..end_input * row];
    parallel::for_each_chunk(seen, rows_per_task * row, |task, dx| {
        for (i, dx) in dx.chunks_exact_mut(row).enumerate() {
            let at = first_input + task * rows_per_task + i;
            let (b, y) = (at / s.height, at % s.height + s.padding[0]);
            for ky in 0..s.kernel[0].min(y + 1) {
                let oy = (y - ky) / s.stride[0];
                let from = b * oh + oy;
                if !(y - ky).is_multiple_of(s.stride[0]) || oy >= oh || !rows.contains(&from) {
                    continue;
                }
                for ox in 0..ow {
                    let (inside, first) = s.columns_inside(ox);
                    if inside.is_empty() {
                        continue;
                    }
                    let len = inside.len() * c;
                    let source = ((from - rows.start) * ow + ox) * window
                        + (ky * s.kernel[1] + inside.start) * c;
                    for (sum, v) in dx[first * c..][..len].iter_mut().zip(&cols[source..]) {
                        *sum += v;
                    }
                }
            }
        }
    });
}

/// Floats of unfolded windows at a time (4 MiB), unless one output row has more.
const BAND: usize = 1 << 20;

/// Calls `run(output rows of B * OH, room for their windows)` for one band after the other.
fn for_each_band(s: ConvShape, mut run: impl FnMut(Range<usize>, &mut [f32])) {
    let (rows, row) = (s.batch * s.out_height(), s.out_width() * s.window());
    if rows == 0 || row == 0 {
        return;
    }
    let per_band = (BAND / row).clamp(1, rows);
    with_scratch(per_band * row, |windows| {
        for first in (0..rows).step_by(per_band) {
            let end = (first + per_band).min(rows);
            run(first..end, &mut windows[..(end - first) * row]);
        }
    });
}

/// Whether windows are the pixels themselves.
fn is_pointwise(s: ConvShape) -> bool {
    s.kernel == [1, 1] && s.stride == [1, 1] && s.padding == [0, 0]
}

/// Convolution of `x` `[B, H, W, C]` with `weight` `[O, KH * KW * C]`, then the epilogue of a linear layer:
/// `out` `[B, OH, OW, O]`.
pub fn conv2d(
    x: &[f32],
    weight: &PackedWeights,
    s: ConvShape,
    mut epilogue: Epilogue,
    out: &mut [f32],
) {
    let n = weight.outputs();
    let pixels = s.batch * s.out_height() * s.out_width();
    assert_eq!(x.len(), s.input_len(), "conv2d: x is not [B, H, W, C]");
    assert_eq!(
        weight.inputs(),
        s.window(),
        "conv2d: weight is not [O, KH * KW * C]"
    );
    assert_eq!(out.len(), pixels * n, "conv2d: out is not [B, OH, OW, O]");
    if is_pointwise(s) || s.window() == 0 {
        return linear_packed(x, weight, pixels, epilogue, out);
    }
    epilogue.check(pixels, n);
    let ow = s.out_width();
    for_each_band(s, |rows, windows| {
        unfold_rows(x, s, rows.start, windows);
        let band = rows.start * ow * n..rows.end * ow * n;
        let epilogue = Epilogue {
            bias: epilogue.bias,
            activation: epilogue.activation,
            residual: epilogue.residual.map(|r| &r[band.clone()]),
            pre_activation: match &mut epilogue.pre_activation {
                Some(p) => Some(&mut p[band.clone()]),
                None => None,
            },
        };
        linear_packed(windows, weight, rows.len() * ow, epilogue, &mut out[band]);
    });
}

/// The gradient of [`conv2d()`] by `x`: overwrites `dx` `[B, H, W, C]` from `dy` `[B, OH, OW, O]` and `weight`
/// `[O, KH * KW * C]`.
pub fn conv2d_input_gradient(
    precision: Precision,
    dy: &[f32],
    weight: &[f32],
    s: ConvShape,
    dx: &mut [f32],
) {
    let outputs = outputs_of(weight, s);
    let pixels = s.batch * s.out_height() * s.out_width();
    assert_eq!(dx.len(), s.input_len(), "conv2d: dx is not [B, H, W, C]");
    assert_eq!(
        dy.len(),
        pixels * outputs,
        "conv2d: dy is not [B, OH, OW, O]"
    );
    let weight = MatRef::row_major(weight, outputs, s.window());
    if is_pointwise(s) {
        return matmul(
            precision,
            MatRef::row_major(dy, pixels, outputs),
            weight,
            dx,
        );
    }
    dx.fill(0.0);
    let ow = s.out_width();
    for_each_band(s, |rows, windows| {
        let dy = &dy[rows.start * ow * outputs..rows.end * ow * outputs];
        let dy = MatRef::row_major(dy, rows.len() * ow, outputs);
        matmul(precision, dy, weight, windows);
        fold_rows(windows, s, rows, dx);
    });
}

/// The gradient of [`conv2d()`] by the weight: overwrites `dw` `[O, KH * KW * C]` from `dy` `[B, OH, OW, O]` and `x`
/// `[B, H, W, C]`. The gradient by the bias is [`column_sum`](crate::column_sum) of `dy`.
pub fn conv2d_weight_gradient(
    precision: Precision,
    dy: &[f32],
    x: &[f32],
    s: ConvShape,
    dw: &mut [f32],
) {
    let outputs = outputs_of(dw, s);
    let pixels = s.batch * s.out_height() * s.out_width();
    assert_eq!(x.len(), s.input_len(), "conv2d: x is not [B, H, W, C]");
    assert_eq!(
        dy.len(),
        pixels * outputs,
        "conv2d: dy is not [B, OH, OW, O]"
    );
    if is_pointwise(s) {
        let dy = MatRef::row_major(dy, pixels, outputs);
        return matmul(
            precision,
            dy.t(),
            MatRef::row_major(x, pixels, s.channels),
            dw,
        );
    }
    dw.fill(0.0);
    let ow = s.out_width();
    for_each_band(s, |rows, windows| {
        unfold_rows(x, s, rows.start, windows);
        let pixels = rows.len() * ow;
        let dy = &dy[rows.start * ow * outputs..rows.end * ow * outputs];
        let dy = MatRef::row_major(dy, pixels, outputs);
        let windows = MatRef::row_major(windows, pixels, s.window());
        matmul_add(precision, dy.t(), windows, dw);
    });
}

/// Output channels of a weight `[O, KH * KW * C]`.
fn outputs_of(weight: &[f32], s: ConvShape) -> usize {
    let window = s.window();
    assert!(
        window > 0 && weight.len().is_multiple_of(window),
        "conv2d: the weight is not made of rows of {window}"
    );
    weight.len() / window
}

/// Calls `copy(picture offset, patch offset)` for every run of `patch` elements of the patch rows
/// `rows` (there are `dims[0] * dims[2] / patch` of them); patch offsets count from the first row.
fn for_each_run(
    dims: [usize; 4],
    patch: usize,
    rows: std::ops::Range<usize>,
    mut copy: impl FnMut(usize, usize),
) {
    let [_, channels, height, width] = dims;
    let (grid_h, grid_w) = (height / patch, width / patch);
    let mut at = 0;
    for row in rows {
        let (b, gy) = (row / grid_h, row % grid_h);
        for gx in 0..grid_w {
            for c in 0..channels {
                for py in 0..patch {
                    let y = gy * patch + py;
                    copy(((b * channels + c) * height + y) * width + gx * patch, at);
                    at += patch;
                }
            }
        }
    }
}

fn check_patches(dims: [usize; 4], patch: usize, picture: usize, patches: usize) {
    let [batch, channels, height, width] = dims;
    assert!(patch > 0, "patchify: the patch is empty");
    assert!(
        height.is_multiple_of(patch) && width.is_multiple_of(patch),
        "patchify: {height} x {width} is not made of patches of {patch}"
    );
    let len = batch * channels * height * width;
    assert_eq!(picture, len, "patchify: the pictures are not [B, C, H, W]");
    assert_eq!(
        patches, len,
        "patchify: the patches are not [B, N, C * patch * patch]"
    );
}

/// Cuts `x` of `dims` `[B, C, H, W]` into patches: `out` `[B, (H/p) * (W/p), C * p * p]`, each in
/// the order (c, y, x) of a flattened convolution weight. H and W are multiples of `patch`.
pub fn patchify(x: &[f32], dims: [usize; 4], patch: usize, out: &mut [f32]) {
    check_patches(dims, patch, x.len(), out.len());
    let row = patch * dims[1] * dims[3];
    let rows_per_task = parallel::rows_per_task(row);
    parallel::for_each_chunk(out, (rows_per_task * row).max(1), |task, out| {
        let first = task * rows_per_task;
        for_each_run(dims, patch, first..first + out.len() / row, |from, to| {
            out[to..][..patch].copy_from_slice(&x[from..][..patch]);
        });
    });
}

/// The transpose (and inverse) of [`patchify`]: `patches` back to `x` of `dims` `[B, C, H, W]`.
pub fn unpatchify(patches: &[f32], dims: [usize; 4], patch: usize, x: &mut [f32]) {
    check_patches(dims, patch, x.len(), patches.len());
    if x.is_empty() {
        return;
    }
    for_each_run(dims, patch, 0..dims[0] * dims[2] / patch, |to, from| {
        x[to..][..patch].copy_from_slice(&patches[from..][..patch]);
    });
}
