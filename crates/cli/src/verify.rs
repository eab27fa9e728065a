//! `vlm verify`

use crate::models::load;
use crate::output::{Output, complain};
use crate::precision::{PrecisionArg, set_precision};
use crate::{Common, Outcome};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use vlm_tasks::verify::{Golden, TOLERANCE};

/// Compare a model's numbers with those of its reference implementation
#[derive(Args)]
#[command(after_help = "\
FILE is a safetensors file whose tensors are the arguments of the reference's forward pass (in.pixel_values, \
in.input_ids, ...) and its results (out.image_embeds, out.logits, ...). A line for each result has the largest \
absolute difference and the largest relative to the largest value of the reference's tensor. Integers must be equal.

With --json each line has output, shape, max_abs and max_rel (null where nothing could be compared), tolerance, ok, and \
error (null where ok).

Exit codes: 0 all results agree; 1 some do not; 2 wrong usage, unusable model or golden file.

Example:
  vlm verify clip-vit-base-patch32 --golden clip.golden.safetensors")]
pub struct VerifyArgs {
    /// A model's directory, or a file of weights
    model: String,
    /// The arguments and results of the reference
    #[arg(long, value_name = "FILE")]
    golden: PathBuf,
    /// Differences up to this share of a tensor's largest value are taken for rounding
    #[arg(long, value_name = "T", default_value_t = TOLERANCE, value_parser = tolerance)]
    tolerance: f64,
    /// Take the vocabulary from this directory
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(t) if t >= 0.0 && t.is_finite() => Ok(t),
        _ => Err("expected a number from 0".to_owned()),
    }
}

#[derive(Serialize)]
struct Record<'a> {
    output: &'a str,
    shape: &'a [usize],
    max_abs: Option<f64>,
    max_rel: Option<f64>,
    tolerance: f64,
    ok: bool,
    error: Option<&'a str>,
}

pub fn run(args: &VerifyArgs, common: &Common) -> anyhow::Result<Outcome> {
    let golden = Golden::read(&args.golden)?;
    set_precision(PrecisionArg::F32, common);
    let vlm = load(&args.model, args.tokenizer.as_deref())?;
    let found = vlm.verify(&golden, args.tolerance)?;
    if !common.quiet {
        if let Some(about) = &golden.about {
            complain(format_args!("note: {}: {about}", args.golden.display()));
        }
        if let Some(first) = golden.others.first() {
            complain(format_args!(
                "note: {}: {} tensors are neither in. nor out. and not compared, {first} first",
                args.golden.display(),
                golden.others.len(),
            ));
        }
        for name in &found.ignored {
            complain(format_args!(
                "note: in.{name}: {} does not know it, ignored",
                vlm.model().family()
            ));
        }
    }
    let mut output = Output::new(common.json);
    let names = found.comparisons.iter().map(|c| c.name.len());
    let width = names.max().unwrap_or(0);
    for c in &found.comparisons {
        let record = Record {
            output: &c.name,
            shape: &c.shape,
            max_abs: c.max_abs,
            max_rel: c.max_rel,
            tolerance: args.tolerance,
            ok: c.failure.is_none(),
            error: c.failure.as_deref(),
        };
        let differences = match (c.max_abs, c.max_rel) {
            (Some(abs), Some(rel)) => format!("max abs {abs:.2e}  max rel {rel:.2e}  "),
            _ => String::new(),
        };
        let verdict = match &c.failure {
            None => "ok".to_owned(),
            Some(why) => format!("FAILED: {why}"),
        };
        output.result(
            &record,
            &format!("{:width$}  {differences}{verdict}", c.name),
        )?;
    }
    Ok(if found.is_equal() {
        Outcome::Done
    } else {
        Outcome::SomeInputsFailed
    })
}
