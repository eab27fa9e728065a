//! BLIP: bootstrapping language-image pre-training (Li et al., "BLIP", 2022).
//!
//! ```text
//!   captioning     pixels -> ViT -----------------------> memory of: ids -> decoder (causal) -> head -- LM
//!   questions      pixels -> ViT -> memory of: question -> encoder -> memory of: answer -> decoder -- LM
//!   retrieval      pixels -> ViT -> class token -> projection -> l2 --+-- ITC
//!                  ids -> encoder, first token -> projection -> l2 ---+
//!                  pixels -> ViT -> memory of: ids -> encoder, first token -> match head ---------- ITM
//! ```
//!
//! Every text model is a BERT with cross-attention in all layers, which is left out where there is no memory. Each
//! checkpoint holds the parts that its task needs ([`BlipTask`]). Two layouts are read: transformers' with its
//! `config.json`, and the authors' own, whose sizes are told by its tensors.
//!
//! Legend: `B` pictures, `R` texts, `C` channels, `T` tokens, `N` patches and the class token, `D` width, `E` width of
//! the shared space, `V` vocabulary.

mod config;
mod names;
mod reference;

pub use config::{BlipConfig, BlipTask};

use crate::capability::{
    AnswerQuestion, EmbedImage, EmbedText, Generate, Pictures, ScorePair, Similarity, Tokens,
};
use crate::decoders::BertDecoder;
use crate::encoders::{Bert, BertMemory, BertPass, VisionTower, first_token};
use crate::error::{Error, expect};
use crate::generate::Autoregressive;
use crate::objectives::{itc, l2_normalize};
use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use vlm_nn::weights::{Checkpoint, Init, Weights};
use vlm_nn::{KeyMask, Linear, ops};

/// This family's `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "blip";

/// Whether a checkpoint without a config is one of the authors' own code.
pub fn recognised(checkpoint: &Checkpoint) -> bool {
    names::is_original(checkpoint)
}

/// The model, as far as its task needs it.
#[derive(Module, Debug)]
pub struct Blip {
    vision: VisionTower,
    text: Option<Bert>,
    decoder: Option<BertDecoder>,
    vision_projection: Option<Linear>,
    text_projection: Option<Linear>,
    match_head: Option<Linear>,
    logit_scale: Option<Param<Tensor<1>>>,
    temperature: Option<Param<Tensor<1>>>,
    #[module(skip)]
    config: BlipConfig,
}

/// Language-modelling targets: one per token of the decoder's input.
///
/// A target is the token itself, for the shift by one is made here; negative where nothing is to be learned.
#[derive(Clone, Debug)]
pub struct Labels {
    /// `[R, T]`.
    pub ids: Vec<Vec<i64>>,
}

impl Blip {
    /// Builds the model of a validated config; `tied` says whether the decoder's output layer is its word embeddings.
    pub fn new(w: &mut Weights, c: &BlipConfig, tied: bool) -> Self {
        let (task, e) = (c.task, c.projection_dim);
        let bias = task != BlipTask::Contrastive;
        let linear = |w: &mut Weights, name: &str, inputs: usize, outputs: usize, bias: bool| {
            w.scope(name, |w| {
                Linear::new(w, inputs, outputs, bias, Init::NORMAL)
            })
        };
        let (shared, matches) = (task.has_shared_space(), task.matches_pairs());
        let (v, t) = (c.vision.hidden_size, c.text.hidden_size);
        Self {
            vision: w.scope("vision", |w| VisionTower::new(w, &c.vision)),
            text: task
                .encodes_text()
                .then(|| w.scope("text", |w| Bert::new(w, &c.text))),
            decoder: task
                .writes()
                .then(|| w.scope("decoder", |w| BertDecoder::new(w, &c.decoder(), tied))),
            vision_projection: shared.then(|| linear(w, "vision_projection", v, e, bias)),
            text_projection: shared.then(|| linear(w, "text_projection", t, e, bias)),
            match_head: matches.then(|| linear(w, "match_head", t, 2, true)),
            logit_scale: (task == BlipTask::Contrastive)
                .then(|| w.param("logit_scale", [1], Init::Constant(c.logit_scale_init_value))),
            temperature: c.temperature.then(|| {
                let init = Init::Constant((-c.logit_scale_init_value).exp());
                w.param("temperature", [1], init)
            }),
            config: c.clone(),
        }
    }

