//! Captions: a picture in, a sentence out.

use crate::{Error, Subject, Vlm};
use vlm_models::generate::{Generated, Strategy, generate};

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
    pub fn caption<S: Subject>(
        &self,
        images: &[&S],
        options: &CaptionOptions,
    ) -> Result<Vec<Caption>, Error> {
        self.caption_from(None, images, options)
    }

    /// As [`Self::caption`], where every caption goes on from a given beginning, which it does not repeat.
    ///
    /// # Errors
    /// As [`Self::caption`]; a beginning that cannot be tokenized or is too long.
    pub fn caption_from<S: Subject>(
        &self,
        beginning: Option<&str>,
        images: &[&S],
        options: &CaptionOptions,
    ) -> Result<Vec<Caption>, Error> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let (model, text) = (self.model().generate()?, self.text()?);
        let prompt = text.caption_prompt(beginning)?;
        let writing = text.writing(options.strategy, options.max_new_tokens);
        // beam search looks at one picture at a time, and pictures have not as many regions as each other
        let at_once = match options.strategy {
            Strategy::Beam { .. } => 1,
            _ if self.model().region_width().is_some() => 1,
            _ => images.len(),
        };
        let mut captions: Vec<Generated> = Vec::with_capacity(images.len());
        for images in images.chunks(at_once) {
            let mut decoding = model.decode(model.encode(&S::pictures(self, images)?)?);
            let prompts = vec![prompt.clone(); images.len()];
            captions.extend(generate(&mut *decoding, &prompts, &writing));
        }
        captions
            .into_iter()
            .map(|g| {
                Ok(Caption {
                    text: text.decode(&g.ids)?,
                    log_probability: g.log_probability,
                })
            })
            .collect()
    }
}
