//! Activations, norms, losses, optimizer.

use crate::support::{Random, assert_close, dot, numeric_gradient};
use vlm_kernels::reference::{self, widen};
use vlm_kernels::*;

const ACTIVATIONS: [Activation; 6] = [
    Activation::None,
    Activation::Relu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Silu,
];

/// Lengths around vector widths and task sizes.
const LENGTHS: [usize; 9] = [0, 1, 3, 7, 8, 15, 16, 33, 40_000];

#[test]
fn activations_and_their_derivatives_match_the_definition() {
    let mut random = Random::new(1);
    for activation in ACTIVATIONS {
        for len in LENGTHS {
            let x = random.floats(len, 12.0);
            let dy = random.floats(len, 1.0);
            let (mut y, mut dx) = (vec![9.0; len], vec![9.0; len]);
            activation_forward(activation, &x, &mut y);
            activation_backward(activation, &x, &dy, &mut dx);
            let f = |x: f64| reference::activation(activation, x);
            let expected: Vec<f64> = widen(&x).iter().map(|&x| f(x)).collect();
            // 1e-6 absolute, plus half an ulp of the result.
            assert_close(&format!("{activation:?}"), &y, &expected, 1e-6);
            let slope: Vec<f64> = widen(&x)
                .iter()
                .zip(widen(&dy))
                .map(|(&x, dy)| (f(x + 1e-6) - f(x - 1e-6)) / 2e-6 * dy)
                .collect();
            assert_close(&format!("{activation:?}'"), &dx, &slope, 3e-6);
        }
    }
}

#[test]
fn the_gradient_of_a_bias_before_an_activation_is_the_sum_of_the_columns() {
    let mut random = Random::new(9);
    for activation in ACTIVATIONS {
        for (m, n) in [(0, 3), (1, 1), (5, 8), (17, 33), (300, 129)] {
            if cfg!(miri) && m > 20 {
                continue;
            }
            let (x, dy) = (random.floats(m * n, 3.0), random.floats(m * n, 1.0));
            let (mut alone, mut dx) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
            let mut sums = vec![f32::NAN; n];
            activation_backward(activation, &x, &dy, &mut alone);
            activation_backward_summing(activation, &x, &dy, &mut dx, &mut sums);
            assert_eq!(dx, alone, "{activation:?} {m}x{n}");
            let column = |j: usize| dx.iter().skip(j).step_by(n).map(|&d| f64::from(d)).sum();
            let expected: Vec<f64> = (0..n).map(column).collect();
            assert_close(&format!("{activation:?} {m}x{n}"), &sums, &expected, 1e-5);
        }
    }
}

#[test]
fn sums_in_place_are_elementwise() {
    let mut random = Random::new(8);
    for (m, width) in [(0, 3), (1, 1), (3, 17), (40, 1000)] {
        let (x, y) = (random.floats(m * width, 1.0), random.floats(m * width, 1.0));
        let row = random.floats(width, 1.0);
        let (mut sum, mut rows) = (x.clone(), x.clone());
        add_to(&mut sum, &y);
        add_to_rows(&mut rows, &row);
        for (i, x) in x.iter().enumerate() {
            assert_eq!(sum[i], x + y[i]);
            assert_eq!(rows[i], x + row[i % width]);
        }
    }
}

#[test]
fn gelu_is_within_1e_6_of_the_exact_one_everywhere() {
    let x: Vec<f32> = (-100_000..100_000).map(|i| i as f32 * 1e-4).collect();
    let mut y = vec![0.0; x.len()];
    activation_forward(Activation::Gelu, &x, &mut y);
    for (&x, &y) in x.iter().zip(&y) {
        let error = (f64::from(y) - reference::activation(Activation::Gelu, x.into())).abs();
        assert!(error < 1e-6, "gelu({x}) is off by {error:e}");
    }
}

#[test]
fn nan_passes_through_activations() {
    for activation in ACTIVATIONS {
        let mut y = [0.0; 17];
        activation_forward(activation, &[f32::NAN; 17], &mut y);
        assert!(y.iter().all(|y| y.is_nan()), "{activation:?} hides NaN");
    }
}

