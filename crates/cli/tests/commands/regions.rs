//! Oscar on regions: from files of features, against what the reference makes of the same numbers, and from a detector.

use crate::support::{picture, run, run_in, sections};
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

/// A command on rows of files of regions and tags.
fn on_rows(command: &[&str], model: &Path, [regions, tags]: &[String; 2]) -> serde_json::Value {
    let model = model.display().to_string();
    let more = [
        "--model",
        &model,
        "--regions",
        regions,
        "--tags",
        tags,
        // as the reference, also where bfloat16 is what `auto` takes
        "--precision",
        "f32",
        "--json",
    ];
    let ended = run(command.iter().chain(&more)).with(0);
    ended.records().swap_remove(0)
}

/// What the reference writes, a caption for each row.
fn said(case: &str) -> Vec<String> {
    let (shape, bytes) = golden(case, "out.generated_ids");
    let words = bytes.as_chunks::<8>().0.iter();
    let ids: Vec<i64> = words.map(|&b| i64::from_le_bytes(b)).collect();
    ids.chunks(shape[1])
        .map(|ids| {
            let words = ids.iter().filter(|&&id| id > 4).map(|id| format!("w{id}"));
            words.collect::<Vec<String>>().join(" ")
        })
        .collect()
}

const ANSWERS: &str = "zero\none\ntwo\nthree\nfour\nfive\nsix\n";

