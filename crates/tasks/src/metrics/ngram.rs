//! Counts of n-grams, shared by BLEU and CIDEr-D.

use std::collections::HashMap;

/// Longest n-gram that the caption metrics look at.
pub(super) const MAX_N: usize = 4;

/// Up to [`MAX_N`] word ids; unused places hold 0, which is no word's id.
pub(super) type Ngram = [u32; MAX_N];

/// Gives every distinct word a number, so that comparing words is comparing integers.
#[derive(Default)]
pub(super) struct Vocabulary<'a> {
    ids: HashMap<&'a str, u32>,
}

impl<'a> Vocabulary<'a> {
    /// The ids of the words of a tokenised sentence (see [`super::tokenise`]).
    pub(super) fn sentence(&mut self, text: &'a str) -> Sentence {
        let words = text.split_whitespace().map(|word| {
            // 0 pads short n-grams. A corpus of 2^32 distinct words does not fit in memory.
            let next = self.ids.len() as u32 + 1;
            *self.ids.entry(word).or_insert(next)
        });
        Sentence::new(words.collect())
    }
}

/// A sentence as word ids, with its n-gram counts.
pub(super) struct Sentence {
    /// The words in order.
    pub(super) words: Vec<u32>,
    /// `counts[k]` holds the distinct (k+1)-grams in ascending order, with how often each occurs.
    /// Sorted lists rather than hash maps, so that sums are taken in the same order in every run.
    pub(super) counts: [Vec<(Ngram, u32)>; MAX_N],
}

impl Sentence {
    fn new(words: Vec<u32>) -> Self {
        let counts = std::array::from_fn(|k| {
            let mut grams: Vec<Ngram> = words
                .windows(k + 1)
                .map(|window| {
                    let mut gram = Ngram::default();
                    gram[..=k].copy_from_slice(window);
                    gram
                })
                .collect();
            grams.sort_unstable();
            let mut counts: Vec<(Ngram, u32)> = Vec::new();
            for gram in grams {
                match counts.last_mut() {
                    Some((last, count)) if *last == gram => *count += 1,
                    _ => counts.push((gram, 1)),
                }
            }
            counts
        });
        Self { words, counts }
    }

    /// How often `gram` of length `k + 1` occurs.
    pub(super) fn count(&self, k: usize, gram: &Ngram) -> u32 {
        let counts = &self.counts[k];
        counts
            .binary_search_by_key(gram, |&(gram, _)| gram)
            .map_or(0, |place| counts[place].1)
    }
}

/// A hypothesis and its references, ready to be scored.
pub(super) struct Item {
    pub(super) hypothesis: Sentence,
    pub(super) references: Vec<Sentence>,
}
