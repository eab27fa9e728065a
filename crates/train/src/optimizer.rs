//! AdamW over the parameters of a module, with decay groups, clipping and accumulation.

use crate::Error;
use crate::groups::{Groups, is_statistic};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use std::collections::{BTreeMap, BTreeSet};
use vlm_nn::ops::{self, AdamWStep};
use vlm_nn::weights::{Checkpoint, StoreDtype, to_bytes};

/// Gradients by parameter name, flattened to `[count]`, on the device.
#[derive(Default)]
pub struct Accumulated {
    sums: BTreeMap<String, Tensor<1>>,
    /// Those that are to be learned.
    parameters: BTreeSet<String>,
}

/// The moments of AdamW by parameter name.
pub struct Optimizer {
    moments: BTreeMap<String, [Tensor<1>; 2]>,
    step: u64,
    weight_decay: f64,
    betas: [f64; 2],
    groups: Groups,
}

/// Decay pulls matrices towards zero; vectors (biases, norms), positions, token embeddings and the temperature
/// keep their scale.
pub fn decays(name: &str, rank: usize) -> bool {
    rank >= 2
        && !name.ends_with("position")
        && !name.contains("position.")
        && !name.contains("token.")
}

struct Gather<'a> {
    path: Vec<String>,
    grads: &'a Gradients,
    frozen: &'a BTreeSet<String>,
    into: &'a mut Accumulated,
}

impl ModuleVisitor for Gather<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        if is_statistic(&name) || self.frozen.contains(&name) {
            return;
        }
        self.into.parameters.insert(name.clone());
        let Some(grad) = param.val().grad(self.grads) else {
            return;
        };
        self.into.register(name, grad.flatten::<1>(0, D - 1));
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

impl Accumulated {
    /// Adds the gradients of a batch, but those of `frozen` parameters.
    pub fn add<M: Module>(&mut self, module: &M, grads: &Gradients, frozen: &BTreeSet<String>) {
        let mut visitor = Gather {
            path: Vec::new(),
            grads,
            frozen,
            into: self,
        };
        module.visit(&mut visitor);
    }

    /// Adds the gradients of another batch.
    pub fn merge(&mut self, other: Self) {
        self.parameters.extend(other.parameters);
        for (name, grad) in other.sums {
            self.register(name, grad);
        }
    }

    fn register(&mut self, name: String, grad: Tensor<1>) {
        let sum = match self.sums.remove(&name) {
            Some(sum) => sum + grad,
            None => grad,
        };
        self.sums.insert(name, sum);
    }

    /// The parameters that got no gradient: the sign of a missing backward pass.
    pub fn missing(&self) -> Vec<&str> {
        let missing = self.parameters.iter();
        let missing = missing.filter(|name| !self.sums.contains_key(*name));
        missing.map(String::as_str).collect()
    }

    /// Each gradient by the name of its parameter, flattened to `[count]`.
    pub fn by_name(&self) -> &BTreeMap<String, Tensor<1>> {
        &self.sums
    }

    /// Multiplies by `1 / batches` and scales down to `clip_norm`; gives the norm before clipping.
    pub fn finish(&mut self, batches: usize, clip_norm: f64) -> f64 {
        let squares: f64 = self
            .sums
            .values()
            .map(|g| f64::from((g.clone() * g.clone()).sum().into_scalar::<f32>()))
            .sum();
        let norm = squares.sqrt() / batches as f64;
        let scale = (1.0 / batches as f64) * (clip_norm / norm.max(1e-12)).min(1.0);
        if scale != 1.0 {
            for grad in self.sums.values_mut() {
                *grad = grad.clone() * scale;
            }
        }
        norm
    }
}

struct Update<'a> {
    path: Vec<String>,
    optimizer: &'a mut Optimizer,
    grads: Accumulated,
    learning_rate: f64,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let Some(grad) = self.grads.sums.remove(&name) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let tensor = tensor.inner().flatten::<1>(0, D - 1);
        let optimizer = &mut *self.optimizer;
        let [m, v] = optimizer
            .moments
            .remove(&name)
            .unwrap_or_else(|| [grad.zeros_like(), grad.zeros_like()]);
        let weight_decay = if decays(&name, D) {
            optimizer.weight_decay
        } else {
            0.0
        };
        let step = AdamWStep {
            lr: (self.learning_rate * optimizer.groups.factor(&name)) as f32,
            beta1: optimizer.betas[0] as f32,
            beta2: optimizer.betas[1] as f32,
            eps: 1e-8,
            weight_decay: weight_decay as f32,
            step: optimizer.step,
        };
        let (tensor, m, v) = ops::adamw(tensor, grad, m, v, step);
        optimizer.moments.insert(name, [m, v]);
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

impl Optimizer {
    /// An optimizer before its first step; `weight_decay` is decoupled and acts on matrices, `betas` are the decay
    /// rates of the moments, `groups` say which parameters learn more slowly.
    pub fn new(weight_decay: f64, betas: [f64; 2], groups: Groups) -> Self {
        Self {
            moments: BTreeMap::new(),
            step: 0,
            weight_decay,
            betas,
            groups,
        }
    }

    /// Which parameters learn, and how fast.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// One update of every parameter that has a gradient.
    pub fn step<M: Module>(&mut self, module: M, grads: Accumulated, learning_rate: f64) -> M {
        self.step += 1;
        let mut mapper = Update {
            path: Vec::new(),
            optimizer: self,
            grads,
            learning_rate,
        };
        module.map(&mut mapper)
    }

    /// The moments as a safetensors file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut tensors = BTreeMap::new();
        for (name, moments) in &self.moments {
            for (suffix, moment) in ["m", "v"].iter().zip(moments) {
                let values: Vec<f32> = moment
                    .clone()
                    .into_data()
                    .try_to_vec()
                    .expect("f32 moments");
                tensors.insert(format!("{name}.{suffix}"), (vec![values.len()], values));
            }
        }
        Ok(to_bytes(&tensors, StoreDtype::F32, None)?)
    }

    /// Takes the moments of a file up again; `step` is the last step done.
    ///
    /// # Errors
    /// Moments that do not match the parameters.
    pub fn restore<M: Module>(
        &mut self,
        module: &M,
        mut checkpoint: Checkpoint,
        step: u64,
        device: &Device,
    ) -> Result<(), Error> {
        let mut differences = Vec::new();
        for (name, (_, values)) in vlm_nn::weights::collect(module) {
            if is_statistic(&name) || self.groups.frozen().contains(&name) {
                continue;
            }
            let mut moments = Vec::new();
            for suffix in ["m", "v"] {
                match checkpoint.take(&format!("{name}.{suffix}"), &[values.len()]) {
                    Ok(moment) => {
                        let data = TensorData::new(moment, [values.len()]);
                        moments.push(Tensor::<1>::from_data(data, device));
                    }
                    Err(difference) => differences.push(difference),
                }
            }
            if let Ok(moments) = <[Tensor<1>; 2]>::try_from(moments) {
                self.moments.insert(name, moments);
            }
        }
        if !differences.is_empty() {
            return Err(vlm_nn::weights::Error::Mismatch {
                name: checkpoint.name().to_owned(),
                differences,
            }
            .into());
        }
        self.step = step;
        Ok(())
    }
}
