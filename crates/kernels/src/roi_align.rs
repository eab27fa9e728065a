//! RoIAlign (He et al., "Mask R-CNN", 2017): a grid of features for any box of a picture, by bilinear samples.

use crate::parallel;

/// A box of one of the pictures of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roi {
    /// The picture's number in the batch.
    pub picture: usize,
    /// `x1, y1, x2, y2` in pixels of the picture; finite.
    pub corners: [f32; 4],
}

/// How boxes are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoiAlignShape {
    /// Rows and columns of the result.
    pub output: [usize; 2],
    /// Cells of the features for a pixel of the picture, such as 1/16.
    pub scale: f32,
    /// Samples in each direction for each cell of the result; 0 for as many as cells of the features lie in it.
    pub sampling_ratio: usize,
    /// Whether the centre of the first cell is at 0.5 and boxes may be smaller than a cell (torchvision's `aligned`).
    pub aligned: bool,
}

/// Samples along one axis of one box.
struct Axis {
    start: f32,
    cell: f32,
    samples: usize,
    /// Cells of the features.
    extent: usize,
}

/// The two neighbours of a sample and their weights.
#[derive(Clone, Copy)]
struct Sample {
    low: usize,
    high: usize,
    low_weight: f32,
    high_weight: f32,
}

impl Axis {
    fn new(from: f32, to: f32, cells: usize, extent: usize, s: &RoiAlignShape) -> Self {
        let offset = if s.aligned { 0.5 } else { 0.0 };
        let (start, end) = (from * s.scale - offset, to * s.scale - offset);
        let mut length = end - start;
        if !s.aligned {
            length = length.max(1.0);
        }
        let cell = length / cells as f32;
        let samples = match s.sampling_ratio {
            // a box reaches at most from one border to the other, whatever it claims
            0 => (cell.ceil().max(0.0) as usize).min(extent + 2),
            given => given,
        };
        Self {
            start,
            cell,
            samples,
            extent,
        }
    }

    /// Sample `i` of cell `at` of the result, none where it lies outside the features.
    #[inline]
    fn sample(&self, at: usize, i: usize) -> Option<Sample> {
        let place =
            self.start + at as f32 * self.cell + (i as f32 + 0.5) * self.cell / self.samples as f32;
        // written so that NaN is outside
        if !(-1.0..=self.extent as f32).contains(&place) || self.extent == 0 {
            return None;
        }
        let place = place.max(0.0);
        let low = place as usize;
        if low >= self.extent - 1 {
            let last = self.extent - 1;
            return Some(Sample {
                low: last,
                high: last,
                low_weight: 1.0,
                high_weight: 0.0,
            });
        }
        let high_weight = place - low as f32;
        Some(Sample {
            low,
            high: low + 1,
            low_weight: 1.0 - high_weight,
            high_weight,
        })
    }
}

fn axes(roi: &Roi, [_, height, width, _]: [usize; 4], s: &RoiAlignShape) -> (Axis, Axis) {
    let [x1, y1, x2, y2] = roi.corners;
    (
        Axis::new(y1, y2, s.output[0], height, s),
        Axis::new(x1, x2, s.output[1], width, s),
    )
}

fn check(dims: [usize; 4], x: usize, rois: &[Roi], s: &RoiAlignShape, out: usize) -> usize {
    let row = s.output[0] * s.output[1] * dims[3];
    assert_eq!(
        x,
        dims.iter().product::<usize>(),
        "roi_align: x is not [B, H, W, C]"
    );
    assert_eq!(
        out,
        rois.len() * row,
        "roi_align: out is not [R, PH, PW, C]"
    );
    assert!(
        rois.iter().all(|roi| roi.picture < dims[0]),
        "roi_align: a box of a picture that is not in the batch"
    );
    row
}

/// One weight for each of four neighbours of a sample, with their offsets in a picture `[H, W, C]`.
#[inline]
fn neighbours(y: Sample, x: Sample, width: usize, channels: usize) -> [(usize, f32); 4] {
    let at = |row: usize, column: usize| (row * width + column) * channels;
    [
        (at(y.low, x.low), y.low_weight * x.low_weight),
        (at(y.low, x.high), y.low_weight * x.high_weight),
        (at(y.high, x.low), y.high_weight * x.low_weight),
        (at(y.high, x.high), y.high_weight * x.high_weight),
    ]
}

