//! Products with quantized weights: 8-bit weights with a scale per output channel
//! ([`linear_int8`]), and the block formats of GGUF files ([`QuantizedMatrix`], [`PackedMatrix`]).
//!
//! Activations are rounded to 8 bits as they come, and products of integers are summed in 32 bits,
//! alike on every instruction set. Weights are packed once, into panels of 16 rows that serve few
//! rows of activations (decoding: the speed of memory) and many (prompts, images: the speed of the
//! integer units).
//!
//! Unlike elsewhere in this crate, sizes of stored weights come from files: they are checked and
//! reported as [`QuantError`]. Activations and outputs that do not fit are bugs and panic.

mod activations;
mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_blocks;
mod format;
mod int8;
mod lanes;
mod layout;
mod matrix;
mod product;
mod quantize;

pub use format::{BlockFormat, dequantize_row};
pub use int8::{Int8Weights, linear_int8};
pub use matrix::{PackedMatrix, QuantizedMatrix, matmul_shared};
pub use quantize::{quantize, quantized_len};

use std::fmt;

/// Why stored weights were refused.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum QuantError {
    /// Rows do not consist of whole blocks.
    PartialBlock {
        /// Format of the weights.
        format: BlockFormat,
        /// Weights per row.
        cols: usize,
    },
    /// The data are not as long as the shape says.
    WrongLength {
        /// Format of the weights.
        format: BlockFormat,
        /// Number of rows.
        rows: usize,
        /// Weights per row.
        cols: usize,
        /// Bytes of such a matrix.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// The size of such a matrix does not fit the address space.
    TooLarge,
    /// Weights are floats: there are no blocks to pack.
    NotQuantized {
        /// Format of the weights.
        format: BlockFormat,
    },
}

impl fmt::Display for QuantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PartialBlock { format, cols } => write!(
                f,
                "{}: expected rows of a multiple of {} weights, found {cols}",
                format.name(),
                format.block_len()
            ),
            Self::WrongLength {
                format,
                rows,
                cols,
                expected,
                found,
            } => write!(
                f,
                "{} [{rows}, {cols}]: expected {expected} bytes, found {found}",
                format.name()
            ),
            Self::TooLarge => f.write_str("the size of the weights does not fit the address space"),
            Self::NotQuantized { format } => {
                write!(f, "{}: expected a quantized format", format.name())
            }
        }
    }
}

impl std::error::Error for QuantError {}

/// `count * size`, if it can be the length of a slice.
fn checked_len(count: usize, size: usize) -> Result<usize, QuantError> {
    count
        .checked_mul(size)
        .filter(|&len| isize::try_from(len).is_ok())
        .ok_or(QuantError::TooLarge)
}

/// Whether products with [`Int8Weights`] run on AMX tiles here.
pub(crate) fn int8_runs_on_amx() -> bool {
    #[cfg(target_arch = "x86_64")]
    return amx::available();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether products of many rows with [`PackedMatrix`] run on AMX tiles here.
pub(crate) fn blocks_run_on_amx() -> bool {
    #[cfg(target_arch = "x86_64")]
    return amx_blocks::available();
    #[cfg(not(target_arch = "x86_64"))]
    false
}
