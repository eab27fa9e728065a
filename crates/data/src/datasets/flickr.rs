//! Flickr8k (Hodosh, Young and Hockenmaier, "Framing image description as a ranking task", 2013), or any pictures with
//! captions: `captions.jsonl` of `{"image", "captions"}`.

use super::archive::Archive;
use super::lines::objects;
use super::set::Record;
use crate::Error;

pub(super) const FILE_NAME: &str = "captions.jsonl";

pub(super) fn records(archive: &Archive) -> Result<Vec<Record>, Error> {
    let bytes = archive.description(FILE_NAME)?;
    objects(&archive.place(FILE_NAME), &bytes, |mut fields| {
        let picture = fields.picture("image", archive)?;
        Ok(Record {
            captions: fields.texts("captions")?,
            group: picture.clone(),
            pictures: vec![picture],
            ..Record::default()
        })
    })
}
