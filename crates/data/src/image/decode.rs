//! From encoded bytes to an upright RGB picture, within limits.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader};

use super::{Image, gif, jpeg, orientation, tiff};
use crate::Error;
use crate::error::one_line;

/// What a picture may cost. Checked before decoding, from the file's size and the header's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Width × height, default 100 000 000.
    pub max_pixels: u64,
    /// Encoded size in bytes, default 512 MiB.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pixels: 100_000_000,
            max_bytes: 512 << 20,
        }
    }
}

/// Reads and decodes the picture at `path`; see [`decode`].
///
/// # Errors
/// As [`decode`], and where the file is missing, no file, unreadable or larger than
/// [`Limits::max_bytes`]; the message names the file.
pub fn read(path: &Path, limits: &Limits) -> Result<Image, Error> {
    let failed = |source| Error::io(path, "read", source);
    // Asked before opening: to open a named pipe would wait for its writer.
    let meta = std::fs::metadata(path).map_err(failed)?;
    let name = path.display().to_string();
    if !meta.is_file() {
        let found = if meta.is_dir() {
            "a directory"
        } else {
            "a device or pipe"
        };
        return Err(Error::NotAFile { name, found });
    }
    if meta.len() > limits.max_bytes {
        return Err(Error::TooManyBytes {
            name,
            found: meta.len().to_string(),
            limit: limits.max_bytes,
        });
    }
    // The file may grow between the two calls; the limit holds all the same.
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    let file = File::open(path).map_err(failed)?;
    file.take(limits.max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    decode(&bytes, &name, limits)
}

/// Decodes a JPEG, PNG, WebP, GIF, BMP or TIFF picture, told by its first bytes, never by a name.
///
/// As the reference (`transformers.image_utils.load_image`) does: turned upright as EXIF says,
/// alpha dropped and not blended, palettes expanded, 16 bits cut to their upper 8, CMYK as Pillow
/// converts it, colour profiles ignored, the first frame of an animation.
///
/// `name` stands in messages for the file: a path, or `<stdin>`.
///
/// # Errors
/// Empty, too large, not a picture, unsupported, more pixels than allowed (told from the header,
/// before anything is decoded), truncated or damaged.
pub fn decode(bytes: &[u8], name: &str, limits: &Limits) -> Result<Image, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty {
            name: name.to_owned(),
            expected: "a picture",
        });
    }
    if bytes.len() as u64 > limits.max_bytes {
        return Err(Error::TooManyBytes {
            name: name.to_owned(),
            found: bytes.len().to_string(),
            limit: limits.max_bytes,
        });
    }
    let (format, format_name) = sniff(bytes).ok_or_else(|| Error::NotAnImage {
        name: name.to_owned(),
        found: describe_start(bytes),
    })?;
    let source = Source {
        bytes,
        name,
        format: format_name,
    };
    match format {
        ImageFormat::Jpeg => jpeg::decode(&source, limits),
        ImageFormat::Gif => gif::decode(&source, limits),
        ImageFormat::Tiff => tiff::decode(&source, limits),
        other => decode_simple(&source, other, limits),
    }
}

/// The bytes to decode, and the words for what is wrong with them.
pub(super) struct Source<'a> {
    pub bytes: &'a [u8],
    pub name: &'a str,
    pub format: &'static str,
}

impl Source<'_> {
    pub fn damaged(&self, detail: &str) -> Error {
        Error::DamagedImage {
            name: self.name.to_owned(),
            format: self.format,
            detail: one_line(detail),
        }
    }

    pub fn unsupported(&self, found: &str) -> Error {
        Error::UnsupportedImage {
            name: self.name.to_owned(),
            format: self.format,
            found: one_line(found),
        }
    }

    /// Refuses a size that the header announces, before anything is allocated for it.
    pub fn check_size(&self, width: u64, height: u64, limits: &Limits) -> Result<(), Error> {
        let name = || self.name.to_owned();
        if width == 0 || height == 0 {
            return Err(Error::NoPixels {
                name: name(),
                width,
                height,
            });
        }
        if width.saturating_mul(height) > limits.max_pixels {
            return Err(Error::TooManyPixels {
                name: name(),
                width,
                height,
                limit: limits.max_pixels,
            });
        }
        Ok(())
    }
}

