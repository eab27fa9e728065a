//! Emoji of Google's Noto font: `emoji.jsonl` of `{"image", "name", "keywords", "category"}`.

use super::archive::Archive;
use super::lines::objects;
use super::set::Record;
use crate::Error;
use serde_json::Value;

pub(super) const FILE_NAME: &str = "emoji.jsonl";

/// The records: the name is the first caption, and the name with its keywords is the second, where there are any.
pub(super) fn records(archive: &Archive) -> Result<Vec<Record>, Error> {
    let bytes = archive.description(FILE_NAME)?;
    objects(&archive.place(FILE_NAME), &bytes, |mut fields| {
        let picture = fields.picture("image", archive)?;
        let name = fields.text("name")?;
        let keywords = match fields.take("keywords") {
            Value::Null => Vec::new(),
            Value::Array(list) => (list.into_iter().enumerate())
                .map(|(i, word)| fields.as_text(&format!("keywords[{i}]"), word))
                .collect::<Result<_, _>>()?,
            other => return Err(fields.wrong("keywords", "a list of strings", other.to_string())),
        };
        let mut captions = vec![name.clone()];
        if !keywords.is_empty() {
            let words: Vec<String> = keywords.iter().map(|w| w.replace('_', " ")).collect();
            captions.push(format!("{name}: {}", words.join(", ")));
        }
        Ok(Record {
            group: picture.clone(),
            pictures: vec![picture],
            captions,
            ..Record::default()
        })
    })
}
