//! What each family brings to the training loop, a file for each.

mod albef;
mod blip;
mod dual_encoder;
mod parts;

use crate::Error;
use crate::recipe::Recipe;
use crate::run::{Options, Outcome, run};
use crate::set_recipe::SetRecipe;
use parts::Start;
use std::sync::atomic::AtomicBool;
use vlm_models::families::{self, open_clip};

/// Trains a recipe of any family.
pub(crate) fn train(
    recipe: &Recipe,
    set: &SetRecipe,
    options: &Options,
    stop: &AtomicBool,
) -> Result<Outcome, Error> {
    let start = Start::of(set)?;
    let model_type = start.config.get("model_type").and_then(|t| t.as_str());
    match model_type {
        Some(families::clip::MODEL_TYPE) => {
            run(recipe, dual_encoder::Pairs::new(set, start)?, options, stop)
        }
        Some(t) if families::siglip::MODEL_TYPES.contains(&t) => {
            run(recipe, dual_encoder::Pairs::new(set, start)?, options, stop)
        }
        None if open_clip::model_cfg(&start.config).is_some() => {
            run(recipe, dual_encoder::Pairs::new(set, start)?, options, stop)
        }
        Some(families::albef::MODEL_TYPE) => {
            run(recipe, albef::AlbefLearner::new(set, start)?, options, stop)
        }
        Some(families::blip::MODEL_TYPE) => {
            run(recipe, blip::BlipLearner::new(set, start)?, options, stop)
        }
        _ => Err(Error::file(
            "recipe",
            format!(
                "model.model_type: expected \"albef\", \"blip\", \"clip\", \"siglip\", open_clip's model_cfg, or \"coca\" with \
                 data.world, found {}",
                model_type.map_or("none".to_owned(), |t| format!("{t:?}"))
            ),
        )),
    }
}
