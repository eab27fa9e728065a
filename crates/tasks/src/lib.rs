//! What a user wants: prompt in, answer out, score.
#![forbid(unsafe_code)]

pub mod metrics;
pub mod table;
