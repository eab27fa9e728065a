//! Facts stated by a caption, and whether they are true.
//!
//! A fact is one of
//! - an object, that is an instance of a colour and a shape ("two red circles" states two);
//! - the size, the texture or the position of a stated object;
//! - a relation between two stated objects;
//! - the number of objects ("three objects: ...");
//! - the colour of the background.
//!
//! Every stated fact counts for precision. Stated objects are matched one to one with the scene's objects of the same
//! colour and shape, the most detailed statements first, each with the unused object that agrees with most of its
//! details; a detail is true if the matched object has it. An object without a partner is false, and so are all its
//! details. A relation is true if it clearly holds between any two objects of the stated colours and shapes.
//!
//! Every object of the scene is required for recall, and recalled if a stated object was matched with it. Other facts
//! need not be stated.
//!
//! The parser reads any text. It takes what looks like the captions of this world and skips the rest, so that it can
//! score what a model wrote.

use std::ops::AddAssign;

use super::scene::{Background, Colour, NUMBERS, Position, Relation, Scene, Shape, Size, Texture};

/// A noun phrase such as "two small red circles at the top".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mention {
    /// How many objects it stands for: at least 1, at most 7.
    pub count: usize,
    /// The stated size.
    pub size: Option<Size>,
    /// The stated texture.
    pub texture: Option<Texture>,
    /// The stated colour; a caption of this world always has it.
    pub colour: Option<Colour>,
    /// The stated shape; `None` for "object".
    pub shape: Option<Shape>,
    /// The stated position.
    pub position: Option<Position>,
}

/// What a caption says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedCaption {
    /// The objects, in the caption's order.
    pub mentions: Vec<Mention>,
    /// Relations between mentions, by their places in `mentions`.
    pub relations: Vec<(usize, Relation, usize)>,
    /// The stated number of objects.
    pub total: Option<usize>,
    /// The stated background; more than one if the caption contradicts itself.
    pub backgrounds: Vec<Background>,
}

/// Counts from which precision, recall and F1 follow; add them up over captions before dividing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactCounts {
    /// Stated facts that are true.
    pub true_stated: usize,
    /// Stated facts.
    pub stated: usize,
    /// Objects of the scene that the caption states.
    pub recalled: usize,
    /// Objects of the scene.
    pub required: usize,
}

impl FactCounts {
    /// True facts among the stated ones; 0 if nothing is stated.
    pub fn precision(&self) -> f64 {
        ratio(self.true_stated, self.stated)
    }

    /// Stated objects among those of the scene; 0 if there are none.
    pub fn recall(&self) -> f64 {
        ratio(self.recalled, self.required)
    }

    /// The harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        if precision + recall == 0.0 {
            0.0
        } else {
            2.0 * precision * recall / (precision + recall)
        }
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

impl AddAssign for FactCounts {
    fn add_assign(&mut self, other: FactCounts) {
        self.true_stated += other.true_stated;
        self.stated += other.stated;
        self.recalled += other.recalled;
        self.required += other.required;
    }
}

/// Reads a caption.
pub fn parse(caption: &str) -> ParsedCaption {
    let text = caption.to_lowercase();
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let mut parsed = ParsedCaption::default();
    let mut pending: Option<Relation> = None;
    let mut next = Mention::default();
    let mut at = 0;
    while at < words.len() {
        let rest = &words[at..];
        if let Some((background, used)) = background(rest) {
            parsed.backgrounds.push(background);
            next = Mention::default();
            at += used;
            continue;
        }
        if let Some((position, used)) = position(rest) {
            if let Some(last) = parsed.mentions.last_mut() {
                last.position = Some(position);
            }
            at += used;
            continue;
        }
        if let Some((relation, used)) = relation(rest) {
            pending = Some(relation);
            at += used;
            continue;
        }
        let word = rest[0];
        at += 1;
        if let Some(shape) = shape(word) {
            next.shape = Some(shape);
            next.count = next.count.max(1);
            parsed.mentions.push(std::mem::take(&mut next));
            let this = parsed.mentions.len() - 1;
            if let (Some(relation), true) = (pending.take(), this > 0) {
                parsed.relations.push((this - 1, relation, this));
            }
        } else if matches!(word, "object" | "objects") {
            if next.count > 0 {
                parsed.total = Some(next.count);
            }
            next = Mention::default();
        } else if let Some(count) = NUMBERS.iter().position(|&number| number == word) {
            next = Mention {
                count,
                ..Mention::default()
            };
        } else if let Some(size) = Size::from_word(word) {
            next.size = Some(size);
        } else if let Some(texture) = Texture::from_word(word) {
            next.texture = Some(texture);
        } else if let Some(colour) = Colour::from_word(word) {
            next.colour = Some(colour);
        } else {
            // Articles, "and" and unknown words begin a new phrase.
            next = Mention::default();
        }
    }
    parsed
}

