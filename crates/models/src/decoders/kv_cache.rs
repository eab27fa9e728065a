//! Keys and values that a decoder on plain slices has seen, and attention to them.
//!
//! Legend: `B` texts, `t` new tokens of each, `H` heads of keys and values, `d` channels of a head.

use vlm_kernels::memory::unfilled;
use vlm_kernels::{AttentionShape, Element, HeadsMut, HeadsRef, Mask, Precision, attention, f16};

/// Keys and values of one layer.
///
/// Where weights are less than floats they are kept as halves, as llama.cpp does: in a long text reading them takes as
/// much time as reading the weights of a small model. `f16` rather than bfloat16, as it rounds to 11 bits instead of 8.
#[derive(Clone, Debug)]
pub enum KvCache {
    /// As they were computed.
    Floats(Stored<f32>),
    /// Rounded.
    Halves(Stored<f16>),
}

impl KvCache {
    /// An empty cache.
    pub fn new(halves: bool) -> Self {
        if halves {
            Self::Halves(Stored::default())
        } else {
            Self::Floats(Stored::default())
        }
    }

    /// Appends `k` and `v` and attends to all that is held, each query to what came before it and to itself.
    ///
    /// New keys and values are read as they are kept, so that a text's do not depend on how it was cut into calls.
    ///
    /// # Shapes
    /// `shape.k_len` positions are held afterwards, of which `shape.q_len` are new: `q: [B, t, heads, d]`,
    /// `k, v: [B, t, H, d]`; gives `[B, t, heads, d]`.
    ///
    /// # Panics
    /// Lengths that do not fit `shape`.
    pub fn attend(
        &mut self,
        precision: Precision,
        shape: AttentionShape,
        q: &[f32],
        [k, v]: [&[f32]; 2],
    ) -> Vec<f32> {
        match self {
            Self::Floats(stored) => stored.attend(precision, shape, q, [k, v]),
            Self::Halves(stored) => stored.attend(precision, shape, q, [k, v]),
        }
    }

    /// Replaces the texts by those of the given rows, as beam search does when hypotheses are dropped and doubled.
    pub fn select(&mut self, rows: &[usize]) {
        match self {
            Self::Floats(stored) => stored.select(rows),
            Self::Halves(stored) => stored.select(rows),
        }
    }
}

/// Keys and values, `[B, H, capacity, d]` each: a head's lie side by side, as they are read.
#[derive(Clone, Debug, Default)]
pub struct Stored<T> {
    k: Vec<T>,
    v: Vec<T>,
    capacity: usize,
    /// `H * d`.
    width: usize,
}

impl<T: Element> Stored<T> {
    fn attend(
        &mut self,
        precision: Precision,
        shape: AttentionShape,
        q: &[f32],
        [k, v]: [&[f32]; 2],
    ) -> Vec<f32> {
        let past = shape.k_len - shape.q_len;
        self.reserve(shape, past);
        self.append([k, v], shape, past);
        let heads = |data| HeadsRef::by_head(data, shape.kv_heads, self.capacity, shape.head_dim);
        let width = shape.heads * shape.head_dim;
        let mut y = unfilled(shape.batch * shape.q_len * width);
        attention(
            precision,
            shape,
            HeadsRef::contiguous(q, shape.q_len, width),
            heads(&self.k),
            heads(&self.v),
            Mask::Causal { past },
            None,
            (shape.head_dim as f32).powf(-0.5),
            HeadsMut::contiguous(&mut y, shape.q_len, width),
        );
        y
    }

    /// Makes room for the positions of `shape`, of which the first `past` are there.
    fn reserve(&mut self, shape: AttentionShape, past: usize) {
        self.width = shape.kv_heads * shape.head_dim;
        if shape.k_len <= self.capacity {
            return;
        }
        let capacity = shape.k_len.max(2 * self.capacity).next_multiple_of(64);
        let d = shape.head_dim;
        for stored in [&mut self.k, &mut self.v] {
            let mut all = vec![T::default(); shape.batch * self.width * capacity];
            let old = stored.chunks_exact((self.capacity * d).max(1));
            for (to, from) in all.chunks_exact_mut(capacity * d).zip(old) {
                to[..past * d].copy_from_slice(&from[..past * d]);
            }
            *stored = all;
        }
        self.capacity = capacity;
    }

