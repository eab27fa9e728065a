//! The tree's parts, freely joined: any encoder of pictures, any encoder of texts, any fusion, one set of losses. This is
//! how generations and fusions are compared on the same data, and with hand-crafted features, a bag of words and an early
//! or late fusion it is the baseline that they all have to beat.
//!
//! ```text
//!   pixels -> hand-crafted | CNN | ViT ----> places [B, N, D] --+--> mean -> l2 --+-- ITC
//!   ids -> bag of words | RNN | transformer -> states [R, T, D] -|--> mean -> l2 --+
//!                                                                +-> fusion -> scores: belongs (ITM), answers (VQA)
//!   places -> soft attention <- LSTM <- ids ---------------------------------------------- LM
//! ```
//!
//! Legend: `B` pictures, `R` texts, `N` places, `T` tokens, `D` width, `V` vocabulary, `A` answers.

mod config;

pub use config::{TextPart, TreeConfig, VisionPart};

use super::nic::RnnType;
use crate::capability::{
    self, Attend, AttentionMaps, ClassifyAnswer, EmbedImage, EmbedText, Generate, Pictures,
    ScorePair, Similarity, Tokens,
};
use crate::decoders::{AttentionDecoder, RecurrentConfig};
use crate::encoders::{Cnn, TextTransformer, Vit};
use crate::error::{Error, below, expect};
use crate::fusion::{Fuse, Fusion, TextStates, mean_place};
use crate::generate::Autoregressive;
use crate::objectives::{itc, l2_normalize, lm, scale_at_most};
use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use vlm_nn::weights::{Checkpoint, Init, Weights};
use vlm_nn::{Embedding, LayerNorm, Linear, Rnn, RnnKind, Statistics, ops};

/// This family's `model_type` in `config.json`.
pub const MODEL_TYPE: &str = "tree";

/// Colour channels.
const CHANNELS: usize = 3;

/// Pictures to places.
#[derive(Module, Debug)]
struct VisionSide {
    cnn: Option<Cnn>,
    vit: Option<Vit>,
    projection: Linear,
    norm: LayerNorm,
}

/// Ids to states.
#[derive(Module, Debug)]
enum TextSide {
    BagOfWords(Bag),
    Rnn(RecurrentText),
    Transformer(TextTransformer),
}

/// Counts of words, times a weight of each, at unit length, times a vector of each.
#[derive(Module, Debug)]
struct Bag {
    idf: Param<Tensor<1>>,
    words: Linear,
}

#[derive(Module, Debug)]
struct RecurrentText {
    embed: Embedding,
    rnn: Rnn,
}

/// The model.
#[derive(Module, Debug)]
pub struct Tree {
    vision: VisionSide,
    text: TextSide,
    text_norm: LayerNorm,
    fusion: Fusion,
    picture_projection: Option<Linear>,
    text_projection: Option<Linear>,
    logit_scale: Option<Param<Tensor<1>>>,
    captioner: Option<AttentionDecoder>,
    #[module(skip)]
    config: TreeConfig,
    #[module(skip)]
    statistics: Statistics,
}

/// One training step's input.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `B` pictures.
    pub pictures: Pictures,
    /// A caption of each picture, begun and ended; none for a model without contrast.
    pub captions: Option<Tokens>,
    /// Questions.
    pub questions: Option<Questions>,
}

/// Questions with their answers.
#[derive(Clone, Debug)]
pub struct Questions {
    /// `Q` questions.
    pub texts: Tokens,
    /// The picture of each.
    pub pictures: Vec<usize>,
    /// The answer of each, in `0..A`.
    pub answers: Vec<i64>,
}

/// The parts of the loss, `[1]` each.
#[derive(Clone, Debug)]
pub struct Losses {
    /// Their sum.
    pub total: Tensor<1>,
    /// Image-text contrast.
    pub itc: Option<Tensor<1>>,
    /// Image-text matching.
    pub itm: Option<Tensor<1>>,
    /// Language modelling of captions.
    pub caption: Option<Tensor<1>>,
    /// Answers.
    pub answer: Option<Tensor<1>>,
}

