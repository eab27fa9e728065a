//! Faster R-CNN with a feature pyramid (Ren et al., "Faster R-CNN: towards real-time object detection with region proposal
//! networks", 2015; Lin et al., "Feature pyramid networks for object detection", 2017) as torchvision publishes it.
//!
//! ```text
//!   pixels -> normalise, resize, pad -> ResNet -> pyramid P2 .. P5, pool
//!                                                    |-> RPN: anchors -> proposals
//!                                                    +-> RoIAlign in proposals -> fc6 -> fc7 -> classes, boxes -> NMS
//! ```
//!
//! Its `config.json` has `library_name` `torchvision`, `architecture` `fasterrcnn_resnet50_fpn` and `num_classes`, and,
//! where they are not the published ones, the constructor's arguments by their names. Weights have torchvision's names,
//! of any version.
//!
//! Legend: `B` pictures, `H`, `W` height and width, `C` channels, `R` regions, `K` classes, the first of which is
//! background.

mod config;
mod reference;
mod training;

use crate::capability::{Detect, DetectOptions, Detection, Detections, Pictures};
use crate::encoders::ResNetStages;
use crate::encoders::region_detector::{
    AnchorLayout, BoxCoder, Corners, FeaturePyramid, LevelScores, ProposalConfig, RpnHead,
    around_first_cell, candidates, class_wise_nms, clipped, is_large, numbers, prepared, resized,
    rows,
};
use crate::error::{Error, expect};
use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
pub use config::{ARCHITECTURES, FasterRcnnConfig, FasterRcnnTraining};
use vlm_nn::ops::{self, Activation, BoxExtent, Roi, RoiAlignShape};
use vlm_nn::weights::{Checkpoint, Init, Rule, Weights};
use vlm_nn::{Linear, Statistics};

/// This family's name.
pub const FAMILY: &str = "faster_rcnn";

/// Cells of each region in either direction.
const POOLED: usize = 7;
/// Sides of the padded picture are multiples of this.
const DIVISOR: usize = 32;
/// The side below which a box is dropped at the end.
const LEAST_SIDE: f32 = 1e-2;
/// Between a region and its object.
const CODER: BoxCoder = BoxCoder {
    weights: [10.0, 10.0, 5.0, 5.0],
    extent: BoxExtent::Edges,
};

/// Published names to ours. In weights of torchvision before 0.13 the convolutions of pyramid and RPN stand alone.
const PUBLISHED: &[Rule] = &[
    Rule::Ignore("**.num_batches_tracked"),
    Rule::Name("backbone.body.conv1.*", "body.conv1.*"),
    Rule::Name("backbone.body.bn1.*", "body.norm1.*"),
    Rule::Name("backbone.body.layer*.*.conv*.*", "body.layer*.*.conv*.*"),
    Rule::Name("backbone.body.layer*.*.bn*.*", "body.layer*.*.norm*.*"),
    Rule::Name(
        "backbone.body.layer*.*.downsample.0.*",
        "body.layer*.*.shortcut.conv.*",
    ),
    Rule::Name(
        "backbone.body.layer*.*.downsample.1.*",
        "body.layer*.*.shortcut.norm.*",
    ),
    Rule::Name("backbone.fpn.inner_blocks.*.0.*", "fpn.inner.*.*"),
    Rule::Name("backbone.fpn.inner_blocks.*.*", "fpn.inner.*.*"),
    Rule::Name("backbone.fpn.layer_blocks.*.0.*", "fpn.layer.*.*"),
    Rule::Name("backbone.fpn.layer_blocks.*.*", "fpn.layer.*.*"),
    Rule::Name("rpn.head.conv.0.0.*", "rpn.conv.*"),
    Rule::Name("rpn.head.conv.*", "rpn.conv.*"),
    Rule::Name("rpn.head.cls_logits.*", "rpn.score.*"),
    Rule::Name("rpn.head.bbox_pred.*", "rpn.change.*"),
    Rule::Name("roi_heads.box_head.fc*.*", "fc*.*"),
    Rule::Name("roi_heads.box_predictor.cls_score.*", "class_score.*"),
    Rule::Name("roi_heads.box_predictor.bbox_pred.*", "box_change.*"),
];

