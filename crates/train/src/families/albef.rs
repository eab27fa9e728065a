//! ALBEF: pre-training, retrieval, question answering, and statements about one picture or two, as the config's `task`
//! says.

use super::parts::{Parts, Specials, Start, fill, id, panels, pictures, strings};
use crate::Error;
use crate::learner::{Files, Learner, Losses, Measured};
use crate::log::Log;
use crate::plot::Panel;
use crate::set_recipe::SetRecipe;
use crate::source::{SetBatch, Wanted};
use burn::tensor::Device;
use serde_json::json;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, MutexGuard};
use vlm_models::capability::Tokens;
use vlm_models::families::Model;
use vlm_models::families::albef::{
    Albef, AlbefBatch, AlbefConfig, AlbefTask, AnswerBatch, Features, Momentum, Negatives,
    PairBatch, StatementBatch,
};
use vlm_models::objectives::{MlmMasking, alpha_ramp, mask_tokens};
use vlm_nn::weights::{Checkpoint, StoreDtype, Weights, collect, to_bytes};
use vlm_tasks::TextSide;

const SPECIALS: Specials = Specials {
    first: &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    last: &[],
    begin: "[CLS]",
    end: "[SEP]",
    plain: vlm_tasks::cleaned,
};

/// Name of the file with the momentum model and its queues.
const MOMENTUM: &str = "momentum.safetensors";

/// An ALBEF in training.
pub(crate) struct AlbefLearner {
    parts: Parts,
    config: AlbefConfig,
    text: TextSide,
    following: Mutex<Following>,
}

/// What follows the model from step to step.
#[derive(Default)]
struct Following {
    momentum: Option<Momentum>,
    alpha: f32,
    /// What the batches of the step put into the queues, with their seeds, which order them.
    features: Vec<(u64, Features)>,
}

impl AlbefLearner {
    pub(crate) fn new(set: &SetRecipe, start: Start) -> Result<Self, Error> {
        let wrong = |e: vlm_models::Error| Error::file("recipe", format!("model: {e}"));
        let task = start.config.get("task").and_then(|t| t.as_str());
        let wanted = match task {
            Some("vqa") => Wanted::Answers,
            Some("nlvr") => Wanted::Statements(2),
            Some("ve") => Wanted::Statements(1),
            Some("pretrain" | "retrieval") => Wanted::Texts,
            _ => {
                let reason = format!(
                    "model.task: expected pretrain, retrieval, vqa, nlvr or ve, found {task:?}"
                );
                return Err(Error::file("recipe", reason));
            }
        };
        let mut parts = Parts::open(set, start, wanted, "a photo of a {}.", &SPECIALS)?;
        let t = &parts.tokenizer;
        let fields = [
            ("vocab_size", json!(t.id_bound())),
            ("pad_token_id", id(t, "[PAD]")),
            ("cls_token_id", id(t, "[CLS]")),
            ("sep_token_id", id(t, "[SEP]")),
            ("mask_token_id", id(t, "[MASK]")),
        ];
        fill(&mut parts.config, "bert_config", &fields);
        let config = AlbefConfig::parse(&parts.config.to_string(), None).map_err(wrong)?;
        parts.with_size(config.vision.image_size)?;
        let model = Albef::new(&mut Weights::random(0, &Device::flex()), &config);
        let model = Model::Albef(Box::new(model));
        let text = TextSide::new(&set.name, parts.tokenizer.clone(), &model)?;
        Ok(Self {
            parts,
            config,
            text,
            following: Mutex::default(),
        })
    }

    fn following(&self) -> MutexGuard<'_, Following> {
        let lock = self.following.lock();
        lock.unwrap_or_else(|broken| broken.into_inner())
    }

    /// Whether a momentum model teaches or fills queues.
    fn follows(&self) -> bool {
        let contrasts = self.config.task.has_shared_space() && self.config.queue_size > 0;
        self.config.distill || contrasts
    }

    fn batch(&self, batch: &SetBatch, device: &Device) -> Result<AlbefBatch, Error> {
        let texts = self.text.tokens(&strings(&batch.texts))?;
        let pictures = pictures(batch, device);
        let c = &self.config;
        Ok(match c.task {
            AlbefTask::QuestionAnswering => {
                let answers: Vec<Vec<u32>> = batch
                    .answers
                    .iter()
                    .map(|answer| {
                        Ok([self.text.answer_prompt(), self.text.answer(answer)?].concat())
                    })
                    .collect::<Result<_, Error>>()?;
                let count = batch.texts.len();
                AlbefBatch::Answers(AnswerBatch {
                    pictures,
                    places: batch.pictures.clone(),
                    questions: texts,
                    answers: Tokens::padded(&answers, c.pad_token_id),
                    counts: vec![1; count],
                    weights: vec![1.0; count],
                })
            }
            AlbefTask::Nlvr | AlbefTask::Entailment => {
                let truth = c.task.classes().map_or(1, |classes| classes.len() - 1);
                let labels = batch.truths.iter();
                AlbefBatch::Statements(StatementBatch {
                    pictures,
                    texts,
                    labels: labels.map(|&t| if t { truth } else { 0 }).collect(),
                })
            }
            _ => {
                let masking = MlmMasking {
                    probability: c.mlm_probability,
                    vocab_size: c.text.vocab_size,
                    mask_token_id: c.mask_token_id,
                    pad_token_id: c.pad_token_id,
                    cls_token_id: c.cls_token_id,
                    sep_token_id: None,
                };
                let masked = (c.task == AlbefTask::Pretraining)
                    .then(|| mask_tokens(&texts, &masking, batch.seed ^ 1));
                AlbefBatch::Pairs(PairBatch {
                    pictures,
                    texts,
                    ids: (c.task == AlbefTask::Retrieval).then(|| batch.ids.clone()),
                    negatives: Negatives::Drawn(batch.seed),
                    masked,
                })
            }
        })
    }
}

