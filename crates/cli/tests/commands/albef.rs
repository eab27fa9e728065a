//! The commands on ALBEF's checkpoints (reference/models_albef.py).

use crate::support::{picture, published, run, text};
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::{Path, PathBuf};

/// One of the tiny released layouts.
fn weights(file: &str) -> PathBuf {
    published("albef/original").join(file)
}

/// A vocabulary of 24 words as BERT's, which would end every text with `[SEP]` and keep punctuation.
fn vocabulary(directory: &Path) {
    let words = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "big", "red", "dog", "##s", "is", "it",
        "what", "colour", "blue", "green", ",", "!", "?", "person", "black", "two", "run", "yes",
    ];
    let special = |i: usize| {
        serde_json::json!({
            "id": i, "content": words[i], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    };
    let vocab: serde_json::Map<String, serde_json::Value> = words
        .iter()
        .enumerate()
        .map(|(i, word)| ((*word).to_owned(), i.into()))
        .collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab
        }
    });
    fs::write(directory.join("tokenizer.json"), json.to_string()).unwrap();
}

#[test]
fn every_released_layout_is_verified_and_inspected() {
    for (file, can) in [
        (
            "pretrain.safetensors",
            &["classify", "match", "embed", "verify"][..],
        ),
        ("retrieval.pth", &["classify", "match", "embed", "verify"]),
        ("vqa.safetensors", &["ask", "verify"]),
        ("nlvr.safetensors", &["judge", "verify"]),
        ("pretrain_nlvr.safetensors", &["verify"]),
        ("ve.safetensors", &["judge", "verify"]),
    ] {
        let path = weights(file);
        let golden = path.with_extension("golden.safetensors");
        let ended = run(["verify", text(&path), "--golden", text(&golden)]).with(0);
        assert!(ended.stdout.lines().count() >= 4, "{file}: {ended:?}");
        assert!(!ended.stderr.contains("in."), "{file}: {ended:?}");
        let record = run(["inspect", text(&path), "--json"]).with(0).records();
        assert_eq!(record[0]["family"], "albef", "{file}");
        assert_eq!(record[0]["sound"], true, "{file}");
        let found: Vec<&str> = record[0]["can"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|c| c.as_str())
            .collect();
        assert_eq!(found, can, "{file}");
    }
    let config = published("albef/config");
    let golden = config.join("forward.golden.safetensors");
    run(["verify", text(&config), "--golden", text(&golden)]).with(0);
}

/// A golden file of bytes and ids.
fn golden(path: &Path, asked: &str, ids: &[i64]) {
    let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let (asked, count) = (asked.as_bytes(), ids.len() / 8);
    let tensors = [
        (
            "in.text_utf8",
            TensorView::new(Dtype::U8, vec![asked.len()], asked).unwrap(),
        ),
        (
            "out.input_ids",
            TensorView::new(Dtype::I64, vec![1, count], &ids).unwrap(),
        ),
    ];
    fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

#[test]
fn texts_are_cleaned_and_begin_with_cls_and_do_not_end_with_sep() {
    let place = tempfile::tempdir().unwrap();
    vocabulary(place.path());
    let path = place.path().join("golden.safetensors");
    let check = |file: &str, asked: &str, ids: &[i64]| {
        golden(&path, asked, ids);
        let (file, directory) = (weights(file), text(place.path()).to_owned());
        let arguments = [
            "verify",
            text(&file),
            "--golden",
            text(&path),
            "--tokenizer",
            &directory,
        ];
        run(arguments).with(0);
    };
    // 23 stands for [CLS] in the tiny models, whose vocabulary has no 101
    check(
        "retrieval.pth",
        "A big,  RED-dog's (<person>)!",
        &[23, 5, 6, 7, 8, 9, 19],
    );
    check(
        "vqa.safetensors",
        "What colour is it?",
        &[23, 12, 13, 10, 11],
    );
    // cut and filled to the length of the reference's call
    check("ve.safetensors", "a big red dog", &[23, 5, 6]);
    check("ve.safetensors", "a dog", &[23, 5, 8, 0, 0]);
}

#[test]
fn pictures_are_matched_asked_about_judged_and_embedded() {
    let place = tempfile::tempdir().unwrap();
    vocabulary(place.path());
    let (first, second) = (picture(0), picture(1));
    let (first, second) = (text(&first), text(&second));
    let tokenizer = ["--tokenizer", text(place.path()), "--json", "--quiet"];
    let model = |file: &str| ["--model".to_owned(), text(&weights(file)).to_owned()];
    let records = |arguments: &[&str], file: &str| {
        let model = model(file);
        let model: Vec<&str> = model.iter().map(String::as_str).collect();
        run([arguments, &model[..], &tokenizer[..]].concat())
            .with(0)
            .records()
    };
    let matched = records(&["match", first, "a red dog", "two dogs"], "retrieval.pth");
    assert_eq!(matched.len(), 2);
    for record in &matched {
        let matching = record["matching"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&matching), "{record}");
        assert!(record["similarity"].is_number(), "{record}");
    }
    let embedded = records(&["embed", "--text", "a red dog"], "retrieval.pth");
    assert_eq!(embedded.len(), 1);

    let question = "What colour is it?";
    let asked = records(&["ask", question, first], "vqa.safetensors");
    assert!(asked[0]["answer"].is_string());
    let choices = [
        "ask",
        question,
        first,
        second,
        "--choices",
        "red,blue,a black dog,green",
    ];
    let asked = records(&choices, "vqa.safetensors");
    assert_eq!(asked.len(), 2);
    for record in &asked {
        let choices = record["choices"].as_array().unwrap();
        let sum: f64 = choices
            .iter()
            .map(|c| c["probability"].as_f64().unwrap())
            .sum();
        assert!(choices.len() == 4 && (sum - 1.0).abs() < 1e-3, "{record}");
        assert_eq!(record["answer"], choices[0]["answer"]);
    }

    let judged = records(
        &["judge", "two dogs run", first, second],
        "nlvr.safetensors",
    );
    assert_eq!(judged.len(), 1);
    assert_eq!(judged[0]["images"].as_array().unwrap().len(), 2);
    let classes = judged[0]["classes"].as_object().unwrap();
    assert_eq!(classes.keys().collect::<Vec<_>>(), ["false", "true"]);
    // the order of the pictures matters
    let turned = records(
        &["judge", "two dogs run", second, first],
        "nlvr.safetensors",
    );
    assert_ne!(turned[0]["classes"], judged[0]["classes"]);
    let judged = records(&["judge", "a dog", first, second], "ve.safetensors");
    assert_eq!(judged.len(), 2);
    assert_eq!(judged[0]["classes"].as_object().unwrap().len(), 3);

    // what a checkpoint cannot do, it says
    for (arguments, file, words) in [
        (
            &["judge", "a dog", first][..],
            "nlvr.safetensors",
            "expected 2 files",
        ),
        (
            &["judge", "a dog", first],
            "vqa.safetensors",
            "NLVR2 and visual entailment can",
        ),
        (
            &["ask", question, first],
            "ve.safetensors",
            "question answering can",
        ),
        (
            &["match", first, "a dog"],
            "nlvr.safetensors",
            "for retrieval can",
        ),
    ] {
        let model = model(file);
        let model: Vec<&str> = model.iter().map(String::as_str).collect();
        run([arguments, &model[..], &tokenizer[..]].concat())
            .with(2)
            .complains(&[words]);
    }
}
