//! What torchvision's detectors do to a picture themselves: normalise, resize, pad.

use super::numbers;
use burn::tensor::{Tensor, TensorData};

/// The size that a picture is brought to: its shorter side to `shortest`, unless the longer one would exceed `longest`.
///
/// The sides are rounded down, as torchvision has it.
pub fn resized([height, width]: [usize; 2], shortest: usize, longest: usize) -> [usize; 2] {
    let short = height.min(width) as f64;
    let long = height.max(width) as f64;
    let factor = (shortest as f64 / short).min(longest as f64 / long);
    [height, width].map(|side| ((side as f64 * factor).floor() as usize).max(1))
}

/// Neighbours of each new place along one axis, and the weight of the second.
fn neighbours(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    // in f32, for places are as exact as in the reference
    let scale = from as f32 / to as f32;
    let place = |i: usize| {
        let at = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
        let first = (at as usize).min(from - 1);
        let second = (first + 1).min(from - 1);
        (first, second, (at - first as f32).clamp(0.0, 1.0))
    };
    (0..to).map(place).collect()
}

/// Sides that hold pictures of these, the last multiples of `divisor` that are needed.
fn around(sizes: impl Iterator<Item = [usize; 2]>, divisor: usize) -> [usize; 2] {
    let most = sizes.fold([0, 0], |most, size| {
        [most[0].max(size[0]), most[1].max(size[1])]
    });
    most.map(|side| side.next_multiple_of(divisor))
}

/// Pictures normalised, resized with straight lines between pixels (`F.interpolate(mode="bilinear")`, without
/// antialiasing), and padded with zeros below and to the right to the largest and to multiples of `divisor`.
///
/// # Shapes
/// `pictures: [3, H, W]` each, to be `[height, width]` of `sizes`; gives `[B, H', W', 3]`.
pub fn prepared(
    pictures: &[Tensor<3>],
    normalize: [[f32; 3]; 2],
    sizes: &[[usize; 2]],
    divisor: usize,
) -> Tensor<4> {
    let [rows, columns] = around(sizes.iter().copied(), divisor);
    let mut out = vec![0.0; pictures.len() * rows * columns * 3];
    let device = pictures.first().map(Tensor::device).unwrap_or_default();
    let each = pictures.iter().zip(sizes);
    for ((picture, &size), out) in each.zip(out.chunks_exact_mut((rows * columns * 3).max(1))) {
        fill(picture, normalize, size, columns, out);
    }
    let shape = [pictures.len(), rows, columns, 3];
    Tensor::from_data(TensorData::new(out, shape), &device)
}

/// One picture of [`prepared`], in rows of `columns` pixels.
fn fill(
    picture: &Tensor<3>,
    [mean, std]: [[f32; 3]; 2],
    [height, width]: [usize; 2],
    columns: usize,
    out: &mut [f32],
) {
    let [_, old_height, old_width] = picture.dims();
    let data = numbers(picture.clone());
    let (ys, xs) = (neighbours(old_height, height), neighbours(old_width, width));
    for c in 0..3 {
        let plane = &data[c * old_height * old_width..][..old_height * old_width];
        let value = |y: usize, x: usize| (plane[y * old_width + x] - mean[c]) / std[c];
        for (y, &(top, bottom, down)) in ys.iter().enumerate() {
            let out = &mut out[y * columns * 3..][..width * 3];
            for (&(left, right, along), out) in xs.iter().zip(out.chunks_exact_mut(3)) {
                let upper = (1.0 - along) * value(top, left) + along * value(top, right);
                let lower = (1.0 - along) * value(bottom, left) + along * value(bottom, right);
                out[c] = (1.0 - down) * upper + down * lower;
            }
        }
    }
}

/// Pictures as they are, padded with zeros below and to the right to the largest.
///
/// # Shapes
/// `pictures: [3, H, W]` each; gives `[B, H', W', 3]`.
pub fn stacked(pictures: &[Tensor<3>]) -> Tensor<4> {
    let size = |picture: &Tensor<3>| {
        let [_, height, width] = picture.dims();
        [height, width]
    };
    let [rows, columns] = around(pictures.iter().map(size), 1);
    let each = pictures.iter().map(|picture| {
        let [_, height, width] = picture.dims();
        let padding = (0, columns - width, 0, rows - height);
        let padded = match padding {
            (0, 0, 0, 0) => picture.clone(),
            _ => picture.clone().pad(padding, 0.0),
        };
        padded.permute([1, 2, 0]) // [H', W', 3]
    });
    Tensor::stack(each.collect(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn sides_are_torchvisions() {
        // torchvision 0.29.2 says so, but for the last, which it refuses
        assert_eq!(resized([600, 600], 800, 1333), [800, 800]);
        assert_eq!(resized([480, 640], 800, 1333), [800, 1066]);
        assert_eq!(resized([427, 640], 800, 1333), [800, 1199]);
        assert_eq!(resized([100, 1000], 800, 1333), [133, 1333]);
        assert_eq!(resized([1, 100_000], 800, 1333), [1, 1333]);
    }

    #[test]
    fn a_batch_is_padded_to_its_largest_picture_with_zeros() {
        let device = Device::flex();
        let pictures = [[3, 2, 5], [3, 4, 3]].map(|shape| Tensor::ones(shape, &device));
        let sum = |x: Tensor<4>| x.sum().into_scalar::<f32>();
        let x = stacked(&pictures);
        assert_eq!(x.dims(), [2, 4, 5, 3]);
        assert_eq!(sum(x.clone()), 3.0 * (10.0 + 12.0));
        assert_eq!(sum(x.slice([0..1, 0..2, 0..5, 0..3])), 30.0);
        let x = prepared(&pictures, [[0.0; 3], [0.5; 3]], &[[4, 10], [4, 3]], 4);
        assert_eq!(x.dims(), [2, 4, 12, 3]);
        assert_eq!(sum(x), 2.0 * 3.0 * (40.0 + 12.0));
    }
}
