//! NIC and its successor with attention: captions.

use super::parts::{Parts, Specials, Start, fill_in, id, panels, pictures, strings, whole_batches};
use crate::Error;
use crate::learner::{Files, Learner, Losses, Measured};
use crate::log::Log;
use crate::plot::Panel;
use crate::set_recipe::SetRecipe;
use crate::source::{SetBatch, Wanted};
use burn::tensor::Device;
use serde_json::{Value, json};
use std::sync::mpsc::Receiver;
use vlm_data::text::Tokenizer;
use vlm_models::families::Model;
use vlm_models::families::nic::{Nic, NicConfig};
use vlm_nn::Statistics;
use vlm_nn::weights::{Weights, collect};
use vlm_tasks::TextSide;

/// Padding is 0, as in the checkpoints that are read.
pub(super) const SPECIALS: Specials = Specials {
    first: &["<pad>", "<start>", "<end>", "<unk>"],
    last: &[],
    begin: "<start>",
    end: "<end>",
    plain: str::to_owned,
};

/// What a config says of a vocabulary with these tokens.
pub(super) fn of_vocabulary(t: &Tokenizer) -> [(&'static str, Value); 4] {
    [
        ("vocab_size", json!(t.id_bound())),
        ("bos_token_id", id(t, SPECIALS.begin)),
        ("eos_token_id", id(t, SPECIALS.end)),
        ("pad_token_id", id(t, "<pad>")),
    ]
}

/// A NIC in training.
pub(crate) struct NicLearner {
    parts: Parts,
    config: NicConfig,
    text: TextSide,
}

impl NicLearner {
    pub(crate) fn new(set: &SetRecipe, start: Start) -> Result<Self, Error> {
        let mut parts = Parts::open(set, start, Wanted::Texts, "a photo of a {}.", &SPECIALS)?;
        fill_in(&mut parts.config, &of_vocabulary(&parts.tokenizer));
        let config = NicConfig::parse(&parts.config.to_string())
            .map_err(|e| Error::file("recipe", format!("model: {e}")))?;
        whole_batches(set, "CNN")?;
        parts.with_size([config.image_size; 2])?;
        let model = Nic::new(&mut Weights::random(0, &Device::flex()), &config);
        let model = Model::Nic(Box::new(model));
        let text = TextSide::new(&set.name, parts.tokenizer.clone(), &model)?;
        Ok(Self {
            parts,
            config,
            text,
        })
    }
}

impl Learner for NicLearner {
    type Model = Nic;
    type Batch = SetBatch;

    fn build(&self, weights: &mut Weights) -> Nic {
        Nic::new(weights, &self.config).with_statistics(Statistics::Batch)
    }

    fn initial(&self, device: &Device) -> Result<(Nic, Option<String>), Error> {
        self.parts.initial(
            device,
            |weights| self.build(weights),
            |model| match model {
                Model::Nic(m) => Some(collect(&**m)),
                _ => None,
            },
        )
    }

    fn stream(&self, first: u64) -> Receiver<Result<SetBatch, Error>> {
        self.parts.stream(first)
    }

    fn loss(&self, model: &Nic, batch: &SetBatch, device: &Device) -> Result<Losses, Error> {
        let texts = self.text.tokens(&strings(&batch.texts))?;
        let losses = model.loss(&pictures(batch, device), &texts)?;
        Ok(Losses {
            total: losses.total,
            parts: vec![
                ("caption_loss", Some(losses.caption)),
                ("attention_loss", losses.attention),
            ],
        })
    }

    fn measure(&self, model: Nic) -> Result<Measured, Error> {
        let model = model.with_statistics(Statistics::Running);
        let vlm = self.parts.vlm(Model::Nic(Box::new(model)))?;
        self.parts.measure_captions(&vlm)
    }

    fn files(&self) -> Result<Files, Error> {
        self.parts.files()
    }

    fn data_seed(&self) -> u64 {
        self.parts.recipe.data.seed
    }

    fn panels(&self, log: &Log) -> Vec<Panel> {
        let losses = [
            ("captions", "caption_loss"),
            ("attention", "attention_loss"),
        ];
        panels(log, &losses, &[])
    }
}
