//! Where the parts of a model lie: a directory as Hugging Face lays it out, or a single file of weights with its
//! companions beside it.

use crate::detection::{ClassNames, LABELS};
use crate::{Error, Missing, TextSide};
use burn::tensor::Device;
use std::path::{Path, PathBuf};
use vlm_data::image::{Filter, ImageProcessor, PreprocessorConfig, ProcessorKind};
use vlm_data::text::{Tokenizer, word_level_map};
use vlm_models::families::Model;
use vlm_nn::weights::{Checkpoint, weights_file};

/// The names of the files of a model directory.
pub mod file {
    /// The family and its sizes.
    pub const CONFIG: &str = "config.json";
    /// The same in open_clip's layout.
    pub const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";
    /// The weights.
    pub const WEIGHTS: &str = "model.safetensors";
    /// The vocabulary.
    pub const TOKENIZER: &str = "tokenizer.json";
    /// A vocabulary of word pieces, as models with BERT in them were published with.
    pub const WORD_PIECES: &str = "vocab.txt";
    /// What is done to pictures.
    pub const PREPROCESSOR: &str = "preprocessor_config.json";
}

/// Who wrote a model's files, and so what is assumed where they are silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `config.json`, as `transformers` and this program write it.
    HuggingFace,
    /// `open_clip_config.json`.
    OpenClip,
    /// A checkpoint alone, as authors release it with their code: names and shapes of its tensors tell the rest.
    Original,
}

