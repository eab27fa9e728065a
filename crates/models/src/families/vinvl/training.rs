//! The losses, as maskrcnn-benchmark and the authors' attribute head compute them
//! (microsoft/scene_graph_benchmark, `scene_graph_benchmark/attribute_head/loss.py`).

use super::{CODER, EXTENT, STRIDE, Vinvl};
use crate::encoders::region_detector::{
    BoxCoder, Corners, DetectorLosses, KnownObject, LearnedRegion, ProposalConfig, anchors, draws,
    joined, learned_regions, proposal_losses, region_losses, rows, validate_objects,
};
use crate::error::Error;
use crate::objectives::soft_cross_entropy;
use burn::tensor::{Tensor, TensorData};
use vlm_nn::ops::Roi;

/// Between an anchor and a proposal.
const ANCHOR_CODER: BoxCoder = BoxCoder {
    weights: [1.0; 4],
    extent: EXTENT,
};
/// Where the smooth L1 loss of objects changes from square to straight.
const BETA: f32 = 1.0;

impl Vinvl {
    /// The losses of pictures whose objects are known; which anchors and proposals are learned from is drawn from `seed`.
    ///
    /// # Shapes
    /// `pictures: [3, H, W]` each, blue first and without their mean; boxes in their pixels.
    ///
    /// # Errors
    /// Another number of pictures than of lists of objects, none at all, or an object that is not as the model and the
    /// picture are.
    pub fn loss(
        &self,
        pictures: &[Tensor<3>],
        objects: &[Vec<KnownObject>],
        seed: u64,
    ) -> Result<DetectorLosses, Error> {
        let (c, t) = (&self.config, &self.config.training);
        validate_objects(pictures, objects, c.num_classes, c.num_attributes)?;
        let features = self.features(pictures);
        let [_, h, w, _] = features.level.scores.dims();
        let all = anchors(&self.cell(), [h, w], [STRIDE; 2]);
        let inside = |picture: usize, &[x1, y1, x2, y2]: &Corners| {
            let [height, width] = features.sizes[picture].map(|side| side as f32);
            let most = t.straddle_thresh;
            let out = x1 < -most || y1 < -most || x2 >= width + most || y2 >= height + most;
            most < 0.0 || !out
        };
        let of_proposals = proposal_losses(
            joined(std::slice::from_ref(&features.level)),
            &all,
            inside,
            objects,
            &t.anchors,
            &ANCHOR_CODER,
            seed,
        );
        let rpn = ProposalConfig {
            pre_nms_top_n: t.rpn_pre_nms_top_n,
            post_nms_top_n: t.rpn_post_nms_top_n,
            ..c.rpn
        };
        let regions = (0..pictures.len()).flat_map(|i| {
            let proposals = self.proposals(&features, i, &rpn);
            let mut draws = draws(seed, i, 1);
            learned_regions(i, proposals, &objects[i], &t.regions, EXTENT, &mut draws)
        });
        let regions: Vec<LearnedRegion> = regions.collect();
        let rois: Vec<Roi> = regions.iter().map(LearnedRegion::roi).collect();
        let x = self.pooled(&self.head, &features.map, &rois); // [R, D]
        let told = (
            self.class_score.forward(x.clone()),
            self.box_change.forward(x.clone()),
        );
        let of_regions = region_losses(told, &regions, objects, &CODER, BETA);
        let attributes = self.attribute_loss(&features.map, x, &regions, objects);
        Ok(DetectorLosses::new(of_proposals, of_regions, attributes))
    }

    /// Cross-entropy against the attributes of the objects, each an equal share, over all regions that are learned as
    /// objects; an object without attributes adds nothing.
    ///
    /// # Shapes
    /// `map: [B, H, W, C]`; `features: [R, D]` of `regions`; gives `[1]`.
    fn attribute_loss(
        &self,
        map: &Tensor<4>,
        features: Tensor<2>,
        regions: &[LearnedRegion],
        objects: &[Vec<KnownObject>],
    ) -> Option<Tensor<1>> {
        let part = self.attribute.as_ref()?;
        let found = regions.iter().enumerate();
        let found = found.filter_map(|(i, region)| {
            let object = &objects[region.picture][region.object?];
            Some((i, region.roi(), object))
        });
        let (mut places, mut rois, mut learned) = (Vec::new(), Vec::new(), Vec::new());
        for (place, roi, object) in found {
            places.push(place);
            rois.push(roi);
            learned.push(object);
        }
        if learned.is_empty() {
            let none = match regions.is_empty() {
                true => Tensor::zeros([1], &features.device()),
                // 0, with gradients that are 0 as well
                false => {
                    let logits = self.attribute_logits(part, rows(features, &[0]), [0].into_iter());
                    logits.sum() * 0.0
                }
            };
            return Some(none);
        }
        let x = match part.head.is_empty() {
            true => rows(features, &places),
            false => self.pooled(self.attribute_head(part), map, &rois),
        };
        let logits = self.attribute_logits(part, x, learned.iter().map(|o| o.class));
        let [count, width] = logits.dims();
        let mut targets = vec![0f32; count * width];
        for (row, object) in targets.chunks_exact_mut(width).zip(&learned) {
            for &attribute in &object.attributes {
                row[attribute] = 1.0 / object.attributes.len() as f32;
            }
        }
        let targets = TensorData::new(targets, [count, width]);
        let targets = Tensor::from_data(targets, &logits.device());
        let loss = soft_cross_entropy(logits, targets).mean();
        Some(loss * self.config.training.attribute_loss_weight)
    }
}
