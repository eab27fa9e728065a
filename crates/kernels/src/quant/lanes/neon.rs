//! Four 128-bit vectors: NEON with the dot products of ARMv8.2.

use super::{Lanes, Portable};
use crate::simd::each;
use std::arch::aarch64::*;
use std::arch::asm;

#[derive(Clone, Copy)]
pub(in crate::quant) struct NeonDot(());

impl NeonDot {
    /// # Safety
    /// The processor has NEON and the dot product extension.
    #[inline(always)]
    pub(in crate::quant) unsafe fn assume_detected() -> Self {
        Self(())
    }
}

/// `SDOT`: four products of signed bytes added to each 32-bit lane. Its intrinsic is not stable.
///
/// # Safety
/// The processor has the dot product extension.
#[inline(always)]
unsafe fn sdot(mut sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction touches these registers only.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {w:v}.16b, {a:v}.16b",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

// Every `unsafe` below rests on the token, which is only made where the instructions were
// detected, and on the extents that callers promise.
impl Lanes for NeonDot {
    type Bytes = [uint8x16_t; 4];
    type Ints = [int32x4_t; 4];
    type Floats = [float32x4_t; 4];
    /// Both operands are signed: stored bytes become signed again.
    const BYTE_ZERO: i32 = 0;

    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> [uint8x16_t; 4] {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { each!(i in 4 => vld1q_u8(p.add(16 * i))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, x: [uint8x16_t; 4]) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: the token proves the feature, the caller the extent.
            unsafe { vst1q_u8(p.add(16 * i), x) }
        }
    }
    #[inline(always)]
    fn and(self, x: [uint8x16_t; 4], mask: u8) -> [uint8x16_t; 4] {
        // SAFETY: the token proves the feature.
        unsafe { each!(i in 4 => vandq_u8(x[i], vdupq_n_u8(mask))) }
    }
    #[inline(always)]
    fn or(self, x: [uint8x16_t; 4], y: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        // SAFETY: the token proves the feature.
        unsafe { each!(i in 4 => vorrq_u8(x[i], y[i])) }
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, x: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        // SAFETY: the token proves the feature.
        unsafe { each!(i in 4 => vshlq_u8(x[i], vdupq_n_s8(N as i8))) }
    }
    #[inline(always)]
    fn shift_right<const N: u32>(self, x: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        // SAFETY: the token proves the feature.
        unsafe { each!(i in 4 => vshlq_u8(x[i], vdupq_n_s8(-(N as i8)))) }
    }
    #[inline(always)]
    unsafe fn dot<const BITS: u32>(
        self,
        mut sums: [int32x4_t; 4],
        w: [[uint8x16_t; 4]; 4],
        a: *const u8,
        stride: usize,
    ) -> [int32x4_t; 4] {
        for (i, w) in w.into_iter().enumerate() {
            // SAFETY: the token proves the feature, the caller the extent.
            unsafe {
                let a = a.add(i * stride).cast::<i32>().read_unaligned();
                let a = vreinterpretq_s8_s32(vdupq_n_s32(a));
                for (sum, w) in sums.iter_mut().zip(w) {
                    let w = if BITS == 8 {
                        veorq_u8(w, vdupq_n_u8(0x80))
                    } else {
                        w
                    };
                    *sum = sdot(*sum, vreinterpretq_s8_u8(w), a);
                }
            }
        }
        sums
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> [int32x4_t; 4] {
        // SAFETY: the token proves the feature.
        [unsafe { vdupq_n_s32(x) }; 4]
    }
    #[inline(always)]
    unsafe fn load_ints(self, p: *const i32) -> [int32x4_t; 4] {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { each!(i in 4 => vld1q_s32(p.add(4 * i))) }
    }
    #[inline(always)]
    unsafe fn store_ints(self, p: *mut i32, x: [int32x4_t; 4]) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: the token proves the feature, the caller the extent.
            unsafe { vst1q_s32(p.add(4 * i), x) }
        }
    }
    #[inline(always)]
    fn to_floats(self, x: [int32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: the token proves the feature.
        unsafe { each!(i in 4 => vcvtq_f32_s32(x[i])) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> [float32x4_t; 4] {
        // SAFETY: the token proves the feature.
        [unsafe { vdupq_n_f32(x) }; 4]
    }
    #[inline(always)]
    fn mul(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: the token proves the feature.
        unsafe { each!(i in 4 => vmulq_f32(a[i], b[i])) }
    }
    #[inline(always)]
    fn mul_add(
        self,
        a: [float32x4_t; 4],
        b: [float32x4_t; 4],
        c: [float32x4_t; 4],
    ) -> [float32x4_t; 4] {
        // SAFETY: the token proves the feature.
        unsafe { each!(i in 4 => vfmaq_f32(c[i], a[i], b[i])) }
    }
    #[inline(always)]
    fn neg_mul_add(
        self,
        a: [float32x4_t; 4],
        b: [float32x4_t; 4],
        c: [float32x4_t; 4],
    ) -> [float32x4_t; 4] {
        // SAFETY: the token proves the feature.
        unsafe { each!(i in 4 => vfmsq_f32(c[i], a[i], b[i])) }
    }
    #[inline(always)]
    unsafe fn load_floats(self, p: *const f32) -> [float32x4_t; 4] {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { each!(i in 4 => vld1q_f32(p.add(4 * i))) }
    }
    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32, x: [float32x4_t; 4]) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: the token proves the feature, the caller the extent.
            unsafe { vst1q_f32(p.add(4 * i), x) }
        }
    }
    #[inline(always)]
    unsafe fn load_halves(self, p: *const u8) -> [float32x4_t; 4] {
        // The conversion of half-precision vectors is not stable.
        // SAFETY: as promised by the caller.
        unsafe { self.load_floats(Portable.load_halves(p).as_ptr()) }
    }
    #[inline(always)]
    unsafe fn load_unsigned(self, p: *const u8) -> [float32x4_t; 4] {
        // SAFETY: as promised by the caller.
        unsafe { self.load_floats(Portable.load_unsigned(p).as_ptr()) }
    }
    #[inline(always)]
    unsafe fn load_signed(self, p: *const u8) -> [float32x4_t; 4] {
        // SAFETY: as promised by the caller.
        unsafe { self.load_floats(Portable.load_signed(p).as_ptr()) }
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
    #[inline(always)]
    fn prefetch_write(self, _: *const f32) {}
}
