//! One 512-bit vector: AVX-512 F, BW, DQ, VL and VNNI.

use super::Lanes;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(in crate::quant) struct Avx512Vnni(());

impl Avx512Vnni {
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ, VL and VNNI, FMA and F16C.
    #[inline(always)]
    pub(in crate::quant) unsafe fn assume_detected() -> Self {
        Self(())
    }
}

// Every `unsafe` below rests on the token, which is only made where the instructions were
// detected, and on the extents that callers promise.
impl Lanes for Avx512Vnni {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;
    const BYTE_ZERO: i32 = 128;

    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> __m512i {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, x: __m512i) {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_storeu_si512(p.cast(), x) }
    }
    #[inline(always)]
    fn and(self, x: __m512i, mask: u8) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_and_si512(x, _mm512_set1_epi8(mask.cast_signed())) }
    }
    #[inline(always)]
    fn or(self, x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_or_si512(x, y) }
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, x: __m512i) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_slli_epi16::<N>(x) }
    }
    #[inline(always)]
    fn shift_right<const N: u32>(self, x: __m512i) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_srli_epi16::<N>(x) }
    }
    #[inline(always)]
    unsafe fn dot<const BITS: u32>(
        self,
        mut sums: __m512i,
        w: [__m512i; 4],
        a: *const u8,
        stride: usize,
    ) -> __m512i {
        for (i, w) in w.into_iter().enumerate() {
            // SAFETY: the token proves the feature, the caller the extent.
            unsafe {
                let a = a.add(i * stride).cast::<i32>().read_unaligned();
                sums = _mm512_dpbusd_epi32(sums, w, _mm512_set1_epi32(a));
            }
        }
        sums
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> __m512i {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_ints(self, p: *const i32) -> __m512i {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_ints(self, p: *mut i32, x: __m512i) {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_storeu_si512(p.cast(), x) }
    }
    #[inline(always)]
    fn to_floats(self, x: __m512i) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn load_floats(self, p: *const f32) -> __m512 {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32, x: __m512) {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn load_halves(self, p: *const u8) -> __m512 {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_unsigned(self, p: *const u8) -> __m512 {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_signed(self, p: *const u8) -> __m512 {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    fn prefetch_write(self, p: *const f32) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(p.cast()) }
    }
}
