//! Coarser arithmetic stays close to f32 on the built-in model.
//!
//! One test, because the arithmetic is a setting of the process.

use vlm_data::image::Image;
use vlm_nn::ops::{Precision, WeightFormat, set_precision, set_weight_format};
use vlm_tasks::Vlm;
use vlm_worlds::shapes::{Config, Split, generate};

fn lowest_cosine(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    a.iter()
        .zip(b)
        .map(|(a, b)| cosine(a, b))
        .fold(1.0, f64::min)
}

/// Vectors in f32 against those in bfloat16 and with 8-bit weights.
fn compare(name: &str, vectors: impl Fn() -> Vec<Vec<f32>>) {
    set_precision(Precision::F32);
    let exact = vectors();
    set_precision(Precision::Bf16);
    let half = lowest_cosine(&exact, &vectors());
    assert!(half >= 0.999, "{name} in bf16: cosine {half}");
    set_precision(Precision::F32);
    set_weight_format(WeightFormat::Int8);
    let byte = lowest_cosine(&exact, &vectors());
    set_weight_format(WeightFormat::Float);
    assert!(byte >= 0.99, "{name} in int8: cosine {byte}");
    // the setting reached the arithmetic
    assert!(byte < 1.0 - 1e-9, "{name} in int8: equal to f32");
}

#[test]
fn bfloat16_and_8_bit_embeddings_stay_close_to_f32() {
    let vlm = Vlm::builtin().expect("the built-in model");
    let images: Vec<Image> = (0..16)
        .map(|i| {
            let picture = generate(&Config::default(), Split::Validation, 31, i).picture;
            Image::from_rgb(picture.width, picture.height, picture.rgb).expect("a picture")
        })
        .collect();
    let images: Vec<&Image> = images.iter().collect();
    compare("vlm-tiny", || vlm.embed_images(&images).expect("vectors"));
}
