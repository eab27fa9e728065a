//! Checkpoints: a directory per step that appears whole or not at all.
//!
//! A checkpoint is a model directory (any command takes it as `--model`) with two more files: the optimizer's
//! moments, and `trainer.json` with the step and the position in the data.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// `trainer.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerState {
    /// Optimizer steps done.
    pub step: u64,
    /// The state of the data's random stream: its seed and the number of the next batch.
    pub rng: RngState,
    /// Seconds of training so far.
    pub seconds: f64,
}

/// Everything random is drawn from the seed and a counter, so this pair is the whole state.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RngState {
    /// The data's seed.
    pub seed: u64,
    /// The next batch.
    pub batch: u64,
}

/// Name of the optimizer's file.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// Name of the file with the moving average of the weights.
pub const EMA: &str = "ema.safetensors";
/// Name of the trainer's file.
pub const TRAINER: &str = "trainer.json";
/// How many checkpoints are kept.
const KEPT: usize = 2;

fn fail(path: &Path, action: &str) -> impl FnOnce(std::io::Error) -> Error {
    let (path, action) = (path.to_owned(), action.to_owned());
    move |e| Error::file(path, format!("cannot {action}: {e}"))
}

/// Writes a directory whole: into a temporary one beside it, flushed, then renamed. On any error what was there
/// before is untouched and the temporary directory is gone.
///
/// # Errors
/// What cannot be written, a full disk included.
pub fn write_directory(target: &Path, files: &[(&str, &[u8])]) -> Result<(), Error> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(fail(parent, "create"))?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.tmp"));
    let written = fill(&temporary, files).and_then(|()| {
        let old = parent.join(format!(".{name}.old"));
        if target.exists() {
            // a directory cannot be renamed onto a full one
            let _ = fs::remove_dir_all(&old);
            fs::rename(target, &old).map_err(fail(target, "move aside"))?;
        }
        let renamed = fs::rename(&temporary, target).map_err(fail(target, "put in place"));
        if renamed.is_err() && old.exists() {
            let _ = fs::rename(&old, target);
        }
        let _ = fs::remove_dir_all(&old);
        renamed
    });
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written
}

fn fill(directory: &Path, files: &[(&str, &[u8])]) -> Result<(), Error> {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).map_err(fail(directory, "create"))?;
    for (name, bytes) in files {
        let path = directory.join(name);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(fail(&path, "write"))?;
    }
    Ok(())
}

/// Where the checkpoint of a step lies in a run.
pub fn directory(run: &Path, step: u64) -> PathBuf {
    run.join("checkpoints").join(format!("step-{step:08}"))
}

/// The whole checkpoints of a run, oldest first.
fn all(run: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else {
        return Vec::new();
    };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|e| {
            let name = e.file_name();
            let step = name.to_str()?.strip_prefix("step-")?.parse().ok()?;
            e.path().join(TRAINER).is_file().then(|| (step, e.path()))
        })
        .collect();
    found.sort();
    found
}

/// The newest checkpoint of a run.
pub fn latest(run: &Path) -> Option<PathBuf> {
    all(run).pop().map(|(_, path)| path)
}

/// Removes all but the newest checkpoints.
pub fn prune(run: &Path) {
    let mut checkpoints = all(run);
    checkpoints.truncate(checkpoints.len().saturating_sub(KEPT));
    for (_, path) in checkpoints {
        // an old checkpoint too many is no reason to stop
        let _ = fs::remove_dir_all(path);
    }
}

/// Reads `trainer.json`.
///
/// # Errors
/// A file that cannot be read or understood.
pub fn read_state(checkpoint: &Path) -> Result<TrainerState, Error> {
    let path = checkpoint.join(TRAINER);
    let text = fs::read_to_string(&path).map_err(fail(&path, "read"))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::file(&path, format!("expected the state of a trainer, found {e}")))
}
