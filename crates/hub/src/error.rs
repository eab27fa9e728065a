//! What can go wrong between a model's name and its files.

use std::path::{Path, PathBuf};

/// What can go wrong between a model's name and its files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Text that cannot name a model.
    #[error("{0:?}: expected owner/name or owner/name@revision of the hub")]
    Id(String),
    /// A model that is not in the cache.
    #[error(
        "{id}: expected revision {revision:?} in the cache, but {reason}; {}",
        if *.offline { "downloads are off (HF_HUB_OFFLINE)" } else { "`vlm pull` downloads it" }
    )]
    NotCached {
        /// The model.
        id: String,
        /// Branch, tag or commit.
        revision: String,
        /// What was looked for and not found.
        reason: String,
        /// Whether downloads are off.
        offline: bool,
    },
    /// A model without files of the kind that was looked for.
    #[error("{id}: expected files, found none of {}", looked_for.join(", "))]
    NoFiles {
        /// The model.
        id: String,
        /// Names.
        looked_for: Vec<String>,
    },
    /// The server cannot be reached, or stops in the middle.
    #[error(
        "{url}: cannot be reached: {reason}; without a network, put the model's files into a directory and name that, or \
         set HF_ENDPOINT to a mirror"
    )]
    Network {
        /// What was asked for.
        url: String,
        /// What the network says.
        reason: String,
    },
    /// Something that is not for everyone.
    #[error(
        "{url}: refused ({status}{}); the name is wrong, or the model is private or asks for its terms to be accepted: \
         set HF_TOKEN to a token that may read it",
        detail.as_ref().map(|d| format!(", {d}")).unwrap_or_default()
    )]
    Refused {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// The hub's own name of the error.
        detail: Option<String>,
    },
    /// Something that is not there.
    #[error(
        "{url}: not there (404{})",
        detail.as_ref().map(|d| format!(", {d}")).unwrap_or_default()
    )]
    NotFound {
        /// What was asked for.
        url: String,
        /// The hub's own name of the error.
        detail: Option<String>,
    },
    /// An answer that makes no sense.
    #[error("{url}: expected {expected}, found {found}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What would have made sense.
        expected: String,
        /// What came.
        found: String,
    },
    /// Contents that are not those that were announced.
    #[error("{file}: expected {kind} {expected}, found {found}; what was downloaded is deleted")]
    Checksum {
        /// The file's name in the repository.
        file: String,
        /// `SHA-256` or `git SHA-1`.
        kind: &'static str,
        /// As announced.
        expected: String,
        /// Of what came.
        found: String,
    },
    /// A file that is larger than allowed or announced.
    #[error("{file}: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// The file's name in the repository.
        file: String,
        /// The most bytes.
        limit: u64,
        /// Announced, or as far as was read.
        found: u64,
    },
    /// The disk does not do what it should.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn answer(url: &str, expected: &str, found: impl Into<String>) -> Self {
        Self::Answer {
            url: url.to_owned(),
            expected: expected.to_owned(),
            found: found.into(),
        }
    }
}
