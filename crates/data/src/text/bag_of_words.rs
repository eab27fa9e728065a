//! Texts as bags of words, weighted by how rare their words are.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Error;

/// TF-IDF (Salton & Buckley, "Term-weighting approaches in automatic text retrieval", 1988) as scikit-learn's
/// `TfidfVectorizer` has it by default: texts are lower-cased, words are runs of at least two letters, digits or
/// underscores, a word's inverse document frequency is `ln((1 + n) / (1 + df)) + 1`, and vectors have unit length.
///
/// ```
/// use vlm_data::text::BagOfWords;
/// let bag = BagOfWords::fit(["a red circle", "a red star", "two stars"], 1);
/// assert_eq!(bag.words(), ["circle", "red", "star", "stars", "two"]);
/// let vector = bag.vector("A RED star!");
/// assert_eq!(vector.iter().filter(|x| **x > 0.0).count(), 2);
/// assert!(vector[2] > vector[1], "rare words weigh more");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BagOfWords {
    words: Vec<String>,
    idf: Vec<f32>,
}

impl BagOfWords {
    /// The vocabulary of texts: words that occur in at least `min_texts` of them, in the order of their code points.
    pub fn fit<'a>(texts: impl IntoIterator<Item = &'a str>, min_texts: usize) -> Self {
        let mut frequency: BTreeMap<String, usize> = BTreeMap::new();
        let mut count = 0;
        for text in texts {
            count += 1;
            let words: BTreeSet<String> = words(text).collect();
            for word in words {
                *frequency.entry(word).or_default() += 1;
            }
        }
        frequency.retain(|_, texts| *texts >= min_texts);
        let idf = |&df: &usize| (((1 + count) as f64 / (1 + df) as f64).ln() + 1.0) as f32;
        Self {
            idf: frequency.values().map(idf).collect(),
            words: frequency.into_keys().collect(),
        }
    }

    /// Reads what [`Self::to_json`] wrote; `name` stands for the file in errors.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where it is something else, words are not in order, or a weight is no positive number.
    pub fn from_json(json: &[u8], name: &str) -> Result<Self, Error> {
        let refuse = |detail: String| Error::Tokenizer {
            name: name.to_owned(),
            detail,
        };
        let bag: Self = serde_json::from_slice(json)
            .map_err(|e| refuse(format!("expected words with their weights, found {e}")))?;
        if bag.words.len() != bag.idf.len() {
            let found = format!("{} words and {} weights", bag.words.len(), bag.idf.len());
            return Err(refuse(format!(
                "expected a weight for each word, found {found}"
            )));
        }
        if let Some(pair) = bag.words.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(refuse(format!("expected words in order, found {pair:?}")));
        }
        if let Some(idf) = bag.idf.iter().find(|x| !x.is_finite() || **x <= 0.0) {
            return Err(refuse(format!("expected positive weights, found {idf}")));
        }
        Ok(bag)
    }

    /// The vocabulary with its weights.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("words and numbers are always written")
    }

    /// The words; a word's id is its place.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The inverse document frequency of each word.
    pub fn idf(&self) -> &[f32] {
        &self.idf
    }

    /// Ids of a text's words in their order; unknown ones are left out.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        let id = |word: String| self.words.binary_search(&word).ok().map(|id| id as u32);
        words(text).filter_map(id).collect()
    }

    /// The text's vector, zero without a known word.
    pub fn vector(&self, text: &str) -> Vec<f32> {
        let mut counts = vec![0f64; self.words.len()];
        for id in self.ids(text) {
            counts[id as usize] += 1.0;
        }
        for (count, idf) in counts.iter_mut().zip(&self.idf) {
            *count *= f64::from(*idf);
        }
        let length = counts.iter().map(|x| x * x).sum::<f64>().sqrt();
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        counts.into_iter().map(|x| (x * scale) as f32).collect()
    }
}

/// Runs of at least two letters, digits and underscores, lower-cased.
fn words(text: &str) -> impl Iterator<Item = String> {
    let lower = text.to_lowercase();
    let runs = lower.split(|c: char| !c.is_alphanumeric() && c != '_');
    let long = runs.filter(|run| run.chars().nth(1).is_some());
    long.map(str::to_owned).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_scikit_learns() {
        let golden = include_str!("../../../../testdata/data/bag_of_words.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let strings = |key: &str| -> Vec<&str> {
            let list = golden[key].as_array().unwrap();
            list.iter().map(|s| s.as_str().unwrap()).collect()
        };
        for (min_texts, case) in [(1, &golden["all"]), (2, &golden["frequent"])] {
            let bag = BagOfWords::fit(strings("texts"), min_texts);
            let words: Vec<String> = serde_json::from_value(case["words"].clone()).unwrap();
            assert_eq!(bag.words(), words);
            let idf: Vec<f32> = serde_json::from_value(case["idf"].clone()).unwrap();
            let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(close(bag.idf(), &idf));
            let vectors: Vec<Vec<f32>> = serde_json::from_value(case["vectors"].clone()).unwrap();
            for (text, expected) in strings("asked").iter().zip(vectors) {
                let found = bag.vector(text);
                assert!(close(&found, &expected), "{text}: {found:?} {expected:?}");
            }
        }
    }

    #[test]
    fn vocabularies_are_read_back_and_damaged_ones_refused() {
        let bag = BagOfWords::fit(["one two", "two three"], 1);
        assert_eq!(BagOfWords::from_json(&bag.to_json(), "bag").unwrap(), bag);
        for (json, expected) in [
            ("[]", "expected words with their weights"),
            (r#"{"words": ["a"], "idf": []}"#, "1 words and 0 weights"),
            (r#"{"words": ["b", "a"], "idf": [1, 1]}"#, "words in order"),
            (r#"{"words": ["a"], "idf": [0]}"#, "positive weights"),
        ] {
            let error = BagOfWords::from_json(json.as_bytes(), "bag").unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
