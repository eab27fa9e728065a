//! What Oscar does with regions and their tags: captions, answers, matching and statements.
//!
//! The released commands cut what is too long: of words and tags together `max_seq_length` tokens are read, of a caption
//! `max_seq_a_length`, behind which the positions of its tags begin, and of a picture the first `max_img_seq_length`
//! regions.

use super::{Oscar, OscarLoss, OscarTask, OscarTexts};
use crate::capability::{
    ClassifyAnswer, Generate, JudgeText, Pictures, Regions, ScorePair, Tokens,
};
use crate::error::{Error, expect};
use crate::generate::Autoregressive;
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Int, Tensor, TensorData};

/// Rows of a matrix.
fn rows(x: Tensor<2>) -> Vec<Vec<f32>> {
    let width = x.dims()[1].max(1);
    let all: Vec<f32> = x
        .into_data()
        .convert::<f32>()
        .try_to_vec()
        .expect("f32 probabilities");
    all.chunks(width).map(<[f32]>::to_vec).collect()
}

/// A row without its padding.
fn tokens(texts: &Tokens, row: usize) -> Vec<u32> {
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
            _ => self.part::<()>(&None, "write captions").map(drop),
        }
    }

    /// # Errors
    /// A model that was fine-tuned for something else; one with two classes tells whether a text belongs to a picture.
    pub fn can_answer(&self) -> Result<(), Error> {
        match self.config.task {
            OscarTask::Classification if !self.retrieves() => Ok(()),
            _ => self.part::<()>(&None, "answer questions").map(drop),
        }
    }

    /// # Errors
    /// A model without two classes, or without the classes of pre-training.
    pub fn can_match(&self) -> Result<(), Error> {
        if self.contrast.is_some() || self.retrieves() {
            return Ok(());
        }
        self.part::<()>(&None, "judge pairs").map(drop)
    }

    /// # Errors
    /// A model that was not trained on statements about two pictures.
    pub fn can_judge_texts(&self) -> Result<(), Error> {
        match self.config.task {
            OscarTask::Choice if self.config.num_labels == 2 => Ok(()),
            _ => self.part::<()>(&None, "judge statements").map(drop),
        }
    }

    /// Whether the two classes are those of retrieval.
    fn retrieves(&self) -> bool {
        let c = &self.config;
        let two = c.num_labels == 2 && c.loss == OscarLoss::Classes;
        c.task == OscarTask::Classification && two
    }

    /// Regions and tags of pictures.
    fn regions_and_tags<'a>(&self, pictures: &'a Pictures) -> Result<(Regions, &'a Tokens), Error> {
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

    /// Words and tags in one row each: text `i` with the tags of picture `of[i]`.
    fn with_tags(&self, texts: &Tokens, tags: &Tokens, of: &[usize]) -> Result<OscarTexts, Error> {
        let c = &self.config;
        let (mut ids, mut segments) = (Vec::new(), Vec::new());
        for (i, &picture) in of.iter().enumerate() {
            let (mut words, mut tags) = (tokens(texts, i), tokens(tags, picture));
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

    /// The pooled state of each text about picture `of[i]`.
    fn pooled_of(
        &self,
        pictures: &Pictures,
        of: &[usize],
        texts: &Tokens,
    ) -> Result<Tensor<2>, Error> {
        let (regions, tags) = self.regions_and_tags(pictures)?;
        let (found, expected) = (of.len(), texts.rows().len());
        expect(
            found == expected,
            "pictures",
            format!("those of {expected} texts"),
            found,
        )?;
        let count = regions.mask.len();
        let odd = of.iter().find(|&&i| i >= count);
        expect(
            odd.is_none(),
            "pictures",
            format!("places below {count}"),
            odd.unwrap_or(&0),
        )?;
        let places: Vec<i64> = of.iter().map(|&i| i as i64).collect();
        let places = TensorData::new(places, [of.len()]);
        let places = Tensor::<1, Int>::from_data(places, &self.device());
        let regions_of = Regions {
            features: regions.features.select(0, places),
            mask: of.iter().map(|&i| regions.mask[i].clone()).collect(),
        };
        let texts = self.with_tags(texts, tags, of)?;
        let mut states = self.states(&texts, &regions_of)?;
        let last = states.pop().expect("the states of the embeddings at least");
        Ok(self.pooled(&last))
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
                if tags.len() > most {
                    tags.truncate(most);
                    tags[most - 1] = c.sep_token_id;
                }
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
        self.can_judge_texts()?;
        let (choices, count) = (self.config.num_choice, texts.rows().len());
        expect(
            pictures.count() == choices * count,
            "pictures",
            format!("{choices} for each of {count} texts"),
            pictures.count(),
        )?;
        // a text stands in successive rows, with one of its pictures in each
        let of: Vec<usize> = (0..count)
            .flat_map(|text| (0..choices).map(move |choice| choice * count + text))
            .collect();
        let repeat = |all: &[Vec<u32>]| -> Vec<Vec<u32>> {
            let each = all.iter();
            each.flat_map(|row| std::iter::repeat_n(row.clone(), choices))
                .collect()
        };
        let mask = texts.mask().iter();
        let mask = mask.flat_map(|row| std::iter::repeat_n(row.clone(), choices));
        let texts = Tokens::new(repeat(texts.rows()), Some(mask.collect()))?;
        Ok(rows(softmax(
            self.class_logits(self.pooled_of(pictures, &of, &texts)?)?,
            1,
        )))
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
