//! The loop as a whole, on tiny models.

use crate::Error;
use crate::learner::{Contrastive, Files, Learner, Losses, Measured};
use crate::log::Log;
use crate::plot::Panel;
use crate::recipe::{Recipe, TrainRecipe};
use crate::run::{Options, State, train};
use crate::workers::Workers;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, sync_channel};
use vlm_models::capability::{EmbedText, Pictures, Tokens};
use vlm_models::families::Model;
use vlm_models::families::blip::{Blip, Labels};
use vlm_models::families::dual_encoder::DualEncoder;
use vlm_nn::weights::{Checkpoint, Weights, collect};
use vlm_tasks::Vlm;

fn testdata(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../testdata", name]
        .iter()
        .collect()
}

/// What a reference of tests learns: one batch, again and again.
struct Fixed<M, B> {
    load: Box<dyn Fn(&Device) -> M + Sync>,
    batch: B,
    loss: fn(&M, &B, &Device) -> Result<Losses, Error>,
}

impl<M: Module, B: Send + Sync + Clone + 'static> Learner for Fixed<M, B> {
    type Model = M;
    type Batch = B;

    fn build(&self, _: &mut Weights) -> M {
        unreachable!("these tests do not resume")
    }

    fn initial(&self, device: &Device) -> Result<(M, Option<String>), Error> {
        Ok(((self.load)(device), None))
    }

    fn stream(&self, _: u64) -> Receiver<Result<B, Error>> {
        sync_channel(1).1
    }

    fn loss(&self, model: &M, batch: &B, device: &Device) -> Result<Losses, Error> {
        (self.loss)(model, batch, device)
    }

    fn measure(&self, _: M) -> Result<Measured, Error> {
        unreachable!("these tests do not measure")
    }

    fn files(&self) -> Result<Files, Error> {
        Ok(Vec::new())
    }

    fn data_seed(&self) -> u64 {
        0
    }

    fn panels(&self, _: &Log) -> Vec<Panel> {
        Vec::new()
    }
}

/// The loop of reference/train_steps.py.
fn loop_of_reference() -> TrainRecipe {
    let text = r#"
        seed = 1
        steps = 10
        batch_size = 2
        accumulate = 1
        learning_rate = 3e-3
        min_learning_rate = 1e-4
        warmup_steps = 3
        decay_steps = 7
        weight_decay = 0.1
        betas = [0.9, 0.98]
        clip_norm = 1.0
        precision = "f32"
        checkpoint_every = 10
        output = "f32"
    "#;
    toml::from_str(text).expect("a loop")
}

/// The arguments of a golden file: floats and integers by name.
struct Arguments {
    file: Checkpoint,
}

impl Arguments {
    fn of(path: &Path) -> Self {
        let file = Checkpoint::open(path).expect("a golden file");
        Self { file }
    }

    fn pixels(&self) -> (Vec<usize>, Vec<f32>) {
        let mut file = self.file.clone();
        file.take_any("in.pixel_values").expect("pixels")
    }

    fn rows(&self, name: &str) -> Option<Vec<Vec<i64>>> {
        let mut file = self.file.clone();
        let (shape, values) = file.take_integers(&format!("in.{name}")).ok()?;
        Some(values.chunks(shape[1]).map(<[i64]>::to_vec).collect())
    }

    fn tokens(&self, ids: &str, mask: &str) -> Tokens {
        let ids = self.rows(ids).expect("ids").into_iter();
        let ids = ids.map(|row| row.into_iter().map(|id| id as u32).collect());
        let mask = self.rows(mask).map(|mask| {
            let rows = mask.into_iter();
            rows.map(|row| row.into_iter().map(|x| x != 0).collect())
                .collect()
        });
        Tokens::new(ids.collect(), mask).expect("equal rows")
    }
}

/// A batch of the references.
#[derive(Clone)]
struct Golden {
    shape: Vec<usize>,
    pixels: Vec<f32>,
    texts: Tokens,
    answers: Option<Tokens>,
    labels: Vec<Vec<i64>>,
}

impl Golden {
    fn pictures(&self, device: &Device) -> Pictures {
        let data = TensorData::new(self.pixels.clone(), self.shape.clone());
        Pictures::Fixed(Tensor::from_data(data, device))
    }
}

fn one_part(total: Tensor<1>) -> Losses {
    Losses {
        total,
        parts: Vec::new(),
    }
}

