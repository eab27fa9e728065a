//! CIDEr-D (Vedantam et al., 2015) as `pycocoevalcap/cider/cider_scorer.py` computes it.

use std::collections::HashMap;

use super::ngram::{Item, MAX_N, Ngram, Sentence};

/// Width of the penalty for a difference in length, in words.
const SIGMA: f64 = 6.0;

/// Inverse document frequencies, taken over the references of the very items to be scored.
pub(super) struct Cider {
    /// In the references of how many items an n-gram occurs.
    document_frequency: HashMap<Ngram, u32>,
    /// Natural logarithm of the number of items.
    log_items: f64,
}

impl Cider {
    pub(super) fn new(items: &[Item]) -> Self {
        let mut document_frequency = HashMap::new();
        for item in items {
            let mut grams: Vec<Ngram> = item
                .references
                .iter()
                .flat_map(|reference| reference.counts.iter().flatten())
                .map(|&(gram, _)| gram)
                .collect();
            grams.sort_unstable();
            grams.dedup();
            for gram in grams {
                *document_frequency.entry(gram).or_insert(0) += 1;
            }
        }
        Self {
            document_frequency,
            log_items: (items.len() as f64).ln(),
        }
    }

    /// CIDEr-D of one item, in 0..=10.
    pub(super) fn score(&self, item: &Item) -> f64 {
        let hypothesis = self.weigh(&item.hypothesis);
        let sum: f64 = item
            .references
            .iter()
            .map(|reference| similarity(&hypothesis, &self.weigh(reference)))
            .sum();
        10.0 * sum / item.references.len() as f64
    }

    fn weigh(&self, sentence: &Sentence) -> Weighted {
        let weights: [Vec<(Ngram, f64)>; MAX_N] = std::array::from_fn(|k| {
            let weight = |&(gram, count): &(Ngram, u32)| {
                // An n-gram that no reference has counts as in one document.
                let documents = self.document_frequency.get(&gram).copied().unwrap_or(1);
                let idf = self.log_items - f64::from(documents).ln();
                (gram, f64::from(count) * idf)
            };
            sentence.counts[k].iter().map(weight).collect()
        });
        let norms = std::array::from_fn(|k| {
            let squares = weights[k].iter().map(|(_, weight)| weight * weight);
            squares.sum::<f64>().sqrt()
        });
        Weighted {
            weights,
            norms,
            // The original counts bigrams, not words: the same difference, but for a sentence
            // without words, which counts as long as one with a single word.
            length: sentence.words.len().saturating_sub(1) as f64,
        }
    }
}

/// A sentence as one tf-idf vector for each length of n-gram.
struct Weighted {
    /// As [`Sentence::counts`], weighted.
    weights: [Vec<(Ngram, f64)>; MAX_N],
    /// Euclidean length of each vector.
    norms: [f64; MAX_N],
    /// Number of bigrams.
    length: f64,
}

/// Mean over n-gram lengths of the clipped cosine, times a Gaussian of the difference in length.
fn similarity(hypothesis: &Weighted, reference: &Weighted) -> f64 {
    let mut sum = 0.0;
    for k in 0..MAX_N {
        let mut dot = 0.0;
        for (gram, weight) in &hypothesis.weights[k] {
            let known = &reference.weights[k];
            if let Ok(place) = known.binary_search_by_key(gram, |&(gram, _)| gram) {
                // Clipped, so that repeating a good word does not pay.
                dot += weight.min(known[place].1) * known[place].1;
            }
        }
        let norms = hypothesis.norms[k] * reference.norms[k];
        // With a norm of zero every weight is zero, and so is the product.
        sum += if norms > 0.0 { dot / norms } else { 0.0 };
    }
    let difference = hypothesis.length - reference.length;
    let penalty = (-difference * difference / (2.0 * SIGMA * SIGMA)).exp();
    penalty * sum / MAX_N as f64
}
