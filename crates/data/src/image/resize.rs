//! Pillow's resampling, bit for bit.
//!
//! Pillow's `Resample.c` (8 bits a channel): an antialiased filter whose support grows with the
//! reduction, coefficients in 22-bit fixed point, one pass in each direction, each rounded to
//! 8 bits. Every output pixel depends on the input alone, so that any region of the result
//! can be computed without the rest.

use rayon::prelude::*;

use super::Image;
use crate::Error;

/// Fraction bits of a coefficient: 32 minus 8 of the sample minus 2 for overshoot and sign.
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

    fn weight(self, x: f64) -> f64 {
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

/// Resizes to `width` × `height` pixels, as `PIL.Image.Image.resize((width, height), filter)`.
///
/// # Errors
/// [`Error::Resize`] where a side is 0 or the result exceeds 100 megapixels.
///
/// ```
/// use vlm_data::image::{Filter, Image, resize};
/// let white = Image::from_rgb(8, 6, vec![255; 8 * 6 * 3])?;
/// let small = resize(&white, 4, 3, Filter::Bicubic)?;
/// assert_eq!((small.width(), small.height()), (4, 3));
/// assert!(small.rgb().iter().all(|&v| v == 255));
/// # Ok::<(), vlm_data::Error>(())
/// ```
pub fn resize(image: &Image, width: u32, height: u32, filter: Filter) -> Result<Image, Error> {
    let whole = Region {
        left: 0,
        top: 0,
        width,
        height,
    };
    resize_region(image, width.into(), height.into(), whole, filter)
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
    // Pillow counts sides in C's int.
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
    let (out_w, out_h) = (region.width as usize, region.height as usize);
    let (in_w, in_h) = (image.width as usize, image.height as usize);
    if filter == Filter::Nearest && (width, height) != (in_w as u64, in_h as u64) {
        let columns = nearest(image.width, width, region.left, out_w);
        let rows = nearest(image.height, height, region.top, out_h);
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
        .then(|| Taps::new(image.width, width, region.left, out_w, filter));
    let down = (height != u64::from(image.height))
        .then(|| Taps::new(image.height, height, region.top, out_h, filter));
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
        (Some(across), Some(down)) if vertical_first((in_w, in_h), (width, height)) => {
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

/// The samples that `ImagingScaleAffine` (Geometry.c) takes, `count` of them from output `start`.
fn nearest(side: u32, output: u64, start: u64, count: usize) -> Vec<usize> {
    let step = f64::from(side) / output as f64;
    // Pillow adds the step up instead of multiplying, and its rounding errors decide ties.
    let mut position = step * 0.5;
    for _ in 0..start {
        position += step;
    }
    (0..count)
        .map(|_| {
            let sample = (position as usize).min(side as usize - 1);
            position += step;
            sample
        })
        .collect()
}

/// For each output sample: where its input samples begin, how many, and their weights.
struct Taps {
    /// (first input sample, number of samples) of each output sample.
    bounds: Vec<(usize, usize)>,
    /// `stride` fixed-point weights for each output sample.
    weights: Vec<i32>,
    stride: usize,
}

impl Taps {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc` for `count` outputs from output `start`.
    fn new(side: u32, output: u64, start: u64, count: usize, filter: Filter) -> Self {
        let scale = f64::from(side) / output as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let stride = (support.ceil() as usize * 2 + 1).min(side as usize);
        let inverse = 1.0 / filter_scale;
        let mut bounds = Vec::with_capacity(count);
        let mut weights = vec![0; count * stride];
        let mut exact = vec![0.0; stride];
        for (index, taps) in weights.chunks_exact_mut(stride).enumerate() {
            let center = ((start + index as u64) as f64 + 0.5) * scale;
            // Conversions truncate towards zero and saturate, as C's after its clamping.
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5).max(0.0) as usize).min(side as usize);
            let length = end - first;
            let mut total = 0.0;
            for (x, weight) in exact[..length].iter_mut().enumerate() {
                *weight = filter.weight(((x + first) as f64 - center + 0.5) * inverse);
                total += *weight;
            }
            for (tap, weight) in taps.iter_mut().zip(&exact[..length]) {
                let share = if total != 0.0 {
                    weight / total
                } else {
                    *weight
                };
                let fixed = share * f64::from(1u32 << PRECISION_BITS);
                *tap = (fixed + if share < 0.0 { -0.5 } else { 0.5 }) as i32;
            }
            bounds.push((first, length));
        }
        Self {
            bounds,
            weights,
            stride,
        }
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

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// `[rows, in_w, 3]` to `[rows, outputs, 3]`.
fn horizontal_pass(source: View<'_>, taps: &Taps) -> Vec<u8> {
    let out_w = taps.bounds.len() * 3;
    let mut out = vec![0; source.rows * out_w];
    let one_row = |(y, out): (usize, &mut [u8])| {
        let row = source.row(y);
        for (pixel, (first, weights)) in out.chunks_exact_mut(3).zip(taps.iter()) {
            let samples = &row[first * 3..(first + weights.len()) * 3];
            let mut sum = [HALF; 3];
            for (sample, &weight) in samples.chunks_exact(3).zip(weights) {
                sum[0] += i32::from(sample[0]) * weight;
                sum[1] += i32::from(sample[1]) * weight;
                sum[2] += i32::from(sample[2]) * weight;
            }
            pixel.copy_from_slice(&sum.map(clip));
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
        let mut sums = vec![HALF; width];
        for (row, &weight) in weights.iter().enumerate() {
            for (sum, &sample) in sums.iter_mut().zip(source.row(first + row)) {
                *sum += i32::from(sample) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = clip(sum);
        }
    };
    if taps.weights.len() * width >= PARALLEL_WORK {
        out.par_chunks_mut(width).enumerate().for_each(one_row);
    } else {
        out.chunks_mut(width).enumerate().for_each(one_row);
    }
    out
}
