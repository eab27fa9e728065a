//! The losses, as torchvision computes them.

use super::{CODER, FasterRcnn};
use crate::encoders::region_detector::{
    BoxCoder, Corners, DetectorLosses, KnownObject, LearnedRegion, ProposalConfig, anchors, draws,
    joined, learned_regions, proposal_losses, region_losses, validate_objects,
};
use crate::error::Error;
use burn::tensor::Tensor;
use vlm_nn::ops::{BoxExtent, Roi};

/// Between an anchor and a proposal.
const ANCHOR_CODER: BoxCoder = BoxCoder {
    weights: [1.0; 4],
    extent: BoxExtent::Edges,
};
/// Where the smooth L1 loss of objects changes from square to straight.
const BETA: f32 = 1.0 / 9.0;

impl FasterRcnn {
    /// The losses of pictures whose objects are known; which anchors and proposals are learned from is drawn from `seed`.
    ///
    /// # Shapes
    /// `pictures: [3, H, W]` in [0, 1] each; boxes in their pixels.
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
        validate_objects(pictures, objects, c.num_classes, 0)?;
        let features = self.features(pictures);
        let objects: Vec<Vec<KnownObject>> = (pictures.iter().zip(objects).zip(&features.sizes))
            .map(|((picture, objects), &size)| {
                let [_, h, w] = picture.dims();
                objects.iter().map(|o| scaled(o, [h, w], size)).collect()
            })
            .collect();
        let mut all = Vec::new();
        for (i, level) in features.levels.iter().enumerate() {
            let [_, h, w, _] = level.scores.dims();
            let (cell, stride) = self.cell(&features, i);
            all.extend(anchors(&cell, [h, w], stride));
        }
        let of_proposals = proposal_losses(
            joined(&features.levels),
            &all,
            |_, _| true,
            &objects,
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
            let proposals: Vec<Corners> = proposals.into_iter().map(|p| p.0).collect();
            let (extent, mut draws) = (BoxExtent::Edges, draws(seed, i, 1));
            learned_regions(i, proposals, &objects[i], &t.regions, extent, &mut draws)
        });
        let regions: Vec<LearnedRegion> = regions.collect();
        let rois: Vec<Roi> = regions.iter().map(LearnedRegion::roi).collect();
        let told = self.told(&features, &rois);
        let of_regions = region_losses(told, &regions, &objects, &CODER, BETA);
        Ok(DetectorLosses::new(of_proposals, of_regions, None))
    }
}

/// An object in a picture that was resized `from` one `[height, width]` `to` another.
fn scaled(object: &KnownObject, from: [usize; 2], to: [usize; 2]) -> KnownObject {
    let [down, right] = [0, 1].map(|i| to[i] as f32 / from[i] as f32);
    let [x1, y1, x2, y2] = object.corners;
    KnownObject {
        corners: [x1 * right, y1 * down, x2 * right, y2 * down],
        ..object.clone()
    }
}
