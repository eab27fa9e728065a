//! The German traffic sign recognition benchmark (Stallkamp et al., "Man vs. computer: benchmarking machine learning
//! algorithms for traffic sign recognition", 2012): `labels.jsonl` of `{"image", "class_id"}`.
//!
//! A picture's name is `CLASS_TRACK_FRAME`, and the frames of a track show one sign while the car drives by: they are
//! nearly the same picture, so a track is never split up.

use super::archive::Archive;
use super::caltech::FILE_NAME;
use super::lines::objects;
use super::set::Record;
use crate::Error;

/// The prompts of CLIP's authors for this set (`data/prompts.md` of their repository).
pub(super) const TEMPLATES: [&str; 3] = [
    "a zoomed in photo of a \"{}\" traffic sign.",
    "a centered photo of a \"{}\" traffic sign.",
    "a close up photo of a \"{}\" traffic sign.",
];

/// Their names of the classes, by `class_id`.
const CLASSES: [&str; 43] = [
    "red and white circle 20 kph speed limit",
    "red and white circle 30 kph speed limit",
    "red and white circle 50 kph speed limit",
    "red and white circle 60 kph speed limit",
    "red and white circle 70 kph speed limit",
    "red and white circle 80 kph speed limit",
    "end / de-restriction of 80 kph speed limit",
    "red and white circle 100 kph speed limit",
    "red and white circle 120 kph speed limit",
    "red and white circle red car and black car no passing",
    "red and white circle red truck and black car no passing",
    "red and white triangle road intersection warning",
    "white and yellow diamond priority road",
    "red and white upside down triangle yield right-of-way",
    "stop",
    "empty red and white circle",
    "red and white circle no truck entry",
    "red circle with white horizonal stripe no entry",
    "red and white triangle with exclamation mark warning",
    "red and white triangle with black left curve approaching warning",
    "red and white triangle with black right curve approaching warning",
    "red and white triangle with black double curve approaching warning",
    "red and white triangle rough / bumpy road warning",
    "red and white triangle car skidding / slipping warning",
    "red and white triangle with merging / narrow lanes warning",
    "red and white triangle with person digging / construction / road work warning",
    "red and white triangle with traffic light approaching warning",
    "red and white triangle with person walking warning",
    "red and white triangle with child and person walking warning",
    "red and white triangle with bicyle warning",
    "red and white triangle with snowflake / ice warning",
    "red and white triangle with deer warning",
    "white circle with gray strike bar no speed limit",
    "blue circle with white right turn arrow mandatory",
    "blue circle with white left turn arrow mandatory",
    "blue circle with white forward arrow mandatory",
    "blue circle with white forward or right turn arrow mandatory",
    "blue circle with white forward or left turn arrow mandatory",
    "blue circle with white keep right arrow mandatory",
    "blue circle with white keep left arrow mandatory",
    "blue circle with white arrow indicating a traffic circle",
    "white circle with gray strike bar indicating no passing for cars has ended",
    "white circle with gray strike bar indicating no passing for trucks has ended",
];

/// Whether the first record has a class of this set.
pub(super) fn is_of(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|&b| b == b'\n');
    let first = lines.find(|line| !line.trim_ascii().is_empty());
    let first = first.and_then(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    first.is_some_and(|record| record.get("class_id").is_some())
}

/// The records; a track is a group, and a picture that is called otherwise is a group of its own.
pub(super) fn records(archive: &Archive, bytes: &[u8]) -> Result<Vec<Record>, Error> {
    objects(&archive.place(FILE_NAME), bytes, |mut fields| {
        let picture = fields.picture("image", archive)?;
        let class = fields.take("class_id");
        let known = class.as_u64().and_then(|c| usize::try_from(c).ok());
        let Some(label) = known.and_then(|class| CLASSES.get(class)) else {
            let expected = format!("a class, 0 to {}", CLASSES.len() - 1);
            return Err(fields.wrong("class_id", &expected, class.to_string()));
        };
        let name = picture.rsplit('/').next().unwrap_or(&picture);
        let parts: Vec<&str> = name.split('_').collect();
        let group = match parts[..] {
            [class, track, _] => format!("{class}_{track}"),
            _ => picture.clone(),
        };
        Ok(Record {
            pictures: vec![picture],
            label: Some((*label).to_owned()),
            group,
            ..Record::default()
        })
    })
}