/// Ten steps of the trainer's own code; the losses and the lengths of the gradients follow the reference's.
#[track_caller]
fn follows<M: Module>(case: &str, learner: &Fixed<M, Golden>, t: &TrainRecipe) -> (M, M) {
    let steps = std::fs::read_to_string(testdata("train/steps.json")).expect("steps.json");
    let steps: serde_json::Value = serde_json::from_str(&steps).expect("JSON");
    let numbers = |key: &str| -> Vec<f64> {
        let list = steps[case][key].as_array().expect("a list");
        list.iter().map(|x| x.as_f64().expect("a number")).collect()
    };
    let (losses, lengths) = (numbers("losses"), numbers("grad_norms"));
    assert!(losses.len() == 10 && losses[9] < losses[0], "{losses:?}");
    let device = Device::flex().autodiff();
    let (first, _) = learner.initial(&device).expect("a model");
    let mut state = State::new(first.clone(), t).expect("a state");
    let workers = Workers::new(1).expect("threads");
    for step in 0..10 {
        let batches = [learner.batch.clone()];
        let done = state.advanced(learner, &workers, &batches, t, &device);
        let done = done.expect("a step");
        // Adam divides small gradients by their own size, so that rounding grows from step to step
        for (found, expected) in [
            (done.parts.total, losses[step]),
            (done.grad_norm, lengths[step]),
        ] {
            assert!(
                (found - expected).abs() <= 2e-3 * expected.abs(),
                "{case}, step {step}: {found} is not {expected}"
            );
        }
        state = done.state;
    }
    (first, state.model)
}

fn dual_encoder(name: &'static str) -> Fixed<DualEncoder, Golden> {
    let folder = testdata("models").join(name);
    let given = Arguments::of(&folder.join("golden.safetensors"));
    let (mut shape, mut pixels) = given.pixels();
    let mut ids = given.rows("input_ids").expect("ids");
    let count = shape[0].min(ids.len());
    pixels.truncate(count * pixels.len() / shape[0]);
    shape[0] = count;
    ids.truncate(count);
    let ids = ids.into_iter();
    let ids = ids.map(|row| row.into_iter().map(|id| id as u32).collect());
    let texts = Tokens::new(ids.collect(), None).expect("equal rows");
    Fixed {
        load: Box::new(move |device| {
            let config = std::fs::read_to_string(folder.join("config.json")).expect("a config");
            let weights = Checkpoint::open(&folder.join("model.safetensors")).expect("weights");
            match Model::load(&config, weights, device).expect("a model") {
                Model::Clip(m) | Model::Siglip(m) => m,
                other => panic!("{}", other.family()),
            }
        }),
        batch: Golden {
            shape,
            pixels,
            texts,
            answers: None,
            labels: Vec::new(),
        },
        loss: |model, batch, device| {
            let loss = model.loss(&batch.pictures(device), &batch.texts);
            Ok(one_part(loss?))
        },
    }
}

#[test]
fn ten_steps_of_clip_and_siglip_follow_the_references() {
    for name in ["clip/largest_id", "siglip/fixed"] {
        follows(name, &dual_encoder(name), &loop_of_reference());
    }
}

#[test]
fn ten_steps_with_layer_wise_rates_follow_the_reference() {
    let mut t = loop_of_reference();
    t.layer_decay = 0.5;
    follows("layers", &dual_encoder("clip/largest_id"), &t);
}

#[test]
fn frozen_parameters_stay_to_the_bit_and_the_others_follow_the_reference() {
    let mut t = loop_of_reference();
    t.freeze = vec!["vision.**".to_owned()];
    let (before, after) = follows("frozen", &dual_encoder("clip/largest_id"), &t);
    let (before, after) = (collect(&before), collect(&after));
    for (name, (_, values)) in &before {
        let same = after[name].1 == *values;
        assert_eq!(same, name.starts_with("vision."), "{name}");
    }
}

fn blip(name: &'static str) -> Fixed<Blip, Golden> {
    let folder = testdata("models/blip").join(name);
    let given = Arguments::of(&folder.join("forward.golden.safetensors"));
    let (shape, pixels) = given.pixels();
    let answers = name == "question_answering";
    Fixed {
        batch: Golden {
            shape,
            pixels,
            texts: given.tokens("input_ids", "attention_mask"),
            answers: answers.then(|| given.tokens("labels", "none")),
            labels: given.rows("labels").expect("labels"),
        },
        load: Box::new(move |device| {
            let config = std::fs::read_to_string(folder.join("config.json")).expect("a config");
            let weights = Checkpoint::open(&folder.join("model.safetensors")).expect("weights");
            Blip::load(&config, weights, device).expect("a model")
        }),
        loss: |model, batch, device| {
            let pictures = model.picture_states(&batch.pictures(device))?;
            let logits = match &batch.answers {
                Some(answers) => model.answer_logits(&pictures, &batch.texts, answers)?,
                None => model.caption_logits(&pictures, &batch.texts)?,
            };
            let labels = Labels {
                ids: batch.labels.clone(),
            };
            Ok(one_part(model.language_loss(logits, &labels)?))
        },
    }
}

