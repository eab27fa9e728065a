//! What ALBEF learns by: the objectives of pre-training and of every task that it is fine-tuned for.

use super::momentum::{Features, Momentum};
use super::{Albef, AlbefTask, TextStates};
use crate::capability::{Pictures, Regions, Tokens};
use crate::encoders::BertMemory;
use crate::error::{Error, below, expect};
use crate::objectives::{
    ItcKeys, MaskedTokens, distilled_cross_entropy, hard_negatives, itc_momentum, itm, mlm, plain,
};
use burn::tensor::{Int, Tensor, TensorData};
use vlm_nn::ops;
use vlm_nn::random::SplitMix64;

/// Which picture does not belong to a text, and which text not to a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Negatives {
    /// Drawn by their similarity, from a seed.
    Drawn(u64),
    /// Given by their rows in the batch.
    Given {
        /// A picture for each text.
        images: Vec<usize>,
        /// A text for each picture.
        texts: Vec<usize>,
    },
}

/// Pictures with their texts in the same rows: pre-training and retrieval.
#[derive(Clone, Debug)]
pub struct PairBatch {
    /// `B`.
    pub pictures: Pictures,
    /// `B`.
    pub texts: Tokens,
    /// Whose picture each is, where several texts of one picture are not each other's negatives; retrieval needs it.
    pub ids: Option<Vec<i64>>,
    /// What matching tells pairs from.
    pub negatives: Negatives,
    /// The texts with hidden tokens, from [`crate::objectives::mask_tokens`]; without them that part of the loss is left
    /// out.
    pub masked: Option<MaskedTokens>,
}

/// Questions about pictures with their answers: VQA.
#[derive(Clone, Debug)]
pub struct AnswerBatch {
    /// `P`.
    pub pictures: Pictures,
    /// The place of each question's picture, which is encoded once for all its questions; `B`.
    pub places: Vec<usize>,
    /// `B`.
    pub questions: Tokens,
    /// `R`, those of the first question first: `[CLS]`, words, `[SEP]`.
    pub answers: Tokens,
    /// How many answers each question has; `B` numbers whose sum is `R`.
    pub counts: Vec<usize>,
    /// How much each answer counts, the share of the people who gave it; `R`.
    pub weights: Vec<f32>,
}

/// Texts about pictures with their classes: NLVR2 and visual entailment.
#[derive(Clone, Debug)]
pub struct StatementBatch {
    /// `R`, or for NLVR2 `2R`, all first pictures before all second ones.
    pub pictures: Pictures,
    /// `R`.
    pub texts: Tokens,
    /// Places in [`AlbefTask::classes`]; `R`.
    pub labels: Vec<usize>,
}

/// Which two pictures each text is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignments {
    /// Drawn from a seed: two times of three the text's own and one drawn by similarity, in either order, else two others.
    Drawn(u64),
    /// Given by their rows in the batch.
    Given {
        /// The first picture of each text.
        first: Vec<usize>,
        /// The second picture of each text.
        second: Vec<usize>,
        /// 0 or 1 for which of them is the text's own, 2 for neither.
        labels: Vec<usize>,
    },
}

/// Pictures with their texts in the same rows, from which text assignment makes pairs of pictures.
#[derive(Clone, Debug)]
pub struct AssignmentBatch {
    /// `B`.
    pub pictures: Pictures,
    /// `B`.
    pub texts: Tokens,
    /// Which two each text is shown.
    pub assignments: Assignments,
}

/// A batch of any task.
#[derive(Clone, Debug)]
pub enum AlbefBatch {
    /// Pre-training and retrieval.
    Pairs(PairBatch),
    /// VQA.
    Answers(AnswerBatch),
    /// NLVR2 and visual entailment.
    Statements(StatementBatch),
    /// Text assignment, the second pre-training for NLVR2.
    Assignments(AssignmentBatch),
}

