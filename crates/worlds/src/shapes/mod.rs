//! Pictures of coloured shapes with exact ground truth.
//!
//! [`generate`] makes one [`Item`]: a picture, the [`Scene`] it shows, four captions and up to twelve questions with
//! answers. [`write()`] puts items on disk and [`read`] reads them back; [`facts`] says how much of a caption is true.
//!
//! # The world
//!
//! Up to seven objects lie on a plain [`Background`]. Each has a [`Shape`], a [`Colour`], a [`Size`], a [`Texture`] and a
//! [`Position`]; [`Relation`]s between them are stated only where they are clear. The truth can be seen in the picture:
//! sizes leave a gap of half their range, colours keep their distance, centres stay away from the lines between
//! positions, objects touch visibly or keep a gap, and at most a quarter of an object is hidden.
//!
//! What does not belong to the truth varies at random, so that pixels cannot be memorised: shades of a colour, outlines,
//! angles, proportions, stripes and dots, light, gradients, faint blotches, lines and specks, soft edges and noise. The
//! difficulty scales them, and with them the number of objects and how much they overlap.
//!
//! # Splits
//!
//! `train`, `validation` and `test` are distributed alike. The pairs of attributes in [`HELD_OUT_COLOUR_SHAPE`] and
//! [`HELD_OUT_TEXTURE_SHAPE`] never occur in them, neither in pictures nor in captions nor in questions; in
//! `compositional` every scene has at least one.
//!
//! # Balance
//!
//! A question alone does not give its answer away: yes and no are equally likely for every form of question and every
//! word in it, counts are planned before the scene, and no attribute value is preferred. A test measures how far
//! guessing gets.
//!
//! # Determinism
//!
//! An item depends on configuration, split, seed and index alone. Its bytes are the same on every platform: random
//! numbers, sines and rasterisation use integers and plain IEEE arithmetic only.

mod captions;
mod draw;
pub mod facts;
mod geometry;
mod layout;
mod plan;
mod questions;
mod record;
mod scene;
mod split;
mod vocabulary;
mod write;

pub use captions::MAX_CAPTION_WORDS;
pub use questions::{Qa, QuestionKind};
pub use record::{Record, read};
pub use scene::{
    Background, Colour, Object, Position, Relation, RelationFact, Scene, Shape, Size, Texture,
};
pub use split::{HELD_OUT_COLOUR_SHAPE, HELD_OUT_TEXTURE_SHAPE, Split, is_held_out};
pub use vocabulary::{answers, tokens, vocabulary};
pub use write::write;

use crate::Error;
use crate::rng::Rng;

/// Size and difficulty of the pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Side of the square pictures in pixels: 32 to 1024. Below about 96 pixels the textures of small objects
    /// become hard to tell apart.
    pub size: u32,
    /// From 0 (up to 3 objects, clean) to 1 (up to 7 objects, noise, clutter and occlusion).
    pub difficulty: f32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            size: 128,
            difficulty: 0.5,
        }
    }
}

impl Config {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Size`] or [`Error::Difficulty`] for a value outside its range.
    pub fn validate(&self) -> Result<(), Error> {
        if !(32..=1024).contains(&self.size) {
            return Err(Error::Size(self.size));
        }
        if !(0.0..=1.0).contains(&self.difficulty) {
            return Err(Error::Difficulty(self.difficulty));
        }
        Ok(())
    }
}

/// A picture in 8-bit RGB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// `height` rows of `width` pixels of 3 bytes: red, green, blue.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// The picture as a PNG file without any metadata; the same pixels always give the same bytes.
    pub fn to_png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        encoder.set_filter(png::Filter::Sub);
        let written = encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.rgb));
        written.expect("a valid picture is always written to memory");
        bytes
    }
}

/// A picture with everything that is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The pixels.
    pub picture: Picture,
    /// What they show.
    pub scene: Scene,
    /// Four wordings of what they show.
    pub captions: Vec<String>,
    /// Up to 12 questions with answers, for each set of questions.
    pub qa: Vec<Qa>,
}

/// Generates one item.
///
/// The result depends on the arguments alone: items can be made in any order and on any platform.
///
/// # Panics
/// If the configuration is not valid; see [`Config::validate`].
pub fn generate(config: &Config, split: Split, seed: u64, index: u64) -> Item {
    generate_asking(config, split, seed, index, 1)
}

/// [`generate`] with several sets of questions, each drawn for itself; what an earlier set asks word for word is left
/// out. A training asks more of a picture so, whose drawing and encoding cost the most.
///
/// # Panics
/// If the configuration is not valid; see [`Config::validate`].
pub fn generate_asking(
    config: &Config,
    split: Split,
    seed: u64,
    index: u64,
    question_sets: usize,
) -> Item {
    if let Err(error) = config.validate() {
        panic!("{error}");
    }
    // Separate streams, so that a change of wording cannot change pixels.
    let stream = |purpose: u64| Rng::from_key(&[split.tag(), seed, index, purpose]);
    let plan = plan::plan(&mut stream(0), split, config.difficulty);
    let layout = layout::place(&mut stream(1), &plan, config.difficulty);
    let mut style = stream(2);
    let background = style.pick(Background::ALL);
    let (picture, boxes) = draw::draw(
        &mut style,
        background,
        &layout.objects,
        config.size,
        config.difficulty,
    );
    let objects: Vec<Object> = layout
        .objects
        .iter()
        .zip(&layout.positions)
        .zip(boxes)
        .map(|((placed, &position), bounds)| Object {
            shape: placed.attributes.shape,
            colour: placed.attributes.colour,
            size: placed.attributes.size,
            texture: placed.attributes.texture,
            position,
            bounds,
        })
        .collect();
    let focus = plan.focus.and_then(|(index, pair)| {
        let at = layout
            .objects
            .iter()
            .position(|placed| placed.plan_index == index)?;
        Some((at, pair))
    });
    let scene = Scene {
        background,
        objects,
        relations: layout.relations,
    };
    let texture_of = focus.and_then(|(at, pair)| pair.texture.map(|_| at));
    let captions = captions::captions(&mut stream(3), &scene, texture_of);
    let source = questions::Source {
        scene: &scene,
        counts: &plan.counts,
        focus,
    };
    let mut qa: Vec<Qa> = Vec::new();
    for set in 0..question_sets as u64 {
        for new in questions::questions(&mut stream(4 + set), &source) {
            if !qa.iter().any(|old| old.question == new.question) {
                qa.push(new);
            }
        }
    }
    Item {
        picture,
        scene,
        captions,
        qa,
    }
}
