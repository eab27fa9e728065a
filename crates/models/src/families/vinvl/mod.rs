//! VinVL's detector (Zhang et al., "VinVL: revisiting visual representations in vision-language models", 2021): a Faster
//! R-CNN of the C4 kind (Ren et al., 2015) on a ResNeXt-152, with 1,594 classes and 524 attributes.
//!
//! ```text
//!   pixels -> stem -> layer1 -> layer2 -> layer3 --+-> RPN: anchors -> proposals
//!                                                  +-> RoIAlign in proposals -> layer4 -> mean: the region's features
//!                                                        -> classes, boxes -> NMS: objects
//!   RoIAlign in objects -> layer4 -> mean, and the class's embedding -> attributes
//! ```
//!
//! Weights have the names of maskrcnn-benchmark, sizes are told by them; `config.json`, which no release has, may give
//! thresholds by the names of the released YAML in small letters (`model_type` is `vinvl`). Boxes are Caffe's: the last
//! pixel belongs to them. Objects are chosen as every released command does it (`NMS_FILTER` 1): after the suppression
//! within each class, every region is the best class that it was kept for.
//!
//! Legend: `B` pictures, `H`, `W` height and width of features, `C` channels, `R` regions, `K` classes, the first of which
//! is background, `D` width of a region's features.

mod config;
mod reference;
mod training;

use crate::capability::{Detect, DetectOptions, Detection, Detections, Pictures};
use crate::encoders::region_detector::{
    AnchorLayout, BoxCoder, Corners, LevelScores, ProposalConfig, RpnHead, around_first_cell,
    candidates, clipped, numbers, rows, stacked,
};
use crate::encoders::{Bottleneck, ResNetStages, stage};
use crate::error::Error;
use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
pub use config::{VinvlConfig, VinvlTraining};
use vlm_nn::ops::{self, Activation, BoxExtent, Roi, RoiAlignShape, nms};
use vlm_nn::weights::{Checkpoint, Init, Rule, Weights};
use vlm_nn::{Embedding, Linear, Statistics};

/// This family's `model_type`.
pub const MODEL_TYPE: &str = "vinvl";

const ASPECT_RATIOS: [f32; 3] = [0.5, 1.0, 2.0];
/// Pixels of a cell of the features.
const STRIDE: usize = 16;
/// Cells of a region in either direction.
const POOLED: usize = 14;
/// Regions that go through the last stage at a time: 50 MB each dozen.
const AT_A_TIME: usize = 32;
const EXTENT: BoxExtent = BoxExtent::Pixels;
/// Between a region and its object.
const CODER: BoxCoder = BoxCoder {
    weights: [10.0, 10.0, 5.0, 5.0],
    extent: EXTENT,
};

/// Names of maskrcnn-benchmark to ours.
const RELEASED: &[Rule] = &[
    Rule::Ignore("**.cell_anchors.*"),
    Rule::Ignore("**.num_batches_tracked"),
    Rule::Name("backbone.body.stem.conv1.*", "body.conv1.*"),
    Rule::Name("backbone.body.stem.bn1.*", "body.norm1.*"),
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
    Rule::Name("rpn.head.conv.*", "rpn.conv.*"),
    Rule::Name("rpn.head.cls_logits.*", "rpn.score.*"),
    Rule::Name("rpn.head.bbox_pred.*", "rpn.change.*"),
    Rule::Name(
        "roi_heads.box.feature_extractor.head.layer4.*.conv*.*",
        "head.*.conv*.*",
    ),
    Rule::Name(
        "roi_heads.box.feature_extractor.head.layer4.*.bn*.*",
        "head.*.norm*.*",
    ),
    Rule::Name(
        "roi_heads.box.feature_extractor.head.layer4.*.downsample.0.*",
        "head.*.shortcut.conv.*",
    ),
    Rule::Name(
        "roi_heads.box.feature_extractor.head.layer4.*.downsample.1.*",
        "head.*.shortcut.norm.*",
    ),
    Rule::Name("roi_heads.box.predictor.cls_score.*", "class_score.*"),
    Rule::Name("roi_heads.box.predictor.bbox_pred.*", "box_change.*"),
    Rule::Name(
        "attribute.feature_extractor.head.layer4.*.conv*.*",
        "attribute.head.*.conv*.*",
    ),
    Rule::Name(
        "attribute.feature_extractor.head.layer4.*.bn*.*",
        "attribute.head.*.norm*.*",
    ),
    Rule::Name(
        "attribute.feature_extractor.head.layer4.*.downsample.0.*",
        "attribute.head.*.shortcut.conv.*",
    ),
    Rule::Name(
        "attribute.feature_extractor.head.layer4.*.downsample.1.*",
        "attribute.head.*.shortcut.norm.*",
    ),
    Rule::Name("attribute.predictor.cls_embedding.*", "attribute.class.*"),
    Rule::Name("attribute.predictor.fc_attr.*", "attribute.hidden.*"),
    Rule::Name("attribute.predictor.attr_score.*", "attribute.score.*"),
];

