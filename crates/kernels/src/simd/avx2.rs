//! Eight lanes: AVX2, FMA and F16C.

use super::{Simd, each};
use half::f16;
use std::arch::x86_64::*;
use std::ops::Range;

#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor has AVX2, FMA and F16C.
    #[inline(always)]
    pub(crate) unsafe fn assume_detected() -> Self {
        Self(())
    }
}

/// All bits set in the lowest `n < 8` lanes.
#[inline(always)]
fn lanes(_: Avx2, n: usize) -> __m256i {
    const WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the token proves the feature; 8 elements from index 8 - n <= 8 lie within the table.
    unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - n.min(8)).cast()) }
}

// Every `unsafe` below rests on the token: it is only made where the instructions were detected.
// Pointers come from slices of sufficient length or from the caller of an `unsafe fn`.
impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const WIDE_FILE: bool = false;
    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m256 {
        // SAFETY: the token proves the feature; masked-off lanes are not read.
        unsafe {
            if x.len() >= 8 {
                _mm256_loadu_ps(x.as_ptr())
            } else {
                _mm256_maskload_ps(x.as_ptr(), lanes(self, x.len()))
            }
        }
    }
    #[inline(always)]
    fn store(self, out: &mut [f32], v: __m256) {
        // SAFETY: the token proves the feature; masked-off lanes are not written.
        unsafe {
            if out.len() >= 8 {
                _mm256_storeu_ps(out.as_mut_ptr(), v);
            } else {
                _mm256_maskstore_ps(out.as_mut_ptr(), lanes(self, out.len()), v);
            }
        }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> __m256 {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: __m256) {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> __m256 {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: __m256) {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn reciprocal(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_div_ps(_mm256_set1_ps(1.0), a) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn neg_mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_sqrt_ps(a) }
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut i8, v: __m256) {
        // SAFETY: the token proves the feature, the caller the extent.
        unsafe {
            let words = _mm256_cvtps_epi32(v);
            let low = _mm256_castsi256_si128(words);
            let words = _mm_packs_epi32(low, _mm256_extracti128_si256::<1>(words));
            _mm_storel_epi64(p.cast(), _mm_packs_epi16(words, words));
        }
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: __m256, n: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)]
    fn select_less(self, a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }
    #[inline(always)]
    fn keep_first(self, v: __m256, count: usize, fill: f32) -> __m256 {
        // SAFETY: the token proves the feature.
        unsafe {
            _mm256_blendv_ps(
                _mm256_set1_ps(fill),
                v,
                _mm256_castsi256_ps(lanes(self, count)),
            )
        }
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe {
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn maximum(self, a: __m256) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe {
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn sums(self, [a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        // SAFETY: the token proves the feature; four floats are written.
        unsafe {
            // a, b, c and d in each half
            let v = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
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
        let (whole_rows, whole_cols) = (rows / 8 * 8, cols / 8 * 8);
        // SAFETY: the caller promises the extents.
        unsafe {
            for r in (0..whole_rows).step_by(8) {
                for c in (0..whole_cols).step_by(8) {
                    let src = src.add(r * src_stride + c);
                    transpose8(
                        self,
                        src,
                        src_stride,
                        dst.add(c * dst_stride + r),
                        dst_stride,
                    );
                }
            }
            let copy = |rows: Range<usize>, cols: Range<usize>| {
                for r in rows {
                    for c in cols.clone() {
                        *dst.add(c * dst_stride + r) = *src.add(r * src_stride + c);
                    }
                }
            };
            copy(0..whole_rows, whole_cols..cols);
            copy(whole_rows..rows, 0..cols);
        }
    }

    #[inline(always)]
    fn prefetch_write(self, p: *const f32) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(p.cast()) }
    }
}

/// Transposes 8 x 8 floats: 4 x 4 blocks side by side in the halves of a vector.
///
/// # Safety
/// 8 rows of 8 are readable at `src` and writable at `dst`.
#[inline(always)]
unsafe fn transpose8(
    _: Avx2,
    src: *const f32,
    src_stride: usize,
    dst: *mut f32,
    dst_stride: usize,
) {
    // SAFETY: the token proves the feature, the caller the extents.
    unsafe {
        for half in [0, 4] {
            let rows = each!(i in 4 => {
                let at = src.add(i * src_stride + half);
                let low = _mm256_castps128_ps256(_mm_loadu_ps(at));
                _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(at.add(4 * src_stride)))
            });
            let low = each!(i in 2 => {
                _mm256_castps_pd(_mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]))
            });
            let high = each!(i in 2 => {
                _mm256_castps_pd(_mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]))
            });
            let columns = [
                _mm256_unpacklo_pd(low[0], low[1]),
                _mm256_unpackhi_pd(low[0], low[1]),
                _mm256_unpacklo_pd(high[0], high[1]),
                _mm256_unpackhi_pd(high[0], high[1]),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                _mm256_storeu_ps(dst.add((half + i) * dst_stride), _mm256_castpd_ps(column));
            }
        }
    }
}
