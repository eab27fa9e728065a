//! The matrix products inside attention, in `f32` on operands as they lie or in bfloat16 on packed ones.

use super::{AttentionShape, softmax};
use crate::cpu_features::Precision;
#[cfg(target_arch = "x86_64")]
use crate::gemm::blocked::{Block, BlockKernel, PANEL, Source};
use crate::gemm::{Kernel, Operand, SmallGemm};

/// A right operand that is ready to be multiplied with.
#[derive(Clone, Copy)]
pub(super) struct Right {
    ptr: *const f32,
    /// Distance between rows, or between panels.
    stride: usize,
    /// Columns that may be read: with those of padding.
    columns: usize,
}

/// A way to multiply. Buffers named `room` have the lengths that the `_len` functions give.
pub(super) trait Product: Copy + Send + Sync {
    /// Room for a right operand `[k, n]`; `turned` if its columns are contiguous and not its rows.
    fn right_len(self, k: usize, n: usize, turned: bool) -> usize;

    /// Room for a left operand `[m, k]`.
    fn left_len(self, m: usize, k: usize) -> usize;

    /// Prepares a right operand `[k, n]`, of which products may use the first rows and columns.
    ///
    /// # Safety
    /// `b` is readable over `[k, n]`, one of its strides is 1, and neither it nor `room` is written as long as the
    /// result is used.
    unsafe fn right(self, b: Operand, size: [usize; 2], room: &mut [f32]) -> Right;

    /// `c = a b` or `c += a b` for `size` `[m, n, k]`.
    ///
    /// # Safety
    /// `a` is readable over `[m, k]`, `b` was prepared for at least `[k, n]`, and `c` is writable (and, to accumulate,
    /// initialised) over `[m, n]`, or over n rounded up to 16 if the right operand was turned.
    unsafe fn multiply(
        self,
        size: [usize; 3],
        a: Operand,
        b: Right,
        c: (*mut f32, usize),
        accumulate: bool,
        room: &mut [f32],
    );
}

/// `f32`: only turned right operands are copied.
#[derive(Clone, Copy)]
pub(super) struct VectorProduct;

impl Product for VectorProduct {
    fn right_len(self, k: usize, n: usize, turned: bool) -> usize {
        if turned {
            k * n.next_multiple_of(16)
        } else {
            0
        }
    }

    fn left_len(self, _: usize, _: usize) -> usize {
        0
    }

    unsafe fn right(self, b: Operand, [k, n]: [usize; 2], room: &mut [f32]) -> Right {
        if b.col_stride == 1 {
            return Right {
                ptr: b.ptr,
                stride: b.row_stride,
                columns: n,
            };
        }
        // Rows of whole cache lines: full vectors everywhere.
        let stride = n.next_multiple_of(16);
        // SAFETY: the caller promises `n` rows of `k`, `col_stride` apart.
        unsafe { softmax::transpose((b.ptr, b.col_stride), n, k, room, stride) };
        Right {
            ptr: room.as_ptr(),
            stride,
            columns: stride,
        }
    }

    unsafe fn multiply(
        self,
        [m, n, k]: [usize; 3],
        a: Operand,
        b: Right,
        c: (*mut f32, usize),
        accumulate: bool,
        _: &mut [f32],
    ) {
        let n = n.next_multiple_of(16).min(b.columns);
        // SAFETY: promised by the caller; padding columns are within a turned operand's rows.
        unsafe { SmallGemm::new([m, n, k], a, (b.ptr, b.stride), c, accumulate) }.run();
    }
}

/// The inner kernel of large products on panels that are packed here. Only x86 has one for bfloat16.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct PanelProduct<K>(K);

#[cfg(target_arch = "x86_64")]
impl<K: BlockKernel> PanelProduct<K> {
    fn units(k: usize) -> usize {
        k.div_ceil(K::DEPTH).next_multiple_of(K::UNIT_STEP)
    }

    fn panels(outer: usize) -> usize {
        outer.div_ceil(PANEL).next_multiple_of(K::PANEL_STEP)
    }

    fn len(outer: usize, k: usize) -> usize {
        Self::panels(outer) * Self::units(k) * PANEL
    }

