//! Data sets of other descriptions than `items.jsonl`: measured, and learned from.

use crate::support::{copy, data, model, run, run_in, text};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The pictures of [`data`] with a description that `record` makes of a picture's name and item.
fn set(directory: &Path, name: &str, record: impl Fn(&str, &Value) -> Value) {
    copy(data(), directory);
    let items = fs::read_to_string(data().join("items.jsonl")).unwrap();
    fs::remove_file(directory.join("items.jsonl")).unwrap();
    let lines: Vec<String> = items
        .lines()
        .map(|line| {
            let item: Value = serde_json::from_str(line).unwrap();
            record(item["image"].as_str().unwrap(), &item).to_string()
        })
        .collect();
    fs::write(directory.join(name), lines.join("\n")).unwrap();
}

fn evaluate(task: &str, data: &Path, more: &[&str]) -> Value {
    let (data, model) = (text(data), model());
    let arguments = [
        "eval",
        task,
        "--json",
        "--data",
        data,
        "--model",
        text(&model),
    ];
    run(arguments.iter().chain(more))
        .with(0)
        .records()
        .remove(0)
}

#[test]
fn labelled_pictures_are_classified_whole_or_as_far_as_they_are_held_out() {
    let place = tempfile::tempdir().unwrap();
    let number = |name: &str| name[..6].parse::<usize>().unwrap();
    set(place.path(), "labels.jsonl", |name, _| {
        let label = ["red_circle", "blue_star"][number(name) % 2];
        json!({"image": name, "label": label})
    });
    let whole = evaluate("zero-shot", place.path(), &[]);
    assert_eq!((&whole["n"], &whole["classes"]), (&12.into(), &2.into()));
    let part = evaluate(
        "zero-shot",
        place.path(),
        &["--held-out", "0.34", "--split-seed", "3"],
    );
    assert_eq!(part["n"], 4, "a third of six of each label");
    let data = text(place.path());
    let ended = run(["eval", "zero-shot", "--data", data, "--held-out", "1.5"]).with(2);
    ended.complains(&["--held-out", "between 0 and 1"]);
}

#[test]
fn captions_are_found_in_pictures_of_other_styles() {
    let place = tempfile::tempdir().unwrap();
    set(
        place.path(),
        "captions.jsonl",
        |name, item| json!({"image": name, "captions": item["captions"]}),
    );
    let plain = evaluate("retrieval", place.path(), &["--first-caption"]);
    assert_eq!(
        (&plain["images"], plain["texts"].as_u64().unwrap() <= 12),
        (&12.into(), true)
    );
    for style in ["blurred", "recoloured", "rotated", "grey"] {
        let more = ["--first-caption", "--style", style];
        let changed = evaluate("retrieval", place.path(), &more);
        assert_eq!(changed["images"], 12);
    }
}

#[test]
fn statements_are_answered_by_a_model_that_answers_questions() {
    let place = tempfile::tempdir().unwrap();
    let scenes = place.path().join("images");
    set(&scenes, "description", |name, _| {
        json!({
            "identifier": format!("{}-0", &name[..6]), "sentence": "There is a circle.", "label": "true",
            "images": [name],
        })
    });
    let description = fs::read(scenes.join("description")).unwrap();
    fs::write(place.path().join("examples.jsonl"), description).unwrap();
    let record = evaluate("statements", place.path(), &[]);
    assert_eq!(
        (&record["n"], &record["majority"]),
        (&12.into(), &1.0.into())
    );
    assert!(record["ci95"][0].as_f64() <= record["accuracy"].as_f64());
    assert_eq!(evaluate("vqa", place.path(), &[])["n"], 12);
    // a picture that votes three times says what it said once
    let voted = evaluate("statements", place.path(), &["--votes", "3"]);
    assert_eq!(voted["accuracy"], record["accuracy"]);
    let (place, none) = (text(place.path()), ["--votes", "0"]);
    let refused = run(["eval", "statements", "--data", place].iter().chain(&none)).with(2);
    assert!(
        refused.stderr.contains("'--votes <N>': expected 1 to 64"),
        "{refused:?}"
    );
}

#[test]
fn a_dual_encoder_learns_from_a_set_and_every_command_can_use_it() {
    let place = tempfile::tempdir().unwrap();
    set(&place.path().join("set"), "labels.jsonl", |name, _| {
        let label = if name < "000006" { "square" } else { "ring" };
        json!({"image": name, "label": label})
    });
    let recipe = r#"
        name = "tiny"
        [data]
        sets = ["set"]
        seed = 1
        held_out = 0.34
        distinct_labels = true
        templates = ["a picture of a {}"]
        [train]
        seed = 1
        steps = 2
        batch_size = 2
        accumulate = 1
        learning_rate = 1e-3
        min_learning_rate = 0.0
        warmup_steps = 1
        decay_steps = 1
        weight_decay = 0.1
        betas = [0.9, 0.98]
        clip_norm = 1.0
        precision = "f32"
        checkpoint_every = 2
        output = "f32"
        [validation]
        every = 2
        pictures = 4
        [model.model_cfg]
        embed_dim = 16
        [model.model_cfg.vision_cfg]
        image_size = 32
        layers = [1, 1, 1, 1]
        width = 8
        head_width = 16
        [model.model_cfg.text_cfg]
        context_length = 16
        width = 16
        heads = 2
        layers = 1
    "#;
    fs::write(place.path().join("tiny.toml"), recipe).unwrap();
    run_in(place.path(), ["train", "tiny.toml", "--quiet"]).with(0);
    let log = fs::read_to_string(place.path().join("runs/tiny/log.jsonl")).unwrap();
    assert!(log.contains("zero_shot_accuracy"), "{log}");
    let classified = run_in(
        place.path(),
        [
            "classify",
            "set/000000.png",
            "--labels",
            "square,ring",
            "--model",
            "runs/tiny/model",
        ],
    );
    assert!(classified.with(0).stdout.contains("square"));
    let arguments = [
        "eval",
        "zero-shot",
        "--json",
        "--data",
        "set",
        "--held-out",
        "0.34",
        "--model",
        "runs/tiny/model",
    ];
    let record = run_in(place.path(), arguments).with(0).records().remove(0);
    assert_eq!(record["n"], 4);

    let wrong = recipe.replace("sets = [\"set\"]", "sets = [\"nowhere\"]");
    fs::write(place.path().join("wrong.toml"), wrong).unwrap();
    let ended = run_in(place.path(), ["train", "wrong.toml", "--out", "other"]).with(2);
    ended.complains(&["nowhere", "no such file"]);
}
