//! Checkpoints as PyTorch writes them (reference/weights_pytorch.py) hold what PyTorch reads from them; what is damaged or
//! hostile is an error.

use serde_json::json;
use std::path::{Path, PathBuf};
use vlm_nn::weights::{Checkpoint, Dtype, Error, Format};

fn path(name: &str) -> PathBuf {
    [
        env!("CARGO_MANIFEST_DIR"),
        "../../testdata/nn/weights",
        name,
    ]
    .iter()
    .collect()
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&path(name)).unwrap()
}

/// Names and shapes.
fn listed(checkpoint: &Checkpoint) -> Vec<(String, Vec<usize>)> {
    let tensors = checkpoint.tensors();
    tensors
        .map(|t| (t.name.to_owned(), t.shape.to_vec()))
        .collect()
}

/// The checkpoint has the tensors that the reference loads from it, and no others.
#[track_caller]
fn same(mut found: Checkpoint, expected: &str) {
    let mut expected = open(&format!("{expected}.expected.safetensors"));
    assert_eq!(listed(&found), listed(&expected));
    for (name, shape) in listed(&expected) {
        let stated = expected.tensors().find(|t| t.name == name).unwrap().dtype;
        if stated == Dtype::I64 {
            assert_eq!(
                found.take_integers(&name),
                expected.take_integers(&name),
                "{name}"
            );
        } else {
            let [found, expected] = [&mut found, &mut expected].map(|c| c.take(&name, &shape));
            assert_eq!(found.unwrap(), expected.unwrap(), "{name}");
        }
    }
    assert_eq!(found.unused().count(), 0);
}

#[test]
fn every_dtype_stride_and_sharing_reads_as_pytorch_reads_it() {
    for (name, format) in [
        ("kinds.pt", Format::PyTorch),
        ("kinds_protocol5.pt", Format::PyTorch),
        ("kinds_legacy.pth", Format::PyTorchLegacy),
    ] {
        let found = open(name);
        assert_eq!(found.format(), format);
        same(found, "kinds");
    }
    same(open("unsigned.pt"), "unsigned");
}

#[test]
fn types_and_sizes_are_listed_as_they_are_in_the_file() {
    let found = open("kinds.pt");
    let of = |name: &str| {
        let info = found.tensors().find(|t| t.name == name).unwrap();
        (info.dtype, info.bytes)
    };
    assert_eq!(of("bf16"), (Dtype::Bf16, 60));
    assert_eq!(of("f64"), (Dtype::F64, 240));
    assert_eq!(of("position_ids"), (Dtype::I64, 56));
    assert_eq!(of("bool"), (Dtype::Bool, 3));
    assert_eq!(of("scalar"), (Dtype::F32, 4));
}

#[test]
fn integers_are_no_weights_and_floats_no_integers() {
    let mut found = open("kinds.pt");
    let error = found.take("position_ids", &[1, 7]).unwrap_err();
    assert_eq!(
        error,
        "! position_ids: expected F64, F32, F16 or BF16, found I64"
    );
    let error = found.take_integers("f32").unwrap_err();
    assert_eq!(error, "! f32: expected integers, found F32");
    assert_eq!(found.take_bytes("u8").unwrap(), [7, 200]);
}

#[test]
fn tied_weights_are_told_from_equal_shapes() {
    let mut found = open("kinds.pt");
    assert!(found.ignore_copy("head.weight", "embedding.weight"));
    assert!(!found.ignore_copy("f16", "f32"));
    assert_eq!(found.ignored().next().unwrap().name, "head.weight");
}

#[test]
fn training_checkpoints_give_the_model_and_keep_the_rest_as_data() {
    for name in ["training.pt", "training_legacy.pth"] {
        let found = open(name);
        let extra = found.extra().clone();
        same(found, "training");
        assert_eq!(extra["epoch"], json!(3));
        assert_eq!(extra["best"], json!(0.75));
        assert_eq!(extra["count"], json!(12));
        assert_eq!(extra["config"]["nested"], json!({"a": [1, 2]}));
        assert_eq!(extra["args"]["seed"], json!(42));
        assert_eq!(extra["args"]["output"], json!(["out"]));
        assert_eq!(extra["device"], json!(["cpu"]));
        assert_eq!(extra["dtype"], json!("torch.float16"));
        assert_eq!(extra["size"], json!([2, 3]));
        assert!(!extra.contains_key("optimizer"), "{extra:?}");
    }
}

#[test]
fn a_whole_module_gives_its_parameters_and_buffers() {
    same(open("module.pt"), "module");
}

#[test]
fn torchscript_gives_the_state_dict_without_other_attributes() {
    for name in ["script", "traced"] {
        let found = open(&format!("{name}.pt"));
        assert_eq!(found.format(), Format::TorchScript);
        // an attribute that is not finite and no part of the state dict
        assert!(!found.contains("blocks.0.attn_mask"));
        same(found, name);
    }
    assert_eq!(open("script.pt").extra()["context_length"], json!(77));
}

#[test]
fn shards_are_joined_by_their_index() {
    for (directory, index) in [
        ("sharded_bin", "pytorch_model.bin.index.json"),
        ("sharded_safetensors", "model.safetensors.index.json"),
    ] {
        same(open(&format!("{directory}/{index}")), "training");
        same(
            Checkpoint::open_directory(&path(directory)).unwrap(),
            "training",
        );
    }
}

fn copy(from: &str, to: &Path) {
    std::fs::copy(path(from), to).unwrap();
}

#[test]
fn a_directory_is_searched_in_the_order_of_published_names() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let opened = || Checkpoint::open_directory(directory.path());
    let error = opened().err().unwrap().to_string();
    for name in ["model.safetensors", "open_clip_pytorch_model.bin", "*.pth"] {
        assert!(error.contains(name), "{error}");
    }
    copy("kinds.pt", &at("a.pt"));
    assert_eq!(opened().unwrap().name(), at("a.pt").display().to_string());
    copy("kinds.pt", &at("b.pth"));
    let error = opened().err().unwrap().to_string();
    assert!(error.contains("a.pt, b.pth"), "{error}");
    // each is found before those that are there already
    for name in [
        "pytorch_model.bin",
        "open_clip_pytorch_model.bin",
        "open_clip_model.safetensors",
        "model.safetensors",
    ] {
        copy("kinds.pt", &at(name));
        assert_eq!(opened().unwrap().name(), at(name).display().to_string());
    }
    let missing = Checkpoint::open_directory(&at("nowhere")).err().unwrap();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
}
