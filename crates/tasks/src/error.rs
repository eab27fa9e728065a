use std::path::PathBuf;

/// A part of a model that is not among its files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{model}: expected {files}, which has {part}, found none; {hint}")]
pub struct Missing {
    /// The model.
    pub model: String,
    /// What the part is.
    pub part: &'static str,
    /// The files that would hold it.
    pub files: &'static str,
    /// Where it is usually found.
    pub hint: &'static str,
}

/// What can go wrong in a task.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or preparing data.
    #[error(transparent)]
    Data(#[from] vlm_data::Error),
    /// A file of a model directory.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: vlm_models::Error,
    },
    /// The model cannot do this.
    #[error(transparent)]
    Capability(#[from] vlm_models::Error),
    /// A part of a model that does not fit the others.
    #[error("{place}: expected {expected}, found {found}")]
    Model {
        /// The file or field.
        place: String,
        /// What would do.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A part that a model can do without, but not for what was asked.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// No weights.
    #[error("{found}")]
    Weights {
        /// What was looked for, and what was there.
        found: String,
    },
    /// A text that the model cannot take.
    #[error("expected a text of at most {expected} tokens, found {found}")]
    TooLong {
        /// Tokens that fit.
        expected: usize,
        /// Tokens given.
        found: usize,
    },
    /// A question without words.
    #[error("expected a question of some words, found none")]
    EmptyQuestion,
    /// Scoring.
    #[error(transparent)]
    Metric(#[from] crate::metrics::MetricError),
}
