//! Oscar+ on tiny scenes with regions.

use crate::recipe::Recipe;
use crate::run::{Options, train};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;
use vlm_data::datasets::region_features::{ImageRegions, Region};
use vlm_data::image::{Image, Limits};
use vlm_nn::weights::Checkpoint;
use vlm_tasks::{Vlm, described};
use vlm_worlds::shapes::{self, Config, Split};

/// Ten scenes, their regions, and statements about pairs of them in a set of their own.
struct Scenes(TempDir);

impl Scenes {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let scenes = place.path().join("scenes");
        let config = Config {
            size: 48,
            difficulty: 0.0,
        };
        shapes::write(&config, Split::Train, 3, 10, &scenes, |_| {}).expect("scenes");
        let mut rows = String::new();
        let mut statements = String::new();
        for (i, record) in shapes::read(&scenes).expect("records").iter().enumerate() {
            let picture = scenes.join(&record.image);
            let image = vlm_data::image::read(&picture, &Limits::default()).expect("a picture");
            let region = |object: &shapes::Object| Region {
                rect: Some(object.bounds.map(|corner| corner as f32)),
                class: Some(object.shape.word().to_owned()),
                ..Region::default()
            };
            let regions = record.objects.iter().map(region).collect();
            let regions = described(&record.image, &image, regions).expect("features");
            rows += &format!("{}\n", regions.to_row().expect("a row"));
            let two = [&record.image, &format!("{:06}.png", (i + 1) % 10)];
            let label = if i % 2 == 0 { "true" } else { "false" };
            let statement = serde_json::json!({
                "identifier": format!("{i}-0"), "sentence": format!("there is a {}", record.objects[0].shape.word()),
                "label": label, "images": two,
            });
            statements += &format!("{statement}\n");
        }
        let pairs = place.path().join("pairs");
        fs::create_dir_all(pairs.join("images")).expect("a directory");
        for i in 0..10 {
            let name = format!("{i:06}.png");
            fs::copy(scenes.join(&name), pairs.join("images").join(&name)).expect("a copy");
        }
        fs::write(pairs.join("examples.jsonl"), statements).expect("statements");
        fs::write(place.path().join("regions.tsv"), rows).expect("regions");
        Self(place)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn recipe(&self, steps: u64, task: &str, more: &str) -> String {
        let set = if task == "nlvr" { "pairs" } else { "scenes" };
        let [set, regions] = [set, "regions.tsv"].map(|name| self.at(name).display().to_string());
        format!(
            r#"
            name = "tiny"
            [data]
            sets = [{set:?}]
            regions = [{regions:?}]
            seed = 5
            held_out = 0.2
            questions_per_picture = 2
            [train]
            seed = 1
            steps = {steps}
            batch_size = 4
            accumulate = 2
            learning_rate = 1e-2
            min_learning_rate = 1e-2
            warmup_steps = 0
            decay_steps = 0
            weight_decay = 0.1
            betas = [0.9, 0.98]
            clip_norm = 1.0
            precision = "f32"
            checkpoint_every = 2
            output = "f32"
            [validation]
            every = 1000
            pictures = 2
            {more}
            "#
        )
    }

    fn model(task: &str) -> String {
        let more = match task {
            "pretrain" => "num_contrast_classes = 3",
            "vqa" => "classifier = \"mlp\"",
            "retrieval" => "use_img_layernorm = 1",
            "nlvr" => "classifier = \"mlp\"\nuse_img_layernorm = 1",
            _ => "label_smoothing = 0.1",
        };
        format!(
            "[model]\nmodel_type = \"oscar\"\ntask = {task:?}\nhidden_size = 16\nintermediate_size = 32\n\
             num_hidden_layers = 2\nnum_attention_heads = 2\nmax_position_embeddings = 64\n{more}\n"
        )
    }

    fn run(&self, recipe: &str, name: &str, resume: bool) -> Result<PathBuf, String> {
        let recipe = Recipe::parse(recipe)?;
        let options = Options {
            directory: self.at(name),
            resume,
            quiet: true,
        };
        let outcome = train(recipe, &options, &AtomicBool::new(false));
        outcome.map(|o| o.model).map_err(|e| e.to_string())
    }
}

