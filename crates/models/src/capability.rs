//! What a model can be asked for.
//!
//! Legend: `B` batch, `C` channels, `T` tokens, `N` patches, `P` patch side, `D` width, `E` width of the shared space.

use crate::error::{Error, expect};
use crate::generate::Autoregressive;
use burn::module::Param;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Pictures as a model takes them.
#[derive(Clone, Debug)]
pub enum Pictures {
    /// `[B, C, H, W]`, all of one size.
    Fixed(Tensor<4>),
    /// Patches of pictures of different shapes (NaFlex), padded to one number.
    Patches {
        /// `[B, N, P * P * C]`.
        pixel_values: Tensor<3>,
        /// Rows and columns of each picture's patches; the rest of its `N` is padding.
        spatial_shapes: Vec<[usize; 2]>,
    },
    /// What a detector has found in pictures.
    Regions {
        /// Features with their places.
        regions: Regions,
        /// The classes of the regions as one text for each picture, ended as texts are; empty rows for none.
        tags: Tokens,
    },
}

impl Pictures {
    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Self::Fixed(pixels) => pixels.dims()[0],
            Self::Patches { spatial_shapes, .. } => spatial_shapes.len(),
            Self::Regions { regions, .. } => regions.mask.len(),
        }
    }

    /// Pictures of one size, with the model's number of channels.
    ///
    /// # Errors
    /// Patches, or another number of channels.
    pub fn fixed(&self, num_channels: usize) -> Result<Tensor<4>, Error> {
        match self {
            Self::Fixed(pixels) => {
                let c = pixels.dims()[1];
                expect(
                    c == num_channels,
                    "pixel_values",
                    format!("{num_channels} channels"),
                    c,
                )?;
                Ok(pixels.clone())
            }
            other => Err(Error::Config {
                place: "pixel_values".to_owned(),
                expected: "pictures of one size".to_owned(),
                found: match other {
                    Self::Regions { .. } => "regions of pictures",
                    _ => "patches of pictures of different shapes",
                }
                .to_owned(),
            }),
        }
    }
}

/// The numbers of a tensor, a row for each of its last dimension.
///
/// # Shapes
/// `[.., W]`; gives rows of `W`.
pub fn rows<const D: usize>(x: Tensor<D>) -> Vec<Vec<f32>> {
    let width = x.dims()[D - 1].max(1);
    let data = x.into_data().convert::<f32>();
    let values: Vec<f32> = data.try_to_vec().expect("f32");
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

/// Texts as token ids, padded to one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    ids: Vec<Vec<u32>>,
    mask: Vec<Vec<bool>>,
}

impl Tokens {
    /// Rows of any length, padded behind with `pad` to the longest, which the mask then says.
    pub fn padded(rows: &[Vec<u32>], pad: u32) -> Self {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let fill = |row: &Vec<u32>| {
            let mut row = row.clone();
            row.resize(longest, pad);
            row
        };
        let mask = |row: &Vec<u32>| (0..longest).map(|i| i < row.len()).collect();
        Self {
            ids: rows.iter().map(fill).collect(),
            mask: rows.iter().map(mask).collect(),
        }
    }

    /// Rows of one length with their attention mask (true for tokens, false for padding); no mask means no padding.
    ///
    /// # Errors
    /// Rows or masks of different lengths.
    pub fn new(ids: Vec<Vec<u32>>, mask: Option<Vec<Vec<bool>>>) -> Result<Self, Error> {
        let t = ids.first().map_or(0, Vec::len);
        let mask = mask.unwrap_or_else(|| vec![vec![true; t]; ids.len()]);
        for (place, lengths) in [
            ("input_ids", ids.iter().map(Vec::len).collect::<Vec<_>>()),
            ("attention_mask", mask.iter().map(Vec::len).collect()),
        ] {
            let odd = lengths.iter().find(|&&l| l != t);
            expect(
                odd.is_none(),
                place,
                format!("rows of {t}"),
                odd.unwrap_or(&t),
            )?;
        }
        expect(
            ids.len() == mask.len(),
            "attention_mask",
            format!("{} rows", ids.len()),
            mask.len(),
        )?;
        Ok(Self { ids, mask })
    }

