//! Cornell NLVR (Suhr et al., "A corpus of natural language for visual reasoning", 2017): `examples.jsonl` of
//! `{"identifier", "sentence", "label", "images"}`, where the pictures show the same three boxes in six orders.
//!
//! Ours have questions as well, in the field `qa` as in [`super::items`].
//!
//! The number before the dash of an identifier is the sentence's: several scenes may share one, and stay together.

use super::archive::Archive;
use super::items::question_answers;
use super::lines::objects;
use super::set::{Record, Statement};
use crate::Error;

pub(super) const FILE_NAME: &str = "examples.jsonl";

/// Where the pictures lie.
const PICTURES: &str = "images";

pub(super) fn records(archive: &Archive) -> Result<Vec<Record>, Error> {
    let bytes = archive.description(FILE_NAME)?;
    objects(&archive.place(FILE_NAME), &bytes, |mut fields| {
        let identifier = fields.text("identifier")?;
        let text = fields.text("sentence")?;
        let truth = match fields.text("label")?.to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            other => return Err(fields.wrong("label", "true or false", format!("{other:?}"))),
        };
        let names = fields.texts("images")?;
        let pictures = names.iter().enumerate().map(|(i, name)| {
            fields.as_picture(
                &format!("images[{i}]"),
                &format!("{PICTURES}/{name}"),
                archive,
            )
        });
        let pictures = pictures.collect::<Result<_, _>>()?;
        let questions = question_answers(Some(fields.take("qa")))
            .map_err(|(field, expected, found)| fields.wrong(&field, expected, found))?;
        let group = identifier.split('-').next().unwrap_or(&identifier);
        Ok(Record {
            pictures,
            group: group.to_owned(),
            statement: Some(Statement { text, truth }),
            questions,
            ..Record::default()
        })
    })
}
