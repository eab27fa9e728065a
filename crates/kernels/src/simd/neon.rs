//! Four lanes: NEON, which every 64-bit ARM processor with floating point has.

use super::Simd;
use half::f16;
use std::arch::aarch64::*;
use std::arch::asm;

#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// # Safety
    /// The processor has NEON.
    #[inline(always)]
    pub(crate) unsafe fn assume_detected() -> Self {
        Self(())
    }
}

// Every `unsafe` below rests on the token: it is only made where the instructions were detected.
impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;
    const WIDE_FILE: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> float32x4_t {
        let mut v = [0.0; 4];
        let from = if let Some(x) = x.first_chunk::<4>() {
            x
        } else {
            v[..x.len()].copy_from_slice(x);
            &v
        };
        // SAFETY: four floats.
        unsafe { vld1q_f32(from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, out: &mut [f32], v: float32x4_t) {
        if let Some(out) = out.first_chunk_mut::<4>() {
            // SAFETY: four floats.
            unsafe { vst1q_f32(out.as_mut_ptr(), v) };
        } else {
            let mut all = [0.0; 4];
            // SAFETY: four floats.
            unsafe { vst1q_f32(all.as_mut_ptr(), v) };
            let n = out.len();
            out.copy_from_slice(&all[..n]);
        }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> float32x4_t {
        // SAFETY: promised by the caller.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: float32x4_t) {
        // SAFETY: promised by the caller.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> float32x4_t {
        let v: float32x4_t;
        // SAFETY: the caller promises four halves; every 64-bit ARM processor with NEON has the instruction, whose
        // intrinsic is not stable.
        unsafe {
            let halves = vld1_u16(p.cast());
            asm!("fcvtl {v:v}.4s, {halves:v}.4h", v = lateout(vreg) v, halves = in(vreg) halves,
                options(pure, nomem, nostack, preserves_flags));
        }
        v
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: float32x4_t) {
        let halves: uint16x4_t;
        // SAFETY: as above; ties go to even, as this is the default rounding.
        unsafe {
            asm!("fcvtn {halves:v}.4h, {v:v}.4s", halves = lateout(vreg) halves, v = in(vreg) v,
                options(pure, nomem, nostack, preserves_flags));
            vst1_u16(p.cast(), halves);
        }
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    fn reciprocal(self, a: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vdivq_f32(vdupq_n_f32(1.0), a) }
    }
    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    fn neg_mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vfmsq_f32(c, a, b) }
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe {
            // `vmaxq_f32` would give NaN where either is.
            vbslq_f32(vcgtq_f32(a, b), a, b)
        }
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vsqrtq_f32(a) }
    }
    #[inline(always)]
    fn abs(self, a: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vabsq_f32(a) }
    }
    #[inline(always)]
    fn round(self, a: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vrndnq_f32(a) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut i8, v: float32x4_t) {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe {
            let words = vmovn_s32(vcvtnq_s32_f32(v));
            let bytes = vmovn_s16(vcombine_s16(words, words));
            p.cast::<i32>()
                .write_unaligned(vget_lane_s32::<0>(vreinterpret_s32_s8(bytes)));
        }
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: float32x4_t, n: float32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe {
            let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        }
    }
    #[inline(always)]
    fn select_less(
        self,
        a: float32x4_t,
        b: float32x4_t,
        x: float32x4_t,
        y: float32x4_t,
    ) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vbslq_f32(vcltq_f32(a, b), x, y) }
    }
    #[inline(always)]
    fn keep_first(self, v: float32x4_t, count: usize, fill: f32) -> float32x4_t {
        const INDEX: [u32; 4] = [0, 1, 2, 3];
        // SAFETY: the token proves the feature; there are four integers.
        unsafe {
            let index = vld1q_u32(INDEX.as_ptr());
            let kept = vcltq_u32(index, vdupq_n_u32(count.min(4) as u32));
            vbslq_f32(kept, v, vdupq_n_f32(fill))
        }
    }
    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe { vaddvq_f32(a) }
    }
    #[inline(always)]
    fn sums(self, [a, b, c, d]: [float32x4_t; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        // SAFETY: the token proves the feature; four floats are written.
        unsafe {
            vst1q_f32(
                sums.as_mut_ptr(),
                vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)),
            )
        };
        sums
    }
    #[inline(always)]
    fn maximum(self, a: float32x4_t) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe {
            let a = self.max(a, vextq_f32::<2>(a, a));
            vgetq_lane_f32::<0>(self.max(a, vextq_f32::<1>(a, a)))
        }
    }
}
