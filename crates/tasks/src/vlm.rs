//! A model with what it needs to work on files: tokenizer, picture processor, prompts.

use crate::detection::ClassNames;
use crate::files::{self, ModelFiles, file};
use crate::{Error, Missing, TextSide};
use burn::tensor::{Device, Tensor, TensorData};
use std::path::Path;
use vlm_data::image::{Image, ImageInputs, ImageProcessor, PreprocessorConfig, ProcessorKind};
use vlm_data::text::Tokenizer;
use vlm_models::capability::Pictures;
use vlm_models::families::Model;
use vlm_nn::weights::Checkpoint;

/// The contents of a model directory.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// `config.json`.
    pub config: &'a str,
    /// `model.safetensors`.
    pub weights: &'a [u8],
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `preprocessor_config.json`.
    pub preprocessor: &'a [u8],
}

/// A vision-language model, ready for pictures and words as far as its files go.
pub struct Vlm {
    name: String,
    model: Model,
    text: Result<TextSide, Missing>,
    processor: Result<ImageProcessor, Missing>,
    class_names: ClassNames,
    device: Device,
    /// What finds the regions of pictures, for a model that reads these.
    pub(crate) detector: Option<Box<Vlm>>,
}

impl Vlm {
    /// Loads a model's directory or its single file of weights; the path is the model's name.
    ///
    /// # Errors
    /// Config or weights that are missing; any file that is damaged or does not fit the others. The error names it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::from_model_files(&ModelFiles::at(path)?)
    }

    /// Loads a model from where its parts lie.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_model_files(files: &ModelFiles) -> Result<Self, Error> {
        let device = Device::flex();
        let model = files.model(&device)?;
        Ok(Self {
            name: files.name().to_owned(),
            text: files.text(&model)?,
            processor: files.processor(&model)?,
            class_names: files.class_names(&model)?,
            model,
            device,
            detector: None,
        })
    }

    /// A model from the contents of its files; `name` stands for their directory in errors.
    ///
    /// # Errors
    /// Contents that are damaged or do not fit each other.
    pub fn from_files(name: &str, files: Files) -> Result<Self, Error> {
        let place = |file: &str| Path::new(name).join(file).display().to_string();
        let checkpoint = Checkpoint::parse(files.weights, &place(file::WEIGHTS))
            .map_err(vlm_models::Error::from)?;
        let config = place(file::CONFIG);
        let model = files::model(config.as_ref(), files.config, checkpoint, &Device::flex())?;
        let tokenizer = Tokenizer::from_bytes(files.tokenizer, &place(file::TOKENIZER))?;
        let processor = PreprocessorConfig::from_json(
            files.preprocessor,
            &place(file::PREPROCESSOR),
            ProcessorKind::Vit,
        )?;
        let processor = ImageProcessor::from_config(processor);
        Self::from_parts(name, model, tokenizer, processor)
    }

    /// Joins parts that exist already, as training does to evaluate.
    ///
    /// # Errors
    /// A tokenizer that does not fit the model.
    pub fn from_parts(
        name: &str,
        model: Model,
        tokenizer: Tokenizer,
        processor: ImageProcessor,
    ) -> Result<Self, Error> {
        Ok(Self {
            name: name.to_owned(),
            text: Ok(TextSide::new(name, tokenizer, &model)?),
            model,
            processor: Ok(processor),
            class_names: ClassNames::default(),
            device: Device::flex(),
            detector: None,
        })
    }

    /// A detector without a vocabulary, as training has it to evaluate.
    pub fn detector(
        name: &str,
        model: Model,
        processor: ImageProcessor,
        class_names: ClassNames,
    ) -> Self {
        Self {
            name: name.to_owned(),
            model,
            text: Err(Missing {
                model: name.to_owned(),
                part: "the vocabulary",
                files: file::TOKENIZER,
                hint: "a detector has none",
            }),
            processor: Ok(processor),
            class_names,
            device: Device::flex(),
            detector: None,
        }
    }

    /// What the model is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How words become tokens.
    ///
    /// # Errors
    /// A model without a vocabulary.
    pub fn text(&self) -> Result<&TextSide, Error> {
        self.text.as_ref().map_err(|missing| missing.clone().into())
    }

    /// How pictures become pixels.
    ///
    /// # Errors
    /// A model whose files do not say it.
    pub fn processor(&self) -> Result<&ImageProcessor, Error> {
        let processor = self.processor.as_ref();
        processor.map_err(|missing| missing.clone().into())
    }

    /// What a detector's classes are called.
    pub fn class_names(&self) -> &ClassNames {
        &self.class_names
    }

    /// Where the model lies.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Pictures as the model takes them.
    ///
    /// # Shapes
    /// Gives `[B, C, H, W]`, or patches `[B, N, P * P * C]` of a processor that keeps the aspect ratio, or what the
    /// detector of a model of regions finds.
    ///
    /// # Errors
    /// A picture that the processor refuses, or that it does not bring to the model's size.
    pub fn pictures(&self, images: &[&Image]) -> Result<Pictures, Error> {
        if self.model.region_width().is_some() {
            return self.detected(images);
        }
        let batch = PictureBatch::new(self.processor()?, images)?;
        if let PictureBatch::Fixed { shape, .. } = &batch {
            let size = self.model.pictures();
            let fits = size.image_size.is_none_or(|sides| shape[1..] == sides);
            if !fits || shape[0] != size.num_channels {
                let [height, width] = size.image_size.unwrap_or_default();
                return Err(Error::Model {
                    place: format!("{}: {}", self.name, file::PREPROCESSOR),
                    expected: format!(
                        "pictures of {} x {height} x {width} for the model",
                        size.num_channels
                    ),
                    found: format!("{} x {} x {}", shape[0], shape[1], shape[2]),
                });
            }
        }
        Ok(batch.into_pictures(&self.device))
    }
}

