//! Products of many rows with packed blocks on AMX: one `TDPBSUD` per group of weights that share a scale.
//!
//! An unpacked group is a tile of `b` as it stands: units of four neighbours along `k` of 16 rows of weights. Its sums
//! leave the tile registers after every group, to be scaled as [`super::product`] scales them: results are the same bits.

use super::activations::{Rounding, Sums};
use super::format::BlockFormat;
use super::int8::write_panel;
use super::lanes::{Avx512Vnni, Lanes, PANEL};
use super::layout::{Source, Unpacked};
use super::product::{Product, unpack_blocks, unpacked_len};
use crate::cpu_features::has_amx_int8;
use crate::gemm::amx::{TileConfig, Tiles};
use std::arch::asm;
use std::ops::Range;
use std::sync::OnceLock;

/// Rows of a block of results: two tiles.
const ROWS: usize = 2 * PANEL;
/// Weights of a row that are unpacked at a time.
const CHUNK: usize = 256;

/// The sums of a group, before scaling.
#[repr(C, align(64))]
struct Dots([[i32; PANEL]; ROWS]);

/// How activations are packed for this kernel: row by row.
pub(super) fn rounding(format: BlockFormat) -> Rounding {
    Rounding {
        block: format.block_len(),
        group: format.group_len(),
        sums: if format.has_mins() {
            Sums::Plain
        } else {
            Sums::Start {
                zero: format.zero(),
            }
        },
        k_step: format.block_len(),
        row_step: ROWS,
    }
}

/// Whether the processor has AMX and first products of both lengths of groups came out right.
pub(super) fn available() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    has_amx_int8() && *WORKS.get_or_init(|| multiplies_exactly(16) && multiplies_exactly(32))
}

/// Tiles for groups of `group` weights: sums in 0 and 1, activations in 4 and 5, weights in 6.
///
/// # Safety
/// The processor has AMX and the process may use it.
unsafe fn configured(group: usize) -> Tiles {
    const fn config(group: usize) -> TileConfig {
        let bytes = group as u16;
        TileConfig::new(
            [16, 16, 16, 16, 16, 16, group as u8 / 4, 16],
            [64, 64, 64, 64, bytes, bytes, 64, 64],
        )
    }
    static SIXTEEN: TileConfig = config(16);
    static THIRTY_TWO: TileConfig = config(32);
    // SAFETY: promised by the caller.
    unsafe { Tiles::configure_as(if group == 16 { &SIXTEEN } else { &THIRTY_TWO }) }
}

/// `dots[32][16] = a b` over one group: `a` is 32 rows, `a_stride` bytes apart, `b` units of 64 bytes.
///
/// # Safety
/// The operands are readable over the group along `k` for which tiles are [`configured`] on this thread.
#[inline(always)]
unsafe fn multiply_group(a: *const u8, a_stride: usize, b: *const u8, dots: &mut Dots) {
    // SAFETY: promised by the caller; `dots` is written over 32 rows of 64 bytes. Tile registers are ours alone: compiled
    // code never uses them.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tileloadd tmm6, [{b}+{line}*1]",
            "tileloadd tmm4, [{a0}+{a_stride}*1]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1}+{a_stride}*1]",
            "tdpbsud tmm1, tmm5, tmm6",
            "tilestored [{c}+{line}*1], tmm0",
            "tilestored [{c}+{line}*1+1024], tmm1",
            a0 = in(reg) a,
            a1 = in(reg) a.wrapping_add(PANEL * a_stride),
            a_stride = in(reg) a_stride,
            b = in(reg) b,
            line = in(reg) 64usize,
            c = in(reg) dots.0.as_mut_ptr(),
            options(nostack)
        );
    }
}

/// Floats of the scratch that [`many_rows`] needs for `rows` rows.
pub(super) fn scratch_len<F: Source>(rows: usize) -> usize {
    unpacked_len::<F>(CHUNK) + rows.next_multiple_of(ROWS) * PANEL
}

/// Computes the columns of `panels` for `rows`, on AMX.
///
/// # Safety
/// AMX is [`available`]; the ranges exist, `rows` starts at whole blocks, activations are rounded as [`rounding`] says,
/// `scratch` is of [`scratch_len`], and no one else touches this part of `out`.
pub(super) unsafe fn many_rows<F: Source>(
    product: &Product,
    panels: Range<usize>,
    rows: Range<usize>,
    scratch: &mut [f32],
) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn run<F: Source>(
        product: &Product,
        panels: Range<usize>,
        rows: Range<usize>,
        scratch: &mut [f32],
    ) {
        // SAFETY: integer tiles are only reported together with these features.
        unsafe {
            let lanes = Avx512Vnni::assume_detected();
            many_rows_kernel::<_, F>(lanes, product, panels, rows, scratch);
        }
    }
    // SAFETY: promised by the caller.
    unsafe { run::<F>(product, panels, rows, scratch) }
}

