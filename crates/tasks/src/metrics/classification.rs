//! Accuracy of the best and of the five best labels.

use super::MetricError;
use super::interval::{Bootstrap, Interval};
use super::retrieval::{hits, rank_of_best};

/// How often the true label is among the best.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassificationScores {
    /// Pictures.
    pub n: usize,
    /// Classes that occur.
    pub classes: usize,
    /// Share of pictures whose true label is the best, in 0..=1.
    pub top1: Interval,
    /// Share of pictures whose true label is among the five best, in 0..=1.
    pub top5: Interval,
    /// Mean over the classes of the share within each, which a large class does not dominate, in 0..=1.
    pub mean_per_class: f64,
}

/// Accuracy of pictures with the scores of all labels and the true label's place among them.
///
/// Labels that score the same as the true one count as better, so that a model that tells nothing apart is wrong.
///
/// # Errors
/// [`MetricError::NoItems`] for an empty list.
///
/// # Panics
/// If a true label has no score.
pub fn score_classification(
    items: &[(Vec<f32>, usize)],
    bootstrap: &Bootstrap,
) -> Result<ClassificationScores, MetricError> {
    let rank = |(scores, truth): &(Vec<f32>, usize)| rank_of_best(scores, |label| label == *truth);
    let ranks: Vec<usize> = items.iter().map(rank).collect();
    let share = |k| {
        let hits = hits(&ranks, k);
        bootstrap.mean(&hits).ok_or(MetricError::NoItems)
    };
    let mut by_class: std::collections::BTreeMap<usize, (usize, usize)> = Default::default();
    for ((_, truth), rank) in items.iter().zip(&ranks) {
        let (right, n) = by_class.entry(*truth).or_default();
        *right += usize::from(*rank == 0);
        *n += 1;
    }
    let shares = by_class.values().map(|&(right, n)| right as f64 / n as f64);
    Ok(ClassificationScores {
        n: items.len(),
        classes: by_class.len(),
        top1: share(1)?,
        top5: share(5)?,
        mean_per_class: shares.sum::<f64>() / by_class.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_label_must_stand_above_all_others() {
        let items = [
            (vec![0.9, 0.5, 0.1, 0.0, 0.0, 0.0], 0),
            (vec![0.9, 0.5, 0.1, 0.0, 0.0, 0.0], 0),
            (vec![0.9, 0.5, 0.1, 0.0, 0.0, 0.0], 1),
            // as good as any other is not good
            (vec![0.5; 6], 2),
        ];
        let scores = score_classification(&items, &Bootstrap::default()).unwrap();
        assert_eq!((scores.n, scores.classes), (4, 3));
        assert_eq!(scores.top1.estimate, 0.5);
        assert_eq!(scores.top5.estimate, 0.75);
        assert!((scores.mean_per_class - 1.0 / 3.0).abs() < 1e-12);
        assert!(scores.top1.low < 0.5 && scores.top1.high > 0.5);
    }

    #[test]
    fn nothing_to_score_is_an_error() {
        let scores = score_classification(&[], &Bootstrap::default());
        assert_eq!(scores, Err(MetricError::NoItems));
    }
}
