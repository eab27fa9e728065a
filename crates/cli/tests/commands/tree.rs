//! Models of the tree and captioners after their training, and all of them compared.

use crate::support::{Ended, data, picture, run, run_in, sections, text};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A recipe so small that it takes a moment.
fn recipe(model: &str) -> String {
    format!(
        r#"
name = "speck"
[data]
world = "shapes"
size = 32
difficulty = [0.0, 0.0]
seed = 3
{}[model]
{model}
"#,
        sections(2)
    )
}

const TREE: &str = "\
model_type = \"tree\"
vision = { handcrafted = { image_size = 32, grid = 2, colour_bins = 2, lbp = true, orientations = 6 } }
text = \"bag_of_words\"
fusion = \"late\"
hidden_size = 16
num_layers = 1
num_heads = 2
max_length = 64
captions = false";
const NIC: &str = "\
model_type = \"nic\"
encoder = { vgg = { stages = [[4], [8]], batch_norm = true, last_pooling = true } }
rnn_type = \"gru\"
embed_size = 16
hidden_size = 16
max_length = 64
image_size = 32";

/// A directory with recipes of two models.
fn recipes(place: &Path) -> PathBuf {
    let directory = place.join("recipes");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("first-tree.toml"), recipe(TREE)).unwrap();
    fs::write(directory.join("second-nic.toml"), recipe(NIC)).unwrap();
    directory
}

/// The recipe, learning from a data set in place of scenes.
fn of_set(recipe: &str, set: &str) -> String {
    let (head, rest) = recipe.split_once("world = \"shapes\"").unwrap();
    let (_, rest) = rest.split_once("seed = 3").unwrap();
    format!("{head}sets = [\"{set}\"]\nseed = 3{rest}")
}

fn compare(place: &Path, more: &[&str]) -> Ended {
    let arguments = [
        "eval",
        "tree",
        "--recipes",
        "recipes",
        "--runs",
        "runs",
        "--seeds",
        "2",
        "--pictures",
        "5",
    ];
    run_in(place, arguments.iter().chain(more))
}

