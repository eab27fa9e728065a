//! EXIF orientation: which way up the camera was held.

use image::metadata::Orientation;

use super::Image;

/// The orientation that the metadata ask for, as `PIL.Image.getexif` finds it: the EXIF block's
/// first directory, and where that has no such tag the XMP packet's `tiff:Orientation`.
pub(super) fn from_metadata(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    exif.and_then(|exif| Orientation::from_exif_chunk(strip_exif_prefix(exif)))
        .or_else(|| xmp.and_then(from_xmp))
        .unwrap_or(Orientation::NoTransforms)
}

/// WebP and PNG writers sometimes keep JPEG's `Exif\0\0` in front of the TIFF header.
fn strip_exif_prefix(exif: &[u8]) -> &[u8] {
    exif.strip_prefix(b"Exif\0\0").unwrap_or(exif)
}

fn from_xmp(xmp: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut rest = xmp;
    while let Some(at) = find(rest, NAME) {
        rest = &rest[at + NAME.len()..];
        let value = rest
            .strip_prefix(b"=\"")
            .or_else(|| rest.strip_prefix(b">"));
        if let Some(&digit @ b'0'..=b'9') = value.and_then(<[u8]>::first) {
            return Orientation::from_exif(digit - b'0');
        }
    }
    None
}

/// Where `needle` first lies in `haystack`.
pub(super) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Turns and mirrors the picture so that it is seen upright.
pub(super) fn apply(image: Image, orientation: Orientation) -> Image {
    use Orientation as O;
    if orientation == O::NoTransforms {
        return image;
    }
    let (w, h) = (image.width as usize, image.height as usize);
    let sides_swap = matches!(
        orientation,
        O::Rotate90 | O::Rotate270 | O::Rotate90FlipH | O::Rotate270FlipH
    );
    let (out_w, out_h) = if sides_swap { (h, w) } else { (w, h) };
    let mut rgb = Vec::with_capacity(image.rgb.len());
    for y in 0..out_h {
        for x in 0..out_w {
            let (from_x, from_y) = match orientation {
                O::NoTransforms => (x, y),
                O::FlipHorizontal => (w - 1 - x, y),
                O::Rotate180 => (w - 1 - x, h - 1 - y),
                O::FlipVertical => (x, h - 1 - y),
                O::Rotate90FlipH => (y, x), // transposed
                O::Rotate90 => (y, h - 1 - x),
                O::Rotate270FlipH => (w - 1 - y, h - 1 - x), // transversed
                O::Rotate270 => (w - 1 - y, x),
            };
            let at = (from_y * w + from_x) * 3;
            rgb.extend_from_slice(&image.rgb[at..at + 3]);
        }
    }
    Image {
        width: out_w as u32,
        height: out_h as u32,
        rgb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 3×2 picture whose pixels are numbered row by row.
    fn numbered() -> Image {
        Image::from_rgb(3, 2, (0..6).flat_map(|n| [n, n, n]).collect()).unwrap()
    }

    #[test]
    fn each_orientation_moves_the_corners_where_exif_says() {
        // Rows of the upright picture, per EXIF 2.32 table 6 (0th row and column of the stored one).
        let expected: [(u8, [u8; 6]); 8] = [
            (1, [0, 1, 2, 3, 4, 5]),
            (2, [2, 1, 0, 5, 4, 3]),
            (3, [5, 4, 3, 2, 1, 0]),
            (4, [3, 4, 5, 0, 1, 2]),
            (5, [0, 3, 1, 4, 2, 5]),
            (6, [3, 0, 4, 1, 5, 2]),
            (7, [5, 2, 4, 1, 3, 0]),
            (8, [2, 5, 1, 4, 0, 3]),
        ];
        for (tag, pixels) in expected {
            let upright = apply(numbered(), Orientation::from_exif(tag).unwrap());
            let swapped = tag >= 5;
            assert_eq!(upright.width, if swapped { 2 } else { 3 }, "tag {tag}");
            let found: Vec<u8> = upright.rgb.chunks(3).map(|p| p[0]).collect();
            assert_eq!(found, pixels, "tag {tag}");
        }
    }

    #[test]
    fn xmp_counts_only_where_exif_is_silent() {
        let xmp = br#"<rdf:Description tiff:Orientation="6"/>"#;
        let element = b"<tiff:Orientation>8</tiff:Orientation>";
        assert_eq!(from_metadata(None, Some(xmp)), Orientation::Rotate90);
        assert_eq!(from_metadata(None, Some(element)), Orientation::Rotate270);
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0";
        assert_eq!(from_metadata(Some(exif), Some(xmp)), Orientation::Rotate180);
        assert_eq!(
            from_metadata(None, Some(b"tiff:Orientation=\"x")),
            Orientation::NoTransforms
        );
    }
}
