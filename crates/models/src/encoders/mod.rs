//! Encoders: pictures or text to hidden states.

mod text_transformer;
mod vit;

pub use text_transformer::{TextConfig, TextTransformer};
pub use vit::{Stem, VisionConfig, Vit};
