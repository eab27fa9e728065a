//! Products of rounded activations with packed blocks.
//!
//! A few rows (decoding) read the weights once, straight from memory, and turn them into codes in
//! registers. Many rows (a prompt) unpack a chunk of a panel to a byte per code, which then stays
//! in the first-level cache while tiles of `R` rows of activations pass by.

use super::activations::Activations;
use super::int8::{expect_panel, write_panel};
use super::lanes::{Lanes, PANEL, lanes_dispatch, tile_rows};
use super::layout::{Source, Unpacked};
use crate::parallel::SharedMut;
use std::ops::Range;

/// The most rows of activations that [`few_rows`] takes.
pub(super) const FEW_ROWS: usize = 4;

/// Rows of a panel of activations for `m` rows: what the kernels are compiled for.
pub(super) fn tile_for(m: usize) -> usize {
    match m {
        0..=2 => m,
        3..=FEW_ROWS => FEW_ROWS,
        _ => tile_rows(),
    }
}

/// Weights of a row that are unpacked at a time: with a tile of activations they fit the first-level cache.
const CHUNK: usize = 1024;

/// Bytes of a panel from which on weights are asked for ahead, in the second-level cache, and how far ahead.
///
/// Processors fetch what is read from start to end by themselves: Zen 4 27 GB/s a core, and less with such requests (23 and
/// 20 GB/s into the first level), as few can be under way at a time. Where a panel drives the activations out of the first
/// level, they gain 10 to 20 % for all but 8-bit weights.
const LONG_PANEL: usize = 24 * 1024;
const AHEAD: usize = 8192;

/// A product `out[m, n] = activations weights^T`.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// Packed panels.
    pub(super) weights: &'a [u8],
    /// Blocks of a row.
    pub(super) blocks: usize,
    /// Rows of weights, columns of `out`.
    pub(super) n: usize,
    /// Rows of `out`.
    pub(super) m: usize,
    pub(super) activations: Activations<'a>,
    pub(super) out: SharedMut,
}

impl Product<'_> {
    /// The first of the panel's blocks.
    ///
    /// # Safety
    /// `panel` is one of the matrix.
    #[inline(always)]
    pub(super) unsafe fn panel<F: Source>(&self, panel: usize) -> *const u8 {
        let at = panel * self.blocks * F::BYTES;
        debug_assert!(at + self.blocks * F::BYTES <= self.weights.len());
        // SAFETY: promised by the caller.
        unsafe { self.weights.as_ptr().add(at) }
    }
}

/// Adds the products of `R` rows of activations with group `g` of a block to `partial`. With `ahead` it asks for the weights
/// that come [`AHEAD`] bytes later.
///
/// # Safety
/// As for [`add_blocks`], `codes` and `sums` from the group on.
#[inline(always)]
unsafe fn add_group<S: Lanes, F: Source, const R: usize>(
    s: S,
    block: *const u8,
    g: usize,
    (codes, sums): (*const u8, *const f32),
    ahead: bool,
    partial: &mut [S::Floats; R],
) {
    let group = F::FORMAT.group_len();
    let quads = group / 16;
    // SAFETY: promised by the caller.
    unsafe {
        let mut dots = [s.splat_int(0); R];
        if !F::FORMAT.has_mins() {
            for (r, dot) in dots.iter_mut().enumerate() {
                *dot = s.splat_int(*sums.add(r).cast::<i32>());
            }
        }
        if F::UNPACKED {
            let w = block.add(g * group * PANEL);
            match F::FORMAT.bits() {
                4 => s.dot_tile::<4, R>(&mut dots, w, codes, quads),
                5 => s.dot_tile::<5, R>(&mut dots, w, codes, quads),
                6 => s.dot_tile::<6, R>(&mut dots, w, codes, quads),
                _ => s.dot_tile::<8, R>(&mut dots, w, codes, quads),
            }
        } else {
            if ahead {
                let groups = F::FORMAT.block_len() / group;
                let lines = (F::BYTES / groups).div_ceil(64);
                for line in 0..lines {
                    s.prefetch(block.wrapping_add(AHEAD + (g * lines + line) * 64));
                }
            }
            for quad in 0..quads {
                let w = F::quad(s, block, g * quads + quad);
                let codes = codes.add(quad * 16 * R);
                for (r, dot) in dots.iter_mut().enumerate() {
                    let a = codes.add(4 * r);
                    *dot = match F::FORMAT.bits() {
                        4 => s.dot::<4>(*dot, w, a, 4 * R),
                        5 => s.dot::<5>(*dot, w, a, 4 * R),
                        6 => s.dot::<6>(*dot, w, a, 4 * R),
                        _ => s.dot::<8>(*dot, w, a, 4 * R),
                    };
                }
            }
        }
        let scale = F::scale(s, block, g);
        for r in 0..R {
            partial[r] = s.mul_add(s.to_floats(dots[r]), scale, partial[r]);
        }
        if F::FORMAT.has_mins() {
            let min = F::min(s, block, g);
            for (r, partial) in partial.iter_mut().enumerate() {
                *partial = s.neg_mul_add(min, s.splat(*sums.add(r)), *partial);
            }
        }
    }
}

