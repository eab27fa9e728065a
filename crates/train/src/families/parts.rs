//! What the learners of all families share: config, vocabulary, data, files.

use crate::Error;
use crate::coca_shapes::{preprocessor_config, processor_of};
use crate::learner::{Files, Measured, Tensors};
use crate::log::Log;
use crate::plot::{Panel, Series};
use crate::set_recipe::SetRecipe;
use crate::source::{HeldOut, SetBatch, Source, Wanted, questions};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use vlm_data::image::{Filter, Image, ImageProcessor, PreprocessorConfig, ProcessorKind, Size};
use vlm_data::text::{Tokenizer, word_level, words_of};
use vlm_models::capability::Pictures;
use vlm_models::families::Model;
use vlm_nn::weights::{Checkpoint, StoreDtype, Weights, collect, to_bytes};
use vlm_tasks::evaluate::{Question, Sample};
use vlm_tasks::similarity::{PLACEHOLDER, dot};
use vlm_tasks::{CaptionOptions, ModelFiles, Shown, Vlm, file};

/// What a run begins with: a config, and the model that it comes from if it is fine-tuned.
pub(crate) struct Start {
    /// `config.json`, or the whole of `open_clip_config.json`.
    pub config: Value,
    /// The model to begin with.
    pub init: Option<ModelFiles>,
}

/// What the inverse temperature may not exceed (Radford et al., 2021), as a logarithm.
pub(crate) const MOST_SCALE: f32 = 4.605_170_2;

/// Special tokens of a vocabulary of words, with those that begin and end a text.
pub(crate) struct Specials {
    /// The first ids.
    pub first: &'static [&'static str],
    /// The last ids.
    pub last: &'static [&'static str],
    pub begin: &'static str,
    pub end: &'static str,
    /// What the family does to texts before it tokenizes them.
    pub plain: fn(&str) -> String,
}

impl Start {
    /// The config of a recipe, or of the model that it begins with.
    pub(crate) fn of(set: &SetRecipe) -> Result<Self, Error> {
        let init = set.train.init.as_deref();
        let mut config = json_of(&set.model)?;
        if set.model.is_empty() {
            let directory = init.unwrap_or(Path::new("."));
            let files = [file::CONFIG, file::OPEN_CLIP_CONFIG].map(|f| directory.join(f));
            let found = files.iter().find(|f| f.is_file());
            let path = found.ok_or_else(|| {
                Error::file(
                    directory,
                    "expected config.json or open_clip_config.json, as the recipe has no [model]; found neither",
                )
            })?;
            let text = std::fs::read_to_string(path)
                .map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
            config = serde_json::from_str(&text)
                .map_err(|e| Error::file(path, format!("expected JSON, found {e}")))?;
        }
        Ok(Self {
            config,
            init: init.map(ModelFiles::at).transpose()?,
        })
    }
}

fn json_of(table: &toml::Table) -> Result<Value, Error> {
    serde_json::to_value(table).map_err(|e| Error::file("recipe", format!("model: {e}")))
}

/// Sets what is not given in an object of the config, which is made where it is missing.
pub(crate) fn fill(config: &mut Value, part: &str, fields: &[(&str, Value)]) {
    let Some(config) = config.as_object_mut() else {
        return;
    };
    let object = config
        .entry(part)
        .or_insert_with(|| Value::Object(Map::new()));
    fill_in(object, fields);
}

/// Sets what is not given in an object.
pub(crate) fn fill_in(object: &mut Value, fields: &[(&str, Value)]) {
    if let Some(object) = object.as_object_mut() {
        for (name, value) in fields {
            object.entry(*name).or_insert_with(|| value.clone());
        }
    }
}

/// Refuses batches in parts for an encoder with batch norms.
pub(crate) fn whole_batches(set: &SetRecipe, encoder: &str) -> Result<(), Error> {
    if set.train.accumulate > 1 {
        let reason = format!(
            "train.accumulate: expected 1 for a {encoder}, whose norms look at the whole batch, found {}",
            set.train.accumulate
        );
        return Err(Error::file("recipe", reason));
    }
    Ok(())
}

