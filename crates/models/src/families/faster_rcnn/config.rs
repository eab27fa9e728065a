//! The config of [`super::FasterRcnn`].

use crate::encoders::published::Fields;
use crate::encoders::region_detector::{Matching, ProposalConfig};
use crate::encoders::{ResNetStagesConfig, check_size};
use crate::error::{Error, expect};
use serde_json::Value as Json;
use vlm_nn::ops::BoxExtent;
use vlm_nn::weights::Checkpoint;

/// The architectures that are understood, as `config.json` names them.
pub const ARCHITECTURES: [&str; 1] = ["fasterrcnn_resnet50_fpn"];

/// Sizes and thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct FasterRcnnConfig {
    /// Classes `K`, background included.
    pub num_classes: usize,
    /// The backbone.
    pub body: ResNetStagesConfig,
    /// Whether its norms stay as they are in training too, or divide by the statistics of the batch and learn.
    pub frozen_norms: bool,
    /// Channels of the pyramid.
    pub fpn_channels: usize,
    /// Width of the hidden layers of the head.
    pub representation_size: usize,
    /// The shorter side of a picture after resizing.
    pub min_size: usize,
    /// The longest side that resizing allows.
    pub max_size: usize,
    /// Mean and deviation of the channels.
    pub normalize: [[f32; 3]; 2],
    /// Sides of the anchors, one for each of the five maps of the pyramid, finest first.
    pub anchor_sizes: Vec<f32>,
    /// Heights of the anchors for a width of one.
    pub aspect_ratios: Vec<f32>,
    /// The side of a region that is read from the second coarsest of four maps.
    pub canonical_scale: f32,
    /// Proposals.
    pub rpn: ProposalConfig,
    /// Least probability of an object.
    pub box_score_thresh: f32,
    /// Overlap from which on the better one of two objects of a class remains.
    pub box_nms_thresh: f32,
    /// Most objects of a picture.
    pub box_detections_per_img: usize,
    /// How it is trained.
    pub training: FasterRcnnTraining,
}

/// What training does otherwise than use.
#[derive(Clone, Debug, PartialEq)]
pub struct FasterRcnnTraining {
    /// As `pre_nms_top_n` of the proposals.
    pub rpn_pre_nms_top_n: usize,
    /// As `post_nms_top_n` of the proposals.
    pub rpn_post_nms_top_n: usize,
    /// Anchors that are learned from.
    pub anchors: Matching,
    /// Proposals that are learned from.
    pub regions: Matching,
}

/// The names of the norms, as torchvision calls its layers.
const NORMS: [&str; 2] = ["BatchNorm2d", "FrozenBatchNorm2d"];

/// Numbers of a list.
fn numbers(fields: &Fields, name: &str, default: &[f32]) -> Result<Vec<f32>, Error> {
    let Some(value) = fields.get(name).filter(|value| !value.is_null()) else {
        return Ok(default.to_vec());
    };
    let numbers = value.as_array().map(|list| {
        let each = list.iter().map(|x| x.as_f64().map(|x| x as f32));
        each.collect::<Option<Vec<f32>>>()
    });
    numbers.flatten().ok_or_else(|| Error::Config {
        place: name.to_owned(),
        expected: "a list of numbers".to_owned(),
        found: value.to_string(),
    })
}

/// Three numbers of a list.
fn channels(fields: &Fields, name: &str, default: [f32; 3]) -> Result<[f32; 3], Error> {
    let list = numbers(fields, name, &default)?;
    let found = list.len();
    list.try_into().map_err(|_| Error::Config {
        place: name.to_owned(),
        expected: "a list of three numbers".to_owned(),
        found: format!("{found} numbers"),
    })
}

/// Lengths above 0.
fn check_sides(place: &str, sides: &[f32]) -> Result<(), Error> {
    let good = !sides.is_empty() && sides.len() <= 32;
    let good = good && sides.iter().all(|&side| side > 0.0 && side < 1e5);
    expect(good, place, "numbers above 0", format!("{sides:?}"))
}

impl FasterRcnnConfig {
    /// Reads and validates a `config.json`; where it does not say so, the checkpoint tells whether the norms are frozen and
    /// what they add to the variance, for those that were trained as such counted their batches, and published ones add
    /// nothing.
    ///
    /// # Errors
    /// Another architecture; a field of the wrong type, out of range, or that is not understood.
    pub fn parse(json: &str, checkpoint: &Checkpoint) -> Result<Self, Error> {
        Self::read(
            json,
            !checkpoint.contains("backbone.body.bn1.num_batches_tracked"),
        )
    }

