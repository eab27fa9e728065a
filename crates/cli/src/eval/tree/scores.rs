//! What a model is measured on, and in what.

use serde::{Deserialize, Serialize};
use vlm_data::image::Image;
use vlm_tasks::evaluate::Sample;
use vlm_tasks::{CaptionOptions, Vlm};
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

/// The scenes of both splits.
pub struct Scenery {
    pub test: SplitScenes,
    pub compositional: SplitScenes,
}

/// Scenes of a split.
pub struct SplitScenes {
    samples: Vec<Sample>,
    /// Pictures of a single object, with the place of its label.
    singles: Vec<(Image, usize)>,
    labels: Vec<String>,
}

/// Seeds of scenes, whatever the recipes' are.
const SEED: u64 = 20;
const SEED_OF_SINGLES: u64 = 21;
/// Scenes that are looked through for each with a single object.
const PATIENCE: u64 = 50;

impl Scenery {
    /// So many scenes of each split, and as many with a single object, of the middle of the recipes' difficulty.
    pub fn new(scenes: Scenes, pictures: usize) -> anyhow::Result<Self> {
        let [low, high] = scenes.difficulty;
        let config = Config {
            size: scenes.size,
            difficulty: (low + high) / 2.0,
        };
        Ok(Self {
            test: SplitScenes::new(&config, Split::Test, pictures)?,
            compositional: SplitScenes::new(&config, Split::Compositional, pictures)?,
        })
    }

    /// How many scenes of each split there are.
    pub fn pictures(&self) -> usize {
        self.test.samples.len()
    }
}

impl SplitScenes {
    fn new(config: &Config, split: Split, pictures: usize) -> anyhow::Result<Self> {
        let made = (0..pictures as u64).map(|i| shapes::generate(config, split, SEED, i));
        let samples = made.map(Sample::try_from).collect::<Result<_, _>>()?;
        let pairs: Vec<(Colour, Shape)> = Colour::ALL
            .iter()
            .flat_map(|&colour| Shape::ALL.iter().map(move |&shape| (colour, shape)))
            .collect();
        let labels = pairs.iter();
        let labels = labels.map(|(colour, shape)| format!("{} {}", colour.word(), shape.word()));
        let mut singles = Vec::new();
        for i in 0..pictures as u64 * PATIENCE {
            if singles.len() == pictures {
                break;
            }
            let item = shapes::generate(config, split, SEED_OF_SINGLES, i);
            if let [object] = &item.scene.objects[..] {
                let pair = (object.colour, object.shape);
                let label = pairs.iter().position(|&known| known == pair);
                singles.push((Sample::try_from(item)?.image, label.unwrap_or_default()));
            }
        }
        Ok(Self {
            samples,
            singles,
            labels: labels.collect(),
        })
    }

    /// The scores of a model in all that it can do.
    pub fn scores(&self, vlm: &Vlm) -> Result<Scores, vlm_tasks::Error> {
        let (mut scores, model) = (Scores::default(), vlm.model());
        if model.embed_image().is_ok() && model.embed_text().is_ok() {
            let report = vlm.evaluate_retrieval(&self.samples)?;
            let (a, b) = (&report.text_to_image, &report.image_to_text);
            let mean = |a: f64, b: f64| Some((a + b) / 2.0);
            scores.r1 = mean(a.recall_at_1.estimate, b.recall_at_1.estimate);
            scores.r5 = mean(a.recall_at_5.estimate, b.recall_at_5.estimate);
            scores.r10 = mean(a.recall_at_10.estimate, b.recall_at_10.estimate);
            if !self.singles.is_empty() {
                let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
                let report = vlm.evaluate_labels(&self.singles, &labels)?;
                scores.zero_shot = Some(report.top1.estimate);
            }
        }
        if model.generate().is_ok() {
            let options = CaptionOptions::default();
            let report = vlm.evaluate_captions(&self.samples, &options, |_| {})?;
            scores.bleu4 = Some(report.text.bleu[3]);
            scores.cider_d = Some(report.text.cider_d);
            scores.fact_f1 = report.facts.map(|facts| facts.f1.estimate);
        }
        if vlm.answers_questions() {
            let report = vlm.evaluate_vqa(&self.samples, |_| {})?;
            scores.vqa = Some(report.scores.accuracy.estimate);
        }
        Ok(scores)
    }
}
