//! Hugging Face `preprocessor_config.json`, and what is assumed where it is silent or missing.

use serde_json::{Map, Value};

use super::{Arithmetic, CropRounding, Filter, Resampler, Size};
use crate::Error;
use crate::error::one_line;

/// The reference's ways to prepare a picture: one pipeline, different where a file is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessorKind {
    /// `CLIPImageProcessor` and `ChineseCLIPImageProcessor`.
    Clip,
    /// `SiglipImageProcessor`.
    Siglip,
    /// `Siglip2ImageProcessor`: patches of a picture that keeps its aspect ratio (NaFlex).
    Siglip2,
    /// `ViTImageProcessor`.
    Vit,
    /// `DeiTImageProcessor`.
    Deit,
    /// `BlipImageProcessor`.
    Blip,
    /// `BitImageProcessor`, also DINOv2's.
    Bit,
    /// The transforms that OpenAI's CLIP and open_clip make: shortest edge and centre crop at 224,
    /// bicubic, on Pillow pictures.
    OpenClip,
    /// The transforms of the ALBEF and BLIP authors' repositories: both sides to the size (256 where
    /// [`with_size`](PreprocessorConfig::with_size) gives no other), bicubic, on Pillow pictures.
    SquareTransforms,
    /// torchvision's `ImageClassification` preset: shortest edge 256, centre crop 224, bilinear,
    /// ImageNet's mean and deviation, on Pillow pictures.
    TorchvisionClassification,
    /// torchvision's `ObjectDetection` preset: the picture as it is, its levels from 0 to 1; the
    /// detector does the rest.
    TorchvisionDetection,
    /// VinVL's detector: shortest edge 600, longest at most 1000, bilinear, levels from 0 to 255 minus
    /// their mean, blue first, on Pillow pictures.
    Vinvl,
}

const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
/// Of levels from 0 to 255, red first.
const VINVL_MEAN: [f64; 3] = [123.675, 116.28, 103.53];
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

impl ProcessorKind {
    /// Names in files: `CLIPImageProcessor`, `CLIPImageProcessorFast`, `CLIPFeatureExtractor`. Since
    /// transformers 5 all of these mean the class that works with torchvision; only `…Pil`, which no
    /// published file has, means Pillow.
    fn from_class(class: &str) -> Option<(Self, Resampler)> {
        let base = class
            .strip_suffix("ImageProcessor")
            .or_else(|| class.strip_suffix("ImageProcessorFast"))
            .or_else(|| class.strip_suffix("FeatureExtractor"));
        let (base, resampler) = match base {
            Some(base) => (base, Resampler::Torchvision),
            None => (class.strip_suffix("ImageProcessorPil")?, Resampler::Pillow),
        };
        let kind = match base {
            "CLIP" | "ChineseCLIP" => Self::Clip,
            "Siglip" => Self::Siglip,
            "Siglip2" => Self::Siglip2,
            "ViT" => Self::Vit,
            "DeiT" => Self::Deit,
            "Blip" => Self::Blip,
            "Bit" => Self::Bit,
            _ => return None,
        };
        Some((kind, resampler))
    }

    /// What a bare integer as `size` means: the shortest edge, or both sides.
    fn integer_is_shortest_edge(self) -> bool {
        matches!(self, Self::Clip | Self::Siglip | Self::Bit)
    }
}

/// NaFlex: the picture is brought to the most whole patches that [`max_num_patches`] allows, its aspect
/// ratio kept as well as patches allow.
///
/// [`max_num_patches`]: Self::max_num_patches
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchLimit {
    /// Pixels a side of a patch.
    pub patch_size: u32,
    /// Patches of a picture, and rows of the result, empty ones included.
    pub max_num_patches: u32,
}

