//! Checkpoints of PyTorch: zip archives, TorchScript, and the format before 1.6, all without running any of their code.

use super::checkpoint::{Checkpoint, Format};
use super::pickle::{self, MAX_PICKLE, Node, Object, Pickle, Storage, Value};
use super::tensor::{Source, Tensor, View};
use super::zip::Archive;
use super::{Error, format_error};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, HashMap};

type Reason = String;

/// Under which of these a training checkpoint holds the model's tensors, in the order in which they are looked for.
const WRAPPERS: &[&str] = &[
    "state_dict",
    "model_state_dict",
    "model",
    "model_state",
    "module",
    "net",
    "network",
    "params",
];

/// How far down modules and dicts are searched.
const MAX_DEPTH: usize = 64;

/// The most entries that are looked at in search of tensors.
const MAX_VISITS: usize = 1 << 20;

/// The most bytes of all tensors' names.
const MAX_NAMES: usize = 1 << 25;

/// The most values beside tensors that are kept, and the most bytes of their texts.
const MAX_EXTRA: usize = 1 << 20;

/// The most TorchScript code that is searched for lists of parameters.
const MAX_CODE: usize = 1 << 26;

/// How files before PyTorch 1.6 begin, behind the pickle protocol's number.
const LEGACY: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Whether a file begins as PyTorch's before 1.6.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x80) && bytes.get(2..).is_some_and(|b| b.starts_with(LEGACY))
}

/// The tensors of a zip archive.
pub(super) fn parse_zip(source: &Source, name: &str) -> Result<Checkpoint, Error> {
    zip_archive(source, name).map_err(|reason| format_error(name, reason))
}

/// The tensors of a file before PyTorch 1.6.
pub(super) fn parse_legacy(source: &Source, name: &str) -> Result<Checkpoint, Error> {
    legacy_file(source, name).map_err(|reason| format_error(name, reason))
}

/// Why a pickle that nothing of PyTorch's surrounds is no checkpoint.
pub(super) fn refuse_bare_pickle(bytes: &[u8]) -> Reason {
    match Pickle::parse(bytes, MAX_PICKLE) {
        Ok(_) => "a pickle that torch.save did not write".to_owned(),
        Err(reason) => format!("a pickle that torch.save did not write ({reason})"),
    }
}

fn zip_archive(source: &Source, name: &str) -> Result<Checkpoint, Reason> {
    let archive = Archive::parse(source)?;
    let pickles = archive
        .names()
        .filter(|n| *n == "data.pkl" || n.ends_with("/data.pkl"));
    let Some(data) = pickles.min_by_key(|n| (n.len(), *n)) else {
        return Err("expected a PyTorch checkpoint, found a zip archive without data.pkl".into());
    };
    let folder = data.trim_end_matches("data.pkl");
    let order = format!("{folder}byteorder");
    if archive.contains(&order) && &*archive.read(&order, 16)? != b"little" {
        return Err("expected little-endian numbers, found others".into());
    }
    let pickle = Pickle::parse(&archive.read(data, MAX_PICKLE)?, MAX_PICKLE)
        .map_err(|reason| format!("data.pkl: {reason}"))?;
    let is_script = archive.contains(&format!("{folder}constants.pkl"));
    let place = |storage: &Storage| archive.stored(&format!("{folder}data/{}", storage.key));
    let mut collect = Collect::new(source, &pickle, &place);
    if is_script {
        collect.registered = registered(&archive, folder)?;
    }
    let format = match is_script {
        true => Format::TorchScript,
        false => Format::PyTorch,
    };
    collect.checkpoint(name, format)
}

