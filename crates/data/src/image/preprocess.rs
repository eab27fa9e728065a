//! From a picture to a model's input.

use std::path::Path;

use super::config::parse_object;
use super::{
    CropRounding, Image, Normalize, PatchLimit, PreprocessorConfig, ProcessorKind, Region,
    center_crop_offset, open_clip, resize, resize_region,
};
use crate::Error;
use crate::files::read_small;

/// Names of the files that say what is done to pictures.
const PROCESSOR: &str = "processor_config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const OPEN_CLIP: &str = "open_clip_config.json";

/// One picture as a model takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelValues {
    /// Always 3: red, green, blue, or the reverse where the configuration says so.
    pub channels: usize,
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
    /// `[channels, height, width]`.
    pub data: Vec<f32>,
}

/// One picture as a model of variable resolution takes it, padded with empty patches.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchValues {
    /// Pixels a side of a patch.
    pub patch_size: usize,
    /// Rows of patches and patches in a row: `spatial_shapes`. Their product is the number of patches
    /// that are not empty.
    pub spatial_shape: [usize; 2],
    /// `[max_num_patches, patch_size × patch_size × 3]`, patches from left to right and top to bottom,
    /// each as rows of interleaved pixels.
    pub data: Vec<f32>,
    /// `[max_num_patches]`: `pixel_attention_mask`, 1 for a patch of the picture, 0 for an empty one.
    pub mask: Vec<u8>,
}

/// One picture, prepared.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageInputs {
    /// Pixels of a size that the processor decides.
    Pixels(PixelValues),
    /// Patches of a size that the picture's aspect ratio decides.
    Patches(PatchValues),
}

/// Does what a [`PreprocessorConfig`] says, in the reference's order: resize, crop, rescale,
/// normalise, pad.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    config: PreprocessorConfig,
    normalize: Normalize,
}

impl ImageProcessor {
    /// Prepares the arithmetic.
    pub fn from_config(config: PreprocessorConfig) -> Self {
        let normalize = Normalize::new(config.rescale, config.normalize, config.arithmetic);
        Self { config, normalize }
    }

    /// The processor that a checkpoint's directory describes: the `image_processor` of its
    /// `processor_config.json`, its `preprocessor_config.json`, or the `preprocess_cfg` of its
    /// `open_clip_config.json`, the first that there is; for [`ProcessorKind::OpenClip`] the last comes
    /// first. A file that names no processor class is read as `fallback`.
    ///
    /// Checkpoints without such a file (OpenAI's CLIP, ALBEF, the original BLIP, torchvision's) have
    /// their pipelines in code: [`PreprocessorConfig::defaults`].
    ///
    /// # Errors
    /// None of the files is there, or one cannot be read or understood; the message names it.
    pub fn from_directory(directory: &Path, fallback: ProcessorKind) -> Result<Self, Error> {
        Self::find(directory, fallback)?.ok_or_else(|| Error::Missing {
            name: directory.display().to_string(),
            expected: format!("{PREPROCESSOR}, {PROCESSOR} or {OPEN_CLIP}"),
        })
    }

    /// As [`from_directory`](Self::from_directory), with `None` where there is none of the files.
    ///
    /// # Errors
    /// A file that is there and cannot be read or understood.
    pub fn find(directory: &Path, fallback: ProcessorKind) -> Result<Option<Self>, Error> {
        let read = |file: &str| {
            let path = directory.join(file);
            let name = path.display().to_string();
            read_small(&path).map(|bytes| bytes.map(|bytes| (bytes, name)))
        };
        let open_clip = || match read(OPEN_CLIP)? {
            Some((bytes, name)) => open_clip::parse(&bytes, &name).map(Some),
            None => Ok(None),
        };
        let mut config = match fallback {
            ProcessorKind::OpenClip => open_clip()?,
            _ => None,
        };
        if config.is_none()
            && let Some((bytes, name)) = read(PROCESSOR)?
            // Most such files only name the processor class.
            && let Some(nested) = parse_object(&bytes, &name)?.remove("image_processor")
        {
            let serde_json::Value::Object(object) = nested else {
                return Err(Error::Config {
                    name,
                    key: "image_processor".to_owned(),
                    expected: "an object".to_owned(),
                    found: crate::error::one_line(&nested.to_string()),
                });
            };
            config = Some(PreprocessorConfig::from_object(object, &name, fallback)?);
        }
        if config.is_none()
            && let Some((bytes, name)) = read(PREPROCESSOR)?
        {
            config = Some(PreprocessorConfig::from_json(&bytes, &name, fallback)?);
        }
        if config.is_none() {
            config = open_clip()?;
        }
        Ok(config.map(Self::from_config))
    }

