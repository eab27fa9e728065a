//! Encoders: pictures or text to hidden states.

pub(crate) mod bert;
pub(crate) mod published;
pub mod region_detector;
mod resnet;
mod resnet_stages;
mod text_tower;
mod text_transformer;
mod vision_tower;
mod vit;

pub use bert::{Bert, BertConfig, BertCrossAttention, BertMemory, BertPass, first_token};
pub(crate) use bert::{bert_head_rules, bert_rules};
pub(crate) use published::timm_vision_rules;
pub use resnet::{ModifiedResNet, ModifiedResNetConfig};
pub use resnet_stages::{Bottleneck, ResNetStages, ResNetStagesConfig, stage};
pub use text_tower::{TextPooling, TextStates, TextTower, TextTowerConfig};
pub(crate) use text_transformer::last_tokens;
pub use text_transformer::{TextConfig, TextTransformer};
pub use vision_tower::{VisionPooling, VisionStates, VisionTower, VisionTowerConfig};
pub(crate) use vit::check_size;
pub use vit::{Stem, VisionConfig, Vit};
