//! What the published CLIP-like checkpoints have in common: fields of their configs, names of activations and of a
//! block's parameters.

use super::{TextTowerConfig, VisionTowerConfig};
use crate::error::Error;
use serde::{Deserialize, Deserializer};
use vlm_nn::ops::Activation;
use vlm_nn::weights::Rule;

/// The activation that a config's `hidden_act` names.
pub fn activation(place: &str, name: &str) -> Result<Activation, Error> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        "quick_gelu" => Ok(Activation::QuickGelu),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        _ => Err(Error::Config {
            place: place.to_owned(),
            expected: "gelu, gelu_pytorch_tanh, gelu_new, quick_gelu, relu, silu or swish"
                .to_owned(),
            found: format!("{name:?}"),
        }),
    }
}

/// A field that may be left out, but not be null.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// A struct of fields that may be left out.
macro_rules! published {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(#[serde(deserialize_with = "given")] $field: Option<$type>,)*
        }
    };
}

published!(
    /// `vision_config` of a published `config.json`.
    VisionJson {
        image_size: usize,
        patch_size: usize,
        num_channels: usize,
        hidden_size: usize,
        intermediate_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        layer_norm_eps: f64,
        hidden_act: String,
    }
);

published!(
    /// `text_config` of a published `config.json`.
    TextJson {
        vocab_size: usize,
        max_position_embeddings: usize,
        hidden_size: usize,
        intermediate_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        layer_norm_eps: f64,
        hidden_act: String,
    }
);

/// The activation of a config, or the default.
fn activation_or(
    place: &str,
    name: Option<String>,
    default: Activation,
) -> Result<Activation, Error> {
    name.map_or(Ok(default), |name| activation(place, &name))
}

impl VisionJson {
    /// The family's default with the fields that the file gives.
    pub fn over(self, default: VisionTowerConfig) -> Result<VisionTowerConfig, Error> {
        let d = default;
        Ok(VisionTowerConfig {
            image_size: self.image_size.unwrap_or(d.image_size),
            patch_size: self.patch_size.unwrap_or(d.patch_size),
            num_channels: self.num_channels.unwrap_or(d.num_channels),
            hidden_size: self.hidden_size.unwrap_or(d.hidden_size),
            intermediate_size: self.intermediate_size.unwrap_or(d.intermediate_size),
            num_hidden_layers: self.num_hidden_layers.unwrap_or(d.num_hidden_layers),
            num_attention_heads: self.num_attention_heads.unwrap_or(d.num_attention_heads),
            layer_norm_eps: self.layer_norm_eps.unwrap_or(d.layer_norm_eps),
            hidden_act: activation_or("vision_config.hidden_act", self.hidden_act, d.hidden_act)?,
            ..d
        })
    }
}

impl TextJson {
    /// As [`VisionJson::over`].
    pub fn over(self, default: TextTowerConfig) -> Result<TextTowerConfig, Error> {
        let d = default;
        Ok(TextTowerConfig {
            vocab_size: self.vocab_size.unwrap_or(d.vocab_size),
            max_position_embeddings: self
                .max_position_embeddings
                .unwrap_or(d.max_position_embeddings),
            hidden_size: self.hidden_size.unwrap_or(d.hidden_size),
            intermediate_size: self.intermediate_size.unwrap_or(d.intermediate_size),
            num_hidden_layers: self.num_hidden_layers.unwrap_or(d.num_hidden_layers),
            num_attention_heads: self.num_attention_heads.unwrap_or(d.num_attention_heads),
            layer_norm_eps: self.layer_norm_eps.unwrap_or(d.layer_norm_eps),
            hidden_act: activation_or("text_config.hidden_act", self.hidden_act, d.hidden_act)?,
            ..d
        })
    }
}

