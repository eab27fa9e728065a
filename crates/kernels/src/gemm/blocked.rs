//! Products of large matrices: both operands are packed into panels that the inner kernel reads
//! from start to end, and blocks of the result are computed in parallel (Goto and van de Geijn
//! 2008).
//!
//! A panel holds 16 rows of `a` (or columns of `b`) for a chunk of `k`, in *units* of four bytes:
//! one `f32`, or two neighbours along `k` as bfloat16. Its plain order is `[unit][16]`.

use super::MatRef;
use crate::parallel::{self, SharedMut};
use crate::scratch::with_scratch;
use std::ops::Range;

/// Rows of `a` or columns of `b` in a panel.
pub(crate) const PANEL: usize = 16;

/// Columns (about) of the result per task.
const TASK_COLUMNS: usize = 768;
/// Fewer row blocks than `FEW_TASKS` are cut along columns too, into `ENOUGH_TASKS` or a few more: so many that
/// threads end at about the same time, as long as each has `TASK_WORK` multiplications.
const FEW_TASKS: usize = 16;
const ENOUGH_TASKS: usize = 24;
const TASK_WORK: usize = 1 << 17;
/// Multiplications below which one task does everything.
const SERIAL_WORK: usize = 1 << 19;

/// Up to 16 rows of `a` (or columns of `b`) along a chunk of `k`.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub(crate) ptr: *const f32,
    /// Rows of `a` or columns of `b`, at most [`PANEL`].
    pub(crate) outer: usize,
    pub(crate) outer_stride: usize,
    /// Extent along the inner dimension.
    pub(crate) k: usize,
    pub(crate) k_stride: usize,
}

/// A block of the result for a chunk of `k`.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// Panels of `units * PANEL` units.
    pub(crate) a: *const f32,
    /// Panels of which the first `units * PANEL` units count.
    pub(crate) b: *const f32,
    pub(crate) units: usize,
    /// Units from one panel of `b` to the next.
    pub(crate) b_panel: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    /// Add to `c` instead of overwriting it.
    pub(crate) accumulate: bool,
}

/// The inner kernel of a number format on an instruction set.
pub(crate) trait BlockKernel: Copy + Send + Sync {
    /// Elements of `k` per unit.
    const DEPTH: usize;
    /// Units per chunk and panels per operand are multiples of these; padding is zero.
    const UNIT_STEP: usize;
    const PANEL_STEP: usize;
    /// Units of a chunk, at most. Panels of `b` pass by from the second-level cache; with longer chunks the result is
    /// loaded and stored less often.
    const CHUNK: usize = 512;
    /// Rows of the result per task, at most: while a chunk of them stays in the second-level cache, each panel of `b`
    /// is fetched once for all of them.
    const TASK_ROWS: usize = 64;
    /// Units of the second product that [`multiply_twice`] computes at a time, a multiple of [`PANEL`]. A kernel that adds to
    /// the result behind its sums needs whole chunks, or the bits would depend on it.
    const PART: usize = 128;
    /// Bytes of a second-level cache.
    const SECOND_LEVEL: usize = 1 << 20;

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
    /// Rows and columns of the result.
    extents: [usize; 2],
    units: usize,
    chunk: usize,
    chunks: usize,
    b_panels: usize,
    row_tasks: usize,
    column_tasks: usize,
}

/// Part `i` of `parts` of `0..extent` in whole steps, as equal as they can be.
fn share(extent: usize, step: usize, i: usize, parts: usize) -> Range<usize> {
    let steps = extent.div_ceil(step);
    let at = |i: usize| (steps * i / parts * step).min(extent);
    at(i)..at(i + 1)
}

impl Plan {
    fn new<K: BlockKernel>(m: usize, k: usize, n: usize) -> Self {
        let units = k.div_ceil(K::DEPTH);
        // Whole panels of columns, where these are a result of the product before ([`multiply_twice`]).
        let chunk = units
            .div_ceil(units.div_ceil(K::CHUNK))
            .next_multiple_of(PANEL);
        let row_tasks = m.div_ceil(K::TASK_ROWS);
        let wanted = if row_tasks < FEW_TASKS {
            ENOUGH_TASKS.div_ceil(row_tasks)
        } else {
            1
        };
        let affordable = (m * k * n / TASK_WORK / row_tasks).max(1);
        let column_tasks = n
            .div_ceil(TASK_COLUMNS)
            .max(wanted.min(affordable))
            .min(n.div_ceil(Self::column_step::<K>()));
        Self {
            extents: [m, n],
            units,
            chunk,
            chunks: units.div_ceil(chunk),
            b_panels: n.div_ceil(PANEL * K::PANEL_STEP) * K::PANEL_STEP,
            row_tasks,
            column_tasks,
        }
    }

