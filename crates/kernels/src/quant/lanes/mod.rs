//! Sixteen rows of integer weights at a time.
//!
//! Packed weights hold 64 bytes for four neighbours along `k` of 16 rows, `[16][4]`. One step
//! multiplies them with the same four activations for all rows and adds to 16 sums, so that no sum
//! is ever taken across lanes. Every instruction set computes the same 32-bit integers.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::{Avx2, AvxVnni};
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512Vnni;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::NeonDot;
pub(super) use portable::Portable;

use crate::cpu_features::{IntegerIsa, integer_isa};
use crate::simd::each;

/// Rows of a panel of packed weights.
pub(super) const PANEL: usize = 16;

/// Integer products and the floating-point arithmetic that scales them, on vectors of 16 rows.
///
/// Holding a token proves that the processor has its instructions. Pointers need no alignment.
pub(super) trait Lanes: Copy {
    /// 64 bytes: four neighbours along `k` of each row.
    type Bytes: Copy;
    /// A 32-bit integer per row.
    type Ints: Copy;
    /// An `f32` per row.
    type Floats: Copy;

    /// Weights of 8 bits are stored as `w + 128`. Where the product is taken of the stored byte,
    /// this is 128, and sums start at `-128 * sum of activations`; else 0.
    const BYTE_ZERO: i32;

    /// # Safety
    /// 64 bytes are readable at `p`.
    unsafe fn load(self, p: *const u8) -> Self::Bytes;
    /// # Safety
    /// 64 bytes are writable at `p`.
    unsafe fn store(self, p: *mut u8, x: Self::Bytes);
    fn and(self, x: Self::Bytes, mask: u8) -> Self::Bytes;
    fn or(self, x: Self::Bytes, y: Self::Bytes) -> Self::Bytes;
    /// Bits move by `N` < 8 positions, perhaps into the neighbouring byte: mask them afterwards.
    fn shift_left<const N: u32>(self, x: Self::Bytes) -> Self::Bytes;
    /// As [`Self::shift_left`], to the right.
    fn shift_right<const N: u32>(self, x: Self::Bytes) -> Self::Bytes;

    /// `sums + w a` over 16 neighbours along `k`: vector `i` of `w` with the four signed
    /// activations at `a + i * stride`.
    ///
    /// `BITS` says how large weights are: below `1 << BITS`, or (for 8) bytes `w + 128`, whose
    /// offset counts as [`Self::BYTE_ZERO`] says. Activations lie in `-127..=127`.
    ///
    /// # Safety
    /// Four bytes are readable at each of these places.
    unsafe fn dot<const BITS: u32>(
        self,
        sums: Self::Ints,
        w: [Self::Bytes; 4],
        a: *const u8,
        stride: usize,
    ) -> Self::Ints;

