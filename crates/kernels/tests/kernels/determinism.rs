//! The same bits on every run and with any number of threads: an interrupted training run and an
//! uninterrupted one end with the same weights.

use crate::support::Random;
use vlm_kernels::*;

/// Runs on pools of several sizes, and with their threads standing by.
#[track_caller]
fn assert_repeats(run: impl Fn() -> Vec<f32> + Sync) {
    let expected = run();
    for threads in [1, 2, 3, 7] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a few threads can be had");
        for team in [false, true] {
            let found = pool.install(|| if team { in_team(&run) } else { run() });
            let differs = found
                .iter()
                .zip(&expected)
                .position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(
                differs, None,
                "first difference with {threads} threads, team: {team}"
            );
        }
    }
}

#[test]
fn products_do_not_depend_on_threads() {
    let mut random = Random::new(41);
    for [m, k, n] in [
        [300, 500, 130],
        [100, 1500, 40],
        [5, 900, 2000],
        [2000, 30, 20],
    ] {
        let (x, w) = (random.floats(m * k, 1.0), random.floats(n * k, 1.0));
        for precision in [Precision::F32, Precision::Bf16] {
            assert_repeats(|| {
                let mut out = vec![0.0; m * n];
                linear(precision, &x, &w, m, k, n, Epilogue::NONE, &mut out);
                out
            });
            let packed = PackedWeights::new(precision, &w, n, k);
            assert_repeats(|| {
                let mut out = vec![0.0; m * n];
                linear_packed(&x, &packed, m, Epilogue::NONE, &mut out);
                out
            });
            assert_repeats(|| {
                let mut out = vec![0.0; k * k];
                let x = MatRef::row_major(&x, m, k);
                matmul(precision, x.t(), x, &mut out);
                out
            });
        }
    }
}

#[test]
fn reductions_do_not_depend_on_threads() {
    let mut random = Random::new(42);
    let (rows, width) = (3000, 70);
    let (x, dy) = (
        random.floats(rows * width, 1.0),
        random.floats(rows * width, 1.0),
    );
    let gamma = random.floats(width, 1.0);
    assert_repeats(|| {
        let (mut dx, mut sums) = (vec![0.0; x.len()], vec![0.0; 2 * width]);
        let (dgamma, dbeta) = sums.split_at_mut(width);
        layer_norm_backward(&dy, &x, &gamma, 1e-5, &mut dx, dgamma, Some(dbeta));
        dx.extend(sums);
        dx
    });
    let beta = random.floats(width, 1.0);
    assert_repeats(|| {
        let mut statistics = vec![0.0; 2 * width];
        let (mean, variance) = statistics.split_at_mut(width);
        batch_statistics(&x, mean, variance);
        let norm = BatchNorm {
            mean,
            variance,
            gamma: &gamma,
            beta: &beta,
            eps: 1e-5,
            relu: true,
        };
        let (mut y, mut dx, mut sums) =
            (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; 2 * width]);
        batch_norm(&x, norm, &mut y);
        let (dgamma, dbeta) = sums.split_at_mut(width);
        batch_norm_backward(&dy, &x, norm, &mut dx, dgamma, dbeta);
        y.extend(dx);
        y.extend(sums);
        y.extend(statistics);
        y
    });
    assert_repeats(|| {
        let mut sums = vec![0.0; width];
        column_sum(&x, width, &mut sums);
        sums.push(sum_of_squares(&x) as f32);
        sums
    });
}

#[test]
fn attention_does_not_depend_on_threads() {
    let mut random = Random::new(43);
    let shape = AttentionShape {
        batch: 3,
        q_len: 150,
        k_len: 150,
        heads: 4,
        kv_heads: 4,
        head_dim: 32,
    };
    let width = 4 * 32;
    let qkv = random.floats(3 * 150 * 3 * width, 1.0);
    let dout = random.floats(3 * 150 * width, 1.0);
    assert_repeats(|| {
        let mut dqkv = vec![0.0; qkv.len()];
        attention_backward_packed(
            Precision::F32,
            shape,
            HeadsRef::contiguous(&dout, 150, width),
            &qkv,
            Mask::Causal { past: 0 },
            None,
            0.2,
            None,
            &mut dqkv,
        );
        dqkv
    });
}

