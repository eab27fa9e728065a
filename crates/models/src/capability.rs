//! What a model can be asked for.

use crate::generate::Autoregressive;
use burn::tensor::{Int, Tensor};

/// Legend: `B` batch, `C` channels, `T` tokens, `N` patches, `D` width, `E` width of the shared space.
///
/// A model that puts pictures into a space shared with text.
pub trait EmbedImage {
    /// # Shapes
    /// `pixel_values: [B, C, H, W]`; gives unit vectors `[B, E]`.
    fn embed_image(&self, pixel_values: Tensor<4>) -> Tensor<2>;
}

/// A model that puts text into a space shared with pictures.
pub trait EmbedText {
    /// # Shapes
    /// `ids: [B, T]`, padded behind; `lengths` gives each row's tokens without padding. Unit vectors `[B, E]`.
    fn embed_text(&self, ids: Tensor<2, Int>, lengths: &[usize]) -> Tensor<2>;
}

/// A model that writes text about pictures.
pub trait Generate {
    /// What the decoder reads of each picture.
    ///
    /// # Shapes
    /// `pixel_values: [B, C, H, W]`; gives `[B, N, D]`.
    fn encode(&self, pixel_values: Tensor<4>) -> Tensor<3>;

    /// Starts one text per row of `memory`, or any number of texts if it has one row.
    ///
    /// # Shapes
    /// `memory: [B, N, D]` from [`Self::encode`].
    fn decode(&self, memory: Tensor<3>) -> Box<dyn Autoregressive + '_>;
}
