//! How well a model does on data with known answers.

use crate::metrics::{
    Bootstrap, CaptionScores, FactCounts, FactScores, VqaItem, VqaScores, score_captions,
    score_facts, score_vqa,
};
use crate::{CaptionOptions, Error, Vlm};
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
    /// Captions every picture and scores the captions. `progress` is told the number of pictures done.
    ///
    /// # Errors
    /// What captioning fails with; samples without reference captions.
    pub fn evaluate_captions(
        &self,
        samples: &[Sample],
        options: &CaptionOptions,
        mut progress: impl FnMut(usize),
    ) -> Result<CaptionReport, Error> {
        let mut captions = Vec::with_capacity(samples.len());
        for chunk in samples.chunks(BATCH) {
            let images: Vec<&Image> = chunk.iter().map(|s| &s.image).collect();
            captions.extend(self.caption(&images, options)?.into_iter().map(|c| c.text));
            progress(captions.len());
        }
        let pairs: Vec<(String, Vec<String>)> = captions
            .iter()
            .zip(samples)
            .map(|(caption, s)| (caption.clone(), s.captions.clone()))
            .collect();
        let counts: Option<Vec<FactCounts>> = captions
            .iter()
            .zip(samples)
            .map(|(caption, s)| s.scene.as_ref().map(|scene| fact_counts(caption, scene)))
            .collect();
        Ok(CaptionReport {
            n: samples.len(),
            text: score_captions(&pairs)?,
            facts: match counts {
                Some(counts) => Some(score_facts(&counts, &Bootstrap::default())?),
                None => None,
            },
            captions,
        })
    }

    /// Answers every question and scores the answers. `progress` is told the number of pictures done.
    ///
    /// # Errors
    /// What answering fails with; samples without questions.
    pub fn evaluate_vqa(
        &self,
        samples: &[Sample],
        mut progress: impl FnMut(usize),
    ) -> Result<VqaReport, Error> {
        let mut answers = Vec::new();
        for (i, chunk) in samples.chunks(BATCH).enumerate() {
            let images: Vec<&Image> = chunk.iter().map(|s| &s.image).collect();
            let questions: Vec<(usize, &Question)> = chunk
                .iter()
                .enumerate()
                .flat_map(|(picture, s)| s.questions.iter().map(move |q| (picture, q)))
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
            progress(i * BATCH + chunk.len());
        }
        Ok(VqaReport {
            scores: score_vqa(&answers, &Bootstrap::default())?,
            answers,
        })
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
