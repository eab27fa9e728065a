//! Sentences about scattered items.

use super::frames::{self, Condition, Form, Noun, Part, Said};
use super::meaning::{Alike, Clause, Meaning, Number, Objects, Place};
use super::parts;
use super::scene::Colours;
use super::words::{Words, capital, has, some, things};

pub(super) const FORMS: [Form; 8] = [
    (96, closely_touching),
    (98, edge),
    (18, wall),
    (48, count),
    (195, in_boxes),
    (54, in_grey_boxes),
    (4, in_one_box),
    (4, same_number),
];

/// Conditions on boxes.
const OF_BOXES: [Part; 16] = [
    (5, touching_each_other),
    (8, colours_and_kind),
    (170, kinds),
    (50, counted),
    (12, touching_part),
    (7, all_of),
    (7, one_of),
    (8, only_kind),
    (6, different),
    (12, parts::counted),
    (22, parts::number),
    (14, parts::several),
    (30, parts::only),
    (16, parts::variety),
    (10, parts::of_which),
    (9, parts::single),
];

/// Conditions on boxes that are called grey.
const OF_GREY_BOXES: [Part; 9] = [
    (60, objects),
    (24, all_of),
    (18, one_of),
    (12, touching_part),
    (6, only_kind),
    (6, only_one),
    (14, parts::counted),
    (8, parts::several),
    (6, parts::variety),
];

fn in_boxes(w: &mut Words) -> Said {
    frames::boxes(w, Noun::Box, &OF_BOXES)
}

fn in_grey_boxes(w: &mut Words) -> Said {
    frames::boxes(w, Noun::GreyBox, &OF_GREY_BOXES)
}

/// `closely touching the bottom of a box`
fn place_of_box(w: &mut Words) -> (Place, &'static str) {
    match w.rng.below(100) {
        0..=34 => (Place::Bottom, "closely touching the bottom of a box"),
        35..=57 => (Place::Right, "closely touching right wall of a box"),
        58..=59 => (Place::Right, "touching the right wall of a box"),
        60..=74 => (
            Place::NearCorner,
            w.pick(&[
                "closely touching a corner",
                "closely touching a corner of a box",
            ]),
        ),
        75..=79 => (
            Place::Corner,
            w.pick(&[
                "touching the corner",
                "touching the corner",
                "in the corner of the box",
            ]),
        ),
        80..=85 => (
            Place::Roof,
            w.pick(&[
                "closely touching the roof of a box",
                "closely touching the roof of a box",
                "touching the top of a box",
            ]),
        ),
        86..=89 => (Place::Wall, "closely touching a wall of a box"),
        90..=94 => (
            Place::BottomRight,
            w.pick(&[
                "closely touching the bottom right corner",
                "closely touching bottom-right corner of a box",
            ]),
        ),
        95..=97 => (
            Place::Wall,
            w.pick(&["touching the side", "touching the side of the box"]),
        ),
        _ => (Place::Left, "closely touching left wall of a box"),
    }
}

/// `There is a black item closely touching the bottom of a box.`
fn closely_touching(w: &mut Words) -> Said {
    let kind = w.kind(80, 62, 0);
    let amount = w.how_many(&[70, 20, 10]);
    let (place, words) = place_of_box(w);
    let phrase = w.phrase(&amount, &kind);
    let verb = if amount.plural { "are" } else { "is" };
    (
        Meaning::Objects(amount.number, kind.at(place), Vec::new()),
        format!("There {verb} {phrase} {words}"),
    )
}

