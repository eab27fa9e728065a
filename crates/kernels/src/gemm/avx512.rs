//! Inner kernels on AVX-512: `f32` with FMA, bfloat16 with `vdpbf16ps`.

use super::blocked::{Block, BlockKernel, PANEL, Source};
use crate::simd::{Avx512, transpose16};
use std::arch::x86_64::*;

/// Rows of the largest register block; with three panels of columns it holds 24 of 32 registers.
const ROWS: usize = 8;

/// The order of units in a panel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// `[unit][16]`: a vector holds one unit of each row or column.
    UnitMajor,
    /// `[unit / 16][16][16]`: a vector holds 16 units of one row, as an AMX tile of `a`.
    OuterMajor,
}

/// `f32` operands.
#[derive(Clone, Copy)]
pub(crate) struct F32Kernel(Avx512);

/// bfloat16 operands.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Kernel(Avx512);

impl F32Kernel {
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL.
    pub(super) unsafe fn assume_detected() -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { Avx512::assume_detected() })
    }
}

impl Bf16Kernel {
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ, VL and BF16.
    pub(super) unsafe fn assume_detected() -> Self {
        // SAFETY: promised by the caller.
        Self(unsafe { Avx512::assume_detected() })
    }
}

impl BlockKernel for F32Kernel {
    const DEPTH: usize = 1;
    const UNIT_STEP: usize = 1;
    const PANEL_STEP: usize = 1;

    unsafe fn pack_a(self, src: Source, dst: *mut f32, units: usize) {
        // SAFETY: the token proves the features, the caller the extents.
        unsafe { pack_f32(self.0, src, dst, units) }
    }

    unsafe fn pack_b(self, src: Source, dst: *mut f32, units: usize) {
        // SAFETY: the token proves the features, the caller the extents.
        unsafe { pack_f32(self.0, src, dst, units) }
    }

    unsafe fn multiply(self, block: Block) {
        // SAFETY: the token proves the features, the caller the extents.
        unsafe { multiply_f32(block) }
    }
}

impl BlockKernel for Bf16Kernel {
    const DEPTH: usize = 2;
    const UNIT_STEP: usize = 1;
    const PANEL_STEP: usize = 1;

    unsafe fn pack_a(self, src: Source, dst: *mut f32, units: usize) {
        // SAFETY: the token proves the features, the caller the extents.
        unsafe { pack_bf16(self.0, src, dst, units, Order::UnitMajor) }
    }

    unsafe fn pack_b(self, src: Source, dst: *mut f32, units: usize) {
        // SAFETY: the token proves the features, the caller the extents.
        unsafe { pack_bf16(self.0, src, dst, units, Order::UnitMajor) }
    }

    unsafe fn multiply(self, block: Block) {
        // SAFETY: the token proves the features, the caller the extents.
        unsafe { multiply_bf16(block) }
    }
}

/// The lowest `n` lanes (all from 16 on).
#[inline(always)]
pub(super) fn lanes(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1u16 << n) - 1 }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pack_f32(token: Avx512, src: Source, dst: *mut f32, units: usize) {
    for first in (0..units).step_by(PANEL) {
        let k = src.k.saturating_sub(first).min(PANEL);
        // SAFETY: rows below `outer` and elements below `k` are readable, others masked off.
        let rows = unsafe {
            let at = src.ptr.wrapping_add(first * src.k_stride);
            if src.k_stride == 1 {
                let mut rows = load_rows(at, src.outer, src.outer_stride, k);
                transpose16(token, &mut rows);
                rows
            } else if src.outer_stride == 1 {
                ask_for_rows_beside(at, k, src.k_stride);
                load_rows(at, k, src.k_stride, src.outer)
            } else {
                gather_rows(at, k, src.k_stride, src.outer, src.outer_stride)
            }
        };
        for (unit, row) in rows.iter().enumerate().take(units - first) {
            // SAFETY: `first + unit < units`.
            unsafe { _mm512_storeu_ps(dst.add((first + unit) * PANEL), *row) };
        }
    }
}

