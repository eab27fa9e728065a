//! Where a decoder's parameters come from.

use super::matrix::Matrix;
use crate::error::Error;
use vlm_kernels::Precision;
use vlm_nn::weights::Checkpoint;

/// Parameters by their names in published checkpoints (`model.layers.0.self_attn.q_proj.weight`).
///
/// Whoever builds a model asks the implementation afterwards for what was not used.
pub trait Tensors {
    /// A vector of `len` numbers.
    ///
    /// # Errors
    /// It is missing or of another shape.
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error>;
    /// A matrix of `rows` outputs and `cols` inputs.
    ///
    /// # Errors
    /// It is missing or of another shape.
    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix, Error>;
}

/// The floats of a safetensors checkpoint, multiplied in some precision.
pub struct DenseTensors {
    checkpoint: Checkpoint,
    precision: Precision,
}

impl DenseTensors {
    /// All of a checkpoint.
    pub fn new(checkpoint: Checkpoint, precision: Precision) -> Self {
        Self {
            checkpoint,
            precision,
        }
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let taken = self.checkpoint.take(name, shape);
        Ok(taken.map_err(|difference| self.mismatch(vec![difference]))?)
    }

    fn mismatch(&self, differences: Vec<String>) -> vlm_nn::weights::Error {
        vlm_nn::weights::Error::Mismatch {
            name: self.checkpoint.name().to_owned(),
            differences,
        }
    }

    /// Ends the building of a model.
    ///
    /// # Errors
    /// Every tensor of the checkpoint that was not used.
    pub fn finish(self) -> Result<(), Error> {
        let unused: Vec<String> = self.checkpoint.unused().collect();
        if unused.is_empty() {
            return Ok(());
        }
        Err(self.mismatch(unused).into())
    }
}

impl Tensors for DenseTensors {
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.take(name, &[len])
    }

    fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix, Error> {
        let values = self.take(name, &[rows, cols])?;
        Ok(Matrix::dense(values, rows, cols, self.precision))
    }
}