/// `there are exactly two yellow objects not touching any edge`
fn edge(w: &mut Words) -> Said {
    w.item = "object";
    let kind = w.kind(80, 74, 0);
    let (place, words) = match w.rng.below(10) {
        0..=3 => (
            Place::Wall,
            w.pick(&[
                "touching the edge",
                "touching the edge",
                "touching the edge",
                "touching any edge",
            ]),
        ),
        4..=6 => (
            Place::NoWall,
            w.pick(&["not touching the edge", "not touching any edge"]),
        ),
        _ => (
            Place::Bottom,
            w.pick(&[
                "touching the base",
                "touching the base",
                "touching the base",
                "touching the bottom base",
            ]),
        ),
    };
    if w.rng.percent(6) {
        let none = w.pick(&["None of the", "None of the", "No"]);
        let noun = w.noun(&kind, true);
        return (
            Meaning::Objects(Number::Exactly(0), kind.at(place), Vec::new()),
            format!("{none} {noun} are {words}"),
        );
    }
    let amount = match w.rng.below(10) {
        0..=4 => {
            let n = 1 + w.rng.weighted(&[5, 5, 3, 1]);
            w.just(n)
        }
        _ => w.how_many(&[5, 4, 2]),
    };
    let phrase = w.phrase(&amount, &kind);
    let verb = if amount.plural { "are" } else { "is" };
    let sentence = if w.rng.percent(5) {
        capital(&format!("{phrase} {verb} {words}"))
    } else {
        format!("There {verb} {phrase} {words}")
    };
    (
        Meaning::Objects(amount.number, kind.at(place), Vec::new()),
        sentence,
    )
}

/// `There is a small black square touching the wall.`
fn wall(w: &mut Words) -> Said {
    let kind = w.kind(90, 70, 35);
    let (place, words) = match w.rng.below(3) {
        0 => (Place::NoWall, "not touching the wall"),
        _ => (Place::Wall, "touching the wall"),
    };
    let amount = match w.rng.below(3) {
        0 => {
            let n = 1 + w.rng.weighted(&[2, 3, 3, 1, 1, 1]);
            w.plain(n)
        }
        1 => w.how_many(&[3, 3, 2, 1]),
        _ => w.some(),
    };
    let phrase = w.phrase(&amount, &kind);
    let verb = if amount.plural { "are" } else { "is" };
    match w.rng.below(4) {
        0 => {
            let noun = w.noun(&kind, false);
            (
                Meaning::Objects(Number::AtLeast(1), kind.at(place), Vec::new()),
                format!("The {noun} is {words}"),
            )
        }
        1 if amount.words != "a" && amount.words != "no" => (
            Meaning::Objects(amount.number, kind.at(place), Vec::new()),
            capital(&format!("{phrase} {verb} {words}")),
        ),
        _ => (
            Meaning::Objects(amount.number, kind.at(place), Vec::new()),
            format!("There {verb} {phrase} {words}"),
        ),
    }
}

/// `There are 2 blue circles and 1 blue triangle`
fn count(w: &mut Words) -> Said {
    let kind = w.kind(92, 65, 0);
    let n = match kind.shape {
        Some(_) => 1 + w.rng.weighted(&[5, 4, 1]),
        None => 1 + w.rng.weighted(&[1, 2, 3, 3, 2]),
    };
    let amount = match w.rng.below(8) {
        0 => w.at_least(n),
        1 => w.just(n),
        _ => w.plain(n),
    };
    let verb = if amount.plural { "are" } else { "is" };
    let mut sentence = format!("There {verb} {}", w.phrase(&amount, &kind));
    let first = Meaning::Objects(amount.number, kind, Vec::new());
    if w.rng.percent(12) {
        let other = w.kind(100, 80, 0);
        if apart(&kind, &other) {
            if w.rng.percent(30) {
                // with articles
                let (a, b) = (w.some_plain(), w.some());
                let sentence = format!(
                    "There is {} and {}",
                    w.phrase(&a, &kind),
                    w.phrase(&b, &other)
                );
                let of = |kind| Meaning::Objects(Number::AtLeast(1), kind, Vec::new());
                return (Meaning::All(vec![of(kind), of(other)]), sentence);
            }
            let amount = match w.rng.below(4) {
                0 => w.at_least(1),
                1 => w.plain(2),
                _ => w.plain(1),
            };
            sentence = format!("{sentence} and {}", w.phrase(&amount, &other));
            let second = Meaning::Objects(amount.number, other, Vec::new());
            return (Meaning::All(vec![first, second]), sentence);
        }
    }
    (first, sentence)
}

