//! Questions with one-word answers.
//!
//! A question alone must not give its answer away. So the answer is chosen before the question: for yes and no a coin
//! is thrown, in scenes where both answers are possible for that form of question; counts come from the plan of the
//! scene; and the world has no preferred values, so attributes are all equally likely.

use serde::{Deserialize, Serialize};

use super::captions::position_phrase;
use super::plan::random_attributes;
use super::scene::{
    Attributes, Colour, Kind, NUMBERS, Relation, Scene, Shape, Size, Texture, with_article,
};
use super::split::{HELD_OUT_COLOUR_SHAPE, HELD_OUT_TEXTURE_SHAPE, is_held_out};
use crate::rng::Rng;

/// What a question asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuestionKind {
    /// Whether something is there.
    Existence,
    /// How many there are.
    Count,
    /// Colour, shape, size or texture of one object, or the background.
    Attribute,
    /// Numbers, sizes or other attributes compared.
    Comparison,
    /// Where objects are, relative to one another or in the picture.
    Relation,
}

impl QuestionKind {
    /// The name, as records and scores have it.
    pub fn name(self) -> &'static str {
        match self {
            QuestionKind::Existence => "existence",
            QuestionKind::Count => "count",
            QuestionKind::Attribute => "attribute",
            QuestionKind::Comparison => "comparison",
            QuestionKind::Relation => "relation",
        }
    }
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qa {
    /// Lower case, ends with "?".
    pub question: String,
    /// One lower-case word.
    pub answer: String,
    /// What the question asks about.
    #[serde(rename = "type")]
    pub kind: QuestionKind,
    /// What a comparison compares, in the question's order, as a model may say before the answer: "two three". Part of
    /// no record.
    #[serde(skip)]
    pub working: Option<String>,
}

impl Qa {
    /// The question as records have it.
    pub(crate) fn without_working(&self) -> Qa {
        Qa {
            working: None,
            ..self.clone()
        }
    }
}

/// What the questions of an item are made from.
pub(crate) struct Source<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) counts: &'a [(Kind, usize)],
    /// In `compositional` the object with the held-out pair, and the pair.
    pub(crate) focus: Option<(usize, Kind)>,
}

type Text = Option<(String, String)>;
type TextWithWorking = Option<(String, String, Option<String>)>;

fn without_working((question, answer): (String, String)) -> (String, String, Option<String>) {
    (question, answer, None)
}

/// The questions of an item: at most 12, of all kinds that the scene allows.
pub(crate) fn questions(rng: &mut Rng, source: &Source) -> Vec<Qa> {
    let mut writer = Writer {
        objects: source
            .scene
            .objects
            .iter()
            .map(|o| o.attributes())
            .collect(),
        source,
    };
    let mut all: Vec<Qa> = Vec::with_capacity(12);
    let mut add =
        |kind: QuestionKind, wanted: usize, ask: &mut dyn FnMut(usize) -> TextWithWorking| {
            let mut found = 0;
            for attempt in 0..wanted * 4 {
                if found == wanted {
                    break;
                }
                if let Some((question, answer, working)) = ask(attempt)
                    && !all.iter().any(|qa| qa.question == question)
                {
                    all.push(Qa {
                        question,
                        answer,
                        kind,
                        working,
                    });
                    found += 1;
                }
            }
        };
    add(QuestionKind::Existence, 2, &mut |_| {
        writer.existence(rng).map(without_working)
    });
    let planned = source.counts.len();
    let with_total = usize::from(rng.percent(30));
    add(QuestionKind::Count, planned + with_total, &mut |attempt| {
        (attempt < planned + with_total).then(|| without_working(writer.count(rng, attempt)))
    });
    add(QuestionKind::Attribute, 3, &mut |_| {
        writer.attribute(rng).map(without_working)
    });
    add(QuestionKind::Comparison, 2, &mut |_| writer.comparison(rng));
    add(QuestionKind::Relation, 2, &mut |_| {
        writer.relation(rng).map(without_working)
    });
    all
}

struct Writer<'a> {
    objects: Vec<Attributes>,
    source: &'a Source<'a>,
}

/// One of the four attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attribute {
    Size,
    Texture,
    Colour,
    Shape,
}

