//! Pictures: from encoded bytes to the tensor that a model was trained on.
//!
//! The reference throughout is what the field's checkpoints were made with: Pillow's decoding
//! (`transformers.image_utils.load_image`), Pillow's or torchvision's resampling, the Hugging Face
//! image processors, and the transforms of the authors' own repositories.
//!
//! Every pipeline is given the picture that [`decode`] makes, RGB and upright. Pipelines of
//! torchvision transforms, given a picture that still has a palette or alpha, would resize it so:
//! their references are such that convert first.

mod adjust;
mod config;
mod crop;
mod decode;
mod gif;
mod jpeg;
mod normalize;
mod open_clip;
mod orientation;
mod preprocess;
mod resize;
mod size;
mod tiff;

pub use adjust::FILL;
pub use config::{PatchLimit, PreprocessorConfig, ProcessorKind};
pub use crop::{CropRounding, center_crop_offset};
pub use decode::{Limits, decode, read};
pub use normalize::{Arithmetic, Normalize};
pub use preprocess::{ImageInputs, ImageProcessor, PatchValues, PixelValues};
pub use resize::{Filter, Region, Resampler, resize, resize_region};
pub use size::Size;

use crate::Error;

/// A decoded picture: RGB, 8 bits a channel, rows from top to bottom without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Image {
    /// Wraps `[height, width, 3]` interleaved RGB bytes.
    ///
    /// # Errors
    /// [`Error::ImageLength`] where `rgb` has not exactly `width × height × 3` bytes or a side is 0.
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, Error> {
        let expected = u64::from(width) * u64::from(height);
        let expected = expected.saturating_mul(3);
        if expected == 0 || rgb.len() as u64 != expected {
            return Err(Error::ImageLength {
                width,
                height,
                expected,
                found: rgb.len(),
            });
        }
        Ok(Self { width, height, rgb })
    }

    /// Pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// `[height, width, 3]` interleaved RGB bytes.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The interleaved RGB bytes themselves.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }

    /// The colour at column `x`, row `y`.
    ///
    /// # Panics
    /// Where `x` or `y` lies outside the picture.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        assert!(x < self.width && y < self.height, "pixel outside the image");
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }
}
