use vlm_nn::random::SplitMix64;

/// Chooses one token from log-probabilities.
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    rng: SplitMix64,
    greedy: bool,
}

/// Probabilities of log-probabilities (or logits) at a temperature.
pub fn softmax(logits: &[f32], temperature: f32) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f32> = logits
        .iter()
        .map(|&x| ((x - max) / temperature).exp())
        .collect();
    let sum: f32 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

impl Sampler {
    /// The most probable token; the first of equals.
    pub fn greedy() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            rng: SplitMix64::new(0),
            greedy: true,
        }
    }

    /// A draw from the most probable tokens that together reach `top_p`.
    pub fn top_p(temperature: f32, top_p: f32, seed: u64) -> Self {
        Self {
            temperature: temperature.max(1e-4),
            top_p,
            rng: SplitMix64::new(seed),
            greedy: false,
        }
    }

    /// The token chosen from one row.
    pub fn choose(&mut self, log_probabilities: &[f32]) -> u32 {
        if self.greedy {
            let mut best = 0;
            for (i, &x) in log_probabilities.iter().enumerate() {
                if x > log_probabilities[best] {
                    best = i;
                }
            }
            return best as u32;
        }
        let probabilities = softmax(log_probabilities, self.temperature);
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|&a, &b| {
            probabilities[b]
                .total_cmp(&probabilities[a])
                .then(a.cmp(&b))
        });
        let mut kept = 0;
        let mut mass = 0.0;
        for &i in &order {
            mass += probabilities[i];
            kept += 1;
            if mass >= self.top_p {
                break;
            }
        }
        let mut point = self.rng.uniform_f32() * mass;
        for &i in &order[..kept] {
            point -= probabilities[i];
            if point < 0.0 {
                return i as u32;
            }
        }
        order[kept - 1] as u32
    }
}
