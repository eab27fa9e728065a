//! The inner kernel on AMX: 16 x 16 tiles of bfloat16 pairs through stable inline assembly.
//!
//! `TDPBF16PS` multiplies a tile of `a` (16 rows of 16 pairs along `k`) with a tile of `b` (16
//! pairs of 16 columns) and adds to 16 x 16 sums (Intel SDM volume 2). Four sums, two tiles of `a`
//! and two of `b` fill the eight tile registers: a block of 32 x 32.

use super::MatRef;
use super::avx512::{Order, lanes, pack_bf16};
use super::blocked::{self, Block, BlockKernel, PANEL, Source};
use crate::cpu_features::has_amx_bf16;
use crate::simd::Avx512;
use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// Rows and columns of a register block.
const SIDE: usize = 2 * PANEL;
/// Rows whose chunk (24 KiB) stays in the first-level cache while the columns pass by.
const STAY: usize = 2 * SIDE;

/// bfloat16 operands on AMX tiles.
#[derive(Clone, Copy)]
pub(crate) struct AmxKernel(Avx512);

impl AmxKernel {
    /// The kernel, if the processor has AMX and a first product came out right.
    pub(super) fn detect() -> Option<Self> {
        static WORKS: OnceLock<bool> = OnceLock::new();
        if !has_amx_bf16() {
            return None;
        }
        // SAFETY: AMX is only reported together with AVX-512 BF16.
        let kernel = Self(unsafe { Avx512::assume_detected() });
        WORKS
            .get_or_init(|| multiplies_exactly(kernel))
            .then_some(kernel)
    }

    /// The kernel, on processors that can pack for it; without AMX its instructions are emulated.
    #[cfg(all(test, target_os = "linux", not(miri)))]
    pub(crate) fn for_tests() -> Option<Self> {
        crate::amx_emulator::install();
        // SAFETY: AVX-512 BF16 was detected.
        crate::cpu_features::has_avx512_bf16().then(|| Self(unsafe { Avx512::assume_detected() }))
    }
}

/// Integers of at most 8 as `f32`, whose products are exact in any order: sums stay below 2^24.
pub(crate) fn integers(len: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7;
    (0..len).map(|i| (value(i) % 17) as f32 - 8.0).collect()
}

/// Compares a product of small integers, exact in any order, with its definition: whole and partial
/// blocks, several chunks of `k`. Small enough to stay on this thread.
fn multiplies_exactly<K: BlockKernel>(kernel: K) -> bool {
    let [m, k, n] = [33, 450, 33];
    let (a, b) = (integers(m * k, 1), integers(n * k, 2));
    let mut out = vec![f32::NAN; m * n];
    let columns = MatRef::row_major(&b, n, k);
    blocked::multiply(
        kernel,
        MatRef::row_major(&a, m, k),
        columns.t(),
        &mut out,
        false,
        |_, _, _| {},
    );
    out.iter().enumerate().all(|(at, &found)| {
        let (a, b) = (&a[at / n * k..][..k], &b[at % n * k..][..k]);
        found == a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>()
    })
}

/// What `LDTILECFG` reads: the sizes of the tiles (palette 1).
#[repr(C, align(64))]
pub(crate) struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// Rows, at most 16, and bytes per row, at most 64, of the eight tiles.
    pub(crate) const fn new(rows: [u8; 8], row_bytes: [u16; 8]) -> Self {
        let mut config = Self {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        let mut tile = 0;
        while tile < 8 {
            config.row_bytes[tile] = row_bytes[tile];
            config.rows[tile] = rows[tile];
            tile += 1;
        }
        config
    }
}

/// Eight tiles of 16 rows of 64 bytes.
static WHOLE: TileConfig = TileConfig::new([16; 8], [64; 8]);

/// Tile state belongs to a thread: configured tiles for as long as this lives.
pub(crate) struct Tiles;

impl Tiles {
    /// Whole tiles.
    ///
    /// # Safety
    /// The processor has AMX and the process may use it.
    pub(crate) unsafe fn configure() -> Self {
        // SAFETY: promised by the caller.
        unsafe { Self::configure_as(&WHOLE) }
    }

    /// # Safety
    /// As for [`Self::configure`]; `config` has no tile larger than the registers.
    pub(crate) unsafe fn configure_as(config: &TileConfig) -> Self {
        // SAFETY: promised by the caller; a configuration is 64 bytes long.
        unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(nostack)) };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `configure` ran on this thread (the type is not sent to another).
        unsafe { asm!("tilerelease", options(nostack)) };
    }
}

