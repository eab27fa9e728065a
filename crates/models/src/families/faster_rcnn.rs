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

use crate::capability::{Detect, DetectOptions, Detection, Detections, Pictures};
use crate::encoders::published::Fields;
use crate::encoders::region_detector::{
    AnchorLayout, BoxCoder, Corners, FeaturePyramid, LevelScores, ProposalConfig, RpnHead,
    around_first_cell, candidates, class_wise_nms, clipped, is_large, numbers, prepared, resized,
};
use crate::encoders::{ResNetStages, ResNetStagesConfig, check_size};
use crate::error::{Error, expect};
use crate::reference::{Inputs, Numbers, Outputs, Reference, Value};
use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Value as Json;
use vlm_nn::Linear;
use vlm_nn::ops::{self, Activation, BoxExtent, Roi, RoiAlignShape};
use vlm_nn::weights::{Checkpoint, Init, Rule, Weights};

/// This family's name.
pub const FAMILY: &str = "faster_rcnn";

/// The architectures that are understood, as `config.json` names them.
pub const ARCHITECTURES: [&str; 1] = ["fasterrcnn_resnet50_fpn"];

/// Sizes of the anchors, one for each map of the pyramid.
const ANCHOR_SIZES: [f32; 5] = [32.0, 64.0, 128.0, 256.0, 512.0];
const ASPECT_RATIOS: [f32; 3] = [0.5, 1.0, 2.0];
/// Cells of each region in either direction.
const POOLED: usize = 7;
/// The side of a region that is read from the second coarsest of four maps.
const CANONICAL: f32 = 224.0;
/// Sides of the padded picture are multiples of this.
const DIVISOR: usize = 32;
/// The side below which a box is dropped at the end.
const LEAST_SIDE: f32 = 1e-2;

/// Sizes and thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct FasterRcnnConfig {
    /// Classes `K`, background included.
    pub num_classes: usize,
    /// The backbone.
    pub body: ResNetStagesConfig,
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
    /// Proposals.
    pub rpn: ProposalConfig,
    /// Least probability of an object.
    pub box_score_thresh: f32,
    /// Overlap from which on the better one of two objects of a class remains.
    pub box_nms_thresh: f32,
    /// Most objects of a picture.
    pub box_detections_per_img: usize,
}

/// Three numbers of a list.
fn channels(fields: &Fields, name: &str, default: [f32; 3]) -> Result<[f32; 3], Error> {
    let Some(value) = fields.get(name).filter(|value| !value.is_null()) else {
        return Ok(default);
    };
    let numbers = value.as_array().map(|list| {
        let each = list.iter().map(|x| x.as_f64().map(|x| x as f32));
        each.collect::<Option<Vec<f32>>>()
    });
    let three = numbers.flatten().and_then(|list| list.try_into().ok());
    three.ok_or_else(|| Error::Config {
        place: name.to_owned(),
        expected: "a list of three numbers".to_owned(),
        found: value.to_string(),
    })
}

impl FasterRcnnConfig {
    /// Reads and validates a `config.json`; the checkpoint tells what the norms add to the variance, for those that were
    /// trained as such counted their batches, and published ones add nothing.
    ///
    /// # Errors
    /// Another architecture; a field of the wrong type, out of range, or that is not understood.
    pub fn parse(json: &str, checkpoint: &Checkpoint) -> Result<Self, Error> {
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
        let counted = checkpoint.contains("backbone.body.bn1.num_batches_tracked");
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
                norm_eps: fields.number("norm_eps", if counted { 1e-5 } else { 0.0 })?,
            },
            fpn_channels: fields.size("fpn_channels", 256)?,
            representation_size: fields.size("representation_size", 1024)?,
            min_size: fields.size("min_size", 800)?,
            max_size: fields.size("max_size", 1333)?,
            normalize: [
                channels(&fields, "image_mean", [0.485, 0.456, 0.406])?,
                channels(&fields, "image_std", [0.229, 0.224, 0.225])?,
            ],
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
        check_size("rpn_pre_nms_top_n_test", self.rpn.pre_nms_top_n, 100_000)?;
        check_size("rpn_post_nms_top_n_test", self.rpn.post_nms_top_n, 10_000)?;
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
}

