//! What Oscar learns: the losses of batches of its tasks.
//!
//! | task | a row | loss |
//! |---|---|---|
//! | pre-training | a text, tags, regions; of half of them the tags or the text are another picture's | hidden tokens, and what was exchanged |
//! | captioning | a caption, tags, regions; a word sees those before it | hidden words |
//! | VQA | a question, tags, regions | answers |
//! | retrieval | a caption, tags, regions, once as they belong together and once not | whether they do |
//! | NLVR2 | a statement, tags, regions of each of its pictures | whether it is true |
//!
//! What is hidden and exchanged is drawn from the batch's seed alone, as the released commands draw it; what is exchanged
//! comes from the same batch.

use super::capabilities::{cut, tokens};
use super::{Oscar, OscarLoss, OscarTask, OscarTexts};
use crate::capability::{Pictures, Regions, Tokens};
use crate::error::{Error, below, expect};
use crate::objectives::{MaskedTokens, MlmMasking, mask_tokens};
use burn::tensor::{Tensor, TensorData};
use vlm_nn::KeyMask;
use vlm_nn::random::SplitMix64;

/// Texts about pictures, and what is right of them.
#[derive(Clone, Debug)]
pub struct OscarBatch {
    /// Regions and tags. Where a text is about several pictures, the first ones of all texts come before the second ones.
    pub pictures: Pictures,
    /// The texts, begun and ended.
    pub texts: Tokens,
    /// The picture of each text; not read where a text is about several.
    pub of: Vec<usize>,
    /// What is learned.
    pub targets: OscarTargets,
    /// Draws what is hidden and exchanged.
    pub seed: u64,
}

/// What is right of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum OscarTargets {
    /// Each text belongs to its picture: pre-training, captioning, retrieval.
    Belong,
    /// The right answers of each question by their places, with weights from 0 to 1; where classes exclude each other, the
    /// heaviest one counts.
    Answers(Vec<Vec<(usize, f32)>>),
    /// Whether each statement is true.
    Truths(Vec<bool>),
}

/// A loss with its parts.
#[derive(Clone, Debug)]
pub struct OscarLosses {
    /// `[1]`: their sum.
    pub total: Tensor<1>,
    /// `[1]` each, by name.
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

impl OscarLosses {
    fn one(name: &'static str, loss: Tensor<1>) -> Self {
        Self {
            total: loss.clone(),
            parts: vec![(name, loss)],
        }
    }
}

/// A text, a picture's tags and its regions, by their places, and which of the first two is another picture's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Triplet {
    text: usize,
    tags: usize,
    picture: usize,
    /// 0 for neither, 1 for the tags, the last class for the text.
    class: i64,
}

/// One of those that fit, drawn by a number from 0 to 1.
fn one_of(fit: &[usize], drawn: f64) -> Option<usize> {
    let place = (drawn * fit.len() as f64) as usize;
    fit.get(place).copied()
}

/// The places of all labels that are no negative number, counted through rows of `width`, and the labels.
fn labelled(labels: &[Vec<i64>], width: usize) -> (Vec<usize>, Vec<i64>) {
    let each = labels.iter().enumerate().flat_map(|(row, labels)| {
        let labels = labels.iter().enumerate();
        labels.map(move |(i, &label)| (row * width + i, label))
    });
    each.filter(|(_, label)| *label >= 0).unzip()
}

