//! The safetensors format (<https://github.com/huggingface/safetensors>): reading strictly, writing whole.

use super::Error;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};

/// The number type that weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreDtype {
    /// 32-bit float, exact.
    F32,
    /// bfloat16, rounded to nearest even.
    Bf16,
}

/// The tensors of a checkpoint, each of which can be taken once.
pub struct Checkpoint {
    name: String,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    metadata: HashMap<String, String>,
}

fn format_error(name: &str, reason: impl Into<String>) -> Error {
    Error::Format {
        name: name.to_owned(),
        reason: reason.into(),
    }
}

impl Checkpoint {
    /// Reads the bytes of a safetensors file; `name` stands for it in errors.
    ///
    /// # Errors
    /// A broken header, a number type that is no float, or a value that is not finite.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, Error> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| format_error(name, format!("expected a safetensors file, found {e}")))?;
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|e| format_error(name, format!("expected a safetensors header, found {e}")))?;
        let mut tensors = BTreeMap::new();
        for (key, view) in file.iter() {
            let values = floats(&view)
                .map_err(|found| format_error(name, format!("{key}: expected {found}")))?;
            if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
                return Err(format_error(
                    name,
                    format!("{key}: expected finite weights, found {bad}"),
                ));
            }
            tensors.insert(key.to_owned(), (view.shape().to_vec(), values));
        }
        Ok(Self {
            name: name.to_owned(),
            tensors,
            metadata: header.metadata().clone().unwrap_or_default(),
        })
    }

    /// What the checkpoint is called in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The string map of the file's header.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// The names of the tensors that nobody took, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor that nobody took.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(shape, _)| shape.as_slice())
    }

    /// Takes a tensor out; the error is one line of the difference to what the model asks for.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        match self.tensors.remove(name) {
            None => Err(format!("- {name} {shape:?}")),
            Some((found, _)) if found != shape => {
                Err(format!("! {name}: expected {shape:?}, found {found:?}"))
            }
            Some((_, values)) => Ok(values),
        }
    }

    /// The tensors that nobody took, to be renamed.
    pub(super) fn tensors_mut(&mut self) -> &mut BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        &mut self.tensors
    }

    /// One line for each tensor that nobody took.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        self.tensors
            .iter()
            .map(|(name, (shape, _))| format!("+ {name} {shape:?}"))
    }
}

fn floats(view: &TensorView) -> Result<Vec<f32>, String> {
    let data = view.data();
    Ok(match view.dtype() {
        Dtype::F32 => data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        Dtype::BF16 => data
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| bf16::from_le_bytes(*b).to_f32())
            .collect(),
        Dtype::F16 => data
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| f16::from_le_bytes(*b).to_f32())
            .collect(),
        other => return Err(format!("F32, BF16 or F16, found {other:?}")),
    })
}

/// The bytes of a safetensors file, the same for the same weights.
///
/// `metadata` is one pair, because the format's header is a map whose order is not kept.
///
/// # Errors
/// A shape that does not fit its values.
pub fn to_bytes(
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    dtype: StoreDtype,
    metadata: Option<(&str, &str)>,
) -> Result<Vec<u8>, Error> {
    let stored: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = match dtype {
                StoreDtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                StoreDtype::Bf16 => values
                    .iter()
                    .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
                    .collect(),
            };
            (name, shape, bytes)
        })
        .collect();
    let dtype = match dtype {
        StoreDtype::F32 => Dtype::F32,
        StoreDtype::Bf16 => Dtype::BF16,
    };
    let mut views = Vec::with_capacity(stored.len());
    for (name, shape, bytes) in &stored {
        let view = TensorView::new(dtype, (*shape).clone(), bytes)
            .map_err(|e| format_error(name, format!("cannot be stored: {e}")))?;
        views.push((name.as_str(), view));
    }
    let header = metadata.map(|(key, value)| HashMap::from([(key.to_owned(), value.to_owned())]));
    safetensors::serialize(views, header).map_err(|e| format_error("checkpoint", e.to_string()))
}
