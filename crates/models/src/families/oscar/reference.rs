//! Oscar's results under the names of the released classes.
//!
//! | task | from | results |
//! |---|---|---|
//! | all | `input_ids`, `attention_mask` of all positions or of all pairs, `token_type_ids`, `position_ids`, `img_feats` | `hidden_states.I`, 0 where there is padding |
//! | pre-training | and `masked_lm_labels`, `next_sentence_label` | `prediction_scores`, `seq_relationship_score`, `pooled_output`, `masked_lm_loss`, `loss` |
//! | captioning | and `masked_pos`, `masked_ids` | `class_logits`, `loss` |
//! | | and `max_length`, `od_labels_start_posid` | `generated_ids`, padded to that length |
//! | VQA, retrieval, NLVR2 | and `labels` | `logits`, `pooled_output`, `loss` |

use super::{Oscar, OscarLoss, OscarTask, OscarTexts};
use crate::capability::{Regions, Tokens};
use crate::error::{Error, expect};
use crate::generate::{Options, Strategy, generate};
use crate::reference::{Inputs, Outputs, Reference, Value};
use burn::tensor::{Tensor, TensorData};
use vlm_nn::KeyMask;

/// Tokens of BERT's vocabulary, which the released captioner's tokenizer says.
struct Special {
    pad: u32,
    begin: u32,
    end: u32,
    mask: u32,
}

fn put<const D: usize>(outputs: &mut Outputs, name: &str, tensor: Tensor<D>) {
    outputs.insert(name.to_owned(), Value::floats(tensor));
}

/// Rows of a tensor of two dimensions, or of three of which the first two are one.
fn rows(inputs: &Inputs, name: &str, grouped: bool) -> Result<Option<Vec<Vec<i64>>>, Error> {
    let (width, numbers) = if grouped {
        match inputs.integers::<3>(name)? {
            None => return Ok(None),
            Some(([_, _, width], numbers)) => (width, numbers),
        }
    } else {
        match inputs.integers::<2>(name)? {
            None => return Ok(None),
            Some(([_, width], numbers)) => (width, numbers),
        }
    };
    let rows = numbers.chunks(width.max(1)).map(<[i64]>::to_vec);
    Ok(Some(rows.collect()))
}

/// Numbers from 0 on.
fn unsigned(name: &str, rows: Vec<Vec<i64>>) -> Result<Vec<Vec<u32>>, Error> {
    let odd = rows.iter().flatten().find(|&&x| u32::try_from(x).is_err());
    expect(odd.is_none(), name, "numbers from 0", odd.unwrap_or(&0))?;
    let row = |row: Vec<i64>| row.into_iter().map(|x| x as u32).collect();
    Ok(rows.into_iter().map(row).collect())
}

fn flags(rows: Vec<Vec<i64>>) -> Vec<Vec<bool>> {
    let row = |row: Vec<i64>| row.into_iter().map(|x| x != 0).collect();
    rows.into_iter().map(row).collect()
}

/// Which positions are seen, and by whom.
struct Seen {
    keys: KeyMask,
    /// `[R, T + N]`: no padding.
    positions: Vec<Vec<bool>>,
}

impl Oscar {
    fn grouped(&self) -> bool {
        self.config.task == OscarTask::Choice
    }

    fn texts(&self, inputs: &Inputs) -> Result<Option<OscarTexts>, Error> {
        let grouped = self.grouped();
        let Some(ids) = rows(inputs, "input_ids", grouped)? else {
            return Ok(None);
        };
        let ids = unsigned("input_ids", ids)?;
        let segments = match rows(inputs, "token_type_ids", grouped)? {
            None => ids.iter().map(|row| vec![0; row.len()]).collect(),
            Some(rows) => unsigned("token_type_ids", rows)?,
        };
        let positions = rows(inputs, "position_ids", grouped)?;
        let positions = positions.map(|rows| unsigned("position_ids", rows));
        Ok(Some(OscarTexts {
            tokens: Tokens::new(ids, None)?,
            segments,
            positions: positions.transpose()?,
        }))
    }

