//! How quantized weights are packed for the kernels.
//!
//! A panel is 16 rows; it holds the blocks of its rows one after the other along `k`, the same
//! block of all 16 rows together and in as many bytes as in the file (but for the 6-bit scales,
//! which take whole bytes). Inside a block:
//!
//! | part | bytes |
//! |---|---|
//! | scales of scales `[16]`, f16 | 32 |
//! | scales of minima `[16]`, f16 (Q4_K, Q5_K) | 32 |
//! | scales `[group][16]` (Q4_K, Q5_K, Q6_K) | 16 per group |
//! | minima `[group][16]` (Q4_K, Q5_K) | 16 per group |
//! | codes | 64 per 4 (8 bits) or 8 (low bits) weights of a row, before them high bits |
//!
//! Low and high bits stand so that shifts and masks turn a line of 64 bytes into lines of codes
//! `[16 rows][4]`. Four such lines, 16 neighbours along `k`, are a *quad*. A line of high bits stands before the low
//! bits of the one (Q6_K) or two quads (Q5_0, Q5_K) that it belongs to: codes are read from start to end, which is what
//! processors fetch ahead (with all high bits in front of all low ones Q6_K came from memory at a third of the speed).

use super::format::{BlockFormat, MAX_BLOCK, Parts};
use super::lanes::{Lanes, PANEL};
use crate::simd::each;
use std::marker::PhantomData;

const LINE: usize = 64;

/// Bytes of a quad of low bits.
const fn quad_bytes(format: BlockFormat) -> usize {
    if format.bits() == 8 { 256 } else { 128 }
}

const fn has_group_scales(format: BlockFormat) -> bool {
    format.block_len() == MAX_BLOCK
}

const fn groups(format: BlockFormat) -> usize {
    format.block_len() / format.group_len()
}

const HALVES: usize = 2 * PANEL;

const fn scales_at(format: BlockFormat) -> usize {
    if format.has_mins() {
        2 * HALVES
    } else {
        HALVES
    }
}

const fn mins_at(format: BlockFormat) -> usize {
    scales_at(format)
        + if has_group_scales(format) {
            groups(format) * PANEL
        } else {
            0
        }
}

/// Quads that share a line of high bits; 0 where there are none.
const fn quads_per_high(format: BlockFormat) -> usize {
    match format.bits() {
        5 => 2,
        6 => 1,
        _ => 0,
    }
}

const fn codes_at(format: BlockFormat) -> usize {
    mins_at(format)
        + if format.has_mins() {
            groups(format) * PANEL
        } else {
            0
        }
}

/// Where the high bits of a quad stand.
const fn high_at(format: BlockFormat, quad: usize) -> usize {
    let shared = quads_per_high(format);
    codes_at(format) + quad / shared * (LINE + shared * quad_bytes(format))
}

/// Where a quad's low bits, or all of its bits, stand.
const fn low_at(format: BlockFormat, quad: usize) -> usize {
    let own = quad_bytes(format);
    match quads_per_high(format) {
        0 => codes_at(format) + quad * own,
        shared => high_at(format, quad) + LINE + quad % shared * own,
    }
}

/// Bytes of the same block of 16 rows.
pub(super) const fn panel_block_bytes(format: BlockFormat) -> usize {
    let quads = format.block_len() / 16;
    match quads_per_high(format) {
        0 => low_at(format, quads),
        _ => high_at(format, quads),
    }
}

/// A byte of a packed block and a shift in it.
type Place = (usize, u32);

/// Where code `at` of row 0 stands: its byte and shift, and those of its high bits. Other rows
/// follow four bytes apart.
fn place(format: BlockFormat, at: usize) -> (Place, Option<Place>) {
    let (quad, vector) = (at / 16, at % 16 / 4);
    let byte = at % 4;
    let low = low_at(format, quad);
    if format.bits() == 8 {
        return ((low + vector * 64 + byte, 0), None);
    }
    let low = (low + vector / 2 * 64 + byte, (vector % 2) as u32 * 4);
    let high = match format.bits() {
        5 => Some((quad % 2 * 4 + vector) as u32),
        6 => Some(vector as u32 * 2),
        _ => None,
    };
    let high = high.map(|shift| (high_at(format, quad) + byte, shift));
    (low, high)
}

/// Where the codes of a block stand, for row 0.
pub(super) struct Packing {
    format: BlockFormat,
    places: Vec<(Place, Option<Place>)>,
}

impl Packing {
    pub(super) fn new(format: BlockFormat) -> Self {
        let places = (0..format.block_len()).map(|at| place(format, at));
        Self {
            format,
            places: places.collect(),
        }
    }

