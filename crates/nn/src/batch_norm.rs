use crate::weights::{Init, Weights};
use burn::module::{Module, Param, RunningState};
use burn::tensor::Tensor;

/// Which mean and variance a [`BatchNorm2d`] divides by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Statistics {
    /// Those of earlier batches, as stored: inference, and fine-tuning with frozen statistics.
    #[default]
    Running,
    /// Those of the batch itself, which then move the stored ones: training. Replicas of a model share the stored ones,
    /// and batches that run side by side move them one after the other, in no certain order.
    Batch,
}

/// BatchNorm over the channels of pictures (Ioffe & Szegedy, 2015); parameters `weight` and `bias`, statistics
/// `running_mean` and `running_var`, which no gradient reaches.
#[derive(Module, Debug)]
pub struct BatchNorm2d {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: RunningState<Tensor<1>>,
    running_var: RunningState<Tensor<1>>,
    eps: f64,
    momentum: f64,
}

impl BatchNorm2d {
    /// A norm of `channels` channels with PyTorch's constants.
    pub fn new(w: &mut Weights, channels: usize) -> Self {
        Self::with_eps(w, channels, 1e-5)
    }

    /// The same with another number added to the variance.
    pub fn with_eps(w: &mut Weights, channels: usize, eps: f64) -> Self {
        let mut statistic = |name, init| {
            let tensor = w.param(name, [channels], init).val();
            RunningState::new(tensor.set_require_grad(false))
        };
        Self {
            running_mean: statistic("running_mean", Init::Zeros),
            running_var: statistic("running_var", Init::Ones),
            weight: w.param("weight", [channels], Init::Ones),
            bias: w.param("bias", [channels], Init::Zeros),
            eps,
            momentum: 0.1,
        }
    }

    /// # Shapes
    /// `[B, C, H, W]` to `[B, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>, statistics: Statistics) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let (x, mean, variance) = match statistics {
            Statistics::Running => {
                let mean = self.running_mean.value_sync().reshape([1, c, 1, 1]);
                let variance = self.running_var.value_sync().reshape([1, c, 1, 1]);
                (x - mean.clone(), mean, variance)
            }
            Statistics::Batch => {
                let over_batch = |x: Tensor<4>| x.mean_dim(0).mean_dim(2).mean_dim(3);
                let mean = over_batch(x.clone()); // [1, C, 1, 1]
                let centred = x - mean.clone();
                let variance = over_batch(centred.clone().powi_scalar(2));
                (centred, mean, variance)
            }
        };
        if statistics == Statistics::Batch {
            // the stored variance is that of the population, estimated from the batch
            let count = (b * h * w) as f64;
            let unbiased = count / (count - 1.0).max(1.0);
            self.moved(&self.running_mean, mean, 1.0);
            self.moved(&self.running_var, variance.clone(), unbiased);
        }
        let scale = self.weight.val().reshape([1, c, 1, 1]) / (variance + self.eps).sqrt();
        x * scale + self.bias.val().reshape([1, c, 1, 1])
    }

    /// What the running statistics make of the norm: a factor and a summand of each channel.
    ///
    /// # Shapes
    /// `[C]` each.
    pub fn affine(&self) -> (Tensor<1>, Tensor<1>) {
        let variance = self.running_var.value_sync();
        let scale = self.weight.val() / (variance + self.eps).sqrt();
        let shift = self.bias.val() - self.running_mean.value_sync() * scale.clone();
        (scale, shift)
    }

    /// Other statistics and parameters, for tests.
    #[cfg(test)]
    pub(crate) fn set(
        &mut self,
        mean: Tensor<1>,
        variance: Tensor<1>,
        weight: Tensor<1>,
        bias: Tensor<1>,
    ) {
        self.running_mean.update(mean);
        self.running_var.update(variance);
        self.weight = Param::from_tensor(weight);
        self.bias = Param::from_tensor(bias);
    }

    fn moved(&self, state: &RunningState<Tensor<1>>, batch: Tensor<4>, factor: f64) {
        let channels = batch.dims()[1];
        let batch = batch.detach().reshape([channels]) * factor;
        let old = state.value_sync().detach();
        state.update(old * (1.0 - self.momentum) + batch * self.momentum);
        // at once, because a module is stored without asking for what is pending
        state.value_sync();
    }
}
