//! Activations rounded to 8 bits, a scale per block of a row.
//!
//! As in ggml's `block_q8_K` and `block_q8_0`, `x = scale * code` with codes in -127..=127 and
//! `scale = max |x| / 127`. Rows are packed in panels of `R` for the kernels: four neighbours along
//! `k` of each row, `[k / 4][R][4]`.

use crate::parallel::{self, SharedMut};
use crate::scratch::with_scratch;
use crate::simd::{MOST_LANES, Simd, simd_dispatch};

/// The largest code.
const LARGEST: f32 = 127.0;
/// Blocks whose largest magnitude is below this are taken as 0: its reciprocal might overflow.
const NEGLIGIBLE: f32 = 1e-30;

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
            let unturned = if tile > 1 { packed.codes.len() } else { 0 };
            with_scratch(unturned, |unturned| {
                round_panel(rows, k, rounding, tile, packed, unturned);
            });
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
    /// Rounds up to `tile` rows; those that `x` does not have become zeros. `unturned` has as many floats as the codes,
    /// unless there is only one row.
    fn round_panel(
        x: &[f32], k: usize, rounding: Rounding, tile: usize, packed: Packed, unturned: &mut [f32],
    ) = round_panel_kernel;
}

#[inline(always)]
fn round_panel_kernel<S: Simd>(
    s: S,
    x: &[f32],
    k: usize,
    rounding: Rounding,
    tile: usize,
    packed: Packed,
    unturned: &mut [f32],
) {
    let rows = x.len() / k;
    let units = packed.codes.len() / tile;
    if rows < tile {
        packed.codes.fill(0.0);
        packed.scales.fill(0.0);
        packed.sums.fill(0.0);
    }
    // Row by row first: units of neighbouring rows lie too far apart to be written as vectors.
    let turned = tile > 1;
    let by_row = match turned {
        true => &mut *unturned,
        false => &mut *packed.codes,
    };
    let by_row = x.chunks_exact(k).zip(by_row.chunks_exact_mut(units));
    for (row, (x, codes)) in by_row.enumerate() {
        let statistics = (&mut *packed.scales, &mut *packed.sums);
        round_row(s, x, rounding, codes, statistics, (row, tile));
    }
    if turned {
        assert!(unturned.len() >= rows * units);
        let (from, to) = (unturned.as_ptr(), packed.codes.as_mut_ptr());
        // SAFETY: `rows` rows of `units` each, and as many in units of `tile` rows.
        unsafe { s.transpose(from, units, rows, units, to, tile) };
    }
}

/// Rounds row `row` of `tile` to `codes`, units of four, zeros behind the last; the scales of blocks and the sums of groups
/// of all rows stand beside each other.
#[inline(always)]
fn round_row<S: Simd>(
    s: S,
    x: &[f32],
    rounding: Rounding,
    codes: &mut [f32],
    (scales, sums): (&mut [f32], &mut [f32]),
    (row, tile): (usize, usize),
) {
    codes[x.len() / 4..].fill(0.0);
    let groups_per_block = rounding.block / rounding.group;
    let blocks = x.chunks(rounding.block);
    let blocks = blocks.zip(codes.chunks_mut(rounding.block.div_ceil(4)));
    for (b, (x, codes)) in blocks.enumerate() {
        let scale = scale_kernel(s, x);
        scales[b * tile + row] = scale.scale;
        let groups = x.chunks(rounding.group);
        let groups = groups.zip(codes.chunks_mut(rounding.group.div_ceil(4)));
        for (g, (x, codes)) in groups.enumerate() {
            let sum = round_group(s, x, scale.inverse, codes);
            sums[(b * groups_per_block + g) * tile + row] = match rounding.sums {
                Sums::Start { zero } => f32::from_bits(sum.wrapping_mul(-zero).cast_unsigned()),
                Sums::Plain => sum as f32,
            };
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
fn scale_kernel<S: Simd>(s: S, x: &[f32]) -> Scale {
    let (mut largest, mut zero) = (s.zero(), s.zero());
    for x in x.chunks(S::LANES) {
        let x = s.load(x);
        largest = s.max(s.abs(x), largest);
        // Infinity or NaN times 0 is NaN, which the maximum may have passed over.
        zero = s.mul_add(x, s.zero(), zero);
    }
    let largest = s.maximum(largest);
    if s.sum(zero).is_nan() {
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

simd_dispatch! {
    /// The scale of a row of weights.
    pub(super) fn scale_of(x: &[f32]) -> Scale = scale_kernel;
}

/// The nearest integer to `x * inverse`, ties to even, for results of less than 2^22: adding
/// 1.5 * 2^23 leaves it in the lowest bits, without a conversion that would check its range.
#[inline(always)]
pub(super) fn round(x: f32, inverse: f32) -> i8 {
    const SHIFT: f32 = 12_582_912.0;
    (x * inverse + SHIFT).to_bits() as i8
}

/// Rounds one group into units of four codes, zeros behind the last; the sum of its codes.
#[inline(always)]
fn round_group<S: Simd>(s: S, x: &[f32], inverse: f32, codes: &mut [f32]) -> i32 {
    assert!(4 * codes.len() >= x.len());
    let bytes = codes.as_mut_ptr().cast::<i8>();
    let inverse = s.splat(inverse);
    // Of integers below 2^24, and so exact.
    let mut sums = s.zero();
    let whole = x.len() / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        // SAFETY: there are as many bytes of codes as elements.
        unsafe {
            let rounded = s.round(s.mul(s.load_ptr(x.as_ptr().add(at)), inverse));
            sums = s.add(sums, rounded);
            s.store_bytes(bytes.add(at), rounded);
        }
    }
    if whole < x.len() {
        let rounded = s.round(s.mul(s.load(&x[whole..]), inverse));
        sums = s.add(sums, rounded);
        let mut last = [0; MOST_LANES];
        let room = (4 * codes.len() - whole).min(S::LANES);
        // SAFETY: `last` has room for a vector, and the codes for as much as is copied.
        unsafe {
            s.store_bytes(last.as_mut_ptr(), rounded);
            std::ptr::copy_nonoverlapping(last.as_ptr(), bytes.add(whole), room);
        }
    }
    s.sum(sums) as i32
}
