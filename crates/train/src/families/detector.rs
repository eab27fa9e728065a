//! Detectors: torchvision's Faster R-CNN and VinVL's.

use super::parts::{Start, begun, fill_in, panels};
use crate::Error;
use crate::learner::{Files, Learner, Losses, Measured, Tensors};
use crate::log::Log;
use crate::plot::Panel;
use crate::recipe::Recipe;
use crate::set_recipe::SetRecipe;
use crate::source::{HeldOut, SetBatch, Source, Wanted};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use vlm_data::datasets::BoxedObject;
use vlm_data::image::{ImageProcessor, PreprocessorConfig, ProcessorKind};
use vlm_models::capability::DetectOptions;
use vlm_models::encoders::region_detector::{DetectorLosses, KnownObject};
use vlm_models::families::Model;
use vlm_models::families::faster_rcnn::{FasterRcnn, FasterRcnnConfig};
use vlm_models::families::vinvl::{Vinvl, VinvlConfig};
use vlm_nn::weights::{Weights, collect};
use vlm_tasks::detection::{self, ClassNames};
use vlm_tasks::{ModelFiles, Vlm, file};

/// Least probability of an object that counts in a score, as in the references' evaluations.
const LEAST: f32 = 0.05;

/// What the detectors have in common.
pub(crate) trait Detector: Module + Sync {
    type Config: Sync;
    /// What is done to pictures, where no file says it.
    const KIND: ProcessorKind;
    /// `preprocessor_config.json` of a model that is trained from nothing and whose recipe names no sides for pictures; none
    /// if its config tells what is done to them.
    const PREPROCESSOR: Option<&'static str>;

    fn config(json: &str) -> Result<Self::Config, vlm_models::Error>;
    /// Classes and attributes, background and none included.
    fn counts(config: &Self::Config) -> [usize; 2];
    fn frozen_norms(config: &Self::Config) -> bool;
    /// The same of a model that was loaded, whose config need not say it.
    fn has_frozen_norms(model: &Model) -> Option<bool>;
    fn build(weights: &mut Weights, config: &Self::Config) -> Self;
    fn in_training(self, training: bool) -> Self;
    fn loss(
        &self,
        pictures: &[Tensor<3>],
        objects: &[Vec<KnownObject>],
        seed: u64,
    ) -> Result<DetectorLosses, vlm_models::Error>;
    fn into_model(self) -> Model;
    fn parameters(model: &Model) -> Option<Tensors>;
}

/// Says how a family does what [`Detector`] asks for; all have the same names.
macro_rules! detector {
    ($model:ident, $config:ident, $kind:ident, $preprocessor:expr, $attributes:expr) => {
        impl Detector for $model {
            type Config = $config;
            const KIND: ProcessorKind = ProcessorKind::$kind;
            const PREPROCESSOR: Option<&'static str> = $preprocessor;

            fn config(json: &str) -> Result<$config, vlm_models::Error> {
                $config::untrained(json)
            }
            fn counts(config: &$config) -> [usize; 2] {
                [config.num_classes, $attributes(config)]
            }
            fn frozen_norms(config: &$config) -> bool {
                config.frozen_norms
            }
            fn has_frozen_norms(model: &Model) -> Option<bool> {
                match model {
                    Model::$model(m) => Some(m.config().frozen_norms),
                    _ => None,
                }
            }
            fn build(weights: &mut Weights, config: &$config) -> Self {
                $model::new(weights, config)
            }
            fn in_training(self, training: bool) -> Self {
                $model::in_training(self, training)
            }
            fn loss(
                &self,
                pictures: &[Tensor<3>],
                objects: &[Vec<KnownObject>],
                seed: u64,
            ) -> Result<DetectorLosses, vlm_models::Error> {
                $model::loss(self, pictures, objects, seed)
            }
            fn into_model(self) -> Model {
                Model::$model(Box::new(self))
            }
            fn parameters(model: &Model) -> Option<Tensors> {
                match model {
                    Model::$model(m) => Some(collect(&**m)),
                    _ => None,
                }
            }
        }
    };
}

