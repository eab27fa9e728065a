//! Cases of reference/models_clip.py: a model, its inputs, and what its own implementation makes of them.

// each test uses a part of it
#![allow(dead_code)]

pub mod detector;
pub mod dual_encoder;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use std::collections::BTreeMap;
use std::path::PathBuf;
use vlm_models::families::Model;
use vlm_models::reference::{Inputs, Numbers, Outputs, Value};
use vlm_nn::ops::{self, AdamWStep};
use vlm_nn::weights::{Checkpoint, StoreDtype, to_bytes};

/// Numbers from -0.25 to 0.25 in steps of 1/512, by name and place, as `fill` in the script.
pub fn fill(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0x811c_9dc5u32, |seed, byte| {
        (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let value = |i: usize| {
        let mut x = (i as u32).wrapping_add(seed);
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        x ^= x >> 16;
        ((x % 257) as f32 - 128.0) / 512.0
    };
    (0..count).map(value).collect()
}

type Stored = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Shapes of a checkpoint's tensors by published name.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// A file's bytes with these tensors.
pub fn checkpoint(shapes: &Shapes, values: impl Fn(&str, &[usize]) -> Vec<f32>) -> Checkpoint {
    let tensors = shapes.iter().map(|(name, shape)| {
        let values = values(name, shape);
        (name.clone(), (shape.clone(), values))
    });
    let tensors: Stored = tensors.collect();
    let bytes = to_bytes(&tensors, StoreDtype::F32, None).unwrap();
    Checkpoint::parse(&bytes, "weights").unwrap()
}

fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    match name {
        "logit_scale" => return vec![1.5; count],
        "logit_bias" => return vec![-0.75; count],
        _ => {}
    }
    let multiplies = name.ends_with("weight") && shape.len() == 1;
    let one = multiplies || name.ends_with("running_var") || name.ends_with("gamma");
    let mut values = fill(name, count);
    values
        .iter_mut()
        .for_each(|v| *v += f32::from(u8::from(one)));
    values
}

/// One folder under testdata/models.
pub struct Case {
    folder: PathBuf,
    golden: Checkpoint,
    larger: Vec<(&'static str, f32)>,
}

impl Case {
    pub fn open(name: &str) -> Self {
        let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../testdata/models", name]
            .iter()
            .collect();
        let golden = Checkpoint::open(&folder.join("golden.safetensors")).unwrap();
        let larger = Vec::new();
        Self {
            folder,
            golden,
            larger,
        }
    }

    /// Multiplies the known weights whose names begin so.
    pub fn larger(mut self, begin: &'static str, factor: f32) -> Self {
        self.larger.push((begin, factor));
        self
    }

    /// The config, if the layout has one.
    pub fn config(&self) -> Option<String> {
        let files = ["config.json", "open_clip_config.json"];
        let mut found = files.iter().map(|f| self.folder.join(f));
        found
            .find(|path| path.exists())
            .map(|path| std::fs::read_to_string(path).unwrap())
    }

    /// Names and shapes of the published parameters.
    pub fn shapes(&self) -> Shapes {
        let listed = self.folder.join("weights.json");
        if listed.exists() {
            return serde_json::from_str(&std::fs::read_to_string(listed).unwrap()).unwrap();
        }
        let stored = self.checkpoint();
        let floats = stored.tensors().filter(|t| t.dtype.is_float());
        floats
            .map(|t| (t.name.to_owned(), t.shape.to_vec()))
            .collect()
    }

    /// The published weights.
    pub fn checkpoint(&self) -> Checkpoint {
        let stored = self.folder.join("model.safetensors");
        if stored.exists() {
            return Checkpoint::open(&stored).unwrap();
        }
        checkpoint(&self.shapes(), |name, shape| {
            let mut values = weight(name, shape);
            let larger = self
                .larger
                .iter()
                .find(|(begin, _)| name.starts_with(begin));
            if let Some((_, factor)) = larger {
                values.iter_mut().for_each(|v| *v *= factor);
            }
            values
        })
    }

    /// Loads the model as a user's is.
    pub fn load(&self, device: &Device) -> Model {
        let loaded = match self.config() {
            Some(config) => Model::load(&config, self.checkpoint(), device),
            None => Model::recognise(self.checkpoint(), device),
        };
        loaded.unwrap_or_else(|e| panic!("{}: {e}", self.folder.display()))
    }

    pub fn numbers(&self, prefix: &str) -> BTreeMap<String, Value> {
        let tensors = self.golden.tensors();
        let named = tensors.filter_map(|t| Some((t.name.strip_prefix(prefix)?, t)));
        named
            .map(|(name, info)| {
                let mut golden = self.golden.clone();
                let (shape, numbers) = if info.dtype.is_float() {
                    let (shape, values) = golden.take_any(info.name).unwrap();
                    (shape, Numbers::Floats(values))
                } else {
                    let (shape, values) = golden.take_integers(info.name).unwrap();
                    (shape, Numbers::Integers(values))
                };
                (name.to_owned(), Value { shape, numbers })
            })
            .collect()
    }

    /// The arguments of the reference's forward pass.
    pub fn inputs(&self) -> BTreeMap<String, Value> {
        let mut inputs = self.numbers("in.");
        for (name, value) in self.numbers("shape.") {
            let Numbers::Integers(shape) = value.numbers else {
                panic!("{name}: a shape")
            };
            let shape: Vec<usize> = shape.iter().map(|&x| x as usize).collect();
            let values = fill(&name, shape.iter().product());
            let numbers = Numbers::Floats(values.iter().map(|x| 4.0 * x).collect());
            inputs.insert(name, Value { shape, numbers });
        }
        inputs
    }

    fn floats(&self, prefix: &str) -> BTreeMap<String, Vec<f32>> {
        let numbers = self.numbers(prefix).into_iter();
        let floats = numbers.filter_map(|(name, value)| match value.numbers {
            Numbers::Floats(values) => Some((name, values)),
            Numbers::Integers(_) => None,
        });
        floats.collect()
    }

    /// Checks every output of the reference; sums of a few dozen terms in f32 are right to about 1e-6 of the largest
    /// value on both sides, and activations and softmax multiply that a few times.
    #[track_caller]
    pub fn compare(&self, model: &Model) {
        let inputs = Inputs::new(self.inputs());
        let found = model.reference().unwrap().outputs(&inputs).unwrap();
        assert_eq!(inputs.unread(), [""; 0], "every argument is understood");
        self.compare_outputs(&found);
    }

    #[track_caller]
    fn compare_outputs(&self, found: &Outputs) {
        let expected = self.numbers("out.");
        assert!(!expected.is_empty());
        for (name, expected) in expected {
            let found = found.get(&name);
            let found = found.unwrap_or_else(|| panic!("{name} is not given"));
            assert_eq!(found.shape, expected.shape, "{name}");
            let (found, expected) = match (&found.numbers, &expected.numbers) {
                (Numbers::Floats(found), Numbers::Floats(expected)) => (found, expected),
                (found, expected) => {
                    assert_eq!(found, expected, "{name}");
                    continue;
                }
            };
            let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
            let error = found.iter().zip(expected);
            let error = error.fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(error <= 2e-5 * largest, "{name}: {error} of {largest}");
        }
    }

    /// Checks the gradient of every published parameter: its product with a pattern, which is translated as weights
    /// are, and its length.
    #[track_caller]
    pub fn compare_gradients(
        &self,
        gradients: &BTreeMap<String, Vec<f32>>,
        translated: impl Fn(Checkpoint) -> Checkpoint,
    ) {
        let shapes = self.shapes();
        let expected = self.floats("grad.");
        assert!(!expected.is_empty());
        let squares = expected.values().map(|g| f64::from(g[0]).powi(2));
        let whole = squares.sum::<f64>().sqrt() as f32;
        let squares = gradients.values().flatten().map(|&x| f64::from(x).powi(2));
        let length = squares.sum::<f64>().sqrt() as f32;
        assert!(
            (length - whole).abs() <= 1e-4 * whole,
            "length of all gradients: {length} is not {whole}"
        );
        for (name, expected) in &expected {
            // a pattern in this place and zeros in all others
            let pattern = translated(checkpoint(&shapes, |other, shape| {
                let count = shape.iter().product();
                if other == name {
                    fill(&format!("probe.{name}"), count)
                } else {
                    vec![0.0; count]
                }
            }));
            let found = product(pattern, gradients);
            let error = (found - expected[1]).abs();
            // a gradient that is zero in exact arithmetic, as that of the bias of keys, is noise on both sides
            let allowed = 1e-4 * expected[0] + 1e-6 * whole;
            assert!(error <= allowed, "{name}: {found}, expected {expected:?}");
        }
    }

    /// Checks running statistics in the same way.
    #[track_caller]
    pub fn compare_statistics(
        &self,
        parameters: &BTreeMap<String, Vec<f32>>,
        translated: impl Fn(Checkpoint) -> Checkpoint,
    ) {
        let shapes = self.shapes();
        let expected = self.floats("stat.");
        assert!(!expected.is_empty());
        for (name, expected) in &expected {
            let pattern = translated(checkpoint(&shapes, |other, shape| {
                let count = shape.iter().product();
                if other == name {
                    fill(&format!("probe.{name}"), count)
                } else {
                    vec![0.0; count]
                }
            }));
            let found = product(pattern, parameters);
            let error = (found - expected[0]).abs();
            assert!(error <= 1e-5, "{name}: {found} is not {}", expected[0]);
        }
    }

    /// The losses of ten steps of AdamW, compared with those of the reference.
    #[track_caller]
    pub fn compare_losses(&self, found: &[f32]) {
        let expected = &self.floats("losses")[""];
        assert!(
            expected[9] < expected[0],
            "the reference learns: {expected:?}"
        );
        for (step, (a, b)) in found.iter().zip(expected).enumerate() {
            // Adam divides small gradients by their own size, so that rounding grows from step to step
            assert!(
                (a - b).abs() <= 1e-3 * b.abs(),
                "{step}: {found:?} {expected:?}"
            );
        }
        assert_eq!(found.len(), expected.len());
    }
}

fn product(mut pattern: Checkpoint, values: &BTreeMap<String, Vec<f32>>) -> f32 {
    let names: Vec<String> = pattern.tensors().map(|t| t.name.to_owned()).collect();
    let mut sum = 0f64;
    for name in names {
        let (_, pattern) = pattern.take_any(&name).unwrap();
        let Some(values) = values.get(&name) else {
            assert!(pattern.iter().all(|&x| x == 0.0), "{name}: no gradient");
            continue;
        };
        assert_eq!(pattern.len(), values.len(), "{name}");
        let terms = pattern.iter().zip(values);
        sum += terms.map(|(a, b)| f64::from(a * b)).sum::<f64>();
    }
    sum as f32
}

struct Gather<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Gather<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            let values = gradient.into_data().try_to_vec().unwrap();
            self.found.insert(self.path.join("."), values);
        }
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

/// The gradients of a module by name.
pub fn gradients<M: Module>(module: &M, gradients: &Gradients) -> BTreeMap<String, Vec<f32>> {
    let mut gather = Gather {
        path: Vec::new(),
        gradients,
        found: BTreeMap::new(),
    };
    module.visit(&mut gather);
    gather.found
}

/// AdamW over all parameters that have a gradient, with the script's numbers.
#[derive(Default)]
pub struct AdamW {
    path: Vec<String>,
    gradients: BTreeMap<String, Vec<f32>>,
    moments: BTreeMap<String, [Tensor<1>; 2]>,
    step: u64,
}

impl AdamW {
    pub fn step<M: Module>(&mut self, module: M, gradients: BTreeMap<String, Vec<f32>>) -> M {
        self.gradients = gradients;
        self.step += 1;
        module.map(self)
    }
}

impl ModuleMapper for AdamW {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let Some(gradient) = self.gradients.remove(&name) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let tensor = tensor.inner().flatten::<1>(0, D - 1);
        let gradient = TensorData::new(gradient, tensor.dims());
        let gradient = Tensor::from_data(gradient, &tensor.device());
        let zero = || [gradient.zeros_like(), gradient.zeros_like()];
        let [m, v] = self.moments.remove(&name).unwrap_or_else(zero);
        let step = AdamWStep {
            lr: 3e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.1,
            step: self.step,
        };
        let (tensor, m, v) = ops::adamw(tensor, gradient, m, v, step);
        self.moments.insert(name, [m, v]);
        let tensor = Tensor::from_inner(tensor.reshape(shape)).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}
