//! Whatever bytes arrive, the answer is a picture or one line that names the file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vlm_data::Error;
use vlm_data::image::{self, Limits};

fn pictures() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/data/pictures");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 50, "the golden pictures are missing");
    files
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

/// One line that begins with the file's name.
fn assert_clear(error: &Error, name: &str) {
    let message = error.to_string();
    assert!(message.starts_with(&format!("{name}: ")), "{message}");
    assert!(
        !message.contains('\n') && message.chars().count() < 400,
        "{message}"
    );
}

fn decode(bytes: &[u8], name: &str) -> Result<image::Image, Error> {
    let result = image::decode(bytes, name, &Limits::default());
    if let Err(error) = &result {
        assert_clear(error, name);
    }
    result
}

/// A scratch directory of this test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vlm-data-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn no_prefix_of_a_picture_panics_and_half_of_one_is_an_error() {
    for (name, bytes) in pictures() {
        for end in 0..bytes.len() {
            let result = decode(&bytes[..end], &name);
            // An animation may be whole long before its file is.
            if end <= bytes.len() / 2 && !name.starts_with("animated") {
                assert!(result.is_err(), "{name} cut to {end} of {}", bytes.len());
            }
        }
    }
}

#[test]
fn random_damage_never_panics() {
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    // Small limits keep a lucky header from costing seconds.
    let limits = Limits {
        max_pixels: 1 << 20,
        ..Limits::default()
    };
    for (name, bytes) in pictures() {
        for _ in 0..120 {
            let mut damaged = bytes.clone();
            for _ in 0..=random(6) {
                // Headers are where the decisions are: half of the damage goes there.
                let reach = if random(2) == 0 { 64 } else { damaged.len() };
                let at = random(reach.min(damaged.len()));
                damaged[at] = match random(3) {
                    0 => 0xFF,
                    1 => 0,
                    _ => random(256) as u8,
                };
            }
            if let Err(error) = image::decode(&damaged, &name, &limits) {
                assert_clear(&error, &name);
            }
        }
    }
}

#[test]
fn huge_headers_are_refused_quickly_and_by_name() {
    let le = u32::to_le_bytes;
    let side = 60_000u32;
    let png = [
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice(),
        &side.to_be_bytes(),
        &side.to_be_bytes(),
        b"\x08\x02\0\0\0\x0f\xb0\xe2\x15\0\0\0\0IDAT",
    ]
    .concat();
    let gif = b"GIF89a\x60\xea\x60\xea\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x60\xea\x60\xea\0\x02\x02\x44\x01\0;";
    let mut bmp = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([le(side), le(side)].concat());
    bmp.extend(b"\x01\0\x18\0");
    bmp.extend([0; 24]);
    let entry =
        |tag: u16, value: u32| [&tag.to_le_bytes()[..], b"\x04\0\x01\0\0\0", &le(value)].concat();
    let tiff = [
        b"II*\0\x08\0\0\0\x07\0".to_vec(),
        entry(256, side),
        entry(257, side),
        entry(258, 8),
        entry(262, 1),
        entry(273, 8),
        entry(278, side),
        entry(279, u32::MAX),
        vec![0; 4],
    ]
    .concat();
    let (name, jpeg) = pictures().swap_remove(
        pictures()
            .iter()
            .position(|(name, _)| name == "baseline_420.jpg")
            .unwrap(),
    );
    assert_eq!(name, "baseline_420.jpg");
    let mut jpeg = jpeg;
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xEA, 0x60, 0xEA, 0x60]);
    let mut webp = b"RIFF\x1a\0\0\0WEBPVP8L\x0e\0\0\0\x2f".to_vec();
    webp.extend(le(0x3ffe | 0x3ffe << 14));
    webp.extend([0; 9]);
    for (name, bytes) in [
        ("png", png.as_slice()),
        ("gif", gif),
        ("bmp", &bmp),
        ("tiff", &tiff),
        ("jpeg", &jpeg),
        ("webp", &webp),
    ] {
        let start = Instant::now();
        let error = decode(bytes, name).unwrap_err();
        assert!(start.elapsed() < Duration::from_millis(200), "{name}");
        assert!(
            matches!(
                error,
                Error::TooManyPixels {
                    limit: 100_000_000,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains('×'), "{error}");
    }
}

#[test]
fn zero_sided_pictures_are_refused() {
    let gif = b"GIF89a\0\0\0\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\0\0\0\0\0\x02\x02\x44\x01\0;";
    assert!(matches!(
        decode(gif, "zero.gif").unwrap_err(),
        Error::NoPixels {
            width: 0,
            height: 0,
            ..
        }
    ));
    for (name, mut bytes) in pictures() {
        if name == "rgb.bmp" {
            bytes[18..22].fill(0);
            decode(&bytes, &name).unwrap_err();
        } else if name == "baseline_444.jpg" {
            let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
            bytes[frame + 7..frame + 9].fill(0);
            decode(&bytes, &name).unwrap_err();
        }
    }
}

#[test]
fn what_is_no_picture_is_shown_safely() {
    for (bytes, expected) in [
        (&b""[..], "<stdin>: expected a picture, found an empty file"),
        (
            b"<html><body>Not found",
            "<stdin>: expected a JPEG, PNG, WebP, GIF, BMP or TIFF picture, \
             found text that starts with \"<html><body>Not \"",
        ),
        (
            b"\x1b[31m\0\xff",
            "<stdin>: expected a JPEG, PNG, WebP, GIF, BMP or TIFF picture, \
             found bytes that start with 1b 5b 33 31 6d 00 ff",
        ),
    ] {
        assert_eq!(decode(bytes, "<stdin>").unwrap_err().to_string(), expected);
    }
}

#[test]
fn files_that_cannot_be_read_are_named_with_the_reason() {
    let scratch = Scratch::new("unreadable");
    let limits = Limits::default();
    let missing = scratch.0.join("missing.png");
    let message = image::read(&missing, &limits).unwrap_err().to_string();
    assert_eq!(
        message,
        format!("{}: cannot read: no such file", missing.display())
    );
    let message = image::read(&scratch.0, &limits).unwrap_err().to_string();
    assert_eq!(
        message,
        format!(
            "{}: expected a file, found a directory",
            scratch.0.display()
        )
    );
    let large = scratch.0.join("large.png");
    std::fs::write(&large, [0; 100]).unwrap();
    let small = Limits {
        max_bytes: 99,
        ..limits
    };
    let message = image::read(&large, &small).unwrap_err().to_string();
    assert_eq!(
        message,
        format!("{}: expected at most 99 bytes, found 100", large.display())
    );
}

#[test]
fn the_pixel_limit_is_the_callers() {
    let (_, bytes) = pictures()
        .into_iter()
        .find(|(name, _)| name == "rgb.png")
        .unwrap();
    let limits = |max_pixels| Limits {
        max_pixels,
        ..Limits::default()
    };
    assert!(image::decode(&bytes, "rgb.png", &limits(37 * 29)).is_ok());
    let error = image::decode(&bytes, "rgb.png", &limits(37 * 29 - 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rgb.png: 37×29 pixels exceed the limit of 1072"
    );
}

#[test]
fn what_follows_a_jpeg_does_not_matter() {
    let (name, bytes) = pictures()
        .into_iter()
        .find(|(name, _)| name == "progressive_420.jpg")
        .unwrap();
    let alone = decode(&bytes, &name).unwrap();
    // Cameras append videos and depth maps, which may contain any marker.
    let followed = [&bytes[..], b"\xff\xd8\xff\xda\0\x02movie"].concat();
    assert_eq!(decode(&followed, &name).unwrap(), alone);
}