/// Packs as bfloat16; with [`Order::OuterMajor`] `units` is a multiple of 16.
///
/// # Safety
/// The processor has AVX-512 BF16; `src` is readable and `dst` writable over their extents.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_bf16(
    token: Avx512,
    src: Source,
    dst: *mut f32,
    units: usize,
    order: Order,
) {
    for first in (0..units).step_by(PANEL) {
        let k = src.k.saturating_sub(2 * first).min(2 * PANEL);
        let at = src.ptr.wrapping_add(2 * first * src.k_stride);
        // SAFETY: rows below `outer` and elements below `k` are readable, others masked off.
        let (mut rows, found) = unsafe {
            if src.k_stride == 1 {
                let low = load_rows(at, src.outer, src.outer_stride, k.min(PANEL));
                let next = at.wrapping_add(PANEL);
                let high = load_rows(next, src.outer, src.outer_stride, k.saturating_sub(PANEL));
                let mut rows = low;
                for (row, (low, high)) in rows.iter_mut().zip(low.iter().zip(&high)) {
                    *row = from_bf16(_mm512_cvtne2ps_pbh(*high, *low));
                }
                (rows, Order::OuterMajor)
            } else {
                let (even, odd);
                let next = at.wrapping_add(src.k_stride);
                let stride = 2 * src.k_stride;
                if src.outer_stride == 1 {
                    ask_for_rows_beside(at, k, src.k_stride);
                    even = load_rows(at, k.div_ceil(2), stride, src.outer);
                    odd = load_rows(next, k / 2, stride, src.outer);
                } else {
                    let outer_stride = src.outer_stride;
                    even = gather_rows(at, k.div_ceil(2), stride, src.outer, outer_stride);
                    odd = gather_rows(next, k / 2, stride, src.outer, outer_stride);
                }
                let mut rows = even;
                for (row, (even, odd)) in rows.iter_mut().zip(even.iter().zip(&odd)) {
                    *row = interleave(_mm512_cvtne2ps_pbh(*odd, *even));
                }
                (rows, Order::UnitMajor)
            }
        };
        if found != order {
            transpose16(token, &mut rows);
        }
        let stored = match order {
            Order::UnitMajor => units - first,
            Order::OuterMajor => PANEL,
        };
        for (i, row) in rows.iter().enumerate().take(stored) {
            // SAFETY: the last row written is `first + i < units`, or `units` is a multiple of 16.
            unsafe { _mm512_storeu_ps(dst.add((first + i) * PANEL), *row) };
        }
    }
}

#[inline(always)]
fn from_bf16(v: __m512bh) -> __m512 {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(v) }
}

/// Alternates the lower and the upper sixteen elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleave(v: __m512bh) -> __m512 {
    const ALTERNATE: [u16; 32] = {
        let mut index = [0; 32];
        let mut i = 0;
        while i < 16 {
            index[2 * i] = i as u16;
            index[2 * i + 1] = 16 + i as u16;
            i += 1;
        }
        index
    };
    // SAFETY: the table is 64 bytes; the transmuted types are 64 bytes without invalid values.
    unsafe {
        let index = _mm512_loadu_si512(ALTERNATE.as_ptr().cast());
        _mm512_castsi512_ps(_mm512_permutexvar_epi16(
            index,
            std::mem::transmute::<__m512bh, __m512i>(v),
        ))
    }
}

/// Asks for the lines of `count` rows that panels to come are packed from: too many rows pass by at once for the processor
/// to see that each goes on.
#[inline]
#[target_feature(enable = "avx512f")]
fn ask_for_rows_beside(ptr: *const f32, count: usize, stride: usize) {
    const PANELS_AHEAD: usize = 8;
    for i in 0..count {
        let line = ptr.wrapping_add(PANELS_AHEAD * PANEL + i * stride);
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
}

/// Loads `count` rows of `len` elements; the rest is zero. `count` and `len` are at most 16.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_rows(ptr: *const f32, count: usize, stride: usize, len: usize) -> [__m512; 16] {
    let mut rows = [_mm512_setzero_ps(); 16];
    let mask = lanes(len);
    for (i, row) in rows.iter_mut().enumerate().take(count) {
        // SAFETY: the caller promises these elements; others are masked off.
        *row = unsafe { _mm512_maskz_loadu_ps(mask, ptr.wrapping_add(i * stride)) };
    }
    rows
}

/// As [`load_rows`] for elements that are `inner` apart.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gather_rows(
    ptr: *const f32,
    count: usize,
    stride: usize,
    len: usize,
    inner: usize,
) -> [__m512; 16] {
    let mut rows = [_mm512_setzero_ps(); 16];
    for (i, row) in rows.iter_mut().enumerate().take(count) {
        let mut elements = [0.0; 16];
        for (j, element) in elements.iter_mut().enumerate().take(len) {
            // SAFETY: the caller promises these elements.
            *element = unsafe { *ptr.wrapping_add(i * stride + j * inner) };
        }
        // SAFETY: `elements` has 16 floats.
        *row = unsafe { _mm512_loadu_ps(elements.as_ptr()) };
    }
    rows
}

