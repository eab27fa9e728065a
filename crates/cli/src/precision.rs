//! `--precision`: the arithmetic of matrix products.

use crate::Common;
use crate::output::complain;
use clap::ValueEnum;
use vlm_nn::ops::{self, WeightFormat};

/// Arithmetic of matrix products.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    /// bf16 where the processor multiplies it in hardware, else f32
    Auto,
    /// The reference
    F32,
    /// Factors rounded to bfloat16, sums in f32
    Bf16,
    /// 8-bit weights and activations
    Int8,
    /// Blocks of 4-bit weights, 8-bit activations
    Int4,
}

impl PrecisionArg {
    /// As the user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

/// Sets the arithmetic of the process and gives the name of what computes.
pub fn set_precision(asked: PrecisionArg, common: &Common) -> &'static str {
    let hardware = vlm_kernels::cpu_features::has_avx512_bf16();
    let chosen = match asked {
        PrecisionArg::Auto if hardware => PrecisionArg::Bf16,
        PrecisionArg::Auto => PrecisionArg::F32,
        asked => asked,
    };
    match chosen {
        PrecisionArg::F32 | PrecisionArg::Auto => ops::set_precision(ops::Precision::F32),
        PrecisionArg::Bf16 => {
            ops::set_precision(ops::Precision::Bf16);
            if !hardware && !common.quiet {
                complain(format_args!(
                    "note: --precision bf16: this processor has no such instructions, f32 is computed"
                ));
            }
        }
        // what is not a product of weights is computed in the best float precision
        PrecisionArg::Int8 | PrecisionArg::Int4 => {
            if hardware {
                ops::set_precision(ops::Precision::Bf16);
            }
            ops::set_weight_format(match asked {
                PrecisionArg::Int8 => WeightFormat::Int8,
                _ => WeightFormat::Int4,
            });
        }
    }
    chosen.name()
}