/// Everything but the network.
pub(crate) struct Parts {
    pub recipe: SetRecipe,
    pub config: Value,
    pub source: Arc<Source>,
    pub tokenizer: Tokenizer,
    pub processor: ImageProcessor,
    /// `preprocessor_config.json`, where the config does not say it.
    preprocessor: Option<Vec<u8>>,
    held_out: Vec<HeldOut>,
    init: Option<ModelFiles>,
}

/// A checkpoint without a tensor, for configs that are told by parts of checkpoints.
pub(crate) fn empty_checkpoint() -> Result<Checkpoint, Error> {
    let none = to_bytes(&Tensors::new(), StoreDtype::F32, None)?;
    Ok(Checkpoint::parse(&none, "recipe")?)
}

impl Parts {
    /// Opens the data, and makes or reads the vocabulary; `usual` is the family's template. The pictures' size is that
    /// of [`Self::with_size`], once the config is read.
    pub(crate) fn open(
        recipe: &SetRecipe,
        start: Start,
        wanted: Wanted,
        usual: &str,
        specials: &Specials,
    ) -> Result<Self, Error> {
        let data = &recipe.data;
        let source = Source::open(data, &recipe.train, wanted, usual)?;
        let own = (start.init.as_ref()).and(recipe.train.init.as_deref());
        let has = |path: &&Path, name: &str| path.join(name).is_file();
        let pieces = own.filter(|path| has(path, file::WORD_PIECES));
        let own = own.filter(|path| has(path, file::TOKENIZER));
        let tokenizer = match (data.tokenizer.as_deref(), own.or(pieces)) {
            (None, Some(path)) if own.is_some() => {
                Tokenizer::from_file(&path.join(file::TOKENIZER))?
            }
            (None, Some(path)) => Tokenizer::from_vocabulary(&path.join(file::WORD_PIECES))?,
            (None | Some("words"), _) => {
                let texts = source.texts()?;
                let texts: Vec<String> = texts.iter().map(|t| (specials.plain)(t)).collect();
                let words = words_of(texts.iter().map(String::as_str))?;
                let words: Vec<String> = words.into_iter().filter(|w| known(specials, w)).collect();
                word_level(&words, specials.first)?
                    .with_special_tokens(specials.last)
                    .between(specials.begin, specials.end)?
            }
            (Some(path), _) => Tokenizer::from_vocabulary(Path::new(path))?,
        };
        let held_out = source.held_out(recipe.validation.pictures)?;
        let preprocessor = preprocessor_config([1; 2]);
        Ok(Self {
            recipe: recipe.clone(),
            config: start.config,
            source: Arc::new(source),
            tokenizer,
            processor: processor_of(&preprocessor)?,
            preprocessor: None,
            held_out,
            init: start.init,
        })
    }

    /// Pictures of this size; a model that the run begins with keeps its own way of preparing them, if it has one.
    pub(crate) fn with_size(&mut self, size: [usize; 2]) -> Result<(), Error> {
        self.with_preprocessor(size, preprocessor_config)
    }

    /// As [`Self::with_size`], with levels from 0 to 1.
    pub(crate) fn with_levels(&mut self, size: [usize; 2]) -> Result<(), Error> {
        self.with_preprocessor(size, |size| {
            preprocessor_config(size).replace("\"do_normalize\": true", "\"do_normalize\": false")
        })
    }

    fn with_preprocessor(
        &mut self,
        size: [usize; 2],
        preprocessor: impl Fn([u32; 2]) -> String,
    ) -> Result<(), Error> {
        let size = size.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
        let own = self.recipe.train.init.clone();
        let own = own.filter(|path| path.is_dir() && self.recipe.model.is_empty());
        if self.config.get("model_type").is_none() {
            return self.with_open_clip_size(size, own.as_deref());
        }
        let own = own.map(|path| path.join(file::PREPROCESSOR));
        let bytes = match own.filter(|path| path.is_file()) {
            Some(path) => std::fs::read(&path)
                .map_err(|e| Error::file(&path, format!("cannot be read: {e}")))?,
            None => preprocessor(size).into_bytes(),
        };
        self.processor = processor_of(&String::from_utf8_lossy(&bytes))?;
        self.preprocessor = Some(bytes);
        Ok(())
    }