    fn regions(&self, inputs: &Inputs) -> Result<Option<Tensor<3>>, Error> {
        if !self.grouped() {
            return inputs.floats::<3>("img_feats", &self.device());
        }
        let regions = inputs.floats::<4>("img_feats", &self.device())?;
        Ok(regions.map(|x| {
            let [b, c, n, f] = x.dims();
            x.reshape([b * c, n, f])
        }))
    }

    /// The mask of `total` positions in each of `count` rows.
    fn seen(&self, inputs: &Inputs, count: usize, total: usize) -> Result<Seen, Error> {
        const MASK: &str = "attention_mask";
        let Some(value) = inputs.get(MASK) else {
            return Ok(Seen {
                keys: KeyMask::default(),
                positions: vec![vec![true; total]; count],
            });
        };
        let shape = value.shape.clone();
        let by_pair = shape.len() == 3 && !self.grouped();
        let fits = match shape.as_slice() {
            [b, q, k] if by_pair => (*b, *q, *k) == (count, total, total),
            [b, c, k] => (b * c, *k) == (count, total),
            [b, k] => (*b, *k) == (count, total),
            _ => false,
        };
        expect(
            fits,
            MASK,
            format!("{count} rows of {total} positions, or of as many pairs"),
            format!("{shape:?}"),
        )?;
        let rows = flags(rows(inputs, MASK, shape.len() == 3)?.unwrap_or_default());
        if !by_pair {
            return Ok(Seen {
                keys: KeyMask::new(&rows),
                positions: rows,
            });
        }
        let pairs: Vec<Vec<bool>> = rows.chunks(total).map(<[Vec<bool>]>::concat).collect();
        let diagonal = |pairs: &Vec<bool>| (0..total).map(|i| pairs[i * total + i]).collect();
        Ok(Seen {
            positions: pairs.iter().map(diagonal).collect(),
            keys: KeyMask::pairs(&pairs, [total, total]),
        })
    }

    /// States without those of padding.
    fn shown(&self, states: Tensor<3>, seen: &Seen) -> Tensor<3> {
        let [r, t, _] = states.dims();
        let kept: Vec<f32> = seen
            .positions
            .iter()
            .flatten()
            .map(|&s| f32::from(u8::from(s)))
            .collect();
        states * Tensor::from_data(TensorData::new(kept, [r, t, 1]), &self.device())
    }

    fn pretraining(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        last: Tensor<3>,
        seen: &Seen,
    ) -> Result<(), Error> {
        let pooled = self.pooled(&last);
        put(outputs, "pooled_output", pooled.clone());
        let relation = self.contrast_logits(pooled)?;
        put(outputs, "seq_relationship_score", relation.clone());
        let scores = self.token_logits(last)?;
        put(
            outputs,
            "prediction_scores",
            self.shown(scores.clone(), seen),
        );
        let masked = rows(inputs, "masked_lm_labels", false)?;
        let next = inputs.integers::<1>("next_sentence_label")?;
        if let (Some(masked), Some((_, next))) = (masked, next) {
            let t = masked.first().map_or(0, Vec::len).min(scores.dims()[1]);
            let masked = self.masked_token_loss(scores.narrow(1, 0, t), &masked)?;
            put(outputs, "masked_lm_loss", masked.clone());
            let contrast = self.class_loss(relation, &next, "next_sentence_label")?;
            put(outputs, "loss", masked + contrast);
        }
        Ok(())
    }

    /// Logits of the masked words and their targets.
    pub(super) fn masked_words(
        &self,
        inputs: &Inputs,
        last: Tensor<3>,
    ) -> Result<Option<(Tensor<2>, Vec<i64>)>, Error> {
        let Some(masked) = rows(inputs, "masked_pos", false)? else {
            return Ok(None);
        };
        let [r, total, _] = last.dims();
        let t = masked.first().map_or(0, Vec::len);
        expect(
            masked.len() == r && t <= total,
            "masked_pos",
            format!("{r} rows of at most {total}"),
            format!("{} rows of {t}", masked.len()),
        )?;
        let places: Vec<usize> = masked
            .iter()
            .enumerate()
            .flat_map(|(row, masked)| {
                let at = masked.iter().enumerate().filter(|(_, m)| **m == 1);
                at.map(move |(i, _)| row * total + i)
            })
            .collect();
        let logits = self.token_logits_at(last, &places)?;
        let targets = rows(inputs, "masked_ids", false)?.unwrap_or_default();
        // padding stands for no word
        let targets = targets.concat().into_iter().filter(|&id| id != 0);
        Ok(Some((logits, targets.collect())))
    }

