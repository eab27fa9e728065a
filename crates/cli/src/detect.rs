//! `vlm detect`

use crate::drawn::Drawn;
use crate::models::ModelArg;
use crate::output::{Output, complain, rounded};
use crate::{Common, Outcome, input};
use clap::Args;
use serde::Serialize;
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use vlm_data::datasets::region_features::ImageRegions;
use vlm_data::files::write_atomically;
use vlm_models::capability::DetectOptions;
use vlm_tasks::annotate::annotated;

/// Find objects in pictures: where they are, and what
#[derive(Args)]
#[command(after_help = "\
The model is a detector: torchvision's fasterrcnn_resnet50_fpn, or VinVL's. Its classes and attributes are called as \
labels.txt and attributes.txt in its directory name them, one a line. The built-in model finds no objects.

With --json each line has image, boxes (x1, y1, x2, y2 in pixels), scores, classes, labels (numbers of the classes), \
attributes (of each box, name and score), picture (the annotated one, null without --out), model and ms.

A row of --features has the name of the picture's file, its size, and of each region box, class, score, attributes and \
features, as VinVL's predictions.tsv.

Exit codes: 0 done; 1 some pictures failed, the others are done; 2 wrong usage or unusable model.

Example:
  vlm detect photos/*.jpg --model fasterrcnn --threshold 0.5 --out annotated
  vlm detect photos/*.jpg --model vinvl --features regions.tsv")]
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
    /// Write the regions to this file, with their features (vinvl), for models that read them: --regions of vlm caption,
    /// data.regions of vlm train
    #[arg(long, value_name = "TSV")]
    features: Option<PathBuf>,
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

/// The rows of a file of regions so far.
#[derive(Default)]
struct Rows {
    names: HashSet<String>,
}

impl Rows {
    /// The row of a picture, by the name of its file, which is that of no other.
    fn row(&mut self, image: &str, regions: &ImageRegions) -> Result<String, String> {
        let name = Path::new(image).file_name();
        let name = name.map_or(image.to_owned(), |name| name.to_string_lossy().into_owned());
        if !self.names.insert(name.clone()) {
            return Err(format!(
                "{image}: --features: expected pictures of different names, found a second {name}"
            ));
        }
        let regions = ImageRegions {
            image: name,
            ..regions.clone()
        };
        regions
            .to_row()
            .map_err(|error| format!("{image}: {error}"))
    }
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
    if args.features.is_some() {
        vlm.gives_regions()?;
    }
    let mut output = Output::new(common.json);
    let mut unwritten = 0;
    let mut rows = Rows::default();
    let mut each = |mut file: Option<&mut dyn Write>| {
        input::each_picture(
            &args.images,
            vlm.name(),
            common,
            |image| {
                let (objects, regions) = match args.features {
                    None => (vlm.detect(image, &options)?, None),
                    Some(_) => {
                        let (objects, regions) = vlm.regions("", image, &options)?;
                        (objects, Some(regions))
                    }
                };
                let drawn = args.out.is_some().then(|| annotated(image, &objects));
                Ok((objects, regions, drawn))
            },
            |done| {
                let (objects, regions, drawn) = &done.result;
                if let (Some(file), Some(regions)) = (&mut file, regions) {
                    match rows.row(done.image, regions) {
                        Ok(row) => writeln!(file, "{row}")?,
                        Err(message) => {
                            complain(format_args!("{message}"));
                            unwritten += 1;
                        }
                    }
                }
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
        )
    };
    let outcome = match &args.features {
        None => each(None)?,
        Some(path) => {
            let mut outcome = Outcome::Done;
            write_atomically(path, |file| {
                outcome = each(Some(file)).map_err(std::io::Error::other)?;
                Ok(())
            })?;
            outcome
        }
    };
    Ok(match outcome {
        Outcome::Done if unwritten > 0 => Outcome::SomeInputsFailed,
        outcome => outcome,
    })
}
