use crate::ops::{self, Activation};
use crate::weights::{Init, Weights};
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

/// A table of vectors, one per id; parameter `weight`.
#[derive(Module, Debug)]
pub struct Embedding {
    weight: Param<Tensor<2>>,
}

impl Embedding {
    /// A table of `rows` vectors of `width`.
    pub fn new(w: &mut Weights, rows: usize, width: usize, init: Init) -> Self {
        Self {
            weight: w.param("weight", [rows, width], init),
        }
    }

    /// # Shapes
    /// `ids: [B, T]`; gives `[B, T, D]`.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        ops::embedding(self.weight.val(), ids)
    }

    /// Every vector of `x` against every vector of the table, as an output layer tied to the input embedding.
    ///
    /// # Shapes
    /// `x: [.., D]`, `bias: [rows]`; gives `[.., rows]`.
    pub fn similarities<const D: usize>(&self, x: Tensor<D>, bias: Tensor<1>) -> Tensor<D> {
        ops::linear(x, self.weight.val(), Some(bias), None, Activation::None)
    }

    /// Rows `start..start + len`, as a position embedding is read.
    ///
    /// # Shapes
    /// Gives `[1, len, D]`.
    pub fn range(&self, start: usize, len: usize) -> Tensor<3> {
        self.weight.val().narrow(0, start, len).unsqueeze()
    }
}
