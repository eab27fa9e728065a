//! Data sets on disk.

pub mod items;
