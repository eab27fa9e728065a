//! open_clip's `open_clip_config.json`: the part about pictures.

use serde_json::{Map, Value};

use super::config::{parse_object, parse_size};
use super::{Filter, PreprocessorConfig, ProcessorKind, Size};
use crate::Error;
use crate::error::one_line;

/// Reads `preprocess_cfg`, with the picture size of `model_cfg`, which is what open_clip uses.
pub(super) fn parse(json: &[u8], name: &str) -> Result<PreprocessorConfig, Error> {
    let mut file = parse_object(json, name)?;
    let file = File {
        name,
        image_size: match file.get("model_cfg") {
            Some(Value::Object(model)) => model
                .get("vision_cfg")
                .and_then(|vision| vision.get("image_size"))
                .cloned(),
            _ => None,
        },
        preprocess: match file.remove("preprocess_cfg") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(object)) => object,
            Some(other) => return Err(wrong(name, "", "an object", &other)),
        },
    };
    file.read()
}

fn wrong(name: &str, key: &str, expected: &str, found: &Value) -> Error {
    let dot = if key.is_empty() { "" } else { "." };
    Error::Config {
        name: name.to_owned(),
        key: format!("preprocess_cfg{dot}{key}"),
        expected: expected.to_owned(),
        found: one_line(&found.to_string()),
    }
}

struct File<'a> {
    name: &'a str,
    image_size: Option<Value>,
    preprocess: Map<String, Value>,
}

impl File<'_> {
    fn read(mut self) -> Result<PreprocessorConfig, Error> {
        let mut config = PreprocessorConfig::defaults(ProcessorKind::OpenClip);
        let own_size = self.take("size");
        let size = self.image_size.take().filter(|v| !v.is_null()).or(own_size);
        let (height, width) = match &size {
            None => (224, 224),
            Some(value) => match parse_size(value, true) {
                Some(Size::Exact { height, width }) => (height, width),
                _ => return Err(self.wrong("size", "a positive integer or two of them", value)),
            },
        };
        config.filter = match self.word("interpolation", &["bicubic", "bilinear", "random"])? {
            Some("bilinear") => Filter::Bilinear,
            // `random` is for training.
            _ => Filter::Bicubic,
        };
        config.center_crop = Some((height, width));
        match self.word("resize_mode", &["shortest", "longest", "squash"])? {
            Some("longest") => {
                config.resize = Some(Size::Fitting { height, width });
                let level = self.take("fill_color").unwrap_or(Value::from(0));
                config.fill = level
                    .as_u64()
                    .and_then(|level| u8::try_from(level).ok())
                    .ok_or_else(|| self.wrong("fill_color", "a level of 0 to 255", &level))?;
            }
            Some("squash") => {
                config.resize = Some(Size::Exact { height, width });
                config.center_crop = None;
            }
            _ if height == width => config.resize = Some(Size::ShortestEdge(height)),
            _ => {
                config.resize = Some(Size::Covering { height, width });
                // open_clip does not pass the interpolation on here.
                config.filter = Filter::Bicubic;
            }
        }
        self.take("fill_color");
        let (mean, std) = config.normalize.unwrap_or(([0.0; 3], [1.0; 3]));
        let mean = self.channels("mean")?.unwrap_or(mean);
        let std = self.channels("std")?.unwrap_or(std);
        if std.contains(&0.0) {
            return Err(self.wrong("std", "numbers other than 0", &Value::from(0.0)));
        }
        config.normalize = Some((mean, std));
        self.word("mode", &["RGB"])?;
        // Other keys are filtered out by open_clip itself.
        Ok(config)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.preprocess.remove(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        wrong(self.name, key, expected, found)
    }

    fn word<'w>(&mut self, key: &str, words: &[&'w str]) -> Result<Option<&'w str>, Error> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match words.iter().find(|word| value == **word) {
            Some(word) => Ok(Some(word)),
            None => Err(self.wrong(key, &words.join(", "), &value)),
        }
    }

    fn channels(&mut self, key: &str) -> Result<Option<[f64; 3]>, Error> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let numbers = match &value {
            Value::Number(number) => number.as_f64().map(|n| [n; 3]),
            Value::Array(list) => list
                .iter()
                .map(Value::as_f64)
                .collect::<Option<Vec<f64>>>()
                .and_then(|numbers| numbers.try_into().ok()),
            _ => None,
        };
        match numbers {
            Some(numbers) => Ok(Some(numbers)),
            None => Err(self.wrong(key, "a number or three of them", &value)),
        }
    }
}
