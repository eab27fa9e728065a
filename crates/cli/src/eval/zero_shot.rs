//! `vlm eval zero-shot`

use super::set::{Chosen, SetArgs};
use super::{Results, embed_pictures, finish, percent};
use crate::input::pictures_in;
use crate::models::ModelArg;
use crate::output::complain;
use crate::{Common, Outcome};
use anyhow::{anyhow, bail};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vlm_data::datasets::items;
use vlm_tasks::metrics::{Bootstrap, score_classification};
use vlm_tasks::table::Table;

/// Accuracy of labels that no one trained for
#[derive(Args)]
#[command(after_help = "\
The data are a directory with a directory of pictures for each class, whose name is the label, one with items.jsonl, \
whose records have `label` or, as those of `vlm world`, a single object, or a directory or tar with labels.jsonl, \
whose records have `label` or a `class_id` of the German traffic signs.

With --json the line on stdout has task, n, classes, top1, top1_ci95 (the 95 % interval), top5, top5_ci95, \
mean_per_class, failed, model and data.

Exit codes: 0 done; 1 some pictures failed, the others are measured; 2 wrong usage, unusable model or data.

Example:
  vlm eval zero-shot --data pets --model clip-vit-base-patch32 --template 'a photo of a {}, a type of pet.'")]
pub struct ZeroShotArgs {
    /// Directory of pictures by class, or a data set with labels
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    /// Labels to use instead of the names of the classes, one a line, in the order of those names
    #[arg(long, value_name = "FILE")]
    labels_file: Option<PathBuf>,
    /// A sentence with {} for the label, several for their mean; the family's usual one if not given
    #[arg(long, value_name = "TEXT")]
    template: Vec<String>,
    /// Also write what the model said to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArg,
}

/// Pictures by the name of their class, in the order of names.
type Classes = BTreeMap<String, Vec<PathBuf>>;

pub fn run(args: &ZeroShotArgs, common: &Common) -> anyhow::Result<Outcome> {
    let chosen = args.set.open(&args.data)?;
    let (classes, mut failed) = match &chosen {
        Some(chosen) => (of_set(chosen), 0),
        None if args.data.join(items::FILE_NAME).is_file() => from_items(&args.data, common)?,
        None => from_directories(&args.data)?,
    };
    if classes.is_empty() {
        bail!(
            "{}: expected pictures with labels, found none",
            args.data.display()
        );
    }
    let labels = labels(args, &classes)?;
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let own = chosen.as_ref().map_or(&[][..], |c| c.set().templates());
    let templates: Vec<&str> = match args.template.is_empty() {
        true => own.to_vec(),
        false => args.template.iter().map(String::as_str).collect(),
    };
    let vlm = args.model.load(common)?;
    vlm.model().embed_image()?;
    vlm.model().embed_text()?;
    vlm.processor()?;
    let candidates = vlm.labels(&labels, &templates)?;

    let pictures: Vec<(&Path, usize)> = classes
        .values()
        .enumerate()
        .flat_map(|(class, files)| files.iter().map(move |f| (f.as_path(), class)))
        .collect();
    let files: Vec<&Path> = pictures.iter().map(|(file, _)| *file).collect();
    let (read, vectors) = match &chosen {
        // in the order of the records, and each class's place is looked up below
        Some(chosen) => embed_pictures(&vlm, chosen, common)?,
        None => embed_pictures(&vlm, &files[..], common)?,
    };
    failed += match &chosen {
        Some(chosen) => chosen.len() - read.len(),
        None => files.len() - read.len(),
    };
    let place = |label: &str| classes.keys().position(|known| known == label);
    if read.is_empty() {
        complain(format_args!(
            "{}: expected at least one readable picture, found none",
            args.data.display()
        ));
        return Ok(Outcome::SomeInputsFailed);
    }
    let mut predictions = Vec::with_capacity(read.len());
    let mut scored = Vec::with_capacity(read.len());
    for (&at, vector) in read.iter().zip(&vectors) {
        let (file, class) = match &chosen {
            Some(chosen) => {
                let label = chosen.record(at).label.as_deref();
                let Some(class) = label.and_then(place) else {
                    continue;
                };
                (chosen.name(at), class)
            }
            None => (pictures[at].0.display().to_string(), pictures[at].1),
        };
        let cosines = candidates.cosines(vector);
        let best = (0..labels.len())
            .max_by(|&a, &b| cosines[a].total_cmp(&cosines[b]))
            .expect("at least one label");
        predictions.push(json!({
            "image": file,
            "label": labels[best],
            "probability": candidates.probabilities(&cosines)[best],
            "expected": labels[class],
            "correct": best == class,
        }));
        scored.push((cosines, class));
    }
    let scores = score_classification(&scored, &Bootstrap::default())?;
    let mut table = Table::new(["score", "value", "95 % interval"]);
    table.row(["pictures", &scores.n.to_string()]);
    table.row(["classes", &labels.len().to_string()]);
    for (name, share) in [("top-1", scores.top1), ("top-5", scores.top5)] {
        let [share, interval] = percent(share);
        table.row([name, &share, &interval]);
    }
    let mean = format!("{:.1} %", 100.0 * scores.mean_per_class);
    table.row(["mean per class", &mean]);
    let results = Results {
        record: json!({
            "task": "zero-shot",
            "n": scores.n,
            "classes": labels.len(),
            "top1": scores.top1.estimate,
            "top1_ci95": [scores.top1.low, scores.top1.high],
            "top5": scores.top5.estimate,
            "top5_ci95": [scores.top5.low, scores.top5.high],
            "mean_per_class": scores.mean_per_class,
        }),
        table,
        predictions,
    };
    finish(results, failed, &args.data, &args.out, &vlm, common)
}

