//! Sentences about scattered items, and those about boxes that may hold towers as well.

use super::meaning::{Clause, Meaning, Number, Objects, Place};
use super::scene::{Colour, Colours, Shape};
use super::towers::{Form, capital};
use super::words::{Amount, Words, plural_of};

type Said = (Meaning, String);

/// Sentences that are about scattered items only.
pub(super) const FORMS: [Form; 8] = [
    (110, closely_touching),
    (115, edge),
    (25, wall),
    (55, count),
    (85, box_with_kinds),
    (65, box_with_number),
    (25, grey_box),
    (12, every_box),
];

/// Sentences that are as often about towers as about scattered items.
pub(super) const OF_BOTH: [Form; 5] = [
    (30, box_with_number_of),
    (35, box_of_colours),
    (25, items_of_which),
    (10, box_of_different),
    (10, every_box_coloured),
];

fn has(amount: &Amount, items: Objects) -> Clause {
    Clause::Has(amount.number, items)
}

fn some(items: Objects) -> Clause {
    Clause::Has(Number::AtLeast(1), items)
}

/// `closely touching the bottom of a box`: the place, what is said before and after it.
fn place_of_box(w: &mut Words) -> (Place, &'static str) {
    match w.rng.below(100) {
        0..=34 => (Place::Bottom, "touching the bottom of a box"),
        35..=59 => (
            Place::Right,
            [
                "touching right wall of a box",
                "touching the right wall of a box",
            ][usize::from(w.rng.percent(15))],
        ),
        60..=79 => (
            Place::Corner,
            w.pick(&[
                "touching a corner",
                "touching a corner of a box",
                "touching the corner",
            ]),
        ),
        80..=85 => (
            Place::Roof,
            w.pick(&["touching the roof of a box", "touching the top of a box"]),
        ),
        86..=91 => (
            Place::Wall,
            w.pick(&["touching a wall of a box", "touching the wall"]),
        ),
        92..=94 => (
            Place::BottomRight,
            w.pick(&[
                "touching the bottom right corner",
                "touching bottom-right corner of a box",
            ]),
        ),
        95..=97 => (
            Place::Side,
            w.pick(&["touching the side", "touching the side of the box"]),
        ),
        _ => (Place::LeftCorner, "touching the left corner"),
    }
}

/// `There is a black item closely touching the bottom of a box.`
fn closely_touching(w: &mut Words) -> Said {
    let kind = w.kind(80, 62, 0);
    let amount = w.how_many(&[70, 20, 10]);
    let (place, words) = place_of_box(w);
    let how = w.pick(&["closely ", "closely ", "closely ", ""]);
    let phrase = w.phrase(&amount, &kind);
    let verb = if amount.plural { "are" } else { "is" };
    (
        Meaning::Objects(amount.number, kind.at(place), Vec::new()),
        format!("There {verb} {phrase} {how}{words}"),
    )
}

/// `there are exactly two yellow objects not touching any edge`
fn edge(w: &mut Words) -> Said {
    let kind = w.kind(80, 68, 0);
    let (place, words) = match w.rng.below(10) {
        0..=3 => (
            Place::Wall,
            w.pick(&[
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
                "touching the bottom base",
            ]),
        ),
    };
    if w.rng.percent(7) {
        let none = w.pick(&["None of the", "None of the", "No"]);
        let noun = w.noun(&kind, true);
        return (
            Meaning::Objects(Number::Exactly(0), kind.at(place), Vec::new()),
            format!("{none} {noun} are {words}"),
        );
    }
    let amount = match w.rng.below(10) {
        0..=4 => {
            let n = 1 + w.rng.weighted(&[4, 4, 2, 1]);
            w.just(n)
        }
        _ => w.how_many(&[5, 4, 2]),
    };
    let phrase = w.phrase(&amount, &kind);
    if w.rng.percent(5) {
        let verb = if amount.plural { "are" } else { "is" };
        return (
            Meaning::Objects(amount.number, kind.at(place), Vec::new()),
            capital(&format!("{phrase} {verb} {words}")),
        );
    }
    let verb = if amount.plural { "are" } else { "is" };
    (
        Meaning::Objects(amount.number, kind.at(place), Vec::new()),
        format!("There {verb} {phrase} {words}"),
    )
}