fn weights(model: &Path) -> Vec<u8> {
    fs::read(model.join("model.safetensors")).expect("weights")
}

/// That every parameter has a gradient, the first step of a run checks.
#[test]
fn every_task_learns_all_its_parameters_resumes_to_the_same_bytes_and_loads() {
    let scenes = Scenes::new();
    for task in ["pretrain", "captioning", "vqa", "retrieval", "nlvr"] {
        let run = |steps: u64, name: &str, resume: bool| {
            let recipe = scenes.recipe(steps, task, &Scenes::model(task));
            let name = format!("{task}-{name}");
            scenes
                .run(&recipe, &name, resume)
                .unwrap_or_else(|e| panic!("{task}: {e}"))
        };
        let whole = run(4, "whole", false);
        run(2, "parts", false);
        let parts = run(4, "parts", true);
        assert!(weights(&whole) == weights(&parts), "{task}");
        let vlm = Vlm::load(&whole).unwrap_or_else(|e| panic!("{task}: {e}"));
        assert_eq!(vlm.model().family(), "oscar");
        // 4 quarters of 27 colours, 10 patterns and 4 cells of 9 directions, and the place
        assert_eq!(vlm.model().region_width(), Some(4 * (27 + 10 + 36) + 6));
        let model = vlm.model();
        let can = [
            model.generate().is_ok(),
            vlm.answers_questions(),
            model.score_pair().is_ok(),
            model.judge_text().is_ok(),
        ];
        let expected = ["captioning", "vqa", "retrieval", "nlvr"].map(|t| t == task);
        assert_eq!(can[..2], expected[..2], "{task}");
        assert_eq!(can[2], expected[2] || task == "pretrain");
        assert_eq!(can[3], expected[3]);
    }
}

#[test]
fn the_loss_of_pre_training_falls() {
    let scenes = Scenes::new();
    let recipe = scenes.recipe(60, "pretrain", &Scenes::model("pretrain"));
    let recipe = recipe.replace("accumulate = 2", "accumulate = 1");
    let recipe = recipe.replace("checkpoint_every = 2", "checkpoint_every = 60");
    scenes.run(&recipe, "run", false).expect("a run");
    let log = crate::log::Log::read(scenes.at("run/log.jsonl")).expect("a log");
    let losses: Vec<f64> = (log.series("loss").into_iter())
        .map(|(_, loss)| loss)
        .collect();
    // each is of one batch: the last two against the first
    assert!(
        losses.len() == 6 && losses[4] + losses[5] < 1.8 * losses[0],
        "{losses:?}"
    );
}

#[test]
fn a_pre_trained_model_is_fine_tuned_with_the_keys_of_every_loop() {
    let scenes = Scenes::new();
    let pretrain = scenes.recipe(2, "pretrain", &Scenes::model("pretrain"));
    let first = scenes.run(&pretrain, "first", false).expect("a run");
    let tuned = |steps: u64, more: &str, model: &str| {
        let keys = format!(
            "seed = 1\n            init = {:?}\n{more}",
            first.display().to_string()
        );
        scenes
            .recipe(steps, "vqa", model)
            .replacen("seed = 1", &keys, 1)
    };
    let keys = "freeze = [\"bert.token.weight\"]\nlayer_decay = 0.8\nema_decay = 0.9";
    let second = tuned(2, keys, &Scenes::model("vqa"));
    let second = scenes.run(&second, "second", false).expect("a run");
    let matrix = |model: &Path, name: &str| {
        let file = Checkpoint::open(&model.join("model.safetensors"));
        file.expect("weights").take_any(name).expect(name)
    };
    // what is exported is an average, which rounds even what stays
    let last = scenes.at("second/checkpoints/step-00000002");
    assert!(matrix(&first, "bert.token.weight") == matrix(&last, "bert.token.weight"));
    assert!(matrix(&first, "region.weight") != matrix(&last, "region.weight"));
    let vlm = Vlm::load(&second).expect("a model");
    assert!(vlm.answers_questions());
    // without a model of its own a recipe goes on with what it begins with
    let third = scenes
        .run(&tuned(1, "", ""), "third", false)
        .expect("a run");
    let config = |model: &Path| fs::read_to_string(model.join("config.json")).expect("a config");
    assert_eq!(config(&first), config(&third));
}

