//! Quantized weights.

use crate::support::{Random, assert_close};
use vlm_kernels::quant::{dequantize_row, quantize, quantized_len};
use vlm_kernels::reference::{self, round_to_int8, widen};
use vlm_kernels::*;

fn quantized() -> impl Iterator<Item = BlockFormat> {
    BlockFormat::ALL.into_iter().filter(|f| f.is_quantized())
}

/// Random codes and group scales; the block's scales are small numbers of both signs.
fn random_blocks(random: &mut Random, format: BlockFormat, blocks: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..blocks * format.block_bytes())
        .map(|_| random.below(256) as u8)
        .collect();
    let scales: &[usize] = match format {
        BlockFormat::Q6K => &[208],
        BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
        _ => &[0],
    };
    // Weights of about 1, whose sums cancel no further than those of the other tests.
    let largest = if format.block_len() == 256 {
        0.0005
    } else {
        0.02
    };
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in scales {
            let scale = random.floats(1, largest);
            let scale = quantize(BlockFormat::F16, &scale).expect("blocks of one");
            block[at..at + 2].copy_from_slice(&scale);
        }
    }
    bytes
}

fn random_matrix(
    random: &mut Random,
    format: BlockFormat,
    rows: usize,
    cols: usize,
) -> QuantizedMatrix<'static> {
    let data = random_blocks(random, format, rows * cols / format.block_len());
    QuantizedMatrix::new(format, rows, cols, data).expect("whole blocks")
}

fn dequantized(matrix: &QuantizedMatrix) -> Vec<f32> {
    let mut out = vec![f32::NAN; matrix.rows() * matrix.cols()];
    matrix.dequantize(&mut out);
    out
}

/// `x[m, k] w[n, k]^T` for `x` as rounded.
fn product(x: &[f64], w: &[f32], [m, k, n]: [usize; 3]) -> Vec<f64> {
    reference::linear(x, &widen(w), None, m, k, n)
}

#[test]
fn dequantized_blocks_equal_those_of_the_gguf_package_bit_for_bit() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/kernels");
    for format in BlockFormat::ALL {
        let read = |kind: &str| {
            let path = format!("{folder}/{}.{kind}", format.name());
            std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
        };
        let (blocks, golden) = (read("blocks"), read("f32"));
        let mut found = vec![f32::NAN; golden.len() / 4];
        assert!(found.len() >= 2 * format.block_len().min(32));
        dequantize_row(format, &blocks, &mut found).expect("whole blocks");
        for (at, (found, golden)) in found.iter().zip(golden.as_chunks::<4>().0).enumerate() {
            let golden = f32::from_le_bytes(*golden);
            assert_eq!(
                found.to_bits(),
                golden.to_bits(),
                "{format:?}[{at}]: {found} for {golden}"
            );
        }
    }
}

#[test]
fn packed_rows_dequantize_to_the_same_bits() {
    let mut random = Random::new(50);
    for format in quantized() {
        for rows in [1, 16, 37] {
            let matrix = random_matrix(&mut random, format, rows, 2 * format.block_len());
            let expected = dequantized(&matrix);
            let packed = matrix.pack().expect("a quantized format");
            for (row, expected) in expected.chunks(matrix.cols()).enumerate() {
                let mut found = vec![f32::NAN; matrix.cols()];
                packed.dequantize_row(row, &mut found);
                assert_eq!(found, expected, "{format:?} row {row}");
            }
        }
    }
}

#[test]
fn packed_weights_take_the_memory_of_the_file_and_3_percent_at_most() {
    let mut random = Random::new(49);
    for format in quantized() {
        let matrix = random_matrix(&mut random, format, 32, 2 * format.block_len());
        let (file, packed) = (matrix.data().len(), matrix.pack().expect("blocks").bytes());
        assert!(
            packed >= file && 100 * packed <= 103 * file,
            "{format:?}: {packed} bytes of {file}"
        );
    }
}

