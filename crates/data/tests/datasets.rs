//! Data sets of every known description, as directories and as tars, and what is wrong with bad ones.

use std::path::{Path, PathBuf};

use vlm_data::datasets::{Format, Part, Record, Set, Split};
use vlm_data::image::Limits;

/// A PNG of one grey pixel.
const PNG: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52,
    0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3a, 0x7e, 0x9b,
    0x55, 0x00, 0x00, 0x00, 0x0a, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0x68, 0x00, 0x00, 0x00,
    0x82, 0x00, 0x81, 0x77, 0xcd, 0x72, 0xb6, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae,
    0x42, 0x60, 0x82,
];

struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vlm-datasets-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A directory and a tar with the same files.
    fn both(&self, files: &[(&str, &[u8])]) -> [PathBuf; 2] {
        let directory = self.0.join("set");
        let _ = std::fs::remove_dir_all(&directory);
        let mut tar = Vec::new();
        for (name, bytes) in files {
            let path = directory.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            tar.extend(entry(name, bytes));
        }
        tar.extend([0; 1024]);
        let path = self.0.join("set.tar");
        std::fs::write(&path, tar).unwrap();
        [directory, path]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file in a ustar archive: header and contents in blocks of 512 bytes.
fn entry(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = vec![0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header.extend(bytes);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn open(path: &Path) -> Set {
    Set::open(path).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_description_is_known_by_its_file_in_directories_and_tars() {
    let scratch = Scratch::new("known");
    let picture = ("images/a.png", PNG);
    type Case = (&'static str, &'static [u8], Format, fn(&Record) -> bool);
    let cases: [Case; 7] = [
        (
            "items.jsonl",
            br#"{"image": "images/a.png", "captions": ["one"], "label": "dot", "qa": [{"question": "q", "answer": "a"}]}"#,
            Format::Items,
            |r| r.captions == ["one"] && r.label.as_deref() == Some("dot") && r.questions.len() == 1,
        ),
        (
            "labels.jsonl",
            br#"{"image": "images/a.png", "label": "water_lilly"}"#,
            Format::Caltech,
            |r| r.label.as_deref() == Some("water lilly"),
        ),
        (
            "labels.jsonl",
            br#"{"image": "images/a.png", "class_id": 14}"#,
            Format::Gtsrb,
            |r| r.label.as_deref() == Some("stop"),
        ),
        (
            "emoji.jsonl",
            br#"{"image": "images/a.png", "name": "star", "keywords": ["night", "shiny_thing"], "category": "nature"}"#,
            Format::Emoji,
            |r| r.captions == ["star", "star: night, shiny thing"],
        ),
        (
            "captions.jsonl",
            br#"{"image": "images/a.png", "captions": ["a dog", "it runs"]}"#,
            Format::Flickr,
            |r| r.captions.len() == 2,
        ),
        (
            "examples.jsonl",
            br#"{"identifier": "7-2", "sentence": "There is a box.", "label": "True", "images": ["a.png", "a.png"]}"#,
            Format::Nlvr,
            |r| {
                let true_one = r.statement.as_ref().is_some_and(|s| s.truth);
                true_one && r.group == "7" && r.pictures.len() == 2 && r.questions.is_empty()
            },
        ),
        (
            "examples.jsonl",
            br#"{"identifier": "7-2", "sentence": "s", "label": "false", "images": ["a.png"], "qa": [{"question": "how many?", "answer": "2", "type": "count"}, {"question": "any?", "answer": "no"}]}"#,
            Format::Nlvr,
            |r| r.questions.len() == 2 && r.questions[0].kind == "count" && r.questions[1].kind.is_empty(),
        ),
    ];
    for (name, description, format, right) in cases {
        for path in scratch.both(&[(name, description), picture]) {
            let set = open(&path);
            assert_eq!(set.format(), format, "{}", path.display());
            let [record] = set.records() else {
                panic!("{name}: {:?}", set.records());
            };
            assert!(right(record), "{name}: {record:?}");
            let image = set.picture(&record.pictures[0], &Limits::default());
            assert_eq!(image.unwrap().width(), 1);
        }
    }
}

#[test]
fn questions_of_easy_vqa_are_joined_by_picture_and_keep_their_part() {
    let scratch = Scratch::new("easy");
    let train =
        br#"[["what colour?", "red", 3], ["is it round?", "no", 0], ["what shape?", "circle", 3]]"#;
    let test = br#"[["is it red?", "yes", 0]]"#;
    for path in scratch.both(&[
        ("train/questions.json", train),
        ("test/questions.json", test),
        ("train/images/0.png", PNG),
        ("train/images/3.png", PNG),
        ("test/images/0.png", PNG),
    ]) {
        let set = open(&path);
        let summary: Vec<(&str, &str, usize)> = set
            .records()
            .iter()
            .map(|r| (r.part.as_str(), r.pictures[0].as_str(), r.questions.len()))
            .collect();
        assert_eq!(
            summary,
            [
                ("train", "train/images/0.png", 1),
                ("train", "train/images/3.png", 2),
                ("test", "test/images/0.png", 1)
            ]
        );
        assert_eq!(set.records()[1].questions[1].kind, "shape");
    }
}

#[test]
fn bad_records_are_named_by_file_line_and_field() {
    let scratch = Scratch::new("bad");
    let good = r#"{"image": "images/a.png", "label": "x"}"#;
    for (name, line, message) in [
        (
            "labels.jsonl",
            "{",
            "labels.jsonl:3: record: expected a JSON object",
        ),
        (
            "labels.jsonl",
            r#"{"image": "images/b.png", "label": "x"}"#,
            r#"labels.jsonl:3: image: expected a picture of the data set, found "images/b.png", which is not in"#,
        ),
        (
            "labels.jsonl",
            r#"{"image": "../a.png", "label": "x"}"#,
            "labels.jsonl:3: image: expected a path inside the data set",
        ),
        (
            "labels.jsonl",
            r#"{"image": "images/a.png"}"#,
            "labels.jsonl:3: label: expected a string, found none",
        ),
    ] {
        let text = format!("{good}\n\n{line}\n");
        for path in scratch.both(&[(name, text.as_bytes()), ("images/a.png", PNG)]) {
            let error = Set::open(&path).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }
    for (name, line, message) in [
        (
            "labels.jsonl",
            r#"{"image": "images/a.png", "class_id": 43}"#,
            "class_id: expected a class, 0 to 42",
        ),
        (
            "captions.jsonl",
            r#"{"image": "images/a.png", "captions": []}"#,
            "captions: expected a list of one string",
        ),
        (
            "emoji.jsonl",
            r#"{"image": "images/a.png", "name": "x", "keywords": [1]}"#,
            "keywords[0]: expected a string, found 1",
        ),
        (
            "examples.jsonl",
            r#"{"identifier": "1-0", "sentence": "s", "label": "maybe", "images": ["a.png"]}"#,
            "label: expected true or false",
        ),
        (
            "examples.jsonl",
            r#"{"identifier": "1-0", "sentence": "s", "label": "true", "images": ["a.png"], "qa": [{"question": "q"}]}"#,
            "qa[0].answer: expected a string, found none",
        ),
        (
            "examples.jsonl",
            r#"{"identifier": "1-0", "sentence": "s", "label": "true", "images": ["a.png"], "qa": {}}"#,
            "qa: expected a list, found {}",
        ),
        (
            "train/questions.json",
            r#"[["q", "a"]]"#,
            "questions.json:1: record: expected [question, answer, number",
        ),
        (
            "train/questions.json",
            r#"[["q", "a", 9]]"#,
            "[2]: expected a picture of the data set",
        ),
        ("train/questions.json", "{}", "file: expected a JSON list"),
        (
            "captions.jsonl",
            "",
            "expected one record or more, found an empty file",
        ),
        ("README.md", "nothing", "expected items.jsonl, labels.jsonl"),
    ] {
        for path in scratch.both(&[(name, line.as_bytes()), ("images/a.png", PNG)]) {
            let error = Set::open(&path).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}

#[test]
fn damaged_tars_are_errors() {
    let scratch = Scratch::new("tar");
    let path = scratch.0.join("bad.tar");
    let whole = [entry("labels.jsonl", b"{}"), entry("images/a.png", PNG)].concat();
    let mut lying = whole.clone();
    // a size beyond the end of the file
    lying[124..135].copy_from_slice(b"77777777777");
    for bytes in [
        &b""[..],
        &b"no tar at all"[..],
        &whole[..300],
        &lying[..],
        &[7; 2048][..],
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Set::open(&path).unwrap_err().to_string();
        assert!(error.contains("bad.tar"), "{error}");
    }
    assert!(Set::open(&scratch.0.join("missing")).is_err());
}

fn records() -> Vec<Record> {
    let mut records = Vec::new();
    for label in 0..4 {
        for group in 0..10 {
            for frame in 0..3 {
                records.push(Record {
                    pictures: vec![format!("{label}_{group}_{frame}")],
                    label: Some(label.to_string()),
                    group: format!("{label}_{group}"),
                    ..Record::default()
                });
            }
        }
    }
    records
}

#[test]
fn whole_groups_of_every_label_are_held_out_by_the_seed() {
    let records = records();
    let split = Split {
        fraction: 0.2,
        seed: 7,
    };
    let held = split.part(&records, Part::HeldOut);
    let train = split.part(&records, Part::Train);
    assert_eq!(held.len(), 4 * 2 * 3);
    assert_eq!(held.len() + train.len(), records.len());
    let groups = |places: &[usize]| -> std::collections::BTreeSet<String> {
        places.iter().map(|&i| records[i].group.clone()).collect()
    };
    assert!(groups(&held).is_disjoint(&groups(&train)));
    for label in 0..4 {
        let of_label = held
            .iter()
            .filter(|&&i| records[i].label == Some(label.to_string()));
        assert_eq!(of_label.count(), 6);
    }
    assert_eq!(held, split.part(&records, Part::HeldOut));
    let other = Split { seed: 8, ..split };
    assert_ne!(held, other.part(&records, Part::HeldOut));
    // a label with one group is learned, one with two gives one away
    let few = [&records[..3], &records[30..36]].concat();
    assert_eq!(split.part(&few, Part::HeldOut).len(), 3);
}