/// A loss and what it is the sum of.
#[derive(Clone, Debug)]
pub struct AlbefLoss {
    /// `[1]`, to be minimised.
    pub total: Tensor<1>,
    /// `[1]` each: `itc`, `itm`, `mlm`, `answers`, `statements` or `assignments`.
    pub parts: Vec<(&'static str, Tensor<1>)>,
    /// What goes into the momentum model's queues after the step.
    pub features: Option<Features>,
}

impl AlbefLoss {
    fn of(parts: Vec<(&'static str, Tensor<1>)>, features: Option<Features>) -> Self {
        let total = parts.iter().map(|(_, loss)| loss.clone());
        Self {
            total: total.reduce(|a, b| a + b).expect("a part"),
            parts,
            features,
        }
    }
}

/// The given rows, in this order.
pub(super) fn selected<const D: usize>(x: &Tensor<D>, rows: &[usize]) -> Tensor<D> {
    let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let index = TensorData::new(index, [rows.len()]);
    x.clone()
        .select(0, Tensor::<1, Int>::from_data(index, &x.device()))
}

/// Pictures where a model without gradients lies.
fn without_graph(pictures: &Pictures) -> Pictures {
    match pictures {
        Pictures::Fixed(pixels) => Pictures::Fixed(plain(pixels.clone())),
        Pictures::Patches {
            pixel_values,
            spatial_shapes,
        } => Pictures::Patches {
            pixel_values: plain(pixel_values.clone()),
            spatial_shapes: spatial_shapes.clone(),
        },
        Pictures::Regions { regions, tags } => Pictures::Regions {
            regions: Regions {
                features: plain(regions.features.clone()),
                mask: regions.mask.clone(),
            },
            tags: tags.clone(),
        },
    }
}

/// As many of something as there should be.
fn counted(place: &str, expected: usize, found: usize) -> Result<(), Error> {
    expect(expected == found, place, expected.to_string(), found)
}

impl Albef {
    /// What a batch of the model's task costs.
    ///
    /// `momentum` teaches with weight `alpha` (see [`crate::objectives::alpha_ramp`]); pre-training and retrieval also
    /// compare with what it makes of the batch and keeps in its queues. Without it pictures and texts are compared with
    /// each other as in CLIP.
    ///
    /// # Errors
    /// A batch of another task, rows that do not belong together, inputs that do not fit the model, or an `alpha` above 0
    /// without a teacher.
    pub fn loss(
        &self,
        batch: &AlbefBatch,
        momentum: Option<&Momentum>,
        alpha: f32,
    ) -> Result<AlbefLoss, Error> {
        expect(
            (0.0..=1.0).contains(&alpha) && (alpha == 0.0 || momentum.is_some()),
            "alpha",
            "0 to 1, and 0 without a momentum model",
            alpha,
        )?;
        let (AlbefBatch::Pairs(PairBatch { texts, .. })
        | AlbefBatch::Answers(AnswerBatch {
            questions: texts, ..
        })
        | AlbefBatch::Statements(StatementBatch { texts, .. })
        | AlbefBatch::Assignments(AssignmentBatch { texts, .. })) = batch;
        let rows = texts.rows().len();
        expect(rows > 0, "batch", "at least one text", rows)?;
        match batch {
            AlbefBatch::Pairs(batch) => self.pair_loss(batch, momentum, alpha),
            AlbefBatch::Answers(batch) => self.answer_loss(batch, momentum, alpha),
            AlbefBatch::Statements(batch) => self.statement_loss(batch, momentum, alpha),
            AlbefBatch::Assignments(batch) => self.assignment_loss(batch),
        }
    }

    /// A tensor without a graph where the model lies.
    fn lifted<const D: usize>(&self, tensor: Tensor<D>) -> Tensor<D> {
        match self.device().is_autodiff() {
            true => Tensor::from_inner(tensor),
            false => tensor,
        }
    }

    /// Which of the keys, those of the batch first, belong to each row; rows sum to 1.
    fn targets(&self, batch: &PairBatch, momentum: Option<&Momentum>) -> Result<Tensor<2>, Error> {
        let b = batch.texts.rows().len();
        let queued = momentum.and_then(Momentum::queues);
        let keys = b + queued.map_or(0, |[images, _]| images.dims()[0]);
        let mut targets = vec![0f32; b * keys];
        match &batch.ids {
            None => (0..b).for_each(|i| targets[i * keys + i] = 1.0),
            Some(ids) => {
                counted("ids", b, ids.len())?;
                let kept = momentum.and_then(Momentum::ids).unwrap_or_default();
                let all: Vec<i64> = ids.iter().copied().chain(kept).collect();
                for (row, id) in targets.chunks_mut(keys).zip(ids) {
                    let own = |other: &&i64| *other == id;
                    let share = 1.0 / all.iter().filter(own).count() as f32;
                    let places = row.iter_mut().zip(&all).filter(|(_, other)| own(other));
                    places.for_each(|(place, _)| *place = share);
                }
            }
        }
        let targets = TensorData::new(targets, [b, keys]);
        Ok(Tensor::from_data(targets, &self.device()))
    }

