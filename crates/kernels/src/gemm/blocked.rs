//! Products of large matrices: both operands are packed into panels that the inner kernel reads
//! from start to end, and blocks of the result are computed in parallel (Goto and van de Geijn
//! 2008).
//!
//! A panel holds 16 rows of `a` (or columns of `b`) for a chunk of `k`, in *units* of four bytes:
//! one `f32`, or two neighbours along `k` as bfloat16. Its plain order is `[unit][16]`.

use super::MatRef;
use crate::parallel::{self, SharedMut};
use crate::scratch::with_scratch;

/// Rows of `a` or columns of `b` in a panel.
pub(super) const PANEL: usize = 16;

/// Units of `k` in a chunk: two panels of `b` (24 KiB) stay in a 32 KiB first-level cache.
const CHUNK_UNITS: usize = 192;
/// Rows and columns of the result per task.
const TASK_ROWS: usize = 64;
const TASK_COLUMNS: usize = 768;
/// Tasks to make at least, where the result is large enough to be cut.
const MIN_TASKS: usize = 8;
/// Multiplications below which one task does everything.
const SERIAL_WORK: usize = 1 << 19;

/// Up to 16 rows of `a` (or columns of `b`) along a chunk of `k`.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) ptr: *const f32,
    /// Rows of `a` or columns of `b`, at most [`PANEL`].
    pub(super) outer: usize,
    pub(super) outer_stride: usize,
    /// Extent along the inner dimension.
    pub(super) k: usize,
    pub(super) k_stride: usize,
}

/// A block of the result for a chunk of `k`.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Panels of `a` and `b`, each `units * PANEL` units long.
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    pub(super) units: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
    /// Add to `c` instead of overwriting it.
    pub(super) accumulate: bool,
}

/// The inner kernel of a number format on an instruction set.
pub(super) trait BlockKernel: Copy + Send + Sync {
    /// Elements of `k` per unit.
    const DEPTH: usize;
    /// Units per chunk and panels per operand are multiples of these; padding is zero.
    const UNIT_STEP: usize;
    const PANEL_STEP: usize;

    /// Packs a panel of `units` units of `a`; what `src` does not fill is zero.
    ///
    /// # Safety
    /// `src` is readable over its extents, `dst` writable over `units * PANEL` units.
    unsafe fn pack_a(self, src: Source, dst: *mut f32, units: usize);

    /// The same for `b`.
    ///
    /// # Safety
    /// As for [`Self::pack_a`].
    unsafe fn pack_b(self, src: Source, dst: *mut f32, units: usize);

    /// Multiplies packed panels.
    ///
    /// # Safety
    /// `a` and `b` hold packed panels for the block's rows and columns, rounded up to whole
    /// multiples of `PANEL_STEP` panels, and `c` is writable over the block.
    unsafe fn multiply(self, block: Block);
}

/// How a product is cut: by sizes alone, so that every run adds in the same order.
struct Plan {
    units: usize,
    chunk: usize,
    chunks: usize,
    b_panels: usize,
    row_tasks: usize,
    column_tasks: usize,
    task_columns: usize,
}

impl Plan {
    fn new<K: BlockKernel>(m: usize, k: usize, n: usize) -> Self {
        let units = k.div_ceil(K::DEPTH);
        let chunk = units
            .div_ceil(units.div_ceil(CHUNK_UNITS))
            .next_multiple_of(K::UNIT_STEP);
        let panel_step = PANEL * K::PANEL_STEP;
        let row_tasks = m.div_ceil(TASK_ROWS);
        let column_tasks = n
            .div_ceil(TASK_COLUMNS)
            .max(MIN_TASKS.div_ceil(row_tasks))
            .min(n.div_ceil(3 * panel_step));
        // Whole register blocks of three panels, so that only the last task has a remainder.
        let task_columns = n.div_ceil(column_tasks).next_multiple_of(3 * panel_step);
        Self {
            units,
            chunk,
            chunks: units.div_ceil(chunk),
            b_panels: n.div_ceil(panel_step) * K::PANEL_STEP,
            row_tasks,
            column_tasks: n.div_ceil(task_columns),
            task_columns,
        }
    }

    /// Units of a chunk, padding included.
    fn chunk_units<K: BlockKernel>(&self, chunk: usize) -> usize {
        self.chunk
            .min(self.units - chunk * self.chunk)
            .next_multiple_of(K::UNIT_STEP)
    }

    /// Where a panel of a chunk starts in packed `b`.
    fn b_offset<K: BlockKernel>(&self, chunk: usize, panel: usize) -> usize {
        (chunk * self.chunk * self.b_panels + panel * self.chunk_units::<K>(chunk)) * PANEL
    }

    fn b_len<K: BlockKernel>(&self) -> usize {
        self.b_panels * self.units.next_multiple_of(K::UNIT_STEP) * PANEL
    }
}

