//! What a family brings to the training loop.

use crate::Error;
use crate::log::Log;
use crate::plot::Panel;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use vlm_nn::weights::{Checkpoint, Weights};

/// Parameters by name, with their shapes.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Files by name.
pub(crate) type Files = Vec<(&'static str, Vec<u8>)>;

/// A loss with its parts, each of which is logged under its name.
pub(crate) struct Losses {
    /// The weighted sum, which is minimised.
    pub total: Tensor<1>,
    /// `None` for a part that this batch lacks.
    pub parts: Vec<(&'static str, Option<Tensor<1>>)>,
}

/// What is measured on the way.
pub(crate) struct Measured {
    /// Scores by name, for the log.
    pub scores: Vec<(&'static str, f64)>,
    /// The same as a person reads them.
    pub text: String,
}

impl Measured {
    /// Both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.scores.extend(other.scores);
        self.text = format!("{}, {}", self.text, other.text);
        self
    }
}

/// A model in training: its batches, its loss, its scores and its files.
///
/// A new family is a new implementation in `families/` and its line in `families/mod.rs`; the loop stays as it is.
pub(crate) trait Learner: Sync {
    /// The network.
    type Model: Module;
    /// What a loss is computed of, in host memory.
    type Batch: Send + Sync;

    /// The network with parameters from a seed or from a checkpoint of ours.
    fn build(&self, weights: &mut Weights) -> Self::Model;

    /// The network before the first step, and what is to be known about where it comes from.
    fn initial(&self, device: &Device) -> Result<(Self::Model, Option<String>), Error>;

    /// Batches from number `first` on, made ahead by another thread until the receiver is dropped.
    fn stream(&self, first: u64) -> Receiver<Result<Self::Batch, Error>>;

    /// The loss of a batch.
    fn loss(
        &self,
        model: &Self::Model,
        batch: &Self::Batch,
        device: &Device,
    ) -> Result<Losses, Error>;

    /// The loss as a function of vectors alone, if it is one.
    fn contrastive(&self) -> Option<&dyn Contrastive<Self::Model, Self::Batch>> {
        None
    }

    /// The model after a step, with those parameters brought back into their range that may not leave it.
    fn bounded(&self, model: Self::Model) -> Self::Model {
        model
    }

    /// Before the gradients of a step, from 1: what follows the model moves.
    fn before(&self, _model: &Self::Model, _step: u64) -> Result<(), Error> {
        Ok(())
    }

    /// After a step.
    fn after(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Further files of a checkpoint, with what a resumed run takes up again.
    fn kept(&self) -> Result<Files, Error> {
        Ok(Vec::new())
    }

    /// Takes up what [`Self::kept`] wrote; `read` gives a file of the checkpoint.
    fn take_up(&self, _read: &dyn Fn(&str) -> Result<Checkpoint, Error>) -> Result<(), Error> {
        Ok(())
    }

    /// Scores of a model without gradients.
    fn measure(&self, model: Self::Model) -> Result<Measured, Error>;

    /// The small files of a checkpoint's directory.
    fn files(&self) -> Result<Files, Error>;

    /// What stays of a finished model: its small files and its parameters.
    fn finished(&self, tensors: Tensors) -> Result<(Files, Tensors), Error> {
        Ok((self.files()?, tensors))
    }

    /// The seed of the data, for `trainer.json`.
    fn data_seed(&self) -> u64;

    /// What the plot shows of the log, beside the learning rate.
    fn panels(&self, log: &Log) -> Vec<Panel>;
}

/// A loss that looks at nothing but a few vectors of each pair, whatever they were computed of.
pub(crate) trait Contrastive<M, B>: Sync {
    /// The vectors of a batch, a row for each pair.
    fn vectors(&self, model: &M, batch: &B, device: &Device) -> Result<Vec<Tensor<2>>, Error>;

    /// The loss of vectors, those of several batches one below the other.
    fn contrast(&self, model: &M, vectors: Vec<Tensor<2>>) -> Result<Losses, Error>;
}
