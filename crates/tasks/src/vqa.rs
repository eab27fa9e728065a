//! Visual question answering: a picture and a question in, an answer out.

use crate::{Error, Vlm};
use burn::tensor::{Int, Tensor, TensorData};
use std::collections::BTreeMap;
use vlm_data::image::Image;
use vlm_models::generate::{Options, Strategy, generate};

/// A generated answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The answer's words.
    pub text: String,
    /// The model's probability of the answer.
    pub confidence: f64,
}

/// The most tokens of an answer.
const MAX_ANSWER: usize = 12;

impl Vlm {
    /// An answer to each question; a question names its picture by its place in `images`.
    ///
    /// # Errors
    /// An empty or overlong question, a picture that cannot be prepared, or a model that does not write.
    pub fn answer(
        &self,
        images: &[&Image],
        questions: &[(usize, &str)],
    ) -> Result<Vec<Answer>, Error> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        // rows that are fed together have the same number of tokens
        let mut by_length: BTreeMap<usize, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
        for (i, (_, question)) in questions.iter().enumerate() {
            let prompt = self.question_prompt(question)?;
            by_length.entry(prompt.len()).or_default().push((i, prompt));
        }
        let options = Options {
            strategy: Strategy::Greedy,
            max_new_tokens: MAX_ANSWER,
            eos: self.special().eos,
            banned: self.special().banned(),
        };
        let model = self.model().generate()?;
        let memory = model.encode(&self.pictures(images)?)?; // [B, N, D]
        let mut answers = vec![None; questions.len()];
        for group in by_length.into_values() {
            let (rows, prompts): (Vec<usize>, Vec<Vec<u32>>) = group.into_iter().unzip();
            let pictures: Vec<i64> = rows.iter().map(|&i| questions[i].0 as i64).collect();
            let pictures = TensorData::new(pictures, [rows.len()]);
            let pictures = Tensor::<1, Int>::from_data(pictures, &memory.device());
            let mut decoding = model.decode(memory.clone().select(0, pictures));
            let texts = generate(&mut *decoding, &prompts, &options);
            for (row, text) in rows.into_iter().zip(texts) {
                answers[row] = Some(Answer {
                    text: self.tokenizer().decode(&text.ids)?,
                    confidence: text.log_probability.exp(),
                });
            }
        }
        Ok(answers
            .into_iter()
            .map(|a| a.expect("every row was fed"))
            .collect())
    }

    /// The tokens that a question is put to the model with.
    ///
    /// # Errors
    /// An empty or overlong question.
    pub fn question_prompt(&self, question: &str) -> Result<Vec<u32>, Error> {
        let prompt = self.special().question_prompt(self.tokenizer(), question)?;
        // the two tokens around the words
        if prompt.len() <= 2 {
            return Err(Error::EmptyQuestion);
        }
        let most = self.model().texts().max_positions.saturating_sub(2);
        if prompt.len() > most {
            return Err(Error::TooLong {
                expected: most.saturating_sub(2),
                found: prompt.len() - 2,
            });
        }
        Ok(prompt)
    }
}
