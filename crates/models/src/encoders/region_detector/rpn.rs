//! The region proposal network: which anchors may hold an object, and how their boxes change.

use super::anchors::anchor;
use super::boxes::{BoxCoder, clipped, is_large};
use super::{Corners, numbers};
use burn::module::Module;
use burn::tensor::Tensor;
use vlm_nn::Conv2d;
use vlm_nn::ops::{Activation, BoxExtent};
use vlm_nn::weights::{Init, Weights};

/// Three convolutions; parameters `conv`, `score` and `change`.
#[derive(Module, Debug)]
pub struct RpnHead {
    conv: Conv2d,
    score: Conv2d,
    change: Conv2d,
}

/// What the network says about the anchors of one map of features.
#[derive(Clone, Debug)]
pub struct LevelScores {
    /// `[B, H, W, A]`.
    pub scores: Tensor<4>,
    /// `[B, H, W, 4 A]`.
    pub changes: Tensor<4>,
}

impl RpnHead {
    /// For maps of `channels` channels and `anchors` anchors of a cell.
    pub fn new(w: &mut Weights, channels: usize, anchors: usize) -> Self {
        // as both references draw them
        let init = Init::Normal(0.01);
        let mut conv = |name, outputs, window| {
            let channels = [channels, outputs];
            w.scope(name, |w| {
                Conv2d::with_init(w, channels, window, 1, true, init)
            })
        };
        Self {
            conv: conv("conv", channels, [3, 1, 1]),
            score: conv("score", anchors, [1, 1, 0]),
            change: conv("change", 4 * anchors, [1, 1, 0]),
        }
    }

    /// # Shapes
    /// `x: [B, H, W, C]`.
    pub fn forward(&self, x: Tensor<4>) -> LevelScores {
        let x = self.conv.fused(x, None, Activation::Relu, None);
        LevelScores {
            scores: self.score.channels_last(x.clone()),
            changes: self.change.channels_last(x),
        }
    }
}

/// Which anchors become proposals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProposalConfig {
    /// How many of each map, best first, are looked at.
    pub pre_nms_top_n: usize,
    /// How many remain.
    pub post_nms_top_n: usize,
    /// Overlap from which on the better one of two remains.
    pub nms_thresh: f32,
    /// Least probability.
    pub score_thresh: f32,
    /// Least side, in pixels.
    pub min_size: f32,
    /// Whether the last pixel belongs to a box.
    pub extent: BoxExtent,
}

/// The best anchors of one map and one picture, changed, clipped to the picture of `size` `[height, width]`, and not too
/// small, with their probabilities, best first.
///
/// # Shapes
/// `scores: [H, W, A]`, `changes: [H, W, 4 A]`; `cell` are the `A` boxes around the first cell.
pub fn candidates(
    scores: Tensor<3>,
    changes: Tensor<3>,
    cell: &[Corners],
    stride: [usize; 2],
    size: [usize; 2],
    c: &ProposalConfig,
) -> Vec<(Corners, f32)> {
    let columns = scores.dims()[1];
    let (scores, changes) = (numbers(scores), numbers(changes));
    let coder = BoxCoder {
        weights: [1.0; 4],
        extent: c.extent,
    };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let best_first = |&a: &usize, &b: &usize| scores[b].total_cmp(&scores[a]).then(a.cmp(&b));
    if order.len() > c.pre_nms_top_n && c.pre_nms_top_n > 0 {
        order.select_nth_unstable_by(c.pre_nms_top_n - 1, best_first);
        order.truncate(c.pre_nms_top_n);
    }
    order.sort_unstable_by(best_first);
    let changed = order.into_iter().filter_map(|i| {
        let change: [f32; 4] = std::array::from_fn(|j| changes[4 * i + j]);
        let corners = coder.decode(change, anchor(cell, i, columns, stride));
        let corners = clipped(corners, size, c.extent);
        let probability = 1.0 / (1.0 + (-scores[i]).exp());
        let kept = is_large(corners, c.min_size, c.extent) && probability >= c.score_thresh;
        kept.then_some((corners, probability))
    });
    changed.collect()
}
