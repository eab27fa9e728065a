//! `vlm pull`, and models of the hub by their names.

use crate::output::Output;
use crate::{Common, Outcome};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use vlm_hub::{Hub, Request};

/// Download a model from the Hugging Face hub
#[derive(Args)]
#[command(after_help = "\
What was interrupted goes on where it stopped; what is there already is not downloaded again. The cache is the one that \
other programs of the hub use: HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean there.

With --json the line has model, revision, directory and bytes. Without, it is the directory.

Exit codes: 0 done; 2 wrong usage, no network, or a model that is not there or not for everyone.

Example:
  vlm pull openai/clip-vit-base-patch32
  vlm classify photos --model openai/clip-vit-base-patch32 --labels cat,dog")]
pub struct PullArgs {
    /// The model: owner/name, or owner/name@revision
    id: String,
    /// Only files like this, * for any letters; not given: weights, config, processor and vocabulary
    #[arg(long, value_name = "PATTERN")]
    file: Vec<String>,
    /// Download nothing, only say where the model is
    #[arg(long)]
    offline: bool,
}

#[derive(Serialize)]
struct Record<'a> {
    model: &'a str,
    revision: &'a str,
    directory: String,
    bytes: u64,
}

pub fn run(args: &PullArgs, common: &Common) -> anyhow::Result<Outcome> {
    let mut request = Request::new(&args.id)?;
    request.files.clone_from(&args.file);
    let mut hub = Hub::from_env();
    hub.offline |= args.offline;
    let bar = progress_bar(common.quiet);
    let pulled = hub.pull(&request, &mut |progress| {
        bar.set_message(format!(
            "{} ({} of {})",
            progress.file, progress.number, progress.files
        ));
        bar.set_length(progress.total.unwrap_or(progress.done));
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    let directory = pulled?;
    let record = Record {
        model: &request.id,
        revision: &request.revision,
        bytes: bytes_in(&directory),
        directory: directory.display().to_string(),
    };
    Output::new(common.json).result(&record, &record.directory)?;
    Ok(Outcome::Done)
}

fn progress_bar(quiet: bool) -> ProgressBar {
    let target = if quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}  {msg}";
    let style = ProgressStyle::with_template(template).expect("a valid template");
    let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// The directory of a model that was pulled.
///
/// # Errors
/// It was not, or the name cannot be one of the hub.
pub fn find(id: &str) -> Result<PathBuf, vlm_hub::Error> {
    vlm_hub::cached(id)
}

/// A model in the cache.
pub struct Pulled {
    pub id: String,
    pub directory: PathBuf,
    pub bytes: u64,
}

/// The models in the cache that are whole, in the order of their names.
pub fn pulled() -> Vec<Pulled> {
    let hub = Hub::from_env();
    // no cache is an empty one
    let entries = std::fs::read_dir(&hub.cache)
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<Pulled> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let id = name.strip_prefix("models--")?.replace("--", "/");
            let directory = hub.cached(&Request::new(&id).ok()?).ok()?;
            Some(Pulled {
                id,
                bytes: bytes_in(&directory),
                directory,
            })
        })
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

/// Bytes of the files of a directory, those that are links included.
fn bytes_in(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|e| std::fs::metadata(e.path()).ok());
    sizes.filter(|m| m.is_file()).map(|m| m.len()).sum()
}
