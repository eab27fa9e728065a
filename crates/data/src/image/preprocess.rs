//! Hugging Face `preprocessor_config.json`: what it says, and doing it.

use serde_json::{Map, Value};

use super::{Filter, Image, Normalize, Region, center_crop_offset, resize_region};
use crate::Error;
use crate::error::one_line;

/// The reference's processor classes that share one pipeline and differ in what they assume where
/// the file is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessorKind {
    /// `CLIPImageProcessor` and `ChineseCLIPImageProcessor`.
    Clip,
    /// `SiglipImageProcessor`.
    Siglip,
    /// `ViTImageProcessor`.
    Vit,
    /// `DeiTImageProcessor`.
    Deit,
    /// `BlipImageProcessor`.
    Blip,
    /// `BitImageProcessor`, also DINOv2's.
    Bit,
}

const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

impl ProcessorKind {
    /// Names in files: `CLIPImageProcessor`, `CLIPImageProcessorFast`, `CLIPFeatureExtractor`.
    fn from_class(class: &str) -> Option<Self> {
        let base = class
            .trim_end_matches("Fast")
            .trim_end_matches("Pil")
            .trim_end_matches("ImageProcessor")
            .trim_end_matches("FeatureExtractor");
        Some(match base {
            "CLIP" | "ChineseCLIP" => Self::Clip,
            "Siglip" => Self::Siglip,
            "ViT" => Self::Vit,
            "DeiT" => Self::Deit,
            "Blip" => Self::Blip,
            "Bit" => Self::Bit,
            _ => return None,
        })
    }

    /// What a bare integer as `size` means: the shortest edge, or both sides.
    fn integer_is_shortest_edge(self) -> bool {
        matches!(self, Self::Clip | Self::Siglip | Self::Bit)
    }
}

/// The size that a picture is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Exactly this, whatever the aspect ratio.
    Exact {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
    /// The shorter side, the longer one in proportion, truncated.
    ShortestEdge(u32),
    /// The shorter side, unless the longer one would exceed `longest`.
    EdgeRange {
        /// Pixels.
        shortest: u32,
        /// Pixels.
        longest: u32,
    },
    /// As large as fits, in proportion.
    Within {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
}

impl Size {
    /// (width, height) that a picture of `width` × `height` is brought to, each in the arithmetic
    /// of its reference function in `transformers.image_transforms`; 0 where that gives 0.
    pub fn resolve(self, width: u32, height: u32) -> (u64, u64) {
        let (w, h) = (f64::from(width), f64::from(height));
        let (short, long) = (w.min(h), w.max(h));
        match self {
            Self::Exact { height, width } => (width.into(), height.into()),
            // get_resize_output_image_size
            Self::ShortestEdge(edge) => {
                let other = (f64::from(edge) * long / short) as u64;
                if width <= height {
                    (edge.into(), other)
                } else {
                    (other, edge.into())
                }
            }
            // get_size_with_aspect_ratio
            Self::EdgeRange { shortest, longest } => {
                let (mut size, longest) = (f64::from(shortest), f64::from(longest));
                let mut exact = size;
                if long / short * size > longest {
                    exact = longest * short / long;
                    size = exact.round_ties_even();
                }
                if short == size {
                    (width.into(), height.into())
                } else if width < height {
                    (size as u64, (exact * h / w) as u64)
                } else {
                    ((exact * w / h) as u64, size as u64)
                }
            }
            // get_image_size_for_max_height_width
            Self::Within {
                height: most_h,
                width: most_w,
            } => {
                let scale = (f64::from(most_h) / h).min(f64::from(most_w) / w);
                ((w * scale) as u64, (h * scale) as u64)
            }
        }
    }
}

/// A `preprocessor_config.json`, with the defaults of its processor class filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessorConfig {
    /// Resize to this, where `do_resize`.
    pub resize: Option<Size>,
    /// `resample`.
    pub filter: Filter,
    /// Crop to (height, width) around the centre, where `do_center_crop`.
    pub center_crop: Option<(u32, u32)>,
    /// `rescale_factor`, where `do_rescale`.
    pub rescale: Option<f64>,
    /// `image_mean` and `image_std`, where `do_normalize`.
    pub normalize: Option<([f64; 3], [f64; 3])>,
    /// `pad_size` as (height, width), where `do_pad`: zeros below and to the right.
    pub pad: Option<(u32, u32)>,
}

