//! Losses to weights: loop, optimizer groups, schedule, checkpoint, log.
#![forbid(unsafe_code)]

pub mod log;
pub mod plot;
pub mod progress;