/// `There is a small black square touching the wall.`
fn wall(w: &mut Words) -> Said {
    let kind = w.kind(90, 70, 40);
    let (place, words) = match w.rng.below(3) {
        0 => (Place::NoWall, "not touching the wall"),
        _ => (Place::Wall, "touching the wall"),
    };
    let amount = match w.rng.below(3) {
        0 => w.how_many(&[3, 3, 2, 1]),
        _ => w.some(),
    };
    let phrase = w.phrase(&amount, &kind);
    match w.rng.below(4) {
        0 => {
            let noun = w.noun(&kind, false);
            (
                Meaning::Objects(Number::AtLeast(1), kind.at(place), Vec::new()),
                format!("The {noun} is {words}"),
            )
        }
        1 if amount.words != "a" && amount.words != "no" => {
            let verb = if amount.plural { "are" } else { "is" };
            (
                Meaning::Objects(amount.number, kind.at(place), Vec::new()),
                capital(&format!("{phrase} {verb} {words}")),
            )
        }
        _ => {
            let verb = if amount.plural { "are" } else { "is" };
            (
                Meaning::Objects(amount.number, kind.at(place), Vec::new()),
                format!("There {verb} {phrase} {words}"),
            )
        }
    }
}

/// `There are 2 blue circles and 1 blue triangle`
fn count(w: &mut Words) -> Said {
    let kind = w.kind(92, 65, 0);
    let n = match kind.shape {
        Some(_) => 1 + w.rng.weighted(&[5, 4, 1]),
        None => 1 + w.rng.weighted(&[1, 2, 3, 3, 2]),
    };
    let amount = match w.rng.below(7) {
        0 => w.at_least(n),
        1 => w.just(n),
        _ => w.plain(n),
    };
    let verb = if amount.plural { "are" } else { "is" };
    let mut sentence = format!("There {verb} {}", w.phrase(&amount, &kind));
    let first = Meaning::Objects(amount.number, kind, Vec::new());
    if kind.shape.is_some() && w.rng.percent(15) {
        let other = w.kind(100, 100, 0);
        if other != kind {
            let amount = w.plain(1);
            sentence = format!("{sentence} and {}", w.phrase(&amount, &other));
            let second = Meaning::Objects(amount.number, other, Vec::new());
            return (Meaning::All(vec![first, second]), sentence);
        }
    }
    (first, sentence)
}

/// How many boxes, with the noun: `There is a box`.
fn there_is_a_box(w: &mut Words) -> (Number, String, bool) {
    let n = 1 + w.rng.weighted(&[3, 2]);
    let amount = match w.rng.below(20) {
        0..=11 => w.some(),
        12..=14 => w.plain(n),
        15 | 16 => w.just(1),
        17 | 18 => w.at_least(n),
        _ => Amount {
            number: Number::Exactly(0),
            words: "no".to_owned(),
            plural: false,
        },
    };
    let noun = plural_of("box", amount.plural);
    (
        amount.number,
        format!("{} {noun}", w.there(&amount)),
        amount.plural,
    )
}

/// `There is a box with a black circle, a blue square and at least one triangle.`
fn box_with_kinds(w: &mut Words) -> Said {
    let (number, there, _) = there_is_a_box(w);
    let kinds = 2 + usize::from(w.rng.percent(18));
    let (mut clauses, mut phrases, mut said) = (Vec::new(), Vec::new(), Vec::new());
    while said.len() < kinds {
        let mut kind = w.kind(90, 80, 0);
        if kind.shape.is_none() && kind.colours == Colours::ANY {
            kind.shape = Some(w.rng.pick(&Shape::ALL));
        }
        let overlaps = said.iter().any(|other: &Objects| {
            let shapes = other.shape.zip(kind.shape);
            let colours = (other.colours, kind.colours);
            shapes.is_none_or(|(a, b)| a == b)
                && (colours.0 == colours.1
                    || colours.0 == Colours::ANY
                    || colours.1 == Colours::ANY)
        });
        if overlaps {
            continue;
        }
        let amount = match w.rng.below(10) {
            0..=4 => Amount {
                number: Number::AtLeast(1),
                words: "a".to_owned(),
                plural: false,
            },
            5 | 6 => {
                let n = 1 + w.rng.weighted(&[3, 2]);
                w.at_least(n)
            }
            7 => w.plain(1),
            _ => w.plain(2),
        };
        phrases.push(w.phrase(&amount, &kind));
        clauses.push(has(&amount, kind));
        said.push(kind);
    }
    let with = w.pick(&["with", "with", "with", "with", "which has", "that has"]);
    let last = phrases.pop().unwrap_or_default();
    let sentence = format!("{there} {with} {} and {last}", phrases.join(", "));
    (Meaning::Boxes(number, clauses), sentence)
}