/// Whether a checkpoint without a config is such a detector.
pub fn recognised(checkpoint: &Checkpoint) -> bool {
    let bare = checkpoint.contains("backbone.body.stem.conv1.weight");
    (bare || checkpoint.contains("module.backbone.body.stem.conv1.weight"))
        && checkpoint.tensors().any(|t| {
            t.name
                .ends_with("roi_heads.box.feature_extractor.head.layer4.0.conv1.weight")
        })
}

/// Our names, and whether the attributes have a last stage of their own.
pub fn translated(mut checkpoint: Checkpoint) -> (Checkpoint, bool) {
    checkpoint.strip_prefix("module.");
    let mut checkpoint = checkpoint.translated(RELEASED);
    let own: Vec<String> = checkpoint
        .tensors()
        .filter(|t| t.name.starts_with("attribute.head."))
        .map(|t| t.name.to_owned())
        .collect();
    // one stage under two names, unless it was trained apart
    let mut copies = checkpoint.clone();
    let same = own.iter().all(|name| {
        let shared = name.trim_start_matches("attribute.");
        copies.ignore_copy(name, shared)
    });
    if same {
        checkpoint = copies;
    }
    (checkpoint, !same)
}

/// What tells attributes; parameters `head` (where it is its own), `class`, `hidden` and `score`.
#[derive(Module, Debug)]
struct Attributes {
    head: Vec<Bottleneck>,
    class: Embedding,
    hidden: Linear,
    score: Linear,
}

/// The model.
#[derive(Module, Debug)]
pub struct Vinvl {
    body: ResNetStages,
    rpn: RpnHead,
    head: Vec<Bottleneck>,
    class_score: Linear,
    box_change: Linear,
    attribute: Option<Attributes>,
    #[module(skip)]
    config: VinvlConfig,
    #[module(skip)]
    statistics: Statistics,
}

/// What the network says of pictures before regions are chosen.
struct Features {
    /// `[B, H, W, C]`.
    map: Tensor<4>,
    level: LevelScores,
    /// Height and width of each picture.
    sizes: Vec<[usize; 2]>,
}

/// What it says of one picture before objects are chosen.
struct Pass {
    features: Features,
    proposals: Vec<Corners>,
    /// `[R, D]`.
    regions: Tensor<2>,
    /// `[R, K]`.
    logits: Tensor<2>,
    /// `[R, 4 K]`.
    changes: Tensor<2>,
}

