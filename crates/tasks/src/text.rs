//! The text side of a model: how words become the tokens that its family reads, and what it writes becomes words.

use crate::Error;
use crate::cleaning::{self, CAPTION_WORDS, QUESTION_WORDS};
use crate::prompt::{self, SpecialIds};
use vlm_data::text::Tokenizer;
use vlm_models::capability::Tokens;
use vlm_models::families::{Model, TextSize};
use vlm_models::generate::{Options, Strategy};

/// What stands around a label where a family's authors say nothing else.
const PHOTO: &str = "a photo of a {}.";

/// A vocabulary with its family's rules.
#[derive(Clone, Debug)]
pub struct TextSide {
    tokenizer: Tokenizer,
    format: Format,
    size: TextSize,
}

/// What a family puts around words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Special tokens of our own, see [`prompt`].
    Own(SpecialIds),
    /// The authors' cleaning, a token in front and, only behind an answer, one that ends it.
    Albef {
        begin: u32,
        end: u32,
        pad: u32,
        /// Whether texts are questions, which are cleaned in another way than captions.
        asks: bool,
    },
    /// What the tokenizer's file says.
    Published {
        /// What stands around a label where the user gives nothing.
        label: &'static str,
        /// Tokens that begin and end what the decoder writes, where there is one.
        written: Option<(u32, u32)>,
        /// What a caption begins with where the user gives nothing.
        caption: &'static str,
    },
}

impl TextSide {
    /// Joins a tokenizer to a model; `name` is the model's, for errors.
    ///
    /// # Errors
    /// A tokenizer with ids that the model has no embeddings for, or without special tokens that the family needs.
    pub fn new(name: &str, tokenizer: Tokenizer, model: &Model) -> Result<Self, Error> {
        let size = model.texts();
        if tokenizer.id_bound() > size.vocab_size {
            return Err(Error::Model {
                place: format!("{name}: tokenizer"),
                expected: format!("at most the {} ids of the embedding table", size.vocab_size),
                found: tokenizer.id_bound().to_string(),
            });
        }
        let read_only = |label| Format::Published {
            label,
            written: None,
            caption: "",
        };
        let format = match model {
            Model::Albef(m) => {
                let c = m.config();
                Format::Albef {
                    begin: c.cls_token_id,
                    end: c.sep_token_id,
                    pad: c.pad_token_id,
                    asks: m.can_answer().is_ok(),
                }
            }
            Model::Coca(_) => Format::Own(SpecialIds::of(&tokenizer)?),
            Model::Siglip(_) => read_only("This is a photo of {}."),
            // a detector has no vocabulary, whatever lies beside it
            Model::Clip(_) | Model::FasterRcnn(_) | Model::Torchvision(_) | Model::Vinvl(_) => {
                read_only(PHOTO)
            }
            Model::Tree(m) => Format::Published {
                label: "a {}",
                written: Some((m.config().bos_token_id, m.config().eos_token_id)),
                caption: "",
            },
            Model::Nic(m) => Format::Published {
                label: PHOTO,
                written: Some((m.config().bos_token_id, m.config().eos_token_id)),
                caption: "",
            },
            Model::Oscar(m) => {
                let around = [m.config().cls_token_id, m.config().sep_token_id];
                let found = tokenizer.encode_with_special_tokens("")?;
                if found != around {
                    return Err(Error::Model {
                        place: format!("{name}: tokenizer"),
                        expected: format!(
                            "{around:?} around texts, as cls_token_id and sep_token_id"
                        ),
                        found: format!("{found:?}"),
                    });
                }
                Format::Published {
                    label: PHOTO,
                    written: Some((around[0], around[1])),
                    caption: "",
                }
            }
            Model::Blip(m) => Format::Published {
                label: PHOTO,
                written: Some((m.config().bos_token_id, m.config().sep_token_id)),
                // the authors' layout has this token, and its training this prompt
                caption: match m.config().enc_token_id {
                    Some(_) => "a picture of ",
                    None => "",
                },
            },
        };
        Ok(Self {
            tokenizer,
            format,
            size,
        })
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What stands around a label where the user gives no template.
    pub fn label_template(&self) -> &'static str {
        match self.format {
            Format::Own(_) => "a picture of a {}",
            Format::Albef { .. } => PHOTO,
            Format::Published { label, .. } => label,
        }
    }

