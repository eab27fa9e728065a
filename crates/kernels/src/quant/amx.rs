//! The 8-bit linear layer on AMX: 16 x 16 tiles of 32-bit sums through stable inline assembly.
//!
//! `TDPBSUD` multiplies a tile of signed bytes (16 rows of 64 activations) with a tile of unsigned
//! ones (16 units of four neighbours along `k` of 16 rows of weights) and adds to 16 x 16 sums
//! (Intel SDM volume 2). The packed weights are such tiles as they stand. As in
//! [`gemm::amx`](crate::gemm::amx), four sums make a block of 32 x 32.

use super::activations::{Activations, Rounding, Sums, with_rounded};
use super::int8::{Int8Product, Int8Weights, K_STEP};
use super::lanes::PANEL;
use crate::cpu_features::has_amx_int8;
use crate::gemm::amx::Tiles;
use crate::parallel::SharedMut;
use std::arch::asm;
use std::ops::Range;
use std::sync::OnceLock;

/// Rows and columns of a register block.
pub(super) const SIDE: usize = 2 * PANEL;

/// How activations are packed for this kernel: row by row.
pub(super) fn rounding(k: usize) -> Rounding {
    Rounding {
        block: k,
        group: k,
        sums: Sums::Start { zero: 128 },
        k_step: K_STEP,
        row_step: SIDE,
    }
}

/// Whether the processor has AMX and a first product came out right.
pub(super) fn available() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    has_amx_int8() && *WORKS.get_or_init(|| multiplies_exactly(AmxTiles))
}

/// Computes the columns of `panels` for `rows`, on AMX.
///
/// # Safety
/// AMX is [`available`]; the ranges exist, start at whole blocks, and no one else touches this part
/// of `out`.
pub(super) unsafe fn multiply(product: &Int8Product, panels: Range<usize>, rows: Range<usize>) {
    // SAFETY: promised by the caller.
    unsafe {
        let _tiles = Tiles::configure();
        multiply_blocks(AmxTiles, product, panels, rows);
    }
}

/// The instructions, so that tests can stand in for them.
trait TileProducts: Copy {
    /// `sums[32][32] = a b` over `steps` steps of 64 along `k`: `a` is 32 rows, `a_stride` bytes
    /// apart, `b0` and `b1` are panels of packed weights.
    ///
    /// # Safety
    /// The operands are readable, tiles are configured on this thread, `steps` is not 0.
    unsafe fn multiply(
        self,
        a: *const u8,
        a_stride: usize,
        b: [*const u8; 2],
        steps: usize,
        sums: &mut BlockSums,
    );
}

/// A block of sums.
#[repr(C, align(64))]
struct BlockSums([[i32; SIDE]; SIDE]);

#[derive(Clone, Copy)]
struct AmxTiles;

impl TileProducts for AmxTiles {
    #[inline(always)]
    unsafe fn multiply(
        self,
        a: *const u8,
        a_stride: usize,
        b: [*const u8; 2],
        steps: usize,
        sums: &mut BlockSums,
    ) {
        let c = sums.0.as_mut_ptr().cast::<u8>();
        // SAFETY: promised by the caller; `sums` is written over 32 rows of 128 bytes. Tile
        // registers are ours alone: compiled code never uses them.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a0}+{a_stride}*1]",
                "tileloadd tmm6, [{b0}+{b_stride}*1]",
                "tdpbsud tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1}+{b_stride}*1]",
                "tdpbsud tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a1}+{a_stride}*1]",
                "tdpbsud tmm2, tmm5, tmm6",
                "tdpbsud tmm3, tmm5, tmm7",
                "add {a0}, 64",
                "add {a1}, 64",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "dec {n}",
                "jnz 2b",
                "tilestored [{c0}+{c_stride}*1], tmm0",
                "tilestored [{c0}+{c_stride}*1+64], tmm1",
                "tilestored [{c1}+{c_stride}*1], tmm2",
                "tilestored [{c1}+{c_stride}*1+64], tmm3",
                a0 = inout(reg) a => _,
                a1 = inout(reg) a.wrapping_add(PANEL * a_stride) => _,
                a_stride = in(reg) a_stride,
                b0 = inout(reg) b[0] => _,
                b1 = inout(reg) b[1] => _,
                b_stride = in(reg) 64usize,
                n = inout(reg) steps => _,
                c0 = in(reg) c,
                c1 = in(reg) c.wrapping_add(PANEL * 4 * SIDE),
                c_stride = in(reg) 4 * SIDE,
                options(nostack)
            );
        }
    }
}

