//! `vlm bench` and `vlm doctor`.

use crate::support::{run, vlm};
use serde_json::Value;

const KEYS: [&str; 9] = [
    "work",
    "arch",
    "batch",
    "threads",
    "precision",
    "median_ms",
    "min_ms",
    "cpu_ms",
    "peak_mb",
];

/// The one record of a bench with the smallest number of repetitions.
fn bench(arguments: &[&str]) -> Value {
    let common = ["--repeat", "1", "--warmup", "0", "--threads", "1", "--json"];
    let ended = run(["bench"].iter().chain(arguments).chain(&common)).with(0);
    assert_eq!(ended.stderr, "");
    let [record] = &ended.records()[..] else {
        panic!("{ended:#?}");
    };
    record.clone()
}

#[track_caller]
fn check(record: &Value, work: &str, arch: &str, batch: u64, more: &[&str]) {
    let keys: Vec<&String> = record.as_object().unwrap().keys().collect();
    assert_eq!(keys, [&KEYS[..], more].concat());
    assert_eq!(record["work"], work);
    assert_eq!(record["arch"], arch);
    assert_eq!(record["batch"], batch);
    assert_eq!(record["threads"], 1);
    let (median, min) = (&record["median_ms"], &record["min_ms"]);
    assert!(min.as_f64().unwrap() > 0.0 && median == min, "{record}");
    if cfg!(target_os = "linux") {
        assert!(record["peak_mb"].as_u64().unwrap() > 0, "{record}");
        assert!(record["cpu_ms"].as_f64().unwrap() > 0.0, "{record}");
    }
}

#[test]
fn encoding_is_timed_in_every_precision() {
    for precision in ["f32", "bf16", "int8", "int4"] {
        let record = bench(&[
            "encode",
            "--arch",
            "vit-tiny-16",
            "--batch",
            "2",
            "--precision",
            precision,
            "--quiet",
        ]);
        check(&record, "encode", "vit-tiny-16", 2, &[]);
        assert_eq!(record["precision"], precision);
    }
    let record = bench(&["encode", "--arch", "vit-tiny-16"]);
    let chosen = record["precision"].as_str().unwrap();
    assert!(["f32", "bf16"].contains(&chosen), "auto chose {chosen}");
}

#[test]
fn training_is_timed() {
    let arch = "vit-tiny-16+text-2";
    let record = bench(&["train", "--arch", arch, "--batch", "2"]);
    check(&record, "train", arch, 2, &[]);
}

#[test]
fn generating_is_timed_with_its_rates() {
    for (quant, precision) in [("q4_k_m", "int4"), ("q8_0", "int8")] {
        let sizes = ["--prompt-tokens", "9", "--tokens", "3"];
        let arguments = ["generate", "--arch", "qwen2-tiny", "--quant", quant];
        let record = bench(&[&arguments[..], &sizes].concat());
        check(
            &record,
            "generate",
            "qwen2-tiny",
            1,
            &["prefill_tok_s", "decode_tok_s"],
        );
        assert_eq!(record["precision"], precision);
        assert!(record["prefill_tok_s"].as_f64().unwrap() > 0.0, "{record}");
        assert!(record["decode_tok_s"].as_f64().unwrap() > 0.0, "{record}");
    }
}

#[test]
fn a_product_is_timed() {
    let record = bench(&["gemm", "--arch", "64x32x48", "--precision", "f32"]);
    check(&record, "gemm", "64x32x48", 1, &[]);
}

#[test]
fn what_cannot_be_timed_is_one_line_that_names_what_can() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.gguf");
    std::fs::write(&broken, b"GGUF\x03\0\0\0").unwrap();
    let broken = broken.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 8] = [
        (
            &["encode", "--arch", "vit-b-17"],
            &["clip-vit-b-32", "siglip-b-16", "vit-b-17"],
        ),
        (&["train", "--arch", "vit-b-16"], &["vit-s-16+text-6"]),
        (
            &["generate", "--arch", "qwen3"],
            &["qwen2-0.5b", "GGUF file"],
        ),
        (
            &[
                "train",
                "--arch",
                "vit-tiny-16+text-2",
                "--precision",
                "int8",
            ],
            &["--precision", "bf16", "int8"],
        ),
        (
            &[
                "generate",
                "--arch",
                "qwen2-tiny",
                "--quant",
                "q8_0",
                "--precision",
                "int4",
            ],
            &["--precision", "--quant", "int4"],
        ),
        (
            &[
                "generate",
                "--arch",
                "qwen2-tiny",
                "--prompt-tokens",
                "5000",
            ],
            &["--prompt-tokens", "4096", "5064"],
        ),
        (
            &["generate", "--arch", broken],
            &["broken.gguf", "tensor_count", "expected"],
        ),
        (&["gemm", "--arch", "3x4"], &["MxKxN", "3x4"]),
    ];
    for (arguments, words) in cases {
        let ended = run(["bench"].iter().chain(arguments)).with(2);
        ended.complains(words);
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn the_doctor_lists_what_is_there_and_what_is_used() {
    let record = run(["doctor", "--json", "--threads", "3"])
        .with(0)
        .records()[0]
        .clone();
    for key in [
        "cpu",
        "features",
        "amx",
        "kernels",
        "memory_mb",
        "tools",
        "gpus",
    ] {
        assert!(record.get(key).is_some(), "{key} in {record}");
    }
    assert_eq!(record["threads"], 3);
    let kernels = record["kernels"].as_array().unwrap();
    for precision in ["f32", "bf16", "int8", "int4"] {
        let product =
            |k: &&Value| k["operation"] == "matrix product" && k["precision"] == precision;
        assert_eq!(kernels.iter().filter(product).count(), 1, "{record}");
    }
    let text = run(["doctor"]).with(0).stdout;
    for word in [
        "cpu",
        "features",
        "amx",
        "threads",
        "memory",
        "ffmpeg",
        "matrix product",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn masked_features_are_found_and_not_used() {
    let output = vlm(["doctor", "--json"])
        .env("VLM_CPU", "portable")
        .output()
        .unwrap();
    let record = crate::support::Ended::from(output).with(0).records()[0].clone();
    assert_eq!(record["vlm_cpu"], "portable");
    for feature in record["features"].as_array().unwrap() {
        assert_eq!(feature["used"], false, "{feature}");
    }
    for kernel in record["kernels"].as_array().unwrap() {
        assert_eq!(kernel["kernel"], "portable", "{kernel}");
    }
}
