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
    let model = WordLevel::builder()
        .vocab(vocabulary)
        .unk_token((*unknown).to_owned())
        .build()
        .map_err(|e| refuse(e.to_string()))?;
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
    let tokenizer = Tokenizer::wrap(inner, NAME);
    for (id, word) in (specials.len() as u32..).zip(words) {
        if tokenizer.encode(word)? != [id] {
            return Err(refuse(format!(
                "expected lower-case words that stay whole, found {word:?}"
            )));
        }
    }
    Ok(tokenizer)
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