fn shape(word: &str) -> Option<Shape> {
    Shape::ALL
        .iter()
        .copied()
        .find(|shape| shape.word() == word || shape.plural() == word)
}

/// "on|against a COLOUR background" or "the background is COLOUR", and its number of words.
fn background(words: &[&str]) -> Option<(Background, usize)> {
    match *words {
        [
            "on" | "against",
            "a" | "an" | "the",
            colour,
            "background",
            ..,
        ] => Some((Background::from_word(colour)?, 4)),
        ["background", "is", colour, ..] => Some((Background::from_word(colour)?, 3)),
        _ => None,
    }
}

/// "in|at|on the POSITION" and its number of words.
fn position(words: &[&str]) -> Option<(Position, usize)> {
    let ["in" | "at" | "on", "the", rest @ ..] = words else {
        return None;
    };
    if let [row @ ("top" | "bottom"), column @ ("left" | "right"), ..] = *rest {
        return Some((Position::from_word(&format!("{row} {column}"))?, 4));
    }
    Some((Position::from_word(rest.first()?)?, 3))
}

/// A relation and its number of words.
fn relation(words: &[&str]) -> Option<(Relation, usize)> {
    Some(match *words {
        ["to", "the", "left", "of", ..] => (Relation::LeftOf, 4),
        ["to", "the", "right", "of", ..] => (Relation::RightOf, 4),
        ["left", "of", ..] => (Relation::LeftOf, 2),
        ["right", "of", ..] => (Relation::RightOf, 2),
        ["above", ..] => (Relation::Above, 1),
        ["below" | "under", ..] => (Relation::Below, 1),
        ["touching", ..] => (Relation::Touching, 1),
        ["inside", ..] => (Relation::Inside, 1),
        _ => return None,
    })
}

/// Compares a caption with the truth.
pub fn score(caption: &str, truth: &Scene) -> FactCounts {
    let parsed = parse(caption);
    let mut counts = FactCounts {
        required: truth.objects.len(),
        ..FactCounts::default()
    };
    let mut check = |is_true: bool| {
        counts.stated += 1;
        counts.true_stated += usize::from(is_true);
    };

    let mut used = vec![false; truth.objects.len()];
    let details = |m: &Mention| {
        usize::from(m.size.is_some())
            + usize::from(m.texture.is_some())
            + usize::from(m.position.is_some())
    };
    let mut order: Vec<&Mention> = parsed.mentions.iter().collect();
    order.sort_by_key(|mention| std::cmp::Reverse(details(mention)));
    for mention in order {
        for _ in 0..mention.count {
            let agreeing = |i: usize| {
                let object = &truth.objects[i];
                usize::from(mention.size == Some(object.size))
                    + usize::from(mention.texture == Some(object.texture))
                    + usize::from(mention.position == Some(object.position))
            };
            let partner = (0..truth.objects.len())
                .filter(|&i| {
                    let object = &truth.objects[i];
                    !used[i]
                        && mention.colour == Some(object.colour)
                        && mention.shape == Some(object.shape)
                })
                .max_by_key(|&i| (agreeing(i), std::cmp::Reverse(i)));
            if let Some(i) = partner {
                used[i] = true;
            }
            check(partner.is_some());
            let object = partner.map(|i| &truth.objects[i]);
            if mention.size.is_some() {
                check(object.map(|o| o.size) == mention.size);
            }
            if mention.texture.is_some() {
                check(object.map(|o| o.texture) == mention.texture);
            }
            if mention.position.is_some() {
                check(object.map(|o| o.position) == mention.position);
            }
        }
    }
    for &(subject, relation, object) in &parsed.relations {
        let is = |mention: usize, i: usize| {
            let (mention, object) = (&parsed.mentions[mention], &truth.objects[i]);
            mention.colour == Some(object.colour) && mention.shape == Some(object.shape)
        };
        check(truth.relations.iter().any(|fact| {
            fact.relation == relation && is(subject, fact.subject) && is(object, fact.object)
        }));
    }
    if let Some(total) = parsed.total {
        check(total == truth.objects.len());
    }
    for &background in &parsed.backgrounds {
        check(background == truth.background);
    }
    counts.recalled = used.iter().filter(|&&used| used).count();
    counts
}
