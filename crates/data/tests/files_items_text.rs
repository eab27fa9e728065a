//! Atomic writing, data directories and tokenizers, on real files.

use std::io;
use std::path::PathBuf;

use vlm_data::datasets::items;
use vlm_data::files::write_atomically;
use vlm_data::text::{Tokenizer, word_level};

/// A scratch directory of one test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vlm-data-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_full_disk_leaves_the_old_file_and_nothing_else() {
    let scratch = Scratch::new("full-disk");
    let path = scratch.0.join("model.safetensors");
    std::fs::write(&path, b"good").unwrap();
    let error = write_atomically(&path, |w| {
        w.write_all(&[1; 200_000])?;
        Err(io::Error::from(io::ErrorKind::StorageFull))
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: cannot write: no space left on the disk",
            path.display()
        )
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"good");
    assert_eq!(scratch.names(), ["model.safetensors"]);
}

#[test]
fn a_panic_while_writing_leaves_no_temporary_file() {
    let scratch = Scratch::new("panic");
    let path = scratch.0.join("log.jsonl");
    let outcome = std::panic::catch_unwind(|| {
        let _ = write_atomically(&path, |_| std::panic::resume_unwind(Box::new("stop")));
    });
    assert!(outcome.is_err());
    assert!(scratch.names().is_empty());
}

#[test]
fn atomic_writing_replaces_whole_files_and_names_what_it_cannot_write() {
    let scratch = Scratch::new("replace");
    let path = scratch.0.join("a.txt");
    write_atomically(&path, |w| w.write_all(b"a longer first version")).unwrap();
    write_atomically(&path, |w| w.write_all(b"second")).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"second");
    assert_eq!(scratch.names(), ["a.txt"]);

    let missing = scratch.0.join("no/such/a.txt");
    let message = write_atomically(&missing, |_| Ok(()))
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        format!("{}: cannot write: no such file", missing.display())
    );
    let message = write_atomically(&scratch.0, |_| Ok(()))
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("expected a file, found a directory"),
        "{message}"
    );
}

#[test]
fn items_keep_every_field() {
    let scratch = Scratch::new("items");
    let lines = concat!(
        r#"{"image":"pictures/0.png","captions":["a red circle","one circle"],"#,
        r#""qa":[{"question":"how many?","answer":"1","type":"count"}],"boxes":[[1,2,3,4]],"seed":9}"#,
        "\r\n\n",
        r#"{"image":"1.png"}"#,
    );
    std::fs::write(scratch.0.join(items::FILE_NAME), lines).unwrap();
    let found = items::read(&scratch.0).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].image, scratch.0.join("pictures/0.png"));
    assert_eq!(found[0].captions, ["a red circle", "one circle"]);
    assert_eq!(found[0].qa[0].question, "how many?");
    assert_eq!(found[0].qa[0].kind, "count");
    let extra: Vec<&String> = found[0].extra.keys().collect();
    assert_eq!(extra, ["boxes", "seed"]);
    assert_eq!(found[1].image, scratch.0.join("1.png"));
    assert!(found[1].captions.is_empty() && found[1].qa.is_empty());
}

