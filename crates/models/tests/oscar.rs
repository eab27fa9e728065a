//! Oscar+ (reference/models_oscar.py).

// what the other families' tests need of it
mod common;

use burn::tensor::{Device, Tensor};
use common::{AdamW, Case, gradients};
use vlm_models::capability::{Regions, Tokens};
use vlm_models::families::Model;
use vlm_models::families::oscar::{Oscar, OscarTask};
use vlm_models::generate::{Autoregressive, Options, Strategy, generate};
use vlm_models::reference::Inputs;
use vlm_nn::weights::Checkpoint;

const TRAINED: [&str; 5] = ["pretraining", "captioning", "vqa", "retrieval", "nlvr2"];

fn case(name: &str) -> Case {
    Case::open(&format!("oscar/{name}"))
}

fn oscar(case: &Case, device: &Device) -> Oscar {
    Oscar::load(&case.config().unwrap(), case.checkpoint(), device).unwrap()
}

#[test]
fn every_head_matches_the_reference_at_every_named_tensor() {
    for name in TRAINED {
        let case = case(name);
        case.compare(&case.load(&Device::flex()));
    }
}

#[test]
fn captions_are_those_of_the_reference_that_computes_everything_anew() {
    for name in ["generation", "generation_far", "generation_untagged"] {
        let case = case(name);
        case.compare(&case.load(&Device::flex()));
    }
}

#[test]
fn gradients_match_the_reference_for_every_parameter() {
    let device = Device::flex().autodiff();
    for name in TRAINED {
        let case = case(name);
        let model = oscar(&case, &device);
        let loss = model.loss(&Inputs::new(case.inputs())).unwrap();
        let mut found = gradients(&model, &loss.backward());
        // a caption has no use for the pooler
        for (parameter, (_, values)) in vlm_nn::weights::collect(&model) {
            let pooler = name == "captioning" && parameter.starts_with("bert.pooler.");
            assert!(
                pooler || found.contains_key(&parameter),
                "{name}: {parameter}"
            );
            found
                .entry(parameter)
                .or_insert_with(|| vec![0.0; values.len()]);
        }
        case.compare_gradients(&found, |checkpoint| model.translated(checkpoint));
    }
}

#[test]
fn ten_steps_follow_the_reference_losses() {
    let device = Device::flex().autodiff();
    for name in TRAINED {
        let case = case(name);
        let mut model = oscar(&case, &device);
        let inputs = Inputs::new(case.inputs());
        let mut optimizer = AdamW::default();
        let mut losses = Vec::new();
        for _ in 0..10 {
            let loss = model.loss(&inputs).unwrap();
            losses.push(loss.clone().into_scalar::<f32>());
            let gradients = gradients(&model, &loss.backward());
            model = optimizer.step(model, gradients);
        }
        case.compare_losses(&losses);
    }
}

#[test]
fn the_parts_of_a_checkpoint_tell_its_task() {
    let tasks = [
        OscarTask::Pretraining,
        OscarTask::Captioning,
        OscarTask::Classification,
        OscarTask::Classification,
        OscarTask::Choice,
    ];
    for (name, task) in TRAINED.into_iter().zip(tasks) {
        let model = oscar(&case(name), &Device::flex());
        assert_eq!(model.config().task, task, "{name}");
    }
    let case = case("vqa");
    let nothing = Checkpoint::parse(
        &vlm_nn::weights::to_bytes(&Default::default(), vlm_nn::weights::StoreDtype::F32, None)
            .unwrap(),
        "empty",
    );
    let error = Model::load(&case.config().unwrap(), nothing.unwrap(), &Device::flex());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("empty: expected tensors named classifier"),
        "{error}"
    );
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let case = case("vqa");
    let config = case.config().unwrap();
    for (from, to, expected) in [
        ("\"faster_r-cnn\"", "\"dis_code\"", "img_feature_type"),
        (
            "\"img_feature_dim\": 10",
            "\"img_feature_dim\": 12",
            "region.weight: expected [12, 12]",
        ),
        (
            "\"num_labels\": 7",
            "\"num_labels\": 3129",
            "classifier.fc2.weight",
        ),
        ("\"bce\"", "\"kl\"", "loss_type"),
        (
            "\"hidden_size\": 12",
            "\"hidden_size\": 13",
            "num_attention_heads",
        ),
        (
            "\"torchscript\": false",
            "\"relative\": 3",
            "relative: expected no such field",
        ),
    ] {
        let config = config.replace(from, to);
        let error = Model::load(&config, case.checkpoint(), &Device::flex());
        let error = error.expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    let model = oscar(&case, &Device::flex());
    let mut inputs = case.inputs();
    inputs.get_mut("token_type_ids").unwrap().numbers =
        vlm_models::reference::Numbers::Integers(vec![2; 16]);
    let error = model.loss(&Inputs::new(inputs)).unwrap_err().to_string();
    assert!(
        error.contains("token_type_ids: expected below 2, found 2"),
        "{error}"
    );
    let model = Model::load(&config, case.checkpoint(), &Device::flex()).unwrap();
    assert!(model.generate().is_err() && model.detect().is_err());
}

#[test]
fn one_caption_does_not_depend_on_those_beside_it_nor_on_how_it_is_fed() {
    let case = case("generation");
    let device = Device::flex();
    let model = oscar(&case, &device);
    let features: Tensor<3> = Inputs::new(case.inputs())
        .floats("img_feats", &device)
        .unwrap()
        .unwrap();
    let regions = |from: usize, count: usize| Regions {
        features: features.clone().narrow(0, from, count),
        mask: vec![vec![true, true, true], vec![true, true, false]][from..from + count].to_vec(),
    };
    let tags = [vec![20, 21, 3], vec![22, 3]];
    let options = Options {
        strategy: Strategy::Greedy,
        max_new_tokens: 7,
        eos: 3,
        banned: Vec::new(),
    };
    let both = Tokens::padded(&tags, 0);
    let mut decoding = model.decode(&regions(0, 2), &both, 8, 4).unwrap();
    let together = generate(&mut decoding, &[vec![2], vec![2]], &options);
    for i in 0..2 {
        let own = Tokens::padded(&tags[i..=i], 0);
        let mut decoding = model.decode(&regions(i, 1), &own, 8, 4).unwrap();
        let alone = generate(&mut decoding, &[vec![2]], &options);
        assert_eq!(alone[0].ids, together[i].ids);
        // a prompt at once, and word by word
        let prompt = vec![2, 7, 9];
        let mut at_once = model.decode(&regions(i, 1), &own, 8, 4).unwrap();
        let expected = at_once.feed(std::slice::from_ref(&prompt));
        let mut decoding = model.decode(&regions(i, 1), &own, 8, 4).unwrap();
        let mut found = Vec::new();
        for (fed, &id) in prompt.iter().enumerate() {
            assert_eq!(decoding.positions(), fed);
            found = decoding.feed(&[vec![id]]);
        }
        for (a, b) in found[0].iter().zip(&expected[0]) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
    let beams = Options {
        strategy: Strategy::Beam {
            width: 3,
            length_penalty: 1.0,
        },
        ..options
    };
    let own = Tokens::padded(&tags[..1], 0);
    let mut decoding = model.decode(&regions(0, 1), &own, 8, 4).unwrap();
    let found = generate(&mut decoding, &[vec![2]], &beams);
    assert!(found[0].log_probability >= together[0].log_probability - 1e-3);
}
