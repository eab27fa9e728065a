//! The GGUF container of llama.cpp: metadata and tensors of a model in one file.
//!
//! Written after the format's specification, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2
//! and 3, little-endian. Counts and lengths of the file are checked against its size before anything is allocated for
//! them.

use crate::Error;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// No header of a sensible file is longer; a vocabulary of 256,000 tokens takes about 12 MiB.
const LONGEST_HEADER: u64 = 64 << 20;
/// ggml's limits (`GGML_MAX_DIMS`, `GGML_MAX_NAME` counts the terminating zero; files may be longer).
const MOST_DIMENSIONS: u32 = 4;
const LONGEST_NAME: u64 = 65_535;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any of the integer types.
    Integer(i64),
    /// An unsigned 64-bit integer beyond the signed range.
    Unsigned(u64),
    /// Either of the float types.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// UTF-8.
    String(String),
    /// Numbers and truth values, as floats: exact up to 2^53.
    Numbers(Vec<f64>),
    /// Texts, for example a vocabulary.
    Strings(Vec<String>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Integer(_) | Self::Unsigned(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a truth value",
            Self::String(_) => "a string",
            Self::Numbers(_) => "an array of numbers",
            Self::Strings(_) => "an array of strings",
        }
    }
}

/// Where a tensor lies and how its numbers are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Extents, the slowest first, as NumPy and PyTorch order them (the file has them the other way round).
    pub shape: Vec<usize>,
    /// The number of the storage type (`enum ggml_type`).
    pub ggml_type: u32,
    /// Bytes from the beginning of the file.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
}

/// Block length and bytes per block of the storage types (ggml's `type_traits`).
fn block_size(ggml_type: u32) -> Option<(u64, u64)> {
    Some(match ggml_type {
        0 | 26 => (1, 4),      // F32, I32
        1 | 25 | 30 => (1, 2), // F16, I16, BF16
        24 => (1, 1),          // I8
        27 | 28 => (1, 8),     // I64, F64
        2 => (32, 18),         // Q4_0
        3 => (32, 20),         // Q4_1
        6 => (32, 22),         // Q5_0
        7 => (32, 24),         // Q5_1
        8 => (32, 34),         // Q8_0
        10 => (256, 84),       // Q2_K
        11 => (256, 110),      // Q3_K
        12 => (256, 144),      // Q4_K
        13 => (256, 176),      // Q5_K
        14 => (256, 210),      // Q6_K
        _ => return None,
    })
}

/// A file whose header was read and checked.
#[derive(Debug)]
pub struct Gguf<R = File> {
    name: String,
    reader: BufReader<R>,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf<File> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// A file that cannot be read, that is no GGUF, or whose header contradicts itself or the file's size.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::io(path, "read", e))?;
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            return Err(Error::NotAFile {
                name: path.display().to_string(),
                found: "a directory",
            });
        }
        Self::read(file, &path.display().to_string())
    }
}

