//! The CoCa family as a whole: what it computes is consistent, and all of it learns.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use vlm_models::Error;
use vlm_models::capability::{EmbedImage, EmbedText, Generate, Pictures, Tokens};
use vlm_models::encoders::Stem;
use vlm_models::families::Model;
use vlm_models::families::coca::{Batch, Coca, CocaConfig, DecoderMemory, TextBatch};
use vlm_models::generate::{Options, Strategy, generate};
use vlm_models::objectives::TokenLabels;
use vlm_nn::random::SplitMix64;
use vlm_nn::weights::{Checkpoint, StoreDtype, Weights, collect, to_bytes};

const CONFIG: &str = r#"{
  "model_type": "coca",
  "vision_config": {
    "image_size": 16, "patch_size": 4, "num_channels": 3, "stem": "conv", "hidden_size": 24,
    "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3, "layer_norm_eps": 1e-6
  },
  "text_config": {
    "vocab_size": 11, "max_position_embeddings": 12, "hidden_size": 16, "intermediate_size": 36,
    "num_hidden_layers": 2, "num_multimodal_layers": 2, "num_attention_heads": 2, "layer_norm_eps": 1e-6
  },
  "projection_dim": 8,
  "logit_scale_init_value": 2.6592,
  "contrastive_loss_weight": 0.5,
  "answer_loss_weight": 1.5,
  "question_loss_weight": 0.25,
  "token_label_classes": [3, 2],
  "token_label_loss_weight": 0.7,
  "decoder_memory": "tags"
}"#;

fn config() -> CocaConfig {
    CocaConfig::parse(CONFIG).expect("valid config")
}

fn model(config: &CocaConfig, device: &Device) -> Coca {
    let mut weights = Weights::random(5, device);
    let model = Coca::new(&mut weights, config);
    weights.finish().expect("a seed fills everything");
    model
}

fn pictures(count: usize, device: &Device) -> Tensor<4> {
    SplitMix64::new(9).normal_tensor([count, 3, 16, 16], device)
}

