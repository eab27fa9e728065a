//! Pillow's and torchvision's resampling, bit for bit.
//!
//! Both use an antialiased filter whose support grows with the reduction, fixed-point coefficients
//! and one pass in each direction, each rounded to 8 bits. Pillow's `Resample.c` keeps 22 fraction
//! bits. PyTorch (`UpSampleKernelAVXAntialias.h`, which `torchvision.transforms.v2` calls for 8-bit
//! tensors) keeps as many as let the largest coefficient fit in 16 bits, and always begins
//! horizontally. Every output pixel depends on the input alone, so that any region of the
//! result can be computed without the rest.

use rayon::prelude::*;

use super::Image;
use crate::Error;

/// Fraction bits of Pillow's coefficients, and at most of PyTorch's: 32 minus 8 of the sample minus 2
/// for overshoot and sign.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Below this many multiplications threads cost more than they bring.
const PARALLEL_WORK: usize = 1 << 21;

/// The largest picture that [`resize`] makes, in pixels.
pub(super) const MAX_OUTPUT_PIXELS: u64 = 100_000_000;

/// Resampling filter, as `PIL.Image.Resampling`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// PIL 0: the nearest sample, no antialiasing.
    Nearest,
    /// PIL 1: windowed sinc over 3 pixels to each side.
    Lanczos,
    /// PIL 2: a triangle.
    Bilinear,
    /// PIL 3: Keys' cubic with a = −0.5.
    Bicubic,
    /// PIL 4: the mean of the covered samples.
    Box,
    /// PIL 5: Hamming-windowed sinc over 1 pixel to each side.
    Hamming,
}

/// Whose arithmetic a picture is resized with: the results differ by one grey level at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resampler {
    /// `PIL.Image.Image.resize`.
    #[default]
    Pillow,
    /// `torchvision.transforms.v2.functional.resize` of an 8-bit tensor on a CPU. It has no Box and no
    /// Hamming filter, so these two are Pillow's.
    Torchvision,
}

impl Filter {
    /// The filter that Pillow numbers `id`.
    pub fn from_pil(id: u64) -> Option<Self> {
        Some(match id {
            0 => Self::Nearest,
            1 => Self::Lanczos,
            2 => Self::Bilinear,
            3 => Self::Bicubic,
            4 => Self::Box,
            5 => Self::Hamming,
            _ => return None,
        })
    }

