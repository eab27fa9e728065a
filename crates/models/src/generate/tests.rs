use super::*;

/// A model that is a table: the logits of the next token depend on the last two tokens.
struct Table {
    vocab: usize,
    seed: u64,
    rows: Vec<Vec<u32>>,
    max_positions: usize,
    /// Fixed continuations, by text so far; anything else is drawn from the seed.
    fixed: Vec<(Vec<u32>, Vec<f32>)>,
}

const EOS: u32 = 0;

impl Table {
    fn random(seed: u64) -> Self {
        Self {
            vocab: 7,
            seed,
            rows: Vec::new(),
            max_positions: 100,
            fixed: Vec::new(),
        }
    }

    fn logits(&self, text: &[u32]) -> Vec<f32> {
        if let Some((_, logits)) = self.fixed.iter().find(|(t, _)| t == text) {
            return logits.clone();
        }
        let last = text.iter().rev().take(2);
        let mut state = last.fold(self.seed, |h, &t| {
            (h ^ u64::from(t)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        (0..self.vocab)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 40) as f32 / (1u64 << 22) as f32
            })
            .collect()
    }
}

impl Autoregressive for Table {
    fn vocab_size(&self) -> usize {
        self.vocab
    }
    fn max_positions(&self) -> usize {
        self.max_positions
    }
    fn positions(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }
    fn feed(&mut self, tokens: &[Vec<u32>]) -> Vec<Vec<f32>> {
        if self.rows.is_empty() {
            self.rows = vec![Vec::new(); tokens.len()];
        }
        assert_eq!(self.rows.len(), tokens.len(), "one list of tokens per row");
        for (row, new) in self.rows.iter_mut().zip(tokens) {
            row.extend(new);
        }
        assert!(self.positions() <= self.max_positions, "fed beyond the end");
        self.rows.iter().map(|row| self.logits(row)).collect()
    }
    fn select(&mut self, rows: &[usize]) {
        self.rows = rows.iter().map(|&r| self.rows[r].clone()).collect();
    }
}

fn options(strategy: Strategy) -> Options {
    Options {
        strategy,
        max_new_tokens: 20,
        eos: EOS,
        banned: Vec::new(),
    }
}

fn run(seed: u64, options: &Options) -> Generated {
    generate(&mut Table::random(seed), &[vec![3, 1]], options).remove(0)
}

fn beam(width: usize) -> Strategy {
    Strategy::Beam {
        width,
        length_penalty: 1.0,
    }
}

#[test]
fn beam_of_one_equals_greedy() {
    for seed in 0..200 {
        let greedy = run(seed, &options(Strategy::Greedy));
        let beam = run(seed, &options(beam(1)));
        assert_eq!(greedy.ids, beam.ids, "seed {seed}");
        assert!((greedy.log_probability - beam.log_probability).abs() < 1e-9);
    }
}

#[test]
fn a_beam_that_holds_everything_finds_the_most_probable_text() {
    // every text of up to two tokens and an end fits into 7 * 7 hypotheses
    for seed in 0..50 {
        let mut o = options(Strategy::Beam {
            width: 7,
            length_penalty: 0.0,
        });
        o.max_new_tokens = 3;
        let found = run(seed, &o);
        let table = Table::random(seed);
        let mut best = f64::NEG_INFINITY;
        let mut texts = vec![(vec![3, 1], 0.0f64)];
        for _ in 0..3 {
            let mut longer = Vec::new();
            for (text, so_far) in texts {
                let p = log_probabilities(table.logits(&text), &[]);
                best = best.max(so_far + f64::from(p[EOS as usize]));
                for id in 1..7u32 {
                    let text = [text.clone(), vec![id]].concat();
                    longer.push((text, so_far + f64::from(p[id as usize])));
                }
            }
            texts = longer;
        }
        if found.finished {
            assert!(
                found.log_probability <= best + 1e-6,
                "seed {seed}: not a text of this model"
            );
        }
        let greedy = {
            let mut o = options(Strategy::Greedy);
            o.max_new_tokens = 3;
            run(seed, &o)
        };
        if greedy.finished && found.finished {
            assert!(
                found.log_probability >= greedy.log_probability - 1e-6,
                "seed {seed}"
            );
        }
    }
}

