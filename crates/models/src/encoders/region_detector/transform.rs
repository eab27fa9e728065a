//! What torchvision's detectors do to a picture themselves: normalise, resize, pad.

use burn::tensor::{Tensor, TensorData};

/// The size that a picture is brought to: its shorter side to `shortest`, unless the longer one would exceed `longest`.
///
/// The factor is rounded to f32 and the sides then down, as torchvision has it: a side of 480 that becomes 800 may become
/// 799.
pub fn resized([height, width]: [usize; 2], shortest: usize, longest: usize) -> [usize; 2] {
    let short = height.min(width) as f32;
    let long = height.max(width) as f32;
    let factor = f64::from((shortest as f32 / short).min(longest as f32 / long));
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

/// A picture normalised, resized with straight lines between pixels (`F.interpolate(mode="bilinear")`, without
/// antialiasing), and padded with zeros below and to the right to multiples of `divisor`.
///
/// # Shapes
/// `picture: [3, H, W]`; gives `[1, H', W', 3]`.
pub fn prepared(
    picture: Tensor<3>,
    [mean, std]: [[f32; 3]; 2],
    [height, width]: [usize; 2],
    divisor: usize,
) -> Tensor<4> {
    let [_, old_height, old_width] = picture.dims();
    let device = picture.device();
    let data = picture.into_data().convert::<f32>();
    let data: Vec<f32> = data.try_to_vec().expect("f32");
    let [rows, columns] = [height, width].map(|side| side.next_multiple_of(divisor));
    let mut out = vec![0.0; rows * columns * 3];
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
    Tensor::from_data(TensorData::new(out, [1, rows, columns, 3]), &device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_rounded_down_after_a_factor_in_f32() {
        assert_eq!(resized([600, 600], 800, 1333), [800, 800]);
        assert_eq!(resized([480, 640], 800, 1333), [799, 1066]);
        assert_eq!(resized([427, 640], 800, 1333), [800, 1199]);
        assert_eq!(resized([100, 1000], 800, 1333), [133, 1333]);
        assert_eq!(resized([1, 100_000], 800, 1333), [1, 1333]);
    }
}
