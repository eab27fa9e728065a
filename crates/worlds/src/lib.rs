//! Procedural scenes with exact ground truth for every task.
#![forbid(unsafe_code)]
