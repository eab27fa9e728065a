//! Percentile bootstrap confidence intervals (Efron, 1979).
//!
//! Items are drawn with replacement, as many as there are, and the statistic is taken anew; the
//! interval spans the middle of the values found. It assumes that items are independent: several
//! questions about one picture are not quite, which makes the interval a little too narrow.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// An estimate with its confidence interval.
///
/// The interval of a percentile bootstrap reflects the sample: where all values are equal (all
/// right, all wrong, or a single item) it is as narrow as the estimate itself and says nothing
/// about its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The statistic of the sample.
    pub estimate: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Interval {
    /// The mean of independent runs with its 95 % confidence interval by Student's t-distribution, for a handful of runs
    /// that need not be bounded. `None` for no runs; of one run nothing is known but itself, and the interval has no
    /// width.
    ///
    /// ```
    /// use vlm_tasks::metrics::Interval;
    /// let accuracy = Interval::of_runs(&[0.70, 0.72, 0.74]).unwrap();
    /// assert!((accuracy.estimate - 0.72).abs() < 1e-12);
    /// // 4.303 times the standard error of the mean
    /// assert!((accuracy.high - accuracy.estimate - 0.0497).abs() < 1e-4);
    /// ```
    pub fn of_runs(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        let half = match values.len() {
            1 => 0.0,
            count => t_quantile(count - 1) * (squares / (n - 1.0) / n).sqrt(),
        };
        Some(Self {
            estimate: mean,
            low: mean - half,
            high: mean + half,
        })
    }
}

/// The 97.5 % quantile of Student's t-distribution (table of Fisher & Yates; beyond it the expansion of Abramowitz &
/// Stegun, 26.7.5).
fn t_quantile(degrees: usize) -> f64 {
    const TABLE: [f64; 10] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    ];
    match TABLE.get(degrees.saturating_sub(1)) {
        Some(&t) => t,
        None => {
            let (z, d) = (1.959_964_f64, degrees as f64);
            z + (z.powi(3) + z) / (4.0 * d)
                + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * d * d)
        }
    }
}

/// How to resample. The default is 95 % confidence from 2,000 resamples with a fixed seed, so that
/// the same scores always carry the same interval.
///
/// ```
/// use vlm_tasks::metrics::Bootstrap;
/// let right = [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0];
/// let accuracy = Bootstrap::default().mean(&right).unwrap();
/// assert_eq!(accuracy.estimate, 0.8);
/// assert!(accuracy.low < 0.8 && accuracy.high > 0.8);
/// assert!(Bootstrap::default().mean(&[]).is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Number of resamples; 0 gives an interval of no width.
    pub resamples: usize,
    /// Share of the resampled statistics inside the interval, in 0..=1.
    pub confidence: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            resamples: 2_000,
            confidence: 0.95,
            seed: 0,
        }
    }
}

impl Bootstrap {
    /// Interval of the mean of `values`: 0 and 1 for an accuracy, or any real score. `None` for
    /// no values; of one value the interval has no width.
    pub fn mean(&self, values: &[f64]) -> Option<Interval> {
        let count = values.len() as f64;
        self.of_sums(values, |value| [*value], |[sum]| sum / count)
    }

    /// Interval of a statistic of sums over items, such as an F1 of pooled counts.
    ///
    /// `terms` gives what one item adds to each of the `K` sums, `statistic` turns sums into the
    /// figure. It is asked about samples that may lack some kinds of item, and should have an
    /// answer where a denominator is zero. `None` for no items.
    pub fn of_sums<T, const K: usize>(
        &self,
        items: &[T],
        terms: impl Fn(&T) -> [f64; K],
        statistic: impl Fn([f64; K]) -> f64 + Sync,
    ) -> Option<Interval> {
        if items.is_empty() {
            return None;
        }
        let items: Vec<[f64; K]> = items.iter().map(terms).collect();
        let estimate = statistic(sum(items.iter()));
        // One stream of draws for each resample, so the threads' order changes nothing.
        let mut resampled: Vec<f64> = (0..self.resamples as u64)
            .into_par_iter()
            .map(|resample| {
                let mut draws = Draws::new(self.seed, resample);
                statistic(sum(
                    (0..items.len()).map(|_| &items[draws.below(items.len())])
                ))
            })
            .collect();
        resampled.sort_by(f64::total_cmp);
        let tail = (1.0 - self.confidence.clamp(0.0, 1.0)) / 2.0;
        Some(Interval {
            estimate,
            low: quantile(&resampled, tail).unwrap_or(estimate),
            high: quantile(&resampled, 1.0 - tail).unwrap_or(estimate),
        })
    }
}

fn sum<'a, const K: usize>(items: impl Iterator<Item = &'a [f64; K]>) -> [f64; K] {
    items.fold([0.0; K], |mut sums, terms| {
        for (sum, term) in sums.iter_mut().zip(terms) {
            *sum += term;
        }
        sums
    })
}

