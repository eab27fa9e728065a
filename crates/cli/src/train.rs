//! `vlm train`

use crate::output::{Output, complain};
use crate::{Common, Outcome};
use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vlm_train::progress::format_duration;
use vlm_train::{Ended, Options, Recipe};

/// Train a model by a recipe
#[derive(Args)]
#[command(after_help = "\
The directory receives recipe.toml, log.jsonl, loss.svg, checkpoints/ and, at the end, model/, which every command \
takes as --model. Ctrl-C ends the run after the current step with a checkpoint; a second Ctrl-C ends it at once.

With --json the line on stdout has model, ended (finished or interrupted), step, parameters, seconds, plot and log.

Exit codes: 0 done; 2 wrong usage, a bad recipe, or a file that cannot be written; 130 interrupted, with a checkpoint.

Example:
  vlm train recipes/vlm-tiny.toml
  vlm train recipes/vlm-tiny.toml --resume")]
pub struct TrainArgs {
    /// The recipe
    recipe: PathBuf,
    /// Directory of the run [default: runs/NAME, with the recipe's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the newest checkpoint of the run
    #[arg(long)]
    resume: bool,
}

#[derive(Serialize)]
struct Record {
    model: String,
    ended: &'static str,
    step: u64,
    parameters: usize,
    seconds: f64,
    plot: String,
    log: String,
}

pub fn run(args: &TrainArgs, common: &Common) -> anyhow::Result<Outcome> {
    let recipe = Recipe::read(&args.recipe)?;
    let directory = match &args.out {
        Some(directory) => directory.clone(),
        None => Path::new("runs").join(recipe.name()),
    };
    let options = Options {
        directory: directory.clone(),
        resume: args.resume,
        quiet: common.quiet,
    };
    let outcome = vlm_train::train(recipe, &options, &*stop_on_ctrl_c()?)?;

    let record = Record {
        model: outcome.model.display().to_string(),
        ended: match outcome.ended {
            Ended::Finished => "finished",
            Ended::Interrupted => "interrupted",
        },
        step: outcome.step,
        parameters: outcome.parameters,
        seconds: (outcome.seconds * 10.0).round() / 10.0,
        plot: directory.join("loss.svg").display().to_string(),
        log: directory.join("log.jsonl").display().to_string(),
    };
    let what = match outcome.ended {
        Ended::Finished => "model",
        Ended::Interrupted => "checkpoint",
    };
    let text = format!(
        "{what}  {}\nplot   {}\nlog    {}\nsteps  {}, {:.1} M parameters, {}",
        record.model,
        record.plot,
        record.log,
        record.step,
        record.parameters as f64 / 1e6,
        format_duration(Duration::from_secs_f64(outcome.seconds)),
    );
    Output::new(common.json).result(&record, &text)?;
    if outcome.ended == Ended::Finished {
        return Ok(Outcome::Done);
    }
    if !common.quiet {
        let mut command = format!("vlm train {} --resume", args.recipe.display());
        if let Some(out) = &args.out {
            command += &format!(" --out {}", out.display());
        }
        complain(format_args!("interrupted; go on with: {command}"));
    }
    Ok(Outcome::Interrupted)
}

/// A flag that the first Ctrl-C sets; the second ends the program.
pub fn stop_on_ctrl_c() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        complain(format_args!(
            "ending after this step; once more to end at once"
        ));
    })
    .map_err(|e| anyhow!("Ctrl-C: cannot be caught: {e}"))?;
    Ok(stop)
}