impl Attribute {
    fn of(self, a: &Attributes) -> &'static str {
        match self {
            Attribute::Size => a.size.word(),
            Attribute::Texture => a.texture.word(),
            Attribute::Colour => a.colour.word(),
            Attribute::Shape => a.shape.word(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Attribute::Size => "size",
            Attribute::Texture => "texture",
            Attribute::Colour => "colour",
            Attribute::Shape => "shape",
        }
    }
}

/// A kind from some of an object's attributes; the flags are size, texture, colour, shape.
fn kind_of(a: &Attributes, [size, texture, colour, shape]: [bool; 4]) -> Kind {
    Kind {
        size: size.then_some(a.size),
        texture: texture.then_some(a.texture),
        colour: colour.then_some(a.colour),
        shape: shape.then_some(a.shape),
    }
}

const SHAPE: [bool; 4] = [false, false, false, true];
const COLOUR: [bool; 4] = [false, false, true, false];
const TEXTURE: [bool; 4] = [false, true, false, false];
const SIZE: [bool; 4] = [true, false, false, false];
const COLOUR_SHAPE: [bool; 4] = [false, false, true, true];
const SIZE_SHAPE: [bool; 4] = [true, false, false, true];
const TEXTURE_SHAPE: [bool; 4] = [false, true, false, true];
const TEXTURE_COLOUR: [bool; 4] = [false, true, true, false];
const SIZE_COLOUR: [bool; 4] = [true, false, true, false];
const SIZE_COLOUR_SHAPE: [bool; 4] = [true, false, true, true];

fn yes_or_no(yes: bool) -> String {
    (if yes { "yes" } else { "no" }).to_owned()
}

fn two_words(first: &str, second: &str) -> Option<String> {
    Some(format!("{first} {second}"))
}

