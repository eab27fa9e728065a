//! CPU arithmetic on plain slices: the hot operations of training and inference.
//!
//! Every operation works on row-major contiguous `f32` slices unless strides are stated, is written
//! once over the vectors of the private `simd` module and compiled for each instruction set, and has a naive `f64`
//! counterpart in [`mod@reference`] that the tests compare it with.
//!
//! *Threads*: work is shared over rayon's global pool, which the binary configures. How work is cut
//! into tasks, and the order in which partial sums are added, depends on the problem's size alone,
//! so results repeat bit for bit. Small problems run on the calling thread.
//!
//! *Errors*: slice lengths that do not fit together are bugs of the caller and panic.
//!
//! `unsafe` lives in this crate alone: vector loads and stores, disjoint strided writes from
//! parallel tasks, and AMX instructions.
#![allow(unsafe_code)]
// Plain slices and extents, as BLAS passes them.
#![allow(clippy::too_many_arguments)]

pub mod activation;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux", not(miri)))]
mod amx_emulator;
pub mod attention;
pub mod batch_norm;
pub mod boxes;
pub mod conv;
pub mod conv_grouped;
pub mod cpu_features;
pub mod element;
pub mod elementwise;
pub mod embedding;
pub mod gated;
pub mod gemm;
pub mod loss;
pub mod mapped;
pub mod memory;
pub mod norm;
pub mod optim;
mod parallel;
pub mod quant;
pub mod reference;
pub mod report;
pub mod roi_align;
pub mod rope;
mod scratch;
pub(crate) mod simd;

pub use activation::{
    Activation, activation_backward, activation_backward_summing, activation_forward,
};
pub use attention::{
    AttentionShape, HeadsMut, HeadsRef, Mask, Saved, attention, attention_backward,
    attention_backward_packed, attention_backward_packed_kv, attention_saving,
};
pub use batch_norm::{BatchNorm, batch_norm, batch_norm_backward, batch_statistics};
pub use boxes::{BoxExtent, box_area, box_iou, by_score, nms};
pub use conv::{
    ConvShape, conv2d, conv2d_input_gradient, conv2d_weight_gradient, fold, patchify, unfold,
    unpatchify,
};
pub use conv_grouped::{
    conv2d_grouped, conv2d_grouped_input_gradient, conv2d_grouped_weight_gradient,
};
pub use cpu_features::{Isa, Precision};
pub use element::Element;
pub use elementwise::{add_to, add_to_rows};
pub use embedding::{gather_rows, scatter_add_rows};
pub use gated::{gate_in_place, gated, gated_backward};
pub use gemm::{
    MatRef, PackedWeights, linear, linear::Epilogue, linear::column_sum, linear_packed, matmul,
    matmul_add, mlp_packed, mlp_pays,
};
pub use half::f16;
pub use loss::{cross_entropy, cross_entropy_backward, log_softmax_rows, softmax_rows};
pub use mapped::MappedFile;
pub use norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
pub use optim::{AdamW, adamw, sum_of_squares};
pub use parallel::in_team;
pub use quant::{
    BlockFormat, Int8Weights, PackedMatrix, QuantError, QuantizedMatrix, linear_int8, matmul_shared,
};
pub use roi_align::{Roi, RoiAlignShape, roi_align, roi_align_backward, roi_align_terms};
pub use rope::{RopeLayout, Rotation, inverse_frequencies, rope, rope_backward};
