//! A model against its reference implementation: golden files, and how far apart the numbers are.
//!
//! A golden file is a safetensors file with the arguments of the reference's forward pass as `in.NAME` and its results as
//! `out.NAME`. [`Vlm::verify`] computes every result and compares it.

use crate::vlm::PictureBatch;
use crate::{Error, Vlm};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;
use std::path::Path;
use vlm_data::image::{self, Image, Limits};
use vlm_models::reference::{Inputs, Numbers, Outputs, Value};

/// Differences up to this share of an output's largest value are taken for rounding.
pub const TOLERANCE: f64 = 1e-4;

/// Arguments and results of a reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// Tensors named `in.`, without that.
    pub inputs: BTreeMap<String, Value>,
    /// Tensors named `out.`, without that.
    pub outputs: BTreeMap<String, Value>,
    /// Names of other tensors, such as gradients, which are not compared.
    pub others: Vec<String>,
    /// What the file says of itself, where it does.
    pub about: Option<String>,
}

impl Golden {
    /// Reads a golden file.
    ///
    /// # Errors
    /// A file that cannot be read or is no safetensors file; a tensor of a number type that is not understood; no result
    /// to compare.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let refuse = |expected: &str, found: String| Error::Model {
            place: name.clone(),
            expected: expected.to_owned(),
            found,
        };
        let is_file = std::fs::metadata(path).map(|m| m.is_file());
        if let Ok(false) = is_file {
            return Err(refuse("a golden file", "no regular file".to_owned()));
        }
        let bytes = std::fs::read(path).map_err(|e| refuse("a golden file", e.to_string()))?;
        Self::parse(&bytes, &name)
    }

    fn parse(bytes: &[u8], name: &str) -> Result<Self, Error> {
        let refuse = |expected: &str, found: String| Error::Model {
            place: name.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let broken = |e: safetensors::SafeTensorError| refuse("a safetensors file", e.to_string());
        let file = SafeTensors::deserialize(bytes).map_err(broken)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let metadata = header.metadata().as_ref();
        let mut golden = Self {
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            others: Vec::new(),
            about: metadata.and_then(|m| m.get("golden")).cloned(),
        };
        for (key, view) in file.iter() {
            let (tensors, short) = match (key.strip_prefix("in."), key.strip_prefix("out.")) {
                (Some(short), _) => (&mut golden.inputs, short),
                (_, Some(short)) => (&mut golden.outputs, short),
                _ => {
                    golden.others.push(key.to_owned());
                    continue;
                }
            };
            let numbers = numbers(&view).ok_or_else(|| {
                let found = format!("{key} of {:?}", view.dtype());
                refuse("floats, integers or booleans", found)
            })?;
            let shape = view.shape().to_vec();
            tensors.insert(short.to_owned(), Value { shape, numbers });
        }
        if golden.outputs.is_empty() {
            let found = match golden.others.first() {
                Some(other) => format!("none, but {other}"),
                None => "none".to_owned(),
            };
            return Err(refuse("a tensor named out.NAME", found));
        }
        Ok(golden)
    }
}

fn numbers(view: &TensorView) -> Option<Numbers> {
    fn floats<const N: usize>(data: &[u8], number: fn([u8; N]) -> f32) -> Numbers {
        let numbers = data.as_chunks::<N>().0.iter();
        Numbers::Floats(numbers.map(|bytes| number(*bytes)).collect())
    }
    fn integers<const N: usize>(data: &[u8], number: fn([u8; N]) -> i64) -> Numbers {
        let numbers = data.as_chunks::<N>().0.iter();
        Numbers::Integers(numbers.map(|bytes| number(*bytes)).collect())
    }
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F64 => floats(data, |b| f64::from_le_bytes(b) as f32),
        Dtype::F32 => floats(data, f32::from_le_bytes),
        Dtype::F16 => floats(data, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => floats(data, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::I64 => integers(data, i64::from_le_bytes),
        Dtype::I32 => integers(data, |b| i32::from_le_bytes(b).into()),
        Dtype::I16 => integers(data, |b| i16::from_le_bytes(b).into()),
        Dtype::I8 => integers(data, |b| i8::from_le_bytes(b).into()),
        // ids beyond 2^63 occur in no model
        Dtype::U64 => integers(data, |b| {
            u64::from_le_bytes(b).try_into().unwrap_or(i64::MAX)
        }),
        Dtype::U32 => integers(data, |b| u32::from_le_bytes(b).into()),
        Dtype::U16 => integers(data, |b| u16::from_le_bytes(b).into()),
        Dtype::U8 | Dtype::BOOL => integers(data, |[b]: [u8; 1]| b.into()),
        _ => return None,
    })
}

/// How one output compares.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The output's name.
    pub name: String,
    /// The reference's shape.
    pub shape: Vec<usize>,
    /// The largest absolute difference, where it can be said.
    pub max_abs: Option<f64>,
    /// That as a share of the reference's largest value, where it can be said.
    pub max_rel: Option<f64>,
    /// Why the output is not the reference's; none if it is.
    pub failure: Option<String>,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// One for each output of the golden file, in the order of their names.
    pub comparisons: Vec<Comparison>,
    /// Arguments that the family does not know, which were ignored.
    pub ignored: Vec<String>,
}

