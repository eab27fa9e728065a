//! Which file of a model's directory holds the weights, and what kind of file it is.

use super::checkpoint::Checkpoint;
use super::tensor::Source;
use super::{Error, format_error, pytorch, safetensors, zip};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use vlm_kernels::MappedFile;

/// Names under which models are published, in the order in which they are looked for.
const PUBLISHED: [&str; 6] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The largest index of shards: a name and a file for each tensor.
const MAX_INDEX: u64 = 64 << 20;

/// The most files of one checkpoint.
const MAX_SHARDS: usize = 1024;

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        name: path.display().to_string(),
        source,
    }
}

impl Checkpoint {
    /// Reads the bytes of a file of any known format; `name` stands for it in errors. The bytes are copied once.
    ///
    /// # Errors
    /// A format that is not known, or a file that is damaged.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, Error> {
        sniff(Source::copied(bytes), name)
    }

    /// Opens a file of any known format, or the index of a checkpoint in shards (`….index.json`), without reading the
    /// numbers: the file is mapped into memory ([`MappedFile`] says what happens when it changes underneath).
    ///
    /// # Errors
    /// A file that cannot be read or is damaged, or a format that is not known.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.extension().is_some_and(|e| e == "json") {
            return open_index(path);
        }
        open_file(path)
    }

    /// Opens the weights of a model's directory: `model.safetensors`, its index of shards, open_clip's file names,
    /// `pytorch_model.bin`, its index, or the only `.pt`, `.pth` or `.safetensors` file, whichever is there first.
    ///
    /// # Errors
    /// No such file, several where one was looked for, or a file that [`Self::open`] refuses.
    pub fn open_directory(directory: &Path) -> Result<Self, Error> {
        Self::open(&weights_file(directory)?)
    }
}

fn open_file(path: &Path) -> Result<Checkpoint, Error> {
    let place = path.display().to_string();
    // before it is opened, because opening a pipe waits for its other end
    let kind = fs::metadata(path).map_err(|e| io_error(path, e))?;
    if !kind.is_file() {
        return Err(format_error(&place, "expected a regular file"));
    }
    let map = File::open(path).and_then(|file| MappedFile::new(&file));
    sniff(Source::mapped(map.map_err(|e| io_error(path, e))?), &place)
}

/// The file that [`Checkpoint::open_directory`] opens.
///
/// # Errors
/// No such file, or several where one was looked for.
pub fn weights_file(directory: &Path) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(directory).map_err(|e| io_error(directory, e))?;
    if let Some(found) = PUBLISHED
        .iter()
        .map(|name| directory.join(name))
        .find(|p| p.exists())
    {
        return Ok(found);
    }
    let mut others = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| io_error(directory, e))?.path();
        let known = ["pt", "pth", "safetensors"];
        if path
            .extension()
            .is_some_and(|e| known.iter().any(|k| e == *k))
        {
            others.push(path);
        }
    }
    others.sort();
    match others.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::NoWeights {
            directory: directory.display().to_string(),
            looked_for: PUBLISHED
                .into_iter()
                .chain(["one *.pt", "one *.pth", "one *.safetensors"])
                .map(str::to_owned)
                .collect(),
        }),
        several => {
            let names = several.iter().filter_map(|p| p.file_name());
            let names: Vec<_> = names.map(|n| n.to_string_lossy().into_owned()).collect();
            Err(format_error(
                &directory.display().to_string(),
                format!(
                    "expected one file of weights, found {}; name one of them",
                    names.join(", ")
                ),
            ))
        }
    }
}

/// Tells formats apart by how files begin.
fn sniff(source: Source, name: &str) -> Result<Checkpoint, Error> {
    let bytes = source.bytes();
    if safetensors::fits(bytes) {
        return safetensors::parse(&source, name);
    }
    if zip::fits(bytes) {
        return pytorch::parse_zip(&source, name);
    }
    if pytorch::is_legacy(bytes) {
        return pytorch::parse_legacy(&source, name);
    }
    let begins = |with: &[u8]| bytes.starts_with(with);
    let found = if bytes.is_empty() {
        "an empty file".to_owned()
    } else if begins(b"version https://git-lfs") {
        "a Git LFS pointer; fetch the file itself (git lfs pull)".to_owned()
    } else if begins(b"GGUF") {
        "GGUF, which is opened as a model of its own".to_owned()
    } else if bytes.first() == Some(&0x80) {
        pytorch::refuse_bare_pickle(bytes)
    } else if bytes.get(257..).is_some_and(|b| b.starts_with(b"ustar")) {
        "a tar archive, as PyTorch wrote them before 0.1.10".to_owned()
    } else if begins(b"<") {
        "a web page; was the download refused?".to_owned()
    } else if begins(b"\x89HDF") || begins(b"\x08\x00\x00\x00TFL3") {
        "weights of TensorFlow".to_owned()
    } else {
        let begin: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
        format!("{} bytes that begin with {}", bytes.len(), begin.join(" "))
    };
    Err(format_error(
        name,
        format!("expected safetensors or a PyTorch checkpoint, found {found}"),
    ))
}

/// `model.safetensors.index.json`: which file holds which tensor.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn open_index(path: &Path) -> Result<Checkpoint, Error> {
    let place = path.display().to_string();
    let error = |reason: String| format_error(&place, reason);
    let size = fs::metadata(path).map_err(|e| io_error(path, e))?.len();
    if size > MAX_INDEX {
        return Err(error(format!(
            "expected at most {MAX_INDEX} bytes, found {size}"
        )));
    }
    let text = fs::read(path).map_err(|e| io_error(path, e))?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|e| error(format!("expected an index of shards, found {e}")))?;
    let files: BTreeSet<&String> = index.weight_map.values().collect();
    if files.is_empty() || files.len() > MAX_SHARDS {
        return Err(error(format!(
            "expected from 1 to {MAX_SHARDS} files, found {}",
            files.len()
        )));
    }
    let mut all: Option<Checkpoint> = None;
    for file in files {
        // a published index must not read files elsewhere
        let mut parts = Path::new(file).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        ) {
            return Err(error(format!(
                "expected names of files beside it, found {file:?}"
            )));
        }
        let shard = open_file(&path.with_file_name(file))?;
        match &mut all {
            None => all = Some(shard),
            Some(all) => all.join(shard)?,
        }
    }
    let mut all = all.expect("at least one file");
    all.name = place;
    let missing: Vec<String> = index
        .weight_map
        .iter()
        .filter(|(name, _)| !all.contains(name))
        .map(|(name, file)| format!("- {name} (listed in {file})"))
        .collect();
    if !missing.is_empty() {
        return Err(Error::Mismatch {
            name: all.name,
            differences: missing,
        });
    }
    Ok(all)
}
