//! ALBEF: align before fuse (Li et al., "Align before fuse: vision and language representation learning with momentum
//! distillation", 2021).
//!
//! ```text
//!   pixels -> ViT -------------------+-- class token -> projection -> l2 --+-- ITC, against a momentum model
//!                                    |                                     |   and its queues
//!   ids -> text encoder, 6 layers ---|-- first token -> projection -> l2 --+
//!                |                   v
//!                +-------> fusion encoder, 6 layers with cross-attention -- first token -> match head ----- ITM
//!                                    |                                  -- masked tokens -> head ---------- MLM
//!   questions                        +-- all states -> memory of: answer -> decoder, 6 layers (causal) ---- LM
//!   NLVR2      two pictures, each layer with cross-attention twice ---- first token -> class head
//!   SNLI-VE    one picture -------------------------------------------- first token -> class head
//! ```
//!
//! Text encoder and fusion encoder are the lower and upper half of one BERT. Each checkpoint holds the parts that its
//! task needs ([`AlbefTask`]); the names are those of the released ones. Training is in [`AlbefBatch`] and
//! [`Momentum`]; dropout, which the authors train with (0.1 in BERT), is left out.
//!
//! Legend: `B` pictures, `R` texts, `C` channels, `T` tokens, `N` patches and the class token, `D` width, `E` width of
//! the shared space, `V` vocabulary, `Q` vectors in a queue.

mod answers;
mod config;
mod losses;
mod momentum;
mod names;
mod reference;

pub use answers::RankedAnswer;
pub use config::{AlbefConfig, AlbefTask};
pub use losses::{
    AlbefBatch, AlbefLoss, AnswerBatch, AssignmentBatch, Assignments, Negatives, PairBatch,
    StatementBatch,
};
pub use momentum::{Features, Momentum};

use crate::capability::{
    EmbedImage, EmbedText, JudgeText, Pictures, ScorePair, Similarity, Tokens, rows,
};
use crate::decoders::{BertDecoder, MlmHead};
use crate::encoders::{Bert, BertMemory, BertPass, VisionTower, first_token};
use crate::error::{Error, expect};
use crate::objectives::l2_normalize;
use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};
use std::collections::BTreeMap;
use vlm_nn::ops::Activation;
use vlm_nn::weights::{Checkpoint, Init, Weights, collect};
use vlm_nn::{KeyMask, Linear};

/// This family's `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "albef";

/// Whether a checkpoint without a config is a released one.
pub fn recognised(checkpoint: &Checkpoint) -> bool {
    names::is_original(checkpoint)
}

/// Two layers with a ReLU between them, on the first token.
#[derive(Module, Debug)]
struct ClassHead {
    hidden: Linear,
    output: Linear,
}

impl ClassHead {
    fn new(w: &mut Weights, width: usize, classes: usize) -> Self {
        let linear = |w: &mut Weights, name: &str, outputs| {
            w.scope(name, |w| {
                Linear::new(w, width, outputs, true, Init::fan_in(width))
            })
        };
        Self {
            hidden: linear(w, "hidden", width),
            output: linear(w, "output", classes),
        }
    }

    /// `[R, D]` to `[R, classes]`.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.output
            .forward(self.hidden.fused(x, Activation::Relu, None))
    }
}

/// The model, as far as its task needs it.
#[derive(Module, Debug)]
pub struct Albef {
    vision: VisionTower,
    text: Bert,
    decoder: Option<BertDecoder>,
    mlm_head: Option<MlmHead>,
    vision_projection: Option<Linear>,
    text_projection: Option<Linear>,
    match_head: Option<Linear>,
    class_head: Option<ClassHead>,
    assignment_head: Option<Linear>,
    temperature: Option<Param<Tensor<1>>>,
    #[module(skip)]
    config: AlbefConfig,
}

/// Texts and the states that the text encoder made of them.
#[derive(Clone, Debug)]
pub struct TextStates {
    /// `[R, T, D]`.
    pub states: Tensor<3>,
    /// Which positions are no padding.
    pub keys: KeyMask,
}

