//! How well a model does on data with known answers.

use crate::metrics::{
    Bootstrap, CaptionScores, FactCounts, FactScores, VqaItem, VqaScores, score_captions,
    score_facts, score_vqa,
};
use crate::{CaptionOptions, Error, Vlm};
use std::borrow::Borrow;
use vlm_data::image::Image;
use vlm_worlds::shapes::{Scene, facts};

/// A picture with what is known about it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The picture.
    pub image: Image,
    /// Reference captions.
    pub captions: Vec<String>,
    /// Questions, right answers, and types.
    pub questions: Vec<Question>,
    /// Exact truth, where the picture comes from a world.
    pub scene: Option<Scene>,
}

/// A question with its right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The question.
    pub question: String,
    /// The right answer.
    pub answer: String,
    /// What it asks about.
    pub kind: String,
}

/// Scores of captions.
#[derive(Clone, Debug)]
pub struct CaptionReport {
    /// Pictures.
    pub n: usize,
    /// The generated captions, in the order of the samples.
    pub captions: Vec<String>,
    /// Against the reference captions.
    pub text: CaptionScores,
    /// Against the truth, where every sample has it.
    pub facts: Option<FactScores>,
}

/// Scores of answers.
#[derive(Clone, Debug)]
pub struct VqaReport {
    /// Every question with the given answer, in the order of the samples.
    pub answers: Vec<VqaItem>,
    /// Accuracy.
    pub scores: VqaScores,
}

/// Pictures that go through the model at once.
const BATCH: usize = 16;

impl Vlm {
    /// Captions every picture and scores the captions. Samples may be made while they are asked for: only a batch of
    /// them is held. `progress` is told the number of pictures done.
    ///
    /// # Errors
    /// What captioning fails with; no samples, or one without reference captions.
    pub fn evaluate_captions<S: Borrow<Sample>>(
        &self,
        samples: impl IntoIterator<Item = S>,
        options: &CaptionOptions,
        mut progress: impl FnMut(usize),
    ) -> Result<CaptionReport, Error> {
        let mut pairs: Vec<(String, Vec<String>)> = Vec::new();
        let mut counts: Option<Vec<FactCounts>> = Some(Vec::new());
        for_each_batch(samples, |batch| {
            let images: Vec<&Image> = batch.iter().map(|s| &s.borrow().image).collect();
            for (sample, caption) in batch.iter().zip(self.caption(&images, options)?) {
                let sample = sample.borrow();
                match (&mut counts, &sample.scene) {
                    (Some(counts), Some(scene)) => counts.push(fact_counts(&caption.text, scene)),
                    _ => counts = None,
                }
                pairs.push((caption.text, sample.captions.clone()));
            }
            progress(pairs.len());
            Ok(())
        })?;
        Ok(CaptionReport {
            n: pairs.len(),
            text: score_captions(&pairs)?,
            facts: match counts {
                Some(counts) => Some(score_facts(&counts, &Bootstrap::default())?),
                None => None,
            },
            captions: pairs.into_iter().map(|(caption, _)| caption).collect(),
        })
    }

    /// Answers every question and scores the answers, as [`Self::evaluate_captions`] does captions.
    ///
    /// # Errors
    /// What answering fails with; samples without questions.
    pub fn evaluate_vqa<S: Borrow<Sample>>(
        &self,
        samples: impl IntoIterator<Item = S>,
        mut progress: impl FnMut(usize),
    ) -> Result<VqaReport, Error> {
        let mut answers = Vec::new();
        let mut done = 0;
        for_each_batch(samples, |batch| {
            let images: Vec<&Image> = batch.iter().map(|s| &s.borrow().image).collect();
            let questions: Vec<(usize, &Question)> = batch
                .iter()
                .enumerate()
                .flat_map(|(picture, s)| s.borrow().questions.iter().map(move |q| (picture, q)))
                .collect();
            let texts: Vec<(usize, &str)> = questions
                .iter()
                .map(|(picture, q)| (*picture, q.question.as_str()))
                .collect();
            for ((_, question), answer) in questions.iter().zip(self.answer(&images, &texts)?) {
                answers.push(VqaItem {
                    question_type: question.kind.clone(),
                    answer: answer.text,
                    expected: question.answer.clone(),
                });
            }
            done += batch.len();
            progress(done);
            Ok(())
        })?;
        Ok(VqaReport {
            scores: score_vqa(&answers, &Bootstrap::default())?,
            answers,
        })
    }
}

fn for_each_batch<S>(
    samples: impl IntoIterator<Item = S>,
    mut work: impl FnMut(&[S]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut samples = samples.into_iter();
    loop {
        let batch: Vec<S> = samples.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok(());
        }
        work(&batch)?;
    }
}

fn fact_counts(caption: &str, scene: &Scene) -> FactCounts {
    let counts = facts::score(caption, scene);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    FactCounts {
        correct: count(counts.true_stated),
        stated: count(counts.stated),
        recalled: count(counts.recalled),
        required: count(counts.required),
    }
}
