//! Working memory that a thread keeps between calls: as much as its largest calls needed, so that
//! no call pays for fresh pages.

use std::cell::RefCell;

/// One cache line, so that buffers start on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// Free buffers; the last one returned is the next one lent, so that nested users get the same
    /// buffers, already large enough, every time.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Floats that start on a cache line, to be kept.
pub(crate) struct AlignedFloats {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedFloats {
    pub(crate) fn zeros(len: usize) -> Self {
        Self {
            lines: vec![Line([0.0; 16]); len.div_ceil(16)],
            len,
        }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: `lines` holds at least `len` floats in one allocation, all initialised.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<f32>(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<f32>(), self.len) }
    }
}

/// Runs `task` with a buffer of `len` floats that starts on a cache line and holds arbitrary
/// (initialised) values. `task` may call this again, and may wait for other threads.
pub(crate) fn with_scratch<R>(len: usize, task: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let needed = len.div_ceil(16);
    if lines.len() < needed {
        // Nothing to keep: a new allocation spares the copy.
        lines = vec![Line([0.0; 16]); needed];
    }
    // SAFETY: `lines` holds at least `len` floats in one allocation, all initialised.
    let buffer = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), len) };
    let result = task(buffer);
    FREE.with_borrow_mut(|free| free.push(lines));
    result
}

/// Floats of all buffers that this thread keeps.
#[cfg(test)]
pub(crate) fn held_floats() -> usize {
    FREE.with_borrow(|free| free.iter().map(|lines| 16 * lines.len()).sum())
}
