//! Vision-language models: encoders, decoders, objectives, the families built from them, and generation.
//!
//! Tensors in, tensors out: nothing here opens a file, owns a tokenizer or prints.
//!
//! A *family* ([`families`]) is the figure of its paper: a config, a composition of encoders, decoders and
//! objectives, and a loss. What a family can do is asked through the capability traits in this module's
//! [`capability`]; asking for what it cannot do is an error that names families that can.
#![forbid(unsafe_code)]

pub mod capability;
pub mod decoders;
pub mod encoders;
mod error;
pub mod families;
pub mod fusion;
pub mod generate;
pub mod objectives;
pub mod reference;

pub use error::Error;
