//! `vlm caption`

use crate::drawn::Drawn;
use crate::models::ModelArg;
use crate::output::{Output, complain};
use crate::regions::RegionArgs;
use crate::{Common, Outcome};
use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;
use vlm_models::generate::Strategy;
use vlm_tasks::CaptionOptions;

/// Say what is in pictures
#[derive(Args)]
#[command(after_help = "\
With --json each line has image, caption, model and ms (milliseconds from opening the file to the caption); with \
--attention also attention, the file that was written.

Exit codes: 0 done; 1 some pictures failed, the others are captioned; 2 wrong usage or unusable model.

Example:
  vlm caption examples/pictures/*.png
  vlm caption examples/pictures/five-hearts.png --attention attention
  curl -s https://example.org/picture.jpg | vlm caption --json -
  vlm caption photo.jpg --model oscar-captioning --detector vinvl
  vlm caption '*' --model oscar-captioning --regions features.tsv --tags label.tsv")]
pub struct CaptionArgs {
    /// Pictures: files, directories, patterns, or - for stdin
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<OsString>,
    /// Let every caption go on from this beginning, which is not repeated
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Write a picture of where the model looked at each word to this directory
    #[arg(long, value_name = "DIR")]
    attention: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    regions: RegionArgs,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    attention: Option<String>,
    model: &'a str,
    ms: f64,
}

pub fn run(args: &CaptionArgs, common: &Common) -> anyhow::Result<Outcome> {
    // what the model lacks is told before any picture is opened
    let vlm = args.regions.complete(args.model.load(common)?)?;
    vlm.model().generate()?;
    let prompt = args.prompt.as_deref();
    vlm.text()?
        .caption_prompt(prompt)
        .map_err(|e| anyhow!("--prompt: {e}"))?;
    let mut sheets = match &args.attention {
        None => None,
        Some(directory) => {
            vlm.model().attend()?;
            Some(Drawn::to("--attention", directory)?)
        }
    };
    let options = args.decoding.options();
    let mut output = Output::new(common.json);
    let mut unwritten = 0;
    let outcome = args.regions.each(
        &args.images,
        &vlm,
        common,
        |image| {
            if args.attention.is_none() {
                let mut captions = vlm.caption_from(prompt, &[image], &options)?;
                return Ok((captions.swap_remove(0), None));
            }
            let attended = vlm.caption_attended(prompt, image, &options)?;
            let sheet = vlm.attention_sheet(image, &attended)?;
            Ok((attended.caption, Some(sheet)))
        },
        |regions| {
            let mut captions = vlm.caption_from(prompt, &[regions], &options)?;
            Ok((captions.swap_remove(0), None))
        },
        |done| {
            let (caption, sheet) = &done.result;
            let written = match (&mut sheets, sheet) {
                (Some(sheets), Some(sheet)) => sheets.write(done.image, sheet).map(Some),
                _ => Ok(None),
            };
            let attention = written.unwrap_or_else(|e| {
                complain(format_args!("{}: {e}", done.image));
                unwritten += 1;
                None
            });
            let record = Record {
                image: done.image,
                caption: &caption.text,
                attention: attention.map(|path| path.display().to_string()),
                model: vlm.name(),
                ms: done.ms,
            };
            output.result(&record, &done.line(&caption.text))
        },
    )?;
    Ok(match unwritten {
        0 => outcome,
        _ => Outcome::SomeInputsFailed,
    })
}
