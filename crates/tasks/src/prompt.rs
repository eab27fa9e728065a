//! How a task is put to a model: which tokens come before the words, and where the answer begins.
//!
//! ```text
//! <caption> a red circle on a grey background <eos>
//! <question> what colour is the circle ? <answer> red <eos>
//! ```

use crate::Error;
use vlm_data::text::Tokenizer;

/// Special tokens, in the order of their ids.
pub const SPECIALS: [&str; 6] = [
    "<pad>",
    "<unk>",
    "<eos>",
    "<caption>",
    "<question>",
    "<answer>",
];

/// Ids of the special tokens in a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// Fills texts of a batch to equal length.
    pub pad: u32,
    /// Stands for words that the vocabulary lacks.
    pub unk: u32,
    /// Ends every text.
    pub eos: u32,
    /// Begins a caption.
    pub caption: u32,
    /// Begins a question.
    pub question: u32,
    /// Stands between a question and its answer.
    pub answer: u32,
}

/// A text with the positions that are to be learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The whole text.
    pub ids: Vec<u32>,
    /// How many tokens at the beginning are given and not learned.
    pub prompt: usize,
}

impl SpecialIds {
    /// Looks the tokens up.
    ///
    /// # Errors
    /// A tokenizer that lacks one of them.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, Error> {
        let id = |token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| Error::Model {
                place: "tokenizer.json".to_owned(),
                expected: format!("a token {token}"),
                found: format!("{} tokens without it", tokenizer.vocab_size()),
            })
        };
        Ok(Self {
            pad: id("<pad>")?,
            unk: id("<unk>")?,
            eos: id("<eos>")?,
            caption: id("<caption>")?,
            question: id("<question>")?,
            answer: id("<answer>")?,
        })
    }

    /// Tokens that a text never contains by itself.
    pub fn banned(&self) -> Vec<u32> {
        vec![self.pad, self.unk, self.caption, self.question, self.answer]
    }

    /// What a caption begins with.
    pub fn caption_prompt(&self) -> Vec<u32> {
        vec![self.caption]
    }

    /// What an answer is the continuation of.
    ///
    /// # Errors
    /// A question that cannot be tokenized.
    pub fn question_prompt(&self, t: &Tokenizer, question: &str) -> Result<Vec<u32>, Error> {
        let mut ids = vec![self.question];
        ids.extend(t.encode(&plain_words(question))?);
        ids.push(self.answer);
        Ok(ids)
    }

    /// A caption to learn.
    ///
    /// # Errors
    /// A caption that cannot be tokenized.
    pub fn caption_example(&self, t: &Tokenizer, caption: &str) -> Result<Example, Error> {
        let mut ids = self.caption_prompt();
        let prompt = ids.len();
        ids.extend(t.encode(&plain_words(caption))?);
        ids.push(self.eos);
        Ok(Example { ids, prompt })
    }

    /// A question with the answer to learn.
    ///
    /// # Errors
    /// Text that cannot be tokenized.
    pub fn answer_example(
        &self,
        t: &Tokenizer,
        question: &str,
        answer: &str,
    ) -> Result<Example, Error> {
        let mut ids = self.question_prompt(t, question)?;
        let prompt = ids.len();
        ids.extend(t.encode(answer)?);
        ids.push(self.eos);
        Ok(Example { ids, prompt })
    }
}

/// A text as people type it, in the spelling and punctuation that the worlds use: British words, one question
/// mark, no full stop.
pub fn plain_words(text: &str) -> String {
    let text = text.trim().trim_end_matches(['.', '!']).to_lowercase();
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let (stem, mark) = match word.strip_suffix('?') {
            Some(stem) => (stem.trim_end_matches('?'), "?"),
            None => (word, ""),
        };
        let stem = match stem {
            "color" => "colour",
            "colors" => "colours",
            "colored" => "coloured",
            "gray" => "grey",
            "center" => "centre",
            "what's" => "what is",
            "it's" => "it is",
            "there's" => "there is",
            other => other,
        };
        words.push(format!("{stem}{mark}"));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vlm_data::text::word_level;

    fn tokenizer() -> Tokenizer {
        let words = ["a", "red", "what", "colour", "is", "it", "?"].map(str::to_owned);
        word_level(&words, &SPECIALS).expect("a vocabulary")
    }

    #[test]
    fn texts_are_put_in_the_worlds_spelling() {
        for (typed, plain) in [
            ("What color is it?", "what colour is it?"),
            ("  A gray circle. ", "a grey circle"),
            ("what's it???", "what is it?"),
            ("in the CENTER", "in the centre"),
            ("", ""),
        ] {
            assert_eq!(plain_words(typed), plain);
        }
    }

    #[test]
    fn a_question_asked_is_the_beginning_of_the_question_learned() {
        let t = tokenizer();
        let special = SpecialIds::of(&t).expect("special tokens");
        let asked = special
            .question_prompt(&t, "What color is it?")
            .expect("ids");
        let learned = special
            .answer_example(&t, "what colour is it?", "red")
            .expect("ids");
        assert_eq!(learned.prompt, asked.len());
        assert_eq!(learned.ids[..asked.len()], asked);
        assert_eq!(
            learned.ids[asked.len()..],
            [t.token_to_id("red").unwrap(), special.eos]
        );
    }

    #[test]
    fn a_tokenizer_without_the_special_tokens_is_refused() {
        let t = word_level(&["a".to_owned()], &["<unk>"]).expect("a vocabulary");
        let error = SpecialIds::of(&t).expect_err("no <pad>").to_string();
        assert!(error.contains("<pad>"), "{error}");
    }
}