impl TextStates {
    /// The given rows, in this order; a row may be given more than once.
    fn select(&self, rows: &[usize]) -> Self {
        Self {
            states: losses::selected(&self.states, rows),
            keys: self.keys.select(rows),
        }
    }
}

impl Albef {
    /// Builds the model of a validated config.
    pub fn new(w: &mut Weights, c: &AlbefConfig) -> Self {
        Self::parts(w, c, true, false)
    }

    /// `tied`: whether output layers over words are the table of word embeddings. A momentum model has no heads of the
    /// tasks that it does not teach.
    fn parts(w: &mut Weights, c: &AlbefConfig, tied: bool, momentum: bool) -> Self {
        let (task, e) = (c.task, c.embed_dim);
        let linear = |w: &mut Weights, name: &str, inputs: usize, outputs: usize| {
            w.scope(name, |w| {
                Linear::new(w, inputs, outputs, true, Init::fan_in(inputs))
            })
        };
        let (v, t) = (c.vision.hidden_size, c.text.hidden_size);
        let (shared, matches) = (task.has_shared_space(), task.matches_pairs() && !momentum);
        let classes = task.classes().map_or(0, <[_]>::len);
        let assigns = task == AlbefTask::TextAssignment;
        Self {
            vision: w.scope("vision", |w| VisionTower::new(w, &c.vision)),
            text: w.scope("text", |w| Bert::new(w, &c.text)),
            decoder: (task == AlbefTask::QuestionAnswering)
                .then(|| w.scope("decoder", |w| BertDecoder::new(w, &c.decoder(), tied))),
            mlm_head: (task == AlbefTask::Pretraining)
                .then(|| w.scope("mlm_head", |w| MlmHead::new(w, &c.text, tied))),
            vision_projection: shared.then(|| linear(w, "vision_projection", v, e)),
            text_projection: shared.then(|| linear(w, "text_projection", t, e)),
            match_head: matches.then(|| linear(w, "match_head", t, 2)),
            class_head: (classes > 0 && !assigns)
                .then(|| w.scope("class_head", |w| ClassHead::new(w, t, classes))),
            assignment_head: assigns.then(|| linear(w, "assignment_head", t, classes)),
            temperature: (shared && !momentum)
                .then(|| w.param("temperature", [1], Init::Constant(c.temp))),
            config: c.clone(),
        }
    }

    /// A model with its `config.json`, see [`AlbefConfig::parse`], and the released names.
    ///
    /// # Errors
    /// A config that is not understood, or weights that do not match it.
    pub fn load(config: &str, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let config = AlbefConfig::parse(config, Some(&checkpoint))?;
        Self::filled(&config, checkpoint, device)
    }

    /// A released checkpoint, without a config.
    ///
    /// # Errors
    /// Tensors that such a model does not have, or that it lacks.
    pub fn from_original(checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let config = AlbefConfig::of_original(&checkpoint)?;
        Self::filled(&config, checkpoint, device)
    }

    fn filled(c: &AlbefConfig, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let (checkpoint, tied) = names::translated(checkpoint, c)?;
        let mut weights = Weights::from_checkpoint(checkpoint, device);
        let model = Self::parts(&mut weights, c, tied, false);
        weights.finish()?;
        Ok(model)
    }

    /// A model of another task that starts from a pre-trained checkpoint, as the authors fine-tune: what the task has
    /// and the checkpoint lacks is drawn from `seed`, what only the checkpoint has is left out. An answer decoder starts
    /// as the layers with cross-attention; for two pictures these are doubled; positions are interpolated.
    ///
    /// `config` describes the new model; see [`AlbefConfig::for_task`].
    ///
    /// # Errors
    /// A checkpoint whose encoders do not fit the config.
    pub fn fine_tuned(
        config: &AlbefConfig,
        checkpoint: Checkpoint,
        seed: u64,
        device: &Device,
    ) -> Result<Self, Error> {
        config.validate()?;
        let task = AlbefTask::of_parts(&checkpoint)?;
        let checkpoint = names::fine_tuning(checkpoint, config, task);
        let (mut checkpoint, tied) = names::translated(checkpoint, config)?;
        let (width, classes) = (config.text.hidden_size, config.task.classes());
        let classes = classes.map_or(0, <[_]>::len);
        let mut random = Weights::random(seed, &Device::flex());
        let (name, head) = match config.task {
            AlbefTask::Nlvr | AlbefTask::Entailment => {
                let head = |w: &mut Weights| ClassHead::new(w, width, classes);
                ("class_head", collect(&random.scope("class_head", head)))
            }
            AlbefTask::TextAssignment => {
                let init = Init::fan_in(width);
                let head = |w: &mut Weights| Linear::new(w, width, classes, true, init);
                (
                    "assignment_head",
                    collect(&random.scope("assignment_head", head)),
                )
            }
            _ => ("", BTreeMap::new()),
        };
        for (part, (shape, values)) in head {
            let name = format!("{name}.{part}");
            if !checkpoint.contains(&name) {
                checkpoint.insert(&name, &shape, values);
            }
        }
        let mut weights = Weights::from_checkpoint(checkpoint, device);
        let model = Self::parts(&mut weights, config, tied, false);
        weights.finish()?;
        Ok(model)
    }