#[test]
fn ten_steps_of_blip_follow_the_references() {
    for name in ["captioning", "question_answering"] {
        follows(&format!("blip/{name}"), &blip(name), &loop_of_reference());
    }
}

/// A dual encoder as its learner has it.
struct Cached;

impl Contrastive<DualEncoder, Golden> for Cached {
    fn vectors(
        &self,
        model: &DualEncoder,
        batch: &Golden,
        device: &Device,
    ) -> Result<Vec<Tensor<2>>, Error> {
        let image = model.image_vectors(&batch.pictures(device), false)?;
        Ok(vec![image, model.embed_text(&batch.texts)?])
    }

    fn contrast(&self, model: &DualEncoder, vectors: Vec<Tensor<2>>) -> Result<Losses, Error> {
        let [image, text]: [Tensor<2>; 2] = vectors.try_into().expect("two");
        Ok(one_part(model.contrast(image, text)?))
    }
}

/// Six pairs, and the same cut into batches of these sizes.
fn pairs(model: &Fixed<DualEncoder, Golden>, sizes: &[usize]) -> (Golden, Vec<Golden>) {
    let mut whole = model.batch.clone();
    let per_picture = whole.pixels.len() / whole.shape[0];
    let width = whole.texts.rows()[0].len();
    let pixels = (0..6 * per_picture).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0);
    whole.pixels = pixels.collect();
    whole.shape[0] = 6;
    let end = *whole.texts.rows()[0].iter().max().expect("ids");
    let row = |i: u32| {
        let mut row: Vec<u32> = (0..width as u32)
            .map(|j| 1 + (i * 5 + j * 3) % 20)
            .collect();
        row[width - 1] = end;
        row
    };
    let rows: Vec<Vec<u32>> = (0..6).map(row).collect();
    whole.texts = Tokens::new(rows.clone(), None).expect("equal rows");
    let mut begin = 0;
    let parts = sizes.iter().map(|&size| {
        let mut part = whole.clone();
        part.shape[0] = size;
        part.pixels = whole.pixels[begin * per_picture..(begin + size) * per_picture].to_vec();
        part.texts = Tokens::new(rows[begin..begin + size].to_vec(), None).expect("equal rows");
        begin += size;
        part
    });
    let parts = parts.collect();
    (whole, parts)
}

#[test]
fn gradient_caching_has_the_gradient_of_the_large_batch() {
    let device = Device::flex().autodiff();
    let frozen = BTreeSet::from(["text.post_norm.bias".to_owned()]);
    for name in ["clip/largest_id", "siglip/fixed"] {
        let learner = dual_encoder(name);
        let model = (learner.load)(&device);
        let (whole, parts) = pairs(&learner, &[2, 1, 3]);
        let workers = Workers::new(3).expect("threads");
        let (loss, grads) = workers
            .gradients(&learner, &model, &frozen, &[whole], &device)
            .expect("the whole batch");
        let (cached_loss, cached) = workers
            .cached_gradients::<Fixed<DualEncoder, Golden>>(
                &Cached, &model, &frozen, &parts, &device,
            )
            .expect("the parts");
        assert!((loss.total - cached_loss.total).abs() < 1e-5 * loss.total.abs());
        let values = |grads: &BTreeMap<String, Tensor<1>>| -> BTreeMap<String, Vec<f32>> {
            let each = grads.iter();
            each.map(|(name, g)| {
                (
                    name.clone(),
                    g.clone().into_data().try_to_vec().expect("f32"),
                )
            })
            .collect()
        };
        let (grads, cached) = (values(grads.by_name()), values(cached.by_name()));
        assert_eq!(
            grads.keys().collect::<Vec<_>>(),
            cached.keys().collect::<Vec<_>>()
        );
        assert!(!grads.contains_key("text.post_norm.bias") && grads.contains_key("logit_scale"));
        let most = grads.values().flatten().fold(0f32, |m, g| m.max(g.abs()));
        for (parameter, expected) in &grads {
            for (a, b) in expected.iter().zip(&cached[parameter]) {
                // sums of the same products in another order
                assert!((a - b).abs() < 1e-5 * most, "{name}: {parameter}: {a} {b}");
            }
        }
    }
}

