//! The training loop.

use crate::Error;
use crate::checkpoint::{self, EMA, OPTIMIZER, RngState, TRAINER, TrainerState};
use crate::coca_shapes::ShapesLearner;
use crate::ema::{Ema, with_statistics_of};
use crate::families;
use crate::groups::{Groups, is_statistic};
use crate::learner::Learner;
use crate::log::{Log, LogWriter};
use crate::optimizer::Optimizer;
use crate::plot::{Panel, Plot, Series};
use crate::progress::{StepReport, Throughput, TrainingProgress};
use crate::recipe::{OutputDtype, Recipe, TrainRecipe};
use crate::schedule::{last_step_before_decay, learning_rate};
use crate::workers::{LossParts, Workers};
use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vlm_nn::ops::{Precision, set_precision};
use vlm_nn::weights::{Checkpoint, StoreDtype, Weights, collect, to_bytes};
use vlm_tasks::file;

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

/// How often a line of the log and a line of plain progress are written.
const LOG_EVERY: u64 = 10;
const LINE_INTERVAL: Duration = Duration::from_secs(15);

struct Run<'a, L> {
    recipe: &'a Recipe,
    learner: L,
    options: &'a Options,
    seconds_before: f64,
    started: Instant,
}

/// Everything of a run that a step changes.
pub(crate) struct State<M> {
    pub model: M,
    optimizer: Optimizer,
    ema: Option<Ema>,
    step: u64,
}

/// Trains a recipe until its last step, or until `stop` becomes true, which ends it after the current step.
///
/// # Errors
/// A directory that already holds a run (without `resume`) or holds none (with it), a file that cannot be
/// written, a loss that is no number, data or a model that are not as the recipe says.
pub fn train(recipe: Recipe, options: &Options, stop: &AtomicBool) -> Result<Outcome, Error> {
    set_precision(match recipe.train().precision.as_str() {
        "f32" => Precision::F32,
        // falls back to f32 without the hardware
        _ => Precision::Bf16,
    });
    match &recipe {
        Recipe::Shapes(shapes) => run(&recipe, ShapesLearner::new(shapes)?, options, stop),
        Recipe::Set(set) => families::train(&recipe, set, options, stop),
    }
}

/// Runs a recipe with what its family brings.
pub(crate) fn run<L: Learner>(
    recipe: &Recipe,
    learner: L,
    options: &Options,
    stop: &AtomicBool,
) -> Result<Outcome, Error> {
    let run = Run {
        recipe,
        learner,
        options,
        seconds_before: 0.0,
        started: Instant::now(),
    };
    run.train(stop)
}

fn groups<M: Module>(model: &M, t: &TrainRecipe) -> Result<Groups, Error> {
    let parameters = collect(model);
    let names = parameters.keys().map(String::as_str);
    let names = names.filter(|name| !is_statistic(name));
    Groups::new(names, &t.freeze, t.layer_decay).map_err(|reason| Error::file("recipe", reason))
}