    /// What this processor does.
    pub fn config(&self) -> &PreprocessorConfig {
        &self.config
    }

    /// One picture to pixels or patches, whichever the processor makes.
    ///
    /// # Errors
    /// [`Error::Resize`] where the picture would shrink to nothing, grow beyond 100 megapixels, exceed
    /// the size that it is to be padded to, or give more patches than allowed.
    pub fn inputs(&self, image: &Image) -> Result<ImageInputs, Error> {
        if self.config.patches.is_some() {
            self.patches(image).map(ImageInputs::Patches)
        } else {
            self.process(image).map(ImageInputs::Pixels)
        }
    }

    /// One picture to the patches of a NaFlex processor. Where [`PreprocessorConfig::patches`] is `None`,
    /// the defaults of SigLIP 2 count.
    ///
    /// # Errors
    /// [`Error::Resize`] where a picture that is not to be resized is not made of whole patches, or of
    /// too many.
    fn patches(&self, image: &Image) -> Result<PatchValues, Error> {
        let limit = self.config.patches.unwrap_or(PatchLimit {
            patch_size: 16,
            max_num_patches: 256,
        });
        let (width, height) = match self.config.resize {
            Some(_) => naflex_size(image.width, image.height, limit),
            None => (image.width, image.height),
        };
        let refuse = |reason: String| Error::Resize {
            from_width: image.width,
            from_height: image.height,
            width: width.into(),
            height: height.into(),
            reason,
        };
        let patch = limit.patch_size;
        if width % patch != 0 || height % patch != 0 {
            return Err(refuse(format!(
                "expected sides of whole patches of {patch} pixels, as do_resize is off"
            )));
        }
        let (across, down) = ((width / patch) as usize, (height / patch) as usize);
        let (patch, most) = (patch as usize, limit.max_num_patches as usize);
        let row = patch * patch * 3;
        if across.saturating_mul(down) > most {
            return Err(refuse(format!("expected at most {most} patches")));
        }
        if (most * row) as u64 > super::resize::MAX_OUTPUT_PIXELS * 3 {
            return Err(refuse(format!(
                "{most} patches of {patch}×{patch} are more than 100 megapixels"
            )));
        }
        let resized = resize(
            image,
            width,
            height,
            self.config.filter,
            self.config.resampler,
        )?;
        let mut data = vec![0.0; most * row];
        for (index, values) in data.chunks_exact_mut(row).take(across * down).enumerate() {
            let (left, top) = (index % across * patch, index / across * patch);
            for (y, line) in values.chunks_exact_mut(patch * 3).enumerate() {
                let at = ((top + y) * width as usize + left) * 3;
                let levels = &resized.rgb[at..at + patch * 3];
                for (x, (value, &level)) in line.iter_mut().zip(levels).enumerate() {
                    *value = self.normalize.apply(x % 3, level);
                }
            }
        }
        let mask = (0..most).map(|index| u8::from(index < across * down));
        Ok(PatchValues {
            patch_size: patch,
            spatial_shape: [down, across],
            data,
            mask: mask.collect(),
        })
    }