impl Oscar {
    /// What a batch of the model's task costs.
    ///
    /// # Errors
    /// Targets of another task, rows that do not belong together, or inputs that do not fit the model.
    pub fn batch_loss(&self, batch: &OscarBatch) -> Result<OscarLosses, Error> {
        match (self.config.task, &batch.targets) {
            (OscarTask::Pretraining, OscarTargets::Belong) => self.pretraining_loss(batch),
            (OscarTask::Captioning, OscarTargets::Belong) => self.captioning_loss(batch),
            (OscarTask::Classification, OscarTargets::Belong) if self.retrieves() => {
                let pairs = self.pairs(batch)?;
                let labels: Vec<i64> = pairs.iter().map(|pair| i64::from(pair.2)).collect();
                let pairs: Vec<(usize, usize)> =
                    pairs.iter().map(|pair| (pair.0, pair.1)).collect();
                let pooled = self.pooled_pairs(&batch.pictures, &batch.texts, &pairs)?;
                let loss = self.class_loss(self.class_logits(pooled)?, &labels, "labels")?;
                Ok(OscarLosses::one("itm", loss))
            }
            (OscarTask::Classification, OscarTargets::Answers(answers)) => {
                let pooled = self.pooled_of(&batch.pictures, &batch.of, &batch.texts)?;
                let loss = self.answers_loss(self.class_logits(pooled)?, answers)?;
                Ok(OscarLosses::one("answers", loss))
            }
            (OscarTask::Choice, OscarTargets::Truths(truths)) => {
                let logits = self.statement_logits(&batch.pictures, &batch.texts)?;
                let labels: Vec<i64> = truths.iter().map(|&truth| i64::from(truth)).collect();
                let loss = self.class_loss(logits, &labels, "labels")?;
                Ok(OscarLosses::one("statements", loss))
            }
            (task, targets) => Err(Error::Config {
                place: "targets".to_owned(),
                expected: format!("those of {task:?}"),
                found: match targets {
                    OscarTargets::Belong => "texts that belong to pictures",
                    OscarTargets::Answers(_) => "answers",
                    OscarTargets::Truths(_) => "truths of statements",
                }
                .to_owned(),
            }),
        }
    }

    /// The other texts of a batch that belong to another picture and say something else.
    fn other_texts(&self, batch: &OscarBatch, text: usize) -> Vec<usize> {
        let all = batch.texts.rows();
        let other = |&i: &usize| batch.of[i] != batch.of[text] && all[i] != all[text];
        (0..all.len()).filter(other).collect()
    }

    fn check_pictures(&self, batch: &OscarBatch) -> Result<(), Error> {
        let (found, expected) = (batch.of.len(), batch.texts.rows().len());
        expect(
            found == expected,
            "pictures",
            format!("those of {expected} texts"),
            found,
        )?;
        below("pictures", &batch.of, batch.pictures.count())
    }

    /// Text and picture of each row, and whether they belong together: every pair, and beside it one with another text or
    /// another picture, as it is drawn. Where the batch has no other, there is none.
    fn pairs(&self, batch: &OscarBatch) -> Result<Vec<(usize, usize, bool)>, Error> {
        self.check_pictures(batch)?;
        let mut rng = SplitMix64::new(batch.seed);
        let mut pairs = Vec::with_capacity(2 * batch.of.len());
        for (text, &picture) in batch.of.iter().enumerate() {
            let [which, drawn] = [rng.uniform(), rng.uniform()];
            pairs.push((text, picture, true));
            let other = one_of(&self.other_texts(batch, text), drawn);
            pairs.extend(other.map(|other| match which <= 0.5 {
                true => (other, picture, false),
                false => (text, batch.of[other], false),
            }));
        }
        Ok(pairs)
    }

    /// Half of the triplets as they belong together; of the others the tags are another picture's, or in
    /// `texta_false_prob` of all the text. What has no other in the batch stays.
    fn triplets(&self, batch: &OscarBatch) -> Result<Vec<Triplet>, Error> {
        self.check_pictures(batch)?;
        let c = &self.config;
        let (_, tags) = self.regions_and_tags(&batch.pictures)?;
        let all: Vec<Vec<u32>> = (0..tags.rows().len()).map(|i| tokens(tags, i)).collect();
        let mut rng = SplitMix64::new(batch.seed);
        let triplet = |(text, &picture): (usize, &usize)| {
            let [exchanged, drawn] = [rng.uniform(), rng.uniform()];
            let own = Triplet {
                text,
                tags: picture,
                picture,
                class: 0,
            };
            let with_tags = |tags: usize| Triplet {
                tags,
                class: 1,
                ..own
            };
            let with_text = |text: usize| Triplet {
                text,
                class: c.num_contrast_classes as i64 - 1,
                ..own
            };
            let other = if exchanged > 0.5 {
                None
            } else if exchanged > c.texta_false_prob && !all[picture].is_empty() {
                let other = |&i: &usize| !all[i].is_empty() && all[i] != all[picture];
                let others: Vec<usize> = (0..all.len()).filter(other).collect();
                one_of(&others, drawn).map(with_tags)
            } else {
                one_of(&self.other_texts(batch, text), drawn).map(with_text)
            };
            other.unwrap_or(own)
        };
        Ok(batch.of.iter().enumerate().map(triplet).collect())
    }