/// Adds the products of `R` rows of activations with `blocks` blocks of a panel to `acc`; `ahead` is that of [`add_group`].
///
/// # Safety
/// The blocks are readable at `weights`; `codes`, `scales` and `sums` belong to a panel of `R` rows
/// and start at the first of these blocks.
#[inline(always)]
unsafe fn add_blocks<S: Lanes, F: Source, const R: usize>(
    s: S,
    weights: *const u8,
    blocks: usize,
    (codes, scales, sums): (*const u8, *const f32, *const f32),
    ahead: bool,
    acc: &mut [S::Floats; R],
) {
    let group = F::FORMAT.group_len();
    let groups = F::FORMAT.block_len() / group;
    for b in 0..blocks {
        // SAFETY: promised by the caller.
        unsafe {
            let block = weights.add(b * F::BYTES);
            let codes = codes.add(b * F::FORMAT.block_len() * R);
            let sums = sums.add(b * groups * R);
            let mut partial = [s.splat(0.0); R];
            for g in 0..groups {
                let activations = (codes.add(g * group * R), sums.add(g * R));
                add_group::<S, F, R>(s, block, g, activations, ahead, &mut partial);
            }
            for r in 0..R {
                acc[r] = s.mul_add(partial[r], s.splat(*scales.add(b * R + r)), acc[r]);
            }
        }
    }
}

lanes_dispatch! {
    /// Computes the columns of `panels` for up to [`FEW_ROWS`] rows, which are one panel of
    /// activations.
    ///
    /// # Safety
    /// The product's extents are right, its panels hold `F`, and no one else touches these columns
    /// of `out`.
    pub(super) unsafe fn few_rows<F: Source>(product: &Product, panels: Range<usize>)
        = few_rows_kernel;
}

#[inline(always)]
unsafe fn few_rows_kernel<S: Lanes, F: Source, const R: usize>(
    s: S,
    product: &Product,
    panels: Range<usize>,
) {
    // SAFETY: promised by the caller.
    unsafe {
        match product.activations.tile {
            1 => exactly::<S, F, 1>(s, product, panels),
            2 => exactly::<S, F, 2>(s, product, panels),
            4 => exactly::<S, F, 4>(s, product, panels),
            tile => unreachable!("{tile} are not a few rows"),
        }
    }
}

#[inline(always)]
unsafe fn exactly<S: Lanes, F: Source, const R: usize>(
    s: S,
    product: &Product,
    panels: Range<usize>,
) {
    let a = &product.activations;
    let activations = (a.codes(0), a.scales(0), a.sums(0));
    let ahead = F::FORMAT.bits() < 8 && product.blocks * F::BYTES >= LONG_PANEL;
    for panel in panels {
        let mut acc = [s.splat(0.0); R];
        // SAFETY: promised by the caller.
        unsafe {
            let weights = product.panel::<F>(panel);
            add_blocks::<S, F, R>(s, weights, product.blocks, activations, ahead, &mut acc);
            for (row, result) in acc.into_iter().enumerate().take(product.m) {
                write_panel(s, product.out, product.n, row, panel, result);
            }
        }
    }
}

