//! Models of the Hugging Face hub by their names, in the cache that its other clients share.
//!
//! [`Hub::pull`] asks the hub which files a model has, downloads those that a model needs and are not there yet, and gives
//! the directory that holds them. [`Hub::cached`] finds that directory without a network. Both keep the layout of
//! `huggingface_hub`, so what one program downloaded the others find:
//!
//! ```text
//! models--OWNER--NAME/
//!   blobs/ETAG                  contents, named by their checksum; ETAG.incomplete while they are under way
//!   refs/REVISION               the commit that a branch or tag stood for when it was last pulled
//!   snapshots/COMMIT/FILE       links to blobs
//! ```
//!
//! A file appears in a snapshot when it is whole and its checksum is right, and not before. What was interrupted is taken
//! up where it stopped.
//!
//! Environment, as in `huggingface_hub`: `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN` (or the token that its
//! login stored), `HF_ENDPOINT`; `SSL_CERT_FILE` and the usual proxy variables.
#![forbid(unsafe_code)]

mod cache;
mod download;
mod error;
mod http;
mod select;

pub use error::Error;

use cache::Repository;
use http::Http;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A model on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `owner/name`, or `name` for a few old ones.
    pub id: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Names of files, `*` for any letters; none for the weights, config, processor and tokenizer of a model.
    pub files: Vec<String>,
    /// The most bytes of one file.
    pub max_file_bytes: u64,
}

impl Request {
    /// A request for `owner/name` or `owner/name@revision`.
    ///
    /// # Errors
    /// What cannot be a name on the hub.
    pub fn new(id: &str) -> Result<Self, Error> {
        let (name, revision) = id.split_once('@').unwrap_or((id, "main"));
        let part = |part: &str| {
            let letters = part.bytes();
            let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            !part.is_empty()
                && part.len() <= 96
                && letters.clone().all(known)
                && !part.starts_with(['.', '-'])
                && !part.contains("--")
                && !part.contains("..")
        };
        let name_is_good = name.split('/').all(part) && name.split('/').count() <= 2;
        let revision_is_good = revision.len() <= 200 && revision.split('/').all(part);
        if !name_is_good || !revision_is_good {
            return Err(Error::Id(id.to_owned()));
        }
        Ok(Self {
            id: name.to_owned(),
            revision: revision.to_owned(),
            files: Vec::new(),
            max_file_bytes: 100 << 30,
        })
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file's name in the repository.
    pub file: &'a str,
    /// Number of the file, from 1, and how many there are.
    pub number: usize,
    /// How many files there are; an index of shards adds some.
    pub files: usize,
    /// Bytes of the file that are there.
    pub done: u64,
    /// Bytes of the file, if the server says.
    pub total: Option<u64>,
}

/// Where models come from and where they are kept.
#[derive(Clone, Debug)]
pub struct Hub {
    /// `https://huggingface.co` or a mirror.
    pub endpoint: String,
    /// Directory of `models--…`.
    pub cache: PathBuf,
    /// Sent to the endpoint, and nowhere else.
    pub token: Option<String>,
    /// Whether nothing may be downloaded.
    pub offline: bool,
    /// The longest silence of a server.
    pub timeout: Duration,
    /// How often in a row an attempt may bring nothing, and the first pause between two; each is twice as long.
    pub retries: (u32, Duration),
}

impl Hub {
    /// As the environment says.
    pub fn from_env() -> Self {
        let var = |names: &[&str]| {
            let values = names.iter().filter_map(|name| std::env::var(name).ok());
            values.map(|v| v.trim().to_owned()).find(|v| !v.is_empty())
        };
        let user = var(&["XDG_CACHE_HOME"]).map(PathBuf::from).or_else(|| {
            let home = var(&["HOME", "USERPROFILE"])?;
            Some(Path::new(&home).join(".cache"))
        });
        let home = var(&["HF_HOME"]).map_or_else(
            || user.unwrap_or_default().join("huggingface"),
            PathBuf::from,
        );
        let cache = var(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]);
        let token_path = var(&["HF_TOKEN_PATH"]);
        let stored = token_path.map_or_else(|| home.join("token"), PathBuf::from);
        let token = var(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| {
            let token = std::fs::read_to_string(stored).ok()?.trim().to_owned();
            (!token.is_empty()).then_some(token)
        });
        let endpoint = var(&["HF_ENDPOINT"]);
        let endpoint = endpoint.as_deref().unwrap_or("https://huggingface.co");
        let offline = var(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]);
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: cache.map_or_else(|| home.join("hub"), PathBuf::from),
            token,
            offline: offline.is_some_and(|v| {
                ["1", "true", "yes", "on"].contains(&v.to_ascii_lowercase().as_str())
            }),
            timeout: Duration::from_secs(30),
            retries: (4, Duration::from_millis(500)),
        }
    }

    /// The directory of a model that was downloaded before.
    ///
    /// # Errors
    /// It was not, or not all of it; the error says where it was looked for and how to get it.
    pub fn cached(&self, request: &Request) -> Result<PathBuf, Error> {
        let repository = Repository::new(&self.cache, &request.id);
        let reason = match repository.snapshot(&request.revision) {
            Err(reason) => reason,
            Ok(directory) => match select::lacking(&directory, &request.files) {
                None => return Ok(directory),
                Some(lacking) => format!("{} lacks {lacking}", directory.display()),
            },
        };
        Err(Error::NotCached {
            id: request.id.clone(),
            revision: request.revision.clone(),
            reason,
            offline: self.offline,
        })
    }

    /// Downloads what is not there yet and gives the model's directory.
    ///
    /// # Errors
    /// No network, a model or file that is not there or not for everyone, contents with another checksum or size than
    /// announced, a full disk. What was downloaded stays for the next attempt, unless it was wrong.
    pub fn pull(
        &self,
        request: &Request,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf, Error> {
        if self.offline {
            return self.cached(request);
        }
        let http = Http::new(self)?;
        let listing = http.listing(&request.id, &request.revision)?;
        let repository = Repository::new(&self.cache, &request.id);
        let mut files = select::wanted(&listing.files, &request.files).map_err(|looked_for| {
            Error::NoFiles {
                id: request.id.clone(),
                looked_for,
            }
        })?;
        let mut next = 0;
        while let Some(file) = files.get(next).cloned() {
            let number = next + 1;
            let total = files.len();
            let mut report = |done, size| {
                progress(Progress {
                    file: &file,
                    number,
                    files: total,
                    done,
                    total: size,
                });
            };
            let path = download::file(
                self,
                &http,
                &repository,
                request,
                &listing.commit,
                &file,
                &mut report,
            )?;
            if file.ends_with(select::INDEX) && request.files.is_empty() {
                let shards = select::shards(&path)?;
                files.extend(
                    shards
                        .into_iter()
                        .filter(|shard| !files.contains(shard))
                        .collect::<Vec<_>>(),
                );
            }
            next += 1;
        }
        // last, so that a name leads to a whole model
        repository.set_reference(&request.revision, &listing.commit)?;
        Ok(repository.directory(&listing.commit))
    }
}

/// [`Hub::pull`] as the environment says.
///
/// # Errors
/// As [`Hub::pull`].
pub fn pull(request: &Request, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf, Error> {
    Hub::from_env().pull(request, progress)
}

/// [`Hub::cached`] of `owner/name` or `owner/name@revision`, as the environment says.
///
/// # Errors
/// As [`Hub::cached`], or what cannot be a name on the hub.
pub fn cached(id: &str) -> Result<PathBuf, Error> {
    Hub::from_env().cached(&Request::new(id)?)
}
