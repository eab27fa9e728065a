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
use vlm_tasks::detection::{attribute_truths, located, located_attributes, truths};
use vlm_tasks::metrics::{DetectionScores, LocatedPicture, score_detections};
use vlm_tasks::table::Table;

/// Average precision of a detector, as COCO measures it
#[derive(Args)]
#[command(after_help = "\
The data are a directory with items.jsonl whose records have `objects` with a `box` (x1, y1, x2, y2 in pixels) and a \
`class`, or those of `vlm world shapes`. Objects are matched by the names of their classes. AP is the mean over overlaps \
from 0.5 to 0.95, AP@0.5 counts every overlap from 0.5 on, both over the classes that occur. Of the records' \
`attributes` those that the detector tells are measured likewise: an attribute is found where the box of an \
object that has it is, whatever the object was taken for.

With --json the line on stdout has task, n (pictures), ap50, ap, by_class (n, ap50 and ap of each class), attributes (n, \
ap50, ap and by_attribute, where they are measured), failed, model and data.

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

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The rows of some classes or attributes in a table, the last for all, and what `--json` says of each.
fn rows(table: &mut Table, names: &[String], scores: &DetectionScores) -> Map<String, Value> {
    let mut each = Map::new();
    for (name, class) in names.iter().zip(&scores.by_class) {
        let cell = |share: Option<f64>| share.map_or(String::new(), percent);
        table.row([
            name,
            &class.n.to_string(),
            &cell(class.ap50),
            &cell(class.ap),
        ]);
        let entry = json!({"n": class.n, "ap50": class.ap50, "ap": class.ap});
        each.insert(name.clone(), entry);
    }
    table.row([
        "all",
        &in_all(scores).to_string(),
        &percent(scores.ap50),
        &percent(scores.ap),
    ]);
    each
}

/// Objects, or attributes of objects, that were to be found.
fn in_all(scores: &DetectionScores) -> usize {
    scores.by_class.iter().map(|c| c.n).sum()
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
    let told = (1..detector.num_attributes()).map(|i| vlm.class_names().attribute(i));
    let told: BTreeSet<String> = told.collect();
    let records = (0..chosen.len()).flat_map(|i| &chosen.record(i).objects);
    let attributes: BTreeSet<String> = records.flat_map(|o| o.attributes.clone()).collect();
    let attributes: Vec<String> = attributes.intersection(&told).cloned().collect();
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
    let (mut pictures, mut described) = (Vec::new(), Vec::new());
    let (mut predictions, mut failed) = (Vec::new(), 0);
    for i in 0..chosen.len() {
        let measured = (|| -> anyhow::Result<([LocatedPicture; 2], Value)> {
            let image = chosen.picture(i)?;
            let known = &chosen.record(i).objects;
            check_boxes(known, &image)
                .map_err(|reason| anyhow::anyhow!("{}: {reason}", chosen.name(i)))?;
            let objects = vlm.detect(&image, &options)?;
            let of_classes = LocatedPicture {
                truths: truths(known, &classes),
                found: located(&objects, &classes),
            };
            let of_attributes = LocatedPicture {
                truths: attribute_truths(known, &attributes),
                found: located_attributes(&objects, &attributes),
            };
            let each = objects.iter().map(|o| {
                let mut line = json!({"class": o.class, "score": o.score, "box": o.corners});
                if !told.is_empty() {
                    let names = o.attributes.iter().map(|(name, _)| name);
                    line["attributes"] = names.cloned().collect::<Vec<_>>().into();
                }
                line
            });
            let line = json!({"image": chosen.name(i), "objects": each.collect::<Vec<_>>()});
            Ok(([of_classes, of_attributes], line))
        })();
        match measured {
            Ok(([of_classes, of_attributes], line)) => {
                pictures.push(of_classes);
                described.push(of_attributes);
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
    let first = match attributes.is_empty() {
        true => "class",
        false => "class, attribute",
    };
    let mut table = Table::new([first, "objects", "AP@0.5", "AP"]);
    let by_class = rows(&mut table, &classes, &scores);
    let mut record = json!({
        "task": "detect",
        "n": scores.n,
        "ap50": scores.ap50,
        "ap": scores.ap,
        "by_class": by_class,
    });
    if !attributes.is_empty() {
        let scores = score_detections(&described, attributes.len())?;
        table.row(["", "", "", ""]);
        let by_attribute = rows(&mut table, &attributes, &scores);
        record["attributes"] = json!({
            "n": in_all(&scores),
            "ap50": scores.ap50,
            "ap": scores.ap,
            "by_attribute": by_attribute,
        });
    }
    let results = Results {
        record,
        table,
        predictions,
    };
    finish(results, failed, &args.data, &args.out, &vlm, common)
}