fn legacy_file(source: &Source, name: &str) -> Result<Checkpoint, Reason> {
    let bytes = source.bytes();
    let mut at = 2 + LEGACY.len();
    let mut next = |what: &str, most: usize| {
        let pickle = Pickle::parse(&bytes[at..], most).map_err(|e| format!("{what}: {e}"))?;
        at += pickle.len;
        Ok::<_, Reason>((pickle, at))
    };
    let (version, _) = next("version", 64)?;
    if !matches!(version.root, Value::Int(1001)) {
        return Err("expected version 1001 of PyTorch's format before 1.6, found another".into());
    }
    let (system, _) = next("system", 1 << 16)?;
    if matches!(
        system.get(system.root, "little_endian"),
        Some(Value::Bool(false))
    ) {
        return Err("expected little-endian numbers, found others".into());
    }
    let (pickle, _) = next("objects", MAX_PICKLE)?;
    let (keys, mut at) = next("keys of storages", MAX_PICKLE)?;

    // each storage is a count and so many numbers, of a size that only the tensors tell
    let mut sizes = HashMap::new();
    for node in &pickle.nodes {
        if let Node::Storage(storage) = node {
            let size = storage.dtype.map_or(1, |dtype| dtype.size());
            if *sizes.entry(storage.key.as_str()).or_insert(size) != size {
                return Err(format!("expected storage {:?} of one type", storage.key));
            }
        }
    }
    let mut places = HashMap::new();
    let listed = keys.items(keys.root);
    for &key in listed.ok_or("expected a list of storages, found another value")? {
        let key = keys
            .str(key)
            .ok_or("expected storages by name, found another value")?;
        let size = sizes
            .get(key)
            .ok_or_else(|| format!("expected no storage {key:?}"))?;
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
        let count = count.map(|count| u64::from_le_bytes(*count));
        let begin = at + 8;
        let len = count.and_then(|count| usize::try_from(count).ok()?.checked_mul(*size));
        let end = len.and_then(|len| begin.checked_add(len));
        let end = end.filter(|&end| end <= bytes.len());
        let Some(end) = end else {
            return Err(format!(
                "expected the numbers of storage {key:?} at {at} of {} bytes; cut short?",
                bytes.len()
            ));
        };
        places.insert(key, (begin, end));
        at = end;
    }
    let place = |storage: &Storage| {
        let found = places.get(storage.key.as_str()).copied();
        found.ok_or_else(|| format!("expected storage {:?}, found none", storage.key))
    };
    Collect::new(source, &pickle, &place).checkpoint(name, Format::PyTorchLegacy)
}

/// Which attributes of each TorchScript class are parameters and buffers, as its code says in two lists; the others, such
/// as masks, are no part of a state dict.
type Registered = HashMap<String, Vec<String>>;

fn registered(archive: &Archive, folder: &str) -> Result<Registered, Reason> {
    let mut found = Registered::new();
    let code = format!("{folder}code/");
    let mut left = MAX_CODE;
    for record in archive.names() {
        let file = record
            .strip_prefix(&code)
            .and_then(|f| f.strip_suffix(".py"));
        let Some(file) = file else {
            continue;
        };
        let module = file.replace('/', ".");
        let text = archive.read(record, left)?;
        left -= text.len();
        let text = String::from_utf8_lossy(&text);
        let mut class = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("class ") {
                let name = name.split('(').next().unwrap_or_default();
                class = Some(format!("{module}.{name}"));
            }
            let line = line.trim_start();
            let is_list = ["__parameters__ = [", "__buffers__ = ["];
            let list = is_list.iter().find_map(|start| line.strip_prefix(start));
            if let (Some(class), Some(list)) = (&class, list) {
                // "a", "b", ]
                let names = list.split('"').skip(1).step_by(2).map(str::to_owned);
                found.entry(class.clone()).or_default().extend(names);
            }
        }
    }
    Ok(found)
}

/// Where the numbers of a storage are.
type Place<'a> = dyn Fn(&Storage) -> Result<(usize, usize), Reason> + 'a;

/// Walks what a pickle built, in search of tensors and their names.
struct Collect<'a> {
    source: &'a Source,
    pickle: &'a Pickle,
    place: &'a Place<'a>,
    registered: Registered,
    tensors: BTreeMap<String, Tensor>,
    visits: usize,
    names: usize,
}

impl<'a> Collect<'a> {
    fn new(source: &'a Source, pickle: &'a Pickle, place: &'a Place<'a>) -> Self {
        Self {
            source,
            pickle,
            place,
            registered: Registered::new(),
            tensors: BTreeMap::new(),
            visits: 0,
            names: 0,
        }
    }

    fn checkpoint(mut self, name: &str, format: Format) -> Result<Checkpoint, Reason> {
        let mut root = self.pickle.root;
        let mut around = Vec::new();
        while let Some((key, inside)) = self.wrapped(root) {
            around.push((root, key));
            root = inside;
        }
        self.walk(root, "", 0)?;
        if self.tensors.is_empty() {
            return Err("expected tensors, found none".into());
        }
        let mut extra = Extra {
            pickle: self.pickle,
            left: MAX_EXTRA,
            search: MAX_EXTRA,
        };
        let mut beside = Map::new();
        for (dict, key) in around {
            extra.beside(dict, Some(key), &mut beside);
        }
        extra.beside(root, None, &mut beside);
        let mut checkpoint = Checkpoint::new(name, format, self.tensors);
        checkpoint.extra = beside;
        // of data-parallel training and of compiling, which wrap the model
        while checkpoint.strip_prefix("module.") || checkpoint.strip_prefix("_orig_mod.") {}
        Ok(checkpoint)
    }

