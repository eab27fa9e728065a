//! Pixels against the Python reference; see reference/data_preprocess.py for the goldens.

use std::path::{Path, PathBuf};

use serde_json::Value;
use vlm_data::image::{
    self, Filter, Image, ImageProcessor, Limits, PreprocessorConfig, ProcessorKind, Resampler,
};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/data")
}

fn golden(name: &str) -> Value {
    let text = std::fs::read(testdata().join(name)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> String {
    let hash = bytes.into_iter().fold(0xCBF29CE484222325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100000001B3)
    });
    format!("{hash:016x}")
}

/// The script's `noise`.
fn noise(width: u32, height: u32, seed: u64) -> Image {
    let mut state = seed;
    let rgb = (0..width * height * 3).map(|_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    });
    Image::from_rgb(width, height, rgb.collect()).unwrap()
}

#[test]
fn every_format_and_mode_decodes_to_the_reference_pixels_bit_for_bit() {
    let index = golden("decoded.json");
    let index = index.as_object().unwrap();
    let pictures = testdata().join("pictures");
    let files = std::fs::read_dir(&pictures).unwrap().count();
    assert_eq!(files, index.len(), "pictures without golden pixels");
    let mut wrong = Vec::new();
    for (name, expected) in index {
        match image::read(&pictures.join(name), &Limits::default()) {
            Err(error) => wrong.push(error.to_string()),
            Ok(found) => {
                let (width, height) = (found.width(), found.height());
                let hash = fnv1a(found.into_rgb());
                if expected["width"] != width || expected["height"] != height {
                    wrong.push(format!("{name}: {width}×{height}, expected {expected}"));
                } else if expected["fnv1a"] != hash {
                    wrong.push(format!("{name}: pixels differ"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_filter_resizes_bit_for_bit_like_pillow() {
    let mut wrong = Vec::new();
    let cases = golden("resized.json");
    for case in cases.as_array().unwrap() {
        let number = |i: usize| case[i].as_u64().unwrap();
        let image = noise(number(0) as u32, number(1) as u32, number(2));
        let filter = Filter::from_pil(number(5)).unwrap();
        let (width, height) = (number(3) as u32, number(4) as u32);
        let found = image::resize(&image, width, height, filter, Resampler::Pillow).unwrap();
        if fnv1a(found.into_rgb()) != case[6] {
            wrong.push(format!("{case} {filter:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.as_array().unwrap().len(),
        wrong.join("\n")
    );
}

#[test]
fn processors_give_the_reference_tensors_bit_for_bit() {
    let mut wrong = Vec::new();
    for case in golden("processed.json").as_array().unwrap() {
        let side = |key: &str| case[key].as_u64().unwrap() as u32;
        let image = noise(
            side("width"),
            side("height"),
            case["seed"].as_u64().unwrap(),
        );
        let config = case["config"].to_string();
        let config =
            PreprocessorConfig::from_json(config.as_bytes(), "config", ProcessorKind::Clip)
                .unwrap();
        let found = ImageProcessor::from_config(config).process(&image);
        let found = match (found, case.get("error")) {
            (Err(_), Some(_)) => continue,
            (Ok(found), None) => found,
            (found, error) => {
                wrong.push(format!(
                    "{case}: reference error {error:?}, ours {:?}",
                    found.err()
                ));
                continue;
            }
        };
        let shape = serde_json::json!([found.channels, found.height, found.width]);
        let middle = found.data[found.data.len() / 2];
        if shape != case["shape"] {
            wrong.push(format!("{case}: shape {shape}"));
        } else if fnv1a(found.data.iter().flat_map(|v| v.to_le_bytes())) != case["fnv1a"] {
            wrong.push(format!("{case}: first {} middle {middle}", found.data[0]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
