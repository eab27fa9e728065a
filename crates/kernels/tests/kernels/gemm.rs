//! Products and linear layers.

use crate::support::{Random, assert_close};
use vlm_kernels::reference::{self, widen};
use vlm_kernels::*;

/// bfloat16 keeps 8 bits: each product is off by 2^-8 at most, on average much less.
fn tolerance(precision: Precision, k: usize) -> f64 {
    match precision {
        Precision::F32 => 1e-6 * (k as f64).sqrt().max(4.0),
        Precision::Bf16 => 8e-3 * (k as f64).sqrt().max(1.0),
    }
}

/// What the hardware multiplies: the nearest bfloat16, ties to even.
fn rounded(precision: Precision, x: &[f32]) -> Vec<f32> {
    if precision == Precision::F32 || !cpu_features::has_avx512_bf16() {
        return x.to_vec();
    }
    let round = |x: f32| {
        let bits = x.to_bits();
        f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
    };
    x.iter().map(|&x| round(x)).collect()
}

const SIZES: [[usize; 3]; 14] = [
    [0, 3, 4],
    [3, 0, 4],
    [3, 4, 0],
    [1, 1, 1],
    [1, 192, 50],
    [2, 7, 3],
    [5, 33, 17],
    [8, 64, 40],
    [9, 31, 129],
    [33, 65, 31],
    [64, 192, 96],
    [130, 100, 66],
    [257, 300, 70],
    [70, 1100, 90],
];

#[test]
fn matmul_of_every_stride_combination_matches_the_reference() {
    let mut random = Random::new(11);
    for precision in [Precision::F32, Precision::Bf16] {
        for [m, k, n] in SIZES {
            let (a, b) = (random.floats(m * k, 1.0), random.floats(k * n, 1.0));
            let (wide_a, wide_b) = (widen(&a), widen(&b));
            // Only the operands lose precision: with them rounded alike, sums agree as in f32.
            let [a_seen, b_seen] = [&a, &b].map(|x| widen(&rounded(precision, x)));
            let expected = reference::matmul(&a_seen, &b_seen, m, k, n);
            let narrow = |x: Vec<f64>| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
            let at = narrow(reference::transpose(&wide_a, m, k));
            let bt = narrow(reference::transpose(&wide_b, k, n));
            let (plain_a, turned_a) = (
                MatRef::row_major(&a, m, k),
                MatRef::row_major(&at, k, m).t(),
            );
            let (plain_b, turned_b) = (
                MatRef::row_major(&b, k, n),
                MatRef::row_major(&bt, n, k).t(),
            );
            for a in [plain_a, turned_a] {
                for b in [plain_b, turned_b] {
                    let mut out = vec![f32::NAN; m * n];
                    matmul(precision, a, b, &mut out);
                    let what = format!("{precision:?} {m}x{k}x{n}");
                    assert_close(&what, &out, &expected, tolerance(Precision::F32, k));
                }
            }
        }
    }
}

#[test]
fn matmul_reads_submatrices_of_wider_buffers() {
    let mut random = Random::new(12);
    let (m, k, n) = (37, 45, 51);
    let (a, b) = (random.floats(m * 60, 1.0), random.floats(k * 160, 1.0));
    // A window of rows of 60, and every other column of rows of 160.
    let left = MatRef {
        data: &a[7..],
        rows: m,
        cols: k,
        row_stride: 60,
        col_stride: 1,
    };
    let right = MatRef {
        data: &b,
        rows: k,
        cols: n,
        row_stride: 160,
        col_stride: 2,
    };
    let dense = |x: MatRef| -> Vec<f64> {
        let index = |at: usize| at / x.cols * x.row_stride + at % x.cols * x.col_stride;
        (0..x.rows * x.cols)
            .map(|at| x.data[index(at)].into())
            .collect()
    };
    let expected = reference::matmul(&dense(left), &dense(right), m, k, n);
    for precision in [Precision::F32, Precision::Bf16] {
        let mut out = vec![f32::NAN; m * n];
        matmul(precision, left, right, &mut out);
        assert_close("strided", &out, &expected, tolerance(precision, k));
    }
}

#[test]
#[should_panic(expected = "does not fit 11 elements")]
fn a_matrix_larger_than_its_slice_is_refused() {
    let a = [0.0; 11];
    let a = MatRef::row_major(&a, 3, 4);
    matmul(Precision::F32, a, a.t(), &mut [0.0; 9]);
}

#[test]
fn linear_with_every_epilogue_matches_the_reference() {
    let mut random = Random::new(13);
    for precision in [Precision::F32, Precision::Bf16] {
        for (case, [m, k, n]) in SIZES.into_iter().enumerate() {
            let (x, w) = (random.floats(m * k, 1.0), random.floats(n * k, 1.0));
            let (bias, residual) = (random.floats(n, 1.0), random.floats(m * n, 1.0));
            let packed = PackedWeights::new(precision, &w, n, k);
            for (epilogue, is_packed) in (0..32).map(|case| (case % 16, case >= 16)) {
                let with = |bit: usize| epilogue >> bit & 1 == 1;
                let activation = match (with(2), case % 3) {
                    (false, _) => Activation::None,
                    (true, 0) => Activation::Gelu,
                    (true, 1) => Activation::Relu,
                    (true, _) => Activation::Silu,
                };
                let (mut out, mut pre) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
                let bias = with(0).then_some(&bias[..]);
                let options = Epilogue {
                    bias,
                    activation,
                    residual: with(1).then_some(&residual),
                    pre_activation: with(3).then_some(&mut pre),
                };
                if is_packed {
                    linear_packed(&x, &packed, m, options, &mut out);
                } else {
                    linear(precision, &x, &w, m, k, n, options, &mut out);
                }
                let wide_bias = bias.map(widen);
                let sums = reference::linear(&widen(&x), &widen(&w), wide_bias.as_deref(), m, k, n);
                let what =
                    format!("{precision:?} {m}x{k}x{n} epilogue {epilogue:04b} packed {is_packed}");
                let tolerance = tolerance(precision, k);
                if with(3) {
                    assert_close(&format!("{what} pre"), &pre, &sums, tolerance);
                }
                let expected: Vec<f64> = sums
                    .iter()
                    .zip(&residual)
                    .map(|(&y, &r)| {
                        let r = if with(1) { f64::from(r) } else { 0.0 };
                        reference::activation(activation, y) + r
                    })
                    .collect();
                assert_close(&what, &out, &expected, 1.2 * tolerance);
            }
        }
    }
}