    /// The dict of tensors in a training checkpoint, and its key.
    fn wrapped(&self, root: Value) -> Option<(&'static str, Value)> {
        let entries = self.pickle.dict(root)?;
        let is_tensor = |v: Value| matches!(self.pickle.node(v), Some(Node::Tensor(_)));
        if entries.iter().any(|&(_, v)| is_tensor(v)) {
            return None;
        }
        WRAPPERS.iter().find_map(|&key| {
            let inside = self.pickle.get(root, key)?;
            let found = has_tensors(self.pickle, inside, &mut 100_000, 8);
            // a dict in itself would be unwrapped for ever
            let another = !matches!((root, inside), (Value::Ref(a), Value::Ref(b)) if a == b);
            (found && another).then_some((key, inside))
        })
    }

    fn walk(&mut self, value: Value, path: &str, depth: usize) -> Result<(), Reason> {
        self.visits += 1;
        self.names += path.len();
        if self.names > MAX_NAMES {
            return Err(format!(
                "expected at most {MAX_NAMES} bytes of names, found more"
            ));
        }
        if depth > MAX_DEPTH || self.visits > MAX_VISITS {
            return Err(format!(
                "expected modules at most {MAX_DEPTH} deep with {MAX_VISITS} entries, found more"
            ));
        }
        match self.pickle.node(value) {
            Some(Node::Tensor(tensor)) => self.add(tensor, path),
            Some(Node::Dict(entries)) => self.entries(entries, path, depth, |_| true),
            Some(Node::List(items) | Node::Tuple(items)) => {
                for (i, &item) in items.iter().enumerate() {
                    self.walk(item, &join(path, &i.to_string()), depth + 1)?;
                }
                Ok(())
            }
            Some(Node::Object(object)) => self.module(object, path, depth),
            _ => Ok(()),
        }
    }