    /// Calls `pack(source, place, units)` for every panel of an operand with `outer` rows.
    fn for_each_panel(
        (ptr, outer, outer_stride): (*const f32, usize, usize),
        (k, k_stride): (usize, usize),
        room: &mut [f32],
        pack: impl Fn(Source, *mut f32, usize),
    ) {
        assert!(room.len() >= Self::len(outer, k));
        let units = Self::units(k);
        for (panel, dst) in room
            .chunks_exact_mut((units * PANEL).max(1))
            .take(Self::panels(outer))
            .enumerate()
        {
            let first = panel * PANEL;
            let src = Source {
                ptr: ptr.wrapping_add(first * outer_stride),
                outer: outer.saturating_sub(first).min(PANEL),
                outer_stride,
                k,
                k_stride,
            };
            pack(src, dst.as_mut_ptr(), units);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<K: BlockKernel> Product for PanelProduct<K> {
    fn right_len(self, k: usize, n: usize, _: bool) -> usize {
        Self::len(n, k)
    }

    fn left_len(self, m: usize, k: usize) -> usize {
        Self::len(m, k)
    }

    unsafe fn right(self, b: Operand, [k, n]: [usize; 2], room: &mut [f32]) -> Right {
        let columns = (b.ptr, n, b.col_stride);
        Self::for_each_panel(columns, (k, b.row_stride), room, |src, dst, units| {
            // SAFETY: the caller promises `b`; `for_each_panel` hands out places of whole panels.
            unsafe { self.0.pack_b(src, dst, units) }
        });
        Right {
            ptr: room.as_ptr(),
            stride: Self::units(k) * PANEL,
            columns: n,
        }
    }

    unsafe fn multiply(
        self,
        [m, n, k]: [usize; 3],
        a: Operand,
        b: Right,
        (c, c_stride): (*mut f32, usize),
        accumulate: bool,
        room: &mut [f32],
    ) {
        if k == 0 {
            if !accumulate {
                for i in 0..m {
                    // SAFETY: promised by the caller.
                    unsafe { std::ptr::write_bytes(c.add(i * c_stride), 0, n) };
                }
            }
            return;
        }
        let rows = (a.ptr, m, a.row_stride);
        Self::for_each_panel(rows, (k, a.col_stride), room, |src, dst, units| {
            // SAFETY: the caller promises `a`; `for_each_panel` hands out places of whole panels.
            unsafe { self.0.pack_a(src, dst, units) }
        });
        // SAFETY: both operands are packed. Where the right one has more rows than `k`, units are shared with
        // zeros of the left one.
        unsafe {
            self.0.multiply(Block {
                a: room.as_ptr(),
                b: b.ptr,
                units: Self::units(k),
                b_panel: b.stride,
                rows: m,
                columns: n,
                c,
                c_stride,
                accumulate,
            });
        }
    }
}

/// What is computed with any [`Product`].
pub(super) trait WithProduct {
    fn run<P: Product>(&self, product: P);
}

/// Runs `task` with the products of a precision on this processor.
///
/// Packing takes its time: where vectors multiply bfloat16 only twice as fast as `f32`, small heads and short sequences
/// are faster as they lie.
pub(super) fn with_product(precision: Precision, shape: &AttentionShape, task: &impl WithProduct) {
    #[cfg(target_arch = "x86_64")]
    let pays = shape.head_dim >= 48 && shape.q_len.min(shape.k_len) >= 96;
    let _ = shape;
    match Kernel::choose(precision) {
        #[cfg(target_arch = "x86_64")]
        Kernel::Bf16(kernel) if pays => task.run(PanelProduct(kernel)),
        #[cfg(target_arch = "x86_64")]
        Kernel::Amx(kernel) => task.run(PanelProduct(kernel)),
        _ => task.run(VectorProduct),
    }
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux", not(miri)))]
mod tests {
    use super::*;
    use crate::gemm::amx::{AmxKernel, integers};

    /// Products of small integers, with as many rows of the right operand as a causal mask leaves.
    #[test]
    fn products_on_tiles_are_exact() {
        let Some(kernel) = AmxKernel::for_tests() else {
            return;
        };
        let product = PanelProduct(kernel);
        for [m, n, k, all_k] in [
            [1, 1, 1, 1],
            [5, 33, 7, 50],
            [32, 64, 80, 80],
            [33, 17, 65, 129],
        ] {
            for (turned, accumulate) in [(false, true), (true, false)] {
                let (a, b) = (integers(m * k, 1), integers(all_k * n, 2));
                let (row_stride, col_stride) = if turned { (1, all_k) } else { (n, 1) };
                let right = Operand {
                    ptr: b.as_ptr(),
                    row_stride,
                    col_stride,
                };
                let left = Operand {
                    ptr: a.as_ptr(),
                    row_stride: k,
                    col_stride: 1,
                };
                let mut right_room = vec![f32::NAN; product.right_len(all_k, n, turned)];
                let mut left_room = vec![f32::NAN; product.left_len(m, k)];
                let stride = n.next_multiple_of(16);
                let start = integers(m * stride, 3);
                let mut found = start.clone();
                // SAFETY: operands, rooms and result have these sizes.
                unsafe {
                    let right = product.right(right, [all_k, n], &mut right_room);
                    let c = (found.as_mut_ptr(), stride);
                    product.multiply([m, n, k], left, right, c, accumulate, &mut left_room);
                }
                for i in 0..m {
                    for j in 0..n {
                        let b = |l: usize| b[l * row_stride + j * col_stride];
                        let dot: f32 = (0..k).map(|l| a[i * k + l] * b(l)).sum();
                        let at = i * stride + j;
                        let expected = dot + if accumulate { start[at] } else { 0.0 };
                        assert_eq!(found[at], expected, "{m}x{k}x{n} [{i}, {j}] {turned}");
                    }
                }
            }
        }
    }
}
