//! One file per family: its config, composition, weight names and loss.

pub mod albef;
pub mod blip;
pub mod clip;
pub mod coca;
pub mod dual_encoder;
pub mod faster_rcnn;
pub mod nic;
pub mod open_clip;
pub mod oscar;
pub mod qwen2;
pub mod siglip;
pub mod torchvision;
pub mod tree;
pub mod vinvl;

use crate::capability::{
    AnswerQuestion, Attend, ClassifyAnswer, Detect, EmbedImage, EmbedText, Generate, JudgeText,
    RankAnswers, ScorePair,
};
use crate::error::Error;
use crate::reference::Reference;
use burn::module::Module;
use burn::tensor::Device;
use dual_encoder::{DualEncoder, DualEncoderConfig, Objective, VisionEncoderConfig};
use vlm_nn::weights::{Checkpoint, Rule, Weights};

/// A model of any family.
#[derive(Debug)]
pub enum Model {
    /// Aligned before it is fused: retrieval, question answering, statements about one picture or two.
    Albef(Box<albef::Albef>),
    /// Captioning, question answering and retrieval with one kind of text model.
    Blip(Box<blip::Blip>),
    /// Contrastive captioner.
    Coca(coca::Coca),
    /// Contrastive language-image pre-training, or half of it.
    Clip(DualEncoder),
    /// CLIP with a sigmoid loss (SigLIP, SigLIP 2), or half of it.
    Siglip(DualEncoder),
    /// A detector of torchvision.
    FasterRcnn(Box<faster_rcnn::FasterRcnn>),
    /// VinVL's detector of objects and attributes.
    Vinvl(Box<vinvl::Vinvl>),
    /// Words, tags and regions in one stream (Oscar, Oscar+).
    Oscar(Box<oscar::Oscar>),
    /// Convolutional encoder with a recurrent decoder of captions, with or without attention.
    Nic(Box<nic::Nic>),
    /// Convolutional encoder with a head for classes.
    Torchvision(Box<torchvision::Classifier>),
    /// Any encoders with any fusion, to compare them.
    Tree(Box<tree::Tree>),
}

/// What a picture must be for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSize {
    /// Colour channels.
    pub num_channels: usize,
    /// Height and width in pixels; none for a model that takes any size.
    pub image_size: Option<[usize; 2]>,
}

/// What the text side of a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSize {
    /// Tokens that it knows.
    pub vocab_size: usize,
    /// Most tokens of a text.
    pub max_positions: usize,
    /// Whether every text is filled with padding to `max_positions`, and the padding read like text.
    pub fixed_length: bool,
}

/// Fills the model that `build` makes from a checkpoint with our names, strictly.
fn filled<T>(
    checkpoint: Checkpoint,
    device: &Device,
    build: impl FnOnce(&mut Weights) -> T,
) -> Result<T, Error> {
    let mut weights = Weights::from_checkpoint(checkpoint, device);
    let model = build(&mut weights);
    weights.finish()?;
    Ok(model)
}

/// A checkpoint of one half, whose names start with that half's as they do in the whole model.
fn prefixed(checkpoint: Checkpoint, config: &DualEncoderConfig) -> Checkpoint {
    match (&config.vision, &config.text) {
        (Some(_), None) => checkpoint.translated(&[
            Rule::Name("embeddings.**", "vision_model.embeddings.**"),
            Rule::Name("encoder.**", "vision_model.encoder.**"),
            Rule::Name("pre_layrnorm.**", "vision_model.pre_layrnorm.**"),
            Rule::Name("post_layernorm.**", "vision_model.post_layernorm.**"),
            Rule::Name("head.**", "vision_model.head.**"),
        ]),
        (None, Some(_)) => checkpoint.translated(&[
            Rule::Name("embeddings.**", "text_model.embeddings.**"),
            Rule::Name("encoder.**", "text_model.encoder.**"),
            Rule::Name("final_layer_norm.**", "text_model.final_layer_norm.**"),
            Rule::Name("head.**", "text_model.head.**"),
        ]),
        _ => checkpoint,
    }
}

