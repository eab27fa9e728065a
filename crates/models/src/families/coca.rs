//! CoCa: contrastive captioner (Yu et al., "CoCa: Contrastive captioners are image-text foundation models",
//! 2022).
//!
//! ```text
//!   pixels -> ViT ----------------------+--> mean -> projection -> l2 --+
//!                                       |                               +-- ITC
//!   ids -> text tower (causal) --+--------> at <eos> -> projection -> l2 -+
//!                                |      |
//!                                +-> multimodal decoder (cross-attention) -> head -- LM
//! ```
//!
//! Differences from the paper: the patches are averaged instead of pooled by attention, the decoder reads all of
//! them, and the text vector is read at the end-of-text token instead of an appended class token. Where the data
//! says what each patch shows, a linear head on the patches learns it too (token labeling), which shortens the
//! time until captions are about the picture by a large factor. The decoder then reads either the patches
//! themselves or what that head makes of them: the probabilities of the classes as object tags with positions
//! (Koh et al., "Concept bottleneck models", 2020; tags as in Li et al., "Oscar", 2020), which keeps attributes apart
//! that training never shows together.
//!
//! Legend: `B` pictures, `Q` texts per picture, `T` tokens, `N` patches, `D` width, `E` shared space,
//! `V` vocabulary.

use crate::capability::{
    self, Attend, AttentionMaps, EmbedImage, EmbedText, Generate, Pictures, Similarity, Tokens,
};
use crate::decoders::MultimodalDecoder;
use crate::encoders::{TextConfig, TextTransformer, VisionConfig, Vit, last_tokens};
use crate::error::{Error, expect};
use crate::generate::Autoregressive;
use crate::objectives::{TokenLabels, itc, l2_normalize, lm, token_labeling};
use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use vlm_nn::weights::{Init, Weights};
use vlm_nn::{KvCache, LayerNorm, Linear, sin_cos_2d};

/// This family's `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "coca";

/// `config.json` of the family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CocaConfig {
    /// Always [`MODEL_TYPE`].
    pub model_type: String,
    /// The picture encoder.
    pub vision_config: VisionConfig,
    /// The text tower and the decoder.
    pub text_config: TextConfig,
    /// Width `E` of the space that pictures and texts share.
    pub projection_dim: usize,
    /// Logarithm of the initial inverse temperature of the contrastive loss.
    pub logit_scale_init_value: f32,
    /// Weight of the contrastive loss beside the captioning loss.
    pub contrastive_loss_weight: f32,
    /// Weight of the question-answering loss beside the captioning loss.
    pub answer_loss_weight: f32,
    /// Weight of the language modelling of the questions themselves beside the captioning loss.
    pub question_loss_weight: f32,
    /// Classes of each group of patch labels; none for a model without that head.
    pub token_label_classes: Vec<usize>,
    /// Weight of the token-labeling loss beside the captioning loss.
    pub token_label_loss_weight: f32,
    /// What the decoder reads of the picture.
    pub decoder_memory: DecoderMemory,
    /// Groups of patch labels that do not depend on colour. The decoder reads them averaged over the picture with its
    /// colours in every order ([`ORDERS_OF_COLOURS`]), so that a shape is recognised in a colour that it never had in
    /// training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub colour_invariant_groups: Vec<usize>,
    /// Whether answers may begin with their working ("two three no"), of which the last token is the answer (Wei et al.,
    /// "Chain-of-thought prompting", 2022).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub working_before_answers: bool,
    /// Object tags beyond the classes, which only training has ([`Batch::substitution`]).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub extra_tags: usize,
}

/// The orders that red, green and blue can stand in; the first is their own.
pub const ORDERS_OF_COLOURS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [1, 2, 0],
    [2, 0, 1],
    [0, 2, 1],
    [1, 0, 2],
    [2, 1, 0],
];

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// What the decoder reads of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecoderMemory {
    /// The encoder's patch vectors.
    Patches,
    /// The patches' classes, as probabilities, and their places.
    Tags,
}

