//! The crate's one error type: every message is one line that names the place, what was expected
//! and what was found.

use std::io;
use std::path::Path;

/// What can go wrong between a file and a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused: missing, no permission, a full disk.
    #[error("{name}: cannot {action}: {}", io_reason(.source))]
    Io {
        /// File, or a name such as `<stdin>`.
        name: String,
        /// What was attempted, as a verb: `read`, `write`.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A path that is no regular file where one is needed.
    #[error("{name}: expected a file, found {found}")]
    NotAFile {
        /// File.
        name: String,
        /// What is there instead.
        found: &'static str,
    },
    /// A file without a single byte.
    #[error("{name}: expected {expected}, found an empty file")]
    Empty {
        /// File, or `<stdin>`.
        name: String,
        /// What it should have held.
        expected: &'static str,
    },
    /// More bytes than [`Limits::max_bytes`](crate::image::Limits::max_bytes).
    #[error("{name}: expected at most {limit} bytes, found {found}")]
    TooManyBytes {
        /// File, or `<stdin>`.
        name: String,
        /// Size in bytes, or `more`, where it cannot be known.
        found: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// No known picture format starts like this.
    #[error("{name}: expected a JPEG, PNG, WebP, GIF, BMP or TIFF picture, found {found}")]
    NotAnImage {
        /// File, or `<stdin>`.
        name: String,
        /// The first bytes, printable.
        found: String,
    },
    /// A picture of a kind that is understood but not decoded.
    #[error("{name}: unsupported {format}: {found}")]
    UnsupportedImage {
        /// File, or `<stdin>`.
        name: String,
        /// Format, e.g. `TIFF`.
        format: &'static str,
        /// The feature found.
        found: String,
    },
    /// The header announces zero pixels.
    #[error("{name}: expected at least one pixel, found {width}×{height} in the header")]
    NoPixels {
        /// File, or `<stdin>`.
        name: String,
        /// Pixels.
        width: u64,
        /// Pixels.
        height: u64,
    },
    /// The header announces more pixels than allowed; nothing was decoded.
    #[error("{name}: {width}×{height} pixels exceed the limit of {limit}")]
    TooManyPixels {
        /// File, or `<stdin>`.
        name: String,
        /// Pixels.
        width: u64,
        /// Pixels.
        height: u64,
        /// [`Limits::max_pixels`](crate::image::Limits::max_pixels).
        limit: u64,
    },
    /// The file starts as a picture but does not go on as one.
    #[error("{name}: damaged or truncated {format}: {detail}")]
    DamagedImage {
        /// File, or `<stdin>`.
        name: String,
        /// Format, e.g. `JPEG`.
        format: &'static str,
        /// The decoder's words, on one line.
        detail: String,
    },
    /// Pixel data whose length does not fit its size.
    #[error("image of {width}×{height}: expected {expected} bytes of RGB, found {found}")]
    ImageLength {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Bytes.
        expected: u64,
        /// Bytes.
        found: usize,
    },
    /// A size that a picture cannot be brought to.
    #[error("cannot resize {from_width}×{from_height} to {width}×{height}: {reason}")]
    Resize {
        /// Pixels.
        from_width: u32,
        /// Pixels.
        from_height: u32,
        /// Pixels.
        width: u64,
        /// Pixels.
        height: u64,
        /// Why not.
        reason: String,
    },
    /// A key of a configuration file.
    #[error("{name}: {key}: expected {expected}, found {found}")]
    Config {
        /// File.
        name: String,
        /// Key.
        key: String,
        /// What would be accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A directory without the files that are needed.
    #[error("{name}: expected {expected}, found none of them")]
    Missing {
        /// Directory.
        name: String,
        /// Names of the files.
        expected: String,
    },
    /// A processor that makes another kind of input.
    #[error("image processor: expected {expected}, found {found}")]
    Processor {
        /// What was asked for.
        expected: &'static str,
        /// What the processor makes.
        found: &'static str,
    },
    /// A record of a data file.
    #[error("{name}:{line}: {field}: expected {expected}, found {found}")]
    Record {
        /// File.
        name: String,
        /// Line, from 1.
        line: usize,
        /// Field of the record, e.g. `qa[1].answer`.
        field: String,
        /// What would be accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A tokenizer that cannot be read, built or applied.
    #[error("{name}: tokenizer: {detail}")]
    Tokenizer {
        /// File, or a name for what was built in memory.
        name: String,
        /// The cause, on one line.
        detail: String,
    },
}

impl Error {
    /// An [`Error::Io`] of a path.
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io {
            name: path.display().to_string(),
            action,
            source,
        }
    }
}

/// The operating system's words without its number, in the words of a person for common cases.
fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::StorageFull => "no space left on the disk".to_owned(),
        _ => one_line(&error.to_string()),
    }
}

/// Joins a library's message into one printable line of bounded length.
pub(crate) fn one_line(message: &str) -> String {
    const LONGEST: usize = 240;
    let mut line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|c| !c.is_control());
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push('…');
    }
    line
}