    /// The config of a model that is to be trained from nothing.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn untrained(json: &str) -> Result<Self, Error> {
        Self::read(json, false)
    }

    fn read(json: &str, frozen: bool) -> Result<Self, Error> {
        let json: Json = serde_json::from_str(json)?;
        let fields = Fields::of(&json)?;
        let library = fields.text("library_name", "torchvision")?;
        expect(
            library == "torchvision",
            "library_name",
            "\"torchvision\"",
            format!("{library:?}"),
        )?;
        let architecture = fields.text("architecture", "")?;
        expect(
            ARCHITECTURES.contains(&architecture),
            "architecture",
            ARCHITECTURES.join(", "),
            format!("{architecture:?}"),
        )?;
        let number = |name: &str, default: f64| fields.number(name, default).map(|x| x as f32);
        let layers = match fields.get("layers") {
            None => vec![3, 4, 6, 3],
            Some(list) => {
                let each = list.as_array().into_iter().flatten();
                let each = each.map(|x| x.as_u64().and_then(|x| x.try_into().ok()));
                each.collect::<Option<Vec<usize>>>().unwrap_or_default()
            }
        };
        expect(layers.len() == 4, "layers", "a list of four", layers.len())?;
        let norm = fields.text("norm_layer", NORMS[usize::from(frozen)])?;
        expect(
            NORMS.contains(&norm),
            "norm_layer",
            NORMS.join(", "),
            format!("{norm:?}"),
        )?;
        let frozen_norms = norm == NORMS[1];
        let stem_width = fields.size("stem_width", 64)?;
        let config = Self {
            num_classes: fields.size("num_classes", 91)?,
            body: ResNetStagesConfig {
                layers,
                stem_width,
                width: 4 * stem_width,
                groups: 1,
                width_per_group: stem_width,
                stride_in_1x1: false,
                norm_eps: fields.number("norm_eps", if frozen_norms { 0.0 } else { 1e-5 })?,
            },
            frozen_norms,
            fpn_channels: fields.size("fpn_channels", 256)?,
            representation_size: fields.size("representation_size", 1024)?,
            min_size: fields.size("min_size", 800)?,
            max_size: fields.size("max_size", 1333)?,
            normalize: [
                channels(&fields, "image_mean", [0.485, 0.456, 0.406])?,
                channels(&fields, "image_std", [0.229, 0.224, 0.225])?,
            ],
            anchor_sizes: numbers(&fields, "anchor_sizes", &[32.0, 64.0, 128.0, 256.0, 512.0])?,
            aspect_ratios: numbers(&fields, "aspect_ratios", &[0.5, 1.0, 2.0])?,
            canonical_scale: number("canonical_scale", 224.0)?,
            rpn: ProposalConfig {
                pre_nms_top_n: fields.size("rpn_pre_nms_top_n_test", 1000)?,
                post_nms_top_n: fields.size("rpn_post_nms_top_n_test", 1000)?,
                nms_thresh: number("rpn_nms_thresh", 0.7)?,
                score_thresh: number("rpn_score_thresh", 0.0)?,
                min_size: 1e-3,
                extent: BoxExtent::Edges,
            },
            box_score_thresh: number("box_score_thresh", 0.05)?,
            box_nms_thresh: number("box_nms_thresh", 0.5)?,
            box_detections_per_img: fields.size("box_detections_per_img", 100)?,
            training: FasterRcnnTraining {
                rpn_pre_nms_top_n: fields.size("rpn_pre_nms_top_n_train", 2000)?,
                rpn_post_nms_top_n: fields.size("rpn_post_nms_top_n_train", 2000)?,
                anchors: Matching {
                    fg_iou_thresh: number("rpn_fg_iou_thresh", 0.7)?,
                    bg_iou_thresh: number("rpn_bg_iou_thresh", 0.3)?,
                    low_quality_matches: true,
                    batch_size_per_image: fields.size("rpn_batch_size_per_image", 256)?,
                    positive_fraction: fields.number("rpn_positive_fraction", 0.5)?,
                },
                regions: Matching {
                    fg_iou_thresh: number("box_fg_iou_thresh", 0.5)?,
                    bg_iou_thresh: number("box_bg_iou_thresh", 0.5)?,
                    low_quality_matches: false,
                    batch_size_per_image: fields.size("box_batch_size_per_image", 512)?,
                    positive_fraction: fields.number("box_positive_fraction", 0.25)?,
                },
            },
        };
        // how it was trained, and names for people
        fields.skip(&[
            "id2label",
            "label2id",
            "torchvision_version",
            "weights",
            "task",
        ]);
        fields.finish_strictly()?;
        config.validate()?;
        Ok(config)
    }

    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        check_size("num_classes", self.num_classes, 1 << 16)?;
        expect(
            self.num_classes > 1,
            "num_classes",
            "background and at least one class",
            self.num_classes,
        )?;
        self.body.validate()?;
        check_size("fpn_channels", self.fpn_channels, 4096)?;
        check_size("representation_size", self.representation_size, 16384)?;
        check_size("max_size", self.max_size, 8192)?;
        check_size("min_size", self.min_size, self.max_size)?;
        let t = &self.training;
        for (name, value, most) in [
            ("rpn_pre_nms_top_n_test", self.rpn.pre_nms_top_n, 100_000),
            ("rpn_post_nms_top_n_test", self.rpn.post_nms_top_n, 10_000),
            ("rpn_pre_nms_top_n_train", t.rpn_pre_nms_top_n, 100_000),
            ("rpn_post_nms_top_n_train", t.rpn_post_nms_top_n, 10_000),
        ] {
            check_size(name, value, most)?;
        }
        t.anchors.validate("rpn_", "thresh")?;
        t.regions.validate("box_", "thresh")?;
        check_sides("anchor_sizes", &self.anchor_sizes)?;
        expect(
            self.anchor_sizes.len() == 5,
            "anchor_sizes",
            "one for each of the five maps",
            self.anchor_sizes.len(),
        )?;
        check_sides("aspect_ratios", &self.aspect_ratios)?;
        check_sides("canonical_scale", &[self.canonical_scale])?;
        check_size(
            "box_detections_per_img",
            self.box_detections_per_img,
            10_000,
        )?;
        for (name, share) in [
            ("rpn_nms_thresh", self.rpn.nms_thresh),
            ("rpn_score_thresh", self.rpn.score_thresh),
            ("box_score_thresh", self.box_score_thresh),
            ("box_nms_thresh", self.box_nms_thresh),
        ] {
            expect((0.0..=1.0).contains(&share), name, "0 to 1", share)?;
        }
        let [_, std] = self.normalize;
        let divides = std.iter().all(|&x| x > 0.0);
        expect(divides, "image_std", "numbers above 0", format!("{std:?}"))
    }
}
