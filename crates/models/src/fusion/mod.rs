//! How a picture and a text become one: interchangeable parts, of which a config names one.
//!
//! | [`FusionKind`] | picture and text meet | as in |
//! |---|---|---|
//! | `early` | as two means side by side, before any layer that judges | hand-crafted features, early deep models |
//! | `late` | as scores that each gave on its own, with learned weights | ensembles of unimodal models |
//! | `cross_attention` | in layers of the text that look at the picture | ALBEF, BLIP, Flamingo |
//! | `merged_attention` | as one sequence | UNITER, Oscar, VinVL |
//! | `co_attention` | in two sequences that look at each other | LXMERT, ViLBERT |
//! | `projector` | as a prefix of places, in the text's own space, that a causal model reads | LLaVA |
//!
//! Legend: `R` pairs, `N` places of a picture, `T` tokens, `D` width, `O` scores.

mod co_attention;
mod cross_attention;
mod early;
mod late;
mod merged_attention;
mod projector;

pub use co_attention::CoAttention;
pub use cross_attention::CrossAttentionFusion;
pub use early::Early;
pub use late::Late;
pub use merged_attention::MergedAttention;
pub use projector::Projector;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{KeyMask, Linear, TransformerConfig};

/// Which part joins picture and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FusionKind {
    /// [`Early`].
    Early,
    /// [`Late`].
    Late,
    /// [`CrossAttentionFusion`].
    CrossAttention,
    /// [`MergedAttention`].
    MergedAttention,
    /// [`CoAttention`].
    CoAttention,
    /// [`Projector`].
    Projector,
}

impl FusionKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Early,
        Self::Late,
        Self::CrossAttention,
        Self::MergedAttention,
        Self::CoAttention,
        Self::Projector,
    ];
}

/// Sizes of a fusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusionConfig {
    /// Which.
    pub kind: FusionKind,
    /// Width `D` of both sides.
    pub width: usize,
    /// Attention heads, where there is attention; a divisor of the width.
    pub heads: usize,
    /// Layers, where there are layers.
    pub layers: usize,
    /// Scores `O`.
    pub outputs: usize,
}

impl FusionConfig {
    fn blocks(&self, causal: bool) -> TransformerConfig {
        TransformerConfig {
            width: self.width,
            heads: self.heads,
            hidden: 4 * self.width,
            layers: self.layers,
            activation: Activation::Gelu,
            eps: 1e-6,
            causal,
            layer_scale: None,
        }
    }

    fn head(&self, w: &mut Weights, name: &str, inputs: usize) -> Linear {
        w.scope(name, |w| {
            Linear::new(w, inputs, self.outputs, true, Init::fan_in(inputs))
        })
    }
}

/// A text's states with what is padding.
#[derive(Clone, Debug)]
pub struct TextStates {
    /// `[R, T, D]`
    pub states: Tensor<3>,
    /// True for tokens, false for padding; `T` for each of `R`, at least one of them true.
    pub mask: Vec<Vec<bool>>,
}

impl TextStates {
    /// The mean over tokens.
    ///
    /// # Shapes
    /// Gives `[R, D]`.
    pub fn mean(&self) -> Tensor<2> {
        masked_mean(self.states.clone(), &self.mask)
    }

    /// Which tokens may be looked at.
    pub fn keys(&self) -> KeyMask {
        KeyMask::new(&self.mask)
    }
}

/// The mean over what the mask shows of each row.
///
/// # Shapes
/// `x: [R, T, D]`; gives `[R, D]`.
fn masked_mean(x: Tensor<3>, mask: &[Vec<bool>]) -> Tensor<2> {
    let [r, t, d] = x.dims();
    let shares = mask.iter().flat_map(|row| {
        let count = row.iter().filter(|seen| **seen).count().max(1);
        row.iter()
            .map(move |&seen| if seen { 1.0 / count as f32 } else { 0.0 })
    });
    let shares = TensorData::new(shares.collect::<Vec<f32>>(), [r, 1, t]);
    let shares = Tensor::<3>::from_data(shares, &x.device());
    shares.matmul(x).reshape([r, d])
}

/// The mean over places.
///
/// # Shapes
/// `places: [R, N, D]`; gives `[R, D]`.
pub fn mean_place(places: &Tensor<3>) -> Tensor<2> {
    let [r, _, d] = places.dims();
    places.clone().mean_dim(1).reshape([r, d])
}

/// Something that scores pairs.
pub trait Fuse {
    /// Scores of pairs in the same rows.
    ///
    /// # Shapes
    /// `places: [R, N, D]`, the text's states `[R, T, D]`; gives `[R, O]`.
    fn fuse(&self, places: Tensor<3>, text: &TextStates) -> Tensor<2>;
}

/// One of the parts.
#[derive(Module, Debug)]
pub enum Fusion {
    /// Means side by side.
    Early(Early),
    /// Scores of each side.
    Late(Late),
    /// The text looks at the picture.
    CrossAttention(CrossAttentionFusion),
    /// One sequence.
    MergedAttention(MergedAttention),
    /// Two sequences that look at each other.
    CoAttention(CoAttention),
    /// Places as a prefix.
    Projector(Projector),
}

impl Fusion {
    /// The part that a config names.
    pub fn new(w: &mut Weights, c: &FusionConfig) -> Self {
        use FusionKind as K;
        match c.kind {
            K::Early => Self::Early(w.scope("Early", |w| Early::new(w, c))),
            K::Late => Self::Late(w.scope("Late", |w| Late::new(w, c))),
            K::CrossAttention => {
                Self::CrossAttention(w.scope("CrossAttention", |w| CrossAttentionFusion::new(w, c)))
            }
            K::MergedAttention => {
                Self::MergedAttention(w.scope("MergedAttention", |w| MergedAttention::new(w, c)))
            }
            K::CoAttention => Self::CoAttention(w.scope("CoAttention", |w| CoAttention::new(w, c))),
            K::Projector => Self::Projector(w.scope("Projector", |w| Projector::new(w, c))),
        }
    }
}

impl Fuse for Fusion {
    fn fuse(&self, places: Tensor<3>, text: &TextStates) -> Tensor<2> {
        match self {
            Self::Early(part) => part.fuse(places, text),
            Self::Late(part) => part.fuse(places, text),
            Self::CrossAttention(part) => part.fuse(places, text),
            Self::MergedAttention(part) => part.fuse(places, text),
            Self::CoAttention(part) => part.fuse(places, text),
            Self::Projector(part) => part.fuse(places, text),
        }
    }
}
