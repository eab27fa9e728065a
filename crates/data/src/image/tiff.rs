//! TIFF: grey of 1 to 16 bits, palettes, RGB, RGBA and CMYK, in strips or tiles.

use std::io::Cursor;

use image::metadata::Orientation;
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
    // The decoder knows no palettes: it is told that the indices are grey levels.
    let palette = palette_as_grey(source.bytes);
    let bytes = palette.as_deref().unwrap_or(source.bytes);
    let mut decoder = Decoder::new(Cursor::new(bytes))
        .map_err(failed)?
        .with_limits(tiff_limits);
    let (width, height) = decoder.dimensions().map_err(failed)?;
    source.check_size(width.into(), height.into(), limits)?;
    let colour = decoder.colortype().map_err(failed)?;
    let turn = decoder
        .find_tag_unsigned::<u8>(Tag::Orientation)
        .ok()
        .flatten()
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms);
    let palette = match palette {
        Some(_) => Some(decoder.get_tag_u16_vec(Tag::ColorMap).map_err(failed)?),
        None => None,
    };
    let (width_px, height_px) = (width as usize, height as usize);
    let pixels = width_px * height_px;
    let samples = decoder.read_image().map_err(failed)?;
    let rgb = match (samples, colour) {
        (DecodingResult::U8(v), ColorType::Gray(bits @ (1 | 2 | 4 | 8))) if palette.is_some() => {
            // Three planes of 2^bits entries, red first.
            let (map, entries) = (palette.unwrap_or_default(), 1usize << bits);
            if map.len() != entries * 3 {
                return Err(source.damaged(&format!(
                    "expected a colour map of {} entries, found {}",
                    entries * 3,
                    map.len()
                )));
            }
            unpack(&v, width_px, height_px, bits)
                .flat_map(|s| [0, 1, 2].map(|plane| high(map[plane * entries + usize::from(s)])))
                .collect()
        }
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

/// The file with its photometric interpretation changed from palette (3) to black-is-zero (1), if
/// that is what its first directory says (TIFF 6.0, section 2: the directory's 12-byte entries).
fn palette_as_grey(bytes: &[u8]) -> Option<Vec<u8>> {
    const PHOTOMETRIC: u16 = 262;
    let little = bytes.starts_with(b"II*\0");
    if !little && !bytes.starts_with(b"MM\0*") {
        return None; // a BigTIFF stays as it is
    }
    let short = |at: usize| {
        let pair = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little {
            u16::from_le_bytes(pair)
        } else {
            u16::from_be_bytes(pair)
        })
    };
    let (low, high) = if little { (4, 6) } else { (6, 4) };
    let directory = usize::from(short(low)?) | usize::from(short(high)?) << 16;
    for entry in 0..usize::from(short(directory)?) {
        let at = directory + 2 + entry * 12;
        if short(at)? == PHOTOMETRIC {
            let value = at + 8;
            if short(value)? != 3 {
                return None;
            }
            let mut patched = bytes.to_vec();
            let grey = if little { [1, 0] } else { [0, 1] };
            patched[value..value + 2].copy_from_slice(&grey);
            return Some(patched);
        }
    }
    None
}
