//! CLIP: contrastive language-image pre-training (Radford et al., "Learning transferable visual models from natural
//! language supervision", 2021), as Hugging Face and as OpenAI publish it; see [`super::dual_encoder`] for the figure
//! and [`super::open_clip`] for its third layout.
//!
//! | Hugging Face class | `model_type` | halves |
//! |---|---|---|
//! | `CLIPModel` | `clip` | both |
//! | `CLIPVisionModel`, `CLIPVisionModelWithProjection` | `clip_vision_model` | pictures |
//! | `CLIPTextModel`, `CLIPTextModelWithProjection` | `clip_text_model` | text |
//!
//! OpenAI's files hold no config: sizes are told by names and shapes.

use super::dual_encoder::{
    DualEncoderConfig, Layout, LogitsConfig, Objective, VisionEncoderConfig,
};
use crate::encoders::published::{Fields, TOWERS};
use crate::encoders::{
    ModifiedResNetConfig, TextPooling, TextTowerConfig, VisionPooling, VisionTowerConfig,
};
use crate::error::{Error, expect};
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Checkpoint, Rule};

/// `model_type` of the whole model in `config.json`.
pub const MODEL_TYPE: &str = "clip";
/// That of the picture half.
pub const VISION_MODEL_TYPE: &str = "clip_vision_model";
/// That of the text half.
pub const TEXT_MODEL_TYPE: &str = "clip_text_model";

/// Logarithm of 1 / 0.07, as OpenAI's model starts.
const LOGIT_SCALE: f64 = 2.6592;

/// A Hugging Face checkpoint with our names for its parameters.
pub fn translated(checkpoint: Checkpoint) -> Checkpoint {
    let own = [
        Rule::Name("vision_model.embeddings.class_embedding", "vision.class"),
        Rule::Name("vision_model.pre_layrnorm.*", "vision.pre_norm.*"),
        Rule::Name("visual_projection.*", "vision.projection.*"),
        Rule::Name("text_projection.*", "text.projection.*"),
    ];
    checkpoint.translated(&[TOWERS, &own].concat())
}

/// The class that a config names, which must be one of `known`.
pub(super) fn architecture(fields: &Fields, known: &[&str]) -> Result<Option<String>, Error> {
    let name = fields.get("architectures").and_then(|list| list.get(0));
    let Some(name) = name.and_then(|name| name.as_str()) else {
        return Ok(None);
    };
    expect(
        known.contains(&name),
        "architectures",
        known.join(" or "),
        name,
    )?;
    Ok(Some(name.to_owned()))
}

fn vision(fields: &Fields, projection_dim: Option<usize>) -> Result<VisionTowerConfig, Error> {
    let config = VisionTowerConfig::published(
        fields,
        VisionTowerConfig {
            image_size: [224; 2],
            patch_size: 32,
            num_channels: 3,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
            patch_bias: false,
            pre_norm: true,
            layer_scale: None,
            naflex: false,
            pooling: VisionPooling::ClassToken,
            projection_dim,
        },
    )?;
    fields.finish()?;
    Ok(config)
}

fn text(fields: &Fields, projection_dim: Option<usize>) -> Result<TextTowerConfig, Error> {
    // configs written before July 2023 have an id that is not the tokenizer's
    const WRONG_END: usize = 2;
    let end = fields.size("eos_token_id", 49407)?;
    let pooling = match u32::try_from(end) {
        Ok(end) if end as usize != WRONG_END => TextPooling::FirstOf(end),
        _ => TextPooling::LargestId,
    };
    let config = TextTowerConfig::published(
        fields,
        TextTowerConfig {
            vocab_size: 49408,
            max_position_embeddings: 77,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
            causal: true,
            layer_scale: None,
            pooling,
            projection_dim,
            projection_bias: false,
        },
    )?;
    fields.finish()?;
    Ok(config)
}

