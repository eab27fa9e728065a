//! Cutting work into tasks whose number depends on the size of the problem alone.

mod team;

use rayon::prelude::*;
use std::marker::PhantomData;

pub use team::in_team;

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
    } else if !team::run(count, &task) {
        (0..count).into_par_iter().for_each(task);
    }
}

/// Runs `task(0..count)` for tasks of `work` multiplications each, so many to a parallel job that
/// small ones do not pay for being shared out.
pub(crate) fn for_each_task_of(work: usize, count: usize, task: impl Fn(usize) + Sync + Send) {
    const JOB_WORK: usize = 256 * 1024;
    /// Where no thread needs to be woken.
    const TEAM_JOB_WORK: usize = 32 * 1024;
    let job_work = if team::is_giver() {
        TEAM_JOB_WORK
    } else {
        JOB_WORK
    };
    let per_job = (job_work / work.max(1)).max(1);
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
    let all = Chunks::new(out, chunk);
    // SAFETY: every task has its own chunk.
    for_each_task(all.count(), |i| task(i, unsafe { all.get(i) }));
}

/// As [`for_each_chunk`] for two slices that are cut into equally many.
pub(crate) fn for_each_chunk2(
    a: (&mut [f32], usize),
    b: (&mut [f32], usize),
    task: impl Fn(usize, &mut [f32], &mut [f32]) + Sync + Send,
) {
    let (a, b) = (Chunks::new(a.0, a.1), Chunks::new(b.0, b.1));
    for_each_task(a.count().min(b.count()), |i| {
        // SAFETY: every task has its own chunks.
        let (a, b) = unsafe { (a.get(i), b.get(i)) };
        task(i, a, b);
    });
}

/// A slice in chunks, of which the last may be shorter.
struct Chunks<'a> {
    data: SharedMut,
    len: usize,
    chunk: usize,
    _slice: PhantomData<&'a mut [f32]>,
}

impl<'a> Chunks<'a> {
    fn new(data: &'a mut [f32], chunk: usize) -> Self {
        assert!(chunk > 0 || data.is_empty(), "chunks of nothing");
        Self {
            len: data.len(),
            data: SharedMut::new(data),
            chunk: chunk.max(1),
            _slice: PhantomData,
        }
    }

    fn count(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    /// # Safety
    /// No one else has chunk `i`, one of [`Self::count`].
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self, i: usize) -> &mut [f32] {
        let at = i * self.chunk;
        let len = self.chunk.min(self.len - at);
        // SAFETY: within the slice, which is borrowed; the caller promises that it is not shared.
        unsafe { std::slice::from_raw_parts_mut(self.data.ptr().add(at), len) }
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
