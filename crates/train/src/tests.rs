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
use vlm_data::image::Image;
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

/// The recipe of [`scenes`] with another model.
fn of_family(model: &str) -> Recipe {
    let Recipe::Set(mut recipe) = scenes(2, "") else {
        panic!("a recipe of a set");
    };
    recipe.model = toml::from_str(model).expect("a table");
    recipe.data.augment = crate::Augment::default();
    recipe.validation.pictures = 2;
    Recipe::Set(recipe)
}

/// One layer of everything.
const TINY_TEXT: &str = "hidden_size = 16\nintermediate_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
                         max_position_embeddings = 96\n";
const TINY_VISION: &str = "image_size = 32\npatch_size = 16\nhidden_size = 16\nintermediate_size = 32\n\
                           num_hidden_layers = 1\nnum_attention_heads = 2\n";

fn albef(task: &str, more: &str) -> String {
    format!(
        "model_type = \"albef\"\ntask = \"{task}\"\nimage_res = 32\nvision_width = 16\nembed_dim = 8\n{more}\n\
         [vision_config]\npatch_size = 16\nembed_dim = 16\ndepth = 1\nnum_heads = 2\n[bert_config]\nhidden_size = 16\n\
         intermediate_size = 32\nnum_hidden_layers = 2\nnum_attention_heads = 2\nfusion_layer = 1\n\
         max_position_embeddings = 96\n"
    )
}

const ATTENTION: &str = "rnn_type = \"lstm\"\nattention = { attention_dim = 8, map_size = 4 }";
const TREE_VIT: &str = "{ vit = { image_size = 32, patch_size = 16, num_channels = 3, stem = \"patch\", hidden_size = 16, \
                        intermediate_size = 32, num_hidden_layers = 1, num_attention_heads = 2, layer_norm_eps = 1e-6 } }";
const TREE_CNN: &str = "{ cnn = { image_size = 32, sizes = { vgg = { stages = [[4], [8]], batch_norm = true, \
                        last_pooling = true } } } }";
const TREE_HANDCRAFTED: &str = "{ handcrafted = { image_size = 32, grid = 2, colour_bins = 3, lbp = true, orientations = 6 } }";

/// A captioner of a tiny CNN.
fn nic(more: &str) -> String {
    format!(
        "model_type = \"nic\"\nembed_size = 16\nhidden_size = 16\nmax_length = 64\nimage_size = 32\n{more}\n\
         encoder = {{ vgg = {{ stages = [[4], [8]], batch_norm = true, last_pooling = false }} }}\n"
    )
}

/// A model of the tree of these parts.
fn tree(vision: &str, text: &str, fusion: &str, more: &str) -> String {
    let text = match text.starts_with('{') {
        true => text.to_owned(),
        false => format!("{text:?}"),
    };
    format!(
        "model_type = \"tree\"\nvision = {vision}\ntext = {text}\nfusion = {fusion:?}\nhidden_size = 16\n\
         num_layers = 1\nnum_heads = 2\nmax_length = 64\ncaptions = true\n{more}\n"
    )
}

#[test]
fn every_family_learns_all_its_parameters_and_loads_again() {
    let blip = |class: &str| {
        format!(
            "model_type = \"blip\"\narchitectures = [\"{class}\"]\nimage_text_hidden_size = 8\nprojection_dim = 8\n\
             [vision_config]\n{TINY_VISION}[text_config]\n{TINY_TEXT}"
        )
    };
    let siglip = format!(
        "model_type = \"siglip\"\n[vision_config]\n{TINY_VISION}[text_config]\n{TINY_TEXT}"
    );
    let resnet = "[model_cfg]\nembed_dim = 8\n[model_cfg.vision_cfg]\nimage_size = 32\nlayers = [1, 1, 1, 1]\nwidth = 8\n\
                  head_width = 32\n[model_cfg.text_cfg]\ncontext_length = 96\nwidth = 16\nheads = 2\nlayers = 1\n";
    for (family, model) in [
        ("blip", blip("BlipForConditionalGeneration")),
        ("blip", blip("BlipForQuestionAnswering")),
        ("blip", blip("BlipForImageTextRetrieval")),
        ("siglip", siglip),
        ("open_clip", resnet.to_owned()),
        ("albef", albef("vqa", "distill = false")),
        (
            "albef",
            albef("vqa", "").replace("image_res = 32", "image_res = [16, 48]"),
        ),
        ("albef", albef("retrieval", "queue_size = 8")),
        ("albef", albef("pretrain", "queue_size = 8")),
        ("nic", nic("rnn_type = \"gru\"\nnum_layers = 2")),
        ("nic", nic(ATTENTION)),
        (
            "tree",
            tree(TREE_VIT, "transformer", "merged_attention", ""),
        ),
        (
            "tree",
            tree(TREE_CNN, "{ rnn = \"gru\" }", "late", "num_answers = 0"),
        ),
        ("tree", tree(TREE_HANDCRAFTED, "bag_of_words", "early", "")),
    ] {
        let mut recipe = of_family(&model);
        if let (Recipe::Set(recipe), "open_clip" | "nic" | "tree") = (&mut recipe, family) {
            recipe.train.accumulate = 1;
        }
        let scratch = tempfile::tempdir().expect("a directory");
        let go_on = AtomicBool::new(false);
        let run = options(&scratch.path().join("run"), false);
        let outcome = train(recipe, &run, &go_on).unwrap_or_else(|e| panic!("{model}: {e}"));
        let vlm = Vlm::load(&outcome.model).unwrap_or_else(|e| panic!("{model}: {e}"));
        assert_eq!(vlm.model().family(), family);
        assert!(vlm.processor().is_ok() && vlm.text().is_ok());
    }
}

