//! Oscar and Oscar+: words, object tags and regions in one stream of a BERT (Li et al., "Oscar: object-semantics aligned
//! pre-training for vision-language tasks", 2020; Zhang et al., "VinVL: revisiting visual representations in
//! vision-language models", 2021).
//!
//! ```text
//!   [CLS] words [SEP] -- segment 0 --+
//!   object tags [SEP] -- segment 1 --+-> BERT -> states  -> masked-token head      pre-training, captioning
//!   regions, 2048 + 6 numbers -> linear          first -> pooler -> classes        contrast, VQA, retrieval, NLVR2
//! ```
//!
//! A region's six numbers are its corners, its width and its height as shares of the picture's. A caption is written
//! under a mask with which its words see the tags, the regions and the words before them, and tags and regions see each
//! other: for every word a `[MASK]` is put behind what is there, and its state tells the word.
//!
//! Legend: `R` texts, `T` tokens, `N` regions, `F` numbers of a region, `D` width, `V` vocabulary, `K` classes.

mod capabilities;
mod config;
mod losses;
mod reference;

pub use config::{OscarClassifier, OscarConfig, OscarLoss, OscarTask, is_config};
pub use losses::{OscarBatch, OscarLosses, OscarTargets};

use crate::capability::{self, Regions, Tokens};
use crate::decoders::MlmHead;
use crate::encoders::{Bert, BertPass, bert_head_rules, bert_rules};
use crate::error::{Error, below, expect};
use crate::generate::Autoregressive;
use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use vlm_nn::weights::{Checkpoint, Init, Rule, Weights};
use vlm_nn::{KeyMask, KvCache, LayerNorm, Linear, ops};

/// This family's name.
pub const FAMILY: &str = "oscar";

/// Words and tags with their segments.
#[derive(Clone, Debug)]
pub struct OscarTexts {
    /// Ids, padded.
    pub tokens: Tokens,
    /// 0 for words, 1 for tags, a row for each text.
    pub segments: Vec<Vec<u32>>,
    /// Positions of each token; counted from 0 if not given.
    pub positions: Option<Vec<Vec<u32>>>,
}

/// Layers on the pooled state; parameters `fc1` and, if there are two, `norm` and `fc2`.
#[derive(Module, Debug)]
struct Classifier {
    fc1: Linear,
    norm: Option<LayerNorm>,
    fc2: Option<Linear>,
}

impl Classifier {
    fn new(w: &mut Weights, c: &OscarConfig) -> Self {
        let (inputs, classes) = (c.num_choice * c.bert.hidden_size, c.num_labels);
        let mut linear = |name: &str, inputs, outputs| {
            w.scope(name, |w| {
                Linear::new(w, inputs, outputs, true, Init::NORMAL)
            })
        };
        let OscarClassifier::Mlp { scale, norm } = c.classifier else {
            return Self {
                fc1: linear("fc1", inputs, classes),
                norm: None,
                fc2: None,
            };
        };
        let hidden = scale * c.bert.hidden_size;
        Self {
            fc1: linear("fc1", inputs, hidden),
            fc2: Some(linear("fc2", hidden, classes)),
            norm: norm
                .then(|| w.scope("norm", |w| LayerNorm::new(w, hidden, c.bert.layer_norm_eps))),
        }
    }

    /// `[R, D]` to `[R, K]`.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.fc1.forward(x);
        let Some(fc2) = &self.fc2 else {
            return x;
        };
        let x = relu(x);
        fc2.forward(match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        })
    }
}

/// The model, as far as its task needs it.
#[derive(Module, Debug)]
pub struct Oscar {
    bert: Bert,
    region: Linear,
    region_norm: Option<LayerNorm>,
    head: Option<MlmHead>,
    contrast: Option<Linear>,
    classifier: Option<Classifier>,
    #[module(skip)]
    config: OscarConfig,
}

/// Released names to ours, but those of a classifier.
fn rules() -> Vec<Rule> {
    let own: &[Rule] = &[
        Rule::Name("bert.img_embedding.*", "region.*"),
        Rule::Name("bert.LayerNorm.*", "region_norm.*"),
        Rule::Name("cls.seq_relationship.*", "contrast.*"),
        Rule::Ignore("**.position_ids"),
        // a copy of the table for discrete regions that some releases carry along
        Rule::Ignore("bert.code_embeddings.*"),
    ];
    [
        own,
        bert_rules!("bert.", "bert."),
        bert_head_rules!("", "head."),
    ]
    .concat()
}

