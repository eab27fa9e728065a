//! ALBEF's results under the names that they have in the authors' code.
//!
//! | checkpoint | from | results |
//! |---|---|---|
//! | all | `pixel_values` | `image_embeds`, `hidden_states.I` |
//! | all | `input_ids`, `attention_mask` | `text_embeds`, from the text encoder |
//! | all | both | `last_hidden_state`, from the fusion encoder |
//! | pre-training, retrieval | either | `image_feat`, `text_feat`, unit vectors |
//! | | both | `sims_matrix`, `itm_score` |
//! | pre-training | both | `logits`, of the masked-language-model head |
//! | | and `labels` | `loss_mlm` |
//! | question answering | both | `question_states` |
//! | | and `answer_ids`, `answer_attention_mask` | `answer_logits` |
//! | | and `k`, `weights`: how many answers each question has, and how much each counts | `loss` |
//! | | or `k_test`: the answers are a list to choose from | `topk_ids`, `topk_probs` |
//! | | and `max_new_tokens` | `generated_ids` |
//! | NLVR2, entailment, text assignment | both | `prediction` |
//! | | and `targets` | `loss` |
//!
//! For two pictures `pixel_values` has the first ones of all texts before the second ones. The losses are those without
//! a momentum model.

use super::{Albef, AlbefBatch, AlbefTask, AnswerBatch};
use crate::capability::{Pictures, Tokens};
use crate::encoders::BertMemory;
use crate::error::{Error, expect};
use crate::generate::{Options, Strategy, generate};
use crate::objectives::{distilled_cross_entropy, mlm};
use crate::reference::{Inputs, Numbers, Outputs, Reference, Value, put};
use burn::tensor::Tensor;

impl Albef {
    fn tokens(&self, inputs: &Inputs, name: &str, mask: &str) -> Result<Option<Tokens>, Error> {
        inputs.tokens(name, mask, self.config.text.vocab_size)
    }

    /// Everything that reads pictures and texts together.
    fn fused_outputs(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        fused: Tensor<3>,
    ) -> Result<(), Error> {
        match self.config.task {
            AlbefTask::Pretraining => {
                put(outputs, "itm_score", self.match_logits(&fused)?);
                let logits = self.mlm_logits(fused)?;
                put(outputs, "logits", logits.clone());
                if let Some(labels) = inputs.rows("labels")? {
                    self.check_labels(&labels, logits.dims())?;
                    put(outputs, "loss_mlm", mlm(logits, &labels, None, 0.0));
                }
            }
            AlbefTask::Retrieval => put(outputs, "itm_score", self.match_logits(&fused)?),
            AlbefTask::QuestionAnswering => put(outputs, "question_states", fused),
            AlbefTask::Nlvr | AlbefTask::Entailment | AlbefTask::TextAssignment => {
                let logits = self.class_logits(&fused)?;
                put(outputs, "prediction", logits.clone());
                if let Some((_, labels)) = inputs.integers::<1>("targets")? {
                    let label = |&label: &i64| usize::try_from(label).unwrap_or(usize::MAX);
                    let labels: Vec<usize> = labels.iter().map(label).collect();
                    let targets = self.class_targets(&labels, logits.dims())?;
                    let loss = distilled_cross_entropy(logits, targets, None, 0.0).mean();
                    put(outputs, "loss", loss);
                }
            }
        }
        Ok(())
    }

    /// Answers: their logits, their loss, their ranks, or new ones.
    fn answer_outputs(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        pictures: &Pictures,
        questions: &Tokens,
    ) -> Result<(), Error> {
        let memory = self.question_memory(pictures, questions)?;
        if let Some(answers) = self.tokens(inputs, "answer_ids", "answer_attention_mask")? {
            if let Some(k) = inputs.number("k_test")? {
                let places = answers.rows().len();
                let k = usize::try_from(k).unwrap_or(usize::MAX);
                let within = (1..=places).contains(&k);
                expect(within, "k_test", format!("1 to {places}"), k)?;
                let ranked = self.ranked_answers(pictures, questions, &answers, k)?;
                let (ids, shares): (Vec<i64>, Vec<f32>) =
                    ranked.iter().flatten().map(|&(i, p)| (i as i64, p)).unzip();
                let mut insert = |name: &str, numbers| {
                    let shape = vec![ranked.len(), k];
                    outputs.insert(name.to_owned(), Value { shape, numbers });
                };
                insert("topk_ids", Numbers::Integers(ids));
                insert("topk_probs", Numbers::Floats(shares));
            } else {
                self.answer_losses(outputs, inputs, pictures, questions, &memory, answers)?;
            }
        }
        if let Some(tokens) = inputs.number("max_new_tokens")? {
            let most = self.config.text.max_position_embeddings as i64;
            let within = (1..=most).contains(&tokens);
            expect(within, "max_new_tokens", format!("1 to {most}"), tokens)?;
            let begin = vec![vec![self.config.cls_token_id]; memory.rows()];
            let end = self.config.sep_token_id;
            let options = Options {
                strategy: Strategy::Greedy,
                max_new_tokens: tokens as usize,
                eos: end,
                banned: Vec::new(),
            };
            let decoder = self.part(&self.decoder, "answer questions")?;
            let texts = generate(&mut decoder.decode(memory), &begin, &options);
            let rows = begin.into_iter().zip(texts).map(|(begin, text)| {
                let end = text.finished.then_some(end);
                begin.into_iter().chain(text.ids).chain(end).collect()
            });
            let rows = Tokens::padded(&rows.collect::<Vec<_>>(), self.config.pad_token_id);
            outputs.insert("generated_ids".to_owned(), Value::ids(rows.rows()));
        }
        Ok(())
    }