    /// Whole register blocks of three panels, so that only the last task has a remainder.
    fn column_step<K: BlockKernel>() -> usize {
        3 * PANEL * K::PANEL_STEP
    }

    /// The rows of row task `i`.
    fn rows<K: BlockKernel>(&self, i: usize) -> Range<usize> {
        share(self.extents[0], PANEL * K::PANEL_STEP, i, self.row_tasks)
    }

    /// The columns of column task `j`.
    fn columns<K: BlockKernel>(&self, j: usize) -> Range<usize> {
        share(
            self.extents[1],
            Self::column_step::<K>(),
            j,
            self.column_tasks,
        )
    }

    /// Units of a chunk, padding included.
    fn chunk_units<K: BlockKernel>(&self, chunk: usize) -> usize {
        self.chunk
            .min(self.units - chunk * self.chunk)
            .next_multiple_of(K::UNIT_STEP)
    }

    /// The chunks in parts of `part` units: each part's chunk and where in it it starts.
    fn parts<K: BlockKernel>(&self, part: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..self.chunks).flat_map(move |chunk| {
            let units = self.chunk_units::<K>(chunk);
            (0..units).step_by(part).map(move |at| (chunk, at))
        })
    }

    /// Where a panel of a chunk starts in an operand of `panels` panels that is packed as a whole.
    fn offset<K: BlockKernel>(&self, panels: usize, chunk: usize, panel: usize) -> usize {
        (chunk * self.chunk * panels + panel * self.chunk_units::<K>(chunk)) * PANEL
    }

    /// Units of an operand of `panels` panels that is packed as a whole.
    fn packed_len<K: BlockKernel>(&self, panels: usize) -> usize {
        panels * self.units.next_multiple_of(K::UNIT_STEP) * PANEL
    }
}