    /// The padded rows.
    pub fn rows(&self) -> &[Vec<u32>] {
        &self.ids
    }

    /// True for tokens, false for padding.
    pub fn mask(&self) -> &[Vec<bool>] {
        &self.mask
    }

    /// Whether any position is padding.
    pub fn is_padded(&self) -> bool {
        self.mask.iter().flatten().any(|&token| !token)
    }

    /// Each row's tokens without padding.
    pub fn lengths(&self) -> Vec<usize> {
        let count = |row: &Vec<bool>| row.iter().filter(|&&token| token).count();
        self.mask.iter().map(count).collect()
    }

    /// # Shapes
    /// Gives `[B, T]`.
    ///
    /// # Errors
    /// An id that the model does not know, or more tokens than it has positions.
    pub fn to_device(
        &self,
        vocab_size: usize,
        max_positions: usize,
        device: &Device,
    ) -> Result<Tensor<2, Int>, Error> {
        let shape = [self.ids.len(), self.ids.first().map_or(0, Vec::len)];
        expect(
            shape[1] <= max_positions,
            "input_ids",
            format!("at most {max_positions} tokens"),
            shape[1],
        )?;
        let known = |id: &&u32| **id as usize >= vocab_size;
        if let Some(bad) = self.ids.iter().flatten().find(known) {
            expect(false, "input_ids", format!("ids below {vocab_size}"), bad)?;
        }
        let ids: Vec<i64> = self.ids.iter().flatten().map(|&id| i64::from(id)).collect();
        Ok(Tensor::from_data(TensorData::new(ids, shape), device))
    }
}

/// Regions of pictures, as a detector tells them or a file of features holds them, padded to one number.
#[derive(Clone, Debug)]
pub struct Regions {
    /// `[B, N, F]`: features of each region, with its place if the model that reads them wants it.
    pub features: Tensor<3>,
    /// True for a region, false for padding.
    pub mask: Vec<Vec<bool>>,
}

impl Regions {
    /// Rows of regions of each picture, padded behind with zeros to the longest.
    ///
    /// # Errors
    /// Regions of different widths, or no picture.
    pub fn padded(pictures: &[Vec<Vec<f32>>], device: &Device) -> Result<Self, Error> {
        let width = pictures.iter().flatten().map(Vec::len).next().unwrap_or(0);
        let odd = pictures.iter().flatten().find(|row| row.len() != width);
        expect(
            odd.is_none() && !pictures.is_empty(),
            "regions",
            format!("{width} numbers each, of one picture at least"),
            odd.map_or(0, Vec::len),
        )?;
        let most = pictures.iter().map(Vec::len).max().unwrap_or(0);
        let mut values = Vec::with_capacity(pictures.len() * most * width);
        for regions in pictures {
            values.extend(regions.iter().flatten());
            values.resize(values.len() + (most - regions.len()) * width, 0.0);
        }
        let shape = [pictures.len(), most, width];
        let mask = |regions: &Vec<Vec<f32>>| (0..most).map(|i| i < regions.len()).collect();
        Ok(Self {
            features: Tensor::from_data(TensorData::new(values, shape), device),
            mask: pictures.iter().map(mask).collect(),
        })
    }
}

/// A model that puts pictures into a space shared with text.
pub trait EmbedImage {
    /// # Shapes
    /// Gives unit vectors `[B, E]`.
    ///
    /// # Errors
    /// Pictures in another form or size than the model takes.
    fn embed_image(&self, pictures: &Pictures) -> Result<Tensor<2>, Error>;
}

/// A model that puts text into a space shared with pictures.
pub trait EmbedText {
    /// # Shapes
    /// Gives unit vectors `[B, E]`.
    ///
    /// # Errors
    /// Ids that the model does not know, or more tokens than it has positions.
    fn embed_text(&self, texts: &Tokens) -> Result<Tensor<2>, Error>;

