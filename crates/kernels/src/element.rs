//! What numbers are stored as; they are computed with as `f32`.

use crate::simd::{MOST_LANES, Simd, simd_dispatch};
use half::f16;

/// `f32`, or `f16` for what is read often: keys and values of texts in the making.
pub trait Element: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// Rounds `x` to elements: to the nearest halves, ties to even, and what is larger than 65504 to that.
    ///
    /// # Panics
    /// If the lengths differ.
    fn round(x: &[f32], out: &mut [Self]);

    /// The first `LANES` elements; missing ones are 0.
    #[doc(hidden)]
    fn load<S: Simd>(s: S, x: &[Self]) -> S::V;

    /// # Safety
    /// `LANES` elements are readable at `p`.
    #[doc(hidden)]
    unsafe fn load_ptr<S: Simd>(s: S, p: *const Self) -> S::V;

    /// Floats that [`Self::floats`] needs for each element.
    #[doc(hidden)]
    const ROOM: usize;

    /// `rows` rows of `cols` elements as floats, in `room` unless they are floats: pointer and distance between rows.
    ///
    /// # Safety
    /// The rows are readable at `p`, a `stride` apart.
    #[doc(hidden)]
    unsafe fn floats(
        rows: (*const Self, usize),
        size: [usize; 2],
        room: &mut [f32],
    ) -> (*const f32, usize);
}

impl Element for f32 {
    const ROOM: usize = 0;

    fn round(x: &[f32], out: &mut [Self]) {
        out.copy_from_slice(x);
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self]) -> S::V {
        s.load(x)
    }

    #[inline(always)]
    unsafe fn load_ptr<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: promised by the caller.
        unsafe { s.load_ptr(p) }
    }

    unsafe fn floats(
        rows: (*const Self, usize),
        _: [usize; 2],
        _: &mut [f32],
    ) -> (*const f32, usize) {
        rows
    }
}

impl Element for f16 {
    const ROOM: usize = 1;

    fn round(x: &[f32], out: &mut [Self]) {
        assert_eq!(x.len(), out.len(), "halves: lengths differ");
        round_to_f16(x, out);
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self]) -> S::V {
        if x.len() >= S::LANES {
            // SAFETY: there are as many.
            return unsafe { s.load_f16(x.as_ptr()) };
        }
        let mut all = [f16::ZERO; MOST_LANES];
        all[..x.len()].copy_from_slice(x);
        // SAFETY: no vector has more lanes.
        unsafe { s.load_f16(all.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load_ptr<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: promised by the caller.
        unsafe { s.load_f16(p) }
    }

    unsafe fn floats(
        (p, stride): (*const Self, usize),
        [rows, cols]: [usize; 2],
        room: &mut [f32],
    ) -> (*const f32, usize) {
        for (i, out) in room[..rows * cols]
            .chunks_exact_mut(cols.max(1))
            .enumerate()
        {
            // SAFETY: the caller promises this row.
            let row = unsafe { std::slice::from_raw_parts(p.add(i * stride), cols) };
            f16_to_f32(row, out);
        }
        (room.as_ptr(), cols)
    }
}

#[inline(always)]
fn f16_to_f32_kernel<S: Simd>(s: S, x: &[f16], out: &mut [f32]) {
    for (x, out) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
        s.store(out, f16::load(s, x));
    }
}

simd_dispatch! {
    fn f16_to_f32(x: &[f16], out: &mut [f32]) = f16_to_f32_kernel;
}

#[inline(always)]
fn round_to_f16_kernel<S: Simd>(s: S, x: &[f32], out: &mut [f16]) {
    let largest = s.splat(f16::MAX.to_f32_const());
    let smallest = s.splat(f16::MIN.to_f32_const());
    for (x, out) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
        // a comparison with NaN gives the second operand
        let v = s.max(smallest, s.min(largest, s.load(x)));
        let mut halves = [f16::ZERO; MOST_LANES];
        // SAFETY: no vector has more lanes.
        unsafe { s.store_f16(halves.as_mut_ptr(), v) };
        out.copy_from_slice(&halves[..out.len()]);
    }
}

simd_dispatch! {
    fn round_to_f16(x: &[f32], out: &mut [f16]) = round_to_f16_kernel;
}
