//! Recall at 1, 5 and 10: how often what belongs to a query is among the best that are found.

use super::MetricError;
use super::interval::{Bootstrap, Interval};

/// How often something that belongs to a query is among the best found.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrievalScores {
    /// Queries.
    pub n: usize,
    /// What was searched.
    pub candidates: usize,
    /// Share of queries with a right one at the first place, in 0..=1.
    pub recall_at_1: Interval,
    /// Among the first five.
    pub recall_at_5: Interval,
    /// Among the first ten.
    pub recall_at_10: Interval,
    /// Median place of the best right one, from 1.
    pub median_rank: f64,
}

/// Recall of queries with the scores of all candidates, one row for each query and one row held at a time;
/// `belongs(query, candidate)` tells what is right.
///
/// A query counts as answered by the best of what belongs to it, as is usual where a picture has several captions. Wrong
/// candidates that score the same count as better, so that a model that tells nothing apart finds nothing.
///
/// # Errors
/// [`MetricError::NoItems`] for no queries.
pub fn score_retrieval(
    scores: impl IntoIterator<Item = Vec<f32>>,
    belongs: impl Fn(usize, usize) -> bool,
    bootstrap: &Bootstrap,
) -> Result<RetrievalScores, MetricError> {
    let mut candidates = 0;
    let mut ranks = Vec::new();
    for (query, scores) in scores.into_iter().enumerate() {
        candidates = candidates.max(scores.len());
        ranks.push(rank_of_best(&scores, |c| belongs(query, c)));
    }
    let share = |k| {
        let hits = hits(&ranks, k);
        bootstrap.mean(&hits).ok_or(MetricError::NoItems)
    };
    let [recall_at_1, recall_at_5, recall_at_10] = [share(1)?, share(5)?, share(10)?];
    ranks.sort_unstable();
    let middle = [(ranks.len() - 1) / 2, ranks.len() / 2];
    // a query to which nothing belongs is never answered
    let place = |i: usize| ranks[i].saturating_add(1) as f64;
    Ok(RetrievalScores {
        n: ranks.len(),
        candidates,
        recall_at_1,
        recall_at_5,
        recall_at_10,
        median_rank: (place(middle[0]) + place(middle[1])) / 2.0,
    })
}

/// How many wrong candidates score at least as well as the best right one; `usize::MAX` where there is none.
pub(super) fn rank_of_best(scores: &[f32], belongs: impl Fn(usize) -> bool) -> usize {
    let right = (0..scores.len()).filter(|&c| belongs(c) && !scores[c].is_nan());
    let Some(best) = right.map(|c| scores[c]).max_by(f32::total_cmp) else {
        return usize::MAX;
    };
    let ahead = |score: f32| score >= best || score.is_nan();
    let wrong = (0..scores.len()).filter(|&c| !belongs(c));
    wrong.filter(|&c| ahead(scores[c])).count()
}

/// 1 for each rank below `k`, 0 for the others.
pub(super) fn hits(ranks: &[usize], k: usize) -> Vec<f64> {
    ranks.iter().map(|&rank| f64::from(rank < k)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_answered_by_the_best_of_what_belongs_to_it() {
        // candidates 2q and 2q + 1 belong to query q
        let scores = [
            vec![0.1, 0.9, 0.2, 0.3, 0.0, 0.0],
            vec![0.9, 0.8, 0.1, 0.7, 0.0, 0.0],
            vec![0.0; 6],
        ];
        let found = score_retrieval(scores, |q, c| c / 2 == q, &Bootstrap::default()).unwrap();
        assert_eq!((found.n, found.candidates), (3, 6));
        assert!((found.recall_at_1.estimate - 1.0 / 3.0).abs() < 1e-12);
        // ties are lost: four others are as good as those of the last query
        assert_eq!(found.recall_at_5.estimate, 1.0);
        assert_eq!(found.median_rank, 3.0);
    }

    #[test]
    fn what_has_no_answer_or_only_nan_is_not_found() {
        let bootstrap = Bootstrap::default();
        let none = score_retrieval([vec![0.5, 0.6]], |_, _| false, &bootstrap).unwrap();
        assert_eq!(none.recall_at_10.estimate, 0.0);
        let nan = score_retrieval([vec![f32::NAN, 0.6]], |_, c| c == 0, &bootstrap).unwrap();
        assert_eq!(nan.recall_at_10.estimate, 0.0);
        let empty = score_retrieval([], |_, _| true, &bootstrap);
        assert_eq!(empty, Err(MetricError::NoItems));
    }
}