/// A checkpoint with our names.
pub fn translated(checkpoint: Checkpoint) -> Checkpoint {
    checkpoint.translated(PUBLISHED)
}

/// The model.
#[derive(Module, Debug)]
pub struct FasterRcnn {
    body: ResNetStages,
    fpn: FeaturePyramid,
    rpn: RpnHead,
    fc6: Linear,
    fc7: Linear,
    class_score: Linear,
    box_change: Linear,
    #[module(skip)]
    config: FasterRcnnConfig,
    #[module(skip)]
    statistics: Statistics,
}

/// What the network says of pictures before regions are chosen.
struct Features {
    /// The pyramid, finest first, `[B, H, W, C]`.
    maps: Vec<Tensor<4>>,
    /// Of each map.
    levels: Vec<LevelScores>,
    /// Height and width of each picture after resizing.
    sizes: Vec<[usize; 2]>,
    /// Height and width of all of them after padding.
    padded: [usize; 2],
}

/// What it says of one picture before objects are chosen.
struct Pass {
    features: Features,
    /// In pixels of the resized picture.
    proposals: Vec<(Corners, f32)>,
    /// `[R, K]`.
    logits: Tensor<2>,
    /// `[R, 4 K]`.
    changes: Tensor<2>,
}

impl FasterRcnn {
    /// Builds the model of a validated config.
    pub fn new(w: &mut Weights, c: &FasterRcnnConfig) -> Self {
        let inputs: Vec<usize> = (0..4).map(|i| c.body.outputs(i)).collect();
        let (d, k) = (c.representation_size, c.num_classes);
        let mut linear = |name, inputs, outputs| {
            let init = Init::fan_in(inputs);
            w.scope(name, |w| Linear::new(w, inputs, outputs, true, init))
        };
        let fc6 = linear("fc6", c.fpn_channels * POOLED * POOLED, d);
        let fc7 = linear("fc7", d, d);
        let class_score = linear("class_score", d, k);
        let box_change = linear("box_change", d, 4 * k);
        let anchors = c.aspect_ratios.len();
        Self {
            fc6,
            fc7,
            class_score,
            box_change,
            body: w.scope("body", |w| ResNetStages::new(w, &c.body)),
            fpn: w.scope("fpn", |w| FeaturePyramid::new(w, &inputs, c.fpn_channels)),
            rpn: w.scope("rpn", |w| RpnHead::new(w, c.fpn_channels, anchors)),
            config: c.clone(),
            statistics: Statistics::Running,
        }
    }

    /// The model with norms that divide by the statistics of the batch, unless they are frozen, or by the stored ones.
    #[must_use]
    pub fn in_training(mut self, training: bool) -> Self {
        self.statistics = match training && !self.config.frozen_norms {
            true => Statistics::Batch,
            false => Statistics::Running,
        };
        self
    }

