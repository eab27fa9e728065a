//! Matrix products.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod blocked;
pub mod linear;
mod small;

pub use linear::{Epilogue, column_sum, linear};
pub(crate) use small::{Operand, SmallGemm};

use crate::cpu_features::Precision;
use crate::parallel;

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
    #[cfg(target_arch = "x86_64")]
    {
        use crate::cpu_features::{Isa, has_avx512_bf16, isa};
        use amx::AmxKernel;
        use avx512::{Bf16Kernel, F32Kernel};

        if precision == Precision::Bf16 && has_avx512_bf16() {
            if let Some(kernel) = AmxKernel::detect() {
                return blocked::multiply(kernel, a, b, out, finish);
            }
            // SAFETY: just detected.
            let kernel = unsafe { Bf16Kernel::assume_detected() };
            return blocked::multiply(kernel, a, b, out, finish);
        }
        if isa() == Isa::Avx512 {
            // SAFETY: just detected.
            let kernel = unsafe { F32Kernel::assume_detected() };
            return blocked::multiply(kernel, a, b, out, finish);
        }
    }
    // No vector instructions for bfloat16: it would only lose precision.
    let _ = precision;
    gemm_f32(a, b, out);
    let chunk = parallel::rows_per_task(b.cols) * b.cols;
    parallel::for_each_chunk(out, chunk, |task, rows| {
        for (i, segment) in rows.chunks_exact_mut(b.cols).enumerate() {
            finish(task * chunk / b.cols + i, 0, segment);
        }
    });
}

/// `out = a b` through the `gemm` crate; extents are checked by the callers.
fn gemm_f32(a: MatRef, b: MatRef, out: &mut [f32]) {
    const PARALLEL_WORK: usize = 1 << 20;
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let parallelism = if m * k * n >= PARALLEL_WORK {
        gemm::Parallelism::Rayon(0)
    } else {
        gemm::Parallelism::None
    };
    // SAFETY: `check` found every element of `a` and `b` in its slice, `out` holds m * n elements,
    // and strides fit isize because slices do.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
