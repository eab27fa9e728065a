use crate::support::{copy, published, run, run_in, text};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The tensors of a golden file, to be changed and written again.
#[derive(Clone)]
struct Golden(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Golden {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, view): (&str, TensorView)| {
            let stored = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), stored)
        };
        Self(file.iter().map(tensor).collect())
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> &mut Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let stored = (Dtype::F32, shape.to_vec(), bytes);
        self.0.insert(name.to_owned(), stored);
        self
    }

    fn bytes(&mut self, name: &str, values: &[u8]) -> &mut Self {
        let stored = (Dtype::U8, vec![values.len()], values.to_vec());
        self.0.insert(name.to_owned(), stored);
        self
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        let (dtype, _, bytes) = &self.0[name];
        assert_eq!(*dtype, Dtype::F32, "{name}");
        let numbers = bytes.as_chunks::<4>().0.iter();
        numbers.map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn write(&self, directory: &Path, name: &str) -> PathBuf {
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let about = HashMap::from([("golden".to_owned(), "{\"class\": \"Test\"}".to_owned())]);
        let path = directory.join(name);
        fs::write(&path, safetensors::serialize(views, Some(about)).unwrap()).unwrap();
        path
    }
}

fn captioning() -> (PathBuf, Golden) {
    let model = published("blip/captioning");
    let golden = Golden::read(&model.join("forward.golden.safetensors"));
    (model, golden)
}

#[test]
fn a_model_that_agrees_is_ok_line_by_line() {
    let model = published("blip/captioning");
    let golden = model.join("forward.golden.safetensors");
    let arguments = ["verify", text(&model), "--golden", text(&golden)];
    let ended = run(arguments).with(0);
    assert!(ended.stdout.lines().count() > 3, "{ended:?}");
    assert!(
        ended.stdout.lines().all(|l| l.ends_with("  ok")),
        "{ended:?}"
    );

    let records = run([&arguments[..], &["--json"]].concat())
        .with(0)
        .records();
    let logits = records.iter().find(|r| r["output"] == "logits").unwrap();
    let fields: Vec<&String> = logits.as_object().unwrap().keys().collect();
    let expected = [
        "output",
        "shape",
        "max_abs",
        "max_rel",
        "tolerance",
        "ok",
        "error",
    ];
    assert_eq!(fields, expected);
    assert!(logits["max_rel"].as_f64().unwrap() < 1e-4);
    assert_eq!(
        (&logits["ok"], &logits["error"]),
        (&Value::Bool(true), &Value::Null)
    );
    // nothing is equal to the last bit
    let strict = run([&arguments[..], &["--tolerance", "0"]].concat()).with(1);
    assert!(strict.stdout.contains("FAILED: beyond the tolerance"));
}

#[test]
fn every_kind_of_disagreement_is_a_failure_that_says_which() {
    let (model, golden) = captioning();
    let place = tempfile::tempdir().unwrap();
    let shape = golden.0["out.logits"].1.clone();
    let logits = golden.f32s("out.logits");
    let mut wrong = golden.clone();
    let mut changed = logits.clone();
    changed[3] += 0.5;
    wrong.floats("out.logits", &shape, &changed);
    let mut nan = golden.clone();
    changed[3] = f32::NAN;
    nan.floats("out.logits", &shape, &changed);
    let mut reshaped = golden.clone();
    reshaped.floats("out.logits", &[logits.len()], &logits);
    let mut unknown = golden.clone();
    unknown.floats("out.logits_of_another_kind", &[1], &[0.0]);
    let mut surprised = golden.clone();
    surprised.floats("in.temperature_of_the_room", &[1], &[21.0]);
    let expected_shape = format!("expected shape [{}], found {shape:?}", logits.len());
    let cases = [
        ("wrong", wrong, 1, "beyond the tolerance"),
        ("nan", nan, 1, "NaN expected at 3"),
        ("reshaped", reshaped, 1, expected_shape.as_str()),
        ("unknown", unknown, 1, "does not produce it"),
        ("surprised", surprised, 0, "ok"),
    ];
    for (name, golden, code, words) in cases {
        let path = golden.write(place.path(), name);
        let ended = run(["verify", text(&model), "--golden", text(&path)]).with(code);
        assert!(ended.stdout.contains(words), "{name}: {ended:?}");
        let failed = ended
            .stdout
            .lines()
            .filter(|l| l.contains("FAILED"))
            .count();
        assert_eq!(failed, usize::try_from(code).unwrap(), "{name}: {ended:?}");
        let told = ended.stderr.contains("in.temperature_of_the_room");
        assert_eq!(told, name == "surprised", "{ended:?}");
        assert!(ended.stderr.contains("\"class\": \"Test\""), "{ended:?}");
        let quiet = run(["verify", text(&model), "--golden", text(&path), "--quiet"]);
        assert_eq!(quiet.with(code).stderr, "");
    }
}

