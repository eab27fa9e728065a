//! `vlm models`, and the choice of a model in other commands.

use crate::output::Output;
use crate::precision::{PrecisionArg, set_precision};
use crate::{Common, Outcome};
use anyhow::bail;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vlm_data::image::Image;
use vlm_models::families::PictureSize;
use vlm_tasks::inspect::abilities;
use vlm_tasks::table::Table;
use vlm_tasks::{ModelFiles, Vlm, builtin, file};

/// The model to use.
#[derive(Args)]
pub struct ModelArg {
    /// A built-in model, a model's directory, a file of weights, or owner/name on the hub
    #[arg(long, value_name = "MODEL", default_value = builtin::VLM_TINY)]
    model: String,
    /// Take the vocabulary from this directory
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Arithmetic of matrix products; auto takes bf16 where the processor has it in hardware
    #[arg(long, value_enum, default_value_t = PrecisionArg::Auto)]
    precision: PrecisionArg,
}

impl ModelArg {
    /// Loads it and sets the arithmetic.
    pub fn load(&self, common: &Common) -> anyhow::Result<Vlm> {
        set_precision(self.precision, common);
        load(&self.model, self.tokenizer.as_deref())
    }
}

/// A built-in model, or one from its files; the vocabulary may lie elsewhere.
pub fn load(name: &str, tokenizer: Option<&Path>) -> anyhow::Result<Vlm> {
    if builtin::NAMES.contains(&name) {
        if tokenizer.is_some() {
            bail!("--tokenizer: {name} has its own vocabulary");
        }
        return Ok(Vlm::builtin()?);
    }
    let mut files = locate(name)?;
    if let Some(directory) = tokenizer {
        files = files.with_tokenizer(directory);
    }
    let vlm = Vlm::from_model_files(&files)?;
    // a picture processor that does not fit the model is told before any picture is opened
    if vlm.processor().is_ok() {
        let probe = Image::from_rgb(4, 3, vec![0; 4 * 3 * 3])?;
        vlm.pictures(&[&probe])?;
    }
    Ok(vlm)
}

/// The files of a model that is not built in: of a path, or of a name on the hub.
pub fn locate(name: &str) -> anyhow::Result<ModelFiles> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(ModelFiles::at(path)?);
    }
    #[cfg(feature = "hub")]
    if name.contains('/') && !path.is_absolute() {
        return match crate::pull::find(name) {
            Ok(directory) => Ok(ModelFiles::at(&directory)?.named(name)),
            Err(error) => bail!("{name}: no such file, and as a name on the hub: {error}"),
        };
    }
    bail!(
        "--model: expected {}, a model's directory, a file of weights, or owner/name on the hub, found {name:?}",
        builtin::NAMES.join(", ")
    );
}

/// List the built-in models and those that were pulled, or describe one
#[derive(Args)]
#[command(after_help = "\
With --json each line has model, family, parameters, bytes, image_size, can and trained_on (null where not known, as \
for models that were pulled and are not opened).

Exit codes: 0 done; 2 wrong usage or unusable model.

Example:
  vlm models
  vlm models --model runs/vlm-tiny/model")]
pub struct ModelsArgs {
    /// A built-in model, a model's directory, a file of weights, or owner/name on the hub
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
}

#[derive(Serialize)]
struct Record {
    model: String,
    family: Option<String>,
    parameters: Option<usize>,
    bytes: u64,
    image_size: Value,
    can: Option<Vec<&'static str>>,
    trained_on: Option<&'static str>,
}

pub fn run(args: &ModelsArgs, common: &Common) -> anyhow::Result<Outcome> {
    let records = match &args.model {
        Some(name) => vec![describe(name)?],
        None => {
            let built_in = builtin::NAMES.iter().map(|name| describe(name));
            let mut records: Vec<Record> = built_in.collect::<Result<_, _>>()?;
            records.extend(pulled());
            records
        }
    };
    let mut output = Output::new(common.json);
    let mut table = Table::new(["model", "family", "parameters", "size", "can", "trained on"]);
    for record in &records {
        let parameters = record
            .parameters
            .map(|n| format!("{:.1} M", n as f64 / 1e6));
        let can = record.can.as_ref().map(|can| can.join(", "));
        table.row([
            &record.model,
            record.family.as_deref().unwrap_or("-"),
            parameters.as_deref().unwrap_or("-"),
            &format!("{:.1} MB", record.bytes as f64 / 1e6),
            can.as_deref().unwrap_or("-"),
            record.trained_on.unwrap_or("-"),
        ]);
        if common.json {
            output.result(record, "")?;
        }
    }
    if !common.json {
        let text = table.render(output.is_terminal());
        output.result(&(), &text)?;
    }
    Ok(Outcome::Done)
}

/// Models that were pulled, as far as is known without opening them.
#[cfg(feature = "hub")]
fn pulled() -> Vec<Record> {
    let family = |directory: &Path| {
        let config = std::fs::read(directory.join(file::CONFIG)).ok()?;
        let config: serde_json::Value = serde_json::from_slice(&config).ok()?;
        Some(config.get("model_type")?.as_str()?.to_owned())
    };
    let record = |pulled: crate::pull::Pulled| Record {
        family: family(&pulled.directory),
        model: pulled.id,
        parameters: None,
        bytes: pulled.bytes,
        image_size: Value::Null,
        can: None,
        trained_on: None,
    };
    crate::pull::pulled().into_iter().map(record).collect()
}

#[cfg(not(feature = "hub"))]
fn pulled() -> Vec<Record> {
    Vec::new()
}

/// Of a model's pictures: the side of square ones, or height and width; null where any will do.
pub fn image_size(pictures: PictureSize) -> Value {
    match pictures.image_size {
        Some([height, width]) if height == width => json!(height),
        size => json!(size),
    }
}

fn describe(name: &str) -> anyhow::Result<Record> {
    let vlm = load(name, None)?;
    let is_builtin = builtin::NAMES.contains(&name);
    let bytes = if is_builtin {
        builtin::WEIGHTS_BYTES
    } else {
        locate(name)?.bytes()?
    };
    let model = vlm.model();
    Ok(Record {
        model: name.to_owned(),
        family: Some(model.family().to_owned()),
        parameters: Some(model.parameters()),
        bytes,
        image_size: image_size(model.pictures()),
        can: Some(abilities(model)),
        trained_on: is_builtin.then_some(builtin::TRAINED_ON),
    })
}