/// The quantile of ascending values, linear between neighbours (numpy's default, type 7 of Hyndman
/// and Fan).
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share * last as f64;
    let below = (place.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let (low, high) = (sorted[below], sorted[above]);
    // Not `low + 0 * (high - low)`: that is NaN where a value is infinite.
    Some(if low == high {
        low
    } else {
        low + (place - below as f64) * (high - low)
    })
}

/// SplitMix64 (Steele et al., 2014): a stream of draws for one resample.
struct Draws {
    state: u64,
}

impl Draws {
    fn new(seed: u64, stream: u64) -> Self {
        Self {
            state: mix(mix(seed).wrapping_add(stream)),
        }
    }

    /// A draw from `0..count`. The bias of the multiplication is below `count / 2^64`.
    fn below(&mut self, count: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(self.state)) * count as u128) >> 64) as usize
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_the_interval_of_students_t() {
        // scipy.stats.t.ppf(0.975, [1, 10, 11, 30, 99])
        for (degrees, expected) in [
            (1, 12.706_205),
            (10, 2.228_139),
            (11, 2.200_985),
            (30, 2.042_272),
            (99, 1.984_217),
        ] {
            let found = t_quantile(degrees);
            assert!((found - expected).abs() < 2.5e-3, "{degrees}: {found}");
        }
        assert_eq!(Interval::of_runs(&[]), None);
        let one = Interval::of_runs(&[0.5]).unwrap();
        assert_eq!((one.low, one.high), (0.5, 0.5));
        let two = Interval::of_runs(&[1.0, 3.0]).unwrap();
        assert!((two.low - (2.0 - 12.706)).abs() < 1e-9);
    }

    #[test]
    fn quantile_is_linear_between_neighbours() {
        let values = [1.0, 2.0, 4.0, 8.0];
        for (share, expected) in [(0.0, 1.0), (0.5, 3.0), (0.75, 5.0), (1.0, 8.0)] {
            assert_eq!(quantile(&values, share), Some(expected));
        }
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.975), Some(3.0));
    }

    #[test]
    fn interval_of_an_accuracy_matches_the_normal_approximation() {
        let values: Vec<f64> = (0..2_000).map(|i| f64::from(i % 10 != 0)).collect();
        let interval = Bootstrap::default().mean(&values).unwrap();
        let half = 1.96 * (0.9_f64 * 0.1 / 2_000.0).sqrt();
        assert_eq!(interval.estimate, 0.9);
        // The ends are quantiles of 2,000 resamples: their own standard error is near half / 40.
        assert!(
            (interval.low - (0.9 - half)).abs() < half / 8.0,
            "{interval:?}"
        );
        assert!(
            (interval.high - (0.9 + half)).abs() < half / 8.0,
            "{interval:?}"
        );
    }

    #[test]
    fn interval_covers_the_true_mean_about_as_often_as_it_says() {
        let bootstrap = Bootstrap {
            resamples: 400,
            ..Bootstrap::default()
        };
        let trials = 500;
        let covered = (0..trials).filter(|&trial| {
            let mut draws = Draws::new(7, trial);
            let values: Vec<f64> = (0..100).map(|_| draws.below(1_000) as f64).collect();
            let interval = bootstrap.mean(&values).unwrap();
            interval.low <= 499.5 && 499.5 <= interval.high
        });
        let share = covered.count() as f64 / trials as f64;
        // 0.95 with a binomial standard error of 0.01 over the trials.
        assert!((0.91..=0.98).contains(&share), "{share}");
    }

    #[test]
    fn interval_does_not_depend_on_the_number_of_threads() {
        let values: Vec<f64> = (0..300).map(|i| (f64::from(i) * 0.7).sin()).collect();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let alone = pool.install(|| Bootstrap::default().mean(&values));
        assert_eq!(alone, Bootstrap::default().mean(&values));
        let other_seed = Bootstrap {
            seed: 1,
            ..Bootstrap::default()
        };
        assert_ne!(alone, other_seed.mean(&values));
    }

    #[test]
    fn no_items_have_no_interval_and_one_item_has_no_width() {
        let bootstrap = Bootstrap::default();
        assert_eq!(bootstrap.mean(&[]), None);
        let one = Interval {
            estimate: 0.25,
            low: 0.25,
            high: 0.25,
        };
        assert_eq!(bootstrap.mean(&[0.25]), Some(one));
        let without_resamples = Bootstrap {
            resamples: 0,
            ..bootstrap
        };
        assert_eq!(without_resamples.mean(&[0.0, 0.5]), Some(one));
    }

    #[test]
    fn values_that_are_not_finite_do_not_panic() {
        let bootstrap = Bootstrap::default();
        assert!(bootstrap.mean(&[1.0, f64::NAN]).unwrap().estimate.is_nan());
        assert_eq!(
            bootstrap.mean(&[1.0, f64::INFINITY]).unwrap().high,
            f64::INFINITY
        );
    }
}