#[test]
fn ids_are_compared_exactly_whatever_the_tolerance() {
    let model = published("blip/captioning");
    let mut golden = Golden::read(&model.join("generate.golden.safetensors"));
    let place = tempfile::tempdir().unwrap();
    let (dtype, _, bytes) = golden.0.get_mut("out.generated_ids").unwrap();
    assert_eq!(*dtype, Dtype::I64);
    let last = bytes.len() - 8;
    bytes[last] ^= 1;
    let path = golden.write(place.path(), "ids");
    let arguments = ["verify", text(&model), "--golden", text(&path)];
    let ended = run([&arguments[..], &["--tolerance", "10"]].concat()).with(1);
    assert!(ended.stdout.contains("1 of "), "{ended:?}");
    assert!(ended.stdout.contains("integers differ"), "{ended:?}");
}

#[test]
fn golden_files_that_cannot_be_used_are_one_clear_line() {
    let (model, golden) = captioning();
    let place = tempfile::tempdir().unwrap();
    let mut misnamed = golden.clone();
    misnamed.0.retain(|name, _| name.starts_with("in."));
    misnamed.floats("output.logits", &[1], &[0.0]);
    let mut inputs_only = golden.clone();
    inputs_only.0.retain(|name, _| name.starts_with("in."));
    let mut flat = golden.clone();
    let pixels = golden.f32s("in.pixel_values");
    flat.floats("in.pixel_values", &[pixels.len()], &pixels);
    let mut empty = golden.clone();
    empty.floats("in.pixel_values", &[0, 3, 8, 8], &[]);
    let mut no_picture = golden.clone();
    no_picture.0.retain(|name, _| name != "in.pixel_values");
    no_picture.bytes("in.image_bytes", b"no picture");
    let mut no_text = golden.clone();
    no_text.bytes("in.text_utf8", b"\xff\xfe");
    let cases = [
        ("misnamed", misnamed, "none, but output.logits"),
        ("inputs_only", inputs_only, "out.NAME"),
        ("flat", flat, "pixel_values: expected 4 dimensions"),
        ("empty", empty, "in.pixel_values"),
        ("no_picture", no_picture, "in.image_bytes"),
        ("no_text", no_text, "in.text_utf8"),
    ];
    for (name, golden, words) in cases {
        let path = golden.write(place.path(), name);
        let ended = run(["verify", text(&model), "--golden", text(&path)]).with(2);
        ended.complains(&[words]);
    }
    let whole = fs::read(model.join("forward.golden.safetensors")).unwrap();
    fs::write(place.path().join("torn"), &whole[..whole.len() / 2]).unwrap();
    fs::write(place.path().join("nothing"), "").unwrap();
    for file in ["torn", "nothing", "missing", "."] {
        let ended = run_in(place.path(), ["verify", text(&model), "--golden", file]).with(2);
        ended.complains(&[file]);
    }
}

