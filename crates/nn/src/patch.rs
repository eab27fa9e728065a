use crate::linear::Linear;
use crate::norm::LayerNorm;
use crate::ops::{self, Activation, Window};
use crate::weights::{Init, Weights};
use burn::module::Module;
use burn::tensor::Tensor;

/// Non-overlapping patches, each mapped by one linear layer (a strided convolution; Dosovitskiy et al., 2021).
#[derive(Module, Debug)]
pub struct PatchEmbedding {
    proj: Linear,
    patch: usize,
}

impl PatchEmbedding {
    /// Patches of `patch` pixels square over `channels`, mapped to `width`.
    pub fn new(w: &mut Weights, channels: usize, patch: usize, width: usize) -> Self {
        let inputs = channels * patch * patch;
        let init = Init::fan_in(inputs);
        Self {
            proj: w.scope("proj", |w| Linear::new(w, inputs, width, true, init)),
            patch,
        }
    }

    /// # Shapes
    /// `[B, C, H, W]` to `[B, H/patch * W/patch, D]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<3> {
        self.proj.forward(ops::patchify(x, self.patch))
    }
}

/// A stack of strided 3x3 convolutions in place of the patch embedding, which lets a small transformer learn
/// faster (Xiao et al., "Early convolutions help transformers see better", 2021).
///
/// Each stage halves the picture: convolution, GELU, LayerNorm over channels; a linear layer ends the stack.
#[derive(Module, Debug)]
pub struct ConvStem {
    convs: Vec<Linear>,
    norms: Vec<LayerNorm>,
    proj: Linear,
}

const STEM_WINDOW: Window = Window {
    kernel: [3, 3],
    stride: [2, 2],
    padding: [1, 1],
};

impl ConvStem {
    /// A stem for patches of `patch` pixels, a power of two; the channels double towards `width`.
    pub fn new(w: &mut Weights, channels: usize, patch: usize, width: usize, eps: f64) -> Self {
        assert!(
            patch.is_power_of_two(),
            "conv stem: patch size {patch} is no power of two"
        );
        let stages = patch.ilog2() as usize;
        let (mut convs, mut norms) = (Vec::new(), Vec::new());
        let mut inputs = channels;
        for i in 0..stages {
            let outputs = width >> (stages - 1 - i);
            let fan_in = 9 * inputs;
            let init = Init::Normal((2.0 / fan_in as f32).sqrt());
            w.scope(&format!("convs.{i}"), |w| {
                convs.push(Linear::new(w, fan_in, outputs, true, init));
            });
            w.scope(&format!("norms.{i}"), |w| {
                norms.push(LayerNorm::new(w, outputs, eps));
            });
            inputs = outputs;
        }
        let init = Init::fan_in(inputs);
        let proj = w.scope("proj", |w| Linear::new(w, inputs, width, true, init));
        Self { convs, norms, proj }
    }

    /// # Shapes
    /// `[B, C, H, W]` to `[B, H/patch * W/patch, D]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<3> {
        let mut x = x.permute([0, 2, 3, 1]); // [B, H, W, C]
        for (conv, norm) in self.convs.iter().zip(&self.norms) {
            x = conv.fused(ops::unfold(x, STEM_WINDOW), Activation::Gelu, None); // [B, H/2, W/2, C']
            x = norm.forward(x);
        }
        let [b, h, w, c] = x.dims();
        self.proj.forward(x.reshape([b, h * w, c]))
    }
}