impl CocaConfig {
    /// Reads and validates a `config.json`.
    ///
    /// # Errors
    /// A field that is unknown, missing, out of range or does not fit another.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let config: Self = serde_json::from_str(json)?;
        config.validate()?;
        Ok(config)
    }

    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        expect(
            self.model_type == MODEL_TYPE,
            "model_type",
            format!("{MODEL_TYPE:?}"),
            format!("{:?}", self.model_type),
        )?;
        self.vision_config.validate()?;
        self.text_config.validate()?;
        let dim = self.projection_dim;
        expect(
            (1..=16384).contains(&dim),
            "projection_dim",
            "1 to 16384",
            dim,
        )?;
        let classes = &self.token_label_classes;
        expect(
            classes.len() <= 64 && classes.iter().all(|c| (1..=4096).contains(c)),
            "token_label_classes",
            "at most 64 groups of 1 to 4096 classes",
            format!("{classes:?}"),
        )?;
        let tags = self.decoder_memory == DecoderMemory::Tags;
        expect(
            !(tags && classes.is_empty()),
            "token_label_classes",
            "classes, for the decoder reads tags",
            "none",
        )?;
        let invariant = &self.colour_invariant_groups;
        expect(
            invariant.is_empty() || tags && invariant.iter().all(|&group| group < classes.len()),
            "colour_invariant_groups",
            format!(
                "numbers below {}, and none unless the decoder reads tags",
                classes.len()
            ),
            format!("{invariant:?}"),
        )?;
        expect(
            invariant.is_empty() || self.vision_config.num_channels == 3,
            "colour_invariant_groups",
            "none unless pictures have 3 channels",
            format!("{} channels", self.vision_config.num_channels),
        )?;
        expect(
            self.extra_tags <= if tags { 4096 } else { 0 },
            "extra_tags",
            "at most 4096, and none unless the decoder reads tags",
            self.extra_tags,
        )?;
        expect(
            !tags || self.vision_config.hidden_size.is_multiple_of(4),
            "vision_config.hidden_size",
            "a multiple of 4, for the decoder reads tags",
            self.vision_config.hidden_size,
        )
    }
}

/// Texts about pictures, as token ids.
#[derive(Clone, Debug)]
pub struct TextBatch {
    /// `[B * Q, T]`, padded behind; the `Q` texts of a picture stand together.
    pub ids: Tensor<2, Int>,
    /// `[B * Q, T]`: the next token at each position, negative where none is to be learned.
    pub targets: Tensor<2, Int>,
    /// How many targets are not negative.
    pub target_count: usize,
    /// `[B * Q, T]`: the next token at positions of the prompt, negative elsewhere. Questions are learned too, with a
    /// weight of their own: people ask about what is there, so each question is one more text about the picture.
    pub prompt_targets: Tensor<2, Int>,
    /// How many of the prompt's targets are not negative.
    pub prompt_target_count: usize,
    /// `[B * Q, T, V]`: zero, or a large negative number for a word that never follows in training though it could.
    pub adjustment: Option<Tensor<3>>,
    /// Each row's tokens without padding.
    pub lengths: Vec<usize>,
}

/// One training step's input.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[B, C, H, W]`.
    pub pixel_values: Tensor<4>,
    /// Captions; the first of each picture also trains the shared space.
    pub captions: TextBatch,
    /// What each patch shows, in the config's groups of classes.
    pub token_labels: Option<TokenLabels>,
    /// Questions with their answers: any number of batches about the same pictures, so that texts of like
    /// length can be padded together.
    pub questions: Vec<TextBatch>,
    /// `[B, C, C + extra]`: what the questions call the object tags of each picture; none for their own names.
    pub substitution: Option<Tensor<3>>,
}

/// The parts of the loss, `[1]` each.
#[derive(Clone, Debug)]
pub struct Losses {
    /// The weighted sum.
    pub total: Tensor<1>,
    /// Language modelling of captions.
    pub caption: Tensor<1>,
    /// Language modelling of answers.
    pub answer: Option<Tensor<1>>,
    /// Language modelling of questions.
    pub question: Option<Tensor<1>>,
    /// Image-text contrast.
    pub itc: Tensor<1>,
    /// Patch labels.
    pub token_label: Option<Tensor<1>>,
}

/// The model.
#[derive(Module, Debug)]
pub struct Coca {
    vision: Vit,
    text: TextTransformer,
    decoder: MultimodalDecoder,
    vision_projection: Linear,
    text_norm: LayerNorm,
    text_projection: Linear,
    logit_scale: Param<Tensor<1>>,
    token_head: Option<Linear>,
    tag_embedding: Option<Linear>,
    #[module(skip)]
    config: CocaConfig,
}

