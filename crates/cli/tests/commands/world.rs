use crate::support::{run, run_in};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
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
    files(directory)
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
    assert_eq!(files(place.path()).len(), 1);
}