fn ids<const D: usize>(values: &[i64], shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

fn values<const D: usize>(t: Tensor<D>) -> Vec<f32> {
    t.into_data().convert::<f32>().try_to_vec().expect("f32")
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

fn texts(rows: usize, device: &Device) -> TextBatch {
    let t = 5;
    let tokens: Vec<i64> = (0..rows * t).map(|i| (i as i64 * 7 + 3) % 11).collect();
    let mut targets: Vec<i64> = tokens.iter().map(|t| (t + 1) % 11).collect();
    targets[0] = -1;
    TextBatch {
        ids: ids(&tokens, [rows, t], device),
        targets: ids(&targets, [rows, t], device),
        target_count: rows * t - 1,
        prompt_targets: ids(&tokens, [rows, t], device),
        prompt_target_count: rows * t,
        adjustment: None,
        lengths: vec![t; rows],
    }
}

fn batch(device: &Device) -> Batch {
    let labels: Vec<i64> = (0..2 * 16 * 2).map(|i| i % 2).collect();
    Batch {
        pixel_values: pictures(2, device),
        captions: texts(2, device),
        token_labels: Some(TokenLabels {
            classes: ids(&labels, [2, 16, 2], device),
            adjustment: Tensor::zeros([2, 16, 5], device),
        }),
        questions: vec![texts(4, device), texts(2, device)],
        substitution: None,
    }
}

fn read(model: &dyn Generate, pixels: &Tensor<4>) -> Tensor<3> {
    let pictures = Pictures::Fixed(pixels.clone());
    model.encode(&pictures).expect("pictures that fit")
}

#[test]
fn cached_decoding_equals_full_decoding() {
    let device = Device::flex();
    let (config, rows) = (config(), 3);
    let model = model(&config, &device);
    let pixels = pictures(rows, &device);
    let tokens: Vec<Vec<u32>> = (0..rows as u32)
        .map(|r| (0..9).map(|i| (r * 5 + i * 3 + 1) % 11).collect())
        .collect();
    let mut decoding = model.decode(read(&model, &pixels));
    // the first four at once, then one by one
    let mut fed = 0;
    for step in [4, 1, 1, 1, 1, 1] {
        let new: Vec<Vec<u32>> = tokens.iter().map(|t| t[fed..fed + step].to_vec()).collect();
        let cached = decoding.feed(&new);
        fed += step;
        assert_eq!(decoding.positions(), fed);
        let flat: Vec<i64> = tokens
            .iter()
            .flat_map(|t| t[..fed].iter().map(|&id| i64::from(id)))
            .collect();
        let full = model.forward(pixels.clone(), ids(&flat, [rows, fed], &device));
        let last = values(full.narrow(1, fed - 1, 1));
        let cached: Vec<f32> = cached.concat();
        let d = largest_difference(&cached, &last);
        assert!(d < 2e-5, "after {fed} tokens: {d:e}");
    }
}

#[test]
fn selected_rows_go_on_as_if_they_were_alone() {
    let device = Device::flex();
    let model = model(&config(), &device);
    let pixels = pictures(2, &device);
    let memory = read(&model, &pixels);
    let mut both = model.decode(memory.clone());
    both.feed(&[vec![1, 2], vec![3, 4]]);
    both.select(&[1, 1]);
    let picked = both.feed(&[vec![5], vec![6]]);
    for (token, picked) in [(5, &picked[0]), (6, &picked[1])] {
        let mut alone = model.decode(memory.clone().narrow(0, 1, 1));
        alone.feed(&[vec![3, 4]]);
        let d = largest_difference(&alone.feed(&[vec![token]])[0], picked);
        assert!(d < 2e-5, "{d:e}");
    }
}

#[test]
fn texts_about_one_picture_equal_texts_about_copies_of_it() {
    let device = Device::flex();
    let model = model(&config(), &device);
    let pixels = pictures(1, &device);
    let tokens: Vec<i64> = vec![1, 2, 3, 4, 5, 6];
    let shared = model.forward(pixels.clone(), ids(&tokens, [2, 3], &device));
    let copies = Tensor::cat(vec![pixels.clone(), pixels], 0);
    let separate = model.forward(copies, ids(&tokens, [2, 3], &device));
    assert!(largest_difference(&values(shared), &values(separate)) < 2e-5);
}

#[test]
fn the_picture_changes_what_is_said() {
    let device = Device::flex();
    let model = model(&config(), &device);
    let tokens = ids(&[1, 2, 3], [1, 3], &device);
    // drawn from seeds, as random weights hardly tell some pictures apart
    let picture = |seed: u64| {
        let mut rng = SplitMix64::new(seed);
        let pixels: Vec<f32> = (0..3 * 16 * 16)
            .map(|_| 4.0 * rng.uniform_f32() - 2.0)
            .collect();
        Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, 16, 16]), &device)
    };
    let said = |seed: u64| values(model.forward(picture(seed), tokens.clone()));
    let first = said(0);
    let differences = (1..9).map(|seed| largest_difference(&first, &said(seed)));
    let most = differences.fold(0.0, f32::max);
    assert!(most > 5e-4, "{most}");
}

#[test]
fn gradients_reach_every_parameter() {
    for stem in [Stem::Conv, Stem::Patch] {
        let device = Device::flex().autodiff();
        let mut config = config();
        config.vision_config.stem = stem;
        let model = model(&config, &device);
        let losses = model.loss(batch(&device));
        let grads = losses.total.backward();
        struct Check<'a> {
            path: Vec<String>,
            grads: &'a burn::tensor::Gradients,
            without: Vec<String>,
            seen: usize,
        }
        impl burn::module::ModuleVisitor for Check<'_> {
            fn visit_float<const D: usize>(&mut self, p: &burn::module::Param<Tensor<D>>) {
                self.seen += 1;
                let reached = p.val().grad(self.grads).is_some_and(|g| {
                    let largest = g.abs().max().into_scalar::<f32>();
                    largest > 0.0 && largest.is_finite()
                });
                if !reached {
                    self.without.push(self.path.join("."));
                }
            }
            fn enter_module(&mut self, name: &str, _: &str) {
                self.path.push(name.to_owned());
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.path.pop();
            }
        }
        let mut check = Check {
            path: Vec::new(),
            grads: &grads,
            without: Vec::new(),
            seen: 0,
        };
        model.visit(&mut check);
        assert!(check.seen > 60, "{} parameters", check.seen);
        assert!(check.without.is_empty(), "no gradient: {:?}", check.without);
    }
}