/// Whether nothing is of both kinds.
fn apart(a: &Objects, b: &Objects) -> bool {
    let shapes = a.shape.zip(b.shape).is_some_and(|(a, b)| a != b);
    shapes || (a.colours != b.colours && a.colours != Colours::ANY && b.colours != Colours::ANY)
}

/// `a black circle, a blue square and at least one triangle`
fn kinds(w: &mut Words) -> Condition {
    let count = 2 + usize::from(w.rng.percent(20));
    let (mut clauses, mut phrases, mut said) = (Vec::new(), Vec::new(), Vec::new());
    // one colour or one form for all, now and then
    let terse = w.rng.percent(8);
    while said.len() < count {
        let mut kind = w.kind(88, 82, 0);
        if kind.shape.is_none() && kind.colours == Colours::ANY {
            kind.shape = Some(w.a_shape());
        }
        if said.iter().any(|other| !apart(other, &kind)) {
            continue;
        }
        let amount = match w.rng.below(10) {
            0..=5 => w.some_plain(),
            6 => {
                let n = 1 + w.rng.weighted(&[4, 3, 1]);
                w.at_least(n)
            }
            7 => w.plain(1),
            _ => {
                let n = 2 + w.rng.weighted(&[4, 1]);
                w.plain(n)
            }
        };
        let phrase = w.phrase(&amount, &kind);
        let bare = amount.words == "a" && terse;
        phrases.push(if bare {
            phrase.replacen("a ", "", 1)
        } else {
            phrase
        });
        clauses.push(has(&amount, kind));
        said.push(kind);
    }
    let last = phrases.pop().unwrap_or_default();
    (clauses, format!("{} and {last}", phrases.join(", ")))
}

/// `a blue item closely touching a yellow item`
fn touching_each_other(w: &mut Words) -> Condition {
    let kind = w.kind(100, 25, 0);
    if w.rng.coin() {
        let noun = w.noun(&kind, true);
        return (
            vec![Clause::Touch(kind, kind)],
            format!("{} {noun} touching each other", w.n(2)),
        );
    }
    let other = w.kind(100, 25, 0);
    let (noun, other_noun) = (w.noun(&kind, false), w.noun(&other, false));
    (
        vec![Clause::Touch(kind, other)],
        format!("a {noun} closely touching a {other_noun}"),
    )
}

/// `items of all 3 different colors and a blue square`
fn colours_and_kind(w: &mut Words) -> Condition {
    let kind = w.kind(100, 100, 10);
    let (items, spelled) = (w.item(true), w.colour);
    let noun = w.noun(&kind, false);
    let amount = match w.rng.below(4) {
        0 => w.just(1),
        1 => w.plain(2),
        _ => w.some_plain(),
    };
    let noun = if amount.plural {
        w.noun(&kind, true)
    } else {
        noun
    };
    let n = 2 + w.rng.below(2);
    if w.rng.percent(30) {
        let (a, b) = w.two_colours();
        let colours = Colours::one(a).and(Colours::one(b));
        return (
            vec![
                Clause::Palette(colours),
                Clause::Has(Number::Exactly(1), kind),
            ],
            format!(
                "only {a} and {b} {items} of which {} is a {}",
                w.n(1),
                w.noun(&kind, false)
            ),
        );
    }
    let which = if n == 3 {
        w.pick(&["all ", ""])
    } else {
        w.pick(&["only ", ""])
    };
    (
        vec![Clause::Variety(Number::Exactly(n)), has(&amount, kind)],
        format!(
            "{items} of {which}{} different {spelled}s and {} {noun}",
            w.n(n),
            amount.words
        ),
    )
}

