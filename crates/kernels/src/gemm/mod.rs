//! Matrix products.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod blocked;
pub mod linear;
mod packed;
mod small;
mod vector;

pub use linear::{Epilogue, column_sum, linear, linear_packed, mlp_packed, mlp_pays};
pub use packed::PackedWeights;
pub(crate) use small::{Operand, SmallGemm};

use crate::cpu_features::Precision;
use vector::VectorKernel;

/// The inner kernel that multiplies in a precision on this processor.
#[derive(Clone, Copy)]
pub(crate) enum Kernel {
    /// `f32` on vectors of any width.
    Vector(VectorKernel),
    #[cfg(target_arch = "x86_64")]
    F32(avx512::F32Kernel),
    #[cfg(target_arch = "x86_64")]
    Bf16(avx512::Bf16Kernel),
    #[cfg(target_arch = "x86_64")]
    Amx(amx::AmxKernel),
}

/// Runs the expression with `$kernel` bound to the value inside a [`Kernel`], whatever its type.
macro_rules! with_kernel {
    ($choice:expr, $kernel:ident => $body:expr) => {
        match $choice {
            Kernel::Vector($kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            Kernel::F32($kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            Kernel::Bf16($kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            Kernel::Amx($kernel) => $body,
        }
    };
}
use with_kernel;

/// The kernel that multiplies in a precision, by name.
pub(crate) fn kernel_name(precision: Precision) -> &'static str {
    Kernel::choose(precision).name()
}

fn depth<K: blocked::BlockKernel>(_: K) -> usize {
    K::DEPTH
}

impl Kernel {
    /// Without vector instructions for bfloat16 the kernel is `f32`: bfloat16 would only lose precision.
    pub(crate) fn choose(precision: Precision) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use crate::cpu_features::{Isa, has_avx512_bf16, isa};

            if precision == Precision::Bf16 && has_avx512_bf16() {
                if let Some(kernel) = amx::AmxKernel::detect() {
                    return Self::Amx(kernel);
                }
                // SAFETY: just detected.
                return Self::Bf16(unsafe { avx512::Bf16Kernel::assume_detected() });
            }
            if isa() == Isa::Avx512 {
                // SAFETY: just detected.
                return Self::F32(unsafe { avx512::F32Kernel::assume_detected() });
            }
        }
        let _ = precision;
        Self::Vector(VectorKernel)
    }

    /// What [`crate::report`] calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Vector(_) => match crate::cpu_features::isa() {
                crate::cpu_features::Isa::Portable => "portable",
                crate::cpu_features::Isa::Neon => "neon",
                _ => "avx2",
            },
            #[cfg(target_arch = "x86_64")]
            Self::F32(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Bf16(_) => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => "amx-bf16",
        }
    }

    /// Whether packed weights are bfloat16: half the bytes to read.
    fn halves_weights(self) -> bool {
        with_kernel!(self, kernel => depth(kernel) == 2)
    }
}

/// A matrix in a slice: element `(i, j)` at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// A contiguous row-major matrix.
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self {
            data,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// The transpose, without moving an element.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// Panics unless every element lies in the slice.
    pub(crate) fn check(&self, name: &str) {
        if self.rows == 0 || self.cols == 0 {
            return;
        }
        let last = (self.rows - 1)
            .checked_mul(self.row_stride)
            .zip((self.cols - 1).checked_mul(self.col_stride))
            .and_then(|(r, c)| r.checked_add(c));
        assert!(
            last.is_some_and(|last| last < self.data.len()),
            "matmul: {name} [{}, {}] with strides {}, {} does not fit {} elements",
            self.rows,
            self.cols,
            self.row_stride,
            self.col_stride,
            self.data.len()
        );
    }
}

/// `out[m, n] = a[m, k] b[k, n]`, `out` row-major.
pub fn matmul(precision: Precision, a: MatRef, b: MatRef, out: &mut [f32]) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "matmul: a has {k} columns, b {} rows", b.rows);
    assert_eq!(out.len(), m * n, "matmul: out is not [{m}, {n}]");
    a.check("a");
    b.check("b");
    product(precision, a, b, out, |_, _, _| {});
}

/// `out[m, n] += a[m, k] b[k, n]`, `out` row-major.
pub fn matmul_add(precision: Precision, a: MatRef, b: MatRef, out: &mut [f32]) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "matmul: a has {k} columns, b {} rows", b.rows);
    assert_eq!(out.len(), m * n, "matmul: out is not [{m}, {n}]");
    a.check("a");
    b.check("b");
    if k > 0 && !out.is_empty() {
        with_kernel!(Kernel::choose(precision), kernel => {
            blocked::multiply(kernel, a, b, out, true, |_, _, _| {});
        });
    }
}

/// `out = a b` for checked operands, then `finish(row, first column, segment)` for every segment of
/// a row of `out`.
fn product(
    precision: Precision,
    a: MatRef,
    b: MatRef,
    out: &mut [f32],
    finish: impl Fn(usize, usize, &mut [f32]) + Sync + Send,
) {
    if out.is_empty() {
        return;
    }
    if a.cols == 0 {
        out.fill(0.0);
        for (row, segment) in out.chunks_exact_mut(b.cols).enumerate() {
            finish(row, 0, segment);
        }
        return;
    }
    with_kernel!(Kernel::choose(precision), kernel => {
        blocked::multiply(kernel, a, b, out, false, finish);
    });
}
