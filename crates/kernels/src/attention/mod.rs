//! Scaled dot-product attention (Vaswani et al. 2017) in one pass: scores exist for a block of
//! queries and keys of one head at a time, and the backward pass recomputes them.

mod backward;
mod few;
mod forward;
mod product;
mod softmax;

use crate::element::Element;
use crate::gemm::Operand;
use crate::parallel::SharedMut;

pub use backward::{
    Saved, attention_backward, attention_backward_packed, attention_backward_packed_kv,
};
pub use forward::{attention, attention_saving};

/// Extents of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Number of sequences.
    pub batch: usize,
    /// Queries per sequence.
    pub q_len: usize,
    /// Keys and values per sequence.
    pub k_len: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads: a divisor of `heads`; query head `h` uses head
    /// `h / (heads / kv_heads)` (grouped-query attention, Ainslie et al. 2023).
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Query heads that share one key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn is_empty(&self) -> bool {
        self.batch * self.heads * self.head_dim == 0
    }

    fn check(&self) {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "attention: {} heads are not a multiple of {} key heads",
            self.heads,
            self.kv_heads
        );
    }
}

/// Heads inside a larger buffer: element `(b, t, h, d)` at
/// `offset + b * batch_stride + t * row_stride + h * head_stride + d`.
#[derive(Clone, Copy, Debug)]
pub struct HeadsRef<'a, T = f32> {
    /// The buffer.
    pub data: &'a [T],
    /// Index of element (0, 0, 0, 0).
    pub offset: usize,
    /// Distance between sequences.
    pub batch_stride: usize,
    /// Distance between tokens.
    pub row_stride: usize,
    /// Distance between heads; none if they lie side by side.
    pub head_stride: Option<usize>,
}

impl<'a, T: Element> HeadsRef<'a, T> {
    /// `[batch, len, width]`, contiguous.
    pub fn contiguous(data: &'a [T], len: usize, width: usize) -> Self {
        Self::packed(data, len, width, 1, 0)
    }

    /// Part `part` of `[batch, len, parts, width]`, as a joint projection writes it.
    pub fn packed(data: &'a [T], len: usize, width: usize, parts: usize, part: usize) -> Self {
        Self {
            data,
            offset: part * width,
            batch_stride: len * parts * width,
            row_stride: parts * width,
            head_stride: None,
        }
    }

    /// `[batch, heads, room, head_dim]`, of which the first tokens of each head are used.
    pub fn by_head(data: &'a [T], heads: usize, room: usize, head_dim: usize) -> Self {
        Self {
            data,
            offset: 0,
            batch_stride: heads * room * head_dim,
            row_stride: head_dim,
            head_stride: Some(room * head_dim),
        }
    }

    /// The view, checked to hold `size` `[batch, len, heads, head_dim]`.
    fn checked(self, name: &str, [batch, len, heads, head_dim]: [usize; 4]) -> Input<'a, T> {
        let layout = Layout {
            offset: self.offset,
            batch_stride: self.batch_stride,
            row_stride: self.row_stride,
        };
        let head_stride = self.head_stride.unwrap_or(head_dim);
        let width = match heads {
            0 => 0,
            _ => (heads - 1)
                .saturating_mul(head_stride)
                .saturating_add(head_dim),
        };
        layout.check(name, self.data.len(), batch, len, width);
        Input {
            data: self.data,
            layout,
            head_stride,
        }
    }
}

/// The writable counterpart of [`HeadsRef`].
#[derive(Debug)]
pub struct HeadsMut<'a> {
    /// The buffer.
    pub data: &'a mut [f32],
    /// Index of element (0, 0, 0, 0).
    pub offset: usize,
    /// Distance between sequences.
    pub batch_stride: usize,
    /// Distance between tokens.
    pub row_stride: usize,
}

impl<'a> HeadsMut<'a> {
    /// `[batch, len, width]`, contiguous.
    pub fn contiguous(data: &'a mut [f32], len: usize, width: usize) -> Self {
        Self::packed(data, len, width, 1, 0)
    }