detector!(
    FasterRcnn,
    FasterRcnnConfig,
    TorchvisionDetection,
    None,
    |_: &FasterRcnnConfig| 0
);
// pictures of any size, which the released commands would enlarge
detector!(
    Vinvl,
    VinvlConfig,
    Vinvl,
    Some("{\"do_resize\": false}\n"),
    |c: &VinvlConfig| c.num_attributes
);

/// A detector in training.
pub(crate) struct DetectorLearner<M: Detector> {
    recipe: SetRecipe,
    json: Value,
    config: M::Config,
    source: Arc<Source>,
    processor: ImageProcessor,
    preprocessor: Option<Vec<u8>>,
    /// By number, without background and none.
    names: [Vec<String>; 2],
    held_out: Vec<HeldOut>,
    init: Option<ModelFiles>,
}

/// The longest side that pictures are brought to.
const MOST_SIDE: u32 = 8192;

fn wrong(reason: impl Into<String>) -> Error {
    Error::file("recipe", reason)
}

/// The names of a list in the recipe.
fn listed(config: &mut Value, field: &str) -> Result<Option<Vec<String>>, Error> {
    let Some(list) = config.as_object_mut().and_then(|c| c.remove(field)) else {
        return Ok(None);
    };
    let names = serde_json::from_value(list.clone());
    names
        .map(Some)
        .map_err(|_| wrong(format!("model.{field}: expected names, found {list}")))
}

/// Names that a model knows by number, from 1 on.
fn known(count: usize, name: impl Fn(usize) -> String) -> Vec<String> {
    (1..count).map(name).collect()
}

/// Takes the sides that pictures are brought to out of a config: the shorter one, and what the longer one may not exceed.
fn sides(config: &mut Value) -> Result<Option<[u32; 2]>, Error> {
    const FIELDS: [&str; 2] = ["min_size_test", "max_size_test"];
    let mut take = |field| config.as_object_mut().and_then(|c| c.remove(field));
    let (min, max) = match FIELDS.map(&mut take) {
        [None, None] => return Ok(None),
        [Some(min), Some(max)] => (min, max),
        [min, _] => {
            let [given, missing] = match min {
                Some(_) => FIELDS,
                None => [FIELDS[1], FIELDS[0]],
            };
            let reason = format!("model.{given}: expected {missing} beside it, found none");
            return Err(wrong(reason));
        }
    };
    let side = |value: &Value| {
        let side = value.as_u64().and_then(|v| u32::try_from(v).ok());
        side.filter(|side| (16..=MOST_SIDE).contains(side))
    };
    match (side(&min), side(&max)) {
        (Some(min), Some(max)) if min <= max => Ok(Some([min, max])),
        _ => Err(wrong(format!(
            "model.min_size_test, max_size_test: expected 16 to {MOST_SIDE} pixels, the second not below the first, \
             found {min} and {max}"
        ))),
    }
}

/// What a detector's config calls its norms.
fn norms(frozen: bool) -> (&'static str, Value) {
    let name = match frozen {
        true => "FrozenBatchNorm2d",
        false => "BatchNorm2d",
    };
    ("norm_layer", json!(name))
}

impl<M: Detector> DetectorLearner<M> {
    pub(crate) fn new(set: &SetRecipe, start: Start) -> Result<Self, Error> {
        if let Some(key) = set.data.augment.without_boxes() {
            return Err(wrong(format!(
                "{key}: expected none for a detector, as its boxes do not go along; found one"
            )));
        }
        let source = Source::open(&set.data, &set.train, Wanted::Objects, "")?;
        let mut json = start.config;
        let sides = match M::PREPROCESSOR {
            Some(_) => sides(&mut json)?,
            None => None,
        };
        let of_recipe = [
            listed(&mut json, "classes")?,
            listed(&mut json, "attributes")?,
        ];
        // a model that is trained further keeps its names, one of other sizes takes those of the data
        let names = match (&start.init, set.model.is_empty()) {
            (Some(files), true) => {
                let model = files.model(&Device::flex())?;
                let names = files.class_names(&model)?;
                let detector = model.detect()?;
                if let Some(frozen) = M::has_frozen_norms(&model) {
                    fill_in(&mut json, &[norms(frozen)]);
                }
                [
                    known(detector.num_classes(), |i| names.class(i)),
                    known(detector.num_attributes(), |i| names.attribute(i)),
                ]
            }
            _ => {
                let [classes, attributes] = source.names();
                let [given_classes, given_attributes] = of_recipe;
                [
                    given_classes.unwrap_or(classes),
                    given_attributes.unwrap_or(attributes),
                ]
            }
        };
        fill_in(&mut json, &[("num_classes", json!(names[0].len() + 1))]);
        if json.get("model_type").is_some() {
            let count = json!(names[1].len() + 1);
            fill_in(&mut json, &[("num_attributes", count)]);
        }
        let config = M::config(&json.to_string()).map_err(|e| wrong(format!("model: {e}")))?;
        // where the config does not say it, a loaded model may be taken for one with frozen norms, which have another epsilon
        fill_in(&mut json, &[norms(M::frozen_norms(&config))]);
        let learner = Self {
            recipe: set.clone(),
            processor: ImageProcessor::from_config(PreprocessorConfig::defaults(M::KIND)),
            preprocessor: None,
            held_out: source.held_out(set.validation.pictures)?,
            source: Arc::new(source),
            json,
            config,
            names,
            init: start.init,
        };
        learner.check()?;
        learner.prepared(sides)
    }