    /// A published model with its `config.json`; its tensors may have the names of either layout.
    ///
    /// # Errors
    /// A config that is not understood, or weights that do not match it.
    pub fn load(config: &str, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let mut config = BlipConfig::parse(config, &checkpoint)?;
        if names::is_original(&checkpoint) {
            let original = BlipConfig::of_original(&checkpoint)?;
            config.enc_token_id = original.enc_token_id;
            config.question_padding_masked = original.question_padding_masked;
            config.temperature = original.temperature;
        }
        Self::filled(&config, checkpoint, device)
    }

    /// A checkpoint of the authors' own code, without a config.
    ///
    /// # Errors
    /// Tensors that such a model does not have, or that it lacks.
    pub fn from_original(checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let config = BlipConfig::of_original(&checkpoint)?;
        Self::filled(&config, checkpoint, device)
    }

    fn filled(config: &BlipConfig, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let (checkpoint, tied) = names::translated(checkpoint, config);
        let mut weights = Weights::from_checkpoint(checkpoint, device);
        let model = Self::new(&mut weights, config, tied);
        weights.finish()?;
        Ok(model)
    }

    /// A checkpoint with our names for its tensors: weights, or anything that there is one of per weight, such as
    /// gradients.
    pub fn translated(&self, checkpoint: Checkpoint) -> Checkpoint {
        names::translated(checkpoint, &self.config).0
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &BlipConfig {
        &self.config
    }

    /// Where the model lies.
    pub fn device(&self) -> Device {
        self.vision.device()
    }

    fn part<'a, T>(&self, part: &'a Option<T>, task: &'static str) -> Result<&'a T, Error> {
        part.as_ref().ok_or(Error::Unsupported {
            family: match self.config.task {
                BlipTask::Captioning => "blip (BlipForConditionalGeneration)",
                BlipTask::QuestionAnswering => "blip (BlipForQuestionAnswering)",
                BlipTask::Retrieval => "blip (BlipForImageTextRetrieval)",
                BlipTask::Contrastive => "blip (BlipModel)",
                BlipTask::Pretraining => "blip (pre-training)",
            },
            task,
            able: match task {
                "write captions" => "BlipForConditionalGeneration",
                "answer questions" => "BlipForQuestionAnswering",
                "judge pairs" => "BlipForImageTextRetrieval",
                _ => "BlipForImageTextRetrieval and BlipModel",
            },
        })
    }

    /// # Errors
    /// A checkpoint without a decoder that reads pictures.
    pub fn can_caption(&self) -> Result<(), Error> {
        self.captioner().map(|_| ())
    }

    /// # Errors
    /// A checkpoint without a decoder that reads questions.
    pub fn can_answer(&self) -> Result<(), Error> {
        self.answerer().map(|_| ())
    }

    /// # Errors
    /// A checkpoint without a matching head.
    pub fn can_judge(&self) -> Result<(), Error> {
        self.part(&self.match_head, "judge pairs").map(|_| ())
    }

    /// # Errors
    /// A checkpoint without a contrastive space.
    pub fn can_embed(&self) -> Result<(), Error> {
        let part = self.part(&self.text_projection, "use a shared space");
        part.map(|_| ())
    }

    /// The decoder that reads pictures.
    fn captioner(&self) -> Result<&BertDecoder, Error> {
        let reads_pictures = self.config.task != BlipTask::QuestionAnswering;
        let decoder = self.decoder.as_ref().filter(|_| reads_pictures);
        self.part(&decoder, "write captions").copied()
    }

    /// The encoder of questions and the decoder that reads them.
    fn answerer(&self) -> Result<(&Bert, &BertDecoder), Error> {
        let answers = self.config.task == BlipTask::QuestionAnswering;
        let parts = self.text.as_ref().zip(self.decoder.as_ref());
        self.part(&parts.filter(|_| answers), "answer questions")
            .copied()
    }

    fn pixels(&self, pictures: &Pictures) -> Result<Tensor<4>, Error> {
        let pixels = pictures.fixed(self.config.vision.num_channels)?;
        let [_, _, h, w] = pixels.dims();
        let patch = self.config.vision.patch_size;
        expect(
            h >= patch && w >= patch,
            "pixel_values",
            format!("pictures of at least one patch, {patch} x {patch} pixels"),
            format!("{h} x {w}"),
        )?;
        Ok(pixels)
    }

    fn ids(&self, texts: &Tokens) -> Result<Tensor<2, Int>, Error> {
        let text = &self.config.text;
        texts.to_device(
            text.vocab_size,
            text.max_position_embeddings,
            &self.device(),
        )
    }

    /// Every token of the pictures after the final norm, the class token first.
    ///
    /// # Shapes
    /// `pixels: [B, C, H, W]`; gives `[B, N, D]`.
    ///
    /// # Errors
    /// Another number of channels, or less than a patch.
    pub fn picture_states(&self, pictures: &Pictures) -> Result<Tensor<3>, Error> {
        let x = self.vision.hidden_states(self.pixels(pictures)?);
        Ok(self.vision.normalized(x))
    }

    /// The text encoder's last states; `pictures` from [`Self::picture_states`], or none to look at the text alone.
    ///
    /// # Shapes
    /// `pictures: [B, N, D]`, one for each text or one for all; gives `[R, T, D]`.
    ///
    /// # Errors
    /// A model without a text encoder, ids that it does not know, or another number of pictures.
    pub fn text_states(
        &self,
        texts: &Tokens,
        pictures: Option<&Tensor<3>>,
    ) -> Result<Tensor<3>, Error> {
        let text = self.part(&self.text, "put texts into a shared space")?;
        let ids = self.ids(texts)?;
        let memory = pictures.map(|pictures| {
            self.check_rows(pictures, texts)?;
            Ok::<_, Error>(text.memory(&[(pictures.clone(), KeyMask::default())]))
        });
        let memory = memory.transpose()?;
        let pass = BertPass {
            keys: KeyMask::new(texts.mask()),
            memory: memory.as_ref(),
            ..BertPass::default()
        };
        let layers = 0..self.config.text.num_hidden_layers;
        Ok(text.forward(text.embed(ids, 0), layers, pass))
    }

    fn check_rows(&self, memory: &Tensor<3>, texts: &Tokens) -> Result<(), Error> {
        let (b, r) = (memory.dims()[0], texts.rows().len());
        expect(
            b == 1 || b == r,
            "input_ids",
            format!("a text for each of {b} pictures"),
            r,
        )
    }

    /// Logits of the decoder over whole texts.
    ///
    /// # Shapes
    /// `memory: [B, N, D]`, of which `keys` are no padding; gives `[R, T, V]`.
    fn decoded(
        &self,
        decoder: &BertDecoder,
        texts: &Tokens,
        memory: &Tensor<3>,
        keys: KeyMask,
    ) -> Result<Tensor<3>, Error> {
        self.check_rows(memory, texts)?;
        let memory = decoder.bert().memory(&[(memory.clone(), keys)]);
        let pass = BertPass {
            causal: true,
            keys: KeyMask::new(texts.mask()),
            memory: Some(&memory),
            caches: None,
        };
        Ok(decoder.forward(self.ids(texts)?, pass))
    }

    /// Logits of the next token at every position of captions.
    ///
    /// # Shapes
    /// `pictures: [B, N, D]` from [`Self::picture_states`]; gives `[R, T, V]`.
    ///
    /// # Errors
    /// A model that writes no captions, ids that it does not know, or another number of pictures.
    pub fn caption_logits(&self, pictures: &Tensor<3>, texts: &Tokens) -> Result<Tensor<3>, Error> {
        self.decoded(self.captioner()?, texts, pictures, KeyMask::default())
    }

    /// Logits of the next token at every position of answers to questions about pictures.
    ///
    /// # Shapes
    /// `pictures: [B, N, D]` from [`Self::picture_states`]; gives `[R, T, V]`.
    ///
    /// # Errors
    /// A model that answers no questions, ids that it does not know, or another number of pictures.
    pub fn answer_logits(
        &self,
        pictures: &Tensor<3>,
        questions: &Tokens,
        answers: &Tokens,
    ) -> Result<Tensor<3>, Error> {
        let (_, decoder) = self.answerer()?;
        let states = self.text_states(questions, Some(pictures))?;
        self.decoded(decoder, answers, &states, self.question_keys(questions))
    }

    /// Which of a question's states an answer reads in training.
    fn question_keys(&self, questions: &Tokens) -> KeyMask {
        match self.config.question_padding_masked {
            true => KeyMask::new(questions.mask()),
            false => KeyMask::default(),
        }
    }

    /// Cross-entropy of each target, with the config's label smoothing; 0 where there is none.
    ///
    /// # Shapes
    /// `logits: [R, T, V]`; gives `[R, T - 1]`, and how many targets there are.
    ///
    /// # Errors
    /// Labels of another shape, or that are no token.
    pub fn token_losses(
        &self,
        logits: Tensor<3>,
        labels: &Labels,
    ) -> Result<(Tensor<2>, usize), Error> {
        let [r, t, v] = logits.dims();
        let shaped = labels.ids.len() == r && labels.ids.iter().all(|row| row.len() == t);
        expect(shaped && t > 0, "labels", format!("{r} rows of {t}"), {
            format!(
                "{} rows of {:?}",
                labels.ids.len(),
                labels.ids.first().map(Vec::len)
            )
        })?;
        let targets: Vec<i64> = labels
            .ids
            .iter()
            .flat_map(|row| &row[1..])
            .copied()
            .collect();
        let bad = targets.iter().find(|&&id| id >= v as i64);
        expect(
            bad.is_none(),
            "labels",
            format!("ids below {v}"),
            bad.unwrap_or(&0),
        )?;
        let count = targets.iter().filter(|&&id| id >= 0).count();
        let targets = TensorData::new(targets, [r * (t - 1)]);
        let targets = Tensor::<1, Int>::from_data(targets, &logits.device());
        let logits = logits.narrow(1, 0, t - 1).reshape([r * (t - 1), v]);
        let losses = ops::cross_entropy(logits, targets, self.config.label_smoothing);
        Ok((losses.reshape([r, t - 1]), count))
    }

    /// The mean of [`Self::token_losses`] over the targets: the loss of captions and answers.
    ///
    /// # Shapes
    /// `logits: [R, T, V]`; gives `[1]`.
    ///
    /// # Errors
    /// As [`Self::token_losses`].
    pub fn language_loss(&self, logits: Tensor<3>, labels: &Labels) -> Result<Tensor<1>, Error> {
        let (losses, count) = self.token_losses(logits, labels)?;
        Ok(losses.sum() / count as f32)
    }

    /// The authors' loss of answers: a question may have several answers, each with a weight, and the sum is divided by
    /// the number of pictures.
    ///
    /// # Shapes
    /// `logits: [R, T, V]`, a weight for each row; gives `[1]`.
    ///
    /// # Errors
    /// As [`Self::token_losses`].
    pub fn weighted_answer_loss(
        &self,
        logits: Tensor<3>,
        labels: &Labels,
        weights: &[f32],
        pictures: usize,
    ) -> Result<Tensor<1>, Error> {
        let r = logits.dims()[0];
        expect(weights.len() == r, "weights", format!("{r}"), weights.len())?;
        let (losses, _) = self.token_losses(logits, labels)?;
        let weights = TensorData::new(weights.to_vec(), [r, 1]);
        let weights = Tensor::<2>::from_data(weights, &losses.device());
        Ok((losses * weights).sum() / pictures.max(1) as f32)
    }

    /// Logits of "does not belong" and "belongs", the second class.
    ///
    /// # Shapes
    /// `pictures: [B, N, D]` from [`Self::picture_states`], one for each text or one for all; gives `[R, 2]`.
    ///
    /// # Errors
    /// A model without a matching head, ids that it does not know, or another number of pictures.
    pub fn match_logits(&self, pictures: &Tensor<3>, texts: &Tokens) -> Result<Tensor<2>, Error> {
        self.match_scores(&self.text_states(texts, Some(pictures))?)
    }

    /// `states: [R, T, D]` of texts that look at pictures; gives `[R, 2]`.
    fn match_scores(&self, states: &Tensor<3>) -> Result<Tensor<2>, Error> {
        let head = self.part(&self.match_head, "judge pairs")?;
        Ok(head.forward(first_token(states)))
    }

    /// The matching loss: cross-entropy of [`Self::match_logits`].
    ///
    /// # Shapes
    /// `logits: [R, 2]`, whether each pair belongs together; gives `[1]`.
    pub fn match_loss(&self, logits: Tensor<2>, belongs: &[bool]) -> Tensor<1> {
        let targets: Vec<i64> = belongs.iter().map(|&b| i64::from(b)).collect();
        let targets = TensorData::new(targets, [belongs.len()]);
        let targets = Tensor::<1, Int>::from_data(targets, &logits.device());
        ops::cross_entropy(logits, targets, 0.0).mean()
    }

    /// Pictures in the shared space.
    ///
    /// # Shapes
    /// `pictures: [B, N, D]` from [`Self::picture_states`]; gives unit vectors `[B, E]`.
    ///
    /// # Errors
    /// A model without such a space.
    pub fn picture_vectors(&self, pictures: &Tensor<3>) -> Result<Tensor<2>, Error> {
        let projection = self.part(&self.vision_projection, "put pictures into a shared space")?;
        Ok(l2_normalize(
            projection.forward(self.pooled_picture(pictures)),
        ))
    }

    /// The class token; `BlipModel` applies the final norm to it a second time.
    fn pooled_picture(&self, pictures: &Tensor<3>) -> Tensor<2> {
        let class = pictures.clone().narrow(1, 0, 1);
        match self.config.task {
            BlipTask::Contrastive => first_token(&self.vision.normalized(class)),
            _ => first_token(&class),
        }
    }

    /// Texts in the shared space, from the states of [`Self::text_states`] without pictures.
    ///
    /// # Shapes
    /// `states: [R, T, D]`; gives unit vectors `[R, E]`.
    ///
    /// # Errors
    /// A model without such a space.
    pub fn text_vectors(&self, states: &Tensor<3>) -> Result<Tensor<2>, Error> {
        let projection = self.part(&self.text_projection, "put texts into a shared space")?;
        let text = self.part(&self.text, "put texts into a shared space")?;
        let pooled = text.pooled(states).unwrap_or_else(|| first_token(states));
        Ok(l2_normalize(projection.forward(pooled)))
    }

    /// Logarithm of the inverse temperature.
    ///
    /// # Shapes
    /// `[1]`.
    pub fn log_scale(&self) -> Tensor<1> {
        match (&self.logit_scale, &self.temperature) {
            (Some(scale), _) => scale.val(),
            (None, Some(temperature)) => -temperature.val().log(),
            (None, None) => {
                Tensor::from_floats([self.config.logit_scale_init_value], &self.device())
            }
        }
    }

    /// The contrastive loss of pairs in the same rows.
    ///
    /// # Shapes
    /// `pictures, texts: [B, E]` from [`Self::picture_vectors`] and [`Self::text_vectors`]; gives `[1]`.
    pub fn contrastive_loss(&self, pictures: Tensor<2>, texts: Tensor<2>) -> Tensor<1> {
        itc(pictures, texts, self.log_scale())
    }

    /// What the answer decoder reads of questions about pictures, all of it, padding included, as both reference
    /// implementations have it when they generate.
    ///
    /// # Errors
    /// As [`AnswerQuestion::answer`].
    fn question_memory(
        &self,
        pictures: &Tensor<3>,
        questions: &Tokens,
    ) -> Result<BertMemory, Error> {
        let (_, decoder) = self.answerer()?;
        let states = self.text_states(questions, Some(pictures))?;
        Ok(decoder.bert().memory(&[(states, KeyMask::default())]))
    }

    /// Texts that begin with the token of what reads a picture, in the layout that was trained so and says so.
    fn beginning_with_enc(&self, texts: &Tokens) -> Result<Tokens, Error> {
        let Some(enc) = self.config.enc_token_id else {
            return Ok(texts.clone());
        };
        let mut rows = texts.rows().to_vec();
        for first in rows.iter_mut().filter_map(|row| row.first_mut()) {
            *first = enc;
        }
        Tokens::new(rows, Some(texts.mask().to_vec()))
    }
}

impl EmbedImage for Blip {
    fn embed_image(&self, pictures: &Pictures) -> Result<Tensor<2>, Error> {
        self.can_embed()?;
        self.picture_vectors(&self.picture_states(pictures)?)
    }
}

impl EmbedText for Blip {
    fn embed_text(&self, texts: &Tokens) -> Result<Tensor<2>, Error> {
        self.can_embed()?;
        self.text_vectors(&self.text_states(texts, None)?)
    }

