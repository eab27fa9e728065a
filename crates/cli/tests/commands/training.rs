use crate::support::{Ended, recipe, run, run_in, vlm};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const STEPS: u64 = 30;
const WEIGHTS: &str = "run/model/model.safetensors";

fn begin(directory: &Path) {
    fs::write(directory.join("speck.toml"), recipe(STEPS)).unwrap();
}

fn train(directory: &Path, more: &[&str]) -> Ended {
    let arguments = ["train", "speck.toml", "--out", "run"];
    run_in(directory, arguments.iter().chain(more))
}

/// Starts a training and waits until it has written the checkpoint of its fifth step.
fn start(directory: &Path) -> Child {
    let child = vlm(["train", "speck.toml", "--out", "run"])
        .current_dir(directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !directory.join("run/checkpoints/step-00000005").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

fn leftovers(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with('.') {
            found.push(name);
        } else if entry.path().is_dir() {
            found.extend(leftovers(&entry.path()));
        }
    }
    found
}

#[cfg(unix)]
#[test]
fn a_run_that_is_interrupted_or_killed_and_resumed_ends_with_the_weights_of_an_uninterrupted_one() {
    let whole = tempfile::tempdir().unwrap();
    begin(whole.path());
    let ended = train(whole.path(), &["--json"]).with(0);
    let record = ended.records().remove(0);
    assert_eq!(
        (&record["ended"], &record["step"]),
        (&"finished".into(), &STEPS.into())
    );
    assert_eq!(record["model"], "run/model");
    for file in ["run/loss.svg", "run/log.jsonl", "run/recipe.toml"] {
        assert!(
            fs::metadata(whole.path().join(file)).unwrap().len() > 0,
            "{file}"
        );
    }
    let weights = fs::read(whole.path().join(WEIGHTS)).unwrap();
    let log = fs::read_to_string(whole.path().join("run/log.jsonl")).unwrap();
    let steps = |log: &str| -> Vec<u64> {
        log.lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["step"]
                    .as_u64()
                    .unwrap()
            })
            .collect()
    };

    for signal in ["INT", "KILL"] {
        let place = tempfile::tempdir().unwrap();
        begin(place.path());
        let child = start(place.path());
        let kill = format!("kill -{signal} {}", child.id());
        assert!(
            std::process::Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
        let ended = Ended::from(child.wait_with_output().unwrap());
        if signal == "INT" {
            let ended = ended.with(130);
            assert!(
                ended
                    .stdout
                    .starts_with("checkpoint  run/checkpoints/step-"),
                "{ended:?}"
            );
            assert!(
                ended
                    .stderr
                    .contains("vlm train speck.toml --resume --out run"),
                "{ended:?}"
            );
        } else {
            assert_eq!(ended.code, -1, "{ended:?}");
        }
        assert!(
            !place.path().join(WEIGHTS).exists(),
            "{signal}: too late to interrupt"
        );

        let resumed = train(place.path(), &["--resume"]).with(0);
        assert!(
            resumed.stdout.starts_with("model  run/model"),
            "{resumed:?}"
        );
        assert!(
            fs::read(place.path().join(WEIGHTS)).unwrap() == weights,
            "{signal}: other weights"
        );
        let resumed_log = fs::read_to_string(place.path().join("run/log.jsonl")).unwrap();
        assert_eq!(steps(&resumed_log), steps(&log), "{signal}");
    }
}

