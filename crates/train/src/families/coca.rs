//! CoCa on pictures with captions or labels; on rendered scenes it learns more, see [`crate::coca_shapes`].

use super::parts::{Parts, Specials, Start, fill, panels, pictures};
use crate::Error;
use crate::learner::{Files, Learner, Losses, Measured};
use crate::log::Log;
use crate::plot::Panel;
use crate::set_recipe::SetRecipe;
use crate::source::{SetBatch, Wanted};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::json;
use std::sync::mpsc::Receiver;
use vlm_models::capability::Tokens;
use vlm_models::families::Model;
use vlm_models::families::coca::{Batch, Coca, CocaConfig, TextBatch};
use vlm_nn::weights::{Weights, collect};
use vlm_tasks::prompt::{SPECIALS, SpecialIds, plain_words};

const WORDS: Specials = Specials {
    first: &SPECIALS,
    last: &[],
    begin: "<caption>",
    end: "<eos>",
    plain: plain_words,
};

/// Target of a position that has nothing to be learned.
const IGNORE: i64 = -1;

/// A CoCa in training.
pub(crate) struct CocaLearner {
    parts: Parts,
    config: CocaConfig,
    special: SpecialIds,
}

impl CocaLearner {
    pub(crate) fn new(set: &SetRecipe, start: Start) -> Result<Self, Error> {
        let usual = "a picture of a {}";
        let mut parts = Parts::open(set, start, Wanted::Texts, usual, &WORDS)?;
        let tokens = parts.tokenizer.id_bound();
        fill(
            &mut parts.config,
            "text_config",
            &[("vocab_size", json!(tokens))],
        );
        let config = CocaConfig::parse(&parts.config.to_string())
            .map_err(|e| Error::file("recipe", format!("model: {e}")))?;
        let classes = &config.token_label_classes;
        if !classes.is_empty() {
            let reason = format!(
                "model.token_label_classes: expected [], as nothing says what the patches of these pictures show, found \
                 {classes:?}"
            );
            return Err(Error::file("recipe", reason));
        }
        parts.with_size([config.vision_config.image_size; 2])?;
        Ok(Self {
            special: SpecialIds::of(&parts.tokenizer)?,
            parts,
            config,
        })
    }

    /// Captions with what follows each token.
    fn captions(&self, texts: &[String], device: &Device) -> Result<TextBatch, Error> {
        let rows = texts.iter().map(|text| {
            let example = self.special.caption_example(&self.parts.tokenizer, text);
            Ok(example?.ids)
        });
        let rows: Vec<Vec<u32>> = rows.collect::<Result<_, Error>>()?;
        let width = rows.iter().map(Vec::len).max().unwrap_or(1);
        let following = rows
            .iter()
            .flat_map(|row| (1..=width).map(|i| row.get(i).map_or(IGNORE, |&id| i64::from(id))));
        let targets: Vec<i64> = following.collect();
        let shape = [rows.len(), width];
        let tensor = |values: Vec<i64>| -> Tensor<2, Int> {
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        let text = &self.config.text_config;
        let tokens = Tokens::padded(&rows, self.special.pad);
        Ok(TextBatch {
            ids: tokens.to_device(text.vocab_size, text.max_position_embeddings, device)?,
            target_count: targets.iter().filter(|&&t| t >= 0).count(),
            prompt_targets: tensor(vec![IGNORE; targets.len()]),
            targets: tensor(targets),
            prompt_target_count: 0,
            adjustment: None,
            lengths: rows.iter().map(Vec::len).collect(),
        })
    }
}

impl Learner for CocaLearner {
    type Model = Coca;
    type Batch = SetBatch;

    fn build(&self, weights: &mut Weights) -> Coca {
        Coca::new(weights, &self.config)
    }

    fn initial(&self, device: &Device) -> Result<(Coca, Option<String>), Error> {
        self.parts.initial(
            device,
            |weights| self.build(weights),
            |model| match model {
                Model::Coca(m) => Some(collect(m)),
                _ => None,
            },
        )
    }

    fn stream(&self, first: u64) -> Receiver<Result<SetBatch, Error>> {
        self.parts.stream(first)
    }

    fn loss(&self, model: &Coca, batch: &SetBatch, device: &Device) -> Result<Losses, Error> {
        let channels = self.config.vision_config.num_channels;
        let losses = model.loss(Batch {
            pixel_values: pictures(batch, device).fixed(channels)?,
            captions: self.captions(&batch.texts, device)?,
            questions: Vec::new(),
            token_labels: None,
            substitution: None,
        });
        Ok(Losses {
            total: losses.total,
            parts: vec![
                ("caption_loss", Some(losses.caption)),
                ("itc_loss", Some(losses.itc)),
            ],
        })
    }

    fn measure(&self, model: Coca) -> Result<Measured, Error> {
        let vlm = self.parts.vlm(Model::Coca(model))?;
        self.parts.measure_texts(&vlm)
    }

    fn files(&self) -> Result<Files, Error> {
        self.parts.files()
    }

    fn data_seed(&self) -> u64 {
        self.parts.recipe.data.seed
    }

    fn panels(&self, log: &Log) -> Vec<Panel> {
        let losses = [("captions", "caption_loss"), ("contrast", "itc_loss")];
        panels(log, &losses, &[])
    }
}
