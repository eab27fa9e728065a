//! Making blocks from floats.
//!
//! The simple algorithms: scales from the extremes of each group, codes by rounding. ggml searches
//! for scales with a smaller squared error; files made by it are better, these are enough for
//! random models and tests.

use super::format::{BlockFormat, Parts};
use super::{QuantError, checked_len};
use BlockFormat::*;
use half::f16;

/// `weights` in `format`, one block after the other.
///
/// Weights should be finite; others give blocks without meaning.
///
/// # Errors
/// `weights` is not a multiple of the block long.
pub fn quantize(format: BlockFormat, weights: &[f32]) -> Result<Vec<u8>, QuantError> {
    let mut out = vec![0; format.row_bytes(weights.len())?];
    match format {
        F32 => {
            for (bytes, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(weights) {
                *bytes = x.to_le_bytes();
            }
        }
        F16 => {
            for (bytes, &x) in out.as_chunks_mut::<2>().0.iter_mut().zip(weights) {
                *bytes = f16::from_f32(x).to_le_bytes();
            }
        }
        Bf16 => {
            for (bytes, &x) in out.as_chunks_mut::<2>().0.iter_mut().zip(weights) {
                let bits = x.to_bits();
                // To nearest, ties to even; a NaN stays one.
                let bits = if x.is_nan() {
                    bits | 0x0040_0000
                } else {
                    bits + 0x7fff + (bits >> 16 & 1)
                };
                *bytes = ((bits >> 16) as u16).to_le_bytes();
            }
        }
        _ => {
            let blocks = weights.chunks_exact(format.block_len());
            for (bytes, x) in out.chunks_exact_mut(format.block_bytes()).zip(blocks) {
                let parts = match format {
                    Q4K | Q5K => with_mins(format, x),
                    Q6K => with_signed_scales(x),
                    _ => with_one_scale(format, x),
                };
                format.write_block(&parts, bytes);
            }
        }
    }
    Ok(out)
}

/// The bytes that [`quantize`] makes of `rows` rows of `cols` weights.
///
/// # Errors
/// `cols` is not a multiple of the block, or the size does not fit a `usize`.
pub fn quantized_len(format: BlockFormat, rows: usize, cols: usize) -> Result<usize, QuantError> {
    checked_len(rows, format.row_bytes(cols)?)
}

fn reciprocal(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The nearest code; `as` saturates and takes NaN to 0.
fn code(x: f32, low: f32, high: f32) -> i32 {
    x.round_ties_even().clamp(low, high) as i32
}

/// The weight of the largest magnitude.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(
        0.0_f32,
        |most, &x| if x.abs() > most.abs() { x } else { most },
    )
}

/// Q8_0, Q4_0 and Q5_0. The extreme weight of the 4- and 5-bit formats gets the lowest code, of
/// which there is one more than of positive ones.
fn with_one_scale(format: BlockFormat, x: &[f32]) -> Parts {
    let zero = format.zero();
    let scale = if format == Q8_0 {
        extreme(x).abs() / 127.0
    } else {
        extreme(x) / -(zero as f32)
    };
    let inverse = reciprocal(scale);
    let mut parts = Parts {
        d: f16::from_f32(scale).to_bits(),
        ..Parts::ZERO
    };
    let high = (zero - 1) as f32;
    let low = if format == Q8_0 {
        -high
    } else {
        -(zero as f32)
    };
    for (c, &x) in parts.codes.iter_mut().zip(x) {
        *c = (code(x * inverse, low, high) + zero) as u8;
    }
    parts
}

/// Q4_K and Q5_K: each group of 32 spans from its lowest weight (or 0) to its highest.
fn with_mins(format: BlockFormat, x: &[f32]) -> Parts {
    const LEVELS: f32 = 63.0;
    let highest_code = ((1_u32 << format.bits()) - 1) as f32;
    let (mut scales, mut mins) = ([0.0_f32; 8], [0.0_f32; 8]);
    for (g, x) in x.chunks_exact(32).enumerate() {
        let low = x.iter().fold(0.0_f32, |low, &x| low.min(x));
        let high = x.iter().fold(low, |high, &x| high.max(x));
        scales[g] = (high - low) / highest_code;
        mins[g] = -low;
    }
    let largest = |x: &[f32; 8]| x.iter().fold(0.0_f32, |most, &x| most.max(x));
    let mut parts = Parts {
        d: f16::from_f32(largest(&scales) / LEVELS).to_bits(),
        dmin: f16::from_f32(largest(&mins) / LEVELS).to_bits(),
        ..Parts::ZERO
    };
    let (d, dmin) = (
        f16::from_bits(parts.d).to_f32(),
        f16::from_bits(parts.dmin).to_f32(),
    );
    for (g, x) in x.chunks_exact(32).enumerate() {
        parts.scales[g] = code(scales[g] * reciprocal(d), 0.0, LEVELS) as u8;
        parts.mins[g] = code(mins[g] * reciprocal(dmin), 0.0, LEVELS) as u8;
        let min = dmin * f32::from(parts.mins[g]);
        let inverse = reciprocal(d * f32::from(parts.scales[g]));
        for (c, &x) in parts.codes[g * 32..].iter_mut().zip(x) {
            *c = code((x + min) * inverse, 0.0, highest_code) as u8;
        }
    }
    parts
}

/// Q6_K: the extreme weight of each group of 16 gets the code -32, whatever its sign.
fn with_signed_scales(x: &[f32]) -> Parts {
    let scales: [f32; 16] = std::array::from_fn(|g| extreme(&x[g * 16..][..16]) / -32.0);
    let mut parts = Parts {
        d: f16::from_f32(extreme(&scales).abs() / 127.0).to_bits(),
        ..Parts::ZERO
    };
    let d = f16::from_bits(parts.d).to_f32();
    for (g, x) in x.chunks_exact(16).enumerate() {
        let scale = code(scales[g] * reciprocal(d), -127.0, 127.0) as i8;
        parts.scales[g] = scale.cast_unsigned();
        let inverse = reciprocal(d * f32::from(scale));
        for (c, &x) in parts.codes[g * 16..].iter_mut().zip(x) {
            *c = (code(x * inverse, -32.0, 31.0) + 32) as u8;
        }
    }
    parts
}