impl Learner for AlbefLearner {
    type Model = Albef;
    type Batch = SetBatch;

    fn build(&self, weights: &mut Weights) -> Albef {
        Albef::new(weights, &self.config)
    }

    fn initial(&self, device: &Device) -> Result<(Albef, Option<String>), Error> {
        self.parts.initial(
            device,
            |weights| self.build(weights),
            |model| match model {
                Model::Albef(m) => Some(collect(&**m)),
                _ => None,
            },
        )
    }

    fn stream(&self, first: u64) -> Receiver<Result<SetBatch, Error>> {
        self.parts.stream(first)
    }

    fn before(&self, model: &Albef, step: u64) -> Result<(), Error> {
        if !self.follows() {
            return Ok(());
        }
        let mut following = self.following();
        let seed = self.parts.recipe.train.seed;
        let momentum = following.momentum.take();
        let momentum = momentum.unwrap_or_else(|| Momentum::of(model, seed));
        following.momentum = Some(momentum.updated(model));
        let t = &self.parts.recipe.train;
        let epoch = self.parts.source.len() / (t.batch_size * t.accumulate).max(1);
        following.alpha = match self.config.distill {
            true => alpha_ramp(self.config.alpha, step, epoch.max(1) as u64),
            false => 0.0,
        };
        Ok(())
    }

    fn loss(&self, model: &Albef, batch: &SetBatch, device: &Device) -> Result<Losses, Error> {
        // a copy shares its weights, and workers do not wait for each other
        let (momentum, alpha) = {
            let following = self.following();
            (following.momentum.clone(), following.alpha)
        };
        let loss = model.loss(&self.batch(batch, device)?, momentum.as_ref(), alpha)?;
        if let Some(features) = loss.features {
            self.following().features.push((batch.seed, features));
        }
        let parts = loss.parts.into_iter();
        Ok(Losses {
            total: loss.total,
            parts: parts.map(|(name, part)| (name, Some(part))).collect(),
        })
    }

    fn after(&self) -> Result<(), Error> {
        let mut following = self.following();
        let mut features = std::mem::take(&mut following.features);
        features.sort_by_key(|(seed, _)| *seed);
        for (_, features) in &features {
            if let Some(momentum) = following.momentum.take() {
                following.momentum = Some(momentum.enqueued(features)?);
            }
        }
        Ok(())
    }

    fn kept(&self) -> Result<Files, Error> {
        let following = self.following();
        let Some(momentum) = &following.momentum else {
            return Ok(Vec::new());
        };
        let bytes = to_bytes(&collect(momentum), StoreDtype::F32, None)?;
        Ok(vec![(MOMENTUM, bytes)])
    }

    fn take_up(&self, read: &dyn Fn(&str) -> Result<Checkpoint, Error>) -> Result<(), Error> {
        if self.follows() {
            let device = Device::flex();
            let momentum = Momentum::restored(&self.config, read(MOMENTUM)?, &device)?;
            self.following().momentum = Some(momentum);
        }
        Ok(())
    }

    fn bounded(&self, model: Albef) -> Albef {
        model.with_clamped_temperature()
    }

    fn measure(&self, model: Albef) -> Result<Measured, Error> {
        let vlm = self.parts.vlm(Model::Albef(Box::new(model)))?;
        match self.config.task {
            AlbefTask::QuestionAnswering => self.parts.measure_answers(&vlm),
            AlbefTask::Nlvr | AlbefTask::Entailment => self.parts.measure_statements(&vlm),
            _ => self.parts.measure_texts(&vlm),
        }
    }

    fn files(&self) -> Result<Files, Error> {
        self.parts.files()
    }

    fn data_seed(&self) -> u64 {
        self.parts.recipe.data.seed
    }

    fn panels(&self, log: &Log) -> Vec<Panel> {
        let scores = [
            ("VQA accuracy", "val.vqa_accuracy"),
            ("statements", "val.statement_accuracy"),
        ];
        panels(
            log,
            &[
                ("contrast", "itc"),
                ("matching", "itm"),
                ("hidden words", "mlm"),
                ("answers", "answers"),
                ("statements", "statements"),
            ],
            &scores,
        )
    }
}
