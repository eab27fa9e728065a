//! JPEG: baseline and progressive, grey, YCbCr, RGB, CMYK and YCCK.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::decode::{Limits, Source};
use super::{Image, orientation};
use crate::Error;

/// The largest side that a JPEG header can announce.
const MAX_SIDE: usize = 65535;

pub(super) fn decode(source: &Source<'_>, limits: &Limits) -> Result<Image, Error> {
    if !ends_properly(source.bytes) {
        return Err(source.damaged("no end-of-image marker"));
    }
    let options = DecoderOptions::default()
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .set_strict_mode(false)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(source.bytes), options);
    decoder.decode_headers().map_err(|e| failure(source, &e))?;
    let info = decoder
        .info()
        .ok_or_else(|| source.damaged("no frame header"))?;
    source.check_size(info.width.into(), info.height.into(), limits)?;
    let turn = orientation::from_metadata(
        decoder.exif().map(Vec::as_slice),
        decoder.xmp().map(Vec::as_slice),
    );
    // With four components the bytes are Adobe's inverted CMYK (YCCK is converted to it), which
    // Pillow assumes of every CMYK JPEG: channel × key / 255, rounded, is what its two steps give.
    let rgb = decoder.decode().map_err(|e| failure(source, &e))?;
    let image = Image::from_rgb(info.width.into(), info.height.into(), rgb)?;
    Ok(orientation::apply(image, turn))
}

fn failure(source: &Source<'_>, error: &DecodeErrors) -> Error {
    match error {
        DecodeErrors::Unsupported(_) => source.unsupported(&format!("{error:?}")),
        _ => source.damaged(&format!("{error:?}")),
    }
}

/// Whether an end-of-image marker follows the start of the last scan. The decoder fills what is
/// missing with grey; a truncated photograph must be an error instead, as in the reference.
fn ends_properly(bytes: &[u8]) -> bool {
    let end = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xD9]);
    let scan = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xDA]);
    matches!((scan, end), (Some(scan), Some(end)) if end > scan)
}