impl Writer<'_> {
    fn number_of(&self, kind: &Kind) -> usize {
        self.objects.iter().filter(|a| kind.includes(a)).count()
    }

    /// An object; in `compositional` mostly the one with the held-out pair.
    fn some_object(&self, rng: &mut Rng) -> usize {
        match self.source.focus {
            Some((focus, _)) if rng.percent(70) => focus,
            _ => rng.below(self.objects.len()),
        }
    }

    /// Attributes for a kind that is asked about but missing: in training from the world's own distribution, so that
    /// no phrase is more often missing than present.
    fn decoy(&self, rng: &mut Rng) -> Attributes {
        let mut decoy = random_attributes(rng, self.source.focus.is_some());
        if self.source.focus.is_some() && rng.percent(60) {
            if rng.percent(75) {
                (decoy.colour, decoy.shape) = rng.pick(&HELD_OUT_COLOUR_SHAPE);
            } else {
                (decoy.texture, decoy.shape) = rng.pick(&HELD_OUT_TEXTURE_SHAPE);
            }
        }
        decoy
    }

    fn existence(&mut self, rng: &mut Rng) -> Text {
        const FORMS: [[bool; 4]; 9] = [
            COLOUR_SHAPE,
            SHAPE,
            COLOUR,
            SIZE_SHAPE,
            TEXTURE_SHAPE,
            TEXTURE_COLOUR,
            SIZE_COLOUR,
            TEXTURE,
            SIZE,
        ];
        let mut form = FORMS[rng.weighted(&[38, 11, 11, 8, 8, 6, 6, 6, 6])];
        let present = self.some_object(rng);
        if let Some((focus, pair)) = self.source.focus
            && present == focus
            && rng.percent(60)
        {
            form = if pair.colour.is_some() {
                COLOUR_SHAPE
            } else {
                TEXTURE_SHAPE
            };
        }
        let yes = rng.coin();
        let present = kind_of(&self.objects[present], form);
        // Found even when the answer is yes: a form of question is only used where both answers are possible.
        let near_miss = rng.percent(70);
        let attributes = form.iter().filter(|&&given| given).count();
        let absent = (0..60).find_map(|attempt| {
            let kind = kind_of(&self.decoy(rng), form);
            // A near miss has each of its words in the picture, though not on one object.
            let words_present = |kind: &Kind| {
                [
                    Kind {
                        size: kind.size,
                        ..Kind::default()
                    },
                    Kind {
                        texture: kind.texture,
                        ..Kind::default()
                    },
                    Kind {
                        colour: kind.colour,
                        ..Kind::default()
                    },
                    Kind {
                        shape: kind.shape,
                        ..Kind::default()
                    },
                ]
                .iter()
                .all(|single| self.number_of(single) > 0)
            };
            let wanted = attributes == 1 || !near_miss || attempt > 45 || words_present(&kind);
            (wanted && self.number_of(&kind) == 0).then_some(kind)
        })?;
        let kind = if yes { present } else { absent };
        let noun = rng.pick(&["object", "thing"]);
        let (one, several) = (
            with_article(&kind.phrase(false, noun)),
            kind.phrase(
                true,
                if noun == "object" {
                    "objects"
                } else {
                    "things"
                },
            ),
        );
        let question = match rng.below(5) {
            0 => format!("is there {one}?"),
            1 => format!("is there {one} in the picture?"),
            2 => format!("are there any {several}?"),
            3 => format!("can you see {one}?"),
            _ => format!("does the picture show {one}?"),
        };
        Some((question, yes_or_no(yes)))
    }

    fn count(&self, rng: &mut Rng, which: usize) -> (String, String) {
        let (kind, number) = match self.source.counts.get(which) {
            Some(&(kind, number)) => (kind, number),
            None => (Kind::default(), self.objects.len()),
        };
        let things = kind.phrase(true, rng.pick(&["objects", "objects", "things"]));
        let question = match rng.below(4) {
            0 => format!("how many {things} are there?"),
            1 => format!("how many {things} are in the picture?"),
            2 => format!("how many {things} can you see?"),
            _ => format!("what is the number of {things}?"),
        };
        (question, NUMBERS[number].to_owned())
    }

    /// A phrase that fits this object alone and does not use the attributes to avoid: "the red star".
    fn refer(&self, rng: &mut Rng, index: usize, avoid: &[Attribute]) -> Option<String> {
        const FORMS: [[bool; 4]; 9] = [
            COLOUR_SHAPE,
            SHAPE,
            COLOUR,
            SIZE_SHAPE,
            TEXTURE_SHAPE,
            SIZE_COLOUR,
            TEXTURE_COLOUR,
            SIZE_COLOUR_SHAPE,
            TEXTURE,
        ];
        const WEIGHTS: [usize; 9] = [40, 14, 14, 8, 8, 6, 6, 4, 3];
        let mut weights = WEIGHTS;
        for (form, weight) in FORMS.iter().zip(&mut weights) {
            let used = [
                Attribute::Size,
                Attribute::Texture,
                Attribute::Colour,
                Attribute::Shape,
            ];
            let avoided = form
                .iter()
                .zip(used)
                .any(|(&given, attribute)| given && avoid.contains(&attribute));
            let kind = kind_of(&self.objects[index], *form);
            if avoided || self.number_of(&kind) != 1 {
                *weight = 0;
            }
        }
        if weights.iter().sum::<usize>() == 0 {
            return None;
        }
        let form = FORMS[rng.weighted(&weights)];
        let kind = kind_of(&self.objects[index], form);
        let noun = rng.pick(&["object", "object", "thing"]);
        Some(format!("the {}", kind.phrase(false, noun)))
    }

    /// "the object in the top left", if it is alone there.
    fn refer_by_position(&self, index: usize) -> Option<String> {
        let objects = &self.source.scene.objects;
        let position = objects[index].position;
        let alone = objects.iter().filter(|o| o.position == position).count() == 1;
        alone.then(|| format!("the object {}", position_phrase(position)))
    }

    fn attribute(&mut self, rng: &mut Rng) -> Text {
        let index = self.some_object(rng);
        let object = self.objects[index];
        let which = rng.weighted(&[24, 22, 15, 12, 22, 5]);
        let reference = |rng: &mut Rng, avoid: Attribute| {
            if rng.percent(15) {
                self.refer_by_position(index)
            } else {
                self.refer(rng, index, &[avoid])
            }
        };
        match which {
            0 => {
                let it = reference(rng, Attribute::Colour)?;
                let question = match rng.below(3) {
                    0 => format!("what colour is {it}?"),
                    1 => format!("what is the colour of {it}?"),
                    _ => format!("which colour does {it} have?"),
                };
                Some((question, object.colour.word().to_owned()))
            }
            1 => {
                let it = reference(rng, Attribute::Shape)?;
                let question = match rng.below(3) {
                    0 => format!("what shape is {it}?"),
                    1 => format!("what is the shape of {it}?"),
                    _ => format!("which shape does {it} have?"),
                };
                Some((question, object.shape.word().to_owned()))
            }
            2 => {
                let it = reference(rng, Attribute::Texture)?;
                // The list of all textures must not be said of a shape that one of them is held out for.
                let may_list = HELD_OUT_TEXTURE_SHAPE
                    .iter()
                    .all(|&(_, shape)| shape != object.shape);
                let question = match rng.below(if may_list { 3 } else { 2 }) {
                    0 => format!("what texture does {it} have?"),
                    1 => format!("what is the texture of {it}?"),
                    _ => format!("is {it} plain, striped or dotted?"),
                };
                Some((question, object.texture.word().to_owned()))
            }
            3 => {
                let it = reference(rng, Attribute::Size)?;
                let question = match rng.below(3) {
                    0 => format!("what size is {it}?"),
                    1 => format!("is {it} large or small?"),
                    _ => format!("is {it} small or large?"),
                };
                Some((question, object.size.word().to_owned()))
            }
            4 => {
                let attribute = rng.pick(&[
                    Attribute::Size,
                    Attribute::Texture,
                    Attribute::Colour,
                    Attribute::Colour,
                ]);
                let it = self.refer(rng, index, &[attribute])?;
                let yes = rng.coin();
                let says = if yes {
                    attribute.of(&object)
                } else {
                    self.other_value(rng, &object, attribute)
                };
                Some((format!("is {it} {says}?"), yes_or_no(yes)))
            }
            _ => {
                let question = match rng.below(2) {
                    0 => "what colour is the background?",
                    _ => "what is the colour of the background?",
                };
                let answer = self.source.scene.background.word();
                Some((question.to_owned(), answer.to_owned()))
            }
        }
    }

    /// Another value that the object could have had.
    fn other_value(
        &self,
        rng: &mut Rng,
        object: &Attributes,
        attribute: Attribute,
    ) -> &'static str {
        loop {
            let mut other = *object;
            match attribute {
                Attribute::Size => other.size = rng.pick(Size::ALL),
                Attribute::Texture => other.texture = rng.pick(Texture::ALL),
                Attribute::Colour => other.colour = rng.pick(Colour::ALL),
                Attribute::Shape => other.shape = rng.pick(Shape::ALL),
            }
            let allowed = self.source.focus.is_some()
                || !is_held_out(Some(other.colour), Some(other.texture), other.shape);
            if other != *object && allowed {
                return attribute.of(&other);
            }
        }
    }

    fn comparison(&mut self, rng: &mut Rng) -> TextWithWorking {
        match rng.weighted(&[45, 10, 25, 20]) {
            0 => self.more_or_fewer(rng),
            1 => self.as_many(rng),
            2 => self.larger_or_smaller(rng).map(without_working),
            _ => self.same(rng),
        }
    }

    /// Pairs of values of one attribute with their counts, each pair in both orders.
    fn pairs_of_kinds(&self, rng: &mut Rng) -> Vec<(Kind, usize, Kind, usize)> {
        let form = [SHAPE, COLOUR, TEXTURE][rng.weighted(&[40, 40, 20])];
        let mut kinds: Vec<Kind> = Vec::new();
        for object in &self.objects {
            let kind = kind_of(object, form);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        // One value that is missing, now and then.
        if rng.percent(35) || kinds.len() == 1 {
            let missing = kind_of(&self.decoy(rng), form);
            if !kinds.contains(&missing) {
                kinds.push(missing);
            }
        }
        let mut pairs = Vec::new();
        for &a in &kinds {
            for &b in &kinds {
                if a != b {
                    pairs.push((a, self.number_of(&a), b, self.number_of(&b)));
                }
            }
        }
        pairs
    }

    fn more_or_fewer(&self, rng: &mut Rng) -> TextWithWorking {
        let pairs = self.pairs_of_kinds(rng);
        let (yes, more) = (rng.coin(), rng.coin());
        let level = !yes && rng.percent(25) && pairs.iter().any(|p| p.1 == p.3);
        let fitting: Vec<_> = pairs
            .iter()
            .filter(|&&(_, a, _, b)| {
                if level {
                    a == b
                } else {
                    a != b && (a > b) == (yes == more)
                }
            })
            .collect();
        // With level counts only, yes would be impossible.
        if fitting.is_empty() || pairs.iter().all(|p| p.1 == p.3) {
            return None;
        }
        let (a, many, b, others) = rng.pick(&fitting);
        let question = format!(
            "are there {} {} than {}?",
            if more { "more" } else { "fewer" },
            a.phrase(true, "objects"),
            b.phrase(true, "objects")
        );
        let working = two_words(NUMBERS[*many], NUMBERS[*others]);
        Some((question, yes_or_no(yes), working))
    }

    fn as_many(&self, rng: &mut Rng) -> TextWithWorking {
        let pairs = self.pairs_of_kinds(rng);
        let yes = rng.coin();
        let (level, other): (Vec<_>, Vec<_>) = pairs.iter().partition(|p| p.1 == p.3);
        if level.is_empty() || other.is_empty() {
            return None;
        }
        let (a, many, b, others) = rng.pick(if yes { &level } else { &other });
        let question = format!(
            "are there as many {} as {}?",
            a.phrase(true, "objects"),
            b.phrase(true, "objects")
        );
        let working = two_words(NUMBERS[many], NUMBERS[others]);
        Some((question, yes_or_no(yes), working))
    }

    fn larger_or_smaller(&self, rng: &mut Rng) -> Text {
        let first = self.some_object(rng);
        let others: Vec<usize> = (0..self.objects.len())
            .filter(|&i| self.objects[i].size != self.objects[first].size)
            .collect();
        if others.is_empty() {
            return None;
        }
        let second = rng.pick(&others);
        let avoid = [Attribute::Size];
        let mut pair = [
            (self.refer(rng, first, &avoid)?, self.objects[first].size),
            (self.refer(rng, second, &avoid)?, self.objects[second].size),
        ];
        let (yes, larger) = (rng.coin(), rng.coin());
        if (pair[0].1 == Size::Large) != (yes == larger) {
            pair.swap(0, 1);
        }
        let question = format!(
            "is {} {} than {}?",
            pair[0].0,
            if larger { "larger" } else { "smaller" },
            pair[1].0
        );
        Some((question, yes_or_no(yes)))
    }

    fn same(&self, rng: &mut Rng) -> TextWithWorking {
        let attribute = rng.pick(&[
            Attribute::Colour,
            Attribute::Shape,
            Attribute::Texture,
            Attribute::Size,
        ]);
        let mut pairs = Vec::new();
        for i in 0..self.objects.len() {
            for j in 0..self.objects.len() {
                if i != j
                    && let Some(a) = self.refer(rng, i, &[attribute])
                    && let Some(b) = self.refer(rng, j, &[attribute])
                {
                    let values = [i, j].map(|at| attribute.of(&self.objects[at]));
                    pairs.push((a, b, values));
                }
            }
        }
        let yes = rng.coin();
        let (same, other): (Vec<_>, Vec<_>) = pairs.iter().partition(|pair| pair.2[0] == pair.2[1]);
        if same.is_empty() || other.is_empty() {
            return None;
        }
        let (a, b, values) = rng.pick(if yes { &same } else { &other });
        let word = attribute.word();
        let question = match rng.below(2) {
            0 => format!("do {a} and {b} have the same {word}?"),
            _ => format!("does {a} have the same {word} as {b}?"),
        };
        let working = two_words(values[0], values[1]);
        Some((question, yes_or_no(yes), working))
    }

    fn relation(&mut self, rng: &mut Rng) -> Text {
        match rng.weighted(&[45, 15, 20, 20]) {
            0 => self.direction(rng),
            1 => self.contact(rng),
            2 => self.neighbour(rng),
            _ => self.contact_neighbour(rng),
        }
    }

    /// "is the red circle left of the square?"
    fn direction(&self, rng: &mut Rng) -> Text {
        let first = self.some_object(rng);
        let facts: Vec<_> = self
            .source
            .scene
            .relations
            .iter()
            .filter(|fact| {
                fact.subject == first
                    && !matches!(fact.relation, Relation::Touching | Relation::Inside)
            })
            .collect();
        if facts.is_empty() {
            return None;
        }
        let fact = rng.pick(&facts);
        let subject = self.refer(rng, fact.subject, &[])?;
        let object = self.refer(rng, fact.object, &[])?;
        let yes = rng.coin();
        let truth = fact.relation;
        let said = if yes { truth } else { truth.reversed()? };
        let (subject, said, object) = if rng.coin() {
            (subject, said, object)
        } else {
            (object, said.reversed()?, subject)
        };
        let to_the = matches!(said, Relation::LeftOf | Relation::RightOf) && rng.coin();
        let link = if to_the { "to the " } else { "" };
        Some((
            format!("is {subject} {link}{said} {object}?"),
            yes_or_no(yes),
        ))
    }

    /// "is the red circle inside the ring?", "is the star touching the heart?"
    fn contact(&self, rng: &mut Rng) -> Text {
        let scene = self.source.scene;
        let facts: Vec<_> = scene
            .relations
            .iter()
            .filter(|fact| matches!(fact.relation, Relation::Touching | Relation::Inside))
            .collect();
        if facts.is_empty() {
            return None;
        }
        let fact = rng.pick(&facts);
        // The other answer needs an object that could have been there as well.
        let others: Vec<usize> = (0..self.objects.len())
            .filter(|&i| {
                i != fact.object
                    && i != fact.subject
                    && self.objects[i].colour != self.objects[fact.object].colour
                    && (fact.relation == Relation::Touching || self.objects[i].size == Size::Small)
                    && ![Relation::Touching, Relation::Inside]
                        .iter()
                        .any(|&r| scene.holds(i, r, fact.object) || scene.holds(fact.object, r, i))
            })
            .collect();
        if others.is_empty() {
            return None;
        }
        let yes = rng.coin();
        let other = rng.pick(&others);
        let there = self.refer(rng, fact.subject, &[])?;
        let elsewhere = self.refer(rng, other, &[])?;
        let object = self.refer(rng, fact.object, &[])?;
        let subject = if yes { there } else { elsewhere };
        Some((
            format!("is {subject} {} {object}?", fact.relation),
            yes_or_no(yes),
        ))
    }

    /// "what shape is the object left of the star?", if one object is there and no other comes near to it.
    fn neighbour(&self, rng: &mut Rng) -> Text {
        let scene = self.source.scene;
        let anchor = self.some_object(rng);
        let relation = rng.pick(&[
            Relation::LeftOf,
            Relation::RightOf,
            Relation::Above,
            Relation::Below,
        ]);
        let there: Vec<usize> = (0..self.objects.len())
            .filter(|&i| scene.holds(i, relation, anchor))
            .collect();
        let [only] = there[..] else { return None };
        let opposite = relation.reversed()?;
        let others_opposite = (0..self.objects.len())
            .all(|i| i == anchor || i == only || scene.holds(i, opposite, anchor));
        if !others_opposite {
            return None;
        }
        let place = format!("{relation} {}", self.refer(rng, anchor, &[])?);
        self.ask_what(rng, only, &place)
    }

    /// "what is inside the ring?", "what colour is the object touching the star?"
    fn contact_neighbour(&self, rng: &mut Rng) -> Text {
        let scene = self.source.scene;
        let facts: Vec<_> = scene
            .relations
            .iter()
            .filter(|fact| matches!(fact.relation, Relation::Touching | Relation::Inside))
            .collect();
        if facts.is_empty() {
            return None;
        }
        let fact = rng.pick(&facts);
        let alone = facts
            .iter()
            .filter(|other| other.object == fact.object && other.relation == fact.relation)
            .count()
            == 1;
        if !alone {
            return None;
        }
        let place = format!("{} {}", fact.relation, self.refer(rng, fact.object, &[])?);
        self.ask_what(rng, fact.subject, &place)
    }

    fn ask_what(&self, rng: &mut Rng, index: usize, place: &str) -> Text {
        let object = self.objects[index];
        Some(match rng.below(4) {
            0 => (
                format!("what shape is the object {place}?"),
                object.shape.word().to_owned(),
            ),
            1 => (
                format!("what shape is {place}?"),
                object.shape.word().to_owned(),
            ),
            2 => (
                format!("what colour is the object {place}?"),
                object.colour.word().to_owned(),
            ),
            _ => (
                format!("which colour does the object {place} have?"),
                object.colour.word().to_owned(),
            ),
        })
    }
}
