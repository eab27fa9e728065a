//! Embeddings of a ViT-B/16 with random weights hardly depend on the precision of its products.
//!
//! One test in a program of its own: precision is a property of the process.

use burn::tensor::{Device, Tensor, TensorData};
use vlm_models::encoders::{VisionPooling, VisionTower, VisionTowerConfig};
use vlm_nn::ops::{Activation, Precision, WeightFormat, set_precision, set_weight_format};
use vlm_nn::random::SplitMix64;
use vlm_nn::weights::Weights;

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn lower_precisions_give_nearly_the_embeddings_of_f32() {
    let device = Device::flex();
    let config = VisionTowerConfig {
        image_size: [224; 2],
        patch_size: 16,
        num_channels: 3,
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        layer_norm_eps: 1e-5,
        hidden_act: Activation::Gelu,
        patch_bias: true,
        pre_norm: false,
        layer_scale: None,
        naflex: false,
        pooling: VisionPooling::ClassToken,
        projection_dim: Some(512),
    };
    let mut weights = Weights::random(7, &device);
    let tower = VisionTower::new(&mut weights, &config);
    let mut rng = SplitMix64::new(1);
    let pixels = (0..3 * 224 * 224)
        .map(|_| 2.0 * rng.uniform_f32() - 1.0)
        .collect();
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, 224, 224]), &device);
    let embed = |precision, format| -> Vec<f32> {
        set_precision(precision);
        set_weight_format(format);
        let vectors = tower.forward(pixels.clone());
        vectors.into_data().try_to_vec().unwrap()
    };
    let exact = embed(Precision::F32, WeightFormat::Float);
    let cases = [
        (Precision::Bf16, WeightFormat::Float, 0.999),
        (Precision::F32, WeightFormat::Int8, 0.99),
        (Precision::Bf16, WeightFormat::Int8, 0.99),
        (Precision::F32, WeightFormat::Int4, 0.9),
    ];
    for (precision, format, least) in cases {
        let found = cosine(&embed(precision, format), &exact);
        assert!(found > least, "{precision:?} {format:?}: {found}");
        // exactly the same would mean that the setting did nothing
        if format != WeightFormat::Float {
            assert!(found < 1.0 - 1e-9, "{precision:?} {format:?}: {found}");
        }
    }
    // going back finds nothing of the integers left
    assert_eq!(embed(Precision::F32, WeightFormat::Float), exact);
}