impl PreprocessorConfig {
    /// What the reference's class assumes without a file.
    pub fn defaults(kind: ProcessorKind) -> Self {
        use ProcessorKind as K;
        let square = |side| Size::Exact {
            height: side,
            width: side,
        };
        let (resize, center_crop) = match kind {
            K::Clip | K::Bit => (Size::ShortestEdge(224), Some((224, 224))),
            K::Siglip | K::Vit => (square(224), None),
            K::Deit => (square(256), Some((224, 224))),
            K::Blip => (square(384), None),
        };
        let mean_std = match kind {
            K::Clip | K::Bit | K::Blip => (CLIP_MEAN, CLIP_STD),
            K::Siglip | K::Vit | K::Deit => ([0.5; 3], [0.5; 3]),
        };
        Self {
            resize: Some(resize),
            filter: match kind {
                K::Vit => Filter::Bilinear,
                _ => Filter::Bicubic,
            },
            center_crop,
            rescale: Some(1.0 / 255.0),
            normalize: Some(mean_std),
            pad: None,
        }
    }

    /// Reads the text of a `preprocessor_config.json`; `name` stands in messages for the file.
    ///
    /// The class named in the file decides what is assumed where the file is silent. Files that
    /// name none are read as `fallback`.
    ///
    /// # Errors
    /// [`Error::Config`] with the key: no JSON object, a class of another pipeline, a value out of
    /// place, and any key that is not known, because it might change pixels.
    ///
    /// ```
    /// use vlm_data::image::{PreprocessorConfig, ProcessorKind, Size};
    /// let json = br#"{"image_processor_type": "CLIPImageProcessor", "size": 336}"#;
    /// let config =
    ///     PreprocessorConfig::from_json(json, "preprocessor_config.json", ProcessorKind::Vit)?;
    /// assert_eq!(config.resize, Some(Size::ShortestEdge(336)));
    ///
    /// let odd = br#"{"crop_pct": 0.9}"#;
    /// let error = PreprocessorConfig::from_json(odd, "p.json", ProcessorKind::Vit).unwrap_err();
    /// assert!(error.to_string().starts_with("p.json: crop_pct: expected"));
    /// # Ok::<(), vlm_data::Error>(())
    /// ```
    pub fn from_json(json: &[u8], name: &str, fallback: ProcessorKind) -> Result<Self, Error> {
        let object: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| Error::Config {
                name: name.to_owned(),
                key: "file".to_owned(),
                expected: "a JSON object".to_owned(),
                found: one_line(&error.to_string()),
            })?;
        Keys { name, object }.read(fallback)
    }
}

/// Keys that describe the file, or how the reference runs, and never the pixels.
const HARMLESS: [&str; 13] = [
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "auto_map",
    "_name_or_path",
    "transformers_version",
    "return_tensors",
    "device",
    "disable_grouping",
    "use_fast",
    "image_seq_length",
    "_processor_class",
    "_valid_processor_keys",
];

/// The file's object while it is taken apart.
struct Keys<'a> {
    name: &'a str,
    object: Map<String, Value>,
}

