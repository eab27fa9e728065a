//! Statements about three boxes, after Cornell NLVR.
//!
//! A picture shows three light grey boxes side by side, as in "A corpus of natural language for visual reasoning" (Suhr
//! et al., 2017): in each a tower of one to four blocks, or one to seven scattered circles, squares and triangles of
//! three sizes, black, yellow or blue. A statement is a sentence about it that is true or false. [`generate`] makes one
//! [`Item`]; [`write()`] puts a set on disk in NLVR's format, `examples.jsonl` and a folder `images`.
//!
//! # Truth
//!
//! A sentence is made of a [`Meaning`], which says of every [`Scene`] whether it is true. Where words leave it open, they
//! are read as NLVR's annotators read them: `there are 2 blue blocks` means two and no more, `there is 1 tower with` one
//! tower and no more, `a box with only black and blue items` one that has both, `on` and `above` right above, and an item
//! touches a wall if no pixel is between them; but it closely touches a corner from [`NEAR`] pixels on. Of 1,000
//! statements of NLVR's training part these sentences have 880 word for word but for capitals, articles and full stops,
//! and the scenes read from the pictures agree with 93.9 % of their labels, by which the readings were chosen.
//!
//! # Balance
//!
//! Statements come in pairs with the same sentence: a scene of which it is true and one of which it is false, in random
//! order. So words alone say nothing. In half of the pairs both scenes are drawn alike, if a few trials find them; in
//! the others the second comes of the first by small changes, until the truth changes: a block of another colour, two
//! that change places, an item that moves. A sentence for which no two scenes are found is not used.
//!
//! # Splits
//!
//! The splits are distributed alike and share no scene, whatever the order of the boxes.
//!
//! # Determinism
//!
//! An item depends on split, seed and number alone, and its bytes are the same on every platform.

mod draw;
mod frames;
mod meaning;
mod parts;
mod questions;
mod sample;
mod scatter;
mod scene;
mod split;
mod towers;
mod words;
mod write;

pub use draw::{HEIGHT, Picture, WIDTH};
pub use meaning::{Alike, Clause, Meaning, NEAR, Number, Objects, Place};
pub use questions::Question;
pub use scene::{BOX, Colour, Colours, Kind, MAX_HEIGHT, MAX_ITEMS, Object, Scene, Shape, Size};
pub use split::Split;
pub use write::{Amount, MOST_QUESTIONS, write};

use crate::rng::Rng;
use frames::Form;
use words::Words;

/// The orders that the boxes can be drawn in, as NLVR numbers them.
pub const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// A sentence and a scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What is said.
    pub sentence: String,
    /// What that means.
    pub meaning: Meaning,
    /// Whether it is true of the scene.
    pub truth: bool,
    /// What the picture shows.
    pub scene: Scene,
}

/// How often a sentence is about towers, in a hundred.
const TOWERS: usize = 47;
/// Scenes drawn until one has the other truth.
const DRAWN: usize = 30;
/// Small changes until a scene has the other truth.
const CHANGES: usize = 400;
/// Changes after that, which leave the truth as it is.
const MORE_CHANGES: usize = 4;

/// Generates statement `number` of a split. Statements `2n` and `2n + 1` share a sentence.
pub fn generate(split: Split, seed: u64, number: u64) -> Item {
    let mut rng = Rng::from_key(&[BOXES, split.tag(), seed, number / 2]);
    let first_is_true = rng.coin();
    let truth = first_is_true == number.is_multiple_of(2);
    let kind = a_kind(&mut rng);
    loop {
        if let Some((sentence, meaning, scenes)) = pair(&mut rng, kind, split) {
            let [when_false, when_true] = scenes;
            return Item {
                sentence,
                meaning,
                truth,
                scene: if truth { when_true } else { when_false },
            };
        }
    }
}

/// Sets this world's random numbers apart from others'.
const BOXES: u64 = 0x0062_6f78_6573;

