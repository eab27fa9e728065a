//! The released names of ALBEF's parameters to ours.

use super::{AlbefConfig, AlbefTask};
use crate::encoders::{bert_head_rules, bert_rules, timm_vision_rules};
use vlm_nn::Interpolation;
use vlm_nn::weights::{Checkpoint, Error, Rule};

const HEADS: &[Rule] = &[
    Rule::Name("vision_proj.*", "vision_projection.*"),
    Rule::Name("text_proj.*", "text_projection.*"),
    Rule::Name("itm_head.*", "match_head.*"),
    Rule::Name("cls_head.0.*", "class_head.hidden.*"),
    Rule::Name("cls_head.2.*", "class_head.output.*"),
    Rule::Name("ta_head.*", "assignment_head.*"),
    Rule::Flatten("temp", "temperature"),
    Rule::Ignore("**.position_ids"),
];

/// What only training needs: copies of the encoders that follow them with momentum, and queues of their outputs.
const TRAINING: &[Rule] = &[
    Rule::Ignore("*_m.**"),
    Rule::Ignore("*_queue"),
    Rule::Ignore("queue_ptr"),
];

/// Whether the names are those of a released checkpoint.
pub fn is_original(checkpoint: &Checkpoint) -> bool {
    let bert = text_encoder(checkpoint);
    let has = |name: &str| checkpoint.contains(&format!("{bert}{name}"));
    // BLIP's BERT knows no segments, and its first layer looks at the picture
    checkpoint.contains("visual_encoder.cls_token")
        && has("embeddings.token_type_embeddings.weight")
        && !has("encoder.layer.0.crossattention.self.query.weight")
}

/// What the names of the text encoder begin with: pre-training has a head around it.
pub fn text_encoder(checkpoint: &Checkpoint) -> &'static str {
    const HEADED: &str = "text_encoder.bert.";
    let headed = checkpoint.tensors().any(|t| t.name.starts_with(HEADED));
    if headed { HEADED } else { "text_encoder." }
}

/// A released checkpoint with our names for its parameters, positions brought to the config's resolution, and whether
/// the output layer of a head is the table of word embeddings.
///
/// # Errors
/// Positions that cannot be brought to that resolution.
pub fn translated(
    checkpoint: Checkpoint,
    config: &AlbefConfig,
) -> Result<(Checkpoint, bool), Error> {
    let rules = [
        TRAINING,
        timm_vision_rules!("visual_encoder.", "vision."),
        HEADS,
        bert_rules!("text_encoder.bert.", "text."),
        bert_rules!("text_encoder.", "text."),
        bert_head_rules!("text_encoder.", "mlm_head."),
        &[Rule::Name(
            "text_encoder.cls.predictions.decoder.bias",
            "mlm_head.decoder.bias",
        )],
        bert_rules!("text_decoder.bert.", "decoder.bert."),
        bert_head_rules!("text_decoder.", "decoder.head."),
        &[Rule::Name(
            "text_decoder.cls.predictions.decoder.bias",
            "decoder.head.decoder.bias",
        )],
    ];
    let mut checkpoint = checkpoint.translated(&rules.concat());
    let grid = config.vision.grid().into();
    let (place, mode) = ("vision.position", Interpolation::Bicubic);
    checkpoint.interpolate_positions(place, 1, grid, mode, false)?;
    if config.task.reads_two_pictures() {
        // both layers of a pair have the same keys and values, and the second's are what is used
        for layer in (config.fusion_layer()..config.text.num_hidden_layers).step_by(2) {
            for kind in ["weight", "bias"] {
                let of = |layer| format!("text.layers.{layer}.cross.kv.{kind}");
                checkpoint.ignore_copy(&of(layer), &of(layer + 1));
            }
        }
    }
    let (words, head) = match config.task {
        AlbefTask::QuestionAnswering => ("decoder.bert.token.weight", "decoder.head"),
        _ => ("text.token.weight", "mlm_head"),
    };
    // stored twice, as PyTorch stores what is shared
    checkpoint.ignore_copy(&format!("{head}.decoder.bias"), &format!("{head}.bias"));
    let output = format!("{head}.decoder.weight");
    let tied = !checkpoint.contains(&output) || checkpoint.ignore_copy(&output, words);
    Ok((checkpoint, tied))
}

