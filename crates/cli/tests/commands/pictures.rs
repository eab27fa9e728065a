use crate::support::{copy, data, model, picture, run, run_in, run_with_stdin};
use serde_json::Value;
use std::fs;

/// The names of a record's fields in their order.
fn fields(record: &Value) -> Vec<&str> {
    record
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn one_picture_gives_its_caption_alone_and_several_are_named() {
    let one = run_in(data(), ["caption", "000000.png"]).with(0);
    assert_eq!(one.stdout.lines().count(), 1, "{one:?}");
    assert!(!one.stdout.contains("000000.png"), "{one:?}");
    assert_eq!(one.stderr, "");

    let two = run_in(data(), ["caption", "000001.png", "000000.png"]).with(0);
    let lines: Vec<&str> = two.stdout.lines().collect();
    assert!(
        lines[0].starts_with("000001.png: ") && lines.len() == 2,
        "{two:?}"
    );
    assert_eq!(lines[1], format!("000000.png: {}", one.stdout.trim_end()));
}

#[test]
fn records_have_the_promised_fields() {
    let path = picture(0);
    let path = path.to_str().unwrap();
    let captioned = run(["caption", "--json", path]).with(0).records();
    assert_eq!(fields(&captioned[0]), ["image", "caption", "model", "ms"]);
    assert_eq!(captioned[0]["image"], path);
    assert_eq!(captioned[0]["model"], "vlm-tiny");
    assert!(captioned[0]["ms"].as_f64().unwrap() > 0.0);

    let asked = run(["ask", "--json", "how many circles are there?", path])
        .with(0)
        .records();
    let expected = ["image", "question", "answer", "confidence", "model", "ms"];
    assert_eq!(fields(&asked[0]), expected);
    assert!(asked[0]["answer"].is_string());

    let directory = model();
    let directory = directory.to_str().unwrap();
    let captioned = run(["caption", "--json", "--model", directory, path])
        .with(0)
        .records();
    assert_eq!(captioned[0]["model"], directory);
}

#[test]
fn every_way_of_naming_pictures_finds_them_in_order() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir_all(at("album/deeper.png")).unwrap();
    for (i, name) in ["b.PNG", "a.png", "[x].png"].iter().enumerate() {
        fs::copy(picture(i), at("album").join(name)).unwrap();
    }
    fs::copy(picture(3), at("album/deeper.png/c.png")).unwrap();
    fs::write(at("album/notes.txt"), "no picture").unwrap();
    let model = model();
    let model = model.to_str().unwrap();
    let cases: [(&str, &[&str]); 4] = [
        ("album", &["album/[x].png", "album/a.png", "album/b.PNG"]),
        ("album/?.png", &["album/a.png"]),
        ("album/*.p*", &["album/[x].png", "album/a.png"]),
        // what exists is not a pattern
        ("album/[x].png", &["album/[x].png"]),
    ];
    for (argument, expected) in cases {
        let arguments = [
            "caption",
            "--json",
            "--max-tokens",
            "2",
            "--model",
            model,
            argument,
        ];
        let records = run_in(place.path(), arguments).with(0).records();
        let found: Vec<&str> = records
            .iter()
            .map(|r| r["image"].as_str().unwrap())
            .collect();
        assert_eq!(found, expected, "{argument}");
    }
}

#[test]
fn stdin_is_a_picture_and_its_trouble_is_named() {
    let bytes = fs::read(picture(0)).unwrap();
    let from_file = run_in(data(), ["caption", "000000.png"]).with(0).stdout;
    let from_stdin = run_with_stdin(data(), &["caption", "-"], &bytes)
        .with(0)
        .stdout;
    assert_eq!(from_file, from_stdin);
    let records = run_with_stdin(data(), &["caption", "-", "000001.png", "--json"], &bytes)
        .with(0)
        .records();
    assert_eq!(
        (&records[0]["image"], records.len()),
        (&Value::from("-"), 2)
    );

    let empty = run_with_stdin(data(), &["caption", "-"], b"").with(1);
    empty.complains(&["<stdin>", "empty"]);
    let torn = run_with_stdin(data(), &["caption", "-"], &bytes[..bytes.len() / 2]).with(1);
    torn.complains(&["<stdin>", "damaged or truncated PNG"]);
}

/// The header of a BMP file of this size, without pixels.
fn bmp(width: i32, height: i32) -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    for word in [54, 0, 54, 40, width, height, 0x0018_0001, 0, 0, 0, 0, 0, 0] {
        bytes.extend(i32::to_le_bytes(word));
    }
    bytes
}

