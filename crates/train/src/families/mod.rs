//! What each family brings to the training loop, a file for each.

mod albef;
mod blip;
mod coca;
mod detector;
mod dual_encoder;
mod nic;
mod oscar;
mod parts;
mod tree;

use crate::Error;
use crate::recipe::Recipe;
use crate::run::{Options, Outcome, run};
use crate::set_recipe::SetRecipe;
use parts::Start;
use std::sync::atomic::AtomicBool;
use vlm_models::families::faster_rcnn::{self, FasterRcnn};
use vlm_models::families::vinvl::Vinvl;
use vlm_models::families::{self, open_clip};

/// Whether an architecture of torchvision is a detector.
fn detects(architecture: &serde_json::Value) -> bool {
    let known = |name| faster_rcnn::ARCHITECTURES.contains(&name);
    architecture.as_str().is_some_and(known)
}

/// Trains a recipe of any family.
pub(crate) fn train(
    recipe: &Recipe,
    set: &SetRecipe,
    options: &Options,
    stop: &AtomicBool,
) -> Result<Outcome, Error> {
    let start = Start::of(set)?;
    let model_type = start.config.get("model_type").and_then(|t| t.as_str());
    let reads_regions = families::oscar::is_config(&start.config);
    let given = match &set.data {
        data if !data.regions.is_empty() => Some("regions"),
        data => data.detector.as_ref().map(|_| "detector"),
    };
    if let (false, Some(key)) = (reads_regions, given) {
        return Err(Error::file(
            "recipe",
            format!(
                "data.{key}: expected none but for a model that reads regions (oscar), found some"
            ),
        ));
    }
    match model_type {
        _ if reads_regions => run(recipe, oscar::OscarLearner::new(set, start)?, options, stop),
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
        Some(families::coca::MODEL_TYPE) => {
            run(recipe, coca::CocaLearner::new(set, start)?, options, stop)
        }
        Some(families::blip::MODEL_TYPE) => {
            run(recipe, blip::BlipLearner::new(set, start)?, options, stop)
        }
        Some(families::vinvl::MODEL_TYPE) => {
            let learner = detector::DetectorLearner::<Vinvl>::new(set, start)?;
            let recipe = detector::with_frozen_norms(recipe, &learner);
            run(&recipe, learner, options, stop)
        }
        None if start.config.get("architecture").is_some_and(detects) => {
            let learner = detector::DetectorLearner::<FasterRcnn>::new(set, start)?;
            let recipe = detector::with_frozen_norms(recipe, &learner);
            run(&recipe, learner, options, stop)
        }
        Some(families::nic::MODEL_TYPE) => {
            run(recipe, nic::NicLearner::new(set, start)?, options, stop)
        }
        Some(families::tree::MODEL_TYPE) => {
            run(recipe, tree::TreeLearner::new(set, start)?, options, stop)
        }
        _ => Err(Error::file(
            "recipe",
            format!(
                "model.model_type: expected \"albef\", \"blip\", \"clip\", \"coca\", \"nic\", \"oscar\", \"siglip\", \"tree\", \
                 \"vinvl\", torchvision's architecture \"fasterrcnn_resnet50_fpn\" or open_clip's model_cfg, found {}",
                model_type.map_or("none".to_owned(), |t| format!("{t:?}"))
            ),
        )),
    }
}