/// So many further statements, or fewer, about the scene of statement `number` of a split, no two alike, and
/// each sentence as often true as false.
pub fn statements(
    split: Split,
    seed: u64,
    number: u64,
    scene: &Scene,
    count: usize,
) -> Vec<Question> {
    let mut rng = Rng::from_key(&[BOXES, STATED, split.tag(), seed, number]);
    questions::statements(&mut rng, scene, count)
}

/// Sets the random numbers of further statements apart.
const STATED: u64 = 0x7374_6174_6564;
/// Sets the random numbers of questions apart from those of statements.
const ASKED: u64 = 0x0061_736b_6564;

/// A sentence, and a scene of which it is false and one of which it is true, if such are found.
fn pair(rng: &mut Rng, kind: Kind, split: Split) -> Option<(String, Meaning, [Scene; 2])> {
    let (meaning, sentence) = say(rng, kind);
    let first = draw(rng, kind, split);
    let truth = meaning.holds(&first);
    let drawn = if rng.coin() {
        (0..DRAWN)
            .map(|_| sample::scene(rng, kind))
            .find(|scene| meaning.holds(scene) != truth && split.has(scene))
    } else {
        None
    };
    let second = drawn.or_else(|| changed(rng, &first, &meaning, split))?;
    let scenes = if truth {
        [second, first]
    } else {
        [first, second]
    };
    Some((sentence, meaning, scenes))
}

fn draw(rng: &mut Rng, kind: Kind, split: Split) -> Scene {
    loop {
        let scene = sample::scene(rng, kind);
        if split.has(&scene) {
            return scene;
        }
    }
}

/// A scene of the other truth that differs little, if one is found.
fn changed(rng: &mut Rng, scene: &Scene, meaning: &Meaning, split: Split) -> Option<Scene> {
    let truth = meaning.holds(scene);
    let mut scene = scene.clone();
    let mut found = None;
    let mut more = rng.below(MORE_CHANGES);
    for _ in 0..CHANGES {
        let before = scene.clone();
        sample::change(rng, &mut scene);
        let flipped = meaning.holds(&scene) != truth;
        if found.is_some() && !flipped {
            scene = before;
        } else if flipped && split.has(&scene) {
            found = Some(scene.clone());
        }
        if found.is_some() {
            if more == 0 {
                break;
            }
            more -= 1;
        }
    }
    found
}

/// So many questions, or fewer, about the scene of statement `number` of a split, no two alike. Their answers do not
/// depend on the order of the boxes.
pub fn questions(
    split: Split,
    seed: u64,
    number: u64,
    scene: &Scene,
    count: usize,
) -> Vec<Question> {
    let mut rng = Rng::from_key(&[BOXES, ASKED, split.tag(), seed, number]);
    questions::questions(&mut rng, scene, count)
}

/// Sentence `number` of a seed: the kind of scenes it is about, what it means, and its words. [`generate`] draws its
/// sentences in the same way, but keeps only those that it finds two scenes for.
pub fn sentence(seed: u64, number: u64) -> (Kind, Meaning, String) {
    let mut rng = Rng::from_key(&[BOXES, 0, seed, number]);
    let kind = a_kind(&mut rng);
    let (meaning, sentence) = say(&mut rng, kind);
    (kind, meaning, sentence)
}

fn a_kind(rng: &mut Rng) -> Kind {
    if rng.percent(TOWERS) {
        Kind::Towers
    } else {
        Kind::Scatter
    }
}

/// A sentence about scenes of a kind.
fn say(rng: &mut Rng, kind: Kind) -> (Meaning, String) {
    let forms: &[Form] = match kind {
        Kind::Towers => &towers::FORMS,
        Kind::Scatter => &scatter::FORMS,
    };
    let weights: Vec<usize> = forms.iter().map(|form| form.0).collect();
    let mut words = Words::new(rng);
    let (_, form) = forms[words.rng.weighted(&weights)];
    let (meaning, sentence) = form(&mut words);
    let sentence = words.finish(&sentence);
    (meaning, sentence)
}