fn integers(rows: &[Vec<u32>], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows.first().map_or(0, Vec::len)];
    let ids: Vec<i64> = rows.iter().flatten().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(ids, shape), device)
}

fn index(places: &[usize], device: &Device) -> Tensor<1, Int> {
    let places: Vec<i64> = places.iter().map(|&i| i as i64).collect();
    let count = places.len();
    Tensor::from_data(TensorData::new(places, [count]), device)
}

impl Oscar {
    /// Builds the model of a validated config; `tied` says whether the output layer is the table of word embeddings.
    pub fn new(w: &mut Weights, c: &OscarConfig, tied: bool) -> Self {
        let (task, d) = (c.task, c.bert.hidden_size);
        let linear = |w: &mut Weights, name: &str, inputs: usize, outputs: usize| {
            w.scope(name, |w| {
                Linear::new(w, inputs, outputs, true, Init::NORMAL)
            })
        };
        let writes = matches!(task, OscarTask::Pretraining | OscarTask::Captioning);
        Self {
            bert: w.scope("bert", |w| Bert::new(w, &c.bert)),
            region: linear(w, "region", c.img_feature_dim, d),
            region_norm: c
                .img_layer_norm_eps
                .map(|eps| w.scope("region_norm", |w| LayerNorm::new(w, d, eps))),
            head: writes.then(|| w.scope("head", |w| MlmHead::new(w, &c.bert, tied))),
            contrast: (task == OscarTask::Pretraining)
                .then(|| linear(w, "contrast", d, c.num_contrast_classes)),
            classifier: (!writes).then(|| w.scope("classifier", |w| Classifier::new(w, c))),
            config: c.clone(),
        }
    }

    /// A released model with its `config.json`.
    ///
    /// # Errors
    /// A config that is not understood, or weights that do not match it.
    pub fn load(config: &str, checkpoint: Checkpoint, device: &Device) -> Result<Self, Error> {
        let config = OscarConfig::parse(config, &checkpoint)?;
        let (checkpoint, tied) = Self::named(checkpoint, &config);
        let mut weights = Weights::from_checkpoint(checkpoint, device);
        let model = Self::new(&mut weights, &config, tied);
        weights.finish()?;
        Ok(model)
    }

    /// A checkpoint with our names, and whether the output layer is the table of word embeddings.
    fn named(checkpoint: Checkpoint, c: &OscarConfig) -> (Checkpoint, bool) {
        let classifier: &[Rule] = match c.classifier {
            OscarClassifier::Linear => &[Rule::Name("classifier.*", "classifier.fc1.*")],
            OscarClassifier::Mlp { norm: false, .. } => &[
                Rule::Name("classifier.0.*", "classifier.fc1.*"),
                Rule::Name("classifier.2.*", "classifier.fc2.*"),
            ],
            OscarClassifier::Mlp { norm: true, .. } => &[
                Rule::Name("classifier.0.*", "classifier.fc1.*"),
                Rule::Name("classifier.2.*", "classifier.norm.*"),
                Rule::Name("classifier.3.*", "classifier.fc2.*"),
            ],
        };
        let mut checkpoint = checkpoint.translated(&[&rules()[..], classifier].concat());
        let (word, output) = ("bert.token.weight", "head.decoder.weight");
        let tied =
            !checkpoint.contains(output) || c.tie_weights && checkpoint.ignore_copy(output, word);
        (checkpoint, tied)
    }

    /// A checkpoint with our names for its tensors: weights, or anything that there is one of per weight, such as
    /// gradients.
    pub fn translated(&self, checkpoint: Checkpoint) -> Checkpoint {
        Self::named(checkpoint, &self.config).0
    }

    /// The config that the model was built from.
    pub fn config(&self) -> &OscarConfig {
        &self.config
    }

    /// Where the model lies.
    pub fn device(&self) -> Device {
        self.bert.token().range(0, 1).device()
    }

    fn part<'a, T>(&self, part: &'a Option<T>, task: &'static str) -> Result<&'a T, Error> {
        part.as_ref().ok_or_else(|| self.cannot(task))
    }

