//! Losses to weights: loop, optimizer groups, schedule, checkpoint, log.
//!
//! A [`Recipe`] says everything that decides the weights of a run; [`train`] runs it, from the beginning or from
//! its last checkpoint.
#![forbid(unsafe_code)]

mod augment;
mod batches;
mod checkpoint;
mod coca_shapes;
mod ema;
mod error;
mod families;
mod groups;
mod init;
mod learner;
pub mod log;
pub mod optimizer;
mod patch_labels;
pub mod plot;
pub mod progress;
mod recipe;
mod run;
mod schedule;
mod set_recipe;
mod source;
mod symbols;
mod workers;

#[cfg(test)]
mod tests;

pub use augment::Augment;
pub use error::Error;
pub use groups::Groups;
pub use recipe::{
    DataRecipe, OutputDtype, Recipe, Scenes, ShapesRecipe, TrainRecipe, ValidationRecipe,
};
pub use run::{Ended, Options, Outcome, train};
pub use set_recipe::{SetData, SetRecipe};
