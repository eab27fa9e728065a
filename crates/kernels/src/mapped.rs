//! Files as slices: the one place where a file is mapped into memory.

use std::fs::File;
use std::io;

/// A file's bytes, read from disk when they are looked at and not before.
///
/// # When the file changes underneath
/// The mapping is private and read-only, but it is the file: whoever writes into the file while it is mapped changes the
/// bytes seen here, and whoever cuts it short makes the system end this process (`SIGBUS`) when a page that is gone is
/// looked at. Programs that replace a file by renaming another over it, as ours and the downloaders do, are safe: the
/// mapping keeps the old file. So what decides about memory (lengths, offsets) must be copied out once and checked on the
/// copy, never read twice, and numbers are checked after they were converted, never before.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps a whole regular file.
    ///
    /// # Errors
    /// What is no regular file (a pipe or a device has no length that could be relied on), or what the system refuses.
    pub fn new(file: &File) -> io::Result<Self> {
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected a regular file",
            ));
        }
        // SAFETY: the slice lives no longer than the mapping, which `self` owns. A change of the file by another process
        // is outside what Rust can rule out; bytes have no invalid values, so what remains is reading a value that
        // changed, which the callers are written for, and the signal described above, which ends the process.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_has_the_bytes_of_the_file_even_if_it_is_empty() {
        let path = std::env::temp_dir().join(format!("vlm-mapped-{}", std::process::id()));
        for bytes in [&b"some bytes"[..], b""] {
            std::fs::write(&path, bytes).expect("written");
            let mapped = MappedFile::new(&File::open(&path).expect("open")).expect("mapped");
            assert_eq!(mapped.as_ref(), bytes);
        }
        std::fs::remove_file(&path).expect("removed");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused() {
        for path in ["/dev/zero", "/"] {
            let file = File::open(path).expect("open");
            assert!(MappedFile::new(&file).is_err(), "{path}");
        }
    }
}
