//! Training objectives, each a function of model outputs.

mod itc;
mod lm;

pub use itc::{itc, l2_normalize};
pub use lm::lm;
