//! Two 256-bit vectors: AVX2 with FMA and F16C, and the same with the dot product of AVX-VNNI.

use super::Lanes;
use crate::simd::each;
use std::arch::x86_64::*;
use std::hint::black_box;

#[derive(Clone, Copy)]
pub(in crate::quant) struct Avx2(());

#[derive(Clone, Copy)]
pub(in crate::quant) struct AvxVnni(());

impl Avx2 {
    /// # Safety
    /// The processor has AVX2, FMA and F16C.
    #[inline(always)]
    pub(in crate::quant) unsafe fn assume_detected() -> Self {
        Self(())
    }
}

impl AvxVnni {
    /// # Safety
    /// The processor has AVX2, FMA, F16C and AVX-VNNI.
    #[inline(always)]
    pub(in crate::quant) unsafe fn assume_detected() -> Self {
        Self(())
    }
}

/// `sums + w a` without a dot product instruction.
///
/// `VPMADDUBSW` adds two products of an unsigned and a signed byte in 16 bits, saturating. Weights
/// of up to 6 bits stay below that (2 * 63 * 127 = 16,002), smaller ones even when several results
/// are added; of bytes the magnitude is taken and the sign moved to the activation
/// (2 * 128 * 127 = 32,512).
///
/// # Safety
/// The processor has AVX2; four bytes are readable at each `a + i * stride`.
#[inline(always)]
unsafe fn dot_by_words<const BITS: u32>(
    mut sums: [__m256i; 2],
    w: [[__m256i; 2]; 4],
    a: *const u8,
    stride: usize,
) -> [__m256i; 2] {
    // SAFETY: promised by the caller.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let a = each!(i in 4 => {
            _mm256_set1_epi32(a.add(i * stride).cast::<i32>().read_unaligned())
        });
        for (half, sum) in sums.iter_mut().enumerate() {
            let [p, q, r, s] = each!(i in 4 => {
                if BITS == 8 {
                    let w = _mm256_xor_si256(w[i][half], _mm256_set1_epi8(-128));
                    _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a[i], w))
                } else {
                    _mm256_maddubs_epi16(w[i][half], a[i])
                }
            });
            let total = if BITS <= 5 {
                // 4 * 2 * 31 * 127 = 31,496
                let sum = _mm256_add_epi16(_mm256_add_epi16(p, q), _mm256_add_epi16(r, s));
                _mm256_madd_epi16(sum, ones)
            } else if BITS <= 6 {
                // 2 * 2 * 63 * 127 = 32,004
                let sums = [_mm256_add_epi16(p, q), _mm256_add_epi16(r, s)];
                let [p, q] = each!(i in 2 => _mm256_madd_epi16(sums[i], ones));
                _mm256_add_epi32(p, q)
            } else {
                let products = [p, q, r, s];
                let [p, q, r, s] = each!(i in 4 => _mm256_madd_epi16(products[i], ones));
                _mm256_add_epi32(_mm256_add_epi32(p, q), _mm256_add_epi32(r, s))
            };
            *sum = _mm256_add_epi32(*sum, total);
        }
        sums
    }
}

