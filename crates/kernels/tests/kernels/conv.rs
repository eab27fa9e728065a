//! Convolution and its gradients.

use crate::support::{Random, assert_close, dot, numeric_gradient};
use vlm_kernels::reference::{self, widen};
use vlm_kernels::*;

fn shapes() -> Vec<(ConvShape, usize)> {
    let mut shapes = Vec::new();
    for [batch, height, width, channels, outputs] in [
        [1, 1, 1, 1, 1],
        [2, 5, 7, 3, 4],
        [1, 12, 9, 20, 17],
        [3, 8, 8, 5, 33],
        [0, 4, 4, 2, 3],
    ] {
        for kernel in [[1, 1], [3, 3], [7, 7], [2, 5]] {
            for stride in [1, 2] {
                for padding in [0, kernel[0] / 2] {
                    let shape = ConvShape {
                        batch,
                        height,
                        width,
                        channels,
                        kernel,
                        stride: [stride, stride],
                        padding: [padding, padding],
                    };
                    shapes.push((shape, outputs));
                }
            }
        }
    }
    // Several bands of output rows (a band has at most 2^20 floats).
    for (kernel, stride, padding) in [([3, 3], [1, 1], [1, 1]), ([7, 7], [2, 2], [3, 3])] {
        let shape = ConvShape {
            batch: 2,
            height: 90,
            width: 85,
            channels: 9,
            kernel,
            stride,
            padding,
        };
        shapes.push((shape, 5));
    }
    shapes
}

fn tolerance(precision: Precision) -> f64 {
    if precision == Precision::Bf16 && cpu_features::has_avx512_bf16() {
        6e-2
    } else {
        5e-5
    }
}

#[test]
fn convolution_with_an_epilogue_matches_the_definition() {
    let mut random = Random::new(71);
    for (s, outputs) in shapes() {
        let window = s.kernel[0] * s.kernel[1] * s.channels;
        let pixels = s.batch * s.out_height() * s.out_width();
        let x = random.floats(s.batch * s.height * s.width * s.channels, 1.0);
        let weight = random.floats(outputs * window, 0.2);
        let (bias, residual) = (
            random.floats(outputs, 1.0),
            random.floats(pixels * outputs, 1.0),
        );
        let sums = reference::conv2d(&widen(&x), &widen(&weight), outputs, s);
        let with_bias: Vec<f64> = sums
            .iter()
            .enumerate()
            .map(|(at, y)| y + f64::from(bias[at % outputs]))
            .collect();
        let expected: Vec<f64> = with_bias
            .iter()
            .zip(&residual)
            .map(|(&y, &r)| y.max(0.0) + f64::from(r))
            .collect();
        for precision in [Precision::F32, Precision::Bf16] {
            let packed = PackedWeights::new(precision, &weight, outputs, window);
            let [mut out, mut pre] = [(); 2].map(|()| vec![f32::NAN; pixels * outputs]);
            let epilogue = Epilogue {
                bias: Some(&bias),
                activation: Activation::Relu,
                residual: Some(&residual),
                pre_activation: Some(&mut pre),
            };
            conv2d(&x, &packed, s, epilogue, &mut out);
            let what = format!("{precision:?} {s:?}");
            assert_close(&what, &out, &expected, tolerance(precision));
            assert_close(&what, &pre, &with_bias, tolerance(precision));
        }
    }
}

#[test]
fn convolution_gradients_match_the_definition() {
    let mut random = Random::new(72);
    for (s, outputs) in shapes() {
        let window = s.kernel[0] * s.kernel[1] * s.channels;
        let pixels = s.batch * s.out_height() * s.out_width();
        let x = random.floats(s.batch * s.height * s.width * s.channels, 1.0);
        let weight = random.floats(outputs * window, 0.2);
        let dy = random.floats(pixels * outputs, 1.0);
        let [by_x, by_weight] =
            reference::conv2d_backward(&widen(&dy), &widen(&x), &widen(&weight), outputs, s);
        for precision in [Precision::F32, Precision::Bf16] {
            let (mut dx, mut dw) = (vec![f32::NAN; x.len()], vec![f32::NAN; weight.len()]);
            conv2d_input_gradient(precision, &dy, &weight, s, &mut dx);
            conv2d_weight_gradient(precision, &dy, &x, s, &mut dw);
            let what = format!("{precision:?} {s:?}");
            assert_close(&format!("dx {what}"), &dx, &by_x, tolerance(precision));
            // Sums over all pixels: rounding grows with their root.
            let tolerance = tolerance(precision) * (1.0 + (pixels as f64).sqrt() / 30.0);
            assert_close(&format!("dw {what}"), &dw, &by_weight, tolerance);
        }
    }
}

#[test]
fn the_reference_gradients_of_convolution_match_finite_differences() {
    let mut random = Random::new(73);
    let s = ConvShape {
        batch: 2,
        height: 4,
        width: 5,
        channels: 2,
        kernel: [3, 2],
        stride: [2, 1],
        padding: [1, 0],
    };
    let pixels = s.batch * s.out_height() * s.out_width();
    let [x, weight, dy] = [80, 36, pixels * 3].map(|len: usize| widen(&random.floats(len, 1.0)));
    let loss = |x: &[f64], weight: &[f64]| dot(&reference::conv2d(x, weight, 3, s), &dy);
    let found = reference::conv2d_backward(&dy, &x, &weight, 3, s);
    let numeric = [
        numeric_gradient(&x, |x| loss(x, &weight)),
        numeric_gradient(&weight, |weight| loss(&x, weight)),
    ];
    for (found, numeric) in found.iter().zip(&numeric) {
        for (found, numeric) in found.iter().zip(numeric) {
            assert!((found - numeric).abs() < 1e-8, "{found} {numeric}");
        }
    }
}