    fn pair_loss(
        &self,
        batch: &PairBatch,
        momentum: Option<&Momentum>,
        alpha: f32,
    ) -> Result<AlbefLoss, Error> {
        self.can_judge_pairs()?;
        let b = batch.texts.rows().len();
        counted("pixel_values", b, batch.pictures.count())?;
        let needs_ids = self.config.task == AlbefTask::Retrieval && momentum.is_some();
        expect(
            batch.ids.is_some() || !needs_ids,
            "ids",
            "whose picture each is",
            "none",
        )?;
        let pictures = self.picture_states(&batch.pictures)?;
        let texts = self.text_states(&batch.texts)?;
        let (image, text) = (self.picture_vectors(&pictures)?, self.text_vectors(&texts)?);
        let mut taught = None;
        let (keys, features) = match momentum {
            None => {
                let (image, text) = (image.clone(), text.clone());
                let queues = None;
                (
                    ItcKeys {
                        image,
                        text,
                        queues,
                    },
                    None,
                )
            }
            Some(momentum) => {
                let model = momentum.model();
                let pictures = model.picture_states(&without_graph(&batch.pictures))?;
                let features = Features {
                    image: model.picture_vectors(&pictures)?,
                    text: model.text_vectors(&model.text_states(&batch.texts)?)?,
                    ids: batch.ids.clone(),
                };
                taught = Some((model, pictures));
                let queues = momentum.queues();
                let keys = ItcKeys {
                    image: self.lifted(features.image.clone()),
                    text: self.lifted(features.text.clone()),
                    queues: queues.map(|queues| queues.map(|queue| self.lifted(queue))),
                };
                (keys, Some(features))
            }
        };
        // the authors keep it in these bounds before the step; its gradient is that of the bounded value
        let mut temperature = self.temperature()?;
        if self.config.task == AlbefTask::Pretraining {
            let bounded = temperature.clone().clamp(0.001, 0.5).detach();
            temperature = temperature.clone() - temperature.detach() + bounded;
        }
        let targets = self.targets(batch, momentum)?;
        let contrast = itc_momentum(image, text, &keys, temperature, targets, alpha);
        let mut parts = vec![("itc", contrast.loss)];

        let memory = self.memory(&[pictures])?;
        let own = |x: Tensor<2>| plain(x).narrow(1, 0, b);
        let (image_to_text, text_to_image) =
            (own(contrast.image_to_text), own(contrast.text_to_image));
        let drawn = self.negatives(batch, &image_to_text, &text_to_image)?;
        parts.push(("itm", self.match_loss(&texts, &memory, drawn)?));

        if let Some(masked) = &batch.masked {
            counted("masked", b, masked.texts.rows().len())?;
            let logits = |model: &Albef, memory: &BertMemory| {
                let texts = model.text_states(&masked.texts)?;
                model.mlm_logits(model.fused_states(&texts, memory)?)
            };
            let own = logits(self, &memory)?;
            self.check_labels(&masked.labels, own.dims())?;
            let teacher = match taught {
                Some((model, pictures)) if alpha > 0.0 => {
                    let memory = model.memory(&[pictures])?;
                    Some(self.lifted(logits(model, &memory)?))
                }
                _ => None,
            };
            parts.push(("mlm", mlm(own, &masked.labels, teacher, alpha)));
        }
        Ok(AlbefLoss::of(parts, features))
    }

    pub(super) fn check_labels(
        &self,
        labels: &[Vec<i64>],
        [r, t, v]: [usize; 3],
    ) -> Result<(), Error> {
        let shaped = labels.len() == r && labels.iter().all(|row| row.len() == t);
        let found = labels.iter().map(Vec::len).find(|&len| len != t);
        expect(
            shaped,
            "labels",
            format!("{r} rows of {t}"),
            format!("{} rows of {}", labels.len(), found.unwrap_or(t)),
        )?;
        let bad = labels.iter().flatten().find(|&&id| id >= v as i64);
        expect(
            bad.is_none(),
            "labels",
            format!("ids below {v}"),
            bad.unwrap_or(&0),
        )
    }

