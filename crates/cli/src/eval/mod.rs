//! `vlm eval`

mod detect;
mod retrieval;
mod set;
mod statements;
mod tree;
mod zero_shot;

use self::set::{Chosen, SetArgs, shown};
use crate::models::ModelArg;
use crate::output::{Output, complain};
use crate::regions::RegionArgs;
use crate::world::progress_bar;
use crate::{Common, Outcome};
use anyhow::bail;
use clap::{Args, Subcommand};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vlm_data::datasets::items::{self, Item, QuestionAnswer};
use vlm_data::image::{self, Image, Limits};
use vlm_tasks::evaluate::{CaptionReport, Question, Sample, VqaReport};
use vlm_tasks::metrics::{Interval, answers_match};
use vlm_tasks::table::Table;
use vlm_tasks::{CaptionOptions, RegionFiles, Shown, Vlm};
use vlm_worlds::shapes::{Background, Object, RelationFact, Scene};

/// Measure a model on data with known answers
#[derive(Args)]
#[command(after_help = "\
Example:
  vlm world shapes --split test --count 500 --seed 7 --out data/test
  vlm eval vqa --data data/test")]
pub struct EvalArgs {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// BLEU, ROUGE-L and CIDEr-D of captions, and their facts against the truth where the data have it
    #[command(after_help = "\
With --json the line on stdout has task, n, bleu1 to bleu4, rouge_l, cider_d (0 to 10), fact_precision, fact_recall \
and fact_f1 (null where the data have no ground truth), each fact score with its 95 % interval as fact_f1_ci95 and \
so on, failed, model and data.

Exit codes: 0 done; 1 some pictures or records failed, the others are measured; 2 wrong usage, unusable model or data.

Example:
  vlm eval caption --data data/test")]
    Caption(DataArgs),
    /// Accuracy of answers, overall and by type of question
    #[command(after_help = "\
With --json the line on stdout has task, n, accuracy, ci95 (the 95 % interval), by_type (n, accuracy and ci95 of \
each type of question), failed, model and data.

Exit codes: 0 done; 1 some pictures or records failed, the others are measured; 2 wrong usage, unusable model or data.

Example:
  vlm eval vqa --data data/test --out answers.jsonl")]
    Vqa(DataArgs),
    Statements(statements::StatementsArgs),
    ZeroShot(zero_shot::ZeroShotArgs),
    Retrieval(retrieval::RetrievalArgs),
    Detect(detect::DetectArgs),
    Tree(tree::TreeArgs),
}

#[derive(Args)]
struct DataArgs {
    /// Directory with items.jsonl and its pictures, as `vlm world` writes them, or any data set that `vlm train` knows
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    /// Also write what the model said to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    regions: RegionArgs,
}

pub fn run(args: &EvalArgs, common: &Common) -> anyhow::Result<Outcome> {
    match &args.task {
        Task::Caption(args) => run_generated(args, Generated::Captions, common),
        Task::Vqa(args) => run_generated(args, Generated::Answers, common),
        Task::Statements(args) => statements::run(args, common),
        Task::ZeroShot(args) => zero_shot::run(args, common),
        Task::Retrieval(args) => retrieval::run(args, common),
        Task::Detect(args) => detect::run(args, common),
        Task::Tree(args) => tree::run(args, common),
    }
}

/// What a model writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Generated {
    Captions,
    Answers,
}

