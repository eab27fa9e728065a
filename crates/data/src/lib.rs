//! Files to batches: images, text, datasets.
#![forbid(unsafe_code)]