impl Keys<'_> {
    fn read(mut self, fallback: ProcessorKind) -> Result<PreprocessorConfig, Error> {
        let kind = self.kind(fallback)?;
        for key in HARMLESS {
            self.object.remove(key);
        }
        let defaults = PreprocessorConfig::defaults(kind);
        let default_to_square = self.flag("default_to_square", !kind.integer_is_shortest_edge())?;
        // A picture is RGB once decoded, so this changes nothing either way.
        self.flag("do_convert_rgb", true)?;
        self.same("data_format", "channels_first")?;
        self.take("input_data_format");

        let mut config = defaults.clone();
        let size = self.size(default_to_square)?;
        let do_resize = self.flag("do_resize", defaults.resize.is_some())?;
        config.resize = size.or(defaults.resize).filter(|_| do_resize);
        if let Some(id) = self.take("resample") {
            config.filter = id
                .as_u64()
                .and_then(Filter::from_pil)
                .ok_or_else(|| self.wrong("resample", "a PIL filter, 0 to 5", &id))?;
        }
        let crop = self.rectangle("crop_size")?;
        let do_crop = self.flag("do_center_crop", defaults.center_crop.is_some())?;
        config.center_crop = self.wanted(
            do_crop,
            crop.or(defaults.center_crop),
            "crop_size",
            "a size, as do_center_crop is set",
        )?;
        let factor = match self.take("rescale_factor") {
            None => 1.0 / 255.0,
            Some(value) => value
                .as_f64()
                .ok_or_else(|| self.wrong("rescale_factor", "a number", &value))?,
        };
        config.rescale = self.flag("do_rescale", true)?.then_some(factor);
        let (default_mean, default_std) = defaults.normalize.unwrap_or(([0.0; 3], [1.0; 3]));
        let mean = self.channels("image_mean")?.unwrap_or(default_mean);
        let std = self.channels("image_std")?.unwrap_or(default_std);
        if let Some(zero) = std.iter().find(|&&s| s == 0.0) {
            return Err(self.wrong("image_std", "numbers other than 0", &Value::from(*zero)));
        }
        config.normalize = self.flag("do_normalize", true)?.then_some((mean, std));
        let pad = self.rectangle("pad_size")?;
        config.pad = pad.filter(|_| self.object.get("do_pad") == Some(&Value::Bool(true)));
        self.flag("do_pad", false)?;

        match self.object.into_iter().next() {
            None => Ok(config),
            Some((key, value)) => Err(Error::Config {
                name: self.name.to_owned(),
                key,
                expected: "only keys that are understood, as this one may change pixels".to_owned(),
                found: one_line(&value.to_string()),
            }),
        }
    }

    /// The class that the file names. `processor_class` does not count: it names the pair with a
    /// tokenizer.
    fn kind(&self, fallback: ProcessorKind) -> Result<ProcessorKind, Error> {
        for key in ["image_processor_type", "feature_extractor_type"] {
            let Some(value) = self.object.get(key).filter(|v| !v.is_null()) else {
                continue;
            };
            return value
                .as_str()
                .and_then(ProcessorKind::from_class)
                .ok_or_else(|| {
                    self.wrong(
                        key,
                        "a CLIP, ChineseCLIP, Siglip, ViT, DeiT, Blip or Bit image processor",
                        value,
                    )
                });
        }
        Ok(fallback)
    }

    /// Removes a key; `null` counts as absent, as in the reference.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.object.remove(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        Error::Config {
            name: self.name.to_owned(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: one_line(&found.to_string()),
        }
    }

    fn flag(&mut self, key: &str, default: bool) -> Result<bool, Error> {
        match self.take(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(key, "true or false", &other)),
        }
    }

    fn same(&mut self, key: &str, only: &str) -> Result<(), Error> {
        match self.take(key) {
            Some(other) if other != only => Err(self.wrong(key, only, &other)),
            _ => Ok(()),
        }
    }

    fn wanted<T>(
        &self,
        on: bool,
        value: Option<T>,
        key: &str,
        expected: &str,
    ) -> Result<Option<T>, Error> {
        if on && value.is_none() {
            return Err(self.wrong(key, expected, &Value::Null));
        }
        Ok(value.filter(|_| on))
    }

    fn channels(&mut self, key: &str) -> Result<Option<[f64; 3]>, Error> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let found = match &value {
            Value::Number(n) => n.as_f64().map(|n| [n; 3]),
            Value::Array(list) => {
                let numbers: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
                numbers.and_then(|n| <[f64; 3]>::try_from(n).ok())
            }
            _ => None,
        };
        match found {
            Some(channels) => Ok(Some(channels)),
            None => Err(self.wrong(key, "a number or three of them", &value)),
        }
    }

    /// A size that must be (height, width): a bare integer is both.
    fn rectangle(&mut self, key: &str) -> Result<Option<(u32, u32)>, Error> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match parse_size(&value, true) {
            Some(Size::Exact { height, width }) => Ok(Some((height, width))),
            _ => Err(self.wrong(key, "a positive integer or {height, width}", &value)),
        }
    }

    fn size(&mut self, default_to_square: bool) -> Result<Option<Size>, Error> {
        let Some(value) = self.take("size") else {
            return Ok(None);
        };
        match parse_size(&value, default_to_square) {
            Some(size) => Ok(Some(size)),
            // The reference accepts {longest_edge} in the file and then refuses every picture.
            None => Err(self.wrong(
                "size",
                "a positive integer, {height, width}, {shortest_edge}, \
                 {shortest_edge, longest_edge} or {max_height, max_width}",
                &value,
            )),
        }
    }
}