    /// Entries of a dict, of which tensors are taken where `wanted` has nothing against their names.
    fn entries(
        &mut self,
        entries: &[(Value, Value)],
        path: &str,
        depth: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(), Reason> {
        for &(key, value) in entries {
            let key = match (key, self.pickle.str(key)) {
                (_, Some(key)) => key.to_owned(),
                (Value::Int(key), _) => key.to_string(),
                _ => continue,
            };
            let is_tensor = matches!(self.pickle.node(value), Some(Node::Tensor(_)));
            if is_tensor && !wanted(&key) {
                continue;
            }
            self.walk(value, &join(path, &key), depth + 1)?;
        }
        Ok(())
    }

    /// A module: of TorchScript, whose attributes are its state, or of Python, whose state has a dict of each kind.
    fn module(&mut self, object: &Object, path: &str, depth: usize) -> Result<(), Reason> {
        let pickle = self.pickle;
        let Some(state) = pickle.dict(object.state) else {
            return Ok(());
        };
        if object.class.module.starts_with("__torch__") {
            let listed = self.registered.get(&object.class.path()).cloned();
            // a class without code has nothing to go by
            let wanted = |key: &str| listed.as_ref().is_none_or(|l| l.iter().any(|n| n == key));
            return self.entries(state, path, depth, wanted);
        }
        for kind in ["_parameters", "_buffers", "_modules"] {
            if let Some(entries) = pickle.get(object.state, kind).and_then(|d| pickle.dict(d)) {
                self.entries(entries, path, depth, |_| true)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, tensor: &pickle::Tensor, path: &str) -> Result<(), Reason> {
        let in_tensor = |reason: Reason| format!("{}: {reason}", shortened(path));
        let storage = &tensor.storage;
        let (begin, end) = (self.place)(storage).map_err(in_tensor)?;
        let size = storage.dtype.map_or(1, |dtype| dtype.size());
        let part = |numbers: usize| numbers.checked_mul(size)?.checked_add(begin);
        let from = part(storage.offset);
        let to = storage.offset.checked_add(storage.count).and_then(part);
        let (Some(from), Some(to)) = (from, to.filter(|&to| to <= end)) else {
            return Err(in_tensor(format!(
                "expected a storage of {} numbers, found {} bytes; cut short?",
                storage.count,
                end - begin
            )));
        };
        let (shape, strides) = (tensor.shape.clone(), tensor.strides.clone());
        let view = View::new(
            self.source,
            (from, to),
            tensor.dtype,
            tensor.offset,
            shape,
            strides,
        );
        let view = view.map_err(in_tensor)?;
        let name = if path.is_empty() { "tensor" } else { path };
        if self.tensors.insert(name.to_owned(), view.into()).is_some() {
            return Err(in_tensor(
                "expected one tensor of this name, found two".into(),
            ));
        }
        Ok(())
    }
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(200).collect()
}

/// Whether there are tensors in a value, as far as a limited search goes.
fn has_tensors(pickle: &Pickle, value: Value, left: &mut usize, depth: usize) -> bool {
    if depth == 0 || *left == 0 {
        return false;
    }
    *left -= 1;
    match pickle.node(value) {
        Some(Node::Tensor(_)) => true,
        Some(Node::Dict(entries)) => {
            let mut entries = entries.iter();
            entries.any(|&(_, v)| has_tensors(pickle, v, left, depth - 1))
        }
        Some(Node::List(items) | Node::Tuple(items)) => {
            let mut items = items.iter();
            items.any(|&v| has_tensors(pickle, v, left, depth - 1))
        }
        Some(Node::Object(object)) => has_tensors(pickle, object.state, left, depth - 1),
        _ => false,
    }
}

/// What stands beside the tensors, as JSON.
struct Extra<'a> {
    pickle: &'a Pickle,
    /// Values, and bytes of text, that may still be copied.
    left: usize,
    /// Values that may still be searched for tensors.
    search: usize,
}

impl Extra<'_> {
    /// The entries of a dict or module that hold no tensors.
    fn beside(&mut self, value: Value, without: Option<&str>, into: &mut Map<String, Json>) {
        let pickle = self.pickle;
        let dict = match pickle.node(value) {
            Some(Node::Object(object)) => object.state,
            _ => value,
        };
        for &(key, value) in pickle.dict(dict).unwrap_or_default() {
            let Some(key) = pickle.str(key) else {
                continue;
            };
            if Some(key) == without || has_tensors(pickle, value, &mut self.search, 8) {
                continue;
            }
            if let (true, Some(value)) = (key.len() < 1024, self.json(value, 0)) {
                into.insert(key.to_owned(), value);
            }
        }
    }

    /// A value as JSON, or nothing if that would be too large.
    fn json(&mut self, value: Value, depth: usize) -> Option<Json> {
        self.left = self.left.checked_sub(1)?;
        if depth > 32 {
            return None;
        }
        Some(match value {
            Value::None => Json::Null,
            Value::Bool(b) => b.into(),
            Value::Int(n) => n.into(),
            // JSON has no infinity
            Value::Float(x) if !x.is_finite() => x.to_string().into(),
            Value::Float(x) => x.into(),
            Value::Ref(_) => match self.pickle.node(value)? {
                Node::Str(text) => {
                    self.left = self.left.checked_sub(text.len())?;
                    text.as_str().into()
                }
                Node::Bytes(bytes) => format!("{} bytes", bytes.len()).into(),
                Node::LargeInt => "a large integer".into(),
                Node::List(items) | Node::Tuple(items) => {
                    let items = items.iter().map(|&item| self.json(item, depth + 1));
                    Json::Array(items.collect::<Option<_>>()?)
                }
                Node::Dict(entries) => self.object(entries, depth)?,
                Node::Global(global) => global.path().into(),
                Node::Storage(_) | Node::Tensor(_) => return None,
                Node::Object(object) => match self.pickle.dict(object.state) {
                    Some(entries) => self.object(entries, depth)?,
                    None => match self.pickle.items(object.arguments) {
                        // torch.device("cpu"), PosixPath("a", "b")
                        Some(items) => {
                            let items = items.iter().map(|&item| self.json(item, depth + 1));
                            Json::Array(items.collect::<Option<_>>()?)
                        }
                        None => object.class.path().into(),
                    },
                },
            },
        })
    }

    fn object(&mut self, entries: &[(Value, Value)], depth: usize) -> Option<Json> {
        let mut map = Map::new();
        for &(key, value) in entries {
            let key = match (key, self.pickle.str(key)) {
                (_, Some(key)) => key.to_owned(),
                (Value::Int(key), _) => key.to_string(),
                _ => continue,
            };
            self.left = self.left.checked_sub(key.len())?;
            map.insert(key, self.json(value, depth + 1)?);
        }
        Some(Json::Object(map))
    }
}
