//! Parts of the tree: hand-crafted features are scikit-image's (reference/data_handcrafted.py), and every encoder works with
//! every fusion and learns with all its parameters.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use std::path::PathBuf;
use vlm_models::capability::{
    Attend, ClassifyAnswer, EmbedImage, EmbedText, Generate, Pictures, ScorePair, Tokens,
};
use vlm_models::encoders::handcrafted::{HandcraftedConfig, hog, local_binary_patterns};
use vlm_models::families::Model;
use vlm_models::families::tree::{Batch, Questions, TextPart, Tree, TreeConfig};
use vlm_models::fusion::FusionKind;
use vlm_nn::Statistics;
use vlm_nn::weights::{Checkpoint, StoreDtype, Weights, collect, to_bytes};

fn golden() -> Checkpoint {
    let path: PathBuf = [
        env!("CARGO_MANIFEST_DIR"),
        "../../testdata/models/handcrafted.safetensors",
    ]
    .iter()
    .collect();
    Checkpoint::open(&path).unwrap()
}

#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32], allowed: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= allowed, "{what}, {i}: {a} is not {b}");
    }
}

#[test]
fn histograms_patterns_and_gradients_are_scikit_images() {
    let mut golden = golden();
    let device = Device::flex();
    for key in ["32", "48"] {
        let name = |part: &str| format!("{key}.{part}");
        let (_, sizes) = golden.take_integers(&name("sizes")).unwrap();
        let [side, grid, bins, orientations] = [0, 1, 2, 3].map(|i| sizes[i] as usize);
        let (_, rgb) = golden.take_integers(&name("rgb")).unwrap();
        let level = |c: usize, i: usize| rgb[3 * i + c] as f32 / 255.0;
        let planes: Vec<f32> = (0..3)
            .flat_map(|c| (0..side * side).map(move |i| (c, i)))
            .map(|(c, i)| level(c, i))
            .collect();
        let grey: Vec<u8> = rgb
            .chunks(3)
            .map(|p| ((p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16) as u8)
            .collect();

        let (_, expected) = golden.take_integers(&name("lbp")).unwrap();
        let found = local_binary_patterns(&grey, side);
        let found: Vec<i64> = found.into_iter().map(i64::from).collect();
        assert_eq!(found, expected, "{key}: patterns");

        let cell = side / grid / 2;
        let channel = |c: usize| -> Vec<f64> {
            let plane = (0..side * side).map(|i| rgb[3 * i + c] as f64 / 255.0);
            plane.collect()
        };
        let channels = [channel(0), channel(1), channel(2)];
        let channels = [&channels[0][..], &channels[1], &channels[2]];
        let found = hog(&channels, side, orientations, cell, 2);
        let found: Vec<f32> = found.into_iter().map(|x| x as f32).collect();
        let (_, expected) = golden.take_any(&name("hog")).unwrap();
        close(&name("hog"), &found, &expected, 1e-6);
        let grey: Vec<f64> = grey.iter().map(|&g| f64::from(g) / 255.0).collect();
        let found = hog(&[&grey], side, orientations, cell, 3);
        let found: Vec<f32> = found.into_iter().map(|x| x as f32).collect();
        let (_, expected) = golden.take_any(&name("hog3")).unwrap();
        close(&name("hog3"), &found, &expected, 1e-6);

        let config = HandcraftedConfig {
            image_size: side,
            grid,
            colour_bins: bins,
            lbp: true,
            orientations,
        };
        config.validate().unwrap();
        let pixels = TensorData::new(planes, [1, 3, side, side]);
        let places = config
            .describe(&Tensor::from_data(pixels, &device))
            .unwrap();
        assert_eq!(places.dims(), [1, grid * grid, config.features()]);
        let found: Vec<f32> = places.into_data().try_to_vec().unwrap();
        let (_, expected) = golden.take_any(&name("places")).unwrap();
        close(&name("places"), &found, &expected, 1e-5);
    }
}

const VISION: [&str; 3] = [
    r#"{"handcrafted": {"image_size": 64, "grid": 4, "colour_bins": 2, "lbp": true, "orientations": 6}}"#,
    r#"{"cnn": {"image_size": 64, "sizes": {"resnet": {"layers": [1, 1, 1, 1], "bottleneck": false, "width": 4,
        "inner_width": 4}}}}"#,
    r#"{"vit": {"image_size": 64, "patch_size": 8, "num_channels": 3, "stem": "patch", "hidden_size": 8,
        "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "layer_norm_eps": 1e-6}}"#,
];
const TEXT: [&str; 3] = [r#""bag_of_words""#, r#"{"rnn": "gru"}"#, r#""transformer""#];

fn config(vision: &str, text: &str, fusion: &str) -> String {
    format!(
        r#"{{"model_type": "tree", "vision": {vision}, "text": {text}, "fusion": {fusion}, "hidden_size": 8,
            "num_layers": 1, "num_heads": 2, "vocab_size": 12, "max_length": 8, "num_answers": 3, "captions": true,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}}"#
    )
}

