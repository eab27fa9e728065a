//! Vectors of `f32` for kernels that are written once and compiled for every instruction set.
//!
//! A kernel is an `#[inline(always)]` function over a token `s: impl Simd`. Holding a token proves
//! that the processor has the instructions, so arithmetic is safe to call. [`simd_dispatch`] makes
//! the entry point that picks the token at run time and calls the kernel inside a function with the
//! matching `#[target_feature]`, where everything inlines.

use half::f16;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, transpose16};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;

/// Lanes of the widest vector.
pub(crate) const MOST_LANES: usize = 16;

/// Arithmetic on vectors of [`Simd::LANES`] floats.
///
/// Comparisons follow x86: `max(a, b)` and `min(a, b)` are `b` if either is NaN.
// public for `Element` alone, and not to be named outside, as the module is private
pub trait Simd: Copy {
    type V: Copy;
    const LANES: usize;
    /// Whether there are 32 vector registers (else 16).
    const WIDE_FILE: bool;

    fn splat(self, x: f32) -> Self::V;
    /// The first `LANES` elements; missing ones are 0.
    fn load(self, x: &[f32]) -> Self::V;
    /// Writes the first `min(LANES, out.len())` lanes.
    fn store(self, out: &mut [f32], v: Self::V);
    /// # Safety
    /// `LANES` elements are readable at `p`.
    unsafe fn load_ptr(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` elements are writable at `p`.
    unsafe fn store_ptr(self, p: *mut f32, v: Self::V);
    /// # Safety
    /// `LANES` elements are readable at `p`.
    unsafe fn load_f16(self, p: *const f16) -> Self::V;
    /// Writes the nearest halves, ties to even.
    ///
    /// # Safety
    /// `LANES` elements are writable at `p`.
    unsafe fn store_f16(self, p: *mut f16, v: Self::V);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// 1 / a to 2e-7 relative; not for denormal or infinite `a`.
    fn reciprocal(self, a: Self::V) -> Self::V;
    /// `a * b + c`
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`
    fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// To the nearest integer.
    fn round(self, a: Self::V) -> Self::V;
    /// Writes integral lanes of -128 to 127 as signed bytes.
    ///
    /// # Safety
    /// `LANES` bytes are writable at `p`.
    unsafe fn store_bytes(self, p: *mut i8, v: Self::V);
    /// `a * 2^n` for integral `n` in -126..=127.
    fn scale_by_power_of_two(self, a: Self::V, n: Self::V) -> Self::V;
    /// `if a < b { x } else { y }` in each lane.
    fn select_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// `v` with lanes from `count` on replaced by `fill`.
    fn keep_first(self, v: Self::V, count: usize, fill: f32) -> Self::V;
    fn sum(self, a: Self::V) -> f32;
    fn maximum(self, a: Self::V) -> f32;

    /// The sums of four vectors.
    #[inline(always)]
    fn sums(self, v: [Self::V; 4]) -> [f32; 4] {
        each!(i in 4 => self.sum(v[i]))
    }

    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// Asks for the cache line at `p`, which need not exist, to be written.
    #[inline(always)]
    fn prefetch_write(self, _: *const f32) {}

    /// Writes the transpose of the `rows` x `cols` matrix at `src` (row stride `src_stride`) to
    /// `dst` (row stride `dst_stride`).
    ///
    /// # Safety
    /// `src` is readable and `dst` writable over those extents.
    #[inline(always)]
    unsafe fn transpose(
        self,
        src: *const f32,
        src_stride: usize,
        rows: usize,
        cols: usize,
        dst: *mut f32,
        dst_stride: usize,
    ) {
        for r in 0..rows {
            for c in 0..cols {
                // SAFETY: promised by the caller.
                unsafe { *dst.add(c * dst_stride + r) = *src.add(r * src_stride + c) };
            }
        }
    }
}

/// `[e, e, ..]` of 2 or 4 elements, with the index of each as a variable.
///
/// Closures, such as those of `array::map` and `array::from_fn`, are compiled for the instruction set of the function
/// around them only if they are inlined, and in large functions they are not.
macro_rules! each {
    ($i:ident in 2 => $e:expr) => {
        [
            {
                let $i = 0;
                $e
            },
            {
                let $i = 1;
                $e
            },
        ]
    };
    ($i:ident in 4 => $e:expr) => {
        [
            {
                let $i = 0;
                $e
            },
            {
                let $i = 1;
                $e
            },
            {
                let $i = 2;
                $e
            },
            {
                let $i = 3;
                $e
            },
        ]
    };
}
pub(crate) use each;

/// Declares a function that runs `kernel(token, arguments...)`, an `#[inline(always)]` function,
/// compiled for the best instruction set in use.
macro_rules! simd_dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$g:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:path;) => {
        $(#[$meta])*
        $vis fn $name $(<$g: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::cpu_features::{Isa, isa};
                use $crate::simd::{Avx2, Avx512};

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512 $(<$g: $bound>)? (token: Avx512, $($arg: $ty),*) $(-> $ret)? {
                    $kernel(token, $($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2 $(<$g: $bound>)? (token: Avx2, $($arg: $ty),*) $(-> $ret)? {
                    $kernel(token, $($arg),*)
                }
                match isa() {
                    // SAFETY: `isa` found the features.
                    Isa::Avx512 => return unsafe { avx512(Avx512::assume_detected(), $($arg),*) },
                    // SAFETY: `isa` found the features.
                    Isa::Avx2 => return unsafe { avx2(Avx2::assume_detected(), $($arg),*) },
                    Isa::Portable | Isa::Neon => {}
                }
            }
            #[cfg(target_arch = "aarch64")]
            if $crate::cpu_features::isa() == $crate::cpu_features::Isa::Neon {
                // The target has NEON throughout: no function of its own is needed.
                // SAFETY: `isa` found the feature.
                return $kernel(unsafe { $crate::simd::Neon::assume_detected() }, $($arg),*);
            }
            $kernel($crate::simd::Portable, $($arg),*)
        }
    };
}
pub(crate) use simd_dispatch;
