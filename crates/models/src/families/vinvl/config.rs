//! The config of [`super::Vinvl`].

use crate::encoders::published::Fields;
use crate::encoders::region_detector::{Matching, ProposalConfig};
use crate::encoders::{ResNetStagesConfig, check_size};
use crate::error::{Error, expect};
use vlm_nn::ops::BoxExtent;
use vlm_nn::weights::Checkpoint;

const EXTENT: BoxExtent = BoxExtent::Pixels;

/// Sizes and thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct VinvlConfig {
    /// Classes `K`, background included.
    pub num_classes: usize,
    /// Attributes, the first of which stands for none; 0 for a detector without them.
    pub num_attributes: usize,
    /// Width of a class's embedding, which the attributes are told from.
    pub cls_emd_dim: usize,
    /// Width of their hidden layer.
    pub attr_emd_dim: usize,
    /// The stages before regions are cut out.
    pub body: ResNetStagesConfig,
    /// Whether the norms stay as they are in training too, or divide by the statistics of the batch and learn.
    pub frozen_norms: bool,
    /// Bottlenecks of the stage behind that.
    pub head_blocks: usize,
    /// Whether the attributes have a last stage of their own.
    pub own_attribute_stage: bool,
    /// Sides of the anchors of every cell.
    pub anchor_sizes: Vec<f32>,
    /// Proposals.
    pub rpn: ProposalConfig,
    /// Least probability of an object.
    pub score_thresh: f32,
    /// Overlap from which on the better one of two objects of a class remains.
    pub nms: f32,
    /// Most objects of a picture.
    pub detections_per_img: usize,
    /// Objects that every picture has, however improbable.
    pub min_detections_per_img: usize,
    /// Whether objects are the regions that were proposed, as in the released features, or boxes that fit them better.
    pub ignore_box_regression: bool,
    /// Least probability of an attribute.
    pub attribute_thresh: f32,
    /// Most attributes of an object.
    pub max_attributes: usize,
    /// How it is trained.
    pub training: VinvlTraining,
}

/// What training does otherwise than use.
#[derive(Clone, Debug, PartialEq)]
pub struct VinvlTraining {
    /// As `pre_nms_top_n` of the proposals.
    pub rpn_pre_nms_top_n: usize,
    /// As `post_nms_top_n` of the proposals.
    pub rpn_post_nms_top_n: usize,
    /// Anchors that stick out of the picture by so many pixels are not learned from; below 0 all are.
    pub straddle_thresh: f32,
    /// Anchors that are learned from.
    pub anchors: Matching,
    /// Proposals that are learned from.
    pub regions: Matching,
    /// The weight of the attributes' loss.
    pub attribute_loss_weight: f32,
}

/// The names of the norms, as in torchvision.
const NORMS: [&str; 2] = ["BatchNorm2d", "FrozenBatchNorm2d"];

impl VinvlConfig {
    /// The sizes of a checkpoint with our names, and the thresholds of the released commands.
    pub(super) fn of_checkpoint(
        checkpoint: &Checkpoint,
        own_attribute_stage: bool,
    ) -> Result<Self, Error> {
        let shape = |name: &str, rank: usize| -> Result<Vec<usize>, Error> {
            match checkpoint.shape(name) {
                Some(shape) if shape.len() == rank => Ok(shape.to_vec()),
                found => Err(Error::Config {
                    place: format!("{}: {name}", checkpoint.name()),
                    expected: format!("a tensor of {rank} dimensions"),
                    found: found.map_or("nothing".to_owned(), |shape| format!("{shape:?}")),
                }),
            }
        };
        let blocks = |of: &str| {
            let number = |name: &str| -> Option<usize> {
                name.strip_prefix(of)?.split('.').next()?.parse().ok()
            };
            let numbers = checkpoint.tensors().filter_map(|t| number(t.name));
            numbers.max().map_or(0, |last| last.saturating_add(1))
        };
        let conv2 = shape("body.layer1.0.conv2.weight", 4)?;
        let groups = conv2[0] / conv2[1].max(1);
        let has_attributes = checkpoint.contains("attribute.score.weight");
        let attribute = |name: &str, at: usize| match has_attributes {
            true => shape(name, 2).map(|shape| shape[at]),
            false => Ok(0),
        };
        Ok(Self {
            num_classes: shape("class_score.weight", 2)?[0],
            num_attributes: attribute("attribute.score.weight", 0)?,
            cls_emd_dim: attribute("attribute.class.weight", 1)?,
            attr_emd_dim: attribute("attribute.hidden.weight", 0)?,
            body: ResNetStagesConfig {
                layers: (1..4).map(|i| blocks(&format!("body.layer{i}."))).collect(),
                stem_width: shape("body.conv1.weight", 4)?[0],
                width: shape("body.layer1.0.conv3.weight", 4)?[0],
                groups,
                width_per_group: conv2[1],
                ..Self::released().body
            },
            head_blocks: blocks("head."),
            own_attribute_stage,
            ..Self::released()
        })
    }

