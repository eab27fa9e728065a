//! Training objectives, each a function of model outputs.

mod itc;
mod lm;
mod siglip;
mod token_labeling;

pub use itc::{itc, itc_logits, l2_normalize};
pub use lm::lm;
pub use siglip::siglip_logits;
pub use token_labeling::{TokenLabels, token_labeling};
