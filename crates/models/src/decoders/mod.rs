//! Decoders: hidden states to words.

pub mod matrix;
pub mod tensors;
mod transformer;

pub use transformer::MultimodalDecoder;
