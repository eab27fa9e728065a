use std::path::Path;

use super::archive::Archive;
use super::items::{self, QuestionAnswer};
use super::objects::BoxedObject;
use super::{caltech, easy_vqa, emoji, flickr, gtsrb, nlvr};
use crate::Error;
use crate::image::{Image, Limits};

/// How a data set is described; the name of the file that does it tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `items.jsonl`: captions and questions, as `vlm world` writes them.
    Items,
    /// `labels.jsonl` with `label`: photographs of Caltech-101, or any labelled pictures.
    Caltech,
    /// `labels.jsonl` with `class_id`: the German traffic sign recognition benchmark.
    Gtsrb,
    /// `emoji.jsonl`: names and keywords of emoji.
    Emoji,
    /// `captions.jsonl`: photographs with several captions each.
    Flickr,
    /// `train/questions.json` and `test/questions.json`: easy-VQA.
    EasyVqa,
    /// `examples.jsonl`: sentences that are true or false of pictures of three boxes (Cornell NLVR).
    Nlvr,
}

/// A picture, or several of which the same is said, with what that is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Names of the picture's files in the set; any one of them stands for the record.
    pub pictures: Vec<String>,
    /// Sentences that each describe the picture.
    pub captions: Vec<String>,
    /// What it is, in words that go into a template.
    pub label: Option<String>,
    /// Questions with answers.
    pub questions: Vec<QuestionAnswer>,
    /// What is true or false of it.
    pub statement: Option<Statement>,
    /// What is where in it.
    pub objects: Vec<BoxedObject>,
    /// Its width and height, where the description says them.
    pub size: Option<[u32; 2]>,
    /// Records of one group show the same thing, such as one traffic sign on the frames of a track, and are never split
    /// up.
    pub group: String,
    /// The part that the authors put it in, such as `test`; empty where there are no parts.
    pub part: String,
}

/// A sentence and whether it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The sentence.
    pub text: String,
    /// Whether it is true of the picture.
    pub truth: bool,
}

/// Pictures with what is said about them.
#[derive(Debug)]
pub struct Set {
    archive: Archive,
    format: Format,
    records: Vec<Record>,
    templates: &'static [&'static str],
}

impl Set {
    /// Opens a directory or a tar without compression that one of the known files describes:
    ///
    /// | file | a record is |
    /// |---|---|
    /// | `items.jsonl` | `{"image", "captions", "qa", "label", "objects"}`, see [`items`] |
    /// | `labels.jsonl` | `{"image", "label"}`, or with `class_id` of the German traffic signs |
    /// | `emoji.jsonl` | `{"image", "name", "keywords", "category"}` |
    /// | `captions.jsonl` | `{"image", "captions"}` |
    /// | `train/questions.json`, `test/questions.json` | `[question, answer, number of the picture]` in a list |
    /// | `examples.jsonl` | `{"identifier", "sentence", "label", "images"}`, also with `qa` |
    ///
    /// # Errors
    /// None of these files; a record that is not so, which is named by file, line and field, one whose picture is missing
    /// included.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let archive = Archive::open(path)?;
        let (format, records) = if archive.contains(items::FILE_NAME) {
            (Format::Items, of_items(&archive)?)
        } else if archive.contains(caltech::FILE_NAME) {
            let bytes = archive.description(caltech::FILE_NAME)?;
            if gtsrb::is_of(&bytes) {
                (Format::Gtsrb, gtsrb::records(&archive, &bytes)?)
            } else {
                (Format::Caltech, caltech::records(&archive, &bytes)?)
            }
        } else if archive.contains(emoji::FILE_NAME) {
            (Format::Emoji, emoji::records(&archive)?)
        } else if archive.contains(flickr::FILE_NAME) {
            (Format::Flickr, flickr::records(&archive)?)
        } else if archive.contains(nlvr::FILE_NAME) {
            (Format::Nlvr, nlvr::records(&archive)?)
        } else if easy_vqa::is_in(&archive) {
            (Format::EasyVqa, easy_vqa::records(&archive)?)
        } else {
            return Err(Error::Missing {
                name: path.display().to_string(),
                expected: [
                    items::FILE_NAME,
                    caltech::FILE_NAME,
                    emoji::FILE_NAME,
                    flickr::FILE_NAME,
                    nlvr::FILE_NAME,
                    "train/questions.json",
                ]
                .join(", "),
            });
        };
        if records.is_empty() {
            return Err(Error::Empty {
                name: path.display().to_string(),
                expected: "one record or more",
            });
        }
        let templates = match format {
            Format::Gtsrb => &gtsrb::TEMPLATES[..],
            _ => &[],
        };
        Ok(Self {
            archive,
            format,
            records,
            templates,
        })
    }

    /// How it is described.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The files.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// What its pictures show, in the order of the description.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Sentences with `{}` for a label that suit its labels; none where the family's usual one does.
    pub fn templates(&self) -> &'static [&'static str] {
        self.templates
    }

    /// Every label once, in the order of the alphabet.
    pub fn labels(&self) -> Vec<&str> {
        let labels = self.records.iter().filter_map(|r| r.label.as_deref());
        let labels: std::collections::BTreeSet<&str> = labels.collect();
        labels.into_iter().collect()
    }

    /// A picture of a record.
    ///
    /// # Errors
    /// A file that is missing, or that is no picture.
    pub fn picture(&self, name: &str, limits: &Limits) -> Result<Image, Error> {
        self.archive.picture(name, limits)
    }
}

fn of_items(archive: &Archive) -> Result<Vec<Record>, Error> {
    let items = items::read_from(archive)?.into_iter();
    let records = items.map(|item| {
        let name = item.image.strip_prefix(archive.path());
        let name = name.unwrap_or(&item.image).to_string_lossy();
        let name = Archive::name_inside(&name).unwrap_or_else(|_| name.into_owned());
        if !archive.contains(&name) {
            return Err(Error::Io {
                name: archive.place(&name),
                action: "read",
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        let label = item.extra.get("label").and_then(|l| l.as_str());
        Ok(Record {
            group: name.clone(),
            pictures: vec![name],
            captions: item.captions,
            label: label.map(str::to_owned),
            questions: item.qa,
            objects: item.objects,
            size: item.size,
            ..Record::default()
        })
    });
    records.collect()
}
