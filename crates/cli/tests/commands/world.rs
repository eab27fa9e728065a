use crate::support::{run, run_in};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use vlm_data::datasets::{Format, Set};
use vlm_data::image::Limits;
use vlm_worlds::boxes;

/// The files of a directory, without its folders.
fn files_of(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.filter(|e| e.path().is_file());
    files
        .map(|e| {
            let name = e.file_name().into_string().unwrap();
            (name, fs::read(e.path()).unwrap())
        })
        .collect()
}

fn make(directory: &Path, more: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let out = directory.to_str().unwrap();
    let arguments = [
        "world",
        "shapes",
        "--split",
        "validation",
        "--count",
        "5",
        "--out",
        out,
    ];
    let ended = run(arguments.iter().chain(more)).with(0);
    assert_eq!((ended.stdout.trim_end(), ended.stderr.as_str()), (out, ""));
    files_of(directory)
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let first = make(&at("a"), &["--seed", "11"]);
    assert_eq!(first.len(), 6);
    assert_eq!(
        first["items.jsonl"].iter().filter(|&&b| b == b'\n').count(),
        5
    );
    assert!(first["000000.png"].starts_with(b"\x89PNG"));
    assert_eq!(first, make(&at("b"), &["--seed", "11", "--threads", "1"]));
    let other = make(&at("c"), &["--seed", "12"]);
    assert_ne!(first["000000.png"], other["000000.png"]);
    // an earlier output is replaced
    assert_eq!(other, make(&at("a"), &["--seed", "12"]));
}

#[test]
fn size_and_difficulty_are_those_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let made = make(
        &place.path().join("a"),
        &["--seed", "1", "--size", "96", "--difficulty", "0"],
    );
    let line = made["items.jsonl"].split(|&b| b == b'\n').next().unwrap();
    let item: serde_json::Value = serde_json::from_slice(line).unwrap();
    assert_eq!(
        (&item["width"], &item["split"]),
        (&96.into(), &"validation".into())
    );
}

#[test]
fn a_directory_that_holds_other_files_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("thesis.txt"), "years of work").unwrap();
    let arguments = [
        "world", "shapes", "--split", "test", "--count", "1", "--seed", "1", "--out",
    ];
    let taken = run_in(place.path(), arguments.iter().chain(&["."])).with(2);
    taken.complains(&["expected a new or empty directory"]);
    let file = run_in(place.path(), arguments.iter().chain(&["thesis.txt"])).with(2);
    file.complains(&["thesis.txt"]);
    assert_eq!(files_of(place.path()).len(), 1);
}

fn make_boxes(directory: &Path, more: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let out = directory.to_str().unwrap();
    let arguments = [
        "world", "boxes", "--split", "train", "--count", "6", "--out", out,
    ];
    let ended = run(arguments.iter().chain(more)).with(0);
    assert_eq!((ended.stdout.trim_end(), ended.stderr.as_str()), (out, ""));
    let mut files = files_of(directory);
    files.extend(files_of(&directory.join("images")));
    files
}

#[test]
fn statements_about_boxes_are_written_as_nlvr_is_and_read_back() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let first = make_boxes(&at("a"), &["--seed", "11", "--orders", "2"]);
    assert_eq!(first.len(), 1 + 12);
    let again = ["--seed", "11", "--orders", "2", "--threads", "1"];
    assert_eq!(first, make_boxes(&at("b"), &again));
    let set = Set::open(&at("a")).unwrap();
    assert_eq!((set.format(), set.records().len()), (Format::Nlvr, 6));
    for (number, record) in set.records().iter().enumerate() {
        let item = boxes::generate(boxes::Split::Train, 11, number as u64);
        let statement = record.statement.as_ref().unwrap();
        assert_eq!(
            (&statement.text, statement.truth),
            (&item.sentence, item.truth)
        );
        assert_eq!(record.group, (number / 2).to_string());
        assert_eq!(record.pictures.len(), 2);
        for (name, order) in record.pictures.iter().zip(boxes::ORDERS) {
            let image = set.picture(name, &Limits::default()).unwrap();
            let picture = boxes::Picture::of(&item.scene, order);
            assert_eq!((image.width(), image.height()), (400, 100));
            assert!(image.rgb() == picture.rgb(), "{name}");
        }
    }
    // an earlier output is replaced
    let other = make_boxes(&at("a"), &["--seed", "12"]);
    assert_eq!(other.len(), 1 + 6);
    assert_eq!(other, make_boxes(&at("c"), &["--seed", "12"]));
}

#[test]
fn nlvr_itself_is_not_taken_for_an_earlier_output() {
    let place = tempfile::tempdir().unwrap();
    let line = r#"{"identifier": "1-0", "sentence": "There is a tower.", "label": "true", "images": ["dev-1-0-0.png"]}"#;
    fs::write(place.path().join("examples.jsonl"), line).unwrap();
    let arguments = [
        "world", "boxes", "--split", "test", "--count", "1", "--seed", "1", "--out", ".",
    ];
    let taken = run_in(place.path(), arguments.iter()).with(2);
    taken.complains(&["expected a new or empty directory"]);
    assert_eq!(files_of(place.path())["examples.jsonl"], line.as_bytes());
    let split = [
        "world",
        "boxes",
        "--split",
        "compositional",
        "--count",
        "1",
        "--seed",
        "1",
        "--out",
        "new",
    ];
    let wrong = run_in(place.path(), split.iter()).with(2);
    assert!(
        wrong.stderr.contains("train, validation, test"),
        "{wrong:?}"
    );
}
