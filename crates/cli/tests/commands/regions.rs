//! Oscar on regions: from files of features, against what the reference makes of the same numbers, and from a detector.

use crate::support::run;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn testdata(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models");
    root.join(name)
}

/// A model of testdata/models/oscar with word pieces, its special tokens and what else its config shall say.
fn model(case: &str, more: serde_json::Value) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let from = testdata("oscar").join(case);
    let to = |file: &str| directory.path().join(file);
    std::fs::copy(from.join("model.safetensors"), to("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let mut put = |name: &str, value: serde_json::Value| config[name] = value;
    put("cls_token_id", 2.into());
    put("sep_token_id", 3.into());
    put("mask_token_id", 4.into());
    for (name, value) in more.as_object().unwrap() {
        put(name, value.clone());
    }
    std::fs::write(to("config.json"), config.to_string()).unwrap();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let pieces = special.iter().map(|&s| s.to_owned());
    let pieces: Vec<String> = pieces.chain((5..30).map(|i| format!("w{i}"))).collect();
    std::fs::write(to("vocab.txt"), pieces.join("\n")).unwrap();
    directory
}

fn golden(case: &str, name: &str) -> (Vec<usize>, Vec<u8>) {
    let bytes = std::fs::read(testdata("oscar").join(case).join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    (tensor.shape().to_vec(), tensor.data().to_vec())
}

fn floats(case: &str, name: &str) -> Vec<f64> {
    let (_, bytes) = golden(case, name);
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|&b| f64::from(f32::from_le_bytes(b))).collect()
}

/// The regions of the golden file, three of the first picture and two of the second, and their tags.
fn files(case: &str, directory: &Path) -> [String; 2] {
    let (shape, bytes) = golden(case, "in.img_feats");
    let region = shape[2] * 4;
    let row = |name: &str, picture: usize, count: usize| {
        let from = picture * shape[1] * region;
        let numbers = STANDARD.encode(&bytes[from..from + count * region]);
        format!("{name}\t{count}\t{numbers}\n")
    };
    let features = directory.join("features.tsv");
    std::fs::write(&features, row("first", 0, 3) + &row("second", 1, 2)).unwrap();
    let tags = directory.join("label.tsv");
    let rows =
        "first\t[{\"class\": \"w20\"}, {\"class\": \"w21\"}]\nsecond\t[{\"class\": \"w22\"}]\n";
    std::fs::write(&tags, rows).unwrap();
    [features, tags].map(|path| path.display().to_string())
}

#[test]
fn captions_are_those_of_the_reference() {
    let sizes = |a, both| serde_json::json!({"max_seq_a_length": a, "max_seq_length": both});
    for (case, sizes, tagged) in [
        ("generation_far", sizes(20, 40), true),
        ("generation_untagged", sizes(8, 16), false),
    ] {
        let directory = model(case, sizes);
        let [features, tags] = files(case, directory.path());
        let name = directory.path().display().to_string();
        let mut args = vec![
            "caption",
            "*",
            "--model",
            &name,
            "--regions",
            &features,
            "--json",
        ];
        if tagged {
            args.extend(["--tags", &tags]);
        }
        let records = run(args).with(0).records();
        let (shape, bytes) = golden(case, "out.generated_ids");
        let words = bytes.as_chunks::<8>().0.iter();
        let ids: Vec<i64> = words.map(|&b| i64::from_le_bytes(b)).collect();
        let said: Vec<String> = ids
            .chunks(shape[1])
            .map(|ids| {
                let words = ids.iter().filter(|&&id| id > 4).map(|id| format!("w{id}"));
                words.collect::<Vec<String>>().join(" ")
            })
            .collect();
        assert!(said.iter().any(|words| !words.is_empty()), "{case}");
        let found: Vec<&str> = records
            .iter()
            .map(|r| r["caption"].as_str().unwrap())
            .collect();
        assert_eq!(found, said, "{case}");
        assert_eq!(records[0]["image"], "first");
        assert_eq!(records[1]["image"], "second");
    }
}

#[test]
fn answers_and_matching_are_those_of_the_reference() {
    let questions = ["w7 w8 w9", "w11 w12"];
    let directory = model("vqa", serde_json::json!({}));
    let answers = "zero\none\ntwo\nthree\nfour\nfive\nsix\n";
    std::fs::write(directory.path().join("labels.txt"), answers).unwrap();
    let [features, tags] = files("vqa", directory.path());
    let name = directory.path().display().to_string();
    let logits = floats("vqa", "out.logits");
    for (i, row) in ["first", "second"].into_iter().enumerate() {
        let args = [
            "ask",
            questions[i],
            row,
            "--model",
            &name,
            "--regions",
            &features,
            "--tags",
            &tags,
            "--json",
        ];
        let record = run(args).with(0).records().swap_remove(0);
        let logits = &logits[i * 7..][..7];
        let best = (0..7)
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
            .unwrap();
        assert_eq!(record["answer"], answers.lines().nth(best).unwrap());
        let expected = 1.0 / (1.0 + (-logits[best]).exp());
        let found = record["confidence"].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }

    let directory = model("retrieval", serde_json::json!({}));
    let [features, tags] = files("retrieval", directory.path());
    let name = directory.path().display().to_string();
    let logits = floats("retrieval", "out.logits");
    for (i, row) in ["first", "second"].into_iter().enumerate() {
        let args = [
            "match",
            row,
            questions[i],
            "--model",
            &name,
            "--regions",
            &features,
            "--tags",
            &tags,
            "--json",
        ];
        let record = run(args).with(0).records().swap_remove(0);
        let [no, yes] = [logits[2 * i].exp(), logits[2 * i + 1].exp()];
        let found = record["matching"].as_f64().unwrap();
        assert!(
            (found - yes / (no + yes)).abs() < 1e-4,
            "{found} {no} {yes}"
        );
    }
}

#[test]
fn statements_are_judged_about_two_rows_in_their_order() {
    let directory = model("nlvr2", serde_json::json!({}));
    let [features, tags] = files("retrieval", directory.path());
    let name = directory.path().display().to_string();
    let judge = |rows: [&str; 2]| {
        let args = [
            "judge",
            "w7 w8",
            rows[0],
            rows[1],
            "--model",
            &name,
            "--regions",
            &features,
            "--tags",
            &tags,
            "--json",
        ];
        let record = run(args).with(0).records().swap_remove(0);
        let of = |class: &str| record["classes"][class].as_f64().unwrap();
        assert!((of("true") + of("false") - 1.0).abs() < 1e-3, "{record}");
        of("true")
    };
    let orders = [["first", "second"], ["second", "first"]].map(judge);
    assert!((orders[0] - orders[1]).abs() > 1e-4, "{orders:?}");
}

/// From pixels to words: VinVL's detector gives 32 numbers and a place of each region, and names for its classes.
#[test]
fn a_detector_gives_the_regions_of_a_picture() {
    let detector = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        let from = testdata("vinvl/fitted").join(file);
        std::fs::copy(from, detector.path().join(file)).unwrap();
    }
    let labels: Vec<String> = (20..26).map(|i| format!("w{i}")).collect();
    std::fs::write(detector.path().join("labels.txt"), labels.join("\n")).unwrap();
    let detector = detector.path().display().to_string();
    let oscar = model("generation", serde_json::json!({}));
    let oscar = oscar.path().display().to_string();
    let picture = testdata("../../examples/pictures/five-hearts.png");
    let picture = picture.display().to_string();
    // one that reads as many numbers as the detector gives, and the place
    let reading = model("retrieval", serde_json::json!({"img_feature_dim": 64 + 6}));
    let weights = reading.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let wide: Vec<u8> = (0..12 * 70)
        .flat_map(|i| (((i * 37 % 101) as f32 - 50.0) / 400.0).to_le_bytes())
        .collect();
    let each = tensors.tensors().into_iter().map(|(name, tensor)| {
        let wide = TensorView::new(Dtype::F32, vec![12, 70], &wide).unwrap();
        let replaced = name == "bert.img_embedding.weight";
        (name, if replaced { wide } else { tensor })
    });
    std::fs::write(&weights, safetensors::serialize(each, None).unwrap()).unwrap();
    let reading = reading.path().display().to_string();
    let other = testdata("../../examples/pictures/circle-star-ring.png");
    let [hearts, ring] = [&picture, &other.display().to_string()].map(|picture| {
        let args = [
            "match",
            picture,
            "w7 w8",
            "--model",
            &reading,
            "--detector",
            &detector,
            "--json",
        ];
        let record = run(args).with(0).records().swap_remove(0);
        record["matching"].as_f64().unwrap()
    });
    assert!(
        hearts > 0.0 && hearts < 1.0 && hearts != ring,
        "{hearts} {ring}"
    );
    // the published tiny Oscar reads regions of ten numbers
    let ended = run([
        "caption",
        &picture,
        "--model",
        &oscar,
        "--detector",
        &detector,
    ])
    .with(1);
    ended.complains(&[
        "five-hearts.png",
        "expected 10 numbers each, or 4 and a place",
    ]);
    let ended = run(["caption", &picture, "--model", &oscar, "--detector", &oscar]).with(2);
    ended.complains(&["oscar", "detect objects"]);
}