    /// What the similarities of unit vectors become in a probability: a softmax or a sigmoid.
    fn similarity(&self) -> Similarity;
}

/// How a contrastive family turns the dot product of two unit vectors into a probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Similarity {
    /// Softmax over the candidates of `scale` times the product (CLIP, ALBEF, BLIP).
    Softmax {
        /// The inverse temperature.
        scale: f32,
    },
    /// Sigmoid of `scale` times the product plus `bias`, for each pair by itself (SigLIP).
    Sigmoid {
        /// The inverse temperature.
        scale: f32,
        /// Added to the logit.
        bias: f32,
    },
}

impl Similarity {
    /// A softmax with the exponential of a learned logarithm.
    pub(crate) fn softmax(logit_scale: &Param<Tensor<1>>) -> Self {
        let scale = number(logit_scale).exp();
        Self::Softmax { scale }
    }

    /// A sigmoid with the exponential of a learned logarithm, and a learned bias.
    pub(crate) fn sigmoid(logit_scale: &Param<Tensor<1>>, logit_bias: &Param<Tensor<1>>) -> Self {
        let (scale, bias) = (number(logit_scale).exp(), number(logit_bias));
        Self::Sigmoid { scale, bias }
    }
}

fn number(param: &Param<Tensor<1>>) -> f32 {
    let data = param.val().into_data().convert::<f32>();
    data.try_to_vec().expect("one f32")[0]
}

/// A model that judges whether a text belongs to a picture (image-text matching).
pub trait ScorePair {
    /// The probability that text `i` belongs to picture `i`.
    ///
    /// # Errors
    /// Pictures or ids that do not fit the model.
    fn score_pair(&self, pictures: &Pictures, texts: &Tokens) -> Result<Vec<f32>, Error>;
}

/// A model that says which of its classes a text about one picture, or about two, belongs to: whether it is true of them
/// (NLVR2), or follows from them (visual entailment).
pub trait JudgeText {
    /// How many pictures a text is about.
    fn pictures_per_text(&self) -> usize;

    /// The names of the classes.
    fn classes(&self) -> &'static [&'static str];

    /// The probability of each class for each text. Where a text is about two pictures, the first pictures of all texts
    /// come before the second ones.
    ///
    /// # Errors
    /// Pictures or ids that do not fit the model.
    fn judge_text(&self, pictures: &Pictures, texts: &Tokens) -> Result<Vec<Vec<f32>>, Error>;
}

/// A model that chooses answers from a list, as ALBEF's authors evaluate it.
pub trait RankAnswers {
    /// For each pair of picture and question the likeliest answers by their places in the list, with the probability of
    /// each among these, best first.
    ///
    /// # Errors
    /// Pictures or ids that do not fit the model, or an empty list.
    fn rank_answers(
        &self,
        pictures: &Pictures,
        questions: &Tokens,
        answers: &Tokens,
    ) -> Result<Vec<Vec<(usize, f32)>>, Error>;
}

/// A model that answers questions with one of the answers that it knows.
pub trait ClassifyAnswer {
    /// The answers as words.
    fn known_answers(&self) -> &[String];

    /// The probability of each known answer to question `i` about picture `of[i]`.
    ///
    /// # Errors
    /// Pictures, ids or numbers of them that do not fit the model.
    fn classify_answer(
        &self,
        pictures: &Pictures,
        of: &[usize],
        questions: &Tokens,
    ) -> Result<Vec<Vec<f32>>, Error>;
}

/// A model that writes text about pictures.
pub trait Generate {
    /// What the decoder reads of each picture.
    ///
    /// # Shapes
    /// Gives `[B, N, D]`.
    ///
    /// # Errors
    /// Pictures in another form or size than the model takes.
    fn encode(&self, pictures: &Pictures) -> Result<Tensor<3>, Error>;

