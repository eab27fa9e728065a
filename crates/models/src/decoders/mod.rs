//! Decoders: hidden states to words.

mod bert;
pub mod matrix;
pub mod tensors;
mod transformer;

pub use bert::{BertDecoder, BertDecoding, MlmHead};
pub use transformer::MultimodalDecoder;
