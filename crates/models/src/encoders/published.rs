//! What the published CLIP-like checkpoints have in common: names of activations and of a block's parameters.

use crate::error::Error;
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
