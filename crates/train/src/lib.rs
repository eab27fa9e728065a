//! Losses to weights: loop, optimizer groups, schedule, checkpoint, log.
#![forbid(unsafe_code)]