/// What the network says of a picture before boxes are chosen.
struct Pass {
    /// The pyramid, finest first, `[1, H, W, C]`.
    maps: Vec<Tensor<4>>,
    /// Of each map.
    levels: Vec<LevelScores>,
    /// In pixels of the resized picture.
    proposals: Vec<(Corners, f32)>,
    /// `[R, K]`.
    logits: Tensor<2>,
    /// `[R, 4 K]`.
    changes: Tensor<2>,
    /// Height and width of the resized picture.
    size: [usize; 2],
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
        let anchors = ASPECT_RATIOS.len();
        Self {
            fc6,
            fc7,
            class_score,
            box_change,
            body: w.scope("body", |w| ResNetStages::new(w, &c.body)),
            fpn: w.scope("fpn", |w| FeaturePyramid::new(w, &inputs, c.fpn_channels)),
            rpn: w.scope("rpn", |w| RpnHead::new(w, c.fpn_channels, anchors)),
            config: c.clone(),
        }
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
        let checkpoint = checkpoint.translated(PUBLISHED);
        let mut weights = Weights::from_checkpoint(checkpoint, device);
        let model = Self::new(&mut weights, &config);
        weights.finish()?;
        Ok(model)
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &FasterRcnnConfig {
        &self.config
    }

    /// Proposals of all maps, at most `post_nms_top_n`, best first.
    fn proposals(&self, levels: &[LevelScores], size: [usize; 2]) -> Vec<(Corners, f32)> {
        let padded = size.map(|side| side.next_multiple_of(DIVISOR));
        let (mut boxes, mut scores, mut of) = (Vec::new(), Vec::new(), Vec::new());
        for (i, level) in levels.iter().enumerate() {
            let [_, h, w, a] = level.scores.dims();
            // cells of a map that does not divide the picture evenly are taken to be smaller
            let stride = [padded[0] / h, padded[1] / w];
            let sizes = &ANCHOR_SIZES[i..=i];
            let cell = around_first_cell(AnchorLayout::Cornered, sizes, &ASPECT_RATIOS, stride[0]);
            let found = candidates(
                level.scores.clone().reshape([h, w, a]),
                level.changes.clone().reshape([h, w, 4 * a]),
                &cell,
                stride,
                size,
                &self.config.rpn,
            );
            for (corners, score) in found {
                boxes.push(corners);
                scores.push(score);
                of.push(i);
            }
        }
        let mut kept = class_wise_nms(&boxes, &scores, &of, self.config.rpn.nms_thresh);
        kept.truncate(self.config.rpn.post_nms_top_n);
        kept.into_iter().map(|i| (boxes[i], scores[i])).collect()
    }

    /// Features of regions, each from the map that suits its size.
    ///
    /// # Shapes
    /// `maps: [1, H, W, C]` each; gives `[R, C * 7 * 7]`.
    fn pooled(&self, maps: &[Tensor<4>], regions: &[Corners]) -> Tensor<2> {
        let device = maps[0].device();
        let level = |corners: &Corners| {
            let [x1, y1, x2, y2] = corners;
            let side = ((x2 - x1) * (y2 - y1)).sqrt();
            let level = (4.0 + (side / CANONICAL).log2() + 1e-6).floor();
            // NaN, which nothing here makes, would be the finest map
            (level.clamp(2.0, 5.0) as usize).max(2) - 2
        };
        let levels: Vec<usize> = regions.iter().map(level).collect();
        let mut parts = Vec::new();
        let mut places = vec![0i64; regions.len()];
        let mut count = 0;
        for (i, map) in maps.iter().take(4).enumerate() {
            let own = levels.iter().enumerate().filter(|(_, level)| **level == i);
            let own: Vec<usize> = own.map(|(region, _)| region).collect();
            if own.is_empty() {
                continue;
            }
            for &region in &own {
                places[region] = count;
                count += 1;
            }
            let rois: Vec<Roi> = own
                .iter()
                .map(|&region| Roi {
                    picture: 0,
                    corners: regions[region],
                })
                .collect();
            let shape = RoiAlignShape {
                output: [POOLED, POOLED],
                scale: 0.25 / (1 << i) as f32,
                sampling_ratio: 2,
                aligned: false,
            };
            parts.push(ops::roi_align(map.clone(), &rois, shape)); // [R, 7, 7, C]
        }
        let width = self.config.fpn_channels * POOLED * POOLED;
        if parts.is_empty() {
            return Tensor::zeros([0, width], &device);
        }
        let places = TensorData::new(places, [regions.len()]);
        let places = Tensor::<1, Int>::from_data(places, &device);
        Tensor::cat(parts, 0)
            .select(0, places)
            .permute([0, 3, 1, 2]) // [R, C, 7, 7]
            .reshape([regions.len(), width])
    }

