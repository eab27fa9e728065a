//! What a run begins with, and what of it stays: tags and words for symbol substitution come and go.

use crate::Error;
use crate::recipe::ShapesRecipe;
use crate::symbols::extra_words;
use burn::tensor::Device;
use std::collections::BTreeMap;
use vlm_models::families::coca::{Coca, CocaConfig};
use vlm_nn::weights::{Checkpoint, StoreDtype, Weights, collect, to_bytes};
use vlm_tasks::file;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The model that a recipe begins with: random, or another model's weights. What that lacks of tags and words is
/// drawn from the seed; anything else must be the same.
pub(crate) fn model(recipe: &ShapesRecipe, device: &Device) -> Result<Coca, Error> {
    let mut weights = Weights::random(recipe.train.seed, device);
    let random = Coca::new(&mut weights, &recipe.model);
    weights.finish()?;
    let Some(directory) = &recipe.train.init else {
        return Ok(random);
    };
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(|e| Error::file(&path, format!("cannot be read: {e}")))
    };
    let place = directory.join(file::CONFIG);
    let config = String::from_utf8_lossy(&read(file::CONFIG)?).into_owned();
    let config = CocaConfig::parse(&config).map_err(|e| Error::file(&place, e.to_string()))?;
    let (bare, _) = without_extra(&recipe.model, Tensors::new());
    if same_sizes(&config, &recipe.model) || same_sizes(&config, &bare) {
        let path = directory.join(file::WEIGHTS);
        let mut given = Checkpoint::parse(&read(file::WEIGHTS)?, &path.display().to_string())?;
        let mut all = collect(&random);
        for (name, (shape, values)) in &mut all {
            let from = shape_without_extra(name, shape, &recipe.model, &config);
            let found = given
                .take(name, &from)
                .map_err(|difference| Error::file(&path, difference))?;
            overlay(&found, &from, values, shape);
        }
        let bytes = to_bytes(&all, StoreDtype::F32, None)?;
        let all = Checkpoint::parse(&bytes, &path.display().to_string())?;
        let mut weights = Weights::from_checkpoint(all, device);
        let model = Coca::new(&mut weights, &recipe.model);
        weights.finish()?;
        return Ok(model);
    }
    Err(Error::file(
        &place,
        "expected the sizes of the recipe's model, found others",
    ))
}

fn same_sizes(a: &CocaConfig, b: &CocaConfig) -> bool {
    (&a.vision_config, &a.text_config, a.projection_dim)
        == (&b.vision_config, &b.text_config, b.projection_dim)
        && (&a.token_label_classes, a.decoder_memory, a.extra_tags)
            == (&b.token_label_classes, b.decoder_memory, b.extra_tags)
}

/// The shape of a parameter in a model of another config, which has fewer words and tags.
fn shape_without_extra(
    name: &str,
    shape: &[usize],
    ours: &CocaConfig,
    theirs: &CocaConfig,
) -> Vec<usize> {
    let mut shape = shape.to_vec();
    let words = ours.text_config.vocab_size - theirs.text_config.vocab_size;
    let tags = ours.extra_tags - theirs.extra_tags;
    match name {
        "text.token.weight" | "decoder.head.weight" => shape[0] -= words,
        "tag_embedding.weight" => shape[1] -= tags,
        _ => {}
    }
    shape
}

/// Copies a smaller matrix into the upper left of a larger one, or a tensor over one of its own shape.
fn overlay(from: &[f32], from_shape: &[usize], to: &mut [f32], to_shape: &[usize]) {
    if from_shape == to_shape {
        to.copy_from_slice(from);
        return;
    }
    let rows = from.chunks(from_shape[1]).zip(to.chunks_mut(to_shape[1]));
    rows.for_each(|(from, to)| to[..from.len()].copy_from_slice(from));
}

/// A model without the tags and words that only training has.
pub(crate) fn without_extra(config: &CocaConfig, mut weights: Tensors) -> (CocaConfig, Tensors) {
    let mut bare = config.clone();
    if config.extra_tags > 0 {
        bare.text_config.vocab_size -= extra_words().len();
        bare.extra_tags = 0;
    }
    for (name, (shape, values)) in &mut weights {
        let smaller = shape_without_extra(name, shape, config, &bare);
        if smaller != *shape {
            let rows = values.chunks(shape[1]).take(smaller[0]);
            *values = rows.flat_map(|row| row[..smaller[1]].to_vec()).collect();
            *shape = smaller;
        }
    }
    (bare, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_matrix_keeps_its_rows_and_columns() {
        let mut to = [0.0; 6];
        overlay(&[1.0, 2.0], &[1, 2], &mut to, &[2, 3]);
        assert_eq!(to, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
        overlay(&[1.0, 2.0, 3.0, 4.0], &[2, 2], &mut to, &[2, 3]);
        assert_eq!(to, [1.0, 2.0, 0.0, 3.0, 4.0, 0.0]);
    }
}
