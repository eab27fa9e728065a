//! Questions about a scene, whatever the order of its boxes. NLVR has none: they teach a model what is in the boxes before
//! it learns from statements, of which each says so little.

use super::meaning::{Objects, Place};
use super::sample;
use super::scene::{Colour, Colours, Kind, Object, Scene, Shape, Size};
use crate::rng::Rng;

/// A question about a picture.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Question {
    /// What is asked.
    pub question: String,
    /// A number in digits, `yes` or `no`; of a statement `true` or `false`.
    pub answer: String,
    /// `count` of items, `boxes` that have some, `existence`, or `statement`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// So many questions about a scene, none of them twice.
pub(super) fn questions(rng: &mut Rng, scene: &Scene, count: usize) -> Vec<Question> {
    // there are hundreds, so a few more trials than questions are enough
    no_two_alike(count, 8, || Some(question(rng, scene)))
}

/// So many statements about a scene, none of them twice. Each is one whose truth is another of a second scene, drawn for
/// it: so of all scenes that a sentence is said of, it is as often true as false, and words alone say nothing.
pub(super) fn statements(rng: &mut Rng, scene: &Scene, count: usize) -> Vec<Question> {
    // a third or so are taken
    no_two_alike(count, 64, || {
        let (meaning, sentence) = super::say(rng, scene.kind);
        let other = sample::scene(rng, scene.kind);
        let truth = meaning.holds(scene);
        (meaning.holds(&other) != truth).then(|| Question {
            question: sentence,
            answer: truth.to_string(),
            kind: "statement".to_owned(),
        })
    })
}

/// `count` of what is drawn, or fewer after `trials` for each that is wanted.
fn no_two_alike(
    count: usize,
    trials: usize,
    mut draw: impl FnMut() -> Option<Question>,
) -> Vec<Question> {
    let mut found: Vec<Question> = Vec::new();
    for _ in 0..trials * count {
        if found.len() == count {
            break;
        }
        found.extend(draw().filter(|new| found.iter().all(|q| q.question != new.question)));
    }
    found
}

fn question(rng: &mut Rng, scene: &Scene) -> Question {
    // most of what is asked about is there, so that the answer is not mostly none
    let like = rng.percent(70).then(|| {
        let items: Vec<&Object> = scene.boxes.iter().flatten().collect();
        *items[rng.below(items.len())]
    });
    let (kind, words) = items(rng, scene.kind, like);
    let of_boxes = scene.boxes.iter().map(|items| kind.count(items));
    let (total, having) = (
        of_boxes.clone().sum::<usize>(),
        of_boxes.filter(|&n| n > 0).count(),
    );
    let [one, many] = words;
    let one = match one.starts_with("item") {
        true => format!("an {one}"),
        false => format!("a {one}"),
    };
    let (question, answer, name) = match rng.below(4) {
        0 => {
            let answer = if total > 0 { "yes" } else { "no" };
            (format!("is there {one}?"), answer.to_owned(), "existence")
        }
        1 => {
            let place = if scene.kind == Kind::Towers {
                "towers"
            } else {
                "boxes"
            };
            (
                format!("how many {place} have {one}?"),
                having.to_string(),
                "boxes",
            )
        }
        _ => (
            format!("how many {many} are there?"),
            total.to_string(),
            "count",
        ),
    };
    Question {
        question,
        answer,
        kind: name.to_owned(),
    }
}

/// A kind of items, of which a given one may be, and its words for one and for many.
fn items(rng: &mut Rng, scene: Kind, like: Option<Object>) -> (Objects, [String; 2]) {
    let mut kind = Objects::ANY;
    let mut before = Vec::new();
    if scene == Kind::Scatter && rng.percent(25) {
        let size = like.map_or_else(|| rng.pick(&Size::ALL), |item| item.size);
        kind.size = Some(size);
        before.push(match size {
            Size::Small => "small",
            Size::Medium => "medium",
            Size::Large => "big",
        });
    }
    if rng.percent(80) {
        let colour = like.map_or_else(|| rng.pick(&Colour::ALL), |item| item.colour);
        kind.colours = Colours::one(colour);
        before.push(colour.word());
    }
    let noun = match scene {
        Kind::Towers => "block",
        Kind::Scatter if rng.percent(65) => {
            let shape = like.map_or_else(|| rng.pick(&Shape::ALL), |item| item.shape);
            kind.shape = Some(shape);
            shape.word()
        }
        Kind::Scatter => "item",
    };
    let mut behind = "";
    if rng.percent(30) {
        let (place, words) = match scene {
            Kind::Towers => rng.pick(&[
                (Place::Level(0), " at the base"),
                (Place::FromTop(0), " at the top"),
                (Place::Middle, " in the middle"),
            ]),
            Kind::Scatter => rng.pick(&[
                (Place::Wall, " touching a wall"),
                (Place::Bottom, " touching the bottom"),
                (Place::Roof, " touching the top"),
                (Place::Side, " touching a side"),
            ]),
        };
        kind.place = Some(place);
        behind = words;
    }
    let before = before
        .iter()
        .map(|word| format!("{word} "))
        .collect::<String>();
    let words = ["", "s"].map(|plural| format!("{before}{noun}{plural}{behind}"));
    (kind, words)
}