fn build(config: &str, device: &Device) -> Tree {
    let config = TreeConfig::parse(config).unwrap_or_else(|e| panic!("{config}: {e}"));
    let mut weights = Weights::random(7, device);
    let model = Tree::new(&mut weights, &config);
    weights.finish().unwrap();
    model.with_statistics(Statistics::Batch)
}

/// Three pictures of one colour each, with edges.
fn pictures(device: &Device) -> Pictures {
    let value = |i: usize| {
        let (picture, channel, pixel) = (i / 12288, i / 4096 % 3, i % 4096);
        let (y, x) = (pixel / 64, pixel % 64);
        let on = f32::from(u8::from(picture == channel));
        let stripe = f32::from(u8::from((x * (picture + 1) + y) % 8 < 4));
        0.1 + 0.6 * on + 0.2 * stripe
    };
    let values: Vec<f32> = (0..3 * 12288).map(value).collect();
    Pictures::Fixed(Tensor::from_data(
        TensorData::new(values, [3, 3, 64, 64]),
        device,
    ))
}

fn batch(device: &Device) -> Batch {
    Batch {
        pictures: pictures(device),
        captions: Some(Tokens::padded(
            &[vec![1, 3, 6, 2], vec![1, 4, 2], vec![1, 5, 7, 8, 2]],
            0,
        )),
        questions: Some(Questions {
            texts: Tokens::padded(&[vec![9, 10], vec![9, 10, 11], vec![9], vec![11, 10]], 0),
            pictures: vec![0, 1, 2, 0],
            answers: vec![0, 1, 2, 1],
        }),
    }
}

struct Missing<'a> {
    gradients: &'a Gradients,
    path: Vec<String>,
    names: Vec<String>,
}

impl ModuleVisitor for Missing<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        // softmax takes the bias of the scores out, and leaves noise for a gradient
        if name.contains(".running_") || name == "captioner.full_att.bias" {
            return;
        }
        let largest = param.val().grad(self.gradients).map(|g| g.abs().max());
        if largest.is_none_or(|x| x.into_scalar::<f32>() == 0.0) {
            self.names.push(name);
        }
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

/// Plain gradient descent.
struct Descent<'a>(&'a Gradients);

impl ModuleMapper for Descent<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = param.val().grad(self.0) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let moved = tensor.inner() - gradient * 0.05;
        Param::from_mapped_value(id, Tensor::from_inner(moved).require_grad(), mapper)
    }
}

/// Each fusion with each encoder of pictures and of texts at least once.
fn combinations() -> Vec<String> {
    let mut all = Vec::new();
    for (i, kind) in FusionKind::ALL.iter().enumerate() {
        let fusion = serde_json::to_string(kind).unwrap();
        for j in 0..3 {
            all.push(config(VISION[(i + j) % 3], TEXT[j], &fusion));
        }
    }
    all
}

#[test]
fn every_fusion_learns_with_every_encoder_and_every_parameter_has_a_gradient() {
    let device = Device::flex().autodiff();
    let batch = batch(&device);
    for config in combinations() {
        let mut model = build(&config, &device);
        let mut losses = Vec::new();
        for step in 0..6 {
            let losses_of = model.loss(&batch).unwrap();
            assert!(losses_of.caption.is_some() && losses_of.answer.is_some());
            losses.push(losses_of.total.clone().into_scalar::<f32>());
            let gradients = losses_of.total.backward();
            if step == 0 {
                let mut missing = Missing {
                    gradients: &gradients,
                    path: Vec::new(),
                    names: Vec::new(),
                };
                model.visit(&mut missing);
                // a bag of words is one place, so pictures that read it have nothing to choose from
                if config.contains("bag_of_words") {
                    let chooses = |name: &String| {
                        name.strip_prefix("fusion.CoAttention.picture.blocks.0.")
                            .is_some_and(|n| {
                                n.starts_with("norm_cross.") || n.starts_with("cross.q.")
                            })
                    };
                    missing.names.retain(|name| !chooses(name));
                }
                assert_eq!(missing.names, [""; 0], "{config}");
            }
            model = model.map(&mut Descent(&gradients));
        }
        assert!(losses[5] < losses[0], "{config}: {losses:?}");
    }
}

