use crate::weights::{Init, Weights};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

/// A convolution over pictures with channels first; parameters `weight` (`[out, in, K, K]`, as PyTorch stores it) and,
/// if asked for, `bias`.
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
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        let options = ConvOptions::new(stride, padding, [1, 1], 1);
        let bias = self.bias.as_ref().map(|b| b.val());
        conv2d(x, self.weight.val(), bias, options)
    }
}
