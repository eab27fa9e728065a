//! Losses to weights: loop, optimizer groups, schedule, checkpoint, log.
//!
//! A [`Recipe`] says everything that decides the weights of a run; [`train`] runs it, from the beginning or from
//! its last checkpoint.
#![forbid(unsafe_code)]

mod batches;
mod checkpoint;
mod error;
mod init;
pub mod log;
pub mod optimizer;
mod patch_labels;
pub mod plot;
pub mod progress;
mod recipe;
mod run;
mod schedule;
mod symbols;
mod workers;

pub use error::Error;
pub use recipe::{DataRecipe, OutputDtype, Recipe, TrainRecipe, ValidationRecipe};
pub use run::{Ended, Options, Outcome, train};
