use crate::linear::Linear;
use crate::ops::{self, Activation, AttentionOptions};
use crate::weights::{Init, Weights};
use burn::module::Module;
use burn::tensor::{Int, Tensor};
use std::sync::Arc;

/// Which keys of each batch row are no padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyMask {
    lengths: Option<Arc<[u32]>>,
    seen: Option<Arc<[bool]>>,
    keys: usize,
}

impl KeyMask {
    /// One row per sequence, all of one length, `true` where there is a token.
    ///
    /// Padding behind costs nothing; padding anywhere else a mask of all pairs of queries and keys in every attention.
    pub fn new(rows: &[Vec<bool>]) -> Self {
        let lengths: Vec<usize> = rows
            .iter()
            .map(|row| row.iter().take_while(|seen| **seen).count())
            .collect();
        let behind = rows
            .iter()
            .zip(&lengths)
            .all(|(row, &len)| len > 0 && !row[len..].contains(&true));
        if rows
            .iter()
            .zip(&lengths)
            .all(|(row, &len)| len == row.len())
        {
            Self::default()
        } else if behind {
            Self {
                lengths: Some(lengths.iter().map(|&len| len as u32).collect()),
                ..Self::default()
            }
        } else {
            Self {
                lengths: None,
                seen: Some(rows.concat().into()),
                keys: rows[0].len(),
            }
        }
    }

    /// One row per sequence that says of every pair of query and key, queries first, whether the one sees the other:
    /// `queries * keys` entries. Prefixes that everything sees, and what is generated behind them (Dong et al., "Unified
    /// language model pre-training", 2019).
    ///
    /// A query that sees nothing, as padding may, sees everything, so that it has a value; no other depends on it.
    ///
    /// # Panics
    /// If a row has another length.
    pub fn pairs(rows: &[Vec<bool>], [queries, keys]: [usize; 2]) -> Self {
        let mut seen = Vec::with_capacity(rows.len() * queries * keys);
        for row in rows {
            assert_eq!(row.len(), queries * keys, "a mask of pairs");
            for keys in row.chunks(keys.max(1)) {
                let nothing = !keys.contains(&true);
                seen.extend(keys.iter().map(|&key| key || nothing));
            }
        }
        if !seen.contains(&false) {
            return Self::default();
        }
        Self {
            lengths: None,
            seen: Some(seen.into()),
            keys: queries * keys,
        }
    }

    /// The mask of the given rows, in this order; a row may be given more than once.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let lengths = self.lengths.as_deref();
        let seen = self.seen.as_deref();
        let row = |&row: &usize| seen.map(|seen| &seen[row * self.keys..][..self.keys]);
        Self {
            lengths: lengths.map(|lengths| rows.iter().map(|&row| lengths[row]).collect()),
            seen: seen.map(|_| rows.iter().filter_map(row).flatten().copied().collect()),
            keys: self.keys,
        }
    }
}

/// The keys and values that one layer has seen, packed `[B, T, 2D]`.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    kv: Option<Tensor<3>>,
}

impl KvCache {
    /// Positions held.
    pub fn len(&self) -> usize {
        self.kv.as_ref().map_or(0, |kv| kv.dims()[1])
    }

    /// Whether nothing is held yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `[B, t, 2D]` and gives all that is held.
    fn append(&mut self, new: Tensor<3>) -> Tensor<3> {
        let kv = match self.kv.take() {
            Some(kv) => Tensor::cat(vec![kv, new], 1),
            None => new,
        };
        self.kv = Some(kv.clone());
        kv
    }

    /// Forgets all but the first `len` positions.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.kv = self.kv.take().map(|kv| kv.narrow(1, 0, len));
        }
    }

    /// Replaces the batch rows by `rows`, as beam search does when hypotheses are dropped and doubled.
    pub fn select(&mut self, rows: &Tensor<1, Int>) {
        self.kv = self.kv.take().map(|kv| kv.select(0, rows.clone()));
    }
}

fn options(
    heads: usize,
    width: usize,
    causal: bool,
    past: usize,
    keys: &KeyMask,
) -> AttentionOptions {
    AttentionOptions {
        heads,
        causal,
        past,
        scale: ((width / heads) as f32).powf(-0.5),
        key_lengths: keys.lengths.clone(),
        key_mask: keys.seen.clone(),
    }
}

/// Multi-head self-attention with a packed projection; parameters `qkv` and `out`.
#[derive(Module, Debug)]
pub struct SelfAttention {
    qkv: Linear,
    out: Linear,
    heads: usize,
    width: usize,
    causal: bool,
}

impl SelfAttention {
    /// `heads` divides `width`; `out` initialises the output projection.
    pub fn new(w: &mut Weights, width: usize, heads: usize, causal: bool, out: Init) -> Self {
        Self {
            qkv: w.scope("qkv", |w| {
                Linear::new(w, width, 3 * width, true, Init::fan_in(width))
            }),
            out: w.scope("out", |w| Linear::new(w, width, width, true, out)),
            heads,
            width,
            causal,
        }
    }

    /// Whether the layer was built to see no later positions.
    pub fn causal(&self) -> bool {
        self.causal
    }

