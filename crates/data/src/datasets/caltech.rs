//! Caltech-101 (Fei-Fei, Fergus and Perona, "Learning generative visual models from few training examples", 2004), or
//! any pictures with labels: `labels.jsonl` of `{"image", "label"}`.

use super::archive::Archive;
use super::lines::objects;
use super::set::Record;
use crate::Error;

pub(super) const FILE_NAME: &str = "labels.jsonl";

/// The records; `water_lilly` is read as `water lilly`.
pub(super) fn records(archive: &Archive, bytes: &[u8]) -> Result<Vec<Record>, Error> {
    objects(&archive.place(FILE_NAME), bytes, |mut fields| {
        let picture = fields.picture("image", archive)?;
        let label = fields.text("label")?.replace('_', " ");
        Ok(Record {
            group: picture.clone(),
            pictures: vec![picture],
            label: Some(label),
            ..Record::default()
        })
    })
}