    /// Starts one text per row of `memory`, or any number of texts if it has one row.
    ///
    /// # Shapes
    /// `memory: [B, N, D]` from [`Self::encode`].
    fn decode(&self, memory: Tensor<3>) -> Box<dyn Autoregressive + '_>;
}

/// Where a model looked while it wrote.
#[derive(Clone, Debug)]
pub struct AttentionMaps {
    /// `[R, T, N]`: how much of the attention each place of the picture had when the token after the `t`-th was chosen;
    /// a row sums to 1.
    pub weights: Tensor<3>,
    /// Rows and columns of the places.
    pub grid: [usize; 2],
}

/// A model that can tell where it looked while it wrote.
pub trait Attend: Generate {
    /// # Shapes
    /// `memory: [B, N, D]` from [`Generate::encode`], a row for each text or one for all.
    ///
    /// # Errors
    /// A decoder that does not look at places, ids that it does not know, or more tokens than it has positions.
    fn attend(&self, memory: Tensor<3>, texts: &Tokens) -> Result<AttentionMaps, Error>;
}

/// A model that reads a question about a picture before it writes the answer (ALBEF, BLIP).
pub trait AnswerQuestion {
    /// Starts one answer per pair of picture and question.
    ///
    /// # Errors
    /// Pictures or ids that do not fit the model.
    fn answer(
        &self,
        pictures: &Pictures,
        questions: &Tokens,
    ) -> Result<Box<dyn Autoregressive + '_>, Error>;
}

/// An object in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// `x1, y1, x2, y2` in pixels of the picture that the model was given.
    pub corners: [f32; 4],
    /// Its class; 0 would be background.
    pub class: usize,
    /// The probability of the class.
    pub score: f32,
    /// Attributes such as colour or material with their probabilities, best first; none from a model that tells none.
    pub attributes: Vec<(usize, f32)>,
}

/// The objects of one picture.
#[derive(Clone, Debug)]
pub struct Detections {
    /// Best first.
    pub objects: Vec<Detection>,
    /// `[R, D]`, a vector for each object, from a model that gives its features to others.
    pub features: Option<Tensor<2>>,
}

/// Which objects are told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DetectOptions {
    /// Those of a higher probability; the model's own threshold if not given.
    pub threshold: Option<f32>,
    /// Most of a picture; the model's own number if not given.
    pub most: Option<usize>,
}

/// A model that finds objects and says where and what they are.
pub trait Detect {
    /// The objects of each picture.
    ///
    /// # Errors
    /// Pictures in another form than the model takes.
    fn detect(
        &self,
        pictures: &Pictures,
        options: &DetectOptions,
    ) -> Result<Vec<Detections>, Error>;

    /// Classes, background included.
    fn num_classes(&self) -> usize;

    /// Attributes, the first of which stands for none; 0 for a model that tells none.
    fn num_attributes(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_masked_and_lengths_count_tokens() {
        let tokens = Tokens::padded(&[vec![5, 6, 7], vec![8]], 0);
        assert_eq!(tokens.rows(), [vec![5, 6, 7], vec![8, 0, 0]]);
        assert_eq!(tokens.lengths(), [3, 1]);
        assert!(tokens.is_padded());
        let full = Tokens::new(tokens.rows().to_vec(), None).expect("equal rows");
        assert_eq!((full.lengths(), full.is_padded()), (vec![3, 3], false));
    }

    #[test]
    fn uneven_rows_unknown_ids_and_long_texts_are_refused() {
        let device = Device::flex();
        assert!(Tokens::new(vec![vec![1], vec![1, 2]], None).is_err());
        assert!(Tokens::new(vec![vec![1, 2]], Some(vec![vec![true]])).is_err());
        let tokens = Tokens::padded(&[vec![3, 4]], 0);
        let error = tokens.to_device(4, 9, &device).unwrap_err().to_string();
        assert!(error.contains("ids below 4, found 4"), "{error}");
        let error = tokens.to_device(5, 1, &device).unwrap_err().to_string();
        assert!(error.contains("at most 1 tokens, found 2"), "{error}");
    }
}
