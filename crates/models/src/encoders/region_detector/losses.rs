//! What a two-stage detector is trained with (Ren et al., "Faster R-CNN", 2015), as torchvision and maskrcnn-benchmark
//! compute it.

use super::targets::{KnownObject, LearnedRegion, Match, Matching, draws};
use super::{BoxCoder, Corners, LevelScores};
use crate::objectives::{binary_cross_entropy, smooth_l1};
use burn::tensor::{Int, Tensor, TensorData};
use vlm_nn::ops;

/// The losses of a batch.
#[derive(Clone, Debug)]
pub struct DetectorLosses {
    /// The sum that is minimised.
    pub total: Tensor<1>,
    /// Whether there is an object (`loss_objectness`).
    pub objectness: Tensor<1>,
    /// Boxes of the proposals (`loss_rpn_box_reg`).
    pub proposals: Tensor<1>,
    /// Classes (`loss_classifier`).
    pub classes: Tensor<1>,
    /// Boxes of the objects (`loss_box_reg`).
    pub boxes: Tensor<1>,
    /// Attributes (`loss_attribute`), already weighted; none from a detector that tells none.
    pub attributes: Option<Tensor<1>>,
}

impl DetectorLosses {
    /// All of them, with their sum.
    pub fn new(
        [objectness, proposals]: [Tensor<1>; 2],
        [classes, boxes]: [Tensor<1>; 2],
        attributes: Option<Tensor<1>>,
    ) -> Self {
        let mut total = objectness.clone() + proposals.clone() + classes.clone() + boxes.clone();
        if let Some(attributes) = &attributes {
            total = total + attributes.clone();
        }
        Self {
            total,
            objectness,
            proposals,
            classes,
            boxes,
            attributes,
        }
    }
}

/// Where a box's smooth L1 loss of the proposals changes from square to straight.
const BETA: f32 = 1.0 / 9.0;

/// Rows of a tensor.
pub(crate) fn rows<const D: usize>(x: Tensor<D>, places: &[usize]) -> Tensor<D> {
    let places: Vec<i64> = places.iter().map(|&i| i as i64).collect();
    let data = TensorData::new(places.clone(), [places.len()]);
    let places = Tensor::<1, Int>::from_data(data, &x.device());
    x.select(0, places)
}

/// A loss of nothing, which is 0 and has a gradient, 0 as well.
fn none<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    x.sum() * 0.0
}

/// What all maps say of the anchors, one map after the other.
///
/// # Shapes
/// Gives `[B, N]` and `[B, N, 4]` for `N` anchors of a picture.
pub fn joined(levels: &[LevelScores]) -> (Tensor<2>, Tensor<3>) {
    let scores = levels.iter().map(|level| {
        let [b, h, w, a] = level.scores.dims();
        level.scores.clone().reshape([b, h * w * a])
    });
    let changes = levels.iter().map(|level| {
        let [b, h, w, a] = level.changes.dims();
        level.changes.clone().reshape([b, h * w * a / 4, 4])
    });
    (
        Tensor::cat(scores.collect(), 1),
        Tensor::cat(changes.collect(), 1),
    )
}

/// The losses of the proposals: whether an anchor holds an object, over all that are learned from, and how its box changes
/// where it does, divided by the same number.
///
/// `usable` tells of a picture's anchor whether it may be learned from at all.
///
/// # Shapes
/// `scores: [B, N]`, `changes: [B, N, 4]` for the `N` `anchors` of every picture; gives `[1]` each.
pub fn proposal_losses(
    (scores, changes): (Tensor<2>, Tensor<3>),
    anchors: &[Corners],
    usable: impl Fn(usize, &Corners) -> bool,
    objects: &[Vec<KnownObject>],
    matching: &Matching,
    coder: &BoxCoder,
    seed: u64,
) -> [Tensor<1>; 2] {
    let [b, n] = scores.dims();
    let (mut positives, mut negatives, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for (picture, objects) in objects.iter().enumerate() {
        let mut matches = matching.matches(anchors, objects, coder.extent);
        for (found, corners) in matches.iter_mut().zip(anchors) {
            if !usable(picture, corners) {
                *found = Match::Ignored;
            }
        }
        let sample = matching.sample(&matches, &mut draws(seed, picture, 0));
        for &at in &sample.positives {
            if let Match::Object(object) = matches[at] {
                targets.push(coder.encode(objects[object].corners, anchors[at]));
            }
        }
        positives.extend(sample.positives.iter().map(|at| picture * n + at));
        negatives.extend(sample.negatives.iter().map(|at| picture * n + at));
    }
    let (scores, changes) = (scores.reshape([b * n]), changes.reshape([b * n, 4]));
    let places = [positives.as_slice(), negatives.as_slice()].concat();
    let objectness = match places.is_empty() {
        true => none(scores),
        false => {
            let truths: Vec<bool> = (0..places.len()).map(|i| i < positives.len()).collect();
            binary_cross_entropy(rows(scores, &places), &truths)
        }
    };
    let moved = change_loss(changes, &positives, &targets, BETA);
    [objectness, moved / places.len().max(1) as f32]
}

/// The loss of some rows of changes, summed.
fn change_loss(changes: Tensor<2>, places: &[usize], targets: &[[f32; 4]], beta: f32) -> Tensor<1> {
    if places.is_empty() {
        return none(changes);
    }
    let data = TensorData::new(targets.concat(), [targets.len(), 4]);
    let targets = Tensor::from_data(data, &changes.device());
    smooth_l1(rows(changes, places), targets, beta)
}

/// The losses of regions: their class, background included, and how the box of that class changes where it is another,
/// both divided by the number of regions.
///
/// # Shapes
/// `logits: [R, K]`, `changes: [R, 4 K]`; gives `[1]` each.
pub fn region_losses(
    (logits, changes): (Tensor<2>, Tensor<2>),
    regions: &[LearnedRegion],
    objects: &[Vec<KnownObject>],
    coder: &BoxCoder,
    beta: f32,
) -> [Tensor<1>; 2] {
    let [r, k] = logits.dims();
    if r == 0 {
        return [none(logits), none(changes)];
    }
    let (mut labels, mut places, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for (i, region) in regions.iter().enumerate() {
        let Some(object) = region.object.map(|o| &objects[region.picture][o]) else {
            labels.push(0);
            continue;
        };
        labels.push(object.class as i64);
        places.push(i * k + object.class);
        targets.push(coder.encode(object.corners, region.corners));
    }
    let labels = TensorData::new(labels, [r]);
    let labels = Tensor::<1, Int>::from_data(labels, &logits.device());
    let classes = ops::cross_entropy(logits, labels, 0.0).mean();
    let moved = change_loss(changes.reshape([r * k, 4]), &places, &targets, beta);
    [classes, moved / r as f32]
}
