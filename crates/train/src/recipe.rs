//! The recipe: everything that decides the weights of a run, in one TOML file.

use crate::Error;
use crate::patch_labels::TOKEN_LABEL_CLASSES;
use crate::symbols::{EXTRA_TAGS, extra_words};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use vlm_models::families::coca::CocaConfig;
use vlm_tasks::prompt::SPECIALS;
use vlm_worlds::shapes;

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name of the model that comes out, and of the run's directory.
    pub name: String,
    /// The data.
    pub data: DataRecipe,
    /// The loop.
    pub train: TrainRecipe,
    /// What is measured on the way.
    pub validation: ValidationRecipe,
    /// The model's `config.json`; `text_config.vocab_size` is checked against the data's vocabulary.
    pub model: CocaConfig,
}

/// What is learned from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// The procedural world; `shapes` is the only one.
    pub world: String,
    /// The seed of its pictures.
    pub seed: u64,
    /// Side of a picture, in pixels.
    pub size: u32,
    /// Pictures are drawn with a difficulty between these.
    pub difficulty: [f32; 2],
    /// Steps over which the upper end rises from the lower one: easy pictures first.
    pub difficulty_ramp_steps: u64,
    /// Captions learned per picture.
    pub captions_per_picture: usize,
    /// Questions learned per picture.
    pub questions_per_picture: usize,
    /// Share of the pictures whose questions call colours, shapes or textures by other names (symbol substitution).
    #[serde(default)]
    pub symbol_substitution: f32,
    /// Share of the pictures that lose their colours, and with them what is said of colours, so that shapes are
    /// learned by themselves.
    #[serde(default)]
    pub greyscale: f32,
    /// Share of the pictures whose red, green and blue change places, with the same effect; a shape is then seen in
    /// colours that it never has.
    #[serde(default)]
    pub recolour: f32,
    /// Whether words that never follow in training are left out of the softmax (logit adjustment).
    #[serde(default)]
    pub adjust_text: bool,
}

/// How is learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// The seed of the initial weights.
    pub seed: u64,
    /// A model directory of the same sizes to begin with; tags and words that it lacks are drawn from the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Optimizer steps.
    pub steps: u64,
    /// Pictures whose gradients are computed at once.
    pub batch_size: usize,
    /// Batches whose gradients are summed before each optimizer step.
    pub accumulate: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end.
    pub min_learning_rate: f64,
    /// Steps over which the learning rate rises.
    pub warmup_steps: u64,
    /// Steps at the end over which it falls in a cosine; at most `steps - warmup_steps`, which is the usual choice.
    pub decay_steps: u64,
    /// Decoupled weight decay of matrices; vectors, norms and embeddings have none.
    pub weight_decay: f64,
    /// AdamW's first and second decay rate.
    pub betas: [f64; 2],
    /// Gradients are scaled down to this norm.
    pub clip_norm: f64,
    /// Arithmetic of matrix products: `f32`, `bf16`, or `auto` (bf16 where the CPU has it in hardware).
    pub precision: String,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Number type of the finished model's weights.
    pub output: OutputDtype,
}

/// Number type of the finished model's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputDtype {
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
}

/// What is measured on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationRecipe {
    /// Steps between validations.
    pub every: u64,
    /// Pictures of the validation split.
    pub pictures: usize,
}

