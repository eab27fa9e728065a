//! The feature pyramid network.

use burn::module::Module;
use burn::tensor::Tensor;
use vlm_nn::Conv2d;
use vlm_nn::weights::Weights;

/// Maps of one number of channels from those of a backbone, the coarser ones added to the finer; parameters `inner.*` and
/// `layer.*`.
#[derive(Module, Debug)]
pub struct FeaturePyramid {
    inner: Vec<Conv2d>,
    layer: Vec<Conv2d>,
}

impl FeaturePyramid {
    /// `inputs` are the channels of the backbone's maps, finest first.
    pub fn new(w: &mut Weights, inputs: &[usize], outputs: usize) -> Self {
        let conv = |w: &mut Weights, name: &str, i: usize, inputs: usize, window: [usize; 3]| {
            let channels = [inputs, outputs];
            w.scope(&format!("{name}.{i}"), |w| {
                Conv2d::new(w, channels, window, true)
            })
        };
        let each = inputs.iter().enumerate();
        let inner = each.map(|(i, &inputs)| conv(w, "inner", i, inputs, [1, 1, 0]));
        Self {
            inner: inner.collect(),
            layer: (0..inputs.len())
                .map(|i| conv(w, "layer", i, outputs, [3, 1, 1]))
                .collect(),
        }
    }

    /// A map for each of the backbone's and one that skips every second cell of the coarsest.
    ///
    /// # Shapes
    /// `features: [B, H, W, C]`, each of half the extents of the one before; gives as many and one more, `[B, H, W,
    /// outputs]`.
    pub fn forward(&self, features: Vec<Tensor<4>>) -> Vec<Tensor<4>> {
        let mut maps = Vec::new();
        let mut above: Option<Tensor<4>> = None;
        for (i, x) in features.into_iter().enumerate().rev() {
            let mut x = self.inner[i].channels_last(x);
            if let Some(above) = above {
                x = x + doubled(above);
            }
            maps.push(self.layer[i].channels_last(x.clone()));
            above = Some(x);
        }
        maps.reverse();
        if let Some(last) = maps.last() {
            maps.push(halved(last.clone()));
        }
        maps
    }
}

/// Every cell four times: `[B, H, W, C]` to `[B, 2 H, 2 W, C]`.
fn doubled(x: Tensor<4>) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    x.reshape([b, h, 1, w, 1, c])
        .expand([b, h, 2, w, 2, c])
        .reshape([b, 2 * h, 2 * w, c])
}

/// Every second cell: `[B, H, W, C]` to `[B, H / 2, W / 2, C]`, rounded up.
fn halved(x: Tensor<4>) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    x.slice(burn::tensor::s![0..b, 0..h;2, 0..w;2, 0..c])
}