/// Reads and validates a published `config.json` of any class of the family. A half has a projection if its class says
/// so.
///
/// # Errors
/// A field of the wrong type, out of range, not understood, or that does not fit another.
pub fn parse(json: &str) -> Result<DualEncoderConfig, Error> {
    let json: serde_json::Value = serde_json::from_str(json)?;
    let fields = Fields::of(&json)?;
    let config = match fields.text("model_type", "")? {
        MODEL_TYPE => {
            architecture(&fields, &["CLIPModel"])?;
            // the older fields win over the newer ones, as a whole
            let part = |old, new| {
                let (old, new) = (fields.part(old)?, fields.part(new)?);
                Ok::<_, Error>(if old.is_given() { old } else { new })
            };
            let e = Some(fields.size("projection_dim", 512)?);
            let config = DualEncoderConfig {
                model_type: MODEL_TYPE,
                layout: Layout::HuggingFace,
                vision: Some(VisionEncoderConfig::Vit(vision(
                    &part("vision_config_dict", "vision_config")?,
                    e,
                )?)),
                text: Some(text(&part("text_config_dict", "text_config")?, e)?),
                logits: Some(LogitsConfig {
                    objective: Objective::Softmax,
                    logit_scale: fields.number("logit_scale_init_value", LOGIT_SCALE)? as f32,
                    logit_bias: None,
                }),
            };
            fields.finish()?;
            config
        }
        VISION_MODEL_TYPE => {
            let known = ["CLIPVisionModelWithProjection", "CLIPVisionModel"];
            let projected = architecture(&fields, &known)?.is_some_and(|a| a == known[0]);
            let e = fields.size("projection_dim", 512)?;
            let vision = vision(&fields, projected.then_some(e))?;
            DualEncoderConfig {
                model_type: VISION_MODEL_TYPE,
                layout: Layout::HuggingFace,
                vision: Some(VisionEncoderConfig::Vit(vision)),
                text: None,
                logits: None,
            }
        }
        TEXT_MODEL_TYPE => {
            let known = ["CLIPTextModelWithProjection", "CLIPTextModel"];
            let projected = architecture(&fields, &known)?.is_some_and(|a| a == known[0]);
            let e = fields.size("projection_dim", 512)?;
            DualEncoderConfig {
                model_type: TEXT_MODEL_TYPE,
                layout: Layout::HuggingFace,
                vision: None,
                text: Some(text(&fields, projected.then_some(e))?),
                logits: None,
            }
        }
        other => {
            let known = [MODEL_TYPE, VISION_MODEL_TYPE, TEXT_MODEL_TYPE].join(" or ");
            return Err(Error::Config {
                place: "model_type".to_owned(),
                expected: known,
                found: format!("{other:?}"),
            });
        }
    };
    config.validate()?;
    Ok(config)
}

/// Text parameters and blocks of both towers under OpenAI's names.
pub(super) const OPENAI: &[Rule] = &[
    Rule::Name("token_embedding.weight", "text.token.weight"),
    Rule::Name("positional_embedding", "text.position.weight"),
    Rule::Name("transformer.resblocks.*.ln_*.*", "text.blocks.*.norm*.*"),
    Rule::Name(
        "transformer.resblocks.*.attn.in_proj_*",
        "text.blocks.*.attn.qkv.*",
    ),
    Rule::Name(
        "transformer.resblocks.*.attn.out_proj.*",
        "text.blocks.*.attn.out.*",
    ),
    Rule::Name(
        "transformer.resblocks.*.mlp.c_fc.*",
        "text.blocks.*.mlp.fc1.*",
    ),
    Rule::Name(
        "transformer.resblocks.*.mlp.c_proj.*",
        "text.blocks.*.mlp.fc2.*",
    ),
    Rule::Name("transformer.resblocks.*.ls_*.gamma", "text.blocks.*.scale*"),
    Rule::Name("ln_final.*", "text.post_norm.*"),
    Rule::Transpose("text_projection", "text.projection.weight"),
    Rule::Name("text_projection.*", "text.projection.*"),
    Rule::Flatten("logit_scale", "logit_scale"),
    Rule::Flatten("logit_bias", "logit_bias"),
    // numbers and masks that some versions store beside the parameters
    Rule::Ignore("input_resolution"),
    Rule::Ignore("context_length"),
    Rule::Ignore("vocab_size"),
    Rule::Ignore("**.attn_mask"),
    Rule::Ignore("**.num_batches_tracked"),
];

