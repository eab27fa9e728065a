//! Activations rounded to 8 bits, a scale per block of a row.
//!
//! As in ggml's `block_q8_K` and `block_q8_0`, `x = scale * code` with codes in -127..=127 and
//! `scale = max |x| / 127`. Rows are packed in panels of `R` for the kernels: four neighbours along
//! `k` of each row, `[k / 4][R][4]`.

use crate::parallel::{self, SharedMut};
use crate::scratch::with_scratch;
use crate::simd::{Simd, simd_dispatch};

/// The largest code.
const LARGEST: f32 = 127.0;
/// Blocks whose largest magnitude is below this are taken as 0: its reciprocal might overflow.
const NEGLIGIBLE: f32 = 1e-30;

/// Numbers that are rounded together.
const LANES: usize = 16;

/// What the kernels need of the sum of the codes of a group.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Sums {
    /// `-zero * sum`, an integer: where products with unsigned codes start.
    Start { zero: i32 },
    /// `sum`, as `f32`: what minima are multiplied with.
    Plain,
}

/// How activations are rounded and packed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Rounding {
    /// Activations that share a scale; the last block of a row may be shorter.
    pub(super) block: usize,
    /// Activations that share a sum, a divisor of `block`.
    pub(super) group: usize,
    pub(super) sums: Sums,
    /// Rows are padded with zeros to a multiple of this (itself one of 16).
    pub(super) k_step: usize,
    /// Rows of zeros fill up to a multiple of this and of the rows of a panel.
    pub(super) row_step: usize,
}

/// Rounded activations. Every array starts with the first panel and has padding rows of zeros.
#[derive(Clone, Copy)]
pub(super) struct Activations<'a> {
    /// `[panel][k / 4][R][4]` bytes.
    codes: &'a [f32],
    /// `[panel][block][R]`
    scales: &'a [f32],
    /// `[panel][group][R]`, bits as [`Sums`] says.
    sums: &'a [f32],
    /// `R`
    pub(super) tile: usize,
    pub(super) panels: usize,
    blocks: usize,
    groups: usize,
    padded_k: usize,
}

impl Activations<'_> {
    pub(super) fn codes(&self, panel: usize) -> *const u8 {
        self.codes[panel * self.padded_k / 4 * self.tile..]
            .as_ptr()
            .cast()
    }

    pub(super) fn scales(&self, panel: usize) -> *const f32 {
        self.scales[panel * self.blocks * self.tile..].as_ptr()
    }

    pub(super) fn sums(&self, panel: usize) -> *const f32 {
        self.sums[panel * self.groups * self.tile..].as_ptr()
    }
}

/// Rounds `x` `[m, k]` and runs `task` with the result, packed in panels of `tile` rows.
pub(super) fn with_rounded<T>(
    x: &[f32],
    m: usize,
    k: usize,
    rounding: Rounding,
    tile: usize,
    task: impl FnOnce(Activations) -> T,
) -> T {
    let panels = m.next_multiple_of(rounding.row_step).div_ceil(tile);
    let blocks = k.div_ceil(rounding.block);
    let groups = k.div_ceil(rounding.group);
    let padded_k = k.next_multiple_of(rounding.k_step);
    // Whole cache lines, so that the arrays start on one.
    let lens = [padded_k / 4, blocks, groups].map(|n| (panels * n * tile).next_multiple_of(16));
    with_scratch(lens.iter().sum(), |scratch| {
        let (codes, rest) = scratch.split_at_mut(lens[0]);
        let (scales, sums) = rest.split_at_mut(lens[1]);
        let shared = [&mut *codes, &mut *scales, &mut *sums].map(SharedMut::new);
        parallel::for_each_task_of(64 * tile * k, panels, |panel| {
            // SAFETY: every panel has its own part of each array, within the lengths above.
            let part = |all: SharedMut, len: usize| unsafe {
                std::slice::from_raw_parts_mut(all.ptr().add(panel * len), len)
            };
            let packed = Packed {
                codes: part(shared[0], padded_k / 4 * tile),
                scales: part(shared[1], blocks * tile),
                sums: part(shared[2], groups * tile),
            };
            let first = panel * tile;
            let rows = &x[first.min(m) * k..(first + tile).min(m) * k];
            round_panel(rows, k, rounding, tile, packed);
        });
        task(Activations {
            codes,
            scales,
            sums,
            tile,
            panels,
            blocks,
            groups,
            padded_k,
        })
    })
}

/// Where a panel goes.
struct Packed<'a> {
    codes: &'a mut [f32],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
}

