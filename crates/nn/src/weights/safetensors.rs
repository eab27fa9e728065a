//! The safetensors format (<https://github.com/huggingface/safetensors>): reading strictly, writing whole.

use super::checkpoint::{Checkpoint, Format};
use super::tensor::{Dtype, Source, Tensor, View, elements, row_major};
use super::{Error, format_error};
use half::bf16;
use safetensors::tensor::{Dtype as FileDtype, TensorView};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// The longest header, as in the reference implementation.
const MAX_HEADER: usize = 100_000_000;

/// The number type that weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreDtype {
    /// 32-bit float, exact.
    F32,
    /// bfloat16, rounded to nearest even.
    Bf16,
}

/// A tensor's entry in the header.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

struct Header {
    metadata: HashMap<String, String>,
    entries: BTreeMap<String, Entry>,
}

/// Reads the header's map by hand, because a name that stands there twice must not go unnoticed.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map of names to tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let twice = |name: &str| A::Error::custom(format!("{name:?} stands there twice"));
        let (mut metadata, mut entries) = (None, BTreeMap::new());
        while let Some(name) = map.next_key::<String>()? {
            let again = if name == "__metadata__" {
                metadata.replace(map.next_value()?).is_some()
            } else {
                entries.insert(name.clone(), map.next_value()?).is_some()
            };
            if again {
                return Err(twice(&name));
            }
        }
        Ok(Header {
            metadata: metadata.unwrap_or_default(),
            entries,
        })
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Whether a file begins as this format does.
pub(super) fn fits(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}

/// The tensors of a file, not yet read.
pub(super) fn parse(source: &Source, name: &str) -> Result<Checkpoint, Error> {
    let error =
        |reason: String| format_error(name, format!("expected safetensors, found {reason}"));
    let bytes = source.bytes();
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(error(format!("{} bytes", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok();
    let header = header.filter(|&length| length <= MAX_HEADER.min(rest.len()));
    let Some(header) = header.map(|length| rest[..length].to_vec()) else {
        return Err(error(format!(
            "a header of {length} bytes in a file of {}; cut short?",
            bytes.len()
        )));
    };
    let parsed: Header =
        serde_json::from_slice(&header).map_err(|e| error(format!("a header with {e}")))?;
    let data = 8 + header.len();

    let mut order: Vec<(&String, &Entry)> = parsed.entries.iter().collect();
    order.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut end = 0;
    for (key, entry) in order {
        if entry.data_offsets.0 != end || entry.data_offsets.1 < end {
            return Err(error(format!(
                "{key:?} at bytes {:?} of the data, behind {end} used ones",
                entry.data_offsets
            )));
        }
        end = entry.data_offsets.1;
    }
    if end != bytes.len() - data {
        return Err(error(format!(
            "{} bytes of data where the header lists {end}; cut short?",
            bytes.len() - data
        )));
    }

    let mut tensors = BTreeMap::new();
    for (key, entry) in parsed.entries {
        let found = |reason: String| error(format!("{key:?} with {reason}"));
        let dtype = Dtype::named(&entry.dtype)
            .ok_or_else(|| found(format!("unknown number type {:?}", entry.dtype)))?;
        let (begin, end) = entry.data_offsets;
        let size = elements(&entry.shape).and_then(|n| n.checked_mul(dtype.size()));
        if size != Some(end - begin) {
            let (shape, size) = (&entry.shape, end - begin);
            return Err(found(format!("shape {shape:?} of {dtype} in {size} bytes")));
        }
        let strides = row_major(&entry.shape);
        let region = (data + begin, data + end);
        let view = View::new(source, region, dtype, 0, entry.shape, strides).map_err(found)?;
        tensors.insert(key, Tensor::from(view));
    }
    let mut checkpoint = Checkpoint::new(name, Format::Safetensors, tensors);
    checkpoint.metadata = parsed.metadata;
    Ok(checkpoint)
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
        StoreDtype::F32 => FileDtype::F32,
        StoreDtype::Bf16 => FileDtype::BF16,
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