    /// That a model fine-tuned for something else cannot do this.
    fn cannot(&self, task: &'static str) -> Error {
        Error::Unsupported {
            family: match self.config.task {
                OscarTask::Pretraining => "oscar (BertImgForPreTraining)",
                OscarTask::Captioning => "oscar (BertForImageCaptioning)",
                OscarTask::Classification => "oscar (ImageBertForSequenceClassification)",
                OscarTask::Choice => "oscar (ImageBertForMultipleChoice)",
            },
            task,
            able: match task {
                "write captions" => "BertForImageCaptioning",
                "judge triplets" => "BertImgForPreTraining",
                "judge pairs" => {
                    "BertImgForPreTraining and ImageBertForSequenceClassification with two classes"
                }
                "judge statements" => "ImageBertForMultipleChoice with two classes",
                "answer questions" => "ImageBertForSequenceClassification of answers",
                _ => "ImageBertForSequenceClassification and ImageBertForMultipleChoice",
            },
        }
    }

    /// Embeddings of words and tags.
    ///
    /// # Errors
    /// Ids, positions or segments that the model does not know, or rows of other lengths.
    fn text_embeddings(&self, texts: &OscarTexts) -> Result<Tensor<3>, Error> {
        let (c, device) = (&self.config.bert, self.device());
        let most = c.max_position_embeddings;
        let ids = texts.tokens.to_device(c.vocab_size, most, &device)?;
        let shape = ids.dims();
        let counted: Vec<u32> = (0..shape[1] as u32).collect();
        let counted = vec![counted; shape[0]];
        let positions = texts.positions.as_ref().unwrap_or(&counted);
        for (place, rows, bound) in [
            ("position_ids", positions, most),
            ("token_type_ids", &texts.segments, c.type_vocab_size),
        ] {
            let shaped = rows.len() == shape[0] && rows.iter().all(|row| row.len() == shape[1]);
            expect(shaped, place, format!("{shape:?}, as input_ids"), {
                let row = rows.first().map_or(0, Vec::len);
                format!("[{}, {row}]", rows.len())
            })?;
            let bound = u32::try_from(bound).unwrap_or(u32::MAX);
            below(place, rows.iter().flatten(), bound)?;
        }
        let [positions, segments] = [positions, &texts.segments].map(|r| integers(r, &device));
        Ok(self.bert.embed_segments(ids, positions, segments))
    }

    /// # Shapes
    /// `[R, N, F]`; gives `[R, N, D]`.
    ///
    /// # Errors
    /// Regions of another width.
    fn region_embeddings(&self, features: Tensor<3>) -> Result<Tensor<3>, Error> {
        let (found, expected) = (features.dims()[2], self.config.img_feature_dim);
        expect(
            found == expected,
            "img_feats",
            format!("{expected} numbers a region"),
            found,
        )?;
        let x = self.region.forward(features);
        Ok(match &self.region_norm {
            Some(norm) => norm.forward(x),
            None => x,
        })
    }

    /// Words, tags and regions in one row.
    ///
    /// # Shapes
    /// Gives `[R, T + N, D]`.
    ///
    /// # Errors
    /// What does not fit the model or each other.
    pub fn embeddings(
        &self,
        texts: &OscarTexts,
        regions: Option<&Tensor<3>>,
    ) -> Result<Tensor<3>, Error> {
        let words = self.text_embeddings(texts)?;
        let Some(regions) = regions else {
            return Ok(words);
        };
        let (rows, found) = (words.dims()[0], regions.dims()[0]);
        expect(
            rows == found,
            "img_feats",
            format!("regions of {rows} pictures, one for each text"),
            found,
        )?;
        let regions = self.region_embeddings(regions.clone())?;
        Ok(Tensor::cat(vec![words, regions], 1))
    }

    /// The states of all layers, those of the embeddings first, for texts about pictures that see all of each other.
    ///
    /// # Shapes
    /// Gives `[R, T + N, D]` each.
    ///
    /// # Errors
    /// As [`Self::embeddings`].
    pub fn states(&self, texts: &OscarTexts, regions: &Regions) -> Result<Vec<Tensor<3>>, Error> {
        let x = self.embeddings(texts, Some(&regions.features))?;
        let rows = texts.tokens.mask().iter().zip(&regions.mask);
        let rows: Vec<Vec<bool>> = rows.map(|(t, r)| [t.as_slice(), r].concat()).collect();
        Ok(self.encoded(x, KeyMask::new(&rows)))
    }

