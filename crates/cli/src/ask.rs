//! `vlm ask`

use crate::models::ModelArg;
use crate::output::{Output, complain};
use crate::regions::RegionArgs;
use crate::{Common, Outcome};
use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use vlm_tasks::{Subject, Vlm};

/// Answer a question about pictures
#[derive(Args)]
#[command(after_help = "\
With --json each line has image, question, answer, confidence (the model's probability of the answer), model and ms. \
With --choices the confidence is among these, and choices has answer and probability of each, best first.

Exit codes: 0 done; 1 some pictures failed, the others are answered; 2 wrong usage or unusable model.

Example:
  vlm ask \"how many circles are there?\" examples/pictures/*.png
  vlm ask \"what colour is the ring?\" examples/pictures/circle-star-ring.png --choices red,blue,green")]
pub struct AskArgs {
    /// The question
    question: String,
    /// Pictures: files, directories, patterns, or - for stdin
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<OsString>,
    /// Take the most probable of these answers instead of writing one
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    choices: Vec<String>,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    regions: RegionArgs,
}

#[derive(Serialize)]
struct Record<'a> {
    image: &'a str,
    question: &'a str,
    answer: &'a str,
    confidence: f64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    choices: &'a [Choice<'a>],
    model: &'a str,
    ms: f64,
}

#[derive(Serialize)]
struct Choice<'a> {
    answer: &'a str,
    probability: f64,
}

/// The answer with its probability, or choices with their share of the probability of them all, best first.
fn answers<S: Subject>(
    vlm: &Vlm,
    image: &S,
    question: &str,
    choices: &[&str],
) -> Result<Vec<(String, f64)>, vlm_tasks::Error> {
    if choices.is_empty() {
        let answer = vlm.answer(&[image], &[(0, question)])?.swap_remove(0);
        return Ok(vec![(answer.text, answer.confidence)]);
    }
    let logs = vlm.rank_answers(image, question, choices)?;
    let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logs.iter().map(|log| (log - highest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut all: Vec<(String, f64)> = choices
        .iter()
        .zip(weights)
        .map(|(choice, weight)| ((*choice).to_owned(), weight / sum))
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(all)
}

/// Four digits of a probability.
fn digits(probability: f64) -> f64 {
    (probability * 1e4).round() / 1e4
}

pub fn run(args: &AskArgs, common: &Common) -> anyhow::Result<Outcome> {
    let vlm = args.regions.complete(args.model.load(common)?)?;
    let question = args.question.trim();
    // a bad question is told before any picture is opened
    vlm.check_question(question)
        .map_err(|e| anyhow!("question: {e}"))?;
    let unknown = vlm.text()?.unknown_words(question)?;
    if !unknown.is_empty() && !common.quiet {
        complain(format_args!(
            "note: question: {} does not know: {}",
            vlm.name(),
            unknown.join(", ")
        ));
    }
    let choices: Vec<&str> = args.choices.iter().map(|c| c.trim()).collect();
    let mut output = Output::new(common.json);
    args.regions.each(
        &args.images,
        &vlm,
        common,
        |image| answers(&vlm, image, question, &choices),
        |regions| answers(&vlm, regions, question, &choices),
        |done| {
            let all: Vec<Choice> = done
                .result
                .iter()
                .map(|(answer, probability)| Choice {
                    answer,
                    probability: digits(*probability),
                })
                .collect();
            let best = &all[0];
            let record = Record {
                image: done.image,
                question,
                answer: best.answer,
                confidence: best.probability,
                choices: if choices.is_empty() { &[] } else { &all },
                model: vlm.name(),
                ms: done.ms,
            };
            output.result(&record, &done.line(best.answer))
        },
    )
}
