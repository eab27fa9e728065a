//! The files of a data set: a directory, or a plain tar that is read where it lies.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use crate::Error;
use crate::error::one_line;
use crate::image::{Image, Limits, decode};

/// The largest description that is read, in bytes.
const MAX_DESCRIPTION: u64 = 512 << 20;
/// The most files of a tar.
const MAX_ENTRIES: usize = 16 << 20;

/// A directory or a tar.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory,
    Tar {
        file: Mutex<File>,
        /// Where each file begins and how many bytes it has.
        entries: BTreeMap<String, (u64, u64)>,
    },
}

impl Archive {
    /// Opens a directory, or a tar without compression, of which the headers are read.
    ///
    /// # Errors
    /// Nothing there, or a file that is no tar.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, "read", e))?;
        let kind = if meta.is_dir() {
            Kind::Directory
        } else if meta.is_file() {
            tar(path)?
        } else {
            return Err(Error::NotAFile {
                name: path.display().to_string(),
                found: "a device or pipe",
            });
        };
        Ok(Self {
            path: path.to_owned(),
            kind,
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a file of it is called in messages.
    pub fn place(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// Whether there is such a file.
    pub fn contains(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Directory => self.path.join(name).is_file(),
            Kind::Tar { entries, .. } => entries.contains_key(name),
        }
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// No such file, more than `most` bytes, or unreadable.
    pub fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, Error> {
        let place = || self.place(name);
        let failed = |source| Error::Io {
            name: place(),
            action: "read",
            source,
        };
        let too_many = |found: u64| Error::TooManyBytes {
            name: place(),
            found: found.to_string(),
            limit: most,
        };
        match &self.kind {
            Kind::Directory => {
                let path = self.path.join(name);
                let size = std::fs::metadata(&path).map_err(failed)?.len();
                if size > most {
                    return Err(too_many(size));
                }
                std::fs::read(&path).map_err(failed)
            }
            Kind::Tar { file, entries } => {
                let &(begin, size) = entries
                    .get(name)
                    .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
                if size > most {
                    return Err(too_many(size));
                }
                let mut file = file.lock().unwrap_or_else(|broken| broken.into_inner());
                file.seek(SeekFrom::Start(begin)).map_err(failed)?;
                let mut bytes = Vec::new();
                let read = (&mut *file).take(size).read_to_end(&mut bytes);
                if read.map_err(failed)? as u64 != size {
                    return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(bytes)
            }
        }
    }

    /// The bytes of a file that describes pictures.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn description(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.read(name, MAX_DESCRIPTION)
    }

    /// A picture.
    ///
    /// # Errors
    /// As [`Self::read`], and what [`decode`] refuses.
    pub fn picture(&self, name: &str, limits: &Limits) -> Result<Image, Error> {
        let bytes = self.read(name, limits.max_bytes)?;
        decode(&bytes, &self.place(name), limits)
    }

    /// A path of a record as the name of a file of this archive; the error is what would be accepted.
    ///
    /// A data set that someone else wrote must not make the program open any other file. Links inside a directory are
    /// its owner's business.
    pub(super) fn name_inside(relative: &str) -> Result<String, &'static str> {
        const EXPECTED: &str = "a path inside the data set";
        // Both separators everywhere: a data set must mean the same on every system.
        let portable = relative.replace('\\', "/");
        if portable.as_bytes().get(1) == Some(&b':') || portable.contains('\0') {
            return Err(EXPECTED);
        }
        let mut parts = Vec::new();
        for component in Path::new(&portable).components() {
            match component {
                Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
                Component::CurDir => {}
                _ => return Err(EXPECTED),
            }
        }
        match parts.is_empty() {
            true => Err(EXPECTED),
            false => Ok(parts.join("/")),
        }
    }
}

fn tar(path: &Path) -> Result<Kind, Error> {
    let name = || path.display().to_string();
    let wrong = |found: String| {
        Error::Config {
        name: name(),
        key: "file".to_owned(),
        expected: "a directory with items.jsonl or another description, or a tar of one without compression"
            .to_owned(),
        found: one_line(&found),
    }
    };
    let file = File::open(path).map_err(|e| Error::io(path, "read", e))?;
    let mut entries = BTreeMap::new();
    {
        let mut archive = tar::Archive::new(BufReader::new(&file));
        let found = archive
            .entries_with_seek()
            .map_err(|e| wrong(e.to_string()))?;
        for entry in found {
            let entry = entry.map_err(|e| wrong(e.to_string()))?;
            if entry.header().entry_type() != tar::EntryType::Regular {
                continue;
            }
            let path = entry.path().map_err(|e| wrong(e.to_string()))?;
            let Ok(inside) = Archive::name_inside(&path.to_string_lossy()) else {
                continue;
            };
            entries.insert(inside, (entry.raw_file_position(), entry.size()));
            if entries.len() > MAX_ENTRIES {
                return Err(wrong(format!("more than {MAX_ENTRIES} files")));
            }
        }
    }
    if entries.is_empty() {
        return Err(wrong("no file in it".to_owned()));
    }
    Ok(Kind::Tar {
        file: Mutex::new(file),
        entries,
    })
}
