//! `vlm judge`

use crate::models::ModelArg;
use crate::output::{Output, milliseconds, rounded};
use crate::regions::{self, RegionArgs};
use crate::{Common, Outcome};
use anyhow::bail;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Instant;
use vlm_tasks::{Judgement, Vlm};

/// Say whether a statement is true of pictures, or follows from them
#[derive(Args)]
#[command(after_help = "\
A model of two pictures (NLVR2) takes the left and the right one; a model of one (visual entailment) judges each picture \
by itself.

With --json each line has images, statement, class, probability, classes (the probability of each), model and ms.

Exit codes: 0 done; 1 some pictures failed, the others are judged; 2 wrong usage or unusable model.

Example:
  vlm judge 'both pictures show a dog' left.jpg right.jpg --model albef-nlvr")]
pub struct JudgeArgs {
    /// The statement
    statement: String,
    /// Pictures: files, directories, patterns, or - for stdin; two files for a model of two pictures
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<OsString>,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    regions: RegionArgs,
}

#[derive(Serialize)]
struct Record<'a> {
    images: &'a [&'a str],
    statement: &'a str,
    class: &'a str,
    probability: f64,
    classes: BTreeMap<&'a str, f64>,
    model: &'a str,
    ms: f64,
}

/// One line: the likeliest class.
fn record<'a>(
    vlm: &'a Vlm,
    statement: &'a str,
    images: &'a [&'a str],
    judged: &'a [Judgement],
    ms: f64,
) -> Record<'a> {
    let best = judged
        .iter()
        .max_by(|a, b| a.probability.total_cmp(&b.probability));
    Record {
        images,
        statement,
        class: best.map_or("", |b| b.class),
        probability: best.map_or(0.0, |b| rounded(b.probability)),
        classes: judged
            .iter()
            .map(|j| (j.class, rounded(j.probability)))
            .collect(),
        model: vlm.name(),
        ms,
    }
}

fn line(record: &Record) -> String {
    format!("{} ({:.1} %)", record.class, 100.0 * record.probability)
}

pub fn run(args: &JudgeArgs, common: &Common) -> anyhow::Result<Outcome> {
    let vlm = args.regions.complete(args.model.load(common)?)?;
    let pictures = vlm.pictures_per_statement()?;
    let statement = args.statement.trim();
    vlm.text()?.tokens(&[statement])?;
    let mut output = Output::new(common.json);
    if pictures > 1 {
        if args.images.len() != pictures {
            bail!(
                "IMAGE: expected {pictures} files for {}, found {}",
                vlm.name(),
                args.images.len()
            );
        }
        let begun = Instant::now();
        let judged = match args.regions.read(&args.images)? {
            Some(rows) => vlm.judge(&rows.iter().collect::<Vec<_>>(), statement)?,
            None => {
                let images = regions::pictures(&args.images)?;
                vlm.judge(&images.iter().collect::<Vec<_>>(), statement)?
            }
        };
        let names: Vec<_> = args.images.iter().map(|n| n.to_string_lossy()).collect();
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let ms = milliseconds(begun.elapsed());
        let record = record(&vlm, statement, &names, &judged, ms);
        output.result(&record, &line(&record))?;
        return Ok(Outcome::Done);
    }
    args.regions.each(
        &args.images,
        &vlm,
        common,
        |image| vlm.judge(&[image], statement),
        |regions| vlm.judge(&[regions], statement),
        |done| {
            let names = [done.image];
            let record = record(&vlm, statement, &names, &done.result, done.ms);
            output.result(&record, &done.line(&line(&record)))
        },
    )
}
