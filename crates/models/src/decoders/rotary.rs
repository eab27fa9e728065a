//! Rotary position embedding (Su et al., "RoFormer", 2021).

/// Which two channels of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Channel `i` with channel `i + head_dim / 2`: Hugging Face's order, and Qwen2's in GGUF files.
    Halves,
    /// Channel `2 i` with channel `2 i + 1`: the paper's order, and Llama's in GGUF files.
    Neighbours,
}

/// The turns of positions, computed as far as they are needed.
#[derive(Clone, Debug)]
pub struct Rotary {
    pairs: Pairs,
    frequencies: Vec<f64>,
    /// `[position][head_dim / 2]`, cosine and sine.
    turns: Vec<[f32; 2]>,
}

impl Rotary {
    /// Turns for heads of `head_dim` channels, an even number; pair `i` turns by `theta^(-2 i / head_dim)` a position.
    pub fn new(head_dim: usize, theta: f64, pairs: Pairs) -> Self {
        assert!(
            head_dim.is_multiple_of(2),
            "rotary: odd head_dim {head_dim}"
        );
        let frequencies = (0..head_dim / 2)
            .map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64))
            .collect();
        Self {
            pairs,
            frequencies,
            turns: Vec::new(),
        }
    }

    /// Makes sure that `positions` positions are known.
    pub fn reserve(&mut self, positions: usize) {
        let known = self.turns.len() / self.frequencies.len().max(1);
        for position in known..positions {
            self.turns.extend(self.frequencies.iter().map(|frequency| {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                [cos as f32, sin as f32]
            }));
        }
    }

    /// Turns every head of `x: [B, t, heads * head_dim]`, whose first token stands at position `first` (reserved).
    pub fn apply(&self, x: &mut [f32], t: usize, width: usize, first: usize) {
        let half = self.frequencies.len();
        for (row, x) in x.chunks_exact_mut(width).enumerate() {
            let turns = &self.turns[(first + row % t) * half..][..half];
            for head in x.chunks_exact_mut(2 * half) {
                match self.pairs {
                    Pairs::Halves => {
                        let (low, high) = head.split_at_mut(half);
                        for ((a, b), turn) in low.iter_mut().zip(high).zip(turns) {
                            (*a, *b) = rotated(*a, *b, turn);
                        }
                    }
                    Pairs::Neighbours => {
                        for (pair, turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                            *pair = rotated(pair[0], pair[1], turn).into();
                        }
                    }
                }
            }
        }
    }
}

fn rotated(a: f32, b: f32, &[cos, sin]: &[f32; 2]) -> (f32, f32) {
    (a * cos - b * sin, b * cos + a * sin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scalar_product_depends_on_the_distance_alone() {
        for pairs in [Pairs::Halves, Pairs::Neighbours] {
            let mut rotary = Rotary::new(8, 100.0, pairs);
            rotary.reserve(40);
            let turned = |seed: usize, position: usize| -> Vec<f32> {
                let mut x: Vec<f32> = (0..8).map(|i| ((i * 7 + seed) % 5) as f32 - 2.0).collect();
                rotary.apply(&mut x, 1, 8, position);
                x
            };
            let product = |p: usize, q: usize| -> f32 {
                let (a, b) = (turned(1, p), turned(2, q));
                a.iter().zip(b).map(|(a, b)| a * b).sum()
            };
            assert!((product(3, 7) - product(33, 37)).abs() < 1e-4, "{pairs:?}");
            assert!((product(3, 7) - product(3, 9)).abs() > 1e-2, "{pairs:?}");
        }
    }

    #[test]
    fn position_0_does_not_turn_and_rows_count_from_the_first() {
        let mut rotary = Rotary::new(4, 10.0, Pairs::Halves);
        rotary.reserve(3);
        let mut x = vec![1.0, 2.0, 3.0, 4.0];
        rotary.apply(&mut x, 1, 4, 0);
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0]);
        // two rows of two sequences: positions 1, 2 and again 1, 2
        let mut x = [1.0, 2.0, 3.0, 4.0].repeat(4);
        rotary.apply(&mut x, 2, 4, 1);
        assert_eq!(x[..8], x[8..]);
        assert_ne!(x[..4], x[4..8]);
    }
}
