//! What a user wants: prompt in, answer out, score.
//!
//! A [`Vlm`] is a model with its tokenizer and picture processor. It captions, answers questions and embeds;
//! [`metrics`] says how well.
#![forbid(unsafe_code)]

pub mod builtin;
mod captioning;
mod embedding;
mod error;
pub mod evaluate;
pub mod metrics;
pub mod prompt;
pub mod table;
mod vlm;
mod vqa;

pub use captioning::{Caption, CaptionOptions};
pub use error::Error;
pub use vlm::{Files, Vlm, file};
pub use vqa::Answer;
