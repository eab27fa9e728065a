use crate::batch_norm::BatchNorm2d;
use crate::ops::{self, Activation, Window};
use crate::weights::{Init, Weights};
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// A convolution over pictures; parameters `weight` (`[out, in / groups, K, K]`, as PyTorch stores it) and, if asked for,
/// `bias`.
///
/// It is a product of windows of pixels with the weight ([`ops::conv2d`]) and works on pictures with channels last;
/// [`Self::forward`] takes and gives them with channels first.
#[derive(Module, Debug)]
pub struct Conv2d {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    stride: usize,
    padding: usize,
    groups: usize,
}

impl Conv2d {
    /// A square kernel of `kernel` pixels that moves by `stride` over a picture with `padding` zeros on every side.
    pub fn new(w: &mut Weights, channels: [usize; 2], window: [usize; 3], bias: bool) -> Self {
        Self::grouped(w, channels, window, 1, bias)
    }

    /// The same for channels in `groups` groups, each convolved by itself; `groups` divides both numbers of channels.
    pub fn grouped(
        w: &mut Weights,
        [inputs, outputs]: [usize; 2],
        [kernel, stride, padding]: [usize; 3],
        groups: usize,
        bias: bool,
    ) -> Self {
        let init = Init::fan_in(inputs / groups * kernel * kernel);
        let window = [kernel, stride, padding];
        Self::with_init(w, [inputs, outputs], window, groups, bias, init)
    }

    /// The same with weights that are drawn otherwise.
    pub fn with_init(
        w: &mut Weights,
        [inputs, outputs]: [usize; 2],
        [kernel, stride, padding]: [usize; 3],
        groups: usize,
        bias: bool,
        init: Init,
    ) -> Self {
        let inputs = inputs / groups;
        Self {
            weight: w.param("weight", [outputs, inputs, kernel, kernel], init),
            bias: bias.then(|| w.param("bias", [outputs], Init::Zeros)),
            stride,
            padding,
            groups,
        }
    }

    /// # Shapes
    /// `[B, in, H, W]`; gives `[B, out, (H + 2 padding - K) / stride + 1, ..]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = x.permute([0, 2, 3, 1]); // [B, H, W, in]
        self.channels_last(x).permute([0, 3, 1, 2])
    }

    /// # Shapes
    /// `[B, H, W, in]`; gives `[B, (H + 2 padding - K) / stride + 1, .., out]`.
    pub fn channels_last(&self, x: Tensor<4>) -> Tensor<4> {
        self.fused(x, None, Activation::None, None)
    }

    /// `activation(norm(conv(x))) + residual` in one pass, the norm with its running statistics.
    ///
    /// # Shapes
    /// `x: [B, H, W, in]`, `residual` and the result `[B, (H + 2 padding - K) / stride + 1, .., out]`.
    pub fn fused(
        &self,
        x: Tensor<4>,
        norm: Option<&BatchNorm2d>,
        activation: Activation,
        residual: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let weight = self.weight.val();
        let [outputs, inputs, kernel, _] = weight.dims();
        let weight = weight.permute([0, 2, 3, 1]); // [out, K, K, in]
        let mut weight = weight.reshape([outputs, kernel * kernel * inputs]);
        let mut bias = self.bias.as_ref().map(|b| b.val());
        if let Some(norm) = norm {
            let (scale, shift) = norm.affine();
            weight = weight * scale.clone().reshape([outputs, 1]);
            bias = Some(match bias {
                Some(bias) => bias * scale + shift,
                None => shift,
            });
        }
        let window = Window {
            kernel: [kernel; 2],
            stride: [self.stride; 2],
            padding: [self.padding; 2],
        };
        ops::conv2d(x, weight, bias, residual, window, self.groups, activation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn windows_of_every_kind_are_convolved_as_burn_does() {
        let device = Device::flex();
        for (kernel, stride, padding) in [(1, 1, 0), (3, 1, 1), (3, 2, 1), (2, 2, 0), (1, 2, 0)] {
            let mut weights = Weights::random(1, &device);
            let mut conv = Conv2d::new(&mut weights, [3, 4], [kernel, stride, padding], true);
            conv.bias = Some(Param::from_data([0.5, -1.0, 2.0, 0.0], &device));
            let x = SplitMix64::new(1).normal_tensor([2, 3, 7, 6], &device);
            let options = burn::tensor::ops::ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
            let bias = conv.bias.as_ref().map(|b| b.val());
            let expected =
                burn::tensor::module::conv2d(x.clone(), conv.weight.val(), bias, options);
            let found = conv.forward(x);
            assert_eq!(found.dims(), expected.dims());
            let error = (found - expected).abs().max().into_scalar::<f32>();
            assert!(error < 1e-5, "{kernel}, {stride}, {padding}: {error}");
        }
    }

    #[test]
    fn a_norm_within_the_convolution_equals_one_behind_it() {
        let device = Device::flex();
        let mut weights = Weights::random(2, &device);
        let conv = Conv2d::grouped(&mut weights, [4, 6], [3, 2, 1], 2, true);
        let mut rng = SplitMix64::new(2);
        let mut uniform = |from: f32, to: f32| {
            let values = [0; 6].map(|_| from + (to - from) * rng.uniform_f32());
            Tensor::<1>::from_data(TensorData::from(values), &device)
        };
        let mut norm = BatchNorm2d::with_eps(&mut weights, 6, 1e-3);
        norm.set(
            uniform(-1.0, 1.0),
            uniform(0.1, 2.0),
            uniform(-1.0, 1.0),
            uniform(-2.0, 2.0),
        );
        let x = rng.normal_tensor([2, 4, 7, 6], &device);
        let expected = norm.forward(conv.forward(x.clone()), crate::Statistics::Running);
        let expected = burn::tensor::activation::relu(expected);
        let x = x.permute([0, 2, 3, 1]);
        let found = conv.fused(x, Some(&norm), Activation::Relu, None);
        let found = found.permute([0, 3, 1, 2]);
        let error = (found - expected).abs().max().into_scalar::<f32>();
        assert!(error < 1e-5, "{error}");
    }
}