#[test]
fn attention_of_one_query_does_not_depend_on_threads() {
    let mut random = Random::new(45);
    let shape = AttentionShape {
        batch: 2,
        q_len: 1,
        k_len: 1500,
        heads: 6,
        kv_heads: 2,
        head_dim: 64,
    };
    let (q, kv) = (
        random.floats(2 * 6 * 64, 1.0),
        random.floats(2 * 1500 * 2 * 2 * 64, 1.0),
    );
    assert_repeats(|| {
        let mut out = vec![0.0; q.len()];
        attention(
            Precision::F32,
            shape,
            HeadsRef::contiguous(&q, 1, 6 * 64),
            HeadsRef::packed(&kv, 1500, 2 * 64, 2, 0),
            HeadsRef::packed(&kv, 1500, 2 * 64, 2, 1),
            Mask::None,
            None,
            0.2,
            HeadsMut::contiguous(&mut out, 1, 6 * 64),
        );
        out
    });
}

#[test]
fn quantized_products_do_not_depend_on_threads() {
    let mut random = Random::new(44);
    let (n, k) = (500, 768);
    let weights = random.floats(n * k, 1.0);
    let int8 = Int8Weights::quantize(&weights, n, k);
    for m in [1, 3, 300] {
        let x = random.floats(m * k, 1.0);
        assert_repeats(|| {
            let mut out = vec![0.0; m * n];
            linear_int8(&x, &int8, m, Epilogue::NONE, &mut out);
            out
        });
        for format in [BlockFormat::Q4K, BlockFormat::Q8_0] {
            let data = quant::quantize(format, &weights).expect("whole blocks");
            let packed = QuantizedMatrix::new(format, n, k, data)
                .and_then(|matrix| matrix.pack())
                .expect("a quantized format");
            assert_repeats(|| {
                let mut out = vec![0.0; m * n];
                packed.matmul(&x, m, &mut out);
                out
            });
        }
    }
}

#[test]
fn convolution_does_not_depend_on_threads() {
    let mut random = Random::new(44);
    let s = ConvShape {
        batch: 3,
        height: 70,
        width: 60,
        channels: 8,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
    };
    let x = random.floats(3 * 70 * 60 * 8, 1.0);
    let weight = random.floats(12 * 72, 1.0);
    for precision in [Precision::F32, Precision::Bf16] {
        let packed = PackedWeights::new(precision, &weight, 12, 72);
        assert_repeats(|| {
            let mut y = vec![0.0; 3 * 70 * 60 * 12];
            conv2d(&x, &packed, s, Epilogue::NONE, &mut y);
            let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
            conv2d_input_gradient(precision, &y, &weight, s, &mut dx);
            conv2d_weight_gradient(precision, &y, &x, s, &mut dw);
            [y, dx, dw].concat()
        });
    }
}

#[test]
fn regions_and_grouped_convolutions_do_not_depend_on_threads() {
    let mut random = Random::new(49);
    let dims = [2, 20, 30, 24];
    let x = random.floats(dims.iter().product(), 1.0);
    let rois: Vec<Roi> = (0..50)
        .map(|i| {
            let f = random.floats(4, 30.0);
            Roi {
                picture: i % 2,
                corners: [f[0], f[1], f[0] + f[2].abs(), f[1] + f[3].abs()],
            }
        })
        .collect();
    let s = RoiAlignShape {
        output: [7, 7],
        scale: 1.0,
        sampling_ratio: 2,
        aligned: false,
    };
    let dy = random.floats(rois.len() * 49 * 24, 1.0);
    assert_repeats(|| {
        let mut out = vec![0.0; dy.len()];
        roi_align(&x, dims, &rois, s, &mut out);
        out
    });
    assert_repeats(|| {
        let mut dx = vec![0.0; x.len()];
        roi_align_backward(&dy, dims, &rois, s, &mut dx);
        dx
    });
    let conv = ConvShape {
        batch: 2,
        height: 20,
        width: 30,
        channels: 24,
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
    };
    let weight = random.floats(24 * 9 * 6, 1.0);
    let packed: Vec<PackedWeights> = weight
        .chunks_exact(weight.len() / 4)
        .map(|w| PackedWeights::new(Precision::F32, w, 6, 54))
        .collect();
    assert_repeats(|| {
        let mut out = vec![0.0; x.len()];
        conv2d_grouped(&x, &packed, conv, Epilogue::NONE, &mut out);
        out
    });
}