    /// As [`Self::with_size`]: open_clip's config says itself what is done to pictures.
    fn with_open_clip_size(
        &mut self,
        [height, width]: [u32; 2],
        own: Option<&Path>,
    ) -> Result<(), Error> {
        self.preprocessor = None;
        let kind = ProcessorKind::OpenClip;
        if self.config.get("preprocess_cfg").is_some() {
            let found = own
                .map(|path| ImageProcessor::find(path, kind))
                .transpose()?;
            self.processor = found.flatten().ok_or_else(|| {
                let reason = "model.preprocess_cfg: expected none, as pictures are brought to the model's size; found one";
                Error::file("recipe", reason)
            })?;
            return Ok(());
        }
        if self.config.get("model_cfg").is_none() {
            self.config = json!({ "model_cfg": self.config.take() });
        }
        self.config["preprocess_cfg"] = json!({
            "mode": "RGB",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bilinear",
            "resize_mode": "squash",
        });
        let mut config = PreprocessorConfig::defaults(kind);
        config.filter = Filter::Bilinear;
        config.center_crop = None;
        config.resize = Some(Size::Exact { height, width });
        config.normalize = Some(([0.5; 3], [0.5; 3]));
        self.processor = ImageProcessor::from_config(config);
        Ok(())
    }

    /// The network before the first step: drawn from the seed, with the parameters of the model that the run begins
    /// with in place of those of the same name and shape.
    pub(crate) fn initial<M: Module>(
        &self,
        device: &Device,
        build: impl Fn(&mut Weights) -> M,
        parameters: impl Fn(&Model) -> Option<Tensors>,
    ) -> Result<(M, Option<String>), Error> {
        begun(
            self.init.as_ref(),
            self.recipe.train.seed,
            device,
            build,
            parameters,
        )
    }

    /// Batches from number `first` on, made ahead by another thread until the receiver is dropped.
    pub(crate) fn stream(&self, first: u64) -> Receiver<Result<SetBatch, Error>> {
        self.source
            .stream(first, &self.recipe.train, &self.processor)
    }

    /// Whether the network is drawn from the seed alone.
    pub(crate) fn begins_anew(&self) -> bool {
        self.init.is_none()
    }

    /// The small files of a model directory.
    pub(crate) fn files(&self) -> Result<Files, Error> {
        let name = match self.config.get("model_type") {
            Some(_) => file::CONFIG,
            None => file::OPEN_CLIP_CONFIG,
        };
        let config = serde_json::to_string_pretty(&self.config)
            .map_err(|e| Error::file(name, format!("cannot be written: {e}")))?;
        let mut files = vec![
            (name, format!("{config}\n").into_bytes()),
            (file::TOKENIZER, self.tokenizer.to_json()?),
        ];
        let preprocessor = self.preprocessor.iter();
        files.extend(preprocessor.map(|bytes| (file::PREPROCESSOR, bytes.clone())));
        Ok(files)
    }

    /// A model with its vocabulary and processor.
    pub(crate) fn vlm(&self, model: Model) -> Result<Vlm, Error> {
        let (tokenizer, processor) = (self.tokenizer.clone(), self.processor.clone());
        let name = &self.recipe.name;
        Ok(Vlm::from_parts(name, model, tokenizer, processor)?)
    }