/// What is done to a picture, in the order of the fields that say it: a `preprocessor_config.json` with
/// the defaults of its processor class filled in, or one of the published pipelines that have no file.
#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessorConfig {
    /// Resize to this, where `do_resize`. With [`patches`](Self::patches) only whether.
    pub resize: Option<Size>,
    /// `resample`.
    pub filter: Filter,
    /// Whose arithmetic resizes.
    pub resampler: Resampler,
    /// Crop to (height, width) around the centre, where `do_center_crop`.
    pub center_crop: Option<(u32, u32)>,
    /// Which way that crop leans.
    pub crop_rounding: CropRounding,
    /// The grey level, before normalisation, of what a crop larger than the picture adds.
    pub fill: u8,
    /// `rescale_factor`, where `do_rescale`.
    pub rescale: Option<f64>,
    /// `image_mean` and `image_std`, where `do_normalize`.
    pub normalize: Option<([f64; 3], [f64; 3])>,
    /// Whose arithmetic normalises.
    pub arithmetic: Arithmetic,
    /// `pad_size` as (height, width), where `do_pad`: zeros below and to the right.
    pub pad: Option<(u32, u32)>,
    /// Cut into patches, for models of variable resolution.
    pub patches: Option<PatchLimit>,
    /// Whether the channels are blue, green, red, as Caffe's models have them.
    pub bgr: bool,
}

impl PreprocessorConfig {
    /// What the reference assumes without a file.
    pub fn defaults(kind: ProcessorKind) -> Self {
        use ProcessorKind as K;
        let square = |side| Size::Exact {
            height: side,
            width: side,
        };
        let (resize, center_crop) = match kind {
            K::Clip | K::Bit | K::OpenClip => (Size::ShortestEdge(224), Some((224, 224))),
            K::TorchvisionClassification => (Size::ShortestEdge(256), Some((224, 224))),
            // Not used.
            K::TorchvisionDetection => (square(1), None),
            K::Vinvl => (
                Size::EdgeRangeRounded {
                    shortest: 600,
                    longest: 1000,
                },
                None,
            ),
            K::Siglip | K::Vit => (square(224), None),
            K::Deit => (square(256), Some((224, 224))),
            K::Blip => (square(384), None),
            K::SquareTransforms => (square(256), None),
            // What it is resized to follows from the picture and the number of patches.
            K::Siglip2 => (square(16), None),
        };
        let mean_std = match kind {
            K::Clip | K::Bit | K::Blip | K::OpenClip | K::SquareTransforms => (CLIP_MEAN, CLIP_STD),
            K::Siglip | K::Siglip2 | K::Vit | K::Deit => ([0.5; 3], [0.5; 3]),
            K::TorchvisionClassification | K::TorchvisionDetection => (IMAGENET_MEAN, IMAGENET_STD),
            K::Vinvl => (VINVL_MEAN, [1.0; 3]),
        };
        let transforms = matches!(
            kind,
            K::OpenClip
                | K::SquareTransforms
                | K::TorchvisionClassification
                | K::TorchvisionDetection
                | K::Vinvl
        );
        let (resampler, crop_rounding, arithmetic) = if transforms {
            (
                Resampler::Pillow,
                CropRounding::HalfToEven,
                Arithmetic::ToTensor,
            )
        } else {
            (
                Resampler::Torchvision,
                CropRounding::TowardsZero,
                Arithmetic::Fused,
            )
        };
        Self {
            resize: (kind != K::TorchvisionDetection).then_some(resize),
            filter: match kind {
                K::Vit | K::Siglip2 | K::TorchvisionClassification | K::Vinvl => Filter::Bilinear,
                _ => Filter::Bicubic,
            },
            resampler,
            center_crop,
            crop_rounding,
            fill: 0,
            rescale: (kind != K::Vinvl).then_some(1.0 / 255.0),
            normalize: (kind != K::TorchvisionDetection).then_some(mean_std),
            arithmetic,
            pad: None,
            patches: (kind == K::Siglip2).then_some(PatchLimit {
                patch_size: 16,
                max_num_patches: 256,
            }),
            bgr: kind == K::Vinvl,
        }
    }

