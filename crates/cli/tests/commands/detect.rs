//! `vlm detect`, on the tiny detector of testdata/models/faster_rcnn.

use crate::support::run;
use std::path::Path;

fn path(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(name).display().to_string()
}

fn model() -> String {
    path("testdata/models/faster_rcnn/frozen")
}

const PICTURE: &str = "examples/pictures/five-hearts.png";

#[test]
fn objects_are_printed_and_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("annotated");
    let (model, picture) = (model(), path(PICTURE));
    let out_path = out.display().to_string();
    let ended = run([
        "detect", &picture, &picture, "--model", &model, "--json", "--out", &out_path,
    ])
    .with(0);
    let records = ended.records();
    assert_eq!(records.len(), 2);
    let record = &records[0];
    let boxes = record["boxes"].as_array().unwrap();
    assert!(!boxes.is_empty(), "{record}");
    for list in ["scores", "classes", "labels", "attributes"] {
        assert_eq!(
            record[list].as_array().unwrap().len(),
            boxes.len(),
            "{list}"
        );
    }
    for corners in boxes {
        let c: Vec<f64> = serde_json::from_value(corners.clone()).unwrap();
        assert!(c.len() == 4 && c[0] < c[2] && c[1] < c[3], "{corners}");
    }
    assert!(record["classes"][0].as_str().unwrap().starts_with("class "));
    assert!(record["ms"].as_f64().unwrap() > 0.0);
    // the same name twice, and neither is overwritten
    let expected = ["five-hearts.png", "five-hearts-2.png"];
    for (record, name) in records.iter().zip(expected) {
        let written = out.join(name);
        assert_eq!(record["picture"], written.display().to_string());
        let original = std::fs::read(&picture).unwrap();
        assert_ne!(std::fs::read(written).unwrap(), original);
    }
}

#[test]
fn thresholds_numbers_and_names_are_obeyed() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(Path::new(&model()).join(file), directory.path().join(file)).unwrap();
    }
    let labels = directory.path().join("labels.txt");
    std::fs::write(&labels, "cat\ndog\nheart\nring\n").unwrap();
    let named = directory.path().display().to_string();
    let picture = path(PICTURE);
    let ended = run([
        "detect", &picture, "--model", &named, "--max", "1", "--json",
    ])
    .with(0);
    let record = &ended.records()[0];
    assert_eq!(record["boxes"].as_array().unwrap().len(), 1);
    let class = record["classes"][0].as_str().unwrap();
    assert!(["cat", "dog", "heart", "ring"].contains(&class), "{class}");
    let ended = run(["detect", &picture, "--model", &named, "--threshold", "1"]).with(0);
    assert_eq!(ended.stdout, "nothing found\n");
    std::fs::write(&labels, "cat\ndog\n").unwrap();
    let ended = run(["detect", &picture, "--model", &named]).with(2);
    ended.complains(&["labels.txt", "expected 5 names", "found 2"]);
    let ended = run(["inspect", &named]).with(0);
    assert!(ended.stdout.contains("problem: "), "{ended:?}");
}

#[test]
fn a_model_that_finds_no_objects_names_those_that_do() {
    let ended = run(["detect", &path(PICTURE)]).with(2);
    ended.complains(&["coca cannot detect objects", "fasterrcnn_resnet50_fpn"]);
    let ended = run(["caption", &path(PICTURE), "--model", &model()]).with(2);
    ended.complains(&["faster_rcnn cannot"]);
}

#[test]
fn a_bad_picture_does_not_stop_the_others() {
    let ended = run(["detect", "no-such.png", &path(PICTURE), "--model", &model()]).with(1);
    assert!(ended.stderr.contains("no-such.png"), "{ended:?}");
    assert!(ended.stdout.contains("class "), "{ended:?}");
}

#[test]
fn a_detector_is_verified_and_inspected() {
    for name in ["frozen", "batch_norm"] {
        let model = path(&format!("testdata/models/faster_rcnn/{name}"));
        let golden = format!("{model}/golden.safetensors");
        let ended = run(["verify", &model, "--golden", &golden, "--quiet"]).with(0);
        for output in ["boxes", "scores", "labels", "proposals"] {
            assert!(ended.stdout.contains(output), "{ended:?}");
        }
        let ended = run(["inspect", &model, "--json"]).with(0);
        let record = &ended.records()[0];
        assert_eq!(record["family"], "faster_rcnn");
        assert_eq!(record["can"], serde_json::json!(["detect", "verify"]));
        assert_eq!(record["sound"], true);
    }
}
