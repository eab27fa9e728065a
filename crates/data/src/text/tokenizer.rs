//! A `tokenizer.json`.

use std::path::Path;

use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{
    AddedToken, ModelWrapper, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use crate::Error;
use crate::error::one_line;
use crate::files::read_small;

/// A tokenizer in the format of Hugging Face's `tokenizers`: one `tokenizer.json` holds
/// normalisation, splitting, vocabulary and merges.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Names the source in messages.
    name: String,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// Where the file is missing, no file, unreadable, or no tokenizer; the message names it.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let bytes = read_small(path)?
            .ok_or_else(|| Error::io(path, "read", std::io::ErrorKind::NotFound.into()))?;
        Self::from_bytes(&bytes, &name)
    }

    /// Reads the bytes of a `tokenizer.json`; `name` stands in messages for the file.
    ///
    /// # Errors
    /// [`Error::Empty`] or [`Error::Tokenizer`].
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::Empty {
                name: name.to_owned(),
                expected: "a tokenizer.json",
            });
        }
        let failed = |detail: String| Error::Tokenizer {
            name: name.to_owned(),
            detail: one_line(&detail),
        };
        // Syntax first: the library panics on JSON that ends or breaks within its decoder.
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes)
            .map_err(|e| failed(e.to_string()))?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| failed(e.to_string()))?;
        Ok(Self::wrap(inner, name))
    }

    pub(super) fn wrap(mut inner: tokenizers::Tokenizer, name: &str) -> Self {
        // Length is the caller's decision: what a file asks for here fits one batch of its author.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .expect("no truncation is always valid");
        Self {
            inner,
            name: name.to_owned(),
        }
    }

    /// The same vocabulary with the tokens `begin` and `end` around texts in
    /// [`encode_with_special_tokens`](Self::encode_with_special_tokens).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a token that it lacks.
    pub fn between(mut self, begin: &str, end: &str) -> Result<Self, Error> {
        let id = |token: &str| {
            let id = self.token_to_id(token);
            let id =
                id.ok_or_else(|| self.failure(&format!("expected a token {token}, found none")));
            id.map(|id| (token.to_owned(), id))
        };
        let processor = BertProcessing::new(id(end)?, id(begin)?);
        self.inner
            .with_post_processor(Some(PostProcessorWrapper::from(processor)));
        Ok(self)
    }

    /// The same vocabulary with further special tokens, whose ids follow the others; those that it has stay.
    #[must_use]
    pub fn with_special_tokens(mut self, tokens: &[&str]) -> Self {
        let tokens: Vec<AddedToken> = tokens.iter().map(|t| AddedToken::from(*t, true)).collect();
        self.inner.add_special_tokens(&tokens);
        self
    }

    /// Token ids of `text`, without the special tokens that a model puts around it, whole whatever
    /// truncation the file asks for.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer has no id for a word and no unknown token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| self.failure(&e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`encode`](Self::encode), with the special tokens that the file's post-processor adds.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_with_special_tokens(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self
            .inner
            .encode_fast(text, true)
            .map_err(|e| self.failure(&e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an id beyond the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        if let Some(id) = ids.iter().find(|&&id| self.id_to_token(id).is_none()) {
            let size = self.vocab_size();
            return Err(self.failure(&format!(
                "expected ids of a vocabulary of {size}, found {id}"
            )));
        }
        self.inner
            .decode(ids, true)
            .map_err(|e| self.failure(&e.to_string()))
    }

    /// The id of exactly this token, special ones included.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// One more than the largest id: the rows that an embedding table needs.
    pub fn id_bound(&self) -> usize {
        let vocabulary = self.inner.get_vocab(true);
        vocabulary.values().max().map_or(0, |&id| id as usize + 1)
    }

    /// The words of `text` that a word-level vocabulary does not have, each once, in order, as the
    /// tokenizer normalises them. Vocabularies of word pieces know every word: nothing is listed.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer cannot split the text.
    pub fn unknown_words(&self, text: &str) -> Result<Vec<String>, Error> {
        if !matches!(self.inner.get_model(), ModelWrapper::WordLevel(_)) {
            return Ok(Vec::new());
        }
        let failed = |e: tokenizers::Error| self.failure(&e.to_string());
        let added = self.inner.get_added_vocabulary();
        let mut split: PreTokenizedString =
            added.extract_and_normalize(self.inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut split).map_err(failed)?;
        }
        let mut unknown: Vec<String> = Vec::new();
        for (word, _, tokens) in split.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            let known = tokens.is_some() || self.token_to_id(word).is_some();
            if !known && !unknown.iter().any(|seen| seen == word) {
                unknown.push(word.to_owned());
            }
        }
        Ok(unknown)
    }

    /// The `tokenizer.json`: the same tokenizer gives the same bytes.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where a part cannot be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        // The library writes vocabularies in order of their ids.
        self.inner
            .to_string(true)
            .map(String::into_bytes)
            .map_err(|e| self.failure(&e.to_string()))
    }

    fn failure(&self, detail: &str) -> Error {
        Error::Tokenizer {
            name: self.name.clone(),
            detail: one_line(detail),
        }
    }
}
