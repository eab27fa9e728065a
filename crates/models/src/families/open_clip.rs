//! CLIP and SigLIP as open_clip publishes them: `open_clip_config.json` with `model_cfg`, or that part alone, and
//! parameters under OpenAI's names (Ilharco et al., "OpenCLIP", 2021).
//!
//! Read are models of open_clip's own ViT and ResNet and of SigLIP's ViT from `timm`, with open_clip's own text
//! transformer. A model with an initial bias of the logits is trained with the sigmoid loss, any other with softmax.
//! What is not understood is refused by name: text towers from Hugging Face, other towers of `timm`, CoCa's pooler.

use super::clip::{OPENAI, OPENAI_RESNET, OPENAI_VIT};
use super::dual_encoder::{
    DualEncoderConfig, Layout, LogitsConfig, Objective, VisionEncoderConfig,
};
use crate::encoders::published::Fields;
use crate::encoders::{
    ModifiedResNetConfig, TextPooling, TextTowerConfig, VisionPooling, VisionTowerConfig,
};
use crate::error::{Error, expect};
use serde_json::Value;
use vlm_nn::ops::Activation;
use vlm_nn::position::{Interpolation, interpolate, square_side};
use vlm_nn::weights::{Checkpoint, Rule};

/// What [`DualEncoderConfig::model_type`] is for these models.
pub const MODEL_TYPE: &str = "open_clip";

/// The model's part of an open_clip config, if it is one: `model_cfg` of `open_clip_config.json`, or the whole file.
pub fn model_cfg(json: &Value) -> Option<&Value> {
    let own = |c: &Value| c.get("vision_cfg").is_some() && c.get("text_cfg").is_some();
    let cfg = json.get("model_cfg").unwrap_or(json);
    own(cfg).then_some(cfg)
}

fn refused<T>(place: String, expected: &str, found: impl ToString) -> Result<T, Error> {
    Err(Error::Config {
        place,
        expected: expected.to_owned(),
        found: found.to_string(),
    })
}

/// GELU, or what the fields make of it.
fn gelu(fields: &Fields, quick: bool) -> Result<Activation, Error> {
    let kwargs = fields.part("act_kwargs")?;
    let approximate = kwargs.text("approximate", "none")?;
    kwargs.finish_strictly()?;
    match (quick, approximate) {
        (true, "none") => Ok(Activation::QuickGelu),
        (false, "none") => Ok(Activation::Gelu),
        (false, "tanh") => Ok(Activation::GeluTanh),
        _ => refused(
            kwargs.name("approximate"),
            "none, or tanh without quick_gelu",
            approximate,
        ),
    }
}

fn eps(fields: &Fields) -> Result<f64, Error> {
    let kwargs = fields.part("norm_kwargs")?;
    let eps = kwargs.number("eps", 1e-5)?;
    kwargs.finish_strictly()?;
    Ok(eps)
}

/// The width of an MLP: the product, rounded down.
fn hidden(fields: &Fields, width: usize) -> Result<usize, Error> {
    Ok((width as f64 * fields.number("mlp_ratio", 4.0)?) as usize)
}

/// Which blocks: only the plain ones are understood; `block_type` may name them.
fn plain_blocks(fields: &Fields) -> Result<(), Error> {
    if fields.has("block_type") {
        let found = fields.text("block_type", "")?;
        // "custom" without any of its features, which are refused, computes the same under other names of MLPs
        expect(
            found == "default",
            &fields.name("block_type"),
            "\"default\"",
            format!("{found:?}"),
        )?;
    }
    Ok(())
}

fn vit(fields: &Fields, embed_dim: usize, quick_gelu: bool) -> Result<VisionTowerConfig, Error> {
    plain_blocks(fields)?;
    let hidden_size = fields.size("width", 768)?;
    let head_width = fields.size("head_width", 64)?;
    let name = fields.name("head_width");
    expect(
        (1..=hidden_size).contains(&head_width),
        &name,
        format!("1 to {hidden_size}"),
        head_width,
    )?;
    let after = fields.flag("final_ln_after_pool", false)?;
    let pooling = match (fields.text("pool_type", "tok")?, after) {
        ("tok", _) => VisionPooling::ClassToken,
        ("avg", true) => VisionPooling::MeanThenNorm,
        ("avg", false) => VisionPooling::NormThenMean,
        (other, _) => return refused(fields.name("pool_type"), "tok or avg", other),
    };
    let position = fields.text("pos_embed_type", "learnable")?;
    if position != "learnable" {
        return refused(fields.name("pos_embed_type"), "learnable", position);
    }
    // drops patches in training only; the options of the pooler count only if there is one
    fields.skip(&["patch_dropout", "attn_pooler_queries", "attn_pooler_heads"]);
    Ok(VisionTowerConfig {
        image_size: [fields.side("image_size", 224)?; 2],
        patch_size: fields.side("patch_size", 16)?,
        num_channels: 3,
        hidden_size,
        intermediate_size: hidden(fields, hidden_size)?,
        num_hidden_layers: fields.size("layers", 12)?,
        num_attention_heads: hidden_size / head_width,
        layer_norm_eps: eps(fields)?,
        hidden_act: gelu(fields, quick_gelu)?,
        patch_bias: false,
        pre_norm: !fields.flag("no_ln_pre", false)?,
        layer_scale: fields.optional_number("ls_init_value")?.map(|x| x as f32),
        naflex: false,
        pooling,
        projection_dim: Some(embed_dim),
    })
}