/// `only one yellow square`
fn counted(w: &mut Words) -> Condition {
    let kind = w.kind(80, 65, 0);
    let n = match kind.shape {
        Some(_) => 1 + w.rng.weighted(&[5, 4, 1]),
        None => 1 + w.rng.weighted(&[4, 4, 3, 1]),
    };
    let amount = match w.rng.below(9) {
        0 => w.at_least(n),
        1 | 2 => w.just(n),
        3 => w.some_plain(),
        4 if w.rng.percent(30) => w.no(),
        5 => {
            // some, however many
            let words = w.noun(&kind, true);
            return (vec![some(kind)], words);
        }
        _ => w.plain(n),
    };
    (vec![has(&amount, kind)], w.phrase(&amount, &kind))
}

/// `exactly six objects`
fn objects(w: &mut Words) -> Condition {
    let n = 1 + w.rng.weighted(&[3, 6, 6, 4, 4, 4, 1]);
    let amount = match w.rng.below(10) {
        0 => w.at_least(n),
        1 => w.at_most(n.max(2)),
        2 => w.plain(n),
        _ => w.just(n),
    };
    (
        vec![has(&amount, Objects::ANY)],
        w.phrase(&amount, &Objects::ANY),
    )
}

/// `objects of which only one object is blue`
fn only_one(w: &mut Words) -> Condition {
    let kind = Objects::of(w.a_colour());
    let colour = w.noun(&kind, false);
    let colour = colour.split(' ').next().unwrap_or_default();
    (
        vec![Clause::Has(Number::Exactly(1), kind)],
        format!("objects of which only {} object is {colour}", w.n(1)),
    )
}

/// `a yellow circle touching the wall`
fn touching_part(w: &mut Words) -> Condition {
    let kind = w.kind(75, 55, 12);
    let wall = match w.item {
        "object" => w.pick(&["the edge", "the edge", "the base"]),
        _ => "the wall",
    };
    let place = if wall == "the base" {
        Place::Bottom
    } else {
        Place::Wall
    };
    match w.rng.below(8) {
        7 => {
            let none = w.no();
            let noun = w.noun(&kind, true);
            (
                vec![has(&none, kind.at(place))],
                format!("no {noun} touching {wall}"),
            )
        }
        0 => {
            let n = 2 + w.rng.below(2);
            let (items, spelled) = (w.item(true), w.colour);
            let noun = w.noun(&kind, false);
            (
                vec![Clause::Variety(Number::Exactly(n)), some(kind.at(place))],
                format!(
                    "{items} of {} different {spelled}s and a {noun} touching {wall}",
                    w.n(n)
                ),
            )
        }
        1 => {
            let n = 2 + w.rng.below(4);
            let (amount, touching) = (w.just(n), w.at_least(1));
            let (items, item) = (w.item(true), w.item(false));
            (
                vec![
                    has(&amount, Objects::ANY),
                    has(&touching, Objects::ANY.at(place)),
                ],
                format!(
                    "{} {items} of which {} {item} is touching {wall}",
                    amount.words, touching.words
                ),
            )
        }
        2 => {
            let amount = w.just(1);
            let noun = w.noun(&kind, false);
            (
                vec![has(&amount, kind), some(kind.at(place))],
                format!("{} {noun} and it is touching {wall}", amount.words),
            )
        }
        3 => {
            let amount = w.at_least(2);
            let colour = w.a_colour();
            let not = Objects {
                colours: Colours::but(colour),
                ..Objects::ANY
            };
            (
                vec![has(&amount, not.at(place))],
                format!(
                    "{} {} touching {wall} which are not {colour}",
                    amount.words,
                    w.item(true)
                ),
            )
        }
        4 => {
            let amount = w.just(1);
            (
                vec![has(&amount, kind.at(Place::NoWall))],
                format!("{} not touching {wall}", w.phrase(&amount, &kind)),
            )
        }
        _ => {
            let amount = match w.rng.below(3) {
                0 => w.just(1),
                _ => w.some(),
            };
            (
                vec![has(&amount, kind.at(place))],
                format!("{} touching {wall}", w.phrase(&amount, &kind)),
            )
        }
    }
}