    fn answer_losses(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        pictures: &Pictures,
        questions: &Tokens,
        memory: &BertMemory,
        answers: Tokens,
    ) -> Result<(), Error> {
        let counts = match inputs.integers::<1>("k")? {
            Some((_, counts)) => {
                let most = answers.rows().len();
                let count = |&n: &i64| usize::try_from(n).unwrap_or(0).min(most + 1);
                counts.iter().map(count).collect()
            }
            None => vec![1; questions.rows().len()],
        };
        let weights = match inputs.get("weights").map(|value| &value.numbers) {
            Some(Numbers::Floats(weights)) => Some(weights.clone()),
            _ => None,
        };
        let batch = AnswerBatch {
            pictures: pictures.clone(),
            places: (0..questions.rows().len()).collect(),
            questions: questions.clone(),
            weights: weights.clone().unwrap_or(vec![1.0; answers.rows().len()]),
            answers,
            counts,
        };
        if weights.is_some() {
            let batch = AlbefBatch::Answers(batch.clone());
            put(outputs, "loss", self.loss(&batch, None, 0.0)?.total);
        }
        let mut memory = memory.clone();
        let rows = batch.counts.iter().take(memory.rows()).enumerate();
        let rows = rows.flat_map(|(i, &n)| std::iter::repeat_n(i, n));
        memory.select(&rows.collect::<Vec<_>>());
        let logits = self.answer_logits(&memory, &batch.answers)?;
        put(outputs, "answer_logits", logits);
        Ok(())
    }
}

impl Reference for Albef {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        let shared = self.can_embed().is_ok();
        let texts = self.tokens(inputs, "input_ids", "attention_mask")?;
        let text_states = texts.as_ref().map(|texts| self.text_states(texts));
        let text_states = text_states.transpose()?;
        let mut vectors = [None, None];
        if let Some(texts) = &text_states {
            put(&mut outputs, "text_embeds", texts.states.clone());
            if shared {
                vectors[1] = Some(self.text_vectors(texts)?);
            }
        }
        let pixels = inputs.floats::<4>("pixel_values", &self.device())?;
        let Some(pictures) = pixels.map(Pictures::Fixed) else {
            if let [_, Some(text)] = vectors {
                put(&mut outputs, "text_feat", text);
            }
            return Ok(outputs);
        };
        let mut states = Vec::new();
        let image = self.traced_picture_states(&pictures, Some(&mut states))?;
        for (i, state) in states.into_iter().enumerate() {
            put(&mut outputs, &format!("hidden_states.{i}"), state);
        }
        if shared {
            vectors[0] = Some(self.picture_vectors(&image)?);
        }
        put(&mut outputs, "image_embeds", image);
        if let [Some(image), Some(text)] = &vectors {
            let products = image.clone().matmul(text.clone().transpose()); // [B, R]
            put(&mut outputs, "sims_matrix", products);
        }
        for (name, vector) in ["image_feat", "text_feat"].into_iter().zip(vectors) {
            if let Some(vector) = vector {
                put(&mut outputs, name, vector);
            }
        }
        let (Some(texts), Some(states)) = (&texts, &text_states) else {
            return Ok(outputs);
        };
        let fused = self.fused_states(states, &self.memory_of(&pictures)?)?;
        put(&mut outputs, "last_hidden_state", fused.clone());
        self.fused_outputs(&mut outputs, inputs, fused)?;
        if self.config.task == AlbefTask::QuestionAnswering {
            self.answer_outputs(&mut outputs, inputs, &pictures, texts)?;
        }
        Ok(outputs)
    }
}
