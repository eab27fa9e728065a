//! Statements about pictures: whether a text is true of two pictures, or follows from one.

use crate::{Error, Subject, Vlm};

/// A class of a statement and its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Such as `true` or `entailment`.
    pub class: &'static str,
    /// Among the model's classes.
    pub probability: f32,
}

impl Vlm {
    /// How many pictures a statement is about.
    ///
    /// # Errors
    /// A model that judges no statements.
    pub fn pictures_per_statement(&self) -> Result<usize, Error> {
        Ok(self.model().judge_text()?.pictures_per_text())
    }

    /// The classes of a statement about pictures, in the model's order.
    ///
    /// # Errors
    /// A model that judges no statements, or of another number of pictures; a text that it cannot take.
    pub fn judge<S: Subject>(
        &self,
        images: &[&S],
        statement: &str,
    ) -> Result<Vec<Judgement>, Error> {
        let model = self.model().judge_text()?;
        let expected = model.pictures_per_text();
        if images.len() != expected {
            return Err(Error::Model {
                place: "pictures".to_owned(),
                expected: format!("{expected} for a statement"),
                found: images.len().to_string(),
            });
        }
        let pictures = S::pictures(self, images)?;
        let texts = self.text()?.tokens(&[statement])?;
        let probabilities = model.judge_text(&pictures, &texts)?.swap_remove(0);
        let classes = model.classes().iter().zip(probabilities);
        Ok(classes
            .map(|(&class, probability)| Judgement { class, probability })
            .collect())
    }

    /// Whether the most probable class of a statement is that it is true, or follows.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn holds_true<S: Subject>(&self, images: &[&S], statement: &str) -> Result<bool, Error> {
        let judged = self.judge(images, statement)?;
        let best = judged
            .iter()
            .max_by(|a, b| a.probability.total_cmp(&b.probability));
        Ok(best.is_some_and(|b| matches!(b.class, "true" | "entailment")))
    }
}