    /// Pixels to each side that the filter sees when not reducing.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64, resampler: Resampler) -> f64 {
        fn sinc(x: f64) -> f64 {
            if x == 0.0 {
                return 1.0;
            }
            let x = x * std::f64::consts::PI;
            x.sin() / x
        }
        let distance = x.abs();
        match self {
            Self::Nearest => 0.0,
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Hamming => {
                if distance == 0.0 {
                    1.0
                } else if distance >= 1.0 {
                    0.0
                } else {
                    let x = distance * std::f64::consts::PI;
                    x.sin() / x * (0.54 + 0.46 * x.cos())
                }
            }
            Self::Bicubic => {
                const A: f64 = -0.5;
                if distance < 1.0 {
                    ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
                } else if distance < 2.0 && resampler == Resampler::Torchvision {
                    ((A * distance - 5.0 * A) * distance + 8.0 * A) * distance - 4.0 * A
                } else if distance < 2.0 {
                    (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

/// A rectangle of the resized picture, in its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First column.
    pub left: u64,
    /// First row.
    pub top: u64,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

/// Resizes to `width` × `height` pixels with the arithmetic of `resampler`.
///
/// # Errors
/// [`Error::Resize`] where a side is 0 or the result exceeds 100 megapixels.
///
/// ```
/// use vlm_data::image::{Filter, Image, Resampler, resize};
/// let white = Image::from_rgb(8, 6, vec![255; 8 * 6 * 3])?;
/// let small = resize(&white, 4, 3, Filter::Bicubic, Resampler::Pillow)?;
/// assert_eq!((small.width(), small.height()), (4, 3));
/// assert!(small.rgb().iter().all(|&v| v == 255));
/// # Ok::<(), vlm_data::Error>(())
/// ```
pub fn resize(
    image: &Image,
    width: u32,
    height: u32,
    filter: Filter,
    resampler: Resampler,
) -> Result<Image, Error> {
    let whole = Region {
        left: 0,
        top: 0,
        width,
        height,
    };
    resize_region(image, width.into(), height.into(), whole, filter, resampler)
}

/// The part `region` of the picture resized to `width` × `height`, without computing the rest:
/// a crop of an extremely long picture costs no more than the crop.
///
/// # Errors
/// [`Error::Resize`] where a side is 0, the region lies outside, or it exceeds 100 megapixels.
pub fn resize_region(
    image: &Image,
    width: u64,
    height: u64,
    region: Region,
    filter: Filter,
    resampler: Resampler,
) -> Result<Image, Error> {
    let refuse = |reason: &str| Error::Resize {
        from_width: image.width,
        from_height: image.height,
        width,
        height,
        reason: reason.to_owned(),
    };
    if width == 0 || height == 0 || region.width == 0 || region.height == 0 {
        return Err(refuse("expected at least one pixel a side"));
    }
    // Both count sides in C's int.
    if width.max(height) > i32::MAX as u64 {
        return Err(refuse("expected sides below 2^31"));
    }
    let inside = |start: u64, length: u32, side: u64| {
        start
            .checked_add(length.into())
            .is_some_and(|end| end <= side)
    };
    if !inside(region.left, region.width, width) || !inside(region.top, region.height, height) {
        return Err(refuse("the region lies outside the result"));
    }
    if u64::from(region.width) * u64::from(region.height) > MAX_OUTPUT_PIXELS {
        return Err(refuse("expected at most 100 megapixels"));
    }
    let resampler = match filter {
        Filter::Box | Filter::Hamming => Resampler::Pillow,
        _ => resampler,
    };
    let (out_w, out_h) = (region.width as usize, region.height as usize);
    let (in_w, in_h) = (image.width as usize, image.height as usize);
    if filter == Filter::Nearest && (width, height) != (in_w as u64, in_h as u64) {
        let columns = nearest(image.width, width, region.left, out_w, resampler);
        let rows = nearest(image.height, height, region.top, out_h, resampler);
        let mut rgb = Vec::with_capacity(out_w * out_h * 3);
        for row in rows {
            for &column in &columns {
                let at = (row * in_w + column) * 3;
                rgb.extend_from_slice(&image.rgb[at..at + 3]);
            }
        }
        return Image::from_rgb(region.width, region.height, rgb);
    }

    let across = (width != u64::from(image.width))
        .then(|| Taps::new(image.width, width, region.left, out_w, filter, resampler));
    let down = (height != u64::from(image.height))
        .then(|| Taps::new(image.height, height, region.top, out_h, filter, resampler));
    // Only what the passes will read takes part in them.
    let (left, columns) = across
        .as_ref()
        .map_or((region.left as usize, out_w), Taps::span);
    let (top, rows) = down
        .as_ref()
        .map_or((region.top as usize, out_h), Taps::span);
    let (across, down) = (
        across.map(|t| t.relative_to(left)),
        down.map(|t| t.relative_to(top)),
    );
    let source = View {
        bytes: &image.rgb[(top * in_w + left) * 3..],
        stride: in_w * 3,
        width: columns * 3,
        rows,
    };
    let rgb = match (across, down) {
        (None, None) => source.to_vec(),
        (Some(across), None) => horizontal_pass(source, &across),
        (None, Some(down)) => vertical_pass(source, &down),
        (Some(across), Some(down))
            if resampler == Resampler::Pillow && vertical_first((in_w, in_h), (width, height)) =>
        {
            let flat = vertical_pass(source, &down);
            horizontal_pass(View::packed(&flat, source.width, out_h), &across)
        }
        (Some(across), Some(down)) => {
            let narrow = horizontal_pass(source, &across);
            vertical_pass(View::packed(&narrow, out_w * 3, rows), &down)
        }
    };
    Image::from_rgb(region.width, region.height, rgb)
}

/// Which pass comes first decides how the intermediate picture is rounded. Pillow up to 12 always
/// begins horizontally; Pillow 13 begins vertically where that removes more than twice as many rows
/// as the horizontal pass removes columns (found by experiment, exact on thousands of sizes).
fn vertical_first(from: (usize, usize), to: (u64, u64)) -> bool {
    let removed = |from: usize, to: u64| from as i128 - i128::from(to);
    let (columns, rows) = (removed(from.0, to.0), removed(from.1, to.1));
    rows > 0 && rows > 2 * columns
}

/// A rectangle of interleaved samples.
#[derive(Clone, Copy)]
struct View<'a> {
    /// From its first sample on.
    bytes: &'a [u8],
    /// Bytes from one row to the next.
    stride: usize,
    /// Bytes of a row.
    width: usize,
    rows: usize,
}

impl<'a> View<'a> {
    fn packed(bytes: &'a [u8], width: usize, rows: usize) -> Self {
        Self {
            bytes,
            stride: width,
            width,
            rows,
        }
    }

    fn row(&self, index: usize) -> &'a [u8] {
        &self.bytes[index * self.stride..][..self.width]
    }

    fn to_vec(self) -> Vec<u8> {
        (0..self.rows).flat_map(|y| self.row(y)).copied().collect()
    }
}

/// The samples that `ImagingScaleAffine` (Geometry.c) or PyTorch's `nearest` takes, `count` of them
/// from output `start`.
fn nearest(side: u32, output: u64, start: u64, count: usize, resampler: Resampler) -> Vec<usize> {
    let last = side as usize - 1;
    if resampler == Resampler::Torchvision {
        let step = side as f32 / output as f32;
        let sample = |index: u64| ((index as f32 * step) as usize).min(last);
        return (start..start + count as u64).map(sample).collect();
    }
    let step = f64::from(side) / output as f64;
    // Pillow adds the step up instead of multiplying, and its rounding errors decide ties.
    let mut position = step * 0.5;
    for _ in 0..start {
        position += step;
    }
    (0..count)
        .map(|_| {
            let sample = (position as usize).min(last);
            position += step;
            sample
        })
        .collect()
}

/// How one side is sampled, before weights are rounded.
struct Sampling {
    side: u32,
    output: u64,
    filter: Filter,
    resampler: Resampler,
    /// Input samples for one output sample.
    scale: f64,
    /// The most input samples that an output sample reads.
    stride: usize,
}

impl Sampling {
    fn new(side: u32, output: u64, filter: Filter, resampler: Resampler) -> Self {
        let scale = f64::from(side) / output as f64;
        let support = filter.support() * scale.max(1.0);
        Self {
            side,
            output,
            filter,
            resampler,
            scale,
            stride: (support.ceil() as usize * 2 + 1).min(side as usize),
        }
    }

    /// The first input sample that output `index` reads, and how many; their weights, of sum 1, go to
    /// the beginning of `weights`.
    fn weights(&self, index: u64, weights: &mut [f64]) -> (usize, usize) {
        let filter_scale = self.scale.max(1.0);
        let support = self.filter.support() * filter_scale;
        let inverse = 1.0 / filter_scale;
        let center = (index as f64 + 0.5) * self.scale;
        // Conversions truncate towards zero and saturate, as C's after its clamping.
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5).max(0.0) as usize).min(self.side as usize);
        let length = (end - first).min(self.stride);
        let mut total = 0.0;
        for (x, weight) in weights[..length].iter_mut().enumerate() {
            let distance = ((x + first) as f64 - center + 0.5) * inverse;
            *weight = self.filter.weight(distance, self.resampler);
            total += *weight;
        }
        if total != 0.0 {
            for weight in &mut weights[..length] {
                *weight /= total;
            }
        }
        (first, length)
    }

    /// Pillow's is fixed; PyTorch's lets the largest of all outputs' weights fit in 16 bits. Of a side
    /// of more than 2¹⁷ outputs only both ends are looked at, where the largest weights are.
    fn fraction_bits(&self) -> u32 {
        const END: u64 = 1 << 16;
        if self.resampler == Resampler::Pillow {
            return PRECISION_BITS;
        }
        let mut weights = vec![0.0; self.stride];
        let mut largest = 0.0f64;
        let second_end = self.output.saturating_sub(END).max(END);
        for index in (0..self.output.min(END)).chain(second_end..self.output) {
            let (_, length) = self.weights(index, &mut weights);
            largest = weights[..length].iter().copied().fold(largest, f64::max);
        }
        (0..PRECISION_BITS)
            .find(|bits| (0.5 + largest * f64::from(1u32 << (bits + 1))) as i32 >= 1 << 15)
            .unwrap_or(PRECISION_BITS)
    }
}

/// For each output sample: where its input samples begin, how many, and their weights.
struct Taps {
    /// (first input sample, number of samples) of each output sample.
    bounds: Vec<(usize, usize)>,
    /// `stride` fixed-point weights for each output sample.
    weights: Vec<i32>,
    stride: usize,
    /// Fraction bits of the weights.
    bits: u32,
}

impl Taps {
    /// The weights for `count` outputs from output `start`: Pillow's `precompute_coeffs` and
    /// `normalize_coeffs_8bpc`, or PyTorch's `compute_index_ranges_int16_weights`.
    fn new(
        side: u32,
        output: u64,
        start: u64,
        count: usize,
        filter: Filter,
        resampler: Resampler,
    ) -> Self {
        let sampling = Sampling::new(side, output, filter, resampler);
        let bits = sampling.fraction_bits();
        let stride = sampling.stride;
        let mut bounds = Vec::with_capacity(count);
        let mut weights = vec![0; count * stride];
        let mut exact = vec![0.0; stride];
        for (index, taps) in weights.chunks_exact_mut(stride).enumerate() {
            let (first, length) = sampling.weights(start + index as u64, &mut exact);
            for (tap, &share) in taps.iter_mut().zip(&exact[..length]) {
                let fixed = share * f64::from(1u32 << bits);
                *tap = (fixed + if share < 0.0 { -0.5 } else { 0.5 }) as i32;
            }
            bounds.push((first, length));
        }
        Self {
            bounds,
            weights,
            stride,
            bits,
        }
    }