#[test]
fn what_does_not_fit_together_is_told_before_any_picture() {
    let directory = model("vqa", serde_json::json!({}));
    let [features, tags] = files("vqa", directory.path());
    let name = directory.path().display().to_string();
    let ended = run(["ask", "w7", "first", "--model", &name]).with(2);
    ended.complains(&["reads regions", "--detector MODEL or --regions TSV"]);
    let picture = testdata("../../examples/pictures/five-hearts.png");
    let picture = picture.display().to_string();
    let ended = run(["ask", "how many?", &picture, "--regions", &features]).with(2);
    ended.complains(&["--regions", "vlm-tiny", "reads pictures themselves"]);
    let ended = run(["caption", "first", "--model", &name, "--regions", &features]).with(2);
    ended.complains(&[
        "ImageBertForSequenceClassification",
        "BertForImageCaptioning",
    ]);
    // a row that is not there does not stop the others
    let ended = run([
        "ask",
        "w7",
        "third",
        "second",
        "--model",
        &name,
        "--regions",
        &features,
    ])
    .with(1);
    assert_eq!(ended.stdout.lines().count(), 1);
    ended.complains(&["third", "one of 2 rows, such as first"]);
    // a file that someone stopped writing
    let bytes = std::fs::read(&features).unwrap();
    std::fs::write(&features, &bytes[..bytes.len() - 20]).unwrap();
    let ended = run([
        "ask",
        "w7",
        "*",
        "--model",
        &name,
        "--regions",
        &features,
        "--tags",
        &tags,
    ])
    .with(1);
    assert_eq!(ended.stdout.lines().count(), 1);
    ended.complains(&["features.tsv:2", "the end of the file"]);
    std::fs::write(directory.path().join("labels.txt"), "yes\nno\n").unwrap();
    let ended = run([
        "ask",
        "w7",
        "first",
        "--model",
        &name,
        "--regions",
        &features,
    ])
    .with(2);
    ended.complains(&["labels.txt", "expected 7 names", "found 2"]);
}