    fn captioning(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        last: Tensor<3>,
        text: usize,
    ) -> Result<(), Error> {
        match self.masked_words(inputs, last.clone())? {
            None => put(
                outputs,
                "class_logits",
                self.token_logits(last.narrow(1, 0, text))?,
            ),
            Some((logits, targets)) => {
                put(outputs, "class_logits", logits.clone());
                if !targets.is_empty() {
                    put(outputs, "loss", self.caption_loss(logits, &targets)?);
                }
            }
        }
        Ok(())
    }

    fn classified(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        last: &Tensor<3>,
    ) -> Result<(), Error> {
        let pooled = self.pooled(last);
        put(outputs, "pooled_output", pooled.clone());
        let logits = self.class_logits(pooled)?;
        put(outputs, "logits", logits.clone());
        if let Some(loss) = self.labelled_loss(inputs, logits)? {
            put(outputs, "loss", loss);
        }
        Ok(())
    }

    fn labelled_loss(
        &self,
        inputs: &Inputs,
        logits: Tensor<2>,
    ) -> Result<Option<Tensor<1>>, Error> {
        if self.config.loss == OscarLoss::Classes {
            let labels = inputs.integers::<1>("labels")?;
            let loss = labels.map(|(_, labels)| self.class_loss(logits, &labels, "labels"));
            return loss.transpose();
        }
        let Some(labels) = inputs.floats::<2>("labels", &self.device())? else {
            return Ok(None);
        };
        expect(
            labels.dims() == logits.dims(),
            "labels",
            format!("{:?}", logits.dims()),
            format!("{:?}", labels.dims()),
        )?;
        Ok(Some(self.answer_loss(logits, labels)))
    }

    /// Captions of `max_length` tokens, the first of which is `[CLS]`, as the released code pads and ends them.
    fn generated(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        length: i64,
        texts: &OscarTexts,
        regions: Tensor<3>,
    ) -> Result<(), Error> {
        let [count, n, _] = regions.dims();
        let ids = texts.tokens.rows();
        let total = ids.first().map_or(0, Vec::len);
        let most = self.config.bert.max_position_embeddings.min(total);
        let within = usize::try_from(length).is_ok_and(|x| (2..=most).contains(&x));
        expect(within, "max_length", format!("2 to {most}"), length)?;
        let length = length as usize;
        let seen = self.seen(inputs, count, total + n)?;
        let from = inputs.number("od_labels_start_posid")?.unwrap_or(0);
        let from = usize::try_from(from).unwrap_or(0).max(length);
        let special = self.special(inputs)?;
        let part = |begin: usize, end: usize| -> Vec<Vec<bool>> {
            seen.positions
                .iter()
                .map(|row| row[begin..end].to_vec())
                .collect()
        };
        let tags: Vec<Vec<u32>> = ids.iter().map(|row| row[length..].to_vec()).collect();
        let tags = Tokens::new(tags, Some(part(length, total)))?;
        let regions = Regions {
            features: regions,
            mask: part(total, total + n),
        };
        let mut decoding = self.decode(&regions, &tags, from, special.mask)?;
        let options = Options {
            strategy: Strategy::Greedy,
            max_new_tokens: length - 1,
            eos: special.end,
            banned: Vec::new(),
        };
        let begin = vec![vec![special.begin]; count];
        let captions = generate(&mut decoding, &begin, &options);
        let rows: Vec<Vec<u32>> = captions
            .into_iter()
            .map(|caption| {
                let mut row: Vec<u32> = [special.begin].into_iter().chain(caption.ids).collect();
                if caption.finished {
                    row.push(special.end);
                }
                // one that is too long ends in its last place
                if row.len() == length && !caption.finished {
                    row[length - 1] = special.end;
                }
                row.resize(length, special.pad);
                row
            })
            .collect();
        outputs.insert("generated_ids".to_owned(), Value::ids(&rows));
        Ok(())
    }