/// A tiny CLIP on rendered scenes.
fn scenes(steps: u64, more: &str) -> Recipe {
    let text = format!(
        r#"
        name = "tiny"
        [data]
        world = "shapes"
        seed = 3
        [data.augment]
        crop_scale = [0.5, 1.0]
        colour_jitter = [0.2, 0.2, 0.2, 0.05]
        word_dropout = 0.1
        [train]
        seed = 1
        steps = {steps}
        batch_size = 2
        accumulate = 2
        learning_rate = 1e-3
        min_learning_rate = 0.0
        warmup_steps = 2
        decay_steps = 0
        weight_decay = 0.1
        betas = [0.9, 0.98]
        clip_norm = 1.0
        precision = "f32"
        checkpoint_every = 3
        output = "f32"
        {more}
        [validation]
        every = 6
        pictures = 4
        [model]
        model_type = "clip"
        projection_dim = 16
        [model.vision_config]
        image_size = 32
        patch_size = 16
        hidden_size = 16
        intermediate_size = 32
        num_hidden_layers = 2
        num_attention_heads = 2
        [model.text_config]
        hidden_size = 16
        intermediate_size = 32
        num_hidden_layers = 2
        num_attention_heads = 2
        max_position_embeddings = 64
        "#
    );
    Recipe::parse(&text).expect("a recipe")
}

fn options(directory: &Path, resume: bool) -> Options {
    Options {
        directory: directory.to_owned(),
        resume,
        quiet: true,
    }
}

#[test]
fn a_dual_encoder_that_is_resumed_ends_with_the_same_bytes_and_loads() {
    let more = "gradient_cache = true\nema_decay = 0.9\nlayer_decay = 0.8\nfreeze = [\"text.token.weight\"]";
    let scratch = tempfile::tempdir().expect("a directory");
    let (whole, parts) = (scratch.path().join("whole"), scratch.path().join("parts"));
    let go_on = AtomicBool::new(false);
    let run = |steps, directory: &Path, resume| {
        train(scenes(steps, more), &options(directory, resume), &go_on).expect("a run")
    };
    let outcome = run(6, &whole, false);
    run(3, &parts, false);
    run(6, &parts, true);
    for file in [
        "model/model.safetensors",
        "model/config.json",
        "model/tokenizer.json",
        "checkpoints/step-00000006/model.safetensors",
        "checkpoints/step-00000006/ema.safetensors",
        "checkpoints/step-00000006/optimizer.safetensors",
    ] {
        let read = |directory: &Path| std::fs::read(directory.join(file)).expect(file);
        assert!(read(&whole) == read(&parts), "{file}");
    }
    // what is exported is the average
    let read = |file: &str| std::fs::read(whole.join(file)).expect("weights");
    assert_ne!(
        read("model/model.safetensors"),
        read("checkpoints/step-00000006/model.safetensors")
    );
    let vlm = Vlm::load(&outcome.model).expect("every command can load it");
    assert_eq!(vlm.model().family(), "clip");
    let vectors = vlm.embed_texts(&["a red circle"]).expect("a vector");
    assert_eq!(vectors[0].len(), 16);
}

#[test]
fn fine_tuning_begins_with_the_given_weights() {
    let scratch = tempfile::tempdir().expect("a directory");
    let go_on = AtomicBool::new(false);
    let first = scratch.path().join("first");
    let outcome = train(scenes(2, ""), &options(&first, false), &go_on).expect("a run");
    let init = format!("init = {:?}", outcome.model.display().to_string());
    let frozen = format!("{init}\nfreeze = [\"**\"]");
    let second = scratch.path().join("second");
    // with everything frozen there is no loss to go down, and that is said
    let error = train(scenes(2, &frozen), &options(&second, false), &go_on);
    assert!(error.is_err());
    let most = format!("{init}\nfreeze = [\"vision.**\", \"text.**\"]");
    let outcome = train(scenes(2, &most), &options(&second, false), &go_on).expect("a run");
    let weights = |directory: &Path| {
        let file = directory.join("model/model.safetensors");
        let mut file = Checkpoint::open(&file).expect("weights");
        let name = "vision.blocks.0.mlp.fc1.weight";
        file.take(name, &[32, 16]).expect("a matrix")
    };
    assert_eq!(weights(&first), weights(&second));
    assert_eq!(outcome.step, 2);
}

#[test]
fn recipes_that_do_not_fit_their_data_or_model_are_refused_by_key() {
    let scratch = tempfile::tempdir().expect("a directory");
    let stop = AtomicBool::new(true);
    for (more, key) in [
        ("freeze = [\"visual.**\"]", "train.freeze"),
        ("init = \"/nowhere\"", "/nowhere"),
    ] {
        let options = options(&scratch.path().join("run"), false);
        let error = train(scenes(2, more), &options, &stop).expect_err(key);
        assert!(error.to_string().contains(key), "{error}");
    }
}
