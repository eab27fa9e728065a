//! Oscar+ on regions that a detector has found before: pre-training, captions, answers, matching, and statements about two
//! pictures, as the config's `task` says.

use super::parts::{Parts, Specials, Start, empty_checkpoint, fill_in, id, panels, strings};
use crate::Error;
use crate::augment::Augment;
use crate::learner::{Files, Learner, Losses, Measured};
use crate::log::Log;
use crate::plot::Panel;
use crate::set_recipe::SetRecipe;
use crate::source::{SetBatch, Wanted};
use burn::tensor::Device;
use serde_json::{Value, json};
use std::sync::mpsc::Receiver;
use vlm_models::families::Model;
use vlm_models::families::oscar::{
    FAMILY, Oscar, OscarBatch, OscarClassifier, OscarConfig, OscarLoss, OscarTargets, OscarTask,
};
use vlm_nn::weights::{Weights, collect};
use vlm_tasks::{ModelFiles, PictureRegions, TextSide};

/// BERT's.
const SPECIALS: Specials = Specials {
    first: &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    last: &[],
    begin: "[CLS]",
    end: "[SEP]",
    plain: str::to_owned,
};

/// Pictures whose regions are looked at before the first step.
const EXAMINED: usize = 64;

/// An Oscar+ in training.
pub(crate) struct OscarLearner {
    parts: Parts,
    config: OscarConfig,
    text: TextSide,
}

fn refuse(reason: String) -> Error {
    Error::file("recipe", reason)
}

/// What a released model is, which its checkpoint and its file of answers tell and its config does not.
fn told(config: &mut Value, init: &ModelFiles) -> Result<(), Error> {
    let model = init.model(&Device::flex())?;
    let Model::Oscar(model) = model else {
        let found = format!("expected an oscar, found {}", model.family());
        return Err(Error::file(init.name(), found));
    };
    let c = model.config();
    let task = match c.task {
        OscarTask::Pretraining => "pretrain",
        OscarTask::Captioning => "captioning",
        OscarTask::Classification if c.num_labels == 2 && c.loss == OscarLoss::Classes => {
            "retrieval"
        }
        OscarTask::Classification => "vqa",
        OscarTask::Choice => "nlvr",
    };
    let classifier = match c.classifier {
        OscarClassifier::Linear => "linear",
        OscarClassifier::Mlp { .. } => "mlp",
    };
    let mut fields = vec![("task", json!(task)), ("classifier", json!(classifier))];
    if task == "vqa" {
        fields.push(("answers", json!(c.answers)));
        fields.push((
            "loss_type",
            json!(if c.loss == OscarLoss::Binary {
                "bce"
            } else {
                "xe"
            }),
        ));
    }
    fill_in(config, &fields);
    Ok(())
}

impl OscarLearner {
    pub(crate) fn new(set: &SetRecipe, mut start: Start) -> Result<Self, Error> {
        let wrong = |e: vlm_models::Error| refuse(format!("model: {e}"));
        if set.data.regions.is_empty() && set.data.detector.is_none() {
            return Err(refuse(
                "data.regions: expected files of regions for a model that reads them, as vlm detect --features and \
                 vlm world shapes --regions write them, or data.detector, found neither"
                    .to_owned(),
            ));
        }
        let of_texts = Augment {
            word_dropout: set.data.augment.word_dropout,
            ..Augment::default()
        };
        if set.data.augment != of_texts {
            return Err(refuse(
                "data.augment: expected nothing that changes pictures for a model that reads regions, found some"
                    .to_owned(),
            ));
        }
        if let (true, Some(init)) = (start.config.get("task").is_none(), &start.init)
            && set.model.is_empty()
        {
            told(&mut start.config, init)?;
        }
        let task = start.config.get("task").and_then(|t| t.as_str());
        let choices = start.config.get("num_choice").and_then(Value::as_u64);
        let wanted = match task {
            Some("vqa") => Wanted::Answers,
            Some("nlvr") if choices.is_none_or(|n| (1..=2).contains(&n)) => {
                Wanted::Statements(choices.unwrap_or(2) as usize)
            }
            Some("nlvr") => {
                return Err(refuse(format!(
                    "model.num_choice: expected 1 or 2 pictures, found {}",
                    choices.unwrap_or_default()
                )));
            }
            Some("pretrain" | "captioning" | "retrieval") => Wanted::Texts,
            _ => {
                return Err(refuse(format!(
                    "model.task: expected pretrain, captioning, vqa, retrieval or nlvr, found {}",
                    task.map_or("none".to_owned(), |t| format!("{t:?}"))
                )));
            }
        };
        let exchanges = matches!(task, Some("pretrain" | "retrieval"));
        if exchanges && set.train.batch_size < 2 {
            return Err(refuse(
                "train.batch_size: expected 2 or more, so that there are others to exchange texts and tags with, found 1"
                    .to_owned(),
            ));
        }
        let mut parts = Parts::open(set, start, wanted, "a photo of a {}.", &SPECIALS)?;
        let examined = parts.source.some_regions(EXAMINED)?;
        let t = &parts.tokenizer;
        let width = examined.first().map_or(0, PictureRegions::width);
        let mut fields = vec![
            ("model_type", json!(FAMILY)),
            ("vocab_size", json!(t.id_bound())),
            ("img_feature_dim", json!(width)),
            ("pad_token_id", id(t, "[PAD]")),
            ("cls_token_id", id(t, "[CLS]")),
            ("sep_token_id", id(t, "[SEP]")),
            ("mask_token_id", id(t, "[MASK]")),
        ];
        let answers = match wanted {
            Wanted::Answers => parts.source.answers(),
            _ => Vec::new(),
        };
        if wanted == Wanted::Answers {
            let given = parts.config.get("answers").and_then(Value::as_array);
            let count = given.map_or(answers.len(), Vec::len);
            fields.push(("num_labels", json!(count)));
            fields.push(("answers", json!(answers)));
        }
        fill_in(&mut parts.config, &fields);
        let config = OscarConfig::parse(&parts.config.to_string(), &empty_checkpoint()?);
        let config = config.map_err(wrong)?;
        let unknown = answers
            .iter()
            .find(|answer| !config.answers.contains(answer));
        if let Some(answer) = unknown {
            return Err(refuse(format!(
                "model.answers: expected every answer that is learned, found none for {answer:?}"
            )));
        }
        let device = Device::flex();
        let model = Oscar::new(
            &mut Weights::random(0, &device),
            &config,
            config.tie_weights,
        );
        let model = Model::Oscar(Box::new(model));
        let text = TextSide::new(&set.name, parts.tokenizer.clone(), &model)?;
        let unknown = parts.tokenizer.token_to_id("[UNK]");
        let mut tags: Vec<(&str, &str)> = Vec::new();
        for picture in &examined {
            PictureRegions::prepared(&[picture], config.img_feature_dim, &text, &device)?;
            let of_picture = picture.tags().into_iter();
            tags.extend(of_picture.map(|tag| (picture.regions.image.as_str(), tag)));
        }
        let detected = parts.source.detected_tags()?;
        tags.extend(detected.iter().map(|tag| ("data.detector", tag.as_str())));
        for (place, tag) in tags {
            if text.tags([tag])?.iter().any(|&id| Some(id) == unknown) {
                return Err(refuse(format!(
                    "data.tokenizer: expected a vocabulary that knows the tags of {place}, found none for {tag:?}; \
                     \"words\" makes a new one"
                )));
            }
        }
        Ok(Self {
            parts,
            config,
            text,
        })
    }

