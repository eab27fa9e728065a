//! Blocks of residual networks (He et al., "Deep residual learning for image recognition", 2016).

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::avg_pool2d;
use burn::tensor::ops::AvgPoolOptions;
use vlm_nn::weights::Weights;
use vlm_nn::{BatchNorm2d, Conv2d, Statistics};

/// A bottleneck's output is so many times as wide as its stage.
pub(super) const EXPANSION: usize = 4;

/// How a block skips pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipping {
    /// The means of neighbours, before the convolution of the shortcut and after the 3x3 one: CLIP's ResNets.
    Pooled,
    /// The 3x3 convolution and that of the shortcut have a stride: torchvision's, also called ResNet V1.5.
    Strided,
}

pub(super) fn shrunk(x: Tensor<4>, by: usize) -> Tensor<4> {
    if by == 1 {
        return x;
    }
    avg_pool2d(x, AvgPoolOptions::new([by, by]).with_stride([by, by]))
}

pub(super) fn conv(
    w: &mut Weights,
    name: &str,
    channels: [usize; 2],
    window: [usize; 3],
) -> Conv2d {
    w.scope(name, |w| Conv2d::new(w, channels, window, false))
}

pub(super) fn norm(w: &mut Weights, name: &str, channels: usize) -> BatchNorm2d {
    w.scope(name, |w| BatchNorm2d::new(w, channels))
}

/// A convolution of single pixels, where a block changes the size or the number of channels.
#[derive(Module, Debug)]
struct Shortcut {
    conv: Conv2d,
    norm: BatchNorm2d,
}

impl Shortcut {
    /// None where the input fits the output as it is.
    fn new(
        w: &mut Weights,
        [inputs, outputs]: [usize; 2],
        pool: usize,
        stride: usize,
    ) -> Option<Self> {
        (pool * stride > 1 || inputs != outputs).then(|| {
            w.scope("shortcut", |w| Self {
                conv: conv(w, "conv", [inputs, outputs], [1, stride, 0]),
                norm: norm(w, "norm", outputs),
            })
        })
    }
}

/// Channels of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockWidths {
    /// Of its input.
    pub inputs: usize,
    /// Between the convolutions of a bottleneck: a 1x1, a 3x3 and another 1x1; none for a block of two 3x3 convolutions,
    /// as in ResNets of 18 and 34 layers.
    pub inner: Option<usize>,
    /// Of its output.
    pub outputs: usize,
}

/// A residual block.
#[derive(Module, Debug)]
pub(super) struct ResidualBlock {
    conv1: Conv2d,
    norm1: BatchNorm2d,
    conv2: Conv2d,
    norm2: BatchNorm2d,
    conv3: Option<Conv2d>,
    norm3: Option<BatchNorm2d>,
    shortcut: Option<Shortcut>,
    pool: usize,
}

impl ResidualBlock {
    /// Of the pixels every `stride`-th is kept.
    pub(super) fn new(
        w: &mut Weights,
        widths: BlockWidths,
        stride: usize,
        skipping: Skipping,
    ) -> Self {
        let (pool, stride) = match skipping {
            Skipping::Pooled => (stride, 1),
            Skipping::Strided => (1, stride),
        };
        let (inputs, outputs) = (widths.inputs, widths.outputs);
        let width = widths.inner.unwrap_or(outputs);
        // the first 3x3 convolution has the stride
        let (first, second) = match widths.inner {
            Some(_) => ([1, 1, 0], [3, stride, 1]),
            None => ([3, stride, 1], [3, 1, 1]),
        };
        let last = widths.inner.map(|_| {
            let conv = conv(w, "conv3", [width, outputs], [1, 1, 0]);
            (conv, norm(w, "norm3", outputs))
        });
        let (conv3, norm3) = last.unzip();
        Self {
            conv1: conv(w, "conv1", [inputs, width], first),
            norm1: norm(w, "norm1", width),
            conv2: conv(w, "conv2", [width, width], second),
            norm2: norm(w, "norm2", width),
            conv3,
            norm3,
            shortcut: Shortcut::new(w, [inputs, outputs], pool, stride),
            pool,
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>, s: Statistics) -> Tensor<4> {
        let short = match &self.shortcut {
            Some(Shortcut { conv, norm }) => {
                norm.forward(conv.forward(shrunk(x.clone(), self.pool)), s)
            }
            None => x.clone(),
        };
        let x = relu(self.norm1.forward(self.conv1.forward(x), s));
        let x = self.norm2.forward(self.conv2.forward(x), s);
        let x = match (&self.conv3, &self.norm3) {
            (Some(conv), Some(norm)) => norm.forward(conv.forward(shrunk(relu(x), self.pool)), s),
            _ => x,
        };
        relu(x + short)
    }
}