    fn pretraining_loss(&self, batch: &OscarBatch) -> Result<OscarLosses, Error> {
        let c = &self.config;
        let triplets = self.triplets(batch)?;
        let (regions, tags) = self.regions_and_tags(&batch.pictures)?;
        let texts: Vec<(usize, usize)> = triplets.iter().map(|t| (t.text, t.tags)).collect();
        let texts = self.with_tags(&batch.texts, tags, &texts)?;
        let masking = MlmMasking {
            probability: c.mask_prob,
            vocab_size: c.bert.vocab_size,
            mask_token_id: c.mask_token_id,
            pad_token_id: c.pad_token_id,
            cls_token_id: c.cls_token_id,
            sep_token_id: Some(c.sep_token_id),
        };
        let masked = mask_tokens(&texts.tokens, &masking, batch.seed ^ 1);
        let texts = OscarTexts {
            tokens: masked.texts,
            ..texts
        };
        let of: Vec<usize> = triplets.iter().map(|t| t.picture).collect();
        let classes: Vec<i64> = triplets.iter().map(|t| t.class).collect();
        let regions = self.regions_of(&regions, &of)?;
        let [words, contrast] = self.triplet_losses(&texts, &regions, &masked.labels, &classes)?;
        Ok(OscarLosses {
            total: words.clone() + contrast.clone(),
            parts: vec![("mlm", words), ("contrast", contrast)],
        })
    }

    /// The losses of hidden tokens and of what was exchanged.
    ///
    /// # Shapes
    /// Gives `[1]` each.
    fn triplet_losses(
        &self,
        texts: &OscarTexts,
        regions: &Regions,
        labels: &[Vec<i64>],
        classes: &[i64],
    ) -> Result<[Tensor<1>; 2], Error> {
        self.check_mask(self.config.mask_token_id)?;
        let mut states = self.states(texts, regions)?;
        let last = states.pop().expect("the states of the embeddings at least");
        let contrast = self.contrast_logits(self.pooled(&last))?;
        let contrast = self.class_loss(contrast, classes, "classes of triplets")?;
        let (mut places, mut targets) = labelled(labels, last.dims()[1]);
        // a batch that hides nothing has a loss, too
        if places.is_empty() {
            (places, targets) = (vec![0], vec![-1]);
        }
        let logits = self.token_logits_at(last, &places)?;
        let words = self.class_loss(logits, &targets, "hidden tokens")?;
        Ok([words, contrast])
    }

    fn captioning_loss(&self, batch: &OscarBatch) -> Result<OscarLosses, Error> {
        self.check_pictures(batch)?;
        let c = &self.config;
        let (regions, tags) = self.regions_and_tags(&batch.pictures)?;
        let cut_rows = |all: &Tokens, of: &[usize], most: usize| {
            let rows = of.iter().map(|&row| {
                let mut row = tokens(all, row);
                cut(&mut row, most, c.sep_token_id);
                row
            });
            Tokens::padded(&rows.collect::<Vec<_>>(), c.pad_token_id)
        };
        let own: Vec<usize> = (0..batch.of.len()).collect();
        let captions = cut_rows(&batch.texts, &own, c.max_seq_a_length);
        let tags = cut_rows(tags, &batch.of, c.max_seq_length - c.max_seq_a_length);
        let hidden = self.hide_words(&captions, batch.seed);
        let regions = self.regions_of(&regions, &batch.of)?;
        let loss = self.hidden_words_loss(&hidden, &tags, c.max_seq_a_length, &regions)?;
        Ok(OscarLosses::one("caption_loss", loss))
    }

