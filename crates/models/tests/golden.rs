//! Models of other people, loaded from their checkpoints, agree with their own implementation
//! (reference/models_transformers.py).

use std::path::PathBuf;
use vlm_models::decoders::matrix::{BlockFormat, Matrix, Precision};
use vlm_models::decoders::tensors::{DenseTensors, Tensors};
use vlm_models::families::qwen2::{Qwen2, Qwen2Config, gguf_name};
use vlm_models::generate::Autoregressive;
use vlm_nn::weights::Checkpoint;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../testdata/models", name]
        .iter()
        .collect()
}

fn checkpoint(name: &str) -> Checkpoint {
    Checkpoint::parse(&std::fs::read(path(name)).unwrap(), name).unwrap()
}

fn config(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// Inputs and outputs of the reference.
struct Golden(Checkpoint);

impl Golden {
    fn of(name: &str) -> Self {
        Self(checkpoint(&format!("{name}.golden.safetensors")))
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        self.0.take(name, shape).unwrap()
    }

    fn ids(&mut self, shape: [usize; 2]) -> Vec<Vec<u32>> {
        let ids = self.take("in.input_ids", &shape);
        let rows = ids.chunks(shape[1]);
        rows.map(|row| row.iter().map(|&id| id as u32).collect())
            .collect()
    }
}

/// Sums of a few dozen terms in f32: both sides are right to about 1e-6 of the largest value.
#[track_caller]
fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-4 * largest, "{i}: {a} is not {b}");
    }
}

fn qwen2() -> Qwen2 {
    let config = Qwen2Config::parse(&config("qwen2.json")).unwrap();
    let mut source = DenseTensors::new(checkpoint("qwen2.safetensors"), Precision::F32);
    let model = Qwen2::new(&mut source, &config, Precision::F32).unwrap();
    source.finish().unwrap();
    model
}

#[test]
fn qwen2_matches_the_reference_at_every_position() {
    let mut golden = Golden::of("qwen2");
    let ids = golden.ids([2, 11]);
    let logits = qwen2().logits(&ids);
    close(&logits, &golden.take("out.logits", &[2, 11, 60]));
}

#[test]
fn cached_decoding_equals_full_decoding() {
    let model = qwen2();
    let ids = Golden::of("qwen2").ids([2, 11]);
    let full = model.logits(&ids);
    // in one piece, token by token, and in uneven pieces
    for cuts in [vec![11], vec![1; 11], vec![4, 1, 6]] {
        let mut decoding = model.decode();
        let mut begin = 0;
        for len in cuts {
            let end = begin + len;
            let piece: Vec<Vec<u32>> = ids.iter().map(|row| row[begin..end].to_vec()).collect();
            let logits = decoding.feed(&piece);
            for (row, logits) in logits.iter().enumerate() {
                close(logits, &full[(row * 11 + end - 1) * 60..][..60]);
            }
            assert_eq!(decoding.positions(), end);
            begin = end;
        }
    }
}

#[test]
fn rows_can_be_dropped_and_doubled_and_texts_begun_anew() {
    let model = qwen2();
    let ids = Golden::of("qwen2").ids([2, 11]);
    let full = model.logits(&ids);
    let mut decoding = model.decode();
    let piece = |begin: usize, end: usize, rows: &[usize]| -> Vec<Vec<u32>> {
        rows.iter()
            .map(|&row| ids[row][begin..end].to_vec())
            .collect()
    };
    decoding.feed(&piece(0, 7, &[0, 1]));
    decoding.select(&[1, 1, 0]);
    let logits = decoding.feed(&piece(7, 11, &[1, 1, 0]));
    for (logits, row) in logits.iter().zip([1, 1, 0]) {
        close(logits, &full[(row * 11 + 10) * 60..][..60]);
    }
    decoding.clear();
    assert_eq!(decoding.positions(), 0);
    let logits = decoding.feed(&piece(0, 11, &[1]));
    close(&logits[0], &full[(11 + 10) * 60..][..60]);
}

/// The reference's weights rounded to half precision, as GGUF files store them.
struct Rounded(DenseTensors, Vec<String>);

impl Tensors for Rounded {
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, vlm_models::Error> {
        self.0.vector(name, len)
    }

    fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix, vlm_models::Error> {
        self.1.push(gguf_name(name));
        let Matrix::Dense { values, .. } = self.0.matrix(name, rows, cols)? else {
            unreachable!("a checkpoint is dense");
        };
        let data = values.iter().flat_map(|v| half(*v)).collect();
        Matrix::stored(name, BlockFormat::F16, rows, cols, data, Precision::F32)
    }
}

/// The nearest IEEE half of a number of moderate size.
fn half(x: f32) -> [u8; 2] {
    let bits = x.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    if exponent <= 0 {
        return [0, ((bits >> 31) << 7) as u8];
    }
    let rounded = (exponent as u32) << 10 | (bits >> 13 & 0x3ff);
    let rounded = rounded + (bits >> 12 & 1);
    (rounded as u16 | ((bits >> 31) << 15) as u16).to_le_bytes()
}

#[test]
fn stored_weights_are_read_by_their_names_in_gguf_files() {
    let config = Qwen2Config::parse(&config("qwen2.json")).unwrap();
    let dense = DenseTensors::new(checkpoint("qwen2.safetensors"), Precision::F32);
    let mut source = Rounded(dense, Vec::new());
    let model = Qwen2::new(&mut source, &config, Precision::F32).unwrap();
    source.0.finish().unwrap();
    for name in [
        "token_embd.weight",
        "blk.1.ffn_down.weight",
        "blk.0.attn_output.weight",
    ] {
        assert!(
            source.1.iter().any(|n| n == name),
            "{name} in {:?}",
            source.1
        );
    }
    let mut golden = Golden::of("qwen2");
    let logits = model.logits(&golden.ids([2, 11]));
    let expected = golden.take("out.logits", &[2, 11, 60]);
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let error = logits
        .iter()
        .zip(&expected)
        .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    // halves carry 11 bits; the error of many roundings stays within a few of the last
    assert!(
        error > 0.0 && error < 1e-2 * largest,
        "{error} of {largest}"
    );
}