lanes_dispatch! {
    /// Computes the columns of `panels` for the rows of `tiles`, panels of activations of
    /// [`tile_rows`] rows.
    ///
    /// # Safety
    /// As for [`few_rows`], for this part of `out`; `scratch` is of [`scratch_len`].
    pub(super) unsafe fn many_rows<F: Source>(
        product: &Product,
        panels: Range<usize>,
        tiles: Range<usize>,
        scratch: &mut [f32],
    ) = many_rows_kernel;
}

/// Floats of the scratch that [`many_rows`] needs for `tiles` panels of activations of `tile` rows.
pub(super) fn scratch_len<F: Source>(tiles: usize, tile: usize) -> usize {
    unpacked_len::<F>(CHUNK) + tiles * tile * PANEL
}

/// Floats of room for `chunk` weights of each row of a panel, unpacked.
pub(super) const fn unpacked_len<F: Source>(chunk: usize) -> usize {
    chunk / F::FORMAT.block_len() * <Unpacked<F> as Source>::BYTES / 4
}

/// Unpacks neighbouring blocks of a panel.
///
/// # Safety
/// `weights` is readable over `blocks` blocks, `unpacked` writable over as many unpacked ones.
#[inline(always)]
pub(super) unsafe fn unpack_blocks<S: Lanes, F: Source>(
    s: S,
    weights: *const u8,
    blocks: usize,
    unpacked: *mut u8,
) {
    // SAFETY: promised by the caller.
    unsafe {
        for b in 0..blocks {
            let dst = unpacked.add(b * <Unpacked<F> as Source>::BYTES);
            Unpacked::<F>::unpack(s, weights.add(b * F::BYTES), dst);
        }
    }
}

#[inline(always)]
unsafe fn many_rows_kernel<S: Lanes, F: Source, const R: usize>(
    s: S,
    product: &Product,
    panels: Range<usize>,
    tiles: Range<usize>,
    scratch: &mut [f32],
) {
    assert!(scratch.len() >= scratch_len::<F>(tiles.len(), R) && product.activations.tile == R);
    let block_len = F::FORMAT.block_len();
    let groups = block_len / F::FORMAT.group_len();
    let chunk = CHUNK / block_len;
    let (unpacked, sums) = scratch.split_at_mut(unpacked_len::<F>(CHUNK));
    let unpacked = unpacked.as_mut_ptr().cast::<u8>();
    let a = &product.activations;
    for panel in panels {
        for first in (0..product.blocks).step_by(chunk) {
            let blocks = chunk.min(product.blocks - first);
            let last = first + blocks == product.blocks;
            // SAFETY: the caller promises the extents; the scratch holds a chunk and a panel of
            // sums for every row of every tile.
            unsafe {
                let weights = product.panel::<F>(panel).add(first * F::BYTES);
                unpack_blocks::<S, F>(s, weights, blocks, unpacked);
                for (i, tile) in tiles.clone().enumerate() {
                    let activations = (
                        a.codes(tile).add(first * block_len * R),
                        a.scales(tile).add(first * R),
                        a.sums(tile).add(first * groups * R),
                    );
                    let sums = sums.as_mut_ptr().add(i * R * PANEL);
                    if last {
                        expect_panel::<S, R>(s, product.out, product.n, tile * R, panel);
                    }
                    let mut acc = [s.splat(0.0); R];
                    if first > 0 {
                        for (r, acc) in acc.iter_mut().enumerate() {
                            *acc = s.load_floats(sums.add(r * PANEL));
                        }
                    }
                    add_blocks::<S, Unpacked<F>, R>(
                        s,
                        unpacked,
                        blocks,
                        activations,
                        false,
                        &mut acc,
                    );
                    for (r, acc) in acc.into_iter().enumerate() {
                        if !last {
                            s.store_floats(sums.add(r * PANEL), acc);
                        } else if tile * R + r < product.m {
                            write_panel(s, product.out, product.n, tile * R + r, panel, acc);
                        }
                    }
                }
            }
        }
    }
}