    /// Texts as the model embeds them.
    ///
    /// # Errors
    /// Text that cannot be tokenized or is too long.
    pub fn tokens(&self, texts: &[&str]) -> Result<Tokens, Error> {
        let rows: Vec<Vec<u32>> = texts
            .iter()
            .map(|t| self.row(t))
            .collect::<Result<_, _>>()?;
        if !self.size.fixed_length {
            return Ok(Tokens::padded(&rows, self.pad()));
        }
        let fill = |mut row: Vec<u32>| {
            row.resize(self.size.max_positions, self.pad());
            row
        };
        Ok(Tokens::new(rows.into_iter().map(fill).collect(), None)?)
    }

    /// Texts as the tokenizer gives them, padded or cut to `length`, or else padded to the longest, whatever the model
    /// takes. What is cut keeps its last token, which ends texts.
    ///
    /// # Errors
    /// Text that cannot be tokenized.
    pub fn tokens_of_length(&self, texts: &[&str], length: Option<usize>) -> Result<Tokens, Error> {
        let mut rows = Vec::with_capacity(texts.len());
        for text in texts {
            if let Format::Albef { .. } = self.format {
                let mut row = self.cleaned(text)?;
                row.truncate(length.unwrap_or(row.len()));
                rows.push(row);
                continue;
            }
            let mut row = self.tokenizer.encode_with_special_tokens(text)?;
            if let (Some(length), Some(&last)) = (length, row.last())
                && row.len() > length
                && length > 0
            {
                row.truncate(length);
                row[length - 1] = last;
            }
            rows.push(row);
        }
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let length = length.unwrap_or(longest);
        let mask = |row: &Vec<u32>| (0..length).map(|i| i < row.len()).collect();
        let mask = rows.iter().map(mask).collect();
        let pad = self.pad();
        rows.iter_mut().for_each(|row| row.resize(length, pad));
        Ok(Tokens::new(rows, Some(mask))?)
    }

    /// The authors' tokens of a text of the kind that the model is about.
    fn cleaned(&self, text: &str) -> Result<Vec<u32>, Error> {
        let Format::Albef { begin, asks, .. } = self.format else {
            return Ok(self.tokenizer.encode(text)?);
        };
        let text = match asks {
            true => cleaning::question(text, QUESTION_WORDS),
            false => cleaning::caption(text, CAPTION_WORDS),
        };
        let words = self.tokenizer.encode(&text)?;
        Ok([vec![begin], words].concat())
    }

    /// The token that fills rows.
    pub(crate) fn pad(&self) -> u32 {
        match self.format {
            Format::Albef { pad, .. } => pad,
            Format::Own(special) => special.pad,
            Format::Published { .. } => {
                let names = ["<pad>", "[PAD]", "</s>"];
                let known = names.iter().find_map(|t| self.tokenizer.token_to_id(t));
                known.unwrap_or_default()
            }
        }
    }

    fn row(&self, text: &str) -> Result<Vec<u32>, Error> {
        let (row, around) = match self.format {
            Format::Own(special) => (special.caption_example(&self.tokenizer, text)?.ids, 2),
            Format::Albef { .. } => (self.cleaned(text)?, 1),
            Format::Published { .. } => {
                let row = self.tokenizer.encode_with_special_tokens(text)?;
                let words = self.tokenizer.encode(text)?.len();
                let around = row.len().saturating_sub(words);
                (row, around)
            }
        };
        let most = self.size.max_positions;
        if row.len() > most {
            return Err(Error::TooLong {
                expected: most.saturating_sub(around),
                found: row.len() - around,
            });
        }
        Ok(row)
    }

