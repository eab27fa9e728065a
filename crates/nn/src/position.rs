//! Fixed position embeddings, and learned ones for another number of patches.

use burn::tensor::{Device, Tensor, TensorData};

/// Two-dimensional sine and cosine embedding of a grid, as in Chen et al. ("An empirical study of training
/// self-supervised vision transformers", 2021): half of the columns tell the row, half the column, each as sines and
/// cosines of frequencies from 1 down to 1/10000 in a geometric series.
///
/// # Shapes
/// Gives `[rows * columns, width]`, row by row, values from -1 to 1.
///
/// # Panics
/// If `width` is not a multiple of 4.
pub fn sin_cos_2d(rows: usize, columns: usize, width: usize, device: &Device) -> Tensor<2> {
    assert!(
        width.is_multiple_of(4),
        "width {width} is not a multiple of 4"
    );
    let quarter = width / 4;
    let mut values = Vec::with_capacity(rows * columns * width);
    for row in 0..rows {
        for column in 0..columns {
            for place in [row, column] {
                let angle = |i: usize| place as f32 / 10_000f32.powf(i as f32 / quarter as f32);
                values.extend((0..quarter).map(|i| angle(i).sin()));
                values.extend((0..quarter).map(|i| angle(i).cos()));
            }
        }
    }
    Tensor::from_data(TensorData::new(values, [rows * columns, width]), device)
}

/// How much each of `from` samples counts for each of `to` resampled ones: cubic convolution (Keys, 1981) with
/// `a = -0.75`, half-pixel centres, no smoothing, edges repeated, as PyTorch's `interpolate(mode="bicubic")`.
fn cubic_weights(from: usize, to: usize) -> Vec<f32> {
    const A: f32 = -0.75;
    let near = |t: f32| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let far = |t: f32| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
    let scale = from as f32 / to as f32;
    let mut weights = vec![0.0; to * from];
    for (i, row) in weights.chunks_mut(from).enumerate() {
        let centre = scale * (i as f32 + 0.5) - 0.5;
        let t = centre - centre.floor();
        let taps = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
        for (tap, weight) in taps.into_iter().enumerate() {
            let at = centre.floor() as i64 + tap as i64 - 1;
            row[at.clamp(0, from as i64 - 1) as usize] += weight;
        }
    }
    weights
}

/// A learned table of positions for a grid of another size, by bicubic interpolation, through which gradients reach the
/// table.
///
/// # Shapes
/// `table: [rows * columns, D]` for `from = [rows, columns]`, row by row; gives the same for `to`.
pub fn interpolated_2d(table: Tensor<2>, from: [usize; 2], to: [usize; 2]) -> Tensor<2> {
    if from == to {
        return table;
    }
    let (d, device) = (table.dims()[1], table.device());
    let weights = |axis: usize| {
        let values = cubic_weights(from[axis], to[axis]);
        Tensor::<2>::from_data(TensorData::new(values, [to[axis], from[axis]]), &device)
    };
    let rows = weights(0).matmul(table.reshape([from[0], from[1] * d])); // [R', C * D]
    let columns_first = rows
        .reshape([to[0], from[1], d])
        .swap_dims(0, 1)
        .reshape([from[1], to[0] * d]); // [C, R' * D]
    weights(1)
        .matmul(columns_first) // [C', R' * D]
        .reshape([to[1], to[0], d])
        .swap_dims(0, 1)
        .reshape([to[0] * to[1], d]) // [R' * C', D]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolation_keeps_what_is_constant_or_the_same_size_and_reads_rows_before_columns() {
        for (from, to) in [(3, 7), (7, 3), (1, 4), (5, 5)] {
            for (i, row) in cubic_weights(from, to).chunks(from).enumerate() {
                let sum: f32 = row.iter().sum();
                assert!((sum - 1.0).abs() < 1e-5, "{from} to {to}, {i}: {sum}");
            }
        }
        let device = Device::flex();
        let table =
            Tensor::<2>::from_floats([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]], &device);
        let same = interpolated_2d(table.clone(), [2, 3], [2, 3]);
        assert_eq!(same.into_data(), table.clone().into_data());
        let wide = interpolated_2d(table, [2, 3], [2, 6]).into_data();
        let wide: Vec<f32> = wide.try_to_vec().expect("f32");
        for column in 0..6 {
            assert!(
                (wide[6 + column] - wide[column] - 10.0).abs() < 1e-4,
                "{wide:?}"
            );
        }
        assert!(wide[..6].is_sorted(), "{wide:?}");
    }

    #[test]
    fn neighbours_are_more_alike_than_distant_patches_along_both_axes() {
        let table = sin_cos_2d(4, 6, 16, &Device::flex());
        let values: Vec<f32> = table.into_data().try_to_vec().expect("f32");
        let dot = |a: usize, b: usize| -> f32 {
            (0..16)
                .map(|i| values[a * 16 + i] * values[b * 16 + i])
                .sum()
        };
        assert!((dot(0, 0) - 8.0).abs() < 1e-5);
        // the first patch against those right of it and below it
        assert!(dot(0, 1) > dot(0, 2) && dot(0, 2) > dot(0, 3));
        assert!(dot(0, 6) > dot(0, 12) && dot(0, 12) > dot(0, 18));
        // row and column take one half of the width each
        assert_eq!(values[16..24], values[..8]);
        assert_eq!(values[6 * 16 + 8..6 * 16 + 16], values[8..16]);
    }
}