#[cfg(unix)]
#[test]
fn a_disk_that_fills_during_a_checkpoint_is_one_line_and_the_checkpoint_before_stays() {
    let place = tempfile::tempdir().unwrap();
    begin(place.path());
    // files of more than 64 blocks cannot be written: the recipe can, the weights cannot
    let limited = |resume: &str| -> Ended {
        let script = format!(
            "trap '' XFSZ; ulimit -f 64; exec '{}' train speck.toml --out run --quiet {resume}",
            env!("CARGO_BIN_EXE_vlm")
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(place.path())
            .output()
            .unwrap();
        output.into()
    };
    let first = limited("").with(2);
    first.complains(&["cannot write", "safetensors"]);
    assert_eq!(leftovers(place.path()), [""; 0]);
    let empty = train(place.path(), &["--resume"]).with(2);
    empty.complains(&["checkpoints", "expected a checkpoint to resume from"]);

    fs::remove_dir_all(place.path().join("run")).unwrap();
    let mut child = start(place.path());
    child.kill().unwrap();
    child.wait().unwrap();
    let names = || {
        let entries = fs::read_dir(place.path().join("run/checkpoints")).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    };
    let before = names();
    let second = limited("--resume").with(2);
    second.complains(&["cannot write", "safetensors"]);
    assert_eq!(names(), before);
    train(place.path(), &["--resume", "--quiet"]).with(0);
}

#[test]
fn a_recipe_that_cannot_be_used_is_one_line_that_names_the_key() {
    let place = tempfile::tempdir().unwrap();
    let cases: [(&str, &str, &[&str]); 9] = [
        ("batch_size", "batchsize", &["batchsize", "expected one of"]),
        (
            "hidden_size = 32",
            "hiden_size = 32",
            &["hiden_size", "expected one of"],
        ),
        ("steps = 30\n", "", &["steps"]),
        ("seed = 3", "seed = \"three\"", &["seed"]),
        (
            "world = \"shapes\"",
            "world = \"sheep\"",
            &["data.world", "\"shapes\"", "sheep"],
        ),
        (
            "batch_size = 2",
            "batch_size = 0",
            &["train.batch_size", "1 to 65536", "found 0"],
        ),
        (
            "vocab_size = 113",
            "vocab_size = 99",
            &["vocab_size", "found 99"],
        ),
        (
            "image_size = 64",
            "image_size = 32",
            &["image_size", "64", "32"],
        ),
        ("[train]", "[train", &["TOML"]),
    ];
    for (from, to, words) in cases {
        let good = recipe(STEPS);
        assert!(good.contains(from), "{from}");
        fs::write(place.path().join("bad.toml"), good.replacen(from, to, 1)).unwrap();
        let ended = run_in(place.path(), ["train", "bad.toml", "--out", "run"]).with(2);

        assert_eq!(ended.stdout, "");
        ended.complains(words);
        ended.complains(&["bad.toml"]);
        assert!(!place.path().join("run").exists(), "{to}");
    }
    run(["train", "missing.toml"])
        .with(2)
        .complains(&["missing.toml"]);
}

#[test]
fn a_directory_with_a_run_or_without_one_is_not_confused() {
    let place = tempfile::tempdir().unwrap();
    begin(place.path());
    train(place.path(), &["--resume"])
        .with(2)
        .complains(&["run"]);
    fs::write(place.path().join("speck.toml"), recipe(2)).unwrap();
    train(place.path(), &["--quiet"]).with(0);
    train(place.path(), &[])
        .with(2)
        .complains(&["run", "--resume"]);
    let other = recipe(2).replace("weight_decay = 0.05", "weight_decay = 0.1");
    fs::write(place.path().join("speck.toml"), other).unwrap();
    train(place.path(), &["--resume"])
        .with(2)
        .complains(&["recipe.toml", "begun with"]);

    fs::write(place.path().join("file"), "").unwrap();
    let ended = run_in(place.path(), ["train", "speck.toml", "--out", "file/run"]).with(2);
    ended.complains(&["file/run"]);
}

#[test]
fn a_run_may_be_made_longer_until_its_learning_rate_has_begun_to_fall() {
    let place = tempfile::tempdir().unwrap();
    let recipe_path = place.path().join("speck.toml");
    let decaying = |steps| recipe(steps).replace("decay_steps = 0", "decay_steps = 1");
    fs::write(&recipe_path, recipe(2)).unwrap();
    train(place.path(), &["--quiet"]).with(0);
    fs::write(&recipe_path, recipe(3)).unwrap();
    train(place.path(), &["--resume", "--quiet"]).with(0);
    let kept = fs::read_to_string(place.path().join("run/recipe.toml")).unwrap();
    assert!(kept.contains("steps = 3"), "{kept}");

    fs::remove_dir_all(place.path().join("run")).unwrap();
    fs::write(&recipe_path, decaying(3)).unwrap();
    train(place.path(), &["--quiet"]).with(0);
    fs::write(&recipe_path, decaying(4)).unwrap();
    train(place.path(), &["--resume"]).with(2).complains(&[
        "recipe.toml",
        "3 steps",
        "found 4",
        "decayed",
    ]);
}

#[test]
fn a_run_with_substituted_symbols_begins_with_a_model_without_them_and_ends_with_one() {
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    begin(place);
    train(place, &[]).with(0);
    let first = recipe(3).replace("seed = 1\n", "seed = 2\ninit = \"run/model\"\n");
    let second = first
        .replace("vocab_size = 113", "vocab_size = 194")
        .replace("decoder_memory", "extra_tags = 57\ndecoder_memory")
        .replace(
            "[data]",
            "[data]\nsymbol_substitution = 0.9\nadjust_text = true\nquestion_sets = 2\n\
             question_weights = { count = 2.0, existence = 0.5, \"the same\" = 2.0 }",
        );
    assert_ne!(first, second);
    fs::write(place.join("second.toml"), &second).unwrap();
    run_in(place, ["train", "second.toml", "--out", "second"]).with(0);
    let config = |run: &str| fs::read_to_string(place.join(run).join("model/config.json")).unwrap();
    assert_eq!(config("run"), config("second"));
    let size = |run: &str| {
        fs::metadata(place.join(run).join("model/model.safetensors"))
            .unwrap()
            .len()
    };
    assert_eq!(size("run"), size("second"));

    // a phrase that no question has is refused
    let other = second.replace("the same", "the saem");
    assert_ne!(other, second);
    fs::write(place.join("other.toml"), other).unwrap();
    let ended = run_in(place, ["train", "other.toml", "--out", "other"]).with(2);
    ended.complains(&["data.question_weights", "the saem"]);
    // as is a model of another size
    let other = second.replace("num_multimodal_layers = 1", "num_multimodal_layers = 2");
    assert_ne!(other, second);
    fs::write(place.join("other.toml"), other).unwrap();
    let ended = run_in(place, ["train", "other.toml", "--out", "other"]).with(2);
    assert!(
        ended.stderr.contains("the sizes of the recipe's model"),
        "{ended:?}"
    );
}