#[test]
fn norms_match_the_definition() {
    let mut random = Random::new(2);
    for (rows, width) in [
        (0, 5),
        (1, 1),
        (3, 7),
        (5, 16),
        (4, 50),
        (700, 192),
        (2, 769),
    ] {
        let mut x = random.floats(rows * width, 2.0);
        x.iter_mut().for_each(|x| *x += 3.0);
        let (gamma, beta) = (random.floats(width, 1.0), random.floats(width, 1.0));
        let mut y = vec![9.0; x.len()];
        for beta in [Some(&beta[..]), None] {
            layer_norm(&x, &gamma, beta, 1e-5, &mut y);
            let wide = beta.map(widen);
            let expected = reference::layer_norm(&widen(&x), &widen(&gamma), wide.as_deref(), 1e-5);
            // Width 1 subtracts the mean from itself: nothing to lose there.
            assert_close("layer_norm", &y, &expected, 5e-6);
        }
        rms_norm(&x, &gamma, 1e-6, &mut y);
        let expected = reference::rms_norm(&widen(&x), &widen(&gamma), 1e-6);
        assert_close("rms_norm", &y, &expected, 2e-6);
    }
}

/// Mean and variance of the columns.
fn statistics(x: &[f32], width: usize) -> [Vec<f32>; 2] {
    let (mut mean, mut variance) = (vec![9.0; width], vec![9.0; width]);
    batch_statistics(x, &mut mean, &mut variance);
    [mean, variance]
}

#[test]
fn batch_norms_match_the_definition() {
    let mut random = Random::new(12);
    for (rows, width) in [
        (0, 5),
        (1, 1),
        (3, 7),
        (50, 16),
        (3000, 50),
        (9000, 3),
        (5, 769),
    ] {
        for offset in [0.0, 300.0] {
            let mut x = random.floats(rows * width, 2.0);
            x.iter_mut().for_each(|x| *x += offset);
            let (gamma, beta) = (random.floats(width, 1.0), random.floats(width, 1.0));
            let [mean, variance] = statistics(&x, width);
            for relu in [false, true] {
                let mut y = vec![9.0; x.len()];
                let norm = BatchNorm {
                    mean: &mean,
                    variance: &variance,
                    gamma: &gamma,
                    beta: &beta,
                    eps: 1e-5,
                    relu,
                };
                batch_norm(&x, norm, &mut y);
                let (x, gamma, beta) = (widen(&x), widen(&gamma), widen(&beta));
                let expected = reference::batch_norm(&x, &gamma, &beta, 1e-5, relu);
                // a mean of 300 has a rounding error of 1.5e-5
                let most = if offset > 0.0 { 1e-4 } else { 5e-6 };
                assert_close("batch_norm", &y, &expected, most);
            }
        }
    }
}

#[test]
fn batch_norm_gradients_match_finite_differences() {
    let mut random = Random::new(13);
    for (rows, width) in [(2, 3), (7, 9), (40, 17), (2500, 2)] {
        let x = random.floats(rows * width, 2.0);
        let dy = random.floats(rows * width, 1.0);
        let (gamma, beta) = (random.floats(width, 1.0), random.floats(width, 1.0));
        let [mean, variance] = statistics(&x, width);
        for relu in [false, true] {
            let norm = BatchNorm {
                mean: &mean,
                variance: &variance,
                gamma: &gamma,
                beta: &beta,
                eps: 1e-2,
                relu,
            };
            let (mut dx, mut dg, mut db) = (vec![9.0; x.len()], vec![9.0; width], vec![9.0; width]);
            batch_norm_backward(&dy, &x, norm, &mut dx, &mut dg, &mut db);
            let (wx, wdy, wg, wb) = (widen(&x), widen(&dy), widen(&gamma), widen(&beta));
            let loss = |x: &[f64], g: &[f64], b: &[f64]| {
                dot(&reference::batch_norm(x, g, b, 1e-2, relu), &wdy)
            };
            let most = if rows > 1000 { 1e-4 } else { 3e-5 };
            let by_gamma = numeric_gradient(&wg, |g| loss(&wx, g, &wb));
            assert_close("dgamma", &dg, &by_gamma, most);
            let by_beta = numeric_gradient(&wb, |b| loss(&wx, &wg, b));
            assert_close("dbeta", &db, &by_beta, most);
            if rows < 1000 {
                let by_x = numeric_gradient(&wx, |x| loss(x, &wg, &wb));
                assert_close("dx", &dx, &by_x, most);
            }
        }
    }
}

