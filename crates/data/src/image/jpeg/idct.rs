//! The inverse cosine transform of libjpeg's `jidctint.c` ("islow"), bit for bit.
//!
//! Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms with 11 multiplications"
//! (ICASSP 1989), in 13-bit fixed point.

use std::num::Wrapping;

type W = Wrapping<i32>;

const CONST_BITS: usize = 13;
const PASS1_BITS: usize = 2;

/// Dequantises a block and writes its 8×8 samples to `out`, whose rows are `stride` apart.
pub(super) fn inverse(
    coefficients: &[i16],
    quantization: &[u16; 64],
    out: &mut [u8],
    stride: usize,
) {
    let coefficients: &[i16; 64] = coefficients.try_into().expect("a block of 64");
    // Wrapping: a hostile file may ask for sums that no encoder produces.
    let level =
        |k: usize| Wrapping(i32::from(coefficients[k])) * Wrapping(i32::from(quantization[k]));
    if coefficients[1..].iter().all(|&c| c == 0) {
        // Both passes in one, as a flat block's arithmetic comes to.
        let sample = sample((level(0) << PASS1_BITS) + Wrapping(16), PASS1_BITS + 3);
        for row in out.chunks_mut(stride).take(8) {
            row[..8].fill(sample);
        }
        return;
    }
    // Most columns of a photograph have no vertical detail: a flat one is its DC throughout.
    let mut detail = [0i16; 8];
    for row in coefficients[8..].chunks_exact(8) {
        for (any, c) in detail.iter_mut().zip(row) {
            *any |= c;
        }
    }
    let mut columns = [Wrapping(0); 64];
    let shift = CONST_BITS - PASS1_BITS;
    for (x, &detail) in detail.iter().enumerate() {
        let column = if detail == 0 {
            [level(x) << PASS1_BITS; 8]
        } else {
            butterfly(std::array::from_fn(|y| level(y * 8 + x)))
                .map(|value| (value + Wrapping(1 << (shift - 1))) >> shift)
        };
        for (y, value) in column.into_iter().enumerate() {
            columns[y * 8 + x] = value;
        }
    }
    let shift = CONST_BITS + PASS1_BITS + 3;
    for (row, out) in columns.chunks_exact(8).zip(out.chunks_mut(stride)) {
        let row = butterfly(std::array::from_fn(|x| row[x]));
        for (out, value) in out.iter_mut().zip(row) {
            *out = sample(value + Wrapping(1 << (shift - 1)), shift);
        }
    }
}

/// Scales down and moves from around 0 to 0..=255.
fn sample(value: W, shift: usize) -> u8 {
    ((value >> shift).0.clamp(-128, 127) + 128) as u8
}

/// One dimension, scaled up by 2^13 × √8.
#[inline(always)]
fn butterfly(input: [W; 8]) -> [W; 8] {
    const fn fix(constant: i32) -> W {
        Wrapping(constant)
    }
    // Constants × 2^13, as jidctint.c rounds them.
    const FIX_0_298631336: W = fix(2446);
    const FIX_0_390180644: W = fix(3196);
    const FIX_0_541196100: W = fix(4433);
    const FIX_0_765366865: W = fix(6270);
    const FIX_0_899976223: W = fix(7373);
    const FIX_1_175875602: W = fix(9633);
    const FIX_1_501321110: W = fix(12299);
    const FIX_1_847759065: W = fix(15137);
    const FIX_1_961570560: W = fix(16069);
    const FIX_2_053119869: W = fix(16819);
    const FIX_2_562915447: W = fix(20995);
    const FIX_3_072711026: W = fix(25172);

    // Even part.
    let z1 = (input[2] + input[6]) * FIX_0_541196100;
    let t2 = z1 - input[6] * FIX_1_847759065;
    let t3 = z1 + input[2] * FIX_0_765366865;
    let t0 = (input[0] + input[4]) << CONST_BITS;
    let t1 = (input[0] - input[4]) << CONST_BITS;
    let (e0, e3) = (t0 + t3, t0 - t3);
    let (e1, e2) = (t1 + t2, t1 - t2);

    // Odd part.
    let [t0, t1, t2, t3] = [input[7], input[5], input[3], input[1]];
    let z5 = (t0 + t2 + t1 + t3) * FIX_1_175875602;
    let z1 = (t0 + t3) * FIX_0_899976223;
    let z2 = (t1 + t2) * FIX_2_562915447;
    let z3 = z5 - (t0 + t2) * FIX_1_961570560;
    let z4 = z5 - (t1 + t3) * FIX_0_390180644;
    let o3 = t0 * FIX_0_298631336 - z1 + z3;
    let o2 = t1 * FIX_2_053119869 - z2 + z4;
    let o1 = t2 * FIX_3_072711026 - z2 + z3;
    let o0 = t3 * FIX_1_501321110 - z1 + z4;

    [
        e0 + o0,
        e1 + o1,
        e2 + o2,
        e3 + o3,
        e3 - o3,
        e2 - o2,
        e1 - o1,
        e0 - o0,
    ]
}
