//! `vlm inspect`

use crate::models::{image_size, locate};
use crate::output::Output;
use crate::{Common, Outcome};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use vlm_tasks::inspect::{Inspection, Share};
use vlm_tasks::table::Table;
use vlm_tasks::{Layout, builtin};

/// Say what a model's files hold, and what is wrong with them
#[derive(Args)]
#[command(after_help = "\
Works on models that cannot be used, too: `-` is a tensor that the config asks for and that is not there, `+` one that \
the model has no place for, `!` one of another shape or with numbers that are none.

With --json the line has model, family (null where unknown), layout, format, parameters (of the file), tensors, parts and \
dtypes (tensors and parameters of each), memory (bytes as f32, bf16 and int8), image_size, num_channels, vocab_size, \
max_positions and can (null where unknown), tokenizer and processor (whether they are there), missing, unused, different, \
problems, sound, and with --tensors list (name, shape and dtype of each).

Exit codes: 0 done, whatever was found; 2 wrong usage, or weights that cannot be read.

Example:
  vlm inspect vlm-tiny
  vlm inspect clip-vit-base-patch32 --tensors")]
pub struct InspectArgs {
    /// A built-in model, a model's directory, or a file of weights
    model: String,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Take the vocabulary from this directory
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
}

pub fn run(args: &InspectArgs, common: &Common) -> anyhow::Result<Outcome> {
    let found = if builtin::NAMES.contains(&args.model.as_str()) {
        Inspection::of_builtin()?
    } else {
        let mut files = locate(&args.model)?;
        if let Some(directory) = &args.tokenizer {
            files = files.with_tokenizer(directory);
        }
        Inspection::of_files(&files)?
    };
    let mut output = Output::new(common.json);
    let text = report(&found, args.tensors, output.is_terminal());
    output.result(&record(&found, args.tensors), &text)?;
    Ok(Outcome::Done)
}

fn layout(layout: Layout) -> &'static str {
    match layout {
        Layout::HuggingFace => "Hugging Face",
        Layout::OpenClip => "open_clip",
        Layout::Original => "original",
    }
}

fn record(found: &Inspection, tensors: bool) -> Value {
    let shares = |shares: Vec<(&str, Share)>| {
        let share = |(name, s): &(&str, Share)| {
            let value = json!({"tensors": s.tensors, "parameters": s.parameters});
            ((*name).to_owned(), value)
        };
        Value::Object(shares.iter().map(share).collect())
    };
    let loaded = found.loaded.as_ref();
    let memory = found.memory();
    let mut record = json!({
        "model": found.name,
        "family": loaded.map(|l| l.family),
        "layout": layout(found.layout),
        "format": found.format,
        "parameters": found.total().parameters,
        "tensors": found.tensors.len(),
        "parts": shares(found.parts().into_iter().collect()),
        "dtypes": shares(found.dtypes().into_iter().collect()),
        "memory": {"f32": memory.f32, "bf16": memory.bf16, "int8": memory.int8},
        "image_size": loaded.map(|l| image_size(l.pictures)),
        "num_channels": loaded.map(|l| l.pictures.num_channels),
        "vocab_size": loaded.map(|l| l.texts.vocab_size),
        "max_positions": loaded.map(|l| l.texts.max_positions),
        "can": loaded.map(|l| &l.can),
        "tokenizer": found.has_tokenizer,
        "processor": found.has_processor,
        "missing": found.missing,
        "unused": found.unused,
        "different": found.different,
        "problems": found.problems,
        "sound": found.is_sound(),
    });
    if tensors {
        let each = found.tensors.iter();
        record["list"] = each
            .map(|t| json!({"name": t.name, "shape": t.shape, "dtype": t.dtype.name()}))
            .collect();
    }
    record
}

fn report(found: &Inspection, tensors: bool, colour: bool) -> String {
    let loaded = found.loaded.as_ref();
    let total = found.total();
    let memory = found.memory();
    let there = |there: bool| if there { "there" } else { "none" };
    let mut text = format!("{}\n", found.name);
    let mut fact = |name: &str, value: String| text += &format!("  {name:<11} {value}\n");
    let family = loaded.map_or("not known", |l| l.family);
    fact(
        "family",
        format!("{family}, {} layout", layout(found.layout)),
    );
    let of = format!("{}, {} tensors", found.format, found.tensors.len());
    fact(
        "weights",
        format!("{of}, {} parameters", amount(total.parameters)),
    );
    if let Some(l) = loaded {
        let (pictures, texts) = (l.pictures, l.texts);
        let pictures = match (pictures.num_channels, pictures.image_size) {
            (0, _) => "none".to_owned(),
            (channels, Some([height, width])) => format!("{channels} x {height} x {width}"),
            (channels, None) => format!("{channels} channels, any size"),
        };
        fact("pictures", pictures);
        let texts = match (texts.max_positions, texts.vocab_size) {
            (_, 0) => "none".to_owned(),
            (positions, tokens) => format!("at most {positions} tokens of {tokens}"),
        };
        fact("texts", texts);
        fact("can", l.can.join(", "));
        fact("vocabulary", there(found.has_tokenizer).to_owned());
        fact("processor", there(found.has_processor).to_owned());
    }
    fact(
        "memory",
        format!(
            "{} as f32, {} as bf16, {} as int8",
            bytes(memory.f32),
            bytes(memory.bf16),
            bytes(memory.int8)
        ),
    );

    let mut table = Table::new(["part", "tensors", "parameters", "share"]);
    for (part, share) in found.parts() {
        let percent = 100.0 * share.parameters as f64 / total.parameters.max(1) as f64;
        table.row([
            part,
            &share.tensors.to_string(),
            &share.parameters.to_string(),
            &format!("{percent:.1} %"),
        ]);
    }
    text += &format!("\n{}\n", table.render(colour));
    let mut table = Table::new(["stored as", "tensors", "numbers"]);
    for (dtype, share) in found.dtypes() {
        table.row([
            dtype,
            &share.tensors.to_string(),
            &share.parameters.to_string(),
        ]);
    }
    text += &table.render(colour);
    if tensors {
        let mut table = Table::new(["tensor", "shape", "stored as"]);
        for t in &found.tensors {
            table.row([&t.name, &format!("{:?}", t.shape), t.dtype.name()]);
        }
        text += &format!("\n{}", table.render(colour));
    }

    text.push('\n');
    for (sign, lines) in [
        ("-", &found.missing),
        ("+", &found.unused),
        ("!", &found.different),
    ] {
        lines
            .iter()
            .for_each(|line| text += &format!("{sign} {line}\n"));
    }
    found
        .problems
        .iter()
        .for_each(|p| text += &format!("problem: {}\n", printable(p)));
    let differences = found.missing.len() + found.unused.len() + found.different.len();
    text += &match (differences, found.is_sound()) {
        (0, true) => "sound: the weights fill the model, and nothing is left over\n".to_owned(),
        (0, false) => "cannot be used as it is\n".to_owned(),
        (n, _) => format!("cannot be used: {n} tensors differ from what the config asks for\n"),
    };
    text
}

/// Names of a foreign file must not move the cursor.
fn printable(line: &str) -> String {
    line.replace(|c: char| c.is_control(), " ")
}

fn amount(n: usize) -> String {
    match n {
        0..1_000_000 => n.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

fn bytes(n: usize) -> String {
    match n {
        0..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}
