//! `vlm ask`

use crate::models::ModelArg;
use crate::output::{Output, complain};
use crate::{Common, Outcome, input};
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;

/// Answer a question about pictures
#[derive(Args)]
#[command(after_help = "\
With --json each line has image, question, answer, confidence (the model's probability of the answer), model and ms.

Exit codes: 0 done; 1 some pictures failed, the others are answered; 2 wrong usage or unusable model.

Example:
  vlm ask \"how many circles are there?\" examples/pictures/*.png")]
pub struct AskArgs {
    /// The question
    question: String,
    /// Pictures: files, directories, patterns, or - for stdin
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<OsString>,
    #[command(flatten)]
    model: ModelArg,
}

#[derive(Serialize)]
struct Record<'a> {
    image: &'a str,
    question: &'a str,
    answer: &'a str,
    confidence: f64,
    model: &'a str,
    ms: f64,
}

pub fn run(args: &AskArgs, common: &Common) -> anyhow::Result<Outcome> {
    let vlm = args.model.load(common)?;
    vlm.processor()?;
    let question = args.question.trim();
    // a bad question is told before any picture is opened
    vlm.question_prompt(question)?;
    let unknown = vlm.text()?.unknown_words(question)?;
    if !unknown.is_empty() && !common.quiet {
        complain(format_args!(
            "note: question: {} does not know: {}",
            vlm.name(),
            unknown.join(", ")
        ));
    }
    let mut output = Output::new(common.json);
    input::each_picture(
        &args.images,
        vlm.name(),
        common,
        |image| Ok(vlm.answer(&[image], &[(0, question)])?.swap_remove(0)),
        |done| {
            let record = Record {
                image: done.image,
                question,
                answer: &done.result.text,
                confidence: (done.result.confidence * 1e4).round() / 1e4,
                model: vlm.name(),
                ms: done.ms,
            };
            output.result(&record, &done.line(&done.result.text))
        },
    )
}