    /// The same pipeline for pictures of another height and width: where it crops, the crop has this size and the
    /// shortest edge before it is the longer of the two, otherwise the picture is brought to it. NaFlex stays as it is.
    ///
    /// ```
    /// use vlm_data::image::{PreprocessorConfig, ProcessorKind, Size};
    /// let albef = PreprocessorConfig::defaults(ProcessorKind::SquareTransforms).with_size([384; 2]);
    /// assert_eq!(albef.resize, Some(Size::Exact { height: 384, width: 384 }));
    /// let clip = PreprocessorConfig::defaults(ProcessorKind::OpenClip).with_size([336; 2]);
    /// assert_eq!(clip.resize, Some(Size::ShortestEdge(336)));
    /// assert_eq!(clip.center_crop, Some((336, 336)));
    /// ```
    #[must_use]
    pub fn with_size(mut self, [height, width]: [u32; 2]) -> Self {
        if self.patches.is_some() {
            return self;
        }
        self.resize = Some(match self.center_crop {
            Some(_) => Size::ShortestEdge(height.max(width)),
            None => Size::Exact { height, width },
        });
        self.center_crop = self.center_crop.map(|_| (height, width));
        self
    }

    /// The same pipeline with Pillow's arithmetic, as the `…Pil` classes of transformers have it.
    #[must_use]
    pub fn with_pillow(mut self) -> Self {
        self.resampler = Resampler::Pillow;
        self.crop_rounding = CropRounding::Down;
        self.arithmetic = Arithmetic::NumPy;
        self
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
        Self::from_object(parse_object(json, name)?, name, fallback)
    }

    /// As [`from_json`](Self::from_json), of an object that is part of a file.
    pub(super) fn from_object(
        object: Map<String, Value>,
        name: &str,
        fallback: ProcessorKind,
    ) -> Result<Self, Error> {
        Keys { name, object }.read(fallback)
    }
}

/// The object that is the whole of a file.
pub(super) fn parse_object(json: &[u8], name: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(json).map_err(|error| Error::Config {
        name: name.to_owned(),
        key: "file".to_owned(),
        expected: "a JSON object".to_owned(),
        found: one_line(&error.to_string()),
    })
}

const MAX_PATCH_SIZE: u32 = 1024;
const MAX_PATCHES: u32 = 1 << 16;

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
        let (kind, resampler) = self.kind(fallback)?;
        for key in HARMLESS {
            self.object.remove(key);
        }
        let mut defaults = PreprocessorConfig::defaults(kind);
        if resampler == Resampler::Pillow {
            defaults = defaults.with_pillow();
        }
        if defaults.patches.is_some() {
            // The class takes these and makes no use of them.
            for key in ["size", "do_center_crop", "crop_size", "do_pad", "pad_size"] {
                self.object.remove(key);
            }
        }
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
                .filter(|&factor| factor != 0.0)
                .ok_or_else(|| self.wrong("rescale_factor", "a number other than 0", &value))?,
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
        if let Some(limit) = &mut config.patches {
            limit.patch_size = self.count("patch_size", MAX_PATCH_SIZE)?.unwrap_or(16);
            limit.max_num_patches = self.count("max_num_patches", MAX_PATCHES)?.unwrap_or(256);
        }

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
    fn kind(&self, fallback: ProcessorKind) -> Result<(ProcessorKind, Resampler), Error> {
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
                        "a CLIP, ChineseCLIP, Siglip, Siglip2, ViT, DeiT, Blip or Bit image processor",
                        value,
                    )
                });
        }
        Ok((fallback, PreprocessorConfig::defaults(fallback).resampler))
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

    /// A positive whole number of at most `most`.
    fn count(&mut self, key: &str, most: u32) -> Result<Option<u32>, Error> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(count) if (1..=most.into()).contains(&count) => Ok(Some(count as u32)),
            _ => Err(self.wrong(key, &format!("a whole number of 1 to {most}"), &value)),
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

pub(super) fn parse_size(value: &Value, default_to_square: bool) -> Option<Size> {
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
