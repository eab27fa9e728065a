//! The linear layer with 8-bit weights.

use super::activations::{Activations, Rounding, Sums, round, scale_of, with_rounded};
use super::aligned::AlignedBytes;
use super::lanes::{Lanes, PANEL, byte_zero, lanes_dispatch};
use super::product::{FEW_ROWS, tile_for};
use crate::gemm::linear::{Epilogue, Segment, finish};
use crate::parallel::{self, SharedMut};
use rayon::prelude::*;
use std::ops::Range;

/// Rows are padded to a multiple of this: one AMX tile.
pub(super) const K_STEP: usize = 64;
/// Rows per task of a large product, and tiles of the smallest kernel in it.
const TASK_ROWS: usize = 64;
const MOST_TILES: usize = TASK_ROWS / FEW_ROWS;
/// `127 * 127 * MAX_K` fits 32 bits.
const MAX_K: usize = 1 << 17;

/// Weights `[n, k]` of a linear layer rounded to 8 bits, symmetrically and with a scale per output
/// channel, packed for [`linear_int8`].
///
/// `weight = scale * code` with codes in -127..=127 and `scale = max |weight| / 127`.
pub struct Int8Weights {
    n: usize,
    k: usize,
    /// `[n / 16][k / 4][16][4]`, `code + 128`; what fills up panels and rows is 128.
    codes: AlignedBytes,
    /// `[n]`, 0 up to whole panels.
    scales: Vec<f32>,
}

impl Int8Weights {
    /// Rounds and packs `weight` `[n, k]`, `[out_features, in_features]` as PyTorch stores it.
    ///
    /// A row with an element that is not finite gives outputs of NaN. `k` is at most 131,072.
    #[must_use]
    pub fn quantize(weight: &[f32], n: usize, k: usize) -> Self {
        assert_eq!(weight.len(), n * k, "int8: weight is not [{n}, {k}]");
        assert!(k <= MAX_K, "int8: rows of {k} are longer than {MAX_K}");
        let mut weights = Self::empty(n, k);
        let panel_bytes = weights.panel_bytes();
        if panel_bytes > 0 {
            weights
                .codes
                .par_chunks_exact_mut(panel_bytes)
                .zip(weights.scales.par_chunks_exact_mut(PANEL))
                .enumerate()
                .for_each(|(panel, (codes, scales))| {
                    pack_panel(weight, k, panel, codes, scales);
                });
        }
        weights
    }

    /// As [`Self::quantize`], on this thread.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn quantize_here(weight: &[f32], n: usize, k: usize) -> Self {
        let mut weights = Self::empty(n, k);
        let codes = weights
            .codes
            .chunks_exact_mut(k.next_multiple_of(K_STEP) * PANEL);
        let panels = codes.zip(weights.scales.chunks_exact_mut(PANEL));
        for (panel, (codes, scales)) in panels.enumerate() {
            pack_panel(weight, k, panel, codes, scales);
        }
        weights
    }

    /// Pairs of panels, as AMX takes them.
    fn empty(n: usize, k: usize) -> Self {
        let panels = n.div_ceil(PANEL).next_multiple_of(2);
        Self {
            n,
            k,
            codes: AlignedBytes::zeroed(panels * k.next_multiple_of(K_STEP) * PANEL),
            scales: vec![0.0; panels * PANEL],
        }
    }

    /// Output channels.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input channels.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of memory that the weights take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.codes.len() + 4 * self.scales.len()
    }

    /// `[n]`, 0 up to whole panels.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    pub(super) fn panel_bytes(&self) -> usize {
        self.k.next_multiple_of(K_STEP) * PANEL
    }

    /// The codes of panel `panel`.
    pub(super) fn panel(&self, panel: usize) -> &[u8] {
        &self.codes[panel * self.panel_bytes()..][..self.panel_bytes()]
    }
}

/// Rounds the rows of one panel into `codes` and `scales`.
fn pack_panel(weight: &[f32], k: usize, panel: usize, codes: &mut [u8], scales: &mut [f32]) {
    codes.fill(128);
    let first = (panel * PANEL * k).min(weight.len());
    let rows = weight[first..].chunks_exact(k);
    for (r, (row, scale)) in rows.zip(scales).enumerate() {
        let found = scale_of(row);
        *scale = found.scale;
        for (i, &w) in row.iter().enumerate() {
            let code = round(w, found.inverse).cast_unsigned() ^ 0x80;
            codes[i / 4 * 4 * PANEL + r * 4 + i % 4] = code;
        }
    }
}

/// `out[m, n] = activation(x[m, k] weights^T + bias) + residual`, each row of `x` rounded to 8 bits
/// with a scale of its own. The epilogue is that of [`linear()`](crate::linear()).
///
/// A row of `x` with an element that is not finite gives a row of NaN.
pub fn linear_int8(
    x: &[f32],
    weights: &Int8Weights,
    m: usize,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    let on_amx = m > MOST_ROWS_WITHOUT_AMX && amx_available();
    linear_int8_on(x, weights, m, epilogue, out, on_amx);
}

