//! What a user wants: prompt in, answer out, score.
//!
//! A [`Vlm`] is a model with its tokenizer and picture processor. It captions, answers questions and embeds;
//! [`evaluate`] and [`metrics`] say how well.
//!
//! ```
//! use vlm_data::image::{self, Limits};
//! use vlm_tasks::{CaptionOptions, Vlm};
//!
//! let vlm = Vlm::builtin()?; // or Vlm::load("runs/vlm-tiny/model".as_ref())?
//! let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/pictures/five-hearts.png");
//! let picture = image::read(path.as_ref(), &Limits::default())?;
//!
//! let captions = vlm.caption(&[&picture], &CaptionOptions::default())?;
//! println!("{}", captions[0].text);
//!
//! let answers = vlm.answer(&[&picture], &[(0, "how many hearts are there?")])?;
//! println!("{} ({:.0} %)", answers[0].text, 100.0 * answers[0].confidence);
//! # assert_eq!((captions.len(), answers.len()), (1, 1));
//! # Ok::<(), vlm_tasks::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod annotate;
mod attention;
pub mod builtin;
mod captioning;
mod cleaning;
pub mod detection;
mod embedding;
mod error;
pub mod evaluate;
mod files;
pub mod gguf;
pub mod inspect;
mod judging;
pub mod lettering;
pub mod metrics;
pub mod prompt;
mod regions;
pub mod similarity;
pub mod table;
mod text;
pub mod verify;
mod vlm;
mod vqa;

pub use attention::{AttendedCaption, WordMap};
pub use captioning::{Caption, CaptionOptions};
pub use cleaning::plain as cleaned;
pub use error::{Error, Missing};
pub use files::{Layout, ModelFiles, file};
pub use judging::Judgement;
pub use regions::{PictureRegions, RegionFiles, Shown, Subject, described};
pub use text::TextSide;
pub use vlm::{Files, Vlm};
pub use vqa::Answer;
