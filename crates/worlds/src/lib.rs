//! Procedural scenes with exact ground truth for every task.
//!
//! A world makes pictures whose content is known, so that a model can be trained and measured without any download.
//! [`shapes`] is the first: coloured shapes with captions, questions and boxes. [`boxes`] has statements about scenes in
//! the manner of Cornell NLVR.
//!
//! ```
//! use vlm_worlds::shapes::{Config, Split, facts, generate};
//!
//! let item = generate(&Config::default(), Split::Test, 7, 0);
//! assert_eq!(item.picture.rgb.len(), 128 * 128 * 3);
//!
//! // Every caption is true and names every object.
//! for caption in &item.captions {
//!     let counts = facts::score(caption, &item.scene);
//!     assert_eq!((counts.precision(), counts.recall()), (1.0, 1.0));
//! }
//! for qa in &item.qa {
//!     println!("{} {}", qa.question, qa.answer);
//! }
//! ```
#![forbid(unsafe_code)]

pub mod boxes;
mod error;
mod rng;
pub mod shapes;

pub use error::Error;
