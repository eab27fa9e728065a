//! torchvision's Faster R-CNN (reference/models_detector.py).

// what the other families' tests need of it
mod common;

use burn::tensor::{Device, Tensor};
use common::detector::{compare_parts, known_objects};
use common::{AdamW, Case, Shapes, gradients};
use std::collections::BTreeMap;
use vlm_models::capability::{DetectOptions, Pictures};
use vlm_models::encoders::region_detector::KnownObject;
use vlm_models::families::Model;
use vlm_models::families::faster_rcnn::{self, FasterRcnn};
use vlm_models::reference::{Inputs, Numbers};
use vlm_nn::weights::{Checkpoint, StoreDtype, collect, to_bytes};

fn case(name: &str) -> Case {
    Case::open(&format!("faster_rcnn/{name}"))
}

#[test]
fn detectors_match_torchvision_at_every_named_tensor() {
    for (name, least) in [("frozen", 12), ("batch_norm", 2)] {
        let case = case(name);
        let model = case.load(&Device::flex());
        let inputs = Inputs::new(case.inputs());
        let found = model.reference().unwrap().outputs(&inputs).unwrap();
        assert_eq!(inputs.unread(), [""; 0]);
        let expected = case.numbers("out.");
        assert!(
            expected["boxes"].shape[0] >= least,
            "the reference finds objects"
        );
        for (output, expected) in expected {
            let what = format!("{name}: {output}");
            let found = found
                .get(&output)
                .unwrap_or_else(|| panic!("{what}: not given"));
            assert_eq!(found.shape, expected.shape, "{what}");
            match (&found.numbers, &expected.numbers) {
                (Numbers::Floats(found), Numbers::Floats(expected)) => {
                    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
                    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
                        // sums of a few dozen terms through a dozen layers
                        let error = (a - b).abs();
                        assert!(error <= 3e-5 * largest, "{what}, {i}: {a} is not {b}");
                    }
                }
                (found, expected) => assert_eq!(found, expected, "{what}"),
            }
        }
    }
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors(case: &Case) -> Tensors {
    let mut stored = case.checkpoint();
    let shapes: Shapes = case.shapes();
    let take = |name: String| {
        let tensor = stored.take_any(&name).unwrap();
        (name, tensor)
    };
    shapes.into_keys().map(take).collect()
}

fn checkpoint(tensors: &Tensors) -> Checkpoint {
    let bytes = to_bytes(tensors, StoreDtype::F32, None).unwrap();
    Checkpoint::parse(&bytes, "weights").unwrap()
}

fn objects(model: &Model, options: &DetectOptions) -> Vec<vlm_models::capability::Detection> {
    let case = case("frozen");
    let device = Device::flex();
    let pixels: Tensor<4> = Inputs::new(case.inputs())
        .floats("pixel_values", &device)
        .unwrap()
        .unwrap();
    let found = model.detect().unwrap();
    let mut found = found.detect(&Pictures::Fixed(pixels), options).unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0).objects
}

#[test]
fn weights_of_older_versions_have_other_names_and_do_the_same() {
    let case = case("frozen");
    let renamed: Tensors = tensors(&case)
        .into_iter()
        .map(|(name, tensor)| {
            let mut name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.");
            for part in ["inner_blocks", "layer_blocks"] {
                for i in 0..4 {
                    name = name.replace(&format!("{part}.{i}.0."), &format!("{part}.{i}."));
                }
            }
            (name, tensor)
        })
        .collect();
    assert!(renamed.contains_key("backbone.fpn.inner_blocks.0.weight"));
    assert!(renamed.contains_key("rpn.head.conv.weight"));
    let device = Device::flex();
    let old = Model::load(&case.config().unwrap(), checkpoint(&renamed), &device).unwrap();
    let options = DetectOptions::default();
    assert_eq!(
        objects(&old, &options),
        objects(&case.load(&device), &options)
    );
}

#[test]
fn thresholds_and_numbers_of_objects_are_obeyed() {
    let model = case("frozen").load(&Device::flex());
    let all = objects(&model, &DetectOptions::default());
    assert_eq!(all.len(), 12);
    let some = |threshold, most| objects(&model, &DetectOptions { threshold, most });
    assert_eq!(some(Some(0.5), None), all[..8]);
    assert_eq!(some(None, Some(3)), all[..3]);
    assert!(some(Some(1.0), None).is_empty());
    assert!(some(Some(0.0), Some(1000)).len() > 12);
    let scores: Vec<f32> = all.iter().map(|o| o.score).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
}

