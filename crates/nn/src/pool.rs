use burn::tensor::{Device, Tensor, TensorData};

/// The means of a grid of cells that cover a picture whatever its size (`torch.nn.AdaptiveAvgPool2d`): cell `i` of `n`
/// reaches from `floor(i * size / n)` to `ceil((i + 1) * size / n)`, so that cells overlap where `n` does not divide the
/// size, and repeat pixels where there are more cells than pixels.
///
/// # Shapes
/// `x: [B, C, H, W]`; gives `[B, C, rows, columns]`.
pub fn adaptive_average(x: Tensor<4>, [rows, columns]: [usize; 2]) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    if [h, w] == [rows, columns] {
        return x;
    }
    // a product with the share that each pixel has in each cell, first along rows, then along columns
    let across = shares(w, columns, &x.device()); // [W, columns]
    let x = x.reshape([b * c * h, w]).matmul(across); // [B * C * H, columns]
    let x = x.reshape([b * c, h, columns]).swap_dims(1, 2); // [B * C, columns, H]
    let down = shares(h, rows, &x.device()); // [H, rows]
    let x = x.reshape([b * c * columns, h]).matmul(down); // [B * C * columns, rows]
    x.reshape([b, c, columns, rows]).swap_dims(2, 3)
}

/// `[size, cells]`
fn shares(size: usize, cells: usize, device: &Device) -> Tensor<2> {
    let mut values = vec![0f32; size * cells];
    for cell in 0..cells {
        let (begin, end) = (cell * size / cells, ((cell + 1) * size).div_ceil(cells));
        for pixel in begin..end {
            values[pixel * cells + cell] = 1.0 / (end - begin) as f32;
        }
    }
    Tensor::from_data(TensorData::new(values, [size, cells]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use burn::tensor::Device;

    #[test]
    fn cells_of_every_size_have_the_means_that_burn_gives() {
        let device = Device::flex();
        for (size, cells) in [
            ([7, 7], [7, 7]),
            ([8, 6], [4, 3]),
            ([7, 5], [3, 2]),
            ([2, 3], [7, 4]),
            ([5, 5], [1, 1]),
        ] {
            let x = SplitMix64::new(1).normal_tensor([2, 3, size[0], size[1]], &device);
            let expected = burn::tensor::module::adaptive_avg_pool2d(x.clone(), cells);
            let found = adaptive_average(x, cells);
            assert_eq!(found.dims(), expected.dims());
            let error = (found - expected).abs().max().into_scalar::<f32>();
            assert!(error < 1e-6, "{size:?}, {cells:?}: {error}");
        }
    }
}
