//! BLIP: captions, answers, or retrieval, as the config's class says.

use super::parts::{Parts, Specials, Start, empty_checkpoint, fill, id, panels, pictures, strings};
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
use vlm_models::families::blip::{Blip, BlipConfig, BlipTask, Labels};
use vlm_nn::random::SplitMix64;
use vlm_nn::weights::{Weights, collect};
use vlm_tasks::TextSide;

/// BERT's, and the two that BLIP adds.
pub(super) const SPECIALS: Specials = Specials {
    first: &[
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]",
    ],
    last: &[],
    begin: "[CLS]",
    end: "[SEP]",
    plain: str::to_owned,
};

/// A BLIP in training.
pub(crate) struct BlipLearner {
    parts: Parts,
    config: BlipConfig,
    text: TextSide,
}

impl BlipLearner {
    pub(crate) fn new(set: &SetRecipe, start: Start) -> Result<Self, Error> {
        let wrong = |e: vlm_models::Error| Error::file("recipe", format!("model: {e}"));
        let class = start.config.get("architectures").and_then(|a| a.get(0));
        let Some(class) = class.and_then(|c| c.as_str()) else {
            let reason = "model.architectures: expected the class, such as [\"BlipForQuestionAnswering\"], found none";
            return Err(Error::file("recipe", reason));
        };
        let wanted = match class {
            "BlipForQuestionAnswering" => Wanted::Answers,
            _ => Wanted::Texts,
        };
        let mut parts = Parts::open(set, start, wanted, "a photo of a {}.", &SPECIALS)?;
        // a published vocabulary of BERT lacks them
        parts.tokenizer = (parts.tokenizer.clone()).with_special_tokens(&["[DEC]", "[ENC]"]);
        let t = &parts.tokenizer;
        let fields = [
            ("vocab_size", json!(t.id_bound())),
            ("bos_token_id", id(t, "[DEC]")),
            ("sep_token_id", id(t, "[SEP]")),
            ("pad_token_id", id(t, "[PAD]")),
        ];
        fill(&mut parts.config, "text_config", &fields);
        let none = empty_checkpoint()?;
        let config = BlipConfig::parse(&parts.config.to_string(), &none).map_err(wrong)?;
        parts.with_size(config.vision.image_size)?;
        let mut weights = Weights::random(0, &Device::flex());
        let model = Blip::new(&mut weights, &config, config.tie_word_embeddings);
        let model = Model::Blip(Box::new(model));
        let text = TextSide::new(&set.name, parts.tokenizer.clone(), &model)?;
        Ok(Self {
            parts,
            config,
            text,
        })
    }

    /// What the decoder writes: its beginning, the text, its end; padded, with the targets.
    fn written(&self, texts: &[String]) -> Result<(Tokens, Labels), Error> {
        let rows = texts.iter().map(|text| {
            let mut row = self.text.answer_prompt();
            row.extend(self.text.answer(text)?);
            Ok(row)
        });
        let rows: Vec<Vec<u32>> = rows.collect::<Result<_, Error>>()?;
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let labels = rows.iter().map(|row| {
            let ids = row.iter().map(|&id| i64::from(id));
            let padding = std::iter::repeat_n(-1, longest - row.len());
            ids.chain(padding).collect()
        });
        let labels = Labels {
            ids: labels.collect(),
        };
        Ok((Tokens::padded(&rows, self.config.pad_token_id), labels))
    }

    /// Contrast and matching with hard negatives: for each picture a text, and for each text a picture, that do not
    /// belong, drawn by how alike they seem (Li et al., 2022).
    fn retrieval_loss(
        &self,
        model: &Blip,
        states: &Tensor<3>,
        batch: &SetBatch,
    ) -> Result<Losses, Error> {
        let tokens = self.text.tokens(&strings(&batch.texts))?;
        let image = model.picture_vectors(states)?;
        let text = model.text_vectors(&model.text_states(&tokens, None)?)?;
        let contrast = model.contrastive_loss(image.clone(), text.clone());
        if model.can_judge().is_err() {
            return Ok(Losses {
                parts: vec![("itc_loss", Some(contrast.clone()))],
                total: contrast,
            });
        }
        let scale = model.log_scale().exp().into_scalar::<f32>();
        let similar = image.matmul(text.transpose()).into_data();
        let similar: Vec<f32> = similar.convert::<f32>().try_to_vec().expect("f32");
        let negatives = hard_negatives(&similar, scale, &batch.texts, &mut batch.rng());
        let b = batch.texts.len();
        let own: Vec<usize> = (0..b).collect();
        // pairs that belong, pictures with other texts, other pictures with texts
        let texts = [&own[..], &negatives.texts, &own].concat();
        let of = [&own[..], &own, &negatives.pictures].concat();
        let rows = |list: &[usize]| list.iter().map(|&i| tokens.rows()[i].clone()).collect();
        let mask = texts.iter().map(|&i| tokens.mask()[i].clone()).collect();
        let tokens = Tokens::new(rows(&texts), Some(mask))?;
        let states = states.clone().select(0, places(&of, &states.device()));
        let belongs: Vec<bool> = (0..3 * b).map(|i| i < b).collect();
        let matching = model.match_loss(model.match_logits(&states, &tokens)?, &belongs);
        Ok(Losses {
            total: contrast.clone() + matching.clone(),
            parts: vec![("itc_loss", Some(contrast)), ("itm_loss", Some(matching))],
        })
    }
}

