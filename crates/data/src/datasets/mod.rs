//! Data sets on disk.

pub mod items;
pub mod region_features;
