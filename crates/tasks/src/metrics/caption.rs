//! BLEU-1..4, ROUGE-L and CIDEr-D of captions against their references.
//!
//! The arithmetic is that of the scorers of the COCO caption evaluation (`pycocoevalcap`), to the
//! last constant and edge case. The tokeniser is **not**: theirs is the Penn Treebank tokeniser, a
//! Java program; ours is [`tokenise`]. Scores of captions without punctuation are the same either
//! way; on others they may differ in the third decimal, so compare published figures with care.

use serde::{Deserialize, Serialize};

use super::MetricError;
use super::bleu::BleuCounts;
use super::cider::Cider;
use super::ngram::{Item, Vocabulary};
use super::rouge::rouge_l;

/// Scores of one caption or of a corpus; higher is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CaptionScores {
    /// BLEU-1 to BLEU-4, each in 0..=1.
    pub bleu: [f64; 4],
    /// ROUGE-L with beta 1.2, in 0..=1.
    pub rouge_l: f64,
    /// CIDEr-D, in 0..=10 (published tables print it times 100).
    pub cider_d: f64,
}

/// Lower case; everything but letters, digits and the apostrophe becomes a space; single spaces.
///
/// On ASCII text this is the regular expression `[^a-z0-9' ]` replaced by a space. Letters, digits
/// and combining accents (U+0300 to U+036F) of every script are kept, so `Le test est en
/// français.` is five words; a plain `[^a-z0-9' ]` would make `fran` and `ais` of the last. A
/// letter with its accent as one code point differs from the same in two.
///
/// ```
/// use vlm_tasks::metrics::tokenise;
/// assert_eq!(tokenise("Two dogs -- one's BROWN!"), "two dogs one's brown");
/// assert_eq!(tokenise("Le test est en français."), "le test est en français");
/// ```
pub fn tokenise(text: &str) -> String {
    let lower = text.to_lowercase();
    let word = |c: char| c.is_alphanumeric() || c == '\'' || ('\u{300}'..='\u{36f}').contains(&c);
    let mut tokens = String::with_capacity(lower.len());
    for token in lower.split(|c| !word(c)).filter(|token| !token.is_empty()) {
        if !tokens.is_empty() {
            tokens.push(' ');
        }
        tokens.push_str(token);
    }
    tokens
}

/// Scores of a corpus of (hypothesis, references), untokenised.
///
/// BLEU pools its counts over the corpus; ROUGE-L and CIDEr-D are means over items. CIDEr-D takes
/// document frequencies from these references, so it depends on which items are scored together,
/// and is 0 for a single item, whose every n-gram is in every document.
///
/// An empty hypothesis is scored (0, or nearly, unless a reference is empty too). No score is
/// ever NaN.
///
/// # Errors
/// [`MetricError::NoItems`] for an empty corpus, [`MetricError::NoReferences`] for an item
/// without any.
pub fn score_captions(items: &[(String, Vec<String>)]) -> Result<CaptionScores, MetricError> {
    score_captions_per_item(items).map(|(corpus, _)| corpus)
}

/// [`score_captions`] of the corpus, and of each item: its own BLEU and ROUGE-L, and its CIDEr-D
/// under the document frequencies of the corpus.
///
/// # Errors
/// As [`score_captions`].
pub fn score_captions_per_item(
    items: &[(String, Vec<String>)],
) -> Result<(CaptionScores, Vec<CaptionScores>), MetricError> {
    if items.is_empty() {
        return Err(MetricError::NoItems);
    }
    if let Some(index) = items.iter().position(|(_, refs)| refs.is_empty()) {
        return Err(MetricError::NoReferences { index });
    }
    let tokenised: Vec<(String, Vec<String>)> = items
        .iter()
        .map(|(hypothesis, references)| {
            let references = references.iter().map(|reference| tokenise(reference));
            (tokenise(hypothesis), references.collect())
        })
        .collect();
    let mut vocabulary = Vocabulary::default();
    let items: Vec<Item> = tokenised
        .iter()
        .map(|(hypothesis, references)| Item {
            hypothesis: vocabulary.sentence(hypothesis),
            references: references
                .iter()
                .map(|reference| vocabulary.sentence(reference))
                .collect(),
        })
        .collect();

    let cider = Cider::new(&items);
    let mut pooled = BleuCounts::default();
    let mut scores = Vec::with_capacity(items.len());
    for item in &items {
        let counts = BleuCounts::of(item);
        pooled.add(&counts);
        scores.push(CaptionScores {
            bleu: counts.score(),
            rouge_l: rouge_l(item),
            cider_d: cider.score(item),
        });
    }
    let mean = |score: fn(&CaptionScores) -> f64| {
        scores.iter().map(score).sum::<f64>() / scores.len() as f64
    };
    let corpus = CaptionScores {
        bleu: pooled.score(),
        rouge_l: mean(|score| score.rouge_l),
        cider_d: mean(|score| score.cider_d),
    };
    Ok((corpus, scores))
}
