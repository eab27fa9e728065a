//! Captions: a picture in, a sentence out.

use crate::{Error, Vlm};
use vlm_data::image::Image;
use vlm_models::generate::{Generated, Options, Strategy, generate};

/// A generated caption.
#[derive(Clone, Debug, PartialEq)]
pub struct Caption {
    /// The sentence.
    pub text: String,
    /// Its log-probability.
    pub log_probability: f64,
}

/// How captions are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaptionOptions {
    /// How words are chosen.
    pub strategy: Strategy,
    /// The most tokens of a caption.
    pub max_new_tokens: usize,
}

impl Default for CaptionOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::Greedy,
            max_new_tokens: 80,
        }
    }
}

impl Vlm {
    /// A caption for each picture.
    ///
    /// # Errors
    /// A picture that cannot be prepared, or a model that does not write.
    pub fn caption(
        &self,
        images: &[&Image],
        options: &CaptionOptions,
    ) -> Result<Vec<Caption>, Error> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let options_for_model = Options {
            strategy: options.strategy,
            max_new_tokens: options.max_new_tokens,
            eos: self.special().eos,
            banned: self.special().banned(),
        };
        let prompt = self.special().caption_prompt();
        let model = self.model().generate()?;
        let texts: Vec<Generated> = if matches!(options.strategy, Strategy::Beam { .. }) {
            let mut texts = Vec::with_capacity(images.len());
            for image in images {
                let mut decoding = model.decode(model.encode(&self.pictures(&[image])?)?);
                texts.extend(generate(
                    &mut *decoding,
                    std::slice::from_ref(&prompt),
                    &options_for_model,
                ));
            }
            texts
        } else {
            let mut decoding = model.decode(model.encode(&self.pictures(images)?)?);
            generate(
                &mut *decoding,
                &vec![prompt; images.len()],
                &options_for_model,
            )
        };
        texts
            .into_iter()
            .map(|g| {
                Ok(Caption {
                    text: as_written(&self.tokenizer().decode(&g.ids)?),
                    log_probability: g.log_probability,
                })
            })
            .collect()
    }
}

/// A decoded text as people write it: no space before a punctuation mark.
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