#[test]
fn without_contrast_questions_alone_are_learned_from_with_every_parameter() {
    let device = Device::flex().autodiff();
    let with = Batch {
        captions: None,
        ..batch(&device)
    };
    for config in combinations() {
        let config = config.replace(
            "\"captions\": true",
            "\"captions\": false, \"contrast\": false",
        );
        let model = build(&config, &device);
        let losses = model.loss(&with).unwrap();
        assert!(losses.itc.is_none() && losses.itm.is_none() && losses.caption.is_none());
        let mut missing = Missing {
            gradients: &losses.total.backward(),
            path: Vec::new(),
            names: Vec::new(),
        };
        model.visit(&mut missing);
        // as above
        if config.contains("bag_of_words") {
            missing
                .names
                .retain(|name| !name.starts_with("fusion.CoAttention.picture.blocks.0."));
        }
        assert_eq!(missing.names, [""; 0], "{config}");
        let Err(error) =
            model.score_pair(&pictures(&device), &with.questions.as_ref().unwrap().texts)
        else {
            panic!("expected no matching");
        };
        assert!(
            error.to_string().contains("tree without contrast"),
            "{error}"
        );
    }
    // what has nothing to learn from is refused
    let none = config(VISION[0], TEXT[0], "\"early\"").replace(
        "\"captions\": true",
        "\"captions\": true, \"contrast\": false",
    );
    let error = TreeConfig::parse(&none).unwrap_err().to_string();
    assert!(error.contains("contrast"), "{error}");
    // and captions that are wanted are asked for
    let model = build(&combinations()[0], &device);
    let error = model.loss(&with).unwrap_err().to_string();
    assert!(error.contains("captions: expected some"), "{error}");
}

#[test]
fn a_model_of_any_parts_is_read_back_from_what_was_written_of_it() {
    let device = Device::flex();
    for config in combinations() {
        let model = build(&config, &device).with_statistics(Statistics::Running);
        let bytes = to_bytes(&collect(&model), StoreDtype::F32, None).unwrap();
        let checkpoint = Checkpoint::parse(&bytes, "tree").unwrap();
        let loaded = Model::load(&config, checkpoint, &device).unwrap_or_else(|e| panic!("{e}"));
        let pictures = pictures(&device);
        let expected = model.embed_image(&pictures).unwrap();
        let found = loaded
            .embed_image()
            .unwrap()
            .embed_image(&pictures)
            .unwrap();
        assert_eq!(found.dims(), [3, 8]);
        let difference = (found - expected).abs().max().into_scalar::<f32>();
        assert_eq!(difference, 0.0, "{config}");
        assert!(loaded.generate().is_ok() && loaded.attend().is_ok());
    }
}

#[test]
fn padding_changes_neither_vectors_nor_scores() {
    let device = Device::flex();
    let (short, long) = (
        Tokens::padded(&[vec![3, 6], vec![4, 7], vec![5, 8]], 0),
        Tokens::new(
            vec![vec![3, 6, 0, 0], vec![4, 7, 0, 0], vec![5, 8, 0, 0]],
            Some(vec![vec![true, true, false, false]; 3]),
        )
        .unwrap(),
    );
    for config in combinations() {
        let model = build(&config, &device).with_statistics(Statistics::Running);
        let pictures = pictures(&device);
        let vectors = |t: &Tokens| -> Vec<f32> {
            let vectors = model.embed_text(t).unwrap().into_data();
            vectors.try_to_vec().unwrap()
        };
        close(&config, &vectors(&long), &vectors(&short), 1e-6);
        let scores = |t: &Tokens| model.score_pair(&pictures, t).unwrap();
        close(&config, &scores(&long), &scores(&short), 1e-6);
    }
}

#[test]
fn late_fusion_cannot_tell_what_depends_on_both_sides_and_the_others_can() {
    let device = Device::flex();
    for kind in FusionKind::ALL {
        let fusion = serde_json::to_string(&kind).unwrap();
        let model = build(&config(VISION[0], TEXT[0], &fusion), &device);
        let places = model.places(&pictures(&device)).unwrap();
        let one = |picture: usize, word: u32| -> Vec<f32> {
            let places = places.clone().narrow(0, picture, 1);
            let text = Tokens::padded(&[vec![word]], 0);
            let logits = model.answer_logits(places, &text).unwrap();
            logits.into_data().try_to_vec().unwrap()
        };
        // what changing both adds beyond changing each
        let [a, b, c, d] = [one(0, 3), one(0, 9), one(1, 3), one(1, 9)];
        let interaction = (0..3)
            .map(|i| (a[i] - b[i] - c[i] + d[i]).abs())
            .fold(0f32, f32::max);
        assert_eq!(
            interaction < 1e-5,
            kind == FusionKind::Late,
            "{kind:?}: {interaction}"
        );
    }
}