    fn targets(&self, batch: &SetBatch) -> Result<OscarTargets, Error> {
        if !batch.truths.is_empty() {
            return Ok(OscarTargets::Truths(batch.truths.clone()));
        }
        if batch.answers.is_empty() {
            return Ok(OscarTargets::Belong);
        }
        let known = &self.config.answers;
        let right = batch.answers.iter().map(|answer| {
            // all of them were looked up before the first step
            let place = known.iter().position(|known| known == answer);
            place.into_iter().map(|place| (place, 1.0)).collect()
        });
        Ok(OscarTargets::Answers(right.collect()))
    }
}

impl Learner for OscarLearner {
    type Model = Oscar;
    type Batch = SetBatch;

    fn build(&self, weights: &mut Weights) -> Oscar {
        Oscar::new(weights, &self.config, self.config.tie_weights)
    }

    fn initial(&self, device: &Device) -> Result<(Oscar, Option<String>), Error> {
        self.parts.initial(
            device,
            |weights| self.build(weights),
            |model| match model {
                Model::Oscar(m) => Some(collect(&**m)),
                _ => None,
            },
        )
    }

    fn stream(&self, first: u64) -> Receiver<Result<SetBatch, Error>> {
        self.parts.stream(first)
    }

    fn loss(&self, model: &Oscar, batch: &SetBatch, device: &Device) -> Result<Losses, Error> {
        let regions: Vec<&PictureRegions> = batch.regions.iter().collect();
        let width = self.config.img_feature_dim;
        // what is too long the model cuts, as the released commands do
        let texts = self.text.tokens_of_length(&strings(&batch.texts), None)?;
        let losses = model.batch_loss(&OscarBatch {
            pictures: PictureRegions::prepared(&regions, width, &self.text, device)?,
            texts,
            of: batch.pictures.clone(),
            targets: self.targets(batch)?,
            seed: batch.seed,
        })?;
        let parts = losses.parts.into_iter();
        Ok(Losses {
            total: losses.total,
            parts: parts.map(|(name, part)| (name, Some(part))).collect(),
        })
    }

    fn measure(&self, model: Oscar) -> Result<Measured, Error> {
        let vlm = self.parts.vlm(Model::Oscar(Box::new(model)))?;
        match self.config.task {
            OscarTask::Captioning => self.parts.measure_captions(&vlm),
            OscarTask::Choice => self.parts.measure_statements(&vlm),
            OscarTask::Classification if vlm.answers_questions() => {
                self.parts.measure_answers(&vlm)
            }
            OscarTask::Pretraining | OscarTask::Classification => self.parts.measure_matching(&vlm),
        }
    }

    fn files(&self) -> Result<Files, Error> {
        self.parts.files()
    }

    fn data_seed(&self) -> u64 {
        self.parts.recipe.data.seed
    }

    fn panels(&self, log: &Log) -> Vec<Panel> {
        let losses = [
            ("hidden words", "mlm"),
            ("contrast", "contrast"),
            ("captions", "caption_loss"),
            ("answers", "answers"),
            ("matching", "itm"),
            ("statements", "statements"),
        ];
        let scores = [
            ("VQA accuracy", "val.vqa_accuracy"),
            ("statements", "val.statement_accuracy"),
        ];
        panels(log, &losses, &scores)
    }
}

#[cfg(test)]
mod tests;