#[test]
fn a_model_with_momentum_that_is_resumed_ends_with_the_same_bytes() {
    let scratch = tempfile::tempdir().expect("a directory");
    let go_on = AtomicBool::new(false);
    let run = |steps: u64, name: &str, resume: bool| {
        let mut recipe = of_family(&albef("retrieval", "queue_size = 8"));
        if let Recipe::Set(recipe) = &mut recipe {
            recipe.train.steps = steps;
        }
        let options = options(&scratch.path().join(name), resume);
        let outcome = train(recipe, &options, &go_on).expect("a run");
        std::fs::read(outcome.model.join("model.safetensors")).expect("weights")
    };
    let whole = run(4, "whole", false);
    run(2, "parts", false);
    assert!(run(4, "parts", true) == whole);
}

/// A recipe of tiny models with batch norms, whose loss has time to fall.
fn of_the_tree(model: &str, steps: u64) -> Recipe {
    let mut recipe = of_family(model);
    if let Recipe::Set(recipe) = &mut recipe {
        recipe.data.size = 32;
        recipe.data.difficulty = [0.0, 0.0];
        recipe.data.questions_per_picture = 2;
        recipe.validation.every = 1000;
        let t = &mut recipe.train;
        (t.steps, t.batch_size, t.accumulate) = (steps, 4, 1);
        (t.learning_rate, t.checkpoint_every) = (1e-2, 15);
    }
    recipe
}

#[test]
fn the_loss_of_captioners_and_of_the_tree_falls_and_a_resumed_run_ends_with_the_same_bytes() {
    let go_on = AtomicBool::new(false);
    for model in [
        nic("rnn_type = \"lstm\""),
        nic(ATTENTION),
        tree(TREE_HANDCRAFTED, "bag_of_words", "early", ""),
        tree(TREE_CNN, "transformer", "cross_attention", ""),
    ] {
        let scratch = tempfile::tempdir().expect("a directory");
        let run = |steps: u64, name: &str, resume: bool| {
            let options = options(&scratch.path().join(name), resume);
            let recipe = of_the_tree(&model, steps);
            let outcome =
                train(recipe, &options, &go_on).unwrap_or_else(|e| panic!("{model}: {e}"));
            std::fs::read(outcome.model.join("model.safetensors")).expect("weights")
        };
        let whole = run(30, "whole", false);
        let log = Log::read(scratch.path().join("whole/log.jsonl")).expect("a log");
        let losses: Vec<f64> = log
            .series("loss")
            .into_iter()
            .map(|(_, loss)| loss)
            .collect();
        assert!(
            losses.len() == 3 && losses[2] < losses[0],
            "{model}: {losses:?}"
        );
        run(15, "parts", false);
        assert!(run(30, "parts", true) == whole, "{model}");
    }
}

