//! Which files of a repository a model needs.

use crate::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How the names of lists of shards end.
pub const INDEX: &str = ".index.json";

/// Weights, in the order in which they are looked for when a directory is opened.
const WEIGHTS: [&str; 6] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The only file of one of these kinds, if there are none of those names.
const KINDS: [&str; 4] = [".safetensors", ".pt", ".pth", ".gguf"];

/// Configs, vocabularies and templates.
const TEXTS: [&str; 4] = [".json", ".txt", ".model", ".jinja"];

/// The largest index of shards.
const MAX_INDEX: u64 = 64 << 20;

/// The file of weights of a directory with these names.
fn weights<'a>(names: &[&'a str]) -> Option<&'a str> {
    let published = WEIGHTS
        .iter()
        .find_map(|name| names.iter().find(|n| *n == name));
    published.copied().or_else(|| {
        let is_known = |name: &&&str| KINDS.iter().any(|kind| name.ends_with(kind));
        let mut others = names.iter().filter(is_known);
        match (others.next(), others.next()) {
            (Some(one), None) => Some(*one),
            _ => None,
        }
    })
}

/// Whether a name fits a pattern in which `*` stands for any letters.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((front, rest)) => name.strip_prefix(front).is_some_and(|name| {
            let ends = (0..=name.len()).filter(|&i| name.is_char_boundary(i));
            ends.into_iter().any(|i| fits(rest, &name[i..]))
        }),
    }
}

/// The files to download, of all that there are; weights last. The error is what was looked for.
pub fn wanted(all: &[String], patterns: &[String]) -> Result<Vec<String>, Vec<String>> {
    if !patterns.is_empty() {
        let chosen = all
            .iter()
            .filter(|name| patterns.iter().any(|p| fits(p, name)));
        let chosen: Vec<String> = chosen.cloned().collect();
        return if chosen.is_empty() {
            Err(patterns.to_vec())
        } else {
            Ok(chosen)
        };
    }
    let names: Vec<&str> = all
        .iter()
        .map(String::as_str)
        .filter(|n| !n.contains('/'))
        .collect();
    let Some(weights) = weights(&names) else {
        let kinds = KINDS.iter().map(|kind| format!("one *{kind}"));
        return Err(WEIGHTS
            .iter()
            .map(|n| (*n).to_owned())
            .chain(kinds)
            .collect());
    };
    let is_text =
        |name: &&&str| TEXTS.iter().any(|kind| name.ends_with(kind)) && !name.ends_with(INDEX);
    let texts = names.iter().filter(is_text).copied();
    Ok(texts.chain([weights]).map(str::to_owned).collect())
}

/// The files that an index of shards names.
pub fn shards(index: &Path) -> Result<Vec<String>, Error> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let place = index.display().to_string();
    let size = std::fs::metadata(index).map_err(Error::io(index))?.len();
    if size > MAX_INDEX {
        return Err(Error::TooLarge {
            file: place,
            limit: MAX_INDEX,
            found: size,
        });
    }
    let text = std::fs::read(index).map_err(Error::io(index))?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|e| Error::answer(&place, "an index of shards", e.to_string()))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    if let Some(bad) = files
        .iter()
        .find(|file| !is_safe(file) || file.contains('/'))
    {
        return Err(Error::answer(
            &place,
            "names of files beside it",
            format!("{bad:?}"),
        ));
    }
    Ok(files.into_iter().collect())
}

/// Whether a name of the server's can only lead into the directory that it is put into.
pub fn is_safe(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let bad = |c: char| c.is_control() || matches!(c, '\\' | ':' | '?' | '#' | '%');
    name.len() <= 500 && !name.contains(bad) && name.split('/').all(part)
}

/// What a directory lacks of a model, if anything.
pub fn lacking(directory: &Path, patterns: &[String]) -> Option<String> {
    let exists = |name: &str| directory.join(name).exists();
    if !patterns.is_empty() {
        // which files a pattern meant is known to the server alone
        let mut missing = patterns.iter().filter(|p| !p.contains('*') && !exists(p));
        return missing.next().cloned();
    }
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names: Vec<String> = entries
        .filter(|entry| entry.path().exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(weights) = weights(&names) else {
        return Some("weights".to_owned());
    };
    if !weights.ends_with(INDEX) {
        return None;
    }
    match shards(&directory.join(weights)) {
        Ok(shards) => shards.into_iter().find(|shard| !exists(shard)),
        Err(_) => Some(format!("a readable {weights}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_model_needs_its_texts_and_the_first_weights_that_are_published() {
        let all = owned(&[
            ".gitattributes",
            "README.md",
            "config.json",
            "flax_model.msgpack",
            "merges.txt",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/config.json",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "tokenizer.json",
        ]);
        let found = wanted(&all, &[]).unwrap();
        assert_eq!(
            found,
            [
                "config.json",
                "merges.txt",
                "tokenizer.json",
                "model.safetensors"
            ]
        );
        assert_eq!(
            wanted(&all, &owned(&["onnx/*.onnx"])).unwrap(),
            ["onnx/model.onnx"]
        );
        assert_eq!(wanted(&all, &owned(&["*.gguf"])).unwrap_err(), ["*.gguf"]);
        assert_eq!(
            wanted(&owned(&["a.pt", "config.json"]), &[]).unwrap()[1],
            "a.pt"
        );
        let several = wanted(&owned(&["a.gguf", "b.gguf"]), &[]).unwrap_err();
        assert!(several.contains(&"one *.gguf".to_owned()));
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_safe() {
        for (name, safe) in [
            ("a.json", true),
            ("a/b.json", true),
            ("../a", false),
            ("a/../b", false),
            ("/etc/passwd", false),
            ("a//b", false),
            ("", false),
            ("a\\b", false),
            ("c:a", false),
            ("a\nb", false),
        ] {
            assert_eq!(is_safe(name), safe, "{name:?}");
        }
    }

    #[test]
    fn stars_stand_for_any_letters() {
        for (pattern, name, expected) in [
            ("*.json", "a.json", true),
            ("*.json", "a.jsonl", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
