//! What a model is measured on, and in what.

use crate::eval::set::Chosen;
use serde::{Deserialize, Serialize};
use vlm_data::image::Image;
use vlm_tasks::evaluate::{Question, Sample};
use vlm_tasks::{CaptionOptions, Shown, Vlm};
use vlm_train::Scenes;
use vlm_worlds::shapes::{self, Colour, Config, Shape, Split};

/// Scores of a model on one split; none for what it cannot do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Recall at 1, 5 and 10, each the mean of pictures by captions and captions by pictures, 0 to 1.
    pub r1: Option<f64>,
    pub r5: Option<f64>,
    pub r10: Option<f64>,
    /// Accuracy of colour and shape of a single object, 0 to 1.
    pub zero_shot: Option<f64>,
    /// BLEU-4 of captions, 0 to 1.
    pub bleu4: Option<f64>,
    /// CIDEr-D of captions, 0 to 10.
    pub cider_d: Option<f64>,
    /// F1 of the facts of captions, 0 to 1.
    pub fact_f1: Option<f64>,
    /// Accuracy of answers, 0 to 1.
    pub vqa: Option<f64>,
}

/// All that models are measured on.
pub struct Exhibition {
    pub test: Exhibits,
    /// Of rendered scenes, those of new pairs of attributes.
    pub compositional: Option<Exhibits>,
    /// Where the pictures come from, if they are not rendered.
    pub source: Option<String>,
}

/// Pictures with what is known about them.
#[derive(Default)]
pub struct Exhibits {
    samples: Vec<Sample>,
    /// Pictures with the place of their label.
    labelled: Vec<(Image, usize)>,
    labels: Vec<String>,
    statements: Vec<Judged>,
}

/// A statement about some pictures.
struct Judged {
    pictures: Vec<Shown>,
    text: String,
    truth: bool,
}

/// The most pictures that a model judges a statement of.
const MOST_JUDGED: usize = 2;

/// Seeds of scenes, whatever the recipes' are.
const SEED: u64 = 20;
const SEED_OF_SINGLES: u64 = 21;
/// Scenes that are looked through for each with a single object.
const PATIENCE: u64 = 50;

impl Exhibition {
    /// So many scenes of each split, and as many with a single object, of the middle of the recipes' difficulty.
    pub fn of_scenes(scenes: Scenes, pictures: usize) -> anyhow::Result<Self> {
        let [low, high] = scenes.difficulty;
        let config = Config {
            size: scenes.size,
            difficulty: (low + high) / 2.0,
        };
        Ok(Self {
            test: Exhibits::of_split(&config, Split::Test, pictures)?,
            compositional: Some(Exhibits::of_split(&config, Split::Compositional, pictures)?),
            source: None,
        })
    }

    /// So many records of a set, evenly spread over it, or all if there are fewer.
    pub fn of_set(chosen: &Chosen, source: String, pictures: usize) -> anyhow::Result<Self> {
        let count = chosen.len().min(pictures);
        let places = (0..count).map(|i| i * chosen.len() / count);
        Ok(Self {
            test: Exhibits::of_records(chosen, places)?,
            compositional: None,
            source: Some(source),
        })
    }

    /// How many pictures of each kind there are.
    pub fn pictures(&self) -> usize {
        self.test.samples.len()
    }
}

impl Exhibits {
    fn of_records(chosen: &Chosen, places: impl Iterator<Item = usize>) -> anyhow::Result<Self> {
        let labels = chosen.set().labels().into_iter().map(str::to_owned);
        let mut found = Self {
            labels: labels.collect(),
            ..Self::default()
        };
        for i in places {
            let (record, image) = (chosen.record(i), chosen.picture(i)?);
            if let Some(label) = &record.label
                && let Ok(place) = found.labels.binary_search(label)
            {
                found.labelled.push((image.clone(), place));
            }
            if let Some(statement) = &record.statement {
                found.statements.push(Judged {
                    pictures: chosen.shown(i, 0, MOST_JUDGED, None)?,
                    text: statement.text.clone(),
                    truth: statement.truth,
                });
            }
            let questions = chosen.questions(i).into_iter().map(|q| Question {
                question: q.question,
                answer: q.answer,
                kind: q.kind,
            });
            found.samples.push(Sample {
                image,
                captions: record.captions.clone(),
                questions: questions.collect(),
                scene: None,
            });
        }
        Ok(found)
    }

