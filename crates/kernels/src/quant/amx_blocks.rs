//! Products of many rows with packed blocks on AMX: one `TDPBSUD` per group of weights that share a scale.
//!
//! An unpacked group is a tile of `b` as it stands: units of four neighbours along `k` of 16 rows of weights. Its sums
//! leave the tile registers after every group, to be scaled as [`super::product`] scales them: results are the same bits.

use super::activations::{Rounding, Sums};
use super::format::BlockFormat;
use super::int8::write_panel;
use super::lanes::{Avx512Vnni, Lanes, PANEL};
use super::layout::{Source, Unpacked};
use super::product::{CHUNK, Product, unpack_blocks, unpacked_len};
use crate::cpu_features::has_amx_int8;
use crate::gemm::amx::{TileConfig, Tiles};
use std::arch::asm;
use std::ops::Range;
use std::sync::OnceLock;

/// Rows of a block of results: two tiles.
const ROWS: usize = 2 * PANEL;

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
    has_amx_int8()
        && *WORKS.get_or_init(|| {
            [16, 32].into_iter().all(|group| {
                // SAFETY: AMX is there.
                let _tiles = unsafe { configured(group) };
                multiplies_exactly(AmxGroups, group)
            })
        })
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

/// The instructions, so that tests can stand in for them.
trait GroupProducts: Copy {
    /// `dots[32][16] = a b` over one group: `a` is 32 rows, `a_stride` bytes apart, `b` units of 64 bytes.
    ///
    /// # Safety
    /// The operands are readable over `group` along `k`, for which tiles are configured on this thread.
    unsafe fn multiply(
        self,
        a: *const u8,
        a_stride: usize,
        b: *const u8,
        group: usize,
        dots: &mut Dots,
    );
}

#[derive(Clone, Copy)]
struct AmxGroups;

impl GroupProducts for AmxGroups {
    #[inline(always)]
    unsafe fn multiply(
        self,
        a: *const u8,
        a_stride: usize,
        b: *const u8,
        _: usize,
        dots: &mut Dots,
    ) {
        // SAFETY: promised by the caller; `dots` is written over 32 rows of 64 bytes. Tile registers are ours alone:
        // compiled code never uses them.
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
}

/// Floats of the scratch that [`many_rows`] needs for `rows` rows.
pub(super) fn scratch_len<F: Source>(rows: usize) -> usize {
    unpacked_len::<F>() + rows.next_multiple_of(ROWS) * PANEL
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
            many_rows_kernel::<_, _, F>(AmxGroups, lanes, product, panels, rows, scratch);
        }
    }
    // SAFETY: promised by the caller.
    unsafe {
        let _tiles = configured(F::FORMAT.group_len());
        run::<F>(product, panels, rows, scratch);
    }
}