    /// All layers over embeddings, under any mask.
    fn encoded(&self, x: Tensor<3>, keys: KeyMask) -> Vec<Tensor<3>> {
        let pass = BertPass {
            keys,
            ..BertPass::default()
        };
        self.bert.hidden_states(x, pass)
    }

    /// The first token's state through the pooler.
    ///
    /// # Shapes
    /// `states: [R, T + N, D]` of the last layer; gives `[R, D]`.
    pub fn pooled(&self, states: &Tensor<3>) -> Tensor<2> {
        self.bert.pooled(states).expect("every Oscar has a pooler")
    }

    /// Logits of the token at every position.
    ///
    /// # Shapes
    /// `states: [R, T, D]`; gives `[R, T, V]`.
    ///
    /// # Errors
    /// A model without a head for tokens.
    pub fn token_logits(&self, states: Tensor<3>) -> Result<Tensor<3>, Error> {
        let head = self.part(&self.head, "write captions")?;
        Ok(head.forward(states, self.bert.token()))
    }

    /// Logits of the tokens at some places, counted through all rows of states.
    ///
    /// # Shapes
    /// `states: [R, T, D]`; gives `[places, V]`.
    ///
    /// # Errors
    /// A model without a head for tokens, or places beyond the last.
    fn token_logits_at(&self, states: Tensor<3>, places: &[usize]) -> Result<Tensor<2>, Error> {
        let [r, t, d] = states.dims();
        below("places of tokens", places, r * t)?;
        let states = states
            .reshape([r * t, d])
            .select(0, index(places, &self.device()));
        let logits = self.token_logits(states.reshape([1, places.len(), d]))?;
        Ok(logits.reshape([places.len(), self.config.bert.vocab_size]))
    }

    /// Logits of whether words, tags and picture belong together, of which class 0 says that they do.
    ///
    /// # Shapes
    /// `pooled: [R, D]`; gives `[R, K]`.
    ///
    /// # Errors
    /// A model that was fine-tuned.
    pub fn contrast_logits(&self, pooled: Tensor<2>) -> Result<Tensor<2>, Error> {
        Ok(self.part(&self.contrast, "judge triplets")?.forward(pooled))
    }

    /// Logits of answers; retrieval's second class says that text and picture belong together. Where an answer is about
    /// several triplets, theirs are in successive rows.
    ///
    /// # Shapes
    /// `pooled: [R * choices, D]`; gives `[R, K]`.
    ///
    /// # Errors
    /// A model without classes, or a number of rows that are no groups.
    pub fn class_logits(&self, pooled: Tensor<2>) -> Result<Tensor<2>, Error> {
        let classifier = self.part(&self.classifier, "classify")?;
        let ([rows, d], choices) = (pooled.dims(), self.config.num_choice);
        expect(
            rows % choices == 0,
            "input_ids",
            format!("groups of {choices}"),
            rows,
        )?;
        Ok(classifier.forward(pooled.reshape([rows / choices, choices * d])))
    }

    /// The loss of masked tokens: cross-entropy, the mean over targets that are no negative number.
    ///
    /// # Shapes
    /// `logits: [R, T, V]`, a target for each token; gives `[1]`.
    ///
    /// # Errors
    /// Targets of another shape or that are no token.
    pub fn masked_token_loss(
        &self,
        logits: Tensor<3>,
        targets: &[Vec<i64>],
    ) -> Result<Tensor<1>, Error> {
        let [r, t, v] = logits.dims();
        let shaped = targets.len() == r && targets.iter().all(|row| row.len() == t);
        expect(shaped, "masked_lm_labels", format!("{r} rows of {t}"), {
            let row = targets.first().map_or(0, Vec::len);
            format!("{} rows of {row}", targets.len())
        })?;
        self.class_loss(
            logits.reshape([r * t, v]),
            &targets.concat(),
            "masked_lm_labels",
        )
    }

