//! VinVL's detector (reference/models_vinvl.py).

// what the other families' tests need of it
#[allow(dead_code)]
mod common;

use burn::tensor::{Device, Tensor};
use common::Case;
use vlm_models::capability::{DetectOptions, Pictures};
use vlm_models::families::Model;
use vlm_models::families::vinvl::box_geometry;
use vlm_models::reference::Inputs;

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
