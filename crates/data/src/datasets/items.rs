//! A directory of pictures with captions and questions, described by `items.jsonl`.
//!
//! One JSON object a line, as `vlm world` writes it:
//!
//! ```json
//! {"image": "000000.png", "captions": ["a red circle"],
//!  "qa": [{"question": "what colour is the circle?", "answer": "red", "type": "attribute"}]}
//! ```
//!
//! `captions` and `qa` may be absent. `objects` may tell what is where, each with a `box` (`[x1, y1, x2, y2]` in pixels), a
//! `class` and `attributes`, as detectors learn them, or in the words of the world. Further fields are kept as they are.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::archive::Archive;
use super::objects::{self, BoxedObject};
use crate::Error;
use crate::error::one_line;

/// The description's name in a data directory.
pub const FILE_NAME: &str = "items.jsonl";

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 16 << 20;

/// A picture with what is said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The picture's file: the data directory and the path in the record.
    pub image: PathBuf,
    /// Sentences that each describe the picture.
    pub captions: Vec<String>,
    /// Questions with answers.
    pub qa: Vec<QuestionAnswer>,
    /// Its objects, where the record has boxes of them.
    pub objects: Vec<BoxedObject>,
    /// Width and height of the picture, where the record says them.
    pub size: Option<[u32; 2]>,
    /// Every further field of the record, `objects` among them.
    pub extra: Map<String, Value>,
}

/// A question about a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionAnswer {
    /// As a person would ask it.
    pub question: String,
    /// The one right answer.
    pub answer: String,
    /// What kind of question (`count`, `attribute`, …); empty where the record does not say.
    pub kind: String,
}

/// Opens the data directory `directory` and reads its items one after another.
///
/// # Errors
/// [`Error::Io`] where `items.jsonl` cannot be opened. The iterator gives [`Error::Record`] with
/// file, line and field for a record that is not as described above, for one whose picture would lie
/// outside of the directory included, and goes on with the next line.
pub fn open(directory: &Path) -> Result<Items, Error> {
    let path = directory.join(FILE_NAME);
    let file = File::open(&path).map_err(|e| Error::io(&path, "read", e))?;
    Ok(Items::of(directory, Box::new(BufReader::new(file))))
}

/// All items of a data set, whose pictures lie under its path.
pub(super) fn read_from(archive: &Archive) -> Result<Vec<Item>, Error> {
    let bytes = archive.description(FILE_NAME)?;
    Items::of(archive.path(), Box::new(Cursor::new(bytes))).collect()
}

/// All items of a data directory.
///
/// # Errors
/// As [`open`], at the first record in error.
pub fn read(directory: &Path) -> Result<Vec<Item>, Error> {
    open(directory)?.collect()
}

/// Iterator over the items of a directory, made by [`open`].
pub struct Items {
    directory: PathBuf,
    path: PathBuf,
    lines: Box<dyn BufRead + Send>,
    line: usize,
    done: bool,
}

impl std::fmt::Debug for Items {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut items = f.debug_struct("Items");
        items.field("path", &self.path).field("line", &self.line);
        items.finish_non_exhaustive()
    }
}

impl Iterator for Items {
    type Item = Result<Item, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let mut bytes = Vec::new();
            let read = self
                .lines
                .by_ref()
                .take(MAX_LINE + 1)
                .read_until(b'\n', &mut bytes);
            self.line += 1;
            match read {
                Err(source) => {
                    self.done = true;
                    return Some(Err(Error::io(&self.path, "read", source)));
                }
                Ok(0) => self.done = true,
                Ok(_) if bytes.len() as u64 > MAX_LINE => {
                    self.done = true;
                    let found = "a longer one".to_owned();
                    return Some(Err(self.wrong("line", "at most 16 MiB", found)));
                }
                Ok(_) if bytes.trim_ascii().is_empty() => {}
                Ok(_) => return Some(self.parse(&bytes)),
            }
        }
        None
    }
}

impl Items {
    fn of(directory: &Path, lines: Box<dyn BufRead + Send>) -> Self {
        Self {
            directory: directory.to_owned(),
            path: directory.join(FILE_NAME),
            lines,
            line: 0,
            done: false,
        }
    }

    fn wrong(&self, field: &str, expected: &str, found: String) -> Error {
        Error::Record {
            name: self.path.display().to_string(),
            line: self.line,
            field: field.to_owned(),
            expected: expected.to_owned(),
            found: one_line(&found),
        }
    }

    fn parse(&self, line: &[u8]) -> Result<Item, Error> {
        let mut record: Map<String, Value> = serde_json::from_slice(line)
            .map_err(|e| self.wrong("record", "a JSON object", e.to_string()))?;
        let image = record.shift_remove("image").unwrap_or(Value::Null);
        let image = self.text("image", image)?;
        let captions = self.list("captions", record.shift_remove("captions"))?;
        let captions = captions
            .into_iter()
            .enumerate()
            .map(|(i, caption)| self.text(&format!("captions[{i}]"), caption))
            .collect::<Result<_, _>>()?;
        let qa = question_answers(record.shift_remove("qa"))
            .map_err(|(field, expected, found)| self.wrong(&field, expected, found))?;
        let objects = objects::of_record(&record)
            .map_err(|(field, expected, found)| self.wrong(&field, expected, found))?;
        Ok(Item {
            objects,
            size: objects::size_of(&record),
            image: self.inside("image", &image)?,
            captions,
            qa,
            extra: record,
        })
    }

    fn list(&self, field: &str, value: Option<Value>) -> Result<Vec<Value>, Error> {
        match value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(self.wrong(field, "a list", other.to_string())),
        }
    }

    fn text(&self, field: &str, value: Value) -> Result<String, Error> {
        match value {
            Value::String(text) => Ok(text),
            Value::Null => Err(self.wrong(field, "a string", "none".to_owned())),
            other => Err(self.wrong(field, "a string", other.to_string())),
        }
    }

    /// A path of the record under the data directory.
    fn inside(&self, field: &str, relative: &str) -> Result<PathBuf, Error> {
        let name = Archive::name_inside(relative);
        let name = name.map_err(|_| {
            let found = format!("{relative:?}");
            self.wrong(field, "a path inside the data directory", found)
        })?;
        Ok(self.directory.join(name))
    }
}

/// The questions of a record's field `qa`: none, or a list of `{"question", "answer", "type"}`, of which the last may be
/// left out.
///
/// # Errors
/// The field, what was expected there, and what was found.
pub(super) fn question_answers(
    value: Option<Value>,
) -> Result<Vec<QuestionAnswer>, objects::Wrong> {
    let list = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(("qa".to_owned(), "a list", other.to_string())),
    };
    let pairs = list.into_iter().enumerate().map(|(i, pair)| {
        let Value::Object(mut pair) = pair else {
            return Err((format!("qa[{i}]"), "an object", pair.to_string()));
        };
        let mut text = |key: &str| match pair.shift_remove(key) {
            Some(Value::String(text)) => Ok(Some(text)),
            None | Some(Value::Null) => Ok(None),
            Some(other) => Err((format!("qa[{i}].{key}"), "a string", other.to_string())),
        };
        let mut needed = |key: &str| {
            let none = || (format!("qa[{i}].{key}"), "a string", "none".to_owned());
            text(key)?.ok_or_else(none)
        };
        Ok(QuestionAnswer {
            question: needed("question")?,
            answer: needed("answer")?,
            kind: text("type")?.unwrap_or_default(),
        })
    });
    pairs.collect()
}
