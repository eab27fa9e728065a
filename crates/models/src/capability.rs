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
    /// Starts one text per picture.
    ///
    /// # Shapes
    /// `pixel_values: [B, C, H, W]`.
    fn decode(&self, pixel_values: Tensor<4>) -> Box<dyn Autoregressive + '_>;
}