impl Verification {
    /// Whether every output is the reference's.
    pub fn is_equal(&self) -> bool {
        self.comparisons.iter().all(|c| c.failure.is_none())
    }
}

/// Compares a result with the reference's. Floats may differ by `tolerance` times the largest value of the reference's
/// tensor and by `slack` beside that, integers not at all.
fn compare(
    name: &str,
    expected: &Value,
    found: Option<&Value>,
    tolerance: f64,
    slack: f64,
) -> Comparison {
    let mut comparison = Comparison {
        name: name.to_owned(),
        shape: expected.shape.clone(),
        max_abs: None,
        max_rel: None,
        failure: None,
    };
    let Some(found) = found else {
        comparison.failure = Some("the model does not produce it from these inputs".to_owned());
        return comparison;
    };
    // a single number may come with or without a dimension
    let squeezed = |v: &Value| match v.shape.as_slice() {
        [1] => Vec::new(),
        shape => shape.to_vec(),
    };
    if squeezed(expected) != squeezed(found) {
        let shapes = (&expected.shape, &found.shape);
        comparison.failure = Some(format!(
            "expected shape {:?}, found {:?}",
            shapes.0, shapes.1
        ));
        return comparison;
    }
    let exact = [expected, found]
        .iter()
        .any(|v| matches!(v.numbers, Numbers::Integers(_)));
    let (expected, found) = (as_floats(expected), as_floats(found));
    let (mut largest, mut max_abs) = (0.0f64, 0.0f64);
    for (i, (&e, &f)) in expected.iter().zip(&found).enumerate() {
        if e.is_nan() || f.is_nan() {
            let who = if f.is_nan() { "found" } else { "expected" };
            comparison.failure = Some(format!("NaN {who} at {i}"));
            return comparison;
        }
        // masks hold infinities, which equal each other
        if e == f {
            if e.is_finite() {
                largest = largest.max(e.abs());
            }
            continue;
        }
        largest = largest.max(if e.is_finite() { e.abs() } else { 0.0 });
        max_abs = max_abs.max((e - f).abs());
    }
    // a tensor of zeros has no scale of its own
    let scale = if largest > 0.0 { largest } else { 1.0 };
    comparison.max_abs = Some(max_abs);
    comparison.max_rel = Some(max_abs / scale);
    comparison.failure = if exact && max_abs > 0.0 {
        let differing = expected.iter().zip(&found).filter(|(e, f)| e != f).count();
        Some(format!("{differing} of {} integers differ", expected.len()))
    } else if !exact && max_abs > tolerance * scale + slack {
        Some(format!("beyond the tolerance {tolerance:.0e}"))
    } else {
        None
    };
    comparison
}

/// In `f64`, which holds every id and every f32 exactly.
fn as_floats(value: &Value) -> Vec<f64> {
    match &value.numbers {
        Numbers::Floats(v) => v.iter().map(|&x| x.into()).collect(),
        Numbers::Integers(v) => v.iter().map(|&x| x as f64).collect(),
    }
}

/// Bytes of encoded pictures or of text: `NAME`, or `NAME.0`, `NAME.1` and so on.
fn take_bytes(inputs: &mut BTreeMap<String, Value>, name: &str) -> Result<Vec<Vec<u8>>, Error> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for key in inputs.keys() {
        if let Some(rest) = key.strip_prefix(name) {
            let place = match rest.strip_prefix('.') {
                Some(number) => number.parse().ok(),
                None if rest.is_empty() => Some(0),
                None => None,
            };
            found.extend(place.map(|place| (place, key.clone())));
        }
    }
    found.sort();
    let each = found.into_iter().map(|(_, key)| {
        let value = inputs.remove(&key).expect("a key of the map");
        let bytes = match &value.numbers {
            Numbers::Integers(v) => v.iter().map(|&b| u8::try_from(b).ok()).collect(),
            Numbers::Floats(_) => None,
        };
        bytes.ok_or_else(|| Error::Model {
            place: format!("in.{key}"),
            expected: "bytes".to_owned(),
            found: "other numbers".to_owned(),
        })
    });
    each.collect()
}

