//! `vlm eval retrieval`

use super::set::{Chosen, SetArgs, shown};
use super::{PicturesByPlace, Results, embed_pictures, finish, percent, row_name};
use crate::models::ModelArg;
use crate::output::complain;
use crate::regions::RegionArgs;
use crate::world::progress_bar;
use crate::{Common, Outcome};
use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use vlm_data::datasets::items::{self, Item};
use vlm_tasks::metrics::{Bootstrap, RetrievalScores, score_retrieval};
use vlm_tasks::similarity::dot;
use vlm_tasks::table::Table;

/// How well pictures are found by their captions, and captions by their pictures
#[derive(Args)]
#[command(after_help = "\
A caption that several pictures have belongs to each of them. A model that reads regions has no vectors to compare: it \
looks at every picture with every caption, which takes as many passes as there are pairs.

With --json the line on stdout has task, images, texts, text_to_image and image_to_text (each with r1, r5 and r10, their \
95 % intervals r1_ci95 and so on, and median_rank), failed, model and data.

Exit codes: 0 done; 1 some pictures or records failed, the others are measured; 2 wrong usage, unusable model or data.

Example:
  vlm world shapes --split test --count 500 --seed 7 --out data/test
  vlm eval retrieval --data data/test")]
pub struct RetrievalArgs {
    /// Directory with items.jsonl and its pictures, as `vlm world` writes them, or a data set with captions
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    /// Only the first caption of each picture
    #[arg(long)]
    first_caption: bool,
    /// Also write what was found for each query to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    regions: RegionArgs,
}

/// What is written of each query.
const BEST: usize = 10;

