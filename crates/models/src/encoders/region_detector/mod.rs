//! The parts of two-stage detectors (Ren et al., "Faster R-CNN", 2015): anchors, the network that proposes regions, the
//! pyramid of features (Lin et al., "Feature pyramid networks", 2017), what becomes of boxes, and the losses.
//!
//! Legend: `B` pictures, `H`, `W` height and width of features, `C` channels, `A` anchors of a cell, `R` regions.

mod anchors;
mod boxes;
mod fpn;
mod losses;
mod rpn;
mod targets;
mod transform;

pub use anchors::{AnchorLayout, anchors, around_first_cell};
pub use boxes::{BoxCoder, Corners, class_wise_nms, clipped, is_large};
pub use fpn::FeaturePyramid;
pub(crate) use losses::rows;
pub use losses::{DetectorLosses, joined, proposal_losses, region_losses};
pub use rpn::{LevelScores, ProposalConfig, RpnHead, candidates};
pub use targets::{
    KnownObject, LearnedRegion, Match, Matching, Sample, draws, learned_regions, validate_objects,
};
pub use transform::{prepared, resized, stacked};

use burn::tensor::Tensor;

/// A tensor's numbers on the host.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.try_to_vec().expect("f32")
}