/// # Safety
/// As for [`many_rows`], with tiles configured on this thread if `T` needs them.
#[inline(always)]
unsafe fn many_rows_kernel<T: GroupProducts, S: Lanes, F: Source>(
    tiles: T,
    s: S,
    product: &Product,
    panels: Range<usize>,
    rows: Range<usize>,
    scratch: &mut [f32],
) {
    assert!(scratch.len() >= scratch_len::<F>(rows.len()) && product.activations.tile == 1);
    let block_len = F::FORMAT.block_len();
    let chunk = CHUNK / block_len;
    let k = product.blocks * block_len;
    let (unpacked, sums) = scratch.split_at_mut(unpacked_len::<F>());
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
                        add_block::<T, S, F>(
                            tiles,
                            s,
                            product,
                            block,
                            (codes, k),
                            (row, first + b),
                            acc,
                        );
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
/// As for [`many_rows_kernel`]; `codes` (of the first row, distance between rows) are those of the block.
#[inline(always)]
unsafe fn add_block<T: GroupProducts, S: Lanes, F: Source>(
    tiles: T,
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
            tiles.multiply(codes.add(g * group), k, w, group, &mut dots);
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

/// Compares one product of a group with its definition, the extremes of both operands among its numbers.
fn multiplies_exactly<T: GroupProducts>(tiles: T, group: usize) -> bool {
    const STRIDE: usize = 40;
    let value =
        |i: usize, seed: usize| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7) as u8;
    let mut a: [u8; ROWS * STRIDE] = std::array::from_fn(|i| value(i, 1));
    let mut b: [u8; 8 * 64] = std::array::from_fn(|i| value(i, 2));
    a[..group].fill(127);
    a[STRIDE..][..group].fill(0x81);
    b.iter_mut().skip(4).step_by(64).for_each(|b| *b = 255);
    let mut dots = Dots([[i32::MIN; PANEL]; ROWS]);
    // SAFETY: 32 rows of `STRIDE` bytes and eight units; tiles are configured where they are real.
    unsafe { tiles.multiply(a.as_ptr(), STRIDE, b.as_ptr(), group, &mut dots) };
    (0..ROWS * PANEL).all(|at| {
        let (i, j) = (at / PANEL, at % PANEL);
        let product = |k: usize| {
            let (a, b) = (a[i * STRIDE + k], b[k / 4 * 64 + j * 4 + k % 4]);
            i32::from(a.cast_signed()) * i32::from(b)
        };
        dots.0[i][j] == (0..group).map(product).sum::<i32>()
    })
}

#[cfg(test)]
mod tests {
    use super::super::activations::with_rounded;
    use super::super::lanes::Portable;
    use super::super::matrix::QuantizedMatrix;
    use super::super::{layout, quantize};
    use super::*;
    use crate::parallel::SharedMut;
    use crate::scratch::with_scratch;

    /// The tile instructions spelt out, off by `error` in one sum: what can be tested of the kernel on a processor
    /// without AMX.
    #[derive(Clone, Copy)]
    struct EmulatedGroups {
        error: i32,
    }

    impl GroupProducts for EmulatedGroups {
        unsafe fn multiply(
            self,
            a: *const u8,
            a_stride: usize,
            b: *const u8,
            group: usize,
            dots: &mut Dots,
        ) {
            for (i, dots) in dots.0.iter_mut().enumerate() {
                for (j, dot) in dots.iter_mut().enumerate() {
                    *dot = (0..group)
                        .map(|k| {
                            // SAFETY: promised by the caller.
                            let (a, b) = unsafe {
                                (*a.add(i * a_stride + k), *b.add(k / 4 * 64 + j * 4 + k % 4))
                            };
                            i32::from(a.cast_signed()) * i32::from(b)
                        })
                        .sum();
                }
            }
            dots.0[17][1] += self.error;
        }
    }

    #[test]
    fn the_self_check_accepts_a_right_kernel_and_rejects_a_wrong_one() {
        for group in [16, 32] {
            assert!(multiplies_exactly(EmulatedGroups { error: 0 }, group));
            assert!(!multiplies_exactly(EmulatedGroups { error: 1 }, group));
        }
    }

    fn compare<F: Source>(m: usize, n: usize, blocks: usize) {
        let format = F::FORMAT;
        let k = blocks * format.block_len();
        let numbers = |len: usize, seed: usize| -> Vec<f32> {
            let value = |i: usize| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7) % 1000;
            (0..len).map(|i| value(i) as f32 / 500.0 - 1.0).collect()
        };
        let stored = quantize(format, &numbers(n * k, 3)).expect("whole blocks");
        let matrix = QuantizedMatrix::new(format, n, k, stored).expect("whole blocks");
        let packed = matrix.pack().expect("a quantized format");
        let x = numbers(m * k, 5);
        let mut expected = vec![f32::NAN; m * n];
        packed.matmul(&x, m, &mut expected);
        let mut found = vec![f32::NAN; m * n];
        with_rounded(&x, m, k, rounding(format), 1, |activations| {
            let product = Product {
                weights: packed.data(),
                blocks,
                n,
                m,
                activations,
                out: SharedMut::new(&mut found),
            };
            let rows = 0..m.next_multiple_of(ROWS);
            with_scratch(scratch_len::<F>(rows.len()), |scratch| {
                let tiles = EmulatedGroups { error: 0 };
                // SAFETY: all panels and rows exist, and `found` is ours.
                unsafe {
                    let panels = 0..n.div_ceil(PANEL);
                    many_rows_kernel::<_, _, F>(tiles, Portable, &product, panels, rows, scratch);
                }
            });
        });
        let largest = expected.iter().fold(0.0, |most: f32, y| most.max(y.abs()));
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let difference = (found - expected).abs();
            assert!(
                difference <= 1e-5 * largest,
                "{format:?} {m}x{k}x{n} [{at}]: {found} for {expected}"
            );
        }
    }

    #[test]
    fn products_on_tiles_are_those_on_vectors() {
        let sizes: &[[usize; 3]] = if cfg!(miri) {
            &[[9, 5, 1]]
        } else {
            &[[9, 5, 1], [32, 16, 2], [33, 37, 3], [70, 20, 9]]
        };
        for &[m, n, blocks] in sizes {
            compare::<layout::Q4_0>(m, n, blocks);
            compare::<layout::Q5_0>(m, n, blocks);
            compare::<layout::Q8_0>(m, n, blocks);
            compare::<layout::Q4K>(m, n, blocks);
            compare::<layout::Q5K>(m, n, blocks);
            compare::<layout::Q6K>(m, n, blocks);
        }
    }
}
