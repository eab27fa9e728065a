//! A model with what it needs to work on files: tokenizer, picture processor, prompts.

use crate::files::{self, ModelFiles, file};
use crate::{Error, Missing, TextSide};
use burn::tensor::{Device, Tensor, TensorData};
use std::path::Path;
use vlm_data::image::{Image, ImageProcessor, PreprocessorConfig, ProcessorKind};
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
    device: Device,
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
            processor: files.processor()?,
            model,
            device,
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
            device: Device::flex(),
        })
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

    /// Pictures as the model takes them.
    ///
    /// # Shapes
    /// Gives `[B, C, H, W]`.
    ///
    /// # Errors
    /// A picture that the processor refuses, or that it does not bring to the model's size.
    pub fn pictures(&self, images: &[&Image]) -> Result<Pictures, Error> {
        let processor = self.processor()?;
        let size = self.model.pictures();
        let c = size.num_channels;
        let side = size.image_size.unwrap_or_default();
        let mut data = Vec::with_capacity(images.len() * c * side * side);
        for image in images {
            let pixels = processor.process(image)?;
            if (pixels.channels, pixels.height, pixels.width) != (c, side, side) {
                return Err(Error::Model {
                    place: format!("{}: {}", self.name, file::PREPROCESSOR),
                    expected: format!("pictures of {c} x {side} x {side} for the model"),
                    found: format!("{} x {} x {}", pixels.channels, pixels.height, pixels.width),
                });
            }
            data.extend(pixels.data);
        }
        let data = TensorData::new(data, [images.len(), c, side, side]);
        Ok(Pictures::Fixed(Tensor::from_data(data, &self.device)))
    }
}