    /// What is done to pictures: they are brought to these sides, or it is as the model that the run begins with has it, if
    /// it says so.
    fn prepared(mut self, sides: Option<[u32; 2]>) -> Result<Self, Error> {
        let own = self.recipe.train.init.as_deref().filter(|p| p.is_dir());
        let own = own.map(|path: &Path| path.join(file::PREPROCESSOR));
        self.preprocessor = match own.filter(|path| path.is_file()) {
            _ if sides.is_some() => sides.map(|[shortest, longest]| {
                let size = json!({"shortest_edge": shortest, "longest_edge": longest});
                format!("{}\n", json!({"do_resize": true, "size": size})).into_bytes()
            }),
            Some(path) => Some(
                std::fs::read(&path)
                    .map_err(|e| Error::file(&path, format!("cannot be read: {e}")))?,
            ),
            None if self.init.is_none() => M::PREPROCESSOR.map(|json| json.as_bytes().to_vec()),
            None => None,
        };
        if let Some(bytes) = &self.preprocessor {
            let config = PreprocessorConfig::from_json(bytes, file::PREPROCESSOR, M::KIND)?;
            self.processor = ImageProcessor::from_config(config);
        }
        Ok(self)
    }

    /// Names against numbers, and every object of the data against both.
    fn check(&self) -> Result<(), Error> {
        let [classes, attributes] = M::counts(&self.config);
        let [named, described] = [0, 1].map(|i| self.names[i].len());
        if classes != named + 1 {
            return Err(wrong(format!(
                "model.num_classes: expected {}, background and {named} classes ({}), found {classes}",
                named + 1,
                some(&self.names[0])
            )));
        }
        if attributes > 0 && attributes != described + 1 {
            return Err(wrong(format!(
                "model.num_attributes: expected {}, none and {described} attributes ({}), found {attributes}",
                described + 1,
                some(&self.names[1])
            )));
        }
        self.source.check_objects(|object, [width, height]| {
            let known = self.known(object)?;
            let size = [height as usize, width as usize];
            known
                .validate(&object.name, size, classes, attributes)
                .map_err(|e| e.to_string().trim_start_matches("config: ").to_owned())
        })
    }

    /// An object by numbers.
    fn known(&self, object: &BoxedObject) -> Result<KnownObject, String> {
        let [_, attributes] = M::counts(&self.config);
        let number = |kind: usize, what: &str, name: &String| {
            let place = self.names[kind].iter().position(|known| known == name);
            place.map(|i| i + 1).ok_or_else(|| {
                format!(
                    "{what}: expected one of {}, found {name:?}",
                    some(&self.names[kind])
                )
            })
        };
        let described = match attributes {
            0 => Vec::new(),
            _ => {
                let each = object.attributes.iter();
                let each = each.map(|name| number(1, "attribute", name));
                each.collect::<Result<_, _>>()?
            }
        };
        Ok(KnownObject {
            corners: object.corners,
            class: number(0, "class", &object.name)?,
            attributes: described,
        })
    }