    /// The released commands' sizes and thresholds, and how the authors trained.
    fn released() -> Self {
        Self {
            num_classes: 1595,
            num_attributes: 525,
            cls_emd_dim: 256,
            attr_emd_dim: 512,
            body: ResNetStagesConfig {
                layers: vec![3, 8, 36],
                stem_width: 64,
                width: 256,
                groups: 32,
                width_per_group: 8,
                stride_in_1x1: false,
                norm_eps: 0.0,
            },
            frozen_norms: true,
            head_blocks: 3,
            own_attribute_stage: false,
            anchor_sizes: vec![32.0, 64.0, 128.0, 256.0, 512.0],
            rpn: ProposalConfig {
                pre_nms_top_n: 6000,
                post_nms_top_n: 300,
                nms_thresh: 0.7,
                score_thresh: 0.0,
                min_size: 0.0,
                extent: EXTENT,
            },
            score_thresh: 0.2,
            nms: 0.3,
            detections_per_img: 100,
            min_detections_per_img: 10,
            ignore_box_regression: false,
            attribute_thresh: 0.05,
            max_attributes: 10,
            training: VinvlTraining {
                rpn_pre_nms_top_n: 12_000,
                rpn_post_nms_top_n: 2000,
                straddle_thresh: 0.0,
                anchors: Matching {
                    fg_iou_thresh: 0.7,
                    bg_iou_thresh: 0.3,
                    low_quality_matches: true,
                    batch_size_per_image: 256,
                    positive_fraction: 0.5,
                },
                regions: Matching {
                    fg_iou_thresh: 0.5,
                    bg_iou_thresh: 0.5,
                    low_quality_matches: false,
                    batch_size_per_image: 384,
                    positive_fraction: 0.5,
                },
                attribute_loss_weight: 0.5,
            },
        }
    }

    /// The config of a model that is to be trained from nothing.
    ///
    /// # Errors
    /// A field of the wrong type, out of range, or that is not understood.
    pub fn untrained(json: &str) -> Result<Self, Error> {
        let mut config = Self::released();
        // norms that nobody trained are not to stay as they are
        config.frozen_norms = false;
        let config = config.with_fields(json, false)?;
        config.validate()?;
        Ok(config)
    }

