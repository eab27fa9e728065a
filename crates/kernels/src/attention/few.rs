//! Attention of a few queries to many keys, as in decoding, where reading keys and values takes the time: they are read
//! as they lie and once for all query heads that share them, and long texts are cut into parts that threads share (Dao
//! et al., "Flash-decoding", 2023). Parts depend on the number of keys alone.

use super::forward::{Queries, split};
use super::softmax::{self, Block};
use super::{Output, Scores};
use crate::element::Element;
use crate::gemm::linear::rows_times_weight;
use crate::gemm::{Operand, SmallGemm};
use crate::parallel::{self, SharedMut};
use crate::scratch::with_scratch;
use crate::simd::{Simd, simd_dispatch};

/// The most queries per head.
pub(super) const FEW_QUERIES: usize = 3;
/// Keys of a part, at most.
const PART: usize = 256;

/// What the queries that share a key head make of a part of the keys.
struct Partial<'a> {
    /// Values weighted by e^(score - maximum), `[rows, head_dim]`.
    out: &'a mut [f32],
    /// The largest score of each row; minus infinity if it sees no key.
    maxima: &'a mut [f32],
    /// The sum of each row's weights.
    sums: &'a mut [f32],
}

impl<'a> Partial<'a> {
    fn len(rows: usize, head_dim: usize) -> usize {
        rows * (head_dim + 2)
    }

    fn of(data: &'a mut [f32], rows: usize, head_dim: usize) -> Self {
        let [out, maxima, sums] = split(data, [rows * head_dim, rows, rows]);
        Self { out, maxima, sums }
    }
}

impl<T: Element> Queries<'_, T> {
    /// The outputs of all queries, of which each head has at most [`FEW_QUERIES`], and the logarithms of their sums of
    /// exponentials, `[batch, heads, q_len]`.
    pub(super) fn attend_few(&self, out: Output, log_sum_exp: Option<SharedMut>) {
        let shape = self.scores.shape;
        let (rows, head_dim) = (shape.group() * shape.q_len, shape.head_dim);
        let part = softmax::block_of(shape.k_len, PART);
        let parts = shape.k_len.div_ceil(part).max(1);
        let heads = shape.batch * shape.kv_heads;
        let len = Partial::len(rows, head_dim);
        let place = |head: usize| [head / shape.kv_heads, head % shape.kv_heads];
        let work = 2 * rows * part.min(shape.k_len) * head_dim;
        if parts == 1 {
            parallel::for_each_task_of(work, heads, |head| {
                with_scratch(len, |data| {
                    let partial = Partial::of(data, rows, head_dim);
                    self.attend_part(place(head), 0, part, partial);
                    join(&self.scores, place(head), data, out, log_sum_exp);
                });
            });
            return;
        }
        with_scratch(heads * parts * len, |partials| {
            let shared = SharedMut::new(partials);
            parallel::for_each_task_of(work, heads * parts, |task| {
                let (head, i) = (task / parts, task % parts);
                // SAFETY: within the buffer, and this task's alone.
                let data =
                    unsafe { std::slice::from_raw_parts_mut(shared.ptr().add(task * len), len) };
                let partial = Partial::of(data, rows, head_dim);
                self.attend_part(place(head), i * part, part, partial);
            });
            for (head, parts) in partials.chunks_exact(parts * len).enumerate() {
                join(&self.scores, place(head), parts, out, log_sum_exp);
            }
        });
    }

    /// What the queries of a key head make of at most `part` keys from `first_key` on.
    fn attend_part(
        &self,
        [b, kv_head]: [usize; 2],
        first_key: usize,
        part: usize,
        partial: Partial,
    ) {
        let shape = self.scores.shape;
        let (q_len, head_dim) = (shape.q_len, shape.head_dim);
        let rows = shape.group() * q_len;
        let Partial { out, maxima, sums } = partial;
        out.fill(0.0);
        maxima.fill(f32::NEG_INFINITY);
        sums.fill(0.0);
        // Later queries see at least as many keys.
        let seen = self.scores.visible(b, q_len - 1);
        let keys = seen.saturating_sub(first_key).min(part);
        if keys == 0 {
            return;
        }
        let block = Block {
            b,
            h: kv_head * shape.group(),
            first: 0,
            queries: q_len,
            rows,
            stride: keys,
            first_key,
            keys,
        };
        let (k, k_stride) = self.k.rows(b, first_key, kv_head);
        let v = self.v.rows(b, first_key, kv_head);
        with_scratch(rows * (head_dim + keys), |scratch| {
            let [queries, data] = split(scratch, [rows * head_dim, rows * keys]);
            for (i, query) in queries.chunks_exact_mut(head_dim).enumerate() {
                let (q, _) = self.q.rows(b, i % q_len, block.h + i / q_len);
                // SAFETY: checked to hold this row.
                query.copy_from_slice(unsafe { std::slice::from_raw_parts(q, head_dim) });
            }
            // SAFETY: checked to hold these rows.
            let k = unsafe { std::slice::from_raw_parts(k, (keys - 1) * k_stride + head_dim) };
            rows_times_weight(queries, (k, k_stride), head_dim, data);
            let to = (out.as_mut_ptr(), head_dim);
            // SAFETY: `out` is initialised and this task's alone; `v` was checked to hold these rows.
            unsafe {
                softmax::accumulate(&self.scores, block, data, (maxima, sums), to, head_dim);
                let p = Operand::rows((data.as_ptr(), keys));
                SmallGemm::new([rows, head_dim, keys], p, v, to, true).run();
            }
        });
    }
}

