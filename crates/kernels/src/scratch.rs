//! Working memory that a thread keeps between calls.

use std::cell::Cell;

/// One cache line, so that buffers start on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    static KEPT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Runs `task` with a buffer of `len` floats that starts on a cache line and holds arbitrary
/// (initialised) values. A nested call gets a buffer of its own.
pub(crate) fn with_scratch<R>(len: usize, task: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = KEPT.take();
    let needed = len.div_ceil(16);
    if lines.len() < needed {
        lines.resize(needed, Line([0.0; 16]));
    }
    // SAFETY: `lines` holds at least `len` floats in one allocation, all initialised.
    let buffer = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), len) };
    let result = task(buffer);
    KEPT.set(lines);
    result
}