    /// Cross-entropy, the mean over targets that are no negative number; 0 where there is none.
    ///
    /// # Shapes
    /// `logits: [R, K]`; gives `[1]`.
    ///
    /// # Errors
    /// Another number of targets, or one that is no class; `place` is what they are called.
    pub fn class_loss(
        &self,
        logits: Tensor<2>,
        targets: &[i64],
        place: &str,
    ) -> Result<Tensor<1>, Error> {
        let [r, k] = logits.dims();
        expect(
            targets.len() == r,
            place,
            format!("{r} of them"),
            targets.len(),
        )?;
        below(place, targets.iter().filter(|&&x| x >= 0), k as i64)?;
        let count = targets.iter().filter(|&&x| x >= 0).count();
        let targets = TensorData::new(targets.to_vec(), [r]);
        let targets = Tensor::<1, Int>::from_data(targets, &logits.device());
        let losses = ops::cross_entropy(logits, targets, 0.0);
        Ok(losses.sum() / count.max(1) as f32)
    }

    /// The loss of captions: the divergence of the logits at masked words from the smoothed targets, the mean over them.
    /// It is a cross-entropy without the entropy of the targets.
    ///
    /// # Shapes
    /// `logits: [M, V]`, `targets` the words; gives `[1]`.
    ///
    /// # Errors
    /// Another number of targets, or one that is no token.
    pub fn caption_loss(&self, logits: Tensor<2>, targets: &[i64]) -> Result<Tensor<1>, Error> {
        let [m, v] = logits.dims();
        let known = targets.iter().all(|&id| (0..v as i64).contains(&id));
        expect(
            targets.len() == m && known && m > 0,
            "masked_ids",
            format!("{m} ids below {v}, one for each masked word"),
            format!("{targets:?}"),
        )?;
        let smoothing = f64::from(self.config.label_smoothing);
        // all of it among the other words, where the operation spreads it over all
        let spread = smoothing * v as f64 / (v as f64 - 1.0);
        let information = |p: f64| if p > 0.0 { p * p.ln() } else { 0.0 };
        let others = v as f64 - 1.0;
        let entropy = information(1.0 - smoothing) + others * information(smoothing / others);
        let targets = TensorData::new(targets.to_vec(), [m]);
        let targets = Tensor::<1, Int>::from_data(targets, &logits.device());
        Ok(ops::cross_entropy(logits, targets, spread as f32).mean() + entropy)
    }

    /// The loss of answers of which several may be right, each with a weight from 0 to 1: binary cross-entropy, summed
    /// over the answers (VQA).
    ///
    /// # Shapes
    /// `logits, weights: [R, K]`; gives `[1]`.
    pub fn answer_loss(&self, logits: Tensor<2>, weights: Tensor<2>) -> Tensor<1> {
        let r = logits.dims()[0].max(1) as f32;
        // log(1 + e^x) - x w, without overflow
        let positive = relu(logits.clone());
        let rest = (-logits.clone().abs()).exp().log1p();
        (positive - logits * weights + rest).sum() / r
    }

    /// Embeddings of tags and regions, and which of them are no padding; positions of tags begin at `tags_from`.
    fn context(
        &self,
        regions: &Regions,
        tags: &Tokens,
        tags_from: usize,
    ) -> Result<(Tensor<3>, Vec<Vec<bool>>), Error> {
        let rows = regions.mask.len();
        let length = tags.rows().first().map_or(0, Vec::len);
        let regions_embedded = self.region_embeddings(regions.features.clone())?;
        if length == 0 {
            return Ok((regions_embedded, regions.mask.clone()));
        }
        let from = tags_from as u32;
        let texts = OscarTexts {
            tokens: tags.clone(),
            segments: vec![vec![1; length]; tags.rows().len()],
            positions: Some(vec![
                (from..from + length as u32).collect();
                tags.rows().len()
            ]),
        };
        expect(
            tags.rows().len() == rows,
            "tags",
            format!("those of {rows} pictures"),
            tags.rows().len(),
        )?;
        let x = Tensor::cat(vec![self.text_embeddings(&texts)?, regions_embedded], 1);
        let seen = tags.mask().iter().zip(&regions.mask);
        Ok((x, seen.map(|(t, r)| [t.as_slice(), r].concat()).collect()))
    }

    fn check_mask(&self, mask_id: u32) -> Result<(), Error> {
        let known = self.config.bert.vocab_size;
        expect(
            (mask_id as usize) < known,
            "mask_token_id",
            format!("below vocab_size {known}"),
            mask_id,
        )
    }

