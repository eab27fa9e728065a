//! Probabilities times values, block by block of queries and keys.
//!
//! Softmax is computed online (Milakov and Gimelshein 2018; Dao et al. 2022): each block of keys raises the maximum
//! and the sum of its queries and rescales what was accumulated.

use super::few::FEW_QUERIES;
use super::product::{Product, WithProduct, with_product};
use super::softmax::{self, Block};
use super::{AttentionShape, HeadsMut, HeadsRef, Input, Mask, Output, Scores};
use crate::cpu_features::Precision;
use crate::element::Element;
use crate::gemm::Operand;
use crate::parallel::{self, SharedMut};
use crate::scratch::with_scratch;
use std::ops::Range;

/// Queries whose scores are held at a time, and keys (at most): 48 KiB of scores.
const QUERY_BLOCK: usize = 32;
const KEY_BLOCK: usize = 384;
/// Queries per task: enough for the prepared keys to pay.
pub(super) const QUERIES_PER_TASK: usize = 256;

/// `out = softmax(scale * q k^T + mask) v` for every sequence and head.
///
/// A query that sees no key gives zeros. `key_lengths` (`[batch]`) hides the keys from that index
/// on, together with any mask. Products of more than three queries are computed in `precision`, softmax and sums in
/// `f32`. Working memory does not grow with the lengths, for up to three queries but by their outputs for every 256 keys.
///
/// # Shapes
/// `q` and `out` `[batch, q_len, heads * head_dim]`, `k` and `v`
/// `[batch, k_len, kv_heads * head_dim]`.
pub fn attention<T: Element>(
    precision: Precision,
    shape: AttentionShape,
    q: HeadsRef,
    k: HeadsRef<T>,
    v: HeadsRef<T>,
    mask: Mask,
    key_lengths: Option<&[u32]>,
    scale: f32,
    out: HeadsMut,
) {
    let scores = Scores::new(shape, mask, key_lengths, scale);
    forward(precision, scores, (q, [k, v]), out, None);
}

/// As [`attention`]; writes the logarithm of every query's sum of exponentials to `log_sum_exp`
/// `[batch, heads, q_len]` (infinity where a query sees no key) for [`Saved`](super::Saved).
pub fn attention_saving(
    precision: Precision,
    shape: AttentionShape,
    q: HeadsRef,
    k: HeadsRef,
    v: HeadsRef,
    mask: Mask,
    key_lengths: Option<&[u32]>,
    scale: f32,
    out: HeadsMut,
    log_sum_exp: &mut [f32],
) {
    let scores = Scores::new(shape, mask, key_lengths, scale);
    assert_eq!(
        log_sum_exp.len(),
        shape.batch * shape.heads * shape.q_len,
        "attention: log_sum_exp is not [batch, heads, q_len]"
    );
    // Where nothing else is computed, no query sees a key.
    log_sum_exp.fill(f32::INFINITY);
    forward(precision, scores, (q, [k, v]), out, Some(log_sum_exp));
}

fn forward<T: Element>(
    precision: Precision,
    scores: Scores,
    (q, [k, v]): (HeadsRef, [HeadsRef<T>; 2]),
    out: HeadsMut,
    log_sum_exp: Option<&mut [f32]>,
) {
    let shape = scores.shape;
    let (batch, q_len) = (shape.batch, shape.q_len);
    let q_width = shape.heads * shape.head_dim;
    let problem = Problem {
        queries: Queries::checked(scores, q, [k, v]),
        out: out.checked("out", batch, q_len, q_width),
        log_sum_exp: log_sum_exp.map(SharedMut::new),
    };
    if shape.is_empty() || q_len == 0 {
        return;
    }
    if q_len <= FEW_QUERIES {
        problem.queries.attend_few(problem.out, problem.log_sum_exp);
    } else {
        with_product(precision, &shape, &problem);
    }
}

struct Problem<'a, T> {
    queries: Queries<'a, T>,
    out: Output,
    log_sum_exp: Option<SharedMut>,
}

impl<T: Element> WithProduct for Problem<'_, T> {
    fn run<P: Product>(&self, product: P) {
        let shape = self.queries.scores.shape;
        let parts = shape.q_len.div_ceil(QUERIES_PER_TASK);
        let work = 2 * shape.q_len.min(QUERIES_PER_TASK) * shape.k_len * shape.head_dim;
        parallel::for_each_task_of(work, shape.batch * shape.heads * parts, |task| {
            let (pair, first) = (task / parts, task % parts * QUERIES_PER_TASK);
            let (b, h) = (pair / shape.heads, pair % shape.heads);
            let range = first..(first + QUERIES_PER_TASK).min(shape.q_len);
            let out = self.out.ptr(b, first, h * shape.head_dim);
            // SAFETY: the output was checked to hold these rows, and `log_sum_exp` these queries, which are this
            // task's alone.
            unsafe {
                let log_sum_exp = self.log_sum_exp.map(|shared| {
                    let start = shared.ptr().add(pair * shape.q_len + first);
                    std::slice::from_raw_parts_mut(start, range.len())
                });
                let out = (out, self.out.stride());
                self.queries
                    .attend(product, [b, h], range, out, log_sum_exp);
            }
        });
    }
}

