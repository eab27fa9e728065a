use super::cross_attention::looking;
use super::{Fuse, FusionConfig, TextStates, masked_mean, mean_place};
use burn::module::Module;
use burn::tensor::Tensor;
use vlm_nn::weights::Weights;
use vlm_nn::{DecoderBlock, KeyMask, LayerNorm, Linear};

/// Two sequences, each of which looks at the other's last states (Lu et al., "ViLBERT", 2019); the means of both are
/// judged.
#[derive(Module, Debug)]
pub struct CoAttention {
    picture: Stream,
    text: Stream,
    head: Linear,
}

#[derive(Module, Debug)]
struct Stream {
    blocks: Vec<DecoderBlock>,
    norm: LayerNorm,
}

impl Stream {
    fn new(w: &mut Weights, c: &FusionConfig) -> Self {
        Self {
            blocks: looking(w, c),
            norm: w.scope("norm", |w| LayerNorm::new(w, c.width, 1e-6)),
        }
    }
}

impl CoAttention {
    /// Builds the part of a config.
    pub fn new(w: &mut Weights, c: &FusionConfig) -> Self {
        Self {
            picture: w.scope("picture", |w| Stream::new(w, c)),
            text: w.scope("text", |w| Stream::new(w, c)),
            head: c.head(w, "head", 2 * c.width),
        }
    }
}

impl Fuse for CoAttention {
    fn fuse(&self, places: Tensor<3>, text: &TextStates) -> Tensor<2> {
        let (keys, all) = (text.keys(), KeyMask::default());
        let (mut p, mut t) = (places, text.states.clone());
        for (picture, words) in self.picture.blocks.iter().zip(&self.text.blocks) {
            let seen_by_picture = picture.keys_values(t.clone());
            let seen_by_words = words.keys_values(p.clone());
            p = picture.masked(p, &all, seen_by_picture, &keys);
            t = words.masked(t, &keys, seen_by_words, &all);
        }
        let p = self.picture.norm.forward(mean_place(&p));
        let t = self.text.norm.forward(masked_mean(t, &text.mask));
        self.head.forward(Tensor::cat(vec![p, t], 1))
    }
}
