//! The recipe of any family on pictures with texts.

use crate::augment::Augment;
use crate::recipe::{TrainRecipe, ValidationRecipe, check, count, validate_loop};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vlm_worlds::shapes;

/// A training run of any family on sets of pictures, or on rendered scenes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRecipe {
    /// The name of the model that comes out, and of the run's directory.
    pub name: String,
    /// The data.
    pub data: SetData,
    /// The loop.
    pub train: TrainRecipe,
    /// What is measured on the way.
    pub validation: ValidationRecipe,
    /// The model's `config.json`, or an `open_clip_config.json` with its `model_cfg`; that of `train.init` if empty.
    ///
    /// With a vocabulary of words, `vocab_size` and the ids of the special tokens are filled in where they are not given.
    #[serde(default)]
    pub model: toml::Table,
}

/// What is learned from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetData {
    /// Data sets: directories or tars that [`vlm_data::datasets::Set`] knows, relative to the current directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<PathBuf>,
    /// Regions of the pictures of each set (TSV), for a model that reads them in place of pixels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<PathBuf>,
    /// Object tags of the pictures of each set (TSV), where they are not beside the regions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<PathBuf>,
    /// A directory of a detector that finds the regions while a model that reads them is trained, in place of files of
    /// regions. `vlm eval tree` takes a detector's recipe as well, which it trains before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detector: Option<PathBuf>,
    /// `shapes` for rendered scenes, in place of sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<String>,
    /// Side of the scenes' pictures, in pixels, before they are brought to the model's size.
    #[serde(default = "scene_size", skip_serializing_if = "is_scene_size")]
    pub size: u32,
    /// Difficulty of the scenes.
    #[serde(default = "difficulty", skip_serializing_if = "is_difficulty")]
    pub difficulty: [f32; 2],
    /// The seed of order, choice of texts and augmentation.
    pub seed: u64,
    /// Only records of this part, where the authors have parts; `train` where there are some and none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Share of the groups of each label that is not learned from, but measured on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<f64>,
    /// Draws what is held out.
    #[serde(default)]
    pub split_seed: u64,
    /// `words` for the words of the training texts, or a vocabulary's file or directory; that of `train.init`, or else
    /// `words`, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Sentences with `{}` for a label; the set's, or else the family's, if not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// Whether no two pairs of a step have the same label, so that every other text of a contrastive batch is a wrong
    /// one. Labels are then drawn evenly.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub distinct_labels: bool,
    /// Questions learned per picture.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub questions_per_picture: usize,
    /// What is done to pictures and texts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub augment: Augment,
}

fn scene_size() -> u32 {
    shapes::Config::default().size
}

fn is_scene_size(value: &u32) -> bool {
    *value == scene_size()
}

fn difficulty() -> [f32; 2] {
    [0.0, 0.6]
}

fn is_difficulty(value: &[f32; 2]) -> bool {
    *value == difficulty()
}

fn one() -> usize {
    1
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

fn is_default(augment: &Augment) -> bool {
    *augment == Augment::default()
}

impl SetRecipe {
    pub(crate) fn validate(&self) -> Result<(), String> {
        let d = &self.data;
        validate_loop(&self.name, &self.train, &self.validation)?;
        match &d.world {
            None => check(!d.sets.is_empty(), "data.sets", "one or more", "none")?,
            Some(world) => {
                check(
                    world == "shapes",
                    "data.world",
                    "\"shapes\"",
                    &format!("{world:?}"),
                )?;
                let sets = format!("{:?}", d.sets);
                check(d.sets.is_empty(), "data.sets", "none beside a world", &sets)?;
            }
        }
        for (place, files) in [("data.regions", &d.regions), ("data.tags", &d.tags)] {
            let fits = files.is_empty() || files.len() == d.sets.len();
            let expected = format!("one for each of {} sets", d.sets.len());
            check(fits, place, &expected, &files.len().to_string())?;
        }
        let tagged = d.tags.is_empty() || !d.regions.is_empty();
        check(tagged, "data.regions", "those beside data.tags", "none")?;
        let sources = d.detector.is_none() || d.regions.is_empty();
        check(sources, "data.detector", "none beside data.regions", "one")?;
        for difficulty in d.difficulty {
            let size = d.size;
            let config = shapes::Config { size, difficulty };
            config.validate().map_err(|e| format!("data: {e}"))?;
        }
        let [low, high] = d.difficulty;
        let found = format!("[{low}, {high}]");
        check(low <= high, "data.difficulty", "[low, high]", &found)?;
        if let Some(share) = d.held_out {
            let inside = share > 0.0 && share < 1.0;
            check(
                inside,
                "data.held_out",
                "between 0 and 1",
                &share.to_string(),
            )?;
        }
        if let Some(bad) = d.templates.iter().find(|t| !t.contains("{}")) {
            let found = format!("{bad:?}");
            check(
                false,
                "data.templates",
                "sentences with {} for the label",
                &found,
            )?;
        }
        count(
            "data.questions_per_picture",
            d.questions_per_picture as u64,
            64,
        )?;
        let given = !self.model.is_empty() || self.train.init.is_some();
        check(
            given,
            "model",
            "a config, or train.init to take it from",
            "neither",
        )?;
        d.augment.validate()
    }
}