    /// One picture through the network.
    ///
    /// # Shapes
    /// `picture: [3, H, W]` in [0, 1].
    fn pass(&self, picture: Tensor<3>) -> Pass {
        let c = &self.config;
        let [_, h, w] = picture.dims();
        let size = resized([h, w], c.min_size, c.max_size);
        let x = prepared(picture, c.normalize, size, DIVISOR); // [1, H, W, 3]
        let maps = self.fpn.forward(self.body.forward(x));
        let levels: Vec<LevelScores> = maps.iter().map(|m| self.rpn.forward(m.clone())).collect();
        let proposals = self.proposals(&levels, size);
        let regions: Vec<Corners> = proposals.iter().map(|p| p.0).collect();
        let x = self.pooled(&maps, &regions);
        let (logits, changes) = if regions.is_empty() {
            let zeros = |width| Tensor::zeros([0, width], &x.device());
            (zeros(c.num_classes), zeros(4 * c.num_classes))
        } else {
            let x = self.fc6.fused(x, Activation::Relu, None);
            let x = self.fc7.fused(x, Activation::Relu, None); // [R, D]
            (
                self.class_score.forward(x.clone()),
                self.box_change.forward(x),
            )
        };
        Pass {
            maps,
            levels,
            proposals,
            logits,
            changes,
            size,
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
        let coder = BoxCoder {
            weights: [10.0, 10.0, 5.0, 5.0],
            extent: BoxExtent::Edges,
        };
        let (mut boxes, mut scores, mut classes) = (Vec::new(), Vec::new(), Vec::new());
        for (r, (region, _)) in pass.proposals.iter().enumerate() {
            for class in 1..k {
                let score = probabilities[r * k + class];
                if score <= threshold {
                    continue;
                }
                let at = 4 * (r * k + class);
                let change: [f32; 4] = std::array::from_fn(|i| changes[at + i]);
                let corners = clipped(coder.decode(change, *region), pass.size, BoxExtent::Edges);
                if is_large(corners, LEAST_SIDE, BoxExtent::Edges) {
                    boxes.push(corners);
                    scores.push(score);
                    classes.push(class);
                }
            }
        }
        let mut kept = class_wise_nms(&boxes, &scores, &classes, c.box_nms_thresh);
        kept.truncate(options.most.unwrap_or(c.box_detections_per_img));
        let scale = [0, 1].map(|i| original[i] as f32 / pass.size[i] as f32);
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

/// torchvision's results of one picture: `boxes`, `scores`, `labels` from `pixel_values` `[1, 3, H, W]` in [0, 1], and what
/// is on the way: `features.I` (the pyramid, channels first), `objectness.I`, `rpn_deltas.I`, `proposals`, `class_logits`,
/// `box_regression`.
impl Reference for FasterRcnn {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        let device = self.device();
        let Some(pixels) = inputs.floats::<4>("pixel_values", &device)? else {
            return Ok(outputs);
        };
        let [b, c, h, w] = pixels.dims();
        expect(
            b == 1 && c == 3,
            "pixel_values",
            "[1, 3, H, W]",
            format!("{:?}", pixels.dims()),
        )?;
        let pass = self.pass(Self::picture(&pixels, 0));
        let mut put = |name: String, value: Value| outputs.insert(name, value);
        let first = |x: &Tensor<4>| Value::floats(x.clone().permute([0, 3, 1, 2]));
        for (i, (map, level)) in pass.maps.iter().zip(&pass.levels).enumerate() {
            put(format!("features.{i}"), first(map));
            put(format!("objectness.{i}"), first(&level.scores));
            put(format!("rpn_deltas.{i}"), first(&level.changes));
        }
        let floats = |shape: &[usize], numbers: Vec<f32>| Value {
            shape: shape.to_vec(),
            numbers: Numbers::Floats(numbers),
        };
        let regions: Vec<f32> = pass.proposals.iter().flat_map(|p| p.0).collect();
        let count = pass.proposals.len();
        put("proposals".to_owned(), floats(&[count, 4], regions));
        put(
            "class_logits".to_owned(),
            Value::floats(pass.logits.clone()),
        );
        put(
            "box_regression".to_owned(),
            Value::floats(pass.changes.clone()),
        );
        let objects = self.objects(&pass, [h, w], &DetectOptions::default());
        let n = objects.len();
        let boxes = objects.iter().flat_map(|o| o.corners).collect();
        put("boxes".to_owned(), floats(&[n, 4], boxes));
        let scores = objects.iter().map(|o| o.score).collect();
        put("scores".to_owned(), floats(&[n], scores));
        let labels = objects.iter().map(|o| o.class as i64).collect();
        put(
            "labels".to_owned(),
            Value {
                shape: vec![n],
                numbers: Numbers::Integers(labels),
            },
        );
        Ok(outputs)
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
    use burn::tensor::{Distribution, Gradients};

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
        let picture = Tensor::random([3, 80, 100], Distribution::Uniform(0.0, 1.0), &device);
        let pass = model.pass(picture);
        assert!(pass.proposals.len() > 5);
        let levels = pass.levels.into_iter();
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
        let cell = around_first_cell(AnchorLayout::Cornered, &[512.0], &ASPECT_RATIOS, 64);
        let expected = [
            [-362.0, -181.0, 362.0, 181.0],
            [-256.0, -256.0, 256.0, 256.0],
            [-181.0, -362.0, 181.0, 362.0],
        ];
        assert_eq!(cell, expected);
    }
}