/// The offsets in the whole batch and the weights of what each cell of the result is a sum of: as a sparse matrix, for
/// devices without this kernel. Cells in order, as `(offset of a pixel of [B * H * W], weight)`.
pub fn roi_align_terms(dims: [usize; 4], rois: &[Roi], s: RoiAlignShape) -> Vec<Vec<(usize, f32)>> {
    let [_, height, width, _] = dims;
    let mut cells = Vec::with_capacity(rois.len() * s.output[0] * s.output[1]);
    for roi in rois {
        let (rows, columns) = axes(roi, dims, &s);
        let count = (rows.samples * columns.samples).max(1) as f32;
        let base = roi.picture * height * width;
        for ph in 0..s.output[0] {
            for pw in 0..s.output[1] {
                let mut terms = Vec::new();
                for y in (0..rows.samples).filter_map(|i| rows.sample(ph, i)) {
                    for x in (0..columns.samples).filter_map(|i| columns.sample(pw, i)) {
                        let four = neighbours(y, x, width, 1);
                        terms.extend(four.map(|(at, weight)| (base + at, weight / count)));
                    }
                }
                cells.push(terms);
            }
        }
    }
    cells
}

/// Features `x` of `dims` `[B, H, W, C]` sampled in each box: `out` `[R, PH, PW, C]`, each cell the mean of its samples.
/// Samples outside the features are 0.
pub fn roi_align(x: &[f32], dims: [usize; 4], rois: &[Roi], s: RoiAlignShape, out: &mut [f32]) {
    let row = check(dims, x.len(), rois, &s, out.len());
    let [_, height, width, c] = dims;
    if row == 0 {
        return;
    }
    let per_task = parallel::rows_per_task(row);
    parallel::for_each_chunk(out, per_task * row, |task, out| {
        let rois = &rois[task * per_task..];
        for (roi, out) in rois.iter().zip(out.chunks_exact_mut(row)) {
            let (rows, columns) = axes(roi, dims, &s);
            let count = (rows.samples * columns.samples).max(1) as f32;
            let x = &x[roi.picture * height * width * c..][..height * width * c];
            for (cell, out) in out.chunks_exact_mut(c).enumerate() {
                let (ph, pw) = (cell / s.output[1], cell % s.output[1]);
                out.fill(0.0);
                for sy in (0..rows.samples).filter_map(|i| rows.sample(ph, i)) {
                    for sx in (0..columns.samples).filter_map(|i| columns.sample(pw, i)) {
                        add_sample(x, neighbours(sy, sx, width, c), out);
                    }
                }
                out.iter_mut().for_each(|v| *v /= count);
            }
        }
    });
}

#[inline]
fn add_sample(x: &[f32], [a, b, c, d]: [(usize, f32); 4], out: &mut [f32]) {
    let channels = out.len();
    let of = |(at, _): (usize, f32)| x[at..][..channels].iter();
    let four = of(a).zip(of(b)).zip(of(c).zip(of(d)));
    for (out, ((va, vb), (vc, vd))) in out.iter_mut().zip(four) {
        *out += a.1 * va + b.1 * vb + c.1 * vc + d.1 * vd;
    }
}

/// The gradient of [`roi_align`] by `x`: overwrites `dx` of `dims` `[B, H, W, C]` from `dy` `[R, PH, PW, C]`.
pub fn roi_align_backward(
    dy: &[f32],
    dims: [usize; 4],
    rois: &[Roi],
    s: RoiAlignShape,
    dx: &mut [f32],
) {
    let row = check(dims, dx.len(), rois, &s, dy.len());
    let [_, height, width, c] = dims;
    if dx.is_empty() {
        return;
    }
    // A row of the features gathers from the samples beside it, so tasks never write the same element.
    let line = width * c;
    parallel::for_each_chunk(dx, line, |at, dx| {
        let (picture, y) = (at / height, at % height);
        dx.fill(0.0);
        for (roi, dy) in rois.iter().zip(dy.chunks_exact(row.max(1))) {
            if roi.picture != picture {
                continue;
            }
            let (rows, columns) = axes(roi, dims, &s);
            let count = (rows.samples * columns.samples).max(1) as f32;
            for ph in 0..s.output[0] {
                let weight = (0..rows.samples).filter_map(|i| rows.sample(ph, i));
                let weight = weight.fold(0.0, |sum, sample| {
                    let low = if sample.low == y {
                        sample.low_weight
                    } else {
                        0.0
                    };
                    let high = if sample.high == y {
                        sample.high_weight
                    } else {
                        0.0
                    };
                    sum + low + high
                });
                if weight == 0.0 {
                    continue;
                }
                for pw in 0..s.output[1] {
                    let dy = &dy[(ph * s.output[1] + pw) * c..][..c];
                    for sx in (0..columns.samples).filter_map(|i| columns.sample(pw, i)) {
                        for (x, share) in [(sx.low, sx.low_weight), (sx.high, sx.high_weight)] {
                            let share = weight * share / count;
                            let dx = &mut dx[x * c..][..c];
                            dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += share * dy);
                        }
                    }
                }
            }
        }
    });
}
