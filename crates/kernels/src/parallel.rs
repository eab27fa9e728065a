//! Cutting work into tasks whose number depends on the size of the problem alone.

use rayon::prelude::*;

/// Elements of cheap elementwise work that are worth a task of their own.
const TASK_ELEMENTS: usize = 16 * 1024;

/// How many rows of `row_work` elements make one task.
pub(crate) fn rows_per_task(row_work: usize) -> usize {
    (TASK_ELEMENTS / row_work.max(1)).max(1)
}

/// Elements per task of plain elementwise work.
pub(crate) const fn elements_per_task() -> usize {
    TASK_ELEMENTS
}

/// Runs `task(0..count)`, in parallel if there is more than one.
pub(crate) fn for_each_task(count: usize, task: impl Fn(usize) + Sync + Send) {
    if count <= 1 {
        (0..count).for_each(task);
    } else {
        (0..count).into_par_iter().for_each(task);
    }
}

/// Runs `task(0..count)` for tasks of `work` multiplications each, so many to a parallel job that
/// small ones do not pay for being shared out.
pub(crate) fn for_each_task_of(work: usize, count: usize, task: impl Fn(usize) + Sync + Send) {
    const JOB_WORK: usize = 256 * 1024;
    let per_job = (JOB_WORK / work.max(1)).max(1);
    for_each_task(count.div_ceil(per_job), |job| {
        (job * per_job..((job + 1) * per_job).min(count)).for_each(&task);
    });
}

/// Runs `task(index, chunk)` over the chunks of `out`, in parallel if there is more than one.
pub(crate) fn for_each_chunk(
    out: &mut [f32],
    chunk: usize,
    task: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    if out.len() <= chunk {
        if !out.is_empty() {
            task(0, out);
        }
    } else {
        out.par_chunks_mut(chunk)
            .enumerate()
            .for_each(|(index, chunk)| task(index, chunk));
    }
}

/// As [`for_each_chunk`] for two slices that are cut alike.
pub(crate) fn for_each_chunk2(
    a: (&mut [f32], usize),
    b: (&mut [f32], usize),
    task: impl Fn(usize, &mut [f32], &mut [f32]) + Sync + Send,
) {
    if a.0.len() <= a.1 && b.0.len() <= b.1 {
        if !a.0.is_empty() {
            task(0, a.0, b.0);
        }
    } else {
        a.0.par_chunks_mut(a.1)
            .zip(b.0.par_chunks_mut(b.1))
            .enumerate()
            .for_each(|(index, (a, b))| task(index, a, b));
    }
}

/// A mutable pointer that parallel tasks share; each writes elements that no other task touches.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut(*mut f32);

// SAFETY: the pointer is only dereferenced in `unsafe` blocks that state why writes are disjoint.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    pub(crate) fn new(data: &mut [f32]) -> Self {
        Self(data.as_mut_ptr())
    }

    pub(crate) fn ptr(self) -> *mut f32 {
        self.0
    }
}