fn resnet(
    fields: &Fields,
    layers: &[Value],
    embed_dim: usize,
) -> Result<ModifiedResNetConfig, Error> {
    let whole = |v: &Value| v.as_u64().and_then(|x| usize::try_from(x).ok());
    let numbers: Option<Vec<usize>> = layers.iter().map(whole).collect();
    let Some(Ok(layers)) = numbers.map(<[usize; 4]>::try_from) else {
        let found = format!("{layers:?}");
        return refused(fields.name("layers"), "one or four whole numbers", found);
    };
    let width = fields.size("width", 64)?;
    let head_width = fields.size("head_width", 64)?;
    let features = width.saturating_mul(32);
    let name = fields.name("head_width");
    expect(
        (1..=features).contains(&head_width),
        &name,
        format!("1 to {features}"),
        head_width,
    )?;
    // only a ViT has these, and the published files give them all the same
    fields.skip(&["patch_size", "mlp_ratio", "patch_dropout"]);
    Ok(ModifiedResNetConfig {
        image_size: fields.side("image_size", 224)?,
        layers,
        width,
        heads: features / head_width,
        output_size: embed_dim,
    })
}

/// SigLIP's towers in `timm`: side of a patch, width, blocks, heads, width of the MLPs, activation.
fn siglip_tower(name: &str) -> Option<(usize, [usize; 4], Activation)> {
    let sizes = name.strip_prefix("vit_")?;
    let (size, rest) = sizes.split_once("_patch")?;
    let (patch, resolution) = rest.split_once("_siglip_")?;
    resolution.parse::<usize>().ok()?;
    let (sizes, activation) = match size {
        "base" => ([768, 12, 12, 3072], Activation::Gelu),
        "large" => ([1024, 24, 16, 4096], Activation::Gelu),
        "so400m" => ([1152, 27, 16, 4304], Activation::Gelu),
        "giantopt" => ([1536, 40, 16, 6144], Activation::GeluTanh),
        _ => return None,
    };
    Some((patch.parse().ok()?, sizes, activation))
}

fn timm(fields: &Fields, name: &str) -> Result<VisionTowerConfig, Error> {
    let Some((patch_size, [width, layers, heads, hidden], activation)) = siglip_tower(name) else {
        let expected = "a tower of SigLIP, such as vit_base_patch16_siglip_224";
        return refused(fields.name("timm_model_name"), expected, name);
    };
    for (field, expected) in [("timm_pool", "map"), ("timm_proj", "none")] {
        let found = fields.text(field, "")?;
        if found != expected {
            return refused(fields.name(field), expected, found);
        }
    }
    let resolution = name.rsplit('_').next().and_then(|side| side.parse().ok());
    // open_clip does not tell timm the size of pictures; the tower's own name does
    let stated = fields.side("image_size", 224)?;
    let image_size = resolution.unwrap_or(stated);
    expect(
        stated == image_size,
        &fields.name("image_size"),
        format!("{image_size}, as in {name}"),
        stated,
    )?;
    fields.skip(&[
        "timm_drop",
        "timm_drop_path",
        "patch_dropout",
        "timm_model_pretrained",
    ]);
    Ok(VisionTowerConfig {
        image_size: [image_size; 2],
        patch_size,
        num_channels: 3,
        hidden_size: width,
        intermediate_size: hidden,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        layer_norm_eps: 1e-6,
        hidden_act: activation,
        patch_bias: true,
        pre_norm: false,
        layer_scale: None,
        naflex: false,
        pooling: VisionPooling::Attention,
        projection_dim: None,
    })
}

