//! Vectors of pictures and texts in the space that they share.

use crate::{Error, Vlm};
use burn::tensor::Tensor;
use vlm_data::image::Image;
use vlm_models::capability::Tokens;

impl Vlm {
    /// A unit vector for each picture.
    ///
    /// # Errors
    /// A picture that cannot be prepared, or a model without a shared space.
    pub fn embed_images(&self, images: &[&Image]) -> Result<Vec<Vec<f32>>, Error> {
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
        let special = self.special();
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            let ids = special.caption_example(self.tokenizer(), text)?.ids;
            let most = self.model().texts().max_positions;
            if ids.len() > most {
                return Err(Error::TooLong {
                    expected: most.saturating_sub(2),
                    found: ids.len() - 2,
                });
            }
            all.push(ids);
        }
        let texts = Tokens::padded(&all, special.pad);
        Ok(rows(self.model().embed_text()?.embed_text(&texts)?))
    }
}

fn rows(vectors: Tensor<2>) -> Vec<Vec<f32>> {
    let width = vectors.dims()[1];
    let data: Vec<f32> = vectors
        .into_data()
        .convert::<f32>()
        .try_to_vec()
        .expect("f32 vectors");
    data.chunks(width).map(<[f32]>::to_vec).collect()
}
