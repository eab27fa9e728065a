//! Names of captioners' checkpoints. No one packages them; two PyTorch layouts are in wide use:
//!
//! | layout | encoder | decoder |
//! |---|---|---|
//! | yunjey/pytorch-tutorial, `image_captioning` | `resnet.N` (children without the last), `linear`, `bn` | `embed`, `lstm.weight_ih_lI`, `linear` |
//! | sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning | `resnet.N` (children without the last two) | `attention.encoder_att`, `embedding`, `decode_step`, `init_h`, `init_c`, `f_beta`, `fc` |
//!
//! Both keep encoder and decoder apart, in two files or under two keys; here their names begin with `encoder.` and
//! `decoder.`. What neither has is named alike: `decoder.gru` for `decoder.lstm`, `encoder.vgg.features.N` for
//! `encoder.resnet`.

use crate::encoders::cnn::torchvision_names;
use vlm_nn::weights::{Checkpoint, Rule};

const RULES: &[Rule] = &[
    Rule::Ignore("**.num_batches_tracked"),
    Rule::Name("encoder.bn.*", "encoder.norm.*"),
    Rule::Name("decoder.embed.weight", "decoder.embed.weight"),
    Rule::Name(
        "decoder.lstm.weight_ih_l*",
        "decoder.rnn.layers.*.ih.weight",
    ),
    Rule::Name(
        "decoder.lstm.weight_hh_l*",
        "decoder.rnn.layers.*.hh.weight",
    ),
    Rule::Name("decoder.lstm.bias_ih_l*", "decoder.rnn.layers.*.ih.bias"),
    Rule::Name("decoder.lstm.bias_hh_l*", "decoder.rnn.layers.*.hh.bias"),
    Rule::Name("decoder.gru.weight_ih_l*", "decoder.rnn.layers.*.ih.weight"),
    Rule::Name("decoder.gru.weight_hh_l*", "decoder.rnn.layers.*.hh.weight"),
    Rule::Name("decoder.gru.bias_ih_l*", "decoder.rnn.layers.*.ih.bias"),
    Rule::Name("decoder.gru.bias_hh_l*", "decoder.rnn.layers.*.hh.bias"),
    Rule::Name("decoder.linear.*", "decoder.head.*"),
    Rule::Name("decoder.attention.*.*", "attention.*.*"),
    Rule::Name("decoder.embedding.weight", "attention.embed.weight"),
    Rule::Name("decoder.decode_step.weight_*", "attention.cell.*.weight"),
    Rule::Name("decoder.decode_step.bias_*", "attention.cell.*.bias"),
    Rule::Name("decoder.init_h.*", "attention.init_h.*"),
    Rule::Name("decoder.init_c.*", "attention.init_c.*"),
    Rule::Name("decoder.f_beta.*", "attention.f_beta.*"),
    Rule::Name("decoder.fc.*", "attention.head.*"),
];

/// Whether a checkpoint has the names of one of the layouts.
pub fn is_original(checkpoint: &Checkpoint) -> bool {
    let encoder = ["encoder.resnet.0.weight", "encoder.vgg.features.0.weight"];
    let decoder = [
        "decoder.lstm.weight_ih_l0",
        "decoder.gru.weight_ih_l0",
        "decoder.decode_step.weight_ih",
    ];
    let any = |names: &[&str]| names.iter().any(|name| checkpoint.contains(name));
    any(&encoder) && any(&decoder)
}

/// A checkpoint with our names for its tensors.
pub fn translated(checkpoint: Checkpoint) -> Checkpoint {
    let checkpoint = checkpoint.translated(RULES);
    let checkpoint = torchvision_names(checkpoint, "encoder.resnet.", "encoder.cnn.");
    torchvision_names(checkpoint, "encoder.vgg.", "encoder.cnn.")
}