    /// Hides `mask_prob` of each caption's tokens, one at least and at most `max_masked_tokens`, its end among them but not
    /// its beginning: four fifths behind the mask token, a tenth behind a random one; a tenth stays.
    fn hide_words(&self, captions: &Tokens, seed: u64) -> MaskedTokens {
        let c = &self.config;
        let mut rng = SplitMix64::new(seed);
        let (mut rows, mut labels) = (captions.rows().to_vec(), Vec::new());
        for (row, length) in rows.iter_mut().zip(captions.lengths()) {
            let mut targets = vec![-1; row.len()];
            let wanted = (c.mask_prob * length as f64).round_ties_even() as usize;
            let wanted = wanted.max(1).min(c.max_masked_tokens);
            let mut places: Vec<usize> = (1..length).collect();
            for _ in 0..wanted.min(places.len()) {
                let [place, kind, word] = [rng.uniform(), rng.uniform(), rng.uniform()];
                let place = places.swap_remove((place * places.len() as f64) as usize);
                targets[place] = i64::from(row[place]);
                if kind < 0.8 {
                    row[place] = c.mask_token_id;
                } else if kind < 0.9 {
                    row[place] = (word * c.bert.vocab_size as f64) as u32;
                }
            }
            labels.push(targets);
        }
        let texts = Tokens::new(rows, Some(captions.mask().to_vec()));
        MaskedTokens {
            texts: texts.expect("rows of the same lengths"),
            labels,
        }
    }

    /// The loss of the hidden words of captions whose words see those before them, tags and regions; positions of tags
    /// begin at `tags_from`.
    ///
    /// # Shapes
    /// Gives `[1]`.
    fn hidden_words_loss(
        &self,
        captions: &MaskedTokens,
        tags: &Tokens,
        tags_from: usize,
        regions: &Regions,
    ) -> Result<Tensor<1>, Error> {
        self.check_mask(self.config.mask_token_id)?;
        let joined = captions.texts.rows().iter().zip(tags.rows());
        let ids: Vec<Vec<u32>> = joined.map(|(c, t)| [c.as_slice(), t].concat()).collect();
        let [words, tagged] =
            [captions.texts.rows(), tags.rows()].map(|r| r.first().map_or(0, Vec::len));
        let positions = (0..words).chain(tags_from..tags_from + tagged);
        let positions: Vec<u32> = positions.map(|position| position as u32).collect();
        let texts = OscarTexts {
            segments: vec![[vec![0; words], vec![1; tagged]].concat(); ids.len()],
            positions: Some(vec![positions; ids.len()]),
            tokens: Tokens::new(ids, None)?,
        };
        let x = self.embeddings(&texts, Some(&regions.features))?;
        let total = x.dims()[1];
        let pairs: Vec<Vec<bool>> = (captions.texts.mask().iter())
            .zip(tags.mask().iter().zip(&regions.mask))
            .map(|(caption, (tags, regions))| {
                let seen = [caption.as_slice(), tags, regions].concat();
                let sees = |query: usize, key: usize| {
                    let before = key >= words || key <= query && query < words;
                    seen[query] && seen[key] && before
                };
                let all = (0..total).flat_map(|query| (0..total).map(move |key| (query, key)));
                all.map(|(query, key)| sees(query, key)).collect()
            })
            .collect();
        let mut states = self.encoded(x, KeyMask::pairs(&pairs, [total, total]));
        let last = states.pop().expect("the states of the embeddings at least");
        let (places, targets) = labelled(&captions.labels, total);
        self.caption_loss(self.token_logits_at(last, &places)?, &targets)
    }

    /// The loss of answers with their weights.
    ///
    /// # Shapes
    /// `logits: [R, K]`; gives `[1]`.
    fn answers_loss(
        &self,
        logits: Tensor<2>,
        answers: &[Vec<(usize, f32)>],
    ) -> Result<Tensor<1>, Error> {
        let [r, k] = logits.dims();
        let found = answers.len();
        expect(
            found == r,
            "answers",
            format!("those of {r} questions"),
            found,
        )?;
        below(
            "answers",
            answers.iter().flatten().map(|(place, _)| place),
            k,
        )?;
        if self.config.loss == OscarLoss::Classes {
            let heaviest = |right: &Vec<(usize, f32)>| {
                let best = right.iter().max_by(|a, b| a.1.total_cmp(&b.1));
                best.map_or(-1, |(place, _)| *place as i64)
            };
            let labels: Vec<i64> = answers.iter().map(heaviest).collect();
            return self.class_loss(logits, &labels, "labels");
        }
        let mut weights = vec![0.0; r * k];
        for (row, right) in answers.iter().enumerate() {
            for &(place, weight) in right {
                weights[row * k + place] = weight;
            }
        }
        let weights = Tensor::from_data(TensorData::new(weights, [r, k]), &logits.device());
        Ok(self.answer_loss(logits, weights))
    }
}

#[cfg(test)]
mod tests;
