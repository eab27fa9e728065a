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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// How many objects it stands for: 0 to 7.
    pub count: usize,
    /// The stated size.
    pub size: Option<Size>,
    /// The stated texture.
    pub texture: Option<Texture>,
    /// The stated colour; a caption of this world always has it.
    pub colour: Option<Colour>,
    /// The stated shape.
    pub shape: Shape,
    /// The stated position.
    pub position: Option<Position>,
}

/// What has been read of a noun phrase before its noun.
#[derive(Default)]
struct Beginning {
    count: Option<usize>,
    size: Option<Size>,
    texture: Option<Texture>,
    colour: Option<Colour>,
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
    let mut begun = Beginning::default();
    let mut at = 0;
    while at < words.len() {
        let rest = &words[at..];
        if let Some((background, used)) = background(rest) {
            parsed.backgrounds.push(background);
            begun = Beginning::default();
            at += used;
            continue;
        }
        if let Some((position, used)) = position(rest) {
            if let Some(last) = parsed.mentions.last_mut() {
                last.position = Some(position);
            }
            begun = Beginning::default();
            at += used;
            continue;
        }
        if let Some((relation, used)) = relation(rest) {
            pending = Some(relation);
            begun = Beginning::default();
            at += used;
            continue;
        }
        let word = rest[0];
        at += 1;
        if let Some(shape) = shape(word) {
            let this = parsed.mentions.len();
            parsed.mentions.push(Mention {
                count: begun.count.unwrap_or(1),
                size: begun.size,
                texture: begun.texture,
                colour: begun.colour,
                shape,
                position: None,
            });
            begun = Beginning::default();
            if let (Some(relation), true) = (pending.take(), this > 0) {
                parsed.relations.push((this - 1, relation, this));
            }
        } else if matches!(word, "object" | "objects") {
            parsed.total = begun.count.or(parsed.total);
            begun = Beginning::default();
        } else if let Some(count) = NUMBERS.iter().position(|&number| number == word) {
            begun = Beginning {
                count: Some(count),
                ..Beginning::default()
            };
        } else if let Some(size) = Size::from_word(word) {
            begun.size = Some(size);
        } else if let Some(texture) = Texture::from_word(word) {
            begun.texture = Some(texture);
        } else if let Some(colour) = Colour::from_word(word) {
            begun.colour = Some(colour);
        } else {
            // Articles, "and" and unknown words begin a new phrase.
            begun = Beginning::default();
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
                        && mention.shape == object.shape
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
            mention.colour == Some(object.colour) && mention.shape == object.shape
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::{Object, RelationFact};

    fn object(
        size: Size,
        texture: Texture,
        colour: Colour,
        shape: Shape,
        position: Position,
    ) -> Object {
        Object {
            shape,
            colour,
            size,
            texture,
            position,
            bounds: [0; 4],
        }
    }

    /// A large striped and a small plain red circle, and a small dotted blue ring left of the first.
    fn scene() -> Scene {
        Scene {
            background: Background::White,
            objects: vec![
                object(
                    Size::Large,
                    Texture::Striped,
                    Colour::Red,
                    Shape::Circle,
                    Position::Right,
                ),
                object(
                    Size::Small,
                    Texture::Plain,
                    Colour::Red,
                    Shape::Circle,
                    Position::Top,
                ),
                object(
                    Size::Small,
                    Texture::Dotted,
                    Colour::Blue,
                    Shape::Ring,
                    Position::Left,
                ),
            ],
            relations: vec![RelationFact {
                subject: 2,
                relation: Relation::LeftOf,
                object: 0,
            }],
        }
    }

    #[test]
    fn every_part_of_a_caption_is_read() {
        let parsed = parse(
            "three objects: two small striped red circles in the top left and a blue ring \
             to the left of an orange star, the background is grey",
        );
        assert_eq!(parsed.total, Some(3));
        assert_eq!(parsed.backgrounds, [Background::Grey]);
        assert_eq!(parsed.relations, [(1, Relation::LeftOf, 2)]);
        assert_eq!(
            parsed.mentions[0],
            Mention {
                count: 2,
                size: Some(Size::Small),
                texture: Some(Texture::Striped),
                colour: Some(Colour::Red),
                shape: Shape::Circle,
                position: Some(Position::TopLeft),
            }
        );
        assert_eq!(parsed.mentions.len(), 3);
        assert_eq!(parsed.mentions[2].colour, Some(Colour::Orange));
    }

    #[test]
    fn facts_count_as_defined() {
        // Caption, true facts, stated facts, recalled objects.
        for (caption, true_stated, stated, recalled) in [
            ("", 0, 0, 0),
            ("two red circles and a blue ring", 3, 3, 3),
            ("a red circle and a blue ring", 2, 2, 2),
            ("three red circles", 2, 3, 2),
            ("zero stars", 0, 0, 0),
            ("a circle", 0, 1, 0),
            ("a large striped red circle on the right", 4, 4, 1),
            // The details belong to different circles: object and two of three details agree.
            ("a large striped red circle at the top", 3, 4, 1),
            // Matched by what they say, not by their order.
            ("a small red circle and a large red circle", 4, 4, 2),
            ("a red circle and a striped red circle", 3, 3, 2),
            // A wrong object takes its details with it.
            ("a large striped green circle on the right", 0, 4, 0),
            ("a blue ring left of a red circle", 3, 3, 2),
            ("a blue ring right of a red circle", 2, 3, 2),
            ("three objects: a blue ring on a white background", 3, 3, 1),
            ("four objects: a blue ring on a grey background", 1, 3, 1),
        ] {
            let expected = FactCounts {
                true_stated,
                stated,
                recalled,
                required: 3,
            };
            assert_eq!(score(caption, &scene()), expected, "{caption}");
        }
    }

    #[test]
    fn any_text_is_read_without_panic() {
        let words = [
            "in",
            "the",
            "top",
            "left",
            "of",
            "to",
            "background",
            "is",
            "on",
            "a",
            "seven",
            "red",
            "rings",
            "inside",
            "objects",
            "ß",
            ",",
            "striped",
            "against",
            "white",
            "zero",
        ];
        let mut rng = crate::rng::Rng::from_key(&[3]);
        for _ in 0..5000 {
            let text: Vec<&str> = (0..rng.below(12)).map(|_| rng.pick(&words)).collect();
            let counts = score(&text.join(" "), &scene());
            assert!(counts.true_stated <= counts.stated && counts.recalled <= counts.required);
        }
    }

    #[test]
    fn f1_is_the_harmonic_mean_and_zero_without_facts() {
        let counts = FactCounts {
            true_stated: 1,
            stated: 2,
            recalled: 3,
            required: 3,
        };
        assert!((counts.f1() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(FactCounts::default().f1(), 0.0);
    }
}