    fn of_split(config: &Config, split: Split, pictures: usize) -> anyhow::Result<Self> {
        let made = (0..pictures as u64).map(|i| shapes::generate(config, split, SEED, i));
        let samples = made.map(Sample::try_from).collect::<Result<_, _>>()?;
        let pairs: Vec<(Colour, Shape)> = Colour::ALL
            .iter()
            .flat_map(|&colour| Shape::ALL.iter().map(move |&shape| (colour, shape)))
            .collect();
        let labels = pairs.iter();
        let labels = labels.map(|(colour, shape)| format!("{} {}", colour.word(), shape.word()));
        let mut labelled = Vec::new();
        for i in 0..pictures as u64 * PATIENCE {
            if labelled.len() == pictures {
                break;
            }
            let item = shapes::generate(config, split, SEED_OF_SINGLES, i);
            if let [object] = &item.scene.objects[..] {
                let pair = (object.colour, object.shape);
                let label = pairs.iter().position(|&known| known == pair);
                labelled.push((Sample::try_from(item)?.image, label.unwrap_or_default()));
            }
        }
        Ok(Self {
            samples,
            labelled,
            labels: labels.collect(),
            statements: Vec::new(),
        })
    }

    /// The scores of a model in all that it can do.
    pub fn scores(&self, vlm: &Vlm) -> Result<Scores, vlm_tasks::Error> {
        let (mut scores, model) = (Scores::default(), vlm.model());
        let described = || self.samples.iter().filter(|s| !s.captions.is_empty());
        let asked = || self.samples.iter().filter(|s| !s.questions.is_empty());
        if model.embed_image().is_ok() && model.embed_text().is_ok() {
            if described().next().is_some() {
                let report = vlm.evaluate_retrieval(described())?;
                let (a, b) = (&report.text_to_image, &report.image_to_text);
                let mean = |a: f64, b: f64| Some((a + b) / 2.0);
                scores.r1 = mean(a.recall_at_1.estimate, b.recall_at_1.estimate);
                scores.r5 = mean(a.recall_at_5.estimate, b.recall_at_5.estimate);
                scores.r10 = mean(a.recall_at_10.estimate, b.recall_at_10.estimate);
            }
            if !self.labelled.is_empty() {
                let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
                let report = vlm.evaluate_labels(&self.labelled, &labels)?;
                scores.zero_shot = Some(report.top1.estimate);
            }
        }
        if model.generate().is_ok() && described().next().is_some() {
            let options = CaptionOptions::default();
            let report = vlm.evaluate_captions(described(), &options, |_| {})?;
            scores.bleu4 = Some(report.text.bleu[3]);
            scores.cider_d = Some(report.text.cider_d);
            scores.fact_f1 = report.facts.map(|facts| facts.f1.estimate);
        }
        if model.judge_text().is_ok() && !self.statements.is_empty() {
            scores.vqa = Some(self.judged(vlm)?);
        } else if vlm.answers_questions() && asked().next().is_some() {
            let report = vlm.evaluate_vqa(asked(), |_| {})?;
            scores.vqa = Some(report.scores.accuracy.estimate);
        }
        Ok(scores)
    }

    /// How often a model that judges statements is right.
    fn judged(&self, vlm: &Vlm) -> Result<f64, vlm_tasks::Error> {
        let count = vlm.pictures_per_statement()?;
        let mut right = 0;
        for statement in &self.statements {
            let pictures: Vec<&Shown> = statement.pictures.iter().take(count).collect();
            let truth = vlm.holds_true(&pictures, &statement.text)?;
            right += usize::from(truth == statement.truth);
        }
        Ok(right as f64 / self.statements.len() as f64)
    }
}