    fn vlm(&self, model: M) -> Vlm {
        let numbered = |first: &str, names: &[String]| {
            let first = std::iter::once(first.to_owned());
            first.chain(names.iter().cloned()).collect()
        };
        let [classes, attributes] = &self.names;
        let names = ClassNames::new(
            numbered("background", classes),
            numbered("none", attributes),
        );
        let model = model.in_training(false).into_model();
        Vlm::detector(&self.recipe.name, model, self.processor.clone(), names)
    }
}

/// Names in a message, not too many.
fn some(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().map(String::as_str).take(12).collect();
    let more = if names.len() > first.len() {
        ", ..."
    } else {
        ""
    };
    format!("{}{more}", first.join(", "))
}

/// The recipe of a detector whose norms are frozen, with these left out of what learns, as both references have it.
pub(crate) fn with_frozen_norms<M: Detector>(
    recipe: &Recipe,
    learner: &DetectorLearner<M>,
) -> Recipe {
    let mut recipe = recipe.clone();
    if let Recipe::Set(set) = &mut recipe
        && M::frozen_norms(&learner.config)
    {
        for pattern in ["**.norm*.*", "**.norm.*"] {
            if !set.train.freeze.iter().any(|known| known == pattern) {
                set.train.freeze.push(pattern.to_owned());
            }
        }
    }
    recipe
}

impl<M: Detector> Learner for DetectorLearner<M> {
    type Model = M;
    type Batch = SetBatch;

    fn build(&self, weights: &mut Weights) -> M {
        M::build(weights, &self.config).in_training(true)
    }

    fn initial(&self, device: &Device) -> Result<(M, Option<String>), Error> {
        let build = |weights: &mut Weights| self.build(weights);
        let seed = self.recipe.train.seed;
        begun(self.init.as_ref(), seed, device, build, M::parameters)
    }

    fn stream(&self, first: u64) -> Receiver<Result<SetBatch, Error>> {
        self.source
            .stream(first, &self.recipe.train, &self.processor)
    }

    fn loss(&self, model: &M, batch: &SetBatch, device: &Device) -> Result<Losses, Error> {
        let mut rest = batch.pixels.as_slice();
        let pictures = batch.sizes.iter().map(|&size| {
            let (own, others) = rest.split_at(size.iter().product());
            rest = others;
            Tensor::from_data(TensorData::new(own.to_vec(), size), device)
        });
        let pictures: Vec<Tensor<3>> = pictures.collect();
        let numbered = |objects: &Vec<BoxedObject>| {
            let each = objects.iter().map(|object| self.known(object));
            each.collect::<Result<Vec<KnownObject>, String>>()
        };
        let objects = batch.objects.iter().map(numbered);
        let objects: Result<Vec<Vec<KnownObject>>, String> = objects.collect();
        let losses = model.loss(&pictures, &objects.map_err(wrong)?, batch.seed)?;
        Ok(Losses {
            total: losses.total,
            parts: vec![
                ("objectness_loss", Some(losses.objectness)),
                ("proposal_loss", Some(losses.proposals)),
                ("class_loss", Some(losses.classes)),
                ("box_loss", Some(losses.boxes)),
                ("attribute_loss", losses.attributes),
            ],
        })
    }

    fn measure(&self, model: M) -> Result<Measured, Error> {
        let vlm = self.vlm(model);
        let options = DetectOptions {
            threshold: Some(LEAST),
            most: None,
        };
        let classes = &self.names[0];
        let pictures = self.held_out.iter().filter_map(|held| {
            let truths = detection::truths(&held.record.objects, classes);
            Some((held.image.pixels()?.clone(), truths))
        });
        let scores = detection::score(&vlm, &options, classes, pictures)?;
        Ok(Measured {
            scores: vec![("ap", scores.ap), ("ap50", scores.ap50)],
            text: format!(
                "AP {:.1} %, AP@0.5 {:.1} % of {} pictures",
                100.0 * scores.ap,
                100.0 * scores.ap50,
                scores.n
            ),
        })
    }

    fn files(&self) -> Result<Files, Error> {
        let config = serde_json::to_string_pretty(&self.json)
            .map_err(|e| Error::file(file::CONFIG, format!("cannot be written: {e}")))?;
        let lines = |names: &[String]| (names.join("\n") + "\n").into_bytes();
        let mut files = vec![
            (file::CONFIG, format!("{config}\n").into_bytes()),
            (detection::LABELS, lines(&self.names[0])),
        ];
        if M::counts(&self.config)[1] > 0 {
            files.push((detection::ATTRIBUTES, lines(&self.names[1])));
        }
        let preprocessor = self.preprocessor.iter();
        files.extend(preprocessor.map(|bytes| (file::PREPROCESSOR, bytes.clone())));
        Ok(files)
    }

