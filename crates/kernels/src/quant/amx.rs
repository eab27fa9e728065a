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
    has_amx_int8() && *WORKS.get_or_init(multiplies_exactly)
}

/// A block of sums.
#[repr(C, align(64))]
struct BlockSums([[i32; SIDE]; SIDE]);

/// `sums[32][32] = a b` over `steps` steps of 64 along `k`: `a` is 32 rows, `a_stride` bytes apart,
/// `b` are panels of packed weights.
///
/// # Safety
/// The operands are readable, whole tiles are configured on this thread, `steps` is not 0.
#[inline(always)]
unsafe fn multiply_side(
    a: *const u8,
    a_stride: usize,
    b: [*const u8; 2],
    steps: usize,
    sums: &mut BlockSums,
) {
    let c = sums.0.as_mut_ptr().cast::<u8>();
    // SAFETY: promised by the caller; `sums` is written over 32 rows of 128 bytes. Tile registers
    // are ours alone: compiled code never uses them.
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

/// Computes the columns of `panels` for `rows`, on AMX.
///
/// # Safety
/// The processor has AMX and the process may use it; the ranges exist, `rows` are those of
/// activations in whole blocks, and no one else touches this part of `out`.
pub(super) unsafe fn multiply(product: &Int8Product, panels: Range<usize>, rows: Range<usize>) {
    // SAFETY: promised by the caller.
    let _tiles = unsafe { Tiles::configure() };
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
                multiply_side(a.codes(row), row_bytes, b, row_bytes / K_STEP, &mut sums);
                for i in 0..SIDE.min(product.m.saturating_sub(row)) {
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
/// extremes of both operands. Small enough to stay on this thread. Called where AMX is.
fn multiplies_exactly() -> bool {
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
        let rows = 0..m.next_multiple_of(SIDE);
        // SAFETY: AMX is there, and all of `out` is ours.
        unsafe { multiply(&product, 0..n.div_ceil(PANEL), rows) };
    });
    out.iter().enumerate().all(|(at, &found)| {
        let (x, w) = (&x[at / n * k..][..k], &w[at % n * k..][..k]);
        found == x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>()
    })
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::super::int8::linear_int8_on;
    use super::*;
    use crate::amx_emulator::{self, numbers};
    use crate::gemm::Epilogue;

    #[test]
    fn the_self_check_accepts_right_products_and_rejects_wrong_ones() {
        amx_emulator::install();
        assert!(multiplies_exactly());
        if amx_emulator::is_used() {
            assert!(!amx_emulator::with_wrong_products(multiplies_exactly));
        }
    }

    #[test]
    fn products_on_tiles_are_those_on_vectors() {
        amx_emulator::install();
        for [m, k, n] in [
            [1, 1, 1],
            [2, 64, 33],
            [9, 63, 16],
            [16, 65, 48],
            [31, 130, 31],
            [33, 200, 1],
            [64, 128, 64],
            [65, 7, 100],
            [150, 300, 70],
            [200, 1100, 300],
        ] {
            let weights = Int8Weights::quantize(&numbers(n * k, 1), n, k);
            let (x, bias) = (numbers(m * k, 2), numbers(n, 3));
            // More memory than the result's, which must stay as it is.
            let [expected, found] = [false, true].map(|on_amx| {
                let mut memory = vec![7.0; (m + SIDE) * n];
                let epilogue = Epilogue {
                    bias: Some(&bias),
                    ..Epilogue::NONE
                };
                linear_int8_on(&x, &weights, m, epilogue, &mut memory[..m * n], on_amx);
                memory
            });
            assert_eq!(found, expected, "{m}x{k}x{n}");
        }
    }
}