/// Packs `units` units from `first_unit` of panels `first..first + count` of `x` (its rows are the
/// outer dimension) to `dst`, where panels are `panel_len` units apart.
///
/// # Safety
/// `x` was checked; `dst` is writable over these units of these panels.
unsafe fn pack<K: BlockKernel>(
    x: MatRef,
    (first, count): (usize, usize),
    (first_unit, units): (usize, usize),
    (dst, panel_len): (*mut f32, usize),
    pack_panel: &impl Fn(Source, *mut f32, usize),
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
        pack_panel(
            src,
            dst.wrapping_add(panel * panel_len + unit * PANEL),
            part,
        );
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

/// Packs all `panels` panels of `x` into `dst`, in tasks that read contiguous memory.
fn pack_all<K: BlockKernel>(
    x: MatRef,
    plan: &Plan,
    panels: usize,
    dst: &mut [f32],
    serial: bool,
    pack_panel: &(impl Fn(Source, *mut f32, usize) + Sync + Send),
) {
    const PANELS_PER_TASK: usize = 4;
    const UNITS_PER_TASK: usize = 2 * PANEL;
    assert!(dst.len() >= plan.packed_len::<K>(panels));
    let shared = SharedMut::new(dst);
    let pack_block = |chunk: usize, block: (usize, usize), (unit, units): (usize, usize)| {
        let panel_len = plan.chunk_units::<K>(chunk) * PANEL;
        let at = plan.offset::<K>(panels, chunk, block.0) + unit * PANEL;
        let units = (chunk * plan.chunk + unit, units);
        // SAFETY: callers of `multiply` checked `x`; each block has its own place in `dst`, whose
        // length was checked above.
        unsafe {
            let dst = (shared.ptr().add(at), panel_len);
            pack::<K>(x, block, units, dst, pack_panel);
        }
    };
    if x.col_stride == 1 {
        run_tasks(serial, panels.div_ceil(PANELS_PER_TASK), |task| {
            let first = task * PANELS_PER_TASK;
            for chunk in 0..plan.chunks {
                let block = (first, PANELS_PER_TASK.min(panels - first));
                pack_block(chunk, block, (0, plan.chunk_units::<K>(chunk)));
            }
        });
    } else {
        let per_chunk = plan.chunk.div_ceil(UNITS_PER_TASK);
        run_tasks(serial, plan.chunks * per_chunk, |task| {
            let (chunk, first) = (task / per_chunk, task % per_chunk * UNITS_PER_TASK);
            let units = plan.chunk_units::<K>(chunk).saturating_sub(first);
            pack_block(chunk, (0, panels), (first, units.min(UNITS_PER_TASK)));
        });
    }
}

/// Whether a product is too small to be shared out.
fn is_serial(m: usize, k: usize, n: usize) -> bool {
    m * k * n <= SERIAL_WORK
}

fn run_tasks(serial: bool, count: usize, task: impl Fn(usize) + Sync + Send) {
    if serial {
        (0..count).for_each(task);
    } else {
        parallel::for_each_task(count, task);
    }
}

/// Floats of the packed form of a `[k, n]` operand; `k` is not 0.
pub(super) fn packed_len<K: BlockKernel>(k: usize, n: usize) -> usize {
    let plan = Plan::new::<K>(1, k, n);
    plan.packed_len::<K>(plan.b_panels)
}

/// Packs `b`, checked and without an extent of 0, into `dst` of [`packed_len`].
pub(super) fn pack_b<K: BlockKernel>(kernel: K, b: MatRef, dst: &mut [f32], serial: bool) {
    // How `b` is packed does not depend on the rows of `a`.
    let plan = Plan::new::<K>(1, b.rows, b.cols);
    // SAFETY: `pack_all` passes sources and places that it checked.
    let pack_panel = |src, dst, units| unsafe { kernel.pack_b(src, dst, units) };
    pack_all::<K>(b.t(), &plan, plan.b_panels, dst, serial, &pack_panel);
}

/// `out = a b`, or `out += a b`, then `finish(row, first column, segment)` for every segment of a row of `out`.
///
/// Callers have checked the operands ([`MatRef::check`]); no extent is 0.
pub(super) fn multiply<K: BlockKernel>(
    kernel: K,
    a: MatRef,
    b: MatRef,
    out: &mut [f32],
    accumulate: bool,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync + Send,
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    with_scratch(packed_len::<K>(k, n), |packed_b| {
        pack_b(kernel, b, packed_b, is_serial(m, k, n));
        multiply_packed(kernel, a, packed_b, n, out, accumulate, finish);
    });
}

/// As [`multiply`] with a `b` of `n` columns that [`pack_b`] has packed.
pub(super) fn multiply_packed<K: BlockKernel>(
    kernel: K,
    a: MatRef,
    packed_b: &[f32],
    n: usize,
    out: &mut [f32],
    accumulate: bool,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync + Send,
) {
    let (m, k) = (a.rows, a.cols);
    assert_eq!(out.len(), m * n);
    assert_eq!(packed_b.len(), packed_len::<K>(k, n));
    let plan = Plan::new::<K>(m, k, n);
    let serial = is_serial(m, k, n);
    // Rows of `a` are packed by the task that needs them, whose cache then holds them; unless
    // several tasks need them.
    let whole_a = plan.column_tasks > 1;
    let a_panels = if whole_a {
        m.div_ceil(PANEL).next_multiple_of(K::PANEL_STEP)
    } else {
        0
    };
    with_scratch(plan.packed_len::<K>(a_panels), |packed_a| {
        if whole_a {
            // SAFETY: `pack_all` passes sources and places that it checked.
            let pack_panel = |src, dst, units| unsafe { kernel.pack_a(src, dst, units) };
            pack_all::<K>(a, &plan, a_panels, packed_a, serial, &pack_panel);
        }
        let task = Task {
            kernel,
            plan: &plan,
            a,
            packed_a: whole_a.then_some((&*packed_a, a_panels)),
            packed_b,
            n,
            out: SharedMut::new(out),
            accumulate,
        };
        run_tasks(serial, plan.row_tasks * plan.column_tasks, |index| {
            let (i, j) = (index / plan.column_tasks, index % plan.column_tasks);
            let (rows, columns) = (plan.rows::<K>(i), plan.columns::<K>(j));
            let (first, columns) = (columns.start, columns.len());
            // SAFETY: tasks cover disjoint blocks of `out`.
            unsafe { task.run(rows.clone(), first, columns) };
            for row in rows {
                // SAFETY: this segment belongs to this task alone and is now initialised.
                let segment = unsafe {
                    let start = task.out.ptr().add(row * n + first);
                    std::slice::from_raw_parts_mut(start, columns)
                };
                finish(row, first, segment);
            }
        });
    });
}

/// A weight that [`pack_b`] has packed, the columns of its product, and what follows that: `finish(row, first column,
/// segment)` for every segment of a row.
pub(super) struct Layer<'a, F> {
    pub(super) packed: &'a [f32],
    pub(super) n: usize,
    pub(super) finish: F,
}