/// A matrix that keeps every tag of each of two pictures in its place, but for the first, which goes to `place`.
fn substitution(tags: usize, extra: usize, place: usize, device: &Device) -> Tensor<3> {
    let width = tags + extra;
    let mut values = vec![0.0f32; 2 * tags * width];
    for (row, values) in values.chunks_mut(width).enumerate() {
        let tag = row % tags;
        values[if tag == 0 { place } else { tag }] = 1.0;
    }
    Tensor::from_data(TensorData::new(values, [2, tags, width]), device)
}

#[test]
fn other_names_for_tags_change_the_questions_alone() {
    let device = Device::flex();
    let mut config = config();
    config.decoder_memory = DecoderMemory::Tags;
    config.extra_tags = 2;
    let model = model(&config, &device);
    let given = batch(&device);
    let losses = |place: Option<usize>| {
        let mut batch = given.clone();
        batch.substitution = place.map(|place| substitution(5, 2, place, &device));
        let losses = model.loss(batch);
        [losses.caption, losses.answer.expect("questions")].map(|x| values(x.unsqueeze::<2>())[0])
    };
    let (own, same, other) = (losses(None), losses(Some(0)), losses(Some(5)));
    assert!((own[1] - same[1]).abs() < 1e-5, "{own:?} {same:?}");
    assert_eq!(own[0], other[0]);
    assert!((own[1] - other[1]).abs() > 1e-6, "{own:?} {other:?}");
}

#[test]
fn a_word_left_out_of_the_softmax_is_no_negative() {
    let device = Device::flex();
    let model = model(&config(), &device);
    let given = batch(&device);
    let caption = |out: bool| {
        let mut batch = given.clone();
        let v = 11;
        let mut never = vec![0.0f32; 2 * 5 * v];
        // at the second position, whose target is another
        never[v + 7] = -1e4;
        let never = Tensor::from_data(TensorData::new(never, [2, 5, v]), &device);
        batch.captions.adjustment = out.then_some(never);
        values(model.loss(batch).caption.unsqueeze::<2>())[0]
    };
    assert!(caption(true) < caption(false));
}

#[test]
fn the_loss_is_the_weighted_sum_of_its_parts() {
    let device = Device::flex();
    let losses = model(&config(), &device).loss(batch(&device));
    let scalar = |t: Tensor<1>| t.into_scalar::<f32>();
    let expected = scalar(losses.caption)
        + 0.5 * scalar(losses.itc)
        + 1.5 * scalar(losses.answer.expect("questions"))
        + 0.25 * scalar(losses.question.expect("questions"))
        + 0.7 * scalar(losses.token_label.expect("labels"));
    assert!((scalar(losses.total) - expected).abs() < 1e-4);
}

#[test]
fn embeddings_have_unit_length_and_ignore_padding() {
    let device = Device::flex();
    let model = model(&config(), &device);
    let image = values(
        model
            .embed_image(&Pictures::Fixed(pictures(2, &device)))
            .expect("vectors"),
    );
    for row in image.chunks(8) {
        let norm: f32 = row.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5);
    }
    let vectors = |rows: &[Vec<u32>]| {
        let texts = Tokens::padded(rows, 0);
        values(model.embed_text(&texts).expect("vectors"))
    };
    let short = vectors(&[vec![1, 2, 3]]);
    let padded = vectors(&[vec![1, 2, 3], vec![4, 5, 6, 7, 8]]);
    assert!(largest_difference(&short, &padded[..short.len()]) < 2e-5);
}

fn checkpoint(model: &Coca, dtype: StoreDtype) -> Vec<u8> {
    to_bytes(&collect(model), dtype, None).expect("weights can be stored")
}

#[test]
fn a_saved_model_loads_and_says_the_same() {
    let device = Device::flex();
    let original = model(&config(), &device);
    let bytes = checkpoint(&original, StoreDtype::F32);
    let parsed = Checkpoint::parse(&bytes, "test").expect("own file");
    let loaded = Model::load(CONFIG, parsed, &device).expect("own weights");
    let pixels = pictures(1, &device);
    let options = Options {
        strategy: Strategy::Greedy,
        max_new_tokens: 8,
        eos: 0,
        banned: vec![],
    };
    let say = |m: &dyn Generate| {
        let mut decoding = m.decode(read(m, &pixels));
        generate(&mut *decoding, &[vec![1]], &options)
    };
    assert_eq!(say(&original), say(loaded.generate().expect("can write")));
    let Model::Coca(loaded) = loaded else {
        panic!("another family");
    };
    assert_eq!(collect(&original), collect(&loaded));
}