impl Coca {
    /// Builds the model of a validated config.
    pub fn new(w: &mut Weights, c: &CocaConfig) -> Self {
        let (vision, text, dim) = (&c.vision_config, &c.text_config, c.projection_dim);
        let classes = c.token_label_classes.iter().sum();
        let projection =
            |w: &mut Weights, width: usize| Linear::new(w, width, dim, false, Init::fan_in(width));
        Self {
            vision: w.scope("vision", |w| Vit::new(w, vision)),
            text: w.scope("text", |w| TextTransformer::new(w, text)),
            decoder: w.scope("decoder", |w| {
                MultimodalDecoder::new(w, text, vision.hidden_size)
            }),
            vision_projection: w.scope("vision_projection", |w| projection(w, vision.hidden_size)),
            text_norm: w.scope("text_norm", |w| {
                LayerNorm::new(w, text.hidden_size, text.layer_norm_eps)
            }),
            text_projection: w.scope("text_projection", |w| projection(w, text.hidden_size)),
            logit_scale: w.param("logit_scale", [1], Init::Constant(c.logit_scale_init_value)),
            token_head: (classes > 0).then(|| {
                w.scope("token_head", |w| {
                    Linear::new(w, vision.hidden_size, classes, true, Init::NORMAL)
                })
            }),
            // a patch has one class of each group, so its tags together are about as large as its place
            tag_embedding: (c.decoder_memory == DecoderMemory::Tags).then(|| {
                w.scope("tag_embedding", |w| {
                    let tags = classes + c.extra_tags;
                    Linear::new(w, tags, vision.hidden_size, false, Init::Normal(0.4))
                })
            }),
            config: c.clone(),
        }
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &CocaConfig {
        &self.config
    }

    /// # Shapes
    /// `patches: [B, N, D]`; gives unit vectors `[B, E]`.
    fn image_vector(&self, patches: Tensor<3>) -> Tensor<2> {
        let [b, _, d] = patches.dims();
        let mean = patches.mean_dim(1).reshape([b, d]);
        l2_normalize(self.vision_projection.forward(mean))
    }

    /// # Shapes
    /// `hidden: [R, T, D]` from the text tower; gives unit vectors `[rows, E]` of the given rows.
    fn text_vector(&self, hidden: Tensor<3>, lengths: &[usize], rows: &[usize]) -> Tensor<2> {
        let last = last_tokens(hidden, lengths, rows.iter().copied()); // [rows, D]
        l2_normalize(self.text_projection.forward(self.text_norm.forward(last)))
    }

    /// Logits of what each patch shows; none without that head.
    ///
    /// # Shapes
    /// `patches: [B, N, D]`; gives `[B, N, C]`, the groups of classes side by side.
    fn token_logits(&self, patches: &Tensor<3>) -> Option<Tensor<3>> {
        let head = self.token_head.as_ref()?;
        Some(head.forward(patches.clone()))
    }

    /// What the decoder reads in training, when a picture is seen in one order of its colours.
    ///
    /// # Shapes
    /// `patches: [B, N, D]`, `logits: [B, N, C]`; gives `[B, N, D]`.
    fn memory(
        &self,
        patches: &Tensor<3>,
        logits: Option<Tensor<3>>,
        substitution: Option<Tensor<3>>,
    ) -> Tensor<3> {
        match (&self.tag_embedding, logits) {
            (Some(embedding), Some(logits)) => {
                let tags = Tensor::cat(self.probabilities(logits), 2); // [B, N, C]
                self.read_tags(embedding, tags, substitution)
            }
            _ => patches.clone(),
        }
    }

    /// A softmax over each group of classes.
    ///
    /// # Shapes
    /// `[B, N, C]`; gives `[B, N, classes of the group]` for each group.
    fn probabilities(&self, logits: Tensor<3>) -> Vec<Tensor<3>> {
        let mut first = 0;
        let groups = self.config.token_label_classes.iter().map(|&count| {
            let group = logits.clone().narrow(2, first, count);
            first += count;
            softmax(group, 2)
        });
        groups.collect()
    }

    /// # Shapes
    /// `tags: [B, N, C]`; gives `[B, N, D]`.
    fn read_tags(
        &self,
        embedding: &Linear,
        mut tags: Tensor<3>,
        substitution: Option<Tensor<3>>,
    ) -> Tensor<3> {
        let [b, n, _] = tags.dims();
        if let Some(substitution) = substitution {
            tags = tags.matmul(substitution); // [B, N, C + extra]
        } else if self.config.extra_tags > 0 {
            let none = Tensor::zeros([b, n, self.config.extra_tags], &tags.device());
            tags = Tensor::cat(vec![tags, none], 2);
        }
        let tags = embedding.forward(tags); // [B, N, D]
        let [_, n, d] = tags.dims();
        let side = n.isqrt();
        let places = sin_cos_2d(side, n / side, d, &tags.device());
        tags + places.unsqueeze()
    }

    /// The loss of a batch.
    pub fn loss(&self, batch: Batch) -> Losses {
        let b = batch.pixel_values.dims()[0];
        let patches = self.vision.forward(batch.pixel_values); // [B, N, D]
        let token_logits = self.token_logits(&patches);
        let read = |substitution| {
            let memory = self.memory(&patches, token_logits.clone(), substitution);
            self.decoder.keys_values(&memory)
        };
        let memory = read(None);
        let asked = batch.substitution.map(|names| read(Some(names)));
        let asked = asked.as_ref().unwrap_or(&memory);

        let captions = batch.captions;
        let hidden = self.text.forward(captions.ids, None); // [B * Q, T, D]
        let per_picture = captions.lengths.len() / b;
        let first: Vec<usize> = (0..b).map(|i| i * per_picture).collect();
        let text_vector = self.text_vector(hidden.clone(), &captions.lengths, &first);
        let token_label = token_logits
            .zip(batch.token_labels)
            .map(|(logits, labels)| {
                token_labeling(logits, labels, &self.config.token_label_classes)
            });
        let contrast = itc(
            self.image_vector(patches.clone()),
            text_vector,
            self.logit_scale.val(),
        );
        let logits = self.decoder.forward(hidden, &memory, None); // [B * Q, T, V]
        let logits = adjusted(logits, captions.adjustment);
        let caption = lm(logits, captions.targets, captions.target_count);
        let mut total = caption.clone() + contrast.clone() * self.config.contrastive_loss_weight;

        let sum = |of: fn(&TextBatch) -> usize| batch.questions.iter().map(of).sum();
        let answers: usize = sum(|q| q.target_count);
        let prompts: usize = sum(|q| q.prompt_target_count);
        let (answer, question) = batch
            .questions
            .into_iter()
            .map(|q| {
                let logits = adjusted(self.logits(q.ids, asked), q.adjustment); // [B * Q, T, V]
                let answer = lm(logits.clone(), q.targets, answers);
                (answer, lm(logits, q.prompt_targets, prompts))
            })
            .reduce(|a, b| (a.0 + b.0, a.1 + b.1))
            .unzip();
        if let Some(question) = &question {
            let question: Tensor<1> = question.clone();
            total = total + question * self.config.question_loss_weight;
        }
        if let Some(answer) = &answer {
            total = total + answer.clone() * self.config.answer_loss_weight;
        }
        if let Some(token_label) = &token_label {
            total = total + token_label.clone() * self.config.token_label_loss_weight;
        }
        Losses {
            total,
            caption,
            answer,
            question,
            itc: contrast,
            token_label,
        }
    }

    fn logits(&self, ids: Tensor<2, Int>, memory: &[Tensor<3>]) -> Tensor<3> {
        self.decoder
            .forward(self.text.forward(ids, None), memory, None)
    }

    /// Logits of whole texts, without a cache.
    ///
    /// # Shapes
    /// `pixel_values: [B, C, H, W]`, `ids: [B * Q, T]`; gives `[B * Q, T, V]`.
    pub fn forward(&self, pixel_values: Tensor<4>, ids: Tensor<2, Int>) -> Tensor<3> {
        let memory = self.read(pixel_values);
        self.logits(ids, &self.decoder.keys_values(&memory))
    }

    /// What the decoder reads of pictures `[B, C, H, W]`: `[B, N, D]`.
    fn read(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let invariant = &self.config.colour_invariant_groups;
        let patches = self.vision.forward(pixel_values.clone());
        let logits = self.token_logits(&patches);
        let (Some(embedding), Some(logits), false) =
            (&self.tag_embedding, &logits, invariant.is_empty())
        else {
            return self.memory(&patches, logits, None);
        };
        let mut tags = self.probabilities(logits.clone());
        for order in &ORDERS_OF_COLOURS[1..] {
            let channels = order.map(|c| pixel_values.clone().narrow(1, c, 1));
            let view = self.vision.forward(Tensor::cat(channels.to_vec(), 1));
            let view = self.token_logits(&view).map(|l| self.probabilities(l));
            let view = view.expect("a model with tags has their head");
            for &group in invariant {
                tags[group] = tags[group].clone() + view[group].clone();
            }
        }
        for &group in invariant {
            tags[group] = tags[group].clone() / ORDERS_OF_COLOURS.len() as f32;
        }
        self.read_tags(embedding, Tensor::cat(tags, 2), None)
    }
}

fn adjusted(logits: Tensor<3>, adjustment: Option<Tensor<3>>) -> Tensor<3> {
    match adjustment {
        Some(adjustment) => logits + adjustment,
        None => logits,
    }
}

impl EmbedImage for Coca {
    fn embed_image(&self, pictures: &Pictures) -> Result<Tensor<2>, Error> {
        let pixels = pictures.fixed(self.config.vision_config.num_channels)?;
        Ok(self.image_vector(self.vision.forward(pixels)))
    }
}

impl EmbedText for Coca {
    fn embed_text(&self, texts: &Tokens) -> Result<Tensor<2>, Error> {
        let (text, device) = (&self.config.text_config, self.logit_scale.val().device());
        let ids = texts.to_device(text.vocab_size, text.max_position_embeddings, &device)?;
        let lengths = texts.lengths();
        let rows: Vec<usize> = (0..lengths.len()).collect();
        Ok(self.text_vector(self.text.forward(ids, None), &lengths, &rows))
    }

