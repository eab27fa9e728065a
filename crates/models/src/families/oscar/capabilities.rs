//! What Oscar does with regions and their tags: captions, answers, matching and statements.
//!
//! The released commands cut what is too long: of words and tags together `max_seq_length` tokens are read, of a caption
//! `max_seq_a_length`, behind which the positions of its tags begin, and of a picture the first `max_img_seq_length`
//! regions.

use super::{Oscar, OscarLoss, OscarTask, OscarTexts, index};
use crate::capability::{
    ClassifyAnswer, Generate, JudgeText, Pictures, Regions, ScorePair, Tokens, rows,
};
use crate::error::{Error, below, expect};
use crate::generate::Autoregressive;
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, softmax};

/// A row without its padding.
pub(super) fn tokens(texts: &Tokens, row: usize) -> Vec<u32> {
    let ids = texts.rows()[row].iter().zip(&texts.mask()[row]);
    ids.filter(|(_, seen)| **seen).map(|(&id, _)| id).collect()
}

/// Cuts two texts to `most` tokens together, one at a time from the end of the longer one.
fn cut_pair(a: &mut Vec<u32>, b: &mut Vec<u32>, most: usize) {
    while a.len() + b.len() > most {
        let longer = if a.len() > b.len() { &mut *a } else { &mut *b };
        longer.pop();
    }
}

/// Cuts a text to `most` tokens, the last of which is `end`.
pub(super) fn cut(text: &mut Vec<u32>, most: usize, end: u32) {
    if text.len() > most {
        text.truncate(most.saturating_sub(1));
        text.push(end);
    }
}

impl Oscar {
    /// The answers by their names, in the order of the model's classes.
    ///
    /// # Errors
    /// Another number of names than the model has classes.
    pub fn name_answers(&mut self, names: Vec<String>) -> Result<(), Error> {
        expect(
            names.len() == self.config.num_labels,
            "labels",
            format!("{} names, as num_labels says", self.config.num_labels),
            names.len(),
        )?;
        self.config.answers = names;
        Ok(())
    }

    /// # Errors
    /// A model that was fine-tuned for something else.
    pub fn can_caption(&self) -> Result<(), Error> {
        match self.config.task {
            OscarTask::Captioning => Ok(()),
            _ => Err(self.cannot("write captions")),
        }
    }

    /// # Errors
    /// A model that was fine-tuned for something else; one with two classes tells whether a text belongs to a picture.
    pub fn can_answer(&self) -> Result<(), Error> {
        match self.config.task {
            OscarTask::Classification if !self.retrieves() => Ok(()),
            _ => Err(self.cannot("answer questions")),
        }
    }

    /// # Errors
    /// A model without two classes, or without the classes of pre-training.
    pub fn can_match(&self) -> Result<(), Error> {
        if self.contrast.is_some() || self.retrieves() {
            return Ok(());
        }
        Err(self.cannot("judge pairs"))
    }

    /// # Errors
    /// A model that was not trained on statements about two pictures.
    pub fn can_judge_texts(&self) -> Result<(), Error> {
        match self.config.task {
            OscarTask::Choice if self.config.num_labels == 2 => Ok(()),
            _ => Err(self.cannot("judge statements")),
        }
    }

    /// Whether the two classes are those of retrieval.
    pub(super) fn retrieves(&self) -> bool {
        let c = &self.config;
        let two = c.num_labels == 2 && c.loss == OscarLoss::Classes;
        c.task == OscarTask::Classification && two
    }

