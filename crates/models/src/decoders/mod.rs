//! Decoders: hidden states to words.

mod bert;
pub mod kv_cache;
pub mod matrix;
mod recurrent;
pub mod tensors;
mod transformer;

pub use bert::{BertDecoder, BertDecoding, MlmHead};
pub use recurrent::{
    AttentionDecoder, AttentionDecoding, RecurrentConfig, RnnDecoder, RnnDecoding,
};
pub use transformer::MultimodalDecoder;
