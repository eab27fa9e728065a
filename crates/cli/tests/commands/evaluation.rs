use crate::support::{copy, data, model, run, run_in};
use serde_json::Value;
use std::fs;

fn evaluate(task: &str, data: &std::path::Path, more: &[&str]) -> crate::support::Ended {
    let (data, model) = (data.to_str().unwrap(), model());
    let model = model.to_str().unwrap();
    let arguments = ["eval", task, "--data", data, "--model", model];
    run(arguments.iter().chain(more))
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn answers_are_scored_by_type_and_written_down() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("answers.jsonl");
    let more = ["--json", "--out", out.to_str().unwrap()];
    let record = evaluate("vqa", data(), &more).with(0).records().remove(0);
    let expected = [
        "task", "n", "accuracy", "ci95", "by_type", "failed", "model", "data",
    ];
    assert_eq!(keys(&record), expected);
    assert_eq!(record["task"], "vqa");
    let types = ["attribute", "comparison", "count", "existence", "relation"];
    assert_eq!(keys(&record["by_type"]), types);
    let n: u64 = types
        .iter()
        .map(|t| record["by_type"][t]["n"].as_u64().unwrap())
        .sum();
    assert_eq!(record["n"], n);
    assert_eq!(keys(&record["by_type"]["count"]), ["n", "accuracy", "ci95"]);

    // the file tells the same story
    let answers = lines(&out);
    assert_eq!(answers.len() as u64, n);
    let right = answers.iter().filter(|a| a["correct"] == true).count();
    let accuracy = record["accuracy"].as_f64().unwrap();
    assert!((accuracy - right as f64 / n as f64).abs() < 1e-12);
    let fields = ["image", "question", "type", "answer", "expected", "correct"];
    assert_eq!(keys(&answers[0]), fields);

    let table = evaluate("vqa", data(), &[]).with(0).stdout;
    assert!(
        types.iter().chain(&["all"]).all(|t| table.contains(t)),
        "{table}"
    );
}

#[test]
fn captions_are_scored_with_facts_only_where_the_truth_is_known() {
    let record = evaluate("caption", data(), &["--json"])
        .with(0)
        .records()
        .remove(0);
    let scores = ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d"];
    let facts = ["fact_precision", "fact_recall", "fact_f1"];
    assert_eq!(
        (&record["task"], &record["n"]),
        (&"caption".into(), &12.into())
    );
    for name in scores.iter().chain(&facts) {
        assert!(
            record[name].as_f64().is_some_and(|v| v >= 0.0),
            "{name}: {record}"
        );
    }
    assert_eq!(record["fact_f1_ci95"].as_array().unwrap().len(), 2);

    let plain = tempfile::tempdir().unwrap();
    copy(data(), plain.path());
    let items: String = lines(&data().join("items.jsonl"))
        .iter()
        .map(|item| {
            format!(
                "{}\n",
                serde_json::json!({"image": item["image"], "captions": item["captions"]})
            )
        })
        .collect();
    fs::write(plain.path().join("items.jsonl"), items).unwrap();
    let record = evaluate("caption", plain.path(), &["--json"])
        .with(0)
        .records()
        .remove(0);
    assert!(facts.iter().all(|name| record[name].is_null()), "{record}");
    assert!(record["bleu1"].is_number());
    // and there is nothing to ask about
    let ended = evaluate("vqa", plain.path(), &[]).with(2);
    ended.complains(&["items.jsonl", "expected items with questions"]);
}

#[test]
fn bad_records_and_pictures_are_named_and_the_others_are_measured() {
    let place = tempfile::tempdir().unwrap();
    copy(data(), place.path());
    let path = place.path().join("items.jsonl");
    let mut items = fs::read_to_string(&path).unwrap();
    items += "{\"image\": 3}\nnot json\n{\"image\": \"../secret.png\", \"captions\": [\"x\"]}\n";
    fs::write(&path, items).unwrap();
    fs::remove_file(place.path().join("000003.png")).unwrap();
    fs::write(place.path().join("000004.png"), "text").unwrap();
    let ended = evaluate("caption", place.path(), &["--json"]).with(1);
    let record = ended.records().remove(0);
    assert_eq!((&record["n"], &record["failed"]), (&10.into(), &5.into()));
    let told = [
        "jsonl:13: image",
        "jsonl:14: record",
        "jsonl:15: image",
        "000003.png: ",
        "000004.png: ",
    ];
    for (line, words) in ended.stderr.lines().zip(told) {
        assert!(line.starts_with("vlm: ") && line.contains(words), "{line}");
    }
    assert_eq!(ended.stderr.lines().count(), told.len(), "{ended:#?}");
}

#[test]
fn data_that_cannot_be_read_are_one_line() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    fs::create_dir(place.path().join("empty")).unwrap();
    fs::create_dir(place.path().join("none")).unwrap();
    fs::write(place.path().join("none/items.jsonl"), "\n").unwrap();
    for directory in ["missing", "file", "empty", "none"] {
        let ended = run_in(place.path(), ["eval", "vqa", "--data", directory]).with(2);
        assert_eq!(ended.stdout, "");
        ended.complains(&[directory, "items.jsonl"]);
    }
}
