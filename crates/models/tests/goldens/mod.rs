//! Golden files of models, and what their tests compare.

#![allow(dead_code, reason = "each test uses a part")]

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use vlm_models::capability::Tokens;
use vlm_models::reference::{Inputs, Numbers, Reference, Value};
use vlm_nn::ops::{self, AdamWStep};
use vlm_nn::weights::{Checkpoint, StoreDtype, to_bytes};

/// Arguments and results of a golden file.
pub struct Golden {
    pub inputs: BTreeMap<String, Value>,
    pub outputs: BTreeMap<String, Value>,
}

impl Golden {
    pub fn open(path: &Path) -> Self {
        let mut file = Checkpoint::open(path).unwrap();
        let tensors: Vec<(String, bool)> = file
            .tensors()
            .map(|t| (t.name.to_owned(), t.dtype.is_float()))
            .collect();
        let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
        for (name, float) in tensors {
            let value = if float {
                let (shape, values) = file.take_any(&name).unwrap();
                Value {
                    shape,
                    numbers: Numbers::Floats(values),
                }
            } else {
                let (shape, values) = file.take_integers(&name).unwrap();
                Value {
                    shape,
                    numbers: Numbers::Integers(values),
                }
            };
            match name.split_once('.') {
                Some(("in", name)) => inputs.insert(name.to_owned(), value),
                Some(("out", name)) => outputs.insert(name.to_owned(), value),
                // gradients and the like
                _ => None,
            };
        }
        assert!(!outputs.is_empty());
        Self { inputs, outputs }
    }

    pub fn floats<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let inputs = Inputs::new(self.inputs.clone());
        inputs.floats(name, device).unwrap().unwrap()
    }

    /// A list of integers.
    pub fn list(&self, name: &str) -> Vec<usize> {
        let Numbers::Integers(ids) = &self.inputs[name].numbers else {
            panic!("{name} is no tensor of integers");
        };
        ids.iter().map(|&id| id as usize).collect()
    }

    /// A result, as floats.
    pub fn output(&self, name: &str) -> Vec<f32> {
        let Numbers::Floats(values) = &self.outputs[name].numbers else {
            panic!("{name} is no tensor of floats");
        };
        values.clone()
    }

    pub fn rows(&self, name: &str) -> Vec<Vec<i64>> {
        let value = &self.inputs[name];
        let Numbers::Integers(ids) = &value.numbers else {
            panic!("{name} is no tensor of integers");
        };
        ids.chunks(value.shape[1]).map(<[i64]>::to_vec).collect()
    }

    pub fn tokens(&self, name: &str, mask: &str) -> Tokens {
        let ids = self.rows(name).into_iter();
        let ids = ids.map(|row| row.into_iter().map(|id| id as u32).collect());
        let mask = self.inputs.contains_key(mask).then(|| self.rows(mask));
        let mask = mask.map(|mask| {
            let rows = mask.into_iter();
            rows.map(|row| row.into_iter().map(|x| x != 0).collect())
                .collect()
        });
        Tokens::new(ids.collect(), mask).unwrap()
    }

    /// Every result of the golden file, from the model.
    #[track_caller]
    pub fn check(&self, name: &str, model: &dyn Reference) {
        let inputs = Inputs::new(self.inputs.clone());
        let found = model.outputs(&inputs).unwrap();
        assert_eq!(inputs.unread(), [""; 0], "{name}");
        for (output, expected) in &self.outputs {
            let found = found
                .get(output)
                .unwrap_or_else(|| panic!("{name}: no {output}"));
            match (&found.numbers, &expected.numbers) {
                (Numbers::Floats(found), Numbers::Floats(expected)) => {
                    close(&format!("{name}: {output}"), found, expected, 2e-5);
                }
                (found, expected) => assert_eq!(found, expected, "{name}: {output}"),
            }
            // a loss is a number there and a tensor of one here
            if !expected.shape.is_empty() {
                assert_eq!(found.shape, expected.shape, "{name}: {output}");
            }
        }
    }
}

/// Within a share of the largest value: both sides are sums of a few dozen terms in f32.
#[track_caller]
pub fn close(what: &str, found: &[f32], expected: &[f32], share: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= share * largest,
            "{what}, {i}: {a} is not {b} (largest {largest})"
        );
    }
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Compares gradients by the full names of their parameters.
struct Compare<'a> {
    what: &'a str,
    path: Vec<String>,
    gradients: &'a Gradients,
    expected: &'a mut Checkpoint,
    without: Vec<String>,
}

impl ModuleVisitor for Compare<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (name, shape) = (self.path.join("."), param.val().dims());
        let Some(found) = param.val().grad(self.gradients).map(values) else {
            self.without.push(name);
            return;
        };
        let expected = self.expected.take(&name, &shape).unwrap();
        let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        // softmax does not see what is added to every key: the gradient of their bias is rounding
        if largest > 1e-6 {
            close(&format!("{}: {name}", self.what), &found, &expected, 1e-3);
        }
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

/// Checks every gradient against a checkpoint of them, of which none may be left over; gives the names of the
/// parameters without one.
#[track_caller]
pub fn check_gradients<M: Module>(
    what: &str,
    model: &M,
    gradients: &Gradients,
    mut expected: Checkpoint,
) -> Vec<String> {
    let mut compare = Compare {
        what,
        path: Vec::new(),
        gradients,
        expected: &mut expected,
        without: Vec::new(),
    };
    model.visit(&mut compare);
    let without = compare.without;
    assert_eq!(expected.unused().collect::<Vec<_>>(), [""; 0], "{what}");
    without
}

/// One step of AdamW on every parameter that has a gradient.
struct Step<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    moments: &'a mut BTreeMap<String, [Tensor<1>; 2]>,
    number: u64,
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = param.val().grad(self.gradients) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let gradient = gradient.flatten::<1>(0, D - 1);
        let zeros = gradient.zeros_like();
        let name = self.path.join(".");
        let [m, v] = self.moments.remove(&name).unwrap_or([zeros.clone(), zeros]);
        let step = AdamWStep {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.05,
            step: self.number,
        };
        let tensor = tensor.inner().flatten::<1>(0, D - 1);
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

pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The tensors of a checkpoint after some change.
pub fn edited(mut stored: Checkpoint, edit: impl FnOnce(&mut Tensors)) -> Checkpoint {
    let names: Vec<String> = stored.tensors().map(|t| t.name.to_owned()).collect();
    let mut tensors: Tensors = names
        .into_iter()
        .map(|name| {
            let tensor = stored.take_any(&name).unwrap();
            (name, tensor)
        })
        .collect();
    edit(&mut tensors);
    let bytes = to_bytes(&tensors, StoreDtype::F32, None).unwrap();
    Checkpoint::parse(&bytes, "edited").unwrap()
}

/// Ten losses, each before a step of AdamW as the scripts in reference/ take it. `loss` may change
/// the model first; its number counts from 0.
pub fn ten_steps<M: Module>(
    mut model: M,
    mut loss: impl FnMut(M, u64) -> (M, Tensor<1>),
) -> Vec<f32> {
    let (mut moments, mut losses) = (BTreeMap::new(), Vec::new());
    for number in 0..10 {
        let found;
        (model, found) = loss(model, number);
        losses.push(values(found.clone())[0]);
        model = model.map(&mut Step {
            path: Vec::new(),
            gradients: &found.backward(),
            moments: &mut moments,
            number: number + 1,
        });
    }
    losses
}