impl<L: Learner> Run<'_, L> {
    fn train(mut self, stop: &AtomicBool) -> Result<Outcome, Error> {
        let (recipe, t) = (self.recipe, self.recipe.train());
        let validation = recipe.validation();
        let device = Device::flex().autodiff();
        let log_path = self.options.directory.join("log.jsonl");
        if t.gradient_cache && self.learner.contrastive().is_none() {
            let reason = "train.gradient_cache: expected a model whose whole loss is a contrast of vectors that each \
                          depend on one pair, found another";
            return Err(Error::file("recipe", reason));
        }
        let mut note = None;
        let (mut state, mut log) = if self.options.resume {
            let (state, seconds) = self.restore(&device)?;
            self.seconds_before = seconds;
            let log = LogWriter::resume(&log_path, state.step)?;
            (state, log)
        } else {
            let (model, of_model) = self.learner.initial(&device)?;
            note = of_model;
            let state = State::new(model, t)?;
            self.claim_directory()?;
            (state, LogWriter::create(&log_path)?)
        };
        let stream = self.learner.stream(state.step * t.accumulate as u64);
        let workers = Workers::new(t.accumulate)?;
        let mut progress = TrainingProgress::new(t.steps, LINE_INTERVAL, self.options.quiet);
        if let Some(note) = note {
            progress.note(&note);
        }
        let mut throughput = Throughput::default();
        let mut smooth: Option<f64> = None;
        let mut kept = None;
        while state.step < t.steps && !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let batches: Vec<L::Batch> =
                stream.iter().take(t.accumulate).collect::<Result<_, _>>()?;
            if batches.len() < t.accumulate {
                let reason = "the data thread ended early";
                return Err(Error::file(&self.options.directory, reason));
            }
            let done = state.advanced(&self.learner, &workers, &batches, t, &device)?;
            state = done.state;
            let (step, parts, lr) = (state.step, done.parts, done.learning_rate);
            let loss = parts.total;

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
                let mut record = Map::new();
                record.insert("loss".to_owned(), json!(loss));
                for (name, part) in &parts.parts {
                    record.insert((*name).to_owned(), json!(part));
                }
                record.insert("grad_norm".to_owned(), json!(done.grad_norm));
                record.insert("lr".to_owned(), json!(lr));
                let speed = throughput.samples_per_second();
                record.insert("samples_per_s".to_owned(), json!(speed));
                log.append(step, &record)?;
            }
            let last = step == t.steps || stop.load(Ordering::Relaxed);
            if step.is_multiple_of(validation.every) || step == t.steps {
                let model = self.kept(&state)?;
                let measured = self.learner.measure(model.clone())?;
                kept = (step == t.steps).then_some(model);
                progress.note(&format!("step {step}: validation {}", measured.text));
                let scores = measured.scores.iter();
                let scores: Map<String, Value> = scores
                    .map(|(name, score)| ((*name).to_owned(), json!(score)))
                    .collect();
                log.append(step, &json!({"val": scores}))?;
            }
            if step.is_multiple_of(t.checkpoint_every) || last {
                self.save(&state)?;
            }
        }
        progress.finish();
        self.plot(&log_path)?;
        let finished = state.step >= t.steps;
        let model_directory = if finished {
            let model = match kept {
                Some(model) => model,
                None => self.kept(&state)?,
            };
            self.export(&model)?
        } else {
            checkpoint::directory(&self.options.directory, state.step)
        };
        Ok(Outcome {
            ended: if finished {
                Ended::Finished
            } else {
                Ended::Interrupted
            },
            step: state.step,
            model: model_directory,
            parameters: vlm_nn::weights::count(&state.model),
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
        let text = toml::to_string(self.recipe)
            .map_err(|e| Error::file(path, format!("cannot be written: {e}")))?;
        vlm_data::files::write_atomically(path, |w| w.write_all(text.as_bytes()))?;
        Ok(())
    }

    /// The state of the newest checkpoint, and the seconds before it.
    fn restore(&self, device: &Device) -> Result<(State<L::Model>, f64), Error> {
        let directory = &self.options.directory;
        let recipe_path = directory.join("recipe.toml");
        let begun = Recipe::read(&recipe_path)?;
        let t = self.recipe.train();
        if begun.of_length(t.steps) != *self.recipe {
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
        let trainer = checkpoint::read_state(&from)?;
        // how long the run goes on may change while no step that was done depends on it
        if begun != *self.recipe {
            let [old, new] = [&begun, self.recipe].map(|r| last_step_before_decay(r.train()));
            if trainer.step > old.min(new) {
                return Err(Error::file(
                    &recipe_path,
                    format!(
                        "expected the {} steps that the run was begun with, found {}: its learning rate would have \
                         decayed otherwise before step {}, which is done",
                        begun.train().steps,
                        t.steps,
                        trainer.step
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
        let model = self.learner.build(&mut weights);
        weights.finish()?;
        let inner = device.clone().inner();
        let mut optimizer = Optimizer::new(t.weight_decay, t.betas, groups(&model, t)?);
        optimizer.restore(&model, read(OPTIMIZER)?, trainer.step, &inner)?;
        self.learner.take_up(&read)?;
        let ema = t.ema_decay.map(|decay| {
            let averages = read(EMA)?;
            Ema::restore(decay, &model, averages, &inner)
        });
        let state = State {
            ema: ema.transpose()?,
            model,
            optimizer,
            step: trainer.step,
        };
        Ok((state, trainer.seconds))
    }

    fn save(&self, state: &State<L::Model>) -> Result<(), Error> {
        let trainer = TrainerState {
            step: state.step,
            rng: RngState {
                seed: self.learner.data_seed(),
                batch: state.step * self.recipe.train().accumulate as u64,
            },
            seconds: self.seconds(),
        };
        let trainer = serde_json::to_vec_pretty(&trainer)
            .map_err(|e| Error::file(TRAINER, format!("cannot be written: {e}")))?;
        let mut files = self.learner.files()?;
        files.push((
            file::WEIGHTS,
            to_bytes(&collect(&state.model), StoreDtype::F32, None)?,
        ));
        files.push((OPTIMIZER, state.optimizer.to_bytes()?));
        if let Some(ema) = &state.ema {
            files.push((EMA, ema.to_bytes()?));
        }
        files.extend(self.learner.kept()?);
        files.push((TRAINER, trainer));
        write(
            &checkpoint::directory(&self.options.directory, state.step),
            &files,
        )?;
        checkpoint::prune(&self.options.directory);
        Ok(())
    }

    /// The model to measure and to keep, without gradients, with statistics of norms as the recipe wants them.
    fn kept(&self, state: &State<L::Model>) -> Result<L::Model, Error> {
        let (model, t) = (state.averaged(), self.recipe.train());
        let Some(count) = t.statistics_batches else {
            return Ok(model);
        };
        let stream = self.learner.stream(state.step * t.accumulate as u64);
        let ended = || Error::file(&self.options.directory, "the data thread ended early");
        let batches = (0..count).map(|_| stream.recv().unwrap_or_else(|_| Err(ended())));
        let device = Device::flex();
        with_statistics_of(model, batches, |model, batch| {
            self.learner.loss(model, batch, &device).map(|_| ())
        })
    }

    /// The finished model, in the recipe's number type.
    fn export(&self, model: &L::Model) -> Result<PathBuf, Error> {
        let dtype = match self.recipe.train().output {
            OutputDtype::F32 => StoreDtype::F32,
            OutputDtype::Bf16 => StoreDtype::Bf16,
        };
        let (mut files, weights) = self.learner.finished(collect(model))?;
        files.push((file::WEIGHTS, to_bytes(&weights, dtype, None)?));
        let directory = self.options.directory.join("model");
        write(&directory, &files)?;
        Ok(directory)
    }

    fn plot(&self, log_path: &Path) -> Result<(), Error> {
        let log = Log::read(log_path)?;
        let mut panels = self.learner.panels(&log);
        let rate = Series::new("learning rate", log.series("lr"));
        panels.push(Panel::learning_rate(rate));
        let plot = Plot {
            title: format!("{}: training", self.recipe.name()),
            x_label: "step".to_owned(),
            panels,
        };
        let svg = plot.to_svg();
        let path = self.options.directory.join("loss.svg");
        vlm_data::files::write_atomically(&path, |w| w.write_all(svg.as_bytes()))?;
        Ok(())
    }
}

/// What a step leaves.
pub(crate) struct Advanced<M> {
    pub state: State<M>,
    pub parts: LossParts,
    /// Before it was clipped.
    pub grad_norm: f64,
    pub learning_rate: f64,
}

impl<M: Module> State<M> {
    /// The state before the first step.
    pub(crate) fn new(model: M, t: &TrainRecipe) -> Result<Self, Error> {
        let groups = groups(&model, t)?;
        Ok(Self {
            optimizer: Optimizer::new(t.weight_decay, t.betas, groups),
            ema: t.ema_decay.map(|decay| Ema::new(decay, &model)),
            model,
            step: 0,
        })
    }

    /// The state after one more step, on these batches.
    pub(crate) fn advanced<L: Learner<Model = M>>(
        mut self,
        learner: &L,
        workers: &Workers,
        batches: &[L::Batch],
        t: &TrainRecipe,
        device: &Device,
    ) -> Result<Advanced<M>, Error> {
        self.step += 1;
        let step = self.step;
        learner.before(&self.model, step)?;
        let frozen = self.optimizer.groups().frozen();
        let cache = learner.contrastive().filter(|_| t.gradient_cache);
        let (parts, mut grads) = match cache {
            Some(contrastive) => {
                workers.cached_gradients::<L>(contrastive, &self.model, frozen, batches, device)?
            }
            None => workers.gradients(learner, &self.model, frozen, batches, device)?,
        };
        let missing = grads.missing();
        if step == 1 && !missing.is_empty() {
            let some: Vec<&str> = missing.iter().copied().take(5).collect();
            let reason = format!(
                "{} parameters got no gradient: {}",
                missing.len(),
                some.join(", ")
            );
            return Err(Error::file("model", reason));
        }
        let loss = parts.total;
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        // a cached loss is a mean over all batches already
        let summed = if cache.is_some() { 1 } else { batches.len() };
        let grad_norm = grads.finish(summed, t.clip_norm);
        let learning_rate = learning_rate(t, step);
        let model = self.optimizer.step(self.model, grads, learning_rate);
        self.model = learner.bounded(model);
        learner.after()?;
        if let Some(ema) = &mut self.ema {
            ema.update(&self.model);
        }
        Ok(Advanced {
            state: self,
            parts,
            grad_norm,
            learning_rate,
        })
    }

    /// The model to measure and to keep, without gradients.
    fn averaged(&self) -> M {
        match &self.ema {
            Some(ema) => ema.averaged(&self.model),
            None => self.model.valid(),
        }
    }
}

fn write(directory: &Path, files: &[(&str, Vec<u8>)]) -> Result<(), Error> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, b.as_slice())).collect();
    checkpoint::write_directory(directory, &files)
}
