//! Position embeddings: fixed ones, and learned ones at another resolution.

mod interpolation;

pub use interpolation::{Interpolation, interpolate, interpolation_matrix, square_side};

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

#[cfg(test)]
mod tests {
    use super::*;

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
