//! `vlm models`, and the choice of a model in other commands.

use crate::output::Output;
use crate::precision::{PrecisionArg, set_precision};
use crate::{Common, Outcome};
use anyhow::{anyhow, bail};
use clap::Args;
use serde::Serialize;
use std::path::Path;
use vlm_data::image::Image;
use vlm_tasks::table::Table;
use vlm_tasks::{Vlm, builtin, file};

/// The model to use.
#[derive(Args)]
pub struct ModelArg {
    /// A built-in model, or a directory with config.json and model.safetensors
    #[arg(long, value_name = "NAME|DIR", default_value = builtin::VLM_TINY)]
    model: String,
    /// Arithmetic of matrix products; auto takes bf16 where the processor has it in hardware
    #[arg(long, value_enum, default_value_t = PrecisionArg::Auto)]
    precision: PrecisionArg,
}

impl ModelArg {
    /// Loads it and sets the arithmetic.
    pub fn load(&self, common: &Common) -> anyhow::Result<Vlm> {
        set_precision(self.precision, common);
        load(&self.model)
    }
}

fn load(name: &str) -> anyhow::Result<Vlm> {
    if builtin::NAMES.contains(&name) {
        return Ok(Vlm::builtin()?);
    }
    if !Path::new(name).is_dir() {
        bail!(
            "--model: expected {} or the directory of a model, found {name:?}",
            builtin::NAMES.join(", ")
        );
    }
    let vlm = Vlm::load(Path::new(name))?;
    // a picture processor that does not fit the model is told before any picture is opened
    let probe = Image::from_rgb(4, 3, vec![0; 4 * 3 * 3])?;
    vlm.pictures(&[&probe])?;
    Ok(vlm)
}

/// List the built-in models, or describe one
#[derive(Args)]
#[command(after_help = "\
With --json each line has model, family, parameters, bytes, image_size, can and trained_on (null where not known).

Exit codes: 0 done; 2 wrong usage or unusable model.

Example:
  vlm models
  vlm models --model runs/vlm-tiny/model")]
pub struct ModelsArgs {
    /// A built-in model, or a directory with config.json and model.safetensors
    #[arg(long, value_name = "NAME|DIR")]
    model: Option<String>,
}

#[derive(Serialize)]
struct Record {
    model: String,
    family: &'static str,
    parameters: usize,
    bytes: u64,
    image_size: Option<usize>,
    can: Vec<&'static str>,
    trained_on: Option<&'static str>,
}

pub fn run(args: &ModelsArgs, common: &Common) -> anyhow::Result<Outcome> {
    let names: Vec<&str> = match &args.model {
        Some(name) => vec![name],
        None => builtin::NAMES.to_vec(),
    };
    let mut output = Output::new(common.json);
    let mut table = Table::new(["model", "family", "parameters", "size", "can", "trained on"]);
    for name in names {
        let record = describe(name)?;
        table.row([
            &record.model,
            record.family,
            &format!("{:.1} M", record.parameters as f64 / 1e6),
            &format!("{:.1} MB", record.bytes as f64 / 1e6),
            &record.can.join(", "),
            record.trained_on.unwrap_or("-"),
        ]);
        if common.json {
            output.result(&record, "")?;
        }
    }
    if !common.json {
        let text = table.render(output.is_terminal());
        output.result(&(), &text)?;
    }
    Ok(Outcome::Done)
}

fn describe(name: &str) -> anyhow::Result<Record> {
    let vlm = load(name)?;
    let is_builtin = builtin::NAMES.contains(&name);
    let bytes = if is_builtin {
        builtin::WEIGHTS_BYTES
    } else {
        let path = Path::new(name).join(file::WEIGHTS);
        std::fs::metadata(&path)
            .map_err(|e| anyhow!("{}: cannot be read: {e}", path.display()))?
            .len()
    };
    let model = vlm.model();
    let abilities = [
        ("caption", model.generate().is_ok()),
        ("ask", model.generate().is_ok()),
        (
            "embed",
            model.embed_image().is_ok() && model.embed_text().is_ok(),
        ),
    ];
    Ok(Record {
        model: name.to_owned(),
        family: model.family(),
        parameters: model.parameters(),
        bytes,
        image_size: model.pictures().image_size,
        can: abilities.iter().filter(|a| a.1).map(|a| a.0).collect(),
        trained_on: is_builtin.then_some(builtin::TRAINED_ON),
    })
}
