//! Freely joined parts of the tree: retrieval, and where the config wants them answers and captions.

use super::nic::{SPECIALS, of_vocabulary};
use super::parts::{MOST_SCALE, Parts, Start, fill_in, panels, pictures, strings, whole_batches};
use crate::Error;
use crate::learner::{Files, Learner, Losses, Measured};
use crate::log::Log;
use crate::plot::Panel;
use crate::set_recipe::SetRecipe;
use crate::source::{SetBatch, Wanted};
use burn::tensor::Device;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::mpsc::Receiver;
use vlm_models::families::Model;
use vlm_models::families::tree::{Batch, Questions, TextPart, Tree, TreeConfig, VisionPart};
use vlm_nn::Statistics;
use vlm_nn::weights::{Weights, collect};
use vlm_tasks::TextSide;

/// Pictures whose texts tell how rare words are.
const COUNTED: usize = 256;

/// A model of the tree in training.
pub(crate) struct TreeLearner {
    parts: Parts,
    config: TreeConfig,
    text: TextSide,
    /// What a bag of words begins with.
    idf: Option<Vec<f32>>,
}

impl TreeLearner {
    pub(crate) fn new(set: &SetRecipe, start: Start) -> Result<Self, Error> {
        // those of the data, unless the config says how many there are
        let given = start.config.get("num_answers").and_then(|n| n.as_u64());
        let contrast = start.config.get("contrast").and_then(|c| c.as_bool());
        let wanted = match (given, contrast) {
            (Some(0), _) => Wanted::Texts,
            (_, Some(false)) => Wanted::Answers,
            _ => Wanted::TextsAndAnswers,
        };
        let mut parts = Parts::open(set, start, wanted, "a {}", &SPECIALS)?;
        if wanted != Wanted::Texts {
            let answers = parts.source.answers();
            let fields = [
                ("num_answers", json!(answers.len())),
                ("answers", json!(answers)),
            ];
            fill_in(&mut parts.config, &fields);
        }
        fill_in(&mut parts.config, &of_vocabulary(&parts.tokenizer));
        let config = TreeConfig::parse(&parts.config.to_string())
            .map_err(|e| Error::file("recipe", format!("model: {e}")))?;
        match &config.vision {
            VisionPart::Handcrafted(_) => parts.with_levels([config.image_size(); 2])?,
            VisionPart::Cnn { .. } => {
                whole_batches(set, "CNN")?;
                parts.with_size([config.image_size(); 2])?;
            }
            VisionPart::Vit(_) => parts.with_size([config.image_size(); 2])?,
        }
        let model = Tree::new(&mut Weights::random(0, &Device::flex()), &config);
        let model = Model::Tree(Box::new(model));
        let text = TextSide::new(&set.name, parts.tokenizer.clone(), &model)?;
        let bag = config.text == TextPart::BagOfWords && parts.begins_anew();
        let idf = bag.then(|| inverse_frequencies(&parts, &text, config.vocab_size));
        Ok(Self {
            idf: idf.transpose()?,
            parts,
            config,
            text,
        })
    }

    fn answers(&self) -> bool {
        self.config.num_answers > 0
    }

    fn questions(&self, batch: &SetBatch) -> Result<Questions, Error> {
        let known = &self.config.answers;
        let number = |answer: &String| {
            let number = known.iter().position(|known| known == answer);
            let number = number.ok_or_else(|| {
                let reason = format!(
                    "model.answers: expected every answer that is learned, found none for {answer:?}"
                );
                Error::file("recipe", reason)
            });
            Ok(number? as i64)
        };
        Ok(Questions {
            texts: self.text.tokens(&strings(&batch.texts))?,
            pictures: batch.pictures.clone(),
            answers: batch
                .answers
                .iter()
                .map(number)
                .collect::<Result<_, Error>>()?,
        })
    }
}

/// How rare each token is in the texts of some pictures, as scikit-learn's `TfidfVectorizer` counts it.
fn inverse_frequencies(
    parts: &Parts,
    side: &TextSide,
    vocab_size: usize,
) -> Result<Vec<f32>, Error> {
    let texts = parts.source.some_texts(COUNTED)?;
    let mut frequency = vec![0usize; vocab_size];
    for text in &texts {
        let tokens = side.tokens(&[text])?;
        let distinct: BTreeSet<u32> = tokens.rows()[0].iter().copied().collect();
        distinct
            .iter()
            .for_each(|&token| frequency[token as usize] += 1);
    }
    let count = (1 + texts.len()) as f64;
    let idf = |&df: &usize| ((count / (1 + df) as f64).ln() + 1.0) as f32;
    Ok(frequency.iter().map(idf).collect())
}

impl Learner for TreeLearner {
    type Model = Tree;
    type Batch = SetBatch;

    fn build(&self, weights: &mut Weights) -> Tree {
        Tree::new(weights, &self.config).with_statistics(Statistics::Batch)
    }

    fn initial(&self, device: &Device) -> Result<(Tree, Option<String>), Error> {
        let (model, note) = self.parts.initial(
            device,
            |weights| self.build(weights),
            |model| match model {
                Model::Tree(m) => Some(collect(&**m)),
                _ => None,
            },
        )?;
        Ok(match &self.idf {
            Some(idf) => (model.with_idf(idf)?, note),
            None => (model, note),
        })
    }

    fn stream(&self, first: u64) -> Receiver<Result<SetBatch, Error>> {
        self.parts.stream(first)
    }

    fn loss(&self, model: &Tree, batch: &SetBatch, device: &Device) -> Result<Losses, Error> {
        let (captions, questions) = match self.answers() {
            true => (&batch.captions, Some(self.questions(batch)?)),
            false => (&batch.texts, None),
        };
        let captions = self
            .config
            .contrast
            .then(|| self.text.tokens(&strings(captions)));
        let losses = model.loss(&Batch {
            pictures: pictures(batch, device),
            captions: captions.transpose()?,
            questions,
        })?;
        Ok(Losses {
            total: losses.total,
            parts: vec![
                ("itc_loss", losses.itc),
                ("itm_loss", losses.itm),
                ("caption_loss", losses.caption),
                ("answer_loss", losses.answer),
            ],
        })
    }

    fn bounded(&self, model: Tree) -> Tree {
        model.with_scale_at_most(MOST_SCALE)
    }

    fn measure(&self, model: Tree) -> Result<Measured, Error> {
        let model = model.with_statistics(Statistics::Running);
        let vlm = self.parts.vlm(Model::Tree(Box::new(model)))?;
        if !self.config.contrast {
            return self.parts.measure_answers(&vlm);
        }
        let mut measured = self.parts.measure_texts(&vlm)?;
        if self.answers() {
            measured = measured.and(self.parts.measure_answers(&vlm)?);
        }
        if self.config.captions {
            measured = measured.and(self.parts.measure_captions(&vlm)?);
        }
        Ok(measured)
    }

    fn files(&self) -> Result<Files, Error> {
        self.parts.files()
    }

    fn data_seed(&self) -> u64 {
        self.parts.recipe.data.seed
    }

    fn panels(&self, log: &Log) -> Vec<Panel> {
        let losses = [
            ("contrast", "itc_loss"),
            ("matching", "itm_loss"),
            ("captions", "caption_loss"),
            ("answers", "answer_loss"),
        ];
        panels(log, &losses, &[("VQA accuracy", "val.vqa_accuracy")])
    }
}
