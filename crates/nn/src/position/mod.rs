//! Position embeddings: fixed ones, and learned ones at another resolution.

mod interpolation;

pub use interpolation::{Interpolation, interpolate, interpolation_matrix, square_side};

use burn::tensor::{Device, Tensor, TensorData};
use std::sync::{Mutex, PoisonError};

/// A table of the positions of one grid, row by row, for another grid, through which gradients reach the table.
///
/// # Shapes
/// `table: [from.0 * from.1, D]`; gives `[to.0 * to.1, D]`.
///
/// # Panics
/// If a grid is empty or the table has another size.
pub fn resized_grid(
    table: Tensor<2>,
    from: [usize; 2],
    to: [usize; 2],
    mode: Interpolation,
    antialias: bool,
) -> Tensor<2> {
    if from == to {
        return table;
    }
    let (d, device) = (table.dims()[1], table.device());
    let [rows, columns] = [0, 1].map(|i| -> Tensor<2> {
        let weights = interpolation_matrix((1, from[i]), (1, to[i]), mode, antialias);
        Tensor::from_data(TensorData::new(weights, [to[i], from[i]]), &device)
    });
    let x = table.reshape([from[0], from[1] * d]);
    let x = rows.matmul(x).reshape([to[0], from[1], d]); // [rows, old columns, D]
    let columns: Tensor<3> = columns.unsqueeze();
    let columns = columns.repeat_dim(0, to[0]);
    columns.matmul(x).reshape([to[0] * to[1], d])
}

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
    let values = sines_and_cosines([rows, columns, width]);
    Tensor::from_data(TensorData::new(values, [rows * columns, width]), device)
}

/// The values of [`sin_cos_2d`]. A model asks for the same ones with every batch, so the last are kept.
fn sines_and_cosines(size: [usize; 3]) -> Vec<f32> {
    type Table = ([usize; 3], Vec<f32>);
    static LAST: Mutex<Option<Table>> = Mutex::new(None);
    // The table is replaced as a whole, so one whose maker panicked is as good as any other.
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, values)) = &*last
        && *of == size
    {
        return values.clone();
    }
    let [rows, columns, width] = size;
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
    *last = Some((size, values.clone()));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_resized_as_they_are_at_loading_and_gradients_reach_them() {
        let (from, to) = ((3, 2), (2, 5));
        let values: Vec<f32> = (0..18).map(|i| (i * i % 7) as f32).collect();
        let expected = interpolate(&values, 3, 0, from, to, Interpolation::Bicubic, true);
        let data = TensorData::new(values, [6, 3]);
        let table = Tensor::<2>::from_data(data, &Device::flex().autodiff()).require_grad();
        let resized = resized_grid(table.clone(), [3, 2], [2, 5], Interpolation::Bicubic, true);
        let found: Vec<f32> = resized.clone().into_data().try_to_vec().expect("f32");
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-5, "{found:?} {expected:?}");
        }
        let gradients = resized.sum().backward();
        let gradient = table.grad(&gradients).expect("a gradient").into_data();
        let gradient: Vec<f32> = gradient.try_to_vec().expect("f32");
        // each of ten new places is a weighted mean of six old ones, in each of three columns
        assert!((gradient.iter().sum::<f32>() - 30.0).abs() < 1e-4);
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
        // another size, and the first one again
        assert_eq!(sin_cos_2d(2, 3, 8, &Device::flex()).dims(), [6, 8]);
        let again = sin_cos_2d(4, 6, 16, &Device::flex()).into_data();
        assert_eq!(again.try_to_vec::<f32>().expect("f32"), values);
    }
}