/// `[n]` places on a device.
pub(super) fn places(places: &[usize], device: &Device) -> Tensor<1, Int> {
    let places: Vec<i64> = places.iter().map(|&i| i as i64).collect();
    let count = places.len();
    Tensor::from_data(TensorData::new(places, [count]), device)
}

/// For each picture a text, and for each text a picture, that do not belong to it.
pub(super) struct Negatives {
    pub texts: Vec<usize>,
    pub pictures: Vec<usize>,
}

/// Draws by the softmax of `scale` times the similarities `[B, B]` of pictures and texts; pairs with the same text are
/// no negatives. Where all texts are the same, the next one stands in.
pub(super) fn hard_negatives(
    similar: &[f32],
    scale: f32,
    texts: &[String],
    rng: &mut SplitMix64,
) -> Negatives {
    let b = texts.len();
    let mut draw = |i: usize, score: &dyn Fn(usize) -> f32| {
        let others: Vec<usize> = (0..b).filter(|&j| texts[j] != texts[i]).collect();
        let most = others.iter().fold(f32::MIN, |m, &j| m.max(score(j)));
        let weights: Vec<f32> = others
            .iter()
            .map(|&j| (scale * (score(j) - most)).exp() + 1e-5)
            .collect();
        let mut left = rng.uniform_f32() * weights.iter().sum::<f32>();
        let drawn = others.iter().zip(&weights).find(|(_, weight)| {
            left -= **weight;
            left < 0.0
        });
        let last = others.last().copied().unwrap_or((i + 1) % b);
        drawn.map_or(last, |(&j, _)| j)
    };
    Negatives {
        texts: (0..b).map(|i| draw(i, &|j| similar[i * b + j])).collect(),
        pictures: (0..b).map(|i| draw(i, &|j| similar[j * b + i])).collect(),
    }
}

impl Learner for BlipLearner {
    type Model = Blip;
    type Batch = SetBatch;

    fn build(&self, weights: &mut Weights) -> Blip {
        Blip::new(weights, &self.config, self.config.tie_word_embeddings)
    }

    fn initial(&self, device: &Device) -> Result<(Blip, Option<String>), Error> {
        self.parts.initial(
            device,
            |weights| self.build(weights),
            |model| match model {
                Model::Blip(m) => Some(collect(&**m)),
                _ => None,
            },
        )
    }

    fn stream(&self, first: u64) -> Receiver<Result<SetBatch, Error>> {
        self.parts.stream(first)
    }

    fn loss(&self, model: &Blip, batch: &SetBatch, device: &Device) -> Result<Losses, Error> {
        let states = model.picture_states(&pictures(batch, device))?;
        let logits = match self.config.task {
            BlipTask::Retrieval | BlipTask::Contrastive => {
                return self.retrieval_loss(model, &states, batch);
            }
            BlipTask::QuestionAnswering => {
                let (answers, labels) = self.written(&batch.answers)?;
                let questions = self.text.tokens(&strings(&batch.texts))?;
                let states = states.select(0, places(&batch.pictures, device));
                (model.answer_logits(&states, &questions, &answers)?, labels)
            }
            BlipTask::Captioning | BlipTask::Pretraining => {
                let (texts, labels) = self.written(&batch.texts)?;
                (model.caption_logits(&states, &texts)?, labels)
            }
        };
        let total = model.language_loss(logits.0, &logits.1)?;
        Ok(Losses {
            parts: vec![("lm_loss", Some(total.clone()))],
            total,
        })
    }

    fn measure(&self, model: Blip) -> Result<Measured, Error> {
        let vlm = self.parts.vlm(Model::Blip(Box::new(model)))?;
        match self.config.task {
            BlipTask::Retrieval | BlipTask::Contrastive => self.parts.measure_texts(&vlm),
            BlipTask::QuestionAnswering => self.parts.measure_answers(&vlm),
            BlipTask::Captioning | BlipTask::Pretraining => self.parts.measure_captions(&vlm),
        }
    }

    fn files(&self) -> Result<Files, Error> {
        self.parts.files()
    }

    fn data_seed(&self) -> u64 {
        self.parts.recipe.data.seed
    }

    fn panels(&self, log: &Log) -> Vec<Panel> {
        panels(
            log,
            &[
                ("language modelling", "lm_loss"),
                ("contrast", "itc_loss"),
                ("matching", "itm_loss"),
            ],
            &[("VQA accuracy", "val.vqa_accuracy")],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negatives_belong_to_other_texts_and_are_mostly_the_alike_ones() {
        let texts = ["a", "b", "a", "c"].map(str::to_owned);
        // picture 0 is most like text 1, text 3 most like picture 1
        let mut similar = [0.0f32; 16];
        similar[1] = 1.0;
        similar[4 + 3] = 1.0;
        let (mut likely, mut rng) = (0, SplitMix64::new(5));
        for _ in 0..100 {
            let found = hard_negatives(&similar, 5.0, &texts, &mut rng);
            for (i, (&t, &p)) in found.texts.iter().zip(&found.pictures).enumerate() {
                assert!(texts[t] != texts[i] && texts[p] != texts[i]);
            }
            likely += usize::from(found.texts[0] == 1) + usize::from(found.pictures[3] == 1);
        }
        assert!(likely > 180, "{likely}");
        let same = ["a", "a"].map(str::to_owned);
        let found = hard_negatives(&[0.0; 4], 1.0, &same, &mut rng);
        assert_eq!(found.texts, [1, 0]);
    }
}
