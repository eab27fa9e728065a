//! Decoders: hidden states to words.

mod transformer;

pub use transformer::MultimodalDecoder;