/// Parameters of the ViT under OpenAI's names.
pub(super) const OPENAI_VIT: &[Rule] = &[
    Rule::Flatten("visual.conv1.weight", "vision.patch.weight"),
    Rule::Name("visual.class_embedding", "vision.class"),
    Rule::Name("visual.positional_embedding", "vision.position"),
    Rule::Name("visual.ln_pre.*", "vision.pre_norm.*"),
    Rule::Name("visual.ln_post.*", "vision.post_norm.*"),
    Rule::Transpose("visual.proj", "vision.projection.weight"),
    Rule::Name(
        "visual.transformer.resblocks.*.ln_*.*",
        "vision.blocks.*.norm*.*",
    ),
    Rule::Name(
        "visual.transformer.resblocks.*.attn.in_proj_*",
        "vision.blocks.*.attn.qkv.*",
    ),
    Rule::Name(
        "visual.transformer.resblocks.*.attn.out_proj.*",
        "vision.blocks.*.attn.out.*",
    ),
    Rule::Name(
        "visual.transformer.resblocks.*.mlp.c_fc.*",
        "vision.blocks.*.mlp.fc1.*",
    ),
    Rule::Name(
        "visual.transformer.resblocks.*.mlp.c_proj.*",
        "vision.blocks.*.mlp.fc2.*",
    ),
    Rule::Name(
        "visual.transformer.resblocks.*.ls_*.gamma",
        "vision.blocks.*.scale*",
    ),
];

/// Parameters of the ResNet under OpenAI's names.
pub(super) const OPENAI_RESNET: &[Rule] = &[
    Rule::Ignore("**.num_batches_tracked"),
    Rule::Name("visual.conv*.*", "resnet.conv*.*"),
    Rule::Name("visual.bn*.*", "resnet.norm*.*"),
    Rule::Name("visual.layer*.*.conv*.*", "resnet.layer*.*.conv*.*"),
    Rule::Name("visual.layer*.*.bn*.*", "resnet.layer*.*.norm*.*"),
    Rule::Name(
        "visual.layer*.*.downsample.0.*",
        "resnet.layer*.*.shortcut.conv.*",
    ),
    Rule::Name(
        "visual.layer*.*.downsample.1.*",
        "resnet.layer*.*.shortcut.norm.*",
    ),
    Rule::Name(
        "visual.attnpool.positional_embedding",
        "resnet.pool.position",
    ),
    Rule::Name("visual.attnpool.q_proj.*", "resnet.pool.q.*"),
    Rule::Stack(
        &["visual.attnpool.k_proj.*", "visual.attnpool.v_proj.*"],
        "resnet.pool.kv.*",
    ),
    Rule::Name("visual.attnpool.c_proj.*", "resnet.pool.out.*"),
];

/// Whether a checkpoint has the names of OpenAI's files.
pub fn is_openai(checkpoint: &Checkpoint) -> bool {
    let visual = ["visual.proj", "visual.attnpool.c_proj.weight"];
    [
        "token_embedding.weight",
        "text_projection",
        "ln_final.weight",
    ]
    .iter()
    .all(|name| checkpoint.contains(name))
        && visual.iter().any(|name| checkpoint.contains(name))
}

