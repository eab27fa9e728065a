//! Working memory that a thread keeps between calls: as much as its largest calls needed, so that
//! no call pays for fresh pages.

use crate::aligned::AlignedBytes;
use std::cell::RefCell;

thread_local! {
    /// Free buffers; the last one returned is the next one lent, so that nested users get the same
    /// buffers, already large enough, every time.
    static FREE: RefCell<Vec<AlignedFloats>> = const { RefCell::new(Vec::new()) };
}

/// Floats that start on a cache line, to be kept.
pub(crate) struct AlignedFloats(AlignedBytes);

impl AlignedFloats {
    pub(crate) fn zeros(len: usize) -> Self {
        Self(AlignedBytes::zeroed(len * size_of::<f32>()))
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        let bytes: &[u8] = &self.0;
        // SAFETY: whole floats, aligned to a cache line, all initialised.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<f32>()) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        let bytes: &mut [u8] = &mut self.0;
        let len = bytes.len() / size_of::<f32>();
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) }
    }
}

/// Runs `task` with a buffer of `len` floats that starts on a cache line and holds arbitrary
/// (initialised) values. `task` may call this again, and may wait for other threads.
pub(crate) fn with_scratch<R>(len: usize, task: impl FnOnce(&mut [f32]) -> R) -> R {
    let free = FREE.with_borrow_mut(Vec::pop);
    // Nothing to keep of one that is too small: a new allocation spares the copy.
    let mut buffer = match free {
        Some(buffer) if buffer.as_slice().len() >= len => buffer,
        _ => AlignedFloats::zeros(len),
    };
    let result = task(&mut buffer.as_mut_slice()[..len]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

/// Floats of all buffers that this thread keeps.
#[cfg(test)]
pub(crate) fn held_floats() -> usize {
    FREE.with_borrow(|free| free.iter().map(|buffer| buffer.as_slice().len()).sum())
}
