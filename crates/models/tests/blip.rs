//! BLIP, loaded as transformers wrote it and as its authors' code does, agrees with both (reference/models_blip.py and
//! reference/blip_original.py).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
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
                "beam",
                "long_beam",
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

/// The training loss of a golden file's arguments.
fn loss(model: &Blip, golden: &Golden, device: &Device) -> Tensor<1> {
    let pictures = Pictures::Fixed(golden.floats("pixel_values", device));
    let texts = golden.tokens("input_ids", "attention_mask");
    let pictures = model.picture_states(&pictures).unwrap();
    if model.can_embed().is_ok() {
        let states = model.text_states(&texts, None).unwrap();
        let texts = model.text_vectors(&states).unwrap();
        return model.contrastive_loss(model.picture_vectors(&pictures).unwrap(), texts);
    }
    let labels = Labels {
        ids: golden.rows("labels"),
    };
    let logits = if model.can_caption().is_ok() {
        model.caption_logits(&pictures, &texts)
    } else {
        let answers = golden.tokens("labels", "");
        model.answer_logits(&pictures, &texts, &answers)
    };
    model.language_loss(logits.unwrap(), &labels).unwrap()
}

/// Visits parameters by their full names.
struct Named<F> {
    path: Vec<String>,
    each: F,
}

impl<F: FnMut(&str, Vec<usize>, Option<Vec<f32>>)> ModuleVisitor for Named<(&Gradients, F)> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.val().dims().to_vec();
        let gradient = param.val().grad(self.each.0).map(values);
        (self.each.1)(&self.path.join("."), shape, gradient);
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

/// One step of AdamW on every parameter that has a gradient.
struct Step<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    moments: &'a mut BTreeMap<String, [Tensor<1>; 2]>,
    number: u64,
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = param.val().grad(self.gradients) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let gradient = gradient.flatten::<1>(0, D - 1);
        let zeros = gradient.zeros_like();
        let name = self.path.join(".");
        let [m, v] = self.moments.remove(&name).unwrap_or([zeros.clone(), zeros]);
        let step = AdamWStep {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.05,
            step: self.number,
        };
        let tensor = tensor.inner().flatten::<1>(0, D - 1);
        let (tensor, m, v) = ops::adamw(tensor, gradient, m, v, step);
        self.moments.insert(name, [m, v]);
        let tensor = Tensor::from_inner(tensor.reshape(shape)).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

const TRAINED: [&str; 3] = ["captioning", "question_answering", "contrastive"];

#[test]
fn gradients_match_the_reference_for_every_parameter() {
    let device = Device::flex().autodiff();
    for directory in TRAINED {
        let model = blip(directory, &device);
        let golden = Golden::of(&format!("{directory}/forward"));
        let gradients = loss(&model, &golden, &device).backward();
        let mut published = checkpoint(&format!("{directory}/gradients.safetensors"));
        published.ignore("steps");
        let mut expected = model.translated(published);
        let mut without = Vec::new();
        let mut visitor = Named {
            path: Vec::new(),
            each: (
                &gradients,
                |name: &str, shape: Vec<usize>, found: Option<Vec<f32>>| {
                    let Some(found) = found else {
                        without.push(name.to_owned());
                        return;
                    };
                    let expected = expected.take(name, &shape).unwrap();
                    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
                    // softmax does not see what is added to every key: the gradient of their bias is rounding
                    if largest > 1e-6 {
                        close(&format!("{directory}: {name}"), &found, &expected, 1e-3);
                    }
                },
            ),
        };
        model.visit(&mut visitor);
        assert_eq!(expected.unused().collect::<Vec<_>>(), [""; 0]);
        // a text tower that no picture is shown to has no use for its cross-attention
        let unused = |name: &String| directory == "contrastive" && name.contains("cross");
        assert!(without.iter().all(unused), "{without:?}");
    }
}

#[test]
fn ten_steps_follow_the_reference_losses() {
    let device = Device::flex().autodiff();
    for directory in TRAINED {
        let mut model = blip(directory, &device);
        let golden = Golden::of(&format!("{directory}/forward"));
        let mut moments = BTreeMap::new();
        let mut losses = Vec::new();
        for number in 1..=10 {
            let loss = loss(&model, &golden, &device);
            losses.push(values(loss.clone())[0]);
            let gradients = loss.backward();
            model = model.map(&mut Step {
                path: Vec::new(),
                gradients: &gradients,
                moments: &mut moments,
                number,
            });
        }
        let expected = checkpoint(&format!("{directory}/gradients.safetensors"))
            .take("steps", &[10])
            .unwrap();
        // rounding is amplified by every step
        close(directory, &losses, &expected, 2e-3);
        assert!(losses[9] < 0.7 * losses[0], "{directory}: {losses:?}");
    }
}

fn original(name: &str, device: &Device) -> Blip {
    let checkpoint = checkpoint(&format!("original/{name}"));
    assert!(vlm_models::families::blip::recognised(&checkpoint));
    Blip::from_original(checkpoint, device).unwrap()
}

#[test]
fn the_authors_checkpoints_match_their_code_at_every_named_tensor() {
    for (file, goldens) in [
        ("captioning.pth", &["captioning", "captioning_generate"][..]),
        ("question_answering.safetensors", &["question_answering"]),
        ("retrieval.safetensors", &["retrieval", "retrieval_itc"]),
    ] {
        let model = original(file, &Device::flex());
        for golden in goldens {
            let name = format!("original/{golden}");
            Golden::of(&name).check(&name, &model);
        }
    }
}

#[test]
fn the_authors_answer_loss_weighs_answers_and_counts_pictures() {
    let device = Device::flex();
    let model = original("question_answering.safetensors", &device);
    let golden = Golden::of("original/question_answering");
    let pictures = Pictures::Fixed(golden.floats("pixel_values", &device));
    let logits = model
        .answer_logits(
            &model.picture_states(&pictures).unwrap(),
            &golden.tokens("input_ids", "attention_mask"),
            &golden.tokens("decoder_input_ids", "decoder_attention_mask"),
        )
        .unwrap();
    let labels = Labels {
        ids: golden.rows("labels"),
    };
    let weighted = Golden::of("original/question_answering_weighted");
    let weights = values(weighted.floats::<1>("weights", &device));
    let loss = model.weighted_answer_loss(logits, &labels, &weights, 2);
    let Numbers::Floats(expected) = &weighted.outputs["loss"].numbers else {
        panic!("a loss is a float");
    };
    close("loss", &values(loss.unwrap()), expected, 2e-5);
}

#[test]
fn what_only_training_needs_is_ignored_and_listed() {
    let mut all = checkpoint("original/retrieval.safetensors");
    let model = original("retrieval.safetensors", &Device::flex());
    let copies = [
        "visual_encoder_m.**",
        "text_encoder_m.**",
        "*_proj_m.*",
        "*_queue",
        "**.position_ids",
    ];
    let expected: usize = copies.iter().map(|pattern| all.ignore(pattern)).sum();
    let translated = model.translated(checkpoint("original/retrieval.safetensors"));
    let listed: Vec<&str> = translated.ignored().map(|t| t.name).collect();
    assert_eq!(listed.len(), expected, "{listed:?}");
    assert!(
        listed.contains(&"image_queue") && listed.contains(&"text_encoder.embeddings.position_ids")
    );
}