#[test]
fn broken_models_are_inspected_instead_of_refused() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("model");
    copy(&published("blip/captioning"), &directory);
    let sound = run(["inspect", text(&directory), "--json"])
        .with(0)
        .records();
    assert_eq!(sound[0]["family"], "blip");
    assert_eq!(sound[0]["sound"], true);
    assert_eq!(sound[0]["tokenizer"], false);
    let can = sound[0]["can"].as_array().unwrap();
    assert!(can.contains(&Value::from("caption")) && !can.contains(&Value::from("classify")));
    let parts = sound[0]["parts"].as_object().unwrap();
    let sum: u64 = parts
        .values()
        .map(|p| p["parameters"].as_u64().unwrap())
        .sum();
    assert_eq!(Some(sum), sound[0]["parameters"].as_u64());

    // one tensor renamed, one of another shape
    let path = directory.join("model.safetensors");
    let mut weights = Golden::read(&path);
    let names: Vec<String> = weights.0.keys().cloned().collect();
    let renamed = names.iter().find(|n| n.contains("fc1.weight")).unwrap();
    let stored = weights.0.remove(renamed).unwrap();
    weights.0.insert("an.extra".to_owned(), stored);
    let reshaped = names
        .iter()
        .find(|n| n.contains("post_layernorm.bias"))
        .unwrap();
    weights.floats(reshaped, &[3], &[1.0; 3]);
    weights.write(&directory, "model.safetensors");
    let ended = run(["inspect", text(&directory)]).with(0);
    assert!(ended.stdout.contains("+ an.extra ["), "{ended:?}");
    assert!(
        ended.stdout.lines().any(|l| l.starts_with("- ")),
        "{ended:?}"
    );
    assert!(
        ended.stdout.lines().any(|l| l.starts_with("! ")),
        "{ended:?}"
    );
    let record = run(["inspect", text(&directory), "--json", "--tensors"])
        .with(0)
        .records();
    assert_eq!(record[0]["sound"], false);
    assert_eq!(record[0]["unused"].as_array().unwrap().len(), 1);
    assert_eq!(record[0]["list"].as_array().unwrap().len(), names.len());

    // a family that is not known, and a config that is none
    for config in ["{\"model_type\": \"unheard-of\"}", "{"] {
        fs::write(directory.join("config.json"), config).unwrap();
        let ended = run(["inspect", text(&directory)]).with(0);
        assert!(ended.stdout.contains("problem: "), "{ended:?}");
    }
    // what cannot be read at all
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    run(["inspect", text(&directory)])
        .with(2)
        .complains(&["model.safetensors"]);
    run(["inspect", text(&directory.join("none"))])
        .with(2)
        .complains(&["none"]);
}

#[test]
fn weights_that_are_no_numbers_or_of_another_family_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("model");
    copy(&published("blip/captioning"), &directory);
    let golden = directory.join("forward.golden.safetensors");
    let verify = || run(["verify", text(&directory), "--golden", text(&golden)]).with(2);
    let path = directory.join("model.safetensors");
    let good = Golden::read(&path);
    let bias = good
        .0
        .keys()
        .find(|n| n.contains("post_layernorm.bias"))
        .unwrap();
    let shape = good.0[bias].1.clone();
    let mut values = good.f32s(bias);

    let mut nan = good.clone();
    values[1] = f32::NAN;
    nan.floats(bias, &shape, &values)
        .write(&directory, "model.safetensors");
    verify().complains(&["post_norm.bias", "finite", "NaN"]);

    let mut integers = good.clone();
    integers.0.get_mut(bias).unwrap().0 = Dtype::I32;
    integers.write(&directory, "model.safetensors");
    verify().complains(&["post_norm.bias", "I32"]);

    let other = published("blip/contrastive").join("model.safetensors");
    fs::copy(other, &path).unwrap();
    verify().complains(&["model.safetensors", "- "]);
}
