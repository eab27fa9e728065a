//! How well a model does on data with known answers.

use crate::metrics::{
    Bootstrap, CaptionScores, ClassificationScores, FactCounts, FactScores, RetrievalScores,
    VqaItem, VqaScores, score_captions, score_classification, score_facts, score_retrieval,
    score_vqa,
};
use crate::similarity::dot;
use crate::{CaptionOptions, Error, Subject, Vlm};
use std::borrow::Borrow;
use vlm_data::image::Image;
use vlm_worlds::shapes::{Item, Scene, facts};

/// A picture with what is known about it.
#[derive(Clone, Debug)]
pub struct Sample<P = Image> {
    /// The picture, or what stands for it.
    pub image: P,
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

impl TryFrom<Item> for Sample {
    type Error = Error;

    /// A rendered scene with all that is known of it.
    ///
    /// # Errors
    /// None for what the world makes.
    fn try_from(item: Item) -> Result<Self, Error> {
        let picture = item.picture;
        let questions = item.qa.into_iter().map(|qa| Question {
            question: qa.question,
            answer: qa.answer,
            kind: qa.kind.name().to_owned(),
        });
        Ok(Self {
            image: Image::from_rgb(picture.width, picture.height, picture.rgb)?,
            captions: item.captions,
            questions: questions.collect(),
            scene: Some(item.scene),
        })
    }
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

/// How pictures and texts find each other.
#[derive(Clone, Debug)]
pub struct RetrievalReport {
    /// Pictures by their texts.
    pub text_to_image: RetrievalScores,
    /// Texts by their pictures.
    pub image_to_text: RetrievalScores,
}

/// Pictures that go through the model at once.
const BATCH: usize = 16;

impl Vlm {
    /// Captions every picture and scores the captions. Samples may be made while they are asked for: only a batch of
    /// them is held. `progress` is told the number of pictures done.
    ///
    /// # Errors
    /// What captioning fails with; no samples, or one without reference captions.
    pub fn evaluate_captions<P: Subject, S: Borrow<Sample<P>>>(
        &self,
        samples: impl IntoIterator<Item = S>,
        options: &CaptionOptions,
        mut progress: impl FnMut(usize),
    ) -> Result<CaptionReport, Error> {
        let mut pairs: Vec<(String, Vec<String>)> = Vec::new();
        let mut counts: Option<Vec<FactCounts>> = Some(Vec::new());
        for_each_batch(samples, |batch| {
            let images: Vec<&P> = batch.iter().map(|s| &s.borrow().image).collect();
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
    pub fn evaluate_vqa<P: Subject, S: Borrow<Sample<P>>>(
        &self,
        samples: impl IntoIterator<Item = S>,
        mut progress: impl FnMut(usize),
    ) -> Result<VqaReport, Error> {
        let mut answers = Vec::new();
        let mut done = 0;
        for_each_batch(samples, |batch| {
            let images: Vec<&P> = batch.iter().map(|s| &s.borrow().image).collect();
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

    /// How well pictures are found by their first captions among all of them, and these by their pictures. The same
    /// text of two pictures belongs to both.
    ///
    /// # Errors
    /// What embedding fails with; no samples, or one without captions.
    pub fn evaluate_retrieval<S: Borrow<Sample>>(
        &self,
        samples: impl IntoIterator<Item = S>,
    ) -> Result<RetrievalReport, Error> {
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        for_each_batch(samples, |batch| {
            let pictures: Vec<&Image> = batch.iter().map(|s| &s.borrow().image).collect();
            images.extend(self.embed_images(&pictures)?);
            for sample in batch {
                texts.push(first_caption(sample.borrow())?.to_owned());
            }
            Ok(())
        })?;
        let words: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vectors = self.embed_texts(&words)?;
        let search = |queries: &[Vec<f32>], among: &[Vec<f32>]| {
            let rows = queries
                .iter()
                .map(|query| among.iter().map(|other| dot(query, other)).collect());
            score_retrieval(rows, |q, c| texts[q] == texts[c], &Bootstrap::default())
        };
        Ok(RetrievalReport {
            text_to_image: search(&vectors, &images)?,
            image_to_text: search(&images, &vectors)?,
        })
    }

    /// As [`Self::evaluate_retrieval`] by the model's matching head, which looks at every picture with every text.
    ///
    /// # Errors
    /// What matching fails with; no samples, or one without captions.
    pub fn evaluate_matching<P: Subject>(
        &self,
        samples: &[Sample<P>],
    ) -> Result<RetrievalReport, Error> {
        let texts: Vec<&str> = samples
            .iter()
            .map(first_caption)
            .collect::<Result<_, _>>()?;
        let rows = samples.iter();
        let rows = rows.map(|sample| self.matching_scores(&sample.image, &texts));
        let rows: Vec<Vec<f32>> = rows.collect::<Result<_, _>>()?;
        let same = |q: usize, c: usize| texts[q] == texts[c];
        let column = |text: usize| rows.iter().map(|row| row[text]).collect();
        let columns = (0..texts.len()).map(column);
        Ok(RetrievalReport {
            text_to_image: score_retrieval(columns, same, &Bootstrap::default())?,
            image_to_text: score_retrieval(rows.iter().cloned(), same, &Bootstrap::default())?,
        })
    }

    /// How often the right one of some labels is the nearest to a picture; each picture comes with the place of its
    /// label.
    ///
    /// # Errors
    /// What embedding fails with; no pictures or no labels.
    pub fn evaluate_labels(
        &self,
        pictures: &[(Image, usize)],
        labels: &[&str],
    ) -> Result<ClassificationScores, Error> {
        let candidates = self.labels(labels, &[])?;
        let mut scored = Vec::with_capacity(pictures.len());
        for some in pictures.chunks(BATCH) {
            let images: Vec<&Image> = some.iter().map(|(image, _)| image).collect();
            let vectors = self.embed_images(&images)?;
            for ((_, label), vector) in some.iter().zip(&vectors) {
                scored.push((candidates.cosines(vector), *label));
            }
        }
        Ok(score_classification(&scored, &Bootstrap::default())?)
    }
}

fn first_caption<P>(sample: &Sample<P>) -> Result<&str, Error> {
    let text = sample.captions.first().map(String::as_str);
    text.ok_or_else(|| Error::Model {
        place: "samples".to_owned(),
        expected: "a caption of each picture".to_owned(),
        found: "a picture without".to_owned(),
    })
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
