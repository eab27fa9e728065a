//! BLEU (Papineni et al., 2002) as `pycocoevalcap/bleu/bleu_scorer.py` computes it.

use super::ngram::{Item, MAX_N};

/// Added to every number of possible matches and to the reference length, so that no division is
/// by zero.
const SMALL: f64 = 1e-9;
/// Added to every number of matches and to the hypothesis length, so that a product with no match
/// is small, not zero.
const TINY: f64 = 1e-15;

/// What BLEU needs to know of one item, or, added up, of a corpus.
#[derive(Default, Clone, Copy)]
pub(super) struct BleuCounts {
    /// Words in the hypothesis.
    hypothesis_length: u64,
    /// Words in the reference whose length is closest to the hypothesis', the shorter on a tie.
    reference_length: u64,
    /// `possible[k]`: (k+1)-grams in the hypothesis.
    possible: [u64; MAX_N],
    /// `matched[k]`: those that are in a reference, each at most as often as in the one reference
    /// that has it most.
    matched: [u64; MAX_N],
}

impl BleuCounts {
    pub(super) fn of(item: &Item) -> Self {
        let length = item.hypothesis.words.len();
        let mut counts = Self {
            hypothesis_length: length as u64,
            reference_length: item
                .references
                .iter()
                .map(|reference| reference.words.len())
                .min_by_key(|&candidate| (candidate.abs_diff(length), candidate))
                .unwrap_or(0) as u64,
            ..Self::default()
        };
        for k in 0..MAX_N {
            counts.possible[k] = length.saturating_sub(k) as u64;
            for (gram, count) in &item.hypothesis.counts[k] {
                let most = item
                    .references
                    .iter()
                    .map(|reference| reference.count(k, gram))
                    .max()
                    .unwrap_or(0);
                counts.matched[k] += u64::from(most.min(*count));
            }
        }
        counts
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.hypothesis_length += other.hypothesis_length;
        self.reference_length += other.reference_length;
        for k in 0..MAX_N {
            self.possible[k] += other.possible[k];
            self.matched[k] += other.matched[k];
        }
    }

    /// BLEU-1..4, each in 0..=1.
    pub(super) fn score(&self) -> [f64; MAX_N] {
        let ratio = (self.hypothesis_length as f64 + TINY) / (self.reference_length as f64 + SMALL);
        let brevity = if ratio < 1.0 {
            (1.0 - 1.0 / ratio).exp()
        } else {
            1.0
        };
        let mut product = 1.0;
        std::array::from_fn(|k| {
            product *= (self.matched[k] as f64 + TINY) / (self.possible[k] as f64 + SMALL);
            product.powf(1.0 / (k + 1) as f64) * brevity
        })
    }
}