/// `There is a box with only one yellow square.`
fn box_with_number(w: &mut Words) -> Said {
    let (number, there, plural) = there_is_a_box(w);
    let kind = w.kind(75, 45, 0);
    let n = match kind.shape {
        Some(_) => 1 + w.rng.weighted(&[4, 4, 1]),
        None => 1 + w.rng.weighted(&[4, 4, 3, 1]),
    };
    let amount = match w.rng.below(6) {
        0 => w.at_least(n),
        1 | 2 => w.just(n),
        _ => w.plain(n),
    };
    let phrase = w.phrase(&amount, &kind);
    let with = if plural {
        "with"
    } else {
        w.pick(&["with", "with", "which has", "that has"])
    };
    let within = w.pick(&["", "", "", "", "", "in it"]);
    (
        Meaning::Boxes(number, vec![has(&amount, kind)]),
        format!("{there} {with} {phrase} {within}"),
    )
}

/// `There is a box with exactly two items.`
fn box_with_number_of(w: &mut Words) -> Said {
    let (number, there, plural) = there_is_a_box(w);
    let kind = w.kind(40, 0, 0);
    let n = 1 + w.rng.weighted(&[4, 4, 4, 3]);
    let amount = match w.rng.below(5) {
        0 => w.at_least(n),
        1 | 2 => w.just(n),
        _ => w.plain(n),
    };
    let phrase = w.phrase(&amount, &kind);
    let with = if plural {
        "with"
    } else {
        w.pick(&["with", "with", "which has", "that has"])
    };
    (
        Meaning::Boxes(number, vec![has(&amount, kind)]),
        format!("{there} {with} {phrase}"),
    )
}

/// `There is a box with only blue and yellow items.`
fn box_of_colours(w: &mut Words) -> Said {
    let (number, there, _) = there_is_a_box(w);
    let spelled = w.colour;
    let (a, b) = w.two_colours();
    let both = Clause::Palette(Colours::one(a).and(Colours::one(b)));
    let (clauses, words) = match w.rng.below(9) {
        0..=3 => (
            vec![both],
            format!("with only {a} and {b} {}", w.item(true)),
        ),
        4 => (
            vec![both],
            format!("with {} of only {a} and {b} {spelled}", w.item(true)),
        ),
        5 => {
            let amount = w.plain(3);
            (
                vec![has(&amount, Objects::ANY), both],
                match w.rng.below(3) {
                    0 => format!(
                        "with {} {} of only {a} and {b} {spelled}",
                        amount.words,
                        w.item(true)
                    ),
                    1 => format!(
                        "with {} {} with only {a} and {b} {spelled}",
                        amount.words,
                        w.item(true)
                    ),
                    _ => format!(
                        "with {} {} of {a} and {b} {spelled}",
                        amount.words,
                        w.item(true)
                    ),
                },
            )
        }
        6 => (
            vec![Clause::Only(Objects::of(a))],
            format!("with only {a} {}", w.item(true)),
        ),
        7 => {
            let n = 2 + w.rng.below(2);
            let words = match (n, w.rng.below(2)) {
                (3, 0) => format!(
                    "with {} of all {} different {spelled}s",
                    w.item(true),
                    w.n(n)
                ),
                _ => format!("with {} of {} different {spelled}s", w.item(true), w.n(n)),
            };
            (vec![Clause::Variety(Number::Exactly(n))], words)
        }
        _ => {
            let n = 2 + w.rng.below(2);
            let m = n + w.rng.below(5 - n);
            let amount = w.plain(m);
            let all = if n == 3 { w.pick(&["", "all "]) } else { "" };
            (
                vec![
                    has(&amount, Objects::ANY),
                    Clause::Variety(Number::Exactly(n)),
                ],
                format!(
                    "with {} {} of {all}{} different {spelled}s",
                    amount.words,
                    w.item(true),
                    w.n(n)
                ),
            )
        }
    };
    (Meaning::Boxes(number, clauses), format!("{there} {words}"))
}

/// `There is a box with 3 items of which 2 are black.`
fn items_of_which(w: &mut Words) -> Said {
    let (number, there, _) = there_is_a_box(w);
    let colour = w.a_colour();
    if w.rng.percent(35) {
        // a box's only item
        let not = w.rng.percent(35);
        let kind = if not {
            Objects {
                colours: Colours::but(colour),
                ..Objects::ANY
            }
        } else {
            Objects::of(colour)
        };
        let not = if not { "not " } else { "" };
        let only = w.pick(&["only one", "one"]);
        let words = match w.rng.below(3) {
            0 => format!("with {only} item that is {not}{colour}"),
            1 => format!("with {only} item and it is {not}{colour}"),
            _ => format!("which has {only} item and it is {not}{colour}"),
        };
        return (
            Meaning::Boxes(
                number,
                vec![
                    Clause::Has(Number::Exactly(1), Objects::ANY),
                    Clause::Only(kind),
                ],
            ),
            format!("{there} {words}"),
        );
    }
    let all = 2 + w.rng.weighted(&[1, 3, 3]);
    let part = 1 + w.rng.below(all - 1);
    let total = w.plain(all);
    let some_of = match w.rng.below(5) {
        0 => w.at_least(part),
        _ => w.plain(part),
    };
    let verb = if some_of.plural { "are" } else { "is" };
    (
        Meaning::Boxes(
            number,
            vec![
                has(&total, Objects::ANY),
                has(&some_of, Objects::of(colour)),
            ],
        ),
        format!(
            "{there} with {} {} of which {} {verb} {colour}",
            total.words,
            w.item(true),
            some_of.words
        ),
    )
}

