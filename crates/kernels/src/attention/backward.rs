//! Gradients of attention; probabilities are recomputed block by block of queries and keys.
//!
//! Softmax needs two numbers per query: the logarithm of its sum of exponentials and `delta = sum(p * dp) = dout . out`
//! (Dao et al. 2022). They come from what the forward pass saved. Where it saved nothing, up to [`ONE_BLOCK`] keys are one
//! block, whose rows hold all that is needed, and more take another forward pass.

use super::forward::{QUERIES_PER_TASK, Queries, split};
use super::product::{Product, Right, WithProduct, with_product};
use super::softmax::{self, Block};
use super::{AttentionShape, HeadsMut, HeadsRef, Input, Layout, Mask, Output, Scores};
use crate::cpu_features::Precision;
use crate::gemm::Operand;
use crate::parallel;
use crate::scratch::with_scratch;

/// Queries whose scores are held at a time: the gradients of all keys are read and written once
/// per block, so it is larger than in the forward pass.
const QUERY_BLOCK: usize = 64;
/// Keys up to which there is one block, and keys (at most) per block beyond that.
const ONE_BLOCK: usize = 1024;
const KEY_BLOCK: usize = 512;

/// What the forward pass kept for the backward pass. It spares the backward pass of more than 1024 keys another
/// forward pass, and that of fewer keys the sums of their softmax.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// The output, `[batch, q_len, heads * head_dim]`.
    pub out: HeadsRef<'a>,
    /// What [`attention_saving`](super::attention_saving) wrote, `[batch, heads, q_len]`.
    pub log_sum_exp: &'a [f32],
}

/// Gradients of [`attention`](super::attention()); overwrites the heads of `dq`, `dk` and `dv` and
/// leaves what lies between them.
///
/// Products are computed in `precision`, sums in `f32`. Working memory grows with the lengths by two numbers per query
/// alone.
pub fn attention_backward(
    precision: Precision,
    shape: AttentionShape,
    dout: HeadsRef,
    q: HeadsRef,
    k: HeadsRef,
    v: HeadsRef,
    mask: Mask,
    key_lengths: Option<&[u32]>,
    scale: f32,
    saved: Option<Saved>,
    dq: HeadsMut,
    dk: HeadsMut,
    dv: HeadsMut,
) {
    let scores = Scores::new(shape, mask, key_lengths, scale);
    let q_width = shape.heads * shape.head_dim;
    let kv_width = shape.kv_heads * shape.head_dim;
    let (batch, q_len, k_len) = (shape.batch, shape.q_len, shape.k_len);
    Problem {
        inputs: Inputs::checked(scores, dout, [q, k, v], saved),
        dq: dq.checked("dq", batch, q_len, q_width),
        dk: dk.checked("dk", batch, k_len, kv_width),
        dv: dv.checked("dv", batch, k_len, kv_width),
    }
    .run(precision);
}

/// As [`attention_backward`] for self-attention on a joint projection: `qkv` and `dqkv` are
/// `[batch, len, 3, heads, head_dim]` with `q_len == k_len` and `heads == kv_heads`.
pub fn attention_backward_packed(
    precision: Precision,
    shape: AttentionShape,
    dout: HeadsRef,
    qkv: &[f32],
    mask: Mask,
    key_lengths: Option<&[u32]>,
    scale: f32,
    saved: Option<Saved>,
    dqkv: &mut [f32],
) {
    assert_eq!(
        shape.q_len, shape.k_len,
        "attention: packed q, k and v share one length"
    );
    assert_eq!(
        shape.heads, shape.kv_heads,
        "attention: packed q, k and v share their heads"
    );
    let scores = Scores::new(shape, mask, key_lengths, scale);
    let (len, width) = (shape.q_len, shape.heads * shape.head_dim);
    let input = |part| HeadsRef::packed(qkv, len, width, 3, part);
    let outputs = packed_outputs::<3>(dqkv, "dqkv", shape.batch, len, width);
    Problem {
        inputs: Inputs::checked(scores, dout, [input(0), input(1), input(2)], saved),
        dq: outputs[0],
        dk: outputs[1],
        dv: outputs[2],
    }
    .run(precision);
}

