//! `vlm eval statements`

use super::set::SetArgs;
use super::{Results, finish, percent};
use crate::models::ModelArg;
use crate::output::complain;
use crate::regions::RegionArgs;
use crate::world::progress_bar;
use crate::{Common, Outcome};
use anyhow::{anyhow, bail};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use vlm_tasks::Shown;
use vlm_tasks::metrics::{Bootstrap, answers_match};
use vlm_tasks::table::Table;

/// How often statements about pictures are rightly called true or false
#[derive(Args)]
#[command(after_help = "\
The data are a directory or tar with examples.jsonl, as Cornell NLVR is. A model that judges statements (ALBEF for \
NLVR2) reads as many pictures of a scene as it takes; any other is asked the statement and must answer true or false. \
The interval is drawn over sentences, as the scenes of one sentence are alike.

With --json the line on stdout has task, n, accuracy, ci95 (the 95 % interval), majority (the share of the more \
frequent truth), failed, model and data.

Exit codes: 0 done; 1 some pictures failed, the others are measured; 2 wrong usage, unusable model or data.

Example:
  vlm eval statements --data nlvr-dev.tar --model runs/nlvr/model")]
pub struct StatementsArgs {
    /// Directory or tar with examples.jsonl
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Also write what the model said to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Ask about so many pictures of each scene, which Cornell NLVR has in six orders of its boxes, and take what is said
    /// most often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = votes)]
    votes: usize,
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    regions: RegionArgs,
}

fn votes(text: &str) -> Result<usize, String> {
    let votes = text.parse().ok().filter(|votes| (1..=64).contains(votes));
    votes.ok_or_else(|| "expected 1 to 64".to_owned())
}

/// What stands there most often, the first of those that are as often there.
fn commonest(answers: &[String]) -> &str {
    let count = |answer: &String| answers.iter().filter(|other| *other == answer).count();
    let best = answers.iter().rev().max_by_key(|answer| count(answer));
    best.map_or("", String::as_str)
}

pub fn run(args: &StatementsArgs, common: &Common) -> anyhow::Result<Outcome> {
    let chosen = args.set.open(&args.data)?;
    let chosen =
        chosen.ok_or_else(|| anyhow!("{}: expected a set with statements", args.data.display()))?;
    let regions = args.regions.files()?;
    args.set.check_regions(regions.as_ref())?;
    let vlm = args.regions.complete(args.model.load(common)?)?;
    let judges = vlm.model().judge_text().is_ok();
    let count = match judges {
        true => vlm.pictures_per_statement()?,
        false => 1,
    };
    let bar = progress_bar(chosen.len() as u64, "statements", common.quiet);
    // of each sentence: right answers and scenes
    let mut sentences: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
    let (mut predictions, mut truths, mut failed) = (Vec::new(), 0, 0);
    for i in 0..chosen.len() {
        bar.set_position(i as u64);
        let record = chosen.record(i);
        let Some(statement) = &record.statement else {
            continue;
        };
        let mut answers: Vec<String> = Vec::new();
        for first in 0..args.votes {
            let images = match chosen.shown(i, first, count, regions.as_ref()) {
                Ok(images) => images,
                Err(error) => {
                    complain(format_args!("{error}"));
                    failed += 1;
                    break;
                }
            };
            let images: Vec<&Shown> = images.iter().collect();
            answers.push(if judges {
                vlm.holds_true(&images, &statement.text)?.to_string()
            } else {
                let answers = vlm.answer(&images, &[(0, &statement.text)])?;
                answers.into_iter().next().map_or(String::new(), |a| a.text)
            });
        }
        if answers.len() < args.votes {
            continue;
        }
        let said = commonest(&answers);
        let correct = answers_match(said, &statement.truth.to_string());
        truths += usize::from(statement.truth);
        let sums = sentences.entry(&record.group).or_default();
        sums[0] += f64::from(u8::from(correct));
        sums[1] += 1.0;
        predictions.push(json!({
            "image": chosen.name(i),
            "statement": statement.text,
            "answer": said,
            "expected": statement.truth,
            "correct": correct,
        }));
    }
    bar.finish_and_clear();
    let n = predictions.len();
    if n == 0 {
        bail!("{}: expected statements, found none", args.data.display());
    }
    let sums: Vec<[f64; 2]> = sentences.into_values().collect();
    let accuracy = Bootstrap::default().of_sums(&sums, |s| *s, |[right, all]| right / all);
    let accuracy = accuracy.ok_or_else(|| anyhow!("{}: no scores", args.data.display()))?;
    let share = truths as f64 / n as f64;
    let majority = share.max(1.0 - share);
    let mut table = Table::new(["score", "value", "95 % interval"]);
    table.row(["statements", &n.to_string(), ""]);
    let [value, interval] = percent(accuracy);
    table.row(["accuracy", &value, &interval]);
    table.row(["majority", &format!("{:.1} %", 100.0 * majority), ""]);
    let results = Results {
        record: json!({
            "task": "statements",
            "n": n,
            "accuracy": accuracy.estimate,
            "ci95": [accuracy.low, accuracy.high],
            "majority": majority,
        }),
        table,
        predictions,
    };
    finish(results, failed, &args.data, &args.out, &vlm, common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_most_often_is_said_and_the_first_of_equals() {
        for (votes, expected) in [
            ("true", "true"),
            ("true false", "true"),
            ("false true true", "true"),
            ("no true false true no", "no"),
            ("a b c", "a"),
        ] {
            let votes: Vec<String> = votes.split(' ').map(str::to_owned).collect();
            assert_eq!(commonest(&votes), expected, "{votes:?}");
        }
    }
}
