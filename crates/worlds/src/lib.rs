//! Procedural scenes with exact ground truth for every task.
#![forbid(unsafe_code)]

mod error;
mod rng;
pub mod shapes;

pub use error::Error;