/// The loops over register blocks, the same for both formats: `$tile` computes one.
macro_rules! define_multiply {
    ($name:ident, $tile:ident, $features:literal, |$sum:ident, $a:ident, $b:ident| $step:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(block: Block) {
            let panels = block.columns.div_ceil(PANEL);
            // Few rows: more columns at a time instead, so that there are as many independent sums.
            let wide = if block.rows <= 4 { 6 } else { 3 };
            let mut panel = 0;
            while panel < panels {
                let count = (panels - panel).min(wide);
                // A register block of its own for every count would be much code for little.
                let count = if count == 4 || count == 5 { 3 } else { count };
                for row in (0..block.rows).step_by(ROWS) {
                    let rows = ROWS.min(block.rows - row);
                    // SAFETY: promised by the caller.
                    unsafe {
                        match (rows, count) {
                            (1, 6) => $tile::<1, 6>(&block, row, panel),
                            (1, 3) => $tile::<1, 3>(&block, row, panel),
                            (1, 2) => $tile::<1, 2>(&block, row, panel),
                            (1, _) => $tile::<1, 1>(&block, row, panel),
                            (2, 6) => $tile::<2, 6>(&block, row, panel),
                            (2..=4, 6) => $tile::<4, 6>(&block, row, panel),
                            (2..=4, 3) => $tile::<4, 3>(&block, row, panel),
                            (2..=4, 2) => $tile::<4, 2>(&block, row, panel),
                            (2..=4, _) => $tile::<4, 1>(&block, row, panel),
                            (_, 3) => $tile::<8, 3>(&block, row, panel),
                            (_, 2) => $tile::<8, 2>(&block, row, panel),
                            _ => $tile::<8, 1>(&block, row, panel),
                        }
                    }
                }
                panel += count;
            }
        }

        /// `R` rows by `N` panels of columns.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn $tile<const R: usize, const N: usize>(block: &Block, row: usize, panel: usize) {
            let mut sums = [[_mm512_setzero_ps(); N]; R];
            let length = block.units * PANEL;
            let rows = R.min(block.rows - row);
            let columns = block.columns - panel * PANEL;
            // SAFETY: `a` holds rows up to a whole panel, `b` `N` panels from `panel`; `c` is
            // accessed in the block's rows and columns only.
            unsafe {
                let mut a = block.a.add(row / PANEL * length + row % PANEL);
                let mut b = block.b.add(panel * block.b_panel);
                let c = block.c.add(row * block.c_stride + panel * PANEL);
                for i in 0..R {
                    // Fixed bounds keep the sums in registers.
                    if i >= rows {
                        continue;
                    }
                    for j in 0..N {
                        let at = c.wrapping_add(i * block.c_stride + j * PANEL);
                        if block.accumulate {
                            sums[i][j] = _mm512_maskz_loadu_ps(lanes(columns - j * PANEL), at);
                        } else {
                            // Owning the lines by the time they are stored hides the misses.
                            _mm_prefetch::<_MM_HINT_ET0>(at.cast());
                        }
                    }
                }
                for _ in 0..block.units {
                    let mut columns = [_mm512_setzero_ps(); N];
                    for j in 0..N {
                        columns[j] = _mm512_loadu_ps(b.add(j * block.b_panel));
                    }
                    for i in 0..R {
                        let $a = _mm512_set1_ps(*a.add(i));
                        for j in 0..N {
                            let ($sum, $b) = (sums[i][j], columns[j]);
                            sums[i][j] = $step;
                        }
                    }
                    a = a.add(PANEL);
                    b = b.add(PANEL);
                }
                for i in 0..R {
                    if i >= rows {
                        continue;
                    }
                    for j in 0..N {
                        let at = c.add(i * block.c_stride + j * PANEL);
                        let mask = lanes(columns - j * PANEL);
                        _mm512_mask_storeu_ps(at, mask, sums[i][j]);
                    }
                }
            }
        }
    };
}

define_multiply!(
    multiply_f32,
    tile_f32,
    "avx512f,avx512bw,avx512dq,avx512vl,fma",
    |sum, a, b| _mm512_fmadd_ps(a, b, sum)
);
define_multiply!(
    multiply_bf16,
    tile_bf16,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
    |sum, a, b| _mm512_dpbf16_ps(sum, to_bf16(a), to_bf16(b))
);

#[inline(always)]
fn to_bf16(v: __m512) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(v) }
}
