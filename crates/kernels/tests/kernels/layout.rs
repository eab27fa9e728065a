//! Embedding rows, convolution windows and patches.

use crate::support::Random;
use vlm_kernels::reference;
use vlm_kernels::*;

#[test]
fn rows_are_gathered_and_their_gradients_scattered() {
    let mut random = Random::new(21);
    for (rows, width, count) in [(1, 1, 3), (7, 5, 40), (50, 33, 2000), (3, 4, 0)] {
        let table = random.floats(rows * width, 1.0);
        let ids: Vec<i64> = (0..count).map(|_| random.below(rows) as i64).collect();
        let mut out = vec![f32::NAN; count * width];
        gather_rows(&table, width, &ids, &mut out);
        let mut sums = random.floats(rows * width, 1.0);
        let mut expected = sums.clone();
        scatter_add_rows(&out, width, &ids, &mut sums);
        for (i, &id) in ids.iter().enumerate() {
            for j in 0..width {
                assert_eq!(out[i * width + j], table[id as usize * width + j]);
                expected[id as usize * width + j] += out[i * width + j];
            }
        }
        assert_eq!(sums, expected);
    }
}

#[test]
#[should_panic(expected = "id 4 at index 2 is outside 0..4")]
fn an_id_outside_the_table_is_named() {
    gather_rows(&[0.0; 8], 2, &[0, 3, 4], &mut [0.0; 6]);
}

#[test]
#[should_panic(expected = "id -1 at index 0 is outside 0..4")]
fn a_negative_id_is_named() {
    scatter_add_rows(&[0.0; 2], 2, &[-1], &mut [0.0; 8]);
}

fn conv_shapes() -> Vec<ConvShape> {
    let mut shapes = Vec::new();
    for (height, width) in [(1, 1), (5, 7), (9, 4), (40, 33)] {
        for kernel in [[1, 1], [3, 3], [2, 5]] {
            for stride in [[1, 1], [2, 3]] {
                for padding in [[0, 0], [1, 1], [2, 4], [6, 5]] {
                    shapes.push(ConvShape {
                        batch: 2,
                        height,
                        width,
                        channels: 3,
                        kernel,
                        stride,
                        padding,
                    });
                }
            }
        }
    }
    shapes
}

#[test]
fn unfold_reads_every_window_and_fold_is_its_transpose() {
    let mut random = Random::new(22);
    for s in conv_shapes() {
        let indices = reference::unfold_indices(s);
        // Small integers: sums are exact in any order.
        let mut integers =
            |len: usize| -> Vec<f32> { (0..len).map(|_| random.below(100) as f32).collect() };
        let x = integers(s.batch * s.height * s.width * s.channels);
        let mut out = vec![f32::NAN; indices.len()];
        unfold(&x, s, &mut out);
        let expected: Vec<f32> = indices.iter().map(|i| i.map_or(0.0, |i| x[i])).collect();
        assert_eq!(out, expected, "{s:?}");

        let cols = integers(indices.len());
        let mut dx = vec![f32::NAN; x.len()];
        fold(&cols, s, &mut dx);
        let mut expected = vec![0.0; x.len()];
        for (index, &col) in indices.iter().zip(&cols) {
            if let Some(index) = *index {
                expected[index] += col;
            }
        }
        assert_eq!(dx, expected, "{s:?}");
    }
}

#[test]
fn patches_are_cut_in_weight_order_and_put_back() {
    let mut random = Random::new(23);
    for (dims, patch) in [
        ([1, 1, 1, 1], 1),
        ([2, 3, 8, 12], 4),
        ([3, 2, 6, 3], 3),
        ([4, 3, 64, 64], 8),
        ([0, 3, 8, 8], 4),
    ] {
        let x = random.floats(dims.iter().product(), 1.0);
        let mut patches = vec![f32::NAN; x.len()];
        patchify(&x, dims, patch, &mut patches);
        let indices = reference::patch_indices(dims, patch);
        let expected: Vec<f32> = indices.iter().map(|&i| x[i]).collect();
        assert_eq!(patches, expected);
        let mut back = vec![f32::NAN; x.len()];
        unpatchify(&patches, dims, patch, &mut back);
        assert_eq!(back, x);
    }
}