/// A kind with a form or a colour.
fn narrow(w: &mut Words) -> Objects {
    let (coloured, formed) = w.rng.pick(&[(0, 100), (100, 100), (100, 0)]);
    w.kind(coloured, formed, 0)
}

/// `only two items and they are both circles`
fn all_of(w: &mut Words) -> Condition {
    let kind = narrow(w);
    parts::all_of(w, kind)
}

/// `exactly three objects one of which is a circle`
fn one_of(w: &mut Words) -> Condition {
    let kind = narrow(w);
    parts::one_of(w, kind)
}

/// `only triangles`
fn only_kind(w: &mut Words) -> Condition {
    let coloured = w.rng.pick(&[0, 100]);
    let kind = w.kind(coloured, 100, 0);
    (
        vec![Clause::Only(kind)],
        format!("only {}", w.noun(&kind, true)),
    )
}

/// `two items of different color`, `2 black items of the same shape`
fn different(w: &mut Words) -> Condition {
    let (items, spelled) = (w.item(true), w.colour);
    match w.rng.below(3) {
        0 => (
            vec![things(2), Clause::Variety(Number::Exactly(2))],
            format!("{} {items} of different {spelled}", w.n(2)),
        ),
        1 => {
            let kind = w.kind(80, 0, 0);
            let amount = w.plain(2);
            let noun = w.noun(&kind, true);
            (
                vec![Clause::Alike(Number::AtLeast(2), Alike::Shape, kind)],
                format!("{} {noun} of the same shape", amount.words),
            )
        }
        _ => {
            let kind = w.kind(60, 0, 0);
            let noun = w.noun(&kind, true);
            (
                vec![Clause::Alike(Number::AtLeast(2), Alike::Size, kind)],
                format!("{} {noun} of the same size", w.n(2)),
            )
        }
    }
}

/// `there are exactly three objects in one grey box`
fn in_one_box(w: &mut Words) -> Said {
    w.item = "object";
    let n = 2 + w.rng.below(4);
    let amount = match w.rng.below(2) {
        0 => w.plain(n),
        _ => w.just(n),
    };
    let kind = w.kind(30, 0, 0);
    let phrase = w.phrase(&amount, &kind);
    let place = w.pick(&["in one grey box", "in a grey box", "in a box"]);
    let mut clauses = vec![has(&amount, kind)];
    let mut sentence = format!("There are {phrase} {place}");
    match w.rng.below(3) {
        0 if kind == Objects::ANY => {
            let part = narrow(w);
            let noun = w.noun(&part, false);
            sentence = format!("{sentence} of which {} is a {noun}", w.n(1));
            clauses.push(Clause::Has(Number::Exactly(1), part));
        }
        1 => {
            // no thing of a kind touches
            let kind = w.kind(100, 20, 0);
            let noun = w.noun(&kind, true);
            let edge = w.pick(&["the edge", "the edge", "the base"]);
            let place = if edge == "the base" {
                Place::Bottom
            } else {
                Place::Wall
            };
            clauses = vec![some(kind), Clause::Has(Number::Exactly(0), kind.at(place))];
            sentence = format!("There is a grey box where none of the {noun} are touching {edge}");
        }
        _ => {}
    }
    (Meaning::Boxes(Number::AtLeast(1), clauses), sentence)
}

/// `There are two boxes that has the same number of objects.`
fn same_number(w: &mut Words) -> Said {
    let amount = match w.rng.below(3) {
        0 => w.just(2),
        1 => w.at_least(2),
        _ => w.plain(2),
    };
    let has = w.pick(&["that has", "which has", "that have", "with"]);
    (
        Meaning::SameCount(amount.number),
        format!(
            "{} boxes {has} the same number of {}",
            w.there(&amount),
            w.item(true)
        ),
    )
}