    /// What a config gives: thresholds, and sizes, which must be those that the weights have where there are some.
    pub(super) fn with_fields(mut self, json: &str, weights: bool) -> Result<Self, Error> {
        let json: serde_json::Value = serde_json::from_str(json)?;
        let fields = Fields::of(&json)?;
        let number =
            |name: &str, default: f32| fields.number(name, f64::from(default)).map(|x| x as f32);
        fields.skip(&["model_type", "library_name", "id2label", "label2id", "task"]);
        let mut layers = self.body.layers.clone();
        layers.push(self.head_blocks);
        if let Some(list) = fields.get("layers") {
            let each = list.as_array().into_iter().flatten();
            let each = each.map(|x| x.as_u64().and_then(|x| x.try_into().ok()));
            let given: Vec<usize> = each.collect::<Option<_>>().unwrap_or_default();
            let expected = match weights {
                true => format!("{layers:?}, as the weights have"),
                false => "a list of four".to_owned(),
            };
            let good = given.len() == 4 && (!weights || given == layers);
            expect(good, "layers", expected, list)?;
            layers = given;
        }
        self.head_blocks = layers.pop().unwrap_or(0);
        self.body.layers = layers;
        for (name, size) in [
            ("num_classes", &mut self.num_classes),
            ("num_attributes", &mut self.num_attributes),
            ("cls_emd_dim", &mut self.cls_emd_dim),
            ("attr_emd_dim", &mut self.attr_emd_dim),
            ("stem_out_channels", &mut self.body.stem_width),
            ("res2_out_channels", &mut self.body.width),
            ("num_groups", &mut self.body.groups),
            ("width_per_group", &mut self.body.width_per_group),
        ] {
            let given = fields.size(name, *size)?;
            expect(
                given == *size || !weights,
                name,
                format!("{size}, as the weights have"),
                given,
            )?;
            *size = given;
        }
        let shared = fields.flag("share_box_feature_extractor", !self.own_attribute_stage)?;
        expect(
            shared != self.own_attribute_stage || !weights,
            "share_box_feature_extractor",
            format!("{}, as the weights have", !self.own_attribute_stage),
            shared,
        )?;
        self.own_attribute_stage = !shared;
        let norm = fields.text("norm_layer", NORMS[usize::from(self.frozen_norms)])?;
        expect(
            NORMS.contains(&norm),
            "norm_layer",
            NORMS.join(", "),
            format!("{norm:?}"),
        )?;
        self.frozen_norms = norm == NORMS[1];
        let eps = if self.frozen_norms { 0.0 } else { 1e-5 };
        self.body.norm_eps = fields.number("norm_eps", eps)?;
        let filter = fields.size("nms_filter", 1)?;
        expect(filter == 1, "nms_filter", "1", filter)?;
        if let Some(list) = fields.get("anchor_sizes") {
            let each = list.as_array().into_iter().flatten();
            let each = each.map(|x| x.as_f64().map(|x| x as f32));
            self.anchor_sizes = each.collect::<Option<_>>().unwrap_or_default();
        }
        let t = &mut self.training;
        for (name, size) in [
            ("rpn_pre_nms_top_n_test", &mut self.rpn.pre_nms_top_n),
            ("rpn_post_nms_top_n_test", &mut self.rpn.post_nms_top_n),
            ("rpn_pre_nms_top_n_train", &mut t.rpn_pre_nms_top_n),
            ("rpn_post_nms_top_n_train", &mut t.rpn_post_nms_top_n),
            (
                "rpn_batch_size_per_image",
                &mut t.anchors.batch_size_per_image,
            ),
            ("batch_size_per_image", &mut t.regions.batch_size_per_image),
            ("detections_per_img", &mut self.detections_per_img),
            ("min_detections_per_img", &mut self.min_detections_per_img),
            ("max_num_attr_per_obj", &mut self.max_attributes),
        ] {
            *size = fields.size(name, *size)?;
        }
        for (name, value) in [
            ("rpn_nms_thresh", &mut self.rpn.nms_thresh),
            ("score_thresh", &mut self.score_thresh),
            (
                "postprocess_attributes_threshold",
                &mut self.attribute_thresh,
            ),
            ("rpn_fg_iou_threshold", &mut t.anchors.fg_iou_thresh),
            ("rpn_bg_iou_threshold", &mut t.anchors.bg_iou_thresh),
            ("rpn_straddle_thresh", &mut t.straddle_thresh),
            ("fg_iou_threshold", &mut t.regions.fg_iou_thresh),
            ("bg_iou_threshold", &mut t.regions.bg_iou_thresh),
            ("attribute_loss_weight", &mut t.attribute_loss_weight),
        ] {
            *value = number(name, *value)?;
        }
        for (name, share) in [
            ("rpn_positive_fraction", &mut t.anchors.positive_fraction),
            ("positive_fraction", &mut t.regions.positive_fraction),
        ] {
            *share = fields.number(name, *share)?;
        }
        self.body.stride_in_1x1 = fields.flag("stride_in_1x1", self.body.stride_in_1x1)?;
        self.ignore_box_regression =
            fields.flag("ignore_box_regression", self.ignore_box_regression)?;
        fields.finish_strictly()?;
        Ok(self)
    }

    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        self.body.validate()?;
        let mut sizes = vec![
            ("num_classes", self.num_classes, 1 << 16),
            ("head.layer4", self.head_blocks, 256),
            ("rpn_pre_nms_top_n_test", self.rpn.pre_nms_top_n, 100_000),
            ("rpn_post_nms_top_n_test", self.rpn.post_nms_top_n, 10_000),
            (
                "rpn_pre_nms_top_n_train",
                self.training.rpn_pre_nms_top_n,
                100_000,
            ),
            (
                "rpn_post_nms_top_n_train",
                self.training.rpn_post_nms_top_n,
                10_000,
            ),
            ("detections_per_img", self.detections_per_img, 10_000),
        ];
        if self.num_attributes > 0 {
            sizes.extend([
                ("num_attributes", self.num_attributes, 1 << 16),
                ("cls_emd_dim", self.cls_emd_dim, 16384),
                ("attr_emd_dim", self.attr_emd_dim, 16384),
            ]);
        }
        for (name, value, most) in sizes {
            check_size(name, value, most)?;
        }
        for (name, share) in [
            ("rpn_nms_thresh", self.rpn.nms_thresh),
            ("score_thresh", self.score_thresh),
            ("postprocess_attributes_threshold", self.attribute_thresh),
        ] {
            expect((0.0..=1.0).contains(&share), name, "0 to 1", share)?;
        }
        let sides = &self.anchor_sizes;
        let good = !sides.is_empty() && sides.len() <= 32;
        let good = good && sides.iter().all(|&side| side > 0.0 && side < 1e5);
        expect(
            good,
            "anchor_sizes",
            "numbers above 0",
            format!("{sides:?}"),
        )?;
        expect(
            self.num_classes > 1,
            "num_classes",
            "background and at least one class",
            self.num_classes,
        )?;
        expect(
            self.body.layers.len() == 3,
            "layers",
            "three stages before the regions and one behind",
            self.body.layers.len(),
        )?;
        let t = &self.training;
        t.anchors.validate("rpn_", "threshold")?;
        t.regions.validate("", "threshold")?;
        let weight = t.attribute_loss_weight;
        let good = (0.0..=1e6).contains(&weight);
        expect(good, "attribute_loss_weight", "0 or above", weight)
    }

    /// Width `D` of a region's features.
    pub fn features(&self) -> usize {
        self.body.outputs(self.body.layers.len())
    }
}