#[test]
fn a_wrong_record_is_named_by_file_line_and_field_and_the_next_is_read() {
    let cases = [
        ("{", "record: expected a JSON object"),
        ("[]", "record: expected a JSON object"),
        ("{}", "image: expected a string, found none"),
        (r#"{"image":3}"#, "image: expected a string, found 3"),
        (
            r#"{"image":"a.png","captions":"no list"}"#,
            r#"captions: expected a list, found "no list""#,
        ),
        (
            r#"{"image":"a.png","captions":["ok",null]}"#,
            "captions[1]: expected a string, found none",
        ),
        (
            r#"{"image":"a.png","qa":[{"question":"why?"}]}"#,
            "qa[0].answer: expected a string, found none",
        ),
        (
            r#"{"image":"a.png","qa":[7]}"#,
            "qa[0]: expected an object, found 7",
        ),
        (
            r#"{"image":"../secret.png"}"#,
            r#"image: expected a path inside the data directory, found "../secret.png""#,
        ),
        (
            r#"{"image":"/etc/passwd"}"#,
            r#"image: expected a path inside the data directory, found "/etc/passwd""#,
        ),
        (
            r#"{"image":"a/../../b.png"}"#,
            "image: expected a path inside the data directory",
        ),
        (
            r#"{"image":"..\\b.png"}"#,
            "image: expected a path inside the data directory",
        ),
        (
            r#"{"image":"C:\\b.png"}"#,
            "image: expected a path inside the data directory",
        ),
        (
            r#"{"image":""}"#,
            "image: expected a path inside the data directory",
        ),
    ];
    let scratch = Scratch::new("wrong-items");
    let path = scratch.0.join(items::FILE_NAME);
    for (line, expected) in cases {
        std::fs::write(
            &path,
            format!("{{\"image\":\"0.png\"}}\n{line}\n{{\"image\":\"2.png\"}}\n"),
        )
        .unwrap();
        let found: Vec<_> = items::open(&scratch.0).unwrap().collect();
        assert_eq!(found.len(), 3, "{line}");
        let message = found[1].as_ref().unwrap_err().to_string();
        let start = format!("{}:2: {expected}", path.display());
        assert!(message.starts_with(&start), "{message}");
        assert!(found[0].is_ok() && found[2].is_ok());
    }
    std::fs::remove_file(&path).unwrap();
    let message = items::open(&scratch.0).unwrap_err().to_string();
    assert!(
        message.ends_with("items.jsonl: cannot read: no such file"),
        "{message}"
    );
}

fn words() -> Vec<String> {
    [
        "a", "red", "circle", "left", "of", "the", "?", ".", ",", "it's", "ünder",
    ]
    .map(String::from)
    .into_iter()
    .filter(|w| w != "it's")
    .collect()
}

#[test]
fn word_level_tokenizers_survive_their_file_and_write_the_same_bytes() {
    let scratch = Scratch::new("tokenizer");
    let built = word_level(&words(), &["[PAD]", "[UNK]", "[BOS]"]).unwrap();
    let json = built.to_json().unwrap();
    for _ in 0..5 {
        let again = word_level(&words(), &["[PAD]", "[UNK]", "[BOS]"]).unwrap();
        assert_eq!(again.to_json().unwrap(), json);
    }
    let path = scratch.0.join("tokenizer.json");
    std::fs::write(&path, &json).unwrap();
    let read = Tokenizer::from_file(&path).unwrap();
    assert_eq!(read.to_json().unwrap(), json);
    for text in [
        "A RED circle, left of the blue circle?",
        "",
        "  \n",
        "Ünder",
    ] {
        assert_eq!(read.encode(text).unwrap(), built.encode(text).unwrap());
    }
    assert_eq!(read.encode("a red circle?").unwrap(), [3, 4, 5, 9]);
    assert_eq!(read.encode("a [BOS] zebra").unwrap(), [3, 2, 1]);
    assert_eq!(read.encode("Ünder").unwrap(), [12]);
    assert_eq!(
        read.unknown_words("A zebra, a Yak and a zebra").unwrap(),
        ["zebra", "yak", "and"]
    );
    assert_eq!(read.vocab_size(), 13);
    assert_eq!(read.id_bound(), 13);
    assert_eq!(read.token_to_id("red"), Some(4));
    assert_eq!(read.id_to_token(2).as_deref(), Some("[BOS]"));
    assert_eq!(read.id_to_token(13), None);
    assert_eq!(read.decode(&[2, 3, 4, 5]).unwrap(), "a red circle");
    let message = read.decode(&[3, 99]).unwrap_err().to_string();
    assert!(
        message.ends_with("expected ids of a vocabulary of 13, found 99"),
        "{message}"
    );
}

#[test]
fn vocabularies_that_could_not_work_are_refused() {
    let build = |words: &[&str], specials: &[&str]| {
        let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        word_level(&words, specials).unwrap_err().to_string()
    };
    for (message, expected) in [
        (
            build(&["a"], &["[PAD]"]),
            "expected a special token like [UNK], found none",
        ),
        (
            build(&["a", "b", "a"], &["[UNK]"]),
            "token 3: \"a\" occurs twice",
        ),
        (
            build(&[""], &["[UNK]"]),
            "token 1: expected text, found none",
        ),
        (build(&["Red"], &["[UNK]"]), "found \"Red\""),
        (build(&["it's"], &["[UNK]"]), "found \"it's\""),
    ] {
        assert!(message.ends_with(expected), "{message}");
    }
}

#[test]
fn tokenizer_files_in_error_are_named() {
    let scratch = Scratch::new("bad-tokenizer");
    let path = scratch.0.join("tokenizer.json");
    let error = |bytes: Option<&[u8]>| {
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let message = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(
            message.starts_with(&path.display().to_string()),
            "{message}"
        );
        assert!(!message.contains('\n'));
        message
    };
    assert!(error(Some(b"")).ends_with("expected a tokenizer.json, found an empty file"));
    assert!(error(Some(b"{}")).contains("tokenizer: "));
    let whole = word_level(&words(), &["[UNK]"]).unwrap().to_json().unwrap();
    for end in 1..whole.len() - 1 {
        error(Some(&whole[..end]));
    }
    let text = String::from_utf8(whole).unwrap();
    for (part, wrong) in [("decoder", "3"), ("normalizer", "[1]"), ("model", "{}")] {
        let mut parts: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).unwrap();
        parts[part] = serde_json::from_str(wrong).unwrap();
        let changed = serde_json::to_vec(&parts).unwrap();
        assert!(error(Some(&changed)).contains("tokenizer: "));
    }
    assert!(error(None).ends_with("cannot read: no such file"));
}