pub fn run(args: &RetrievalArgs, common: &Common) -> anyhow::Result<Outcome> {
    let (mut records, mut failed): (Vec<Item>, usize) = (Vec::new(), 0);
    let chosen = args.set.open(&args.data)?;
    for i in 0..chosen.as_ref().map_or(0, Chosen::len) {
        let Some(chosen) = &chosen else { break };
        // one for each record of the set, in their order
        records.push(Item {
            objects: Vec::new(),
            size: None,
            image: chosen.name(i).into(),
            captions: chosen.record(i).captions.clone(),
            qa: Vec::new(),
            extra: serde_json::Map::new(),
        });
    }
    let of_directory = match &chosen {
        Some(_) => None,
        None => Some(items::open(&args.data)?),
    };
    for item in of_directory.into_iter().flatten() {
        match item {
            Ok(item) if item.captions.is_empty() => {}
            Ok(item) => records.push(item),
            Err(error) => {
                complain(format_args!("{error}"));
                failed += 1;
            }
        }
    }
    if records.iter().all(|r| r.captions.is_empty()) {
        let place = match args.data.is_dir() {
            true => args.data.join(items::FILE_NAME),
            false => args.data.clone(),
        };
        bail!(
            "{}: expected items with captions, found none",
            place.display()
        );
    }
    if args.first_caption {
        records.iter_mut().for_each(|r| r.captions.truncate(1));
    }
    let regions = args.regions.files()?;
    args.set.check_regions(regions.as_ref())?;
    let vlm = args.regions.complete(args.model.load(common)?)?;
    vlm.text()?;
    let files: Vec<&Path> = records.iter().map(|r| r.image.as_path()).collect();
    let load = |i: usize| {
        let image = match &chosen {
            Some(chosen) => chosen.picture(i),
            None => files[..].read(i),
        };
        shown(image?, &row_name(files[i], &args.data), regions.as_ref())
    };
    let matches = vlm.model().region_width().is_some();
    let (read, images) = if matches {
        vlm.model().score_pair()?;
        (readable(files.len(), load), Vec::new())
    } else {
        vlm.model().embed_image()?;
        vlm.model().embed_text()?;
        match &chosen {
            Some(chosen) => embed_pictures(&vlm, chosen, common)?,
            None => embed_pictures(&vlm, &files[..], common)?,
        }
    };
    failed += files.len() - read.len();
    if read.is_empty() {
        complain(format_args!(
            "{}: expected at least one readable item, found none",
            args.data.display()
        ));
        return Ok(Outcome::SomeInputsFailed);
    }
    // each text once, with the pictures that it belongs to
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut texts: Vec<&str> = Vec::new();
    let mut pairs: BTreeSet<(usize, usize)> = BTreeSet::new();
    for (image, &at) in read.iter().enumerate() {
        for caption in &records[at].captions {
            let text = *places.entry(caption).or_insert_with(|| {
                texts.push(caption);
                texts.len() - 1
            });
            pairs.insert((image, text));
        }
    }
    let scored = if matches {
        let bar = progress_bar(read.len() as u64, "pictures", common.quiet);
        let rows = read.iter().map(|&i| {
            bar.inc(1);
            Ok(vlm.matching_scores(&load(i)?, &texts)?)
        });
        Scored::Pairs(rows.collect::<anyhow::Result<_>>()?)
    } else {
        Scored::Vectors {
            images,
            texts: vlm.embed_texts(&texts)?,
        }
    };
    let names: Vec<String> = read
        .iter()
        .map(|&at| files[at].display().to_string())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();

    let mut predictions: Vec<Value> = Vec::new();
    let mut search = |score: &dyn Fn(usize, usize) -> f32,
                      (kind, asked): (&str, &[&str]),
                      found: &[&str],
                      belongs: &dyn Fn(usize, usize) -> bool| {
        let rows = (0..asked.len()).map(|i| {
            let scores: Vec<f32> = (0..found.len()).map(|other| score(i, other)).collect();
            if args.out.is_some() {
                let mut order: Vec<usize> = (0..scores.len()).collect();
                order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
                let best: Vec<&str> = order.iter().take(BEST).map(|&c| found[c]).collect();
                let first = order.first().is_some_and(|&c| belongs(i, c));
                predictions.push(json!({kind: asked[i], "found": best, "correct": first}));
            }
            scores
        });
        score_retrieval(rows, belongs, &Bootstrap::default())
    };
    let to_image = search(
        &|text, image| scored.of(image, text),
        ("text", &texts),
        &names,
        &|text, image| pairs.contains(&(image, text)),
    )?;
    let to_text = search(
        &|image, text| scored.of(image, text),
        ("image", &names),
        &texts,
        &|image, text| pairs.contains(&(image, text)),
    )?;

    let mut table = Table::new(["query", "score", "value", "95 % interval"]);
    for (direction, scores) in [("text", &to_image), ("image", &to_text)] {
        table.row([direction, "queries", &scores.n.to_string()]);
        for (name, share) in recalls(scores) {
            let [share, interval] = percent(share);
            table.row([direction, &format!("recall at {name}"), &share, &interval]);
        }
        table.row([direction, "median rank", &scores.median_rank.to_string()]);
    }
    let results = Results {
        record: json!({
            "task": "retrieval",
            "images": names.len(),
            "texts": texts.len(),
            "text_to_image": record(&to_image),
            "image_to_text": record(&to_text),
        }),
        table,
        predictions,
    };
    finish(results, failed, &args.data, &args.out, &vlm, common)
}

/// What pictures and texts are ordered by.
enum Scored {
    /// The product of unit vectors.
    Vectors {
        images: Vec<Vec<f32>>,
        texts: Vec<Vec<f32>>,
    },
    /// The probability that they belong together, a row for each picture.
    Pairs(Vec<Vec<f32>>),
}

impl Scored {
    fn of(&self, image: usize, text: usize) -> f32 {
        match self {
            Self::Vectors { images, texts } => dot(&images[image], &texts[text]),
            Self::Pairs(rows) => rows[image][text],
        }
    }
}

/// The places of what can be read; the rest is complained about.
fn readable<T>(count: usize, read: impl Fn(usize) -> Result<T, vlm_data::Error>) -> Vec<usize> {
    let good = |&i: &usize| match read(i) {
        Ok(_) => true,
        Err(error) => {
            complain(format_args!("{error}"));
            false
        }
    };
    (0..count).filter(good).collect()
}

fn recalls(scores: &RetrievalScores) -> [(u32, vlm_tasks::metrics::Interval); 3] {
    [
        (1, scores.recall_at_1),
        (5, scores.recall_at_5),
        (10, scores.recall_at_10),
    ]
}

fn record(scores: &RetrievalScores) -> Value {
    let mut record = json!({});
    for (k, share) in recalls(scores) {
        record[format!("r{k}")] = json!(share.estimate);
        record[format!("r{k}_ci95")] = json!([share.low, share.high]);
    }
    record["median_rank"] = json!(scores.median_rank);
    record
}