    /// # Shapes
    /// `x, residual: [B, T, D]`; gives `residual + attention(x)`, `[B, T, D]`.
    pub fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.masked(x, residual, self.causal, &KeyMask::default(), None)
    }

    /// The same for the `T` positions that follow those in `cache`, which then holds them too.
    pub fn forward_cached(
        &self,
        x: Tensor<3>,
        residual: Tensor<3>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        self.masked(x, residual, self.causal, &KeyMask::default(), Some(cache))
    }

    /// The same with padding, and with or without a view of later positions whatever the layer was built for.
    ///
    /// # Shapes
    /// `x, residual: [B, T, D]`; `keys` has a row of `past + T` positions per sequence, where `past` is what the cache
    /// holds; gives `[B, T, D]`.
    pub fn masked(
        &self,
        x: Tensor<3>,
        residual: Tensor<3>,
        causal: bool,
        keys: &KeyMask,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let qkv = self.qkv.forward(x); // [B, T, 3D]
        let options = |past| options(self.heads, self.width, causal, past, keys);
        let y = match cache {
            None => ops::self_attention(qkv, options(0)),
            Some(cache) => {
                let past = cache.len();
                let q = qkv.clone().narrow(2, 0, self.width);
                let kv = cache.append(qkv.narrow(2, self.width, 2 * self.width)); // [B, past + T, 2D]
                ops::cross_attention(q, kv, options(past))
            }
        }; // [B, T, D]
        self.out.fused(y, Activation::None, Some(residual))
    }
}

/// Multi-head attention to another sequence; parameters `q`, `kv` and `out`.
#[derive(Module, Debug)]
pub struct CrossAttention {
    q: Linear,
    kv: Option<Linear>,
    out: Linear,
    heads: usize,
    width: usize,
}

impl CrossAttention {
    /// From queries of `width` to a memory of `memory_width`; `heads` divides `width`.
    pub fn new(
        w: &mut Weights,
        width: usize,
        memory_width: usize,
        heads: usize,
        out: Init,
    ) -> Self {
        Self {
            kv: Some(w.scope("kv", |w| {
                Linear::new(w, memory_width, 2 * width, true, Init::fan_in(memory_width))
            })),
            ..Self::reading(w, width, heads, out)
        }
    }

    /// A layer without keys and values of its own, which reads those of another; parameters `q` and `out`.
    pub fn reading(w: &mut Weights, width: usize, heads: usize, out: Init) -> Self {
        Self {
            q: w.scope("q", |w| {
                Linear::new(w, width, width, true, Init::fan_in(width))
            }),
            kv: None,
            out: w.scope("out", |w| Linear::new(w, width, width, true, out)),
            heads,
            width,
        }
    }

    /// Keys and values of a memory, computed once and used by every text about it.
    ///
    /// # Shapes
    /// `memory: [B, N, M]`; gives `[B, N, 2D]`.
    ///
    /// # Panics
    /// On a layer without keys and values of its own.
    pub fn keys_values(&self, memory: Tensor<3>) -> Tensor<3> {
        let kv = self.kv.as_ref().expect("keys and values of its own");
        kv.forward(memory)
    }

    /// Whether the layer has keys and values of its own.
    pub fn has_keys_values(&self) -> bool {
        self.kv.is_some()
    }

    /// # Shapes
    /// `x, residual: [B * Q, T, D]`, `kv: [B, N, 2D]`: `Q` texts in a row look at the same memory; gives
    /// `residual + attention(x)`, `[B * Q, T, D]`.
    pub fn forward(&self, x: Tensor<3>, kv: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.masked(x, kv, residual, &KeyMask::default())
    }

    /// The same for memories with padding: `keys` has a row of `N` positions per memory.
    pub fn masked(
        &self,
        x: Tensor<3>,
        kv: Tensor<3>,
        residual: Tensor<3>,
        keys: &KeyMask,
    ) -> Tensor<3> {
        let ([rows, t, d], b) = (x.dims(), kv.dims()[0]);
        let texts = rows / b;
        let q = self.q.forward(x).reshape([b, texts * t, d]);
        let y = ops::cross_attention(q, kv, options(self.heads, self.width, false, 0, keys));
        self.out
            .fused(y.reshape([rows, t, d]), Activation::None, Some(residual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_behind_is_told_by_lengths_and_any_other_by_a_mask() {
        let all = KeyMask::new(&[vec![true; 3], vec![true; 3]]);
        assert_eq!(all, KeyMask::default());
        let behind = KeyMask::new(&[vec![true; 3], vec![true, false, false]]);
        assert_eq!(behind.lengths.as_deref(), Some(&[3, 1][..]));
        assert_eq!(behind.seen, None);
        for row in [[false, true, true], [true, false, true], [false; 3]] {
            let mask = KeyMask::new(&[vec![true; 3], row.to_vec()]);
            assert_eq!(mask.lengths, None);
            assert_eq!(mask.seen.as_deref().map(|m| &m[3..]), Some(&row[..]));
            let swapped = mask.select(&[1, 1, 0]).seen.expect("a mask");
            assert_eq!(swapped[..3], row);
            assert_eq!(swapped[3..], [row, [true; 3]].concat());
        }
    }

    #[test]
    fn masks_of_pairs_are_selected_by_row_and_leave_no_query_blind() {
        let all = KeyMask::pairs(&[vec![true; 6], vec![true; 6]], [2, 3]);
        assert_eq!(all, KeyMask::default());
        let first = vec![true, false, false, true, true, false];
        let second = vec![false, false, false, false, false, true];
        let mask = KeyMask::pairs(&[first.clone(), second], [2, 3]);
        let swapped = mask.select(&[1, 0]).seen.expect("a mask");
        assert_eq!(swapped[..6], [true, true, true, false, false, true]);
        assert_eq!(swapped[6..], first);
    }
}
