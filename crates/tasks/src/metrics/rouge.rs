//! ROUGE-L (Lin, 2004) as `pycocoevalcap/rouge/rouge.py` computes it.

use super::ngram::Item;

/// How much more recall weighs than precision.
const BETA: f64 = 1.2;

/// ROUGE-L of one item, in 0..=1. Precision and recall are the best over the references, each on
/// its own, so they may come from different references.
///
/// An empty sentence counts as one empty word, as the original's `"".split(" ")` has it: an empty
/// hypothesis scores 0 against words and 1 against an empty reference.
pub(super) fn rouge_l(item: &Item) -> f64 {
    let hypothesis = words_or_empty(&item.hypothesis.words);
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    for reference in &item.references {
        let reference = words_or_empty(&reference.words);
        let common = longest_common_subsequence(hypothesis, reference) as f64;
        precision = precision.max(common / hypothesis.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    let weight = BETA * BETA;
    (1.0 + weight) * precision * recall / (recall + weight * precision)
}

/// The words, or for none a single id that no word has.
fn words_or_empty(words: &[u32]) -> &[u32] {
    if words.is_empty() { &[0] } else { words }
}

/// Length of the longest common subsequence, in `O(|a| |b|)` time and `O(|b|)` memory.
fn longest_common_subsequence(a: &[u32], b: &[u32]) -> usize {
    // row[j]: the answer for the words of `a` so far and the first j of `b`.
    let mut row = vec![0_usize; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if word == other {
                diagonal + 1
            } else {
                above.max(row[j])
            };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::longest_common_subsequence;

    #[test]
    fn longest_common_subsequence_matches_hand_counted_cases() {
        let cases: [(&[u32], &[u32], usize); 6] = [
            (&[], &[1, 2], 0),
            (&[1, 2, 3], &[1, 2, 3], 3),
            (&[1, 2, 3], &[3, 2, 1], 1),
            (&[1, 9, 2, 9, 3], &[1, 2, 3, 4], 3),
            (&[1, 1, 1], &[1, 1], 2),
            (&[1, 2, 3, 2, 4, 1, 2], &[2, 4, 3, 1, 2, 1], 4),
        ];
        for (a, b, expected) in cases {
            assert_eq!(longest_common_subsequence(a, b), expected, "{a:?} {b:?}");
            assert_eq!(longest_common_subsequence(b, a), expected, "{b:?} {a:?}");
        }
    }
}