impl BlockKernel for AmxKernel {
    const DEPTH: usize = 2;
    const UNIT_STEP: usize = PANEL;
    const PANEL_STEP: usize = 2;
    // By a model of the caches of the first processors with AMX (48 KiB and 2 MiB), not by a clock, against chunks of 192 and
    // tasks of 64 rows: register blocks read 45 to 52 bytes a cycle of the tile unit from the second level instead of 63 to
    // 65, when nothing stayed in the first, and 11 to 13 instead of 19 to 21 from the third where weights exceed the second.
    const CHUNK: usize = 96;
    const PART: usize = Self::CHUNK;
    const TASK_ROWS: usize = 2 * STAY;
    const SECOND_LEVEL: usize = 2 << 20;

    unsafe fn pack_a(self, src: Source, dst: *mut f32, units: usize) {
        // SAFETY: the token proves the features, the caller the extents; `units` is a multiple of
        // `UNIT_STEP`.
        unsafe { pack_bf16(self.0, src, dst, units, Order::OuterMajor) }
    }

    unsafe fn pack_b(self, src: Source, dst: *mut f32, units: usize) {
        // SAFETY: the token proves the features, the caller the extents.
        unsafe { pack_bf16(self.0, src, dst, units, Order::UnitMajor) }
    }

    unsafe fn multiply(self, block: Block) {
        // SAFETY: the kernel exists only where AMX does; the caller promises the extents.
        unsafe {
            let _tiles = Tiles::configure();
            for first in (0..block.rows).step_by(STAY) {
                multiply_tiles(Block {
                    a: block.a.add(first * block.units),
                    rows: STAY.min(block.rows - first),
                    c: block.c.add(first * block.c_stride),
                    ..block
                });
            }
        }
    }
}

/// 32 x 32 sums beside the result, for blocks that reach over its edge.
#[repr(C, align(64))]
struct Sums([f32; SIDE * SIDE]);

#[target_feature(enable = "avx512f")]
unsafe fn multiply_tiles(block: Block) {
    let length = block.units * PANEL;
    let lengths = [length, block.b_panel];
    let tiles = block.units / PANEL;
    let mut sums = Sums([0.0; SIDE * SIDE]);
    for column in (0..block.columns).step_by(SIDE) {
        for row in (0..block.rows).step_by(SIDE) {
            let rows = SIDE.min(block.rows - row);
            let columns = SIDE.min(block.columns - column);
            // SAFETY: packed operands hold whole pairs of panels; `c` is accessed within the
            // block's rows and columns.
            unsafe {
                let a = block.a.add(row / PANEL * length);
                let b = block.b.add(column / PANEL * block.b_panel);
                let c = block.c.add(row * block.c_stride + column);
                if rows == SIDE && columns == SIDE {
                    for i in 0..SIDE {
                        let line = c.add(i * block.c_stride);
                        // Owning the lines by the time they are stored hides the misses.
                        _mm_prefetch::<_MM_HINT_ET0>(line.cast());
                        _mm_prefetch::<_MM_HINT_ET0>(line.add(PANEL).cast());
                    }
                    multiply_side(a, b, lengths, tiles, c, block.c_stride, block.accumulate);
                    continue;
                }
                multiply_side(a, b, lengths, tiles, sums.0.as_mut_ptr(), SIDE, false);
                for i in 0..rows {
                    for j in (0..columns).step_by(PANEL) {
                        let mask = lanes(columns - j);
                        let at = c.add(i * block.c_stride + j);
                        let mut sum = _mm512_loadu_ps(sums.0.as_ptr().add(i * SIDE + j));
                        if block.accumulate {
                            sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, at));
                        }
                        _mm512_mask_storeu_ps(at, mask, sum);
                    }
                }
            }
        }
    }
}