fn run_generated(args: &DataArgs, what: Generated, common: &Common) -> anyhow::Result<Outcome> {
    let wanted = match what {
        Generated::Captions => "captions",
        Generated::Answers => "questions",
    };
    let has = |captions: &[String], qa: &[QuestionAnswer]| match what {
        Generated::Captions => !captions.is_empty(),
        Generated::Answers => !qa.is_empty(),
    };
    let regions = args.regions.files()?;
    args.set.check_regions(regions.as_ref())?;
    let mut data = match args.set.open(&args.data)? {
        Some(chosen) => Data::of_set(chosen, has),
        None => Data::open(&args.data, |item| has(&item.captions, &item.qa))?,
    };
    data.regions = regions;
    if data.left() == 0 && data.failed == 0 {
        bail!(
            "{}: expected items with {wanted}, found none",
            match args.data.is_dir() {
                true => args.data.join(items::FILE_NAME),
                false => args.data.clone(),
            }
            .display()
        );
    }
    if data.left_out > 0 && !common.quiet {
        complain(format_args!(
            "note: {}: {} items without {wanted} are left out",
            args.data.display(),
            data.left_out
        ));
    }
    let vlm = args.regions.complete(args.model.load(common)?)?;
    let bar = progress_bar(data.left() as u64, "pictures", common.quiet);
    let advance = |done: usize| bar.set_position(done as u64);
    let evaluated = match what {
        Generated::Captions => vlm
            .evaluate_captions(&mut data, &CaptionOptions::default(), advance)
            .map(|report| caption_results(&report, &data.done)),
        Generated::Answers => vlm
            .evaluate_vqa(&mut data, advance)
            .map(|report| vqa_results(&report, &data.done)),
    };
    bar.finish_and_clear();
    if data.done.is_empty() {
        complain(format_args!(
            "{}: expected at least one readable item, found none",
            args.data.display()
        ));
        return Ok(Outcome::SomeInputsFailed);
    }
    finish(evaluated?, data.failed, &args.data, &args.out, &vlm, common)
}

/// Puts the results out.
fn finish(
    mut results: Results,
    failed: usize,
    data: &Path,
    out: &Option<PathBuf>,
    vlm: &Vlm,
    common: &Common,
) -> anyhow::Result<Outcome> {
    if let Some(path) = out {
        vlm_data::files::write_atomically(path, |w| {
            let mut lines = results.predictions.iter();
            lines.try_for_each(|line| writeln!(w, "{line}"))
        })?;
    }
    results.record["failed"] = json!(failed);
    results.record["model"] = json!(vlm.name());
    results.record["data"] = json!(data.display().to_string());
    let mut output = Output::new(common.json);
    let text = results.table.render(output.is_terminal());
    output.result(&results.record, &text)?;
    Ok(if failed == 0 {
        Outcome::Done
    } else {
        Outcome::SomeInputsFailed
    })
}

/// Pictures that go through the model at once.
const BATCH: usize = 16;

/// Pictures by their place, with their names for messages.
trait PicturesByPlace: Sync {
    fn count(&self) -> usize;
    fn name(&self, i: usize) -> String;
    fn read(&self, i: usize) -> Result<Image, vlm_data::Error>;
}

impl PicturesByPlace for [&Path] {
    fn count(&self) -> usize {
        self.len()
    }
    fn name(&self, i: usize) -> String {
        self[i].display().to_string()
    }
    fn read(&self, i: usize) -> Result<Image, vlm_data::Error> {
        image::read(self[i], &Limits::default())
    }
}

impl PicturesByPlace for Chosen {
    fn count(&self) -> usize {
        self.len()
    }
    fn name(&self, i: usize) -> String {
        Self::name(self, i)
    }
    fn read(&self, i: usize) -> Result<Image, vlm_data::Error> {
        self.picture(i)
    }
}

/// A unit vector for each picture that can be read; the others are complained about. Tells the places of those that
/// could.
fn embed_pictures<P: PicturesByPlace + ?Sized>(
    vlm: &Vlm,
    pictures: &P,
    common: &Common,
) -> anyhow::Result<(Vec<usize>, Vec<Vec<f32>>)> {
    let bar = progress_bar(pictures.count() as u64, "pictures", common.quiet);
    let (mut read, mut vectors) = (Vec::new(), Vec::new());
    let places: Vec<usize> = (0..pictures.count()).collect();
    for batch in places.chunks(BATCH) {
        let images: Vec<_> = batch.par_iter().map(|&i| pictures.read(i)).collect();
        let mut good: Vec<(usize, &Image)> = Vec::new();
        for (&i, image) in batch.iter().zip(&images) {
            match image {
                Ok(image) => good.push((i, image)),
                Err(error) => complain(format_args!("{error}")),
            }
        }
        let together: Vec<&Image> = good.iter().map(|(_, image)| *image).collect();
        match vlm.embed_images(&together) {
            Ok(found) => {
                vectors.extend(found);
                read.extend(good.iter().map(|(at, _)| *at));
            }
            // one that cannot be prepared does not stop the others
            Err(_) => {
                for (at, image) in good {
                    match vlm.embed_images(&[image]) {
                        Ok(found) => {
                            vectors.extend(found);
                            read.push(at);
                        }
                        Err(error) => complain(format_args!("{}: {error}", pictures.name(at))),
                    }
                }
            }
        }
        bar.set_position(batch.last().map_or(0, |last| *last as u64 + 1));
    }
    bar.finish_and_clear();
    Ok((read, vectors))
}