impl Recipe {
    /// Reads and validates a recipe.
    ///
    /// # Errors
    /// A file that cannot be read, a key that is unknown, missing, or has a value out of range.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
        Self::parse(&text).map_err(|reason| Error::Recipe {
            path: path.to_owned(),
            reason,
        })
    }

    /// Reads and validates the text of a recipe; the error says place, expected and found.
    pub fn parse(text: &str) -> Result<Self, String> {
        let recipe: Self = toml::from_str(text).map_err(|e| one_line(&e.to_string()))?;
        recipe.validate()?;
        Ok(recipe)
    }

    fn validate(&self) -> Result<(), String> {
        let (d, t, v) = (&self.data, &self.train, &self.validation);
        let name_ok = !self.name.is_empty()
            && !self.name.starts_with('.')
            && self
                .name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        check(
            name_ok,
            "name",
            "letters, digits, -, _ and .",
            &format!("{:?}", self.name),
        )?;
        check(
            d.world == "shapes",
            "data.world",
            "\"shapes\"",
            &format!("{:?}", d.world),
        )?;
        for difficulty in d.difficulty {
            let config = shapes::Config {
                size: d.size,
                difficulty,
            };
            config.validate().map_err(|e| format!("data: {e}"))?;
        }
        let [low, high] = d.difficulty;
        check(
            low <= high,
            "data.difficulty",
            "[low, high]",
            &format!("[{low}, {high}]"),
        )?;
        let count = |place, value: u64, most: u64| {
            check(
                (1..=most).contains(&value),
                place,
                &format!("1 to {most}"),
                &value.to_string(),
            )
        };
        count(
            "data.captions_per_picture",
            d.captions_per_picture as u64,
            64,
        )?;
        count(
            "data.questions_per_picture",
            d.questions_per_picture as u64,
            64,
        )?;
        count("train.steps", t.steps, 1_000_000_000)?;
        let most = t.steps.saturating_sub(t.warmup_steps);
        check(
            t.decay_steps <= most,
            "train.decay_steps",
            &format!("at most steps - warmup_steps = {most}"),
            &t.decay_steps.to_string(),
        )?;
        count("train.batch_size", t.batch_size as u64, 65_536)?;
        count("train.accumulate", t.accumulate as u64, 65_536)?;
        count("train.checkpoint_every", t.checkpoint_every, 1_000_000_000)?;
        count("validation.every", v.every, 1_000_000_000)?;
        count("validation.pictures", v.pictures as u64, 1_000_000)?;
        let positive = |place, value: f64| {
            check(
                value.is_finite() && value > 0.0,
                place,
                "a number above 0",
                &value.to_string(),
            )
        };
        positive("train.learning_rate", t.learning_rate)?;
        positive("train.clip_norm", t.clip_norm)?;
        check(
            (0.0..=t.learning_rate).contains(&t.min_learning_rate),
            "train.min_learning_rate",
            "0 to learning_rate",
            &t.min_learning_rate.to_string(),
        )?;
        check(
            t.weight_decay.is_finite() && t.weight_decay >= 0.0,
            "train.weight_decay",
            "0 or above",
            &t.weight_decay.to_string(),
        )?;
        for beta in t.betas {
            check(
                (0.0..1.0).contains(&beta),
                "train.betas",
                "0 to below 1",
                &beta.to_string(),
            )?;
        }
        check(
            ["auto", "f32", "bf16"].contains(&t.precision.as_str()),
            "train.precision",
            "\"auto\", \"f32\" or \"bf16\"",
            &format!("{:?}", t.precision),
        )?;
        self.model.validate().map_err(|e| format!("model: {e}"))?;
        check(
            (0.0..=1.0).contains(&d.symbol_substitution),
            "data.symbol_substitution",
            "0 to 1",
            &d.symbol_substitution.to_string(),
        )?;
        check(
            (0.0..=1.0).contains(&d.greyscale),
            "data.greyscale",
            "0 to 1",
            &d.greyscale.to_string(),
        )?;
        check(
            (0.0..=1.0).contains(&(d.recolour + d.greyscale)) && d.recolour >= 0.0,
            "data.recolour",
            "0 to 1 together with data.greyscale",
            &d.recolour.to_string(),
        )?;
        let substituted = d.symbol_substitution > 0.0;
        let extra = if substituted { EXTRA_TAGS } else { 0 };
        check(
            self.model.extra_tags == extra,
            "model.extra_tags",
            &format!(
                "{extra} for data.symbol_substitution = {}",
                d.symbol_substitution
            ),
            &self.model.extra_tags.to_string(),
        )?;
        let words = words(substituted).len();
        let special = SPECIALS.len();
        check(
            self.model.text_config.vocab_size == words + special,
            "model.text_config.vocab_size",
            &format!(
                "{} (the world's words and {special} special tokens)",
                words + special
            ),
            &self.model.text_config.vocab_size.to_string(),
        )?;
        let classes = &self.model.token_label_classes;
        check(
            classes.is_empty() || *classes == TOKEN_LABEL_CLASSES,
            "model.token_label_classes",
            &format!("[] or {TOKEN_LABEL_CLASSES:?} for shapes"),
            &format!("{classes:?}"),
        )?;
        check(
            self.model.vision_config.image_size == d.size as usize,
            "model.vision_config.image_size",
            &format!("data.size = {}", d.size),
            &self.model.vision_config.image_size.to_string(),
        )
    }
}

/// The words that a recipe's texts are made of, those for symbol substitution last.
pub(crate) fn words(substituted: bool) -> Vec<String> {
    let words = shapes::vocabulary().into_iter().map(str::to_owned);
    let extra = if substituted {
        extra_words()
    } else {
        Vec::new()
    };
    words.chain(extra).collect()
}

fn check(ok: bool, place: &str, expected: &str, found: &str) -> Result<(), String> {
    if ok {
        return Ok(());
    }
    Err(format!("{place}: expected {expected}, found {found}"))
}

/// The TOML parser draws a picture of the error; one line with the text of the line in question is enough for us.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let parts = lines.filter_map(|line| match line.split_once('|') {
        Some((number, source)) if number.trim().parse::<u32>().is_ok() => {
            Some(format!("`{}`", source.trim()))
        }
        Some(("", _)) => None,
        _ => (!line.is_empty()).then(|| line.to_owned()),
    });
    parts.collect::<Vec<_>>().join(": ")
}
