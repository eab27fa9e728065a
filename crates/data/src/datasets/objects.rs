//! Objects with boxes, as a record of `items.jsonl` has them.

use serde_json::{Map, Value};

/// An object of a picture: what it is and where.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxedObject {
    /// What it is.
    pub name: String,
    /// What it is like.
    pub attributes: Vec<String>,
    /// `x1, y1, x2, y2` in pixels, right and lower edge exclusive; not checked against the picture.
    pub corners: [f32; 4],
}

/// Place, what was expected, what was found.
pub(super) type Wrong = (String, &'static str, String);

/// What tells the attributes of an object of a world.
const OF_WORLDS: [&str; 3] = ["colour", "size", "texture"];

/// The objects of a record that have a `box`: their `class`, or as worlds write them `shape`, and their `attributes`, or
/// as worlds write them `colour`, `size` and `texture`.
pub(super) fn of_record(record: &Map<String, Value>) -> Result<Vec<BoxedObject>, Wrong> {
    let Some(Value::Array(list)) = record.get("objects") else {
        return Ok(Vec::new());
    };
    let mut objects = Vec::new();
    for (i, object) in list.iter().enumerate() {
        let place = |field: &str| format!("objects[{i}].{field}");
        let Some(found) = object.get("box") else {
            continue;
        };
        let numbers = found.as_array().into_iter().flatten().map(Value::as_f64);
        let numbers: Option<Vec<f64>> = numbers.collect();
        let corners = numbers.and_then(|n| <[f64; 4]>::try_from(n).ok());
        let Some(corners) = corners else {
            return Err((place("box"), "four numbers", found.to_string()));
        };
        let name = ["class", "shape"]
            .iter()
            .find_map(|key| object.get(key)?.as_str());
        let Some(name) = name else {
            return Err((place("class"), "a string", object.to_string()));
        };
        let attributes = match object.get("attributes") {
            Some(Value::Array(list)) => {
                let each = list.iter().map(|a| a.as_str().map(str::to_owned));
                let all: Option<Vec<String>> = each.collect();
                all.ok_or_else(|| (place("attributes"), "strings", Value::from(list.clone())))
                    .map_err(|(place, expected, found)| (place, expected, found.to_string()))?
            }
            _ => {
                let words = OF_WORLDS.iter().filter_map(|key| object.get(key)?.as_str());
                words.map(str::to_owned).collect()
            }
        };
        objects.push(BoxedObject {
            name: name.to_owned(),
            attributes,
            corners: corners.map(|c| c as f32),
        });
    }
    Ok(objects)
}

/// Width and height of the picture, where a record says them.
pub(super) fn size_of(record: &Map<String, Value>) -> Option<[u32; 2]> {
    let side = |key: &str| record.get(key)?.as_u64()?.try_into().ok();
    Some([side("width")?, side("height")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Vec<BoxedObject>, Wrong> {
        of_record(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn objects_of_worlds_and_of_others_are_read_and_those_without_a_box_left_out() {
        let found = of(
            r#"{"objects": [{"shape": "ring", "colour": "red", "size": "small", "box": [1, 2, 30, 40.5]},
                {"class": "dog", "attributes": ["wet", "brown"], "colour": "x", "box": [0, 0, 1, 1]},
                {"class": "cat"}]}"#,
        )
        .unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].name.as_str(), found[0].corners),
            ("ring", [1.0, 2.0, 30.0, 40.5])
        );
        assert_eq!(found[0].attributes, ["red", "small"]);
        assert_eq!(found[1].attributes, ["wet", "brown"]);
        assert_eq!(of("{}").unwrap(), []);
        for (json, place, expected) in [
            (
                r#"{"objects": [{"class": "a", "box": [1, 2, 3]}]}"#,
                "objects[0].box",
                "four numbers",
            ),
            (
                r#"{"objects": [{"class": "a", "box": "x"}]}"#,
                "objects[0].box",
                "four numbers",
            ),
            (
                r#"{"objects": [{"box": [1, 2, 3, 4]}]}"#,
                "objects[0].class",
                "a string",
            ),
            (
                r#"{"objects": [{"class": "a", "box": [1, 2, 3, 4], "attributes": [1]}]}"#,
                "objects[0].attributes",
                "strings",
            ),
        ] {
            let wrong = of(json).unwrap_err();
            assert_eq!((wrong.0.as_str(), wrong.1), (place, expected));
        }
    }
}
