use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use std::collections::BTreeMap;

/// A tensor without its graph, whatever device it came from.
pub(crate) fn plain<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.is_autodiff() {
        true => tensor.inner(),
        false => tensor,
    }
}

/// Parameters by name, flat and without a graph.
#[derive(Default)]
struct Parameters {
    path: Vec<String>,
    found: BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Parameters {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = plain(param.val()).flatten::<1>(0, D - 1);
        self.found.insert(self.path.join("."), value);
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

struct Towards {
    path: Vec<String>,
    model: BTreeMap<String, Tensor<1>>,
    momentum: f32,
}

impl ModuleMapper for Towards {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(model) = self.model.remove(&self.path.join(".")) else {
            return param;
        };
        let (id, average, mapper) = param.consume();
        let (shape, average) = (average.dims(), plain(average).flatten::<1>(0, D - 1));
        assert_eq!(average.dims(), model.dims(), "{}", self.path.join("."));
        let average = average * self.momentum + model * (1.0 - self.momentum);
        let average = average.reshape(shape).set_require_grad(false);
        Param::from_mapped_value(id, average, mapper)
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

/// The exponential moving average of a model's parameters, one step on: `momentum` times the average plus the rest
/// times the model (He et al., "Momentum contrast", 2020; also the EMA of weights that are evaluated or shipped).
///
/// Parameters are paired by name. What the average has and the model lacks stays as it is, such as queues; what the
/// model has and the average lacks is not followed, such as a head. The average lies on a device without gradients.
///
/// # Panics
/// If two of one name differ in size.
#[must_use]
pub fn momentum_update<A: Module, M: Module>(average: A, model: &M, momentum: f32) -> A {
    let mut parameters = Parameters::default();
    model.visit(&mut parameters);
    average.map(&mut Towards {
        path: Vec::new(),
        model: parameters.found,
        momentum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use vlm_nn::Linear;
    use vlm_nn::weights::{Init, Weights, collect};

    #[test]
    fn an_average_goes_its_share_of_the_way_to_a_model_on_a_device_with_gradients() {
        let (plain, tracked) = (Device::flex(), Device::flex().autodiff());
        let build = |seed, device: &Device| {
            let mut weights = Weights::random(seed, device);
            Linear::new(&mut weights, 3, 2, true, Init::NORMAL)
        };
        let (average, model) = (build(1, &plain), build(2, &tracked));
        let (a, b) = (collect(&average), collect(&model));
        let moved = collect(&momentum_update(average, &model, 0.75));
        for (name, (_, values)) in moved {
            let pairs = a[&name].1.iter().zip(&b[&name].1);
            for (found, (a, b)) in values.iter().zip(pairs) {
                assert!((found - (0.75 * a + 0.25 * b)).abs() < 1e-7, "{name}");
            }
        }
    }
}
