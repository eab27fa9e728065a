//! `vlm detect`

use crate::drawn::Drawn;
use crate::models::ModelArg;
use crate::output::{Output, complain, rounded};
use crate::{Common, Outcome, input};
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;
use vlm_models::capability::DetectOptions;
use vlm_tasks::annotate::annotated;

/// Find objects in pictures: where they are, and what
#[derive(Args)]
#[command(after_help = "\
The model is a detector: torchvision's fasterrcnn_resnet50_fpn, or VinVL's. Its classes and attributes are called as \
labels.txt and attributes.txt in its directory name them, one a line. The built-in model finds no objects.

With --json each line has image, boxes (x1, y1, x2, y2 in pixels), scores, classes, labels (numbers of the classes), \
attributes (of each box, name and score), picture (the annotated one, null without --out), model and ms.

Exit codes: 0 done; 1 some pictures failed, the others are done; 2 wrong usage or unusable model.

Example:
  vlm detect photos/*.jpg --model fasterrcnn --threshold 0.5 --out annotated")]
pub struct DetectArgs {
    /// Pictures: files, directories, patterns, or - for stdin
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<OsString>,
    /// Least probability of an object; the model's own if not given
    #[arg(long, value_name = "P", value_parser = probability)]
    threshold: Option<f32>,
    /// Most objects of a picture; the model's own number if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max: Option<u32>,
    /// Write pictures with the objects drawn on them to this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArg,
}

fn probability(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

#[derive(Serialize)]
struct Record<'a> {
    image: &'a str,
    boxes: Vec<[f64; 4]>,
    scores: Vec<f64>,
    classes: Vec<&'a str>,
    labels: Vec<usize>,
    attributes: Vec<Vec<Attribute<'a>>>,
    picture: Option<String>,
    model: &'a str,
    ms: f64,
}

#[derive(Serialize)]
struct Attribute<'a> {
    name: &'a str,
    score: f64,
}

/// Pixels to a hundredth.
fn pixels(corners: [f32; 4]) -> [f64; 4] {
    corners.map(|c| (f64::from(c) * 100.0).round() / 100.0)
}

pub fn run(args: &DetectArgs, common: &Common) -> anyhow::Result<Outcome> {
    let vlm = args.model.load(common)?;
    vlm.model().detect()?;
    vlm.processor()?;
    let options = DetectOptions {
        threshold: args.threshold,
        most: args.max.map(|n| n as usize),
    };
    let mut pictures = match &args.out {
        None => None,
        Some(directory) => Some(Drawn::to("--out", directory)?),
    };
    let mut output = Output::new(common.json);
    let mut unwritten = 0;
    let outcome = input::each_picture(
        &args.images,
        vlm.name(),
        common,
        |image| {
            let objects = vlm.detect(image, &options)?;
            let drawn = args.out.is_some().then(|| annotated(image, &objects));
            Ok((objects, drawn))
        },
        |done| {
            let (objects, drawn) = &done.result;
            let written = match (&mut pictures, drawn) {
                (Some(pictures), Some(drawn)) => match pictures.write(done.image, drawn) {
                    Ok(path) => Some(path.display().to_string()),
                    Err(error) => {
                        complain(format_args!("{}: {error}", done.image));
                        unwritten += 1;
                        None
                    }
                },
                _ => None,
            };
            let attributes = |o: &vlm_tasks::detection::Object| -> String {
                let names = o.attributes.iter().map(|(name, _)| format!("{name} "));
                names.collect()
            };
            let lines: Vec<String> = objects
                .iter()
                .map(|o| {
                    let [x1, y1, x2, y2] = o.corners;
                    format!(
                        "{}{} {:.1} % at {x1:.0},{y1:.0} to {x2:.0},{y2:.0}",
                        attributes(o),
                        o.class,
                        100.0 * o.score
                    )
                })
                .collect();
            let text = if lines.is_empty() {
                "nothing found".to_owned()
            } else {
                lines.join("; ")
            };
            let record = Record {
                image: done.image,
                boxes: objects.iter().map(|o| pixels(o.corners)).collect(),
                scores: objects.iter().map(|o| rounded(o.score)).collect(),
                classes: objects.iter().map(|o| o.class.as_str()).collect(),
                labels: objects.iter().map(|o| o.label).collect(),
                attributes: objects
                    .iter()
                    .map(|o| {
                        let each = o.attributes.iter();
                        each.map(|(name, score)| Attribute {
                            name,
                            score: rounded(*score),
                        })
                        .collect()
                    })
                    .collect(),
                picture: written,
                model: vlm.name(),
                ms: done.ms,
            };
            output.result(&record, &done.line(&text))
        },
    )?;
    Ok(match outcome {
        Outcome::Done if unwritten > 0 => Outcome::SomeInputsFailed,
        outcome => outcome,
    })
}
