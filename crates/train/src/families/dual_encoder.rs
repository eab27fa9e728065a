//! CLIP and SigLIP in the layouts of Hugging Face and open_clip: pairs of pictures and texts.

use super::parts::{
    MOST_SCALE, Parts, Specials, Start, fill, id, panels, pictures, strings, whole_batches,
};
use crate::Error;
use crate::learner::{Contrastive, Files, Learner, Losses, Measured};
use crate::log::Log;
use crate::plot::Panel;
use crate::set_recipe::SetRecipe;
use crate::source::{SetBatch, Wanted};
use burn::tensor::{Device, Tensor};
use serde_json::json;
use std::sync::mpsc::Receiver;
use vlm_models::capability::EmbedText;
use vlm_models::families::dual_encoder::{DualEncoder, DualEncoderConfig, VisionEncoderConfig};
use vlm_models::families::{Model, clip, open_clip, siglip};
use vlm_nn::Statistics;
use vlm_nn::weights::{Weights, collect};
use vlm_tasks::TextSide;

/// The end has the largest id, as CLIP's pooling wants it.
const SPECIALS: Specials = Specials {
    first: &["<pad>", "<unk>", "<|startoftext|>"],
    last: &["<|endoftext|>"],
    begin: "<|startoftext|>",
    end: "<|endoftext|>",
    plain: str::to_owned,
};

/// A dual encoder in training.
pub(crate) struct Pairs {
    parts: Parts,
    config: DualEncoderConfig,
    text: TextSide,
}

impl Pairs {
    pub(crate) fn new(set: &SetRecipe, start: Start) -> Result<Self, Error> {
        let usual = "a photo of a {}.";
        let mut parts = Parts::open(set, start, Wanted::Texts, usual, &SPECIALS)?;
        let tokens = parts.tokenizer.id_bound();
        let end = id(&parts.tokenizer, SPECIALS.end);
        let wrong = |e: vlm_models::Error| Error::file("recipe", format!("model: {e}"));
        let model_type = parts.config.get("model_type").and_then(|t| t.as_str());
        let config = match model_type {
            None => {
                let cfg = &mut parts.config;
                let cfg = match cfg.get("model_cfg") {
                    Some(_) => &mut cfg["model_cfg"],
                    None => cfg,
                };
                fill(cfg, "text_cfg", &[("vocab_size", json!(tokens))]);
                open_clip::parse(cfg).map_err(wrong)?
            }
            Some(clip::MODEL_TYPE) => {
                let fields = [("vocab_size", json!(tokens)), ("eos_token_id", end)];
                fill(&mut parts.config, "text_config", &fields);
                clip::parse(&parts.config.to_string()).map_err(wrong)?
            }
            Some(_) => {
                let fields = [("vocab_size", json!(tokens))];
                fill(&mut parts.config, "text_config", &fields);
                siglip::parse(&parts.config.to_string()).map_err(wrong)?
            }
        };
        let (Some(vision), Some(_), Some(_)) = (&config.vision, &config.text, &config.logits)
        else {
            let reason = "model: expected a model of pictures and text, found half of one";
            return Err(Error::file("recipe", reason));
        };
        let size = match vision {
            VisionEncoderConfig::Vit(c) if c.naflex => {
                let reason = "model: expected pictures of one size, found patches of any number";
                return Err(Error::file("recipe", reason));
            }
            VisionEncoderConfig::Vit(c) => c.image_size,
            VisionEncoderConfig::ResNet(c) => [c.image_size; 2],
        };
        if let VisionEncoderConfig::ResNet(_) = vision {
            whole_batches(set, "ResNet")?;
        }
        parts.with_size(size)?;
        let model = DualEncoder::new(&mut Weights::random(0, &Device::flex()), &config);
        let text = TextSide::new(&set.name, parts.tokenizer.clone(), &wrapped(&config, model))?;
        Ok(Self {
            parts,
            config,
            text,
        })
    }
}

fn wrapped(config: &DualEncoderConfig, model: DualEncoder) -> Model {
    match config.model_type.starts_with("siglip") {
        true => Model::Siglip(model),
        false => Model::Clip(model),
    }
}

impl Learner for Pairs {
    type Model = DualEncoder;
    type Batch = SetBatch;

    fn build(&self, weights: &mut Weights) -> DualEncoder {
        DualEncoder::new(weights, &self.config).with_statistics(Statistics::Batch)
    }

    fn initial(&self, device: &Device) -> Result<(DualEncoder, Option<String>), Error> {
        self.parts.initial(
            device,
            |weights| self.build(weights),
            |model| match model {
                Model::Clip(m) | Model::Siglip(m) => Some(collect(m)),
                _ => None,
            },
        )
    }

    fn stream(&self, first: u64) -> Receiver<Result<SetBatch, Error>> {
        self.parts.stream(first)
    }

    fn loss(
        &self,
        model: &DualEncoder,
        batch: &SetBatch,
        device: &Device,
    ) -> Result<Losses, Error> {
        self.contrast(model, self.vectors(model, batch, device)?)
    }

    fn contrastive(&self) -> Option<&dyn Contrastive<DualEncoder, SetBatch>> {
        // a ResNet's norms would see other batches than the whole one
        match self.config.vision {
            Some(VisionEncoderConfig::Vit(_)) => Some(self),
            _ => None,
        }
    }

    fn bounded(&self, model: DualEncoder) -> DualEncoder {
        model.with_scale_at_most(MOST_SCALE)
    }

    fn measure(&self, model: DualEncoder) -> Result<Measured, Error> {
        let model = model.with_statistics(Statistics::Running);
        let vlm = self.parts.vlm(wrapped(&self.config, model))?;
        self.parts.measure_texts(&vlm)
    }

    fn files(&self) -> Result<Files, Error> {
        self.parts.files()
    }

    fn data_seed(&self) -> u64 {
        self.parts.recipe.data.seed
    }

    fn panels(&self, log: &Log) -> Vec<Panel> {
        panels(log, &[("contrast", "itc_loss")], &[])
    }
}

impl Contrastive<DualEncoder, SetBatch> for Pairs {
    fn vectors(
        &self,
        model: &DualEncoder,
        batch: &SetBatch,
        device: &Device,
    ) -> Result<Vec<Tensor<2>>, Error> {
        let tokens = self.text.tokens(&strings(&batch.texts))?;
        let image = model.image_vectors(&pictures(batch, device), false)?;
        Ok(vec![image, model.embed_text(&tokens)?])
    }

    fn contrast(&self, model: &DualEncoder, vectors: Vec<Tensor<2>>) -> Result<Losses, Error> {
        let [image, text]: [Tensor<2>; 2] = vectors.try_into().expect("a picture's and a text's");
        let total = model.contrast(image, text)?;
        Ok(Losses {
            parts: vec![("itc_loss", Some(total.clone()))],
            total,
        })
    }
}