    /// Object tags as one text with its end; nothing for no tags.
    ///
    /// # Errors
    /// Text that cannot be tokenized.
    pub fn tags<'a>(&self, tags: impl IntoIterator<Item = &'a str>) -> Result<Vec<u32>, Error> {
        let tags: Vec<&str> = tags.into_iter().collect();
        let mut ids = self.tokenizer.encode(&tags.join(" "))?;
        if !ids.is_empty() {
            ids.push(self.end());
        }
        Ok(ids)
    }

    /// What a caption is the continuation of.
    ///
    /// # Errors
    /// Text that cannot be tokenized, or that leaves no room for more.
    pub fn caption_prompt(&self, beginning: Option<&str>) -> Result<Vec<u32>, Error> {
        let ids = match self.format {
            Format::Own(special) => {
                let mut ids = special.caption_prompt();
                let beginning = prompt::plain_words(beginning.unwrap_or_default());
                ids.extend(self.tokenizer.encode(&beginning)?);
                ids
            }
            Format::Albef { .. } => self.cleaned(beginning.unwrap_or_default())?,
            Format::Published {
                written, caption, ..
            } => {
                let mut ids: Vec<u32> = written.iter().map(|&(begin, _)| begin).collect();
                ids.extend(self.tokenizer.encode(beginning.unwrap_or(caption))?);
                ids
            }
        };
        let most = self.size.max_positions.saturating_sub(1);
        if ids.len() > most {
            return Err(Error::TooLong {
                expected: most.saturating_sub(1),
                found: ids.len() - 1,
            });
        }
        Ok(ids)
    }

    /// A question as the model reads it: with what stands before the answer where the same decoder reads and writes, by
    /// itself where an encoder reads it.
    ///
    /// # Errors
    /// An empty or overlong question, or one that cannot be tokenized.
    pub fn question(&self, question: &str) -> Result<Vec<u32>, Error> {
        let Format::Own(special) = self.format else {
            if question.trim().is_empty() {
                return Err(Error::EmptyQuestion);
            }
            return self.row(question);
        };
        let ids = special.question_prompt(&self.tokenizer, question)?;
        // the two tokens around the words
        if ids.len() <= 2 {
            return Err(Error::EmptyQuestion);
        }
        let most = self.size.max_positions.saturating_sub(2);
        if ids.len() > most {
            return Err(Error::TooLong {
                expected: most.saturating_sub(2),
                found: ids.len() - 2,
            });
        }
        Ok(ids)
    }

    /// What an answer is the continuation of, where an encoder reads the question.
    pub fn answer_prompt(&self) -> Vec<u32> {
        match self.format {
            Format::Own(_) => Vec::new(),
            Format::Albef { begin, .. } => vec![begin],
            Format::Published { written, .. } => written.iter().map(|&(begin, _)| begin).collect(),
        }
    }

    /// The tokens of an answer, its end included.
    ///
    /// # Errors
    /// Text that cannot be tokenized.
    pub fn answer(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = match self.format {
            Format::Own(_) => self.tokenizer.encode(&prompt::plain_words(text))?,
            // the authors' tokenizer does, whatever this file says
            Format::Albef { .. } => self.tokenizer.encode(&text.to_lowercase())?,
            Format::Published { .. } => self.tokenizer.encode(text)?,
        };
        ids.push(self.end());
        Ok(ids)
    }

    /// The token that ends what is written.
    fn end(&self) -> u32 {
        match self.format {
            Format::Own(special) => special.eos,
            Format::Albef { end, .. } => end,
            Format::Published { written, .. } => written.map_or(0, |(_, end)| end),
        }
    }

    /// How texts of the family are written.
    pub(crate) fn writing(&self, strategy: Strategy, max_new_tokens: usize) -> Options {
        Options {
            strategy,
            max_new_tokens,
            eos: self.end(),
            banned: match self.format {
                Format::Own(special) => special.banned(),
                Format::Albef { .. } | Format::Published { .. } => Vec::new(),
            },
        }
    }

    /// Written tokens as people write them: no space before a punctuation mark.
    ///
    /// # Errors
    /// Ids beyond the vocabulary.
    pub(crate) fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        Ok(as_written(&self.tokenizer.decode(ids)?))
    }

    /// Words of a text that the vocabulary lacks.
    ///
    /// # Errors
    /// Text that cannot be tokenized.
    pub fn unknown_words(&self, text: &str) -> Result<Vec<String>, Error> {
        let plain = match self.format {
            Format::Own(_) => prompt::plain_words(text),
            Format::Albef { asks: true, .. } => cleaning::question(text, QUESTION_WORDS),
            Format::Albef { .. } => cleaning::caption(text, CAPTION_WORDS),
            Format::Published { .. } => text.to_owned(),
        };
        Ok(self.tokenizer.unknown_words(&plain)?)
    }
}

fn as_written(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !written.is_empty() && !word.starts_with([',', '.', ';', ':', '?', '!']) {
            written.push(' ');
        }
        written += word;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_follows_its_word() {
        assert_eq!(
            as_written("a ring , a star and a cross"),
            "a ring, a star and a cross"
        );
        assert_eq!(as_written(", what ? !"), ", what?!");
        assert_eq!(as_written(""), "");
    }
}