/// What the queries of one head need.
pub(super) struct Queries<'a, T = f32> {
    pub(super) scores: Scores<'a>,
    pub(super) q: Input<'a>,
    pub(super) k: Input<'a, T>,
    pub(super) v: Input<'a, T>,
}

impl<'a, T: Element> Queries<'a, T> {
    pub(super) fn checked(
        scores: Scores<'a>,
        q: HeadsRef<'a>,
        [k, v]: [HeadsRef<'a, T>; 2],
    ) -> Self {
        let shape = scores.shape;
        let keys = [shape.batch, shape.k_len, shape.kv_heads, shape.head_dim];
        Self {
            scores,
            q: q.checked("q", [shape.batch, shape.q_len, shape.heads, shape.head_dim]),
            k: k.checked("k", keys),
            v: v.checked("v", keys),
        }
    }

    /// The outputs of queries of one head, at most [`QUERIES_PER_TASK`].
    ///
    /// # Safety
    /// `out` (first row, distance between rows) is writable over the queries' rows, which nothing else touches.
    pub(super) unsafe fn attend<P: Product>(
        &self,
        product: P,
        [b, h]: [usize; 2],
        queries: Range<usize>,
        out: (*mut f32, usize),
        log_sum_exp: Option<&mut [f32]>,
    ) {
        let shape = self.scores.shape;
        let head_dim = shape.head_dim;
        let kv_head = h / shape.group();
        // Later queries see at least as many keys.
        let seen_by_any = self.scores.visible(b, queries.end - 1);
        let key_block = softmax::block_of(seen_by_any, KEY_BLOCK);
        let stride = key_block;
        let lengths = [
            T::ROOM * key_block * head_dim,
            T::ROOM * key_block * head_dim,
            product.right_len(head_dim, key_block, true),
            product.right_len(key_block, head_dim, false),
            product
                .left_len(QUERY_BLOCK, head_dim)
                .max(product.left_len(QUERY_BLOCK, key_block)),
            QUERY_BLOCK.min(queries.len()) * stride,
            queries.len(),
            queries.len(),
        ];
        with_scratch(lengths.iter().sum(), |scratch| {
            let [
                key_floats,
                value_floats,
                key_room,
                value_room,
                left_room,
                data,
                maxima,
                sums,
            ] = split(scratch, lengths);
            maxima.fill(f32::NEG_INFINITY);
            sums.fill(0.0);
            // At least one block, so that rows without a key become 0.
            for first_key in (0..seen_by_any.max(1)).step_by(key_block) {
                let keys = key_block.min(seen_by_any - first_key);
                let size = [keys, head_dim];
                // SAFETY: `k` and `v` were checked to hold these rows of this head.
                let (turned_k, v) = unsafe {
                    let k = T::floats(self.k.rows(b, first_key, kv_head), size, key_floats);
                    let v = T::floats(self.v.rows(b, first_key, kv_head), size, value_floats);
                    let turned_k = Operand::rows(k).turned();
                    (
                        product.right(turned_k, [head_dim, keys], key_room),
                        product.right(Operand::rows(v), size, value_room),
                    )
                };
                for at in (0..queries.len()).step_by(QUERY_BLOCK) {
                    let first = queries.start + at;
                    let rows = QUERY_BLOCK.min(queries.len() - at);
                    let seen = self.scores.visible(b, first + rows - 1);
                    let block = Block {
                        b,
                        h,
                        first,
                        queries: rows,
                        rows,
                        stride,
                        first_key,
                        keys: seen.saturating_sub(first_key).min(keys),
                    };
                    if first_key > 0 && block.keys == 0 {
                        continue;
                    }
                    let q = self.q.operand(b, first, h);
                    // SAFETY: `q` was checked to hold these rows; `data` holds rows of `stride`, a multiple of 16
                    // that is at least `keys`; the caller promises the rows of `out`, which the first block
                    // initialises.
                    unsafe {
                        let scores = (data.as_mut_ptr(), stride);
                        let size = [rows, block.keys, head_dim];
                        product.multiply(size, q, turned_k, scores, false, left_room);
                        let out = (out.0.add(at * out.1), out.1);
                        let statistics = (&mut maxima[at..][..rows], &mut sums[at..][..rows]);
                        softmax::accumulate(&self.scores, block, data, statistics, out, head_dim);
                        let p = Operand {
                            ptr: data.as_ptr(),
                            row_stride: stride,
                            col_stride: 1,
                        };
                        let size = [rows, head_dim, block.keys];
                        product.multiply(size, p, v, out, first_key > 0, left_room);
                    }
                }
            }
            // SAFETY: all rows were written above.
            unsafe { softmax::normalise(sums, out, head_dim) };
            if let Some(log_sum_exp) = log_sum_exp {
                for ((to, &maximum), &sum) in log_sum_exp.iter_mut().zip(&*maxima).zip(&*sums) {
                    *to = softmax::log_sum_exp(maximum, sum);
                }
            }
        });
    }
}

/// Cuts a buffer into parts of these lengths.
pub(super) fn split<const N: usize>(
    mut buffer: &mut [f32],
    lengths: [usize; N],
) -> [&mut [f32]; N] {
    lengths.map(|len| {
        let (part, rest) = std::mem::take(&mut buffer).split_at_mut(len);
        buffer = rest;
        part
    })
}