    /// A published model with its `config.json`.
    ///
    /// # Errors
    /// A config that is not understood, or weights that do not match it.
    pub fn load(config: &str, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let config = FasterRcnnConfig::parse(config, &checkpoint)?;
        let classes = "roi_heads.box_predictor.cls_score.weight";
        if let Some(&[found, _]) = checkpoint.shape(classes) {
            expect(
                found == config.num_classes,
                "num_classes",
                format!("{found}, as {classes} has"),
                config.num_classes,
            )?;
        }
        let mut weights = Weights::from_checkpoint(translated(checkpoint), device);
        let model = Self::new(&mut weights, &config);
        weights.finish()?;
        Ok(model)
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &FasterRcnnConfig {
        &self.config
    }

    /// Pictures through backbone, pyramid and proposal network.
    ///
    /// # Shapes
    /// `pictures: [3, H, W]` in [0, 1] each.
    fn features(&self, pictures: &[Tensor<3>]) -> Features {
        let c = &self.config;
        let size = |picture: &Tensor<3>| {
            let [_, h, w] = picture.dims();
            resized([h, w], c.min_size, c.max_size)
        };
        let sizes: Vec<[usize; 2]> = pictures.iter().map(size).collect();
        let x = prepared(pictures, c.normalize, &sizes, DIVISOR); // [B, H, W, 3]
        let [_, h, w, _] = x.dims();
        let maps = self.fpn.forward(self.body.forward(x, self.statistics));
        Features {
            levels: maps.iter().map(|m| self.rpn.forward(m.clone())).collect(),
            maps,
            sizes,
            padded: [h, w],
        }
    }

    /// The anchors around the first cell of map `i`, and the pixels from cell to cell.
    fn cell(&self, features: &Features, i: usize) -> (Vec<Corners>, [usize; 2]) {
        let [_, h, w, _] = features.levels[i].scores.dims();
        // cells of a map that does not divide the picture evenly are taken to be smaller
        let stride = [features.padded[0] / h, features.padded[1] / w];
        let (sizes, ratios) = (&self.config.anchor_sizes[i..=i], &self.config.aspect_ratios);
        let cell = around_first_cell(AnchorLayout::Cornered, sizes, ratios, stride[0]);
        (cell, stride)
    }

    /// Proposals of all maps for one picture, at most `post_nms_top_n`, best first.
    fn proposals(
        &self,
        features: &Features,
        picture: usize,
        c: &ProposalConfig,
    ) -> Vec<(Corners, f32)> {
        let (mut boxes, mut scores, mut of) = (Vec::new(), Vec::new(), Vec::new());
        for (i, level) in features.levels.iter().enumerate() {
            let [_, h, w, a] = level.scores.dims();
            let (cell, stride) = self.cell(features, i);
            let own = |x: &Tensor<4>, channels| {
                let x = x.clone().narrow(0, picture, 1);
                x.reshape([h, w, channels])
            };
            let found = candidates(
                own(&level.scores, a),
                own(&level.changes, 4 * a),
                &cell,
                stride,
                features.sizes[picture],
                c,
            );
            for (corners, score) in found {
                boxes.push(corners);
                scores.push(score);
                of.push(i);
            }
        }
        let mut kept = class_wise_nms(&boxes, &scores, &of, c.nms_thresh);
        kept.truncate(c.post_nms_top_n);
        kept.into_iter().map(|i| (boxes[i], scores[i])).collect()
    }

    /// Features of regions, each from the map that suits its size.
    ///
    /// # Shapes
    /// Gives `[R, C * 7 * 7]`.
    fn pooled(&self, features: &Features, regions: &[Roi]) -> Tensor<2> {
        let maps = &features.maps[..4];
        // torchvision tells a map's scale by the largest picture before it was padded
        let tallest = features.sizes.iter().map(|size| size[0]).max();
        let tallest = tallest.unwrap_or(1) as f32;
        let halved = |map: &Tensor<4>| -(map.dims()[1] as f32 / tallest).log2().round_ties_even();
        let halved: Vec<f32> = maps.iter().map(halved).collect();
        let level = |roi: &Roi| {
            let [x1, y1, x2, y2] = roi.corners;
            let side = ((x2 - x1) * (y2 - y1)).sqrt();
            let level = (4.0 + (side / self.config.canonical_scale).log2() + 1e-6).floor();
            // NaN, which nothing here makes, would be the finest map
            let level = level.clamp(halved[0], halved[3]) - halved[0];
            (level.max(0.0) as usize).min(3)
        };
        let levels: Vec<usize> = regions.iter().map(level).collect();
        let mut parts = Vec::new();
        let mut places = vec![0; regions.len()];
        let mut count = 0;
        for (i, map) in maps.iter().enumerate() {
            let own = levels.iter().enumerate().filter(|(_, level)| **level == i);
            let own: Vec<usize> = own.map(|(region, _)| region).collect();
            if own.is_empty() {
                continue;
            }
            for &region in &own {
                places[region] = count;
                count += 1;
            }
            let rois: Vec<Roi> = own.iter().map(|&region| regions[region]).collect();
            let shape = RoiAlignShape {
                output: [POOLED, POOLED],
                scale: (-halved[i]).exp2(),
                sampling_ratio: 2,
                aligned: false,
            };
            parts.push(ops::roi_align(map.clone(), &rois, shape)); // [R, 7, 7, C]
        }
        let width = self.config.fpn_channels * POOLED * POOLED;
        if parts.is_empty() {
            return Tensor::zeros([0, width], &maps[0].device());
        }
        rows(Tensor::cat(parts, 0), &places)
            .permute([0, 3, 1, 2]) // [R, C, 7, 7]
            .reshape([regions.len(), width])
    }

    /// Scores of classes and changes of boxes of regions.
    ///
    /// # Shapes
    /// Gives `[R, K]` and `[R, 4 K]`.
    fn told(&self, features: &Features, regions: &[Roi]) -> (Tensor<2>, Tensor<2>) {
        let x = self.pooled(features, regions);
        if regions.is_empty() {
            let zeros = |width| Tensor::zeros([0, width], &x.device());
            let k = self.config.num_classes;
            return (zeros(k), zeros(4 * k));
        }
        let x = self.fc6.fused(x, Activation::Relu, None);
        let x = self.fc7.fused(x, Activation::Relu, None); // [R, D]
        (
            self.class_score.forward(x.clone()),
            self.box_change.forward(x),
        )
    }

    /// One picture through the network.
    ///
    /// # Shapes
    /// `picture: [3, H, W]` in [0, 1].
    fn pass(&self, picture: Tensor<3>) -> Pass {
        let features = self.features(&[picture]);
        let proposals = self.proposals(&features, 0, &self.config.rpn);
        let roi = |&(corners, _): &(Corners, f32)| Roi {
            picture: 0,
            corners,
        };
        let regions: Vec<Roi> = proposals.iter().map(roi).collect();
        let (logits, changes) = self.told(&features, &regions);
        Pass {
            features,
            proposals,
            logits,
            changes,
        }
    }

    /// The objects that remain, in pixels of a picture of `original` `[height, width]`.
    fn objects(
        &self,
        pass: &Pass,
        original: [usize; 2],
        options: &DetectOptions,
    ) -> Vec<Detection> {
        let c = &self.config;
        if pass.proposals.is_empty() {
            return Vec::new();
        }
        let k = c.num_classes;
        let threshold = options.threshold.unwrap_or(c.box_score_thresh);
        let probabilities = numbers(softmax(pass.logits.clone(), 1));
        let changes = numbers(pass.changes.clone());
        let size = pass.features.sizes[0];
        let (mut boxes, mut scores, mut classes) = (Vec::new(), Vec::new(), Vec::new());
        for (r, (region, _)) in pass.proposals.iter().enumerate() {
            for class in 1..k {
                let score = probabilities[r * k + class];
                if score <= threshold {
                    continue;
                }
                let at = 4 * (r * k + class);
                let change: [f32; 4] = std::array::from_fn(|i| changes[at + i]);
                let corners = clipped(CODER.decode(change, *region), size, BoxExtent::Edges);
                if is_large(corners, LEAST_SIDE, BoxExtent::Edges) {
                    boxes.push(corners);
                    scores.push(score);
                    classes.push(class);
                }
            }
        }
        let mut kept = class_wise_nms(&boxes, &scores, &classes, c.box_nms_thresh);
        kept.truncate(options.most.unwrap_or(c.box_detections_per_img));
        let scale = [0, 1].map(|i| original[i] as f32 / size[i] as f32);
        let object = |i: usize| Detection {
            corners: {
                let [x1, y1, x2, y2] = boxes[i];
                [x1 * scale[1], y1 * scale[0], x2 * scale[1], y2 * scale[0]]
            },
            class: classes[i],
            score: scores[i],
            attributes: Vec::new(),
        };
        kept.into_iter().map(object).collect()
    }

    fn picture(pixels: &Tensor<4>, i: usize) -> Tensor<3> {
        let [_, c, h, w] = pixels.dims();
        pixels.clone().narrow(0, i, 1).reshape([c, h, w])
    }
}

impl Detect for FasterRcnn {
    fn detect(
        &self,
        pictures: &Pictures,
        options: &DetectOptions,
    ) -> Result<Vec<Detections>, Error> {
        let pixels = pictures.fixed(3)?;
        let [b, _, h, w] = pixels.dims();
        let each = (0..b).map(|i| {
            let pass = self.pass(Self::picture(&pixels, i));
            Detections {
                objects: self.objects(&pass, [h, w], options),
                features: None,
            }
        });
        Ok(each.collect())
    }