    /// Adds the products of a tile of `R` rows of activations, `[k / 4][R][4]` at `a`, with weights of a byte per
    /// code, `[k / 4][16][4]` at `w`, over `quads` times 16 of `k`. `BITS` is as for [`Self::dot`].
    ///
    /// # Safety
    /// `quads * 256` bytes are readable at `w` and `quads * 16 * R` at `a`.
    #[inline(always)]
    unsafe fn dot_tile<const BITS: u32, const R: usize>(
        self,
        sums: &mut [Self::Ints; R],
        w: *const u8,
        a: *const u8,
        quads: usize,
    ) {
        for quad in 0..quads {
            // SAFETY: promised by the caller.
            unsafe {
                let w = w.add(quad * 256);
                let w = each!(i in 4 => self.load(w.add(64 * i)));
                let a = a.add(quad * 16 * R);
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = self.dot::<BITS>(*sum, w, a.add(4 * r), 4 * R);
                }
            }
        }
    }

    fn splat_int(self, x: i32) -> Self::Ints;
    /// # Safety
    /// 16 integers are readable at `p`.
    unsafe fn load_ints(self, p: *const i32) -> Self::Ints;
    /// # Safety
    /// 16 integers are writable at `p`.
    unsafe fn store_ints(self, p: *mut i32, x: Self::Ints);
    fn to_floats(self, x: Self::Ints) -> Self::Floats;

    fn splat(self, x: f32) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a * b`
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// # Safety
    /// 16 floats are readable at `p`.
    unsafe fn load_floats(self, p: *const f32) -> Self::Floats;
    /// # Safety
    /// 16 floats are writable at `p`.
    unsafe fn store_floats(self, p: *mut f32, x: Self::Floats);
    /// 16 half-precision floats.
    ///
    /// # Safety
    /// 32 bytes are readable at `p`.
    unsafe fn load_halves(self, p: *const u8) -> Self::Floats;
    /// 16 unsigned bytes, as floats.
    ///
    /// # Safety
    /// 16 bytes are readable at `p`.
    unsafe fn load_unsigned(self, p: *const u8) -> Self::Floats;
    /// 16 signed bytes, as floats.
    ///
    /// # Safety
    /// 16 bytes are readable at `p`.
    unsafe fn load_signed(self, p: *const u8) -> Self::Floats;
    /// Asks for the cache line at `p`, which need not be readable, in the second-level cache.
    fn prefetch(self, p: *const u8);
    /// Asks for the cache line at `p`, which need not be writable, in order to write it.
    fn prefetch_write(self, p: *const f32);
}

/// Rows of activations in a tile of a large product, on the instruction set in use: what
/// [`lanes_dispatch`] passes as `R`.
pub(super) fn tile_rows() -> usize {
    match integer_isa() {
        IntegerIsa::Avx512Vnni => 8,
        _ => 4,
    }
}

/// [`Lanes::BYTE_ZERO`] of the instruction set in use.
pub(super) fn byte_zero() -> i32 {
    match integer_isa() {
        IntegerIsa::Portable => Portable::BYTE_ZERO,
        #[cfg(target_arch = "x86_64")]
        IntegerIsa::Avx2 => Avx2::BYTE_ZERO,
        #[cfg(target_arch = "x86_64")]
        IntegerIsa::AvxVnni => AvxVnni::BYTE_ZERO,
        #[cfg(target_arch = "x86_64")]
        IntegerIsa::Avx512Vnni => Avx512Vnni::BYTE_ZERO,
        #[cfg(target_arch = "aarch64")]
        IntegerIsa::NeonDot => NeonDot::BYTE_ZERO,
        #[allow(unreachable_patterns)]
        other => unreachable!("{other:?} belongs to another architecture"),
    }
}

/// Declares an `unsafe fn` that runs `kernel::<token type, (F,) rows of a tile>(token, arguments...)`,
/// an `#[inline(always)]` function, compiled for the best instructions in use.
macro_rules! lanes_dispatch {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident $(<$f:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) = $kernel:ident;) => {
        $(#[$meta])*
        $vis unsafe fn $name$(<$f: $bound>)?($($arg: $ty),*) {
            use $crate::cpu_features::{IntegerIsa, integer_isa};
            use $crate::quant::lanes;

            #[cfg(target_arch = "x86_64")]
            #[target_feature(
                enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"
            )]
            unsafe fn avx512$(<$f: $bound>)?(token: lanes::Avx512Vnni, $($arg: $ty),*) {
                // SAFETY: promised by the caller.
                unsafe { $kernel::<_, $($f,)? 8>(token, $($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
            unsafe fn avx_vnni$(<$f: $bound>)?(token: lanes::AvxVnni, $($arg: $ty),*) {
                // SAFETY: promised by the caller.
                unsafe { $kernel::<_, $($f,)? 4>(token, $($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2$(<$f: $bound>)?(token: lanes::Avx2, $($arg: $ty),*) {
                // SAFETY: promised by the caller.
                unsafe { $kernel::<_, $($f,)? 4>(token, $($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,dotprod")]
            unsafe fn neon$(<$f: $bound>)?(token: lanes::NeonDot, $($arg: $ty),*) {
                // SAFETY: promised by the caller.
                unsafe { $kernel::<_, $($f,)? 4>(token, $($arg),*) }
            }
            // SAFETY: `integer_isa` found the features; the rest is promised by the caller.
            unsafe {
                match integer_isa() {
                    #[cfg(target_arch = "x86_64")]
                    IntegerIsa::Avx512Vnni => {
                        avx512$(::<$f>)?(lanes::Avx512Vnni::assume_detected(), $($arg),*)
                    }
                    #[cfg(target_arch = "x86_64")]
                    IntegerIsa::AvxVnni => {
                        avx_vnni$(::<$f>)?(lanes::AvxVnni::assume_detected(), $($arg),*)
                    }
                    #[cfg(target_arch = "x86_64")]
                    IntegerIsa::Avx2 => avx2$(::<$f>)?(lanes::Avx2::assume_detected(), $($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    IntegerIsa::NeonDot => neon$(::<$f>)?(lanes::NeonDot::assume_detected(), $($arg),*),
                    _ => $kernel::<_, $($f,)? 4>(lanes::Portable, $($arg),*),
                }
            }
        }
    };
}
pub(super) use lanes_dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 4;

    /// Sums of `quads` quads for four rows of activations, in both ways to compute them.
    fn sums<S: Lanes, const BITS: u32>(
        s: S,
        w: &[u8],
        a: &[u8],
        quads: usize,
    ) -> [[i32; PANEL]; ROWS] {
        assert!(w.len() >= quads * 256 && a.len() >= quads * 16 * ROWS);
        let zero = if BITS == 8 { S::BYTE_ZERO } else { 0 };
        let starts: [i32; ROWS] = std::array::from_fn(|r| {
            let of_row = a[..quads * 16 * ROWS].chunks_exact(4).skip(r).step_by(ROWS);
            let codes = of_row.flatten().map(|&code| i32::from(code.cast_signed()));
            -zero * codes.sum::<i32>()
        });
        let mut tiles = starts.map(|start| s.splat_int(start));
        let mut singles = starts.map(|start| s.splat_int(start));
        let mut found = [[[0; PANEL]; ROWS]; 2];
        // SAFETY: the lengths were checked above; results are 16 integers each.
        unsafe {
            s.dot_tile::<BITS, ROWS>(&mut tiles, w.as_ptr(), a.as_ptr(), quads);
            for quad in 0..quads {
                let w = w[quad * 256..].as_ptr();
                let w = each!(i in 4 => s.load(w.add(64 * i)));
                for (r, sum) in singles.iter_mut().enumerate() {
                    let a = a[quad * 16 * ROWS + 4 * r..].as_ptr();
                    *sum = s.dot::<BITS>(*sum, w, a, 4 * ROWS);
                }
            }
            for (found, sums) in found.iter_mut().zip([tiles, singles]) {
                for (found, sums) in found.iter_mut().zip(sums) {
                    s.store_ints(found.as_mut_ptr(), sums);
                }
            }
        }
        assert_eq!(found[0], found[1], "{BITS} bits, {quads} quads");
        found[0]
    }

    /// The sums by their definition.
    fn defined<const BITS: u32>(w: &[u8], a: &[u8], quads: usize) -> [[i32; PANEL]; ROWS] {
        let mut sums = [[0; PANEL]; ROWS];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                for k in 0..16 * quads {
                    let w = i32::from(w[k / 4 * 64 + j * 4 + k % 4]);
                    let w = if BITS == 8 { w - 128 } else { w };
                    let a = a[(k / 4 * ROWS + r) * 4 + k % 4].cast_signed();
                    *sum += w * i32::from(a);
                }
            }
        }
        sums
    }

    fn compare<const BITS: u32>() {
        let random = |i: usize, seed: usize| {
            let mixed = (i as u64 + 1 + (seed as u64) * 77).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 40) as u8
        };
        for (quads, extremes) in [(1, false), (2, false), (4, false), (7, false), (2, true)] {
            let largest = ((1_u32 << BITS) - 1) as u8;
            let w: Vec<u8> = (0..quads * 256)
                .map(|i| {
                    if extremes {
                        largest
                    } else {
                        random(i, 1) & largest
                    }
                })
                .collect();
            let a: Vec<u8> = (0..quads * 16 * ROWS)
                .map(|i| match (extremes, i / 4 % ROWS) {
                    (true, 0 | 2) => 127,
                    (true, _) => 0x81,
                    // -128 does not occur.
                    (false, _) => random(i, 2).max(1) ^ 0x80,
                })
                .collect();
            let expected = defined::<BITS>(&w, &a, quads);
            let check = |name, found| assert_eq!(found, expected, "{name}, {BITS} bits");
            check("portable", sums::<_, BITS>(Portable, &w, &a, quads));
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            {
                let avx2 = is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c");
                if avx2 {
                    // SAFETY: the features were found.
                    let token = unsafe { Avx2::assume_detected() };
                    check("avx2", sums::<_, BITS>(token, &w, &a, quads));
                }
                if avx2 && is_x86_feature_detected!("avxvnni") {
                    // SAFETY: the features were found.
                    let token = unsafe { AvxVnni::assume_detected() };
                    check("avx-vnni", sums::<_, BITS>(token, &w, &a, quads));
                }
                if avx2
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
                {
                    // SAFETY: the features were found.
                    let token = unsafe { Avx512Vnni::assume_detected() };
                    check("avx512-vnni", sums::<_, BITS>(token, &w, &a, quads));
                }
            }
            #[cfg(target_arch = "aarch64")]
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                // SAFETY: the feature was found.
                let token = unsafe { NeonDot::assume_detected() };
                check("neon-dotprod", sums::<_, BITS>(token, &w, &a, quads));
            }
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same_32_bit_sums() {
        compare::<4>();
        compare::<5>();
        compare::<6>();
        compare::<8>();
    }
}