#[test]
fn stored_as_bf16_every_weight_is_within_its_rounding() {
    let device = Device::flex();
    let original = model(&config(), &device);
    let bytes = checkpoint(&original, StoreDtype::Bf16);
    let mut parsed = Checkpoint::parse(&bytes, "test").expect("own file");
    for (name, (shape, values)) in collect(&original) {
        let stored = parsed.take(&name, &shape).expect("same names and shapes");
        for (a, b) in values.iter().zip(stored) {
            assert!(
                (a - b).abs() <= a.abs() / 256.0,
                "{name}: {a} stored as {b}"
            );
        }
    }
}

#[test]
fn weights_that_do_not_match_are_listed_with_their_names() {
    let device = Device::flex();
    let mut tensors = collect(&model(&config(), &device));
    let missing = tensors.remove("logit_scale").expect("a parameter");
    tensors.insert("extra.weight".to_owned(), missing);
    let wrong = tensors.get_mut("text.token.weight").expect("a parameter");
    wrong.0 = vec![16, 11];
    let bytes = to_bytes(&tensors, StoreDtype::F32, None).expect("stored");
    let parsed = Checkpoint::parse(&bytes, "some.safetensors").expect("readable");
    let error = Model::load(CONFIG, parsed, &device)
        .expect_err("must be refused")
        .to_string();
    assert!(error.contains("some.safetensors"), "{error}");
    assert!(error.contains("- logit_scale [1]"), "{error}");
    assert!(error.contains("+ extra.weight [1]"), "{error}");
    assert!(
        error.contains("! text.token.weight: expected [11, 16], found [16, 11]"),
        "{error}"
    );
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let device = Device::flex();
    let mut tensors = collect(&model(&config(), &device));
    tensors.get_mut("logit_scale").expect("a parameter").1[0] = f32::NAN;
    let bytes = to_bytes(&tensors, StoreDtype::F32, None).expect("stored");
    let parsed = Checkpoint::parse(&bytes, "x").expect("readable");
    let error = Model::load(CONFIG, parsed, &device)
        .expect_err("must be refused")
        .to_string();
    assert!(
        error.contains("logit_scale") && error.contains("NaN"),
        "{error}"
    );
}

#[test]
fn truncated_weights_are_refused_at_every_length() {
    let device = Device::flex();
    let bytes = checkpoint(&model(&config(), &device), StoreDtype::Bf16);
    for end in (0..bytes.len()).step_by(997).chain([bytes.len() - 1]) {
        assert!(
            Checkpoint::parse(&bytes[..end], "x").is_err(),
            "{end} bytes"
        );
    }
}

#[test]
fn configs_that_are_not_understood_are_refused_by_field() {
    for (from, to, place) in [
        (
            "\"model_type\": \"coca\"",
            "\"model_type\": \"clip\"",
            "model_type",
        ),
        (
            "\"patch_size\": 4",
            "\"patch_size\": 5",
            "vision_config.patch_size",
        ),
        (
            "\"num_attention_heads\": 3",
            "\"num_attention_heads\": 5",
            "vision_config.num_attention_heads",
        ),
        (
            "\"num_attention_heads\": 2",
            "\"num_attention_heads\": 0",
            "text_config.num_attention_heads",
        ),
        (
            "\"hidden_size\": 24",
            "\"hidden_size\": 99999999",
            "vision_config.hidden_size",
        ),
        (
            "\"vocab_size\": 11",
            "\"vocab_size\": 0",
            "text_config.vocab_size",
        ),
        (
            "\"projection_dim\": 8",
            "\"projection_dim\": 0",
            "projection_dim",
        ),
    ] {
        let json = CONFIG.replace(from, to);
        assert_ne!(json, CONFIG, "{from}");
        match CocaConfig::parse(&json) {
            Err(Error::Config { place: found, .. }) => assert_eq!(found, place),
            other => panic!("{place}: {other:?}"),
        }
    }
    let unknown = CONFIG.replace(
        "\"projection_dim\": 8",
        "\"projection_dim\": 8, \"rope\": true",
    );
    let error = CocaConfig::parse(&unknown)
        .expect_err("unknown field")
        .to_string();
    assert!(error.contains("rope"), "{error}");
}
