//! A model with everything it needs to work on files: tokenizer, picture processor, prompts.

use crate::Error;
use crate::prompt::SpecialIds;
use burn::tensor::{Device, Tensor, TensorData};
use std::path::Path;
use vlm_data::image::{Image, ImageProcessor, PreprocessorConfig, ProcessorKind};
use vlm_data::text::Tokenizer;
use vlm_models::capability::Pictures;
use vlm_models::families::Model;
use vlm_nn::weights::Checkpoint;

/// The names of the files of a model directory.
pub mod file {
    /// The family and its sizes.
    pub const CONFIG: &str = "config.json";
    /// The weights.
    pub const WEIGHTS: &str = "model.safetensors";
    /// The vocabulary.
    pub const TOKENIZER: &str = "tokenizer.json";
    /// What is done to pictures.
    pub const PREPROCESSOR: &str = "preprocessor_config.json";
}

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

/// A vision-language model, ready for pictures and words.
pub struct Vlm {
    name: String,
    model: Model,
    tokenizer: Tokenizer,
    special: SpecialIds,
    processor: ImageProcessor,
    device: Device,
}

impl Vlm {
    /// Loads a model directory; its path is the model's name.
    ///
    /// # Errors
    /// A file that is missing, damaged, or does not fit the others; the error names it.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let read = |file: &str| {
            let path = directory.join(file);
            std::fs::read(&path).map_err(|e| Error::Model {
                place: path.display().to_string(),
                expected: "a readable file of a model directory".to_owned(),
                found: e.to_string(),
            })
        };
        let config = read(file::CONFIG)?;
        let config = String::from_utf8(config).map_err(|e| Error::Model {
            place: directory.join(file::CONFIG).display().to_string(),
            expected: "JSON".to_owned(),
            found: e.to_string(),
        })?;
        let (weights, tokenizer, preprocessor) = (
            read(file::WEIGHTS)?,
            read(file::TOKENIZER)?,
            read(file::PREPROCESSOR)?,
        );
        let files = Files {
            config: &config,
            weights: &weights,
            tokenizer: &tokenizer,
            preprocessor: &preprocessor,
        };
        Self::from_files(&directory.display().to_string(), files)
    }

    /// A model from the contents of its files; `name` stands for their directory in errors.
    ///
    /// # Errors
    /// Contents that are damaged or do not fit each other.
    pub fn from_files(name: &str, files: Files) -> Result<Self, Error> {
        let device = Device::flex();
        let place = |file: &str| Path::new(name).join(file);
        let in_file = |file: &str, source| Error::InFile {
            path: place(file),
            source,
        };
        let weights_place = place(file::WEIGHTS).display().to_string();
        let checkpoint =
            Checkpoint::parse(files.weights, &weights_place).map_err(vlm_models::Error::from)?;
        let model = Model::load(files.config, checkpoint, &device).map_err(|e| match e {
            e @ vlm_models::Error::Weights(_) => Error::Capability(e),
            e => in_file(file::CONFIG, e),
        })?;
        let tokenizer = Tokenizer::from_bytes(
            files.tokenizer,
            &place(file::TOKENIZER).display().to_string(),
        )?;
        let processor = PreprocessorConfig::from_json(
            files.preprocessor,
            &place(file::PREPROCESSOR).display().to_string(),
            ProcessorKind::Vit,
        )?;
        Self::from_parts(
            name,
            model,
            tokenizer,
            ImageProcessor::from_config(processor),
        )
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
        if tokenizer.id_bound() > model.texts().vocab_size {
            return Err(Error::Model {
                place: format!("{name}: {}", file::TOKENIZER),
                expected: format!("at most vocab_size = {} ids", model.texts().vocab_size),
                found: tokenizer.id_bound().to_string(),
            });
        }
        let special = SpecialIds::of(&tokenizer)?;
        Ok(Self {
            name: name.to_owned(),
            model,
            tokenizer,
            special,
            processor,
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

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The special tokens.
    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// Pictures as the model takes them.
    ///
    /// # Shapes
    /// Gives `[B, C, H, W]`.
    ///
    /// # Errors
    /// A picture that the processor refuses, or that it does not bring to the model's size.
    pub fn pictures(&self, images: &[&Image]) -> Result<Pictures, Error> {
        let size = self.model.pictures();
        let c = size.num_channels;
        let side = size.image_size.unwrap_or_default();
        let mut data = Vec::with_capacity(images.len() * c * side * side);
        for image in images {
            let pixels = self.processor.process(image)?;
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

    /// Words of a text that the vocabulary lacks.
    ///
    /// # Errors
    /// Text that cannot be tokenized.
    pub fn unknown_words(&self, text: &str) -> Result<Vec<String>, Error> {
        Ok(self
            .tokenizer
            .unknown_words(&crate::prompt::plain_words(text))?)
    }
}
