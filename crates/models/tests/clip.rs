//! CLIP in its three layouts agrees with transformers and open_clip (reference/models_clip.py).

mod common;

use burn::tensor::{Device, Tensor};
use common::dual_encoder::compare_training;
use common::{Case, checkpoint};
use vlm_models::Error;
use vlm_models::capability::{Pictures, Tokens};
use vlm_models::families::{Model, clip, open_clip};
use vlm_nn::Statistics;

#[test]
fn every_class_and_layout_matches_its_reference_at_every_output() {
    for name in [
        "largest_id",
        "first_end",
        "vision",
        "vision_projection",
        "text",
        "text_projection",
        "openai_vit",
        "openai_resnet",
        "open_clip_resized",
        "open_clip_sigmoid",
    ] {
        let case = Case::open(&format!("clip/{name}"));
        case.compare(&case.load(&Device::flex()));
    }
}

#[test]
fn hugging_faces_model_has_the_reference_gradients_and_ten_losses() {
    compare_training(
        &Case::open("clip/largest_id"),
        Statistics::Running,
        clip::translated,
    );
}

#[test]
fn openais_vit_has_the_reference_gradients_and_ten_losses() {
    compare_training(
        &Case::open("clip/openai_vit"),
        Statistics::Running,
        clip::openai_translated,
    );
}

#[test]
fn the_resnet_trains_its_norms_as_the_reference_does() {
    compare_training(
        &Case::open("clip/openai_resnet"),
        Statistics::Batch,
        clip::openai_translated,
    );
}

#[test]
fn open_clips_sigmoid_model_has_the_reference_gradients_and_ten_losses() {
    let case = Case::open("clip/open_clip_sigmoid");
    let json: serde_json::Value = serde_json::from_str(&case.config().unwrap()).unwrap();
    let config = open_clip::parse(open_clip::model_cfg(&json).unwrap()).unwrap();
    compare_training(&case, Statistics::Running, |c| {
        open_clip::translated(c, &config)
    });
}

fn refused(loaded: Result<Model, Error>) -> String {
    loaded.expect_err("refused").to_string()
}

#[test]
fn a_checkpoint_of_another_family_is_refused_by_name() {
    let (clip, siglip) = (Case::open("clip/largest_id"), Case::open("siglip/fixed"));
    let device = Device::flex();
    let error = refused(Model::load(
        &clip.config().unwrap(),
        siglip.checkpoint(),
        &device,
    ));
    assert!(error.contains("- vision.class [16]"), "{error}");
    assert!(
        error.contains("+ vision_model.head.probe [1, 1, 16]"),
        "{error}"
    );
    let error = refused(Model::recognise(siglip.checkpoint(), &device));
    assert!(error.contains("a config.json beside it"), "{error}");
}

#[test]
fn half_a_model_refuses_what_the_other_half_does() {
    let text = Case::open("clip/text_projection").load(&Device::flex());
    assert!(text.embed_text().is_ok());
    let error = text.embed_image().err().expect("refused").to_string();
    assert!(
        error.contains("clip_text_model cannot embed pictures"),
        "{error}"
    );
    let vision = Case::open("clip/vision").load(&Device::flex());
    assert!(vision.embed_text().is_err());
    assert!(
        vision.embed_image().is_err(),
        "no projection, no shared space"
    );
}

#[test]
fn pictures_and_texts_that_do_not_fit_are_refused_with_what_would() {
    let model = Case::open("clip/largest_id").load(&Device::flex());
    for (shape, expected) in [
        ([1, 1, 16, 16], "3 channels, found 1"),
        ([1, 3, 16, 24], "16 x 16 pixels, found 16 x 24"),
    ] {
        let pictures = Pictures::Fixed(Tensor::zeros(shape, &Device::flex()));
        let error = model.embed_image().unwrap().embed_image(&pictures);
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    let patches = Pictures::Patches {
        pixel_values: Tensor::zeros([1, 4, 192], &Device::flex()),
        spatial_shapes: vec![[2, 2]],
    };
    assert!(model.embed_image().unwrap().embed_image(&patches).is_err());
    for (row, expected) in [
        (vec![1; 10], "at most 9 tokens, found 10"),
        (vec![50], "ids below 50, found 50"),
        (vec![], "found 0"),
    ] {
        let texts = Tokens::new(vec![row], None).unwrap();
        let error = model.embed_text().unwrap().embed_text(&texts);
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn open_clip_configs_with_what_is_not_understood_are_refused_by_name() {
    let base = serde_json::json!({
        "embed_dim": 16,
        "vision_cfg": {"layers": 1, "width": 64, "patch_size": 8, "image_size": 16},
        "text_cfg": {"layers": 1, "width": 64, "heads": 1}
    });
    assert!(open_clip::parse(&base).is_ok());
    for (part, field, value, place) in [
        (
            "text_cfg",
            "hf_model_name",
            "roberta-base".into(),
            "text_cfg.hf_model_name",
        ),
        ("text_cfg", "embed_cls", true.into(), "text_cfg.embed_cls"),
        ("text_cfg", "qk_norm", true.into(), "text_cfg.qk_norm"),
        (
            "vision_cfg",
            "timm_model_name",
            "convnext_base".into(),
            "timm_model_name",
        ),
        (
            "vision_cfg",
            "attentional_pool",
            true.into(),
            "attentional_pool",
        ),
        ("vision_cfg", "head_width", 0.into(), "head_width"),
        (
            "vision_cfg",
            "layers",
            vec![1, 2].into(),
            "vision_cfg.layers",
        ),
        (
            "vision_cfg",
            "image_size",
            vec![16, 24].into(),
            "image_size",
        ),
        ("", "multimodal_cfg", base.clone(), "multimodal_cfg"),
    ] {
        let mut cfg: serde_json::Value = base.clone();
        let part = if part.is_empty() {
            &mut cfg
        } else {
            &mut cfg[part]
        };
        part[field] = value;
        let error = open_clip::parse(&cfg).expect_err(field).to_string();
        assert!(error.contains(place), "{field}: {error}");
    }
}

#[test]
fn shapes_that_tell_no_sizes_are_errors_and_no_panic() {
    let whole = Case::open("clip/openai_vit").shapes();
    let zeros = |_: &str, shape: &[usize]| vec![0.0; shape.iter().product()];
    for (name, shape) in [
        ("visual.conv1.weight", vec![64]),
        ("visual.positional_embedding", vec![7, 64]),
        ("text_projection", vec![0]),
        ("ln_final.weight", vec![10]),
    ] {
        let mut shapes = whole.clone();
        shapes.insert(name.to_owned(), shape);
        let error = refused(Model::recognise(
            checkpoint(&shapes, zeros),
            &Device::flex(),
        ));
        assert!(error.contains(name), "{name}: {error}");
    }
    for name in whole.keys() {
        let mut shapes = whole.clone();
        shapes.remove(name);
        refused(Model::recognise(
            checkpoint(&shapes, zeros),
            &Device::flex(),
        ));
    }
}