/// What a picture of a data set is called there, and so in files of regions.
fn row_name(picture: &Path, data: &Path) -> String {
    let name = picture.strip_prefix(data).unwrap_or(picture);
    name.to_string_lossy().into_owned()
}

/// A share and its interval as cells of a table.
fn percent(share: Interval) -> [String; 2] {
    let number = |share: f64| format!("{:.1}", 100.0 * share);
    [
        format!("{} %", number(share.estimate)),
        format!("{} to {} %", number(share.low), number(share.high)),
    ]
}

/// A sample, or why there is none.
type Loaded = Result<Sample<Shown>, String>;

/// The items of a directory as samples, loaded one after another. What fails is complained about and counted.
struct Data {
    directory: PathBuf,
    items: std::vec::IntoIter<Item>,
    /// What was found in the pictures before, for a model that reads it in their place.
    regions: Option<RegionFiles>,
    /// Records of a set in place of items, and the places of those that are left.
    set: Option<(Chosen, std::vec::IntoIter<usize>)>,
    left_out: usize,
    failed: usize,
    /// The samples given so far: each picture with its questions.
    done: Vec<(String, Vec<QuestionAnswer>)>,
    limits: Limits,
}

impl Data {
    /// Reads the records that `has` what is to be measured.
    fn open(directory: &Path, has: impl Fn(&Item) -> bool) -> anyhow::Result<Self> {
        let (mut items, mut left_out, mut failed) = (Vec::new(), 0, 0);
        for item in items::open(directory)? {
            match item {
                Ok(item) if has(&item) => items.push(item),
                Ok(_) => left_out += 1,
                Err(error) => {
                    complain(format_args!("{error}"));
                    failed += 1;
                }
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            items: items.into_iter(),
            regions: None,
            set: None,
            left_out,
            failed,
            done: Vec::new(),
            limits: Limits::default(),
        })
    }