    /// BERT's, where the arguments name no others.
    fn special(&self, inputs: &Inputs) -> Result<Special, Error> {
        let vocab = self.config.bert.vocab_size;
        let id = |name: &str, default: i64| -> Result<u32, Error> {
            let id = inputs.number(name)?.unwrap_or(default);
            let known = usize::try_from(id).is_ok_and(|id| id < vocab);
            expect(known, name, format!("an id below {vocab}"), id)?;
            Ok(id as u32)
        };
        Ok(Special {
            pad: id("pad_token_id", 0)?,
            begin: id("bos_token_id", 101)?,
            end: id("eos_token_ids", 102)?,
            mask: id("mask_token_id", 103)?,
        })
    }

    /// The training loss of the reference's arguments.
    ///
    /// # Errors
    /// Arguments that do not fit the model, or none of those that a loss needs.
    pub fn loss(&self, inputs: &Inputs) -> Result<Tensor<1>, Error> {
        let lacking = || Error::Config {
            place: "inputs".to_owned(),
            expected: "input_ids, img_feats and labels".to_owned(),
            found: "some of them".to_owned(),
        };
        let texts = self.texts(inputs)?.ok_or_else(lacking)?;
        let regions = self.regions(inputs)?;
        let x = self.embeddings(&texts, regions.as_ref())?;
        let seen = self.seen(inputs, x.dims()[0], x.dims()[1])?;
        let last = self.encoded(x, seen.keys).pop().ok_or_else(lacking)?;
        match self.config.task {
            OscarTask::Pretraining => {
                let masked = rows(inputs, "masked_lm_labels", false)?.ok_or_else(lacking)?;
                let (_, next) = inputs
                    .integers::<1>("next_sentence_label")?
                    .ok_or_else(lacking)?;
                let relation = self.contrast_logits(self.pooled(&last))?;
                let t = masked.first().map_or(0, Vec::len).min(last.dims()[1]);
                let scores = self.token_logits(last.narrow(1, 0, t))?;
                let masked = self.masked_token_loss(scores, &masked)?;
                Ok(masked + self.class_loss(relation, &next, "next_sentence_label")?)
            }
            OscarTask::Captioning => {
                let (logits, targets) = self.masked_words(inputs, last)?.ok_or_else(lacking)?;
                self.caption_loss(logits, &targets)
            }
            OscarTask::Classification | OscarTask::Choice => {
                let logits = self.class_logits(self.pooled(&last))?;
                self.labelled_loss(inputs, logits)?.ok_or_else(lacking)
            }
        }
    }
}

impl Reference for Oscar {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        let Some(texts) = self.texts(inputs)? else {
            return Ok(outputs);
        };
        let regions = self.regions(inputs)?;
        if let Some(length) = inputs.number("max_length")? {
            // the released code is asked so
            inputs.get("is_decode");
            let regions = regions.ok_or_else(|| Error::Config {
                place: "img_feats".to_owned(),
                expected: "regions to write about".to_owned(),
                found: "none".to_owned(),
            })?;
            self.generated(&mut outputs, inputs, length, &texts, regions)?;
            return Ok(outputs);
        }
        let x = self.embeddings(&texts, regions.as_ref())?;
        let [count, total, _] = x.dims();
        let seen = self.seen(inputs, count, total)?;
        let states = self.encoded(x, seen.keys.clone());
        for (i, state) in states.iter().enumerate() {
            let shown = self.shown(state.clone(), &seen);
            put(&mut outputs, &format!("hidden_states.{i}"), shown);
        }
        let last = states
            .into_iter()
            .next_back()
            .expect("the embeddings at least");
        let text = texts.tokens.rows().first().map_or(0, Vec::len);
        match self.config.task {
            OscarTask::Pretraining => self.pretraining(&mut outputs, inputs, last, &seen)?,
            OscarTask::Captioning => self.captioning(&mut outputs, inputs, last, text)?,
            OscarTask::Classification | OscarTask::Choice => {
                self.classified(&mut outputs, inputs, &last)?;
            }
        }
        Ok(outputs)
    }
}
