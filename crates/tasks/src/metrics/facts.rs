//! Precision, recall and F1 of the facts that captions state.
//!
//! Precision asks how much of what is said is true, recall how much of what matters is said. What
//! may be said and what should be said are different sets (a true aside costs nothing), so each
//! has its own numerator.

use serde::{Deserialize, Serialize};

use super::MetricError;
use super::interval::{Bootstrap, Interval};

/// Facts of one caption against the ground truth of its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FactCounts {
    /// Facts stated that are true.
    pub correct: u32,
    /// Facts stated.
    pub stated: u32,
    /// Required facts that are stated.
    pub recalled: u32,
    /// Facts that a caption of this picture should state.
    pub required: u32,
}

/// Scores pooled over items: all counts are summed, then divided.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FactScores {
    /// Number of captions.
    pub n: usize,
    /// Correct over stated facts; 0 if none is stated.
    pub precision: Interval,
    /// Recalled over required facts; 0 if none is required.
    pub recall: Interval,
    /// Harmonic mean of precision and recall; 0 if both are.
    pub f1: Interval,
}

/// Precision, recall and F1 over all items, with intervals from resampling items.
///
/// # Errors
/// [`MetricError::NoItems`] for an empty list.
pub fn score_facts(items: &[FactCounts], bootstrap: &Bootstrap) -> Result<FactScores, MetricError> {
    let interval = |statistic: fn([f64; 4]) -> f64| {
        bootstrap
            .of_sums(items, terms, statistic)
            .ok_or(MetricError::NoItems)
    };
    Ok(FactScores {
        n: items.len(),
        precision: interval(precision)?,
        recall: interval(recall)?,
        f1: interval(f1)?,
    })
}

fn terms(counts: &FactCounts) -> [f64; 4] {
    [
        f64::from(counts.correct),
        f64::from(counts.stated),
        f64::from(counts.recalled),
        f64::from(counts.required),
    ]
}

fn precision([correct, stated, _, _]: [f64; 4]) -> f64 {
    share(correct, stated)
}

fn recall([_, _, recalled, required]: [f64; 4]) -> f64 {
    share(recalled, required)
}

fn f1(sums: [f64; 4]) -> f64 {
    let (precision, recall) = (precision(sums), recall(sums));
    share(2.0 * precision * recall, precision + recall)
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(correct: u32, stated: u32, recalled: u32, required: u32) -> FactCounts {
        FactCounts {
            correct,
            stated,
            recalled,
            required,
        }
    }

    #[test]
    fn facts_are_pooled_before_they_are_divided() {
        let items = [counts(1, 1, 1, 4), counts(5, 9, 2, 2)];
        let scores = score_facts(&items, &Bootstrap::default()).unwrap();
        assert_eq!(scores.n, 2);
        assert_eq!(scores.precision.estimate, 0.6);
        assert_eq!(scores.recall.estimate, 0.5);
        assert!((scores.f1.estimate - 0.6 / 1.1).abs() < 1e-12);
        for interval in [scores.precision, scores.recall, scores.f1] {
            assert!(interval.low < interval.estimate && interval.estimate < interval.high);
        }
        // Resamples can only be 2 x the first, both, or 2 x the second item.
        assert_eq!(
            (scores.precision.low, scores.precision.high),
            (5.0 / 9.0, 1.0)
        );
        assert_eq!((scores.recall.low, scores.recall.high), (0.25, 1.0));
    }

    #[test]
    fn zero_denominators_score_zero_and_an_empty_list_is_an_error() {
        let silent = score_facts(&[counts(0, 0, 0, 3)], &Bootstrap::default()).unwrap();
        let nothing = score_facts(&[FactCounts::default()], &Bootstrap::default()).unwrap();
        for scores in [silent, nothing] {
            for interval in [scores.precision, scores.recall, scores.f1] {
                assert_eq!(
                    (interval.estimate, interval.low, interval.high),
                    (0.0, 0.0, 0.0)
                );
            }
        }
        assert_eq!(
            score_facts(&[], &Bootstrap::default()),
            Err(MetricError::NoItems)
        );
    }
}
