//! Tables of learned positions for other numbers of positions, as PyTorch's `interpolate` makes them
//! (`align_corners=False`).

use burn::tensor::{Device, Tensor, TensorData};

/// How values between the entries of a table come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Between two neighbours.
    Linear,
    /// Between two neighbours, or over all that an entry of a smaller table covers (`antialias=True`).
    LinearAntialias,
    /// Of four neighbours (Keys, 1981, with a = -0.75).
    Cubic,
    /// Of four neighbours (with a = -0.5), or over all that an entry of a smaller table covers (`antialias=True`).
    CubicAntialias,
}

impl Interpolation {
    /// The share of the value at a distance of `x` entries.
    fn share(self, x: f64) -> f64 {
        let x = x.abs();
        let a = match self {
            Self::Linear | Self::LinearAntialias => return (1.0 - x).max(0.0),
            Self::Cubic => -0.75,
            Self::CubicAntialias => -0.5,
        };
        if x < 1.0 {
            ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        } else if x < 2.0 {
            (((x - 5.0) * x + 8.0) * x - 4.0) * a
        } else {
            0.0
        }
    }

    /// Entries on either side that have a share.
    fn reach(self) -> f64 {
        match self {
            Self::Linear | Self::LinearAntialias => 1.0,
            Self::Cubic | Self::CubicAntialias => 2.0,
        }
    }

    /// The shares of `from` entries in each of `to` new ones, row by row; each row sums to one.
    pub fn shares(self, from: usize, to: usize) -> Vec<f32> {
        let mut shares = vec![0f64; from * to];
        let ratio = from as f64 / to as f64;
        let antialias = matches!(self, Self::LinearAntialias | Self::CubicAntialias);
        let width = if antialias { ratio.max(1.0) } else { 1.0 };
        let reach = self.reach() * width;
        for (i, row) in shares.chunks_mut(from.max(1)).enumerate() {
            let centre = ratio * (i as f64 + 0.5);
            if antialias {
                // entries out of the table have no share
                let begin = (centre - reach + 0.5).max(0.0) as usize;
                let end = ((centre + reach + 0.5) as usize).min(from);
                for (j, share) in row.iter_mut().enumerate().take(end).skip(begin) {
                    *share = self.share((j as f64 + 0.5 - centre) / width);
                }
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|share| *share /= sum);
            } else {
                // entries out of the table are those at its end
                let position = centre - 0.5;
                let first = position.floor() as i64 - (reach as i64 - 1);
                for j in first..first + 2 * reach as i64 {
                    let inside = j.clamp(0, from as i64 - 1) as usize;
                    row[inside] += self.share(position - j as f64);
                }
            }
        }
        shares.into_iter().map(|share| share as f32).collect()
    }
}

/// A table of the positions of a square or other grid, for another grid; differentiable.
///
/// # Shapes
/// `table: [from.0 * from.1, D]`; gives `[to.0 * to.1, D]`.
pub fn resize_grid(
    table: Tensor<2>,
    from: [usize; 2],
    to: [usize; 2],
    interpolation: Interpolation,
) -> Tensor<2> {
    if from == to {
        return table;
    }
    let (d, device) = (table.dims()[1], table.device());
    let [rows, columns] = [0, 1].map(|i| shares(from[i], to[i], interpolation, &device));
    let x = table.reshape([from[0], from[1] * d]);
    let x = rows.matmul(x).reshape([to[0], from[1], d]); // [h, w0, D]
    let columns: Tensor<3> = columns.unsqueeze();
    columns
        .repeat_dim(0, to[0])
        .matmul(x) // [h, w, D]
        .reshape([to[0] * to[1], d])
}

/// A table of positions in a row, for another number of them.
///
/// # Shapes
/// `table: [N, D]`; gives `[to, D]`.
pub fn resize_row(table: Tensor<2>, to: usize, interpolation: Interpolation) -> Tensor<2> {
    let device = table.device();
    shares(table.dims()[0], to, interpolation, &device).matmul(table)
}

fn shares(from: usize, to: usize, interpolation: Interpolation, device: &Device) -> Tensor<2> {
    let shares = interpolation.shares(from, to);
    Tensor::from_data(TensorData::new(shares, [to, from]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.nn.functional.interpolate` of 0, 1, 4, 9, 16 to three and seven entries, PyTorch 2.15.
    #[test]
    fn rows_are_interpolated_as_pytorch_does() {
        let table: Vec<f32> = (0..5).map(|x| (x * x) as f32).collect();
        for (interpolation, expected) in EXPECTED {
            for expected in expected {
                let shares = interpolation.shares(5, expected.len());
                for (row, &expected) in shares.chunks(5).zip(expected) {
                    let found: f32 = row.iter().zip(&table).map(|(a, b)| a * b).sum();
                    let name = format!("{interpolation:?}: {found} is not {expected}");
                    assert!((found - expected).abs() < 1e-5, "{name}");
                }
            }
        }
    }

    const EXPECTED: [(Interpolation, [&[f32]; 2]); 4] = [
        (
            Interpolation::Linear,
            [
                &[0.3333333, 4.0, 13.66667],
                &[0.0, 0.5714286, 1.857143, 4.0, 7.571429, 12.0, 16.0],
            ],
        ),
        (
            Interpolation::LinearAntialias,
            [
                &[0.4285714, 4.444445, 13.0],
                &[0.0, 0.5714285, 1.857143, 4.0, 7.571429, 12.0, 16.0],
            ],
        ),
        (
            Interpolation::Cubic,
            [
                &[0.148149, 4.0, 14.07407],
                &[
                    -0.07871747,
                    0.2653066,
                    1.682217,
                    4.0,
                    7.046647,
                    12.46355,
                    16.55103,
                ],
            ],
        ),
        (
            Interpolation::CubicAntialias,
            [
                &[0.169231, 4.195349, 13.33846],
                &[
                    -0.05825242,
                    0.3601111,
                    1.653062,
                    4.0,
                    7.367347,
                    12.41551,
                    16.40777,
                ],
            ],
        ),
    ];
}