#[test]
fn beam_search_escapes_the_trap_that_greedy_falls_into() {
    // greedy takes 1 (0.6) and must then choose among six equals; 2 (0.4) leads to a certain end
    let ln = |p: f32| p.max(1e-9).ln();
    let mut model = Table::random(0);
    model.fixed = vec![
        (
            vec![5],
            [0.0, 0.6, 0.4, 0.0, 0.0, 0.0, 0.0].map(ln).to_vec(),
        ),
        (vec![5, 1], vec![0.0; 7]),
        (
            vec![5, 2],
            [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0].map(ln).to_vec(),
        ),
    ];
    let mut o = options(Strategy::Beam {
        width: 2,
        length_penalty: 0.0,
    });
    o.max_new_tokens = 2;
    let text = generate(&mut model, &[vec![5]], &o).remove(0);
    assert_eq!(text.ids, [2]);
    assert!((text.log_probability - f64::from(0.4f32.ln())).abs() < 1e-4);
}

#[test]
fn log_probability_is_the_sum_over_the_tokens() {
    for seed in 0..20 {
        for strategy in [Strategy::Greedy, beam(3)] {
            let text = run(seed, &options(strategy));
            let table = Table::random(seed);
            let mut so_far = vec![3, 1];
            let mut sum = 0.0;
            let end = text.finished.then_some(EOS);
            for id in text.ids.iter().copied().chain(end) {
                sum += f64::from(log_probabilities(table.logits(&so_far), &[])[id as usize]);
                so_far.push(id);
            }
            assert!(
                (sum - text.log_probability).abs() < 1e-5,
                "seed {seed} {strategy:?}"
            );
        }
    }
}

#[test]
fn banned_tokens_never_appear() {
    for seed in 0..50 {
        for strategy in [
            Strategy::Greedy,
            beam(4),
            Strategy::Sample {
                temperature: 2.0,
                top_p: 1.0,
                seed,
            },
        ] {
            let mut o = options(strategy);
            o.banned = vec![2, 4, 6];
            let text = run(seed, &o);
            assert!(
                text.ids.iter().all(|id| ![2, 4, 6].contains(id)),
                "{text:?}"
            );
        }
    }
}

#[test]
fn sampling_from_a_tiny_nucleus_equals_greedy() {
    for seed in 0..50 {
        let sample = Strategy::Sample {
            temperature: 1.0,
            top_p: 1e-6,
            seed,
        };
        assert_eq!(
            run(seed, &options(sample)),
            run(seed, &options(Strategy::Greedy))
        );
    }
}

#[test]
fn sampling_repeats_with_its_seed_and_varies_with_it() {
    let text = |seed| {
        run(
            1,
            &options(Strategy::Sample {
                temperature: 1.5,
                top_p: 0.95,
                seed,
            }),
        )
    };
    assert_eq!(text(7), text(7));
    let different = (0..20).any(|seed| text(seed) != text(7));
    assert!(different, "twenty seeds, one text");
}

#[test]
fn sampling_follows_the_probabilities_of_the_nucleus() {
    let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln).to_vec();
    let mut counts = [0usize; 4];
    let mut sampler = Sampler::top_p(1.0, 0.8, 3);
    for _ in 0..20_000 {
        counts[sampler.choose(&logits) as usize] += 1;
    }
    // 0.5 and 0.3 together reach 0.8
    assert_eq!(counts[2] + counts[3], 0);
    let share = counts[0] as f64 / 20_000.0;
    assert!((share - 0.625).abs() < 0.015, "{share}");
}

#[test]
fn rows_of_a_batch_do_not_influence_each_other() {
    let prompts = [vec![3, 1], vec![2, 5], vec![6, 6]];
    for seed in 0..50 {
        let o = options(Strategy::Greedy);
        let together = generate(&mut Table::random(seed), &prompts, &o);
        for (prompt, text) in prompts.iter().zip(together) {
            let alone =
                generate(&mut Table::random(seed), std::slice::from_ref(prompt), &o).remove(0);
            assert_eq!(alone, text, "seed {seed}");
        }
    }
}

#[test]
fn generation_stops_where_the_model_has_no_more_positions() {
    for strategy in [Strategy::Greedy, beam(3)] {
        let mut model = Table::random(5);
        model.max_positions = 6;
        let mut o = options(strategy);
        o.banned = vec![EOS];
        let text = generate(&mut model, &[vec![3, 1]], &o).remove(0);
        assert_eq!(text.ids.len(), 4);
        assert!(!text.finished);
    }
}
