//! Gradients of attention; probabilities are recomputed block by block of queries.

use super::softmax::{self, Block};
use super::{AttentionShape, HeadsMut, HeadsRef, Input, Layout, Mask, Output, Scores};
use crate::gemm::{Operand, SmallGemm};
use crate::parallel;
use crate::scratch::with_scratch;

/// Queries whose scores are held at a time: the gradients of all keys are read and written once
/// per block, so it is larger than in the forward pass.
const QUERY_BLOCK: usize = 64;

/// Gradients of [`attention`](super::attention()); overwrites the heads of `dq`, `dk` and `dv` and
/// leaves what lies between them.
pub fn attention_backward(
    shape: AttentionShape,
    dout: HeadsRef,
    q: HeadsRef,
    k: HeadsRef,
    v: HeadsRef,
    mask: Mask,
    key_lengths: Option<&[u32]>,
    scale: f32,
    dq: HeadsMut,
    dk: HeadsMut,
    dv: HeadsMut,
) {
    let scores = Scores::new(shape, mask, key_lengths, scale);
    let q_width = shape.heads * shape.head_dim;
    let kv_width = shape.kv_heads * shape.head_dim;
    let (batch, q_len, k_len) = (shape.batch, shape.q_len, shape.k_len);
    Problem {
        scores,
        inputs: Inputs::checked(shape, dout, q, k, v),
        dq: dq.checked("dq", batch, q_len, q_width),
        dk: dk.checked("dk", batch, k_len, kv_width),
        dv: dv.checked("dv", batch, k_len, kv_width),
    }
    .run();
}

/// As [`attention_backward`] for self-attention on a joint projection: `qkv` and `dqkv` are
/// `[batch, len, 3, heads, head_dim]` with `q_len == k_len` and `heads == kv_heads`.
pub fn attention_backward_packed(
    shape: AttentionShape,
    dout: HeadsRef,
    qkv: &[f32],
    mask: Mask,
    key_lengths: Option<&[u32]>,
    scale: f32,
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
        scores,
        inputs: Inputs::checked(shape, dout, input(0), input(1), input(2)),
        dq: outputs[0],
        dk: outputs[1],
        dv: outputs[2],
    }
    .run();
}

/// As [`attention_backward`] for cross-attention on a joint key and value projection: `kv` and
/// `dkv` are `[batch, k_len, 2, kv_heads, head_dim]`.
pub fn attention_backward_packed_kv(
    shape: AttentionShape,
    dout: HeadsRef,
    q: HeadsRef,
    kv: &[f32],
    mask: Mask,
    key_lengths: Option<&[u32]>,
    scale: f32,
    dq: HeadsMut,
    dkv: &mut [f32],
) {
    let scores = Scores::new(shape, mask, key_lengths, scale);
    let (len, width) = (shape.k_len, shape.kv_heads * shape.head_dim);
    let input = |part| HeadsRef::packed(kv, len, width, 2, part);
    let outputs = packed_outputs::<2>(dkv, "dkv", shape.batch, len, width);
    let q_width = shape.heads * shape.head_dim;
    Problem {
        scores,
        inputs: Inputs::checked(shape, dout, q, input(0), input(1)),
        dq: dq.checked("dq", shape.batch, shape.q_len, q_width),
        dk: outputs[0],
        dv: outputs[1],
    }
    .run();
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
    dout: Input<'a>,
    q: Input<'a>,
    k: Input<'a>,
    v: Input<'a>,
}

impl<'a> Inputs<'a> {
    fn checked(
        shape: AttentionShape,
        dout: HeadsRef<'a>,
        q: HeadsRef<'a>,
        k: HeadsRef<'a>,
        v: HeadsRef<'a>,
    ) -> Self {
        let q_width = shape.heads * shape.head_dim;
        let kv_width = shape.kv_heads * shape.head_dim;
        Self {
            dout: dout.checked("dout", shape.batch, shape.q_len, q_width),
            q: q.checked("q", shape.batch, shape.q_len, q_width),
            k: k.checked("k", shape.batch, shape.k_len, kv_width),
            v: v.checked("v", shape.batch, shape.k_len, kv_width),
        }
    }
}

struct Problem<'a> {
    scores: Scores<'a>,
    inputs: Inputs<'a>,
    dq: Output,
    dk: Output,
    dv: Output,
}

