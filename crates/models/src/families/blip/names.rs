//! Published names of BLIP's parameters to ours, in both layouts.

use super::BlipConfig;
use crate::encoders::{bert_head_rules, bert_rules, timm_vision_rules};
use vlm_nn::weights::{Checkpoint, Rule};

/// What both layouts share.
const HEADS: &[Rule] = &[
    Rule::Name("vision_proj.*", "vision_projection.*"),
    Rule::Name("text_proj.*", "text_projection.*"),
    Rule::Name("itm_head.*", "match_head.*"),
    Rule::Ignore("**.position_ids"),
];

/// transformers' names of the picture encoder, and of what is only in `BlipModel`.
const PUBLISHED: &[Rule] = &[
    Rule::Squeeze("vision_model.embeddings.class_embedding", "vision.class"),
    Rule::Squeeze(
        "vision_model.embeddings.position_embedding",
        "vision.position",
    ),
    Rule::Flatten(
        "vision_model.embeddings.patch_embedding.weight",
        "vision.patch.weight",
    ),
    Rule::Name(
        "vision_model.embeddings.patch_embedding.bias",
        "vision.patch.bias",
    ),
    Rule::Name(
        "vision_model.encoder.layers.*.layer_norm1.*",
        "vision.blocks.*.norm1.*",
    ),
    Rule::Name(
        "vision_model.encoder.layers.*.self_attn.qkv.*",
        "vision.blocks.*.attn.qkv.*",
    ),
    Rule::Name(
        "vision_model.encoder.layers.*.self_attn.projection.*",
        "vision.blocks.*.attn.out.*",
    ),
    Rule::Name(
        "vision_model.encoder.layers.*.layer_norm2.*",
        "vision.blocks.*.norm2.*",
    ),
    Rule::Name(
        "vision_model.encoder.layers.*.mlp.*.*",
        "vision.blocks.*.mlp.*.*",
    ),
    Rule::Name("vision_model.post_layernorm.*", "vision.post_norm.*"),
    Rule::Name("visual_projection.*", "vision_projection.*"),
    Rule::Flatten("logit_scale", "logit_scale"),
];

/// The authors' names of what only training needs: copies of the encoders that follow them with momentum, and queues of
/// their outputs. Those of the picture encoder are timm's.
const ORIGINAL: &[Rule] = &[
    Rule::Flatten("temp", "temperature"),
    Rule::Ignore("visual_encoder_m.**"),
    Rule::Ignore("text_encoder_m.**"),
    Rule::Ignore("vision_proj_m.*"),
    Rule::Ignore("text_proj_m.*"),
    Rule::Ignore("image_queue"),
    Rule::Ignore("text_queue"),
    Rule::Ignore("idx_queue"),
    Rule::Ignore("ptr_queue"),
    Rule::Ignore("queue_ptr"),
];

/// Whether the names are those of the authors' own code.
pub fn is_original(checkpoint: &Checkpoint) -> bool {
    checkpoint.contains("visual_encoder.cls_token")
        && checkpoint.tensors().any(|tensor| {
            // ALBEF's layers below its fusion have no cross-attention
            tensor
                .name
                .ends_with("encoder.layer.0.crossattention.self.query.weight")
        })
}

/// A checkpoint of either layout with our names for its parameters, and whether the output layer of the decoder is its
/// table of word embeddings.
///
/// As in transformers, a config that ties the two means it only if the checkpoint does not hold both with different
/// values.
pub fn translated(checkpoint: Checkpoint, config: &BlipConfig) -> (Checkpoint, bool) {
    let vision = if checkpoint.contains("visual_encoder.cls_token") {
        ORIGINAL
    } else {
        PUBLISHED
    };
    let rules = [
        vision,
        timm_vision_rules!("visual_encoder.", "vision."),
        HEADS,
        bert_rules!("text_encoder.", "text."),
        // of `BlipModel`
        bert_rules!("text_model.", "text."),
        // after those, because of `text_projection`
        &[Rule::Name("text_projection.*", "text_projection.*")],
        bert_rules!("text_decoder.bert.", "decoder.bert."),
        bert_head_rules!("text_decoder.", "decoder.head."),
        &[Rule::Name(
            "text_decoder.cls.predictions.decoder.bias",
            "decoder.head.output_bias",
        )],
    ];
    let mut checkpoint = checkpoint.translated(&rules.concat());
    let (word, output) = ("decoder.bert.token.weight", "decoder.head.decoder.weight");
    let mut tied = config.tie_word_embeddings;
    if tied && checkpoint.contains(output) {
        if checkpoint.contains(word) {
            tied = checkpoint.ignore_copy(output, word);
        } else {
            checkpoint = checkpoint.translated(&[Rule::Name(
                "decoder.head.decoder.weight",
                "decoder.bert.token.weight",
            )]);
        }
    }
    // the bias is there once or twice, and the output layer's own is the one that is used
    if checkpoint.contains("decoder.head.output_bias") {
        checkpoint.ignore("decoder.head.bias");
        checkpoint =
            checkpoint.translated(&[Rule::Name("decoder.head.output_bias", "decoder.head.bias")]);
    }
    (checkpoint, tied)
}
