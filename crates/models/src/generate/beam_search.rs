use super::{Autoregressive, Generated, Options, budget, log_probabilities};

/// One hypothesis that has not ended.
#[derive(Clone)]
struct Hypothesis {
    ids: Vec<u32>,
    log_probability: f64,
}

/// Beam search: at each step the `width` most probable continuations are kept; texts that ended, or reached the largest
/// number of tokens, compete by their log-probability over length to the power `length_penalty`, the end token counted.
///
/// It stops where transformers' does by default: when as many texts have ended as beams are kept, and no open one is
/// better than the worst of them at its present length.
pub fn beam_search(
    model: &mut dyn Autoregressive,
    prompt: &[u32],
    options: &Options,
    width: usize,
    length_penalty: f32,
) -> Generated {
    let width = width.clamp(1, model.vocab_size());
    let budget = budget(model, prompt.len(), options);
    let score = |log_probability: f64, length: usize| {
        log_probability / (length.max(1) as f64).powf(f64::from(length_penalty))
    };
    let mut ended: Vec<(f64, Generated)> = Vec::new();
    let mut beams = vec![Hypothesis {
        ids: Vec::new(),
        log_probability: 0.0,
    }];
    let mut next = vec![prompt.to_vec()];
    for step in 1..=budget {
        let logits = model.feed(&next);
        let mut candidates: Vec<(f64, usize, u32)> = Vec::new();
        for (row, logits) in logits.into_iter().enumerate() {
            let log_probabilities = log_probabilities(logits, &options.banned);
            for (id, &x) in log_probabilities.iter().enumerate() {
                if x.is_finite() {
                    candidates.push((beams[row].log_probability + f64::from(x), row, id as u32));
                }
            }
        }
        // ties go to the earlier row and the smaller id, as in greedy decoding
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let (mut kept, mut rows) = (Vec::new(), Vec::new());
        for (rank, &(log_probability, row, id)) in candidates.iter().enumerate() {
            if kept.len() == width {
                break;
            }
            let finished = id == options.eos;
            let mut ids = beams[row].ids.clone();
            if !finished {
                ids.push(id);
            }
            if finished || step == budget {
                // an ending counts only where it is among the best continuations
                if rank < width {
                    let text = Generated {
                        ids,
                        log_probability,
                        finished,
                    };
                    ended.push((score(log_probability, step), text));
                }
                continue;
            }
            kept.push(Hypothesis {
                ids,
                log_probability,
            });
            rows.push(row);
        }
        beams = kept;
        if beams.is_empty() {
            break;
        }
        ended.sort_by(|a, b| b.0.total_cmp(&a.0));
        ended.truncate(width);
        if ended.len() == width && ended[width - 1].0 >= score(beams[0].log_probability, step) {
            break;
        }
        model.select(&rows);
        next = beams
            .iter()
            .map(|b| vec![*b.ids.last().expect("a new token")])
            .collect();
    }
    if ended.is_empty() {
        let best = beams.swap_remove(0);
        return Generated {
            ids: best.ids,
            log_probability: best.log_probability,
            finished: false,
        };
    }
    let best = ended
        .into_iter()
        .reduce(|a, b| if b.0 > a.0 { b } else { a })
        .expect("at least one ended");
    best.1
}
