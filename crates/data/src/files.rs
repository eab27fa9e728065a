//! Reading files within a limit, and writing them so that a good one is never replaced by half of
//! another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// The largest configuration or vocabulary file that is read. The largest published ones have about
/// 35 MB.
const MAX_BYTES: u64 = 512 << 20;

/// The bytes of a configuration or vocabulary file, or `None` where there is no such file.
///
/// # Errors
/// No regular file, too large, or unreadable.
pub(crate) fn read_small(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::io(path, "read", source);
    // Asked before opening: to open a named pipe would wait for its writer.
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let name = || path.display().to_string();
    if !meta.is_file() {
        let found = if meta.is_dir() {
            "a directory"
        } else {
            "a device or pipe"
        };
        return Err(Error::NotAFile {
            name: name(),
            found,
        });
    }
    if meta.len() > MAX_BYTES {
        return Err(Error::TooManyBytes {
            name: name(),
            found: meta.len().to_string(),
            limit: MAX_BYTES,
        });
    }
    fs::read(path).map(Some).map_err(failed)
}

/// Writes `path` whole or not at all.
///
/// What `write` produces goes to a temporary file in the same directory, is flushed to the disk and
/// then takes the place of `path`. On any error `path` is what it was before and the temporary file
/// is gone. A reader sees the old file or the new one.
///
/// # Errors
/// [`Error::Io`] naming `path`: of `write`, a full disk included, or of the file system.
///
/// ```
/// use std::io::Write;
/// let path = std::env::temp_dir().join(format!("vlm-data-doc-{}.txt", std::process::id()));
/// vlm_data::files::write_atomically(&path, |w| w.write_all(b"whole"))?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"whole");
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), vlm_data::Error>(())
/// ```
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    replace(path, write).map_err(|source| Error::io(path, "write", source))
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // Through a symbolic link the file that it points to is replaced, not the link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if target.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "expected a file, found a directory",
        ));
    }
    let (temporary, file) = Temporary::create(&target)?;
    // The permissions of a file that is replaced stay what its owner made them.
    if let Ok(existing) = fs::metadata(&target) {
        file.set_permissions(existing.permissions())?;
    }
    let mut buffered = BufWriter::with_capacity(1 << 16, file);
    write(&mut buffered)?;
    let file = buffered
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    drop(file);
    temporary.rename_to(&target)
}

/// A file that is removed unless renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// A fresh file beside `target`, so that renaming stays within one file system.
    fn create(target: &Path) -> io::Result<(Self, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = target
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "expected a file name"))?;
        loop {
            let mut temporary = std::ffi::OsString::from(".");
            temporary.push(name);
            let serial = NEXT.fetch_add(1, Ordering::Relaxed);
            temporary.push(format!(".{}-{serial}.tmp", std::process::id()));
            let path = target.with_file_name(temporary);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((Self { path }, file)),
                // Left by a killed process of the same number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn rename_to(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        std::mem::forget(self); // nothing is left to remove
        // The rename itself lasts once the directory is on the disk; not every system lets a
        // directory be opened, and the file is whole either way.
        if let Some(directory) = target.parent().filter(|d| !d.as_os_str().is_empty())
            && let Ok(directory) = File::open(directory)
        {
            let _ = directory.sync_all();
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