#[test]
fn norm_gradients_match_finite_differences() {
    let mut random = Random::new(3);
    for (rows, width) in [(1, 3), (3, 7), (40, 17), (2, 50)] {
        let x = random.floats(rows * width, 2.0);
        let dy = random.floats(rows * width, 1.0);
        let (gamma, beta) = (random.floats(width, 1.0), random.floats(width, 1.0));
        let (wx, wdy, wg, wb) = (widen(&x), widen(&dy), widen(&gamma), widen(&beta));
        let (mut dx, mut dg, mut db) = (vec![9.0; x.len()], vec![9.0; width], vec![9.0; width]);

        layer_norm_backward(&dy, &x, &gamma, 1e-2, &mut dx, &mut dg, Some(&mut db));
        let loss = |x: &[f64], g: &[f64], b: &[f64]| {
            dot(&reference::layer_norm(x, g, Some(b), 1e-2), &wdy)
        };
        assert_close(
            "dx",
            &dx,
            &numeric_gradient(&wx, |x| loss(x, &wg, &wb)),
            2e-5,
        );
        assert_close(
            "dgamma",
            &dg,
            &numeric_gradient(&wg, |g| loss(&wx, g, &wb)),
            2e-5,
        );
        assert_close(
            "dbeta",
            &db,
            &numeric_gradient(&wb, |b| loss(&wx, &wg, b)),
            2e-5,
        );

        rms_norm_backward(&dy, &x, &gamma, 1e-2, &mut dx, &mut dg);
        let loss = |x: &[f64], g: &[f64]| dot(&reference::rms_norm(x, g, 1e-2), &wdy);
        assert_close(
            "rms dx",
            &dx,
            &numeric_gradient(&wx, |x| loss(x, &wg)),
            2e-5,
        );
        assert_close(
            "rms dgamma",
            &dg,
            &numeric_gradient(&wg, |g| loss(&wx, g)),
            2e-5,
        );
    }
}

#[test]
fn norm_gradients_of_many_rows_equal_sums_of_single_rows() {
    let mut random = Random::new(4);
    let (rows, width) = (1000, 36);
    let x = random.floats(rows * width, 2.0);
    let dy = random.floats(rows * width, 1.0);
    let gamma = random.floats(width, 1.0);
    let (mut dx, mut dg, mut db) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
    layer_norm_backward(&dy, &x, &gamma, 1e-5, &mut dx, &mut dg, Some(&mut db));
    let (mut sum_g, mut sum_b) = (vec![0.0; width], vec![0.0; width]);
    for (row, dx) in dx.chunks_exact(width).enumerate() {
        let (dy, x) = (&dy[row * width..][..width], &x[row * width..][..width]);
        let (mut dx1, mut dg1, mut db1) = (vec![0.0; width], vec![0.0; width], vec![0.0; width]);
        layer_norm_backward(dy, x, &gamma, 1e-5, &mut dx1, &mut dg1, Some(&mut db1));
        assert_eq!(dx, dx1);
        for j in 0..width {
            sum_g[j] += f64::from(dg1[j]);
            sum_b[j] += f64::from(db1[j]);
        }
    }
    assert_close("dgamma", &dg, &sum_g, 1e-5);
    assert_close("dbeta", &db, &sum_b, 1e-5);
}