simd_dispatch! {
    /// Rounds up to `tile` rows; those that `x` does not have become zeros.
    fn round_panel(x: &[f32], k: usize, rounding: Rounding, tile: usize, packed: Packed)
        = round_panel_kernel;
}

#[inline(always)]
fn round_panel_kernel<S: Simd>(
    _: S,
    x: &[f32],
    k: usize,
    rounding: Rounding,
    tile: usize,
    packed: Packed,
) {
    let rows = x.len() / k;
    if rows < tile {
        packed.codes.fill(0.0);
        packed.scales.fill(0.0);
        packed.sums.fill(0.0);
    }
    for (row, x) in x.chunks_exact(k).enumerate() {
        // Padding along k.
        for quad in packed.codes[k / 4 * tile..].chunks_exact_mut(tile) {
            quad[row] = 0.0;
        }
        for (b, x) in x.chunks(rounding.block).enumerate() {
            let scale = scale_of(x);
            packed.scales[b * tile + row] = scale.scale;
            let first_group = b * (rounding.block / rounding.group);
            for (g, x) in x.chunks(rounding.group).enumerate() {
                let at = b * rounding.block + g * rounding.group;
                let sum = round_group(
                    x,
                    scale.inverse,
                    &mut packed.codes[at / 4 * tile..],
                    row,
                    tile,
                );
                packed.sums[(first_group + g) * tile + row] = match rounding.sums {
                    Sums::Start { zero } => f32::from_bits(sum.wrapping_mul(-zero).cast_unsigned()),
                    Sums::Plain => sum as f32,
                };
            }
        }
    }
}

/// The scale of a block and its reciprocal.
pub(super) struct Scale {
    pub(super) scale: f32,
    pub(super) inverse: f32,
}

/// `max |x| / 127`, or NaN if an element is not finite: then every product must be.
#[inline(always)]
pub(super) fn scale_of(x: &[f32]) -> Scale {
    // Magnitudes compare like their bits, infinity and NaN above all numbers.
    let magnitude = |x: f32| x.to_bits() & 0x7fff_ffff;
    let (vectors, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0; LANES];
    for x in vectors {
        for (most, &x) in lanes.iter_mut().zip(x) {
            *most = magnitude(x).max(*most);
        }
    }
    let largest = lanes
        .into_iter()
        .chain(rest.iter().map(|&x| magnitude(x)))
        .fold(0, u32::max);
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        Scale {
            scale: f32::NAN,
            inverse: 0.0,
        }
    } else if largest < NEGLIGIBLE {
        Scale {
            scale: 0.0,
            inverse: 0.0,
        }
    } else {
        Scale {
            scale: largest / LARGEST,
            inverse: LARGEST / largest,
        }
    }
}

/// The nearest integer to `x * inverse`, ties to even, for results of less than 2^22: adding
/// 1.5 * 2^23 leaves it in the lowest bits, without a conversion that would check its range.
#[inline(always)]
pub(super) fn round(x: f32, inverse: f32) -> i8 {
    const SHIFT: f32 = 12_582_912.0;
    (x * inverse + SHIFT).to_bits() as i8
}

/// Rounds one group of one row into units of four codes, `tile` units apart; the sum of its codes.
#[inline(always)]
fn round_group(x: &[f32], inverse: f32, codes: &mut [f32], row: usize, tile: usize) -> i32 {
    let mut sums = [0; LANES];
    let (vectors, rest) = x.as_chunks::<LANES>();
    let mut units = codes.chunks_exact_mut(LANES / 4 * tile);
    for (x, units) in vectors.iter().zip(&mut units) {
        round_vector(x, inverse, units, row, tile, &mut sums);
    }
    // Rows are padded to whole vectors.
    if let Some(units) = units.next()
        && !rest.is_empty()
    {
        let mut padded = [0.0; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        round_vector(&padded, inverse, units, row, tile, &mut sums);
    }
    sums.into_iter().fold(0, i32::wrapping_add)
}

#[inline(always)]
fn round_vector(
    x: &[f32; LANES],
    inverse: f32,
    units: &mut [f32],
    row: usize,
    tile: usize,
    sums: &mut [i32; LANES],
) {
    let mut codes = [0; LANES];
    for ((code, sum), &x) in codes.iter_mut().zip(sums).zip(x) {
        let rounded = round(x, inverse);
        *code = rounded.cast_unsigned();
        *sum = sum.wrapping_add(i32::from(rounded));
    }
    for (unit, code) in units.chunks_exact_mut(tile).zip(codes.as_chunks::<4>().0) {
        unit[row] = f32::from_bits(u32::from_ne_bytes(*code));
    }
}