#[test]
fn products_with_blocks_match_the_reference() {
    let mut random = Random::new(51);
    for format in quantized() {
        for m in [0, 1, 2, 3, 4, 5, 8, 11, 33] {
            for (n, blocks) in [(1, 1), (16, 2), (37, 3), (70, 9), (0, 1), (3, 0)] {
                if cfg!(miri) && m * n * blocks > 32 {
                    continue;
                }
                let k = blocks * format.block_len();
                let matrix = random_matrix(&mut random, format, n, k);
                let packed = matrix.pack().expect("a quantized format");
                let x = random.floats(m * k, 1.0);
                let mut out = vec![f32::NAN; m * n];
                packed.matmul(&x, m, &mut out);
                let rounded = round_to_int8(&x, k, format.block_len());
                let expected = product(&rounded, &dequantized(&matrix), [m, k, n]);
                let what = format!("{format:?} {m}x{k}x{n}");
                assert_close(&what, &out, &expected, 2e-5);
            }
        }
    }
}

#[test]
fn a_prompt_larger_than_one_task_matches_single_rows() {
    let mut random = Random::new(52);
    for format in quantized() {
        let (m, n, k) = if cfg!(miri) {
            (6, 3, 256)
        } else {
            (300, 50, 512)
        };
        let packed = random_matrix(&mut random, format, n, k)
            .pack()
            .expect("a quantized format");
        let x = random.floats(m * k, 1.0);
        let mut out = vec![f32::NAN; m * n];
        packed.matmul(&x, m, &mut out);
        for row in [0, 1, 7, 255, 256, 299].into_iter().filter(|&row| row < m) {
            let mut single = vec![f32::NAN; n];
            packed.matvec(&x[row * k..][..k], &mut single);
            assert_close(
                &format!("{format:?} row {row}"),
                &out[row * n..][..n],
                &widen(&single),
                1e-6,
            );
        }
    }
}

#[test]
fn matrices_that_share_activations_give_what_each_gives_alone() {
    let mut random = Random::new(53);
    let k = 512;
    let matrices: Vec<PackedMatrix> = quantized()
        .chain(quantized())
        .enumerate()
        .map(|(i, format)| {
            random_matrix(&mut random, format, 5 + 13 * i, k)
                .pack()
                .expect("a quantized format")
        })
        .collect();
    for m in [1, 9] {
        let x = random.floats(m * k, 1.0);
        let alone: Vec<Vec<f32>> = matrices
            .iter()
            .map(|matrix| {
                let mut out = vec![f32::NAN; m * matrix.rows()];
                matrix.matmul(&x, m, &mut out);
                out
            })
            .collect();
        let mut together: Vec<Vec<f32>> = alone.iter().map(|o| vec![f32::NAN; o.len()]).collect();
        let mut products: Vec<_> = matrices
            .iter()
            .zip(&mut together)
            .map(|(matrix, out)| (matrix, &mut out[..]))
            .collect();
        matmul_shared(&x, m, &mut products);
        assert_eq!(together, alone);
    }
}

#[test]
fn quantizing_loses_no_more_than_a_step_of_the_codes() {
    let mut random = Random::new(54);
    for (format, tolerance) in [
        (BlockFormat::F32, 0.0),
        (BlockFormat::F16, 3e-4),
        (BlockFormat::Bf16, 3e-3),
        (BlockFormat::Q8_0, 5e-3),
        (BlockFormat::Q6K, 0.04),
        (BlockFormat::Q5_0, 0.07),
        (BlockFormat::Q5K, 0.05),
        (BlockFormat::Q4_0, 0.13),
        (BlockFormat::Q4K, 0.09),
    ] {
        let mut x = random.floats(1024, 1.0);
        x[256..512].fill(0.0);
        x[512..600].iter_mut().for_each(|x| *x = x.abs());
        let bytes = quantize(format, &x).expect("whole blocks");
        assert_eq!(Ok(bytes.len()), quantized_len(format, 2, 512));
        let mut found = vec![f32::NAN; x.len()];
        dequantize_row(format, &bytes, &mut found).expect("whole blocks");
        for (at, (found, x)) in found.iter().zip(&x).enumerate() {
            let error = (found - x).abs();
            assert!(error <= tolerance, "{format:?}[{at}]: {found} for {x}");
            assert!(*x != 0.0 || *found == 0.0, "{format:?}: a zero stays one");
        }
    }
    assert!(quantize(BlockFormat::Q4K, &[0.0; 255]).is_err());
}

