use std::path::PathBuf;

/// What can go wrong when a world is made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A split that does not exist.
    #[error("split: expected one of train, validation, test, compositional; found `{0}`")]
    UnknownSplit(String),
    /// A split that does not exist in [`crate::boxes`].
    #[error("split: expected one of train, validation, test; found `{0}`")]
    UnknownBoxesSplit(String),
    /// A number of orders outside the allowed range.
    #[error("orders: expected 1 to 6, found {0}")]
    Orders(usize),
    /// A number of questions outside the allowed range.
    #[error("questions: expected 0 to 64, found {0}")]
    Questions(usize),
    /// A picture size outside the allowed range.
    #[error("size: expected 32 to 1024 pixels, found {0}")]
    Size(u32),
    /// A difficulty outside the allowed range.
    #[error("difficulty: expected a number from 0 to 1, found {0}")]
    Difficulty(f32),
    /// The output directory holds files of someone else.
    #[error(
        "{0}: expected a new or empty directory, or one written by an earlier run (with items.jsonl)"
    )]
    NotOurs(PathBuf),
    /// The output directory holds files of someone else, such as NLVR itself.
    #[error(
        "{0}: expected a new or empty directory, or one written by an earlier run (with examples.jsonl that lists \
         images boxes-*.png)"
    )]
    NotOurBoxes(PathBuf),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of `items.jsonl` that is not an item.
    #[error("{path}:{line}: {source}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What was wrong.
        source: serde_json::Error,
    },
}