impl Vinvl {
    /// Builds the model of a validated config.
    pub fn new(w: &mut Weights, c: &VinvlConfig) -> Self {
        let last = c.body.layers.len();
        let (d, k) = (c.features(), c.num_classes);
        let linear = |w: &mut Weights, name: &str, inputs: usize, outputs: usize| {
            let init = Init::Normal(0.01);
            w.scope(name, |w| Linear::new(w, inputs, outputs, true, init))
        };
        let anchors = c.anchor_sizes.len() * ASPECT_RATIOS.len();
        Self {
            body: w.scope("body", |w| ResNetStages::new(w, &c.body)),
            rpn: w.scope("rpn", |w| {
                RpnHead::new(w, c.body.outputs(last - 1), anchors)
            }),
            head: w.scope("head", |w| stage(w, &c.body, last, c.head_blocks)),
            class_score: linear(w, "class_score", d, k),
            box_change: linear(w, "box_change", d, 4 * k),
            attribute: (c.num_attributes > 0).then(|| {
                let blocks = if c.own_attribute_stage {
                    c.head_blocks
                } else {
                    0
                };
                w.scope("attribute", |w| Attributes {
                    head: w.scope("head", |w| stage(w, &c.body, last, blocks)),
                    class: w.scope("class", |w| {
                        Embedding::new(w, k, c.cls_emd_dim, Init::Normal(0.01))
                    }),
                    hidden: linear(w, "hidden", d + c.cls_emd_dim, c.attr_emd_dim),
                    score: linear(w, "score", c.attr_emd_dim, c.num_attributes),
                })
            }),
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

    /// A released checkpoint, with thresholds from a config if there is one.
    ///
    /// # Errors
    /// Tensors that such a model does not have or that it lacks, a config that is not understood.
    pub fn load(
        config: Option<&str>,
        checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<Self, Error> {
        let (checkpoint, own) = translated(checkpoint);
        let mut c = VinvlConfig::of_checkpoint(&checkpoint, own)?;
        if let Some(config) = config {
            c = c.with_fields(config, true)?;
        }
        c.validate()?;
        let mut weights = Weights::from_checkpoint(checkpoint, device);
        let model = Self::new(&mut weights, &c);
        weights.finish()?;
        Ok(model)
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &VinvlConfig {
        &self.config
    }

    /// Where the model lies.
    pub fn device(&self) -> Device {
        self.devices().into_iter().next().unwrap_or_default()
    }

    /// The features of regions: the mean of what a last stage makes of each.
    ///
    /// # Shapes
    /// `map: [B, H, W, C]`; gives `[R, D]`.
    fn pooled(&self, head: &[Bottleneck], map: &Tensor<4>, regions: &[Roi]) -> Tensor<2> {
        let d = self.config.features();
        let shape = RoiAlignShape {
            output: [POOLED, POOLED],
            scale: 1.0 / STRIDE as f32,
            sampling_ratio: 0,
            aligned: false,
        };
        // norms with statistics of the batch look at all of it
        let together = match self.statistics {
            Statistics::Running => AT_A_TIME,
            Statistics::Batch => regions.len().max(1),
        };
        let parts = regions.chunks(together).map(|rois| {
            let x = ops::roi_align(map.clone(), rois, shape); // [R, 14, 14, C]
            let x = head
                .iter()
                .fold(x, |x, block| block.forward(x, self.statistics)); // [R, 7, 7, D]
            let [r, h, w, _] = x.dims();
            x.reshape([r, h * w, d]).mean_dim(1).reshape([r, d])
        });
        let parts: Vec<Tensor<2>> = parts.collect();
        if parts.is_empty() {
            return Tensor::zeros([0, d], &map.device());
        }
        Tensor::cat(parts, 0)
    }

    /// Pictures, blue first and without their mean, through backbone and proposal network.
    ///
    /// # Shapes
    /// `pictures: [3, H, W]` each.
    fn features(&self, pictures: &[Tensor<3>]) -> Features {
        let size = |picture: &Tensor<3>| {
            let [_, h, w] = picture.dims();
            [h, w]
        };
        let maps = self.body.forward(stacked(pictures), self.statistics);
        let map = maps.into_iter().next_back().expect("three stages");
        Features {
            level: self.rpn.forward(map.clone()),
            map,
            sizes: pictures.iter().map(size).collect(),
        }
    }

    /// The anchors around the first cell.
    fn cell(&self) -> Vec<Corners> {
        let sizes = &self.config.anchor_sizes;
        around_first_cell(AnchorLayout::Centred, sizes, &ASPECT_RATIOS, STRIDE)
    }

    /// Proposals for one picture, best first.
    fn proposals(&self, features: &Features, picture: usize, c: &ProposalConfig) -> Vec<Corners> {
        let [_, rows, columns, a] = features.level.scores.dims();
        let own = |x: &Tensor<4>, channels| {
            let x = x.clone().narrow(0, picture, 1);
            x.reshape([rows, columns, channels])
        };
        let found = candidates(
            own(&features.level.scores, a),
            own(&features.level.changes, 4 * a),
            &self.cell(),
            [STRIDE; 2],
            features.sizes[picture],
            c,
        );
        let (boxes, scores): (Vec<Corners>, Vec<f32>) = found.into_iter().unzip();
        let kept = nms(&boxes, &scores, c.nms_thresh, EXTENT, c.post_nms_top_n);
        kept.into_iter().map(|i| boxes[i]).collect()
    }

    /// One picture, blue first and without its mean, through the network.
    ///
    /// # Shapes
    /// `picture: [3, H, W]`.
    fn pass(&self, picture: Tensor<3>) -> Pass {
        let features = self.features(&[picture]);
        let proposals = self.proposals(&features, 0, &self.config.rpn);
        let regions = self.pooled(&self.head, &features.map, &of_first(&proposals));
        Pass {
            logits: self.class_score.forward(regions.clone()),
            changes: self.box_change.forward(regions.clone()),
            features,
            proposals,
            regions,
        }
    }

    /// The objects that remain, best first, with the numbers of their regions.
    fn objects(&self, pass: &Pass, options: &DetectOptions) -> Vec<(usize, Detection)> {
        let c = &self.config;
        let (k, r) = (c.num_classes, pass.proposals.len());
        let probabilities = numbers(softmax(pass.logits.clone(), 1));
        let changes = numbers(pass.changes.clone());
        let corners = |region: usize, class: usize| {
            let proposal = pass.proposals[region];
            if c.ignore_box_regression {
                return proposal;
            }
            let at = 4 * (region * k + class);
            let change: [f32; 4] = std::array::from_fn(|i| changes[at + i]);
            clipped(
                CODER.decode(change, proposal),
                pass.features.sizes[0],
                EXTENT,
            )
        };
        // the best class that a region was kept for
        let mut best = vec![(0usize, 0f32); r];
        for class in 1..k {
            let boxes: Vec<Corners> = (0..r).map(|region| corners(region, class)).collect();
            let scores: Vec<f32> = (0..r)
                .map(|region| probabilities[region * k + class])
                .collect();
            for region in nms(&boxes, &scores, c.nms, EXTENT, r) {
                if scores[region] > best[region].1 {
                    best[region] = (class, scores[region]);
                }
            }
        }
        let mut order: Vec<usize> = (0..r).filter(|&region| best[region].1 > 0.0).collect();
        order.sort_by(|&a, &b| best[b].1.total_cmp(&best[a].1));
        let threshold = options.threshold.unwrap_or(c.score_thresh);
        let likely = order
            .iter()
            .filter(|&&region| best[region].1 >= threshold)
            .count();
        // whoever asks for a threshold or a number gets no improbable object in addition
        let least = match (options.threshold, options.most) {
            (None, None) => c.min_detections_per_img,
            _ => 0,
        };
        let most = options.most.unwrap_or(c.detections_per_img);
        order.truncate(likely.max(least).min(most.max(least)));
        let object = |region: usize| {
            let (class, score) = best[region];
            let object = Detection {
                corners: corners(region, class),
                class,
                score,
                attributes: Vec::new(),
            };
            (region, object)
        };
        order.into_iter().map(object).collect()
    }

    /// The stage that the attributes are told from.
    fn attribute_head<'a>(&'a self, part: &'a Attributes) -> &'a [Bottleneck] {
        match part.head.is_empty() {
            true => &self.head,
            false => &part.head,
        }
    }

    /// Scores of the attributes of regions of known classes.
    ///
    /// # Shapes
    /// `regions: [R, D]`; gives `[R, attributes]`.
    fn attribute_logits(
        &self,
        part: &Attributes,
        regions: Tensor<2>,
        classes: impl Iterator<Item = usize>,
    ) -> Tensor<2> {
        let classes: Vec<i64> = classes.map(|class| class as i64).collect();
        let count = classes.len();
        let classes = TensorData::new(classes, [1, count]);
        let classes = Tensor::<2, Int>::from_data(classes, &regions.device());
        let classes = part
            .class
            .forward(classes)
            .reshape([count, self.config.cls_emd_dim]);
        let x = Tensor::cat(vec![regions, classes], 1);
        let x = part.hidden.fused(x, Activation::Relu, None);
        part.score.forward(x)
    }

    /// Probabilities of the attributes of objects, that of none included.
    ///
    /// # Shapes
    /// Gives `[R, attributes]`.
    fn attribute_probabilities(
        &self,
        part: &Attributes,
        pass: &Pass,
        objects: &[(usize, Detection)],
    ) -> Tensor<2> {
        let corners: Vec<Corners> = objects.iter().map(|(_, o)| o.corners).collect();
        let head = self.attribute_head(part);
        let regions = self.pooled(head, &pass.features.map, &of_first(&corners));
        let classes = objects.iter().map(|(_, o)| o.class);
        softmax(self.attribute_logits(part, regions, classes), 1)
    }

    /// Adds to each object its attributes.
    fn with_attributes(&self, pass: &Pass, objects: &mut [(usize, Detection)]) {
        let Some(part) = self.attribute.as_ref().filter(|_| !objects.is_empty()) else {
            return;
        };
        let count = self.config.num_attributes;
        let probabilities = numbers(self.attribute_probabilities(part, pass, objects));
        for ((_, object), row) in objects.iter_mut().zip(probabilities.chunks_exact(count)) {
            // the first stands for none
            let likely = (1..count).filter(|&i| row[i] > self.config.attribute_thresh);
            let mut likely: Vec<(usize, f32)> = likely.map(|i| (i, row[i])).collect();
            likely.sort_by(|a, b| b.1.total_cmp(&a.1));
            likely.truncate(self.config.max_attributes);
            object.attributes = likely;
        }
    }

    /// The regions' features of objects.
    fn features_of(pass: &Pass, objects: &[(usize, Detection)]) -> Tensor<2> {
        let places: Vec<usize> = objects.iter().map(|(region, _)| *region).collect();
        if places.is_empty() {
            return Tensor::zeros([0, pass.regions.dims()[1]], &pass.regions.device());
        }
        rows(pass.regions.clone(), &places)
    }
}

/// Regions of the only picture.
fn of_first(corners: &[Corners]) -> Vec<Roi> {
    let roi = |&corners: &Corners| Roi {
        picture: 0,
        corners,
    };
    corners.iter().map(roi).collect()
}

/// What Oscar+ reads of a region beside its features: its corners and its size, as shares of the picture's `[height,
/// width]`.
pub fn box_geometry([x1, y1, x2, y2]: Corners, [height, width]: [usize; 2]) -> [f32; 6] {
    let (w, h) = (width as f32, height as f32);
    [x1 / w, y1 / h, x2 / w, y2 / h, (x2 - x1) / w, (y2 - y1) / h]
}

impl Detect for Vinvl {
    fn detect(
        &self,
        pictures: &Pictures,
        options: &DetectOptions,
    ) -> Result<Vec<Detections>, Error> {
        let pixels = pictures.fixed(3)?;
        let [b, c, h, w] = pixels.dims();
        let each = (0..b).map(|i| {
            let pass = self.pass(pixels.clone().narrow(0, i, 1).reshape([c, h, w]));
            let mut objects = self.objects(&pass, options);
            self.with_attributes(&pass, &mut objects);
            Detections {
                features: Some(Self::features_of(&pass, &objects)),
                objects: objects.into_iter().map(|(_, object)| object).collect(),
            }
        });
        Ok(each.collect())
    }

    fn num_classes(&self) -> usize {
        self.config.num_classes
    }

    fn num_attributes(&self) -> usize {
        self.config.num_attributes
    }
}
