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
    /// Asks for the cache line at `p`, which need not be readable.
    fn prefetch(self, p: *const u8);
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