/// As [`join`].
#[inline(always)]
fn join_kernel<S: Simd>(
    s: S,
    scores: &Scores,
    [b, kv_head]: [usize; 2],
    parts: &[f32],
    out: Output,
    log_sum_exp: Option<SharedMut>,
) {
    let shape = scores.shape;
    let (q_len, head_dim) = (shape.q_len, shape.head_dim);
    let rows = shape.group() * q_len;
    let parts = || {
        let parts = parts.chunks_exact(Partial::len(rows, head_dim));
        parts.map(|part| {
            let (out, statistics) = part.split_at(rows * head_dim);
            let (maxima, sums) = statistics.split_at(rows);
            (out, maxima, sums)
        })
    };
    for i in 0..rows {
        let (h, query) = (kv_head * shape.group() + i / q_len, i % q_len);
        let maximum = parts().fold(f32::NEG_INFINITY, |m, (_, maxima, _)| m.max(maxima[i]));
        // of parts with keys that are seen; a NaN is one of them and stays
        let weight =
            |maxima: &[f32], sums: &[f32]| (sums[i] != 0.0).then(|| (maxima[i] - maximum).exp());
        let sum: f32 = parts()
            .filter_map(|(_, maxima, sums)| Some(weight(maxima, sums)? * sums[i]))
            .sum();
        // SAFETY: the output was checked to hold this row, and nothing else touches it.
        let row =
            unsafe { std::slice::from_raw_parts_mut(out.ptr(b, query, h * head_dim), head_dim) };
        row.fill(0.0);
        for (part, maxima, sums) in parts() {
            let Some(weight) = weight(maxima, sums) else {
                continue;
            };
            let weight = s.splat(weight / sum);
            let part = part[i * head_dim..][..head_dim].chunks(S::LANES);
            for (y, x) in row.chunks_mut(S::LANES).zip(part) {
                s.store(y, s.mul_add(s.load(x), weight, s.load(y)));
            }
        }
        if let Some(log_sum_exp) = log_sum_exp {
            let value = softmax::log_sum_exp(maximum, sum);
            // SAFETY: `log_sum_exp` holds a number for each query.
            unsafe { *log_sum_exp.ptr().add((b * shape.heads + h) * q_len + query) = value };
        }
    }
}

simd_dispatch! {
    /// Writes the outputs of a key head's queries and the logarithms of their sums of exponentials.
    fn join(
        scores: &Scores, place: [usize; 2], parts: &[f32], out: Output,
        log_sum_exp: Option<SharedMut>,
    ) = join_kernel;
}