    /// Regions and tags of pictures.
    pub(super) fn regions_and_tags<'a>(
        &self,
        pictures: &'a Pictures,
    ) -> Result<(Regions, &'a Tokens), Error> {
        let Pictures::Regions { regions, tags } = pictures else {
            return Err(Error::Config {
                place: "pictures".to_owned(),
                expected: "regions that a detector found in them".to_owned(),
                found: "pixels".to_owned(),
            });
        };
        let (pictures, tagged) = (regions.mask.len(), tags.rows().len());
        expect(
            pictures == tagged,
            "tags",
            format!("those of {pictures} pictures"),
            tagged,
        )?;
        let found = regions.features.dims()[1];
        let most = self.config.max_img_seq_length.min(found);
        let mask = regions.mask.iter().map(|row| row[..most].to_vec());
        Ok((
            Regions {
                features: regions.features.clone().narrow(1, 0, most),
                mask: mask.collect(),
            },
            tags,
        ))
    }

    /// Words and tags in one row for each pair of a text and a picture's tags, by their places.
    pub(super) fn with_tags(
        &self,
        texts: &Tokens,
        tags: &Tokens,
        pairs: &[(usize, usize)],
    ) -> Result<OscarTexts, Error> {
        let c = &self.config;
        below(
            "input_ids",
            pairs.iter().map(|(text, _)| text),
            texts.rows().len(),
        )?;
        below(
            "tags",
            pairs.iter().map(|(_, picture)| picture),
            tags.rows().len(),
        )?;
        let (mut ids, mut segments) = (Vec::new(), Vec::new());
        for &(text, picture) in pairs {
            let (mut words, mut tags) = (tokens(texts, text), tokens(tags, picture));
            let around = usize::from(tags.pop().is_some());
            let end = words.pop();
            cut_pair(
                &mut words,
                &mut tags,
                c.max_seq_length.saturating_sub(1 + around),
            );
            words.extend(end);
            if around > 0 {
                tags.push(c.sep_token_id);
            }
            segments.push([vec![0; words.len()], vec![1; tags.len()]].concat());
            ids.push([words, tags].concat());
        }
        let tokens = Tokens::padded(&ids, c.pad_token_id);
        let longest = tokens.rows().first().map_or(0, Vec::len);
        segments
            .iter_mut()
            .for_each(|row: &mut Vec<u32>| row.resize(longest, 0));
        Ok(OscarTexts {
            tokens,
            segments,
            positions: None,
        })
    }

    /// The regions of pictures by their places, some of them more than once.
    pub(super) fn regions_of(&self, regions: &Regions, of: &[usize]) -> Result<Regions, Error> {
        below("pictures", of, regions.mask.len())?;
        let places = index(of, &self.device());
        Ok(Regions {
            features: regions.features.clone().select(0, places),
            mask: of.iter().map(|&i| regions.mask[i].clone()).collect(),
        })
    }

    /// The pooled state of each pair of a text and a picture, by their places.
    pub(super) fn pooled_pairs(
        &self,
        pictures: &Pictures,
        texts: &Tokens,
        pairs: &[(usize, usize)],
    ) -> Result<Tensor<2>, Error> {
        let (regions, tags) = self.regions_and_tags(pictures)?;
        let of: Vec<usize> = pairs.iter().map(|(_, picture)| *picture).collect();
        let regions_of = self.regions_of(&regions, &of)?;
        let texts = self.with_tags(texts, tags, pairs)?;
        let mut states = self.states(&texts, &regions_of)?;
        let last = states.pop().expect("the states of the embeddings at least");
        Ok(self.pooled(&last))
    }

    /// The pooled state of each text about picture `of[i]`.
    pub(super) fn pooled_of(
        &self,
        pictures: &Pictures,
        of: &[usize],
        texts: &Tokens,
    ) -> Result<Tensor<2>, Error> {
        let (found, expected) = (of.len(), texts.rows().len());
        expect(
            found == expected,
            "pictures",
            format!("those of {expected} texts"),
            found,
        )?;
        let pairs: Vec<(usize, usize)> = of.iter().copied().enumerate().collect();
        self.pooled_pairs(pictures, texts, &pairs)
    }

    /// Logits of statements about several pictures each, the first ones of all texts before the second ones.
    pub(super) fn statement_logits(
        &self,
        pictures: &Pictures,
        texts: &Tokens,
    ) -> Result<Tensor<2>, Error> {
        self.can_judge_texts()?;
        let (choices, count) = (self.config.num_choice, texts.rows().len());
        expect(
            pictures.count() == choices * count,
            "pictures",
            format!("{choices} for each of {count} texts"),
            pictures.count(),
        )?;
        // a text stands in successive rows, with one of its pictures in each
        let pairs: Vec<(usize, usize)> = (0..count)
            .flat_map(|text| (0..choices).map(move |choice| (text, choice * count + text)))
            .collect();
        self.class_logits(self.pooled_pairs(pictures, texts, &pairs)?)
    }
}