    /// The records of a set that `has` what is to be measured.
    fn of_set(chosen: Chosen, has: impl Fn(&[String], &[QuestionAnswer]) -> bool) -> Self {
        let places = 0..chosen.len();
        let useful = |&i: &usize| has(&chosen.record(i).captions, &chosen.questions(i));
        let places: Vec<usize> = places.filter(useful).collect();
        Self {
            directory: PathBuf::new(),
            items: Vec::new().into_iter(),
            regions: None,
            left_out: chosen.len() - places.len(),
            set: Some((chosen, places.into_iter())),
            failed: 0,
            done: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// How many are left.
    fn left(&self) -> usize {
        let of_set = self.set.as_ref().map_or(0, |(_, places)| places.len());
        self.items.len() + of_set
    }

    /// The next record of a set, its name, and what is asked about it.
    fn next_of_set(&mut self) -> Option<(String, Vec<QuestionAnswer>, Loaded)> {
        let (chosen, places) = self.set.as_mut()?;
        let i = places.next()?;
        let asked = chosen.questions(i);
        let shown = chosen.shown(i, 0, 1, self.regions.as_ref());
        let sample = shown.map_err(|e| e.to_string());
        let sample = sample.map(|mut images| Sample {
            image: images.remove(0),
            captions: chosen.record(i).captions.clone(),
            questions: asked.iter().cloned().map(question).collect(),
            scene: None,
        });
        Some((chosen.name(i), asked, sample))
    }

    fn load(&self, item: Item) -> Loaded {
        let image = image::read(&item.image, &self.limits).map_err(|e| e.to_string())?;
        let name = row_name(&item.image, &self.directory);
        let image = shown(image, &name, self.regions.as_ref()).map_err(|e| e.to_string())?;
        let questions = item.qa.into_iter().map(question);
        // records of a world say what the picture shows
        let scene = match item.extra.contains_key("objects") {
            true => {
                let scene: SceneFields = serde_json::from_value(Value::Object(item.extra))
                    .map_err(|e| format!("{}: scene: {e}", item.image.display()))?;
                Some(scene.into())
            }
            false => None,
        };
        Ok(Sample {
            image,
            captions: item.captions,
            questions: questions.collect(),
            scene,
        })
    }
}

fn question(qa: QuestionAnswer) -> Question {
    Question {
        question: qa.question,
        answer: qa.answer,
        kind: qa.kind,
    }
}

impl Iterator for Data {
    type Item = Sample<Shown>;

    fn next(&mut self) -> Option<Sample<Shown>> {
        loop {
            let (name, asked, sample) = match self.next_of_set() {
                Some(next) => next,
                None => {
                    let item = self.items.next()?;
                    let seen = (item.image.display().to_string(), item.qa.clone());
                    (seen.0, seen.1, self.load(item))
                }
            };
            match sample {
                Ok(sample) => {
                    self.done.push((name, asked));
                    return Some(sample);
                }
                Err(message) => {
                    complain(format_args!("{message}"));
                    self.failed += 1;
                }
            }
        }
    }
}

/// The truth of a record of a world.
#[derive(Deserialize)]
struct SceneFields {
    background: Background,
    objects: Vec<Object>,
    relations: Vec<RelationFact>,
}

impl From<SceneFields> for Scene {
    fn from(fields: SceneFields) -> Self {
        Self {
            background: fields.background,
            objects: fields.objects,
            relations: fields.relations,
        }
    }
}

/// What an evaluation puts out.
struct Results {
    record: Value,
    table: Table,
    predictions: Vec<Value>,
}

fn caption_results(report: &CaptionReport, done: &[(String, Vec<QuestionAnswer>)]) -> Results {
    let text = &report.text;
    let scores = [
        ("bleu1", text.bleu[0]),
        ("bleu2", text.bleu[1]),
        ("bleu3", text.bleu[2]),
        ("bleu4", text.bleu[3]),
        ("rouge_l", text.rouge_l),
        ("cider_d", text.cider_d),
    ];
    let facts = report.facts.as_ref();
    let facts = [
        ("fact_precision", facts.map(|f| f.precision)),
        ("fact_recall", facts.map(|f| f.recall)),
        ("fact_f1", facts.map(|f| f.f1)),
    ];
    let mut record = json!({"task": "caption", "n": report.n});
    let mut table = Table::new(["score", "value", "95 % interval"]);
    table.row(["pictures", &report.n.to_string(), ""]);
    for (name, score) in scores {
        record[name] = json!(score);
        table.row([name, &format!("{score:.4}"), ""]);
    }
    for (name, score) in facts {
        record[name] = json!(score.map(|s| s.estimate));
        record[format!("{name}_ci95")] = json!(score.map(|s| [s.low, s.high]));
        if let Some(s) = score {
            let interval = format!("{:.4} to {:.4}", s.low, s.high);
            table.row([name, &format!("{:.4}", s.estimate), &interval]);
        }
    }
    let lines = done.iter().zip(&report.captions);
    Results {
        record,
        table,
        predictions: lines
            .map(|((image, _), caption)| json!({"image": image, "caption": caption}))
            .collect(),
    }
}

fn vqa_results(report: &VqaReport, done: &[(String, Vec<QuestionAnswer>)]) -> Results {
    let scores = &report.scores;
    let mut table = Table::new(["questions", "n", "accuracy", "95 % interval"]);
    let mut row = |name: &str, n: usize, a: Interval| {
        let [share, interval] = percent(a);
        table.row([name, &n.to_string(), &share, &interval]);
    };
    let mut by_type = serde_json::Map::new();
    for (kind, score) in &scores.by_type {
        let a = score.accuracy;
        let name = if kind.is_empty() { "(no type)" } else { kind };
        row(name, score.n, a);
        let entry = json!({"n": score.n, "accuracy": a.estimate, "ci95": [a.low, a.high]});
        by_type.insert(kind.clone(), entry);
    }
    row("all", scores.n, scores.accuracy);
    let all = scores.accuracy;
    let record = json!({
        "task": "vqa",
        "n": scores.n,
        "accuracy": all.estimate,
        "ci95": [all.low, all.high],
        "by_type": by_type,
    });
    let asked = done
        .iter()
        .flat_map(|(image, questions)| questions.iter().map(move |q| (image, q)));
    Results {
        record,
        table,
        predictions: asked
            .zip(&report.answers)
            .map(|((image, asked), given)| {
                json!({
                    "image": image,
                    "question": asked.question,
                    "type": asked.kind,
                    "answer": given.answer,
                    "expected": asked.answer,
                    "correct": answers_match(&given.answer, &asked.answer),
                })
            })
            .collect(),
    }
}
