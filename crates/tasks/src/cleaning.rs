//! Text as ALBEF's and BLIP's authors clean it before it is tokenized: lower case, most punctuation gone, and not more
//! than so many words.

/// Words of a caption that are kept.
pub(crate) const CAPTION_WORDS: usize = 30;
/// Words of a question that are kept when a model is asked.
pub(crate) const QUESTION_WORDS: usize = 50;

/// Lower case without the punctuation that captions and questions lose; hyphens and slashes separate words.
fn plain(text: &str) -> String {
    let kept = |c: &char| !",.'!?\"()*#:;~".contains(*c);
    let separated = |c| match c {
        '-' | '/' => ' ',
        c => c,
    };
    let lower = text.to_lowercase();
    lower.chars().filter(kept).map(separated).collect()
}

/// What Python's `\s` stands for.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn first_words(text: &str, most: usize) -> String {
    let words: Vec<&str> = text.split(' ').take(most).collect();
    words.join(" ")
}

/// A caption or statement: also with runs of white space as one space, and `<person>` as a word.
pub(crate) fn caption(text: &str, most: usize) -> String {
    let text = plain(text).replace("<person>", "person");
    let mut joined = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let run = is_space(c) && chars.peek().is_some_and(|&next| is_space(next));
        if !run {
            joined.push(c);
            continue;
        }
        while chars.next_if(|&next| is_space(next)).is_some() {}
        joined.push(' ');
    }
    let joined = joined.trim_end_matches('\n').trim_matches(' ');
    first_words(joined, most)
}

/// A question.
pub(crate) fn question(text: &str, most: usize) -> String {
    first_words(plain(text).trim_end_matches(' '), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cleaned_as_the_authors_do_it() {
        // reference/models_albef.py
        let cases = include_str!("../../../testdata/models/albef/cleaned.json");
        let cases: Vec<[String; 3]> = serde_json::from_str(cases).expect("rows of three");
        assert!(cases.len() > 10);
        for [text, cleaned, asked] in cases {
            assert_eq!(caption(&text, CAPTION_WORDS), cleaned, "{text:?}");
            assert_eq!(question(&text, QUESTION_WORDS), asked, "{text:?}");
        }
    }
}
