//! torchvision's classifiers agree with torchvision (reference/models_torchvision.py).

mod common;

use burn::tensor::Device;
use common::{AdamW, Case, gradients};
use std::collections::BTreeMap;
use vlm_models::Error;
use vlm_models::capability::Pictures;
use vlm_models::families::Model;
use vlm_models::families::torchvision::{self, Classifier};
use vlm_models::reference::Inputs;
use vlm_nn::Statistics;
use vlm_nn::weights::collect;

#[test]
fn every_architecture_matches_torchvision_after_every_stage() {
    for name in ["resnet50", "resnet18", "wide", "vgg", "vgg_bn"] {
        let case = Case::open(&format!("torchvision/{name}"));
        case.compare(&case.load(&Device::flex()));
    }
}

fn classifier(case: &Case, device: &Device) -> Classifier {
    match case.load(device) {
        Model::Torchvision(model) => *model,
        other => panic!("{} is no classifier", other.family()),
    }
}

/// Gradients, running statistics after the first step, and the losses of ten steps agree with the reference.
#[track_caller]
fn compare_training(name: &str, normed: bool) {
    let device = Device::flex().autodiff();
    let case = Case::open(&format!("torchvision/{name}"));
    let inputs = Inputs::new(case.inputs());
    let pixels = inputs
        .floats::<4>("pixel_values", &device)
        .unwrap()
        .unwrap();
    let pictures = Pictures::Fixed(pixels);
    let (_, labels) = inputs.integers::<1>("labels").unwrap().unwrap();
    let mut model = classifier(&case, &device);
    let mut optimizer = AdamW::default();
    let mut losses = Vec::new();
    for step in 0..10 {
        let loss = model.loss(&pictures, &labels, Statistics::Batch).unwrap();
        losses.push(loss.clone().into_scalar::<f32>());
        let grads = gradients(&model, &loss.backward());
        if step == 0 {
            case.compare_gradients(&grads, torchvision::translated);
            if normed {
                let values = collect(&model).into_iter().map(|(k, (_, v))| (k, v));
                let values: BTreeMap<_, _> = values.collect();
                case.compare_statistics(&values, torchvision::translated);
            }
        }
        model = optimizer.step(model, grads);
    }
    case.compare_losses(&losses);
}

#[test]
fn bottlenecks_have_the_reference_gradients_statistics_and_ten_losses() {
    compare_training("resnet50", true);
}

#[test]
fn basic_blocks_have_the_reference_gradients_statistics_and_ten_losses() {
    compare_training("resnet18", true);
}

#[test]
fn a_vgg_has_the_reference_gradients_and_ten_losses() {
    compare_training("vgg", false);
}

#[test]
fn statistics_are_no_parameters_and_all_others_have_a_gradient() {
    let device = Device::flex().autodiff();
    let case = Case::open("torchvision/vgg_bn");
    let model = classifier(&case, &device);
    let inputs = Inputs::new(case.inputs());
    let pixels = inputs
        .floats::<4>("pixel_values", &device)
        .unwrap()
        .unwrap();
    let loss = model.loss(&Pictures::Fixed(pixels), &[0, 3], Statistics::Running);
    let grads = gradients(&model, &loss.unwrap().backward());
    let found: usize = grads.values().map(Vec::len).sum();
    assert_eq!(found, case.load(&device).parameters());
}

fn refused(loaded: Result<Model, Error>) -> String {
    loaded.expect_err("refused").to_string()
}

#[test]
fn configs_and_pictures_that_do_not_fit_are_refused_by_name() {
    let device = Device::flex();
    let case = Case::open("torchvision/resnet50");
    let config = case.config().unwrap();
    for (from, to, expected) in [
        (
            "\"resnet50\"",
            "\"resnext50_32x4d\"",
            "expected one of resnet18",
        ),
        (
            "\"resnet50\"",
            "\"vgg16\"",
            "layers: expected nothing for vgg16",
        ),
        (
            "\"width\": 4",
            "\"width\": 0",
            "encoder.width: expected 1 to 1024, found 0",
        ),
        ("\"width\": 4", "\"groups\": 4", "groups"),
        (
            "\"num_classes\": 5",
            "\"num_classes\": 6",
            "! head.0.weight: expected [6, 128], found [5, 128]",
        ),
        (
            "\"resnet50\"",
            "\"resnet18\"",
            "+ encoder.resnet.layer1.0.conv3.weight",
        ),
    ] {
        assert!(config.contains(from), "{config}");
        let error = refused(Model::load(
            &config.replace(from, to),
            case.checkpoint(),
            &device,
        ));
        assert!(error.contains(expected), "{to}: {error}");
    }
    let model = classifier(&case, &device);
    let small = burn::tensor::Tensor::zeros([1, 3, 31, 64], &device);
    let error = model.logits(&Pictures::Fixed(small), Statistics::Running);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("at least 32 x 32 pixels, found 31 x 64"),
        "{error}"
    );
}
