//! The architectures that can be timed, by their usual names.

use anyhow::bail;
use vlm_models::encoders::{TextPooling, TextTowerConfig, VisionPooling, VisionTowerConfig};
use vlm_models::families::clip;
use vlm_models::families::dual_encoder::{
    DualEncoderConfig, Layout, LogitsConfig, Objective, VisionEncoderConfig,
};
use vlm_nn::ops::Activation;

/// Names for `vlm bench encode`.
pub const ENCODE: [&str; 8] = [
    "vit-tiny-16",
    "vit-s-16",
    "vit-b-16",
    "clip-vit-b-32",
    "clip-vit-b-16",
    "clip-vit-l-14",
    "siglip-b-16",
    "siglip-base-patch16-224",
];

/// Names for `vlm bench train`.
pub const TRAIN: [&str; 2] = ["vit-s-16+text-6", "vit-tiny-16+text-2"];

fn unknown<T>(name: &str, known: &[&str]) -> anyhow::Result<T> {
    bail!("--arch: expected {}, found {name:?}", known.join(", "))
}

/// A plain ViT as in `timm` and torchvision: class token, GELU, final norm, a linear map to 512.
fn vit(hidden_size: usize, layers: usize) -> VisionTowerConfig {
    VisionTowerConfig {
        image_size: [224; 2],
        patch_size: 16,
        num_channels: 3,
        hidden_size,
        intermediate_size: 4 * hidden_size,
        num_hidden_layers: layers,
        num_attention_heads: hidden_size / 64,
        layer_norm_eps: 1e-5,
        hidden_act: Activation::Gelu,
        patch_bias: true,
        pre_norm: false,
        layer_scale: None,
        naflex: false,
        pooling: VisionPooling::ClassToken,
        projection_dim: Some(512),
    }
}

/// OpenAI's CLIP.
fn clip(patch_size: usize, hidden_size: usize, layers: usize, dim: usize) -> VisionTowerConfig {
    VisionTowerConfig {
        patch_size,
        hidden_act: Activation::QuickGelu,
        patch_bias: false,
        pre_norm: true,
        projection_dim: Some(dim),
        ..vit(hidden_size, layers)
    }
}

/// The picture encoder of an architecture.
pub fn vision(name: &str) -> anyhow::Result<VisionTowerConfig> {
    Ok(match name {
        "vit-tiny-16" => vit(192, 12),
        "vit-s-16" => vit(384, 12),
        "vit-b-16" => vit(768, 12),
        "clip-vit-b-32" => clip(32, 768, 12, 512),
        "clip-vit-b-16" => clip(16, 768, 12, 512),
        "clip-vit-l-14" => clip(14, 1024, 24, 768),
        "siglip-b-16" | "siglip-base-patch16-224" => VisionTowerConfig {
            layer_norm_eps: 1e-6,
            hidden_act: Activation::GeluTanh,
            pooling: VisionPooling::Attention,
            projection_dim: None,
            ..vit(768, 12)
        },
        _ => return unknown(name, &ENCODE),
    })
}

/// A dual encoder to train, with texts of `max_position_embeddings` tokens.
pub fn dual_encoder(name: &str) -> anyhow::Result<DualEncoderConfig> {
    let (vision, width, layers, vocab_size) = match name {
        "vit-s-16+text-6" => (vit(384, 12), 384, 6, 49408),
        "vit-tiny-16+text-2" => (vit(192, 2), 192, 2, 1000),
        _ => return unknown(name, &TRAIN),
    };
    Ok(DualEncoderConfig {
        model_type: clip::MODEL_TYPE,
        layout: Layout::HuggingFace,
        vision: Some(VisionEncoderConfig::Vit(vision)),
        text: Some(TextTowerConfig {
            vocab_size,
            max_position_embeddings: 77,
            hidden_size: width,
            intermediate_size: 4 * width,
            num_hidden_layers: layers,
            num_attention_heads: width / 64,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::Gelu,
            causal: true,
            layer_scale: None,
            pooling: TextPooling::LastPosition,
            projection_dim: Some(512),
            projection_bias: false,
        }),
        logits: Some(LogitsConfig {
            objective: Objective::Softmax,
            logit_scale: 2.659,
            logit_bias: None,
        }),
    })
}

/// Height and width of the pictures and sizes of the texts of [`dual_encoder`]'s models.
pub fn sizes(config: &DualEncoderConfig) -> ([usize; 2], &TextTowerConfig) {
    match (&config.vision, &config.text) {
        (Some(VisionEncoderConfig::Vit(vision)), Some(text)) => (vision.image_size, text),
        _ => unreachable!("models with two transformers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_for_a_valid_config() {
        for name in ENCODE {
            vision(name).unwrap().validate().unwrap();
        }
        for name in TRAIN {
            dual_encoder(name).unwrap().validate().unwrap();
        }
        assert!(
            vision("vit-b-17")
                .unwrap_err()
                .to_string()
                .contains("vit-b-16")
        );
    }
}