    /// Accuracy of the labels of what is held out, or how often the right caption is found first, and the right picture.
    pub(crate) fn measure_texts(&self, vlm: &Vlm) -> Result<Measured, Error> {
        let mut vectors = Vec::new();
        for some in self.held_out.chunks(16) {
            let images: Vec<&Image> = some.iter().filter_map(|h| h.image.pixels()).collect();
            vectors.extend(vlm.embed_images(&images)?);
        }
        let records = || self.held_out.iter().map(|h| &h.record);
        if records().all(|r| r.captions.is_empty()) {
            let labels = self.source.labels();
            let names: Vec<&str> = labels.iter().map(String::as_str).collect();
            let templates = self.source.templates().iter();
            let templates: Vec<&str> = templates.map(String::as_str).collect();
            let candidates = vlm.labels(&names, &templates)?;
            let right = records().zip(&vectors).filter(|(record, vector)| {
                let best = first(&candidates.cosines(vector));
                record.label.as_deref() == Some(names[best])
            });
            let accuracy = right.count() as f64 / vectors.len().max(1) as f64;
            return Ok(Measured {
                scores: vec![("zero_shot_accuracy", accuracy)],
                text: format!("zero-shot accuracy {:.1} %", 100.0 * accuracy),
            });
        }
        let texts: Vec<&str> = records()
            .map(|r| r.captions.first().map_or("", String::as_str))
            .collect();
        let among = vlm.embed_texts(&texts)?;
        let found = |queries: &[Vec<f32>], others: &[Vec<f32>]| {
            let right = queries.iter().enumerate().filter(|(i, query)| {
                let scores: Vec<f32> = others.iter().map(|o| dot(query, o)).collect();
                texts[first(&scores)] == texts[*i]
            });
            right.count() as f64 / queries.len().max(1) as f64
        };
        let (to_text, to_image) = (found(&vectors, &among), found(&among, &vectors));
        Ok(found_first(texts.len(), to_text, to_image))
    }

    /// How often the matching head finds the right caption first, and the right picture.
    pub(crate) fn measure_matching(&self, vlm: &Vlm) -> Result<Measured, Error> {
        let mut samples = self.samples();
        // a label stands for a caption, as in training
        for (sample, held_out) in samples.iter_mut().zip(&self.held_out) {
            let label = held_out.record.label.as_deref().map(|label| {
                let template = self.source.templates().first();
                template.map_or(label.to_owned(), |t| t.replace(PLACEHOLDER, label))
            });
            if sample.captions.is_empty() {
                sample.captions.extend(label);
            }
        }
        let report = vlm.evaluate_matching(&samples)?;
        let to_text = report.image_to_text.recall_at_1.estimate;
        let to_image = report.text_to_image.recall_at_1.estimate;
        Ok(found_first(samples.len(), to_text, to_image))
    }

    /// What is held out, as questions or captions.
    pub(crate) fn samples(&self) -> Vec<Sample<Shown>> {
        let held_out = self.held_out.iter();
        let samples = held_out.map(|h| Sample {
            image: h.image.clone(),
            captions: h.record.captions.clone(),
            questions: questions(&h.record)
                .into_iter()
                .map(|qa| Question {
                    question: qa.question,
                    answer: qa.answer,
                    kind: qa.kind,
                })
                .collect(),
            scene: None,
        });
        samples.collect()
    }

    /// How often a statement is rightly judged, true or false, on what is held out.
    pub(crate) fn measure_statements(&self, vlm: &Vlm) -> Result<Measured, Error> {
        let mut right = 0;
        for held_out in &self.held_out {
            let Some(statement) = &held_out.record.statement else {
                continue;
            };
            let images: Vec<&Shown> = std::iter::once(&held_out.image)
                .chain(&held_out.more)
                .collect();
            let truth = vlm.holds_true(&images, &statement.text)?;
            right += usize::from(truth == statement.truth);
        }
        let accuracy = right as f64 / self.held_out.len().max(1) as f64;
        Ok(Measured {
            scores: vec![("statement_accuracy", accuracy)],
            text: format!("accuracy of statements {:.1} %", 100.0 * accuracy),
        })
    }

    /// CIDEr-D of captions of what is held out.
    pub(crate) fn measure_captions(&self, vlm: &Vlm) -> Result<Measured, Error> {
        let mut samples = self.samples();
        samples.retain(|s| !s.captions.is_empty());
        if samples.is_empty() {
            let (scores, text) = (Vec::new(), "needs captions".to_owned());
            return Ok(Measured { scores, text });
        }
        let report = vlm.evaluate_captions(samples, &CaptionOptions::default(), |_| {})?;
        let cider = report.text.cider_d;
        Ok(Measured {
            scores: vec![("cider_d", cider)],
            text: format!("CIDEr-D {cider:.3}"),
        })
    }

    /// Accuracy of answers on what is held out.
    pub(crate) fn measure_answers(&self, vlm: &Vlm) -> Result<Measured, Error> {
        let report = vlm.evaluate_vqa(self.samples(), |_| {})?;
        let accuracy = report.scores.accuracy.estimate;
        Ok(Measured {
            scores: vec![("vqa_accuracy", accuracy)],
            text: format!("VQA accuracy {:.1} %", 100.0 * accuracy),
        })
    }
}

