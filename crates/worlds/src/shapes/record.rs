//! Items as lines of `items.jsonl`.

use std::io::BufRead;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Background, Item, Object, Qa, RelationFact, Scene, Split};
use crate::Error;

/// An item without its pixels, as written to `items.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// File name of the picture, beside `items.jsonl`.
    pub image: String,
    /// Pixels in a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// The split it belongs to.
    pub split: Split,
    /// The seed it was made from.
    pub seed: u64,
    /// Its number in the split.
    pub index: u64,
    /// The colour behind the objects.
    pub background: Background,
    /// Wordings of what the picture shows.
    pub captions: Vec<String>,
    /// Questions with answers.
    pub qa: Vec<Qa>,
    /// The objects from back to front.
    pub objects: Vec<Object>,
    /// Every relation that clearly holds.
    pub relations: Vec<RelationFact>,
}

impl Record {
    /// The record of an item.
    pub fn new(item: &Item, split: Split, seed: u64, index: u64) -> Record {
        Record {
            image: image_name(index),
            width: item.picture.width,
            height: item.picture.height,
            split,
            seed,
            index,
            background: item.scene.background,
            captions: item.captions.clone(),
            qa: item.qa.iter().map(Qa::without_working).collect(),
            objects: item.scene.objects.clone(),
            relations: item.scene.relations.clone(),
        }
    }

    /// The truth about the picture, for [`super::facts::score`].
    pub fn scene(&self) -> Scene {
        Scene {
            background: self.background,
            objects: self.objects.clone(),
            relations: self.relations.clone(),
        }
    }
}

/// Name of the picture with this number: `000000.png`.
pub(crate) fn image_name(index: u64) -> String {
    format!("{index:06}.png")
}

/// Reads `items.jsonl` (the file itself or the directory that holds it).
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Line`] for a line that is not a record.
pub fn read(path: &Path) -> Result<Vec<Record>, Error> {
    let file_path = if path.is_dir() {
        path.join("items.jsonl")
    } else {
        path.to_owned()
    };
    let io = |source| Error::Io {
        path: file_path.clone(),
        source,
    };
    let file = std::fs::File::open(&file_path).map_err(io)?;
    let mut records = Vec::new();
    for (number, line) in std::io::BufReader::new(file).lines().enumerate() {
        let line = line.map_err(io)?;
        if line.trim().is_empty() {
            continue;
        }
        let record = serde_json::from_str(&line).map_err(|source| Error::Line {
            path: file_path.clone(),
            line: number + 1,
            source,
        })?;
        records.push(record);
    }
    Ok(records)
}
