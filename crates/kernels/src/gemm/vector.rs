//! The inner kernel on vectors of any width: what runs where there is no kernel of its own.

use super::blocked::{Block, BlockKernel, PANEL, Source};
use crate::simd::{Simd, simd_dispatch};

/// `f32` operands.
#[derive(Clone, Copy)]
pub(crate) struct VectorKernel;

impl BlockKernel for VectorKernel {
    const DEPTH: usize = 1;
    const UNIT_STEP: usize = 1;
    const PANEL_STEP: usize = 1;
    const CHUNK: usize = 256;
    const PART: usize = Self::CHUNK;
    const TASK_ROWS: usize = 144;

    unsafe fn pack_a(self, src: Source, dst: *mut f32, units: usize) {
        // SAFETY: promised by the caller.
        unsafe { pack(src, dst, units) }
    }

    unsafe fn pack_b(self, src: Source, dst: *mut f32, units: usize) {
        // SAFETY: promised by the caller.
        unsafe { pack(src, dst, units) }
    }

    unsafe fn multiply(self, block: Block) {
        multiply(&block);
    }
}

/// # Safety
/// `src` is readable over its extents, `dst` writable over `units * PANEL` floats.
unsafe fn pack(src: Source, dst: *mut f32, units: usize) {
    if src.outer_stride == 1 {
        // SAFETY: promised by the caller.
        unsafe { copy_units(src, dst, units) }
    } else {
        turn(src, dst, units);
    }
}

/// Units lie as they are packed.
///
/// # Safety
/// As for [`pack`], with an `outer_stride` of 1.
unsafe fn copy_units(src: Source, dst: *mut f32, units: usize) {
    let found = units.min(src.k);
    // SAFETY: promised by the caller.
    unsafe {
        for unit in 0..found {
            let from = src.ptr.wrapping_add(unit * src.k_stride);
            let to = dst.add(unit * PANEL);
            if src.outer == PANEL {
                // A length known here: two vectors, no call.
                to.cast::<[f32; PANEL]>()
                    .write_unaligned(from.cast::<[f32; PANEL]>().read_unaligned());
            } else {
                std::ptr::copy_nonoverlapping(from, to, src.outer);
                std::ptr::write_bytes(to.add(src.outer), 0, PANEL - src.outer);
            }
        }
        std::ptr::write_bytes(dst.add(found * PANEL), 0, (units - found) * PANEL);
    }
}

simd_dispatch! {
    /// Rows of `k` become units; extents are as [`pack`] asks for.
    fn turn(src: Source, dst: *mut f32, units: usize) = turn_kernel;
}

#[inline(always)]
fn turn_kernel<S: Simd>(s: S, src: Source, dst: *mut f32, units: usize) {
    let found = units.min(src.k);
    // SAFETY: promised by the callers of `pack`; padding is written first.
    unsafe {
        if src.outer < PANEL || found < units {
            std::ptr::write_bytes(dst, 0, units * PANEL);
        }
        if src.k_stride == 1 {
            s.transpose(src.ptr, src.outer_stride, src.outer, found, dst, PANEL);
            return;
        }
        for unit in 0..found {
            for outer in 0..src.outer {
                let at = unit * src.k_stride + outer * src.outer_stride;
                *dst.add(unit * PANEL + outer) = *src.ptr.wrapping_add(at);
            }
        }
    }
}

simd_dispatch! {
    /// The block is as [`BlockKernel::multiply`] asks for.
    fn multiply(block: &Block) = multiply_kernel;
}

#[inline(always)]
fn multiply_kernel<S: Simd>(s: S, block: &Block) {
    for column in (0..block.columns).step_by(PANEL) {
        for row in (0..block.rows).step_by(PANEL) {
            match S::LANES {
                // Sixteen registers: 8 of them hold sums.
                4 if !S::WIDE_FILE => {
                    for i in 0..PANEL / 2 {
                        tile::<S, 2, 4>(s, block, row + 2 * i, column);
                    }
                }
                4 => panel::<S, 4>(s, block, row, column),
                8 => panel::<S, 2>(s, block, row, column),
                _ => panel::<S, 1>(s, block, row, column),
            }
        }
    }
}

/// A panel of rows by a panel of `N` vectors of columns: with AVX2 12 of 16 registers hold sums, with NEON 24 of 32.
#[inline(always)]
fn panel<S: Simd, const N: usize>(s: S, block: &Block, row: usize, column: usize) {
    tile::<S, 6, N>(s, block, row, column);
    tile::<S, 5, N>(s, block, row + 6, column);
    tile::<S, 5, N>(s, block, row + 11, column);
}

/// `R` rows, as far as there are so many, by a panel of `N` vectors of columns.
#[inline(always)]
fn tile<S: Simd, const R: usize, const N: usize>(s: S, block: &Block, row: usize, column: usize) {
    if row >= block.rows {
        return;
    }
    let length = block.units * PANEL;
    let rows = R.min(block.rows - row);
    let columns = PANEL.min(block.columns - column);
    let mut sums = [[s.zero(); N]; R];
    // SAFETY: the caller of `BlockKernel::multiply` promises whole panels of both operands, and `c`
    // over the block's rows and columns, which slices of `c` do not leave.
    unsafe {
        let mut a = block.a.add(row / PANEL * length + row % PANEL);
        let mut b = block.b.add(column / PANEL * block.b_panel);
        let c = block.c.add(row * block.c_stride + column);
        for i in 0..R {
            // Owning the lines by the time they are stored hides the misses.
            s.prefetch_write(c.wrapping_add(i * block.c_stride));
        }
        for _ in 0..block.units {
            let mut panel = [s.zero(); N];
            for (v, panel) in panel.iter_mut().enumerate() {
                *panel = s.load_ptr(b.add(v * S::LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = s.splat(*a.add(i));
                for v in 0..N {
                    sums[v] = s.mul_add(x, panel[v], sums[v]);
                }
            }
            // The last steps leave the panels.
            a = a.wrapping_add(PANEL);
            b = b.wrapping_add(PANEL);
        }
        if rows == R && columns == PANEL {
            for (i, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let at = c.add(i * block.c_stride + v * S::LANES);
                    let sum = if block.accumulate {
                        s.add(*sum, s.load_ptr(at))
                    } else {
                        *sum
                    };
                    s.store_ptr(at, sum);
                }
            }
            return;
        }
        for (i, sums) in sums.iter().enumerate().take(rows) {
            for (v, sum) in sums.iter().enumerate() {
                let first = v * S::LANES;
                if first >= columns {
                    break;
                }
                let at = c.add(i * block.c_stride + first);
                let len = S::LANES.min(columns - first);
                let sum = if block.accumulate {
                    s.add(*sum, s.load(std::slice::from_raw_parts(at, len)))
                } else {
                    *sum
                };
                s.store(std::slice::from_raw_parts_mut(at, len), sum);
            }
        }
    }
}