/// A released model says of itself what it is: its checkpoint the head, a file its answers, `vocab.txt` its words.
#[test]
fn a_released_model_is_fine_tuned_on_its_own_answers() {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models/oscar/vqa");
    fs::create_dir(at("released")).expect("a directory");
    let weights = released.join("model.safetensors");
    fs::copy(weights, at("released/model.safetensors")).expect("a copy");
    let config = fs::read_to_string(released.join("config.json")).expect("a config");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    for (name, id) in [
        ("cls_token_id", 2),
        ("sep_token_id", 3),
        ("mask_token_id", 4),
    ] {
        config[name] = id.into();
    }
    fs::write(at("released/config.json"), config.to_string()).expect("a config");
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let pieces = special.iter().map(|&s| s.to_owned());
    let pieces: Vec<String> = pieces.chain((5..30).map(|i| format!("w{i}"))).collect();
    fs::write(at("released/vocab.txt"), pieces.join("\n")).expect("words");
    let answers = "zero\none\ntwo\nthree\nfour\nfive\nsix";
    fs::write(at("released/labels.txt"), answers).expect("answers");
    // two pictures of three regions each
    fs::create_dir(at("set")).expect("a directory");
    let (mut items, mut rows) = (String::new(), String::new());
    for (i, answer) in ["two", "five"].into_iter().enumerate() {
        let name = format!("{i}.png");
        let image = Image::from_rgb(4, 4, vec![90; 48]).expect("a picture");
        let picture = shapes::Picture {
            width: image.width(),
            height: image.height(),
            rgb: image.into_rgb(),
        };
        fs::write(at("set").join(&name), picture.to_png()).expect("a picture");
        let item =
            serde_json::json!({"image": name, "qa": [{"question": "w7 w8", "answer": answer}]});
        items += &format!("{item}\n");
        let regions = ImageRegions {
            image: name,
            size: None,
            regions: vec![
                Region {
                    class: Some("w20".to_owned()),
                    ..Region::default()
                };
                3
            ],
            width: 10,
            features: (0..30).map(|x| (x * (i + 1)) as f32 / 40.0).collect(),
        };
        rows += &format!("{}\n", regions.to_row().expect("a row"));
    }
    fs::write(at("set/items.jsonl"), &items).expect("items");
    fs::write(at("regions.tsv"), &rows).expect("regions");
    let scenes = Scenes(place);
    let at = |name: &str| scenes.at(name);
    let [set, init] = ["set", "released"].map(|name| at(name).display().to_string());
    let recipe = scenes.recipe(3, "vqa", "");
    let recipe = recipe.replacen(&at("scenes").display().to_string(), &set, 1);
    let recipe = recipe.replacen("seed = 1", &format!("seed = 1\ninit = {init:?}"), 1);
    let recipe = recipe
        .replace("held_out = 0.2", "")
        .replace("batch_size = 4", "batch_size = 2");
    let model = scenes.run(&recipe, "run", false).expect("a run");
    let vlm = Vlm::load(&model).expect("a model");
    let known = vlm
        .model()
        .classify_answer()
        .expect("answers")
        .known_answers();
    assert_eq!(known.join("\n"), answers);

    let refused = |set: &str, rows: &str, expected: &str| {
        fs::write(at("set/items.jsonl"), set).expect("items");
        fs::write(at("regions.tsv"), rows).expect("regions");
        let error = scenes.run(&recipe, "other", false).expect_err(expected);
        assert!(error.contains(expected), "{error}");
        assert!(!at("other").exists(), "{expected}");
    };
    refused(
        &items.replace("five", "seven"),
        &rows,
        "model.answers: expected every answer that is learned, found none for \"seven\"",
    );
    let tagged = rows.replace("w20", "zebra");
    refused(
        &items,
        &tagged,
        "data.tokenizer: expected a vocabulary that knows the tags of 0.png",
    );
}