/// Whether [`multiply_twice`] is the faster way: it has rows enough to share out, as it computes all columns of a row in
/// one task, and what such a task uses again and again fits the second-level cache beside the weights that pass by. No
/// extent is 0.
pub(super) fn pays_twice<K: BlockKernel>(_: K, [m, k, between, n]: [usize; 4]) -> bool {
    let plan = Plan::new::<K>(m, k, between);
    let part = K::PART.min(between.div_ceil(K::DEPTH));
    let width = part * K::DEPTH;
    let units = K::TASK_ROWS * (plan.units + width + part + n) + plan.units * width + part * n;
    plan.row_tasks >= FEW_TASKS && 4 * units <= K::SECOND_LEVEL
}

/// The second layer of the first layer of `a`, with the same sums in the same order as two products one after the other.
/// What is between them, a part of the second's `k` at a time, stays in the cache of the task that computes it.
///
/// No extent is 0.
pub(super) fn multiply_twice<K: BlockKernel>(
    kernel: K,
    a: MatRef,
    first: Layer<impl Fn(usize, usize, &mut [f32]) + Sync + Send>,
    second: Layer<impl Fn(usize, usize, &mut [f32]) + Sync + Send>,
    out: &mut [f32],
) {
    let (m, k, n) = (a.rows, a.cols, second.n);
    assert_eq!(out.len(), m * n);
    assert_eq!(first.packed.len(), packed_len::<K>(k, first.n));
    assert_eq!(second.packed.len(), packed_len::<K>(first.n, n));
    let (plan, next) = (Plan::new::<K>(m, k, first.n), Plan::new::<K>(m, first.n, n));
    // Columns between the layers that are computed at a time: whole panels of `b`.
    let part = K::PART.min(next.chunk);
    let width = part * K::DEPTH;
    assert!(width.is_multiple_of(PANEL * K::PANEL_STEP));
    let out = SharedMut::new(out);
    run_tasks(false, plan.row_tasks, |task| {
        let rows = plan.rows::<K>(task);
        let panels = rows.len().div_ceil(PANEL).next_multiple_of(K::PANEL_STEP);
        let lens = [
            plan.packed_len::<K>(panels),
            rows.len() * width,
            panels * part * PANEL,
        ];
        with_scratch(lens.iter().sum(), |scratch| {
            let (packed_a, rest) = scratch.split_at_mut(lens[0]);
            let (between, packed) = rest.split_at_mut(lens[1]);
            // SAFETY: `pack` passes sources and places that were checked.
            let pack_panel = |src, dst, units| unsafe { kernel.pack_a(src, dst, units) };
            let pack = |x: MatRef<'_>, panel: usize, range: (usize, usize), dst: &mut [f32]| {
                let dst = (dst.as_mut_ptr(), range.1 * PANEL);
                // SAFETY: callers checked `a`, and `between` is as large as its matrix; `dst` holds `panels` panels of these
                // units.
                unsafe { pack::<K>(x, (panel, panels), range, dst, &pack_panel) };
            };
            for chunk in 0..plan.chunks {
                let range = (chunk * plan.chunk, plan.chunk_units::<K>(chunk));
                let at = plan.offset::<K>(panels, chunk, 0);
                pack(a, rows.start / PANEL, range, &mut packed_a[at..]);
            }
            for (chunk, at) in next.parts::<K>(part) {
                let column = (chunk * next.chunk + at) * K::DEPTH;
                let columns = width.min(first.n - column);
                for chunk in 0..plan.chunks {
                    let units = plan.chunk_units::<K>(chunk);
                    let b = plan.offset::<K>(plan.b_panels, chunk, column / PANEL);
                    let block = Block {
                        a: packed_a[plan.offset::<K>(panels, chunk, 0)..].as_ptr(),
                        b: first.packed[b..].as_ptr(),
                        units,
                        b_panel: units * PANEL,
                        rows: rows.len(),
                        columns,
                        c: between.as_mut_ptr(),
                        c_stride: width,
                        accumulate: chunk > 0,
                    };
                    // SAFETY: operands are packed, and `between` holds this many rows of `width`.
                    unsafe { kernel.multiply(block) };
                }
                for (row, segment) in rows.clone().zip(between.chunks_exact_mut(width)) {
                    (first.finish)(row, column, &mut segment[..columns]);
                }
                let x = MatRef {
                    data: between,
                    rows: rows.len(),
                    cols: columns,
                    row_stride: width,
                    col_stride: 1,
                };
                let whole = next.chunk_units::<K>(chunk);
                let units = part.min(whole - at);
                pack(x, 0, (0, units), packed);
                let b = next.offset::<K>(next.b_panels, chunk, 0) + at * PANEL;
                let block = Block {
                    a: packed.as_ptr(),
                    b: second.packed[b..].as_ptr(),
                    units,
                    b_panel: whole * PANEL,
                    rows: rows.len(),
                    columns: n,
                    c: out.ptr().wrapping_add(rows.start * n),
                    c_stride: n,
                    accumulate: column > 0,
                };
                // SAFETY: operands are packed; these rows of `out` belong to this task alone.
                unsafe { kernel.multiply(block) };
            }
        });
        for row in rows {
            // SAFETY: the row belongs to this task alone and is now initialised.
            let y = unsafe { std::slice::from_raw_parts_mut(out.ptr().add(row * n), n) };
            (second.finish)(row, 0, y);
        }
    });
}