#[test]
fn inverse_document_frequencies_weigh_words() {
    let device = Device::flex();
    let config = config(VISION[0], TEXT[0], r#""early""#);
    assert_eq!(
        TreeConfig::parse(&config).unwrap().text,
        TextPart::BagOfWords
    );
    let model = build(&config, &device);
    let text = Tokens::padded(&[vec![3, 4, 4]], 0);
    let vector = |model: &Tree| -> Vec<f32> {
        model
            .embed_text(&text)
            .unwrap()
            .into_data()
            .try_to_vec()
            .unwrap()
    };
    let plain = vector(&model);
    let mut idf = vec![1.0; 12];
    idf[3] = 100.0;
    let weighted = vector(&model.clone().with_idf(&idf).unwrap());
    let only: Vec<f32> = {
        let only = Tokens::padded(&[vec![3]], 0);
        model
            .embed_text(&only)
            .unwrap()
            .into_data()
            .try_to_vec()
            .unwrap()
    };
    let distance = |a: &[f32]| a.iter().zip(&only).map(|(a, b)| (a - b).abs()).sum::<f32>();
    assert!(distance(&weighted) < 0.1 * distance(&plain));
    assert!(model.with_idf(&[1.0; 3]).is_err());
}

#[test]
fn answers_are_chosen_by_their_words_and_a_picture_may_be_asked_several_times() {
    let device = Device::flex();
    for vision in VISION {
        let silent = config(vision, TEXT[1], r#""cross_attention""#);
        let pictures = pictures(&device);
        let texts = [vec![9, 10], vec![11], vec![9, 10]];
        let questions = Tokens::padded(&texts, 0);
        let model = build(&silent, &device).with_statistics(Statistics::Running);
        assert!(
            model
                .classify_answer(&pictures, &[0, 0, 2], &questions)
                .is_err()
        );

        let words = "\"num_answers\": 3, \"answers\": [\"yes\", \"no\", \"red\"]";
        let knowing = silent.replace("\"num_answers\": 3", words);
        let model = build(&knowing, &device).with_statistics(Statistics::Running);
        assert_eq!(model.known_answers(), ["yes", "no", "red"]);
        let found = model
            .classify_answer(&pictures, &[0, 0, 2], &questions)
            .unwrap();
        // by the logits of each pair by itself
        for (row, (picture, text)) in found.iter().zip([0, 0, 2].iter().zip(&texts)) {
            let places = model.places(&pictures).unwrap().narrow(0, *picture, 1);
            let text = Tokens::padded(std::slice::from_ref(text), 0);
            let logits = model.answer_logits(places, &text).unwrap().into_data();
            let logits: Vec<f32> = logits.try_to_vec().unwrap();
            let sum: f32 = logits.iter().map(|x| x.exp()).sum();
            let expected: Vec<f32> = logits.iter().map(|x| x.exp() / sum).collect();
            close(vision, row, &expected, 1e-5);
        }
        assert_ne!(found[0], found[2]);
        let error = model.classify_answer(&pictures, &[0, 3, 2], &questions);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("pictures: expected below 3, found 3"),
            "{error}"
        );
        assert!(model.classify_answer(&pictures, &[0], &questions).is_err());
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = Device::flex();
    let good = config(VISION[0], TEXT[0], r#""late""#);
    for (from, to, expected) in [
        ("\"late\"", "\"middle\"", "middle"),
        ("\"grid\": 4", "\"grid\": 5", "vision.image_size"),
        (
            "\"num_heads\": 2",
            "\"num_heads\": 3",
            "a divisor of hidden_size 8",
        ),
        (
            "\"captions\": true",
            "\"captions\": true, \"dropout\": 0.1",
            "dropout",
        ),
        (
            "\"num_answers\": 3",
            "\"num_answers\": 3, \"answers\": [\"yes\", \"no\"]",
            "answers: expected num_answers = 3 words, or none, found 2",
        ),
        (
            "\"eos_token_id\": 2",
            "\"eos_token_id\": 12",
            "eos_token_id: expected at most 11",
        ),
    ] {
        assert!(good.contains(from));
        let error = TreeConfig::parse(&good.replace(from, to))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    let model = build(&good, &device);
    let small = Pictures::Fixed(Tensor::zeros([1, 3, 16, 16], &device));
    assert!(model.embed_image(&small).is_err());
    let pictures = pictures(&device);
    assert!(
        model
            .score_pair(&pictures, &Tokens::padded(&[vec![1]], 0))
            .is_err()
    );
    let mut odd = batch(&device);
    odd.questions.as_mut().unwrap().answers[0] = 3;
    let error = model.loss(&odd).unwrap_err().to_string();
    assert!(
        error.contains("answers: expected below 3, found 3"),
        "{error}"
    );
    let silent = build(
        &good.replace("\"captions\": true", "\"captions\": false"),
        &device,
    );
    assert!(silent.encode(&pictures).is_err() && silent.can_caption().is_err());
    let maps = model.attend(
        model.encode(&pictures).unwrap(),
        &Tokens::padded(&[vec![1], vec![1], vec![1]], 0),
    );
    assert_eq!(maps.unwrap().grid, [4, 4]);
}