    /// One half, for rounding.
    fn half(&self) -> i32 {
        1 << (self.bits - 1)
    }

    /// First input sample that any output reads, and how many follow.
    fn span(&self) -> (usize, usize) {
        let first = self.bounds.iter().map(|b| b.0).min().unwrap_or(0);
        let end = self.bounds.iter().map(|b| b.0 + b.1).max().unwrap_or(0);
        (first, end - first)
    }

    /// The same taps of an input that begins at sample `start`.
    fn relative_to(mut self, start: usize) -> Self {
        for (first, _) in &mut self.bounds {
            *first -= start;
        }
        self
    }

    /// (first input sample, weights) of each output sample.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        (0..self.bounds.len()).map(|index| self.get(index))
    }

    fn get(&self, index: usize) -> (usize, &[i32]) {
        let (first, length) = self.bounds[index];
        let start = index * self.stride;
        (first, &self.weights[start..start + length])
    }
}

fn clip(sum: i32, bits: u32) -> u8 {
    (sum >> bits).clamp(0, 255) as u8
}

/// `[rows, in_w, 3]` to `[rows, outputs, 3]`.
fn horizontal_pass(source: View<'_>, taps: &Taps) -> Vec<u8> {
    let out_w = taps.bounds.len() * 3;
    let mut out = vec![0; source.rows * out_w];
    let one_row = |(y, out): (usize, &mut [u8])| {
        let row = source.row(y);
        for (pixel, (first, weights)) in out.chunks_exact_mut(3).zip(taps.iter()) {
            let samples = &row[first * 3..(first + weights.len()) * 3];
            let mut sum = [taps.half(); 3];
            for (sample, &weight) in samples.chunks_exact(3).zip(weights) {
                sum[0] += i32::from(sample[0]) * weight;
                sum[1] += i32::from(sample[1]) * weight;
                sum[2] += i32::from(sample[2]) * weight;
            }
            pixel.copy_from_slice(&sum.map(|sum| clip(sum, taps.bits)));
        }
    };
    if source.rows * taps.weights.len() * 3 >= PARALLEL_WORK {
        out.par_chunks_mut(out_w).enumerate().for_each(one_row);
    } else {
        out.chunks_mut(out_w).enumerate().for_each(one_row);
    }
    out
}

/// `[rows, width]` bytes to `[outputs, width]` bytes.
fn vertical_pass(source: View<'_>, taps: &Taps) -> Vec<u8> {
    let width = source.width;
    let mut out = vec![0; taps.bounds.len() * width];
    let one_row = |(y, out): (usize, &mut [u8])| {
        let (first, weights) = taps.get(y);
        let mut sums = vec![taps.half(); width];
        for (row, &weight) in weights.iter().enumerate() {
            for (sum, &sample) in sums.iter_mut().zip(source.row(first + row)) {
                *sum += i32::from(sample) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = clip(sum, taps.bits);
        }
    };
    if taps.weights.len() * width >= PARALLEL_WORK {
        out.par_chunks_mut(width).enumerate().for_each(one_row);
    } else {
        out.chunks_mut(width).enumerate().for_each(one_row);
    }
    out
}
