//! Encoders: pictures or text to hidden states.

pub(crate) mod bert;
pub mod cnn;
pub mod handcrafted;
pub(crate) mod published;
pub mod region_detector;
mod residual;
mod resnet;
mod resnet_stages;
mod text_tower;
mod text_transformer;
mod vision_tower;
mod vit;

pub use bert::{Bert, BertConfig, BertCrossAttention, BertMemory, BertPass, first_token};
pub(crate) use bert::{bert_head_rules, bert_rules};
pub use cnn::{Cnn, CnnConfig};
pub(crate) use published::timm_vision_rules;
pub use resnet::{ModifiedResNet, ModifiedResNetConfig};
pub use resnet_stages::{Bottleneck, ResNetStages, ResNetStagesConfig, stage};
pub use text_tower::{TextPooling, TextStates, TextTower, TextTowerConfig};
pub(crate) use text_transformer::last_tokens;
pub use text_transformer::{TextConfig, TextTransformer};
pub use vision_tower::{VisionPooling, VisionStates, VisionTower, VisionTowerConfig};
pub use vit::{Stem, VisionConfig, Vit};
pub(crate) use vit::{check_heads, check_size};
