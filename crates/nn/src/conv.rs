use crate::ops::{self, Window};
use crate::weights::{Init, Weights};
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// A convolution over pictures with channels first; parameters `weight` (`[out, in, K, K]`, as PyTorch stores it) and,
/// if asked for, `bias`.
///
/// It is a product of windows of pixels with the weight ([`ops::conv2d`]), which is faster on a CPU than Burn's
/// convolution.
#[derive(Module, Debug)]
pub struct Conv2d {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// A square kernel of `kernel` pixels that moves by `stride` over a picture with `padding` zeros on every side.
    pub fn new(
        w: &mut Weights,
        [inputs, outputs]: [usize; 2],
        [kernel, stride, padding]: [usize; 3],
        bias: bool,
    ) -> Self {
        let init = Init::fan_in(inputs * kernel * kernel);
        Self {
            weight: w.param("weight", [outputs, inputs, kernel, kernel], init),
            bias: bias.then(|| w.param("bias", [outputs], Init::Zeros)),
            stride,
            padding,
        }
    }

    /// # Shapes
    /// `[B, in, H, W]`; gives `[B, out, (H + 2 padding - K) / stride + 1, ..]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let [outputs, inputs, kernel, _] = weight.dims();
        let weight = weight.permute([0, 2, 3, 1]); // [out, K, K, in]
        let weight = weight.reshape([outputs, kernel * kernel * inputs]);
        let window = Window {
            kernel: [kernel; 2],
            stride: [self.stride; 2],
            padding: [self.padding; 2],
        };
        let bias = self.bias.as_ref().map(|b| b.val());
        let x = x.permute([0, 2, 3, 1]); // [B, H, W, in]
        let x = ops::conv2d(x, weight, bias, window); // [B, OH, OW, out]
        x.permute([0, 3, 1, 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn windows_of_every_kind_are_convolved_as_burn_does() {
        let device = Device::flex();
        for (kernel, stride, padding) in [(1, 1, 0), (3, 1, 1), (3, 2, 1), (2, 2, 0), (1, 2, 0)] {
            let mut weights = Weights::random(1, &device);
            let mut conv = Conv2d::new(&mut weights, [3, 4], [kernel, stride, padding], true);
            conv.bias = Some(Param::from_data([0.5, -1.0, 2.0, 0.0], &device));
            let x = Tensor::random([2, 3, 7, 6], Distribution::Default, &device);
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
}
