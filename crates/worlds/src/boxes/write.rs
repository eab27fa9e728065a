//! Sets on disk, in NLVR's format.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ORDERS, Picture, Question, Split, generate, questions, statements};
use crate::Error;

const EXAMPLES: &str = "examples.jsonl";
const IMAGES: &str = "images";
/// What the names of our pictures begin with; NLVR's begin with the split.
const OURS: &str = "boxes-";
/// Where a run collects its files until all are there.
const STAGING: &str = ".writing";
/// Statements made between two reports of progress.
const CHUNK: u64 = 256;

/// A line of `examples.jsonl`.
#[derive(Serialize, Deserialize)]
struct Line {
    /// The sentence's number, a dash, and the scene's among those of the sentence.
    identifier: String,
    sentence: String,
    label: String,
    images: Vec<String>,
    /// Ours, not NLVR's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    qa: Vec<Question>,
}

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Statements.
    pub statements: u64,
    /// Pictures of each statement, which show its boxes in the first of NLVR's [`ORDERS`].
    pub orders: usize,
    /// Questions about each scene, beside its statement.
    pub questions: usize,
    /// Further statements about each scene.
    pub more_statements: usize,
}

/// The most questions or further statements about a scene.
pub const MOST_QUESTIONS: usize = 64;

/// Writes the first statements of a split to a directory, in NLVR's format: `examples.jsonl` and the folder `images`.
/// Questions and further statements stand in the field `qa` of each record, which NLVR does not have.
///
/// Everything is first written to a hidden directory inside `out_dir` and moved into place at the end, `examples.jsonl`
/// last, so that a run that fails leaves an earlier output as it was. `out_dir` must not exist, be empty, or hold an
/// earlier output, which is replaced. `progress` is called with the number of statements that are done.
///
/// # Errors
/// [`Error::Orders`] or [`Error::Questions`] for a bad number of them, [`Error::NotOurBoxes`] if the directory holds other files,
/// [`Error::Io`] if a file cannot be written.
pub fn write(
    split: Split,
    seed: u64,
    amount: Amount,
    out_dir: &Path,
    mut progress: impl FnMut(u64),
) -> Result<(), Error> {
    if !(1..=ORDERS.len()).contains(&amount.orders) {
        return Err(Error::Orders(amount.orders));
    }
    for count in [amount.questions, amount.more_statements] {
        if count > MOST_QUESTIONS {
            return Err(Error::Questions(count));
        }
    }
    fs::create_dir_all(out_dir).map_err(at(out_dir))?;
    let old = earlier(out_dir)?;
    let staging = out_dir.join(STAGING);
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(at(&staging))?;
    }
    let images = staging.join(IMAGES);
    fs::create_dir_all(&images).map_err(at(&images))?;
    let names = match write_staged(split, seed, amount, &staging, &mut progress) {
        Ok(names) => names,
        Err(error) => {
            // The first error is the one worth telling.
            let _ = fs::remove_dir_all(&staging);
            return Err(error);
        }
    };

    // The old pictures go, the new ones come, and the list last.
    let list = out_dir.join(EXAMPLES);
    if list.exists() {
        fs::remove_file(&list).map_err(at(&list))?;
    }
    let folder = out_dir.join(IMAGES);
    for name in old {
        let path = folder.join(name);
        if path.exists() {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    for name in names {
        let path = folder.join(&name);
        fs::rename(images.join(&name), &path).map_err(at(&path))?;
    }
    fs::rename(staging.join(EXAMPLES), &list).map_err(at(&list))?;
    fs::remove_dir_all(&staging).map_err(at(&staging))
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        path: path.clone(),
        source,
    }
}

/// The pictures of an earlier output; none if there is no output.
fn earlier(out_dir: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(out_dir).map_err(at(out_dir))?;
    let names = entries
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(at(out_dir))?;
    let list = out_dir.join(EXAMPLES);
    if !list.exists() {
        // what an interrupted run left
        let staged = names.iter().any(|name| name == STAGING);
        return if names.is_empty() || staged {
            Ok(Vec::new())
        } else {
            Err(Error::NotOurBoxes(out_dir.to_owned()))
        };
    }
    let text = fs::read(&list).map_err(at(&list))?;
    let mut images = Vec::new();
    for line in text
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        match serde_json::from_slice::<Line>(line) {
            Ok(line) if line.images.iter().all(|name| is_ours(name)) => images.extend(line.images),
            _ => return Err(Error::NotOurBoxes(out_dir.to_owned())),
        }
    }
    Ok(images)
}

/// Whether a picture's name is one that [`write()`] gives.
fn is_ours(name: &str) -> bool {
    name.starts_with(OURS) && name.ends_with(".png") && !name.contains(['/', '\\'])
}

/// The names of the pictures.
fn write_staged(
    split: Split,
    seed: u64,
    amount: Amount,
    staging: &Path,
    progress: &mut impl FnMut(u64),
) -> Result<Vec<String>, Error> {
    let list = staging.join(EXAMPLES);
    let images = staging.join(IMAGES);
    let mut examples = io::BufWriter::new(fs::File::create(&list).map_err(at(&list))?);
    let mut names = Vec::new();
    let mut start = 0;
    while start < amount.statements {
        let end = (start + CHUNK).min(amount.statements);
        let lines: Vec<Line> = (start..end)
            .into_par_iter()
            .map(|number| {
                let item = generate(split, seed, number);
                let mut qa = questions(split, seed, number, &item.scene, amount.questions);
                let more = amount.more_statements;
                qa.extend(statements(split, seed, number, &item.scene, more));
                let identifier = format!("{}-{}", number / 2, number % 2);
                let mut line = Line {
                    sentence: item.sentence,
                    label: item.truth.to_string(),
                    images: Vec::with_capacity(amount.orders),
                    identifier,
                    qa,
                };
                for (i, &order) in ORDERS[..amount.orders].iter().enumerate() {
                    let name = format!("{OURS}{split}-{}-{i}.png", line.identifier);
                    let path = images.join(&name);
                    let png = Picture::of(&item.scene, order).to_png();
                    fs::write(&path, png).map_err(at(&path))?;
                    line.images.push(name);
                }
                Ok(line)
            })
            .collect::<Result<_, Error>>()?;
        for line in lines {
            let text = serde_json::to_string(&line).expect("a line is plain strings") + "\n";
            examples.write_all(text.as_bytes()).map_err(at(&list))?;
            names.extend(line.images);
        }
        start = end;
        progress(start);
    }
    let file = examples
        .into_inner()
        .map_err(|error| at(&list)(error.into_error()))?;
    file.sync_all().map_err(at(&list))?;
    Ok(names)
}