/// A 32 x 32 block into `c`: pairs of panels, `lengths` units apart, `tiles` tiles of each.
///
/// # Safety
/// Tiles are configured on this thread; the panels are readable, `c` is writable (and, to
/// accumulate, initialised) over 32 rows of 32; `tiles` is not 0.
#[inline(always)]
unsafe fn multiply_side(
    a: *const f32,
    b: *const f32,
    lengths: [usize; 2],
    tiles: usize,
    c: *mut f32,
    c_stride: usize,
    accumulate: bool,
) {
    // SAFETY: promised by the caller. Tile registers are ours alone: compiled code never uses
    // them, so they keep their contents from one statement to the next.
    unsafe {
        let c1 = c.wrapping_add(PANEL * c_stride);
        if accumulate {
            asm!(
                "tileloadd tmm0, [{c0}+{stride}*1]",
                "tileloadd tmm1, [{c0}+{stride}*1+64]",
                "tileloadd tmm2, [{c1}+{stride}*1]",
                "tileloadd tmm3, [{c1}+{stride}*1+64]",
                stride = in(reg) c_stride * 4,
                c0 = in(reg) c,
                c1 = in(reg) c1,
                options(nostack)
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack)
            );
        }
        asm!(
            "2:",
            "tileloadd tmm4, [{a0}+{s}*1]",
            "tileloadd tmm6, [{b0}+{s}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1}+{s}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1}+{s}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c0}+{stride}*1], tmm0",
            "tilestored [{c0}+{stride}*1+64], tmm1",
            "tilestored [{c1}+{stride}*1], tmm2",
            "tilestored [{c1}+{stride}*1+64], tmm3",
            a0 = inout(reg) a => _,
            a1 = inout(reg) a.wrapping_add(lengths[0]) => _,
            b0 = inout(reg) b => _,
            b1 = inout(reg) b.wrapping_add(lengths[1]) => _,
            n = inout(reg) tiles => _,
            s = in(reg) 64usize,
            stride = in(reg) c_stride * 4,
            c0 = in(reg) c,
            c1 = in(reg) c1,
            options(nostack)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu_features::has_avx512_bf16;

    /// The kernel above with its tile instructions spelt out in scalar code: what can be tested of
    /// it on a processor that cannot pack for it. Packing is the real one where it can.
    #[derive(Clone, Copy)]
    struct EmulatedTiles;

    /// bfloat16 as the upper half of an `f32`; the test's numbers are exact.
    fn halves(unit: f32) -> [f32; 2] {
        let bits = unit.to_bits();
        [
            f32::from_bits(bits << 16),
            f32::from_bits(bits & 0xffff_0000),
        ]
    }

    unsafe fn pack_by_definition(src: Source, dst: *mut f32, units: usize, order: Order) {
        for unit in 0..units {
            for outer in 0..PANEL {
                let element = |k: usize| {
                    if outer >= src.outer || k >= src.k {
                        return 0;
                    }
                    let at = outer * src.outer_stride + k * src.k_stride;
                    // SAFETY: the element is within the extents that the caller promises.
                    unsafe { (*src.ptr.wrapping_add(at)).to_bits() >> 16 }
                };
                let bits = element(2 * unit) | element(2 * unit + 1) << 16;
                let at = match order {
                    Order::UnitMajor => unit * PANEL + outer,
                    Order::OuterMajor => (unit / PANEL * PANEL + outer) * PANEL + unit % PANEL,
                };
                // SAFETY: `dst` holds `units * PANEL` units.
                unsafe { *dst.add(at) = f32::from_bits(bits) };
            }
        }
    }

    unsafe fn pack(src: Source, dst: *mut f32, units: usize, order: Order) {
        // SAFETY: extents as promised by the caller; the instructions are detected.
        unsafe {
            if has_avx512_bf16() {
                pack_bf16(Avx512::assume_detected(), src, dst, units, order);
            } else {
                pack_by_definition(src, dst, units, order);
            }
        }
    }

    impl BlockKernel for EmulatedTiles {
        const DEPTH: usize = AmxKernel::DEPTH;
        const UNIT_STEP: usize = AmxKernel::UNIT_STEP;
        const PANEL_STEP: usize = AmxKernel::PANEL_STEP;

        unsafe fn pack_a(self, src: Source, dst: *mut f32, units: usize) {
            // SAFETY: as promised by the caller.
            unsafe { pack(src, dst, units, Order::OuterMajor) }
        }

        unsafe fn pack_b(self, src: Source, dst: *mut f32, units: usize) {
            // SAFETY: as promised by the caller.
            unsafe { pack(src, dst, units, Order::UnitMajor) }
        }

        unsafe fn multiply(self, block: Block) {
            assert_eq!(block.units % PANEL, 0);
            let length = block.units * PANEL;
            for row in 0..block.rows.next_multiple_of(SIDE) {
                for column in 0..block.columns.next_multiple_of(SIDE) {
                    let mut sum = 0.0;
                    for unit in 0..block.units {
                        let a_at = row / PANEL * length
                            + (unit / PANEL * PANEL + row % PANEL) * PANEL
                            + unit % PANEL;
                        let b_at = column / PANEL * block.b_panel + unit * PANEL + column % PANEL;
                        // SAFETY: whole pairs of panels are packed.
                        let (a, b) = unsafe { (*block.a.add(a_at), *block.b.add(b_at)) };
                        let (a, b) = (halves(a), halves(b));
                        sum += a[0] * b[0] + a[1] * b[1];
                    }
                    if row >= block.rows || column >= block.columns {
                        assert_eq!(sum, 0.0, "padding is zero");
                        continue;
                    }
                    // SAFETY: the element lies in the block.
                    unsafe {
                        let c = block.c.add(row * block.c_stride + column);
                        *c = if block.accumulate { *c + sum } else { sum };
                    }
                }
            }
        }
    }

    #[test]
    fn the_self_check_accepts_a_right_kernel() {
        assert!(multiplies_exactly(EmulatedTiles));
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    mod on_tiles {
        use super::*;
        use crate::amx_emulator::{self, numbers};
        use crate::gemm::avx512::Bf16Kernel;

        #[test]
        fn the_self_check_accepts_right_products_and_rejects_wrong_ones() {
            let Some(kernel) = AmxKernel::for_tests() else {
                return;
            };
            assert!(multiplies_exactly(kernel));
            if amx_emulator::is_used() {
                let found = amx_emulator::with_wrong_products(|| multiplies_exactly(kernel));
                assert!(!found);
                assert!(!amx_emulator::is_configured(), "tiles are released");
            }
        }

        /// A matrix of small integers, as it lies or as the transpose of one, in rows that are longer.
        struct Integers {
            data: Vec<f32>,
            rows: usize,
            cols: usize,
            turned: bool,
        }

        impl Integers {
            fn new(rows: usize, cols: usize, turned: bool, seed: usize) -> Self {
                let len = if turned {
                    cols * (rows + 3)
                } else {
                    rows * (cols + 3)
                };
                Self {
                    data: integers(len, seed),
                    rows,
                    cols,
                    turned,
                }
            }

            fn matrix(&self) -> MatRef<'_> {
                let (rows, cols) = (self.rows, self.cols);
                let longer = |rows, cols| MatRef {
                    data: &self.data,
                    rows,
                    cols,
                    row_stride: cols + 3,
                    col_stride: 1,
                };
                if self.turned {
                    longer(cols, rows).t()
                } else {
                    longer(rows, cols)
                }
            }
        }

        #[test]
        fn products_of_integers_are_exact() {
            let Some(kernel) = AmxKernel::for_tests() else {
                return;
            };
            let sizes = [
                [1, 1, 1],
                [1, 500, 1],
                [1, 33, 70],
                [70, 31, 1],
                [2, 2, 2],
                [16, 32, 16],
                [17, 64, 31],
                [32, 384, 32],
                [32, 385, 64],
                [33, 770, 33],
                [64, 96, 64],
                [65, 100, 97],
                [130, 450, 50],
                // Shared out along rows and columns, whole `a` packed first.
                [131, 400, 210],
                [40, 131, 900],
            ];
            for (at, [m, k, n]) in sizes.into_iter().enumerate() {
                for variant in 0..8 {
                    // All variants of small products, one of a large one.
                    if m * k * n > 1 << 16 && variant != at % 8 {
                        continue;
                    }
                    let [a_turned, b_turned, accumulate] =
                        [0, 1, 2].map(|bit| variant >> bit & 1 == 1);
                    let a = Integers::new(m, k, a_turned, 1);
                    let b = Integers::new(k, n, b_turned, 2);
                    let (a, b) = (a.matrix(), b.matrix());
                    let start = integers(m * n, 3);
                    let mut found = if accumulate {
                        start.clone()
                    } else {
                        vec![f32::NAN; m * n]
                    };
                    blocked::multiply(kernel, a, b, &mut found, accumulate, |_, _, _| {});
                    for (at, &found) in found.iter().enumerate() {
                        let (i, j) = (at / n, at % n);
                        let dot: f32 = (0..k)
                            .map(|l| {
                                a.data[i * a.row_stride + l * a.col_stride]
                                    * b.data[l * b.row_stride + j * b.col_stride]
                            })
                            .sum();
                        let expected = dot + if accumulate { start[at] } else { 0.0 };
                        let what = format!("{m}x{k}x{n} [{i}, {j}]");
                        assert_eq!(found, expected, "{what} {a_turned} {b_turned} {accumulate}");
                    }
                }
            }
        }

        #[test]
        fn two_layers_at_once_have_the_bits_of_two_products() {
            let Some(kernel) = AmxKernel::for_tests() else {
                return;
            };
            let packed = |b: MatRef| {
                let mut packed = vec![f32::NAN; blocked::packed_len::<AmxKernel>(b.rows, b.cols)];
                blocked::pack_b(kernel, b, &mut packed, true);
                packed
            };
            // Several chunks of either product, whole register blocks or not.
            for [m, k, between, n] in [[1, 3, 5, 2], [70, 210, 230, 40], [130, 64, 384, 64]] {
                let a = numbers(m * k, 1);
                let a = MatRef::row_major(&a, m, k);
                let (first, second) = (numbers(k * between, 2), numbers(between * n, 3));
                let first = packed(MatRef::row_major(&first, k, between));
                let second = packed(MatRef::row_major(&second, between, n));
                let add = |row: usize, at: usize, y: &mut [f32]| {
                    let sum = |j: usize, y: f32| y + (row + at + j) as f32 / 64.0;
                    y.iter_mut().enumerate().for_each(|(j, y)| *y = sum(j, *y));
                };
                let mut hidden = vec![f32::NAN; m * between];
                blocked::multiply_packed(kernel, a, &first, between, &mut hidden, false, add);
                let hidden = MatRef::row_major(&hidden, m, between);
                let mut expected = vec![f32::NAN; m * n];
                blocked::multiply_packed(kernel, hidden, &second, n, &mut expected, false, add);
                let layer = |packed, n| blocked::Layer {
                    packed,
                    n,
                    finish: add,
                };
                let (first, second) = (layer(&first[..], between), layer(&second[..], n));
                let mut found = vec![f32::NAN; m * n];
                blocked::multiply_twice(kernel, a, first, second, &mut found);
                assert_eq!(found, expected, "{m}x{k}x{between}x{n}");
            }
        }

        #[test]
        fn products_of_floats_are_those_on_vectors() {
            let Some(kernel) = AmxKernel::for_tests() else {
                return;
            };
            // SAFETY: the kernel on tiles needs AVX-512 BF16 as well.
            let vectors = unsafe { Bf16Kernel::assume_detected() };
            let [m, k, n] = [45, 500, 70];
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let (a, b) = (MatRef::row_major(&a, m, k), MatRef::row_major(&b, k, n));
            let mut expected = vec![f32::NAN; m * n];
            blocked::multiply(vectors, a, b, &mut expected, false, |_, _, _| {});
            let mut found = vec![f32::NAN; m * n];
            blocked::multiply(kernel, a, b, &mut found, false, |_, _, _| {});
            // Both round the operands alike and differ in the order of their sums.
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(
                    (found - expected).abs() < 1e-4,
                    "[{at}]: {found} for {expected}"
                );
            }
        }
    }

    #[test]
    fn packing_of_every_stride_matches_its_definition() {
        if !has_avx512_bf16() {
            return;
        }
        let data: Vec<f32> = (0..20_000).map(|i| (i % 251) as f32 - 125.0).collect();
        for order in [Order::UnitMajor, Order::OuterMajor] {
            for (outer_stride, k_stride) in [(100, 1), (1, 37), (3, 61)] {
                for (outer, k) in [(16, 64), (5, 33), (16, 1), (1, 50), (0, 0), (16, 100)] {
                    let src = Source {
                        ptr: data.as_ptr(),
                        outer,
                        outer_stride,
                        k,
                        k_stride,
                    };
                    let units = k.div_ceil(2).next_multiple_of(PANEL) + PANEL;
                    let mut found = vec![f32::NAN; units * PANEL];
                    let mut expected = found.clone();
                    // SAFETY: the largest index read is 15 * 100 + 99 < 20 000; `dst` is large
                    // enough; the instructions were detected.
                    unsafe {
                        pack(src, found.as_mut_ptr(), units, order);
                        pack_by_definition(src, expected.as_mut_ptr(), units, order);
                    }
                    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    let what = format!("{order:?} {outer_stride} {k_stride} {outer} {k}");
                    assert_eq!(bits(&found), bits(&expected), "{what}");
                }
            }
        }
    }
}