#[test]
fn hostile_sizes_are_errors() {
    use QuantError::*;
    for format in quantized() {
        let block = format.block_len();
        let bytes = vec![0; 3 * format.block_bytes()];
        let new = |rows, cols, len: usize| {
            QuantizedMatrix::new(format, rows, cols, &bytes[..len]).map(|_| ())
        };
        assert_eq!(new(3, block, bytes.len()), Ok(()));
        for cols in [1, block - 1, block + 1] {
            assert_eq!(
                new(3, cols, bytes.len()),
                Err(PartialBlock { format, cols })
            );
        }
        assert!(matches!(
            new(3, block, bytes.len() - 1),
            Err(WrongLength { .. })
        ));
        assert!(matches!(
            new(2, block, bytes.len()),
            Err(WrongLength { .. })
        ));
        assert_eq!(new(usize::MAX, block, bytes.len()), Err(TooLarge));
        let huge = usize::MAX / block * block;
        assert!(new(1, huge, bytes.len()).is_err());
        assert!(new(huge, huge, bytes.len()).is_err());
        // No bytes are needed for rows of nothing, or for no rows.
        assert_eq!(new(5, 0, 0), Ok(()));
        assert_eq!(new(0, block, 0), Ok(()));
    }
    let floats = QuantizedMatrix::new(BlockFormat::F32, 1, 1, &[0; 4][..]).expect("one float");
    assert!(matches!(floats.pack(), Err(NotQuantized { .. })));
    let message = PartialBlock {
        format: BlockFormat::Q4K,
        cols: 896,
    };
    assert_eq!(
        message.to_string(),
        "Q4_K: expected rows of a multiple of 256 weights, found 896"
    );
    for number in 0..50 {
        let format = BlockFormat::from_ggml_type(number);
        assert!(format.is_none_or(|f| f.ggml_type() == number));
    }
}

const SIZES: [[usize; 3]; 12] = [
    [0, 3, 4],
    [3, 0, 4],
    [3, 4, 0],
    [1, 1, 1],
    [1, 192, 50],
    [2, 7, 3],
    [3, 130, 33],
    [4, 64, 16],
    [5, 33, 17],
    [9, 31, 129],
    [70, 200, 90],
    [130, 100, 66],
];

#[test]
fn int8_linear_with_every_epilogue_matches_the_reference() {
    let mut random = Random::new(55);
    for (case, [m, k, n]) in SIZES.into_iter().enumerate() {
        if cfg!(miri) && m * k * n > 3000 {
            continue;
        }
        let (x, w) = (random.floats(m * k, 2.0), random.floats(n * k, 0.5));
        let (bias, residual) = (random.floats(n, 1.0), random.floats(m * n, 1.0));
        let weights = Int8Weights::quantize(&w, n, k);
        assert_eq!((weights.n(), weights.k()), (n, k));
        let (x_seen, w_seen) = (
            round_to_int8(&x, k, k.max(1)),
            round_to_int8(&w, k, k.max(1)),
        );
        for epilogue in 0..16 {
            let with = |bit: usize| epilogue >> bit & 1 == 1;
            let activation = match (with(2), case % 3) {
                (false, _) => Activation::None,
                (true, 0) => Activation::Gelu,
                (true, 1) => Activation::Relu,
                (true, _) => Activation::Silu,
            };
            let (mut out, mut pre) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
            let bias = with(0).then_some(&bias[..]);
            let fused = Epilogue {
                bias,
                activation,
                residual: with(1).then_some(&residual),
                pre_activation: with(3).then_some(&mut pre),
            };
            linear_int8(&x, &weights, m, fused, &mut out);
            let wide_bias = bias.map(widen);
            let sums = reference::linear(&x_seen, &w_seen, wide_bias.as_deref(), m, k, n);
            let what = format!("int8 {m}x{k}x{n} epilogue {epilogue:04b}");
            if with(3) {
                assert_close(&format!("{what} pre"), &pre, &sums, 4e-6);
            }
            let expected: Vec<f64> = sums
                .iter()
                .zip(&residual)
                .map(|(&y, &r)| {
                    let r = if with(1) { f64::from(r) } else { 0.0 };
                    reference::activation(activation, y) + r
                })
                .collect();
            assert_close(&what, &out, &expected, 6e-6);
        }
    }
}

