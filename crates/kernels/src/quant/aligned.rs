//! Bytes that start on a cache line, and those of a model together on huge pages.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

const LINE: usize = 64;
/// Reading weights of a hundred megabytes through pages of 4 KiB takes up to twice the time, and matrices smaller than a
/// huge page are no exception: together they are as large.
const HUGE_PAGE: usize = 2 << 20;
/// What matrices lie in side by side. Pages that were never written take no memory, unless an interpreter writes them all.
const REGION: usize = if cfg!(miri) { 1 << 20 } else { 64 << 20 };
/// Less has memory of its own, without a huge page for so little.
const SMALL: usize = 64 << 10;

/// Memory that is freed when the last who holds a part of it lets go.
struct Region {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a region hands out its memory once, to holders that own their parts.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn new(len: usize) -> Self {
        let align = if len < SMALL { LINE } else { HUGE_PAGE };
        let size = len.max(1).checked_next_multiple_of(align);
        let layout = size.and_then(|size| Layout::from_size_align(size, align).ok());
        let layout = layout.expect("callers check the length");
        // SAFETY: the layout's size is not 0.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        if align == HUGE_PAGE {
            ask_for_huge_pages(start, layout.size());
        }
        Self { start, layout }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A hint: where it is refused, nothing changes.
#[cfg(all(target_os = "linux", not(miri)))]
fn ask_for_huge_pages(start: NonNull<u8>, len: usize) {
    // SAFETY: the range is ours; the advice does not change its contents.
    unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn ask_for_huge_pages(_: NonNull<u8>, _: usize) {}

/// Gives places in one region after the other.
struct Regions {
    /// The region that is being filled, as long as anyone holds a part of it.
    region: Weak<Region>,
    /// How much of it was given, in whole lines.
    given: usize,
}

impl Regions {
    const fn new() -> Self {
        Self {
            region: Weak::new(),
            given: 0,
        }
    }

    /// A place for `len` bytes: a region and where in it.
    fn place(&mut self, len: usize) -> (Arc<Region>, usize) {
        if !(SMALL..=REGION / 2).contains(&len) {
            return (Arc::new(Region::new(len)), 0);
        }
        let current = self.region.upgrade();
        let current = current.filter(|_| len <= REGION - self.given);
        let region = current.unwrap_or_else(|| {
            let new = Arc::new(Region::new(REGION));
            (self.region, self.given) = (Arc::downgrade(&new), 0);
            new
        });
        let at = self.given;
        self.given += len.next_multiple_of(LINE);
        (region, at)
    }
}

/// A fixed number of bytes, initially 0.
pub(super) struct AlignedBytes {
    /// Keeps the memory.
    _region: Arc<Region>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes belong to this value alone, as those of a `Box<[u8]>` do.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    pub(super) fn zeroed(len: usize) -> Self {
        static REGIONS: Mutex<Regions> = Mutex::new(Regions::new());
        let mut regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
        let (region, at) = regions.place(len);
        drop(regions);
        // SAFETY: the place lies in the region and is no one else's.
        let start = unsafe {
            let start = region.start.add(at);
            start.write_bytes(0, len);
            start
        };
        Self {
            _region: region,
            start,
            len,
        }
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes in one allocation.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever is written does not change the others, whichever were let go before.
    #[test]
    fn parts_of_regions_are_apart_start_on_lines_and_are_0() {
        let most = if cfg!(miri) { 200 << 10 } else { 9 << 20 };
        let mut held: Vec<(u8, AlignedBytes)> = Vec::new();
        for round in 0..if cfg!(miri) { 6 } else { 60_u8 } {
            let len = usize::from(round) * 7919 * 7919 % most;
            let mut bytes = AlignedBytes::zeroed(len);
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr().addr() % LINE, 0);
            assert!(bytes.iter().all(|&byte| byte == 0), "{round}");
            bytes.fill(round + 1);
            held.push((round + 1, bytes));
            if round % 3 == 2 {
                held.remove(usize::from(round) * 31 % held.len());
            }
        }
        for (mark, bytes) in &held {
            assert!(bytes.iter().all(|byte| byte == mark), "{mark}");
        }
    }

    #[test]
    fn parts_share_a_region_that_goes_with_the_last() {
        let mut regions = Regions::new();
        let part = SMALL + 1;
        let (first, at) = regions.place(part);
        assert_eq!(at, 0);
        let (second, at) = regions.place(part);
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(at, SMALL + LINE);
        // What does not fit any more, or would leave little for others, lies elsewhere.
        let rest = REGION - regions.given;
        let halves = [0, 1].map(|_| regions.place(REGION / 2).0);
        assert!(rest < REGION && !Arc::ptr_eq(&halves[0], &halves[1]));
        for len in [0, SMALL - 1, REGION / 2 + 1] {
            let (own, at) = regions.place(len);
            assert_eq!((Arc::strong_count(&own), at), (1, 0), "{len}");
        }
        let weak = Arc::downgrade(&first);
        drop(first);
        assert!(weak.upgrade().is_some());
        drop((second, halves));
        assert!(weak.upgrade().is_none() && regions.region.upgrade().is_none());
        assert_eq!(regions.place(part).1, 0, "a new one");
    }
}