/// As [`attention_backward`] for cross-attention on a joint key and value projection: `kv` and
/// `dkv` are `[batch, k_len, 2, kv_heads, head_dim]`.
pub fn attention_backward_packed_kv(
    precision: Precision,
    shape: AttentionShape,
    dout: HeadsRef,
    q: HeadsRef,
    kv: &[f32],
    mask: Mask,
    key_lengths: Option<&[u32]>,
    scale: f32,
    saved: Option<Saved>,
    dq: HeadsMut,
    dkv: &mut [f32],
) {
    let scores = Scores::new(shape, mask, key_lengths, scale);
    let (len, width) = (shape.k_len, shape.kv_heads * shape.head_dim);
    let input = |part| HeadsRef::packed(kv, len, width, 2, part);
    let outputs = packed_outputs::<2>(dkv, "dkv", shape.batch, len, width);
    let q_width = shape.heads * shape.head_dim;
    Problem {
        inputs: Inputs::checked(scores, dout, [q, input(0), input(1)], saved),
        dq: dq.checked("dq", shape.batch, shape.q_len, q_width),
        dk: outputs[0],
        dv: outputs[1],
    }
    .run(precision);
}

/// The parts of one `[batch, len, PARTS, width]` buffer: they interleave and do not overlap.
fn packed_outputs<const PARTS: usize>(
    data: &mut [f32],
    name: &str,
    batch: usize,
    len: usize,
    width: usize,
) -> [Output; PARTS] {
    let layout = |part| Layout {
        offset: part * width,
        batch_stride: len * PARTS * width,
        row_stride: PARTS * width,
    };
    std::array::from_fn(|part| Output::new(data, layout(part), name, batch, len, width))
}

struct Inputs<'a> {
    queries: Queries<'a>,
    dout: Input<'a>,
    /// The output and the logarithms of sums of exponentials.
    saved: Option<(Input<'a>, &'a [f32])>,
}

impl<'a> Inputs<'a> {
    fn checked(
        scores: Scores<'a>,
        dout: HeadsRef<'a>,
        [q, k, v]: [HeadsRef<'a>; 3],
        saved: Option<Saved<'a>>,
    ) -> Self {
        let shape = scores.shape;
        let by_query = |x: HeadsRef<'a>, name| {
            let size = [shape.batch, shape.q_len, shape.heads, shape.head_dim];
            x.checked(name, size)
        };
        Self {
            queries: Queries::checked(scores, q, [k, v]),
            dout: by_query(dout, "dout"),
            saved: saved.map(|saved| {
                assert_eq!(
                    saved.log_sum_exp.len(),
                    shape.batch * shape.heads * shape.q_len,
                    "attention: log_sum_exp is not [batch, heads, q_len]"
                );
                (by_query(saved.out, "out"), saved.log_sum_exp)
            }),
        }
    }
}

struct Problem<'a> {
    inputs: Inputs<'a>,
    dq: Output,
    dk: Output,
    dv: Output,
}

impl Problem<'_> {
    fn run(&self, precision: Precision) {
        let shape = self.inputs.queries.scores.shape;
        if !shape.is_empty() {
            with_product(precision, &shape, self);
        }
    }
}

impl WithProduct for Problem<'_> {
    fn run<P: Product>(&self, product: P) {
        let shape = self.inputs.queries.scores.shape;
        let work = 5 * shape.group() * shape.q_len * shape.k_len * shape.head_dim;
        parallel::for_each_task_of(work, shape.batch * shape.kv_heads, |task| {
            self.run_head(product, task / shape.kv_heads, task % shape.kv_heads);
        });
    }
}

/// Buffers of a task.
struct Rooms<'a> {
    queries: &'a mut [f32],
    douts: &'a mut [f32],
    left: &'a mut [f32],
    p: &'a mut [f32],
    dp: &'a mut [f32],
    maxima: &'a mut [f32],
    sums: &'a mut [f32],
}

/// The logarithm of the sum of exponentials and delta of queries.
type Statistics<'a> = Option<(&'a [f32], &'a [f32])>;

/// Keys and values of a block, ready to be multiplied with.
#[derive(Clone, Copy)]
struct Keys {
    turned_keys: Right,
    turned_values: Right,
    keys: Right,
}