impl<R: Read + Seek> Gguf<R> {
    /// Reads the header of anything that can be read and sought; `name` stands for it in errors.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn read(mut source: R, name: &str) -> Result<Self, Error> {
        let io = |source| Error::Io {
            name: name.to_owned(),
            action: "read",
            source,
        };
        let size = source.seek(SeekFrom::End(0)).map_err(io)?;
        source.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut header = Header {
            name,
            reader: BufReader::with_capacity(1 << 16, source),
            at: 0,
            end: size,
            limit: size.min(LONGEST_HEADER),
        };
        let (metadata, tensors) = header.parse()?;
        Ok(Self {
            reader: header.reader,
            name: name.to_owned(),
            metadata,
            tensors,
        })
    }

    /// What the file is called in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything that the header says about the model, by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// The tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Reads the bytes of a tensor.
    ///
    /// # Errors
    /// There is no such tensor, or the file cannot be read (any more).
    pub fn tensor(&mut self, name: &str) -> Result<Vec<u8>, Error> {
        let Some(info) = self.tensors.get(name) else {
            return Err(self.wrong(name, "a tensor", "nothing"));
        };
        let mut bytes = vec![0; info.len];
        let read = self
            .reader
            .seek(SeekFrom::Start(info.offset))
            .and_then(|_| self.reader.read_exact(&mut bytes));
        read.map_err(|source| Error::Io {
            name: format!("{}: {name}", self.name),
            action: "read",
            source,
        })?;
        Ok(bytes)
    }

    /// A text of the metadata.
    ///
    /// # Errors
    /// The key is missing or no text.
    pub fn string(&self, key: &str) -> Result<&str, Error> {
        match self.metadata.get(key) {
            Some(Value::String(text)) => Ok(text),
            other => Err(self.wrong(key, "a string", kind(other))),
        }
    }

    /// A size of the metadata; `default` where the key is missing, if there is one.
    ///
    /// # Errors
    /// The key is missing without a default, or its value is no integer from 0 to 2^32 - 1.
    pub fn size(&self, key: &str, default: Option<usize>) -> Result<usize, Error> {
        match (self.metadata.get(key), default) {
            (Some(&Value::Integer(n)), _) => u32::try_from(n).ok().map(|n| n as usize),
            (None, default) => default,
            _ => None,
        }
        .ok_or_else(|| {
            let found = match self.metadata.get(key) {
                Some(&Value::Integer(n)) => n.to_string(),
                Some(&Value::Unsigned(n)) => n.to_string(),
                other => kind(other).to_owned(),
            };
            self.wrong(key, "an integer below 2^32", found)
        })
    }

    /// A finite number of the metadata; `default` where the key is missing, if there is one.
    ///
    /// # Errors
    /// The key is missing without a default, or its value is no finite number.
    pub fn number(&self, key: &str, default: Option<f64>) -> Result<f64, Error> {
        match (self.metadata.get(key), default) {
            (Some(&Value::Float(x)), _) if x.is_finite() => Some(x),
            (Some(&Value::Integer(n)), _) => Some(n as f64),
            (None, default) => default,
            _ => None,
        }
        .ok_or_else(|| self.wrong(key, "a finite number", kind(self.metadata.get(key))))
    }

    fn wrong(&self, key: &str, expected: &str, found: impl Into<String>) -> Error {
        wrong(&self.name, key, expected, found)
    }
}

fn kind(value: Option<&Value>) -> &'static str {
    value.map_or("nothing", Value::kind)
}

fn wrong(name: &str, key: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Config {
        name: name.to_owned(),
        // keys are the file's own words
        key: crate::error::one_line(key),
        expected: expected.into(),
        found: crate::error::one_line(&found.into()),
    }
}

type Parsed = (BTreeMap<String, Value>, BTreeMap<String, TensorInfo>);

/// The part of a file before its tensors, read once from front to back.
struct Header<'a, R> {
    name: &'a str,
    reader: BufReader<R>,
    /// Bytes read.
    at: u64,
    /// Bytes of the file.
    end: u64,
    /// Bytes that the header may take.
    limit: u64,
}