fn text(fields: &Fields, embed_dim: usize, quick_gelu: bool) -> Result<TextTowerConfig, Error> {
    if fields.has("hf_model_name") {
        let found = fields.text("hf_model_name", "")?;
        let expected = "open_clip's own text transformer";
        return refused(fields.name("hf_model_name"), expected, found);
    }
    plain_blocks(fields)?;
    let hidden_size = fields.size("width", 512)?;
    let end = fields.size("eos_id", 2)?;
    let pooling = match fields.text("pool_type", "argmax")? {
        "argmax" => TextPooling::LargestId,
        "eos" => match u32::try_from(end) {
            Ok(end) => TextPooling::FirstOf(end),
            Err(_) => return refused(fields.name("eos_id"), "an id", end),
        },
        "last" => TextPooling::LastPosition,
        "first" => TextPooling::FirstPosition,
        other => {
            let expected = "argmax, eos, last or first";
            return refused(fields.name("pool_type"), expected, other);
        }
    };
    let projected = match fields.text("proj_type", "linear")? {
        "linear" => true,
        "none" => false,
        other => return refused(fields.name("proj_type"), "linear or none", other),
    };
    // the tokenizer's, and the padding that only a mask that this class never makes would look at
    fields.skip(&[
        "hf_tokenizer_name",
        "tokenizer_mode",
        "tokenizer_kwargs",
        "pad_id",
        "hf_model_pretrained",
        "hf_proj_type",
        "hf_pooler_type",
    ]);
    Ok(TextTowerConfig {
        vocab_size: fields.size("vocab_size", 49408)?,
        max_position_embeddings: fields.size("context_length", 77)?,
        hidden_size,
        intermediate_size: hidden(fields, hidden_size)?,
        num_hidden_layers: fields.size("layers", 12)?,
        num_attention_heads: fields.size("heads", 8)?,
        layer_norm_eps: eps(fields)?,
        hidden_act: gelu(fields, quick_gelu)?,
        causal: !fields.flag("no_causal_mask", false)?,
        layer_scale: fields.optional_number("ls_init_value")?.map(|x| x as f32),
        pooling,
        projection_dim: projected.then_some(embed_dim),
        projection_bias: projected && fields.flag("proj_bias", false)?,
    })
}

/// Reads and validates the model's part of an open_clip config, see [`model_cfg`].
///
/// # Errors
/// A field of the wrong type, out of range, not understood, or that does not fit another.
pub fn parse(model_cfg: &Value) -> Result<DualEncoderConfig, Error> {
    let fields = Fields::of(model_cfg)?;
    let embed_dim = fields.size("embed_dim", 512)?;
    let quick_gelu = fields.flag("quick_gelu", false)?;
    let vision_cfg = fields.part("vision_cfg")?;
    let vision = if vision_cfg.has("timm_model_name") {
        let name = vision_cfg.text("timm_model_name", "")?;
        VisionEncoderConfig::Vit(timm(&vision_cfg, name)?)
    } else if let Some(Value::Array(layers)) = vision_cfg.get("layers") {
        VisionEncoderConfig::ResNet(resnet(&vision_cfg, layers, embed_dim)?)
    } else {
        VisionEncoderConfig::Vit(vit(&vision_cfg, embed_dim, quick_gelu)?)
    };
    // what only matters where a tower of timm is named
    vision_cfg.skip(&[
        "timm_model_pretrained",
        "timm_pool",
        "timm_proj",
        "timm_drop",
        "timm_drop_path",
    ]);
    vision_cfg.finish_strictly()?;
    let text_cfg = fields.part("text_cfg")?;
    let text = text(&text_cfg, embed_dim, quick_gelu)?;
    text_cfg.finish_strictly()?;
    let bias = fields.optional_number("init_logit_bias")?;
    let objective = match bias {
        Some(_) => Objective::Sigmoid,
        None => Objective::Softmax,
    };
    let scale = fields.number("init_logit_scale", (1f64 / 0.07).ln())?;
    // the layout of the file, which its names tell, and the shape of one number
    fields.skip(&["custom_text", "nonscalar_logit_scale"]);
    fields.finish_strictly()?;
    let config = DualEncoderConfig {
        model_type: MODEL_TYPE,
        layout: Layout::OpenClip,
        vision: Some(vision),
        text: Some(text),
        logits: Some(LogitsConfig {
            objective,
            logit_scale: scale as f32,
            logit_bias: bias.map(|b| b as f32),
        }),
    };
    config.validate()?;
    Ok(config)
}