/// A model of answers, and the reference's likeliest answer to [`QUESTIONS`] with its logit.
fn answering() -> (TempDir, Vec<(&'static str, f64)>) {
    let directory = model("vqa", serde_json::json!({}));
    std::fs::write(directory.path().join("labels.txt"), ANSWERS).unwrap();
    let logits = floats("vqa", "out.logits");
    let best = logits.chunks(7).map(|logits| {
        let best = (0..7).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        let best = best.unwrap();
        (ANSWERS.lines().nth(best).unwrap(), logits[best])
    });
    (directory, best.collect())
}

const QUESTIONS: [&str; 2] = ["w7 w8 w9", "w11 w12"];

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
        let said = said(case);
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
    let (directory, best) = answering();
    let rows = files("vqa", directory.path());
    for (i, row) in ["first", "second"].into_iter().enumerate() {
        let record = on_rows(&["ask", QUESTIONS[i], row], directory.path(), &rows);
        let (answer, logit) = best[i];
        assert_eq!(record["answer"], answer);
        let expected = 1.0 / (1.0 + (-logit).exp());
        let found = record["confidence"].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }

    let directory = model("retrieval", serde_json::json!({}));
    let rows = files("retrieval", directory.path());
    let logits = floats("retrieval", "out.logits");
    for (i, row) in ["first", "second"].into_iter().enumerate() {
        let record = on_rows(&["match", row, QUESTIONS[i]], directory.path(), &rows);
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
    let rows = files("retrieval", directory.path());
    let judge = |pictures: [&str; 2]| {
        let command = ["judge", "w7 w8", pictures[0], pictures[1]];
        let record = on_rows(&command, directory.path(), &rows);
        let of = |class: &str| record["classes"][class].as_f64().unwrap();
        assert!((of("true") + of("false") - 1.0).abs() < 1e-3, "{record}");
        of("true")
    };
    let orders = [["first", "second"], ["second", "first"]].map(judge);
    assert!((orders[0] - orders[1]).abs() > 1e-4, "{orders:?}");
}

/// A data set of two pictures, `first.png` and `second.png`, whose regions are rows of these names without the ending.
fn measured(directory: &Path, of: impl Fn(usize) -> serde_json::Value) -> String {
    let data = directory.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let mut items = String::new();
    for (i, name) in ["first.png", "second.png"].into_iter().enumerate() {
        std::fs::copy(picture(i), data.join(name)).unwrap();
        let mut item = of(i);
        item["image"] = name.into();
        items += &format!("{item}\n");
    }
    std::fs::write(data.join("items.jsonl"), items).unwrap();
    data.display().to_string()
}

#[test]
fn measuring_on_regions_measures_what_the_reference_says() {
    let (directory, best) = answering();
    let rows = files("vqa", directory.path());
    // the second answer is expected to be another one
    let data = measured(directory.path(), |i| {
        let expected = ["a wrong one", best[0].0][usize::from(i == 0)];
        serde_json::json!({"qa": [{"question": QUESTIONS[i], "answer": expected, "type": "count"}]})
    });
    let record = on_rows(&["eval", "vqa", "--data", &data], directory.path(), &rows);
    assert_eq!(
        (&record["n"], &record["accuracy"]),
        (&2.into(), &0.5.into())
    );
    assert_eq!(record["by_type"]["count"]["n"], 2);

    let case = "generation_far";
    let sizes = serde_json::json!({"max_seq_a_length": 20, "max_seq_length": 40});
    let directory = model(case, sizes);
    let rows = files(case, directory.path());
    let data = measured(
        directory.path(),
        |_| serde_json::json!({"captions": ["w7 w8"]}),
    );
    let out = directory
        .path()
        .join("captions.jsonl")
        .display()
        .to_string();
    let command = ["eval", "caption", "--data", &data, "--out", &out];
    let record = on_rows(&command, directory.path(), &rows);
    assert_eq!(
        (&record["n"], &record["fact_f1"]),
        (&2.into(), &serde_json::Value::Null)
    );
    let lines = std::fs::read_to_string(&out).unwrap();
    let captions: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["caption"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(captions, said(case));

    let directory = model("retrieval", serde_json::json!({}));
    let rows = files("retrieval", directory.path());
    let data = measured(
        directory.path(),
        |i| serde_json::json!({"captions": [QUESTIONS[i]]}),
    );
    let record = on_rows(
        &["eval", "retrieval", "--data", &data],
        directory.path(),
        &rows,
    );
    let matching: Vec<f64> = ["first", "second"]
        .into_iter()
        .flat_map(|row| QUESTIONS.map(|text| (row, text)))
        .map(|(row, text)| {
            let record = on_rows(&["match", row, text], directory.path(), &rows);
            record["matching"].as_f64().unwrap()
        })
        .collect();
    let share = |pairs: [(usize, usize); 2]| {
        let right = pairs
            .iter()
            .filter(|(own, other)| matching[*own] > matching[*other]);
        right.count() as f64 / 2.0
    };
    assert_eq!(record["text_to_image"]["r1"], share([(0, 2), (3, 1)]));
    assert_eq!(record["image_to_text"]["r1"], share([(0, 1), (3, 2)]));
    assert_eq!(
        (&record["images"], &record["failed"]),
        (&2.into(), &0.into())
    );

    let directory = model("nlvr2", serde_json::json!({}));
    let rows = files("retrieval", directory.path());
    let data = measured(&directory.path().join("set"), |_| serde_json::json!({}));
    let pictures = Path::new(&data).join("images");
    std::fs::create_dir(&pictures).unwrap();
    std::fs::remove_file(Path::new(&data).join("items.jsonl")).unwrap();
    for name in ["first.png", "second.png"] {
        std::fs::rename(Path::new(&data).join(name), pictures.join(name)).unwrap();
    }
    let judged = on_rows(
        &["judge", "w7 w8", "first", "second"],
        directory.path(),
        &rows,
    );
    let truth = judged["class"].as_str().unwrap();
    let example = serde_json::json!({
        "identifier": "1-0", "sentence": "w7 w8", "label": truth, "images": ["first.png", "second.png"]
    });
    std::fs::write(Path::new(&data).join("examples.jsonl"), example.to_string()).unwrap();
    let record = on_rows(
        &["eval", "statements", "--data", &data],
        directory.path(),
        &rows,
    );
    assert_eq!(
        (&record["n"], &record["accuracy"]),
        (&1.into(), &1.0.into())
    );
}

#[test]
fn regions_that_are_missing_or_of_other_pictures_do_not_stop_the_others() {
    let (directory, best) = answering();
    let [regions, tags] = files("vqa", directory.path());
    let data = measured(
        directory.path(),
        |i| serde_json::json!({"qa": [{"question": QUESTIONS[i], "answer": best[i].0}]}),
    );
    let name = directory.path().display().to_string();
    let eval = |more: &[&str]| {
        let arguments = ["eval", "vqa", "--data", &data, "--model", &name, "--json"];
        run(arguments.iter().chain(more))
    };
    eval(&[])
        .with(2)
        .complains(&["reads regions", "--regions TSV"]);
    let styled = eval(&["--regions", &regions, "--style", "grey"]).with(2);
    styled.complains(&["--style", "--regions"]);
    let rows = std::fs::read_to_string(&regions).unwrap();
    let first = rows.lines().next().unwrap();
    std::fs::write(&regions, format!("{first}\n")).unwrap();
    let ended = eval(&["--regions", &regions, "--tags", &tags, "--quiet"]).with(1);
    ended.complains(&["features.tsv", "expected a row for second.png"]);
    let record = &ended.records()[0];
    assert_eq!((&record["n"], &record["failed"]), (&1.into(), &1.into()));
    let odd = "first\t{\"image_w\": 9, \"image_h\": 9, \"objects\": [{\"rect\": [0, 0, 9, 9]}]}\n";
    std::fs::write(&regions, odd).unwrap();
    let ended = eval(&["--regions", &regions, "--quiet"]).with(1);
    assert!(ended.stderr.contains("expected 64 x 64"), "{ended:?}");
}

/// On a machine with nothing but this program: a world, its regions, a model of them, and what it is worth.
#[test]
fn a_world_with_regions_trains_a_model_that_is_measured_on_them() {
    let place = tempfile::tempdir().unwrap();
    let world = |split: &str, more: &[&str]| {
        let arguments = [
            "world", "shapes", "--split", split, "--count", "8", "--seed", "5", "--size", "64",
            "--out", split,
        ];
        run_in(place.path(), arguments.iter().chain(more)).with(0);
        place.path().join(split).join("regions.tsv")
    };
    let regions = world("train", &["--regions"]);
    world("test", &["--regions"]);
    let rows = std::fs::read_to_string(&regions).unwrap();
    assert_eq!(rows.lines().count(), 8);
    let (name, row) = rows.lines().next().unwrap().split_once('\t').unwrap();
    let row: serde_json::Value = serde_json::from_str(row).unwrap();
    assert_eq!((name, &row["image_w"]), ("000000.png", &64.into()));
    assert_eq!(row["objects"][0]["class"], "background");
    assert_eq!(
        row["objects"][0]["rect"],
        serde_json::json!([0.0, 0.0, 64.0, 64.0])
    );
    let items = std::fs::read_to_string(place.path().join("train/items.jsonl")).unwrap();
    let item: serde_json::Value = serde_json::from_str(items.lines().next().unwrap()).unwrap();
    let object = &item["objects"][0];
    assert_eq!(row["objects"][1]["class"], object["shape"]);
    let corners = |rect: &serde_json::Value| -> Vec<f64> {
        let corners = rect.as_array().unwrap().iter();
        corners.map(|corner| corner.as_f64().unwrap()).collect()
    };
    assert_eq!(corners(&row["objects"][1]["rect"]), corners(&object["box"]));

    let recipe = |task: &str, more: &str| {
        format!(
            "name = {task:?}\n[data]\nsets = [\"train\"]\nregions = [\"train/regions.tsv\"]\nseed = 3\n{}\
             [model]\nmodel_type = \"oscar\"\ntask = {task:?}\nhidden_size = 16\nintermediate_size = 32\n\
             num_hidden_layers = 1\nnum_attention_heads = 2\nmax_position_embeddings = 64\n{more}",
            sections(2)
        )
    };
    for (task, measure) in [
        ("vqa", "vqa"),
        ("captioning", "caption"),
        ("retrieval", "retrieval"),
    ] {
        let file = format!("{task}.toml");
        std::fs::write(place.path().join(&file), recipe(task, "")).unwrap();
        run_in(place.path(), ["train", &file, "--quiet"]).with(0);
        let model = format!("runs/{task}/model");
        let arguments = [
            "eval",
            measure,
            "--data",
            "test",
            "--regions",
            "test/regions.tsv",
            "--model",
            &model,
            "--json",
        ];
        let record = run_in(place.path(), arguments)
            .with(0)
            .records()
            .swap_remove(0);
        assert_eq!(record["failed"], 0, "{record}");
        match measure {
            "vqa" => assert!(record["n"].as_u64().unwrap() > 40, "{record}"),
            "caption" => assert!(record["fact_f1"].is_number(), "{record}"),
            _ => assert_eq!(record["images"], 8),
        }
    }
    let wide = recipe("vqa", "img_feature_dim = 2054\n");
    std::fs::write(place.path().join("wide.toml"), wide).unwrap();
    let ended = run_in(place.path(), ["train", "wide.toml", "--out", "wide"]).with(2);
    ended.complains(&["expected 2054 numbers each, or 2048 and a place, found 292"]);
    assert!(!place.path().join("wide").exists());
    // pictures without regions leave none of an earlier output behind
    assert!(!world("train", &[]).exists());
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
    let reading_place = reading;
    let reading = reading_place.path().display().to_string();
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
    // what is found now and what was written before is the same
    let ring_file = other.display().to_string();
    let found = reading_place.path().join("found.tsv").display().to_string();
    let ended = run([
        "detect",
        &picture,
        &ring_file,
        &picture,
        "--model",
        &detector,
        "--features",
        &found,
    ])
    .with(1);
    assert_eq!(ended.stdout.lines().count(), 3);
    ended.complains(&["pictures of different names", "a second five-hearts.png"]);
    for (picture, expected) in [(&picture, hearts), (&ring_file, ring)] {
        let command = [
            "match",
            picture,
            "w7 w8",
            "--model",
            &reading,
            "--regions",
            &found,
            "--json",
        ];
        let record = run(command).with(0).records().swap_remove(0);
        let matching = record["matching"].as_f64().unwrap();
        assert!((matching - expected).abs() < 1e-4, "{matching} {expected}");
    }
    let without = testdata("faster_rcnn/frozen").display().to_string();
    let ended = run([
        "detect",
        &picture,
        "--model",
        &without,
        "--features",
        &found,
    ])
    .with(2);
    ended.complains(&["features of its regions, such as vinvl", "faster_rcnn"]);
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
