//! SigLIP and SigLIP 2 agree with transformers (reference/models_clip.py).

mod common;

use burn::tensor::{Device, Tensor};
use common::Case;
use common::dual_encoder::compare_training;
use vlm_models::capability::{Pictures, Similarity};
use vlm_models::families::siglip;
use vlm_nn::Statistics;

#[test]
fn every_class_matches_its_reference_at_every_output() {
    for name in [
        "siglip/fixed",
        "siglip/interpolated",
        "siglip/vision",
        "siglip/vision_no_head",
        "siglip/text",
        "siglip2/naflex",
        "siglip2/vision",
    ] {
        let case = Case::open(name);
        case.compare(&case.load(&Device::flex()));
    }
}

#[test]
fn pictures_of_one_size_train_as_the_reference_does() {
    compare_training(
        &Case::open("siglip/fixed"),
        Statistics::Running,
        siglip::translated,
    );
}

#[test]
fn pictures_of_any_shape_train_as_the_reference_does() {
    compare_training(
        &Case::open("siglip2/naflex"),
        Statistics::Running,
        siglip::translated,
    );
}

#[test]
fn pairs_are_judged_by_a_sigmoid() {
    let model = Case::open("siglip/fixed").load(&Device::flex());
    let similarity = model.embed_text().unwrap().similarity();
    let expected = Similarity::Sigmoid {
        scale: 1.5f32.exp(),
        bias: -0.75,
    };
    assert_eq!(similarity, expected);
}

#[test]
fn shapes_that_do_not_fit_their_patches_are_refused() {
    let model = Case::open("siglip2/naflex").load(&Device::flex());
    let embed = model.embed_image().unwrap();
    let patches = |width, spatial_shapes| Pictures::Patches {
        pixel_values: Tensor::zeros([2, 6, width], &Device::flex()),
        spatial_shapes,
    };
    assert!(
        embed
            .embed_image(&patches(27, vec![[2, 3], [1, 4]]))
            .is_ok()
    );
    for pictures in [
        patches(27, vec![[2, 3]]),
        patches(27, vec![[2, 3], [2, 4]]),
        patches(27, vec![[2, 3], [0, 4]]),
        patches(27, vec![[2, 3], [usize::MAX, 2]]),
        patches(28, vec![[2, 3], [1, 4]]),
        Pictures::Fixed(Tensor::zeros([1, 3, 12, 12], &Device::flex())),
    ] {
        assert!(embed.embed_image(&pictures).is_err());
    }
}
