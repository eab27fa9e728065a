//! From scores to probabilities, and back.

use super::Scores;
use crate::simd::{Simd, math, simd_dispatch};

/// A block of queries of one head and of keys; scores lie in rows of `stride` floats.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) b: usize,
    /// The first head, the first query of each head, and how many of each there are; row `i` is query
    /// `first + i % queries` of head `h + i / queries`.
    pub(super) h: usize,
    pub(super) first: usize,
    pub(super) queries: usize,
    pub(super) rows: usize,
    pub(super) stride: usize,
    /// The first key and how many, from it, some query of the block sees.
    pub(super) first_key: usize,
    pub(super) keys: usize,
}

impl Block {
    /// The query of row `i`.
    fn query(&self, i: usize) -> usize {
        self.first + i % self.queries
    }

    /// What is added to the scores of row `i`, from the block's first key on.
    fn added<'a>(&self, scores: &Scores<'a>, i: usize) -> Option<&'a [f32]> {
        let added = scores.added(self.b, self.h + i / self.queries, self.query(i));
        added.map(|added| &added[self.first_key..])
    }
}

/// Keys per block, a multiple of 16, for `keys` of them in blocks of at most `limit`, itself such a multiple.
pub(super) fn block_of(keys: usize, limit: usize) -> usize {
    let blocks = keys.div_ceil(limit).max(1);
    keys.div_ceil(blocks).max(1).next_multiple_of(16)
}

/// The logarithm of a query's sum of exponentials, `sum` times e^maximum; infinity if it sees no key.
pub(super) fn log_sum_exp(maximum: f32, sum: f32) -> f32 {
    if sum == 0.0 {
        f32::INFINITY
    } else {
        maximum + sum.ln()
    }
}

/// The part of a block's row `i` that its query sees; the rest becomes 0.
#[inline(always)]
fn seen<'a>(scores: &Scores, block: Block, i: usize, row: &'a mut [f32]) -> &'a mut [f32] {
    let visible = scores
        .visible(block.b, block.query(i))
        .saturating_sub(block.first_key);
    let (row, hidden) = row[..block.keys].split_at_mut(visible.min(block.keys));
    hidden.fill(0.0);
    row
}

/// The maximum of the scores `x * scale` (or, with a mask, `x * scale + added`) of products `x` = q k^T; with a mask
/// these scores are also written.
#[inline(always)]
fn maximum<S: Simd>(s: S, row: &mut [f32], scale: f32, added: Option<&[f32]>) -> f32 {
    let scale = s.splat(scale);
    let mut maximum = s.splat(f32::NEG_INFINITY);
    match added {
        Some(added) => {
            for (x, added) in row.chunks_mut(S::LANES).zip(added.chunks(S::LANES)) {
                let v = s.mul_add(s.load(x), scale, s.load(added));
                maximum = s.max(maximum, s.keep_first(v, x.len(), f32::NEG_INFINITY));
                s.store(x, v);
            }
        }
        None => {
            for x in row.chunks(S::LANES) {
                let v = s.mul(s.load(x), scale);
                maximum = s.max(maximum, s.keep_first(v, x.len(), f32::NEG_INFINITY));
            }
        }
    }
    s.maximum(maximum)
}

/// Writes e^(scale * x - shift) = 2^(x scale log2 e - shift log2 e) and gives the sum.
#[inline(always)]
fn exponentials<S: Simd>(s: S, row: &mut [f32], scale: f32, shift: f32) -> f32 {
    let factor = s.splat(scale * std::f32::consts::LOG2_E);
    let shift = s.splat(-shift * std::f32::consts::LOG2_E);
    let mut sum = s.zero();
    for x in row.chunks_mut(S::LANES) {
        let e = math::exp2_nonpositive(s, s.mul_add(s.load(x), factor, shift));
        sum = s.add(sum, s.keep_first(e, x.len(), 0.0));
        s.store(x, e);
    }
    s.sum(sum)
}

/// Turns products q k^T into e^(score - maximum), updates the maximum and the sum of every query's row over the blocks of
/// keys so far, and rescales rows of `width` of what was accumulated before the first block's successors. Columns that a
/// query does not see become 0.
#[inline(always)]
fn accumulate_kernel<S: Simd>(
    s: S,
    scores: &Scores,
    block: Block,
    data: &mut [f32],
    (maxima, sums): (&mut [f32], &mut [f32]),
    (out, out_stride): (*mut f32, usize),
    width: usize,
) {
    let rows = data.chunks_exact_mut(block.stride).take(block.rows);
    for (i, row) in rows.enumerate() {
        let row = seen(scores, block, i, row);
        let added = block.added(scores, i);
        let found = maximum(s, row, scores.scale, added);
        // Where there is a mask, the scores are written already.
        let scale = if added.is_some() { 1.0 } else { scores.scale };
        if found == f32::NEG_INFINITY || found.is_nan() {
            // No visible key; or the vector maximum passed over a NaN, which must not vanish.
            let broken = row.iter().any(|x| x.is_nan());
            row.fill(if broken { f32::NAN } else { 0.0 });
            if broken {
                sums[i] = f32::NAN;
            }
            continue;
        }
        let highest = found.max(maxima[i]);
        let sum = exponentials(s, row, scale, highest);
        if block.first_key > 0 && highest > maxima[i] {
            let factor = (maxima[i] - highest).exp();
            sums[i] *= factor;
            let factor = s.splat(factor);
            // SAFETY: the callers of `accumulate` promise this row, initialised by the first block of keys.
            let out = unsafe { std::slice::from_raw_parts_mut(out.add(i * out_stride), width) };
            for x in out.chunks_mut(S::LANES) {
                s.store(x, s.mul(s.load(x), factor));
            }
        }
        maxima[i] = highest;
        sums[i] += sum;
    }
}

