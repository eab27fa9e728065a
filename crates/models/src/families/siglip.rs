//! SigLIP: CLIP with a sigmoid loss of every pair on its own (Zhai et al., "Sigmoid loss for language image
//! pre-training", 2023), and SigLIP 2 (Tschannen et al., 2025), whose checkpoints of a fixed resolution are SigLIP's;
//! see [`super::dual_encoder`] for the figure.
//!
//! Pictures are pooled by a learned query, texts at the last position, padding or not: they are padded to the longest
//! length. SigLIP 2 with pictures of any shape (NaFlex) takes patches with the shape of each picture.
//!
//! | Hugging Face class | `model_type` | halves |
//! |---|---|---|
//! | `SiglipModel`, `Siglip2Model` (NaFlex) | `siglip`, `siglip2` | both |
//! | `SiglipVisionModel`, `Siglip2VisionModel` | `siglip_vision_model`, `siglip2_vision_model` | pictures |
//! | `SiglipTextModel`, `Siglip2TextModel` | `siglip_text_model`, `siglip2_text_model` | text |

use super::clip::architecture;
use super::dual_encoder::{
    DualEncoderConfig, Layout, LogitsConfig, Objective, VisionEncoderConfig,
};
use crate::encoders::published::{Fields, TOWERS};
use crate::encoders::{TextPooling, TextTowerConfig, VisionPooling, VisionTowerConfig};
use crate::error::{Error, expect};
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Checkpoint, Rule};

/// Values of `model_type` in `config.json` that this family reads: the whole model, either half, and the same of
/// SigLIP 2.
pub const MODEL_TYPES: [&str; 6] = [
    "siglip",
    "siglip_vision_model",
    "siglip_text_model",
    "siglip2",
    "siglip2_vision_model",
    "siglip2_text_model",
];

/// A published checkpoint with our names for its parameters.
pub fn translated(checkpoint: Checkpoint) -> Checkpoint {
    let own = [
        Rule::Name("vision_model.head.probe", "vision.pool.probe"),
        Rule::Cut(
            "vision_model.head.attention.in_proj_weight",
            &[
                ("vision.pool.attn.q.weight", 1),
                ("vision.pool.attn.kv.weight", 2),
            ],
        ),
        Rule::Cut(
            "vision_model.head.attention.in_proj_bias",
            &[
                ("vision.pool.attn.q.bias", 1),
                ("vision.pool.attn.kv.bias", 2),
            ],
        ),
        Rule::Name(
            "vision_model.head.attention.out_proj.*",
            "vision.pool.attn.out.*",
        ),
        Rule::Name("vision_model.head.layernorm.*", "vision.pool.norm.*"),
        Rule::Name("vision_model.head.mlp.*.*", "vision.pool.mlp.*.*"),
        Rule::Name("text_model.head.*", "text.projection.*"),
    ];
    checkpoint.translated(&[TOWERS, &own].concat())
}

fn vision(fields: &Fields, naflex: bool) -> Result<VisionTowerConfig, Error> {
    let pooling = if fields.flag("vision_use_head", true)? {
        VisionPooling::Attention
    } else {
        VisionPooling::None
    };
    let mut config = VisionTowerConfig::published(
        fields,
        VisionTowerConfig {
            image_size: [224; 2],
            patch_size: 16,
            num_channels: 3,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            layer_norm_eps: 1e-6,
            hidden_act: Activation::GeluTanh,
            patch_bias: true,
            pre_norm: false,
            layer_scale: None,
            naflex,
            pooling,
            projection_dim: None,
        },
    )?;
    if naflex {
        let patches = fields.size("num_patches", 256)?;
        let name = fields.name("num_patches");
        let side = patches.isqrt();
        expect(side * side == patches, &name, "a square number", patches)?;
        config.image_size = [side.saturating_mul(config.patch_size); 2];
    }
    fields.finish()?;
    Ok(config)
}

fn text(fields: &Fields) -> Result<TextTowerConfig, Error> {
    let mut config = TextTowerConfig::published(
        fields,
        TextTowerConfig {
            vocab_size: 32000,
            max_position_embeddings: 64,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            layer_norm_eps: 1e-6,
            hidden_act: Activation::GeluTanh,
            causal: false,
            layer_scale: None,
            pooling: TextPooling::LastPosition,
            projection_dim: None,
            projection_bias: true,
        },
    )?;
    let projection = fields.optional_size("projection_size")?;
    config.projection_dim = Some(projection.unwrap_or(config.hidden_size));
    fields.finish()?;
    Ok(config)
}

/// Reads and validates a published `config.json` of any class of the family.
///
/// # Errors
/// A field of the wrong type, out of range, not understood, or that does not fit another.
pub fn parse(json: &str) -> Result<DualEncoderConfig, Error> {
    let json: serde_json::Value = serde_json::from_str(json)?;
    let fields = Fields::of(&json)?;
    let found = fields.text("model_type", "")?;
    let Some(model_type) = MODEL_TYPES.into_iter().find(|t| *t == found) else {
        return Err(Error::Config {
            place: "model_type".to_owned(),
            expected: MODEL_TYPES.join(" or "),
            found: format!("{found:?}"),
        });
    };
    let second = model_type.starts_with("siglip2");
    let class = if second { "Siglip2" } else { "Siglip" };
    let known = |part: &str| architecture(&fields, &[&format!("{class}{part}Model")]);
    let vit = |config| Some(VisionEncoderConfig::Vit(config));
    let (vision, text, logits) = if model_type.ends_with("_vision_model") {
        known("Vision")?;
        (vit(vision(&fields, second)?), None, None)
    } else if model_type.ends_with("_text_model") {
        known("Text")?;
        (None, Some(text(&fields)?), None)
    } else {
        known("")?;
        let logits = LogitsConfig {
            objective: Objective::Sigmoid,
            logit_scale: 10f32.ln(),
            logit_bias: Some(-10.0),
        };
        let vision = vision(&fields.part("vision_config")?, second)?;
        let text = text(&fields.part("text_config")?)?;
        fields.finish()?;
        (vit(vision), Some(text), Some(logits))
    };
    let config = DualEncoderConfig {
        model_type,
        layout: Layout::HuggingFace,
        vision,
        text,
        logits,
    };
    config.validate()?;
    Ok(config)
}