/// The names of the classes as words, or what a file has in their place.
fn labels(args: &ZeroShotArgs, classes: &Classes) -> anyhow::Result<Vec<String>> {
    let Some(path) = &args.labels_file else {
        return Ok(classes.keys().map(|name| name.replace('_', " ")).collect());
    };
    let text = std::fs::read_to_string(path)
        .map_err(|e| anyhow!("{}: cannot read: {e}", path.display()))?;
    let labels: Vec<String> = text
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    if labels.len() != classes.len() {
        bail!(
            "{}: expected {} labels, one for each class, found {}",
            path.display(),
            classes.len(),
            labels.len()
        );
    }
    Ok(labels)
}

/// The labels of a set; its pictures are not files.
fn of_set(chosen: &Chosen) -> Classes {
    let labels = chosen.set().labels().into_iter();
    labels.map(|l| (l.to_owned(), Vec::new())).collect()
}

fn from_directories(data: &Path) -> anyhow::Result<(Classes, usize)> {
    let failed = |e: std::io::Error| anyhow!("{}: cannot read: {e}", data.display());
    let mut classes = Classes::new();
    for entry in std::fs::read_dir(data).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            continue;
        };
        // what has no pictures is no class
        if path.is_dir()
            && let Ok(pictures) = pictures_in(&path)
        {
            classes.insert(name.to_owned(), pictures);
        }
    }
    Ok((classes, 0))
}

fn from_items(data: &Path, common: &Common) -> anyhow::Result<(Classes, usize)> {
    let (mut classes, mut failed, mut left_out) = (Classes::new(), 0, 0);
    for item in items::open(data)? {
        match item {
            Err(error) => {
                complain(format_args!("{error}"));
                failed += 1;
            }
            Ok(item) => match label_of(&item.extra) {
                Some(label) => classes.entry(label).or_default().push(item.image),
                None => left_out += 1,
            },
        }
    }
    if left_out > 0 && !common.quiet {
        complain(format_args!(
            "note: {}: {left_out} items without a label or a single object are left out",
            data.display()
        ));
    }
    Ok((classes, failed))
}

/// The label that a record has, or the only object of its scene.
fn label_of(record: &serde_json::Map<String, Value>) -> Option<String> {
    if let Some(label) = record.get("label").and_then(Value::as_str) {
        return Some(label.to_owned());
    }
    let [object] = record.get("objects")?.as_array()?.as_slice() else {
        return None;
    };
    let word = |key: &str| object.get(key).and_then(Value::as_str);
    Some(format!("{} {}", word("colour")?, word("shape")?))
}