impl Model {
    /// Builds the model that a `config.json` or `open_clip_config.json` describes and fills it from its checkpoint,
    /// which has its published names.
    ///
    /// # Errors
    /// A config that is not understood, or weights that do not match it.
    pub fn load(config: &str, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let value: serde_json::Value = serde_json::from_str(config)?;
        let model_type = value.get("model_type").and_then(|t| t.as_str());
        let architecture = value.get("architecture").and_then(|t| t.as_str());
        match model_type {
            None if architecture.is_some_and(|a| a.starts_with("fasterrcnn")) => {
                let model = faster_rcnn::FasterRcnn::load(config, checkpoint, device)?;
                Ok(Self::FasterRcnn(Box::new(model)))
            }
            Some(vinvl::MODEL_TYPE) => {
                let model = vinvl::Vinvl::load(Some(config), checkpoint, device)?;
                Ok(Self::Vinvl(Box::new(model)))
            }
            _ if oscar::is_config(&value) => {
                let model = oscar::Oscar::load(config, checkpoint, device)?;
                Ok(Self::Oscar(Box::new(model)))
            }
            Some(coca::MODEL_TYPE) => {
                let config = coca::CocaConfig::parse(config)?;
                let build = |w: &mut Weights| coca::Coca::new(w, &config);
                Ok(Self::Coca(filled(checkpoint, device, build)?))
            }
            Some(albef::MODEL_TYPE) => {
                let model = albef::Albef::load(config, checkpoint, device)?;
                Ok(Self::Albef(Box::new(model)))
            }
            Some(blip::MODEL_TYPE) => {
                let model = blip::Blip::load(config, checkpoint, device)?;
                Ok(Self::Blip(Box::new(model)))
            }
            Some(clip::MODEL_TYPE | clip::VISION_MODEL_TYPE | clip::TEXT_MODEL_TYPE) => {
                let config = clip::parse(config)?;
                let checkpoint = if clip::is_openai(&checkpoint) {
                    clip::openai_translated(checkpoint)
                } else {
                    clip::translated(prefixed(checkpoint, &config))
                };
                Self::dual_encoder(&config, checkpoint, device)
            }
            Some(found) if siglip::MODEL_TYPES.contains(&found) => {
                let config = siglip::parse(config)?;
                let checkpoint = siglip::translated(prefixed(checkpoint, &config));
                Self::dual_encoder(&config, checkpoint, device)
            }
            Some(tree::MODEL_TYPE) => {
                let model = tree::Tree::load(config, checkpoint, device)?;
                Ok(Self::Tree(Box::new(model)))
            }
            Some(nic::MODEL_TYPE) => {
                let model = nic::Nic::load(config, checkpoint, device)?;
                Ok(Self::Nic(Box::new(model)))
            }
            _ if value.get("library_name").and_then(|n| n.as_str())
                == Some(torchvision::LIBRARY_NAME) =>
            {
                let model = torchvision::Classifier::load(config, checkpoint, device)?;
                Ok(Self::Torchvision(Box::new(model)))
            }
            None if open_clip::model_cfg(&value).is_some() => {
                let config = open_clip::parse(open_clip::model_cfg(&value).unwrap_or(&value))?;
                let checkpoint = open_clip::translated(checkpoint, &config);
                Self::dual_encoder(&config, checkpoint, device)
            }
            _ => Err(Error::Config {
                place: "model_type".to_owned(),
                expected: "\"albef\", \"blip\", \"clip\", \"coca\", \"nic\", \"oscar\", \"siglip\", \"siglip2\", \"tree\", \
                           \"library_name\": \"torchvision\", or open_clip's model_cfg"
                    .to_owned(),
                found: model_type.map_or("nothing".to_owned(), |t| format!("{t:?}")),
            }),
        }
    }

