//! BLIP, loaded as transformers wrote it and as its authors' code does, agrees with both (reference/models_blip.py and
//! reference/blip_original.py).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use std::collections::BTreeMap;
use std::path::PathBuf;
use vlm_models::capability::{Pictures, Tokens};
use vlm_models::families::Model;
use vlm_models::families::blip::{Blip, Labels};
use vlm_models::reference::{Inputs, Numbers, Reference, Value};
use vlm_nn::ops::{self, AdamWStep};
use vlm_nn::weights::Checkpoint;

fn path(name: &str) -> PathBuf {
    [
        env!("CARGO_MANIFEST_DIR"),
        "../../testdata/models/blip",
        name,
    ]
    .iter()
    .collect()
}

fn checkpoint(name: &str) -> Checkpoint {
    Checkpoint::open(&path(name)).unwrap()
}

fn config(name: &str) -> String {
    std::fs::read_to_string(path(name).join("config.json")).unwrap()
}

fn blip(name: &str, device: &Device) -> Blip {
    let weights = checkpoint(&format!("{name}/model.safetensors"));
    Blip::load(&config(name), weights, device).unwrap()
}

/// Arguments and results of a golden file.
struct Golden {
    inputs: BTreeMap<String, Value>,
    outputs: BTreeMap<String, Value>,
}

impl Golden {
    fn of(name: &str) -> Self {
        let mut file = checkpoint(&format!("{name}.golden.safetensors"));
        let tensors: Vec<(String, bool)> = file
            .tensors()
            .map(|t| (t.name.to_owned(), t.dtype.is_float()))
            .collect();
        let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
        for (name, float) in tensors {
            let value = if float {
                let (shape, values) = file.take_any(&name).unwrap();
                Value {
                    shape,
                    numbers: Numbers::Floats(values),
                }
            } else {
                let (shape, values) = file.take_integers(&name).unwrap();
                Value {
                    shape,
                    numbers: Numbers::Integers(values),
                }
            };
            match name.split_once('.').unwrap() {
                ("in", name) => inputs.insert(name.to_owned(), value),
                (_, name) => outputs.insert(name.to_owned(), value),
            };
        }
        assert!(!outputs.is_empty());
        Self { inputs, outputs }
    }

    fn floats<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let inputs = Inputs::new(self.inputs.clone());
        inputs.floats(name, device).unwrap().unwrap()
    }

    fn rows(&self, name: &str) -> Vec<Vec<i64>> {
        let value = &self.inputs[name];
        let Numbers::Integers(ids) = &value.numbers else {
            panic!("{name} is no tensor of integers");
        };
        ids.chunks(value.shape[1]).map(<[i64]>::to_vec).collect()
    }

    fn tokens(&self, name: &str, mask: &str) -> Tokens {
        let ids = self.rows(name).into_iter();
        let ids = ids.map(|row| row.into_iter().map(|id| id as u32).collect());
        let mask = self.inputs.contains_key(mask).then(|| self.rows(mask));
        let mask = mask.map(|mask| {
            let rows = mask.into_iter();
            rows.map(|row| row.into_iter().map(|x| x != 0).collect())
                .collect()
        });
        Tokens::new(ids.collect(), mask).unwrap()
    }

    /// Every result of the golden file, from the model.
    #[track_caller]
    fn check(&self, name: &str, model: &dyn Reference) {
        let inputs = Inputs::new(self.inputs.clone());
        let found = model.outputs(&inputs).unwrap();
        assert_eq!(inputs.unread(), [""; 0], "{name}");
        for (output, expected) in &self.outputs {
            let found = found
                .get(output)
                .unwrap_or_else(|| panic!("{name}: no {output}"));
            match (&found.numbers, &expected.numbers) {
                (Numbers::Floats(found), Numbers::Floats(expected)) => {
                    close(&format!("{name}: {output}"), found, expected, 2e-5);
                }
                (found, expected) => assert_eq!(found, expected, "{name}: {output}"),
            }
            // a loss is a number there and a tensor of one here
            if !expected.shape.is_empty() {
                assert_eq!(found.shape, expected.shape, "{name}: {output}");
            }
        }
    }
}

/// Within a share of the largest value: both sides are sums of a few dozen terms in f32.
#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32], share: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= share * largest,
            "{what}, {i}: {a} is not {b} (largest {largest})"
        );
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn every_class_matches_the_reference_at_every_named_tensor() {
    for (directory, goldens) in [
        (
            "captioning",
            &[
                "forward",
                "generate",
                "prompt",
                "padded_prompt",
                "unmasked_prompt",
                "left_prompt",
                "large",
                "small",
            ][..],
        ),
        ("variant", &["forward", "generate"]),
        (
            "question_answering",
            &["forward", "padded", "pad_labels", "generate"],
        ),
        ("retrieval", &["itm", "itc", "one_picture"]),
        ("contrastive", &["forward"]),
    ] {
        let weights = checkpoint(&format!("{directory}/model.safetensors"));
        let model = Model::load(&config(directory), weights, &Device::flex()).unwrap();
        for golden in goldens {
            let name = format!("{directory}/{golden}");
            Golden::of(&name).check(&name, model.reference().unwrap());
        }
    }
}
