//! Accuracy of short answers to questions about pictures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MetricError;
use super::interval::{Bootstrap, Interval};

/// One answered question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VqaItem {
    /// Kind of question, such as `count`; the key of [`VqaScores::by_type`].
    pub question_type: String,
    /// What the model said.
    pub answer: String,
    /// What is true.
    pub expected: String,
}

/// Accuracy of one type of question.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TypeScore {
    /// Number of questions.
    pub n: usize,
    /// Share of right answers, in 0..=1.
    pub accuracy: Interval,
}

/// Accuracy over all questions and by type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VqaScores {
    /// Number of questions.
    pub n: usize,
    /// Share of right answers, in 0..=1; every question counts the same, whatever its type.
    pub accuracy: Interval,
    /// By type, in alphabetical order.
    pub by_type: BTreeMap<String, TypeScore>,
}

/// Accuracy of answers, right where [`answers_match`] says so.
///
/// # Errors
/// [`MetricError::NoItems`] for an empty list.
pub fn score_vqa(items: &[VqaItem], bootstrap: &Bootstrap) -> Result<VqaScores, MetricError> {
    let mut right = Vec::with_capacity(items.len());
    let mut right_by_type: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for item in items {
        let value = f64::from(answers_match(&item.answer, &item.expected));
        right.push(value);
        let of_type = right_by_type.entry(&item.question_type).or_default();
        of_type.push(value);
    }
    let score = |right: &[f64]| {
        let accuracy = bootstrap.mean(right).ok_or(MetricError::NoItems)?;
        let n = right.len();
        Ok(TypeScore { n, accuracy })
    };
    let TypeScore { n, accuracy } = score(&right)?;
    let by_type = right_by_type
        .into_iter()
        .map(|(name, right)| Ok((name.to_owned(), score(&right)?)))
        .collect::<Result<_, _>>()?;
    Ok(VqaScores {
        n,
        accuracy,
        by_type,
    })
}

/// Whether two answers are the same after [`normalise_answer`]. Answers of which nothing is left
/// (`?`) are compared as they stand, so that silence is not the same as every mark.
pub fn answers_match(answer: &str, expected: &str) -> bool {
    let (a, b) = (normalise_answer(answer), normalise_answer(expected));
    a == b && (!a.is_empty() || answer.trim() == expected.trim())
}

/// The form in which answers are compared, after the VQA evaluation (Antol et al., 2015), smaller.
///
/// - lower case, words separated by single spaces;
/// - punctuation becomes a space, but for apostrophes (dropped: `it's`, `its`), the point of a
///   decimal number (`1.5`), the commas within a number (dropped: `1,000`) and the sign before one;
/// - `a`, `an` and `the` are dropped unless nothing else is there (the letter `A`);
/// - `zero` to `ten` become digits;
/// - `color`, `gray` and their forms are spelt `colour`, `grey`.
///
/// ```
/// use vlm_tasks::metrics::normalise_answer;
/// assert_eq!(normalise_answer("The gray circle."), "grey circle");
/// assert_eq!(normalise_answer("Three!"), "3");
/// ```
pub fn normalise_answer(answer: &str) -> String {
    let plain = without_punctuation(&answer.to_lowercase());
    let is_article = |word: &&str| matches!(*word, "a" | "an" | "the");
    let keep_articles = plain.split_whitespace().all(|word| is_article(&word));
    let words: Vec<&str> = plain
        .split_whitespace()
        .filter(|word| keep_articles || !is_article(word))
        .map(canonical_word)
        .collect();
    words.join(" ")
}

/// `text` with its punctuation dropped or replaced by spaces.
fn without_punctuation(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut before = ' ';
    while let Some(c) = characters.next() {
        let digit_follows = characters.peek().is_some_and(char::is_ascii_digit);
        match c {
            '\'' | '\u{2019}' => {}
            ',' if before.is_ascii_digit() && digit_follows => {}
            '.' if before.is_ascii_digit() && digit_follows => plain.push('.'),
            '-' | '\u{2212}' if before.is_whitespace() && digit_follows => plain.push('-'),
            // Combining accents (U+0300 to U+036F) belong to the letter before them.
            _ if c.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&c) => plain.push(c),
            _ => plain.push(' '),
        }
        before = c;
    }
    plain
}

fn canonical_word(word: &str) -> &str {
    match word {
        "zero" => "0",
        "one" => "1",
        "two" => "2",
        "three" => "3",
        "four" => "4",
        "five" => "5",
        "six" => "6",
        "seven" => "7",
        "eight" => "8",
        "nine" => "9",
        "ten" => "10",
        "color" => "colour",
        "colors" => "colours",
        "colored" => "coloured",
        "gray" => "grey",
        "grays" => "greys",
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_normalised_as_documented() {
        let cases = [
            ("", ""),
            ("  Yes. ", "yes"),
            ("The red SQUARE", "red square"),
            ("a", "a"),
            ("The a", "the a"),
            ("theatre", "theatre"),
            ("two", "2"),
            ("Ten!", "10"),
            ("eleven", "eleven"),
            ("someone", "someone"),
            ("gray-ish color", "grey ish colour"),
            ("Colored", "coloured"),
            ("1,000.5", "1000.5"),
            ("3.", "3"),
            ("-2", "-2"),
            ("5-2", "5 2"),
            ("left,right", "left right"),
            ("it's", "its"),
            ("it\u{2019}s", "its"),
            ("ÉCRU?", "écru"),
            ("?!", ""),
        ];
        for (answer, expected) in cases {
            assert_eq!(normalise_answer(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        for answer in [
            "The 1,000.5 gray -2 cats' colors",
            "a the",
            "one-two",
            "x.5.5",
            "- 2",
        ] {
            let once = normalise_answer(answer);
            assert_eq!(normalise_answer(&once), once);
        }
    }

    #[test]
    fn answers_of_which_nothing_is_left_match_only_themselves() {
        assert!(answers_match("a Gray circle", "grey circle."));
        assert!(!answers_match("grey", "green"));
        assert!(!answers_match("", "?"));
        assert!(answers_match("? ", "?"));
        assert!(!answers_match("a", "the"));
    }

    #[test]
    fn accuracy_is_counted_over_all_questions_and_by_type() {
        let item = |question_type: &str, answer: &str, expected: &str| VqaItem {
            question_type: question_type.to_owned(),
            answer: answer.to_owned(),
            expected: expected.to_owned(),
        };
        let items = [
            item("count", "two", "2"),
            item("count", "3", "2"),
            item("count", "0", "zero"),
            item("existence", "Yes.", "yes"),
        ];
        let scores = score_vqa(&items, &Bootstrap::default()).unwrap();
        assert_eq!((scores.n, scores.accuracy.estimate), (4, 0.75));
        let types: Vec<_> = scores.by_type.keys().map(String::as_str).collect();
        assert_eq!(types, ["count", "existence"]);
        let count = scores.by_type["count"];
        assert_eq!((count.n, count.accuracy.estimate), (3, 2.0 / 3.0));
        assert!(count.accuracy.low < count.accuracy.high);
        let existence = scores.by_type["existence"];
        assert_eq!((existence.n, existence.accuracy.low), (1, 1.0));
        assert_eq!(
            score_vqa(&[], &Bootstrap::default()),
            Err(MetricError::NoItems)
        );
    }
}