    /// Adds a block of row `row` to a zeroed `packed` block of the panel.
    pub(super) fn pack_block(&self, parts: &Parts, row: usize, packed: &mut [u8]) {
        let format = self.format;
        let mut put = |at: usize, half: u16| {
            packed[at + 2 * row..][..2].copy_from_slice(&half.to_le_bytes());
        };
        put(0, parts.d);
        if format.has_mins() {
            put(HALVES, parts.dmin);
        }
        for group in 0..groups(format) {
            if has_group_scales(format) {
                packed[scales_at(format) + group * PANEL + row] = parts.scales[group];
            }
            if format.has_mins() {
                packed[mins_at(format) + group * PANEL + row] = parts.mins[group];
            }
        }
        let low_mask = if format.bits() == 8 { 255 } else { 15 };
        for (code, &(low, high)) in parts.codes.iter().zip(&self.places) {
            packed[low.0 + 4 * row] |= (code & low_mask) << low.1;
            if let Some(high) = high {
                packed[high.0 + 4 * row] |= (code >> 4) << high.1;
            }
        }
    }

    /// The block of row `row` of a packed block: the inverse of [`Self::pack_block`].
    pub(super) fn unpack_block(&self, packed: &[u8], row: usize) -> Parts {
        let format = self.format;
        let half = |at: usize| u16::from_le_bytes([packed[at + 2 * row], packed[at + 2 * row + 1]]);
        let mut parts = Parts::ZERO;
        parts.d = half(0);
        if format.has_mins() {
            parts.dmin = half(HALVES);
        }
        for group in 0..groups(format) {
            if has_group_scales(format) {
                parts.scales[group] = packed[scales_at(format) + group * PANEL + row];
            }
            if format.has_mins() {
                parts.mins[group] = packed[mins_at(format) + group * PANEL + row];
            }
        }
        let (low_mask, high_mask) = match format.bits() {
            8 => (255, 0),
            bits => (15, (1 << (bits - 4)) - 1),
        };
        for (code, &(low, high)) in parts.codes.iter_mut().zip(&self.places) {
            *code = packed[low.0 + 4 * row] >> low.1 & low_mask;
            if let Some(high) = high {
                *code |= (packed[high.0 + 4 * row] >> high.1 & high_mask) << 4;
            }
        }
        parts
    }
}

/// Blocks of a panel as the kernels read them.
pub(super) trait Source: Copy + Send + Sync {
    const FORMAT: BlockFormat;
    /// Distance between blocks.
    const BYTES: usize;
    /// Whether a block starts with a byte per code, quad after quad.
    const UNPACKED: bool = false;

    /// The codes of quad `quad` of the block.
    ///
    /// # Safety
    /// A whole block is readable at `block`, and `quad` lies in it.
    unsafe fn quad<S: Lanes>(s: S, block: *const u8, quad: usize) -> [S::Bytes; 4];
    /// The scales of group `group`.
    ///
    /// # Safety
    /// As for [`Self::quad`].
    unsafe fn scale<S: Lanes>(s: S, block: *const u8, group: usize) -> S::Floats;
    /// The minima of group `group`, of a format that has them.
    ///
    /// # Safety
    /// As for [`Self::quad`].
    unsafe fn min<S: Lanes>(s: S, block: *const u8, group: usize) -> S::Floats;
}

macro_rules! formats {
    ($($name:ident),*) => {$(
        /// Packed blocks of the format of the same name.
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Source for $name {
            const FORMAT: BlockFormat = BlockFormat::$name;
            const BYTES: usize = panel_block_bytes(BlockFormat::$name);

            #[inline(always)]
            unsafe fn quad<S: Lanes>(s: S, block: *const u8, quad: usize) -> [S::Bytes; 4] {
                // SAFETY: promised by the caller.
                unsafe { packed_quad::<S, Self>(s, block, quad) }
            }
            #[inline(always)]
            unsafe fn scale<S: Lanes>(s: S, block: *const u8, group: usize) -> S::Floats {
                // SAFETY: promised by the caller.
                unsafe { packed_scale::<S, Self>(s, block, group) }
            }
            #[inline(always)]
            unsafe fn min<S: Lanes>(s: S, block: *const u8, group: usize) -> S::Floats {
                // SAFETY: promised by the caller.
                unsafe {
                    let mins = s.load_unsigned(block.add(mins_at(Self::FORMAT) + group * PANEL));
                    s.mul(s.load_halves(block.add(HALVES)), mins)
                }
            }
        }
    )*};
}
formats!(Q4_0, Q5_0, Q8_0, Q4K, Q5K, Q6K);

