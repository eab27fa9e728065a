use crate::ops::{self, Activation, composed};
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

    /// The same norm whose running statistics take `momentum` of each batch's, as PyTorch counts it.
    #[must_use]
    pub fn with_momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    /// Vectors, each of which stands for a picture of one pixel (`torch.nn.BatchNorm1d`).
    ///
    /// # Shapes
    /// `[B, C]` to `[B, C]`.
    pub fn vectors(&self, x: Tensor<2>, statistics: Statistics) -> Tensor<2> {
        self.rows(x, statistics, Activation::None)
    }

    /// Pixels with their channels last, and what follows the norm.
    ///
    /// # Shapes
    /// `[B, H, W, C]` to `[B, H, W, C]`.
    pub fn channels_last(
        &self,
        x: Tensor<4>,
        statistics: Statistics,
        activation: Activation,
    ) -> Tensor<4> {
        let [b, h, w, c] = x.dims();
        let x = self.rows(x.reshape([b * h * w, c]), statistics, activation);
        x.reshape([b, h, w, c])
    }

    /// # Shapes
    /// `[B, C, H, W]` to `[B, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>, statistics: Statistics) -> Tensor<4> {
        let x = x.permute([0, 2, 3, 1]);
        let x = self.channels_last(x, statistics, Activation::None);
        x.permute([0, 3, 1, 2])
    }

    fn rows(&self, x: Tensor<2>, statistics: Statistics, activation: Activation) -> Tensor<2> {
        let (gamma, beta) = (self.weight.val(), self.bias.val());
        if statistics == Statistics::Running {
            let mean = self.running_mean.value_sync().unsqueeze();
            let variance = self.running_var.value_sync();
            let scale: Tensor<1> = gamma / (variance + self.eps).sqrt();
            let x = (x - mean) * scale.unsqueeze() + beta.unsqueeze();
            return composed::activate(x, activation);
        }
        let relu = activation == Activation::Relu;
        let rows = x.dims()[0] as f64;
        let (y, mean, variance) = ops::batch_norm(x, gamma, beta, self.eps as f32, relu);
        // the stored variance is that of the population, estimated from the batch
        self.moved(&self.running_mean, mean, 1.0);
        self.moved(&self.running_var, variance, rows / (rows - 1.0).max(1.0));
        match relu {
            true => y,
            false => composed::activate(y, activation),
        }
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

    fn moved(&self, state: &RunningState<Tensor<1>>, batch: Tensor<1>, factor: f64) {
        let batch = batch.detach() * factor;
        let old = state.value_sync().detach();
        state.update(old * (1.0 - self.momentum) + batch * self.momentum);
        // at once, because a module is stored without asking for what is pending
        state.value_sync();
    }
}