    /// Part `part` of `[batch, len, parts, width]`.
    pub fn packed(
        data: &'a mut [f32],
        len: usize,
        width: usize,
        parts: usize,
        part: usize,
    ) -> Self {
        Self {
            data,
            offset: part * width,
            batch_stride: len * parts * width,
            row_stride: parts * width,
        }
    }

    pub(crate) fn checked(self, name: &str, batch: usize, len: usize, width: usize) -> Output {
        let layout = Layout {
            offset: self.offset,
            batch_stride: self.batch_stride,
            row_stride: self.row_stride,
        };
        Output::new(self.data, layout, name, batch, len, width)
    }
}

#[derive(Clone, Copy)]
struct Layout {
    offset: usize,
    batch_stride: usize,
    row_stride: usize,
}

impl Layout {
    /// Panics unless `[batch, len, width]` lies in `available` elements.
    fn check(&self, name: &str, available: usize, batch: usize, len: usize, width: usize) {
        if batch * len * width == 0 {
            return;
        }
        let end = (batch - 1)
            .checked_mul(self.batch_stride)
            .zip((len - 1).checked_mul(self.row_stride))
            .and_then(|(b, t)| {
                b.checked_add(t)?
                    .checked_add(self.offset)?
                    .checked_add(width)
            });
        assert!(
            end.is_some_and(|end| end <= available),
            "attention: {name} [{batch}, {len}, {width}] at {} with strides {}, {} does not fit \
             {available} elements",
            self.offset,
            self.batch_stride,
            self.row_stride
        );
    }

    fn at(&self, b: usize, t: usize, column: usize) -> usize {
        self.offset + b * self.batch_stride + t * self.row_stride + column
    }
}

/// A checked [`HeadsRef`].
#[derive(Clone, Copy)]
struct Input<'a, T = f32> {
    data: &'a [T],
    layout: Layout,
    head_stride: usize,
}

impl<T> Input<'_, T> {
    /// Rows of head `h` of sequence `b` from `t` on, and the distance between them.
    fn rows(&self, b: usize, t: usize, h: usize) -> (*const T, usize) {
        let first = self.layout.at(b, t, h * self.head_stride);
        (
            self.data.as_ptr().wrapping_add(first),
            self.layout.row_stride,
        )
    }
}

impl Input<'_> {
    /// As [`Self::rows`].
    fn operand(&self, b: usize, t: usize, h: usize) -> Operand {
        Operand::rows(self.rows(b, t, h))
    }
}

/// A checked [`HeadsMut`] that tasks share; each writes the heads that belong to it.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    data: SharedMut,
    layout: Layout,
}

impl Output {
    fn new(
        data: &mut [f32],
        layout: Layout,
        name: &str,
        batch: usize,
        len: usize,
        width: usize,
    ) -> Self {
        layout.check(name, data.len(), batch, len, width);
        // Tasks write concurrently: rows must not overlap.
        let row_ok = len <= 1 || layout.row_stride >= width;
        let sequence = len.saturating_sub(1) * layout.row_stride + width;
        let batch_ok = batch <= 1 || len == 0 || layout.batch_stride >= sequence;
        assert!(row_ok && batch_ok, "attention: rows of {name} overlap");
        Self {
            data: SharedMut::new(data),
            layout,
        }
    }

    pub(crate) fn ptr(&self, b: usize, t: usize, column: usize) -> *mut f32 {
        self.data.ptr().wrapping_add(self.layout.at(b, t, column))
    }

    fn stride(&self) -> usize {
        self.layout.row_stride
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// All of them.
    None,
    /// Query `i` sees keys `0..=i + past`.
    Causal {
        /// Keys that came before the first query.
        past: usize,
    },
    /// Values added to the scaled scores; minus infinity hides a key.
    Additive {
        /// `[.., q_len, k_len]`, the last two dimensions row-major.
        values: &'a [f32],
        /// Distance between sequences; 0 shares one mask.
        batch_stride: usize,
        /// Distance between heads; 0 shares one mask.
        head_stride: usize,
    },
}

/// Mask, key lengths and scale: all that is between products and probabilities.
#[derive(Clone, Copy)]
struct Scores<'a> {
    shape: AttentionShape,
    mask: Mask<'a>,
    key_lengths: Option<&'a [u32]>,
    scale: f32,
}

