//! Vocabularies of whole words, for models trained on rendered scenes.

use ahash::AHashMap;
use tokenizers::AddedToken;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::normalizers::{BertNormalizer, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use super::Tokenizer;
use crate::Error;

/// A tokenizer of whole words: lower-cased, split at white space, every punctuation mark a word of
/// its own.
///
/// Ids follow the order given, `specials` first. The special token whose name contains `unk` (in
/// either case, `[UNK]` as a rule) stands for every other word.
///
/// # Errors
/// [`Error::Tokenizer`] where no special token is the unknown one, or a token is empty, occurs twice,
/// or could never be produced, because it is not lower-case or would be split.
///
/// ```
/// use vlm_data::text::word_level;
/// let words = ["a", "red", "circle", "."].map(String::from);
/// let tokenizer = word_level(&words, &["[PAD]", "[UNK]"])?;
/// assert_eq!(tokenizer.encode("A red circle.")?, [2, 3, 4, 5]);
/// assert_eq!(tokenizer.encode("a blue circle")?, [2, 1, 4]);
/// assert_eq!(tokenizer.unknown_words("a blue circle")?, ["blue"]);
/// assert_eq!(tokenizer.decode(&[2, 3, 4, 5])?, "a red circle .");
/// # Ok::<(), vlm_data::Error>(())
/// ```
pub fn word_level(words: &[String], specials: &[&str]) -> Result<Tokenizer, Error> {
    const NAME: &str = "word-level vocabulary";
    let refuse = |detail: String| Error::Tokenizer {
        name: NAME.to_owned(),
        detail,
    };
    let unknown = specials
        .iter()
        .find(|s| s.to_ascii_lowercase().contains("unk"))
        .ok_or_else(|| refuse("expected a special token like [UNK], found none".to_owned()))?;
    let tokens = specials
        .iter()
        .copied()
        .chain(words.iter().map(String::as_str));
    let mut vocabulary = AHashMap::new();
    for (id, token) in (0u32..).zip(tokens) {
        if token.is_empty() {
            return Err(refuse(format!("token {id}: expected text, found none")));
        }
        if vocabulary.insert(token.to_owned(), id).is_some() {
            return Err(refuse(format!("token {id}: {token:?} occurs twice")));
        }
    }
    let tokenizer = built(vocabulary, unknown, specials, NAME)?;
    for (id, word) in (specials.len() as u32..).zip(words) {
        if tokenizer.encode(word)? != [id] {
            return Err(refuse(format!(
                "expected lower-case words that stay whole, found {word:?}"
            )));
        }
    }
    Ok(tokenizer)
}
/// The vocabulary of a captioner as it is published (`WORDMAP_….json`): an object of words with their ids, among them
/// `<unk>`, `<start>`, `<end>` and `<pad>`; `name` stands for it in errors.
///
/// Texts are split as by [`word_level`].
///
/// # Errors
/// [`Error::Tokenizer`] where it is no such object, two words share an id, or `<unk>` is not there.
///
/// ```
/// use vlm_data::text::word_level_map;
/// let map = br#"{"a": 1, "dog": 2, "<unk>": 3, "<start>": 4, "<end>": 5, "<pad>": 0}"#;
/// let tokenizer = word_level_map(map, "WORDMAP.json")?;
/// assert_eq!(tokenizer.encode("A dog, a cat")?, [1, 2, 3, 1, 3]);
/// assert_eq!(tokenizer.decode(&[4, 1, 2, 5])?, "a dog");
/// # Ok::<(), vlm_data::Error>(())
/// ```
pub fn word_level_map(json: &[u8], name: &str) -> Result<Tokenizer, Error> {
    const UNKNOWN: &str = "<unk>";
    let refuse = |detail: String| Error::Tokenizer {
        name: name.to_owned(),
        detail,
    };
    let map: std::collections::BTreeMap<String, u32> =
        serde_json::from_slice(json).map_err(|e| {
            refuse(format!(
                "expected an object of words with their ids, found {e}"
            ))
        })?;
    let mut ids: Vec<u32> = map.values().copied().collect();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refuse(format!(
            "expected an id for each word, found {} twice",
            pair[0]
        )));
    }
    if !map.contains_key(UNKNOWN) {
        return Err(refuse(format!(
            "expected {UNKNOWN}, found {} words without it",
            map.len()
        )));
    }
    let specials: Vec<&str> = [UNKNOWN, "<start>", "<end>", "<pad>"]
        .into_iter()
        .filter(|special| map.contains_key(*special))
        .collect();
    let vocabulary = map.clone().into_iter().collect();
    built(vocabulary, UNKNOWN, &specials, name)
}

fn built(
    vocabulary: AHashMap<String, u32>,
    unknown: &str,
    specials: &[&str],
    name: &str,
) -> Result<Tokenizer, Error> {
    let model = WordLevel::builder()
        .vocab(vocabulary)
        .unk_token(unknown.to_owned())
        .build()
        .map_err(|e| Error::Tokenizer {
            name: name.to_owned(),
            detail: e.to_string(),
        })?;
    let mut inner = tokenizers::Tokenizer::new(model);
    // Accents stay: a vocabulary may be of any language. Chinese characters are words.
    let normalizer = BertNormalizer::new(true, true, Some(false), true);
    inner.with_normalizer(Some(NormalizerWrapper::from(normalizer)));
    inner.with_pre_tokenizer(Some(PreTokenizerWrapper::from(BertPreTokenizer)));
    let special: Vec<AddedToken> = specials
        .iter()
        .map(|s| AddedToken::from(*s, true))
        .collect();
    inner.add_special_tokens(&special);
    Ok(Tokenizer::wrap(inner, name))
}

/// The words that [`word_level`] splits texts into, each once, in the order of the alphabet.
///
/// # Errors
/// [`Error::Tokenizer`] where a text cannot be split.
///
/// ```
/// use vlm_data::text::words_of;
/// assert_eq!(words_of(["A red circle.", "a dog's bone"])?, ["'", ".", "a", "bone", "circle", "dog", "red", "s"]);
/// # Ok::<(), vlm_data::Error>(())
/// ```
pub fn words_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>, Error> {
    let none = word_level(&[], &["[UNK]"])?;
    let mut words = std::collections::BTreeSet::new();
    for text in texts {
        words.extend(none.unknown_words(text)?);
    }
    Ok(words.into_iter().collect())
}
