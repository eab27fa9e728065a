//! Files to batches: images, text, data sets.
//!
//! This crate knows no model: sizes, means, deviations and vocabularies arrive as configuration
//! read from a checkpoint.
//!
//! - [`image`]: encoded bytes to an upright RGB picture, and on to `[3, height, width]` floats,
//!   with the pixels of the Python reference.
//! - [`mod@text`] splits words into tokens.
//! - [`datasets`]: pictures with captions and questions, read from directories.
//! - [`gguf`]: models in one file.
//! - [`files`]: writing without ever leaving half a file.
//!
//! ```
//! use vlm_data::image::{self, ImageProcessor, Limits, PreprocessorConfig, ProcessorKind};
//!
//! // A 1×1 picture, as it might come from a file or from stdin.
//! let bmp = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\
//!             \x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\x80\0\0";
//! let picture = image::decode(bmp, "<stdin>", &Limits::default())?;
//! assert_eq!(picture.pixel(0, 0), [0, 128, 255]);
//!
//! let config = br#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32},
//!                   "crop_size": {"height": 32, "width": 32}}"#;
//! let config = PreprocessorConfig::from_json(config, "config", ProcessorKind::Clip)?;
//! let pixels = ImageProcessor::from_config(config).process(&picture)?;
//! assert_eq!((pixels.channels, pixels.height, pixels.width), (3, 32, 32));
//! assert_eq!(pixels.data.len(), 3 * 32 * 32);
//! # Ok::<(), vlm_data::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod datasets;
mod error;
pub mod files;
pub mod gguf;
pub mod image;
pub mod text;

pub use error::Error;
