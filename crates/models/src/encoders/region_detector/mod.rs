//! The parts of two-stage detectors (Ren et al., "Faster R-CNN", 2015): anchors, the network that proposes regions, the
//! pyramid of features (Lin et al., "Feature pyramid networks", 2017), and what becomes of boxes.
//!
//! Legend: `B` pictures, `H`, `W` height and width of features, `C` channels, `A` anchors of a cell, `R` regions.

mod anchors;
mod boxes;
mod fpn;
mod rpn;
mod transform;

pub use anchors::{AnchorLayout, around_first_cell};
pub use boxes::{BoxCoder, Corners, class_wise_nms, clipped, is_large};
pub use fpn::FeaturePyramid;
pub use rpn::{LevelScores, ProposalConfig, RpnHead, candidates};
pub use transform::{prepared, resized};

use burn::tensor::Tensor;

/// A tensor's numbers on the host.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.try_to_vec().expect("f32")
}