/// The detector is of no use after two steps; what is tested is that its regions are what is learned from.
#[test]
fn a_detector_finds_the_regions_of_scenes_and_of_sets() {
    let scenes = Scenes::new();
    let world = |recipe: &str, detector: &str| {
        let [set, regions] =
            ["scenes", "regions.tsv"].map(|name| scenes.at(name).display().to_string());
        recipe
            .replacen(
                &format!("sets = [{set:?}]"),
                "world = \"shapes\"\nsize = 48",
                1,
            )
            .replacen(&format!("regions = [{regions:?}]"), detector, 1)
            .replacen("held_out = 0.2", "", 1)
    };
    let detector = "[model]\nmodel_type = \"vinvl\"\nlayers = [1, 1, 1, 1]\nstem_out_channels = 4\nres2_out_channels = 8\n\
                    num_groups = 2\nwidth_per_group = 2\ncls_emd_dim = 4\nattr_emd_dim = 8\nanchor_sizes = [16, 32]\n\
                    rpn_straddle_thresh = -1\nrpn_batch_size_per_image = 16\nbatch_size_per_image = 8\n\
                    rpn_post_nms_top_n_train = 20\nrpn_post_nms_top_n_test = 5\nmin_size_test = 64\nmax_size_test = 64\n";
    let recipe = world(&scenes.recipe(2, "vqa", detector), "")
        .replace("questions_per_picture = 2", "")
        .replace("accumulate = 2", "accumulate = 1");
    let found = scenes.run(&recipe, "detector", false).expect("a detector");
    let key = format!("detector = {:?}", found.display().to_string());
    let vqa = scenes.recipe(2, "vqa", &Scenes::model("vqa"));
    let regions = format!(
        "regions = [{:?}]",
        scenes.at("regions.tsv").display().to_string()
    );
    for (name, recipe) in [
        ("world", world(&vqa, &key)),
        ("set", vqa.replacen(&regions, &key, 1)),
    ] {
        let model = scenes
            .run(&recipe, name, false)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let vlm = Vlm::load(&model).expect("a model");
        // four stages double 8 channels three times; and a region's place
        assert_eq!(vlm.model().region_width(), Some(64 + 6), "{name}");
        let detector = Vlm::load(&found).expect("a detector");
        let vlm = vlm.with_detector(detector).expect("both");
        let image = Image::from_rgb(48, 48, vec![200; 48 * 48 * 3]).expect("a picture");
        vlm.answer(&[&image], &[(0, "is there a star?")])
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    let refused = |recipe: &str, expected: &str| {
        let error = scenes.run(recipe, "refused", false).expect_err(expected);
        assert!(error.contains(expected), "{expected:?} in {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!scenes.at("refused").exists(), "{error}");
    };
    let both = vqa.replacen(&regions, &format!("{regions}\n{key}"), 1);
    refused(&both, "data.detector: expected none beside data.regions");
    let nic = world(&vqa, &key).replacen("\"oscar\"", "\"nic\"", 1);
    refused(
        &nic,
        "data.detector: expected none but for a model that reads regions",
    );
    let of_pixels = scenes.at("world/model").display().to_string();
    refused(
        &world(&vqa, &format!("detector = {of_pixels:?}")),
        "data.detector: oscar cannot detect objects",
    );
    refused(&world(&vqa, "detector = \"nowhere\""), "nowhere");
    refused(
        &world(&vqa, "detector = \"recipes/detector.toml\""),
        "expected a model's directory, found a recipe",
    );
    for (sides, expected) in [
        (
            "min_size_test = 64\n",
            "model.min_size_test: expected max_size_test beside it",
        ),
        (
            "max_size_test = 64\n",
            "model.max_size_test: expected min_size_test beside it",
        ),
        (
            "min_size_test = 64\nmax_size_test = 32\n",
            "found 64 and 32",
        ),
        (
            "min_size_test = 64\nmax_size_test = 99999\n",
            "found 64 and 99999",
        ),
    ] {
        let wrong = recipe.replacen("min_size_test = 64\nmax_size_test = 64\n", sides, 1);
        refused(&wrong, expected);
    }
}

#[test]
fn what_does_not_fit_together_is_told_before_the_first_step() {
    let scenes = Scenes::new();
    let rows = fs::read_to_string(scenes.at("regions.tsv")).expect("rows");
    let good = scenes.recipe(1, "vqa", &Scenes::model("vqa"));
    let refused = |recipe: &str, expected: &[&str]| {
        let error = scenes
            .run(recipe, "run", false)
            .expect_err(&expected.join(" "));
        for words in expected {
            assert!(error.contains(words), "{words:?} in {error}");
        }
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!scenes.at("run").exists(), "{error}");
    };
    let regions = scenes.at("regions.tsv").display().to_string();
    for (from, to, expected) in [
        (
            format!("regions = [{regions:?}]"),
            String::new(),
            [
                "data.regions: expected files of regions",
                "vlm detect --features",
            ],
        ),
        (
            format!("[{regions:?}]"),
            format!("[{regions:?}, {regions:?}]"),
            ["data.regions: expected one for each of 1 sets", "found 2"],
        ),
        (
            "regions = [".to_owned(),
            "tags = [".to_owned(),
            [
                "data.regions: expected those beside data.tags",
                "found none",
            ],
        ),
        (
            "regions.tsv".to_owned(),
            "nothing.tsv".to_owned(),
            ["nothing.tsv", "no such file"],
        ),
        (
            "task = \"vqa\"".to_owned(),
            "task = \"chat\"".to_owned(),
            ["model.task: expected pretrain, captioning, vqa", "\"chat\""],
        ),
        (
            "classifier = \"mlp\"".to_owned(),
            "img_feature_dim = 2054".to_owned(),
            [
                "regions of 00000",
                "expected 2054 numbers each, or 2048 and a place, found 292",
            ],
        ),
        (
            "task = \"vqa\"".to_owned(),
            "task = \"vqa\"\nnum_labels = 3129".to_owned(),
            ["answers: expected 3129 texts", "num_labels"],
        ),
        (
            "[train]".to_owned(),
            "[data.augment]\nflip = 0.5\n[train]".to_owned(),
            [
                "data.augment: expected nothing that changes pictures",
                "reads regions",
            ],
        ),
        (
            "model_type = \"oscar\"".to_owned(),
            "model_type = \"nic\"".to_owned(),
            [
                "data.regions: expected none but for a model that reads regions",
                "oscar",
            ],
        ),
    ] {
        assert!(good.contains(&from), "{from}");
        refused(&good.replacen(&from, &to, 1), &expected);
    }
    let alone = scenes.recipe(1, "retrieval", &Scenes::model("retrieval"));
    let alone = alone.replace("batch_size = 4", "batch_size = 1");
    refused(&alone, &["train.batch_size: expected 2 or more"]);

    let without = rows.lines().skip(1).collect::<Vec<_>>().join("\n");
    let others = rows.replace("0000", "9900");
    let sized = rows.replace("\"image_h\":48", "\"image_h\":64");
    for (text, expected) in [
        (
            without,
            [
                "regions.tsv",
                "1 pictures without regions (000000.png first)",
            ],
        ),
        (
            others,
            [
                "10 pictures without regions (000000.png first)",
                "10 rows without a picture",
            ],
        ),
        (sized, ["image_w: expected 48 x 48", "found 48 x 64"]),
    ] {
        fs::write(scenes.at("regions.tsv"), text).expect("rows");
        refused(&good, &expected);
    }
    // a row that is cut off stops the run where it is read, and names the line
    let cut = &rows[..rows.len() - 30];
    fs::write(scenes.at("regions.tsv"), cut).expect("rows");
    refused(&good, &["regions.tsv:10", "the end of the file"]);
}