/// `There is a box with exactly 2 items of the same colour`
fn box_of_different(w: &mut Words) -> Said {
    let (number, there, _) = there_is_a_box(w);
    let spelled = w.colour;
    match w.rng.below(2) {
        0 => {
            let n = 2 + w.rng.below(2);
            let amount = w.just(n);
            (
                Meaning::Boxes(
                    number,
                    vec![
                        has(&amount, Objects::ANY),
                        Clause::Variety(Number::Exactly(1)),
                    ],
                ),
                format!(
                    "{there} with {} {} of the same {spelled}",
                    amount.words,
                    w.item(true)
                ),
            )
        }
        _ => {
            let amount = w.plain(2);
            (
                Meaning::Boxes(
                    number,
                    vec![
                        has(&amount, Objects::ANY),
                        Clause::Variety(Number::Exactly(2)),
                    ],
                ),
                format!(
                    "{there} with {} {} of different {spelled}",
                    amount.words,
                    w.item(true)
                ),
            )
        }
    }
}

/// `One of the grey box has exactly two objects which are black`
fn grey_box(w: &mut Words) -> Said {
    let grey = w.pick(&["grey box", "grey box", "grey box", "grey square"]);
    let verb = w.pick(&["has", "contains"]);
    let (number, who) = match w.rng.below(4) {
        0 => (Number::AtLeast(1), format!("At least one {grey} {verb}")),
        1 => (Number::AtLeast(1), format!("There is a {grey} with")),
        _ => (Number::Exactly(1), format!("One of the {grey} {verb}")),
    };
    let (clauses, words) = match w.rng.below(4) {
        0 | 1 => {
            let n = 1 + w.rng.below(6);
            let amount = w.just(n);
            let object = plural_of("object", amount.plural);
            (
                vec![has(&amount, Objects::ANY)],
                format!("{} {object}", amount.words),
            )
        }
        2 => {
            let colour = w.a_colour();
            let n = 1 + w.rng.below(3);
            let amount = w.just(n);
            let object = plural_of("object", amount.plural);
            let verb = if amount.plural { "are" } else { "is" };
            match w.rng.below(2) {
                0 => (
                    vec![has(&amount, Objects::of(colour))],
                    format!("{} {colour} {object}", amount.words),
                ),
                _ => (
                    vec![
                        has(&amount, Objects::ANY),
                        Clause::Only(Objects::of(colour)),
                    ],
                    format!("{} {object} which {verb} {colour}", amount.words),
                ),
            }
        }
        _ => {
            let n = 2 + w.rng.below(4);
            let amount = w.just(n);
            let kind = w.kind(60, 100, 0);
            (
                vec![has(&amount, Objects::ANY), some(kind)],
                format!(
                    "{} objects one of which is a {}",
                    amount.words,
                    w.noun(&kind, false)
                ),
            )
        }
    };
    (Meaning::Boxes(number, clauses), format!("{who} {words}"))
}

/// `Each box has at least 1 black item`
fn every_box(w: &mut Words) -> Said {
    let kind = w.kind(60, 60, 0);
    let kind = if kind == Objects::ANY {
        Objects::of(Colour::Blue)
    } else {
        kind
    };
    said_of_every_box(w, kind)
}

/// The same of a colour.
fn every_box_coloured(w: &mut Words) -> Said {
    let kind = w.kind(100, 0, 0);
    said_of_every_box(w, kind)
}

fn said_of_every_box(w: &mut Words, kind: Objects) -> Said {
    let amount = match w.rng.below(3) {
        0 => w.exactly(1),
        _ => w.at_least(1),
    };
    let phrase = w.phrase(&amount, &kind);
    let meaning = Meaning::Boxes(Number::Exactly(3), vec![has(&amount, kind)]);
    let sentence = match w.rng.below(3) {
        0 => format!("There is {phrase} in each box"),
        1 => format!("Each grey square has {phrase}"),
        _ => format!("Each box has {phrase}"),
    };
    (meaning, sentence)
}