    /// Builds the model that a checkpoint without a config holds: its layout and sizes are told by the names and
    /// shapes of its tensors, as the original code does.
    ///
    /// # Errors
    /// Names of no known layout, or weights that do not fit the sizes that some of them tell.
    pub fn recognise(checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        if clip::is_openai(&checkpoint) {
            let config = clip::openai_config(&checkpoint)?;
            return Self::dual_encoder(&config, clip::openai_translated(checkpoint), device);
        }
        // before BLIP, whose decoders have names like ALBEF's
        if albef::recognised(&checkpoint) {
            let model = albef::Albef::from_original(checkpoint, device)?;
            return Ok(Self::Albef(Box::new(model)));
        }
        if blip::recognised(&checkpoint) {
            let model = blip::Blip::from_original(checkpoint, device)?;
            return Ok(Self::Blip(Box::new(model)));
        }
        if vinvl::recognised(&checkpoint) {
            let model = vinvl::Vinvl::load(None, checkpoint, device)?;
            return Ok(Self::Vinvl(Box::new(model)));
        }
        if nic::recognised(&checkpoint) {
            let model = nic::Nic::from_original(checkpoint, device)?;
            return Ok(Self::Nic(Box::new(model)));
        }
        if torchvision::recognised(&checkpoint) {
            let model = torchvision::Classifier::from_original(checkpoint, device)?;
            return Ok(Self::Torchvision(Box::new(model)));
        }
        let some: Vec<&str> = checkpoint.tensors().map(|t| t.name).take(3).collect();
        Err(Error::Config {
            place: checkpoint.name().to_owned(),
            expected:
                "a config.json beside it, or the tensor names of OpenAI's CLIP, the authors' ALBEF, BLIP or VinVL, a \
                 captioner of CNN and RNN, or torchvision's ResNet and VGG"
                    .to_owned(),
            found: format!("{} ...", some.join(", ")),
        })
    }

