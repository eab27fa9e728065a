//! Items on disk: pictures and one `items.jsonl`.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use rayon::prelude::*;

use super::record::{Record, image_name};
use super::{Config, Split, generate, read};
use crate::Error;

const ITEMS: &str = "items.jsonl";
/// Where a run collects its files until all are there.
const STAGING: &str = ".writing";
/// Items rendered between two reports of progress.
const CHUNK: u64 = 64;

/// Writes the first `count` items of a split to a directory: pictures `000000.png`, `000001.png`, ... and
/// `items.jsonl`, one [`Record`] a line.
///
/// Everything is first written to a hidden directory inside `out_dir` and moved into place at the end, `items.jsonl`
/// last, so that a run that fails leaves an earlier output as it was. `out_dir` must not exist, be empty, or hold an
/// earlier output, which is replaced. `progress` is called with the number of items that are done.
///
/// # Errors
/// [`Error::Size`] and [`Error::Difficulty`] for a bad configuration, [`Error::NotOurs`] if the directory holds other
/// files, [`Error::Io`] if a file cannot be written.
pub fn write(
    config: &Config,
    split: Split,
    seed: u64,
    count: u64,
    out_dir: &Path,
    mut progress: impl FnMut(u64),
) -> Result<(), Error> {
    config.validate()?;
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    fs::create_dir_all(out_dir).map_err(at(out_dir))?;
    let names = list(out_dir).map_err(at(out_dir))?;
    let holds = |name: &str| names.iter().any(|n| n == name);
    let old_items = out_dir.join(ITEMS);
    let old_images: Vec<String> = if holds(ITEMS) {
        // Another program may have an items.jsonl too; ours can be read.
        match read(&old_items) {
            Ok(records) => records.into_iter().map(|record| record.image).collect(),
            Err(Error::Line { .. }) => return Err(Error::NotOurs(out_dir.to_owned())),
            Err(error) => return Err(error),
        }
    } else if names.is_empty() || holds(STAGING) {
        names
    } else {
        return Err(Error::NotOurs(out_dir.to_owned()));
    };

    let staging = out_dir.join(STAGING);
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(at(&staging))?;
    }
    fs::create_dir(&staging).map_err(at(&staging))?;
    let result = write_staged(config, split, seed, count, &staging, &mut progress);
    if result.is_err() {
        // The first error is the one worth telling.
        let _ = fs::remove_dir_all(&staging);
        return result;
    }

    // The old pictures go, the new ones come, and the list last.
    if old_items.exists() {
        fs::remove_file(&old_items).map_err(at(&old_items))?;
    }
    for name in old_images.iter().filter(|name| is_image_name(name)) {
        let path = out_dir.join(name);
        if path.exists() {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    for name in (0..count).map(image_name).chain([ITEMS.to_owned()]) {
        let path = out_dir.join(&name);
        fs::rename(staging.join(&name), &path).map_err(at(&path))?;
    }
    fs::remove_dir(&staging).map_err(at(&staging))
}

fn write_staged(
    config: &Config,
    split: Split,
    seed: u64,
    count: u64,
    staging: &Path,
    progress: &mut impl FnMut(u64),
) -> Result<(), Error> {
    let items_path = staging.join(ITEMS);
    let items_error = |source| Error::Io {
        path: items_path.clone(),
        source,
    };
    let mut items = io::BufWriter::new(fs::File::create(&items_path).map_err(items_error)?);
    let mut start = 0;
    while start < count {
        let end = (start + CHUNK).min(count);
        let lines: Vec<String> = (start..end)
            .into_par_iter()
            .map(|index| {
                let item = generate(config, split, seed, index);
                let path = staging.join(image_name(index));
                fs::write(&path, item.picture.to_png())
                    .map_err(|source| Error::Io { path, source })?;
                Ok(to_line(&Record::new(&item, split, seed, index)))
            })
            .collect::<Result<_, Error>>()?;
        for line in lines {
            items.write_all(line.as_bytes()).map_err(items_error)?;
        }
        start = end;
        progress(start);
    }
    let file = items
        .into_inner()
        .map_err(|error| items_error(error.into_error()))?;
    file.sync_all().map_err(items_error)
}

/// A record as a line with its line break.
pub(crate) fn to_line(record: &Record) -> String {
    serde_json::to_string(record).expect("records are plain strings and numbers") + "\n"
}

fn list(dir: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn is_image_name(name: &str) -> bool {
    name.strip_suffix(".png")
        .is_some_and(|stem| stem.len() >= 6 && stem.bytes().all(|b| b.is_ascii_digit()))
}