    /// A picture for each text and a text for each picture that do not belong to it.
    fn negatives(
        &self,
        batch: &PairBatch,
        image_to_text: &Tensor<2>,
        text_to_image: &Tensor<2>,
    ) -> Result<[Vec<usize>; 2], Error> {
        let b = batch.texts.rows().len();
        match &batch.negatives {
            Negatives::Given { images, texts } => {
                for rows in [images, texts] {
                    counted("negatives", b, rows.len())?;
                    below("negatives", rows, b)?;
                }
                Ok([images.clone(), texts.clone()])
            }
            Negatives::Drawn(seed) => {
                let ids = batch.ids.as_deref();
                let same = |i: usize, j: usize| ids.is_some_and(|ids| ids[i] == ids[j]);
                // a stream of its own for each direction
                let mut seeds = SplitMix64::new(*seed);
                let images = hard_negatives(text_to_image, same, seeds.bits())?;
                let texts = hard_negatives(image_to_text, same, seeds.bits())?;
                Ok([images, texts])
            }
        }
    }

    /// Pairs, texts with another picture, and pictures with another text, told apart.
    fn match_loss(
        &self,
        texts: &TextStates,
        memory: &BertMemory,
        [images, others]: [Vec<usize>; 2],
    ) -> Result<Tensor<1>, Error> {
        let b = images.len();
        let own: Vec<usize> = (0..b).collect();
        let pictures = [own.clone(), images, own.clone()].concat();
        let text_rows = [own.clone(), own, others].concat();
        let mut memory = memory.clone();
        memory.select(&pictures);
        let fused = self.fused_states(&texts.select(&text_rows), &memory)?;
        let belongs: Vec<bool> = (0..3 * b).map(|i| i < b).collect();
        Ok(itm(self.match_logits(&fused)?, &belongs))
    }

    fn answer_loss(
        &self,
        batch: &AnswerBatch,
        momentum: Option<&Momentum>,
        alpha: f32,
    ) -> Result<AlbefLoss, Error> {
        self.can_answer()?;
        let (b, r) = (batch.questions.rows().len(), batch.answers.rows().len());
        counted("places", b, batch.places.len())?;
        let pictures = batch.pictures.count();
        let furthest = batch.places.iter().max().copied().unwrap_or(0);
        expect(
            furthest < pictures,
            "places",
            format!("below the number of pictures, {pictures}"),
            furthest,
        )?;
        counted("counts", b, batch.counts.len())?;
        let sum = batch
            .counts
            .iter()
            .fold(0usize, |a, &n| a.saturating_add(n));
        counted("answers", sum, r)?;
        let t = batch.answers.rows().first().map_or(0, Vec::len);
        expect(t >= 2, "answers", "at least two tokens", t)?;
        counted("weights", r, batch.weights.len())?;
        let questions = batch.counts.iter().enumerate();
        let rows = questions.flat_map(|(i, &n)| std::iter::repeat_n(i, n));
        let rows: Vec<usize> = rows.collect();
        let logits = |model: &Albef, pictures: &Pictures| {
            let mut seen = model.memory_of(pictures)?;
            // one question a picture is what the authors have, and needs no copy
            if !batch.places.iter().copied().eq(0..seen.rows()) {
                seen.select(&batch.places);
            }
            let mut memory = model.memory_of_questions(&seen, &batch.questions)?;
            memory.select(&rows);
            model.answer_logits(&memory, &batch.answers)
        };
        let own = logits(self, &batch.pictures)?; // [R, T, V]
        let teacher = match momentum {
            Some(momentum) if alpha > 0.0 => {
                let logits = logits(momentum.model(), &without_graph(&batch.pictures))?;
                Some(self.lifted(logits))
            }
            _ => None,
        };
        let losses = self.token_losses(own, &batch.answers, teacher, alpha); // [R, T - 1]
        let weights = TensorData::new(batch.weights.clone(), [r, 1]);
        let weights = Tensor::<2>::from_data(weights, &self.device());
        let loss = (losses * weights).sum() / b.max(1) as f32;
        Ok(AlbefLoss::of(vec![("answers", loss)], None))
    }

