//! From a model that scores the next token to whole texts: greedy, beam search, top-p sampling.
//!
//! Everything here works on [`Autoregressive`], so it is tested on a model that is a table.

mod beam_search;
mod sampler;

pub use beam_search::beam_search;
pub use sampler::{Sampler, softmax};

/// A model that has been shown pictures and is fed text, token by token, one row per text.
///
/// It remembers what it was fed (a KV cache); rows may be dropped and doubled.
pub trait Autoregressive {
    /// The number of tokens that a row of logits covers.
    fn vocab_size(&self) -> usize;
    /// The most positions that a row can hold.
    fn max_positions(&self) -> usize;
    /// Positions fed so far.
    fn positions(&self) -> usize;
    /// Feeds tokens to every row (as many to each) and gives, for each row, the logits of the next token.
    fn feed(&mut self, tokens: &[Vec<u32>]) -> Vec<Vec<f32>>;
    /// Keeps the given rows, in this order; a row may be given more than once.
    fn select(&mut self, rows: &[usize]);
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// The most probable token.
    Greedy,
    /// The most probable text among `width` kept hypotheses.
    Beam {
        /// Hypotheses kept.
        width: usize,
        /// The sum of log-probabilities is divided by the length to this power.
        length_penalty: f32,
    },
    /// Drawn from the smallest set of tokens whose probabilities reach `top_p` (Holtzman et al., 2020).
    Sample {
        /// Divides the logits; above 0.
        temperature: f32,
        /// Above 0, at most 1.
        top_p: f32,
        /// The same seed draws the same text.
        seed: u64,
    },
}

/// What to generate.
#[derive(Clone, Debug)]
pub struct Options {
    /// How tokens are chosen.
    pub strategy: Strategy,
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// The token that ends a text.
    pub eos: u32,
    /// Tokens that are never generated.
    pub banned: Vec<u32>,
}

/// A generated text.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens, without the end token.
    pub ids: Vec<u32>,
    /// Sum of the log-probabilities of the new tokens, the end token included.
    pub log_probability: f64,
    /// Whether the text ended by itself.
    pub finished: bool,
}

/// Continues each prompt, one row per prompt; prompts have the same length.
///
/// Beam search takes one prompt.
pub fn generate(
    model: &mut dyn Autoregressive,
    prompts: &[Vec<u32>],
    options: &Options,
) -> Vec<Generated> {
    match options.strategy {
        Strategy::Beam {
            width,
            length_penalty,
        } => {
            assert_eq!(
                prompts.len(),
                1,
                "beam search continues one prompt at a time"
            );
            vec![beam_search(
                model,
                &prompts[0],
                options,
                width,
                length_penalty,
            )]
        }
        Strategy::Greedy => sampled(model, prompts, options, &mut Sampler::greedy()),
        Strategy::Sample {
            temperature,
            top_p,
            seed,
        } => sampled(
            model,
            prompts,
            options,
            &mut Sampler::top_p(temperature, top_p, seed),
        ),
    }
}

/// Logits to log-probabilities, with the banned tokens out of the question.
fn log_probabilities(mut logits: Vec<f32>, banned: &[u32]) -> Vec<f32> {
    for &id in banned {
        logits[id as usize] = f32::NEG_INFINITY;
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let log_sum = sum.ln() as f32 + max;
    for x in &mut logits {
        *x -= log_sum;
    }
    logits
}

/// How many tokens may still follow a prompt.
fn budget(model: &dyn Autoregressive, prompt: usize, options: &Options) -> usize {
    options.max_new_tokens.min(
        model
            .max_positions()
            .saturating_sub(model.positions() + prompt),
    )
}

fn sampled(
    model: &mut dyn Autoregressive,
    prompts: &[Vec<u32>],
    options: &Options,
    sampler: &mut Sampler,
) -> Vec<Generated> {
    let mut texts = vec![
        Generated {
            ids: Vec::new(),
            log_probability: 0.0,
            finished: false,
        };
        prompts.len()
    ];
    let budget = budget(model, prompts.first().map_or(0, Vec::len), options);
    let mut next: Vec<Vec<u32>> = prompts.to_vec();
    for _ in 0..budget {
        let logits = model.feed(&next);
        for ((text, logits), next) in texts.iter_mut().zip(logits).zip(&mut next) {
            // a finished row is fed its end token until the last row is done
            *next = vec![options.eos];
            if text.finished {
                continue;
            }
            let log_probabilities = log_probabilities(logits, &options.banned);
            let id = sampler.choose(&log_probabilities);
            text.log_probability += f64::from(log_probabilities[id as usize]);
            if id == options.eos {
                text.finished = true;
            } else {
                text.ids.push(id);
                *next = vec![id];
            }
        }
        if texts.iter().all(|t| t.finished) {
            break;
        }
    }
    texts
}

#[cfg(test)]
mod tests;
