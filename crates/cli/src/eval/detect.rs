//! `vlm eval detect`

use super::set::SetArgs;
use super::{Results, finish};
use crate::models::ModelArg;
use crate::output::complain;
use crate::world::progress_bar;
use crate::{Common, Outcome};
use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use vlm_data::datasets::BoxedObject;
use vlm_data::image::Image;
use vlm_models::capability::DetectOptions;
use vlm_tasks::detection::{located, truths};
use vlm_tasks::metrics::{LocatedPicture, score_detections};
use vlm_tasks::table::Table;

/// Average precision of a detector, as COCO measures it
#[derive(Args)]
#[command(after_help = "\
The data are a directory with items.jsonl whose records have `objects` with a `box` (x1, y1, x2, y2 in pixels) and a \
`class`, or those of `vlm world shapes`. Objects are matched by the names of their classes. AP is the mean over overlaps \
from 0.5 to 0.95, AP@0.5 counts every overlap from 0.5 on, both over the classes that occur.

With --json the line on stdout has task, n (pictures), ap50, ap, by_class (n, ap50 and ap of each class), failed, model \
and data.

Exit codes: 0 done; 1 some pictures failed, the others are measured; 2 wrong usage, unusable model or data.

Example:
  vlm eval detect --data data/test --model runs/detector-shapes/model")]
pub struct DetectArgs {
    /// Directory with items.jsonl and its pictures
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    /// Least probability of an object that counts
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    threshold: f32,
    /// Also write what was found to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArg,
}

/// Checks that every box has an area within the picture.
fn check_boxes(objects: &[BoxedObject], image: &Image) -> Result<(), String> {
    let (width, height) = (image.width() as f32, image.height() as f32);
    let wrong = objects.iter().enumerate().find(|(_, object)| {
        let [x1, y1, x2, y2] = object.corners;
        let ordered = x1 < x2 && y1 < y2;
        !(ordered && x1 >= 0.0 && y1 >= 0.0 && x2 <= width && y2 <= height)
    });
    match wrong {
        None => Ok(()),
        Some((i, object)) => Err(format!(
            "objects[{i}]: box: expected a box with an area within the picture of {width} x {height} pixels, \
             found {:?}",
            object.corners
        )),
    }
}

pub fn run(args: &DetectArgs, common: &Common) -> anyhow::Result<Outcome> {
    if !(0.0..=1.0).contains(&args.threshold) {
        bail!("--threshold: expected 0 to 1, found {}", args.threshold);
    }
    let chosen = args.set.chosen(&args.data)?;
    let places = 0..chosen.len();
    let names = places.flat_map(|i| chosen.record(i).objects.iter().map(|o| o.name.clone()));
    let classes: BTreeSet<String> = names.collect();
    let classes: Vec<String> = classes.into_iter().collect();
    if classes.is_empty() {
        bail!(
            "{}: expected records with objects that have a box, found none",
            args.data.display()
        );
    }
    let vlm = args.model.load(common)?;
    let detector = vlm.model().detect()?;
    let known = (1..detector.num_classes()).map(|i| vlm.class_names().class(i));
    let known: BTreeSet<String> = known.collect();
    let unknown: Vec<&str> = classes
        .iter()
        .filter(|c| !known.contains(*c))
        .map(String::as_str)
        .collect();
    if unknown.len() == classes.len() {
        let known: Vec<&str> = known.iter().map(String::as_str).take(8).collect();
        bail!(
            "{}: expected objects of the model's classes ({} ...), found {}",
            args.data.display(),
            known.join(", "),
            unknown.join(", ")
        );
    }
    if !unknown.is_empty() && !common.quiet {
        complain(format_args!(
            "note: {}: the model does not know {}",
            vlm.name(),
            unknown.join(", ")
        ));
    }
    let options = DetectOptions {
        threshold: Some(args.threshold),
        most: None,
    };
    let bar = progress_bar(chosen.len() as u64, "pictures", common.quiet);
    let (mut pictures, mut predictions, mut failed) = (Vec::new(), Vec::new(), 0);
    for i in 0..chosen.len() {
        let measured = (|| -> anyhow::Result<(LocatedPicture, Value)> {
            let image = chosen.picture(i)?;
            let known = &chosen.record(i).objects;
            check_boxes(known, &image)
                .map_err(|reason| anyhow::anyhow!("{}: {reason}", chosen.name(i)))?;
            let truths = truths(known, &classes);
            let objects = vlm.detect(&image, &options)?;
            let found = located(&objects, &classes);
            let each = objects
                .iter()
                .map(|o| json!({"class": o.class, "score": o.score, "box": o.corners}));
            let line = json!({"image": chosen.name(i), "objects": each.collect::<Vec<_>>()});
            Ok((LocatedPicture { truths, found }, line))
        })();
        match measured {
            Ok((picture, line)) => {
                pictures.push(picture);
                predictions.push(line);
            }
            Err(error) => {
                complain(format_args!("{error}"));
                failed += 1;
            }
        }
        bar.set_position(i as u64 + 1);
    }
    bar.finish_and_clear();
    if pictures.is_empty() {
        complain(format_args!(
            "{}: expected at least one readable picture, found none",
            args.data.display()
        ));
        return Ok(Outcome::SomeInputsFailed);
    }
    let scores = score_detections(&pictures, classes.len())?;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut table = Table::new(["class", "objects", "AP@0.5", "AP"]);
    let mut by_class = Map::new();
    for (name, class) in classes.iter().zip(&scores.by_class) {
        let cell = |share: Option<f64>| share.map_or(String::new(), percent);
        table.row([
            name,
            &class.n.to_string(),
            &cell(class.ap50),
            &cell(class.ap),
        ]);
        let entry = json!({"n": class.n, "ap50": class.ap50, "ap": class.ap});
        by_class.insert(name.clone(), entry);
    }
    let all: usize = scores.by_class.iter().map(|c| c.n).sum();
    table.row([
        "all",
        &all.to_string(),
        &percent(scores.ap50),
        &percent(scores.ap),
    ]);
    let results = Results {
        record: json!({
            "task": "detect",
            "n": scores.n,
            "ap50": scores.ap50,
            "ap": scores.ap,
            "by_class": by_class,
        }),
        table,
        predictions,
    };
    finish(results, failed, &args.data, &args.out, &vlm, common)
}