#[test]
fn extreme_codes_do_not_saturate() {
    // All products at their largest, of either sign: the sums are exact.
    for k in if cfg!(miri) {
        [64, 65, 66]
    } else {
        [64, 1000, 5000]
    } {
        for (x, w) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
            for m in [1, 6] {
                let weights = Int8Weights::quantize(&vec![w; 20 * k], 20, k);
                let mut out = vec![f32::NAN; m * 20];
                linear_int8(&vec![x; m * k], &weights, m, Epilogue::NONE, &mut out);
                let expected = vec![f64::from(x * w) * k as f64; m * 20];
                assert_close("extremes", &out, &expected, 1e-6);
            }
        }
    }
    // Blocks of the highest and of the lowest codes.
    for format in quantized() {
        for byte in [0x00, 0x7f, 0x80, 0xff] {
            let k = format.block_len();
            let mut block = vec![byte; format.block_bytes()];
            let halves: &[usize] = match format {
                BlockFormat::Q6K => &[208],
                BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
                _ => &[0],
            };
            for &at in halves {
                block[at..at + 2].copy_from_slice(&0x3c00_u16.to_le_bytes());
            }
            let matrix = QuantizedMatrix::new(format, 1, k, block).expect("one block");
            let packed = matrix.pack().expect("a quantized format");
            for sign in [1.0, -1.0] {
                for m in [1, 6] {
                    let x = vec![sign; m * k];
                    let mut out = vec![f32::NAN; m];
                    packed.matmul(&x, m, &mut out);
                    let rounded = round_to_int8(&x, k, k);
                    let expected = product(&rounded, &dequantized(&matrix), [m, k, 1]);
                    assert_close(&format!("{format:?} {byte:x}"), &out, &expected, 1e-5);
                }
            }
        }
    }
}

#[test]
fn activations_that_are_not_finite_give_nan_in_their_row_alone() {
    let mut random = Random::new(56);
    let (m, k, n) = (6, 512, if cfg!(miri) { 3 } else { 20 });
    let packed = random_matrix(&mut random, BlockFormat::Q4K, n, k)
        .pack()
        .expect("a quantized format");
    let int8 = Int8Weights::quantize(&random.floats(n * k, 1.0), n, k);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        if cfg!(miri) && !bad.is_nan() {
            continue;
        }
        let mut x = random.floats(m * k, 1.0);
        x[3 * k + 300] = bad;
        // Too small to have a reciprocal.
        x[k..2 * k].fill(1e-42);
        for blocks in [true, false] {
            let mut out = vec![0.5; m * n];
            if blocks {
                packed.matmul(&x, m, &mut out);
            } else {
                linear_int8(&x, &int8, m, Epilogue::NONE, &mut out);
            }
            for (row, out) in out.chunks(n).enumerate() {
                assert!(out.iter().all(|y| y.is_nan() == (row == 3)), "row {row}");
                assert!(row != 1 || out.iter().all(|&y| y == 0.0));
            }
        }
    }
}