#[test]
fn recipes_are_trained_measured_and_compared_once_and_broken_runs_are_told() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    recipes(place);
    let ended = compare(place, &["--json", "--quiet", "--out", "out"]).with(0);
    let record = ended.records().remove(0);
    assert_eq!(
        (&record["task"], &record["seeds"]),
        (&"tree".into(), &2.into())
    );
    assert_eq!(record["failed"], 0);
    let models = record["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    for (model, (recipe, family, able, unable)) in models.iter().zip([
        (
            "first-tree",
            "tree",
            ["r1", "r10", "zero_shot", "vqa"],
            "cider_d",
        ),
        (
            "second-nic",
            "nic",
            ["bleu4", "cider_d", "fact_f1", "fact_f1"],
            "vqa",
        ),
    ]) {
        assert_eq!(
            (&model["recipe"], &model["family"]),
            (&recipe.into(), &family.into())
        );
        assert_eq!(model["group"], recipe.split('-').next().unwrap());
        assert_eq!(
            (&model["runs"], model["parameters"].as_u64() > Some(100)),
            (&2.into(), true)
        );
        for split in ["test", "compositional"] {
            let scores = &model["scores"][split];
            for name in able {
                let values = scores[name]["values"].as_array().unwrap();
                assert_eq!(values.len(), 2, "{name}: {scores}");
                let mean = (values[0].as_f64().unwrap() + values[1].as_f64().unwrap()) / 2.0;
                assert!((scores[name]["mean"].as_f64().unwrap() - mean).abs() < 1e-9);
            }
            assert_eq!(scores[unable], Value::Null);
        }
    }
    let table = fs::read_to_string(place.join("out/tree.md")).unwrap();
    assert!(
        table.starts_with("| recipe | R@1 |") && table.contains("| second-nic |"),
        "{table}"
    );
    let svg = fs::read_to_string(place.join("out/tree.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("VQA accuracy"));
    assert!(
        fs::read(place.join("out/tree.png"))
            .unwrap()
            .starts_with(b"\x89PNG")
    );

    // nothing is done twice: the weights are not even looked at
    let weights = |name: &str| {
        place
            .join("runs")
            .join(name)
            .join("model/model.safetensors")
    };
    fs::remove_file(weights("first-tree/seed-2")).unwrap();
    let again = compare(place, &["--json", "--quiet", "--out", "out"]).with(0);
    assert_eq!(again.records().remove(0), record);
    let shown = compare(place, &["--quiet"]).with(0).stdout;
    assert!(
        shown.contains("comp. VQA") && shown.contains(" ± "),
        "{shown}"
    );

    // a run that lost its results is gone on with, one that cannot be is told, and the others are compared
    fs::remove_file(place.join("runs/second-nic/seed-1/result.json")).unwrap();
    fs::write(place.join("runs/first-tree/seed-1/result.json"), "{}").unwrap();
    let ended = compare(place, &["--json", "--quiet"]).with(1);
    ended.complains(&[
        "first-tree/seed-1/result.json",
        "expected the result of a run",
    ]);
    let partly = ended.records().remove(0);
    assert_eq!(
        (&partly["failed"], &partly["models"][0]["runs"]),
        (&1.into(), &1.into())
    );
    assert_eq!(partly["models"][1]["scores"], record["models"][1]["scores"]);
    let arguments = "eval tree --recipes recipes --runs runs --seeds 2 --pictures 6 --json --quiet";
    let ended = run_in(place, arguments.split(' ')).with(1);
    assert!(ended.stderr.contains("seed-2/model"), "{ended:?}");
    assert_eq!(ended.records().remove(0)["failed"], 2);

    // another recipe than the runs were begun with
    let other = recipe(TREE).replace("weight_decay = 0.05", "weight_decay = 0.1");
    fs::write(place.join("recipes/first-tree.toml"), other).unwrap();
    fs::remove_file(place.join("recipes/second-nic.toml")).unwrap();
    let ended = compare(place, &["--quiet"]).with(2);
    assert!(
        ended
            .stderr
            .contains("expected the recipe that is compared"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("expected at least one run"),
        "{ended:?}"
    );
}

#[test]
fn recipes_of_a_data_set_are_compared_on_what_they_do_not_learn_from() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let world = "world shapes --split train --count 12 --seed 5 --size 32 --out pictures --quiet";
    run_in(place, world.split(' ')).with(0);
    let directory = recipes(place);
    for name in ["first-tree.toml", "second-nic.toml"] {
        let path = directory.join(name);
        let recipe = of_set(&fs::read_to_string(&path).unwrap(), "pictures");
        let recipe = recipe.replace("seed = 3", "held_out = 0.5\nseed = 3");
        fs::write(path, recipe).unwrap();
    }
    let compared = |more: &str| compare(place, &more.split(' ').collect::<Vec<_>>());
    for (wrong, expected) in [
        ("--quiet", "--data: expected what is measured on"),
        (
            "--quiet --data pictures",
            "expected --held-out 0.5 --split-seed 0",
        ),
        (
            "--quiet --data pictures --held-out 0.5 --split-seed 1",
            "found held out 0.5 by seed 1",
        ),
        ("--quiet --data pictures --style grey", "found grey"),
    ] {
        compared(wrong).with(2).complains(&[expected]);
    }
    assert!(!place.join("runs").exists());

    let record = compared("--json --quiet --data pictures --held-out 0.5").with(0);
    let record = record.records().remove(0);
    assert_eq!(record["data"], "pictures");
    for (model, able) in [(0, ["r1", "vqa"]), (1, ["bleu4", "cider_d"])] {
        let scores = record["models"][model]["scores"].as_object().unwrap();
        assert_eq!(scores.keys().collect::<Vec<_>>(), ["test"]);
        for name in able {
            let values = scores["test"][name]["values"].as_array().unwrap();
            assert_eq!(values.len(), 2, "{name}");
        }
        // facts are known of scenes alone
        assert_eq!(scores["test"]["fact_f1"], Value::Null);
    }
    let table = fs::read_to_string(place.join("runs/tree.md")).unwrap();
    assert!(
        !table.contains("comp.") && !table.contains("fact F1"),
        "{table}"
    );
    let svg = fs::read_to_string(place.join("runs/tree.svg")).unwrap();
    assert!(svg.contains("not learned from") && !svg.contains("compositional"));

    // measured anew where the pictures are others, and not trained
    let log = place.join("runs/first-tree/seed-1/log.jsonl");
    let before = fs::read(&log).unwrap();
    let grey = compared("--json --quiet --data pictures --held-out 0.5 --style grey").with(0);
    assert_eq!(grey.records()[0]["failed"], 0);
    let result = fs::read_to_string(place.join("runs/first-tree/seed-1/result.json")).unwrap();
    assert!(result.contains("held out 0.5 by seed 0, grey"), "{result}");
    assert_eq!(fs::read(&log).unwrap(), before);
}

/// VinVL's detector, so small that it takes a moment.
const DETECTOR: &str = "\
model_type = \"vinvl\"
layers = [1, 1, 1, 1]
stem_out_channels = 4
res2_out_channels = 8
num_groups = 2
width_per_group = 2
cls_emd_dim = 4
attr_emd_dim = 8
anchor_sizes = [8, 16]
rpn_straddle_thresh = -1
rpn_batch_size_per_image = 16
batch_size_per_image = 8
rpn_post_nms_top_n_train = 20
rpn_post_nms_top_n_test = 5";
const OSCAR: &str = "\
model_type = \"oscar\"
task = \"vqa\"
loss_type = \"xe\"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 64";

#[test]
fn a_detector_is_trained_once_before_what_reads_its_regions() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    fs::create_dir(place.join("recipes")).unwrap();
    fs::write(place.join("finder.toml"), recipe(DETECTOR)).unwrap();
    let reader = recipe(OSCAR).replace("seed = 3", "seed = 3\ndetector = \"finder.toml\"");
    fs::write(place.join("recipes/first-oscar.toml"), &reader).unwrap();
    let ended = compare(place, &["--json"]).with(0);
    let told = ended.stderr.matches("training its detector").count();
    assert_eq!(told, 1, "{ended:?}");
    let record = ended.records().remove(0);
    let model = &record["models"][0];
    assert_eq!(
        (&model["family"], &model["runs"]),
        (&"oscar".into(), &2.into())
    );
    assert!(model["scores"]["test"]["vqa"]["mean"].as_f64().is_some());
    // the detector's count with it
    let result = |name: &str| -> Value {
        let text = fs::read_to_string(place.join("runs").join(name).join("result.json"));
        serde_json::from_str(&text.unwrap()).unwrap()
    };
    let [detector, both] =
        ["finder", "first-oscar/seed-1"].map(|name| result(name)["parameters"].as_u64());
    assert!(detector > Some(100) && both > detector);
    let again = compare(place, &["--json"]).with(0);
    assert!(!again.stderr.contains("training"), "{again:?}");
    assert_eq!(again.records().remove(0), record);

    // without it there is nothing to learn from, and the others are compared
    fs::write(place.join("recipes/second-tree.toml"), recipe(TREE)).unwrap();
    let lost = reader.replace("finder.toml", "lost.toml");
    fs::write(place.join("recipes/first-oscar.toml"), lost).unwrap();
    let ended = compare(place, &["--json", "--quiet"]).with(1);
    ended.complains(&["first-oscar", "lost.toml"]);
    assert_eq!(ended.records().remove(0)["failed"], 2);
}