    /// Writes `[B, t, H, d]` behind the `past` positions.
    fn append(&mut self, new: [&[f32]; 2], shape: AttentionShape, past: usize) {
        let (t, heads, d) = (shape.q_len, shape.kv_heads, shape.head_dim);
        for (stored, new) in [&mut self.k, &mut self.v].into_iter().zip(new) {
            assert_eq!(new.len(), shape.batch * t * heads * d, "new keys or values");
            for (i, new) in new.chunks_exact(d).enumerate() {
                let (row, position, head) = (i / heads / t, i / heads % t, i % heads);
                let at = (row * heads + head) * self.capacity + past + position;
                T::round(new, &mut stored[at * d..][..d]);
            }
        }
    }

    fn select(&mut self, rows: &[usize]) {
        let len = self.capacity * self.width;
        for stored in [&mut self.k, &mut self.v] {
            let rows = rows.iter().flat_map(|&row| &stored[row * len..][..len]);
            *stored = rows.copied().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vlm_nn::random::SplitMix64;

    const HEADS: usize = 6;
    const KV_HEADS: usize = 2;
    const D: usize = 20;

    fn numbers(rng: &mut SplitMix64, len: usize) -> Vec<f32> {
        (0..len).map(|_| rng.uniform_f32() - 0.5).collect()
    }

    /// Rows `from` of `[rows, T, width]`, their positions `at` to `at + t`.
    fn part(x: &[f32], from: &[usize], [len, width]: [usize; 2], [at, t]: [usize; 2]) -> Vec<f32> {
        let rows = from.iter().map(|row| (row * len + at) * width);
        rows.flat_map(|first| x[first..][..t * width].iter().copied())
            .collect()
    }

    /// Outputs of `[q, k, v]` for two texts of `len` positions in pieces; before the last one the texts change places.
    fn in_pieces(halves: bool, [q, k, v]: [&[f32]; 3], len: usize, pieces: &[usize]) -> Vec<f32> {
        let mut cache = KvCache::new(halves);
        let mut outputs = vec![0.0; q.len()];
        let mut order = vec![0, 1];
        let mut past = 0;
        for (i, &t) in pieces.iter().enumerate() {
            if i + 1 == pieces.len() && i > 0 {
                order = vec![1, 0];
                cache.select(&order);
            }
            let shape = AttentionShape {
                batch: 2,
                q_len: t,
                k_len: past + t,
                heads: HEADS,
                kv_heads: KV_HEADS,
                head_dim: D,
            };
            let new = |x, heads: usize| part(x, &order, [len, heads * D], [past, t]);
            let (q, k, v) = (new(q, HEADS), new(k, KV_HEADS), new(v, KV_HEADS));
            let y = cache.attend(Precision::F32, shape, &q, [&k, &v]);
            for (y, &row) in y.chunks_exact(t * HEADS * D).zip(&order) {
                outputs[(row * len + past) * HEADS * D..][..y.len()].copy_from_slice(y);
            }
            past += t;
        }
        assert_eq!(past, len);
        outputs
    }

    fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f32::max)
    }

    #[test]
    fn a_text_in_pieces_is_the_text_at_once() {
        let mut rng = SplitMix64::new(3);
        let len = 150;
        let q = numbers(&mut rng, 2 * len * HEADS * D);
        let [k, v] = [0, 1].map(|_| numbers(&mut rng, 2 * len * KV_HEADS * D));
        let all = [&q[..], &k[..], &v[..]];
        let exact = in_pieces(false, all, len, &[len]);
        for halves in [false, true] {
            let whole = in_pieces(halves, all, len, &[len]);
            let rounded = largest_difference(&whole, &exact);
            // numbers below a half are rounded by up to 2^-12 of it
            assert!(rounded < 2e-4 && (rounded > 0.0) == halves, "{rounded}");
            for pieces in [&[1, 63, 1, 1, 3, 80, 1][..], &[100, 50], &[64, 1, 85]] {
                let found = in_pieces(halves, all, len, pieces);
                let difference = largest_difference(&found, &whole);
                assert!(
                    difference < 1e-6,
                    "{pieces:?}, halves {halves}: {difference}"
                );
            }
        }
    }
}