fn parse_size(value: &Value, default_to_square: bool) -> Option<Size> {
    let side = |value: &Value| {
        let side = u32::try_from(value.as_u64()?).ok()?;
        (side > 0).then_some(side)
    };
    match value {
        Value::Number(_) if default_to_square => Some(Size::Exact {
            height: side(value)?,
            width: side(value)?,
        }),
        Value::Number(_) => Some(Size::ShortestEdge(side(value)?)),
        Value::Array(list) => match list.as_slice() {
            [height, width] => Some(Size::Exact {
                height: side(height)?,
                width: side(width)?,
            }),
            _ => None,
        },
        Value::Object(map) => {
            // Files written by the reference spell out the keys that they do not use.
            let mut keys: Vec<(&str, &Value)> = map
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.as_str(), value))
                .collect();
            keys.sort_by_key(|(key, _)| *key);
            match keys.as_slice() {
                [("height", height), ("width", width)] => Some(Size::Exact {
                    height: side(height)?,
                    width: side(width)?,
                }),
                [("shortest_edge", shortest)] => Some(Size::ShortestEdge(side(shortest)?)),
                [("longest_edge", longest), ("shortest_edge", shortest)] => Some(Size::EdgeRange {
                    shortest: side(shortest)?,
                    longest: side(longest)?,
                }),
                [("max_height", height), ("max_width", width)] => Some(Size::Within {
                    height: side(height)?,
                    width: side(width)?,
                }),
                _ => None,
            }
        }
        _ => None,
    }
}

/// One picture as a model takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelValues {
    /// Always 3: red, green, blue.
    pub channels: usize,
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
    /// `[channels, height, width]`.
    pub data: Vec<f32>,
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
        let normalize = Normalize::new(config.rescale, config.normalize);
        Self { config, normalize }
    }

    /// What this processor does.
    pub fn config(&self) -> &PreprocessorConfig {
        &self.config
    }

    /// One picture to `[3, height, width]`, equal to the reference's PIL-backed processors.
    ///
    /// # Errors
    /// [`Error::Resize`] where the picture would shrink to nothing, grow beyond 100 megapixels, or
    /// exceed the size that it is to be padded to.
    pub fn process(&self, image: &Image) -> Result<PixelValues, Error> {
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
        let (across, left) = Kept::of(full_w, crop_w);
        let (down, top) = Kept::of(full_h, crop_h);
        let region = Region {
            left,
            top,
            width: across.length,
            height: down.length,
        };
        let kept = resize_region(image, full_w, full_h, region, self.config.filter)?;

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
        for (channel, plane) in data.chunks_exact_mut(plane).enumerate() {
            let outside = self.normalize.apply(channel, 0);
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

/// The part of one side that a centre crop keeps: where it lies in the crop, and how long it is.
struct Kept {
    at: usize,
    length: u32,
}

impl Kept {
    /// Also gives where the kept part begins in the uncropped side.
    fn of(side: u64, crop: u32) -> (Self, u64) {
        let offset = center_crop_offset(side, crop);
        let kept = Self {
            at: offset.min(0).unsigned_abs() as usize,
            // At most `crop`, so it fits.
            length: side.min(crop.into()) as u32,
        };
        (kept, offset.max(0) as u64)
    }
}
