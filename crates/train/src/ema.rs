//! A moving average of the weights, as `torch.optim.swa_utils.AveragedModel` keeps it.

use crate::Error;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use std::collections::BTreeMap;
use vlm_nn::weights::{Checkpoint, StoreDtype, collect, to_bytes};

/// The average by parameter name, flattened to `[count]`; running statistics are taken as they are.
pub struct Ema {
    decay: f64,
    averages: BTreeMap<String, Tensor<1>>,
}

struct Visit<'a> {
    path: Vec<String>,
    ema: &'a mut Ema,
}

impl ModuleVisitor for Visit<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let new = param.val().inner().flatten::<1>(0, D - 1);
        let decay = self.ema.decay;
        let average = match self.ema.averages.remove(&name) {
            Some(old) if !crate::groups::is_statistic(&name) => old * decay + new * (1.0 - decay),
            _ => new,
        };
        self.ema.averages.insert(name, average);
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

struct Apply<'a> {
    path: Vec<String>,
    averages: &'a BTreeMap<String, Tensor<1>>,
}

impl ModuleMapper for Apply<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(average) = self.averages.get(&self.path.join(".")) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let average = average.clone().reshape(tensor.dims());
        Param::from_mapped_value(id, average, mapper)
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

impl Ema {
    /// The average of the weights that `model` begins with.
    pub fn new<M: Module>(decay: f64, model: &M) -> Self {
        let mut ema = Self {
            decay,
            averages: BTreeMap::new(),
        };
        ema.update(model);
        ema
    }

    /// Takes the weights after a step in.
    pub fn update<M: Module>(&mut self, model: &M) {
        model.visit(&mut Visit {
            path: Vec::new(),
            ema: self,
        });
    }

    /// A model without gradients whose weights are the averages.
    pub fn averaged<M: Module>(&self, model: &M) -> M {
        model.valid().map(&mut Apply {
            path: Vec::new(),
            averages: &self.averages,
        })
    }

    /// The averages as a safetensors file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut tensors = BTreeMap::new();
        for (name, average) in &self.averages {
            let values: Vec<f32> = average.clone().into_data().try_to_vec().expect("f32");
            tensors.insert(name.clone(), (vec![values.len()], values));
        }
        Ok(to_bytes(&tensors, StoreDtype::F32, None)?)
    }

    /// Takes the averages of a file up again.
    ///
    /// # Errors
    /// Averages that do not match the parameters.
    pub fn restore<M: Module>(
        decay: f64,
        model: &M,
        mut checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<Self, Error> {
        let (mut averages, mut differences) = (BTreeMap::new(), Vec::new());
        for (name, (_, values)) in collect(model) {
            match checkpoint.take(&name, &[values.len()]) {
                Ok(average) => {
                    let data = TensorData::new(average, [values.len()]);
                    averages.insert(name, Tensor::from_data(data, device));
                }
                Err(difference) => differences.push(difference),
            }
        }
        if !differences.is_empty() {
            return Err(vlm_nn::weights::Error::Mismatch {
                name: checkpoint.name().to_owned(),
                differences,
            }
            .into());
        }
        Ok(Self { decay, averages })
    }
}
