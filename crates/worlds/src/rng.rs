//! Random numbers with the same values on every platform.
//!
//! The generator is PCG (`rand_pcg`); every sampling helper is written here on integers and plain IEEE
//! arithmetic, so that neither a new version of a distribution crate nor a platform's `libm` changes a world.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

/// One independent stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(Pcg64Mcg);

/// One round of SplitMix64 (Steele, Lea and Flood 2014): a bijection that mixes all bits.
fn split_mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream that belongs to a key; keys that differ in any part give unrelated streams.
    pub(crate) fn from_key(key: &[u64]) -> Self {
        let (mut low, mut high) = (0x243f_6a88_85a3_08d3_u64, 0x1319_8a2e_0370_7344_u64);
        for &part in key {
            low = split_mix(low ^ part);
            high = split_mix(high.wrapping_add(low) ^ part.rotate_left(32));
        }
        let mut seed = [0; 16];
        seed[..8].copy_from_slice(&low.to_le_bytes());
        seed[8..].copy_from_slice(&high.to_le_bytes());
        Rng(Pcg64Mcg::from_seed(seed))
    }

    /// 32 random bits.
    pub(crate) fn bits(&mut self) -> u32 {
        (self.0.next_u64() >> 32) as u32
    }

    /// 64 random bits.
    pub(crate) fn bits64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A whole number in `0..n`; `n` must not be 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "below(0) has no result");
        ((u64::from(self.bits()) * n as u64) >> 32) as usize
    }

    /// A number in `0.0..1.0` on a grid of 2^-24, exact in `f32`.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / 16_777_216.0
    }

    /// A number between `low` and `high`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True `percent` times in a hundred.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A fair coin.
    pub(crate) fn coin(&mut self) -> bool {
        self.bits() >> 31 == 1
    }

    /// One of the choices, each equally likely; `choices` must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// An index, likely in proportion to its weight; the weights must not all be 0.
    pub(crate) fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut rest = self.below(weights.iter().sum());
        for (index, &weight) in weights.iter().enumerate() {
            if rest < weight {
                return index;
            }
            rest -= weight;
        }
        unreachable!("the rest is below the sum of the weights")
    }

    /// Puts the items in random order (Fisher-Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn streams_of_different_keys_differ_and_of_equal_keys_agree() {
        let draw = |key: &[u64]| Rng::from_key(key).bits64();
        assert_eq!(draw(&[1, 2, 3]), draw(&[1, 2, 3]));
        let mut seen: Vec<u64> = (0..1000).map(|i| draw(&[0, i / 32, i % 32])).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn below_and_weighted_follow_their_probabilities() {
        let mut rng = Rng::from_key(&[7]);
        let (mut even, mut skewed) = ([0; 5], [0; 3]);
        for _ in 0..50_000 {
            even[rng.below(5)] += 1;
            skewed[rng.weighted(&[1, 0, 3])] += 1;
        }
        assert!(
            even.iter().all(|&n| (9_600..10_400).contains(&n)),
            "{even:?}"
        );
        assert!(
            (12_000..13_000).contains(&skewed[0]) && skewed[1] == 0,
            "{skewed:?}"
        );
    }
}
