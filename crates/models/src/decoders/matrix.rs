//! The weight of a decoder's linear layer in the form that computes fastest.

use crate::error::Error;
use vlm_kernels::memory::unfilled;
use vlm_kernels::quant::{PackedMatrix, QuantError, QuantizedMatrix, matmul_shared};
use vlm_kernels::{Epilogue, PackedWeights, add_to_rows, linear, linear_packed};

pub use vlm_kernels::Precision;
pub use vlm_kernels::quant::BlockFormat;

/// Weights `[rows, cols]`: `rows` outputs, `cols` inputs, as PyTorch stores them.
pub enum Matrix {
    /// Floats, kept as they are for single rows and packed for products.
    Dense {
        /// Row-major.
        values: Vec<f32>,
        /// The same, packed.
        packed: PackedWeights,
        /// What they were packed for.
        precision: Precision,
    },
    /// Blocks of integers with scales, multiplied as integers.
    Blocks(PackedMatrix),
}

impl Matrix {
    /// A matrix of floats whose products are computed in `precision`.
    pub fn dense(values: Vec<f32>, rows: usize, cols: usize, precision: Precision) -> Self {
        let packed = PackedWeights::new(precision, &values, rows, cols);
        Self::Dense {
            values,
            packed,
            precision,
        }
    }

    /// The matrix that a file stores as `data`; formats that are no blocks become [`Self::Dense`] in `precision`.
    ///
    /// # Errors
    /// `data` is not such a matrix; `name` says which.
    pub fn stored(
        name: &str,
        format: BlockFormat,
        rows: usize,
        cols: usize,
        data: Vec<u8>,
        precision: Precision,
    ) -> Result<Self, Error> {
        if format.is_quantized() {
            let matrix = QuantizedMatrix::new(format, rows, cols, data);
            let packed = matrix.and_then(|matrix| matrix.pack());
            return Ok(Self::Blocks(packed.map_err(|e| refused(name, e))?));
        }
        let values = Self::numbers(name, format, rows, cols, data)?;
        Ok(Self::dense(values, rows, cols, precision))
    }

    /// The numbers that a file stores as `data`.
    ///
    /// # Errors
    /// As [`Self::stored`].
    pub fn numbers(
        name: &str,
        format: BlockFormat,
        rows: usize,
        cols: usize,
        data: Vec<u8>,
    ) -> Result<Vec<f32>, Error> {
        let matrix =
            QuantizedMatrix::new(format, rows, cols, data).map_err(|e| refused(name, e))?;
        let mut values = vec![0.0; rows * cols];
        matrix.dequantize(&mut values);
        Ok(values)
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense { packed, .. } => packed.outputs(),
            Self::Blocks(blocks) => blocks.rows(),
        }
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        match self {
            Self::Dense { packed, .. } => packed.inputs(),
            Self::Blocks(blocks) => blocks.cols(),
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense { values, packed, .. } => 4 * values.len() + packed.bytes(),
            Self::Blocks(blocks) => blocks.bytes(),
        }
    }

    /// Row `row` into `out`, `[cols]`: a token's embedding.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::Dense { values, .. } => {
                let cols = out.len();
                out.copy_from_slice(&values[row * cols..][..cols]);
            }
            Self::Blocks(blocks) => blocks.dequantize_row(row, out),
        }
    }

    /// `x w^T + bias` for `x: [m, cols]`, giving `[m, rows]`.
    pub fn multiply(&self, x: &[f32], m: usize, bias: Option<&[f32]>) -> Vec<f32> {
        let mut out = unfilled(m * self.rows());
        match self {
            Self::Dense { .. } => self.multiply_dense(x, m, bias, &mut out),
            Self::Blocks(blocks) => {
                blocks.matmul(x, m, &mut out);
                add_bias(&mut out, bias);
            }
        }
        out
    }

    fn multiply_dense(&self, x: &[f32], m: usize, bias: Option<&[f32]>, out: &mut [f32]) {
        let Self::Dense {
            values,
            packed,
            precision,
        } = self
        else {
            unreachable!("called on dense weights only");
        };
        let epilogue = Epilogue {
            bias,
            ..Epilogue::NONE
        };
        if PackedWeights::pay_off(*precision, m) {
            linear_packed(x, packed, m, epilogue, out);
        } else {
            let (k, n) = (self.cols(), self.rows());
            linear(*precision, x, values, m, k, n, epilogue, out);
        }
    }
}

fn refused(name: &str, error: QuantError) -> Error {
    Error::Config {
        place: name.to_owned(),
        expected: "weights that fit their format".to_owned(),
        found: error.to_string(),
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Dense { .. } => "dense",
            Self::Blocks(blocks) => blocks.format().name(),
        };
        write!(f, "{kind} [{}, {}]", self.rows(), self.cols())
    }
}

/// [`Matrix::multiply`] of several matrices with the same `x`, which shares the work that is the same for all.
pub fn multiply_shared<const N: usize>(
    x: &[f32],
    m: usize,
    matrices: [(&Matrix, Option<&[f32]>); N],
) -> [Vec<f32>; N] {
    let mut outs = matrices.map(|(matrix, _)| unfilled(m * matrix.rows()));
    let mut blocks: Vec<(&PackedMatrix, &mut [f32])> = Vec::with_capacity(N);
    for ((matrix, bias), out) in matrices.into_iter().zip(&mut outs) {
        match matrix {
            Matrix::Blocks(matrix) => blocks.push((matrix, out)),
            Matrix::Dense { .. } => matrix.multiply_dense(x, m, bias, out),
        }
    }
    matmul_shared(x, m, &mut blocks);
    for ((matrix, bias), out) in matrices.into_iter().zip(&mut outs) {
        if matches!(matrix, Matrix::Blocks(_)) {
            add_bias(out, bias);
        }
    }
    outs
}

fn add_bias(out: &mut [f32], bias: Option<&[f32]>) {
    if let Some(bias) = bias {
        add_to_rows(out, bias);
    }
}