/// The momentum model of a released checkpoint under the names of the model that it follows, its queues, and nothing
/// else.
pub fn momentum(checkpoint: Checkpoint) -> Checkpoint {
    let mut checkpoint = checkpoint.translated(&[
        Rule::Name("visual_encoder_m.**", "visual_encoder.**"),
        Rule::Name("text_encoder_m.**", "text_encoder.**"),
        Rule::Name("text_decoder_m.**", "text_decoder.**"),
        Rule::Name("vision_proj_m.*", "vision_proj.*"),
        Rule::Name("text_proj_m.*", "text_proj.*"),
        Rule::Name("cls_head_m.*.*", "cls_head.*.*"),
        Rule::Transpose("image_queue", "queue.image"),
        Rule::Transpose("text_queue", "queue.text"),
        Rule::Flatten("idx_queue", "queue.index"),
        Rule::Name("queue_ptr", "queue.next"),
        Rule::Ignore("**"),
    ]);
    // integers, which a queue keeps as floats beside its vectors
    for name in ["queue.index", "queue.next"] {
        if let Ok((shape, values)) = checkpoint.take_integers(name) {
            let count: usize = shape.iter().product();
            let values = values.into_iter().map(|x| x as f32).collect();
            checkpoint.insert(name, &[count], values);
        }
    }
    checkpoint
}

/// What each task keeps of a pre-trained checkpoint, in the released names: every task has the encoders.
fn left_out(task: AlbefTask) -> &'static [Rule] {
    const CLASSES: &[Rule] = &[
        Rule::Ignore("text_encoder.cls.**"),
        Rule::Ignore("vision_proj.*"),
        Rule::Ignore("text_proj.*"),
        Rule::Ignore("itm_head.*"),
        Rule::Ignore("ta_head.*"),
        Rule::Ignore("temp"),
    ];
    match task {
        AlbefTask::Pretraining => &[],
        AlbefTask::Retrieval => &[Rule::Ignore("text_encoder.cls.**")],
        AlbefTask::QuestionAnswering => &[
            Rule::Ignore("vision_proj.*"),
            Rule::Ignore("text_proj.*"),
            Rule::Ignore("itm_head.*"),
            Rule::Ignore("temp"),
        ],
        AlbefTask::TextAssignment => &[
            Rule::Ignore("text_encoder.cls.**"),
            Rule::Ignore("itm_head.*"),
        ],
        AlbefTask::Nlvr | AlbefTask::Entailment => CLASSES,
    }
}

/// A pre-trained checkpoint, in the released names, as a model of another task starts from it: see
/// [`super::Albef::fine_tuned`].
pub fn fine_tuning(checkpoint: Checkpoint, config: &AlbefConfig, from: AlbefTask) -> Checkpoint {
    const LAYER: &str = "text_encoder.encoder.layer.";
    let mut checkpoint = checkpoint
        .translated(TRAINING)
        .translated(left_out(config.task));
    if config.task == AlbefTask::Pretraining {
        return checkpoint;
    }
    checkpoint = checkpoint.translated(&[
        Rule::Name("text_encoder.bert.**", "text_encoder.**"),
        Rule::Name("text_encoder.cls.**", "text_decoder.cls.**"),
    ]);
    let fusion = config.fusion_layer();
    let doubles = config.task.reads_two_pictures() && !from.reads_two_pictures();
    let answers = config.task == AlbefTask::QuestionAnswering;
    let names: Vec<String> = checkpoint.tensors().map(|t| t.name.to_owned()).collect();
    let mut copies = Vec::new();
    for name in names {
        let layer = name.strip_prefix(LAYER).and_then(|n| n.split_once('.'));
        let layer = layer.and_then(|(n, rest)| Some((n.parse::<usize>().ok()?, rest.to_owned())));
        let to = match layer {
            Some((n, rest)) if n >= fusion && doubles => {
                let first = fusion + 2 * (n - fusion);
                vec![
                    format!("{LAYER}{first}.{rest}"),
                    format!("{LAYER}{}.{rest}", first + 1),
                ]
            }
            Some((n, rest)) if n >= fusion && answers => {
                let own = format!("text_decoder.bert.encoder.layer.{}.{rest}", n - fusion);
                vec![name.clone(), own]
            }
            None if answers && name.starts_with("text_encoder.embeddings.") => {
                let own = name.replacen("text_encoder.", "text_decoder.bert.", 1);
                vec![name.clone(), own]
            }
            _ => continue,
        };
        // what is no float is of no use to a model, and stays where it is
        let mut one = checkpoint.clone();
        if let Ok((shape, values)) = one.take_any(&name) {
            checkpoint.ignore(&name);
            copies.push((to, shape, values));
        }
    }
    for (names, shape, values) in copies {
        for name in names {
            checkpoint.insert(&name, &shape, values.clone());
        }
    }
    checkpoint
}