    fn num_classes(&self) -> usize {
        self.config.num_classes
    }
}

impl FasterRcnn {
    /// Where the model lies.
    pub fn device(&self) -> Device {
        self.devices().into_iter().next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{ModuleVisitor, Param};
    use burn::tensor::Gradients;
    use vlm_nn::random::SplitMix64;

    struct Reached<'a> {
        path: Vec<String>,
        gradients: &'a Gradients,
        without: Vec<String>,
    }

    impl ModuleVisitor for Reached<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = param.val().grad(self.gradients);
            let length = gradient.map_or(0.0, |g| g.abs().sum().into_scalar::<f32>());
            if length == 0.0 {
                self.without.push(self.path.join("."));
            }
        }
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
    }

    #[test]
    fn gradients_of_regions_and_proposals_reach_every_parameter() {
        let json = r#"{"architecture": "fasterrcnn_resnet50_fpn", "num_classes": 4, "layers": [1, 2, 1, 1],
            "stem_width": 4, "fpn_channels": 4, "representation_size": 8, "min_size": 96, "max_size": 128,
            "rpn_post_nms_top_n_test": 20, "norm_eps": 1e-5}"#;
        let none =
            vlm_nn::weights::to_bytes(&Default::default(), vlm_nn::weights::StoreDtype::F32, None);
        let none = Checkpoint::parse(&none.unwrap(), "none").unwrap();
        let config = FasterRcnnConfig::parse(json, &none).unwrap();
        let device = Device::flex().autodiff();
        let model = FasterRcnn::new(&mut Weights::random(3, &device), &config);
        let picture = SplitMix64::new(4).normal_tensor([3, 80, 100], &device);
        let pass = model.pass(picture);
        assert!(pass.proposals.len() > 5);
        let levels = pass.features.levels.into_iter();
        let proposed =
            levels.map(|l| l.scores.powi_scalar(2).sum() + l.changes.powi_scalar(2).sum());
        let head = pass.logits.powi_scalar(2).sum() + pass.changes.powi_scalar(2).sum();
        let gradients = proposed.fold(head, |sum, x| sum + x).backward();
        let mut reached = Reached {
            path: Vec::new(),
            gradients: &gradients,
            without: Vec::new(),
        };
        model.visit(&mut reached);
        let statistics = |name: &String| name.contains("running_");
        assert!(
            reached.without.iter().all(statistics),
            "{:?}",
            reached.without
        );
    }

    #[test]
    fn anchors_of_a_map_are_as_torchvision_lists_them() {
        let cell = around_first_cell(AnchorLayout::Cornered, &[512.0], &[0.5, 1.0, 2.0], 64);
        let expected = [
            [-362.0, -181.0, 362.0, 181.0],
            [-256.0, -256.0, 256.0, 256.0],
            [-181.0, -362.0, 181.0, 362.0],
        ];
        assert_eq!(cell, expected);
    }
}
