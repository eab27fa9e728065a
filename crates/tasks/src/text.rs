//! The text side of a model: how words become the tokens that its family reads.

use crate::Error;
use crate::prompt::{self, SpecialIds};
use vlm_data::text::Tokenizer;
use vlm_models::capability::Tokens;
use vlm_models::families::{Model, TextSize};

/// A tokenizer with its family's rules.
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
    /// What the tokenizer's file says.
    Published {
        /// Whether every text is filled to the model's number of positions, and the padding read like text.
        full: bool,
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
        let format = match model {
            Model::Coca(_) => Format::Own(SpecialIds::of(&tokenizer)?),
            Model::Siglip(_) => Format::Published { full: true },
            Model::Clip(_) => Format::Published { full: false },
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

    /// The special tokens of our own models.
    ///
    /// # Errors
    /// A family that has others.
    pub fn special(&self) -> Result<SpecialIds, Error> {
        match self.format {
            Format::Own(special) => Ok(special),
            Format::Published { .. } => Err(Error::Model {
                place: "tokenizer".to_owned(),
                expected: "the special tokens of this program's own models".to_owned(),
                found: "those of a published family".to_owned(),
            }),
        }
    }

    /// What stands around a label where the user gives no template.
    pub fn label_template(&self) -> &'static str {
        match self.format {
            Format::Own(_) => "a picture of a {}",
            Format::Published { full: false } => "a photo of a {}.",
            Format::Published { full: true } => "This is a photo of {}.",
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
        Ok(match self.format {
            Format::Own(special) => Tokens::padded(&rows, special.pad),
            Format::Published { full: false } => Tokens::padded(&rows, 0),
            Format::Published { full: true } => {
                let pad = self.pad();
                let fill = |mut row: Vec<u32>| {
                    row.resize(self.size.max_positions, pad);
                    row
                };
                Tokens::new(rows.into_iter().map(fill).collect(), None)?
            }
        })
    }

    /// Texts as the tokenizer gives them, padded or cut to `length`, or else padded to the longest, whatever the model
    /// takes. What is cut keeps its last token, which ends texts.
    ///
    /// # Errors
    /// Text that cannot be tokenized.
    pub(crate) fn tokens_of_length(
        &self,
        texts: &[&str],
        length: Option<usize>,
    ) -> Result<Tokens, Error> {
        let pad = match self.format {
            Format::Own(special) => special.pad,
            Format::Published { .. } => self.pad(),
        };
        let mut rows = Vec::with_capacity(texts.len());
        for text in texts {
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
        rows.iter_mut().for_each(|row| row.resize(length, pad));
        Ok(Tokens::new(rows, Some(mask))?)
    }

    fn pad(&self) -> u32 {
        let names = ["<pad>", "[PAD]", "</s>"];
        let known = names.iter().find_map(|t| self.tokenizer.token_to_id(t));
        known.unwrap_or_default()
    }

    fn row(&self, text: &str) -> Result<Vec<u32>, Error> {
        let (row, around) = match self.format {
            Format::Own(special) => (special.caption_example(&self.tokenizer, text)?.ids, 2),
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
                place: "text",
                expected: most.saturating_sub(around),
                found: row.len() - around,
            });
        }
        Ok(row)
    }

    /// Words of a text that the vocabulary lacks.
    ///
    /// # Errors
    /// Text that cannot be tokenized.
    pub fn unknown_words(&self, text: &str) -> Result<Vec<String>, Error> {
        let plain = match self.format {
            Format::Own(_) => prompt::plain_words(text),
            Format::Published { .. } => text.to_owned(),
        };
        Ok(self.tokenizer.unknown_words(&plain)?)
    }
}