/// [`Lanes::dot_tile`] without a dot product instruction: one step of four neighbours along `k` after the other, so that
/// each vector of weights is loaded once for all rows, and sums in 16 bits for as many steps as they cannot overflow.
///
/// # Safety
/// The processor has AVX2; the operands are as [`Lanes::dot_tile`] says.
#[inline(always)]
unsafe fn dot_tile_by_words<const BITS: u32, const R: usize>(
    sums: &mut [[__m256i; 2]; R],
    w: *const u8,
    a: *const u8,
    quads: usize,
) {
    // Steps whose sums fit 16 bits: 8 * 2 * 15 * 127 = 30,480, 4 * 2 * 31 * 127 = 31,496, 2 * 2 * 63 * 127 = 32,004.
    let steps = match BITS {
        ..=4 if quads.is_multiple_of(2) => 8,
        ..=5 => 4,
        6 => 2,
        _ => 1,
    };
    // SAFETY: promised by the caller.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        // Unrolled, the steps of one half of the weights would follow all of the other, for which every activation is
        // stored and read again.
        let (whole, steps_at_once) = match BITS {
            ..=5 => (4 * quads, black_box(steps)),
            _ => (black_box(4 * quads), steps),
        };
        for first in (0..whole).step_by(steps) {
            let mut words = [[_mm256_setzero_si256(); 2]; R];
            for step in first..first + steps_at_once {
                let w = w.add(64 * step);
                let w = each!(i in 2 => _mm256_loadu_si256(w.add(32 * i).cast()));
                let a = a.add(4 * R * step).cast::<i32>();
                if BITS == 8 {
                    let w = each!(i in 2 => _mm256_xor_si256(w[i], _mm256_set1_epi8(-128)));
                    let magnitudes = each!(i in 2 => _mm256_abs_epi8(w[i]));
                    for (r, words) in words.iter_mut().enumerate() {
                        let a = _mm256_set1_epi32(a.add(r).read_unaligned());
                        for half in 0..2 {
                            let a = _mm256_sign_epi8(a, w[half]);
                            words[half] = _mm256_maddubs_epi16(magnitudes[half], a);
                        }
                    }
                } else {
                    for (r, words) in words.iter_mut().enumerate() {
                        let a = _mm256_set1_epi32(a.add(r).read_unaligned());
                        for half in 0..2 {
                            let product = _mm256_maddubs_epi16(w[half], a);
                            words[half] = _mm256_add_epi16(words[half], product);
                        }
                    }
                }
            }
            for (sums, words) in sums.iter_mut().zip(words) {
                for half in 0..2 {
                    let wide = _mm256_madd_epi16(words[half], ones);
                    sums[half] = _mm256_add_epi32(sums[half], wide);
                }
            }
        }
    }
}

/// # Safety
/// The processor has AVX-VNNI; four bytes are readable at each `a + i * stride`.
#[inline(always)]
unsafe fn dot_vnni(
    mut sums: [__m256i; 2],
    w: [[__m256i; 2]; 4],
    a: *const u8,
    stride: usize,
) -> [__m256i; 2] {
    for (i, w) in w.into_iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe {
            let a = _mm256_set1_epi32(a.add(i * stride).cast::<i32>().read_unaligned());
            for half in 0..2 {
                sums[half] = _mm256_dpbusd_avx_epi32(sums[half], w[half], a);
            }
        }
    }
    sums
}