/// [`linear_int8`] with AMX, which must be there then, or without.
pub(super) fn linear_int8_on(
    x: &[f32],
    weights: &Int8Weights,
    m: usize,
    mut epilogue: Epilogue,
    out: &mut [f32],
    on_amx: bool,
) {
    let (n, k) = (weights.n, weights.k);
    assert_eq!(x.len(), m * k, "linear_int8: x is not [{m}, {k}]");
    assert_eq!(out.len(), m * n, "linear_int8: out is not [{m}, {n}]");
    epilogue.check(m, n);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        out.fill(0.0);
    }
    let finish = Finish {
        n,
        plain: epilogue.is_none(),
        pre_activation: epilogue.pre_activation.as_mut().map(|p| SharedMut::new(p)),
        epilogue: &epilogue,
        out: SharedMut::new(out),
    };
    if k == 0 {
        // SAFETY: `out` is all ours.
        return unsafe { finish.run(0..m, 0..n) };
    }
    let mut rounding = Rounding {
        block: k,
        group: k,
        sums: Sums::Start { zero: byte_zero() },
        k_step: K_STEP,
        row_step: 1,
    };
    let mut tile = tile_for(m);
    if on_amx {
        (rounding, tile) = (amx_rounding(k), 1);
    }
    with_rounded(x, m, k, rounding, tile, |activations| {
        let product = Int8Product {
            weights,
            m,
            activations,
            out: finish.out,
        };
        product.run(&finish, on_amx);
    });
}

/// Tiles of AMX hold 16 rows: so few are as fast without.
pub(super) const MOST_ROWS_WITHOUT_AMX: usize = 8;

#[cfg(target_arch = "x86_64")]
use super::amx::{available as amx_available, rounding as amx_rounding};

#[cfg(not(target_arch = "x86_64"))]
fn amx_available() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn amx_rounding(_: usize) -> Rounding {
    unreachable!("there is no AMX")
}

/// The epilogue of a whole product.
struct Finish<'a> {
    n: usize,
    plain: bool,
    epilogue: &'a Epilogue<'a>,
    pre_activation: Option<SharedMut>,
    out: SharedMut,
}

impl Finish<'_> {
    /// # Safety
    /// This part of `out` is initialised, and no one else touches it.
    unsafe fn run(&self, rows: Range<usize>, columns: Range<usize>) {
        if self.plain {
            return;
        }
        let len = columns.len();
        for row in rows {
            let at = row * self.n + columns.start;
            // SAFETY: promised by the caller; `pre_activation` is as large as `out`.
            let segment =
                |all: SharedMut| unsafe { std::slice::from_raw_parts_mut(all.ptr().add(at), len) };
            let epilogue = Segment {
                bias: self.epilogue.bias.map(|b| &b[columns.clone()]),
                activation: self.epilogue.activation,
                residual: self.epilogue.residual.map(|r| &r[at..][..len]),
                pre_activation: self.pre_activation.map(segment),
            };
            finish(segment(self.out), epilogue);
        }
    }
}

/// `out[m, n] = activations weights^T`.
pub(super) struct Int8Product<'a> {
    pub(super) weights: &'a Int8Weights,
    pub(super) m: usize,
    pub(super) activations: Activations<'a>,
    pub(super) out: SharedMut,
}

impl Int8Product<'_> {
    /// Cuts the product into tasks. Every output is computed by one of them, however many there are.
    fn run(&self, finish: &Finish, on_amx: bool) {
        /// Products of integers per task.
        const TASK_WORK: usize = 1 << 23;
        /// Bytes of weights that are worth a task of few rows.
        const TASK_BYTES: usize = 24 * 1024;

        let panel_bytes = self.weights.panel_bytes();
        let panels = self.weights.n.div_ceil(PANEL);
        let per_task = if self.m <= FEW_ROWS {
            TASK_BYTES / panel_bytes
        } else {
            TASK_WORK / (self.m.min(TASK_ROWS) * panel_bytes)
        };
        let per_task = per_task.max(1).next_multiple_of(if on_amx { 2 } else { 1 });
        let column_tasks = panels.div_ceil(per_task);
        let tile = self.activations.tile;
        let tiles_per_task = (TASK_ROWS / tile).max(1);
        let all_tiles = self.m.div_ceil(tile);
        let row_tasks = all_tiles.div_ceil(tiles_per_task);
        parallel::for_each_task(column_tasks * row_tasks, |task| {
            // Neighbouring tasks share the activations.
            let (row, column) = (task / column_tasks, task % column_tasks);
            let panels = column * per_task..((column + 1) * per_task).min(panels);
            let tiles =
                row * tiles_per_task..((row + 1) * tiles_per_task).min(self.activations.panels);
            let rows = tiles.start * tile..(tiles.end * tile).min(self.m);
            let columns = panels.start * PANEL..(panels.end * PANEL).min(self.weights.n);
            // SAFETY: panels and tiles exist, and tasks are disjoint.
            unsafe {
                match on_amx {
                    #[cfg(target_arch = "x86_64")]
                    true => super::amx::multiply(self, panels, tiles),
                    _ => multiply(self, panels, tiles),
                }
                finish.run(rows, columns);
            }
        });
    }
}

