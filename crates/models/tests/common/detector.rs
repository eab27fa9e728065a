//! What the goldens of detectors' training hold.

use super::Case;
use vlm_models::encoders::region_detector::{DetectorLosses, KnownObject};
use vlm_models::reference::Numbers;

/// The objects of so many pictures: `in.boxes.I`, `in.labels.I` and, where there are some, `in.attributes.I`, rows that
/// zeros fill up; a picture without them has none.
pub fn known_objects(case: &Case, pictures: usize) -> Vec<Vec<KnownObject>> {
    let inputs = case.numbers("in.");
    let integers = |name: String| match inputs.get(&name).map(|value| &value.numbers) {
        Some(Numbers::Integers(values)) => values.iter().map(|&x| x as usize).collect(),
        _ => Vec::new(),
    };
    let of_picture = |i: usize| {
        let Some(boxes) = inputs.get(&format!("boxes.{i}")) else {
            return Vec::new();
        };
        let Numbers::Floats(boxes) = &boxes.numbers else {
            panic!("boxes.{i}: floats")
        };
        let labels: Vec<usize> = integers(format!("labels.{i}"));
        let attributes: Vec<usize> = integers(format!("attributes.{i}"));
        let most = attributes.len() / labels.len();
        let object = |j: usize| KnownObject {
            corners: std::array::from_fn(|k| boxes[4 * j + k]),
            class: labels[j],
            attributes: attributes[j * most..(j + 1) * most]
                .iter()
                .copied()
                .filter(|&a| a > 0)
                .collect(),
        };
        (0..labels.len()).map(object).collect()
    };
    (0..pictures).map(of_picture).collect()
}

/// Checks each loss by itself.
#[track_caller]
pub fn compare_parts(case: &Case, found: &DetectorLosses, what: &str) {
    let expected = case.numbers("out.");
    let mut parts = vec![
        ("loss_objectness", &found.objectness),
        ("loss_rpn_box_reg", &found.proposals),
        ("loss_classifier", &found.classes),
        ("loss_box_reg", &found.boxes),
    ];
    parts.extend(found.attributes.iter().map(|x| ("loss_attribute", x)));
    assert_eq!(expected.len(), parts.len(), "{what}");
    for (name, loss) in parts {
        let Numbers::Floats(expected) = &expected[name].numbers else {
            panic!("{name}: floats")
        };
        let (found, expected) = (loss.clone().into_scalar::<f32>(), expected[0]);
        // means over thousands of terms
        let error = (found - expected).abs();
        assert!(
            error <= 2e-5 * expected.abs(),
            "{what}: {name}: {found} is not {expected}"
        );
    }
}