#[test]
fn a_model_of_the_tree_chooses_among_the_answers_of_its_data() {
    let scratch = tempfile::tempdir().expect("a directory");
    let run = options(&scratch.path().join("run"), false);
    let model = tree(TREE_HANDCRAFTED, "bag_of_words", "early", "");
    let outcome = train(of_the_tree(&model, 2), &run, &AtomicBool::new(false)).expect("a run");
    let vlm = Vlm::load(&outcome.model).expect("a model");
    assert!(vlm.answers_questions());
    let image = Image::from_rgb(32, 32, vec![200; 32 * 32 * 3]).expect("a picture");
    let questions = [(0, "how many circles are there?"), (0, "is there a star?")];
    let answers = vlm.answer(&[&image], &questions).expect("answers");
    let known = vlm_worlds::shapes::answers();
    for (answer, (_, question)) in answers.iter().zip(questions) {
        assert!(known.contains(&answer.text.as_str()), "{answer:?}");
        let ranked = vlm.rank_answers(&image, question, &known).expect("ranks");
        let best = (0..known.len()).max_by(|&a, &b| ranked[a].total_cmp(&ranked[b]));
        assert_eq!(known[best.expect("answers")], answer.text);
        let sum: f64 = ranked.iter().map(|log| log.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
    }
    let unknown = vlm.rank_answers(&image, "is there a star?", &["perhaps"]);
    let unknown = unknown.expect_err("no such answer").to_string();
    assert!(unknown.contains("perhaps") && unknown.contains("answers that the model knows"));

    // what has no answers says so, and so does a recipe whose batches would come in parts
    let captioner = options(&scratch.path().join("captioner"), false);
    let silent = of_the_tree(&nic("rnn_type = \"lstm\""), 1);
    let outcome = train(silent, &captioner, &AtomicBool::new(false)).expect("a run");
    let captioner = Vlm::load(&outcome.model).expect("a model");
    let error = captioner
        .check_question("is there a star?")
        .expect_err("none");
    assert!(
        error.to_string().contains("nic cannot answer questions"),
        "{error}"
    );
    let mut parts = of_the_tree(&nic("rnn_type = \"lstm\""), 1);
    if let Recipe::Set(recipe) = &mut parts {
        recipe.train.accumulate = 2;
    }
    let options = options(&scratch.path().join("parts"), false);
    let error = train(parts, &options, &AtomicBool::new(false)).expect_err("parts");
    assert!(error.to_string().contains("train.accumulate"), "{error}");
}

#[test]
fn statistics_that_are_measured_anew_change_nothing_but_statistics() {
    let scratch = tempfile::tempdir().expect("a directory");
    let go_on = AtomicBool::new(false);
    let model = tree(TREE_CNN, "transformer", "late", "");
    let run = |name: &str, steps: u64, batches: Option<usize>, resume: bool| {
        let options = options(&scratch.path().join(name), resume);
        let mut recipe = of_the_tree(&model, steps);
        if let Recipe::Set(recipe) = &mut recipe {
            recipe.train.statistics_batches = batches;
            recipe.train.checkpoint_every = 2;
            recipe.validation.every = 2;
            recipe.validation.pictures = 2;
        }
        let outcome = train(recipe, &options, &go_on).unwrap_or_else(|e| panic!("{e}"));
        std::fs::read(outcome.model.join("model.safetensors")).expect("weights")
    };
    let [running, anew] =
        [None, Some(50)].map(|batches| run(&format!("{batches:?}"), 4, batches, false));
    let read = |bytes: &[u8]| Checkpoint::parse(bytes, "model").expect("weights");
    let names: Vec<String> = read(&running)
        .tensors()
        .map(|t| t.name.to_owned())
        .collect();
    let (mut one, mut other) = (read(&running), read(&anew));
    let mut changed = 0;
    for name in &names {
        let same = one.take_any(name).expect(name) == other.take_any(name).expect(name);
        let is_statistic = crate::groups::is_statistic(name);
        assert!(same || is_statistic, "{name}");
        changed += usize::from(!same);
    }
    let statistics = names
        .iter()
        .filter(|name| crate::groups::is_statistic(name));
    assert!(changed > 0 && changed == statistics.count(), "{changed}");
    run("parts", 2, Some(50), false);
    assert!(run("parts", 4, Some(50), true) == anew);

    let mut recipe = of_the_tree(&tree(TREE_HANDCRAFTED, "bag_of_words", "late", ""), 1);
    if let Recipe::Set(recipe) = &mut recipe {
        recipe.train.statistics_batches = Some(50);
    }
    let options = options(&scratch.path().join("none"), false);
    let error = train(recipe, &options, &go_on).expect_err("no norms");
    assert!(
        error.to_string().contains("train.statistics_batches"),
        "{error}"
    );
}
