//! easy-VQA (Zhou, 2019): pictures of one coloured shape. `train/questions.json` and `test/questions.json` are lists of
//! `[question, answer, number of the picture]`; the pictures are `train/images/NUMBER.png` and so on.

use std::collections::BTreeMap;

use serde_json::Value;

use super::archive::Archive;
use super::items::QuestionAnswer;
use super::lines::{Fields, wrong};
use super::set::Record;
use crate::Error;

const PARTS: [&str; 2] = ["train", "test"];

fn file(part: &str) -> String {
    format!("{part}/questions.json")
}

/// Whether one of the parts is there.
pub(super) fn is_in(archive: &Archive) -> bool {
    PARTS.iter().any(|part| archive.contains(&file(part)))
}

/// A record for each picture, in the order of their numbers, with its questions in the order of the file. Errors count
/// the places of the list as lines.
pub(super) fn records(archive: &Archive) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    for part in PARTS {
        let name = file(part);
        if !archive.contains(&name) {
            continue;
        }
        let place = archive.place(&name);
        let list: Vec<Value> = serde_json::from_slice(&archive.description(&name)?)
            .map_err(|e| wrong(&place, 1, "file", "a JSON list", &e.to_string()))?;
        let mut pictures: BTreeMap<u64, Record> = BTreeMap::new();
        for (i, triple) in list.into_iter().enumerate() {
            let (question, answer, number) = triple_of(&place, i + 1, triple)?;
            let fields = Fields::new(&place, i + 1, serde_json::Map::new());
            let record = match pictures.entry(number) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    let path = format!("{part}/images/{number}.png");
                    let picture = fields.as_picture("[2]", &path, archive)?;
                    new.insert(Record {
                        group: picture.clone(),
                        pictures: vec![picture],
                        part: part.to_owned(),
                        ..Record::default()
                    })
                }
            };
            record.questions.push(QuestionAnswer {
                kind: kind_of(&answer).to_owned(),
                question,
                answer,
            });
        }
        records.extend(pictures.into_values());
    }
    Ok(records)
}

/// What is asked for, told by the answer.
fn kind_of(answer: &str) -> &'static str {
    match answer {
        "yes" | "no" => "yes or no",
        "circle" | "rectangle" | "triangle" => "shape",
        _ => "colour",
    }
}

fn triple_of(place: &str, number: usize, triple: Value) -> Result<(String, String, u64), Error> {
    if let Value::Array(three) = &triple
        && let [Value::String(question), Value::String(answer), picture] = &three[..]
        && let Some(picture) = picture.as_u64()
    {
        return Ok((question.clone(), answer.clone(), picture));
    }
    let expected = "[question, answer, number of a picture]";
    Err(wrong(
        place,
        number,
        "record",
        expected,
        &triple.to_string(),
    ))
}
