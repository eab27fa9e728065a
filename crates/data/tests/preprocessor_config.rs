//! What `preprocessor_config.json` may say, and what is refused.

use std::time::{Duration, Instant};

use vlm_data::image::{Filter, Image, ImageProcessor, PreprocessorConfig, ProcessorKind, Size};

fn read(json: &str) -> Result<PreprocessorConfig, String> {
    PreprocessorConfig::from_json(json.as_bytes(), "p.json", ProcessorKind::Vit)
        .map_err(|e| e.to_string())
}

#[test]
fn what_is_not_understood_is_refused_by_its_key() {
    for (json, expected) in [
        ("", "p.json: file: expected a JSON object, found EOF"),
        ("[1]", "p.json: file: expected a JSON object, found "),
        (
            r#"{"crop_pct":0.875}"#,
            "p.json: crop_pct: expected only keys that are understood",
        ),
        (
            r#"{"do_flip_channel_order":true}"#,
            "p.json: do_flip_channel_order: expected only",
        ),
        (
            r#"{"offset":null,"size_divisor":32}"#,
            "p.json: offset: expected only",
        ),
        (
            r#"{"image_processor_type":"Qwen2VLImageProcessor"}"#,
            "p.json: image_processor_type: expected a CLIP, ChineseCLIP, ",
        ),
        (r#"{"size":0}"#, "p.json: size: expected a positive integer"),
        (
            r#"{"size":-3}"#,
            "p.json: size: expected a positive integer",
        ),
        (
            r#"{"size":1e30}"#,
            "p.json: size: expected a positive integer",
        ),
        (
            r#"{"size":{"longest_edge":384}}"#,
            "p.json: size: expected a positive integer, ",
        ),
        (r#"{"size":{"height":3}}"#, "p.json: size: expected"),
        (
            r#"{"resample":6}"#,
            "p.json: resample: expected a PIL filter, 0 to 5, found 6",
        ),
        (r#"{"resample":"bicubic"}"#, "p.json: resample: expected"),
        (
            r#"{"crop_size":{"shortest_edge":9}}"#,
            "p.json: crop_size: expected",
        ),
        (
            r#"{"do_center_crop":true}"#,
            "p.json: crop_size: expected a size, as do_center_crop",
        ),
        (
            r#"{"do_resize":"yes"}"#,
            "p.json: do_resize: expected true or false, found \"yes\"",
        ),
        (
            r#"{"image_mean":[0.5,0.5]}"#,
            "p.json: image_mean: expected a number or three",
        ),
        (
            r#"{"image_std":[0.5,0.5,0]}"#,
            "p.json: image_std: expected numbers other than 0",
        ),
        (
            r#"{"rescale_factor":"1/255"}"#,
            "p.json: rescale_factor: expected a number",
        ),
        (
            r#"{"data_format":"channels_last"}"#,
            "p.json: data_format: expected channels_first",
        ),
    ] {
        let message = read(json).unwrap_err();
        assert!(message.starts_with(expected), "{json}: {message}");
        assert!(!message.contains('\n'));
    }
}

#[test]
fn files_in_the_wild_are_read_with_their_class_defaults() {
    // openai/clip-vit-base-patch32, as published in 2021.
    let clip = read(
        r#"{"crop_size":224,"do_center_crop":true,"do_normalize":true,"do_resize":true,
            "feature_extractor_type":"CLIPFeatureExtractor",
            "image_mean":[0.48145466,0.4578275,0.40821073],
            "image_std":[0.26862954,0.26130258,0.27577711],"resample":3,"size":224}"#,
    );
    assert_eq!(
        clip.unwrap(),
        PreprocessorConfig::defaults(ProcessorKind::Clip)
    );
    // google/siglip-base-patch16-224.
    let siglip = read(
        r#"{"do_normalize":true,"do_rescale":true,"do_resize":true,
            "image_mean":[0.5,0.5,0.5],"image_processor_type":"SiglipImageProcessor",
            "image_std":[0.5,0.5,0.5],"processor_class":"SiglipProcessor","resample":3,
            "rescale_factor":0.00392156862745098,"size":{"height":224,"width":224}}"#,
    );
    assert_eq!(
        siglip.unwrap(),
        PreprocessorConfig::defaults(ProcessorKind::Siglip)
    );
    // A file that names no class takes the caller's, here ViT.
    let vit = read(r#"{"size":384,"image_mean":null}"#).unwrap();
    assert_eq!(vit.filter, Filter::Bilinear);
    let (height, width) = (384, 384);
    assert_eq!(vit.resize, Some(Size::Exact { height, width }));
    let fast = read(r#"{"image_processor_type":"BlipImageProcessorFast","do_resize":false}"#);
    assert_eq!(fast.unwrap().resize, None);
}

#[test]
fn extreme_aspect_ratios_cost_what_is_kept_or_are_refused() {
    let line = Image::from_rgb(1, 100_000, vec![200; 300_000]).unwrap();
    let clip = PreprocessorConfig::defaults(ProcessorKind::Clip);
    let start = Instant::now();
    let kept = ImageProcessor::from_config(clip.clone())
        .process(&line)
        .unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!((kept.height, kept.width), (224, 224));

    let whole = PreprocessorConfig {
        center_crop: None,
        ..clip
    };
    let error = ImageProcessor::from_config(whole)
        .process(&line)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot resize 1×100000 to 224×22400000: expected at most 100 megapixels"
    );
    let range = read(r#"{"size":{"shortest_edge":10,"longest_edge":20}}"#).unwrap();
    let error = ImageProcessor::from_config(range)
        .process(&line)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("expected at least one pixel a side")
    );
}