fn targets(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

fn rows(index: &[usize], device: &Device) -> Tensor<1, Int> {
    let index: Vec<i64> = index.iter().map(|&i| i as i64).collect();
    let count = index.len();
    Tensor::from_data(TensorData::new(index, [count]), device)
}

impl Tree {
    /// Builds the model of a validated config.
    pub fn new(w: &mut Weights, c: &TreeConfig) -> Self {
        let d = c.hidden_size;
        let linear = |w: &mut Weights, name: &str, inputs: usize, bias: bool| {
            w.scope(name, |w| {
                Linear::new(w, inputs, d, bias, Init::fan_in(inputs))
            })
        };
        let norm = |w: &mut Weights, name: &str| w.scope(name, |w| LayerNorm::new(w, d, 1e-6));
        let vision = w.scope("vision", |w| {
            let (mut cnn, mut vit) = (None, None);
            let features = match &c.vision {
                VisionPart::Handcrafted(c) => c.features(),
                VisionPart::Cnn { sizes, .. } => {
                    cnn = Some(w.scope("cnn", |w| Cnn::new(w, sizes)));
                    sizes.features()
                }
                VisionPart::Vit(c) => {
                    vit = Some(w.scope("vit", |w| Vit::new(w, c)));
                    c.hidden_size
                }
            };
            VisionSide {
                cnn,
                vit,
                projection: linear(w, "projection", features, true),
                norm: norm(w, "norm"),
            }
        });
        let text = w.scope("text", |w| match c.text {
            TextPart::BagOfWords => TextSide::BagOfWords(w.scope("BagOfWords", |w| Bag {
                idf: w.param("idf", [c.vocab_size], Init::Ones),
                words: w.scope("words", |w| {
                    Linear::new(w, c.vocab_size, d, false, Init::fan_in(d))
                }),
            })),
            TextPart::Rnn(kind) => TextSide::Rnn(w.scope("Rnn", |w| RecurrentText {
                embed: w.scope("embed", |w| {
                    Embedding::new(w, c.vocab_size, d, Init::fan_in(d))
                }),
                rnn: w.scope("rnn", |w| Rnn::new(w, rnn_kind(kind), d, d, c.num_layers)),
            })),
            TextPart::Transformer => TextSide::Transformer(
                w.scope("Transformer", |w| TextTransformer::new(w, &c.transformer())),
            ),
        });
        let decoder = RecurrentConfig {
            kind: RnnKind::Lstm,
            vocab_size: c.vocab_size,
            embed_size: d,
            hidden_size: d,
            num_layers: 1,
            max_length: c.max_length,
        };
        Self {
            vision,
            text,
            text_norm: norm(w, "text_norm"),
            fusion: w.scope("fusion", |w| Fusion::new(w, &c.fusion())),
            picture_projection: c
                .contrast
                .then(|| linear(w, "picture_projection", d, false)),
            text_projection: c.contrast.then(|| linear(w, "text_projection", d, false)),
            logit_scale: c
                .contrast
                .then(|| w.param("logit_scale", [1], Init::Constant(2.6593))),
            captioner: c
                .captions
                .then(|| w.scope("captioner", |w| AttentionDecoder::new(w, &decoder, d, d))),
            config: c.clone(),
            statistics: Statistics::Running,
        }
    }

    /// A model with its `config.json` and our names.
    ///
    /// # Errors
    /// A config that is not understood, or weights that do not match it.
    pub fn load(config: &str, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let config = TreeConfig::parse(config)?;
        super::filled(checkpoint, device, |w| Self::new(w, &config))
    }

    /// The model whose batch norms divide by other statistics: those of the batch to train them.
    #[must_use]
    pub fn with_statistics(mut self, statistics: Statistics) -> Self {
        self.statistics = statistics;
        self
    }

    /// The model whose bag of words begins with known weights of the words, such as inverse document frequencies; any
    /// other text encoder stays as it is.
    ///
    /// # Errors
    /// Weights of another number than there are tokens.
    pub fn with_idf(mut self, idf: &[f32]) -> Result<Self, Error> {
        let v = self.config.vocab_size;
        expect(idf.len() == v, "idf", format!("{v} weights"), idf.len())?;
        let device = self.device();
        if let TextSide::BagOfWords(bag) = &mut self.text {
            let values = TensorData::new(idf.to_vec(), [v]);
            bag.idf = Param::from_tensor(Tensor::from_data(values, &device));
        }
        Ok(self)
    }

    /// The same model in training, with a logarithm of the inverse temperature of at most `most`.
    #[must_use]
    pub fn with_scale_at_most(mut self, most: f32) -> Self {
        self.logit_scale = self.logit_scale.map(|scale| scale_at_most(scale, most));
        self
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &TreeConfig {
        &self.config
    }

    /// Where the model lies.
    pub fn device(&self) -> Device {
        let devices = self.devices();
        devices.into_iter().next().expect("a model has parameters")
    }

    /// What the parts behind read of pictures.
    ///
    /// # Shapes
    /// Gives `[B, N, D]`.
    ///
    /// # Errors
    /// Pictures of another form or size.
    pub fn places(&self, pictures: &Pictures) -> Result<Tensor<3>, Error> {
        let pixels = pictures.fixed(CHANNELS)?;
        let ([_, _, h, w], side) = (pixels.dims(), self.config.image_size());
        expect(
            [h, w] == [side; 2],
            "pixel_values",
            format!("{side} x {side} pixels"),
            format!("{h} x {w}"),
        )?;
        let places = match (&self.config.vision, &self.vision.cnn, &self.vision.vit) {
            (VisionPart::Handcrafted(c), ..) => c.describe(&pixels)?,
            (_, Some(cnn), _) => {
                let map = cnn.features(pixels, self.statistics)?;
                let [b, d, h, w] = map.dims();
                map.reshape([b, d, h * w]).swap_dims(1, 2)
            }
            (_, _, Some(vit)) => vit.forward(pixels),
            _ => unreachable!("built as one of the three"),
        };
        let vision = &self.vision;
        Ok(vision.norm.forward(vision.projection.forward(places)))
    }

    /// A text's states; padding keeps a place but is not read.
    ///
    /// # Errors
    /// Ids that the model does not know, more tokens than it has positions, or a text without tokens.
    pub fn text_states(&self, texts: &Tokens) -> Result<TextStates, Error> {
        let (device, c) = (self.device(), &self.config);
        let ids = texts.to_device(c.vocab_size, c.max_length, &device)?;
        let empty = texts.mask().iter().position(|row| !row.contains(&true));
        let expected = "a token in each text";
        expect(empty.is_none(), "input_ids", expected, "a text without")?;
        let (states, mask) = match &self.text {
            TextSide::BagOfWords(bag) => {
                let (r, v) = (texts.rows().len(), c.vocab_size);
                let mut counts = vec![0f32; r * v];
                let rows = texts.rows().iter().zip(texts.mask()).enumerate();
                for (row, (ids, seen)) in rows {
                    for (&id, _) in ids.iter().zip(seen).filter(|(_, seen)| **seen) {
                        counts[row * v + id as usize] += 1.0;
                    }
                }
                let counts = Tensor::<2>::from_data(TensorData::new(counts, [r, v]), &device);
                let weighted = l2_normalize(counts * bag.idf.val().unsqueeze());
                let states = bag.words.forward(weighted).unsqueeze_dim(1); // [R, 1, D]
                (states, vec![vec![true]; r])
            }
            TextSide::Rnn(text) => {
                let states = text.rnn.forward(text.embed.forward(ids), None).0;
                (states, texts.mask().to_vec())
            }
            TextSide::Transformer(text) => (text.forward(ids, None), texts.mask().to_vec()),
        };
        Ok(TextStates {
            states: self.text_norm.forward(states),
            mask,
        })
    }

    /// Scores of pairs: those of the answers, then whether they do not, and do, belong together.
    ///
    /// # Shapes
    /// `places: [R, N, D]`; gives `[R, A + 2]`, or `[R, A]` without contrast.
    fn scores(&self, places: Tensor<3>, text: &TextStates) -> Tensor<2> {
        self.fusion.fuse(places, text)
    }

    /// Logits of the answers to questions about pictures in the same rows.
    ///
    /// # Shapes
    /// `places: [R, N, D]` from [`Self::places`]; gives `[R, A]`.
    ///
    /// # Errors
    /// A model that answers no questions, or texts that do not fit it.
    pub fn answer_logits(&self, places: Tensor<3>, questions: &Tokens) -> Result<Tensor<2>, Error> {
        let answers = self.config.num_answers;
        expect(answers > 0, "num_answers", "at least 1 to answer", answers)?;
        let (b, r) = (places.dims()[0], questions.rows().len());
        expect(
            b == r,
            "input_ids",
            format!("a question for each of {b} pictures"),
            r,
        )?;
        let scores = self.scores(places, &self.text_states(questions)?);
        Ok(scores.narrow(1, 0, answers))
    }

    /// # Shapes
    /// `places: [R, N, D]`; gives `[R, 2]`.
    fn match_logits(&self, places: Tensor<3>, text: &TextStates) -> Tensor<2> {
        let scores = self.scores(places, text);
        scores.narrow(1, self.config.num_answers, 2)
    }

    fn part<'a, T>(&self, part: &'a Option<T>) -> Result<&'a T, Error> {
        part.as_ref().ok_or(Error::Unsupported {
            family: "tree without contrast",
            task: "compare texts with pictures",
            able: "tree with contrast",
        })
    }

    /// # Errors
    /// A model that has learned from questions alone.
    pub fn can_compare(&self) -> Result<(), Error> {
        self.part(&self.logit_scale).map(drop)
    }

    fn picture_vectors(&self, places: &Tensor<3>) -> Result<Tensor<2>, Error> {
        let projection = self.part(&self.picture_projection)?;
        Ok(l2_normalize(projection.forward(mean_place(places))))
    }

    fn text_vectors(&self, text: &TextStates) -> Result<Tensor<2>, Error> {
        let projection = self.part(&self.text_projection)?;
        Ok(l2_normalize(projection.forward(text.mean())))
    }

    /// The losses of contrast and of matching, for which each caption is also put to the picture after its own.
    fn pair_losses(&self, places: &Tensor<3>, captions: &Tokens) -> Result<[Tensor<1>; 2], Error> {
        let (b, r) = (places.dims()[0], captions.rows().len());
        expect(
            b == r,
            "captions",
            format!("one for each of {b} pictures"),
            r,
        )?;
        let (device, text) = (self.device(), self.text_states(captions)?);
        let contrast = itc(
            self.picture_vectors(places)?,
            self.text_vectors(&text)?,
            self.part(&self.logit_scale)?.val(),
        );
        let own = ops::cross_entropy(
            self.match_logits(places.clone(), &text),
            targets(vec![1; b], &device),
            0.0,
        );
        let next: Vec<usize> = (0..b).map(|i| (i + 1) % b).collect();
        let other = places.clone().select(0, rows(&next, &device));
        // a single picture has no other
        let other = ops::cross_entropy(
            self.match_logits(other, &text),
            targets(vec![if b > 1 { 0 } else { -1 }; b], &device),
            0.0,
        );
        let matching = (own.sum() + other.sum()) / (if b > 1 { 2 * b } else { b }) as f32;
        Ok([contrast, matching])
    }

    /// The loss of a batch.
    ///
    /// # Errors
    /// Pictures, ids, answers or numbers of them that do not fit, or captions that the model wants and does not get.
    pub fn loss(&self, batch: &Batch) -> Result<Losses, Error> {
        let places = self.places(&batch.pictures)?;
        let b = places.dims()[0];
        let device = self.device();
        let captions = match (&batch.captions, self.config.contrast) {
            (captions, true) => {
                expect(captions.is_some(), "captions", "some", "none")?;
                captions.as_ref()
            }
            (_, false) => None,
        };
        let pairs = captions.map(|captions| self.pair_losses(&places, captions));
        let [contrast, matching] = pairs.transpose()?.map_or([None, None], |p| p.map(Some));

        let caption = self.captioner.as_ref().zip(captions);
        let caption = caption.map(|(captioner, captions)| {
            let t = captions.rows()[0].len();
            let c = &self.config;
            let ids = captions.to_device(c.vocab_size, c.max_length, &device)?;
            let read = ids.narrow(1, 0, t.max(2) - 1);
            let (states, _) = captioner.states(places.clone(), read);
            let logits = captioner.head(states); // [B, T - 1, V]
            let pairs = captions.rows().iter().zip(captions.mask());
            let next = pairs.flat_map(|(ids, seen)| {
                let both = ids.iter().zip(seen).skip(1);
                both.map(|(&id, &seen)| if seen { i64::from(id) } else { -1 })
            });
            let next: Vec<i64> = next.collect();
            let count = next.iter().filter(|&&id| id >= 0).count();
            Ok::<_, Error>(lm(
                logits,
                targets(next, &device).reshape([b, t - 1]),
                count,
            ))
        });
        let caption = caption.transpose()?;
        let answer = batch.questions.as_ref().map(|questions| {
            let index = &questions.pictures;
            let q = questions.texts.rows().len();
            let counts = [index.len(), questions.answers.len()];
            expect(
                counts == [q; 2],
                "questions",
                format!("{q} of each"),
                format!("{counts:?}"),
            )?;
            below("questions: pictures", index, b)?;
            below(
                "answers",
                &questions.answers,
                self.config.num_answers as i64,
            )?;
            let places = places.clone().select(0, rows(index, &device));
            let logits = self.answer_logits(places, &questions.texts)?;
            Ok::<_, Error>(
                ops::cross_entropy(logits, targets(questions.answers.clone(), &device), 0.0).mean(),
            )
        });
        let answer = answer.transpose()?;
        let parts = [&contrast, &matching, &caption, &answer];
        let parts = parts.into_iter().flatten().cloned();
        let total = parts.reduce(|a, b| a + b);
        Ok(Losses {
            total: total.unwrap_or_else(|| Tensor::zeros([1], &device)),
            itc: contrast,
            itm: matching,
            caption,
            answer,
        })
    }

    fn captioner(&self) -> Result<&AttentionDecoder, Error> {
        self.captioner.as_ref().ok_or(Error::Unsupported {
            family: "tree without captions",
            task: "write captions",
            able: "tree with captions",
        })
    }

    /// # Errors
    /// A model that knows no answers by their words.
    pub fn can_answer(&self) -> Result<(), Error> {
        if self.config.answers.is_empty() {
            return Err(Error::Unsupported {
                family: "tree without answers",
                task: "answer questions",
                able: "tree with answers",
            });
        }
        Ok(())
    }

    /// # Errors
    /// A model without a decoder.
    pub fn can_caption(&self) -> Result<(), Error> {
        self.captioner().map(|_| ())
    }
}