#[test]
fn pictures_of_every_shape_are_taken() {
    let model = case("frozen").load(&Device::flex());
    let detector = model.detect().unwrap();
    let device = Device::flex();
    for shape in [[1, 3, 1, 1], [2, 3, 5, 300], [1, 3, 200, 2]] {
        let pictures = Pictures::Fixed(Tensor::ones(shape, &device));
        let found = detector
            .detect(&pictures, &DetectOptions::default())
            .unwrap();
        assert_eq!(found.len(), shape[0]);
        for object in found.iter().flat_map(|f| &f.objects) {
            let [x1, y1, x2, y2] = object.corners;
            let (w, h) = (shape[3] as f32 + 1e-3, shape[2] as f32 + 1e-3);
            assert!(0.0 <= x1 && x1 < x2 && x2 <= w, "{object:?}");
            assert!(0.0 <= y1 && y1 < y2 && y2 <= h, "{object:?}");
        }
    }
    let grey = Pictures::Fixed(Tensor::ones([1, 1, 8, 8], &device));
    let error = detector.detect(&grey, &DetectOptions::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("3 channels, found 1"), "{error}");
}

#[test]
fn other_class_counts_architectures_and_unknown_fields_are_refused_by_name() {
    let case = case("frozen");
    let config = case.config().unwrap();
    for (from, to, expected) in [
        (
            "\"num_classes\": 5",
            "\"num_classes\": 91",
            "num_classes: expected 5",
        ),
        (
            "resnet50_fpn",
            "resnet50_fpn_v2",
            "architecture: expected fasterrcnn_resnet50_fpn",
        ),
        ("\"min_size\": 64", "\"min_size\": 0", "min_size"),
        (
            "\"min_size\"",
            "\"mini_size\"",
            "mini_size: expected no such field",
        ),
        (
            "\"box_nms_thresh\": 0.5",
            "\"box_nms_thresh\": 1.5",
            "box_nms_thresh: expected 0 to 1",
        ),
        (
            "\"torchvision\"",
            "\"timm\"",
            "library_name: expected \"torchvision\"",
        ),
        (
            "\"stem_width\": 2",
            "\"stem_width\": 4",
            "body.conv1.weight: expected [4, 3, 7, 7]",
        ),
    ] {
        let config = config.replace(from, to);
        let error = Model::load(&config, case.checkpoint(), &Device::flex());
        let error = error.expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    let mut lacking = tensors(&case);
    lacking.remove("roi_heads.box_head.fc7.bias");
    let error = Model::load(&config, checkpoint(&lacking), &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("- fc7.bias [12]"), "{error}");
}

#[test]
fn other_families_name_what_can_detect() {
    let model = Case::open("clip/first_end").load(&Device::flex());
    let error = model.detect().err().expect("no detector").to_string();
    assert!(
        error.contains("clip cannot detect objects; faster_rcnn"),
        "{error}"
    );
    let detector = case("frozen").load(&Device::flex());
    assert!(detector.generate().is_err() && detector.embed_image().is_err());
    assert_eq!(detector.family(), "faster_rcnn");
}

fn training_case(name: &str) -> Case {
    let case = case(&format!("training_{name}"));
    match name {
        "frozen" | "small" => case
            .larger("rpn.head.cls_logits", 4.0)
            .larger("backbone.body", 1.5)
            .larger("backbone.fpn", 2.0)
            .larger("roi_heads.box_predictor", 2.0),
        _ => case
            .larger("rpn.head.cls_logits", 4.0)
            .larger("rpn.head.bbox_pred", 2.0)
            .larger("backbone.fpn", 3.0)
            .larger("roi_heads.box_predictor", 4.0),
    }
}

fn detector(case: &Case, device: &Device) -> FasterRcnn {
    match case.load(device) {
        Model::FasterRcnn(model) => model.in_training(true),
        other => panic!("{} is no such detector", other.family()),
    }
}

/// The pictures of a case with what is in them.
fn batch(case: &Case, device: &Device) -> (Vec<Tensor<3>>, Vec<Vec<KnownObject>>) {
    let inputs = Inputs::new(case.inputs());
    let picture = |i: usize| {
        let pixels = inputs.floats::<3>(&format!("pixel_values.{i}"), device);
        pixels.unwrap().unwrap()
    };
    let pictures = (0..3).map(picture).collect();
    (pictures, known_objects(case, 3))
}

/// What training computes, and what ten steps of AdamW make of it; frozen norms do not learn.
#[test]
fn losses_gradients_statistics_and_ten_steps_are_torchvisions() {
    let device = Device::flex().autodiff();
    for name in ["frozen", "small", "batch_norm"] {
        let case = training_case(name);
        let mut model = detector(&case, &device);
        let (pictures, objects) = batch(&case, &device);
        let mut optimizer = AdamW::default();
        let mut losses = Vec::new();
        for step in 0..10 {
            let found = model.loss(&pictures, &objects, 7).unwrap();
            losses.push(found.total.clone().into_scalar::<f32>());
            let mut grads = gradients(&model, &found.total.clone().backward());
            if step == 0 {
                compare_parts(&case, &found, name);
                let all = grads.len();
                if model.config().frozen_norms {
                    grads.retain(|name, _| !name.contains("norm"));
                    assert!(grads.len() < all);
                }
                assert_eq!(grads.len(), case.numbers("grad.").len(), "{name}");
                case.compare_gradients(&grads, faster_rcnn::translated);
                let values = collect(&model).into_iter().map(|(k, (_, v))| (k, v));
                case.compare_statistics(&values.collect(), faster_rcnn::translated);
            }
            grads.retain(|name, _| !model.config().frozen_norms || !name.contains("norm"));
            model = optimizer.step(model, grads);
        }
        case.compare_losses(&losses);
    }
}

#[test]
fn what_is_learned_from_is_drawn_from_the_seed() {
    let device = Device::flex();
    let case = training_case("frozen");
    let config = case.config().unwrap();
    let few = config
        .replace(
            "\"rpn_batch_size_per_image\": 100000",
            "\"rpn_batch_size_per_image\": 16",
        )
        .replace(
            "\"box_batch_size_per_image\": 100000",
            "\"box_batch_size_per_image\": 8",
        );
    assert_ne!(few, config);
    let (pictures, objects) = batch(&case, &device);
    let Model::FasterRcnn(model) = Model::load(&few, case.checkpoint(), &device).unwrap() else {
        panic!("another family");
    };
    let loss = |seed| {
        let losses = model.loss(&pictures, &objects, seed).unwrap();
        losses.total.into_scalar::<f32>()
    };
    assert_eq!(loss(1), loss(1));
    let several: Vec<f32> = (1..6).map(loss).collect();
    assert!(several[1..].iter().any(|x| *x != several[0]), "{several:?}");
}

#[test]
fn objects_that_do_not_fit_are_refused_by_name() {
    let device = Device::flex();
    let case = training_case("frozen");
    let model = detector(&case, &device);
    let (pictures, objects) = batch(&case, &device);
    type Change = fn(&mut Vec<Vec<KnownObject>>);
    let cases: [(Change, &str); 5] = [
        (
            |o| o[0][1].corners[2] = 74.0,
            "objects[0][1]: box: expected a box within the picture of 73 x 52",
        ),
        (
            |o| o[1][0].corners[2] = 0.0,
            "objects[1][0]: box: expected x1 < x2",
        ),
        (
            |o| o[1][0].class = 5,
            "objects[1][0]: class: expected 1 to 4, found 5",
        ),
        (
            |o| o[0][2].class = 0,
            "objects[0][2]: class: expected 1 to 4, found 0",
        ),
        (
            |o| drop(o.pop()),
            "objects: expected a list for each of 3 pictures, found 2",
        ),
    ];
    for (change, expected) in cases {
        let mut bad = objects.clone();
        change(&mut bad);
        let error = model.loss(&pictures, &bad, 0).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(model.loss(&[], &[], 0).is_err());
    // pictures without objects teach what background is
    let none = vec![Vec::new(); 3];
    let losses = model.loss(&pictures, &none, 0).unwrap();
    let number = |x: &Tensor<1>| x.clone().into_scalar::<f32>();
    assert!(number(&losses.objectness) > 0.0 && number(&losses.classes) > 0.0);
    assert_eq!(
        (number(&losses.boxes), number(&losses.proposals)),
        (0.0, 0.0)
    );
}