    fn similarity(&self) -> Similarity {
        Similarity::softmax(&self.logit_scale)
    }
}

impl Generate for Coca {
    fn encode(&self, pictures: &Pictures) -> Result<Tensor<3>, Error> {
        Ok(self.read(pictures.fixed(self.config.vision_config.num_channels)?))
    }

    fn decode(&self, memory: Tensor<3>) -> Box<dyn Autoregressive + '_> {
        Box::new(Decoding {
            memory: self.decoder.keys_values(&memory),
            text: self.text.caches(),
            decoder: self.decoder.caches(),
            model: self,
        })
    }
}

impl Attend for Coca {
    /// The mean over the heads of all blocks that attend to the picture.
    fn attend(&self, memory: Tensor<3>, texts: &Tokens) -> Result<AttentionMaps, Error> {
        let text = &self.config.text_config;
        let device = memory.device();
        let ids = texts.to_device(text.vocab_size, text.max_position_embeddings, &device)?;
        let side = memory.dims()[1].isqrt();
        let hidden = self.text.forward(ids, None);
        let weights = self
            .decoder
            .cross_weights(hidden, &self.decoder.keys_values(&memory));
        Ok(AttentionMaps {
            weights,
            grid: [side; 2],
        })
    }
}

/// Texts in the making.
struct Decoding<'a> {
    model: &'a Coca,
    memory: Vec<Tensor<3>>,
    text: Vec<KvCache>,
    decoder: Vec<KvCache>,
}

