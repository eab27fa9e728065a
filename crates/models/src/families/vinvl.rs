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

use crate::capability::{Detect, DetectOptions, Detection, Detections, Pictures};
use crate::encoders::published::Fields;
use crate::encoders::region_detector::{
    AnchorLayout, BoxCoder, Corners, LevelScores, ProposalConfig, RpnHead, around_first_cell,
    candidates, clipped, numbers,
};
use crate::encoders::{Bottleneck, ResNetStages, ResNetStagesConfig, check_size, stage};
use crate::error::{Error, expect};
use crate::reference::{Inputs, Numbers, Outputs, Reference, Value};
use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use vlm_nn::ops::{self, Activation, BoxExtent, Roi, RoiAlignShape, nms};
use vlm_nn::weights::{Checkpoint, Init, Rule, Weights};
use vlm_nn::{Embedding, Linear};

/// This family's `model_type`.
pub const MODEL_TYPE: &str = "vinvl";

const ANCHOR_SIZES: [f32; 5] = [32.0, 64.0, 128.0, 256.0, 512.0];
const ASPECT_RATIOS: [f32; 3] = [0.5, 1.0, 2.0];
/// Pixels of a cell of the features.
const STRIDE: usize = 16;
/// Cells of a region in either direction.
const POOLED: usize = 14;
/// Regions that go through the last stage at a time: 50 MB each dozen.
const AT_A_TIME: usize = 32;
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
    /// Bottlenecks of the stage behind that.
    pub head_blocks: usize,
    /// Whether the attributes have a last stage of their own.
    pub own_attribute_stage: bool,
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
}

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

/// Our names, and whether the attributes' last stage is the objects'.
fn translated(mut checkpoint: Checkpoint) -> (Checkpoint, bool) {
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

impl VinvlConfig {
    /// The sizes of a checkpoint with our names, and the thresholds of the released commands.
    fn of_checkpoint(checkpoint: &Checkpoint, own_attribute_stage: bool) -> Result<Self, Error> {
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
                stride_in_1x1: false,
                norm_eps: 0.0,
            },
            head_blocks: blocks("head."),
            own_attribute_stage,
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
        })
    }

    /// The thresholds that a config gives.
    fn with_fields(mut self, json: &str) -> Result<Self, Error> {
        let json: serde_json::Value = serde_json::from_str(json)?;
        let fields = Fields::of(&json)?;
        let number =
            |name: &str, default: f32| fields.number(name, f64::from(default)).map(|x| x as f32);
        fields.skip(&["model_type", "library_name", "id2label", "label2id", "task"]);
        for (name, found) in [
            ("num_classes", self.num_classes),
            ("num_attributes", self.num_attributes),
        ] {
            let given = fields.size(name, found)?;
            expect(
                given == found,
                name,
                format!("{found}, as the weights have"),
                given,
            )?;
        }
        let filter = fields.size("nms_filter", 1)?;
        expect(filter == 1, "nms_filter", "1", filter)?;
        self.rpn.pre_nms_top_n = fields.size("rpn_pre_nms_top_n_test", self.rpn.pre_nms_top_n)?;
        self.rpn.post_nms_top_n =
            fields.size("rpn_post_nms_top_n_test", self.rpn.post_nms_top_n)?;
        self.rpn.nms_thresh = number("rpn_nms_thresh", self.rpn.nms_thresh)?;
        self.body.stride_in_1x1 = fields.flag("stride_in_1x1", self.body.stride_in_1x1)?;
        self.score_thresh = number("score_thresh", self.score_thresh)?;
        self.detections_per_img = fields.size("detections_per_img", self.detections_per_img)?;
        self.min_detections_per_img =
            fields.size("min_detections_per_img", self.min_detections_per_img)?;
        self.ignore_box_regression =
            fields.flag("ignore_box_regression", self.ignore_box_regression)?;
        self.attribute_thresh = number("postprocess_attributes_threshold", self.attribute_thresh)?;
        self.max_attributes = fields.size("max_num_attr_per_obj", self.max_attributes)?;
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
        Ok(())
    }

    /// Width `D` of a region's features.
    pub fn features(&self) -> usize {
        self.body.outputs(self.body.layers.len())
    }
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
}