/// One picture at a time, or pictures with as many regions and tags as each other.
impl Generate for Oscar {
    fn encode(&self, pictures: &Pictures) -> Result<Tensor<3>, Error> {
        self.can_caption()?;
        let c = &self.config;
        self.check_mask(c.mask_token_id)?;
        let (regions, tags) = self.regions_and_tags(pictures)?;
        let most = c.max_seq_length - c.max_seq_a_length;
        let rows = tags.rows().len();
        let tags: Vec<Vec<u32>> = (0..rows)
            .map(|row| {
                let mut tags = tokens(tags, row);
                cut(&mut tags, most, c.sep_token_id);
                tags
            })
            .collect();
        let tags = Tokens::padded(&tags, c.pad_token_id);
        let padded = tags.is_padded() || regions.mask.iter().flatten().any(|seen| !seen);
        expect(
            !padded,
            "pictures",
            "as many regions and tags in each, or one picture",
            rows,
        )?;
        Ok(self.context(&regions, &tags, c.max_seq_a_length)?.0)
    }

    fn decode(&self, memory: Tensor<3>) -> Box<dyn Autoregressive + '_> {
        let [rows, length, _] = memory.dims();
        let seen = vec![vec![true; length]; rows];
        let c = &self.config;
        Box::new(self.begin(memory, seen, c.mask_token_id, c.max_seq_a_length - 1))
    }
}

impl ClassifyAnswer for Oscar {
    fn known_answers(&self) -> &[String] {
        &self.config.answers
    }

    fn classify_answer(
        &self,
        pictures: &Pictures,
        of: &[usize],
        questions: &Tokens,
    ) -> Result<Vec<Vec<f32>>, Error> {
        self.can_answer()?;
        let logits = self.class_logits(self.pooled_of(pictures, of, questions)?)?;
        Ok(rows(match self.config.loss {
            OscarLoss::Binary => sigmoid(logits),
            OscarLoss::Classes => softmax(logits, 1),
        }))
    }
}

impl ScorePair for Oscar {
    fn score_pair(&self, pictures: &Pictures, texts: &Tokens) -> Result<Vec<f32>, Error> {
        self.can_match()?;
        let of: Vec<usize> = (0..pictures.count()).collect();
        let pooled = self.pooled_of(pictures, &of, texts)?;
        // pre-training's first class says that nothing was exchanged, retrieval's second one that it fits
        let (logits, class) = match self.contrast {
            Some(_) => (self.contrast_logits(pooled)?, 0),
            None => (self.class_logits(pooled)?, 1),
        };
        Ok(rows(softmax(logits, 1))
            .iter()
            .map(|row| row[class])
            .collect())
    }
}

impl JudgeText for Oscar {
    fn pictures_per_text(&self) -> usize {
        self.config.num_choice
    }

    fn classes(&self) -> &'static [&'static str] {
        &["false", "true"]
    }

    fn judge_text(&self, pictures: &Pictures, texts: &Tokens) -> Result<Vec<Vec<f32>>, Error> {
        let logits = self.statement_logits(pictures, texts)?;
        Ok(rows(softmax(logits, 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_text_of_a_pair_is_cut() {
        let (mut a, mut b) = (vec![1, 2, 3, 4], vec![5, 6]);
        cut_pair(&mut a, &mut b, 4);
        assert_eq!((a.clone(), b.clone()), (vec![1, 2], vec![5, 6]));
        // of two as long as each other the second
        cut_pair(&mut a, &mut b, 3);
        assert_eq!((a, b), (vec![1, 2], vec![5]));
    }
}
