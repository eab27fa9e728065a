//! CoCa on rendered scenes: captions, questions and patch labels, all at once.

use crate::Error;
use crate::batches::{Batches, HostBatch};
use crate::learner::{Files, Learner, Losses, Measured, Tensors};
use crate::log::Log;
use crate::plot::{Panel, Series};
use crate::recipe::ShapesRecipe;
use burn::tensor::Device;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use vlm_data::image::{ImageProcessor, PreprocessorConfig, ProcessorKind};
use vlm_data::text::{Tokenizer, word_level};
use vlm_models::families::Model;
use vlm_models::families::coca::{Coca, CocaConfig};
use vlm_nn::weights::Weights;
use vlm_tasks::evaluate::Sample;
use vlm_tasks::prompt::{SPECIALS, SpecialIds};
use vlm_tasks::{CaptionOptions, Vlm, file};
use vlm_worlds::shapes::{self, Split};

/// The recipe with what it is made into.
pub(crate) struct ShapesLearner {
    recipe: Arc<ShapesRecipe>,
    tokenizer: Arc<Tokenizer>,
    preprocessor: String,
    processor: ImageProcessor,
    batches: Batches,
    validation: Vec<Sample>,
}

/// Pixels from -1 to 1 at the size that the model takes.
pub(crate) fn preprocessor_config([height, width]: [u32; 2]) -> String {
    let config = serde_json::json!({
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": true,
        "do_resize": true,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    });
    format!("{config:#}\n")
}

/// What [`preprocessor_config`] describes.
pub(crate) fn processor_of(config: &str) -> Result<ImageProcessor, Error> {
    let kind = ProcessorKind::Vit;
    let config = PreprocessorConfig::from_json(config.as_bytes(), file::PREPROCESSOR, kind)?;
    Ok(ImageProcessor::from_config(config))
}

impl ShapesLearner {
    pub(crate) fn new(recipe: &ShapesRecipe) -> Result<Self, Error> {
        let words = crate::recipe::words(recipe.data.symbol_substitution > 0.0);
        let tokenizer = Arc::new(word_level(&words, &SPECIALS)?);
        let preprocessor = preprocessor_config([recipe.data.size; 2]);
        let processor = processor_of(&preprocessor)?;
        let recipe = Arc::new(recipe.clone());
        let special = SpecialIds::of(&tokenizer)?;
        let batches = Batches::new(
            recipe.clone(),
            tokenizer.clone(),
            processor.clone(),
            special,
        )?;
        let pictures = recipe.validation.pictures as u64;
        let (seed, size) = (recipe.data.seed, recipe.data.size);
        let validation = (0..pictures).map(|index| sample(size, seed, index));
        Ok(Self {
            validation: validation.collect::<Result<_, _>>()?,
            recipe,
            tokenizer,
            preprocessor,
            processor,
            batches,
        })
    }

    /// The small files of a model directory.
    fn model_files(&self, config: &CocaConfig, tokenizer: &Tokenizer) -> Result<Files, Error> {
        let config = serde_json::to_string_pretty(config)
            .map_err(|e| Error::file(file::CONFIG, format!("cannot be written: {e}")))?;
        Ok(vec![
            (file::CONFIG, format!("{config}\n").into_bytes()),
            (file::TOKENIZER, tokenizer.to_json()?),
            (file::PREPROCESSOR, self.preprocessor.clone().into_bytes()),
        ])
    }
}

/// A scene to measure on.
fn sample(size: u32, seed: u64, index: u64) -> Result<Sample, Error> {
    let config = shapes::Config {
        size,
        ..shapes::Config::default()
    };
    let item = shapes::generate(&config, Split::Validation, seed, index);
    Ok(item.try_into()?)
}

impl Learner for ShapesLearner {
    type Model = Coca;
    type Batch = HostBatch;

    fn build(&self, weights: &mut Weights) -> Coca {
        Coca::new(weights, &self.recipe.model)
    }

    fn initial(&self, device: &Device) -> Result<(Coca, Option<String>), Error> {
        Ok((crate::init::model(&self.recipe, device)?, None))
    }

    fn stream(&self, first: u64) -> Receiver<Result<HostBatch, Error>> {
        self.batches.clone().stream(first)
    }

    fn loss(&self, model: &Coca, batch: &HostBatch, device: &Device) -> Result<Losses, Error> {
        let losses = model.loss(batch.to_device(device));
        Ok(Losses {
            total: losses.total,
            parts: vec![
                ("caption_loss", Some(losses.caption)),
                ("answer_loss", losses.answer),
                ("itc_loss", Some(losses.itc)),
                ("token_label_loss", losses.token_label),
                ("question_loss", losses.question),
            ],
        })
    }

    fn measure(&self, model: Coca) -> Result<Measured, Error> {
        let vlm = Vlm::from_parts(
            &self.recipe.name,
            Model::Coca(model),
            (*self.tokenizer).clone(),
            self.processor.clone(),
        )?;
        let vqa = vlm.evaluate_vqa(&self.validation[..], |_| {})?;
        let captions =
            vlm.evaluate_captions(&self.validation[..], &CaptionOptions::default(), |_| {})?;
        let accuracy = vqa.scores.accuracy.estimate;
        let fact_f1 = captions.facts.map_or(0.0, |f| f.f1.estimate);
        Ok(Measured {
            scores: vec![("vqa_accuracy", accuracy), ("fact_f1", fact_f1)],
            text: format!(
                "VQA accuracy {:.1} %, caption fact F1 {fact_f1:.3}",
                100.0 * accuracy
            ),
        })
    }

    fn files(&self) -> Result<Files, Error> {
        self.model_files(&self.recipe.model, &self.tokenizer)
    }

    fn finished(&self, tensors: Tensors) -> Result<(Files, Tensors), Error> {
        // what only training has stays behind
        let (config, weights) = crate::init::without_extra(&self.recipe.model, tensors);
        let tokenizer = word_level(&crate::recipe::words(false), &SPECIALS)?;
        Ok((self.model_files(&config, &tokenizer)?, weights))
    }

    fn data_seed(&self) -> u64 {
        self.recipe.data.seed
    }

    fn panels(&self, log: &Log) -> Vec<Panel> {
        let series = |name: &str, key: &str| Series::new(name, log.series(key));
        vec![
            Panel::loss(vec![
                series("captions", "caption_loss"),
                series("answers", "answer_loss"),
                series("contrast", "itc_loss"),
                series("patch labels", "token_label_loss"),
            ])
            .log_scale(),
            Panel::percent(
                "validation",
                vec![
                    series("VQA accuracy", "val.vqa_accuracy"),
                    series("caption fact F1", "val.fact_f1"),
                ],
            ),
        ]
    }
}