#[test]
fn bad_files_are_told_in_a_line_each_and_the_good_ones_are_done() {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(place.path().join(name), bytes).unwrap();
    let good = fs::read(picture(0)).unwrap();
    write("good.png", &good);
    write("empty.png", b"");
    write("torn.png", &good[..good.len() - 40]);
    write("text.jpg", b"this is not a picture at all");
    write("bytes.gif", &[0xfe; 64]);
    write("flat.bmp", &bmp(0, 10));
    write("huge.bmp", &bmp(40_000, 40_000));
    fs::create_dir(place.path().join("nothing")).unwrap();
    let cases = [
        ("missing.png", "no such file"),
        ("empty.png", "empty"),
        ("torn.png", "damaged or truncated PNG"),
        ("text.jpg", "expected a JPEG, PNG"),
        ("bytes.gif", "bytes that start with fe fe"),
        ("flat.bmp", "flat.bmp"),
        ("huge.bmp", "exceed the limit of 100000000"),
        ("nothing", "expected pictures"),
        ("*.webp", "expected files that match"),
    ];
    let mut arguments = vec!["ask", "--json", "is there a circle?", "good.png"];
    arguments.extend(cases.map(|(name, _)| name));
    arguments.push("good.png");
    let ended = run_in(place.path(), arguments).with(1);
    assert_eq!(ended.records().len(), 2, "{ended:?}");
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), cases.len(), "{ended:#?}");
    for (line, (name, words)) in lines.iter().zip(cases) {
        assert!(line.starts_with(&format!("vlm: {name}: ")), "{line}");
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn a_picture_that_is_no_scene_is_told_once_a_run_and_only_by_the_built_in_model() {
    let place = tempfile::tempdir().unwrap();
    // a grey ramp as a binary-free BMP of 16 x 16 pixels
    let mut photo = bmp(16, 16);
    photo.extend((0..16 * 16 * 3).map(|i| (i / 3) as u8));
    fs::write(place.path().join("a.bmp"), &photo).unwrap();
    fs::write(place.path().join("b.bmp"), &photo).unwrap();
    fs::copy(picture(0), place.path().join("scene.png")).unwrap();

    let note = "no rendered scene of coloured shapes";
    let one = run_in(place.path(), ["caption", "a.bmp", "scene.png"]).with(0);
    one.complains(&["note: a.bmp", note]);
    let two = run_in(place.path(), ["caption", "a.bmp", "b.bmp"]).with(0);
    two.complains(&["2 pictures"]);
    for silent in [
        &["caption", "scene.png"][..],
        &["caption", "--quiet", "a.bmp"],
        &[
            "caption",
            "--max-tokens",
            "2",
            "--model",
            model().to_str().unwrap(),
            "a.bmp",
        ],
    ] {
        assert_eq!(
            run_in(place.path(), silent).with(0).stderr,
            "",
            "{silent:?}"
        );
    }
}

#[test]
fn decoding_options_reach_the_model() {
    let words = |arguments: &[&str]| {
        let all = ["caption", "000000.png"].iter().chain(arguments);
        run_in(data(), all).with(0).stdout.trim_end().to_owned()
    };
    assert!(words(&["--max-tokens", "1"]).split_whitespace().count() <= 1);
    assert_eq!(words(&["--beam", "1"]), words(&[]));
    assert!(!words(&["--beam", "3", "--max-tokens", "6"]).contains('\n'));
    let draw = |seed: &str| {
        words(&[
            "--sample",
            "--temperature",
            "20",
            "--top-p",
            "1",
            "--max-tokens",
            "12",
            "--seed",
            seed,
        ])
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
}

#[test]
fn bad_questions_are_refused_before_any_picture_is_opened() {
    let long = "is there a circle ".repeat(60);
    for (question, words) in [
        ("", "expected a question of some words"),
        (long.as_str(), "at most 92 tokens"),
    ] {
        let ended = run(["ask", question, "missing.png"]).with(2);
        ended.complains(&["question", words]);
    }
    let unknown = run_in(data(), ["ask", "is there a zebra?", "000000.png"]).with(0);
    unknown.complains(&["note: question", "zebra"]);
}

#[test]
fn threads_do_not_change_what_is_said() {
    let place = tempfile::tempdir().unwrap();
    copy(data(), place.path());
    let say = |threads| {
        run_in(place.path(), ["caption", "--threads", threads, "."])
            .with(0)
            .stdout
    };
    assert_eq!(say("1"), say("2"));
}

#[test]
fn attention_is_written_as_a_picture_for_each_input_and_none_replaces_another() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("maps/of words");
    let (path, out_dir) = (picture(0), out.to_str().unwrap().to_owned());
    let path = path.to_str().unwrap();
    let arguments = ["caption", "--json", path, path, "--attention", &out_dir];
    let records = run(arguments).with(0).records();
    let expected = ["image", "caption", "attention", "model", "ms"];
    assert_eq!(fields(&records[0]), expected);
    for (record, name) in records.iter().zip(["000000.png", "000000-2.png"]) {
        let file = out.join(name);
        assert_eq!(record["attention"], file.to_str().unwrap());
        let sheet = fs::read(&file).unwrap();
        assert!(sheet.starts_with(b"\x89PNG") && sheet.len() > 1000);
    }
    let plain = run(["caption", "--json", path]).with(0).records();
    assert_eq!(plain[0]["caption"], records[0]["caption"]);
    // a file is no directory
    let refused = run(["caption", path, "--attention", path]).with(2);
    refused.complains(&["--attention", path]);
}