// Every `unsafe` below rests on the token, which is only made where the instructions were
// detected, and on the extents that callers promise.
macro_rules! lanes_256 {
    ($token:ty, $byte_zero:literal, $sums:ident, $w:ident, $a:ident, $stride:ident, $dot:expr $(, $tile:ident)?) => {
        impl Lanes for $token {
            type Bytes = [__m256i; 2];
            type Ints = [__m256i; 2];
            type Floats = [__m256; 2];
            const BYTE_ZERO: i32 = $byte_zero;

            #[inline(always)]
            unsafe fn load(self, p: *const u8) -> [__m256i; 2] {
                // SAFETY: the token proves the feature, the caller the extent.
                unsafe {
                    [
                        _mm256_loadu_si256(p.cast()),
                        _mm256_loadu_si256(p.add(32).cast()),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut u8, x: [__m256i; 2]) {
                // SAFETY: the token proves the feature, the caller the extent.
                unsafe {
                    _mm256_storeu_si256(p.cast(), x[0]);
                    _mm256_storeu_si256(p.add(32).cast(), x[1]);
                }
            }
            #[inline(always)]
            fn and(self, x: [__m256i; 2], mask: u8) -> [__m256i; 2] {
                // SAFETY: the token proves the feature.
                unsafe {
                    let mask = _mm256_set1_epi8(mask.cast_signed());
                    each!(i in 2 => _mm256_and_si256(x[i], mask))
                }
            }
            #[inline(always)]
            fn or(self, x: [__m256i; 2], y: [__m256i; 2]) -> [__m256i; 2] {
                // SAFETY: the token proves the feature.
                unsafe { [_mm256_or_si256(x[0], y[0]), _mm256_or_si256(x[1], y[1])] }
            }
            #[inline(always)]
            fn shift_left<const N: u32>(self, x: [__m256i; 2]) -> [__m256i; 2] {
                let count = N as i32;
                // SAFETY: the token proves the feature.
                unsafe { each!(i in 2 => _mm256_sll_epi16(x[i], _mm_cvtsi32_si128(count))) }
            }
            #[inline(always)]
            fn shift_right<const N: u32>(self, x: [__m256i; 2]) -> [__m256i; 2] {
                let count = N as i32;
                // SAFETY: the token proves the feature.
                unsafe { each!(i in 2 => _mm256_srl_epi16(x[i], _mm_cvtsi32_si128(count))) }
            }
            #[inline(always)]
            unsafe fn dot<const BITS: u32>(
                self,
                $sums: [__m256i; 2],
                $w: [[__m256i; 2]; 4],
                $a: *const u8,
                $stride: usize,
            ) -> [__m256i; 2] {
                // SAFETY: the token proves the feature, the caller the extents.
                unsafe { $dot }
            }
            $(
                #[inline(always)]
                unsafe fn dot_tile<const BITS: u32, const R: usize>(
                    self,
                    sums: &mut [[__m256i; 2]; R],
                    w: *const u8,
                    a: *const u8,
                    quads: usize,
                ) {
                    // SAFETY: the token proves the feature, the caller the extents.
                    unsafe { $tile::<BITS, R>(sums, w, a, quads) }
                }
            )?
            #[inline(always)]
            fn splat_int(self, x: i32) -> [__m256i; 2] {
                // SAFETY: the token proves the feature.
                [unsafe { _mm256_set1_epi32(x) }; 2]
            }
            #[inline(always)]
            unsafe fn load_ints(self, p: *const i32) -> [__m256i; 2] {
                // SAFETY: as promised by the caller.
                unsafe { self.load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn store_ints(self, p: *mut i32, x: [__m256i; 2]) {
                // SAFETY: as promised by the caller.
                unsafe { self.store(p.cast(), x) }
            }
            #[inline(always)]
            fn to_floats(self, x: [__m256i; 2]) -> [__m256; 2] {
                // SAFETY: the token proves the feature.
                unsafe { each!(i in 2 => _mm256_cvtepi32_ps(x[i])) }
            }
            #[inline(always)]
            fn splat(self, x: f32) -> [__m256; 2] {
                // SAFETY: the token proves the feature.
                [unsafe { _mm256_set1_ps(x) }; 2]
            }
            #[inline(always)]
            fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
                // SAFETY: the token proves the feature.
                unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
            }
            #[inline(always)]
            fn mul_add(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
                // SAFETY: the token proves the feature.
                unsafe {
                    [
                        _mm256_fmadd_ps(a[0], b[0], c[0]),
                        _mm256_fmadd_ps(a[1], b[1], c[1]),
                    ]
                }
            }
            #[inline(always)]
            fn neg_mul_add(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
                // SAFETY: the token proves the feature.
                unsafe {
                    [
                        _mm256_fnmadd_ps(a[0], b[0], c[0]),
                        _mm256_fnmadd_ps(a[1], b[1], c[1]),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn load_floats(self, p: *const f32) -> [__m256; 2] {
                // SAFETY: the token proves the feature, the caller the extent.
                unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
            }
            #[inline(always)]
            unsafe fn store_floats(self, p: *mut f32, x: [__m256; 2]) {
                // SAFETY: the token proves the feature, the caller the extent.
                unsafe {
                    _mm256_storeu_ps(p, x[0]);
                    _mm256_storeu_ps(p.add(8), x[1]);
                }
            }
            #[inline(always)]
            unsafe fn load_halves(self, p: *const u8) -> [__m256; 2] {
                // SAFETY: the token proves the feature, the caller the extent.
                unsafe {
                    [
                        _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
                        _mm256_cvtph_ps(_mm_loadu_si128(p.add(16).cast())),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn load_unsigned(self, p: *const u8) -> [__m256; 2] {
                // SAFETY: the token proves the feature, the caller the extent.
                unsafe {
                    let x = _mm_loadu_si128(p.cast());
                    [
                        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x)),
                        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(x))),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn load_signed(self, p: *const u8) -> [__m256; 2] {
                // SAFETY: the token proves the feature, the caller the extent.
                unsafe {
                    let x = _mm_loadu_si128(p.cast());
                    [
                        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
                        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(x))),
                    ]
                }
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
    };
}

lanes_256!(
    Avx2,
    0,
    sums,
    w,
    a,
    stride,
    dot_by_words::<BITS>(sums, w, a, stride),
    dot_tile_by_words
);
lanes_256!(
    AvxVnni,
    128,
    sums,
    w,
    a,
    stride,
    dot_vnni(sums, w, a, stride)
);
