//! Sixteen lanes: AVX-512 F, BW, DQ and VL.

use super::{Simd, each};
use half::f16;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL.
    #[inline(always)]
    pub(crate) unsafe fn assume_detected() -> Self {
        Self(())
    }
}

/// The lowest `n` lanes (all from 16 on).
#[inline(always)]
fn lanes(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1u16 << n) - 1 }
}

// Every `unsafe` below rests on the token: it is only made where the instructions were detected.
// Pointers come from slices of sufficient length or from the caller of an `unsafe fn`.
impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const WIDE_FILE: bool = true;
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m512 {
        // SAFETY: the token proves the feature; masked-off lanes are not read.
        unsafe {
            // A predictable branch costs less than making a mask.
            if x.len() >= 16 {
                _mm512_loadu_ps(x.as_ptr())
            } else {
                _mm512_maskz_loadu_ps(lanes(x.len()), x.as_ptr())
            }
        }
    }
    #[inline(always)]
    fn store(self, out: &mut [f32], v: __m512) {
        // SAFETY: the token proves the feature; masked-off lanes are not written.
        unsafe {
            if out.len() >= 16 {
                _mm512_storeu_ps(out.as_mut_ptr(), v);
            } else {
                _mm512_mask_storeu_ps(out.as_mut_ptr(), lanes(out.len()), v);
            }
        }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> __m512 {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: __m512) {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> __m512 {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: __m512) {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm256_storeu_si256(p.cast(), halves);
        }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn reciprocal(self, a: __m512) -> __m512 {
        // An approximation and one Newton step.
        // SAFETY: the token proves the feature.
        unsafe {
            let r = _mm512_rcp14_ps(a);
            _mm512_mul_ps(r, _mm512_fnmadd_ps(a, r, _mm512_set1_ps(2.0)))
        }
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
    fn sqrt(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut i8, v: __m512) {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v))) }
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: __m512, n: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_scalef_ps(a, n) }
    }
    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    fn keep_first(self, v: __m512, count: usize, fill: f32) -> __m512 {
        // SAFETY: the token proves the feature.
        unsafe {
            if count >= 16 {
                v
            } else {
                _mm512_mask_blend_ps(lanes(count), _mm512_set1_ps(fill), v)
            }
        }
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    fn maximum(self, a: __m512) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    fn sums(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        // SAFETY: the token proves the feature; four floats are written.
        unsafe {
            let x = [a, b, c, d];
            let [ab, cd] = each!(i in 2 => {
                let (a, b) = (x[2 * i], x[2 * i + 1]);
                let pairs = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                _mm512_castps_pd(pairs)
            });
            // a, b, c and d in each of four parts
            let v = _mm512_add_ps(
                _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
            );
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), v);
            sums
        }
    }

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
        for r in (0..rows).step_by(16) {
            for c in (0..cols).step_by(16) {
                let (row_mask, col_mask) = (lanes(rows - r), lanes(cols - c));
                // SAFETY: the caller promises the extents; lanes outside them are masked off, and
                // rows outside them are neither read nor written.
                unsafe {
                    let mut block = [_mm512_setzero_ps(); 16];
                    for (i, row) in block.iter_mut().enumerate().take(rows - r) {
                        *row = _mm512_maskz_loadu_ps(col_mask, src.add((r + i) * src_stride + c));
                    }
                    transpose16(self, &mut block);
                    for (i, row) in block.iter().enumerate().take(cols - c) {
                        _mm512_mask_storeu_ps(dst.add((c + i) * dst_stride + r), row_mask, *row);
                    }
                }
            }
        }
    }
}

/// Transposes a 16 x 16 block in registers: pairs of rows, then pairs of pairs, then 128-bit lanes.
#[inline(always)]
pub(crate) fn transpose16(_: Avx512, r: &mut [__m512; 16]) {
    // SAFETY: the token proves the feature.
    unsafe {
        let mut t = [_mm512_setzero_ps(); 16];
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let pd = |v: __m512| _mm512_castps_pd(v);
        for i in (0..16).step_by(4) {
            for j in 0..2 {
                r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(t[i + j]), pd(t[i + 2 + j])));
                r[i + 2 * j + 1] =
                    _mm512_castpd_ps(_mm512_unpackhi_pd(pd(t[i + j]), pd(t[i + 2 + j])));
            }
        }
        // Lane l of r[4 i + c] now holds rows 4 i .. 4 i + 4 of column 4 l + c.
        for c in 0..4 {
            t[c] = _mm512_shuffle_f32x4::<0x88>(r[c], r[4 + c]);
            t[4 + c] = _mm512_shuffle_f32x4::<0xdd>(r[c], r[4 + c]);
            t[8 + c] = _mm512_shuffle_f32x4::<0x88>(r[8 + c], r[12 + c]);
            t[12 + c] = _mm512_shuffle_f32x4::<0xdd>(r[8 + c], r[12 + c]);
        }
        for c in 0..4 {
            r[c] = _mm512_shuffle_f32x4::<0x88>(t[c], t[8 + c]);
            r[8 + c] = _mm512_shuffle_f32x4::<0xdd>(t[c], t[8 + c]);
            r[4 + c] = _mm512_shuffle_f32x4::<0x88>(t[4 + c], t[12 + c]);
            r[12 + c] = _mm512_shuffle_f32x4::<0xdd>(t[4 + c], t[12 + c]);
        }
    }
}
