//! The training loop.

use crate::Error;
use crate::batches::{Batches, HostBatch};
use crate::checkpoint::{self, OPTIMIZER, RngState, TRAINER, TrainerState};
use crate::log::{Log, LogWriter};
use crate::optimizer::Optimizer;
use crate::plot::{Panel, Plot, Series};
use crate::progress::{StepReport, Throughput, TrainingProgress};
use crate::recipe::{OutputDtype, Recipe};
use crate::schedule::{last_step_before_decay, learning_rate};
use crate::workers::Workers;
use burn::module::Module;
use burn::tensor::Device;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vlm_data::image::{Image, ImageProcessor, PreprocessorConfig, ProcessorKind};
use vlm_data::text::{Tokenizer, word_level};
use vlm_models::families::Model;
use vlm_models::families::coca::{Coca, CocaConfig};
use vlm_nn::ops::{Precision, set_precision};
use vlm_nn::weights::{Checkpoint, StoreDtype, Weights, collect, to_bytes};
use vlm_tasks::evaluate::{Question, Sample};
use vlm_tasks::prompt::{SPECIALS, SpecialIds};
use vlm_tasks::{CaptionOptions, Vlm, file};
use vlm_worlds::shapes::{self, Split};

/// How a run is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where checkpoints, log, plot and model go.
    pub directory: PathBuf,
    /// Go on from the directory's newest checkpoint.
    pub resume: bool,
    /// Show nothing.
    pub quiet: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Finished,
    /// It was asked to stop; the checkpoint holds everything.
    Interrupted,
}

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// Steps done.
    pub step: u64,
    /// The finished model's directory, or the checkpoint's.
    pub model: PathBuf,
    /// Parameters of the model.
    pub parameters: usize,
    /// Seconds of training, those before a resume included.
    pub seconds: f64,
}

#[derive(Serialize)]
struct StepRecord {
    loss: f64,
    caption_loss: f64,
    answer_loss: Option<f64>,
    itc_loss: f64,
    token_label_loss: Option<f64>,
    question_loss: Option<f64>,
    grad_norm: f64,
    lr: f64,
    samples_per_s: f64,
}

#[derive(Serialize)]
struct ValidationRecord {
    val: Validation,
}

#[derive(Serialize)]
struct Validation {
    vqa_accuracy: f64,
    fact_f1: f64,
}

/// How often a line of the log and a line of plain progress are written.
const LOG_EVERY: u64 = 10;
const LINE_INTERVAL: Duration = Duration::from_secs(15);

struct Run<'a> {
    recipe: Arc<Recipe>,
    options: &'a Options,
    tokenizer: Arc<Tokenizer>,
    preprocessor: String,
    processor: ImageProcessor,
    seconds_before: f64,
    started: Instant,
}

/// Trains a recipe until its last step, or until `stop` becomes true, which ends it after the current step.
///
/// # Errors
/// A directory that already holds a run (without `resume`) or holds none (with it), a file that cannot be
/// written, a loss that is no number.
pub fn train(recipe: Recipe, options: &Options, stop: &AtomicBool) -> Result<Outcome, Error> {
    set_precision(match recipe.train.precision.as_str() {
        "f32" => Precision::F32,
        // falls back to f32 without the hardware
        _ => Precision::Bf16,
    });
    let words = crate::recipe::words(recipe.data.symbol_substitution > 0.0);
    let tokenizer = Arc::new(word_level(&words, &SPECIALS)?);
    let preprocessor = preprocessor_config(recipe.data.size);
    let processor = ImageProcessor::from_config(PreprocessorConfig::from_json(
        preprocessor.as_bytes(),
        file::PREPROCESSOR,
        ProcessorKind::Vit,
    )?);
    let run = Run {
        recipe: Arc::new(recipe),
        options,
        tokenizer,
        preprocessor,
        processor,
        seconds_before: 0.0,
        started: Instant::now(),
    };
    run.train(stop)
}

