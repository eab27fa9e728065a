//! Centre crop.

/// Which way a centre crop leans where a side has an odd pixel too many or too few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CropRounding {
    /// `transformers` with Pillow: an odd pixel too many is cut at the end, an odd pixel of padding
    /// is put in front.
    #[default]
    Down,
    /// `transformers` with torchvision: an odd pixel, too many or of padding, is at the end.
    TowardsZero,
    /// torchvision's `CenterCrop`: what is cut in front is half of what is too many, rounded to the even
    /// neighbour. An odd pixel of padding is put at the end.
    HalfToEven,
}

/// Where a centre crop of `crop` pixels begins in a side of `side` pixels; negative where the crop
/// is larger and the picture is padded on both sides.
///
/// ```
/// use vlm_data::image::{CropRounding, center_crop_offset};
/// assert_eq!(center_crop_offset(7, 4, CropRounding::Down), 1);
/// assert_eq!(center_crop_offset(7, 4, CropRounding::HalfToEven), 2);
/// assert_eq!(center_crop_offset(4, 7, CropRounding::Down), -2);
/// assert_eq!(center_crop_offset(4, 7, CropRounding::TowardsZero), -1);
/// ```
pub fn center_crop_offset(side: u64, crop: u32, rounding: CropRounding) -> i64 {
    let difference = i128::from(side) - i128::from(crop);
    let offset = match rounding {
        CropRounding::Down => difference.div_euclid(2),
        CropRounding::TowardsZero => difference / 2,
        // Half of an odd number lies between two whole ones, of which one is even.
        CropRounding::HalfToEven if difference > 0 && difference % 4 == 3 => difference / 2 + 1,
        CropRounding::HalfToEven => difference / 2,
    };
    // At most 2^64 halved: fits.
    offset as i64
}