    /// One picture to `[3, height, width]`.
    ///
    /// # Errors
    /// [`Error::Resize`] where the picture would shrink to nothing, grow beyond 100 megapixels, or
    /// exceed the size that it is to be padded to; [`Error::Processor`] where the processor makes
    /// patches, see [`inputs`](Self::inputs).
    pub fn process(&self, image: &Image) -> Result<PixelValues, Error> {
        if self.config.patches.is_some() {
            return Err(Error::Processor {
                expected: "a processor of pixels of one size",
                found: "one of patches (NaFlex)",
            });
        }
        let (full_w, full_h) = match self.config.resize {
            Some(size) => size.resolve(image.width, image.height),
            None => (image.width.into(), image.height.into()),
        };
        let refuse = |reason: String| Error::Resize {
            from_width: image.width,
            from_height: image.height,
            width: full_w,
            height: full_h,
            reason,
        };
        let whole = |side: u64| {
            u32::try_from(side).map_err(|_| refuse("expected sides below 2^32".to_owned()))
        };
        // Of the resized picture only what the crop keeps is computed.
        let (crop_h, crop_w) = match self.config.center_crop {
            Some(size) => size,
            None => (whole(full_h)?, whole(full_w)?),
        };
        let rounding = self.config.crop_rounding;
        let (across, left) = Kept::of(full_w, crop_w, rounding);
        let (down, top) = Kept::of(full_h, crop_h, rounding);
        let region = Region {
            left,
            top,
            width: across.length,
            height: down.length,
        };
        let (filter, resampler) = (self.config.filter, self.config.resampler);
        let kept = resize_region(image, full_w, full_h, region, filter, resampler)?;

        let (out_h, out_w) = self.config.pad.unwrap_or((crop_h, crop_w));
        if crop_h > out_h || crop_w > out_w {
            return Err(refuse(format!(
                "pad_size: expected at least {crop_w}×{crop_h}, found {out_w}×{out_h}"
            )));
        }
        let plane = u64::from(out_h) * u64::from(out_w);
        if plane > super::resize::MAX_OUTPUT_PIXELS {
            return Err(refuse(format!(
                "cropped or padded to {out_w}×{out_h}, more than 100 megapixels"
            )));
        }
        let (plane, out_width) = (plane as usize, out_w as usize);
        // Padding by pad_size comes after normalisation and is 0; the crop's comes before it.
        let mut data = vec![0.0; plane * 3];
        for (place, plane) in data.chunks_exact_mut(plane).enumerate() {
            let channel = if self.config.bgr { 2 - place } else { place };
            let outside = self.normalize.apply(channel, self.config.fill);
            let rows = plane.chunks_exact_mut(out_width).take(crop_h as usize);
            for (y, row) in rows.enumerate() {
                let row = &mut row[..crop_w as usize];
                row.fill(outside);
                let Some(from) = y.checked_sub(down.at).filter(|&y| y < kept.height as usize)
                else {
                    continue;
                };
                let stride = kept.width as usize * 3;
                let pixels = kept.rgb[from * stride..][..stride].chunks_exact(3);
                for (value, pixel) in row[across.at..].iter_mut().zip(pixels) {
                    *value = self.normalize.apply(channel, pixel[channel]);
                }
            }
        }
        Ok(PixelValues {
            channels: 3,
            height: out_h as usize,
            width: out_width,
            data,
        })
    }
}

/// (width, height) in pixels: the most whole patches that the limit allows, by the reference's binary search
/// for the scale (`get_image_size_for_max_num_patches`).
fn naflex_size(width: u32, height: u32, limit: PatchLimit) -> (u32, u32) {
    const PRECISION: f64 = 1e-5;
    let patch = f64::from(limit.patch_size);
    let patches = |scale: f64, side: u32| (f64::from(side) * scale / patch).ceil().max(1.0);
    let (mut fits, mut too_large) = (PRECISION / 10.0, 100.0);
    while too_large - fits >= PRECISION {
        let scale = (fits + too_large) / 2.0;
        if patches(scale, width) * patches(scale, height) <= f64::from(limit.max_num_patches) {
            fits = scale;
        } else {
            too_large = scale;
        }
    }
    let pixels = |side: u32| (patches(fits, side) * patch) as u32;
    (pixels(width), pixels(height))
}

/// The part of one side that a centre crop keeps: where it lies in the crop, and how long it is.
struct Kept {
    at: usize,
    length: u32,
}

impl Kept {
    /// Also gives where the kept part begins in the uncropped side.
    fn of(side: u64, crop: u32, rounding: CropRounding) -> (Self, u64) {
        let offset = center_crop_offset(side, crop, rounding);
        let kept = Self {
            at: offset.min(0).unsigned_abs() as usize,
            // At most `crop`, so it fits.
            length: side.min(crop.into()) as u32,
        };
        (kept, offset.max(0) as u64)
    }
}