    fn data_seed(&self) -> u64 {
        self.recipe.data.seed
    }

    fn panels(&self, log: &Log) -> Vec<Panel> {
        let losses = [
            ("objectness", "objectness_loss"),
            ("proposals", "proposal_loss"),
            ("classes", "class_loss"),
            ("boxes", "box_loss"),
            ("attributes", "attribute_loss"),
        ];
        panels(log, &losses, &[("AP", "val.ap"), ("AP at 0.5", "val.ap50")])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Options, train};
    use std::sync::atomic::AtomicBool;

    const FASTER_RCNN: &str = r#"
library_name = "torchvision"
architecture = "fasterrcnn_resnet50_fpn"
layers = [1, 1, 1, 1]
stem_width = 4
fpn_channels = 8
representation_size = 16
min_size = 64
max_size = 64
anchor_sizes = [10, 20, 30, 40, 60]
rpn_batch_size_per_image = 32
box_batch_size_per_image = 16
rpn_post_nms_top_n_train = 30
"#;

    const VINVL: &str = r#"
model_type = "vinvl"
layers = [1, 1, 1, 1]
stem_out_channels = 4
res2_out_channels = 16
num_groups = 2
width_per_group = 2
cls_emd_dim = 4
attr_emd_dim = 8
anchor_sizes = [12, 24]
rpn_straddle_thresh = -1
rpn_batch_size_per_image = 32
batch_size_per_image = 16
rpn_post_nms_top_n_train = 30
"#;

    fn recipe(data: &str, model: &str) -> String {
        format!(
            r#"
name = "tiny"
[data]
seed = 1
{data}
[train]
seed = 1
steps = 3
batch_size = 2
accumulate = 1
learning_rate = 1.0e-3
min_learning_rate = 1.0e-5
warmup_steps = 1
decay_steps = 2
weight_decay = 0.01
betas = [0.9, 0.98]
clip_norm = 10.0
precision = "f32"
checkpoint_every = 100
output = "f32"
[validation]
every = 3
pictures = 2
[model]
{model}"#
        )
    }

    fn run(text: &str, directory: &Path) -> Result<std::path::PathBuf, Error> {
        run_or_resume(text, directory, false)
    }

    fn run_or_resume(
        text: &str,
        directory: &Path,
        resume: bool,
    ) -> Result<std::path::PathBuf, Error> {
        let recipe = Recipe::parse(text).unwrap_or_else(|e| panic!("{e}"));
        let options = Options {
            directory: directory.to_owned(),
            resume,
            quiet: true,
        };
        Ok(train(recipe, &options, &AtomicBool::new(false))?.model)
    }

    const WORLD: &str =
        "world = \"shapes\"\nsize = 64\naugment = { flip = 0.5, crop_scale = [0.5, 1.0] }";