fn sniff(bytes: &[u8]) -> Option<(ImageFormat, &'static str)> {
    let is = |magic: &[u8]| bytes.starts_with(magic);
    Some(if is(b"\xFF\xD8\xFF") {
        (ImageFormat::Jpeg, "JPEG")
    } else if is(b"\x89PNG\r\n\x1A\n") {
        (ImageFormat::Png, "PNG")
    } else if is(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        (ImageFormat::WebP, "WebP")
    } else if is(b"GIF87a") || is(b"GIF89a") {
        (ImageFormat::Gif, "GIF")
    } else if is(b"BM") {
        (ImageFormat::Bmp, "BMP")
    } else if is(b"II*\0") || is(b"MM\0*") || is(b"II+\0") || is(b"MM\0+") {
        (ImageFormat::Tiff, "TIFF")
    } else {
        return None;
    })
}

/// The first bytes as a person can read them: text in quotes, anything else in hexadecimal.
fn describe_start(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(16)];
    let printable = |b: &u8| b.is_ascii_graphic() || matches!(b, b' ' | b'\n' | b'\r' | b'\t');
    if start.iter().all(printable) {
        let text: String = start.iter().map(|&b| char::from(b)).collect();
        return format!("text that starts with {text:?}");
    }
    let hex: Vec<String> = start[..start.len().min(8)]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("bytes that start with {}", hex.join(" "))
}

/// PNG, WebP and BMP: one decoder each in the `image` crate, no special cases.
fn decode_simple(
    source: &Source<'_>,
    format: ImageFormat,
    limits: &Limits,
) -> Result<Image, Error> {
    let mut reader = ImageReader::with_format(Cursor::new(source.bytes), format);
    let mut budget = image::Limits::default();
    // At most 16 bits of RGBA a pixel, and the decoder's own tables.
    budget.max_alloc = Some(limits.max_pixels.saturating_mul(8).saturating_add(64 << 20));
    reader.limits(budget);
    let mut decoder = reader.into_decoder().map_err(|e| failure(source, &e))?;
    let (width, height) = decoder.dimensions();
    source.check_size(width.into(), height.into(), limits)?;
    let mut exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    if format == ImageFormat::Png && exif.is_none() {
        exif = png_exif(source.bytes).map(<[u8]>::to_vec);
    }
    let turn = orientation::from_metadata(exif.as_deref(), xmp.as_deref());
    let layout = decoder.color_type();
    let mut pixels = vec![0; usize::try_from(decoder.total_bytes()).unwrap_or(usize::MAX)];
    decoder
        .read_image(&mut pixels)
        .map_err(|e| failure(source, &e))?;
    let rgb = to_rgb8(pixels, layout)
        .ok_or_else(|| source.unsupported(&format!("colour type {layout:?}")))?;
    Ok(orientation::apply(
        Image::from_rgb(width, height, rgb)?,
        turn,
    ))
}

fn failure(source: &Source<'_>, error: &ImageError) -> Error {
    match error {
        ImageError::Unsupported(e) => source.unsupported(&e.to_string()),
        _ => source.damaged(&error.to_string()),
    }
}

/// Native-endian samples to RGB8: alpha dropped, 16 bits cut to the upper 8.
fn to_rgb8(pixels: Vec<u8>, layout: ColorType) -> Option<Vec<u8>> {
    let high = |pair: &[u8]| (u16::from_ne_bytes([pair[0], pair[1]]) >> 8) as u8;
    let grey = |step: usize| pixels.chunks_exact(step).flat_map(|p| [p[0]; 3]).collect();
    Some(match layout {
        ColorType::Rgb8 => pixels,
        ColorType::L8 => grey(1),
        ColorType::La8 => grey(2),
        ColorType::Rgba8 => drop_fourth(&pixels),
        ColorType::L16 => pixels.chunks_exact(2).flat_map(|p| [high(p); 3]).collect(),
        ColorType::La16 => pixels.chunks_exact(4).flat_map(|p| [high(p); 3]).collect(),
        ColorType::Rgb16 => pixels.chunks_exact(2).map(high).collect(),
        ColorType::Rgba16 => pixels
            .chunks_exact(8)
            .flat_map(|p| [high(p), high(&p[2..]), high(&p[4..])])
            .collect(),
        _ => return None,
    })
}

/// RGBA to RGB without blending.
pub(super) fn drop_fourth(rgba: &[u8]) -> Vec<u8> {
    rgba.chunks_exact(4)
        .flat_map(|p| [p[0], p[1], p[2]])
        .collect()
}

/// The `eXIf` chunk wherever it stands: the decoder sees only what precedes the pixels.
fn png_exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(8..)?;
    loop {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let data = rest.get(8..)?.get(..length)?;
        if &rest[4..8] == b"eXIf" {
            return Some(data);
        }
        rest = rest.get(8 + length + 4..)?;
    }
}
