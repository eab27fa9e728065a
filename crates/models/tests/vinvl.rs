//! VinVL's detector (reference/models_vinvl.py).

// what the other families' tests need of it
mod common;

use burn::tensor::{Device, Tensor};
use common::detector::{compare_parts, known_objects};
use common::{AdamW, Case, gradients};
use vlm_models::capability::{DetectOptions, Pictures};
use vlm_models::encoders::region_detector::KnownObject;
use vlm_models::families::Model;
use vlm_models::families::vinvl::{self, Vinvl, VinvlConfig, box_geometry};
use vlm_models::reference::Inputs;
use vlm_nn::weights::{Checkpoint, StoreDtype, Weights, collect, to_bytes};

fn case(name: &str) -> Case {
    Case::open(&format!("vinvl/{name}"))
}

#[test]
fn detectors_match_the_reference_at_every_named_tensor() {
    for name in ["fitted", "proposed"] {
        let case = case(name);
        case.compare(&case.load(&Device::flex()));
    }
}

#[test]
fn a_checkpoint_alone_tells_its_sizes() {
    let case = case("fitted");
    let model = Model::recognise(case.checkpoint(), &Device::flex()).unwrap();
    let Model::Vinvl(model) = model else {
        panic!("another family: {}", model.family());
    };
    let c = model.config();
    assert_eq!((c.num_classes, c.num_attributes), (7, 5));
    assert_eq!(
        (c.body.layers.as_slice(), c.head_blocks),
        (&[1, 1, 2][..], 1)
    );
    assert_eq!((c.body.groups, c.body.width_per_group), (2, 2));
    assert_eq!(c.features(), 64);
    // the thresholds of the released commands
    assert_eq!((c.score_thresh, c.rpn.post_nms_top_n), (0.2, 300));
    assert!(!c.own_attribute_stage);
}

#[test]
fn objects_have_attributes_and_a_vector_each() {
    let case = case("proposed");
    let device = Device::flex();
    let model = case.load(&device);
    let pixels: Tensor<4> = Inputs::new(case.inputs())
        .floats("pixel_values", &device)
        .unwrap()
        .unwrap();
    let [_, _, h, w] = pixels.dims();
    let pictures = Pictures::Fixed(pixels);
    let detector = model.detect().unwrap();
    assert_eq!((detector.num_classes(), detector.num_attributes()), (7, 5));
    let found = detector
        .detect(&pictures, &DetectOptions::default())
        .unwrap()
        .remove(0);
    let features = found.features.expect("a vector for each object");
    assert_eq!(features.dims(), [found.objects.len(), 64]);
    assert!(found.objects.iter().any(|o| !o.attributes.is_empty()));
    for object in &found.objects {
        assert!(
            object
                .attributes
                .iter()
                .all(|a| a.0 > 0 && a.0 < 5 && a.1 > 0.05)
        );
        assert!(object.attributes.is_sorted_by(|a, b| a.1 >= b.1));
        let place = box_geometry(object.corners, [h, w]);
        assert!(place.iter().all(|x| (0.0..=1.0).contains(x)), "{place:?}");
        assert!((place[2] - place[0] - place[4]).abs() < 1e-5);
        assert!((place[3] - place[1] - place[5]).abs() < 1e-5);
    }
    let options = DetectOptions {
        threshold: Some(1.0),
        most: None,
    };
    let none = detector.detect(&pictures, &options).unwrap().remove(0);
    assert!(none.objects.is_empty());
    let options = DetectOptions {
        threshold: None,
        most: Some(2),
    };
    let two = detector.detect(&pictures, &options).unwrap().remove(0);
    assert!(two.objects.len() <= 2);
}