    #[test]
    fn detectors_learn_scenes_are_saved_loaded_and_trained_further() {
        for (model, attributes) in [(FASTER_RCNN, 0), (VINVL, 1)] {
            let directory = tempfile::tempdir().unwrap();
            let first = directory.path().join("first");
            let saved = run(&recipe(WORLD, model), &first).unwrap();
            let log = std::fs::read_to_string(first.join("log.jsonl")).unwrap();
            for key in ["objectness_loss", "box_loss", "\"ap50\""] {
                assert!(log.contains(key), "{log}");
            }
            let vlm = Vlm::load(&saved).unwrap_or_else(|e| panic!("{e}"));
            let detector = vlm.model().detect().unwrap();
            assert_eq!(detector.num_classes(), 9);
            assert_eq!(detector.num_attributes() > 0, attributes > 0);
            assert_eq!(vlm.class_names().class(1), "circle");
            if attributes > 0 {
                assert_eq!(vlm.class_names().attribute(1), "red");
            }
            // what it is used with has the norms that it was trained with
            let config = std::fs::read_to_string(saved.join("config.json")).unwrap();
            assert!(
                config.contains(r#""norm_layer": "BatchNorm2d""#),
                "{config}"
            );
            // without [model] the saved one goes on, whose norms stay as they are told to
            let init = format!("[train]\ninit = {:?}", saved.display().to_string());
            let further = recipe(WORLD, "").replace("[train]", &init);
            let further = further.replace("[model]\n", "");
            run(&further, &directory.path().join("second")).unwrap();
            let frozen = recipe(
                WORLD,
                &format!("{model}norm_layer = \"FrozenBatchNorm2d\"\n"),
            );
            let third = directory.path().join("third");
            run(&frozen, &third).unwrap();
            let kept = std::fs::read_to_string(third.join("recipe.toml")).unwrap();
            assert!(kept.contains("**.norm*.*"), "{kept}");
        }
    }

    #[test]
    fn a_detector_that_is_resumed_ends_with_the_same_bytes() {
        for model in [FASTER_RCNN, VINVL] {
            let directory = tempfile::tempdir().unwrap();
            let [whole, parts] = ["whole", "parts"].map(|name| directory.path().join(name));
            let of = |steps: &str| {
                let recipe = recipe(WORLD, model).replace("decay_steps = 2", "decay_steps = 0");
                recipe.replace("\nsteps = 3\n", &format!("\n{steps}"))
            };
            let weights = |model: &Path| std::fs::read(model.join("model.safetensors")).unwrap();
            let whole = weights(&run(&of("steps = 3\n"), &whole).unwrap());
            let first = weights(&run(&of("steps = 2\n"), &parts).unwrap());
            let resumed = run_or_resume(&of("steps = 3\n"), &parts, true).unwrap();
            assert!(first != whole, "a step changes something");
            assert!(weights(&resumed) == whole);
        }
    }

    fn set(directory: &Path, objects: &str, size: &str) -> String {
        std::fs::copy(
            concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../examples/pictures/five-hearts.png"
            ),
            directory.join("a.png"),
        )
        .unwrap();
        let line = format!("{{\"image\": \"a.png\", {size}\"objects\": [{objects}]}}\n");
        std::fs::write(directory.join("items.jsonl"), line).unwrap();
        format!("sets = [{:?}]", directory.display().to_string())
    }

    #[test]
    fn data_that_do_not_fit_are_refused_before_anything_is_learned() {
        let good = r#"{"class": "heart", "box": [1, 2, 30, 40]}"#;
        let with_classes = format!("{FASTER_RCNN}classes = [\"heart\", \"ring\"]\n");
        let with_count = format!("{FASTER_RCNN}num_classes = 5\n");
        for (objects, model, more, expected) in [
            (
                r#"{"class": "heart", "box": [1, 2, 3000, 40]}"#,
                FASTER_RCNN,
                "",
                "objects[0]: heart: box: expected a box within the picture",
            ),
            (
                r#"{"class": "heart", "box": [1, 2, 1, 40]}"#,
                FASTER_RCNN,
                "",
                "objects[0]: heart: box: expected x1 < x2",
            ),
            (
                r#"{"class": "dog", "box": [1, 2, 30, 40]}"#,
                with_classes.as_str(),
                "",
                "objects[0]: class: expected one of heart, ring, found \"dog\"",
            ),
            (
                good,
                with_count.as_str(),
                "",
                "model.num_classes: expected 2, background and 1 classes (heart), found 5",
            ),
            (
                good,
                FASTER_RCNN,
                "augment = { rotate = 5.0 }",
                "data.augment.rotate: expected none for a detector",
            ),
            (
                "",
                FASTER_RCNN,
                "",
                "expected records with objects that have a box, found none",
            ),
            (
                r#"{"class": "heart", "box": [1, 2, 30]}"#,
                FASTER_RCNN,
                "",
                "objects[0].box: expected four numbers",
            ),
        ] {
            for size in ["", "\"width\": 128, \"height\": 128, "] {
                let directory = tempfile::tempdir().unwrap();
                let data = set(directory.path(), objects, size);
                let text = recipe(&format!("{data}\n{more}"), model);
                let out = directory.path().join("run");
                let error = run(&text, &out).unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
                assert!(!out.join("recipe.toml").exists(), "nothing is begun");
            }
        }
    }
}
