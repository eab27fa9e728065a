//! The layout of the cache.

use crate::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A model's directory in the cache.
pub struct Repository {
    root: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub fn new(cache: &Path, id: &str) -> Self {
        let folder = format!("models--{}", id.replace('/', "--"));
        Self {
            root: cache.join(&folder),
            locks: cache.join(".locks").join(&folder),
        }
    }

    /// The files of a commit.
    pub fn directory(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    /// The files of a branch, tag or commit as it was pulled last, or what is not there.
    pub fn snapshot(&self, revision: &str) -> Result<PathBuf, String> {
        let reference = self.reference(revision);
        let commit = fs::read_to_string(&reference).ok();
        let commit = commit.map(|c| c.trim().to_owned()).filter(|c| is_commit(c));
        let directory = self.directory(commit.as_deref().unwrap_or(revision));
        if directory.is_dir() {
            return Ok(directory);
        }
        Err(format!(
            "there is no {}",
            if commit.is_some() {
                directory.display().to_string()
            } else {
                format!("{} or {}", reference.display(), directory.display())
            }
        ))
    }

    /// Notes the commit that a branch or tag stands for.
    pub fn set_reference(&self, revision: &str, commit: &str) -> Result<(), Error> {
        if revision == commit {
            return Ok(());
        }
        let path = self.reference(revision);
        parents(&path)?;
        let _lock = self.lock(&format!("ref--{}", revision.replace('/', "--")))?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".incomplete");
        let new = path.with_file_name(name);
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(commit.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(Error::io(&path))
    }

    /// Holds others off a blob until the file is dropped, as `huggingface_hub` does.
    pub fn lock(&self, name: &str) -> Result<File, Error> {
        let path = self.locks.join(format!("{name}.lock"));
        parents(&path)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.map_err(Error::io(&path))?;
        file.lock().map_err(Error::io(&path))?;
        Ok(file)
    }

    /// Puts a blob into a snapshot under its name.
    pub fn link(&self, commit: &str, name: &str, etag: &str) -> Result<PathBuf, Error> {
        let path = self.directory(commit).join(name);
        parents(&path)?;
        let up = "../".repeat(name.matches('/').count() + 2);
        let target = format!("{up}blobs/{etag}");
        if fs::read_link(&path).is_ok_and(|link| link == Path::new(&target)) {
            return Ok(path);
        }
        // a link of another content, or to a blob that is gone
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        symlink(&target, &path)
            .or_else(|_| fs::hard_link(self.blob(etag), &path))
            .or_else(|_| fs::copy(self.blob(etag), &path).map(drop))
            .map_err(Error::io(&path))?;
        Ok(path)
    }
}

#[cfg(unix)]
fn symlink(target: &str, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn symlink(_: &str, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

pub fn parents(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::io(parent))
}

/// Whether text can name a commit, and so a directory.
pub fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}
