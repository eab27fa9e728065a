//! Probabilities times values, block by block of queries.

use super::softmax::{self, Block};
use super::{AttentionShape, HeadsMut, HeadsRef, Input, Mask, Output, Scores};
use crate::gemm::{Operand, SmallGemm};
use crate::parallel;
use crate::scratch::with_scratch;
use crate::simd::{Simd, simd_dispatch};

/// Queries whose scores are held at a time: with 200 keys they fill half of a 64 KiB cache.
pub(super) const QUERY_BLOCK: usize = 32;
/// Queries per task: enough for the transposed keys to pay.
const QUERIES_PER_TASK: usize = 256;
/// Queries up to which keys are read as they lie instead of transposed.
const FEW_QUERIES: usize = 3;

/// `out = softmax(scale * q k^T + mask) v` for every sequence and head.
///
/// A query that sees no key gives zeros. `key_lengths` (`[batch]`) hides the keys from that index
/// on, together with any mask.
///
/// # Shapes
/// `q` and `out` `[batch, q_len, heads * head_dim]`, `k` and `v`
/// `[batch, k_len, kv_heads * head_dim]`.
pub fn attention(
    shape: AttentionShape,
    q: HeadsRef,
    k: HeadsRef,
    v: HeadsRef,
    mask: Mask,
    key_lengths: Option<&[u32]>,
    scale: f32,
    out: HeadsMut,
) {
    let scores = Scores::new(shape, mask, key_lengths, scale);
    let (batch, q_len, k_len) = (shape.batch, shape.q_len, shape.k_len);
    let q_width = shape.heads * shape.head_dim;
    let kv_width = shape.kv_heads * shape.head_dim;
    let problem = Problem {
        scores,
        q: q.checked("q", batch, q_len, q_width),
        k: k.checked("k", batch, k_len, kv_width),
        v: v.checked("v", batch, k_len, kv_width),
        out: out.checked("out", batch, q_len, q_width),
    };
    if shape.is_empty() || q_len == 0 {
        return;
    }
    let parts = q_len.div_ceil(QUERIES_PER_TASK);
    let work = 2 * q_len.min(QUERIES_PER_TASK) * k_len * shape.head_dim;
    parallel::for_each_task_of(work, batch * shape.heads * parts, |task| {
        let (pair, part) = (task / parts, task % parts);
        let first = part * QUERIES_PER_TASK;
        let last = (first + QUERIES_PER_TASK).min(q_len);
        problem.run(pair / shape.heads, pair % shape.heads, first..last);
    });
}

struct Problem<'a> {
    scores: Scores<'a>,
    q: Input<'a>,
    k: Input<'a>,
    v: Input<'a>,
    out: Output,
}

impl Problem<'_> {
    /// The queries of one head, which are this task's alone.
    fn run(&self, b: usize, h: usize, queries: std::ops::Range<usize>) {
        let shape = self.scores.shape;
        let (k_len, head_dim) = (shape.k_len, shape.head_dim);
        let column = h * head_dim;
        let kv_column = h / shape.group() * head_dim;
        // Rows of whole cache lines: full vectors everywhere.
        let stride = k_len.max(1).next_multiple_of(16);
        let transposed = queries.len() > FEW_QUERIES;
        let keys_len = if transposed { head_dim * stride } else { 0 };
        with_scratch(keys_len + QUERY_BLOCK * stride, |scratch| {
            let (keys, data) = scratch.split_at_mut(keys_len);
            if transposed {
                let src = (self.k.ptr(b, 0, kv_column), self.k.stride());
                // SAFETY: `k` was checked to hold k_len rows of this head.
                unsafe { softmax::transpose(src, k_len, head_dim, keys, stride) };
            }
            for first in queries.clone().step_by(QUERY_BLOCK) {
                let rows = QUERY_BLOCK.min(queries.end - first);
                // Later queries see at least as many keys.
                let seen = self.scores.visible(b, first + rows - 1);
                let block = Block {
                    b,
                    h,
                    first,
                    rows,
                    stride,
                    keys: seen,
                };
                let q = Operand {
                    ptr: self.q.ptr(b, first, column),
                    row_stride: self.q.stride(),
                    col_stride: 1,
                };
                if transposed {
                    let size = [rows, seen.next_multiple_of(16), head_dim];
                    let scores = (data.as_mut_ptr(), stride);
                    // SAFETY: `q` was checked to hold these rows; `keys` and `data` hold rows of
                    // `stride`, a multiple of 16 that is at least `seen`.
                    unsafe { SmallGemm::new(size, q, (keys.as_ptr(), stride), scores, false) }
                        .run();
                } else {
                    let k = (self.k.ptr(b, 0, kv_column), self.k.stride());
                    few_queries(q, k, head_dim, block, data);
                }
                softmax::probabilities(&self.scores, block, data);
                let p = Operand {
                    ptr: data.as_ptr(),
                    row_stride: stride,
                    col_stride: 1,
                };
                let values = (self.v.ptr(b, 0, kv_column), self.v.stride());
                let out = (self.out.ptr(b, first, column), self.out.stride());
                // SAFETY: `v` was checked to hold `seen` rows of this head, `out` to hold these
                // rows, which no other task writes.
                unsafe { SmallGemm::new([rows, head_dim, seen], p, values, out, false) }.run();
            }
        });
    }
}

/// Products of a few queries with keys as they lie: one dot product each.
#[inline(always)]
fn few_queries_kernel<S: Simd>(
    s: S,
    q: Operand,
    (k, k_stride): (*const f32, usize),
    head_dim: usize,
    block: Block,
    data: &mut [f32],
) {
    for (i, row) in data
        .chunks_exact_mut(block.stride)
        .take(block.rows)
        .enumerate()
    {
        // SAFETY: the caller's checked views hold `block.rows` queries and `block.keys` keys.
        let query = unsafe { std::slice::from_raw_parts(q.ptr.add(i * q.row_stride), head_dim) };
        for (j, score) in row[..block.keys].iter_mut().enumerate() {
            // SAFETY: as above.
            let key = unsafe { std::slice::from_raw_parts(k.add(j * k_stride), head_dim) };
            let mut sum = s.zero();
            for (q, k) in query.chunks(S::LANES).zip(key.chunks(S::LANES)) {
                sum = s.mul_add(s.load(q), s.load(k), sum);
            }
            *score = s.sum(sum);
        }
    }
}

simd_dispatch! {
    fn few_queries(
        q: Operand, k: (*const f32, usize), head_dim: usize, block: Block, data: &mut [f32],
    ) = few_queries_kernel;
}