/// What the network says of a picture before objects are chosen.
struct Pass {
    /// `[1, H, W, C]`.
    features: Tensor<4>,
    level: LevelScores,
    proposals: Vec<Corners>,
    /// `[R, D]`.
    regions: Tensor<2>,
    /// `[R, K]`.
    logits: Tensor<2>,
    /// `[R, 4 K]`.
    changes: Tensor<2>,
    /// Height and width of the picture.
    size: [usize; 2],
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
        let anchors = ANCHOR_SIZES.len() * ASPECT_RATIOS.len();
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
        }
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
            c = c.with_fields(config)?;
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
    /// `features: [1, H, W, C]`; gives `[R, D]`.
    fn pooled(&self, head: &[Bottleneck], features: &Tensor<4>, regions: &[Corners]) -> Tensor<2> {
        let d = self.config.features();
        let shape = RoiAlignShape {
            output: [POOLED, POOLED],
            scale: 1.0 / STRIDE as f32,
            sampling_ratio: 0,
            aligned: false,
        };
        let parts = regions.chunks(AT_A_TIME).map(|regions| {
            let roi = |&corners: &Corners| Roi {
                picture: 0,
                corners,
            };
            let rois: Vec<Roi> = regions.iter().map(roi).collect();
            let x = ops::roi_align(features.clone(), &rois, shape); // [R, 14, 14, C]
            let x = head.iter().fold(x, |x, block| block.forward(x)); // [R, 7, 7, D]
            let [r, h, w, _] = x.dims();
            x.reshape([r, h * w, d]).mean_dim(1).reshape([r, d])
        });
        let parts: Vec<Tensor<2>> = parts.collect();
        if parts.is_empty() {
            return Tensor::zeros([0, d], &features.device());
        }
        Tensor::cat(parts, 0)
    }

    /// One picture, blue first and without its mean, through the network.
    ///
    /// # Shapes
    /// `picture: [3, H, W]`.
    fn pass(&self, picture: Tensor<3>) -> Pass {
        let c = &self.config;
        let [_, h, w] = picture.dims();
        let x = picture.permute([1, 2, 0]).reshape([1, h, w, 3]);
        let features = self.body.forward(x).pop().expect("three stages");
        let level = self.rpn.forward(features.clone());
        let cell = around_first_cell(AnchorLayout::Centred, &ANCHOR_SIZES, &ASPECT_RATIOS, STRIDE);
        let [_, rows, columns, a] = level.scores.dims();
        let found = candidates(
            level.scores.clone().reshape([rows, columns, a]),
            level.changes.clone().reshape([rows, columns, 4 * a]),
            &cell,
            [STRIDE; 2],
            [h, w],
            &c.rpn,
        );
        let (boxes, scores): (Vec<Corners>, Vec<f32>) = found.into_iter().unzip();
        let kept = nms(
            &boxes,
            &scores,
            c.rpn.nms_thresh,
            EXTENT,
            c.rpn.post_nms_top_n,
        );
        let proposals: Vec<Corners> = kept.into_iter().map(|i| boxes[i]).collect();
        let regions = self.pooled(&self.head, &features, &proposals);
        Pass {
            logits: self.class_score.forward(regions.clone()),
            changes: self.box_change.forward(regions.clone()),
            features,
            level,
            proposals,
            regions,
            size: [h, w],
        }
    }

    /// The objects that remain, best first, with the numbers of their regions.
    fn objects(&self, pass: &Pass, options: &DetectOptions) -> Vec<(usize, Detection)> {
        let c = &self.config;
        let (k, r) = (c.num_classes, pass.proposals.len());
        let probabilities = numbers(softmax(pass.logits.clone(), 1));
        let changes = numbers(pass.changes.clone());
        let coder = BoxCoder {
            weights: [10.0, 10.0, 5.0, 5.0],
            extent: EXTENT,
        };
        let corners = |region: usize, class: usize| {
            let proposal = pass.proposals[region];
            if c.ignore_box_regression {
                return proposal;
            }
            let at = 4 * (region * k + class);
            let change: [f32; 4] = std::array::from_fn(|i| changes[at + i]);
            clipped(coder.decode(change, proposal), pass.size, EXTENT)
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
        let head = if part.head.is_empty() {
            &self.head
        } else {
            &part.head
        };
        let regions = self.pooled(head, &pass.features, &corners);
        let classes: Vec<i64> = objects.iter().map(|(_, o)| o.class as i64).collect();
        let count = classes.len();
        let classes = TensorData::new(classes, [1, count]);
        let classes = Tensor::<2, Int>::from_data(classes, &regions.device());
        let classes = part
            .class
            .forward(classes)
            .reshape([count, self.config.cls_emd_dim]);
        let x = Tensor::cat(vec![regions, classes], 1);
        let x = part.hidden.fused(x, Activation::Relu, None);
        softmax(part.score.forward(x), 1)
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
        let rows: Vec<i64> = objects.iter().map(|(region, _)| *region as i64).collect();
        let count = rows.len();
        if count == 0 {
            return Tensor::zeros([0, pass.regions.dims()[1]], &pass.regions.device());
        }
        let rows = TensorData::new(rows, [count]);
        let rows = Tensor::<1, Int>::from_data(rows, &pass.regions.device());
        pass.regions.clone().select(0, rows)
    }
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

/// Results of one picture from `pixel_values` `[1, 3, H, W]`, blue first and without the mean: `features`, `objectness`,
/// `rpn_deltas` (channels first), `proposals`, `class_logits`, `box_regression`; `boxes`, `scores`, `labels`,
/// `box_features` and `attribute_probs` of the objects.
impl Reference for Vinvl {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        let Some(pixels) = inputs.floats::<4>("pixel_values", &self.device())? else {
            return Ok(outputs);
        };
        let [b, c, h, w] = pixels.dims();
        expect(
            b == 1 && c == 3,
            "pixel_values",
            "[1, 3, H, W]",
            format!("{:?}", pixels.dims()),
        )?;
        let pass = self.pass(pixels.reshape([c, h, w]));
        let objects = self.objects(&pass, &DetectOptions::default());
        let mut put = |name: &str, value: Value| outputs.insert(name.to_owned(), value);
        let first = |x: &Tensor<4>| Value::floats(x.clone().permute([0, 3, 1, 2]));
        put("features", first(&pass.features));
        put("objectness", first(&pass.level.scores));
        put("rpn_deltas", first(&pass.level.changes));
        put("class_logits", Value::floats(pass.logits.clone()));
        put("box_regression", Value::floats(pass.changes.clone()));
        put(
            "box_features",
            Value::floats(Self::features_of(&pass, &objects)),
        );
        if let Some(part) = self.attribute.as_ref().filter(|_| !objects.is_empty()) {
            let probabilities = self.attribute_probabilities(part, &pass, &objects);
            put("attribute_probs", Value::floats(probabilities));
        }
        let floats = |shape: &[usize], numbers: Vec<f32>| Value {
            shape: shape.to_vec(),
            numbers: Numbers::Floats(numbers),
        };
        let (r, n) = (pass.proposals.len(), objects.len());
        put("proposals", floats(&[r, 4], pass.proposals.concat()));
        let corners = objects.iter().flat_map(|(_, o)| o.corners).collect();
        put("boxes", floats(&[n, 4], corners));
        let scores = objects.iter().map(|(_, o)| o.score).collect();
        put("scores", floats(&[n], scores));
        let labels = objects.iter().map(|(_, o)| o.class as i64).collect();
        put(
            "labels",
            Value {
                shape: vec![n],
                numbers: Numbers::Integers(labels),
            },
        );
        Ok(outputs)
    }
}
