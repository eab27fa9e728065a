//! What the runs say together: a table, a plot and a record.

use super::TreeArgs;
use super::runs::{Experiment, Measured, RunResult};
use super::scores::Scores;
use anyhow::anyhow;
use serde_json::{Map, Value, json};
use std::path::Path;
use vlm_tasks::metrics::Interval;
use vlm_tasks::table::Table;
use vlm_train::plot::{Comparison, ComparisonColumn, ComparisonRow};

/// A recipe with its runs.
pub struct Compared {
    name: String,
    group: String,
    runs: Vec<RunResult>,
}

/// What is put out.
pub struct Written {
    pub table: Table,
    pub record: Value,
}

/// One of [`Scores`].
#[derive(Clone, Copy)]
struct Score {
    key: &'static str,
    title: &'static str,
    of: fn(&Scores) -> Option<f64>,
    /// Whether 1 is written as 100.
    percent: bool,
    /// Whether it is a column of the table for the compositional split too.
    both: bool,
    /// Its title in the plot, if it is there.
    plotted: Option<&'static str>,
}

const SCORES: [Score; 8] = [
    Score {
        key: "r1",
        title: "R@1",
        of: |s| s.r1,
        percent: true,
        both: true,
        plotted: Some("retrieval R@1"),
    },
    Score {
        key: "r5",
        title: "R@5",
        of: |s| s.r5,
        percent: true,
        both: false,
        plotted: None,
    },
    Score {
        key: "r10",
        title: "R@10",
        of: |s| s.r10,
        percent: true,
        both: false,
        plotted: None,
    },
    Score {
        key: "zero_shot",
        title: "zero-shot",
        of: |s| s.zero_shot,
        percent: true,
        both: true,
        plotted: Some("zero-shot accuracy"),
    },
    Score {
        key: "bleu4",
        title: "",
        of: |s| s.bleu4,
        percent: false,
        both: false,
        plotted: None,
    },
    Score {
        key: "cider_d",
        title: "CIDEr-D",
        of: |s| s.cider_d,
        percent: false,
        both: false,
        plotted: None,
    },
    Score {
        key: "fact_f1",
        title: "fact F1",
        of: |s| s.fact_f1,
        percent: true,
        both: true,
        plotted: Some("fact F1 of captions"),
    },
    Score {
        key: "vqa",
        title: "VQA",
        of: |s| s.vqa,
        percent: true,
        both: true,
        plotted: Some("VQA accuracy"),
    },
];

type ScoresOf = fn(&Measured) -> Option<&Scores>;
const SPLITS: [(&str, ScoresOf); 2] = [
    ("test", |m| Some(&m.test)),
    ("compositional", |m| m.compositional.as_ref()),
];

impl Compared {
    pub fn new(experiment: &Experiment, runs: Vec<RunResult>) -> Self {
        Self {
            name: experiment.name.clone(),
            group: experiment.group.clone(),
            runs,
        }
    }

    /// A score of each run that has it.
    fn values(&self, score: &Score, split: ScoresOf) -> Vec<f64> {
        let measured = self.runs.iter().filter_map(|run| run.measured.as_ref());
        measured
            .filter_map(|m| split(m).and_then(score.of))
            .collect()
    }

    fn of(&self, number: impl Fn(&RunResult) -> f64) -> Vec<f64> {
        self.runs.iter().map(number).collect()
    }

    fn parameters(&self) -> usize {
        self.runs[0].parameters
    }

    fn seconds(&self) -> Vec<f64> {
        self.of(|run| run.seconds)
    }

    fn pictures_per_second(&self) -> Vec<f64> {
        self.of(|run| run.pictures_seen as f64 / run.seconds.max(1e-9))
    }

    /// The name without what the group says already.
    fn short_name(&self) -> &str {
        let rest = self.name.strip_prefix(&self.group);
        rest.and_then(|rest| rest.strip_prefix('-'))
            .filter(|rest| !rest.is_empty())
            .unwrap_or(&self.name)
    }
}

/// Mean and half the interval as a cell; empty where there is nothing.
fn cell(values: &[f64], factor: f64, digits: usize) -> String {
    let Some(interval) = Interval::of_runs(values) else {
        return String::new();
    };
    let mean = factor * interval.estimate;
    if values.len() < 2 {
        return format!("{mean:.digits$}");
    }
    let half = factor * (interval.high - interval.estimate);
    format!("{mean:.digits$} ± {half:.digits$}")
}

fn mean(values: &[f64]) -> f64 {
    Interval::of_runs(values).map_or(0.0, |interval| interval.estimate)
}

fn digits_of(score: &Score) -> (f64, usize) {
    if score.percent { (100.0, 1) } else { (1.0, 2) }
}

fn millions(count: usize) -> String {
    format!("{:.2} M", count as f64 / 1e6)
}

/// Whether any model has the score.
fn is_known(compared: &[Compared], score: &Score, split: ScoresOf) -> bool {
    compared
        .iter()
        .any(|model| !model.values(score, split).is_empty())
}

