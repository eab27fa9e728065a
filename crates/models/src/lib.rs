//! Vision-language models: encoders, decoders, objectives, families, generation.
#![forbid(unsafe_code)]
