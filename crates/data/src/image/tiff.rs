//! TIFF: grey of 1 to 16 bits, palettes, RGB, RGBA and CMYK, in strips or tiles.

use std::io::Cursor;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits as TiffLimits};
use tiff::tags::Tag;

use super::decode::{Limits, Source, drop_fourth};
use super::{Image, orientation};
use crate::Error;

pub(super) fn decode(source: &Source<'_>, limits: &Limits) -> Result<Image, Error> {
    let failed = |error: tiff::TiffError| match &error {
        tiff::TiffError::UnsupportedError(what) => source.unsupported(&what.to_string()),
        _ => source.damaged(&error.to_string()),
    };
    let budget = usize::try_from(limits.max_pixels.saturating_mul(8)).unwrap_or(usize::MAX);
    let mut tiff_limits = TiffLimits::default();
    tiff_limits.decoding_buffer_size = budget;
    tiff_limits.intermediate_buffer_size = budget;
    let mut decoder = Decoder::new(Cursor::new(source.bytes))
        .map_err(failed)?
        .with_limits(tiff_limits);
    let (width, height) = decoder.dimensions().map_err(failed)?;
    source.check_size(width.into(), height.into(), limits)?;
    let colour = decoder.colortype().map_err(failed)?;
    let orientation_tag = decoder
        .find_tag_unsigned::<u16>(Tag::Orientation)
        .ok()
        .flatten();
    let turn = orientation_tag
        .and_then(|tag| u8::try_from(tag).ok())
        .and_then(image::metadata::Orientation::from_exif)
        .unwrap_or(image::metadata::Orientation::NoTransforms);
    let palette = match colour {
        ColorType::Palette(_) => decoder
            .get_tag(Tag::ColorMap)
            .and_then(tiff::decoder::ifd::Value::into_u16_vec)
            .map_err(failed)?,
        _ => Vec::new(),
    };
    let (width_px, height_px) = (width as usize, height as usize);
    let pixels = width_px * height_px;
    let rgb = match (decoder.read_image().map_err(failed)?, colour) {
        (DecodingResult::U8(v), ColorType::Gray(8)) => grey(v),
        (DecodingResult::U8(v), ColorType::Gray(bits @ (1 | 2 | 4))) => {
            let scale = 255 / ((1u16 << bits) - 1) as u8;
            let samples = unpack(&v, width_px, height_px, bits);
            grey(samples.map(|s| s * scale))
        }
        (DecodingResult::U16(v), ColorType::Gray(16)) => grey(v.into_iter().map(high)),
        (DecodingResult::U8(v), ColorType::GrayA(8)) => grey(v.into_iter().step_by(2)),
        (DecodingResult::U8(v), ColorType::RGB(8)) => v,
        (DecodingResult::U16(v), ColorType::RGB(16)) => v.into_iter().map(high).collect(),
        (DecodingResult::U8(v), ColorType::RGBA(8)) => drop_fourth(&v),
        (DecodingResult::U16(v), ColorType::RGBA(16)) => {
            drop_fourth(&v.into_iter().map(high).collect::<Vec<u8>>())
        }
        (DecodingResult::U8(v), ColorType::CMYK(8)) => {
            v.chunks_exact(4).flat_map(cmyk_to_rgb).collect()
        }
        (DecodingResult::U8(v), ColorType::Palette(bits @ (1 | 2 | 4 | 8))) => {
            // Three planes of 2^bits entries, red first.
            let entries = 1usize << bits;
            if palette.len() != entries * 3 {
                return Err(source.damaged(&format!(
                    "expected a colour map of {} entries, found {}",
                    entries * 3,
                    palette.len()
                )));
            }
            unpack(&v, width_px, height_px, bits)
                .flat_map(|s| {
                    [0, 1, 2].map(|plane| high(palette[plane * entries + usize::from(s)]))
                })
                .collect()
        }
        _ => return Err(source.unsupported(&format!("colour type {colour:?}"))),
    };
    if rgb.len() != pixels * 3 {
        return Err(source.unsupported(&format!("planar layout of {colour:?}")));
    }
    let image = Image::from_rgb(width, height, rgb)?;
    Ok(orientation::apply(image, turn))
}

fn high(sample: u16) -> u8 {
    (sample >> 8) as u8
}

fn grey(samples: impl IntoIterator<Item = u8>) -> Vec<u8> {
    samples.into_iter().flat_map(|s| [s; 3]).collect()
}

/// Samples of `bits` packed from the high end, each row starting on a byte.
fn unpack(packed: &[u8], width: usize, height: usize, bits: u8) -> impl Iterator<Item = u8> + '_ {
    let per_byte = usize::from(8 / bits);
    let row = width.div_ceil(per_byte).max(1);
    let mask = ((1u16 << bits) - 1) as u8;
    packed.chunks_exact(row).take(height).flat_map(move |line| {
        (0..width).map(move |x| {
            let shift = 8 - bits * (x % per_byte + 1) as u8;
            (line[x / per_byte] >> shift) & mask
        })
    })
}

/// Pillow's `cmyk2rgb` (Convert.c): ink takes its share of what black leaves.
fn cmyk_to_rgb(cmyk: &[u8]) -> [u8; 3] {
    let left = 255 - u32::from(cmyk[3]);
    [0, 1, 2].map(|channel| {
        let product = u32::from(cmyk[channel]) * left + 128;
        (left - (((product >> 8) + product) >> 8)) as u8
    })
}