/// What the tasks of a product share.
struct Task<'a, K> {
    kernel: K,
    plan: &'a Plan,
    a: MatRef<'a>,
    /// All of `a` and its number of panels, if it is packed as a whole.
    packed_a: Option<(&'a [f32], usize)>,
    packed_b: &'a [f32],
    /// Columns of `out`.
    n: usize,
    out: SharedMut,
    accumulate: bool,
}

impl<K: BlockKernel> Task<'_, K> {
    /// One block of `out`, over all of `k`; it starts at whole panels.
    ///
    /// # Safety
    /// The block lies in `out` and nothing else touches it.
    unsafe fn run(&self, rows: Range<usize>, column: usize, columns: usize) {
        let (plan, row) = (self.plan, rows.start);
        let panels = rows.len().div_ceil(PANEL).next_multiple_of(K::PANEL_STEP);
        let own_len = if self.packed_a.is_none() {
            panels * plan.chunk * PANEL
        } else {
            0
        };
        with_scratch(own_len, |own_a| {
            for chunk in 0..plan.chunks {
                let units = plan.chunk_units::<K>(chunk);
                let a = match self.packed_a {
                    Some((packed, all)) => {
                        packed[plan.offset::<K>(all, chunk, row / PANEL)..].as_ptr()
                    }
                    None => {
                        let range = (chunk * plan.chunk, units);
                        let dst = (own_a.as_mut_ptr(), units * PANEL);
                        // SAFETY: `a` was checked; `own_a` holds `panels` panels of a chunk.
                        unsafe {
                            let pack_panel = |src, dst, units| self.kernel.pack_a(src, dst, units);
                            pack::<K>(self.a, (row / PANEL, panels), range, dst, &pack_panel);
                        }
                        own_a.as_ptr()
                    }
                };
                let at = plan.offset::<K>(plan.b_panels, chunk, column / PANEL);
                // SAFETY: both operands are packed; the caller promises the block of `out`.
                unsafe {
                    self.kernel.multiply(Block {
                        a,
                        b: self.packed_b[at..].as_ptr(),
                        units,
                        b_panel: units * PANEL,
                        rows: rows.len(),
                        columns,
                        c: self.out.ptr().add(row * self.n + column),
                        c_stride: self.n,
                        accumulate: self.accumulate || chunk > 0,
                    });
                }
            }
        });
    }
}
