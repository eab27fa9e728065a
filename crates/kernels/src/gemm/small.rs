//! Products of matrices that fit a core's cache, on the calling thread and without packing: the
//! inner loops of attention.

use crate::element::Element;
use crate::simd::{Simd, simd_dispatch};

/// A readable matrix: element `(i, j)` at `ptr + i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    pub(crate) ptr: *const f32,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl Operand {
    /// Contiguous rows: pointer and distance between them.
    pub(crate) fn rows((ptr, row_stride): (*const f32, usize)) -> Self {
        Self {
            ptr,
            row_stride,
            col_stride: 1,
        }
    }

    /// The transpose.
    pub(crate) fn turned(self) -> Self {
        Self {
            ptr: self.ptr,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// `c[m, n] = a[m, k] b[k, n]` or `c += a b`; rows of `b` and `c` are contiguous.
pub(crate) struct SmallGemm<T = f32> {
    m: usize,
    n: usize,
    k: usize,
    a: Operand,
    b: *const T,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    accumulate: bool,
}

impl<T: Element> SmallGemm<T> {
    /// # Safety
    /// For the life of the value `a` and `b` are readable and `c` is writable (and, to accumulate,
    /// initialised) over `size` = `[m, n, k]`, and `c` overlaps neither.
    pub(crate) unsafe fn new(
        [m, n, k]: [usize; 3],
        a: Operand,
        (b, b_stride): (*const T, usize),
        (c, c_stride): (*mut f32, usize),
        accumulate: bool,
    ) -> Self {
        Self {
            m,
            n,
            k,
            a,
            b,
            b_stride,
            c,
            c_stride,
            accumulate,
        }
    }

    pub(crate) fn run(&self) {
        run(self);
    }
}

simd_dispatch! {
    fn run<T: Element>(g: &SmallGemm<T>) = kernel;
}

#[inline(always)]
fn kernel<S: Simd, T: Element>(s: S, g: &SmallGemm<T>) {
    let lanes = S::LANES;
    let mut j = 0;
    while j + 2 * lanes <= g.n {
        columns::<S, T, 2, false>(s, g, j, lanes);
        j += 2 * lanes;
    }
    if j + lanes <= g.n {
        columns::<S, T, 1, false>(s, g, j, lanes);
        j += lanes;
    }
    if j < g.n {
        columns::<S, T, 1, true>(s, g, j, g.n - j);
    }
}

/// All rows of `NV` vectors of columns from `j`; the last vector has `last` columns.
#[inline(always)]
fn columns<S: Simd, T: Element, const NV: usize, const PARTIAL: bool>(
    s: S,
    g: &SmallGemm<T>,
    j: usize,
    last: usize,
) {
    let mut i = 0;
    if S::WIDE_FILE {
        while i + 8 <= g.m {
            tile::<S, T, 8, NV, PARTIAL>(s, g, i, j, last);
            i += 8;
        }
    } else {
        // With two vectors of columns 12 of 16 registers hold sums.
        while i + 6 <= g.m {
            tile::<S, T, 6, NV, PARTIAL>(s, g, i, j, last);
            i += 6;
        }
    }
    while i + 4 <= g.m {
        tile::<S, T, 4, NV, PARTIAL>(s, g, i, j, last);
        i += 4;
    }
    while i + 2 <= g.m {
        tile::<S, T, 2, NV, PARTIAL>(s, g, i, j, last);
        i += 2;
    }
    while i < g.m {
        tile::<S, T, 1, NV, PARTIAL>(s, g, i, j, last);
        i += 1;
    }
}

/// `MR` rows from `i` by `NV` vectors of columns from `j`, kept in registers over all of `k`.
#[inline(always)]
fn tile<S: Simd, T: Element, const MR: usize, const NV: usize, const PARTIAL: bool>(
    s: S,
    g: &SmallGemm<T>,
    i: usize,
    j: usize,
    last: usize,
) {
    // SAFETY: `SmallGemm::new` promised the extents of the operands; rows i .. i + MR and columns
    // j .. j + (NV - 1) * LANES + last lie within them.
    unsafe {
        let mut sums = [[s.zero(); NV]; MR];
        if g.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = load::<S, f32, PARTIAL>(
                        s,
                        g.c.add((i + r) * g.c_stride + j + v * S::LANES),
                        last,
                    );
                }
            }
        }
        let mut a = [g.a.ptr; MR];
        for (r, a) in a.iter_mut().enumerate() {
            *a = a.wrapping_add((i + r) * g.a.row_stride);
        }
        let mut b = g.b.wrapping_add(j);
        for _ in 0..g.k {
            let mut columns = [s.zero(); NV];
            for (v, column) in columns.iter_mut().enumerate() {
                *column = load::<S, T, PARTIAL>(s, b.add(v * S::LANES), last);
            }
            for r in 0..MR {
                let x = s.splat(*a[r]);
                for v in 0..NV {
                    sums[r][v] = s.mul_add(x, columns[v], sums[r][v]);
                }
                a[r] = a[r].wrapping_add(g.a.col_stride);
            }
            b = b.wrapping_add(g.b_stride);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let c = g.c.add((i + r) * g.c_stride + j + v * S::LANES);
                if PARTIAL {
                    s.store(std::slice::from_raw_parts_mut(c, last), *sum);
                } else {
                    s.store_ptr(c, *sum);
                }
            }
        }
    }
}

/// A vector, of which the first `last` elements exist if it is `PARTIAL`.
///
/// # Safety
/// Those elements are readable.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, T: Element, const PARTIAL: bool>(
    s: S,
    p: *const T,
    last: usize,
) -> S::V {
    // SAFETY: promised by the caller.
    unsafe {
        if PARTIAL {
            T::load(s, std::slice::from_raw_parts(p, last))
        } else {
            T::load_ptr(s, p)
        }
    }
}
