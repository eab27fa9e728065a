//! `vlm eval detect`, on tiny detectors of testdata/models.

use crate::support::run;
use std::path::Path;

/// A detector of testdata/models whose classes are called like some shapes.
fn named(of: &str, directory: &Path, labels: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models");
    std::fs::create_dir(directory).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(root.join(of).join(file), directory.join(file)).unwrap();
    }
    std::fs::write(directory.join("labels.txt"), labels).unwrap();
    directory.display().to_string()
}

fn model(directory: &Path) -> String {
    let labels = "circle\nsquare\nheart\nring\n";
    named("faster_rcnn/frozen", directory, labels)
}

#[test]
fn average_precision_of_scenes_by_class() {
    let directory = tempfile::tempdir().unwrap();
    let model = model(&directory.path().join("model"));
    let data = directory.path().join("data").display().to_string();
    run([
        "world", "shapes", "--split", "test", "--count", "4", "--seed", "3", "--out", &data,
    ])
    .with(0);
    let out = directory.path().join("found.jsonl").display().to_string();
    let ended = run([
        "eval", "detect", "--data", &data, "--model", &model, "--json", "--out", &out,
    ])
    .with(0);
    let record = &ended.records()[0];
    assert_eq!(
        (&record["task"], &record["n"]),
        (&"detect".into(), &4.into())
    );
    for key in ["ap", "ap50"] {
        let share = record[key].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share), "{record}");
    }
    let classes = record["by_class"].as_object().unwrap();
    assert!(!classes.is_empty());
    for class in classes.values() {
        assert!(
            class["n"].as_u64().unwrap() > 0 && class["ap50"].is_number(),
            "{record}"
        );
    }
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 4);
    let ended = run([
        "eval", "detect", "--data", &data, "--model", &model, "--quiet",
    ])
    .with(0);
    assert!(
        ended.stdout.contains("AP@0.5") && ended.stdout.contains("all"),
        "{ended:?}"
    );
}

/// VinVL's detector tells attributes: those of the data are measured, with the model's names for them.
#[test]
fn attributes_are_measured_where_there_are_some() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("model");
    let labels = "circle\nsquare\nheart\nring\nstar\ncross\n";
    let model = named("vinvl/fitted", &place, labels);
    std::fs::write(place.join("attributes.txt"), "red\nblue\nlarge\nsmall\n").unwrap();
    let data = directory.path().join("data").display().to_string();
    run([
        "world", "shapes", "--split", "test", "--count", "4", "--seed", "3", "--out", &data,
    ])
    .with(0);
    let measured = ["eval", "detect", "--data", &data, "--model", &model];
    let record = run(measured.into_iter().chain(["--json"]))
        .with(0)
        .records()
        .swap_remove(0);
    let attributes = &record["attributes"];
    let each = attributes["by_attribute"].as_object().unwrap();
    let n: u64 = each.values().map(|one| one["n"].as_u64().unwrap()).sum();
    assert_eq!(attributes["n"], n, "{record}");
    assert!(attributes["ap50"].is_number() && attributes["by_attribute"]["red"]["n"].is_u64());
    let ended = run(measured).with(0);
    assert!(ended.stdout.contains("class, attribute"), "{ended:?}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let model = model(&directory.path().join("model"));
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let picture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/pictures/five-hearts.png");
    std::fs::copy(picture, data.join("a.png")).unwrap();
    let path = data.display().to_string();
    let with = |objects: &str| {
        let line = format!("{{\"image\": \"a.png\", \"objects\": [{objects}]}}\n");
        std::fs::write(data.join("items.jsonl"), line).unwrap();
        run(["eval", "detect", "--data", &path, "--model", &model])
    };
    with("")
        .with(2)
        .complains(&["objects that have a box", "found none"]);
    with(r#"{"class": "dog", "box": [1, 1, 9, 9]}"#)
        .with(2)
        .complains(&[
            "expected objects of the model's classes (circle, heart",
            "found dog",
        ]);
    let ended = with(r#"{"class": "ring", "box": [1, 1, 9000, 9]}"#).with(1);
    let expected = "objects[0]: box: expected a box with an area within the picture";
    assert!(ended.stderr.contains(expected), "{ended:?}");
    with(r#"{"class": "ring", "box": [1, 9, 9]}"#)
        .with(2)
        .complains(&["objects[0].box", "four numbers"]);
}
