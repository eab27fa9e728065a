//! GGUF files: what is in them is found, and whatever is wrong with them is an error.

use std::io::Cursor;
use vlm_data::gguf::{Gguf, Value};

/// Writes a file as the specification says.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u32(self, n: u32) -> Self {
        self.bytes(&n.to_le_bytes())
    }
    fn u64(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }
    fn string(self, text: &str) -> Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }
    fn header(tensors: u64, metadata: u64) -> Self {
        Self::default()
            .bytes(b"GGUF")
            .u32(3)
            .u64(tensors)
            .u64(metadata)
    }
    fn tensor(self, name: &str, extents: &[u64], ggml_type: u32, offset: u64) -> Self {
        let mut w = self.string(name).u32(extents.len() as u32);
        for &extent in extents {
            w = w.u64(extent);
        }
        w.u32(ggml_type).u64(offset)
    }
    fn data(mut self, len: usize) -> Vec<u8> {
        while !self.0.len().is_multiple_of(32) {
            self.0.push(0);
        }
        self.0.extend((0..len).map(|i| i as u8));
        self.0
    }
}

fn good() -> Vec<u8> {
    Writer::header(2, 6)
        .string("general.architecture")
        .u32(8)
        .string("qwen2")
        .string("qwen2.block_count")
        .u32(4)
        .u32(24)
        .string("qwen2.rope.freq_base")
        .u32(6)
        .bytes(&1e6f32.to_le_bytes())
        .string("tokenizer.ggml.tokens")
        .u32(9)
        .u32(8)
        .u64(2)
        .string("a")
        .string("ä")
        .string("tokenizer.ggml.token_type")
        .u32(9)
        .u32(5)
        .u64(2)
        .bytes(&1i32.to_le_bytes())
        .bytes(&(-3i32).to_le_bytes())
        .string("flag")
        .u32(7)
        .bytes(&[1])
        .tensor("norm", &[8], 0, 0)
        .tensor("weight", &[32, 3], 8, 32)
        .data(32 + 3 * 34)
}

fn read(bytes: &[u8]) -> Result<Gguf<Cursor<&[u8]>>, String> {
    Gguf::read(Cursor::new(bytes), "m.gguf").map_err(|e| e.to_string())
}

#[test]
fn metadata_and_tensors_are_found() {
    let bytes = good();
    let mut gguf = read(&bytes).unwrap();
    assert_eq!(gguf.string("general.architecture").unwrap(), "qwen2");
    assert_eq!(gguf.size("qwen2.block_count", None).unwrap(), 24);
    assert_eq!(gguf.size("missing", Some(5)).unwrap(), 5);
    assert_eq!(gguf.number("qwen2.rope.freq_base", None).unwrap(), 1e6);
    assert_eq!(gguf.metadata()["flag"], Value::Bool(true));
    assert_eq!(
        gguf.metadata()["tokenizer.ggml.tokens"],
        Value::Strings(vec!["a".to_owned(), "ä".to_owned()])
    );
    assert_eq!(
        gguf.metadata()["tokenizer.ggml.token_type"],
        Value::Numbers(vec![1.0, -3.0])
    );
    let weight = gguf.tensors()["weight"].clone();
    assert_eq!(
        (weight.shape, weight.ggml_type, weight.len),
        (vec![3, 32], 8, 102)
    );
    let data: Vec<u8> = (32..134).map(|i| i as u8).collect();
    assert_eq!(gguf.tensor("weight").unwrap(), data);
    assert_eq!(gguf.tensor("norm").unwrap(), (0..32).collect::<Vec<u8>>());
}

#[test]
fn what_is_asked_for_and_not_there_is_named() {
    let bytes = good();
    let mut gguf = read(&bytes).unwrap();
    let errors = [
        (
            gguf.tensor("bias").unwrap_err(),
            "m.gguf: bias: expected a tensor, found nothing",
        ),
        (
            gguf.string("flag").unwrap_err(),
            "m.gguf: flag: expected a string, found a truth value",
        ),
        (
            gguf.size("qwen2.rope.freq_base", None).unwrap_err(),
            "m.gguf: qwen2.rope.freq_base: expected an integer below 2^32, found a float",
        ),
        (
            gguf.number("missing", None).unwrap_err(),
            "m.gguf: missing: expected a finite number, found nothing",
        ),
    ];
    for (error, expected) in errors {
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = good();
    for len in 0..bytes.len() {
        let error = read(&bytes[..len]).expect_err("a part of a file");
        assert!(error.starts_with("m.gguf: "), "{len}: {error}");
    }
}

#[test]
fn damaged_files_are_refused_or_read_and_never_panic() {
    let good = good();
    for at in 0..good.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            if let Ok(mut gguf) = read(&bytes) {
                let names: Vec<String> = gguf.tensors().keys().cloned().collect();
                for name in names {
                    gguf.tensor(&name).unwrap();
                }
            }
        }
    }
}

#[test]
fn contradictions_say_place_expected_and_found() {
    let huge = u64::MAX / 2;
    let cases: [(Vec<u8>, &str); 13] = [
        (b"GGML".to_vec(), "magic: expected \"GGUF\", found"),
        (
            Writer::default().bytes(b"GGUF").u32(1).0,
            "version: expected 2 or 3, found 1",
        ),
        (
            Writer::default().bytes(b"GGUF").u32(3u32.swap_bytes()).0,
            "version: expected 2 or 3, found a big-endian file",
        ),
        (
            Writer::header(huge, 0).0,
            "tensor_count: expected at most 0 entries",
        ),
        (
            Writer::header(0, huge).0,
            "metadata_kv_count: expected at most 0 entries",
        ),
        (
            Writer::header(0, 1).u64(huge).bytes(&[0; 40]).0,
            "metadata 0: expected a string of at most",
        ),
        (
            Writer::header(0, 1).string("k").u32(9).u32(0).u64(huge).0,
            "k: expected at most 0 entries",
        ),
        (
            Writer::header(0, 1).string("k").u32(9).u32(9).u64(1).0,
            "k: expected an array of numbers or strings, found an array of arrays",
        ),
        (
            Writer::header(0, 1).string("k").u32(77).u64(1).0,
            "k: expected a value type from 0 to 12, found 77",
        ),
        (
            Writer::header(1, 0)
                .tensor("t", &[1 << 40, 1 << 40], 0, 0)
                .data(8),
            "t: expected no more than the file's",
        ),
        (
            Writer::header(1, 0).tensor("t", &[33], 8, 0).data(64),
            "t: expected rows of a multiple of 32 numbers, found 33",
        ),
        (
            Writer::header(1, 0).tensor("t", &[8], 0, 32).data(32),
            "t: expected 32 bytes at 32 of the data, found a file of",
        ),
        (
            Writer::header(2, 0)
                .tensor("t", &[8], 0, 0)
                .tensor("u", &[8], 0, 0)
                .data(32),
            "u: expected a place of its own, found t in the same place",
        ),
    ];
    for (bytes, expected) in cases {
        let error = read(&bytes).expect_err(expected);
        assert!(error.contains(expected), "{error}\nlacks {expected}");
    }
}
