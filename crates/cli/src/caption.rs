//! `vlm caption`

use crate::models::ModelArg;
use crate::output::Output;
use crate::{Common, Outcome, input};
use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use vlm_models::generate::Strategy;
use vlm_tasks::CaptionOptions;

/// Say what is in pictures
#[derive(Args)]
#[command(after_help = "\
With --json each line has image, caption, model and ms (milliseconds from opening the file to the caption).

Exit codes: 0 done; 1 some pictures failed, the others are captioned; 2 wrong usage or unusable model.

Example:
  vlm caption examples/pictures/*.png
  curl -s https://example.org/picture.jpg | vlm caption --json -")]
pub struct CaptionArgs {
    /// Pictures: files, directories, patterns, or - for stdin
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<OsString>,
    /// Let every caption go on from this beginning, which is not repeated
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    decoding: Decoding,
}

/// How captions are written.
#[derive(Args)]
#[command(next_help_heading = "How captions are written")]
pub struct Decoding {
    /// Keep the N best beginnings of a caption instead of the best
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=64))]
    beam: u8,
    /// Draw words at random instead of taking the most probable
    #[arg(long, conflicts_with = "beam")]
    sample: bool,
    /// Below 1 draws likely words more often, above 1 less often
    #[arg(long, value_name = "T", default_value_t = 1.0, requires = "sample", value_parser = temperature)]
    temperature: f32,
    /// Draw from the most probable words that together have this probability
    #[arg(long, value_name = "P", default_value_t = 0.9, requires = "sample", value_parser = top_p)]
    top_p: f32,
    /// The same seed draws the same words
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "sample")]
    seed: u64,
    /// The most words and punctuation marks of a caption
    #[arg(long, value_name = "N", default_value_t = 80,
          value_parser = clap::value_parser!(u16).range(1..))]
    max_tokens: u16,
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(t) if (0.01..=100.0).contains(&t) => Ok(t),
        _ => Err("expected a number from 0.01 to 100".to_owned()),
    }
}

fn top_p(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(p) if p > 0.0 && p <= 1.0 => Ok(p),
        _ => Err("expected a number above 0, at most 1".to_owned()),
    }
}

impl Decoding {
    /// As the library wants it.
    pub fn options(&self) -> CaptionOptions {
        let strategy = if self.sample {
            Strategy::Sample {
                temperature: self.temperature,
                top_p: self.top_p,
                seed: self.seed,
            }
        } else if self.beam > 1 {
            Strategy::Beam {
                width: self.beam.into(),
                length_penalty: 1.0,
            }
        } else {
            Strategy::Greedy
        };
        CaptionOptions {
            strategy,
            max_new_tokens: self.max_tokens.into(),
        }
    }
}

#[derive(Serialize)]
struct Record<'a> {
    image: &'a str,
    caption: &'a str,
    model: &'a str,
    ms: f64,
}

pub fn run(args: &CaptionArgs, common: &Common) -> anyhow::Result<Outcome> {
    let vlm = args.model.load(common)?;
    // what the model lacks is told before any picture is opened
    vlm.model().generate()?;
    vlm.processor()?;
    let prompt = args.prompt.as_deref();
    vlm.text()?
        .caption_prompt(prompt)
        .map_err(|e| anyhow!("--prompt: {e}"))?;
    let options = args.decoding.options();
    let mut output = Output::new(common.json);
    input::each_picture(
        &args.images,
        vlm.name(),
        common,
        |image| {
            let mut captions = vlm.caption_from(prompt, &[image], &options)?;
            Ok(captions.swap_remove(0))
        },
        |done| {
            let record = Record {
                image: done.image,
                caption: &done.result.text,
                model: vlm.name(),
                ms: done.ms,
            };
            output.result(&record, &done.line(&done.result.text))
        },
    )
}
