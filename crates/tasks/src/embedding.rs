//! Vectors of pictures and texts in the space that they share.

use crate::{Error, Vlm};
use vlm_data::image::Image;
use vlm_models::capability::rows;

/// Texts that go through the model at once.
const TEXT_BATCH: usize = 64;

impl Vlm {
    /// A unit vector for each picture.
    ///
    /// # Errors
    /// A picture that cannot be prepared, or a model without a shared space.
    pub fn embed_images(&self, images: &[&Image]) -> Result<Vec<Vec<f32>>, Error> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let vectors = self
            .model()
            .embed_image()?
            .embed_image(&self.pictures(images)?)?;
        Ok(rows(vectors))
    }

    /// A unit vector for each text.
    ///
    /// # Errors
    /// Text that cannot be tokenized or is too long, or a model without a shared space.
    pub fn embed_texts(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        let (side, model) = (self.text()?, self.model().embed_text()?);
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(TEXT_BATCH) {
            vectors.extend(rows(model.embed_text(&side.tokens(batch)?)?));
        }
        Ok(vectors)
    }
}
