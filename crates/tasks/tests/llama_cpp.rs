//! A language model in a GGUF file that llama.cpp quantized gives the logits that llama.cpp gives
//! (reference/gguf_llama_cpp.py).

use std::path::PathBuf;
use vlm_models::decoders::matrix::Precision;
use vlm_models::generate::Autoregressive;
use vlm_nn::weights::Checkpoint;
use vlm_tasks::gguf;

const VOCABULARY: usize = 64;
const TOKENS: usize = 12;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../testdata/models", name]
        .iter()
        .collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn a_quantized_model_gives_the_logits_of_llama_cpp() {
    let model = gguf::load(&path("qwen2-q4_k_m.gguf"), Precision::F32).unwrap();
    let name = "qwen2-q4_k_m.golden.safetensors";
    let mut golden = Checkpoint::parse(&std::fs::read(path(name)).unwrap(), name).unwrap();
    let ids = golden.take("in.input_ids", &[1, TOKENS]).unwrap();
    let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    let expected = golden.take("out.logits", &[1, TOKENS, VOCABULARY]).unwrap();
    // both round activations to 8 bits, in their own way
    let near = |found: &[f32], at: usize| {
        let expected = &expected[at * VOCABULARY..][..VOCABULARY];
        let cosine = cosine(found, expected);
        assert!(cosine > 0.999, "position {at}: cosine {cosine}");
    };
    let whole = model.logits(std::slice::from_ref(&ids));
    for at in 0..TOKENS {
        near(&whole[at * VOCABULARY..][..VOCABULARY], at);
    }
    let mut decoding = model.decode();
    for (at, &id) in ids.iter().enumerate() {
        near(&decoding.feed(&[vec![id]])[0], at);
    }
}

/// The error of the good file with some bytes replaced.
fn error_with(from: &[u8], to: &[u8]) -> String {
    let mut bytes = std::fs::read(path("qwen2-q4_k_m.gguf")).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("model.gguf");
    std::fs::write(&file, bytes).unwrap();
    let error = gguf::load(&file, Precision::F32).unwrap_err().to_string();
    assert!(error.contains("model.gguf"), "{error}");
    error
}

#[test]
fn a_file_that_is_no_such_model_is_refused_by_what_is_wrong() {
    let cases: [(&[u8], &[u8], &str); 4] = [
        (
            b"qwen2",
            b"qwen9",
            "expected the architecture qwen2 or llama",
        ),
        (
            b"blk.0.ffn_up.weight",
            b"blk.0.ffn_ux",
            "blk.0.ffn_up.weight",
        ),
        (
            b"qwen2.block_count",
            b"qwen2.block_coun_",
            "qwen2.block_count",
        ),
        (b"output_norm.weight", b"output_nor_", "output_norm.weight"),
    ];
    for (from, to, expected) in cases {
        let error = error_with(from, to);
        assert!(error.contains(expected), "{error}\nlacks {expected}");
    }
}