/// Recall at 1 of so many pictures in both directions.
fn found_first(pictures: usize, to_text: f64, to_image: f64) -> Measured {
    Measured {
        scores: vec![
            ("image_to_text_r1", to_text),
            ("text_to_image_r1", to_image),
        ],
        text: format!(
            "recall at 1 of {pictures} pictures: {:.1} % of their texts, {:.1} % by their texts",
            100.0 * to_text,
            100.0 * to_image
        ),
    }
}

/// The network before the first step, as [`Parts::initial`] has it.
pub(crate) fn begun<M: Module>(
    init: Option<&ModelFiles>,
    seed: u64,
    device: &Device,
    build: impl Fn(&mut Weights) -> M,
    parameters: impl Fn(&Model) -> Option<Tensors>,
) -> Result<(M, Option<String>), Error> {
    let mut weights = Weights::random(seed, device);
    let random = build(&mut weights);
    weights.finish()?;
    let Some(files) = init else {
        return Ok((random, None));
    };
    let given = files.model(&Device::flex())?;
    let mut given = parameters(&given).ok_or_else(|| {
        let found = format!(
            "expected a model of the recipe's family, found {}",
            given.family()
        );
        Error::file(files.name(), found)
    })?;
    let mut all = collect(&random);
    let mut new = Vec::new();
    for (name, (shape, values)) in &mut all {
        match given.remove(name) {
            Some((found, from)) if found == *shape => *values = from,
            _ => new.push(name.clone()),
        }
    }
    if new.len() == all.len() {
        let reason =
            "expected parameters of the recipe's model, found none of the same name and shape";
        return Err(Error::file(files.name(), reason));
    }
    // a head for another task begins anew; anything else is worth knowing
    let some: Vec<&str> = new.iter().map(String::as_str).take(8).collect();
    let note = format!(
        "{}: {} parameters are not there or have another shape, and begin from the seed: {}{}",
        files.name(),
        new.len(),
        some.join(", "),
        if new.len() > some.len() { " ..." } else { "" }
    );
    let note = (!new.is_empty()).then_some(note);
    let bytes = to_bytes(&all, StoreDtype::F32, None)?;
    let checkpoint = Checkpoint::parse(&bytes, files.name())?;
    let mut weights = Weights::from_checkpoint(checkpoint, device);
    let model = build(&mut weights);
    weights.finish()?;
    Ok((model, note))
}

/// A word that is no special token by itself.
fn known(specials: &Specials, word: &str) -> bool {
    !specials.first.contains(&word) && !specials.last.contains(&word)
}

/// The place of the largest.
fn first(scores: &[f32]) -> usize {
    let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    best.unwrap_or(0)
}

/// What the plot shows: the parts of the loss by their names and keys, and the scores on texts after a family's own.
pub(crate) fn panels(log: &Log, losses: &[(&str, &str)], scores: &[(&str, &str)]) -> Vec<Panel> {
    const OF_TEXTS: [(&str, &str); 3] = [
        ("zero-shot accuracy", "val.zero_shot_accuracy"),
        ("texts found first", "val.image_to_text_r1"),
        ("pictures found first", "val.text_to_image_r1"),
    ];
    let series = |&(name, key): &(&str, &str)| Series::new(name, log.series(key));
    vec![
        Panel::loss(losses.iter().map(series).collect()).log_scale(),
        Panel::percent(
            "validation",
            scores.iter().chain(&OF_TEXTS).map(series).collect(),
        ),
    ]
}

/// The pictures of a batch.
///
/// # Shapes
/// Gives `[B, C, H, W]`.
pub(crate) fn pictures(batch: &SetBatch, device: &Device) -> Pictures {
    let data = TensorData::new(batch.pixels.clone(), batch.shape);
    Pictures::Fixed(Tensor::from_data(data, device))
}

/// The texts of a batch.
pub(crate) fn strings(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// A number, where a config's field is to be filled with a token's id.
pub(crate) fn id(tokenizer: &Tokenizer, token: &str) -> Value {
    json!(tokenizer.token_to_id(token))
}