simd_dispatch! {
    fn accumulate_dispatched(
        scores: &Scores, block: Block, data: &mut [f32], statistics: (&mut [f32], &mut [f32]),
        out: (*mut f32, usize), width: usize,
    ) = accumulate_kernel;
}

/// Turns products q k^T in `data` into e^(score - maximum) and carries the statistics (maxima, sums) and the rows of
/// `out` (pointer, stride) over to the new maxima.
///
/// # Safety
/// After the first block of keys, `out` holds `block.rows` initialised rows of `width`, which nothing else touches.
pub(super) unsafe fn accumulate(
    scores: &Scores,
    block: Block,
    data: &mut [f32],
    statistics: (&mut [f32], &mut [f32]),
    out: (*mut f32, usize),
    width: usize,
) {
    accumulate_dispatched(scores, block, data, statistics, out, width);
}

#[inline(always)]
fn normalise_kernel<S: Simd>(s: S, sums: &[f32], (x, stride): (*mut f32, usize), width: usize) {
    for (i, &sum) in sums.iter().enumerate() {
        if sum == 0.0 {
            continue;
        }
        let inverse = s.splat(1.0 / sum);
        // SAFETY: the callers of `normalise` promise this row.
        let row = unsafe { std::slice::from_raw_parts_mut(x.add(i * stride), width) };
        for x in row.chunks_mut(S::LANES) {
            s.store(x, s.mul(s.load(x), inverse));
        }
    }
}

simd_dispatch! {
    fn normalise_dispatched(sums: &[f32], rows: (*mut f32, usize), width: usize) = normalise_kernel;
}

/// Divides row i of `width` by sum i; rows without a key stay 0.
///
/// # Safety
/// `rows` (pointer, stride) holds as many initialised rows, which nothing else touches.
pub(super) unsafe fn normalise(sums: &[f32], rows: (*mut f32, usize), width: usize) {
    normalise_dispatched(sums, rows, width);
}

/// Turns products q k^T into probabilities, given the logarithm of each query's sum of exponentials.
#[inline(always)]
fn probabilities_kernel<S: Simd>(
    s: S,
    scores: &Scores,
    block: Block,
    data: &mut [f32],
    log_sum_exp: &[f32],
) {
    let rows = data.chunks_exact_mut(block.stride).zip(log_sum_exp);
    for (i, (row, &log_sum_exp)) in rows.take(block.rows).enumerate() {
        let row = seen(scores, block, i, row);
        let mut scale = scores.scale;
        if let Some(added) = block.added(scores, i) {
            maximum(s, row, scale, Some(added));
            scale = 1.0;
        }
        exponentials(s, row, scale, log_sum_exp);
    }
}

simd_dispatch! {
    pub(super) fn probabilities(scores: &Scores, block: Block, data: &mut [f32], log_sum_exp: &[f32])
        = probabilities_kernel;
}

#[inline(always)]
fn row_dots_kernel<S: Simd>(
    s: S,
    (a, a_stride): (*const f32, usize),
    (b, b_stride): (*const f32, usize),
    width: usize,
    dots: &mut [f32],
) {
    for (i, dot) in dots.iter_mut().enumerate() {
        // SAFETY: the callers of `row_dots` promise these rows.
        let (a, b) = unsafe {
            (
                std::slice::from_raw_parts(a.add(i * a_stride), width),
                std::slice::from_raw_parts(b.add(i * b_stride), width),
            )
        };
        let mut sum = s.zero();
        for (a, b) in a.chunks(S::LANES).zip(b.chunks(S::LANES)) {
            sum = s.mul_add(s.load(a), s.load(b), sum);
        }
        *dot = s.sum(sum);
    }
}

simd_dispatch! {
    fn row_dots_dispatched(
        a: (*const f32, usize), b: (*const f32, usize), width: usize, dots: &mut [f32],
    ) = row_dots_kernel;
}

/// `dots[i] = a[i] . b[i]` for rows (pointer, stride) of `width`.
///
/// # Safety
/// Both hold `dots.len()` readable rows.
pub(super) unsafe fn row_dots(
    a: (*const f32, usize),
    b: (*const f32, usize),
    width: usize,
    dots: &mut [f32],
) {
    row_dots_dispatched(a, b, width, dots);
}

/// Turns gradients by probabilities `p` into gradients by products q k^T, in place:
/// `ds = p * (dp - delta) * scale`, where `delta = sum(p * dp)` over all keys.
#[inline(always)]
fn gradients_kernel<S: Simd>(
    s: S,
    scale: f32,
    block: Block,
    p: &[f32],
    delta: &[f32],
    dp: &mut [f32],
) {
    let rows = p.chunks_exact(block.stride);
    let rows = rows.zip(dp.chunks_exact_mut(block.stride)).zip(delta);
    let scale = s.splat(scale);
    for ((p, dp), &delta) in rows.take(block.rows) {
        let delta = s.splat(delta);
        let p = p[..block.keys].chunks(S::LANES);
        for (p, dp) in p.zip(dp[..block.keys].chunks_mut(S::LANES)) {
            let d = s.mul(s.load(p), s.sub(s.load(dp), delta));
            s.store(dp, s.mul(d, scale));
        }
    }
}

simd_dispatch! {
    pub(super) fn gradients(scale: f32, block: Block, p: &[f32], delta: &[f32], dp: &mut [f32])
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