impl Vlm {
    /// Computes what a golden file has results for, and compares.
    ///
    /// Encoded pictures (`image_bytes`) go through the model's own processor and text (`text_utf8`) through its
    /// tokenizer; what they give is compared where the file has it and is read by the model where the file has no
    /// `pixel_values` or `input_ids` of its own. Pixels may differ by one grey level, those of a JPEG by two, because
    /// decoders do.
    ///
    /// # Errors
    /// Inputs that the model refuses, a processor or tokenizer that is asked for and missing, or a family without a
    /// reference implementation.
    pub fn verify(&self, golden: &Golden, tolerance: f64) -> Result<Verification, Error> {
        let mut inputs = golden.inputs.clone();
        let mut prepared = Outputs::new();
        let mut pixel_slack = 0.0;
        let pictures = take_bytes(&mut inputs, "image_bytes")?;
        if !pictures.is_empty() {
            pixel_slack = self.prepare_pictures(&pictures, &mut prepared)?;
        }
        let texts = take_bytes(&mut inputs, "text_utf8")?;
        if !texts.is_empty() {
            self.prepare_texts(&texts, golden, &mut prepared)?;
        }
        for (name, value) in &prepared {
            inputs.entry(name.clone()).or_insert_with(|| value.clone());
        }
        if let Some((name, value)) = inputs.iter().find(|(_, v)| v.shape.contains(&0)) {
            return Err(Error::Model {
                place: format!("in.{name}"),
                expected: "at least one number".to_owned(),
                found: format!("shape {:?}", value.shape),
            });
        }
        let inputs = Inputs::new(inputs);
        let needs_model = golden.outputs.keys().any(|k| !prepared.contains_key(k));
        let mut outputs = Outputs::new();
        if needs_model {
            outputs = self.model().reference()?.outputs(&inputs)?;
        }
        let unread = inputs.unread().into_iter();
        let ignored = unread.filter(|name| !prepared.contains_key(*name));
        let ignored = ignored.map(str::to_owned).collect();
        outputs.extend(prepared.clone());
        let each = golden.outputs.iter().map(|(name, expected)| {
            let pixels = name == PIXELS && prepared.contains_key(name);
            let slack = if pixels { pixel_slack } else { 0.0 };
            compare(name, expected, outputs.get(name), tolerance, slack)
        });
        Ok(Verification {
            comparisons: each.collect(),
            ignored,
        })
    }

    /// Encoded pictures as `pixel_values` and what goes with them; tells by how much a pixel may differ.
    fn prepare_pictures(&self, files: &[Vec<u8>], prepared: &mut Outputs) -> Result<f64, Error> {
        let limits = Limits::default();
        let each = files.iter().enumerate();
        let images: Vec<Image> = each
            .map(|(i, bytes)| image::decode(bytes, &format!("in.image_bytes.{i}"), &limits))
            .collect::<Result<_, _>>()?;
        let images: Vec<&Image> = images.iter().collect();
        let processor = self.processor()?;
        let integers = |shape: &[usize], numbers: Vec<i64>| Value {
            shape: shape.to_vec(),
            numbers: Numbers::Integers(numbers),
        };
        let count = images.len();
        let (shape, data) = match PictureBatch::new(processor, &images)? {
            PictureBatch::Fixed {
                shape: [c, h, w],
                data,
            } => (vec![count, c, h, w], data),
            PictureBatch::Patches {
                patches,
                spatial_shapes,
                mask,
                data,
            } => {
                let mask = mask.into_iter().map(i64::from).collect();
                let mask = integers(&[count, patches], mask);
                prepared.insert("pixel_attention_mask".to_owned(), mask);
                let sides = spatial_shapes.iter().flatten().map(|&s| s as i64).collect();
                prepared.insert("spatial_shapes".to_owned(), integers(&[count, 2], sides));
                (vec![count, patches, data.len() / (count * patches)], data)
            }
        };
        let numbers = Numbers::Floats(data);
        prepared.insert(PIXELS.to_owned(), Value { shape, numbers });
        let is_jpeg = files.iter().any(|f| f.starts_with(&[0xff, 0xd8]));
        let config = processor.config();
        let (_, std) = config.normalize.unwrap_or(([0.0; 3], [1.0; 3]));
        let narrowest = std.into_iter().map(f64::abs).fold(f64::INFINITY, f64::min);
        let level = config.rescale.unwrap_or(1.0).abs() / narrowest;
        Ok(level * if is_jpeg { 2.0 } else { 1.0 })
    }

    /// Texts as `input_ids` and `attention_mask`. How long rows are is an argument of the reference's call, which the
    /// golden file tells by its shapes.
    fn prepare_texts(
        &self,
        texts: &[Vec<u8>],
        golden: &Golden,
        prepared: &mut Outputs,
    ) -> Result<(), Error> {
        let texts: Vec<&str> = texts
            .iter()
            .map(|bytes| {
                std::str::from_utf8(bytes).map_err(|e| Error::Model {
                    place: "in.text_utf8".to_owned(),
                    expected: "UTF-8".to_owned(),
                    found: e.to_string(),
                })
            })
            .collect::<Result<_, _>>()?;
        let asked = ["input_ids", "attention_mask"];
        let asked = asked.iter().find_map(|name| golden.outputs.get(*name));
        let length = asked.and_then(|value| value.shape.last().copied());
        let tokens = self.text()?.tokens_of_length(&texts, length)?;
        prepared.insert("input_ids".to_owned(), Value::ids(tokens.rows()));
        let mask: Vec<Vec<u32>> = tokens
            .mask()
            .iter()
            .map(|row| row.iter().map(|&token| token.into()).collect())
            .collect();
        prepared.insert("attention_mask".to_owned(), Value::ids(&mask));
        Ok(())
    }
}

const PIXELS: &str = "pixel_values";
