//! Descriptions in JSON: one object a line, or one list.

use serde_json::{Map, Value};

use super::archive::Archive;
use crate::Error;
use crate::error::one_line;

/// A record while its fields are taken out.
pub(super) struct Fields<'a> {
    place: &'a str,
    /// From 1: the line, or the place in a list.
    number: usize,
    object: Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(place: &'a str, number: usize, object: Map<String, Value>) -> Self {
        Self {
            place,
            number,
            object,
        }
    }

    pub(super) fn wrong(&self, field: &str, expected: &str, found: String) -> Error {
        wrong(self.place, self.number, field, expected, &found)
    }

    pub(super) fn take(&mut self, field: &str) -> Value {
        self.object.remove(field).unwrap_or(Value::Null)
    }

    /// A text, which must be there.
    pub(super) fn text(&mut self, field: &str) -> Result<String, Error> {
        let value = self.take(field);
        self.as_text(field, value)
    }

    pub(super) fn as_text(&self, field: &str, value: Value) -> Result<String, Error> {
        match value {
            Value::String(text) => Ok(text),
            Value::Null => Err(self.wrong(field, "a string", "none".to_owned())),
            other => Err(self.wrong(field, "a string", other.to_string())),
        }
    }

    /// A list of texts with at least one.
    pub(super) fn texts(&mut self, field: &str) -> Result<Vec<String>, Error> {
        let list = match self.take(field) {
            Value::Array(list) if !list.is_empty() => list,
            other => {
                return Err(self.wrong(field, "a list of one string or more", other.to_string()));
            }
        };
        let texts = list.into_iter().enumerate();
        texts
            .map(|(i, text)| self.as_text(&format!("{field}[{i}]"), text))
            .collect()
    }

    /// The name of a picture that is there.
    pub(super) fn picture(&mut self, field: &str, archive: &Archive) -> Result<String, Error> {
        let text = self.text(field)?;
        self.as_picture(field, &text, archive)
    }

    pub(super) fn as_picture(
        &self,
        field: &str,
        text: &str,
        archive: &Archive,
    ) -> Result<String, Error> {
        let name = Archive::name_inside(text)
            .map_err(|expected| self.wrong(field, expected, format!("{text:?}")))?;
        if !archive.contains(&name) {
            let found = format!("{text:?}, which is not in {}", archive.path().display());
            return Err(self.wrong(field, "a picture of the data set", found));
        }
        Ok(name)
    }
}

pub(super) fn wrong(place: &str, line: usize, field: &str, expected: &str, found: &str) -> Error {
    Error::Record {
        name: place.to_owned(),
        line,
        field: field.to_owned(),
        expected: expected.to_owned(),
        found: one_line(found),
    }
}

/// Each line's object of `bytes`, empty lines left out.
pub(super) fn objects<T>(
    place: &str,
    bytes: &[u8],
    mut each: impl FnMut(Fields) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let lines = bytes.split(|&b| b == b'\n').enumerate();
    lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(i, line)| {
            let object = serde_json::from_slice(line)
                .map_err(|e| wrong(place, i + 1, "record", "a JSON object", &e.to_string()))?;
            each(Fields::new(place, i + 1, object))
        })
        .collect()
}
