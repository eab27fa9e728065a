//! A moving average of the weights, as `torch.optim.swa_utils.AveragedModel` keeps it.

use crate::Error;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use std::collections::BTreeMap;
use vlm_nn::weights::{Checkpoint, StoreDtype, collect, to_bytes};

/// The average by parameter name, flattened to `[count]`; running statistics are taken as they are.
pub struct Ema {
    decay: f64,
    averages: Averages,
}

/// Averages by the names of parameters and statistics, each flattened to `[count]`.
type Averages = BTreeMap<String, Tensor<1>>;

/// Takes a model in; `kept` says how much remains of a name's average, and none for what is not averaged.
struct Visit<'a, F> {
    path: Vec<String>,
    averages: &'a mut Averages,
    kept: F,
}

impl<F: Fn(&str) -> Option<f64>> ModuleVisitor for Visit<'_, F> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let Some(kept) = (self.kept)(&name) else {
            return;
        };
        let new = param.val().inner().flatten::<1>(0, D - 1);
        let average = match self.averages.remove(&name) {
            Some(old) if kept > 0.0 => old * kept + new * (1.0 - kept),
            _ => new,
        };
        self.averages.insert(name, average);
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

fn take_in<M: Module>(averages: &mut Averages, model: &M, kept: impl Fn(&str) -> Option<f64>) {
    model.visit(&mut Visit {
        path: Vec::new(),
        averages,
        kept,
    });
}

struct Apply<'a> {
    path: Vec<String>,
    averages: &'a Averages,
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

/// A model without gradients whose norms have the statistics of `batches` with the weights as they are, as
/// `torch.optim.swa_utils.update_bn` measures them ("precise BatchNorm": Wu & Johnson, "Rethinking 'Batch' in BatchNorm",
/// 2021). While weights move, running statistics follow them, and through many norms small differences add up.
///
/// `forward` does a batch, which moves the running statistics; what they are after each of the second half of the
/// batches is averaged, so that next to nothing remains of what they were before.
///
/// # Errors
/// A model without such statistics; what `forward` or the batches say.
pub fn with_statistics_of<M: Module, B>(
    model: M,
    batches: impl ExactSizeIterator<Item = Result<B, Error>>,
    mut forward: impl FnMut(&M, &B) -> Result<(), Error>,
) -> Result<M, Error> {
    let (mut averages, mut taken) = (Averages::new(), 0u32);
    let first = batches.len() / 2;
    for (number, batch) in batches.enumerate() {
        forward(&model, &batch?)?;
        if number >= first {
            let kept = f64::from(taken) / f64::from(taken + 1);
            let is_statistic = |name: &str| crate::groups::is_statistic(name).then_some(kept);
            take_in(&mut averages, &model, is_statistic);
            taken += 1;
        }
    }
    if averages.is_empty() {
        return Err(Error::file(
            "recipe",
            "train.statistics_batches: expected none but for a model whose norms have running statistics, found some",
        ));
    }
    Ok(model.map(&mut Apply {
        path: Vec::new(),
        averages: &averages,
    }))
}

impl Ema {
    /// The average of the weights that `model` begins with.
    pub fn new<M: Module>(decay: f64, model: &M) -> Self {
        let mut ema = Self {
            decay,
            averages: Averages::new(),
        };
        ema.update(model);
        ema
    }

    /// Takes the weights after a step in.
    pub fn update<M: Module>(&mut self, model: &M) {
        let decay = self.decay;
        take_in(&mut self.averages, model, |name| {
            let is_statistic = crate::groups::is_statistic(name);
            Some(if is_statistic { 0.0 } else { decay })
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

#[cfg(test)]
mod tests {
    use super::*;
    use vlm_nn::weights::Weights;
    use vlm_nn::{BatchNorm2d, Statistics};

    /// Against the same averages in plain numbers.
    #[test]
    fn statistics_are_those_of_the_second_half_of_the_batches() {
        let device = Device::flex();
        let norm = BatchNorm2d::new(&mut Weights::random(0, &device), 1);
        let values = |i: usize| [i as f32, 3.0 * i as f32];
        let batches = (0..60).map(|i| Ok(values(i)));
        let norm = with_statistics_of(norm, batches, |norm, values| {
            let x = Tensor::<2>::from_data([[values[0]], [values[1]]], &device);
            norm.vectors(x, Statistics::Batch);
            Ok(())
        });
        let found = collect(&norm.expect("statistics"));
        let (mut mean, mut variance) = (0.0, 1.0);
        let mut expected = [0.0; 2];
        for i in 0..60 {
            let i = f64::from(i);
            // of i and 3 i: their mean, and half of their squared distance, the variance of the population
            mean = 0.9 * mean + 0.1 * 2.0 * i;
            variance = 0.9 * variance + 0.1 * 2.0 * i * i;
            if i >= 30.0 {
                expected[0] += mean / 30.0;
                expected[1] += variance / 30.0;
            }
        }
        for (name, expected) in [("running_mean", expected[0]), ("running_var", expected[1])] {
            let found = f64::from(found[name].1[0]);
            assert!(
                (found / expected - 1.0).abs() < 1e-5,
                "{name}: {found}, {expected}"
            );
        }
        assert_eq!(found["weight"].1, [1.0]);
    }
}
