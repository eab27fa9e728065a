use crate::support::{copy, model, picture, run};
use std::fs;
use std::path::Path;

#[test]
fn the_built_in_model_and_a_directory_are_described() {
    let text = run(["models"]).with(0).stdout;
    assert!(text.contains("vlm-tiny") && text.contains("coca"), "{text}");
    let records = run(["models", "--json"]).with(0).records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["model"], "vlm-tiny");
    assert!(records[0]["parameters"].as_u64().unwrap() > 1_000_000);
    assert!(records[0]["bytes"].as_u64().unwrap() < 25_000_000);
    assert!(records[0]["trained_on"].is_string());

    let directory = model();
    let directory = directory.to_str().unwrap();
    let records = run(["models", "--json", "--model", directory])
        .with(0)
        .records();
    assert_eq!(records[0]["model"], directory);
    assert_eq!(records[0]["image_size"], 64);
    assert!(records[0]["trained_on"].is_null());
}

#[test]
fn a_model_that_cannot_be_used_is_one_line_that_names_file_and_key() {
    type Damage = fn(&Path);
    fn edit(file: &Path, from: &str, to: &str) {
        // tensor names and JSON keys are ASCII, whatever surrounds them
        let bytes = fs::read(file).unwrap();
        let at = bytes
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .expect(from);
        let edited = [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat();
        fs::write(file, edited).unwrap();
    }
    let cases: [(&str, Damage, &[&str]); 11] = [
        (
            "no weights",
            |m| fs::remove_file(m.join("model.safetensors")).unwrap(),
            &["model.safetensors"],
        ),
        (
            "no vocabulary",
            |m| fs::remove_file(m.join("tokenizer.json")).unwrap(),
            &["tokenizer.json"],
        ),
        (
            "torn weights",
            |m| {
                let path = m.join("model.safetensors");
                let bytes = fs::read(&path).unwrap();
                fs::write(path, &bytes[..bytes.len() - 100]).unwrap();
            },
            &["model.safetensors", "expected safetensors"],
        ),
        (
            "weights that are something else",
            |m| fs::write(m.join("model.safetensors"), "weights").unwrap(),
            &["model.safetensors", "expected safetensors"],
        ),
        (
            "a tensor of another name",
            |m| edit(&m.join("model.safetensors"), "logit_scale", "logit_scalf"),
            &[
                "model.safetensors",
                "- logit_scale [1]",
                "+ logit_scalf [1]",
            ],
        ),
        (
            "weights of another size",
            |m| {
                edit(
                    &m.join("config.json"),
                    "\"projection_dim\": 16",
                    "\"projection_dim\": 24",
                )
            },
            &[
                "model.safetensors",
                "vision_projection.weight",
                "expected [24, 32], found [16, 32]",
            ],
        ),
        (
            "a misspelt key",
            |m| edit(&m.join("config.json"), "projection_dim", "projection_din"),
            &["config.json", "projection_din"],
        ),
        (
            "another family",
            |m| edit(&m.join("config.json"), "\"coca\"", "\"cola\""),
            &["config.json", "model_type", "cola"],
        ),
        (
            "a config that is no JSON",
            |m| fs::write(m.join("config.json"), "{").unwrap(),
            &["config.json"],
        ),
        (
            "a vocabulary that is none",
            |m| fs::write(m.join("tokenizer.json"), "{\"a\": 1}").unwrap(),
            &["tokenizer.json"],
        ),
        (
            "pictures of another size",
            |m| edit(&m.join("preprocessor_config.json"), "64", "32"),
            &["preprocessor_config.json", "64"],
        ),
    ];
    let image = picture(0);
    for (name, damage, words) in cases {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("model");
        copy(&model(), &directory);
        damage(&directory);
        let directory = directory.to_str().unwrap();
        let ended = run(["caption", "--model", directory, image.to_str().unwrap()]);

        let ended = ended.with(2);
        assert_eq!(ended.stdout, "", "{name}");
        ended.complains(words);
    }
    let unknown = run(["caption", "--model", "vlm-huge", "x.png"]).with(2);
    unknown.complains(&["--model", "vlm-tiny", "vlm-huge"]);
}
