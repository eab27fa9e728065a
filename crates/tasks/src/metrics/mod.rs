//! The field's scores: captions, answers, facts, and how sure one may be of them.
//!
//! - [`caption`]: BLEU-1..4, ROUGE-L and CIDEr-D, as the original `pycocoevalcap` scorers compute them
//! - [`vqa`]: accuracy of short answers, overall and by question type
//! - [`classification`]: top-1 and top-5 accuracy
//! - [`detection`]: average precision of objects with boxes, as `pycocotools` computes it
//! - [`retrieval`]: recall at 1, 5 and 10
//! - [`facts`]: precision, recall and F1 of the facts that captions state, pooled over items
//! - [`interval`]: bootstrap confidence intervals for all of the above
//!
//! Everything here is pure arithmetic on text and counts, and deterministic: the same input gives
//! the same bits, whatever the number of threads.

mod bleu;
pub mod caption;
mod cider;
pub mod classification;
pub mod detection;
pub mod facts;
#[cfg(test)]
mod golden_tests;
pub mod interval;
mod ngram;
pub mod retrieval;
mod rouge;
pub mod vqa;

pub use caption::{CaptionScores, score_captions, score_captions_per_item, tokenise};
pub use classification::{ClassificationScores, score_classification};
pub use detection::{ClassPrecision, DetectionScores, Located, LocatedPicture, score_detections};
pub use facts::{FactCounts, FactScores, score_facts};
pub use interval::{Bootstrap, Interval};
pub use retrieval::{RetrievalScores, score_retrieval};
pub use vqa::{TypeScore, VqaItem, VqaScores, answers_match, normalise_answer, score_vqa};

/// Why a set of items cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// There is nothing to average over.
    #[error("metrics: expected at least one item to score, found none")]
    NoItems,
    /// A caption has nothing to be compared with.
    #[error("metrics: item {index}: expected at least one reference caption, found none")]
    NoReferences {
        /// Position of the item in the list, from 0.
        index: usize,
    },
}