/// Packs panels `first..first + count` of `x` (its rows are the outer dimension) for `units` units
/// from `first_unit`, one after the other.
///
/// # Safety
/// `x` was checked; `dst` is writable over `count * units * PANEL` units.
unsafe fn pack<K: BlockKernel>(
    x: MatRef,
    (first, count): (usize, usize),
    (first_unit, units): (usize, usize),
    dst: *mut f32,
    pack_panel: impl Fn(Source, *mut f32, usize),
) {
    let pack_part = |panel: usize, unit: usize, part: usize| {
        let row = (first + panel) * PANEL;
        let k = (first_unit + unit) * K::DEPTH;
        let src = Source {
            ptr: x
                .data
                .as_ptr()
                .wrapping_add(row * x.row_stride + k * x.col_stride),
            outer: x.rows.saturating_sub(row).min(PANEL),
            outer_stride: x.row_stride,
            k: x.cols.saturating_sub(k).min(part * K::DEPTH),
            k_stride: x.col_stride,
        };
        pack_panel(src, dst.wrapping_add((panel * units + unit) * PANEL), part);
    };
    if x.col_stride == 1 {
        for panel in 0..count {
            pack_part(panel, 0, units);
        }
    } else {
        // Neighbouring panels lie side by side in memory: take a few of its rows at a time.
        for unit in (0..units).step_by(PANEL) {
            for panel in 0..count {
                pack_part(panel, unit, PANEL.min(units - unit));
            }
        }
    }
}

/// `out = a b`, then `finish(row, first column, segment)` for every segment of a row of `out`.
///
/// Callers have checked the operands ([`MatRef::check`]); no extent is 0.
pub(super) fn multiply<K: BlockKernel>(
    kernel: K,
    a: MatRef,
    b: MatRef,
    out: &mut [f32],
    finish: impl Fn(usize, usize, &mut [f32]) + Sync + Send,
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(out.len(), m * n);
    let plan = Plan::new::<K>(m, k, n);
    let serial = m * k * n <= SERIAL_WORK;
    let run_tasks = |count: usize, task: &(dyn Fn(usize) + Sync)| {
        if serial {
            (0..count).for_each(task);
        } else {
            parallel::for_each_task(count, task);
        }
    };
    with_scratch(plan.b_len::<K>(), |packed| {
        const PANELS_PER_TASK: usize = 4;
        let shared = SharedMut::new(packed);
        run_tasks(plan.b_panels.div_ceil(PANELS_PER_TASK), &|task| {
            let first = task * PANELS_PER_TASK;
            let panels = (first, PANELS_PER_TASK.min(plan.b_panels - first));
            for chunk in 0..plan.chunks {
                let units = (chunk * plan.chunk, plan.chunk_units::<K>(chunk));
                // SAFETY: `b` was checked; each panel has its own place in `packed`.
                unsafe {
                    let dst = shared.ptr().add(plan.b_offset::<K>(chunk, first));
                    pack::<K>(b.t(), panels, units, dst, |src, dst, units| {
                        kernel.pack_b(src, dst, units);
                    });
                }
            }
        });
        let packed = &*packed;
        let out = SharedMut::new(out);
        run_tasks(plan.row_tasks * plan.column_tasks, &|task| {
            let (i, j) = (task / plan.column_tasks, task % plan.column_tasks);
            // SAFETY: tasks cover disjoint blocks of `out`, which holds m * n elements.
            unsafe { run_task(kernel, a, packed, n, &plan, (i, j), out) };
            let columns = plan.task_columns.min(n - j * plan.task_columns);
            for row in i * TASK_ROWS..((i + 1) * TASK_ROWS).min(m) {
                let at = row * n + j * plan.task_columns;
                // SAFETY: this segment belongs to this task alone and is now initialised.
                let segment = unsafe { std::slice::from_raw_parts_mut(out.ptr().add(at), columns) };
                finish(row, j * plan.task_columns, segment);
            }
        });
    });
}

/// One block of `out`, over all of `k`.
///
/// # Safety
/// `a` was checked, `packed` holds all of `b`, and no other task touches this block of `out`.
unsafe fn run_task<K: BlockKernel>(
    kernel: K,
    a: MatRef,
    packed: &[f32],
    n: usize,
    plan: &Plan,
    (i, j): (usize, usize),
    out: SharedMut,
) {
    let (row, column) = (i * TASK_ROWS, j * plan.task_columns);
    let rows = TASK_ROWS.min(a.rows - row);
    let panels = rows.div_ceil(PANEL).next_multiple_of(K::PANEL_STEP);
    with_scratch(panels * plan.chunk * PANEL, |a_packed| {
        for chunk in 0..plan.chunks {
            let units = plan.chunk_units::<K>(chunk);
            let dst = a_packed.as_mut_ptr();
            // SAFETY: `a` was checked; `a_packed` holds `panels` panels of a chunk.
            unsafe {
                let first = (chunk * plan.chunk, units);
                pack::<K>(a, (row / PANEL, panels), first, dst, |src, dst, units| {
                    kernel.pack_a(src, dst, units);
                });
            }
            // SAFETY: both operands are packed; the caller promises the block of `out`.
            unsafe {
                let b_at = plan.b_offset::<K>(chunk, column / PANEL);
                kernel.multiply(Block {
                    a: a_packed.as_ptr(),
                    b: packed.as_ptr().add(b_at),
                    units,
                    rows,
                    columns: plan.task_columns.min(n - column),
                    c: out.ptr().add(row * n + column),
                    c_stride: n,
                    accumulate: chunk > 0,
                });
            }
        }
    });
}
