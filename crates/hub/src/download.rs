//! One file, from wherever it stopped to its place.

use crate::cache::{Repository, parents};
use crate::http::{self, Http, Metadata};
use crate::{Error, Hub, Request};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Brings one file of a commit into its snapshot.
pub fn file(
    hub: &Hub,
    http: &Http,
    repository: &Repository,
    request: &Request,
    commit: &str,
    name: &str,
    report: &mut dyn FnMut(u64, Option<u64>),
) -> Result<PathBuf, Error> {
    let url = http.url(&request.id, commit, name);
    let metadata = retried(hub, || http.metadata(&url))?;
    let too_large = |found| Error::TooLarge {
        file: name.to_owned(),
        limit: request.max_file_bytes,
        found,
    };
    if let Some(size) = metadata.size.filter(|&size| size > request.max_file_bytes) {
        return Err(too_large(size));
    }
    let _lock = repository.lock(&metadata.etag)?;
    let blob = repository.blob(&metadata.etag);
    let there = fs::metadata(&blob).map(|m| m.len()).ok();
    // a blob was checked when it was placed; its size tells whether the disk kept it
    if there.is_none() || metadata.size.is_some_and(|size| there != Some(size)) {
        let download = Download {
            hub,
            http,
            url: &url,
            name,
            metadata: &metadata,
            limit: metadata.size.unwrap_or(request.max_file_bytes),
        };
        download.to(&blob, report)?;
    } else {
        report(there.unwrap_or(0), there);
    }
    repository.link(commit, name, &metadata.etag)
}

/// Asks again after a pause where the network failed or the server is busy.
fn retried<T>(hub: &Hub, ask: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    let (retries, first) = hub.retries;
    let mut failures = 0;
    loop {
        match ask() {
            Err(e) if failures < retries && is_passing(&e) => {
                failures += 1;
                std::thread::sleep(http::pause(first, failures));
            }
            other => return other,
        }
    }
}

/// Whether an error may be gone a little later.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Network { .. } => true,
        Error::Answer {
            expected, found, ..
        } => {
            expected.starts_with("HTTP status")
                && ["429", "500", "502", "503", "504"].contains(&found.as_str())
        }
        _ => false,
    }
}

struct Download<'a> {
    hub: &'a Hub,
    http: &'a Http,
    url: &'a str,
    name: &'a str,
    metadata: &'a Metadata,
    /// The size, or the most bytes where the server does not say.
    limit: u64,
}

impl Download<'_> {
    fn network(&self, reason: impl ToString) -> Error {
        Error::Network {
            url: self.url.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// Downloads into `….incomplete`, checks it and gives it its name.
    fn to(&self, blob: &Path, report: &mut dyn FnMut(u64, Option<u64>)) -> Result<(), Error> {
        let partial = blob.with_extension("incomplete");
        parents(&partial)?;
        let io = || Error::io(&partial);
        let open = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&partial);
        let mut file = open.map_err(io())?;
        let mut resumed = file.metadata().map_err(io())?.len() > 0;
        loop {
            self.fill(&mut file, &partial, report)?;
            match self.check(&mut file, &partial)? {
                Ok(()) => break,
                // what was there before may be of another version or damaged
                Err(_) if resumed => {
                    file.set_len(0).map_err(io())?;
                    resumed = false;
                }
                Err(wrong) => {
                    fs::remove_file(&partial).map_err(io())?;
                    return Err(wrong);
                }
            }
        }
        file.sync_all().map_err(io())?;
        fs::rename(&partial, blob).map_err(Error::io(blob))
    }

    /// Appends until everything is there, however often the connection breaks, as long as each attempt brings something.
    fn fill(
        &self,
        file: &mut File,
        partial: &Path,
        report: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), Error> {
        let (retries, first) = self.hub.retries;
        let mut failures = 0;
        loop {
            let before = file.seek(SeekFrom::End(0)).map_err(Error::io(partial))?;
            if self.metadata.size == Some(before) {
                return Ok(());
            }
            let error = match self.attempt(file, partial, before, report) {
                Ok(()) => return Ok(()),
                Err(error) if is_passing(&error) => error,
                Err(error) => return Err(error),
            };
            let after = file.metadata().map_err(Error::io(partial))?.len();
            if after > before {
                failures = 0;
                continue;
            }
            failures += 1;
            if failures > retries {
                return Err(error);
            }
            std::thread::sleep(http::pause(first, failures));
        }
    }

    /// One request for what is not there yet.
    fn attempt(
        &self,
        file: &mut File,
        partial: &Path,
        mut have: u64,
        report: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), Error> {
        let io = || Error::io(partial);
        if have > self.limit {
            file.set_len(0).map_err(io())?;
            have = 0;
        }
        let answer = self.http.get(self.url, have)?;
        let range = http::header(answer.headers(), "content-range");
        let goes_on = match answer.status().as_u16() {
            206 => range.is_some_and(|range| range.starts_with(&format!("bytes {have}-"))),
            // what is there is more than there should be
            416 if have > 0 => {
                file.set_len(0).map_err(io())?;
                return self.attempt(file, partial, 0, report);
            }
            _ => {
                http::refuse_errors(self.url, &answer)?;
                false
            }
        };
        if !goes_on {
            if answer.status().as_u16() == 206 {
                return Err(Error::answer(
                    self.url,
                    &format!("bytes from {have} on"),
                    "others",
                ));
            }
            have = 0;
        }
        file.set_len(have).map_err(io())?;
        file.seek(SeekFrom::Start(have)).map_err(io())?;
        let announced = answer
            .body()
            .content_length()
            .map(|rest| rest.saturating_add(have));
        let too_large = |found| Error::TooLarge {
            file: self.name.to_owned(),
            limit: self.limit,
            found,
        };
        if let Some(found) = announced.filter(|&found| found > self.limit) {
            return Err(too_large(found));
        }
        let total = self.metadata.size.or(announced);
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            report(have, total);
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.network(e)),
            };
            have += read as u64;
            if have > self.limit {
                // nothing of an answer without an end is worth keeping
                file.set_len(0).map_err(io())?;
                return Err(too_large(have));
            }
            file.write_all(&buffer[..read]).map_err(io())?;
        }
        match total {
            Some(total) if have < total => Err(self.network(format!(
                "expected {total} bytes, found the end after {have}"
            ))),
            _ => Ok(()),
        }
    }

    /// Compares what is on the disk with the checksum, where the name of the contents is one.
    fn check(&self, file: &mut File, partial: &Path) -> Result<Result<(), Error>, Error> {
        let io = || Error::io(partial);
        let size = file.seek(SeekFrom::End(0)).map_err(io())?;
        file.seek(SeekFrom::Start(0)).map_err(io())?;
        let etag = self.metadata.etag.to_ascii_lowercase();
        let is_hex = etag.bytes().all(|b| b.is_ascii_hexdigit());
        let (kind, found) = match (etag.len(), is_hex) {
            (64, true) => ("SHA-256", digest(Sha256::new(), file).map_err(io())?),
            (40, true) => {
                let header = format!("blob {size}\0");
                let hash = Sha1::new().chain_update(header);
                ("git SHA-1", digest(hash, file).map_err(io())?)
            }
            _ => return Ok(Ok(())),
        };
        if found == etag {
            return Ok(Ok(()));
        }
        Ok(Err(Error::Checksum {
            file: self.name.to_owned(),
            kind,
            expected: etag,
            found,
        }))
    }
}

fn digest(mut hash: impl Digest, file: &mut File) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