impl Autoregressive for Decoding<'_> {
    fn vocab_size(&self) -> usize {
        self.model.config.text_config.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.model.config.text_config.max_position_embeddings
    }

    fn positions(&self) -> usize {
        self.text.first().map_or(0, KvCache::len)
    }

    fn feed(&mut self, tokens: &[Vec<u32>]) -> Vec<Vec<f32>> {
        let (rows, t) = (tokens.len(), tokens.first().map_or(0, Vec::len));
        let ids: Vec<i64> = tokens.iter().flatten().map(|&id| i64::from(id)).collect();
        assert_eq!(ids.len(), rows * t, "rows of tokens differ in length");
        let device = self.memory[0].device();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, t]), &device);
        let hidden = self.model.text.forward(ids, Some(&mut self.text));
        let logits = self
            .model
            .decoder
            .forward(hidden, &self.memory, Some(&mut self.decoder)); // [R, T, V]
        capability::rows(logits.narrow(1, t - 1, 1))
    }

    fn select(&mut self, rows: &[usize]) {
        let device = self.memory[0].device();
        let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &device);
        for cache in self.text.iter_mut().chain(&mut self.decoder) {
            cache.select(&index);
        }
        // one picture is shared by all rows as it is
        if self.memory[0].dims()[0] > 1 {
            for kv in &mut self.memory {
                *kv = kv.clone().select(0, index.clone());
            }
        }
    }
}
