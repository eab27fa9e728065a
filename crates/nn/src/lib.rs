//! Layers over Burn tensors, and the weights that fill them.
//!
//! Every layer is built from [`weights::Weights`], which either initialises parameters from a seed (training
//! from scratch) or takes them from a checkpoint by name, strictly: each parameter is filled exactly once and
//! each tensor of the file is used, or building the model fails with the list of what differs.
//!
//! The arithmetic is in [`ops`]; the layers here only hold parameters and say how the operations join.
#![forbid(unsafe_code)]

mod attention;
mod batch_norm;
mod conv;
mod embedding;
mod linear;
mod mlp;
mod norm;
pub mod ops;
mod patch;
mod pool;
pub mod position;
pub mod random;
mod recurrent;
mod transformer;
pub mod weights;

pub use attention::{CrossAttention, KeyMask, KvCache, SelfAttention};
pub use batch_norm::{BatchNorm2d, Statistics};
pub use conv::Conv2d;
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::LayerNorm;
pub use patch::{ConvStem, PatchEmbedding};
pub use pool::adaptive_average;
pub use position::{Interpolation, resized_grid, sin_cos_2d};
pub use recurrent::{Rnn, RnnCell, RnnKind, RnnState};
pub use transformer::{Block, DecoderBlock, TransformerConfig};
