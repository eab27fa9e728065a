//! Text to token ids and back.

mod bag_of_words;
mod published;
mod tokenizer;
mod word_level;

pub use bag_of_words::BagOfWords;
pub use tokenizer::Tokenizer;
pub use word_level::{word_level, word_level_map, words_of};
