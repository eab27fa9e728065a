//! Centre crop.

/// Where a centre crop of `crop` pixels begins in a side of `side` pixels; negative where the crop
/// is larger and the picture is padded on both sides.
///
/// Rounded towards negative infinity, as `transformers.image_transforms.center_crop` does: an odd
/// pixel too many is cut at the end, an odd pixel of padding is put in front.
///
/// ```
/// use vlm_data::image::center_crop_offset;
/// assert_eq!(center_crop_offset(7, 4), 1);
/// assert_eq!(center_crop_offset(4, 7), -2);
/// ```
pub fn center_crop_offset(side: u64, crop: u32) -> i64 {
    let difference = i128::from(side) - i128::from(crop);
    // At most 2^64 halved: fits.
    difference.div_euclid(2) as i64
}