    /// Starts captions of pictures whose regions have tags, or none. Positions of tags begin at `tags_from`, that of the
    /// longest caption in training, so that they are no word's; `mask_id` is the token that stands for the next word.
    ///
    /// # Errors
    /// A model that writes no captions, or inputs that do not fit it.
    pub fn decode(
        &self,
        regions: &Regions,
        tags: &Tokens,
        tags_from: usize,
        mask_id: u32,
    ) -> Result<OscarDecoding<'_>, Error> {
        self.part(&self.head, "write captions")?;
        self.check_mask(mask_id)?;
        let (x, seen) = self.context(regions, tags, tags_from)?;
        // one position is the mask's
        let most = self.config.bert.max_position_embeddings - 1;
        Ok(self.begin(x, seen, mask_id, most))
    }

    /// Starts captions of at most `most` tokens behind the embeddings of what they see.
    fn begin(
        &self,
        context: Tensor<3>,
        seen: Vec<Vec<bool>>,
        mask_id: u32,
        most: usize,
    ) -> OscarDecoding<'_> {
        let mut caches = self.bert.caches();
        let pass = BertPass {
            keys: KeyMask::new(&seen),
            caches: Some(&mut caches),
            ..BertPass::default()
        };
        self.bert
            .forward(context, 0..self.config.bert.num_hidden_layers, pass);
        OscarDecoding {
            model: self,
            context: seen.first().map_or(0, Vec::len),
            seen,
            caches,
            mask_id,
            most,
        }
    }
}

/// Captions in the making.
#[derive(Debug)]
pub struct OscarDecoding<'a> {
    model: &'a Oscar,
    /// Keys and values of tags and regions, then of the words.
    caches: Vec<KvCache>,
    /// Tags and regions.
    context: usize,
    /// Which positions so far are no padding.
    seen: Vec<Vec<bool>>,
    mask_id: u32,
    /// Most tokens of a caption.
    most: usize,
}

impl Autoregressive for OscarDecoding<'_> {
    fn vocab_size(&self) -> usize {
        self.model.config.bert.vocab_size
    }

    fn max_positions(&self) -> usize {
        self.most
    }

    fn positions(&self) -> usize {
        self.caches.first().map_or(0, KvCache::len) - self.context
    }

    fn feed(&mut self, tokens: &[Vec<u32>]) -> Vec<Vec<f32>> {
        let (model, past) = (self.model, self.positions());
        let device = model.device();
        let rows: Vec<Vec<u32>> = tokens
            .iter()
            .map(|row| row.iter().copied().chain([self.mask_id]).collect())
            .collect();
        let t = rows.first().map_or(0, Vec::len);
        // one set of regions may be that of many texts
        if self.seen.len() == 1 && rows.len() > 1 {
            let all = Tensor::<1, Int>::zeros([rows.len()], &device);
            self.caches.iter_mut().for_each(|cache| cache.select(&all));
            self.seen = vec![self.seen[0].clone(); rows.len()];
        }
        let positions: Vec<u32> = (past as u32..(past + t) as u32).collect();
        let x = model.bert.embed_segments(
            integers(&rows, &device),
            integers(&vec![positions; rows.len()], &device),
            integers(&vec![vec![0; t]; rows.len()], &device),
        );
        let seen: Vec<Vec<bool>> = self
            .seen
            .iter()
            .map(|row| {
                row.iter()
                    .copied()
                    .chain(std::iter::repeat_n(true, t))
                    .collect()
            })
            .collect();
        let pass = BertPass {
            causal: true,
            keys: KeyMask::new(&seen),
            caches: Some(&mut self.caches),
            ..BertPass::default()
        };
        let x = model
            .bert
            .forward(x, 0..model.config.bert.num_hidden_layers, pass);
        // the mask is for this word alone
        for row in &mut self.seen {
            row.extend(std::iter::repeat_n(true, t - 1));
        }
        let kept = self.context + past + t - 1;
        self.caches
            .iter_mut()
            .for_each(|cache| cache.truncate(kept));
        let logits = model.token_logits(x.narrow(1, t - 1, 1)); // [R, 1, V]
        capability::rows(logits.expect("what decodes has a head"))
    }

    fn select(&mut self, rows: &[usize]) {
        let index = index(rows, &self.model.device());
        self.caches
            .iter_mut()
            .for_each(|cache| cache.select(&index));
        self.seen = rows.iter().map(|&r| self.seen[r].clone()).collect();
    }
}