impl Problem<'_> {
    fn run(&self) {
        let shape = self.scores.shape;
        if shape.is_empty() {
            return;
        }
        let work = 5 * shape.group() * shape.q_len * shape.k_len * shape.head_dim;
        parallel::for_each_task_of(work, shape.batch * shape.kv_heads, |task| {
            self.run_head(task / shape.kv_heads, task % shape.kv_heads);
        });
    }

    /// One key head and all query heads that use it: their gradients are this task's alone.
    fn run_head(&self, b: usize, kv_head: usize) {
        let shape = self.scores.shape;
        let (k_len, head_dim) = (shape.k_len, shape.head_dim);
        let column = kv_head * head_dim;
        for t in 0..k_len {
            for output in [&self.dk, &self.dv] {
                // SAFETY: the row was checked to exist and belongs to this task alone.
                unsafe { std::ptr::write_bytes(output.ptr(b, t, column), 0, head_dim) };
            }
        }
        let stride = k_len.max(1).next_multiple_of(16);
        let (keys_len, block_len) = (head_dim * stride, QUERY_BLOCK * stride);
        with_scratch(2 * keys_len + 2 * block_len, |scratch| {
            let (keys, rest) = scratch.split_at_mut(keys_len);
            let (values, rest) = rest.split_at_mut(keys_len);
            let (p, dp) = rest.split_at_mut(block_len);
            for (input, transposed) in
                [(&self.inputs.k, &mut *keys), (&self.inputs.v, &mut *values)]
            {
                let src = (input.ptr(b, 0, column), input.stride());
                // SAFETY: the input was checked to hold k_len rows of this head.
                unsafe { softmax::transpose(src, k_len, head_dim, transposed, stride) };
            }
            for h in kv_head * shape.group()..(kv_head + 1) * shape.group() {
                for first in (0..shape.q_len).step_by(QUERY_BLOCK) {
                    let rows = QUERY_BLOCK.min(shape.q_len - first);
                    let block = Block {
                        b,
                        h,
                        first,
                        rows,
                        stride,
                        keys: self.scores.visible(b, first + rows - 1),
                    };
                    self.run_block(block, column, keys, values, p, dp);
                }
            }
        });
    }

    /// Writes the block's dq and adds its share to dk and dv.
    fn run_block(
        &self,
        block: Block,
        kv_column: usize,
        keys: &[f32],
        values: &[f32],
        p: &mut [f32],
        dp: &mut [f32],
    ) {
        let head_dim = self.scores.shape.head_dim;
        let Block {
            b,
            h,
            first,
            rows,
            stride,
            keys: seen,
        } = block;
        let column = h * head_dim;
        let row_operand = |input: &Input| Operand {
            ptr: input.ptr(b, first, column),
            row_stride: input.stride(),
            col_stride: 1,
        };
        let (q, dout) = (row_operand(&self.inputs.q), row_operand(&self.inputs.dout));
        let by_queries = |data: &[f32]| Operand {
            ptr: data.as_ptr(),
            row_stride: stride,
            col_stride: 1,
        };
        let by_keys = |data: &[f32]| Operand {
            ptr: data.as_ptr(),
            row_stride: 1,
            col_stride: stride,
        };
        let scores_size = [rows, seen.next_multiple_of(16), head_dim];
        // SAFETY (all products of this function): the inputs were checked to hold these rows of
        // this head; scratch matrices have rows of `stride`, a multiple of 16 that is at least
        // `seen`; outputs hold these rows, belong to this task alone and were zeroed before sums.
        unsafe {
            // P = softmax(Q K^T), dP = dO V^T
            let (scores, dscores) = ((p.as_mut_ptr(), stride), (dp.as_mut_ptr(), stride));
            SmallGemm::new(scores_size, q, (keys.as_ptr(), stride), scores, false).run();
            softmax::probabilities(&self.scores, block, p);
            SmallGemm::new(scores_size, dout, (values.as_ptr(), stride), dscores, false).run();
            softmax::gradients(&self.scores, block, p, dp);
            // dV += P^T dO
            let dv = (self.dv.ptr(b, 0, kv_column), self.dv.stride());
            let dout = (dout.ptr, dout.row_stride);
            SmallGemm::new([seen, head_dim, rows], by_keys(p), dout, dv, true).run();
            // dQ = dS K
            let k = &self.inputs.k;
            let k = (k.ptr(b, 0, kv_column), k.stride());
            let dq = (self.dq.ptr(b, first, column), self.dq.stride());
            SmallGemm::new([rows, head_dim, seen], by_queries(dp), k, dq, false).run();
            // dK += dS^T Q
            let dk = (self.dk.ptr(b, 0, kv_column), self.dk.stride());
            let q = (q.ptr, q.row_stride);
            SmallGemm::new([seen, head_dim, rows], by_keys(dp), q, dk, true).run();
        }
    }
}