fn rnn_kind(kind: RnnType) -> RnnKind {
    match kind {
        RnnType::Lstm => RnnKind::Lstm,
        RnnType::Gru => RnnKind::Gru,
    }
}

impl EmbedImage for Tree {
    fn embed_image(&self, pictures: &Pictures) -> Result<Tensor<2>, Error> {
        self.picture_vectors(&self.places(pictures)?)
    }
}

impl EmbedText for Tree {
    fn embed_text(&self, texts: &Tokens) -> Result<Tensor<2>, Error> {
        self.text_vectors(&self.text_states(texts)?)
    }

    fn similarity(&self) -> Similarity {
        let scale = self.part(&self.logit_scale);
        Similarity::softmax(scale.expect("what embeds has a scale"))
    }
}

impl ScorePair for Tree {
    fn score_pair(&self, pictures: &Pictures, texts: &Tokens) -> Result<Vec<f32>, Error> {
        self.can_compare()?;
        let (b, r) = (pictures.count(), texts.rows().len());
        expect(
            b == r,
            "input_ids",
            format!("a text for each of {b} pictures"),
            r,
        )?;
        let logits = self.match_logits(self.places(pictures)?, &self.text_states(texts)?);
        let belongs = softmax(logits, 1).narrow(1, 1, 1).into_data();
        Ok(belongs.convert::<f32>().try_to_vec().expect("f32"))
    }
}