impl<R: Read + Seek> Header<'_, R> {
    fn wrong(&self, key: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        wrong(self.name, key, expected, found)
    }

    fn parse(&mut self) -> Result<Parsed, Error> {
        if self.end == 0 {
            return Err(Error::Empty {
                name: self.name.to_owned(),
                expected: "a GGUF file",
            });
        }
        let magic = self.bytes::<4>("magic")?;
        if &magic != b"GGUF" {
            let found = String::from_utf8_lossy(&magic).escape_debug().to_string();
            return Err(self.wrong("magic", "\"GGUF\"", format!("{found:?}")));
        }
        let version = self.u32("version")?;
        if !(2..=3).contains(&version) {
            let found = if version.swap_bytes() <= 3 {
                "a big-endian file".to_owned()
            } else {
                version.to_string()
            };
            return Err(self.wrong("version", "2 or 3", found));
        }
        // an entry takes at least its name's length, a type and a byte; a tensor 4 + 8 + 4 + 8 beside its name's
        let tensor_count = self.count("tensor_count", 32)?;
        let metadata_count = self.count("metadata_kv_count", 13)?;
        let mut metadata = BTreeMap::new();
        for i in 0..metadata_count {
            let key = self.string(&format!("metadata {i}"), LONGEST_NAME)?;
            let value_type = self.u32(&key)?;
            let value = self.value(&key, value_type)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(self.wrong(&key, "one value", "two"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(&Value::Integer(n)) if (1..=1 << 20).contains(&n) && n & (n - 1) == 0 => n as u64,
            Some(other) => {
                let found = match other {
                    Value::Integer(n) => n.to_string(),
                    other => other.kind().to_owned(),
                };
                return Err(self.wrong("general.alignment", "a power of two to 2^20", found));
            }
        };
        let mut tensors = BTreeMap::new();
        for i in 0..tensor_count {
            let name = self.string(&format!("tensor {i}"), LONGEST_NAME)?;
            let info = self.tensor(&name, alignment)?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(self.wrong(&name, "one tensor", "two"));
            }
        }
        let data = self.at.next_multiple_of(alignment);
        self.place(&mut tensors, data)?;
        Ok((metadata, tensors))
    }

    /// Turns offsets in the data into offsets in the file, and checks that every tensor has its own place there.
    fn place(&self, tensors: &mut BTreeMap<String, TensorInfo>, data: u64) -> Result<(), Error> {
        let mut spans = Vec::with_capacity(tensors.len());
        for (name, info) in tensors.iter_mut() {
            let begin = data.checked_add(info.offset);
            let end = begin.and_then(|begin| begin.checked_add(info.len as u64));
            let (Some(begin), Some(end)) = (begin, end.filter(|&end| end <= self.end)) else {
                let expected = format!("{} bytes at {} of the data", info.len, info.offset);
                return Err(wrong(
                    self.name,
                    name,
                    expected,
                    format!("a file of {} bytes", self.end),
                ));
            };
            info.offset = begin;
            spans.push((begin, end, name));
        }
        spans.sort();
        for pair in spans.windows(2) {
            if pair[1].0 < pair[0].1 {
                let found = format!("{} in the same place", pair[0].2);
                return Err(wrong(self.name, pair[1].2, "a place of its own", found));
            }
        }
        Ok(())
    }

    fn tensor(&mut self, name: &str, alignment: u64) -> Result<TensorInfo, Error> {
        let rank = self.u32(name)?;
        if !(1..=MOST_DIMENSIONS).contains(&rank) {
            return Err(self.wrong(name, "1 to 4 dimensions", rank.to_string()));
        }
        let mut extents = Vec::new();
        for _ in 0..rank {
            extents.push(self.u64(name)?);
        }
        let ggml_type = self.u32(name)?;
        let offset = self.u64(name)?;
        let Some((block, bytes)) = block_size(ggml_type) else {
            return Err(self.wrong(name, "a known storage type", ggml_type.to_string()));
        };
        if !extents[0].is_multiple_of(block) {
            let expected = format!("rows of a multiple of {block} numbers");
            return Err(self.wrong(name, expected, extents[0].to_string()));
        }
        let len = extents
            .iter()
            .try_fold(1u64, |n, &extent| n.checked_mul(extent))
            .and_then(|n| (n / block).checked_mul(bytes))
            .filter(|&len| len <= self.end)
            .and_then(|len| usize::try_from(len).ok());
        let shape: Option<Vec<usize>> = extents
            .iter()
            .rev()
            .map(|&extent| usize::try_from(extent).ok())
            .collect();
        let (Some(len), Some(shape)) = (len, shape) else {
            let expected = format!("no more than the file's {} bytes", self.end);
            return Err(self.wrong(name, expected, format!("{extents:?} numbers")));
        };
        if !offset.is_multiple_of(alignment) {
            let expected = format!("an offset that is a multiple of {alignment}");
            return Err(self.wrong(name, expected, offset.to_string()));
        }
        Ok(TensorInfo {
            shape,
            ggml_type,
            offset,
            len,
        })
    }

    fn value(&mut self, key: &str, value_type: u32) -> Result<Value, Error> {
        const STRING: u32 = 8;
        const ARRAY: u32 = 9;
        if value_type == STRING {
            return Ok(Value::String(self.string(key, u64::MAX)?));
        }
        if value_type != ARRAY {
            return self.scalar(key, value_type);
        }
        let element = self.u32(key)?;
        match element {
            STRING => {
                let count = self.count(key, 8)?;
                let mut texts = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    texts.push(self.string(key, u64::MAX)?);
                }
                Ok(Value::Strings(texts))
            }
            // no key of the specification nests arrays
            ARRAY => Err(self.wrong(key, "an array of numbers or strings", "an array of arrays")),
            _ => {
                let count = self.count(key, scalar_size(element).unwrap_or(1))?;
                let mut numbers = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    numbers.push(match self.scalar(key, element)? {
                        Value::Integer(n) => n as f64,
                        Value::Unsigned(n) => n as f64,
                        Value::Bool(b) => f64::from(u8::from(b)),
                        Value::Float(x) => x,
                        other => return Err(self.wrong(key, "a number", other.kind())),
                    });
                }
                Ok(Value::Numbers(numbers))
            }
        }
    }

    fn scalar(&mut self, key: &str, value_type: u32) -> Result<Value, Error> {
        Ok(match value_type {
            0 => Value::Integer(self.bytes::<1>(key)?[0].into()),
            1 => Value::Integer(i8::from_le_bytes(self.bytes(key)?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.bytes(key)?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.bytes(key)?).into()),
            4 => Value::Integer(u32::from_le_bytes(self.bytes(key)?).into()),
            5 => Value::Integer(i32::from_le_bytes(self.bytes(key)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.bytes(key)?).into()),
            7 => match self.bytes::<1>(key)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(self.wrong(key, "0 or 1", other.to_string())),
            },
            10 => {
                let n = self.u64(key)?;
                i64::try_from(n).map_or(Value::Unsigned(n), Value::Integer)
            }
            11 => Value::Integer(i64::from_le_bytes(self.bytes(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.bytes(key)?)),
            other => return Err(self.wrong(key, "a value type from 0 to 12", other.to_string())),
        })
    }

    /// A count of things of at least `least` bytes each, which the header must have room for.
    fn count(&mut self, key: &str, least: u64) -> Result<u64, Error> {
        let count = self.u64(key)?;
        let room = (self.limit - self.at) / least;
        if count > room {
            let expected = format!("at most {room} entries in what is left of the header");
            return Err(self.wrong(key, expected, count.to_string()));
        }
        Ok(count)
    }

    fn string(&mut self, key: &str, longest: u64) -> Result<String, Error> {
        let len = self.u64(key)?;
        let room = (self.limit - self.at).min(longest);
        if len > room {
            let expected = format!("a string of at most {room} bytes");
            return Err(self.wrong(key, expected, len.to_string()));
        }
        let mut bytes = vec![0; len as usize];
        self.fill(key, &mut bytes)?;
        String::from_utf8(bytes).map_err(|e| {
            let found = format!("a byte that is none at {}", e.utf8_error().valid_up_to());
            self.wrong(key, "UTF-8", found)
        })
    }

    fn u32(&mut self, key: &str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.bytes(key)?))
    }

    fn u64(&mut self, key: &str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.bytes(key)?))
    }

    fn bytes<const N: usize>(&mut self, key: &str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(key, &mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, key: &str, bytes: &mut [u8]) -> Result<(), Error> {
        let len = bytes.len() as u64;
        if self.limit - self.at < len {
            let expected = format!("{len} bytes at {} of the header", self.at);
            let found = if self.limit < self.end {
                format!("a header of more than {LONGEST_HEADER} bytes")
            } else {
                format!("the end of the file at {}", self.end)
            };
            return Err(self.wrong(key, expected, found));
        }
        self.reader.read_exact(bytes).map_err(|source| Error::Io {
            name: self.name.to_owned(),
            action: "read",
            source,
        })?;
        self.at += len;
        Ok(())
    }
}

/// Bytes of a scalar of the metadata.
fn scalar_size(value_type: u32) -> Option<u64> {
    match value_type {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
