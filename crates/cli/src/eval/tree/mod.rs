//! `vlm eval tree`

mod report;
mod runs;
mod scores;

use self::report::Compared;
use self::runs::{Experiment, Run};
use self::scores::Exhibition;
use super::set::{Chosen, SetArgs};
use crate::output::{Output, complain};
use crate::precision::{PrecisionArg, set_precision};
use crate::train::stop_on_ctrl_c;
use crate::{Common, Outcome};
use anyhow::{anyhow, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use vlm_train::{Recipe, Scenes, SetData};

/// Train and measure one model for each of some recipes, and put them beside each other
#[derive(Args)]
#[command(after_help = "\
Every recipe learns from rendered scenes of the same size and difficulty (data.world = \"shapes\"), or from the same \
part of the same data sets. Each is run with several seeds, which move both of its own, in RUNS/RECIPE/seed-N, by the \
name of its file; what a run has done is not done again, so that the command goes on after Ctrl-C. A model is measured in \
whatever it can do, on new scenes of the world's test split and of its compositional one, whose pairs of attributes it \
has never seen together, or on --data, none of which it may have learned from. Where data.detector names a recipe, that \
detector is trained first, once, in RUNS by the name of its file:

  R@K        share of pictures and of captions that are found among the K best by the other, mean of both directions
  zero-shot  accuracy of colour and shape of a single object, or of a set's labels, among all of them
  CIDEr-D    of captions, 0 to 10
  fact F1    what captions of scenes say against what is there
  VQA        accuracy of answers, or of what is said to be true or false

Each is a mean over the seeds with its 95 % interval by Student's t. The table is also written to OUT/tree.md, the plot \
to OUT/tree.svg and OUT/tree.png. The part of a recipe's file name before the first - is the group that it is plotted \
with.

With --json the line on stdout has task, seeds, pictures, data, models (recipe, group, family, runs, parameters, seconds and \
pictures_per_second of training, and scores: test and, of scenes, compositional with r1, r5, r10, zero_shot, bleu4, cider_d, fact_f1 \
and vqa, each with mean, ci95 and values), failed, table, svg and png.

Exit codes: 0 done; 1 some runs failed, the others are compared; 2 wrong usage or unusable recipes; 130 interrupted.

Example:
  vlm eval tree --seeds 3
  vlm eval tree --recipes recipes/tree --runs runs/tree --out docs
  vlm eval tree --recipes recipes/tree-easy-vqa --data easy-vqa.tar --part test")]
pub struct TreeArgs {
    /// Directory of recipes, *.toml
    #[arg(long, value_name = "DIR", default_value = "recipes/tree")]
    recipes: PathBuf,
    /// Directory of the runs
    #[arg(long, value_name = "DIR", default_value = "runs/tree")]
    runs: PathBuf,
    /// Runs of each recipe
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
    /// A data set to measure on, for recipes that learn from sets
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    #[command(flatten)]
    set: SetArgs,
    /// Pictures of each split, or of the data, that are measured on
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pictures: u32,
    /// Directory for tree.md, tree.svg and tree.png [default: that of the runs]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// More runs of a recipe than anyone has time for.
const MOST_SEEDS: u64 = 1000;

pub fn run(args: &TreeArgs, common: &Common) -> anyhow::Result<Outcome> {
    if !(1..=MOST_SEEDS).contains(&args.seeds) {
        bail!("--seeds: expected 1 to {MOST_SEEDS}, found {}", args.seeds);
    }
    let mut experiments = experiments(&args.recipes)?;
    set_precision(PrecisionArg::Auto, common);
    let exhibition = exhibition(args, &experiments)?;
    let stop = stop_on_ctrl_c()?;
    let total = experiments.len() as u64 * args.seeds;
    let (mut done, mut failed) = (0, 0);
    let mut compared = Vec::new();
    for experiment in &mut experiments {
        let name = experiment.name.clone();
        let tell = |what: &str| {
            if !common.quiet {
                complain(format_args!("note: {name}: {what}"));
            }
        };
        match runs::prepare(experiment, &args.runs, &stop, common.quiet, tell) {
            Ok(true) => {}
            Ok(false) => return Ok(interrupted()),
            Err(error) => {
                complain(format_args!("{name}: {error}"));
                done += args.seeds;
                failed += args.seeds as usize;
                continue;
            }
        }
        let mut runs = Vec::new();
        for seed in 1..=args.seeds {
            done += 1;
            let run = Run::new(experiment, seed, &args.runs);
            let tell = |what: &str| {
                if !common.quiet {
                    let name = &experiment.name;
                    complain(format_args!(
                        "note: {name}, seed {seed} (run {done} of {total}): {what}"
                    ));
                }
            };
            match run.finished(&exhibition, &stop, common.quiet, tell) {
                Ok(Some(result)) => runs.push(result),
                Ok(None) => return Ok(interrupted()),
                // one broken run does not stop the others
                Err(error) => {
                    complain(format_args!("{error}"));
                    failed += 1;
                }
            }
        }
        if !runs.is_empty() {
            compared.push(Compared::new(experiment, runs));
        }
    }
    if compared.is_empty() {
        bail!(
            "{}: expected at least one run that can be measured, found none of {total}",
            args.runs.display()
        );
    }
    let out = args.out.as_ref().unwrap_or(&args.runs);
    let written = report::write(&compared, args, out, failed)?;
    let mut output = Output::new(common.json);
    let text = written.table.render(output.is_terminal());
    output.result(&written.record, &text)?;
    Ok(match failed {
        0 => Outcome::Done,
        _ => Outcome::SomeInputsFailed,
    })
}

fn interrupted() -> Outcome {
    complain(format_args!(
        "interrupted; the same command goes on from here"
    ));
    Outcome::Interrupted
}

/// What recipes that can be compared have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Learned<'a> {
    Scenes(Scenes),
    /// Paths, part, held-out share and its seed.
    Sets(&'a [PathBuf], Option<&'a str>, Option<f64>, u64),
}

impl<'a> Learned<'a> {
    fn of(recipe: &'a Recipe) -> Self {
        match (recipe.scenes(), recipe) {
            (Some(scenes), _) => Self::Scenes(scenes),
            (None, Recipe::Set(set)) => {
                let d = &set.data;
                Self::Sets(&d.sets, d.part.as_deref(), d.held_out, d.split_seed)
            }
            (None, Recipe::Shapes(_)) => unreachable!("they are of scenes"),
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Scenes(s) => format!(
                "scenes of size {} and difficulty {:?}",
                s.size, s.difficulty
            ),
            Self::Sets(paths, part, held_out, seed) => {
                let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
                let part = part.unwrap_or("any");
                let held_out =
                    held_out.map_or("none".to_owned(), |s| format!("{s} by seed {seed}"));
                format!("{}, part {part}, held out {held_out}", paths.join(", "))
            }
        }
    }
}

/// What the models are measured on.
fn exhibition(args: &TreeArgs, experiments: &[Experiment]) -> anyhow::Result<Exhibition> {
    let (first, pictures) = (&experiments[0], args.pictures as usize);
    match (Learned::of(&first.recipe), &args.data) {
        (Learned::Scenes(scenes), None) => {
            if args.set.is_given() {
                bail!("--part, --held-out and --style: expected --data beside them, found none");
            }
            Exhibition::of_scenes(scenes, pictures)
        }
        (Learned::Scenes(_), Some(data)) => bail!(
            "--data: expected none for {}, which learns from rendered scenes, found {}",
            first.name,
            data.display()
        ),
        (Learned::Sets(..), None) => bail!(
            "--data: expected what is measured on, as {} learns from a data set; found none",
            first.name
        ),
        (Learned::Sets(..), Some(data)) => {
            let chosen = args.set.chosen(data)?;
            for (name, learned) in learned_from(experiments) {
                check_apart(args, data, &chosen, &name, &learned)?;
            }
            let source = format!("{}{}", data.display(), args.set.describe());
            Exhibition::of_set(&chosen, source, pictures)
        }
    }
}

/// The data sets that the models learn from, themselves or through their detectors, each with a recipe that names it. One
/// that cannot be read is reported when it is to be run.
fn learned_from(experiments: &[Experiment]) -> Vec<(String, SetData)> {
    let mut found = Vec::new();
    for experiment in experiments {
        let Recipe::Set(recipe) = &experiment.recipe else {
            continue;
        };
        found.push((experiment.name.clone(), recipe.data.clone()));
        if let Some(path) = runs::detector_recipe(recipe)
            && let Ok(Recipe::Set(detector)) = Recipe::read(&path)
        {
            found.push((path.display().to_string(), detector.data));
        }
    }
    found
}

/// Refuses to measure on what the recipe `name` learns from.
fn check_apart(
    args: &TreeArgs,
    data: &Path,
    chosen: &Chosen,
    name: &str,
    learned: &SetData,
) -> anyhow::Result<()> {
    let records = chosen.set().records();
    let has_parts = records.iter().any(|record| !record.part.is_empty());
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let same = learned.sets.iter().any(|set| real(set) == real(data));
    if same && !args.set.is_apart_from(learned, has_parts) {
        let expected = match learned.held_out {
            Some(share) => format!("--held-out {share} --split-seed {}", learned.split_seed),
            None => "--part with another part than it learns from".to_owned(),
        };
        bail!(
            "{}: expected {expected}, as {name} learns from this set, found {}",
            data.display(),
            match args.set.is_given() {
                true => args.set.describe().trim_start_matches(", ").to_owned(),
                false => "neither".to_owned(),
            }
        );
    }
    Ok(())
}

/// The recipes of a directory in the order of their names, all of which learn from the same.
fn experiments(directory: &Path) -> anyhow::Result<Vec<Experiment>> {
    let unreadable = |e: std::io::Error| anyhow!("{}: cannot read: {e}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!(
            "{}: expected recipes (*.toml), found none",
            directory.display()
        );
    }
    let mut found = Vec::<Experiment>::new();
    for path in files {
        let recipe = Recipe::read(&path)?;
        let learned = Learned::of(&recipe);
        if let Some(first) = found.first()
            && Learned::of(&first.recipe) != learned
        {
            bail!(
                "{}: data: expected that of {}, {}, found {}",
                path.display(),
                first.name,
                Learned::of(&first.recipe).describe(),
                learned.describe()
            );
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let group = name.split('-').next().unwrap_or_default().to_owned();
        found.push(Experiment {
            name: name.into_owned(),
            recipe,
            group,
        });
    }
    Ok(found)
}
