//! Vocabularies as their authors published them, before there was `tokenizer.json`.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Tokenizer;
use crate::Error;
use crate::error::one_line;
use crate::files::read_small;

/// The largest vocabulary after decompression, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Names of a vocabulary in a directory, in the order in which they are looked for.
const FILES: [&str; 3] = [
    "tokenizer.json",
    "vocab.txt",
    "bpe_simple_vocab_16e6.txt.gz",
];

impl Tokenizer {
    /// Reads a vocabulary: a `tokenizer.json`, BERT's list of word pieces (`*.txt`), or the merges of OpenAI's CLIP
    /// (`*.txt.gz`); or a directory with `tokenizer.json`, `vocab.txt` or `bpe_simple_vocab_16e6.txt.gz`.
    ///
    /// A list of word pieces becomes what `BertTokenizerFast` makes of it, lower-cased unless it has pieces with capital
    /// letters; merges become what `CLIPTokenizerFast` makes of them.
    ///
    /// # Errors
    /// Where there is no such file, or it is damaged; the message names it.
    pub fn from_vocabulary(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            let found = FILES
                .iter()
                .map(|f| path.join(f))
                .find(|path| path.is_file());
            let found = found.ok_or_else(|| Error::Missing {
                name: path.display().to_string(),
                expected: FILES.join(", "),
            })?;
            return Self::from_vocabulary(&found);
        }
        let name = path.display().to_string();
        if !name.ends_with(".txt") && !name.ends_with(".gz") {
            return Self::from_file(path);
        }
        let bytes = read_small(path)?
            .ok_or_else(|| Error::io(path, "read", std::io::ErrorKind::NotFound.into()))?;
        let failed = |detail: String| Error::Tokenizer {
            name: name.clone(),
            detail: one_line(&detail),
        };
        let text = if name.ends_with(".gz") {
            let mut text = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&bytes[..]).take(MAX_BYTES);
            reader
                .read_to_end(&mut text)
                .map_err(|e| failed(e.to_string()))?;
            text
        } else {
            bytes
        };
        let text = String::from_utf8(text).map_err(|e| failed(e.to_string()))?;
        let json = if name.ends_with(".gz") {
            clip(&text)
        } else {
            bert(&text)
        };
        let json = json.map_err(|detail| failed(detail.to_owned()))?;
        Self::from_bytes(json.to_string().as_bytes(), &name)
    }
}

/// A token that texts cannot contain.
fn special(content: &str, id: usize) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}

/// What `BertTokenizerFast` makes of a `vocab.txt`.
fn bert(text: &str) -> Result<Value, &'static str> {
    let mut vocabulary = Map::new();
    for (id, piece) in text.lines().enumerate() {
        vocabulary.insert(piece.to_owned(), json!(id));
    }
    let id = |token: &str| vocabulary.get(token).and_then(Value::as_u64);
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let (Some(cls), Some(sep), Some(_)) = (id("[CLS]"), id("[SEP]"), id("[UNK]")) else {
        return Err("expected BERT's word pieces, one a line, found no [CLS], [SEP] or [UNK]");
    };
    let added: Vec<Value> = specials
        .iter()
        .filter_map(|token| Some(special(token, id(token)? as usize)))
        .collect();
    let cased = vocabulary
        .keys()
        .filter(|piece| !piece.starts_with('['))
        .any(|piece| piece.bytes().any(|b| b.is_ascii_uppercase()));
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": !cased,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", sep], "cls": ["[CLS]", cls]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    }))
}

/// The letters that stand for bytes in a byte-level vocabulary, printable ones first (GPT-2's `bytes_to_unicode`).
fn letters() -> Vec<char> {
    let printable = (33..=126u32).chain(161..=172).chain(174..=255);
    let printable: Vec<u32> = printable.collect();
    let others = (0..256u32).filter(|byte| !printable.contains(byte));
    let others = others.enumerate().map(|(i, _)| 256 + i as u32);
    let all = printable.iter().copied().chain(others);
    all.filter_map(char::from_u32).collect()
}

/// What `CLIPTokenizerFast` makes of `bpe_simple_vocab_16e6.txt`, of which CLIP reads the first 48,894 merges.
fn clip(text: &str) -> Result<Value, &'static str> {
    const MERGES: usize = 49152 - 256 - 2;
    let lines = text.lines().skip(1).take(MERGES);
    let merges: Option<Vec<(&str, &str)>> = lines.map(|line| line.split_once(' ')).collect();
    let merges = merges.filter(|merges| !merges.is_empty());
    let Some(merges) = merges else {
        return Err("expected the merges of CLIP, two parts a line after the first line");
    };
    let mut vocabulary = Map::new();
    let letters: Vec<String> = letters().into_iter().map(String::from).collect();
    let ends = letters.iter().map(|letter| format!("{letter}</w>"));
    let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let (start, end) = ("<|startoftext|>", "<|endoftext|>");
    let tokens = letters.iter().cloned().chain(ends).chain(merged);
    let tokens = tokens.chain([start, end].map(str::to_owned));
    for (id, token) in tokens.enumerate() {
        vocabulary.insert(token, json!(id));
    }
    let [first, last] = [start, end].map(|t| vocabulary[t].as_u64().unwrap_or_default());
    let merges: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(start, first as usize), special(end, last as usize)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {
                "type": "Split",
                "pattern": {
                    "Regex": "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+",
                },
                "behavior": "Removed", "invert": true,
            },
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing", "sep": [end, last], "cls": [start, first], "trim_offsets": false,
            "add_prefix_space": false,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": end, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
            "merges": merges,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_letters_of_bytes_are_gpt2s() {
        let letters = letters();
        assert_eq!(letters.len(), 256);
        assert_eq!(letters[..3], ['!', '"', '#']);
        // byte 0 is the first that is not printable, the space the 33rd
        assert_eq!((letters[188], letters[188 + 32]), ('\u{100}', '\u{120}'));
    }

    #[test]
    fn word_pieces_are_read_as_bert_does() {
        let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\na\n,\n";
        let json = bert(vocabulary).unwrap().to_string();
        let tokenizer = Tokenizer::from_bytes(json.as_bytes(), "test").unwrap();
        let ids = tokenizer.encode_with_special_tokens("Unaffable, a ß");
        assert_eq!(ids.unwrap(), [2, 5, 6, 7, 9, 8, 1, 3]);
        assert!(bert("a\nb\n").is_err());
    }

    #[test]
    fn merges_are_read_as_clip_does() {
        let json = clip("\"version\"\nl o\nlo w</w>\n").unwrap().to_string();
        let tokenizer = Tokenizer::from_bytes(json.as_bytes(), "test").unwrap();
        let id = |token: &str| tokenizer.token_to_id(token).unwrap();
        assert_eq!(
            (id("lo"), id("low</w>"), id("<|endoftext|>")),
            (512, 513, 515)
        );
        let ids = tokenizer.encode_with_special_tokens("  LOW lo ").unwrap();
        let expected = [514, id("low</w>"), id("l"), id("o</w>"), 515];
        assert_eq!(ids, expected);
        assert!(clip("one line").is_err());
    }
}