#[test]
fn what_a_detector_learns_from_is_not_measured_on() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    fs::create_dir(place.join("recipes")).unwrap();
    let world = "world shapes --split train --count 2 --seed 5 --size 32 --out pictures --quiet";
    run_in(place, world.split(' ')).with(0);
    fs::write(
        place.join("finder.toml"),
        of_set(&recipe(DETECTOR), "pictures"),
    )
    .unwrap();
    // as a recipe, and as what a run of it has left
    fs::create_dir_all(place.join("found/model")).unwrap();
    fs::copy(place.join("finder.toml"), place.join("found/recipe.toml")).unwrap();
    for (detector, told) in [
        ("finder.toml", "finder.toml"),
        ("found/model", "found/recipe.toml"),
    ] {
        let detector = format!("seed = 3\ndetector = \"{detector}\"");
        let reader = of_set(&recipe(OSCAR), "others").replace("seed = 3", &detector);
        fs::write(place.join("recipes/first-oscar.toml"), reader).unwrap();
        let ended = compare(place, &["--quiet", "--data", "pictures"]).with(2);
        ended.complains(&[&format!("as {told} learns from this set")]);
    }
    assert!(!place.join("runs").exists());
}

#[test]
fn what_cannot_be_compared_is_one_line() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    fs::create_dir_all(place.join("recipes")).unwrap();
    let tell = |words: &[&str]| compare(place, &[]).with(2).complains(words);
    tell(&["recipes", "expected recipes (*.toml), found none"]);
    fs::write(place.join("recipes/a.toml"), "name = 3").unwrap();
    tell(&["a.toml"]);
    fs::write(place.join("recipes/a.toml"), recipe(TREE)).unwrap();
    let harder = recipe(TREE).replace("[0.0, 0.0]", "[0.0, 0.5]");
    fs::write(place.join("recipes/b.toml"), harder).unwrap();
    tell(&[
        "b.toml",
        "data",
        "difficulty [0.0, 0.0], found scenes of size 32 and difficulty [0.0, 0.5]",
    ]);
    let sets = recipe(TREE).replace("world = \"shapes\"", "sets = [\"pictures\"]");
    fs::write(place.join("recipes/b.toml"), sets).unwrap();
    tell(&["b.toml", "data", "found pictures, part any"]);
    fs::remove_file(place.join("recipes/a.toml")).unwrap();
    tell(&["--data", "expected what is measured on"]);
    run_in(
        place,
        ["eval", "tree", "--recipes", "recipes", "--seeds", "0"],
    )
    .with(2)
    .complains(&["--seeds", "found 0"]);
    run_in(place, ["eval", "tree", "--recipes", "nowhere"])
        .with(2)
        .complains(&["nowhere"]);
    assert!(!place.join("runs").exists());
}