    /// The dual encoder of a config, filled from a checkpoint with our names.
    fn dual_encoder(
        config: &DualEncoderConfig,
        checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<Self, Error> {
        let model = filled(checkpoint, device, |w| DualEncoder::new(w, config))?;
        let sigmoid = config
            .logits
            .is_some_and(|l| l.objective == Objective::Sigmoid);
        if sigmoid || config.model_type.starts_with("siglip") {
            Ok(Self::Siglip(model))
        } else {
            Ok(Self::Clip(model))
        }
    }

    /// The family's name, as in `model_type`.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Albef(_) => albef::MODEL_TYPE,
            Self::Blip(_) => blip::MODEL_TYPE,
            Self::Coca(_) => coca::MODEL_TYPE,
            Self::Clip(m) | Self::Siglip(m) => m.config().model_type,
            Self::FasterRcnn(_) => faster_rcnn::FAMILY,
            Self::Vinvl(_) => vinvl::MODEL_TYPE,
            Self::Oscar(_) => oscar::FAMILY,
            Self::Nic(_) => nic::MODEL_TYPE,
            Self::Torchvision(_) => torchvision::LIBRARY_NAME,
            Self::Tree(_) => tree::MODEL_TYPE,
        }
    }

    /// What pictures must be.
    pub fn pictures(&self) -> PictureSize {
        match self {
            Self::Albef(m) => PictureSize {
                num_channels: m.config().vision.num_channels,
                image_size: Some(m.config().vision.image_size),
            },
            Self::Blip(m) => PictureSize {
                num_channels: m.config().vision.num_channels,
                image_size: Some(m.config().vision.image_size),
            },
            Self::Coca(m) => {
                let vision = &m.config().vision_config;
                PictureSize {
                    num_channels: vision.num_channels,
                    image_size: Some([vision.image_size; 2]),
                }
            }
            Self::Clip(m) | Self::Siglip(m) => match &m.config().vision {
                Some(VisionEncoderConfig::Vit(c)) => PictureSize {
                    num_channels: c.num_channels,
                    image_size: (!c.naflex).then_some(c.image_size),
                },
                Some(VisionEncoderConfig::ResNet(c)) => PictureSize {
                    num_channels: 3,
                    image_size: Some([c.image_size; 2]),
                },
                None => PictureSize {
                    num_channels: 0,
                    image_size: None,
                },
            },
            Self::FasterRcnn(_) | Self::Vinvl(_) => PictureSize {
                num_channels: 3,
                image_size: None,
            },
            // it reads regions
            Self::Oscar(_) => PictureSize {
                num_channels: 0,
                image_size: None,
            },
            Self::Nic(m) => PictureSize {
                num_channels: 3,
                image_size: Some([m.config().image_size; 2]),
            },
            Self::Torchvision(_) => PictureSize {
                num_channels: 3,
                image_size: None,
            },
            Self::Tree(m) => PictureSize {
                num_channels: 3,
                image_size: Some([m.config().image_size(); 2]),
            },
        }
    }

    /// What texts must be; a model of pictures alone knows no tokens.
    pub fn texts(&self) -> TextSize {
        match self {
            Self::Albef(m) => TextSize {
                vocab_size: m.config().text.vocab_size,
                max_positions: m.config().text.max_position_embeddings,
                fixed_length: false,
            },
            Self::Blip(m) => TextSize {
                vocab_size: m.config().text.vocab_size,
                max_positions: m.config().text.max_position_embeddings,
                fixed_length: false,
            },
            Self::Coca(m) => {
                let text = &m.config().text_config;
                TextSize {
                    vocab_size: text.vocab_size,
                    max_positions: text.max_position_embeddings,
                    fixed_length: false,
                }
            }
            Self::Clip(m) | Self::Siglip(m) => {
                let text = m.config().text.as_ref();
                TextSize {
                    vocab_size: text.map_or(0, |c| c.vocab_size),
                    max_positions: text.map_or(0, |c| c.max_position_embeddings),
                    fixed_length: text.is_some_and(|c| c.fixed_length()),
                }
            }
            Self::Nic(m) => TextSize {
                vocab_size: m.config().vocab_size,
                max_positions: m.config().max_length,
                fixed_length: false,
            },
            Self::FasterRcnn(_) | Self::Torchvision(_) | Self::Vinvl(_) => TextSize {
                vocab_size: 0,
                max_positions: 0,
                fixed_length: false,
            },
            Self::Oscar(m) => TextSize {
                vocab_size: m.config().bert.vocab_size,
                // the rest of the positions is that of tags
                max_positions: match m.can_caption() {
                    Ok(()) => m.config().max_seq_a_length,
                    Err(_) => m.config().max_seq_length,
                },
                fixed_length: false,
            },
            Self::Tree(m) => TextSize {
                vocab_size: m.config().vocab_size,
                max_positions: m.config().max_length,
                fixed_length: false,
            },
        }
    }

    /// How many numbers a region has, for a model that reads regions of pictures.
    pub fn region_width(&self) -> Option<usize> {
        match self {
            Self::Oscar(m) => Some(m.config().img_feature_dim),
            _ => None,
        }
    }

    /// The number of parameters.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Albef(m) => m.num_params(),
            Self::Blip(m) => m.num_params(),
            Self::Coca(m) => m.num_params(),
            Self::Clip(m) | Self::Siglip(m) => m.parameters(),
            Self::FasterRcnn(m) => m.num_params(),
            Self::Vinvl(m) => m.num_params(),
            Self::Oscar(m) => m.num_params(),
            Self::Nic(m) => vlm_nn::weights::count(&**m),
            Self::Torchvision(m) => vlm_nn::weights::count(&**m),
            Self::Tree(m) => vlm_nn::weights::count(&**m),
        }
    }

    fn unsupported<T>(&self, task: &'static str, able: &'static str) -> Result<T, Error> {
        Err(Error::Unsupported {
            family: self.family(),
            task,
            able,
        })
    }

    /// # Errors
    /// A family without a language-model head.
    pub fn generate(&self) -> Result<&dyn Generate, Error> {
        match self {
            Self::Blip(m) => m.can_caption().map(|()| &**m as _),
            Self::Coca(m) => Ok(m),
            Self::Nic(m) => Ok(&**m),
            Self::Oscar(m) => m.can_caption().map(|()| &**m as _),
            Self::Tree(m) => m.can_caption().map(|()| &**m as _),
            _ => self.unsupported("write text", "blip, coca, nic, oscar and tree"),
        }
    }

    /// # Errors
    /// A family whose decoder does not look at places of a picture, or does not tell.
    pub fn attend(&self) -> Result<&dyn Attend, Error> {
        match self {
            Self::Coca(m) => Ok(m),
            Self::Nic(m) if m.config().attention.is_some() => Ok(&**m),
            Self::Tree(m) => m.can_caption().map(|()| &**m as _),
            _ => self.unsupported("tell where it looked", "coca, tree and nic with attention"),
        }
    }

    /// # Errors
    /// A family that does not read questions before it answers.
    pub fn answer_question(&self) -> Result<&dyn AnswerQuestion, Error> {
        match self {
            Self::Albef(m) => m.can_answer().map(|()| &**m as _),
            Self::Blip(m) => m.can_answer().map(|()| &**m as _),
            _ => self.unsupported("answer questions", "albef, blip, coca, oscar and tree"),
        }
    }

    /// # Errors
    /// A family that does not choose among answers that it knows.
    pub fn classify_answer(&self) -> Result<&dyn ClassifyAnswer, Error> {
        match self {
            Self::Oscar(m) => m.can_answer().map(|()| &**m as _),
            Self::Tree(m) => m.can_answer().map(|()| &**m as _),
            _ => self.unsupported("choose among answers that it knows", "oscar and tree"),
        }
    }

    /// Whether what writes captions also writes answers, where a question is what it goes on from.
    pub fn captioner_answers(&self) -> bool {
        matches!(self, Self::Coca(_))
    }

    /// Whether a written answer begins with its working, so that its last token is the answer.
    pub fn working_before_answers(&self) -> bool {
        matches!(self, Self::Coca(m) if m.config().working_before_answers)
    }

    /// # Errors
    /// A family without an image-text matching head.
    pub fn score_pair(&self) -> Result<&dyn ScorePair, Error> {
        match self {
            Self::Albef(m) => m.can_judge_pairs().map(|()| &**m as _),
            Self::Blip(m) => m.can_judge().map(|()| &**m as _),
            Self::Oscar(m) => m.can_match().map(|()| &**m as _),
            Self::Tree(m) => m.can_compare().map(|()| &**m as _),
            _ => self.unsupported("judge pairs", "albef, blip, oscar and tree"),
        }
    }

    /// # Errors
    /// A family without classes of texts about pictures.
    pub fn judge_text(&self) -> Result<&dyn JudgeText, Error> {
        match self {
            Self::Albef(m) => m.can_judge_texts().map(|()| &**m as _),
            Self::Oscar(m) => m.can_judge_texts().map(|()| &**m as _),
            _ => self.unsupported("judge statements", "albef and oscar"),
        }
    }

    /// # Errors
    /// A family that has no way of its own to choose answers from a list.
    pub fn rank_answers(&self) -> Result<&dyn RankAnswers, Error> {
        match self {
            Self::Albef(m) => m.can_answer().map(|()| &**m as _),
            _ => self.unsupported("rank answers as a whole", "albef"),
        }
    }

    /// # Errors
    /// A family without a contrastive space.
    pub fn embed_image(&self) -> Result<&dyn EmbedImage, Error> {
        match self {
            Self::Albef(m) => m.can_embed().map(|()| &**m as _),
            Self::Blip(m) => m.can_embed().map(|()| &**m as _),
            Self::Coca(m) => Ok(m),
            Self::Clip(m) | Self::Siglip(m) if m.embeds_images() => Ok(m),
            Self::Tree(m) => m.can_compare().map(|()| &**m as _),
            _ => self.unsupported("embed pictures", "albef, blip, coca, clip, siglip and tree"),
        }
    }

    /// # Errors
    /// A family without a contrastive space.
    pub fn embed_text(&self) -> Result<&dyn EmbedText, Error> {
        match self {
            Self::Albef(m) => m.can_embed().map(|()| &**m as _),
            Self::Blip(m) => m.can_embed().map(|()| &**m as _),
            Self::Coca(m) => Ok(m),
            Self::Clip(m) | Self::Siglip(m) if m.embeds_texts() => Ok(m),
            Self::Tree(m) => m.can_compare().map(|()| &**m as _),
            _ => self.unsupported("embed text", "albef, blip, coca, clip, siglip and tree"),
        }
    }

    /// # Errors
    /// A family that finds no objects.
    pub fn detect(&self) -> Result<&dyn Detect, Error> {
        match self {
            Self::FasterRcnn(m) => Ok(&**m),
            Self::Vinvl(m) => Ok(&**m),
            _ => self.unsupported(
                "detect objects",
                "faster_rcnn (torchvision's fasterrcnn_resnet50_fpn) and vinvl",
            ),
        }
    }

    /// # Errors
    /// A family of ours, which has no reference implementation.
    pub fn reference(&self) -> Result<&dyn Reference, Error> {
        match self {
            Self::Coca(_) | Self::Tree(_) => self.unsupported(
                "be compared with a reference",
                "albef, blip, clip, nic, oscar, siglip, torchvision and vinvl",
            ),
            Self::Albef(m) => Ok(&**m),
            Self::Nic(m) => Ok(&**m),
            Self::Torchvision(m) => Ok(&**m),
            Self::Blip(m) => Ok(&**m),
            Self::Clip(m) | Self::Siglip(m) => Ok(m),
            Self::FasterRcnn(m) => Ok(&**m),
            Self::Vinvl(m) => Ok(&**m),
            Self::Oscar(m) => Ok(&**m),
        }
    }
}
