//! Training objectives, each a function of model outputs.

mod boxes;
mod distillation;
mod itc;
mod itc_momentum;
mod itm;
mod lm;
mod mlm;
mod momentum;
mod siglip;
mod token_labeling;

pub use boxes::{binary_cross_entropy, smooth_l1};
pub use distillation::{alpha_ramp, distilled_cross_entropy, soft_cross_entropy};
pub use itc::{itc, itc_logits, l2_normalize, scale_at_most};
pub use itc_momentum::{ItcKeys, ItcMomentum, itc_momentum};
pub use itm::{hard_negatives, itm};
pub use lm::lm;
pub use mlm::{MaskedTokens, MlmMasking, mask_tokens, mlm};
pub use momentum::momentum_update;
pub(crate) use momentum::plain;
pub use siglip::siglip_logits;
pub use token_labeling::{TokenLabels, token_labeling};
