//! Where the parts of a model lie: a directory as Hugging Face lays it out, or a single file of weights with its
//! companions beside it.

use crate::{Error, Missing, TextSide};
use burn::tensor::Device;
use std::path::{Path, PathBuf};
use vlm_data::image::{ImageProcessor, PreprocessorConfig, ProcessorKind};
use vlm_data::text::Tokenizer;
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

/// The files of a model. Only what is asked for is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    name: String,
    directory: PathBuf,
    weights: Option<PathBuf>,
    tokenizer: PathBuf,
}

impl ModelFiles {
    /// The files at `path`: a model directory or a single file of weights. The path is the model's name.
    ///
    /// # Errors
    /// Nothing there.
    pub fn at(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let kind = std::fs::metadata(path).map_err(|e| Error::Model {
            place: name.clone(),
            expected: "a model's directory or file of weights".to_owned(),
            found: e.to_string(),
        })?;
        let (directory, weights) = if kind.is_dir() {
            (path.to_owned(), None)
        } else {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            (parent.to_owned(), Some(path.to_owned()))
        };
        Ok(Self {
            name,
            tokenizer: directory.clone(),
            directory,
            weights,
        })
    }

    /// Takes the vocabulary from another directory.
    #[must_use]
    pub fn with_tokenizer(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.tokenizer);
        self
    }

    /// What the model is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network with its weights.
    ///
    /// # Errors
    /// A file that is missing or damaged, a config that is not understood, weights that do not fill the model.
    pub fn model(&self, device: &Device) -> Result<Model, Error> {
        let path = self.directory.join(file::CONFIG);
        let config = String::from_utf8(read(&path)?).map_err(|e| Error::Model {
            place: path.display().to_string(),
            expected: "JSON".to_owned(),
            found: e.to_string(),
        })?;
        let weights = match &self.weights {
            Some(path) => path.clone(),
            None => self.directory.join(file::WEIGHTS),
        };
        let checkpoint = Checkpoint::parse(&read(&weights)?, &weights.display().to_string())
            .map_err(vlm_models::Error::from)?;
        model(&path, &config, checkpoint, device)
    }

    /// The text side, where there is a vocabulary.
    ///
    /// # Errors
    /// A vocabulary that is damaged or does not fit the model.
    pub fn text(&self, model: &Model) -> Result<Result<TextSide, Missing>, Error> {
        let path = self.tokenizer.join(file::TOKENIZER);
        if !path.exists() {
            return Ok(Err(Missing {
                model: self.name.clone(),
                part: "the vocabulary",
                files: file::TOKENIZER,
                hint: "publishers put it beside the weights; or name its directory with --tokenizer",
            }));
        }
        let tokenizer = Tokenizer::from_file(&path)?;
        Ok(Ok(TextSide::new(&self.name, tokenizer, model)?))
    }

    /// What is done to pictures, where the files say it.
    ///
    /// # Errors
    /// A file that is damaged or not understood.
    pub fn processor(&self) -> Result<Result<ImageProcessor, Missing>, Error> {
        let path = self.directory.join(file::PREPROCESSOR);
        if !path.exists() {
            return Ok(Err(Missing {
                model: self.name.clone(),
                part: "what is done to pictures",
                files: file::PREPROCESSOR,
                hint: "publishers put it beside the weights",
            }));
        }
        let config = PreprocessorConfig::from_json(
            &read(&path)?,
            &path.display().to_string(),
            ProcessorKind::Vit,
        )?;
        Ok(Ok(ImageProcessor::from_config(config)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| Error::Model {
        place: path.display().to_string(),
        expected: "a readable file of a model".to_owned(),
        found: e.to_string(),
    })
}

/// The model of a config with its checkpoint; what is wrong with the config names its file.
pub(crate) fn model(
    path: &Path,
    config: &str,
    checkpoint: Checkpoint,
    device: &Device,
) -> Result<Model, Error> {
    Model::load(config, checkpoint, device).map_err(|e| match e {
        e @ vlm_models::Error::Weights(_) => Error::Capability(e),
        source => Error::InFile {
            path: path.to_owned(),
            source,
        },
    })
}
