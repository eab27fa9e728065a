//! The closed vocabulary of the world.

use super::scene::{Background, Colour, NUMBERS, Position, Relation, Shape, Size, Texture};

/// Words that are not names of attributes.
const FUNCTION_WORDS: [&str; 57] = [
    "a",
    "against",
    "an",
    "and",
    "any",
    "are",
    "as",
    "at",
    "background",
    "can",
    "colour",
    "do",
    "does",
    "fewer",
    "have",
    "how",
    "image",
    "in",
    "is",
    "larger",
    "many",
    "more",
    "no",
    "number",
    "object",
    "objects",
    "of",
    "on",
    "or",
    "picture",
    "same",
    "see",
    "shape",
    "show",
    "shows",
    "size",
    "smaller",
    "texture",
    "than",
    "the",
    "there",
    "thing",
    "things",
    "this",
    "to",
    "under",
    "we",
    "what",
    "which",
    "with",
    "yes",
    "you",
    "left",
    "right",
    "top",
    "bottom",
    "centre",
];

/// Every token that captions, questions and answers are made of, sorted: words, and `,` `:` `?` as tokens of their
/// own. [`tokens`] yields nothing else for them.
pub fn vocabulary() -> Vec<&'static str> {
    let mut words: Vec<&'static str> = vec![",", ":", "?"];
    words.extend(FUNCTION_WORDS);
    words.extend(NUMBERS);
    words.extend(Shape::ALL.iter().flat_map(|s| [s.word(), s.plural()]));
    words.extend(Colour::ALL.iter().map(|c| c.word()));
    words.extend(Size::ALL.iter().map(|s| s.word()));
    words.extend(Texture::ALL.iter().map(|t| t.word()));
    words.extend(Background::ALL.iter().map(|b| b.word()));
    words.extend(Position::ALL.iter().flat_map(|p| p.word().split(' ')));
    words.extend(Relation::ALL.iter().flat_map(|r| r.word().split(' ')));
    words.sort_unstable();
    words.dedup();
    words
}

/// Every answer that a question of the world may have, sorted.
pub fn answers() -> Vec<&'static str> {
    let mut words = vec!["no", "yes"];
    words.extend(NUMBERS);
    words.extend(Shape::ALL.iter().map(|s| s.word()));
    words.extend(Colour::ALL.iter().map(|c| c.word()));
    words.extend(Size::ALL.iter().map(|s| s.word()));
    words.extend(Texture::ALL.iter().map(|t| t.word()));
    words.extend(Background::ALL.iter().map(|b| b.word()));
    words.sort_unstable();
    words.dedup();
    words
}

/// Splits text into words and punctuation marks.
///
/// ```
/// use vlm_worlds::shapes::tokens;
/// let tokens: Vec<&str> = tokens("two objects: a ring, a star").collect();
/// assert_eq!(tokens, ["two", "objects", ":", "a", "ring", ",", "a", "star"]);
/// ```
pub fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().flat_map(|chunk| {
        let is_mark = |c: char| matches!(c, ',' | ':' | '?');
        chunk
            .split_inclusive(is_mark)
            .flat_map(move |part| match part.char_indices().next_back() {
                Some((at, last)) if is_mark(last) => [&part[..at], &part[at..]],
                _ => [part, ""],
            })
            .filter(|token| !token.is_empty())
    })
}