/// SigLIP's ViT under the names of `timm`.
const TIMM: &[Rule] = &[
    Rule::Flatten(
        "visual.trunk.patch_embed.proj.weight",
        "vision.patch.weight",
    ),
    Rule::Name("visual.trunk.patch_embed.proj.bias", "vision.patch.bias"),
    Rule::Squeeze("visual.trunk.pos_embed", "vision.position"),
    Rule::Name("visual.trunk.blocks.*.norm*.*", "vision.blocks.*.norm*.*"),
    Rule::Name(
        "visual.trunk.blocks.*.attn.qkv.*",
        "vision.blocks.*.attn.qkv.*",
    ),
    Rule::Name(
        "visual.trunk.blocks.*.attn.proj.*",
        "vision.blocks.*.attn.out.*",
    ),
    Rule::Name("visual.trunk.blocks.*.mlp.*.*", "vision.blocks.*.mlp.*.*"),
    Rule::Name("visual.trunk.norm.*", "vision.post_norm.*"),
    Rule::Name("visual.trunk.attn_pool.latent", "vision.pool.probe"),
    Rule::Name("visual.trunk.attn_pool.q.*", "vision.pool.attn.q.*"),
    Rule::Name("visual.trunk.attn_pool.kv.*", "vision.pool.attn.kv.*"),
    Rule::Name("visual.trunk.attn_pool.proj.*", "vision.pool.attn.out.*"),
    Rule::Name("visual.trunk.attn_pool.norm.*", "vision.pool.norm.*"),
    Rule::Name("visual.trunk.attn_pool.mlp.*.*", "vision.pool.mlp.*.*"),
];

/// A checkpoint with our names for its parameters, and its tables of positions for the config's sizes, as open_clip
/// interpolates them when they differ.
pub fn translated(mut checkpoint: Checkpoint, config: &DualEncoderConfig) -> Checkpoint {
    checkpoint.strip_prefix("module.");
    if checkpoint.contains("text.token_embedding.weight") {
        checkpoint = checkpoint.translated(&[Rule::Name("text.**", "**")]);
    }
    let resnet = matches!(config.vision, Some(VisionEncoderConfig::ResNet(_)));
    let visual = if resnet { OPENAI_RESNET } else { OPENAI_VIT };
    let mut checkpoint = checkpoint.translated(&[OPENAI, visual, TIMM].concat());
    if let Some(VisionEncoderConfig::Vit(vision)) = &config.vision {
        resize_vision(&mut checkpoint, vision);
    }
    if let Some(text) = &config.text {
        resize_text(&mut checkpoint, text);
    }
    checkpoint
}

/// The most entries of a table that is interpolated, lest a hostile config asks for unbounded memory.
const LARGEST_TABLE: usize = 1 << 28;

/// Replaces a table of `kept` rows and a grid by one of another grid, which `sizes` gives for the number of old places.
/// What does not fit stays, and is reported as a difference.
fn resize(
    checkpoint: &mut Checkpoint,
    name: &str,
    kept: usize,
    width: usize,
    sizes: impl Fn(usize) -> Option<[(usize, usize); 2]>,
    (mode, antialias): (Interpolation, bool),
) {
    let Some(&[rows, found]) = checkpoint.shape(name) else {
        return;
    };
    let places = rows.saturating_sub(kept);
    let Some([from, to]) = sizes(places).filter(|[from, to]| from != to) else {
        return;
    };
    let new = to.0.checked_mul(to.1).and_then(|n| n.checked_mul(width));
    let small = new.is_some_and(|n| (1..=LARGEST_TABLE).contains(&n));
    if places == 0 || found != width || !small {
        return;
    }
    if let Ok((_, values)) = checkpoint.take_any(name) {
        let resized = interpolate(&values, width, kept, from, to, mode, antialias);
        checkpoint.insert(name, &[kept + to.0 * to.1, width], resized);
    }
}

fn resize_vision(checkpoint: &mut Checkpoint, c: &VisionTowerConfig) {
    let classes = usize::from(c.pooling != VisionPooling::Attention);
    let to = c.grid().into();
    let sizes = |places| square_side(places).map(|side| [(side, side), to]);
    let mode = (Interpolation::Bicubic, true);
    let name = "vision.position";
    resize(checkpoint, name, classes, c.hidden_size, sizes, mode);
}

fn resize_text(checkpoint: &mut Checkpoint, c: &TextTowerConfig) {
    let to = c.max_position_embeddings;
    let sizes = |places| Some([(1, places), (1, to)]);
    let mode = (Interpolation::Bilinear, false);
    let name = "text.position.weight";
    resize(checkpoint, name, 0, c.hidden_size, sizes, mode);
}