    /// The loss of each token behind an answer's first; 0 for padding.
    ///
    /// # Shapes
    /// `logits, teacher: [R, T, V]`; gives `[R, T - 1]`.
    pub(super) fn token_losses(
        &self,
        logits: Tensor<3>,
        answers: &Tokens,
        teacher: Option<Tensor<3>>,
        alpha: f32,
    ) -> Tensor<2> {
        let [r, t, v] = logits.dims();
        let pad = i64::from(self.config.pad_token_id);
        let targets = answers.rows().iter().flat_map(|row| &row[1..]);
        let targets = targets.map(|&id| match i64::from(id) {
            id if id == pad => -100,
            id => id,
        });
        let targets = TensorData::new(targets.collect::<Vec<_>>(), [r * (t - 1)]);
        let targets = Tensor::<1, Int>::from_data(targets, &logits.device());
        let shifted = |x: Tensor<3>| x.narrow(1, 0, t - 1).reshape([r * (t - 1), v]);
        let teacher = teacher.map(shifted);
        distilled_cross_entropy(shifted(logits), targets, teacher, alpha).reshape([r, t - 1])
    }

    fn statement_loss(
        &self,
        batch: &StatementBatch,
        momentum: Option<&Momentum>,
        alpha: f32,
    ) -> Result<AlbefLoss, Error> {
        self.can_judge_texts()?;
        let logits = |model: &Albef, pictures: &Pictures| {
            let memory = model.memory_of(pictures)?;
            let texts = model.text_states(&batch.texts)?;
            model.class_logits(&model.fused_states(&texts, &memory)?)
        };
        let own = logits(self, &batch.pictures)?; // [R, classes]
        let teacher = match momentum {
            Some(momentum) if alpha > 0.0 => {
                let logits = logits(momentum.model(), &without_graph(&batch.pictures))?;
                Some(self.lifted(logits))
            }
            _ => None,
        };
        let targets = self.class_targets(&batch.labels, own.dims())?;
        let loss = distilled_cross_entropy(own, targets, teacher, alpha).mean();
        Ok(AlbefLoss::of(vec![("statements", loss)], None))
    }

    pub(super) fn class_targets(
        &self,
        labels: &[usize],
        [r, classes]: [usize; 2],
    ) -> Result<Tensor<1, Int>, Error> {
        counted("labels", r, labels.len())?;
        below("labels", labels, classes)?;
        let labels: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
        Ok(Tensor::from_data(
            TensorData::new(labels, [r]),
            &self.device(),
        ))
    }

    fn assignment_loss(&self, batch: &AssignmentBatch) -> Result<AlbefLoss, Error> {
        self.part(&self.assignment_head, "assign texts")?;
        let b = batch.texts.rows().len();
        counted("pixel_values", b, batch.pictures.count())?;
        let pictures = self.picture_states(&batch.pictures)?;
        let [first, second, labels] = match &batch.assignments {
            Assignments::Drawn(seed) => {
                let vectors = plain(self.picture_vectors(&pictures)?);
                // a temperature that this stage does not train
                let similarities = vectors.clone().matmul(vectors.transpose()) / 0.07;
                drawn_assignments(&similarities, *seed)?
            }
            Assignments::Given {
                first,
                second,
                labels,
            } => {
                for rows in [first, second] {
                    counted("assignments", b, rows.len())?;
                    below("assignments", rows, b)?;
                }
                [first.clone(), second.clone(), labels.clone()]
            }
        };
        let memory = self.memory(&[selected(&pictures, &first), selected(&pictures, &second)])?;
        let fused = self.fused_states(&self.text_states(&batch.texts)?, &memory)?;
        let logits = self.class_logits(&fused)?; // [B, 3]
        let targets = self.class_targets(&labels, logits.dims())?;
        let loss = ops::cross_entropy(logits, targets, 0.0).mean();
        Ok(AlbefLoss::of(vec![("assignments", loss)], None))
    }
}

/// Two pictures for each text and which of them is its own.
fn drawn_assignments(similarities: &Tensor<2>, seed: u64) -> Result<[Vec<usize>; 3], Error> {
    let mut rng = SplitMix64::new(seed);
    let other = hard_negatives(similarities, |_, _| false, rng.bits())?;
    let third = hard_negatives(similarities, |i, j| j == other[i], rng.bits());
    let (mut first, mut second, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for (own, &other) in other.iter().enumerate() {
        let [kind, order] = [rng.uniform(), rng.uniform()];
        // a batch of two has no two others
        let (a, b, label) = match &third {
            Ok(third) if kind <= 1.0 / 3.0 => (other, third[own], 2),
            _ if order > 0.5 => (own, other, 0),
            _ => (other, own, 1),
        };
        first.push(a);
        second.push(b);
        labels.push(label);
    }
    Ok([first, second, labels])
}
