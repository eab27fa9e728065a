//! Convolution as matrix products: windows to rows (im2col), its transpose, and patches.

use crate::parallel;

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
    let (oh, ow, c) = (s.out_height(), s.out_width(), s.channels);
    let row = ow * s.window();
    if out.is_empty() {
        return;
    }
    let rows_per_task = parallel::rows_per_task(row);
    parallel::for_each_chunk(out, rows_per_task * row, |task, out| {
        for (i, out) in out.chunks_exact_mut(row).enumerate() {
            let (b, oy) = (
                (task * rows_per_task + i) / oh,
                (task * rows_per_task + i) % oh,
            );
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
    let (oh, ow, c, window) = (s.out_height(), s.out_width(), s.channels, s.window());
    let row = s.width * c;
    if dx.is_empty() {
        return;
    }
    // One input row gathers from the windows that cover it, so tasks never write the same element.
    let rows_per_task = parallel::rows_per_task(row * s.kernel[0]);
    parallel::for_each_chunk(dx, rows_per_task * row, |task, dx| {
        for (i, dx) in dx.chunks_exact_mut(row).enumerate() {
            let at = task * rows_per_task + i;
            let (b, y) = (at / s.height, at % s.height + s.padding[0]);
            dx.fill(0.0);
            for ky in 0..s.kernel[0].min(y + 1) {
                let oy = (y - ky) / s.stride[0];
                if !(y - ky).is_multiple_of(s.stride[0]) || oy >= oh {
                    continue;
                }
                for ox in 0..ow {
                    let (inside, first) = s.columns_inside(ox);
                    if inside.is_empty() {
                        continue;
                    }
                    let len = inside.len() * c;
                    let source =
                        ((b * oh + oy) * ow + ox) * window + (ky * s.kernel[1] + inside.start) * c;
                    for (sum, v) in dx[first * c..][..len].iter_mut().zip(&cols[source..]) {
                        *sum += v;
                    }
                }
            }
        }
    });
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