    /// transformers drops the temperature of retrieval checkpoints; 0.07, where its training began, stands in for it.
    fn similarity(&self) -> Similarity {
        let scale = self.log_scale().exp().into_data().convert::<f32>();
        Similarity::Softmax {
            scale: scale.try_to_vec::<f32>().expect("one f32")[0],
        }
    }
}

impl ScorePair for Blip {
    fn score_pair(&self, pictures: &Pictures, texts: &Tokens) -> Result<Vec<f32>, Error> {
        self.can_judge()?;
        let texts = self.beginning_with_enc(texts)?;
        let logits = self.match_logits(&self.picture_states(pictures)?, &texts)?;
        let belongs = softmax(logits, 1).narrow(1, 1, 1);
        let belongs = belongs.into_data().convert::<f32>();
        Ok(belongs.try_to_vec().expect("f32"))
    }
}

impl Generate for Blip {
    fn encode(&self, pictures: &Pictures) -> Result<Tensor<3>, Error> {
        self.captioner()?;
        self.picture_states(pictures)
    }

    fn decode(&self, memory: Tensor<3>) -> Box<dyn Autoregressive + '_> {
        let decoder = self.captioner().expect("what encoded can decode");
        let memory = decoder.bert().memory(&[(memory, KeyMask::default())]);
        Box::new(decoder.decode(memory))
    }
}

impl AnswerQuestion for Blip {
    fn answer(
        &self,
        pictures: &Pictures,
        questions: &Tokens,
    ) -> Result<Box<dyn Autoregressive + '_>, Error> {
        let (_, decoder) = self.answerer()?;
        let pictures = self.picture_states(pictures)?;
        let questions = self.beginning_with_enc(questions)?;
        let memory = self.question_memory(&pictures, &questions)?;
        Ok(Box::new(decoder.decode(memory)))
    }
}