/// Embeddings, blocks and final norms of both towers; what differs between families is with the family.
pub const TOWERS: &[Rule] = &[
    Rule::Flatten(
        "vision_model.embeddings.patch_embedding.weight",
        "vision.patch.weight",
    ),
    Rule::Name(
        "vision_model.embeddings.patch_embedding.bias",
        "vision.patch.bias",
    ),
    Rule::Name(
        "vision_model.embeddings.position_embedding.weight",
        "vision.position",
    ),
    Rule::Name("vision_model.post_layernorm.*", "vision.post_norm.*"),
    Rule::Name("text_model.embeddings.token_embedding.*", "text.token.*"),
    Rule::Name(
        "text_model.embeddings.position_embedding.*",
        "text.position.*",
    ),
    Rule::Name("text_model.final_layer_norm.*", "text.post_norm.*"),
    Rule::Flatten("logit_scale", "logit_scale"),
    Rule::Name(
        "vision_model.encoder.layers.*.layer_norm1.*",
        "vision.blocks.*.norm1.*",
    ),
    Rule::Name(
        "vision_model.encoder.layers.*.layer_norm2.*",
        "vision.blocks.*.norm2.*",
    ),
    Rule::Name(
        "vision_model.encoder.layers.*.mlp.*.*",
        "vision.blocks.*.mlp.*.*",
    ),
    Rule::Stack(
        &[
            "vision_model.encoder.layers.*.self_attn.q_proj.*",
            "vision_model.encoder.layers.*.self_attn.k_proj.*",
            "vision_model.encoder.layers.*.self_attn.v_proj.*",
        ],
        "vision.blocks.*.attn.qkv.*",
    ),
    Rule::Name(
        "vision_model.encoder.layers.*.self_attn.out_proj.*",
        "vision.blocks.*.attn.out.*",
    ),
    Rule::Name(
        "text_model.encoder.layers.*.layer_norm1.*",
        "text.blocks.*.norm1.*",
    ),
    Rule::Name(
        "text_model.encoder.layers.*.layer_norm2.*",
        "text.blocks.*.norm2.*",
    ),
    Rule::Name(
        "text_model.encoder.layers.*.mlp.*.*",
        "text.blocks.*.mlp.*.*",
    ),
    Rule::Stack(
        &[
            "text_model.encoder.layers.*.self_attn.q_proj.*",
            "text_model.encoder.layers.*.self_attn.k_proj.*",
            "text_model.encoder.layers.*.self_attn.v_proj.*",
        ],
        "text.blocks.*.attn.qkv.*",
    ),
    Rule::Name(
        "text_model.encoder.layers.*.self_attn.out_proj.*",
        "text.blocks.*.attn.out.*",
    ),
];

#[cfg(test)]
mod tests {
    use crate::families::clip::ClipConfig;
    use crate::families::siglip::SiglipConfig;

    #[test]
    fn what_a_config_leaves_out_has_the_published_default_and_null_is_refused() {
        let clip =
            ClipConfig::parse(r#"{"model_type": "clip", "vision_config": {"patch_size": 16}}"#);
        let clip = clip.expect("defaults for the rest");
        assert_eq!((clip.vision.patch_size, clip.vision.image_size), (16, 224));
        assert_eq!((clip.text.hidden_size, clip.text.vocab_size), (512, 49408));
        let siglip = r#"{"model_type": "siglip", "text_config": {"projection_size": null}}"#;
        let siglip = SiglipConfig::parse(siglip).expect("a projection as wide as the text");
        assert_eq!(siglip.text.projection_dim, 768);
        for field in ["hidden_size", "hidden_act", "layer_norm_eps"] {
            for tower in ["vision_config", "text_config"] {
                let config = format!(r#"{{"{tower}": {{"{field}": null}}, "model_type": "clip"}}"#);
                let error = ClipConfig::parse(&config).expect_err(field).to_string();
                assert!(error.contains("null"), "{field}: {error}");
                let error = SiglipConfig::parse(&config.replace("clip", "siglip"));
                let error = error.expect_err(field).to_string();
                assert!(error.contains("null"), "{field}: {error}");
            }
        }
    }
}