#[test]
fn packed_weights_serve_any_number_of_rows() {
    let mut random = Random::new(15);
    // Remainders of register blocks: one to nine panels of columns, several chunks of `k`.
    for (k, n) in [
        (5, 3),
        (31, 17),
        (400, 70),
        (193, 96),
        (450, 97),
        (64, 143),
        (1100, 50),
    ] {
        let w = random.floats(n * k, 1.0);
        for precision in [Precision::F32, Precision::Bf16] {
            let packed = PackedWeights::new(precision, &w, n, k);
            assert_eq!([packed.outputs(), packed.inputs()], [n, k]);
            let w_seen = widen(&rounded(precision, &w));
            for m in (1..=10).chain([17, 31, 64, 65, 80]) {
                let x = random.floats(m * k, 1.0);
                let x_seen = widen(&rounded(precision, &x));
                let expected = reference::linear(&x_seen, &w_seen, None, m, k, n);
                let mut out = vec![f32::NAN; m * n];
                linear_packed(&x, &packed, m, Epilogue::NONE, &mut out);
                let what = format!("{precision:?} {m}x{k}x{n}");
                assert_close(&what, &out, &expected, tolerance(Precision::F32, k));
            }
        }
    }
}

#[test]
fn a_packed_product_has_the_bits_of_the_unpacked_one() {
    let mut random = Random::new(16);
    for [m, k, n] in [[20, 33, 50], [197, 768, 96], [64, 500, 300]] {
        let (x, w) = (random.floats(m * k, 1.0), random.floats(n * k, 1.0));
        for precision in [Precision::F32, Precision::Bf16] {
            let packed = PackedWeights::new(precision, &w, n, k);
            let [mut from_packed, mut plain] = [(); 2].map(|()| vec![f32::NAN; m * n]);
            linear_packed(&x, &packed, m, Epilogue::NONE, &mut from_packed);
            linear(precision, &x, &w, m, k, n, Epilogue::NONE, &mut plain);
            assert_eq!(from_packed, plain);
        }
    }
}

#[test]
fn an_mlp_has_the_bits_of_its_two_layers() {
    let mut random = Random::new(17);
    // Few rows, and so many that they are shared out, whole blocks or not; several chunks of either product.
    for [m, k, hidden, n] in [
        [0, 5, 7, 3],
        [1, 5, 7, 3],
        [4, 0, 7, 3],
        [4, 3, 0, 5],
        [65, 40, 50, 30],
        [1024, 33, 129, 20],
        [1153, 20, 403, 37],
        [2500, 401, 18, 1],
        [2305, 7, 800, 50],
        [1030, 1100, 1200, 20],
    ] {
        let x = random.floats(m * k, 1.0);
        let (w1, w2) = (
            random.floats(hidden * k, 1.0),
            random.floats(n * hidden, 0.1),
        );
        let biases = [random.floats(hidden, 1.0), random.floats(n, 1.0)];
        let residual = random.floats(m * n, 1.0);
        for precision in [Precision::F32, Precision::Bf16] {
            let first = PackedWeights::new(precision, &w1, hidden, k);
            let second = PackedWeights::new(precision, &w2, n, hidden);
            let epilogues = || {
                let [b1, b2] = biases.each_ref().map(|b| Some(&b[..]));
                [
                    Epilogue {
                        bias: b1,
                        activation: Activation::Gelu,
                        ..Epilogue::NONE
                    },
                    Epilogue {
                        bias: b2,
                        residual: Some(&residual),
                        ..Epilogue::NONE
                    },
                ]
            };
            let [e1, e2] = epilogues();
            let mut between = vec![f32::NAN; m * hidden];
            linear_packed(&x, &first, m, e1, &mut between);
            let mut expected = vec![f32::NAN; m * n];
            linear_packed(&between, &second, m, e2, &mut expected);
            let mut found = vec![f32::NAN; m * n];
            mlp_packed(&x, [&first, &second], m, epilogues(), &mut found);
            assert_eq!(found, expected, "{precision:?} {m}x{k}x{hidden}x{n}");
        }
    }
}

#[test]
fn column_sums_match_the_reference() {
    let mut random = Random::new(14);
    for (m, n) in [(0, 3), (1, 1), (5, 17), (3000, 33), (100, 1000)] {
        let x = random.floats(m * n, 1.0);
        let mut out = vec![f32::NAN; n];
        column_sum(&x, n, &mut out);
        assert_close(
            "column_sum",
            &out,
            &reference::column_sum(&widen(&x), n),
            2e-5,
        );
    }
}
