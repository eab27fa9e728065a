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
    // SAFETY: promised by the caller; padding is written first.
    unsafe {
        if src.outer < PANEL || src.k < units {
            std::ptr::write_bytes(dst, 0, units * PANEL);
        }
        for unit in 0..units.min(src.k) {
            let from = src.ptr.wrapping_add(unit * src.k_stride);
            let to = dst.add(unit * PANEL);
            if src.outer_stride == 1 {
                std::ptr::copy_nonoverlapping(from, to, src.outer);
            } else {
                for outer in 0..src.outer {
                    *to.add(outer) = *from.wrapping_add(outer * src.outer_stride);
                }
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
        for _ in 0..block.units {
            let panel: [S::V; N] = std::array::from_fn(|v| s.load_ptr(b.add(v * S::LANES)));
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
        for (i, sums) in sums.iter().enumerate().take(rows) {
            for (v, sum) in sums.iter().enumerate() {
                let first = v * S::LANES;
                if first >= columns {
                    break;
                }
                let at = block.c.add((row + i) * block.c_stride + column + first);
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