lanes_dispatch! {
    /// Computes the columns of `panels` for the rows of `tiles`.
    ///
    /// # Safety
    /// They exist, and no one else touches this part of `out`.
    unsafe fn multiply(product: &Int8Product, panels: Range<usize>, tiles: Range<usize>)
        = multiply_kernel;
}

#[inline(always)]
unsafe fn multiply_kernel<S: Lanes, const R: usize>(
    s: S,
    product: &Int8Product,
    panels: Range<usize>,
    tiles: Range<usize>,
) {
    // SAFETY: promised by the caller.
    unsafe {
        match product.activations.tile {
            1 => multiply_tiles::<S, 1>(s, product, panels, tiles),
            2 => multiply_tiles::<S, 2>(s, product, panels, tiles),
            FEW_ROWS => multiply_tiles::<S, FEW_ROWS>(s, product, panels, tiles),
            tile => {
                assert_eq!(tile, R, "activations are packed for this kernel");
                multiply_tiles::<S, R>(s, product, panels, tiles);
            }
        }
    }
}

#[inline(always)]
unsafe fn multiply_tiles<S: Lanes, const R: usize>(
    s: S,
    product: &Int8Product,
    panels: Range<usize>,
    tiles: Range<usize>,
) {
    /// Sixteens of `k` in a chunk: a panel of it, 16 KiB, stays in the first-level cache.
    const CHUNK: usize = 64;
    let (weights, a) = (product.weights, &product.activations);
    let quads = weights.k.div_ceil(16);
    let mut sums = [[[0_i32; PANEL]; R]; MOST_TILES];
    for panel in panels {
        let w = weights.panel(panel).as_ptr();
        for first in (0..quads).step_by(CHUNK) {
            let chunk = first..(first + CHUNK).min(quads);
            for (tile, sums) in tiles.clone().zip(&mut sums) {
                // SAFETY: panel and tile exist; rows are padded to whole quads.
                unsafe {
                    let mut dots = [s.splat_int(0); R];
                    for (r, (dot, sums)) in dots.iter_mut().zip(&*sums).enumerate() {
                        *dot = if first == 0 {
                            s.splat_int(*a.sums(tile).add(r).cast::<i32>())
                        } else {
                            s.load_ints(sums.as_ptr())
                        };
                    }
                    let codes = a.codes(tile);
                    let (w, codes) = (w.add(first * 256), codes.add(first * 16 * R));
                    if chunk.end == quads {
                        expect_panel::<S, R>(s, product.out, weights.n, tile * R, panel);
                    }
                    s.dot_tile::<8, R>(&mut dots, w, codes, chunk.len());
                    if chunk.end < quads {
                        for (sums, dot) in sums.iter_mut().zip(dots) {
                            s.store_ints(sums.as_mut_ptr(), dot);
                        }
                        continue;
                    }
                    let scale = s.load_floats(weights.scales[panel * PANEL..].as_ptr());
                    for (r, dot) in dots.into_iter().enumerate() {
                        let row = tile * R + r;
                        if row < product.m {
                            let product_scale = s.mul(scale, s.splat(*a.scales(tile).add(r)));
                            let result = s.mul(s.to_floats(dot), product_scale);
                            write_panel(s, product.out, weights.n, row, panel, result);
                        }
                    }
                }
            }
        }
    }
}

/// Asks for the lines that [`write_panel`] will write for `R` rows from `row`. A line of `out` that is in no cache takes
/// longer to come than its 16 results to be computed, and stores wait for one after the other.
#[inline(always)]
pub(super) fn expect_panel<S: Lanes, const R: usize>(
    s: S,
    out: SharedMut,
    n: usize,
    row: usize,
    panel: usize,
) {
    for row in row..row + R {
        s.prefetch_write(out.ptr().wrapping_add(row * n + panel * PANEL));
    }
}

/// Writes one row of a panel of results to `out` `[.., n]`.
///
/// # Safety
/// Row and panel exist, and no one else touches this part of `out`.
#[inline(always)]
pub(super) unsafe fn write_panel<S: Lanes>(
    s: S,
    out: SharedMut,
    n: usize,
    row: usize,
    panel: usize,
    result: S::Floats,
) {
    let first = panel * PANEL;
    // SAFETY: promised by the caller.
    unsafe {
        let out = out.ptr().add(row * n + first);
        if first + PANEL <= n {
            s.store_floats(out, result);
        } else {
            let mut whole = [0.0; PANEL];
            s.store_floats(whole.as_mut_ptr(), result);
            std::ptr::copy_nonoverlapping(whole.as_ptr(), out, n - first);
        }
    }
}