/// # Safety
/// As for [`multiply`], with tiles configured on this thread if `T` needs them.
#[inline(always)]
unsafe fn multiply_blocks<T: TileProducts>(
    tiles: T,
    product: &Int8Product,
    panels: Range<usize>,
    rows: Range<usize>,
) {
    let (weights, a) = (product.weights, &product.activations);
    let row_bytes = weights.k().next_multiple_of(K_STEP);
    let mut sums = BlockSums([[0; SIDE]; SIDE]);
    for panel in panels.step_by(2) {
        let b = [panel, panel + 1].map(|panel| weights.panel(panel).as_ptr());
        let first = panel * PANEL;
        let columns = SIDE.min(weights.n() - first);
        let scales = &weights.scales()[first..][..columns];
        for row in rows.clone().step_by(SIDE) {
            // SAFETY: weights come in pairs of panels and activations in blocks of rows; `out` has
            // these columns of rows below `m`.
            unsafe {
                let steps = row_bytes / K_STEP;
                tiles.multiply(a.codes(row), row_bytes, b, steps, &mut sums);
                for i in 0..SIDE.min(rows.end - row) {
                    let at = (row + i) * weights.n() + first;
                    let out = std::slice::from_raw_parts_mut(product.out.ptr().add(at), columns);
                    let scale = *a.scales(row + i);
                    let start = (*a.sums(row + i)).to_bits().cast_signed();
                    for ((y, dot), weight_scale) in out.iter_mut().zip(&sums.0[i]).zip(scales) {
                        *y = dot.wrapping_add(start) as f32 * (weight_scale * scale);
                    }
                }
            }
        }
    }
}

/// Compares a product of small integers with its definition: whole and partial blocks, and the
/// extremes of both operands. Small enough to stay on this thread.
fn multiplies_exactly<T: TileProducts>(tiles: T) -> bool {
    let [m, k, n] = [33, 150, 35];
    let integers = |len: usize, seed: usize| -> Vec<f32> {
        let value = |i: usize| (i * 2_654_435_761 + seed) >> 7;
        let mut x: Vec<f32> = (0..len).map(|i| (value(i) % 255) as f32 - 127.0).collect();
        // Every row has a 127, so that scales are 1 and codes the numbers themselves.
        x.iter_mut().step_by(k).for_each(|x| *x = 127.0);
        x
    };
    let (x, w) = (integers(m * k, 1), integers(n * k, 2));
    let weights = Int8Weights::quantize_here(&w, n, k);
    let mut out = vec![f32::NAN; m * n];
    with_rounded(&x, m, k, rounding(k), 1, |activations: Activations| {
        let product = Int8Product {
            weights: &weights,
            m,
            activations,
            out: SharedMut::new(&mut out),
        };
        // SAFETY: all of `out` is ours; called where AMX is, or with a stand-in for it.
        unsafe {
            let _tiles = has_amx_int8().then(|| Tiles::configure());
            multiply_blocks(tiles, &product, 0..n.div_ceil(PANEL), 0..m);
        }
    });
    out.iter().enumerate().all(|(at, &found)| {
        let (x, w) = (&x[at / n * k..][..k], &w[at % n * k..][..k]);
        found == x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tile instructions spelt out, off by `error` in one sum: what can be tested of the kernel
    /// on a processor without AMX.
    #[derive(Clone, Copy)]
    struct EmulatedTiles {
        error: i32,
    }

    impl TileProducts for EmulatedTiles {
        unsafe fn multiply(
            self,
            a: *const u8,
            a_stride: usize,
            b: [*const u8; 2],
            steps: usize,
            sums: &mut BlockSums,
        ) {
            for (i, sums) in sums.0.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = (0..steps * K_STEP)
                        .map(|k| {
                            let unit = k / 4 * PANEL + j % PANEL;
                            // SAFETY: promised by the caller.
                            let (a, b) = unsafe {
                                (
                                    *a.add(i * a_stride + k),
                                    *b[j / PANEL].add(unit * 4 + k % 4),
                                )
                            };
                            i32::from(a.cast_signed()) * i32::from(b)
                        })
                        .sum();
                }
            }
            sums.0[0][1] += self.error;
        }
    }

    #[test]
    fn the_self_check_accepts_a_right_kernel_and_rejects_a_wrong_one() {
        assert!(multiplies_exactly(EmulatedTiles { error: 0 }));
        assert!(!multiplies_exactly(EmulatedTiles { error: 1 }));
    }
}