#[test]
fn trained_models_of_the_tree_answer_and_retrieve_and_captioners_caption() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let recipes = recipes(place);
    for name in ["first-tree", "second-nic"] {
        let recipe = recipes.join(format!("{name}.toml"));
        run_in(place, ["train", text(&recipe), "--out", name, "--quiet"]).with(0);
    }
    let model = |name: &str| place.join(name).join("model");
    let (tree, nic) = (model("first-tree"), model("second-nic"));
    let (data, picture) = (text(data()), picture(0));
    let (tree, nic, picture) = (text(&tree), text(&nic), text(&picture));

    let question = "how many circles are there?";
    let ask = |model: &str, more: &[&str]| {
        run(["ask", question, picture, "--model", model]
            .iter()
            .chain(more))
    };
    let asked = ask(tree, &["--json"]).with(0);
    let record = asked.records().remove(0);
    assert!(record["confidence"].as_f64().unwrap() > 0.0, "{record}");
    let chosen = ask(tree, &["--choices", "one,two", "--json"]).with(0);
    let chosen = chosen.records().remove(0);
    assert_eq!(chosen["choices"].as_array().unwrap().len(), 2);
    let ended = ask(tree, &["--choices", "perhaps"]).with(1);
    assert!(
        ended.stderr.contains("answers that the model knows"),
        "{ended:?}"
    );
    ask(nic, &[])
        .with(2)
        .complains(&["nic cannot answer questions"]);

    let evaluate = |task: &str, model: &str| {
        run(["eval", task, "--data", data, "--model", model, "--json"])
            .with(0)
            .records()
            .remove(0)
    };
    assert!(evaluate("vqa", tree)["accuracy"].as_f64().is_some());
    assert_eq!(evaluate("retrieval", tree)["images"], 12);
    assert_eq!(evaluate("caption", nic)["n"], 12);
    let can = |model: &str| {
        let record = run(["models", "--model", model, "--json"])
            .with(0)
            .records()
            .remove(0);
        record["can"].as_array().unwrap().clone()
    };
    assert!(can(tree).contains(&"ask".into()) && !can(tree).contains(&"caption".into()));
    assert!(can(nic).contains(&"caption".into()) && !can(nic).contains(&"ask".into()));
}