/// Pictures after the processor, one after the other.
pub(crate) enum PictureBatch {
    /// Of one size.
    Fixed {
        /// Channels, rows and columns of each.
        shape: [usize; 3],
        data: Vec<f32>,
    },
    /// Patches of a number and size that are the same for all.
    Patches {
        patches: usize,
        spatial_shapes: Vec<[usize; 2]>,
        mask: Vec<u8>,
        data: Vec<f32>,
    },
}

impl PictureBatch {
    /// At least one picture through the processor.
    pub(crate) fn new(processor: &ImageProcessor, images: &[&Image]) -> Result<Self, Error> {
        let mut batch: Option<Self> = None;
        for image in images {
            match (processor.inputs(image)?, &mut batch) {
                (ImageInputs::Pixels(p), None) => {
                    let shape = [p.channels, p.height, p.width];
                    let data = p.data;
                    batch = Some(Self::Fixed { shape, data });
                }
                (ImageInputs::Pixels(p), Some(Self::Fixed { shape, data })) => {
                    let found = [p.channels, p.height, p.width];
                    if found != *shape {
                        return Err(Error::Model {
                            place: "pictures".to_owned(),
                            expected: format!("{shape:?} for all, as for the first"),
                            found: format!("{found:?}"),
                        });
                    }
                    data.extend(p.data);
                }
                (ImageInputs::Patches(p), None) => {
                    batch = Some(Self::Patches {
                        patches: p.mask.len(),
                        spatial_shapes: vec![p.spatial_shape],
                        mask: p.mask,
                        data: p.data,
                    });
                }
                (
                    ImageInputs::Patches(p),
                    Some(Self::Patches {
                        spatial_shapes,
                        mask,
                        data,
                        ..
                    }),
                ) => {
                    spatial_shapes.push(p.spatial_shape);
                    mask.extend(p.mask);
                    data.extend(p.data);
                }
                _ => unreachable!("a processor makes pixels or patches, not both"),
            }
        }
        batch.ok_or_else(|| Error::Model {
            place: "pictures".to_owned(),
            expected: "at least one".to_owned(),
            found: "none".to_owned(),
        })
    }

    fn into_pictures(self, device: &Device) -> Pictures {
        match self {
            Self::Fixed { shape, data } => {
                let [c, h, w] = shape;
                let count = data.len() / (c * h * w);
                let data = TensorData::new(data, [count, c, h, w]);
                Pictures::Fixed(Tensor::from_data(data, device))
            }
            Self::Patches {
                patches,
                spatial_shapes,
                data,
                ..
            } => {
                let width = data.len() / (patches * spatial_shapes.len());
                let data = TensorData::new(data, [spatial_shapes.len(), patches, width]);
                Pictures::Patches {
                    pixel_values: Tensor::from_data(data, device),
                    spatial_shapes,
                }
            }
        }
    }
}