/// Pixels from -1 to 1 at the size that the model takes.
fn preprocessor_config(size: u32) -> String {
    let config = serde_json::json!({
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": true,
        "do_resize": true,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    });
    format!("{config:#}\n")
}

impl Run<'_> {
    fn train(mut self, stop: &AtomicBool) -> Result<Outcome, Error> {
        let recipe = self.recipe.clone();
        let t = &recipe.train;
        let device = Device::flex().autodiff();
        let log_path = self.options.directory.join("log.jsonl");
        let mut optimizer = Optimizer::new(t.weight_decay, t.betas);
        let (mut model, mut step, mut log) = if self.options.resume {
            let (model, state) = self.restore(&mut optimizer, &device)?;
            self.seconds_before = state.seconds;
            let log = LogWriter::resume(&log_path, state.step)?;
            (model, state.step, log)
        } else {
            self.claim_directory()?;
            let model = crate::init::model(&recipe, &device)?;
            (model, 0, LogWriter::create(&log_path)?)
        };
        let special = SpecialIds::of(&self.tokenizer)?;
        let batches = Batches::new(
            recipe.clone(),
            self.tokenizer.clone(),
            self.processor.clone(),
            special,
        )?;
        let stream = batches.stream(step * t.accumulate as u64);
        let workers = Workers::new(t.accumulate)?;
        let validation = self.validation_samples()?;
        let mut progress = TrainingProgress::new(t.steps, LINE_INTERVAL, self.options.quiet);
        let mut throughput = Throughput::default();
        let mut smooth: Option<f64> = None;
        while step < t.steps && !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            step += 1;
            let batches: Vec<HostBatch> =
                stream.iter().take(t.accumulate).collect::<Result<_, _>>()?;
            if batches.len() < t.accumulate {
                let reason = "the data thread ended early";
                return Err(Error::file(&self.options.directory, reason));
            }
            let (parts, mut grads) = workers.gradients(&model, &batches, &device);
            if step == 1 && grads.missing() > 0 {
                return Err(Error::file(
                    &self.options.directory,
                    format!("{} parameters got no gradient", grads.missing()),
                ));
            }
            let loss = parts.total;
            if !loss.is_finite() {
                return Err(Error::Diverged { step, loss });
            }
            let grad_norm = grads.finish(t.accumulate, t.clip_norm);
            let lr = learning_rate(t, step);
            model = optimizer.step(model, grads, lr);

            throughput.record(t.batch_size * t.accumulate, begun.elapsed());
            smooth = Some(smooth.map_or(loss, |s: f64| 0.98 * s + 0.02 * loss));
            progress.step(&StepReport {
                step,
                total: t.steps,
                loss: smooth.unwrap_or(loss),
                samples_per_second: throughput.samples_per_second(),
                learning_rate: lr,
                remaining: throughput.remaining(t.steps - step),
            });
            if step.is_multiple_of(LOG_EVERY) || step == t.steps {
                let record = StepRecord {
                    loss,
                    caption_loss: parts.caption,
                    answer_loss: parts.answer,
                    question_loss: parts.question,
                    itc_loss: parts.itc,
                    token_label_loss: parts.token_label,
                    grad_norm,
                    lr,
                    samples_per_s: throughput.samples_per_second(),
                };
                log.append(step, &record)?;
            }
            let last = step == t.steps || stop.load(Ordering::Relaxed);
            if step.is_multiple_of(recipe.validation.every) || step == t.steps {
                let val = self.validate(&model, &validation)?;
                progress.note(&format!(
                    "step {step}: validation VQA accuracy {:.1} %, caption fact F1 {:.3}",
                    100.0 * val.vqa_accuracy,
                    val.fact_f1
                ));
                log.append(step, &ValidationRecord { val })?;
            }
            if step.is_multiple_of(t.checkpoint_every) || last {
                self.save(&model, &optimizer, step)?;
            }
        }
        progress.finish();
        self.plot(&log_path)?;
        let finished = step >= t.steps;
        let model_directory = if finished {
            self.export(&model)?
        } else {
            checkpoint::directory(&self.options.directory, step)
        };
        Ok(Outcome {
            ended: if finished {
                Ended::Finished
            } else {
                Ended::Interrupted
            },
            step,
            model: model_directory,
            parameters: vlm_nn::weights::count(&model),
            seconds: self.seconds(),
        })
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    /// A new run starts in a directory that holds no other.
    fn claim_directory(&self) -> Result<(), Error> {
        let directory = &self.options.directory;
        let recipe_path = directory.join("recipe.toml");
        if recipe_path.exists() {
            return Err(Error::file(
                directory,
                "expected no run here, found one; go on with --resume or choose another --out",
            ));
        }
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::file(directory, format!("cannot be created: {e}")))?;
        self.write_recipe(&recipe_path)
    }

    fn write_recipe(&self, path: &Path) -> Result<(), Error> {
        let text = toml::to_string(&*self.recipe)
            .map_err(|e| Error::file(path, format!("cannot be written: {e}")))?;
        vlm_data::files::write_atomically(path, |w| w.write_all(text.as_bytes()))?;
        Ok(())
    }

    fn restore(
        &self,
        optimizer: &mut Optimizer,
        device: &Device,
    ) -> Result<(Coca, TrainerState), Error> {
        let directory = &self.options.directory;
        let recipe_path = directory.join("recipe.toml");
        let begun = Recipe::read(&recipe_path)?;
        let mut of_this_length = begun.clone();
        of_this_length.train.steps = self.recipe.train.steps;
        if of_this_length != *self.recipe {
            return Err(Error::file(
                &recipe_path,
                "expected the recipe that the run was begun with, found another",
            ));
        }
        let from = checkpoint::latest(directory).ok_or_else(|| {
            Error::file(
                directory.join("checkpoints"),
                "expected a checkpoint to resume from, found none",
            )
        })?;
        let state = checkpoint::read_state(&from)?;
        // how long the run goes on may change while no step that was done depends on it
        if begun != *self.recipe {
            let [old, new] = [&begun, &*self.recipe].map(|r| last_step_before_decay(&r.train));
            if state.step > old.min(new) {
                return Err(Error::file(
                    &recipe_path,
                    format!(
                        "expected the {} steps that the run was begun with, found {}: its learning rate would have \
                         decayed otherwise before step {}, which is done",
                        begun.train.steps, self.recipe.train.steps, state.step
                    ),
                ));
            }
            self.write_recipe(&recipe_path)?;
        }
        let read = |name: &str| {
            let path = from.join(name);
            let bytes = std::fs::read(&path)
                .map_err(|e| Error::file(&path, format!("cannot be read: {e}")))?;
            Ok::<_, Error>(Checkpoint::parse(&bytes, &path.display().to_string())?)
        };
        let mut weights = Weights::from_checkpoint(read(file::WEIGHTS)?, device);
        let model = Coca::new(&mut weights, &self.recipe.model);
        weights.finish()?;
        let inner = device.clone().inner();
        optimizer.restore(&model, read(OPTIMIZER)?, state.step, &inner)?;
        Ok((model, state))
    }

    /// The small files of a model directory.
    fn model_files(
        &self,
        config: &CocaConfig,
        tokenizer: &Tokenizer,
    ) -> Result<[(&'static str, Vec<u8>); 3], Error> {
        let config = serde_json::to_string_pretty(config)
            .map_err(|e| Error::file(file::CONFIG, format!("cannot be written: {e}")))?;
        Ok([
            (file::CONFIG, format!("{config}\n").into_bytes()),
            (file::TOKENIZER, tokenizer.to_json()?),
            (file::PREPROCESSOR, self.preprocessor.clone().into_bytes()),
        ])
    }

    fn save(&self, model: &Coca, optimizer: &Optimizer, step: u64) -> Result<(), Error> {
        let state = TrainerState {
            step,
            rng: RngState {
                seed: self.recipe.data.seed,
                batch: step * self.recipe.train.accumulate as u64,
            },
            seconds: self.seconds(),
        };
        let state = serde_json::to_vec_pretty(&state)
            .map_err(|e| Error::file(TRAINER, format!("cannot be written: {e}")))?;
        let mut files = self
            .model_files(&self.recipe.model, &self.tokenizer)?
            .to_vec();
        files.push((
            file::WEIGHTS,
            to_bytes(&collect(model), StoreDtype::F32, None)?,
        ));
        files.push((OPTIMIZER, optimizer.to_bytes()?));
        files.push((TRAINER, state));
        write(
            &checkpoint::directory(&self.options.directory, step),
            &files,
        )?;
        checkpoint::prune(&self.options.directory);
        Ok(())
    }

    /// The finished model, in the recipe's number type.
    fn export(&self, model: &Coca) -> Result<PathBuf, Error> {
        let dtype = match self.recipe.train.output {
            OutputDtype::F32 => StoreDtype::F32,
            OutputDtype::Bf16 => StoreDtype::Bf16,
        };
        // what only training has stays behind
        let (config, weights) = crate::init::without_extra(&self.recipe.model, collect(model));
        let tokenizer = word_level(&crate::recipe::words(false), &SPECIALS)?;
        let mut files = self.model_files(&config, &tokenizer)?.to_vec();
        files.push((file::WEIGHTS, to_bytes(&weights, dtype, None)?));
        let directory = self.options.directory.join("model");
        write(&directory, &files)?;
        Ok(directory)
    }

    fn validation_samples(&self) -> Result<Vec<Sample>, Error> {
        let config = shapes::Config {
            size: self.recipe.data.size,
            ..shapes::Config::default()
        };
        (0..self.recipe.validation.pictures as u64)
            .map(|index| {
                let item =
                    shapes::generate(&config, Split::Validation, self.recipe.data.seed, index);
                let picture = item.picture;
                let questions = item.qa.into_iter().map(|q| Question {
                    question: q.question,
                    answer: q.answer,
                    kind: String::new(),
                });
                Ok(Sample {
                    image: Image::from_rgb(picture.width, picture.height, picture.rgb)?,
                    captions: item.captions,
                    questions: questions.collect(),
                    scene: Some(item.scene),
                })
            })
            .collect()
    }

    fn validate(&self, model: &Coca, samples: &[Sample]) -> Result<Validation, Error> {
        let vlm = Vlm::from_parts(
            &self.recipe.name,
            Model::Coca(model.valid()),
            (*self.tokenizer).clone(),
            self.processor.clone(),
        )?;
        let vqa = vlm.evaluate_vqa(samples, |_| {})?;
        let captions = vlm.evaluate_captions(samples, &CaptionOptions::default(), |_| {})?;
        Ok(Validation {
            vqa_accuracy: vqa.scores.accuracy.estimate,
            fact_f1: captions.facts.map_or(0.0, |f| f.f1.estimate),
        })
    }

    fn plot(&self, log_path: &Path) -> Result<(), Error> {
        let log = Log::read(log_path)?;
        let series = |name: &str, key: &str| Series::new(name, log.series(key));
        let plot = Plot {
            title: format!("{}: training", self.recipe.name),
            x_label: "step".to_owned(),
            panels: vec![
                Panel::loss(vec![
                    series("captions", "caption_loss"),
                    series("answers", "answer_loss"),
                    series("contrast", "itc_loss"),
                    series("patch labels", "token_label_loss"),
                ])
                .log_scale(),
                Panel::percent(
                    "validation",
                    vec![
                        series("VQA accuracy", "val.vqa_accuracy"),
                        series("caption fact F1", "val.fact_f1"),
                    ],
                ),
                Panel::learning_rate(series("learning rate", "lr")),
            ],
        };
        let svg = plot.to_svg();
        let path = self.options.directory.join("loss.svg");
        vlm_data::files::write_atomically(&path, |w| w.write_all(svg.as_bytes()))?;
        Ok(())
    }
}

fn write(directory: &Path, files: &[(&str, Vec<u8>)]) -> Result<(), Error> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    checkpoint::write_directory(directory, &files)
}