#[test]
fn what_does_not_fit_the_weights_is_refused_by_name() {
    let case = case("fitted");
    let config = case.config().unwrap();
    for (from, to, expected) in [
        (
            "\"num_classes\": 7",
            "\"num_classes\": 1595",
            "num_classes: expected 7, as the weights have",
        ),
        (
            "\"num_attributes\": 5",
            "\"num_attributes\": 525",
            "num_attributes: expected 5",
        ),
        (
            "\"score_thresh\": 0.2",
            "\"score_thresh\": 2.0",
            "score_thresh: expected 0 to 1",
        ),
        (
            "\"score_thresh\"",
            "\"score_tresh\"",
            "score_tresh: expected no such field",
        ),
        (
            "\"rpn_nms_thresh\"",
            "\"nms_filter\": 2, \"rpn_nms_thresh\"",
            "nms_filter: expected 1, found 2",
        ),
    ] {
        let config = config.replace(from, to);
        let error = Model::load(&config, case.checkpoint(), &Device::flex());
        let error = error.expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}

fn training_case(name: &str) -> Case {
    case(name)
        .larger("roi_heads.box.predictor", 2.0)
        .larger("attribute.predictor", 2.0)
}

fn detector(case: &Case, device: &Device) -> Vinvl {
    match case.load(device) {
        Model::Vinvl(model) => model.in_training(true),
        other => panic!("{} is no such detector", other.family()),
    }
}

/// The pictures of a case, the third power of its numbers, with what is in them.
fn batch(case: &Case, device: &Device) -> (Vec<Tensor<3>>, Vec<Vec<KnownObject>>) {
    let inputs = Inputs::new(case.inputs());
    let picture = |i: usize| {
        let pixels = inputs.floats::<3>(&format!("pixel_values.{i}"), device);
        let x = pixels.unwrap().unwrap();
        x.clone() * x.clone() * x
    };
    ((0..3).map(picture).collect(), known_objects(case, 3))
}

/// With the attributes' last stage shared and their own; the norms are frozen.
#[test]
fn losses_gradients_and_ten_steps_are_the_references() {
    let device = Device::flex().autodiff();
    for (name, own) in [("training", false), ("training_own", true)] {
        let case = training_case(name);
        let mut model = detector(&case, &device);
        assert_eq!(model.config().own_attribute_stage, own);
        let (pictures, objects) = batch(&case, &device);
        assert_eq!(objects[0][0].attributes, [1, 3, 4]);
        let mut optimizer = AdamW::default();
        let mut losses = Vec::new();
        for step in 0..10 {
            let found = model.loss(&pictures, &objects, 7).unwrap();
            losses.push(found.total.clone().into_scalar::<f32>());
            let mut grads = gradients(&model, &found.total.clone().backward());
            grads.retain(|name, _| !name.contains("norm"));
            if step == 0 {
                compare_parts(&case, &found, name);
                assert_eq!(grads.len(), case.numbers("grad.").len(), "{name}");
                case.compare_gradients(&grads, |c| vinvl::translated(c).0);
            }
            model = optimizer.step(model, grads);
        }
        case.compare_losses(&losses);
    }
}

#[test]
fn pictures_without_objects_and_bad_attributes() {
    let device = Device::flex().autodiff();
    let case = training_case("training");
    let model = detector(&case, &device);
    let (pictures, mut objects) = batch(&case, &device);
    let none = vec![Vec::new(); 3];
    let losses = model.loss(&pictures, &none, 0).unwrap();
    let number = |x: &Tensor<1>| x.clone().into_scalar::<f32>();
    assert!(number(&losses.objectness) > 0.0 && number(&losses.classes) > 0.0);
    assert_eq!(number(losses.attributes.as_ref().unwrap()), 0.0);
    // every parameter that learns has a gradient all the same
    let found = gradients(&model, &losses.total.backward());
    assert!(found.contains_key("attribute.score.weight"));
    objects[0][1].attributes = vec![5];
    let error = model.loss(&pictures, &objects, 0).unwrap_err().to_string();
    assert!(
        error.contains("objects[0][1]: attribute: expected 1 to 4, found 5"),
        "{error}"
    );
}

#[test]
fn a_config_alone_tells_the_sizes_of_a_model_that_is_trained_from_nothing() {
    let json = r#"{"model_type": "vinvl", "num_classes": 9, "num_attributes": 4, "layers": [1, 1, 2, 1],
        "stem_out_channels": 8, "res2_out_channels": 16, "num_groups": 2, "width_per_group": 4,
        "anchor_sizes": [8, 16], "share_box_feature_extractor": false}"#;
    let config = VinvlConfig::untrained(json).unwrap();
    assert_eq!((config.num_classes, config.head_blocks), (9, 1));
    assert!(config.own_attribute_stage && !config.frozen_norms);
    let device = Device::flex();
    let model = Vinvl::new(&mut Weights::random(1, &device), &config);
    // and loads from its own files
    let bytes = to_bytes(&collect(&model), StoreDtype::F32, None).unwrap();
    let stored = || Checkpoint::parse(&bytes, "weights").unwrap();
    let again = Vinvl::load(Some(json), stored(), &device).unwrap();
    assert_eq!(again.config().body.layers, [1, 1, 2]);
    for (from, to, expected) in [
        (
            "[1, 1, 2, 1]",
            "[1, 1, 1, 1]",
            "layers: expected [1, 1, 2, 1], as the weights have",
        ),
        (
            "false",
            "true",
            "share_box_feature_extractor: expected false",
        ),
        (
            "\"num_groups\": 2",
            "\"num_groups\": 1",
            "num_groups: expected 2",
        ),
        (
            "[8, 16]",
            "[8, -16]",
            "anchor_sizes: expected numbers above 0",
        ),
    ] {
        let error = Vinvl::load(Some(&json.replace(from, to)), stored(), &device);
        let error = error.expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}