/// # Safety
/// As for [`many_rows`].
#[inline(always)]
unsafe fn many_rows_kernel<S: Lanes, F: Source>(
    s: S,
    product: &Product,
    panels: Range<usize>,
    rows: Range<usize>,
    scratch: &mut [f32],
) {
    assert!(scratch.len() >= scratch_len::<F>(rows.len()) && product.activations.tile == 1);
    // SAFETY: promised by the caller.
    let _tiles = unsafe { configured(F::FORMAT.group_len()) };
    let block_len = F::FORMAT.block_len();
    let chunk = CHUNK / block_len;
    let k = product.blocks * block_len;
    let (unpacked, sums) = scratch.split_at_mut(unpacked_len::<F>(CHUNK));
    let unpacked = unpacked.as_mut_ptr().cast::<u8>();
    let a = &product.activations;
    for panel in panels {
        for first in (0..product.blocks).step_by(chunk) {
            let blocks = chunk.min(product.blocks - first);
            let last = first + blocks == product.blocks;
            // SAFETY: the caller promises the extents; the scratch holds a chunk and a panel of sums for every row.
            unsafe {
                let weights = product.panel::<F>(panel).add(first * F::BYTES);
                unpack_blocks::<S, F>(s, weights, blocks, unpacked);
                for row in rows.clone().step_by(ROWS) {
                    let acc = sums[(row - rows.start) * PANEL..].as_mut_ptr();
                    if first == 0 {
                        std::ptr::write_bytes(acc, 0, ROWS * PANEL);
                    }
                    for b in 0..blocks {
                        let block = unpacked.add(b * <Unpacked<F> as Source>::BYTES);
                        let codes = a.codes(row).add((first + b) * block_len);
                        let at = (row, first + b);
                        add_block::<S, F>(s, product, block, (codes, k), at, acc);
                    }
                    if last {
                        for i in 0..ROWS.min(product.m.saturating_sub(row)) {
                            let result = s.load_floats(acc.add(i * PANEL));
                            write_panel(s, product.out, product.n, row + i, panel, result);
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of an unpacked block with 32 rows of activations to `acc` `[32][16]`.
///
/// # Safety
/// As for [`many_rows`], with tiles [`configured`] on this thread; `codes` (of the first row, distance between rows) are
/// those of the block.
#[inline(always)]
unsafe fn add_block<S: Lanes, F: Source>(
    s: S,
    product: &Product,
    block: *const u8,
    (codes, k): (*const u8, usize),
    (row, b): (usize, usize),
    acc: *mut f32,
) {
    let group = F::FORMAT.group_len();
    let groups = F::FORMAT.block_len() / group;
    let a = &product.activations;
    let mut dots = Dots([[0; PANEL]; ROWS]);
    let mut partial = [[0.0_f32; PANEL]; ROWS];
    // SAFETY: promised by the caller.
    unsafe {
        for g in 0..groups {
            let w = block.add(g * group * PANEL);
            multiply_group(codes.add(g * group), k, w, &mut dots);
            let scale = <Unpacked<F> as Source>::scale(s, block, g);
            for (i, (dots, partial)) in dots.0.iter_mut().zip(&mut partial).enumerate() {
                let sum = *a.sums(row + i).add(b * groups + g);
                if !F::FORMAT.has_mins() {
                    let start = sum.to_bits().cast_signed();
                    dots.iter_mut()
                        .for_each(|dot| *dot = dot.wrapping_add(start));
                }
                let dots = s.to_floats(s.load_ints(dots.as_ptr()));
                let mut total = s.mul_add(dots, scale, s.load_floats(partial.as_ptr()));
                if F::FORMAT.has_mins() {
                    let min = <Unpacked<F> as Source>::min(s, block, g);
                    total = s.neg_mul_add(min, s.splat(sum), total);
                }
                s.store_floats(partial.as_mut_ptr(), total);
            }
        }
        for (i, partial) in partial.iter().enumerate() {
            let at = acc.add(i * PANEL);
            let scale = s.splat(*a.scales(row + i).add(b));
            let total = s.mul_add(s.load_floats(partial.as_ptr()), scale, s.load_floats(at));
            s.store_floats(at, total);
        }
    }
}

/// Compares one product of a group with its definition, the extremes of both operands among its numbers. Called where AMX is.
fn multiplies_exactly(group: usize) -> bool {
    const STRIDE: usize = 40;
    let value =
        |i: usize, seed: usize| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7) as u8;
    let mut a: [u8; ROWS * STRIDE] = std::array::from_fn(|i| value(i, 1));
    let mut b: [u8; 8 * 64] = std::array::from_fn(|i| value(i, 2));
    a[..group].fill(127);
    a[STRIDE..][..group].fill(0x81);
    b.iter_mut().skip(4).step_by(64).for_each(|b| *b = 255);
    let mut dots = Dots([[i32::MIN; PANEL]; ROWS]);
    // SAFETY: AMX is there; 32 rows of `STRIDE` bytes and eight units.
    unsafe {
        let _tiles = configured(group);
        multiply_group(a.as_ptr(), STRIDE, b.as_ptr(), &mut dots);
    }
    (0..ROWS * PANEL).all(|at| {
        let (i, j) = (at / PANEL, at % PANEL);
        let product = |k: usize| {
            let (a, b) = (a[i * STRIDE + k], b[k / 4 * 64 + j * 4 + k % 4]);
            i32::from(a.cast_signed()) * i32::from(b)
        };
        dots.0[i][j] == (0..group).map(product).sum::<i32>()
    })
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::super::activations::with_rounded;
    use super::super::lanes::Portable;
    use super::super::matrix::{PackedMatrix, QuantizedMatrix, matmul_shared_on};
    use super::super::{layout, quantize};
    use super::*;
    use crate::amx_emulator::{self, numbers};
    use crate::cpu_features::{IntegerIsa, integer_isa};
    use crate::parallel::SharedMut;
    use crate::scratch::with_scratch;

    #[test]
    fn the_self_check_accepts_right_products_and_rejects_wrong_ones() {
        amx_emulator::install();
        for group in [16, 32] {
            let works = || multiplies_exactly(group);
            assert!(works());
            if amx_emulator::is_used() {
                assert!(!amx_emulator::with_wrong_products(works));
            }
        }
    }

    fn packed(format: BlockFormat, n: usize, k: usize) -> PackedMatrix {
        let stored = quantize(format, &numbers(n * k, 3)).expect("whole blocks");
        let matrix = QuantizedMatrix::new(format, n, k, stored).expect("whole blocks");
        matrix.pack().expect("a quantized format")
    }

    /// The whole product, as it is shared out. More memory than the result's must stay as it is.
    fn product(weights: &PackedMatrix, x: &[f32], m: usize, on_amx: bool) -> Vec<f32> {
        let mut memory = vec![7.0; (m + ROWS) * weights.rows()];
        let out = &mut memory[..m * weights.rows()];
        matmul_shared_on(x, m, &mut [(weights, out)], on_amx);
        memory
    }

    /// The kernel alone, on lanes that every processor has.
    fn product_on_portable_lanes<F: Source>(
        weights: &PackedMatrix,
        x: &[f32],
        m: usize,
    ) -> Vec<f32> {
        let (n, k) = (weights.rows(), weights.cols());
        let mut out = vec![f32::NAN; m * n];
        with_rounded(x, m, k, rounding(F::FORMAT), 1, |activations| {
            let product = Product {
                weights: weights.data(),
                blocks: k / F::FORMAT.block_len(),
                n,
                m,
                activations,
                out: SharedMut::new(&mut out),
            };
            let rows = 0..m.next_multiple_of(ROWS);
            with_scratch(scratch_len::<F>(rows.len()), |scratch| {
                let panels = 0..n.div_ceil(PANEL);
                // SAFETY: AMX is there or emulated, all panels and rows exist, and `out` is ours.
                unsafe { many_rows_kernel::<_, F>(Portable, &product, panels, rows, scratch) };
            });
        });
        out
    }

    fn compare<F: Source>(m: usize, n: usize, blocks: usize) {
        let k = blocks * F::FORMAT.block_len();
        let (weights, x) = (packed(F::FORMAT, n, k), numbers(m * k, 5));
        let what = format!("{:?} {m}x{k}x{n}", F::FORMAT);
        let expected = product(&weights, &x, m, false);
        if integer_isa() == IntegerIsa::Avx512Vnni {
            assert_eq!(product(&weights, &x, m, true), expected, "{what}");
        }
        let found = product_on_portable_lanes::<F>(&weights, &x, m);
        let largest = found.iter().fold(0.0, |most: f32, y| most.max(y.abs()));
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let difference = (found - expected).abs();
            assert!(
                difference <= 1e-5 * largest,
                "{what} [{at}]: {found} for {expected}"
            );
        }
    }

    #[test]
    fn products_on_tiles_are_those_on_vectors() {
        amx_emulator::install();
        for [m, n, blocks] in [[5, 3, 1], [9, 5, 1], [32, 16, 2], [33, 37, 3], [70, 20, 9]] {
            compare::<layout::Q4_0>(m, n, blocks);
            compare::<layout::Q5_0>(m, n, blocks);
            compare::<layout::Q8_0>(m, n, blocks);
            compare::<layout::Q4K>(m, n, blocks);
            compare::<layout::Q5K>(m, n, blocks);
            compare::<layout::Q6K>(m, n, blocks);
        }
    }

    /// Several tasks along rows and columns, and blocks of two lengths of groups one after the other on the same threads.
    #[test]
    fn shared_products_on_tiles_are_those_on_vectors() {
        if integer_isa() != IntegerIsa::Avx512Vnni {
            return;
        }
        amx_emulator::install();
        let (m, k) = (270, 512);
        let [first, second] = [(BlockFormat::Q4K, 70), (BlockFormat::Q6K, 45)]
            .map(|(format, n)| packed(format, n, k));
        let x = numbers(m * k, 6);
        let [expected, found] = [false, true].map(|on_amx| {
            let mut out = [&first, &second].map(|weights| vec![f32::NAN; m * weights.rows()]);
            let [a, b] = &mut out;
            matmul_shared_on(&x, m, &mut [(&first, a), (&second, b)], on_amx);
            out
        });
        assert_eq!(found, expected);
    }
}