impl Problem<'_> {
    /// One key head and all query heads that use it: their gradients are this task's alone.
    fn run_head<P: Product>(&self, product: P, b: usize, kv_head: usize) {
        let scores = &self.inputs.queries.scores;
        let shape = scores.shape;
        let head_dim = shape.head_dim;
        let column = kv_head * head_dim;
        for t in 0..shape.k_len {
            for output in [&self.dk, &self.dv] {
                // SAFETY: the row was checked to exist and belongs to this task alone.
                unsafe { std::ptr::write_bytes(output.ptr(b, t, column), 0, head_dim) };
            }
        }
        if shape.q_len == 0 {
            return;
        }
        // Later queries see at least as many keys.
        let seen_by_any = scores.visible(b, shape.q_len - 1);
        let one_block = seen_by_any <= ONE_BLOCK;
        let with_statistics = !one_block || self.inputs.saved.is_some();
        let limit = if one_block { ONE_BLOCK } else { KEY_BLOCK };
        let key_block = softmax::block_of(seen_by_any, limit);
        let statistics_len = if with_statistics {
            shape.group() * shape.q_len
        } else {
            0
        };
        let turned_len = product.right_len(head_dim, key_block, true);
        let rows_len = product.right_len(QUERY_BLOCK, head_dim, false);
        let lefts = [
            product.left_len(QUERY_BLOCK, head_dim),
            product.left_len(QUERY_BLOCK, key_block),
            product.left_len(key_block, QUERY_BLOCK),
        ];
        let lengths = [
            statistics_len,
            statistics_len,
            turned_len,
            turned_len,
            product.right_len(key_block, head_dim, false),
            rows_len,
            rows_len,
            lefts.into_iter().max().unwrap_or(0),
            QUERY_BLOCK * key_block,
            QUERY_BLOCK * key_block,
            QUERY_BLOCK,
            QUERY_BLOCK,
        ];
        with_scratch(lengths.iter().sum(), |scratch| {
            let [
                log_sum_exp,
                delta,
                turned_keys,
                turned_values,
                key_rows,
                rest @ ..,
            ] = split(scratch, lengths);
            let [queries, douts, left, p, dp, maxima, sums] = rest;
            let mut rooms = Rooms {
                queries,
                douts,
                left,
                p,
                dp,
                maxima,
                sums,
            };
            if with_statistics {
                self.statistics(product, [b, kv_head], log_sum_exp, delta);
            }
            // At least one block, so that gradients of queries without a key become 0.
            for first_key in (0..seen_by_any.max(1)).step_by(key_block) {
                let keys = key_block.min(seen_by_any - first_key);
                let inputs = &self.inputs.queries;
                let k = inputs.k.operand(b, first_key, kv_head);
                let v = inputs.v.operand(b, first_key, kv_head);
                // SAFETY: `k` and `v` were checked to hold these rows of this head; the buffers are not touched
                // before the next block.
                let right = unsafe {
                    Keys {
                        turned_keys: product.right(k.turned(), [head_dim, keys], turned_keys),
                        turned_values: product.right(v.turned(), [head_dim, keys], turned_values),
                        keys: product.right(k, [keys, head_dim], key_rows),
                    }
                };
                for (i, h) in (kv_head * shape.group()..(kv_head + 1) * shape.group()).enumerate() {
                    for first in (0..shape.q_len).step_by(QUERY_BLOCK) {
                        let rows = QUERY_BLOCK.min(shape.q_len - first);
                        let seen = scores.visible(b, first + rows - 1);
                        let block = Block {
                            b,
                            h,
                            first,
                            queries: rows,
                            rows,
                            stride: key_block,
                            first_key,
                            keys: seen.saturating_sub(first_key).min(keys),
                        };
                        if first_key > 0 && block.keys == 0 {
                            continue;
                        }
                        let at = i * shape.q_len + first;
                        let statistics = with_statistics
                            .then(|| (&log_sum_exp[at..][..rows], &delta[at..][..rows]));
                        self.run_block(product, block, column, right, statistics, &mut rooms);
                    }
                }
            }
        });
    }

    /// The logarithms of sums of exponentials and the deltas of all queries of a key head: `[group, q_len]`.
    fn statistics<P: Product>(
        &self,
        product: P,
        [b, kv_head]: [usize; 2],
        log_sum_exp: &mut [f32],
        delta: &mut [f32],
    ) {
        let shape = self.inputs.queries.scores.shape;
        let (q_len, head_dim) = (shape.q_len, shape.head_dim);
        for i in 0..shape.group() {
            let h = kv_head * shape.group() + i;
            for first in (0..q_len).step_by(QUERIES_PER_TASK) {
                let rows = QUERIES_PER_TASK.min(q_len - first);
                let log_sum_exp = &mut log_sum_exp[i * q_len + first..][..rows];
                let delta = &mut delta[i * q_len + first..][..rows];
                let input = &self.inputs.dout;
                let dout = input.rows(b, first, h);
                if let Some((out, saved)) = &self.inputs.saved {
                    let at = (b * shape.heads + h) * q_len + first;
                    log_sum_exp.copy_from_slice(&saved[at..][..rows]);
                    let out = out.rows(b, first, h);
                    // SAFETY: both were checked to hold these rows.
                    unsafe { softmax::row_dots(out, dout, head_dim, delta) };
                    continue;
                }
                with_scratch(rows * head_dim, |out| {
                    let range = first..first + rows;
                    let to = (out.as_mut_ptr(), head_dim);
                    // SAFETY: `out` holds these rows; `dout` was checked to.
                    unsafe {
                        let queries = &self.inputs.queries;
                        queries.attend(product, [b, h], range, to, Some(log_sum_exp));
                        softmax::row_dots((out.as_ptr(), head_dim), dout, head_dim, delta);
                    }
                });
            }
        }
    }

    /// Writes or adds to the block's dq and adds its share to dk and dv.
    fn run_block<P: Product>(
        &self,
        product: P,
        block: Block,
        kv_column: usize,
        right: Keys,
        statistics: Statistics,
        rooms: &mut Rooms,
    ) {
        let scores = &self.inputs.queries.scores;
        let head_dim = scores.shape.head_dim;
        let Block {
            b,
            h,
            first,
            rows,
            stride,
            first_key,
            keys,
            ..
        } = block;
        let q = self.inputs.queries.q.operand(b, first, h);
        let dout = self.inputs.dout.operand(b, first, h);
        let Rooms {
            queries,
            douts,
            left,
            p,
            dp,
            maxima,
            sums,
        } = rooms;
        let by_queries = |data: &[f32]| Operand {
            ptr: data.as_ptr(),
            row_stride: stride,
            col_stride: 1,
        };
        let (by_query, by_key) = ([rows, keys, head_dim], [keys, head_dim, rows]);
        // SAFETY (all products of this function): the inputs were checked to hold these rows of
        // this head; scratch matrices have rows of `stride`, a multiple of 16 that is at least
        // `keys`; outputs hold these rows, belong to this task alone and were initialised before sums.
        unsafe {
            // P = softmax(Q K^T), dP = dO V^T
            let (to_p, to_dp) = ((p.as_mut_ptr(), stride), (dp.as_mut_ptr(), stride));
            product.multiply(by_query, q, right.turned_keys, to_p, false, left);
            product.multiply(by_query, dout, right.turned_values, to_dp, false, left);
            match statistics {
                Some((log_sum_exp, delta)) => {
                    softmax::probabilities(scores, block, p, log_sum_exp);
                    softmax::gradients(scores.scale, block, p, delta, dp);
                }
                None => {
                    let (maxima, sums) = (&mut maxima[..rows], &mut sums[..rows]);
                    maxima.fill(f32::NEG_INFINITY);
                    sums.fill(0.0);
                    softmax::accumulate(scores, block, p, (maxima, sums), to_p, keys);
                    softmax::normalise(sums, to_p, keys);
                    let delta = maxima;
                    let (p_rows, dp_rows) = ((p.as_ptr(), stride), (dp.as_ptr(), stride));
                    softmax::row_dots(p_rows, dp_rows, keys, delta);
                    softmax::gradients(scores.scale, block, p, delta, dp);
                }
            }
            // dV += P^T dO
            let dv = (self.dv.ptr(b, first_key, kv_column), self.dv.stride());
            let dout = product.right(dout, [rows, head_dim], douts);
            product.multiply(by_key, by_queries(p).turned(), dout, dv, true, left);
            // dK += dS^T Q
            let dk = (self.dk.ptr(b, first_key, kv_column), self.dk.stride());
            let q = product.right(q, [rows, head_dim], queries);
            product.multiply(by_key, by_queries(dp).turned(), q, dk, true, left);
            // dQ += dS K
            let dq = (self.dq.ptr(b, first, h * head_dim), self.dq.stride());
            let size = [rows, head_dim, keys];
            product.multiply(size, by_queries(dp), right.keys, dq, first_key > 0, left);
        }
    }
}