/// # Safety
/// As for [`Source::quad`].
#[inline(always)]
unsafe fn packed_quad<S: Lanes, F: Source>(s: S, block: *const u8, quad: usize) -> [S::Bytes; 4] {
    // SAFETY: promised by the caller.
    unsafe {
        let low = block.add(low_at(F::FORMAT, quad));
        if F::FORMAT.bits() == 8 {
            return [
                s.load(low),
                s.load(low.add(64)),
                s.load(low.add(128)),
                s.load(low.add(192)),
            ];
        }
        let (first, second) = (s.load(low), s.load(low.add(64)));
        let low = [
            s.and(first, 15),
            s.and(s.shift_right::<4>(first), 15),
            s.and(second, 15),
            s.and(s.shift_right::<4>(second), 15),
        ];
        let high = match F::FORMAT.bits() {
            5 => {
                let line = s.load(block.add(high_at(F::FORMAT, quad)));
                let lines = if quad.is_multiple_of(2) {
                    [
                        s.shift_left::<4>(line),
                        s.shift_left::<3>(line),
                        s.shift_left::<2>(line),
                        s.shift_left::<1>(line),
                    ]
                } else {
                    [
                        line,
                        s.shift_right::<1>(line),
                        s.shift_right::<2>(line),
                        s.shift_right::<3>(line),
                    ]
                };
                each!(i in 4 => s.and(lines[i], 0x10))
            }
            6 => {
                let line = s.load(block.add(high_at(F::FORMAT, quad)));
                let lines = [
                    s.shift_left::<4>(line),
                    s.shift_left::<2>(line),
                    line,
                    s.shift_right::<2>(line),
                ];
                each!(i in 4 => s.and(lines[i], 0x30))
            }
            _ => return low,
        };
        [
            s.or(low[0], high[0]),
            s.or(low[1], high[1]),
            s.or(low[2], high[2]),
            s.or(low[3], high[3]),
        ]
    }
}

/// # Safety
/// As for [`Source::scale`].
#[inline(always)]
unsafe fn packed_scale<S: Lanes, F: Source>(s: S, block: *const u8, group: usize) -> S::Floats {
    // SAFETY: promised by the caller.
    unsafe {
        let d = s.load_halves(block);
        if !has_group_scales(F::FORMAT) {
            return d;
        }
        let scales = block.add(scales_at(F::FORMAT) + group * PANEL);
        if F::FORMAT.has_mins() {
            s.mul(d, s.load_unsigned(scales))
        } else {
            s.mul(d, s.load_signed(scales))
        }
    }
}

/// Blocks of `F` with a byte per code and scales and minima as `f32`: what a tile of many rows of
/// activations reads again and again.
#[derive(Clone, Copy)]
pub(super) struct Unpacked<F>(PhantomData<F>);

impl<F: Source> Unpacked<F> {
    const GROUPS: usize = groups(F::FORMAT);
    const SCALES_AT: usize = F::FORMAT.block_len() * PANEL;
    const MINS_AT: usize = Self::SCALES_AT + Self::GROUPS * PANEL * 4;

    /// Unpacks one block.
    ///
    /// # Safety
    /// A packed block is readable at `block`, [`Source::BYTES`] are writable at `dst`, which is
    /// aligned for floats.
    #[inline(always)]
    pub(super) unsafe fn unpack<S: Lanes>(s: S, block: *const u8, dst: *mut u8) {
        // SAFETY: promised by the caller.
        unsafe {
            for quad in 0..F::FORMAT.block_len() / 16 {
                let lines = F::quad(s, block, quad);
                for (i, line) in lines.into_iter().enumerate() {
                    s.store(dst.add(quad * 256 + i * 64), line);
                }
            }
            for group in 0..Self::GROUPS {
                let at = group * PANEL * 4;
                let scale = dst.add(Self::SCALES_AT + at).cast();
                s.store_floats(scale, F::scale(s, block, group));
                if F::FORMAT.has_mins() {
                    let min = dst.add(Self::MINS_AT + at).cast();
                    s.store_floats(min, F::min(s, block, group));
                }
            }
        }
    }
}

impl<F: Source> Source for Unpacked<F> {
    const FORMAT: BlockFormat = F::FORMAT;
    const UNPACKED: bool = true;
    const BYTES: usize = if F::FORMAT.has_mins() {
        Self::MINS_AT + Self::GROUPS * PANEL * 4
    } else {
        Self::MINS_AT
    };

    #[inline(always)]
    unsafe fn quad<S: Lanes>(s: S, block: *const u8, quad: usize) -> [S::Bytes; 4] {
        // SAFETY: promised by the caller.
        unsafe {
            let block = block.add(quad * 256);
            [
                s.load(block),
                s.load(block.add(64)),
                s.load(block.add(128)),
                s.load(block.add(192)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn scale<S: Lanes>(s: S, block: *const u8, group: usize) -> S::Floats {
        // SAFETY: promised by the caller.
        unsafe { s.load_floats(block.add(Self::SCALES_AT + group * PANEL * 4).cast()) }
    }
    #[inline(always)]
    unsafe fn min<S: Lanes>(s: S, block: *const u8, group: usize) -> S::Floats {
        // SAFETY: promised by the caller.
        unsafe { s.load_floats(block.add(Self::MINS_AT + group * PANEL * 4).cast()) }
    }
}