impl<'a> Scores<'a> {
    fn new(
        shape: AttentionShape,
        mask: Mask<'a>,
        key_lengths: Option<&'a [u32]>,
        scale: f32,
    ) -> Self {
        shape.check();
        if let Mask::Additive {
            values,
            batch_stride,
            head_stride,
        } = mask
        {
            let needed = shape.batch.saturating_sub(1) * batch_stride
                + shape.heads.saturating_sub(1) * head_stride
                + shape.q_len * shape.k_len;
            assert!(
                shape.is_empty() || values.len() >= needed,
                "attention: the mask has {} values, its strides reach {needed}",
                values.len()
            );
        }
        if let Some(lengths) = key_lengths {
            assert_eq!(
                lengths.len(),
                shape.batch,
                "attention: key_lengths is not [{}]",
                shape.batch
            );
        }
        Self {
            shape,
            mask,
            key_lengths,
            scale,
        }
    }

    /// How many keys, from the first, query `i` of sequence `b` may see.
    fn visible(&self, b: usize, i: usize) -> usize {
        let length = match self.key_lengths {
            Some(lengths) => (lengths[b] as usize).min(self.shape.k_len),
            None => self.shape.k_len,
        };
        match self.mask {
            Mask::Causal { past } => length.min(i.saturating_add(past).saturating_add(1)),
            Mask::None | Mask::Additive { .. } => length,
        }
    }

    /// The row of the additive mask for a query.
    fn added(&self, b: usize, h: usize, i: usize) -> Option<&'a [f32]> {
        match self.mask {
            Mask::Additive {
                values,
                batch_stride,
                head_stride,
            } => {
                let k_len = self.shape.k_len;
                Some(&values[b * batch_stride + h * head_stride + i * k_len..][..k_len])
            }
            Mask::None | Mask::Causal { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu_features::Precision;
    use crate::scratch::held_floats;

    /// Floats of working memory that this thread holds after attention to `k_len` keys and its gradients, from
    /// small enough problems to stay on the thread.
    fn held_after(precision: Precision, k_len: usize) -> usize {
        std::thread::spawn(move || {
            let shape = AttentionShape {
                batch: 1,
                q_len: 40,
                k_len,
                heads: 1,
                kv_heads: 1,
                head_dim: 16,
            };
            let (q, kv) = (vec![0.5; 40 * 16], vec![0.5; k_len * 16]);
            let (mut out, mut dq) = (q.clone(), q.clone());
            let (mut dk, mut dv) = (kv.clone(), kv.clone());
            let [rows, keys] = [
                HeadsRef::contiguous(&q, 40, 16),
                HeadsRef::contiguous(&kv, k_len, 16),
            ];
            let to = HeadsMut::contiguous(&mut out, 40, 16);
            attention(
                precision,
                shape,
                rows,
                keys,
                keys,
                Mask::None,
                None,
                1.0,
                to,
            );
            attention_backward(
                precision,
                shape,
                rows,
                rows,
                keys,
                keys,
                Mask::None,
                None,
                1.0,
                None,
                HeadsMut::contiguous(&mut dq, 40, 16),
                HeadsMut::contiguous(&mut dk, k_len, 16),
                HeadsMut::contiguous(&mut dv, k_len, 16),
            );
            held_floats()
        })
        .join()
        .expect("attention finishes")
    }

    #[test]
    fn working_memory_does_not_grow_with_the_number_of_keys() {
        for precision in [Precision::F32, Precision::Bf16] {
            let [short, long, longer] =
                [1024, 8192, 65_536].map(|k_len| held_after(precision, k_len));
            assert!(long <= short, "{short} floats, then {long}");
            assert_eq!(long, longer);
        }
    }
}
