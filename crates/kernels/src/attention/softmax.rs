//! From scores to probabilities, and back.

use super::Scores;
use crate::simd::{Simd, math, simd_dispatch};

/// A block of queries of one head whose scores lie in rows of `stride` floats.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) b: usize,
    pub(super) h: usize,
    /// The first query and how many there are.
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) stride: usize,
    /// Columns that later products read: the largest number of keys that a query of the block sees.
    pub(super) keys: usize,
}

/// Turns products q k^T into probabilities; columns that a query does not see become 0.
#[inline(always)]
fn probabilities_kernel<S: Simd>(s: S, scores: &Scores, block: Block, data: &mut [f32]) {
    let rows = data.chunks_exact_mut(block.stride).take(block.rows);
    for (i, row) in rows.enumerate() {
        let query = block.first + i;
        let visible = scores.visible(block.b, query);
        let (row, hidden) = row[..block.keys].split_at_mut(visible.min(block.keys));
        hidden.fill(0.0);
        let scale = s.splat(scores.scale);
        let mut maximum = s.splat(f32::NEG_INFINITY);
        match scores.added(block.b, block.h, query) {
            Some(added) => {
                for (x, added) in row.chunks_mut(S::LANES).zip(added.chunks(S::LANES)) {
                    let v = s.mul_add(s.load(x), scale, s.load(added));
                    maximum = s.max(maximum, s.keep_first(v, x.len(), f32::NEG_INFINITY));
                    s.store(x, v);
                }
            }
            None => {
                for x in row.chunks_mut(S::LANES) {
                    let v = s.mul(s.load(x), scale);
                    maximum = s.max(maximum, s.keep_first(v, x.len(), f32::NEG_INFINITY));
                    s.store(x, v);
                }
            }
        }
        let maximum = s.maximum(maximum);
        if maximum == f32::NEG_INFINITY {
            // No visible key; or the vector maximum passed over a NaN, which must not vanish.
            let broken = row.iter().any(|x| x.is_nan());
            row.fill(if broken { f32::NAN } else { 0.0 });
            continue;
        }
        // e^(x - maximum) = 2^(x log2 e - maximum log2 e)
        let log2_e = s.splat(std::f32::consts::LOG2_E);
        let shift = s.splat(-maximum * std::f32::consts::LOG2_E);
        let mut sum = s.zero();
        for x in row.chunks_mut(S::LANES) {
            let e = math::exp2_nonpositive(s, s.mul_add(s.load(x), log2_e, shift));
            sum = s.add(sum, s.keep_first(e, x.len(), 0.0));
            s.store(x, e);
        }
        let inverse = s.splat(1.0 / s.sum(sum));
        for x in row.chunks_mut(S::LANES) {
            s.store(x, s.mul(s.load(x), inverse));
        }
    }
}

simd_dispatch! {
    pub(super) fn probabilities(scores: &Scores, block: Block, data: &mut [f32])
        = probabilities_kernel;
}

/// Turns gradients by probabilities `p` into gradients by products q k^T, in place:
/// `ds = p * (dp - sum(p * dp)) * scale`.
#[inline(always)]
fn gradients_kernel<S: Simd>(s: S, scores: &Scores, block: Block, p: &[f32], dp: &mut [f32]) {
    let rows = p.chunks_exact(block.stride);
    for (p, dp) in rows.zip(dp.chunks_exact_mut(block.stride)).take(block.rows) {
        let (p, dp) = (&p[..block.keys], &mut dp[..block.keys]);
        let mut sum = s.zero();
        for (p, dp) in p.chunks(S::LANES).zip(dp.chunks(S::LANES)) {
            sum = s.mul_add(s.load(p), s.load(dp), sum);
        }
        let sum = s.splat(s.sum(sum));
        let scale = s.splat(scores.scale);
        for (p, dp) in p.chunks(S::LANES).zip(dp.chunks_mut(S::LANES)) {
            let d = s.mul(s.load(p), s.sub(s.load(dp), sum));
            s.store(dp, s.mul(d, scale));
        }
    }
}

simd_dispatch! {
    pub(super) fn gradients(scores: &Scores, block: Block, p: &[f32], dp: &mut [f32])
        = gradients_kernel;
}

/// The transpose of `rows` rows of `cols` floats, `src_stride` apart, into rows of `dst_stride`.
#[inline(always)]
fn transpose_kernel<S: Simd>(
    s: S,
    src: (*const f32, usize),
    rows: usize,
    cols: usize,
    dst: &mut [f32],
    dst_stride: usize,
) {
    assert!(rows <= dst_stride && cols * dst_stride <= dst.len());
    // SAFETY: `src` is a checked view of `rows` rows (see `transpose`); `dst` was checked above.
    unsafe { s.transpose(src.0, src.1, rows, cols, dst.as_mut_ptr(), dst_stride) }
}

simd_dispatch! {
    fn transpose_dispatched(
        src: (*const f32, usize), rows: usize, cols: usize, dst: &mut [f32], dst_stride: usize,
    ) = transpose_kernel;
}

/// Writes the transpose of the rows at `src` (pointer, stride) to `dst`, rows of `dst_stride`.
///
/// # Safety
/// `rows` rows of `cols` floats, a stride apart, are readable at `src`.
pub(super) unsafe fn transpose(
    src: (*const f32, usize),
    rows: usize,
    cols: usize,
    dst: &mut [f32],
    dst_stride: usize,
) {
    transpose_dispatched(src, rows, cols, dst, dst_stride);
}