#[test]
fn softmax_rows_match_the_definition() {
    let mut random = Random::new(5);
    for (rows, n) in [(0, 4), (1, 1), (3, 5), (2, 16), (7, 33), (30, 1000)] {
        let x = random.floats(rows * n, 20.0);
        let mut y = vec![9.0; x.len()];
        softmax_rows(&x, n, &mut y);
        assert_close("softmax", &y, &reference::softmax_rows(&widen(&x), n), 1e-6);
        log_softmax_rows(&x, n, &mut y);
        assert_close(
            "log_softmax",
            &y,
            &reference::log_softmax_rows(&widen(&x), n),
            1e-6,
        );
    }
}

#[test]
fn cross_entropy_and_its_gradient_match_the_definition() {
    let mut random = Random::new(6);
    for (rows, classes) in [(1, 1), (3, 5), (4, 16), (40, 37), (6, 1000)] {
        for smoothing in [0.0, 0.1] {
            let logits = random.floats(rows * classes, 8.0);
            let dlosses = random.floats(rows, 1.0);
            let targets: Vec<i64> = (0..rows)
                .map(|row| {
                    if row % 3 == 1 {
                        -100
                    } else {
                        random.below(classes) as i64
                    }
                })
                .collect();
            let mut losses = vec![9.0; rows];
            cross_entropy(&logits, &targets, smoothing, &mut losses);
            let wide = widen(&logits);
            let expected = reference::cross_entropy(&wide, &targets, smoothing.into());
            assert_close("losses", &losses, &expected, 1e-6);
            let mut dlogits = vec![9.0; logits.len()];
            cross_entropy_backward(&dlosses, &logits, &targets, smoothing, &mut dlogits);
            // Rows are independent: differences of one row at a time.
            for row in 0..rows {
                let at = row * classes..(row + 1) * classes;
                let (target, dloss) = (&targets[row..=row], f64::from(dlosses[row]));
                let expected = numeric_gradient(&wide[at.clone()], |x| {
                    dloss * reference::cross_entropy(x, target, smoothing.into())[0]
                });
                assert_close("dlogits", &dlogits[at], &expected, 1e-6);
            }
        }
    }
    cross_entropy(&[], &[], 0.0, &mut []);
    cross_entropy_backward(&[], &[], &[], 0.0, &mut []);
}

#[test]
#[should_panic(expected = "target 5 of row 1 is not below 5 classes")]
fn a_target_outside_the_classes_is_named() {
    cross_entropy(&[0.0; 10], &[4, 5], 0.0, &mut [0.0; 2]);
}

#[test]
fn adamw_follows_the_definition_for_several_steps() {
    let mut random = Random::new(7);
    for len in [0, 1, 17, 40_000] {
        let mut param = random.floats(len, 1.0);
        let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
        let mut expected: Vec<[f64; 3]> = param.iter().map(|&p| [p.into(), 0.0, 0.0]).collect();
        for step in 1..=4 {
            let hp = AdamW {
                lr: 1e-2,
                beta1: 0.9,
                beta2: 0.98,
                eps: 1e-6,
                weight_decay: 0.1,
                step,
            };
            let grad = random.floats(len, 1.0);
            adamw(&mut param, &grad, &mut m, &mut v, hp);
            for (state, &grad) in expected.iter_mut().zip(&grad) {
                *state = reference::adamw(state[0], grad.into(), state[1], state[2], hp);
            }
        }
        let column = |i: usize| expected.iter().map(|e| e[i]).collect::<Vec<_>>();
        assert_close("param", &param, &column(0), 2e-6);
        assert_close("m", &m, &column(1), 1e-6);
        assert_close("v", &v, &column(2), 1e-6);
    }
}

#[test]
fn sum_of_squares_is_exact_to_double_precision() {
    let mut random = Random::new(8);
    for len in [0, 1, 100, 300_000] {
        let x = random.floats(len, 1e20);
        let expected: f64 = widen(&x).iter().map(|x| x * x).sum();
        let found = sum_of_squares(&x);
        assert!(
            (found - expected).abs() <= 1e-12 * expected,
            "{found} {expected}"
        );
    }
}
