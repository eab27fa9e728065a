//! Data sets on disk.
//!
//! A [`Set`] is a directory or a plain tar of pictures with one file that says what they show. Which of the known
//! descriptions it is, is told by that file's name; see [`Set::open`].

mod archive;
mod caltech;
mod easy_vqa;
mod emoji;
mod flickr;
mod gtsrb;
pub mod items;
mod lines;
mod nlvr;
mod objects;
mod set;
mod split;

pub use archive::Archive;
pub use objects::BoxedObject;
pub use set::{Format, Record, Set, Statement};
pub use split::{Part, Split};
pub mod region_features;