    /// A checkpoint with our names for its tensors: weights, or anything that there is one of per weight, such as
    /// gradients.
    ///
    /// # Errors
    /// Positions that cannot be brought to the config's resolution.
    pub fn translated(&self, checkpoint: Checkpoint) -> Result<Checkpoint, Error> {
        Ok(names::translated(checkpoint, &self.config)?.0)
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &AlbefConfig {
        &self.config
    }

    /// Where the model lies.
    pub fn device(&self) -> Device {
        self.vision.device()
    }

    /// The model with its temperature between 0.001 and 0.5, where the authors keep it before each step of
    /// pre-training; as it is for other tasks.
    #[must_use]
    pub fn with_clamped_temperature(mut self) -> Self {
        if self.config.task == AlbefTask::Pretraining {
            let clamp = |t: Param<Tensor<1>>| {
                t.map(|t| match t.is_autodiff() {
                    true => {
                        let tracked = t.is_require_grad();
                        let inner = t.inner().clamp(0.001, 0.5);
                        Tensor::from_inner(inner).set_require_grad(tracked)
                    }
                    false => t.clamp(0.001, 0.5),
                })
            };
            self.temperature = self.temperature.map(clamp);
        }
        self
    }

    fn part<'a, T>(&self, part: &'a Option<T>, task: &'static str) -> Result<&'a T, Error> {
        part.as_ref().ok_or(Error::Unsupported {
            family: match self.config.task {
                AlbefTask::Pretraining => "albef (pre-training)",
                AlbefTask::Retrieval => "albef (retrieval)",
                AlbefTask::QuestionAnswering => "albef (question answering)",
                AlbefTask::TextAssignment => "albef (text assignment)",
                AlbefTask::Nlvr => "albef (NLVR2)",
                AlbefTask::Entailment => "albef (visual entailment)",
            },
            task,
            able: match task {
                "answer questions" => "the checkpoint for question answering",
                "judge statements" => "the checkpoints for NLVR2 and visual entailment",
                "fill masks" => "the checkpoint of pre-training",
                "assign texts" => "the checkpoint of text assignment",
                _ => "the checkpoints of pre-training and for retrieval",
            },
        })
    }

    /// # Errors
    /// A checkpoint without a decoder of answers.
    pub fn can_answer(&self) -> Result<(), Error> {
        self.part(&self.decoder, "answer questions").map(|_| ())
    }

    /// # Errors
    /// A checkpoint without a matching head.
    pub fn can_judge_pairs(&self) -> Result<(), Error> {
        self.part(&self.match_head, "judge pairs").map(|_| ())
    }

    /// # Errors
    /// A checkpoint without a head for statements.
    pub fn can_judge_texts(&self) -> Result<(), Error> {
        self.part(&self.class_head, "judge statements").map(|_| ())
    }

    /// # Errors
    /// A checkpoint without a contrastive space, or that did not train it.
    pub fn can_embed(&self) -> Result<(), Error> {
        let trained = self.config.task.matches_pairs();
        let part = self.text_projection.as_ref().filter(|_| trained);
        self.part(&part, "use a shared space").map(|_| ())
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
    /// `[B, C, H, W]`; gives `[B, N, D]`.
    ///
    /// # Errors
    /// Another number of channels or size than the config's.
    pub fn picture_states(&self, pictures: &Pictures) -> Result<Tensor<3>, Error> {
        self.traced_picture_states(pictures, None)
    }

    /// [`Self::picture_states`]; `trace` takes the input of each block and the output of the last.
    fn traced_picture_states(
        &self,
        pictures: &Pictures,
        trace: Option<&mut Vec<Tensor<3>>>,
    ) -> Result<Tensor<3>, Error> {
        let (x, keys) = self.vision.embedded(pictures, false)?;
        let states = self.vision.encode(x, &keys, trace).last_hidden_state;
        Ok(states.expect("a transformer has states"))
    }

    /// What the text encoder makes of texts by themselves.
    ///
    /// # Shapes
    /// Gives `[R, T, D]`.
    ///
    /// # Errors
    /// Ids that the model does not know, or more tokens than it has positions.
    pub fn text_states(&self, texts: &Tokens) -> Result<TextStates, Error> {
        let keys = KeyMask::new(texts.mask());
        let x = self.text.embed(self.ids(texts)?, 0);
        let pass = BertPass {
            keys: keys.clone(),
            ..BertPass::default()
        };
        let states = self.text.forward(x, 0..self.config.fusion_layer(), pass);
        Ok(TextStates { states, keys })
    }

    /// What the fusion encoder reads of pictures: keys and values of each of its layers.
    ///
    /// # Shapes
    /// `pictures: [B, N, D]` each: one, or two for a model of two pictures.
    ///
    /// # Errors
    /// Another number of pictures per text than the model reads.
    pub fn memory(&self, pictures: &[Tensor<3>]) -> Result<BertMemory, Error> {
        let reads = 1 + usize::from(self.config.task.reads_two_pictures());
        expect(
            pictures.len() == reads,
            "pixel_values",
            format!("{reads} for each text"),
            pictures.len(),
        )?;
        let memories = pictures.iter().map(|p| (p.clone(), KeyMask::default()));
        Ok(self.text.memory(&memories.collect::<Vec<_>>()))
    }

    /// What the fusion encoder makes of texts beside pictures.
    ///
    /// # Shapes
    /// `memory` of `B` pictures, one for each text or one for all; gives `[R, T, D]`.
    ///
    /// # Errors
    /// Another number of pictures.
    pub fn fused_states(
        &self,
        texts: &TextStates,
        memory: &BertMemory,
    ) -> Result<Tensor<3>, Error> {
        let (b, r) = (memory.rows(), texts.states.dims()[0]);
        expect(
            b == 1 || b == r,
            "input_ids",
            format!("a text for each of {b} pictures"),
            r,
        )?;
        let pass = BertPass {
            keys: texts.keys.clone(),
            memory: Some(memory),
            ..BertPass::default()
        };
        let layers = self.config.fusion_layer()..self.config.text.num_hidden_layers;
        Ok(self.text.forward(texts.states.clone(), layers, pass))
    }

    /// Pictures in the shared space, before scaling to unit length they are the projected class token.
    ///
    /// # Shapes
    /// `pictures: [B, N, D]` from [`Self::picture_states`]; gives unit vectors `[B, E]`.
    ///
    /// # Errors
    /// A model without such a space.
    pub fn picture_vectors(&self, pictures: &Tensor<3>) -> Result<Tensor<2>, Error> {
        let projection = self.part(&self.vision_projection, "use a shared space")?;
        Ok(l2_normalize(projection.forward(first_token(pictures))))
    }

    /// Texts in the shared space.
    ///
    /// # Shapes
    /// Gives unit vectors `[R, E]`.
    ///
    /// # Errors
    /// A model without such a space.
    pub fn text_vectors(&self, texts: &TextStates) -> Result<Tensor<2>, Error> {
        let projection = self.part(&self.text_projection, "use a shared space")?;
        Ok(l2_normalize(projection.forward(first_token(&texts.states))))
    }

    /// The temperature of the contrastive loss.
    ///
    /// # Shapes
    /// `[1]`.
    ///
    /// # Errors
    /// A model without a shared space.
    pub fn temperature(&self) -> Result<Tensor<1>, Error> {
        let part = self.part(&self.temperature, "use a shared space")?;
        Ok(part.val())
    }

    /// Logits of "does not belong" and "belongs", the second class.
    ///
    /// # Shapes
    /// `fused: [R, T, D]` from [`Self::fused_states`]; gives `[R, 2]`.
    ///
    /// # Errors
    /// A model without a matching head.
    pub fn match_logits(&self, fused: &Tensor<3>) -> Result<Tensor<2>, Error> {
        let head = self.part(&self.match_head, "judge pairs")?;
        Ok(head.forward(first_token(fused)))
    }

    /// Logits of each token that a masked position may hold.
    ///
    /// # Shapes
    /// `fused: [R, T, D]` from [`Self::fused_states`]; gives `[R, T, V]`.
    ///
    /// # Errors
    /// A model without such a head.
    pub fn mlm_logits(&self, fused: Tensor<3>) -> Result<Tensor<3>, Error> {
        let head = self.part(&self.mlm_head, "fill masks")?;
        Ok(head.forward(fused, self.text.token()))
    }

    /// Logits of the classes of [`AlbefTask::classes`].
    ///
    /// # Shapes
    /// `fused: [R, T, D]` from [`Self::fused_states`]; gives `[R, classes]`.
    ///
    /// # Errors
    /// A model without classes.
    pub fn class_logits(&self, fused: &Tensor<3>) -> Result<Tensor<2>, Error> {
        if let Some(head) = &self.assignment_head {
            return Ok(head.forward(first_token(fused)));
        }
        let head = self.part(&self.class_head, "judge statements")?;
        Ok(head.forward(first_token(fused)))
    }

    /// Pictures as the fusion encoder reads them: the first of each pair come first, then the second ones.
    fn memory_of(&self, pictures: &Pictures) -> Result<BertMemory, Error> {
        let states = self.picture_states(pictures)?;
        if !self.config.task.reads_two_pictures() {
            return self.memory(&[states]);
        }
        let b = states.dims()[0];
        expect(
            b.is_multiple_of(2),
            "pixel_values",
            "two pictures for each text, the first ones first",
            b,
        )?;
        let half = |i: usize| states.clone().narrow(0, i * b / 2, b / 2);
        self.memory(&[half(0), half(1)])
    }
}

impl EmbedImage for Albef {
    fn embed_image(&self, pictures: &Pictures) -> Result<Tensor<2>, Error> {
        self.can_embed()?;
        self.picture_vectors(&self.picture_states(pictures)?)
    }
}

impl EmbedText for Albef {
    fn embed_text(&self, texts: &Tokens) -> Result<Tensor<2>, Error> {
        self.can_embed()?;
        self.text_vectors(&self.text_states(texts)?)
    }

    fn similarity(&self) -> Similarity {
        let temperature = self.temperature.as_ref().map_or(self.config.temp, |t| {
            let data = t.val().into_data().convert::<f32>();
            data.try_to_vec::<f32>().expect("one f32")[0]
        });
        Similarity::Softmax {
            scale: 1.0 / temperature,
        }
    }
}

impl ScorePair for Albef {
    fn score_pair(&self, pictures: &Pictures, texts: &Tokens) -> Result<Vec<f32>, Error> {
        self.can_judge_pairs()?;
        let fused = self.fused_states(&self.text_states(texts)?, &self.memory_of(pictures)?)?;
        let belongs = rows(softmax(self.match_logits(&fused)?, 1));
        Ok(belongs.into_iter().map(|row| row[1]).collect())
    }
}

impl JudgeText for Albef {
    fn pictures_per_text(&self) -> usize {
        1 + usize::from(self.config.task.reads_two_pictures())
    }

    fn classes(&self) -> &'static [&'static str] {
        self.config.task.classes().unwrap_or_default()
    }

    fn judge_text(&self, pictures: &Pictures, texts: &Tokens) -> Result<Vec<Vec<f32>>, Error> {
        self.can_judge_texts()?;
        let fused = self.fused_states(&self.text_states(texts)?, &self.memory_of(pictures)?)?;
        Ok(rows(softmax(self.class_logits(&fused)?, 1)))
    }
}
