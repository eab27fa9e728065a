//! The recipe: everything that decides the weights of a run, in one TOML file.

use crate::Error;
use crate::patch_labels::TOKEN_LABEL_CLASSES;
use crate::set_recipe::SetRecipe;
use crate::symbols::{EXTRA_TAGS, extra_words};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vlm_models::families::coca::{CocaConfig, MODEL_TYPE};
use vlm_tasks::prompt::SPECIALS;
use vlm_worlds::shapes;

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Recipe {
    /// A contrastive captioner on rendered scenes, with everything that those know of themselves.
    Shapes(Box<ShapesRecipe>),
    /// Any family on pictures with texts: sets on disk, or the same scenes.
    Set(Box<SetRecipe>),
}

/// A training run of a contrastive captioner on rendered scenes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapesRecipe {
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
    /// Sets of questions that are drawn for a picture; those to learn are taken from all of them.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub question_sets: usize,
    /// How readily a question is taken: the product of what is given for its kind and for phrases in it, else 1, as in
    /// `{ count = 2.0, "have the same" = 8.0 }`. Empty: all questions once, before any is taken again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub question_weights: BTreeMap<String, f32>,
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
    /// Parameters that stay as they are, by patterns of names: `*` stands for any part between dots or some letters of
    /// it, `**` for any number of parts, as in `vision.blocks.0.**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Layer-wise learning rates (Clark et al., "ELECTRA", 2020; Bao et al., "BEiT", 2021): each layer of a tower learns
    /// by this factor more slowly than the one above it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub layer_decay: f64,
    /// Decay of a moving average of the weights, which is measured and exported in their place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f64>,
    /// So many batches, after those that were learned from, measure the statistics of BatchNorms anew for the finished model
    /// and before each validation; none leaves the running ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics_batches: Option<usize>,
    /// Whether the batches of a step are one batch of a contrastive loss (gradient caching).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gradient_cache: bool,
}

/// Running statistics take a tenth of each batch: after half of so many, 7 % remain of what they were.
const FEWEST_OF_STATISTICS: usize = 50;

fn one<T: From<u8>>() -> T {
    T::from(1)
}

fn is_one<T: From<u8> + PartialEq>(value: &T) -> bool {
    *value == one()
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

/// Rendered scenes of a recipe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenes {
    /// Side of a picture, in pixels.
    pub size: u32,
    /// Pictures are drawn with a difficulty between these.
    pub difficulty: [f32; 2],
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
        /// What tells the kinds apart.
        #[derive(Deserialize)]
        struct Kind {
            #[serde(default)]
            data: toml::Table,
            #[serde(default)]
            model: toml::Table,
        }
        let failed = |e: toml::de::Error| one_line(&e.to_string());
        let kind: Kind = toml::from_str(text).map_err(failed)?;
        let coca = kind.model.get("model_type").and_then(|t| t.as_str()) == Some(MODEL_TYPE);
        if coca && kind.data.contains_key("world") {
            let recipe: ShapesRecipe = toml::from_str(text).map_err(failed)?;
            recipe.validate()?;
            return Ok(Self::Shapes(Box::new(recipe)));
        }
        let recipe: SetRecipe = toml::from_str(text).map_err(failed)?;
        recipe.validate()?;
        Ok(Self::Set(Box::new(recipe)))
    }

    /// The name of the model that comes out.
    pub fn name(&self) -> &str {
        match self {
            Self::Shapes(r) => &r.name,
            Self::Set(r) => &r.name,
        }
    }

    /// The loop.
    pub fn train(&self) -> &TrainRecipe {
        match self {
            Self::Shapes(r) => &r.train,
            Self::Set(r) => &r.train,
        }
    }

    /// What is measured on the way.
    pub fn validation(&self) -> &ValidationRecipe {
        match self {
            Self::Shapes(r) => &r.validation,
            Self::Set(r) => &r.validation,
        }
    }

    /// The rendered scenes that are learned from; none where sets of pictures are.
    pub fn scenes(&self) -> Option<Scenes> {
        match self {
            Self::Shapes(r) => Some(Scenes {
                size: r.data.size,
                difficulty: r.data.difficulty,
            }),
            Self::Set(r) => r.data.world.as_ref().map(|_| Scenes {
                size: r.data.size,
                difficulty: r.data.difficulty,
            }),
        }
    }

    /// The same recipe with its seeds, of data and of weights, moved on by `more`: another run of the same experiment.
    #[must_use]
    pub fn reseeded(&self, more: u64) -> Self {
        let mut recipe = self.clone();
        let (data, train) = match &mut recipe {
            Self::Shapes(r) => (&mut r.data.seed, &mut r.train.seed),
            Self::Set(r) => (&mut r.data.seed, &mut r.train.seed),
        };
        *data = data.wrapping_add(more);
        *train = train.wrapping_add(more);
        recipe
    }

    /// The same recipe with another number of steps.
    pub(crate) fn of_length(&self, steps: u64) -> Self {
        let mut recipe = self.clone();
        match &mut recipe {
            Self::Shapes(r) => r.train.steps = steps,
            Self::Set(r) => r.train.steps = steps,
        }
        recipe
    }
}

impl ShapesRecipe {
    fn validate(&self) -> Result<(), String> {
        let (d, t) = (&self.data, &self.train);
        validate_loop(&self.name, t, &self.validation)?;
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
        count("data.question_sets", d.question_sets as u64, 16)?;
        for (of, &weight) in &d.question_weights {
            check(
                weight.is_finite() && weight > 0.0,
                "data.question_weights",
                "numbers above 0",
                &format!("{weight} for {of:?}"),
            )?;
        }
        check(
            !t.gradient_cache,
            "train.gradient_cache",
            "false, as this loss has parts that are no contrast",
            "true",
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

/// A count between 1 and `most`.
pub(crate) fn count(place: &str, value: u64, most: u64) -> Result<(), String> {
    check(
        (1..=most).contains(&value),
        place,
        &format!("1 to {most}"),
        &value.to_string(),
    )
}

/// What every kind of recipe has.
pub(crate) fn validate_loop(
    name: &str,
    t: &TrainRecipe,
    v: &ValidationRecipe,
) -> Result<(), String> {
    let name_ok = !name.is_empty()
        && !name.starts_with('.')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    check(
        name_ok,
        "name",
        "letters, digits, -, _ and .",
        &format!("{name:?}"),
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
    check(
        t.layer_decay > 0.0 && t.layer_decay <= 1.0,
        "train.layer_decay",
        "above 0 to 1",
        &t.layer_decay.to_string(),
    )?;
    let batches = t.statistics_batches.unwrap_or(FEWEST_OF_STATISTICS) as u64;
    let enough = batches >= FEWEST_OF_STATISTICS as u64;
    let few = format!("{FEWEST_OF_STATISTICS} or more");
    check(
        enough,
        "train.statistics_batches",
        &few,
        &batches.to_string(),
    )?;
    count("train.statistics_batches", batches, 1 << 20)?;
    let decay = t.ema_decay.unwrap_or(0.5);
    check(
        (0.0..1.0).contains(&decay),
        "train.ema_decay",
        "0 to below 1",
        &decay.to_string(),
    )
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

pub(crate) fn check(ok: bool, place: &str, expected: &str, found: &str) -> Result<(), String> {
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
