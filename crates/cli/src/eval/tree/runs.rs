//! One run of one recipe: trained, measured, or read from what was done before.

use super::scores::{Exhibition, Scores};
use anyhow::{anyhow, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use vlm_tasks::Vlm;
use vlm_train::{Ended, Options, Recipe, SetRecipe};

/// A recipe that is compared with others.
pub struct Experiment {
    /// The name of its file, which may be the only thing besides one line that tells it from another.
    pub name: String,
    pub recipe: Recipe,
    /// What it is plotted with.
    pub group: String,
}

/// What is known of a finished run, in `result.json` of its directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunResult {
    /// The model's family.
    pub family: String,
    /// With those of the detector whose regions it reads.
    pub parameters: usize,
    /// Seconds of training.
    pub seconds: f64,
    /// Pictures that were learned from.
    pub pictures_seen: u64,
    /// Scores, where the model was measured already.
    pub measured: Option<Measured>,
}

/// Scores, and of how many pictures.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    pub pictures: usize,
    /// Where these come from, if they are not rendered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    pub test: Scores,
    /// Of rendered scenes, those of new pairs of attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compositional: Option<Scores>,
}

/// A recipe with a seed and its place.
pub struct Run {
    recipe: Recipe,
    directory: PathBuf,
}

const RESULT: &str = "result.json";

impl Run {
    /// Seeds count from 1, and the first is the recipe's own.
    pub fn new(experiment: &Experiment, seed: u64, runs: &Path) -> Self {
        Self {
            recipe: experiment.recipe.reseeded(seed - 1),
            directory: runs.join(&experiment.name).join(format!("seed-{seed}")),
        }
    }

    /// Where a run that was begun keeps its recipe, which has to be this one.
    fn begun(&self) -> anyhow::Result<PathBuf> {
        let begun = self.directory.join("recipe.toml");
        if begun.is_file() && Recipe::read(&begun)? != self.recipe {
            bail!(
                "{}: expected the recipe that is compared, found another, which the run was begun with",
                begun.display()
            );
        }
        Ok(begun)
    }

    /// The result, after whatever is still to be done for it; none if `stop` came before the end of the training.
    pub fn finished(
        &self,
        exhibition: &Exhibition,
        stop: &AtomicBool,
        quiet: bool,
        tell: impl Fn(&str),
    ) -> anyhow::Result<Option<RunResult>> {
        let begun = self.begun()?;
        let mut result = match self.read()? {
            Some(result) => result,
            None => {
                tell("training");
                match self.trained(&begun, stop, quiet)? {
                    Some(result) => result,
                    None => return Ok(None),
                }
            }
        };
        let measured = result.measured.as_ref();
        let there =
            |m: &Measured| m.pictures == exhibition.pictures() && m.source == exhibition.source;
        if !measured.is_some_and(there) {
            tell("measuring");
            let model = self.directory.join("model");
            let vlm = match self.detector()? {
                Some(detector) => Vlm::load(&model)?.with_detector(detector)?,
                None => Vlm::load(&model)?,
            };
            vlm.model().family().clone_into(&mut result.family);
            result.measured = Some(Measured {
                pictures: exhibition.pictures(),
                source: exhibition.source.clone(),
                test: exhibition.test.scores(&vlm)?,
                compositional: match &exhibition.compositional {
                    Some(exhibits) => Some(exhibits.scores(&vlm)?),
                    None => None,
                },
            });
            self.write(&result)?;
        }
        Ok(Some(result))
    }

    /// What finds the regions that the model reads.
    fn detector(&self) -> anyhow::Result<Option<Vlm>> {
        let Recipe::Set(recipe) = &self.recipe else {
            return Ok(None);
        };
        let detector = recipe.data.detector.as_deref();
        Ok(detector.map(Vlm::load).transpose()?)
    }

    /// Trains from the beginning, or from where an earlier training ended.
    fn trained(
        &self,
        begun: &Path,
        stop: &AtomicBool,
        quiet: bool,
    ) -> anyhow::Result<Option<RunResult>> {
        let resume = has_checkpoint(&self.directory);
        if !resume && begun.is_file() {
            // it ended before its first checkpoint, and nothing but its claim on the directory is left
            std::fs::remove_file(begun)
                .map_err(|e| anyhow!("{}: cannot be removed: {e}", begun.display()))?;
        }
        let options = Options {
            directory: self.directory.clone(),
            resume,
            quiet,
        };
        let outcome = vlm_train::train(self.recipe.clone(), &options, stop)?;
        if outcome.ended == Ended::Interrupted {
            return Ok(None);
        }
        let t = self.recipe.train();
        let of_detector = self.detector()?.map_or(0, |d| d.model().parameters());
        let result = RunResult {
            family: String::new(),
            parameters: outcome.parameters + of_detector,
            seconds: outcome.seconds,
            pictures_seen: outcome.step * (t.batch_size * t.accumulate) as u64,
            measured: None,
        };
        self.write(&result)?;
        Ok(Some(result))
    }

    fn read(&self) -> anyhow::Result<Option<RunResult>> {
        let path = self.directory.join(RESULT);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|e| anyhow!("{}: cannot be read: {e}", path.display()))?;
        let result = serde_json::from_str(&text);
        result.map(Some).map_err(|e| {
            anyhow!(
                "{}: expected the result of a run, found {e}; without the file it is measured anew",
                path.display()
            )
        })
    }

    fn write(&self, result: &RunResult) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(result)?;
        let path = self.directory.join(RESULT);
        vlm_data::files::write_atomically(&path, |w| writeln!(w, "{text}"))?;
        Ok(())
    }
}

/// The recipe or the run of the detector that a recipe reads regions of: what says from which data it learned. None where
/// neither is there.
pub fn detector_recipe(recipe: &SetRecipe) -> Option<PathBuf> {
    let detector = recipe.data.detector.as_ref()?;
    if is_recipe(detector) {
        return Some(detector.clone());
    }
    let of_run = detector.parent()?.join("recipe.toml");
    of_run.is_file().then_some(of_run)
}

fn is_recipe(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "toml")
}

/// Trains the detector of an experiment, where it names a recipe in place of a directory, and lets it take the model; false
/// if `stop` came before the end. It lies in `runs` by the name of its recipe, and experiments share it.
pub fn prepare(
    experiment: &mut Experiment,
    runs: &Path,
    stop: &AtomicBool,
    quiet: bool,
    tell: impl Fn(&str),
) -> anyhow::Result<bool> {
    let Recipe::Set(set) = &mut experiment.recipe else {
        return Ok(true);
    };
    let detector = set.data.detector.as_mut();
    let Some(path) = detector.filter(|path| is_recipe(path)) else {
        return Ok(true);
    };
    let run = Run {
        recipe: Recipe::read(path)?,
        directory: runs.join(path.file_stem().unwrap_or_default()),
    };
    *path = run.directory.join("model");
    let begun = run.begun()?;
    if run.read()?.is_some() {
        return Ok(true);
    }
    tell("training its detector");
    Ok(run.trained(&begun, stop, quiet)?.is_some())
}

/// Whether a training has left anything to go on from.
fn has_checkpoint(run: &Path) -> bool {
    let entries = std::fs::read_dir(run.join("checkpoints"));
    let names = entries.into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name())
        .any(|name| name.to_string_lossy().starts_with("step-"))
}
