//! Text to token ids and back.

mod published;
mod tokenizer;
mod word_level;

pub use tokenizer::Tokenizer;
pub use word_level::{word_level, words_of};