fn table(compared: &[Compared]) -> Table {
    let columns: Vec<(&Score, usize)> = (0..SPLITS.len())
        .flat_map(|split| SCORES.iter().map(move |score| (score, split)))
        .filter(|(score, split)| !score.title.is_empty() && (*split == 0 || score.both))
        .filter(|(score, split)| is_known(compared, score, SPLITS[*split].1))
        .collect();
    let titles = columns.iter().map(|(score, split)| match split {
        0 => score.title.to_owned(),
        _ => format!("comp. {}", score.title),
    });
    let more = ["parameters", "training s", "pictures/s"].map(str::to_owned);
    let header = std::iter::once("recipe".to_owned())
        .chain(titles)
        .chain(more);
    let mut table = Table::new(header);
    for model in compared {
        let cells = columns.iter().map(|(score, split)| {
            let (factor, digits) = digits_of(score);
            cell(&model.values(score, SPLITS[*split].1), factor, digits)
        });
        let more = [
            millions(model.parameters()),
            cell(&model.seconds(), 1.0, 1),
            cell(&model.pictures_per_second(), 1.0, 0),
        ];
        table.row(std::iter::once(model.name.clone()).chain(cells).chain(more));
    }
    table
}

fn plot(compared: &[Compared], args: &TreeArgs) -> Comparison {
    let of_scenes = args.data.is_none();
    let plotted: Vec<&Score> = SCORES
        .iter()
        .filter(|score| score.plotted.is_some() || (!of_scenes && score.key == "cider_d"))
        .filter(|score| is_known(compared, score, SPLITS[0].1))
        .collect();
    let columns = plotted.iter().map(|score| ComparisonColumn {
        title: score.plotted.unwrap_or(score.title).to_owned(),
        percent: score.percent,
    });
    let rows = compared.iter().map(|model| ComparisonRow {
        name: model.short_name().to_owned(),
        group: model.group.clone(),
        scores: plotted
            .iter()
            .map(|score| SPLITS.map(|(_, split)| Interval::of_runs(&model.values(score, split))))
            .collect(),
        facts: vec![
            millions(model.parameters()),
            format!("{:.0} s", mean(&model.seconds())),
        ],
    });
    let seen = compared
        .iter()
        .flat_map(|m| &m.runs)
        .map(|r| r.pictures_seen);
    let (least, most) = (seen.clone().min(), seen.max());
    let seen = match (least, most) {
        (Some(least), Some(most)) if least != most => format!("{least} to {most}"),
        _ => most.unwrap_or(0).to_string(),
    };
    let note = match args.seeds {
        1 => "one seed".to_owned(),
        n => format!("lines: 95 % interval over {n} seeds"),
    };
    Comparison {
        title: match of_scenes {
            true => format!("The tree compared: {seen} scenes seen by each model"),
            false => format!("The tree compared: {seen} pictures seen by each model"),
        },
        sets: match of_scenes {
            true => vec!["test split".to_owned(), "compositional split".to_owned()],
            false => vec!["not learned from".to_owned()],
        },
        note,
        columns: columns.collect(),
        facts: ["parameters", "training"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}

fn statistics(values: &[f64]) -> Value {
    Interval::of_runs(values).map_or(Value::Null, |interval| {
        json!({
            "mean": interval.estimate,
            "ci95": [interval.low, interval.high],
            "values": values,
        })
    })
}

fn record_of(model: &Compared) -> Value {
    let mut scores = Map::new();
    let mut measured = model.runs.iter().filter_map(|run| run.measured.as_ref());
    let of_scenes = measured.all(|m| m.compositional.is_some());
    for (name, split) in SPLITS.into_iter().take(if of_scenes { 2 } else { 1 }) {
        let of_split = SCORES.iter().map(|score| {
            let values = model.values(score, split);
            (score.key.to_owned(), statistics(&values))
        });
        scores.insert(name.to_owned(), Value::Object(of_split.collect()));
    }
    json!({
        "recipe": model.name,
        "group": model.group,
        "family": model.runs[0].family,
        "runs": model.runs.len(),
        "parameters": model.parameters(),
        "seconds": statistics(&model.seconds()),
        "pictures_per_second": statistics(&model.pictures_per_second()),
        "scores": scores,
    })
}

/// Writes table and plot into a directory.
pub fn write(
    compared: &[Compared],
    args: &TreeArgs,
    out: &Path,
    failed: usize,
) -> anyhow::Result<Written> {
    std::fs::create_dir_all(out)
        .map_err(|e| anyhow!("{}: cannot be created: {e}", out.display()))?;
    let (table, plot) = (table(compared), plot(compared, args));
    let files = ["tree.md", "tree.svg", "tree.png"].map(|name| out.join(name));
    let contents = [
        table.markdown().into_bytes(),
        plot.to_svg().into_bytes(),
        plot.to_png(),
    ];
    for (path, bytes) in files.iter().zip(contents) {
        vlm_data::files::write_atomically(path, |w| w.write_all(&bytes))?;
    }
    let [md, svg, png] = files.map(|path| path.display().to_string());
    let models: Vec<Value> = compared.iter().map(record_of).collect();
    let record = json!({
        "task": "tree",
        "seeds": args.seeds,
        "pictures": args.pictures,
        "data": args.data.as_ref().map(|path| path.display().to_string()),
        "models": models,
        "failed": failed,
        "table": md,
        "svg": svg,
        "png": png,
    });
    Ok(Written { table, record })
}
