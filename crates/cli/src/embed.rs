//! `vlm embed`

use crate::models::ModelArg;
use crate::output::{Output, complain, milliseconds};
use crate::{Common, Outcome, input};
use anyhow::{anyhow, bail};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vlm_nn::weights::{StoreDtype, to_bytes};

/// Turn pictures or texts into vectors of the space that they share
#[derive(Args)]
#[command(after_help = "\
Each line of the output is a JSON object: image or text, row, embedding (a unit vector), model and ms. With --out the \
vectors go to a file as the rows of one matrix of f32, and the lines, which then lack embedding, come with --json only.

A .safetensors file holds the matrix as `embeddings`, and in its metadata `inputs` as a JSON list.

Exit codes: 0 done; 1 some inputs failed, the others are embedded; 2 wrong usage or unusable model.

Example:
  vlm embed --image examples/pictures/*.png --out pictures.npy
  vlm embed --text 'a red circle' 'a blue ring'")]
pub struct EmbedArgs {
    #[command(flatten)]
    what: What,
    /// Write the vectors to this file, .npy or .safetensors
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArg,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Pictures: files, directories, patterns, or - for stdin
    #[arg(long, value_name = "IMAGE", num_args = 1..)]
    image: Vec<OsString>,
    /// Texts, or - for the lines of stdin
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    text: Vec<String>,
}

#[derive(Serialize)]
struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    row: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
    model: &'a str,
    ms: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Npy,
    Safetensors,
}

pub fn run(args: &EmbedArgs, common: &Common) -> anyhow::Result<Outcome> {
    let out = match &args.out {
        Some(path) => Some((path, format(path)?)),
        None => None,
    };
    let vlm = args.model.load(common)?;
    let mut output = Output::new(true);
    let mut rows: Vec<Vec<f32>> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut emit = |image: Option<&str>, text: Option<&str>, vector: Vec<f32>, ms: f64| {
        let record = Record {
            image,
            text,
            row: names.len(),
            embedding: out.is_none().then_some(vector.as_slice()),
            model: vlm.name(),
            ms,
        };
        if out.is_none() || common.json {
            output.result(&record, "")?;
        }
        names.extend(image.or(text).map(str::to_owned));
        if out.is_some() {
            rows.push(vector);
        }
        Ok::<(), std::io::Error>(())
    };
    let outcome = if args.what.text.is_empty() {
        vlm.model().embed_image()?;
        vlm.processor()?;
        input::each_picture(
            &args.what.image,
            vlm.name(),
            common,
            |image| Ok(vlm.embed_images(&[image])?.swap_remove(0)),
            |done| emit(Some(done.image), None, done.result, done.ms),
        )?
    } else {
        vlm.model().embed_text()?;
        vlm.text()?;
        let mut outcome = Outcome::Done;
        for text in texts(&args.what.text)? {
            let begun = Instant::now();
            match vlm.embed_texts(&[&text]) {
                Ok(mut vectors) => {
                    let ms = milliseconds(begun.elapsed());
                    emit(None, Some(&text), vectors.swap_remove(0), ms)?;
                }
                Err(error) => {
                    complain(format_args!("{:?}: {error}", beginning(&text)));
                    outcome = Outcome::SomeInputsFailed;
                }
            }
        }
        outcome
    };
    if let Some((path, format)) = out {
        write(path, format, &rows, &names)?;
    }
    Ok(outcome)
}

fn format(path: &Path) -> anyhow::Result<Format> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => Ok(Format::Npy),
        Some("safetensors") => Ok(Format::Safetensors),
        _ => bail!(
            "--out: expected a file name that ends in .npy or .safetensors, found {}",
            path.display()
        ),
    }
}

/// The texts that the arguments name: `-` is the lines of stdin.
fn texts(arguments: &[String]) -> anyhow::Result<Vec<String>> {
    const MOST_BYTES: u64 = 256 << 20;
    let mut texts = Vec::new();
    for argument in arguments {
        if argument == "-" {
            let mut lines = String::new();
            std::io::stdin()
                .lock()
                .take(MOST_BYTES)
                .read_to_string(&mut lines)
                .map_err(|e| anyhow!("<stdin>: cannot read: {e}"))?;
            texts.extend(lines.lines().map(str::to_owned));
        } else {
            texts.push(argument.clone());
        }
    }
    Ok(texts)
}

fn beginning(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

fn write(path: &Path, format: Format, rows: &[Vec<f32>], names: &[String]) -> anyhow::Result<()> {
    let Some(first) = rows.first() else {
        bail!(
            "{}: nothing to write, no input was embedded",
            path.display()
        );
    };
    let shape = [rows.len(), first.len()];
    let bytes = match format {
        Format::Npy => npy(shape, rows),
        Format::Safetensors => {
            let tensor = ("embeddings".to_owned(), (shape.to_vec(), rows.concat()));
            let names = serde_json::to_string(names)?;
            let tensors = BTreeMap::from([tensor]);
            to_bytes(&tensors, StoreDtype::F32, Some(("inputs", &names)))?
        }
    };
    vlm_data::files::write_atomically(path, |w| w.write_all(&bytes))?;
    Ok(())
}

/// Version 1.0 of <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
fn npy(shape: [usize; 2], rows: &[Vec<f32>]) -> Vec<u8> {
    let [n, width] = shape;
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, {width}), }}");
    // magic, version and length take 10 bytes; the whole is a multiple of 64 that ends in a line break
    let padded = (10 + header.len() + 1).next_multiple_of(64);
    header.extend(std::iter::repeat_n(' ', padded - 10 - header.len() - 1));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("a header of one line");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(rows.iter().flatten().flat_map(|v| v.to_le_bytes()));
    bytes
}