/// The config that the names and shapes of OpenAI's files tell, as `clip.model.build_model` reads them.
///
/// # Errors
/// Shapes that fit no such model.
pub fn openai_config(checkpoint: &Checkpoint) -> Result<DualEncoderConfig, Error> {
    let dim = |name: &str, axis: usize| {
        let shape = checkpoint.shape(name);
        let found = shape.and_then(|s| s.get(axis).copied());
        found.ok_or_else(|| Error::Config {
            place: name.to_owned(),
            expected: format!("a tensor of more than {axis} dimensions"),
            found: format!("{shape:?}"),
        })
    };
    // heads are 64 wide in all of these models
    let heads = |place: &str, width: usize| {
        expect(width >= 64, place, "a width of at least 64", width)?;
        Ok::<_, Error>(width / 64)
    };
    let root = |place: &str, count: usize| {
        let side = count.isqrt();
        expect(side * side == count, place, "a square and one", count + 1)?;
        Ok::<_, Error>(side)
    };
    let blocks = |prefix: &str, part: usize| {
        let of_block = checkpoint.tensors().filter(|t| t.name.starts_with(prefix));
        let numbers = of_block.filter_map(|t| t.name.split('.').nth(part));
        numbers.collect::<std::collections::BTreeSet<_>>().len()
    };
    let embed_dim = dim("text_projection", 1)?;
    let vision = if checkpoint.contains("visual.proj") {
        let hidden_size = dim("visual.conv1.weight", 0)?;
        let patch_size = dim("visual.conv1.weight", 3)?;
        let positions = "visual.positional_embedding";
        let grid = root(positions, dim(positions, 0)?.saturating_sub(1))?;
        VisionEncoderConfig::Vit(VisionTowerConfig {
            image_size: [patch_size * grid; 2],
            patch_size,
            num_channels: 3,
            hidden_size,
            intermediate_size: 4 * hidden_size,
            num_hidden_layers: blocks("visual.transformer.resblocks.", 3),
            num_attention_heads: heads("visual.conv1.weight", hidden_size)?,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
            patch_bias: false,
            pre_norm: true,
            layer_scale: None,
            naflex: false,
            pooling: VisionPooling::ClassToken,
            projection_dim: Some(embed_dim),
        })
    } else {
        let width = dim("visual.layer1.0.conv1.weight", 0)?;
        let positions = "visual.attnpool.positional_embedding";
        let grid = root(positions, dim(positions, 0)?.saturating_sub(1))?;
        let layers = [1, 2, 3, 4].map(|i| blocks(&format!("visual.layer{i}."), 2));
        VisionEncoderConfig::ResNet(ModifiedResNetConfig {
            image_size: 32 * grid,
            layers,
            width,
            heads: heads("visual.layer1.0.conv1.weight", 32 * width)?,
            output_size: embed_dim,
        })
    };
    let hidden_size = dim("ln_final.weight", 0)?;
    let config = DualEncoderConfig {
        model_type: MODEL_TYPE,
        layout: Layout::OpenClip,
        vision: Some(vision),
        text: Some(TextTowerConfig {
            vocab_size: dim("token_embedding.weight", 0)?,
            max_position_embeddings: dim("positional_embedding", 0)?,
            hidden_size,
            intermediate_size: 4 * hidden_size,
            num_hidden_layers: blocks("transformer.resblocks.", 2),
            num_attention_heads: heads("ln_final.weight", hidden_size)?,
            layer_norm_eps: 1e-5,
            hidden_act: Activation::QuickGelu,
            causal: true,
            layer_scale: None,
            pooling: TextPooling::LargestId,
            projection_dim: Some(embed_dim),
            projection_bias: false,
        }),
        logits: Some(LogitsConfig {
            objective: Objective::Softmax,
            logit_scale: LOGIT_SCALE as f32,
            logit_bias: None,
        }),
    };
    config.validate()?;
    Ok(config)
}

/// OpenAI's checkpoint with our names for its parameters.
pub fn openai_translated(checkpoint: Checkpoint) -> Checkpoint {
    let visual = if checkpoint.contains("visual.proj") {
        OPENAI_VIT
    } else {
        OPENAI_RESNET
    };
    checkpoint.translated(&[OPENAI, visual].concat())
}