impl ClassifyAnswer for Tree {
    fn known_answers(&self) -> &[String] {
        &self.config.answers
    }

    fn classify_answer(
        &self,
        pictures: &Pictures,
        of: &[usize],
        questions: &Tokens,
    ) -> Result<Vec<Vec<f32>>, Error> {
        self.can_answer()?;
        below("questions: pictures", of, pictures.count())?;
        // a picture is read once, however many questions there are about it
        let places = self.places(pictures)?.select(0, rows(of, &self.device()));
        let answers = self.answer_logits(places, questions)?;
        Ok(capability::rows(softmax(answers, 1)))
    }
}

impl Generate for Tree {
    fn encode(&self, pictures: &Pictures) -> Result<Tensor<3>, Error> {
        self.captioner()?;
        self.places(pictures)
    }

    fn decode(&self, memory: Tensor<3>) -> Box<dyn Autoregressive + '_> {
        let captioner = self.captioner().expect("what encoded can decode");
        Box::new(captioner.decode(memory))
    }
}

impl Attend for Tree {
    fn attend(&self, memory: Tensor<3>, texts: &Tokens) -> Result<AttentionMaps, Error> {
        let c = &self.config;
        let ids = texts.to_device(c.vocab_size, c.max_length, &memory.device())?;
        let side = memory.dims()[1].isqrt();
        let (_, weights) = self.captioner()?.states(memory, ids);
        Ok(AttentionMaps {
            weights,
            grid: [side; 2],
        })
    }
}