/// The files of a model. Only what is asked for is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    name: String,
    directory: PathBuf,
    layout: Layout,
    weights: Result<PathBuf, String>,
    /// Encoder and decoder, where they are files of their own.
    halves: Option<[PathBuf; 2]>,
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
            let weights = weights_file(path).map_err(|e| e.to_string());
            (path.to_owned(), weights)
        } else {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            (parent.to_owned(), Ok(path.to_owned()))
        };
        // a repository may hold a model in two layouts: the name of the weights decides
        let named = weights.as_ref().ok().and_then(|w| w.file_name());
        let open_clip_weights = named.is_some_and(|n| n.to_string_lossy().starts_with("open_clip"));
        let has = |file| directory.join(file).exists();
        let layout = match (has(file::CONFIG), has(file::OPEN_CLIP_CONFIG)) {
            (true, true) if open_clip_weights => Layout::OpenClip,
            (true, _) => Layout::HuggingFace,
            (false, true) => Layout::OpenClip,
            (false, false) => Layout::Original,
        };
        let halves = weights.is_err().then(|| halves(&directory)).flatten();
        Ok(Self {
            name,
            tokenizer: directory.clone(),
            directory,
            layout,
            weights,
            halves,
        })
    }

    /// Takes the vocabulary from another directory.
    #[must_use]
    pub fn with_tokenizer(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.tokenizer);
        self
    }

    /// Calls the model something else than its path.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// What the model is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who wrote the files.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Bytes of the weights, those of all shards.
    ///
    /// # Errors
    /// As [`Self::checkpoint`].
    pub fn bytes(&self) -> Result<u64, Error> {
        let tensors = self.checkpoint()?;
        Ok(tensors.tensors().map(|t| t.bytes as u64).sum())
    }

    /// The tensors of the weights, of which only names and shapes are read yet.
    ///
    /// # Errors
    /// No file of weights, several, or one that cannot be read or is damaged.
    pub fn checkpoint(&self) -> Result<Checkpoint, Error> {
        if let Some([encoder, decoder]) = &self.halves {
            let open = |path: &Path, prefix: &str| {
                let half = Checkpoint::open(path).map_err(vlm_models::Error::from)?;
                Ok::<_, Error>(half.renamed(|name| Some(format!("{prefix}.{name}"))))
            };
            let both = open(encoder, "encoder")?.joined(open(decoder, "decoder")?);
            return Ok(both.map_err(vlm_models::Error::from)?);
        }
        let path = self.weights.as_ref().map_err(|found| Error::Weights {
            found: found.clone(),
        })?;
        Ok(Checkpoint::open(path).map_err(vlm_models::Error::from)?)
    }

    /// The network with its weights.
    ///
    /// # Errors
    /// A file that is missing or damaged, a config that is not understood, weights that do not fill the model.
    pub fn model(&self, device: &Device) -> Result<Model, Error> {
        let config = match self.layout {
            Layout::HuggingFace => file::CONFIG,
            Layout::OpenClip => file::OPEN_CLIP_CONFIG,
            Layout::Original => {
                let checkpoint = self.checkpoint()?;
                return Ok(Model::recognise(checkpoint, device)?);
            }
        };
        let path = self.directory.join(config);
        let config = String::from_utf8(read(&path)?).map_err(|e| Error::Model {
            place: path.display().to_string(),
            expected: "JSON".to_owned(),
            found: e.to_string(),
        })?;
        let mut model = model(&path, &config, self.checkpoint()?, device)?;
        // released answers are in a file of their own
        if let Model::Oscar(oscar) = &mut model
            && oscar.can_answer().is_ok()
            && let path = self.directory.join(LABELS)
            && path.exists()
        {
            let answers = String::from_utf8_lossy(&read(&path)?).into_owned();
            let answers = answers.lines().map(|line| line.trim().to_owned()).collect();
            let named = oscar.name_answers(answers);
            named.map_err(|source| Error::InFile { path, source })?;
        }
        Ok(model)
    }

    /// The text side, where there is a vocabulary.
    ///
    /// # Errors
    /// A vocabulary that is damaged or does not fit the model.
    pub fn text(&self, model: &Model) -> Result<Result<TextSide, Missing>, Error> {
        let path = self.tokenizer.join(file::TOKENIZER);
        // half a model reads no text, whatever lies beside it
        let reads = model.texts().vocab_size > 0;
        if let (Model::Nic(_), false) = (model, path.exists())
            && let Some(path) = word_map(&self.tokenizer)
        {
            let tokenizer = word_level_map(&read(&path)?, &path.display().to_string())?;
            return Ok(Ok(TextSide::new(&self.name, tokenizer, model)?));
        }
        let word_pieces = self.tokenizer.join(file::WORD_PIECES);
        if let Model::Albef(_) | Model::Oscar(_) = model
            && !path.exists()
            && word_pieces.exists()
        {
            let tokenizer = Tokenizer::from_vocabulary(&word_pieces)?;
            return Ok(Ok(TextSide::new(&self.name, tokenizer, model)?));
        }
        if !reads || !path.exists() {
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

    /// What is done to pictures, where the files or the authors' code say it.
    ///
    /// # Errors
    /// A file that is damaged or not understood.
    pub fn processor(&self, model: &Model) -> Result<Result<ImageProcessor, Missing>, Error> {
        let missing = Missing {
            model: self.name.clone(),
            part: "what is done to pictures",
            files: file::PREPROCESSOR,
            hint: "publishers put it beside the weights",
        };
        if model.pictures().num_channels == 0 {
            return Ok(Err(missing));
        }
        let kind = self.processor_kind(model);
        if let Some(found) = ImageProcessor::find(&self.directory, kind)? {
            return Ok(Ok(found));
        }
        if let Some(config) = assumed(model) {
            return Ok(Ok(ImageProcessor::from_config(config)));
        }
        // the authors' code says what their files do not; torchvision has its pipelines in code, too
        let in_code = matches!(
            model,
            Model::Albef(_) | Model::FasterRcnn(_) | Model::Vinvl(_)
        );
        if self.layout == Layout::Original || in_code {
            let mut config = PreprocessorConfig::defaults(kind);
            if let Some(size) = model.pictures().image_size {
                config = config.with_size(size.map(|side| side.try_into().unwrap_or(u32::MAX)));
            }
            return Ok(Ok(ImageProcessor::from_config(config)));
        }
        Ok(Err(missing))
    }

    /// What a detector's classes are called, as far as the files say it.
    ///
    /// # Errors
    /// A file of names that cannot be read or does not fit the model.
    pub fn class_names(&self, model: &Model) -> Result<ClassNames, Error> {
        let config = std::fs::read_to_string(self.directory.join(file::CONFIG)).ok();
        ClassNames::of(&self.directory, config.as_deref(), model)
    }

    /// What a file that names no processor class is read as, and what is assumed without one.
    fn processor_kind(&self, model: &Model) -> ProcessorKind {
        let (published, own) = match model {
            Model::Albef(_) => return ProcessorKind::SquareTransforms,
            Model::Coca(_) => return ProcessorKind::Vit,
            Model::Blip(_) => (ProcessorKind::Blip, ProcessorKind::SquareTransforms),
            Model::Clip(_) => (ProcessorKind::Clip, ProcessorKind::OpenClip),
            Model::Siglip(_) => (ProcessorKind::Siglip, ProcessorKind::OpenClip),
            Model::Vinvl(_) => return ProcessorKind::Vinvl,
            // what Oscar reads, a detector makes of pictures
            Model::FasterRcnn(_) | Model::Oscar(_) => return ProcessorKind::TorchvisionDetection,
            Model::Nic(_) | Model::Tree(_) => return ProcessorKind::Vit,
            Model::Torchvision(_) => return ProcessorKind::TorchvisionClassification,
        };
        match self.layout {
            Layout::HuggingFace => published,
            Layout::OpenClip | Layout::Original => own,
        }
    }
}

/// What the published code does to pictures of families whose files never say it.
fn assumed(model: &Model) -> Option<PreprocessorConfig> {
    let imagenet = PreprocessorConfig::defaults(ProcessorKind::TorchvisionClassification);
    match model {
        Model::Torchvision(_) => Some(imagenet),
        Model::Nic(m) => {
            let side = m.config().image_size.try_into().ok()?;
            let square = PreprocessorConfig::defaults(ProcessorKind::SquareTransforms);
            Some(PreprocessorConfig {
                normalize: imagenet.normalize,
                // the captioner with attention resizes by SciPy's `imresize`, the other one by Pillow's `LANCZOS`
                filter: match m.config().attention {
                    Some(_) => Filter::Bilinear,
                    None => Filter::Lanczos,
                },
                ..square.with_size([side; 2])
            })
        }
        _ => None,
    }
}

/// A captioner's encoder and decoder in files of their own, as its authors write them: one that begins with `encoder` and
/// one with `decoder`.
fn halves(directory: &Path) -> Option<[PathBuf; 2]> {
    const KINDS: [&str; 5] = ["ckpt", "pkl", "pth", "pt", "safetensors"];
    let mut found = [Vec::new(), Vec::new()];
    for entry in std::fs::read_dir(directory).ok()? {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_string_lossy().into_owned();
        let known = path
            .extension()
            .is_some_and(|e| KINDS.iter().any(|k| e == *k));
        for (half, found) in ["encoder", "decoder"].iter().zip(&mut found) {
            if known && name.starts_with(half) {
                found.push(path.clone());
            }
        }
    }
    match found.map(|mut files| (files.pop(), files.is_empty())) {
        [(Some(encoder), true), (Some(decoder), true)] => Some([encoder, decoder]),
        _ => None,
    }
}

/// A vocabulary as the captioner with attention is published with: `WORDMAP_….json`.
fn word_map(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    let mut maps: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase());
            name.is_some_and(|n| n.starts_with("wordmap") && n.ends_with(".json"))
        })
        .collect();
    maps.sort();
    maps.into_iter().next()
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
