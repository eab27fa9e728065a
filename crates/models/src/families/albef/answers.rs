//! Answers to questions about pictures: written token by token, or chosen from a list as the authors evaluate it.

use super::Albef;

use crate::capability::{AnswerQuestion, Pictures, RankAnswers, Tokens, rows};
use crate::encoders::{BertMemory, BertPass};
use crate::error::{Error, expect};
use crate::generate::Autoregressive;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use vlm_nn::KeyMask;

/// An answer of a list: its place there, and its probability among those that were ranked.
pub type RankedAnswer = (usize, f32);

impl Albef {
    /// The states of questions about pictures.
    ///
    /// # Shapes
    /// Gives `[B, T, D]`.
    ///
    /// # Errors
    /// A model that answers no questions; inputs that do not fit it.
    pub fn question_states(
        &self,
        pictures: &Pictures,
        questions: &Tokens,
    ) -> Result<Tensor<3>, Error> {
        self.states_of_questions(&self.memory_of(pictures)?, questions)
    }

    fn states_of_questions(
        &self,
        pictures: &BertMemory,
        questions: &Tokens,
    ) -> Result<Tensor<3>, Error> {
        self.can_answer()?;
        self.fused_states(&self.text_states(questions)?, pictures)
    }

    /// What the answer decoder reads of questions about pictures: their states, without padding.
    ///
    /// # Errors
    /// As [`Self::question_states`].
    pub fn question_memory(
        &self,
        pictures: &Pictures,
        questions: &Tokens,
    ) -> Result<BertMemory, Error> {
        self.memory_of_questions(&self.memory_of(pictures)?, questions)
    }

    /// The same of pictures that are encoded already, one for each question.
    pub(super) fn memory_of_questions(
        &self,
        pictures: &BertMemory,
        questions: &Tokens,
    ) -> Result<BertMemory, Error> {
        let states = self.states_of_questions(pictures, questions)?;
        let decoder = self.part(&self.decoder, "answer questions")?;
        let keys = KeyMask::new(questions.mask());
        Ok(decoder.bert().memory(&[(states, keys)]))
    }

    /// Logits of the next token at every position of answers.
    ///
    /// # Shapes
    /// `memory` of `R` questions, one for each answer, or of one for all; gives `[R, T, V]`.
    ///
    /// # Errors
    /// As [`Self::question_states`]; another number of questions; answers without a token.
    pub fn answer_logits(&self, memory: &BertMemory, answers: &Tokens) -> Result<Tensor<3>, Error> {
        let decoder = self.part(&self.decoder, "answer questions")?;
        let (b, r) = (memory.rows(), answers.rows().len());
        expect(
            b == 1 || b == r,
            "answers",
            format!("one for each of {b} questions"),
            r,
        )?;
        let t = answers.rows().first().map_or(0, Vec::len);
        expect(t > 0, "answers", "tokens", "none")?;
        let pass = BertPass {
            causal: true,
            keys: KeyMask::new(answers.mask()),
            memory: Some(memory),
            caches: None,
        };
        Ok(decoder.forward(self.ids(answers)?, pass))
    }

    /// The likeliest answers of a list for each question, as the authors choose them: the `k` with the likeliest first
    /// token are ranked by their likelihood. In that the first token counts twice, because their code adds its
    /// logarithm to a sum that has it already.
    ///
    /// # Errors
    /// As [`Self::question_states`]; a list without answers.
    pub fn ranked_answers(
        &self,
        pictures: &Pictures,
        questions: &Tokens,
        answers: &Tokens,
        k: usize,
    ) -> Result<Vec<Vec<RankedAnswer>>, Error> {
        let list = answers.rows();
        let t = list.first().map_or(0, Vec::len);
        expect(t >= 2, "answers", "at least one of two tokens", t)?;
        let k = k.clamp(1, list.len());
        let memory = self.question_memory(pictures, questions)?;
        let start = vec![vec![list[0][0]]; memory.rows()];
        let logits = self.answer_logits(&memory, &Tokens::new(start, None)?)?; // [B, 1, V]
        let first = rows(log_softmax(logits, 2));
        let mut ranked = Vec::with_capacity(first.len());
        for (question, first) in first.iter().enumerate() {
            let mut order: Vec<usize> = (0..list.len()).collect();
            let likely = |&i: &usize| first[list[i][1] as usize];
            order.sort_by(|a, b| likely(b).total_cmp(&likely(a)));
            order.truncate(k);
            let pick = |i: &usize| list[*i].clone();
            let mask = order.iter().map(|&i| answers.mask()[i].clone());
            let texts = Tokens::new(order.iter().map(pick).collect(), Some(mask.collect()))?;
            let mut one = memory.clone();
            one.select(&[question]);
            let logits = self.answer_logits(&one, &texts)?; // [k, T, V]
            let losses = self.token_losses(logits, &texts, None, 0.0).sum_dim(1); // [k, 1]
            let losses: Vec<f32> = losses.into_data().try_to_vec().expect("f32");
            let scores = order.iter().zip(losses);
            let scores: Vec<f32> = scores.map(|(i, loss)| likely(i) - loss).collect();
            let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = scores.iter().map(|s| (s - highest).exp()).collect();
            let sum: f32 = weights.iter().sum();
            let mut found: Vec<RankedAnswer> = order
                .into_iter()
                .zip(weights)
                .map(|(i, weight)| (i, weight / sum))
                .collect();
            found.sort_by(|a, b| b.1.total_cmp(&a.1));
            ranked.push(found);
        }
        Ok(ranked)
    }
}

impl AnswerQuestion for Albef {
    fn answer(
        &self,
        pictures: &Pictures,
        questions: &Tokens,
    ) -> Result<Box<dyn Autoregressive + '_>, Error> {
        let memory = self.question_memory(pictures, questions)?;
        let decoder = self.part(&self.decoder, "answer questions")?;
        Ok(Box::new(decoder.decode(memory)))
    }
}

impl RankAnswers for Albef {
    fn rank_answers(
        &self,
        pictures: &Pictures,
        questions: &Tokens,
        answers: &Tokens,
    ) -> Result<Vec<Vec<RankedAnswer>>, Error> {
        self.ranked_answers(pictures, questions, answers, self.config.k_test)
    }
}
