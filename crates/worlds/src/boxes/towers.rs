//! Sentences about towers.

use super::frames::{self, Condition, Form, Noun, Part, Said};
use super::meaning::{Clause, Meaning, Number, Objects, Place};
use super::parts;
use super::scene::{Colour, Colours};
use super::words::{Amount, Words, capital, has, plural_of, some, things};

pub(super) const FORMS: [Form; 11] = [
    (78, as_base),
    (225, towers),
    (68, in_boxes),
    (24, count_blocks),
    (40, block_on),
    (18, coloured_tower),
    (9, same_end),
    (6, nth_block),
    (4, between),
    (8, ends),
    (6, touching),
];

/// Conditions on towers that are called so.
const OF_TOWERS: [Part; 13] = [
    (88, at_end),
    (20, at_both_ends),
    (30, stacked_part),
    (13, together),
    (10, nth_part),
    (7, relative_part),
    (11, parts::counted),
    (22, parts::number),
    (9, parts::several),
    (20, parts::only),
    (15, parts::variety),
    (9, parts::single),
    (6, parts::of_which),
];

/// Conditions on towers that are called boxes with items.
const OF_BOXES: [Part; 9] = [
    (20, on_top),
    (3, together),
    (5, parts::counted),
    (6, parts::number),
    (12, parts::several),
    (18, parts::only),
    (9, parts::variety),
    (14, parts::of_which),
    (2, parts::alike),
];

fn towers(w: &mut Words) -> Said {
    frames::boxes(w, Noun::Tower, &OF_TOWERS)
}

fn in_boxes(w: &mut Words) -> Said {
    frames::boxes(w, Noun::Box, &OF_BOXES)
}

/// `base` or `top`.
fn end(w: &mut Words) -> (Place, &'static str) {
    if w.rng.percent(58) {
        (Place::Level(0), "base")
    } else {
        (Place::FromTop(0), "top")
    }
}

/// `a black block at the base`
fn at_end(w: &mut Words) -> Condition {
    let colour = w.a_colour();
    let (place, end) = end(w);
    let block = w.item(false);
    let bottom = end == "base" && w.rng.percent(12);
    let end = if bottom { "bottom" } else { end };
    let words = match w.rng.below(14) {
        0 => format!("a {colour} {end}"),
        1 => format!("{colour} {end}"),
        2 => format!("{colour} {block} at the {end}"),
        3 | 4 => format!("{} {colour} {block} at the {end}", w.n(1)),
        5 => format!("a {colour} {block} at {end}"),
        6 => format!("a {colour} {block} on the {end}"),
        7 => format!("{colour} {block}s at the {end}"),
        _ => format!("a {colour} {block} at the {end}"),
    };
    (vec![some(Objects::of(colour).at(place))], words)
}

/// `a blue block at the top and a black block at the base`; or the height and one end.
fn at_both_ends(w: &mut Words) -> Condition {
    let (first, second) = (w.a_colour(), w.a_colour());
    let block = w.item(false);
    let top = some(Objects::of(first).at(Place::FromTop(0)));
    let base = some(Objects::of(second).at(Place::Level(0)));
    if w.rng.percent(30) {
        let words = match w.rng.below(4) {
            0 => format!("a {second} base and {first} top"),
            1 => format!("a {first} {block} at the top and a {second} {block} at the base"),
            2 => format!("a {second} {block} at the base and a {first} {block} at the top"),
            _ => format!("a {second} base and a {first} top"),
        };
        return (vec![top, base], words);
    }
    let n = 2 + w.rng.weighted(&[2, 3, 4]);
    let amount = match w.rng.below(6) {
        0 => w.at_least(n),
        1 | 2 => w.just(n),
        _ => w.plain(n),
    };
    let blocks = w.item(true);
    let (clause, end, colour) = if w.rng.coin() {
        (top, "top", first)
    } else {
        (base, "base", second)
    };
    let height = has(&amount, Objects::ANY);
    let number = &amount.words;
    match w.rng.below(8) {
        0 => (
            vec![height, clause],
            format!("{number} {blocks} and the {end} block is {colour}"),
        ),
        1 => (
            vec![height, clause],
            format!("{number} {blocks} where the {end} is {colour}"),
        ),
        2 | 3 => {
            let none = Number::Exactly(0);
            let place = if end == "top" {
                Place::FromTop(0)
            } else {
                Place::Level(0)
            };
            (
                vec![height, Clause::Has(none, Objects::of(colour).at(place))],
                format!("{number} {blocks} not having a {colour} {block} at {end}"),
            )
        }
        4 => (
            vec![
                height,
                some(Objects::of(first).at(Place::FromTop(0))),
                some(Objects::of(second).at(Place::Level(0))),
            ],
            format!("{number} {blocks} where the base is {second} and the top is {first}"),
        ),
        5 | 6 => (
            vec![height, clause],
            format!("{number} {blocks} having a {colour} {block} at the {end}"),
        ),
        _ => (
            vec![height, clause],
            format!("{number} {blocks} with a {colour} {block} at the {end}"),
        ),
    }
}

/// Two colours, of which the first is right above or below the second.
fn stacked(w: &mut Words) -> (Objects, String) {
    let (first, second) = (w.a_colour(), w.a_colour());
    let a = w.pick(&["a", "a", "a", "a", "a", "the", ""]);
    let below = w.rng.percent(13);
    let word = if below {
        w.pick(&["below", "bellow", "under"])
    } else {
        w.pick(&[
            "on",
            "on",
            "on",
            "above",
            "above",
            "above",
            "over",
            "over",
            "on top of",
        ])
    };
    let near = Colours::one(second);
    let place = if below {
        Place::Under(near)
    } else {
        Place::On(near)
    };
    let block = w.item(false);
    (
        Objects::of(first).at(place),
        format!("{first} {block} {word} {a} {second} {block}"),
    )
}

/// `a black block over a yellow block`, of a tower of any height or one.
fn stacked_part(w: &mut Words) -> Condition {
    let (kind, words) = stacked(w);
    let clause = some(kind);
    match w.rng.below(10) {
        0 | 1 => {
            let n = 2 + w.rng.weighted(&[1, 2, 3]);
            let having = w.pick(&["having", "with"]);
            (
                vec![things(n), clause],
                format!("{} {} {having} a {words}", w.n(n), w.item(true)),
            )
        }
        2 => {
            let colour = w.a_colour();
            let (place, end) = end(w);
            (
                vec![clause, some(Objects::of(colour).at(place))],
                format!("a {words} and a {colour} {} at the {end}", w.item(false)),
            )
        }
        _ => (vec![clause], format!("a {words}")),
    }
}

/// `2 blue blocks stacked together`
fn together(w: &mut Words) -> Condition {
    let colour = w.a_colour();
    let any = w.rng.percent(15);
    let n = if w.rng.percent(85) { 2 } else { 3 };
    let least = if w.rng.percent(20) { "at least " } else { "" };
    let blocks = w.item(true);
    let number = w.n(n);
    let how = match w.item {
        "block" => w.pick(&[
            "stacked together",
            "stacked together",
            "attached with each other",
        ]),
        _ => "touching each other",
    };
    if any {
        let spelled = w.colour;
        return (
            vec![Clause::Run(n, Colours::ANY)],
            format!("{least}{number} {blocks} {how} of the same {spelled}"),
        );
    }
    (
        vec![Clause::Run(n, Colours::one(colour))],
        format!("{least}{number} {colour} {blocks} {how}"),
    )
}

/// `a black block as a middle block`
fn nth_part(w: &mut Words) -> Condition {
    let colour = w.a_colour();
    let block = w.item(false);
    let n = match w.rng.below(4) {
        0 => Some(3),
        1 => Some(4),
        _ => None,
    };
    let (place, words) = match w.rng.below(6) {
        0 | 1 if n == Some(3) => (
            Place::Middle,
            match w.rng.below(2) {
                0 => format!("a {colour} {block} as a middle block"),
                _ => format!("a {colour} {block} in the middle"),
            },
        ),
        0 | 1 => (
            Place::FromTop(1),
            format!("a {colour} {block} below the top block"),
        ),
        2 => (Place::Level(1), format!("{colour} second block")),
        3 => (
            Place::Level(1),
            format!("a {colour} {block} as the second level"),
        ),
        4 => (
            Place::Level(1),
            format!("a {colour} {block} above the base"),
        ),
        _ => (Place::Middle, format!("a {colour} {block} in the middle")),
    };
    let clause = some(Objects::of(colour).at(place));
    match n {
        Some(n) => {
            let having = w.pick(&["having", "with"]);
            (
                vec![things(n), clause],
                format!("{} {} {having} {words}", w.n(n), w.item(true)),
            )
        }
        None => (vec![clause], words),
    }
}

/// `exactly one blue block which is at the top`, `three blocks of black color`
fn relative_part(w: &mut Words) -> Condition {
    let colour = w.a_colour();
    let spelled = w.colour;
    match w.rng.below(4) {
        0 => {
            let (place, end) = end(w);
            let one = w.just(1);
            (
                vec![
                    has(&one, Objects::of(colour)),
                    some(Objects::of(colour).at(place)),
                ],
                format!(
                    "{} {colour} {} which is at the {end}",
                    one.words,
                    w.item(false)
                ),
            )
        }
        1 => {
            let n = 2 + w.rng.below(2);
            let number = w.just(n);
            (
                vec![things(n), Clause::Only(Objects::of(colour))],
                format!(
                    "{} {} which are of {colour} {spelled}",
                    number.words,
                    w.item(true)
                ),
            )
        }
        2 => {
            let around = w.a_colour();
            let kind = Objects::of(colour).at(Place::Between(Colours::one(around)));
            (
                vec![some(kind)],
                format!("a {colour} {0} between two {around} {0}s", w.item(false)),
            )
        }
        _ => {
            let block = w.item(false);
            (
                vec![some(Objects::of(colour).at(Place::BetweenAlike))],
                match w.rng.below(2) {
                    0 => format!("a {colour} {block} between two {block}s of the same {spelled}"),
                    _ => format!("a {colour} {block} in between two {block}s of same {spelled}"),
                },
            )
        }
    }
}

/// `3 items and a black item on top`
fn on_top(w: &mut Words) -> Condition {
    let (first, second) = (w.a_colour(), w.a_colour());
    let item = match w.rng.below(5) {
        0 => "square",
        1 => "one",
        _ => "item",
    };
    let top = some(Objects::of(first).at(Place::FromTop(0)));
    let base = some(Objects::of(first).at(Place::Level(0)));
    match w.rng.below(12) {
        0 | 1 => {
            let n = 2 + w.rng.below(3);
            let amount = match w.rng.below(3) {
                0 => w.at_least(n),
                _ => w.plain(n),
            };
            if w.rng.percent(20) {
                return (
                    vec![has(&amount, Objects::ANY), base],
                    format!(
                        "{} {} and a {first} item touching the wall",
                        amount.words,
                        w.item(true)
                    ),
                );
            }
            (
                vec![has(&amount, Objects::ANY), top],
                format!(
                    "{} {} and a {first} {item} on top",
                    amount.words,
                    w.item(true)
                ),
            )
        }
        2 => (
            vec![
                Clause::Run(2, Colours::one(first)),
                some(Objects::of(second)),
            ],
            format!(
                "a {second} item and {} {first} items touching each other",
                w.n(2)
            ),
        ),
        3 => (
            vec![top, some(Objects::of(second).at(Place::FromTop(1)))],
            format!("a {first} item on top and a {second} {item} right beneath it"),
        ),
        4 | 5 => {
            let how = w.pick(&["", "right ", "directly "]);
            (
                vec![base, some(Objects::of(second).at(Place::Level(1)))],
                format!("a {first} item touching the wall and a {second} {item} {how}on top of it"),
            )
        }
        6 => (vec![base], format!("a {first} item touching the wall")),
        7 => {
            // the base and two more
            let number = Number::AtMost(3);
            (
                vec![base, Clause::Has(number, Objects::ANY)],
                format!(
                    "a {first} item touching the wall and {} items at most on top of it",
                    w.n(2)
                ),
            )
        }
        8 => {
            let n = 3 + w.rng.below(2);
            (
                vec![things(n), some(Objects::of(first).at(Place::FromTop(1)))],
                format!(
                    "{} items and a {first} item beneath the item on top",
                    w.n(n)
                ),
            )
        }
        9 => (
            vec![some(Objects::of(first).at(Place::BetweenAlike))],
            format!("a {first} item between two items of the same {}", w.colour),
        ),
        10 => {
            let n = 2 + w.rng.below(2);
            (
                vec![base, Clause::Variety(Number::Exactly(n))],
                format!(
                    "items of {} different {}s and a {first} {item} touching the wall",
                    w.n(n),
                    w.colour
                ),
            )
        }
        _ => (vec![top], format!("a {first} item on top")),
    }
}

/// How many towers.
fn how_many(w: &mut Words) -> Amount {
    w.how_many(&[55, 40, 5])
}

/// `There is a black block as the base of a tower with four blocks.`
fn as_base(w: &mut Words) -> Said {
    let (amount, colour) = (how_many(w), w.a_colour());
    let (place, end) = end(w);
    let kind = Objects::of(colour).at(place);
    if w.rng.percent(10) {
        // how many towers, not blocks
        let n = 1 + w.rng.below(2);
        let towers = match w.rng.below(3) {
            0 => w.at_least(n),
            1 => w.just(n),
            _ => w.plain(2),
        };
        let tower = plural_of("tower", towers.plural);
        return (
            Meaning::Boxes(towers.number, vec![some(kind)]),
            format!(
                "There is a {colour} block as the {end} of {} {tower}",
                towers.words
            ),
        );
    }
    let (mut within, mut suffix) = (Vec::new(), String::new());
    if w.rng.percent(55) {
        let n = 2 + w.rng.weighted(&[3, 3, 4]);
        let height = match w.rng.below(8) {
            0 | 1 => w.at_least(n.min(3)),
            2 => w.at_most(n.min(3)),
            3 => w.just(n),
            _ => w.plain(n),
        };
        within.push(has(&height, Objects::ANY));
        suffix = format!("with {} blocks", height.words);
    } else if w.rng.percent(6) {
        let (a, b) = w.two_colours();
        within.push(Clause::Palette(Colours::one(a).and(Colours::one(b))));
        suffix = format!("with only {a} and {b} blocks");
    }
    let block = plural_of("block", amount.plural);
    (
        Meaning::Objects(amount.number, kind, within),
        format!(
            "{} {colour} {block} as the {end} of a tower {suffix}",
            w.there(&amount)
        ),
    )
}

/// `There are 3 yellow blocks`
fn count_blocks(w: &mut Words) -> Said {
    w.item = w.pick(&["block", "block", "block", "item"]);
    let n = 1 + w.rng.weighted(&[2, 4, 4, 2, 2]);
    let amount = match w.rng.below(7) {
        0 => w.at_least(n),
        1 => w.just(n),
        _ => w.plain(n),
    };
    let kind = Objects::of(w.a_colour());
    let phrase = w.phrase(&amount, &kind);
    let are = if amount.plural { "are" } else { "is" };
    (
        Meaning::Objects(amount.number, kind, Vec::new()),
        format!("There {are} {phrase}"),
    )
}

/// `There is a black block on a blue block.`
fn block_on(w: &mut Words) -> Said {
    w.item = "block";
    let (kind, words) = stacked(w);
    let amount = match w.rng.below(10) {
        0..=7 => w.some(),
        8 => w.just(1),
        _ => w.no(),
    };
    if w.rng.percent(5) {
        let colour = w.a_colour();
        let how = w.pick(&[
            "attached with each other",
            "touching each other",
            "stacked together",
        ]);
        return (
            Meaning::Boxes(
                Number::AtLeast(1),
                vec![Clause::Run(2, Colours::one(colour))],
            ),
            format!("There are {} {colour} blocks {how}", w.n(2)),
        );
    }
    let sentence = format!("{} {words}", w.there(&amount));
    (Meaning::Objects(amount.number, kind, Vec::new()), sentence)
}

/// `There is a blue tower with exactly two blocks.`
fn coloured_tower(w: &mut Words) -> Said {
    let colour = w.a_colour();
    let clause = Clause::Only(Objects::of(colour));
    if w.rng.percent(25) {
        let who = w.pick(&["One of the three towers", "One of the towers", "One tower"]);
        return (
            Meaning::Boxes(Number::Exactly(1), vec![clause]),
            format!("{who} is {colour}"),
        );
    }
    let n = 2 + w.rng.below(3);
    if w.rng.percent(8) {
        let amount = how_many(w);
        let tower = plural_of("tower", amount.plural);
        let there = w.there(&amount);
        let each = if amount.plural { "each" } else { "" };
        return (
            Meaning::Boxes(amount.number, vec![things(n)]),
            format!("{there} {tower} of {} blocks {each}", w.n(n)),
        );
    }
    if w.rng.percent(30) {
        // a tower by its height
        let amount = how_many(w);
        let tower = plural_of("tower", amount.plural);
        let there = format!("{} {} blocks {tower}", w.there(&amount), w.n(n));
        let spelled = w.colour;
        let (clauses, rest) = match w.rng.below(5) {
            0 | 1 => (Vec::new(), String::new()),
            2 => {
                let rest = match w.rng.below(2) {
                    0 => format!("and only {} {spelled}", w.n(1)),
                    _ => format!("that has a single {spelled}"),
                };
                (vec![Clause::Variety(Number::Exactly(1))], rest)
            }
            3 => {
                let (a, b) = w.two_colours();
                (
                    vec![Clause::Palette(Colours::one(a).and(Colours::one(b)))],
                    format!("and the {spelled} is {a} and {b}"),
                )
            }
            _ => {
                let (place, end) = end(w);
                (
                    vec![some(Objects::of(colour).at(place))],
                    format!("that the {end} is {colour}"),
                )
            }
        };
        let clauses = [vec![things(n)], clauses].concat();
        return (
            Meaning::Boxes(amount.number, clauses),
            format!("{there} {rest}"),
        );
    }
    let amount = how_many(w);
    let tower = plural_of("tower", amount.plural);
    let mut clauses = vec![clause];
    let mut sentence = format!("{} {colour} {tower}", w.there(&amount));
    if w.rng.percent(55) {
        let n = 1 + w.rng.below(3);
        let height = match w.rng.below(3) {
            0 if n > 1 => w.at_least(n),
            _ => w.just(n),
        };
        let block = plural_of("block", height.plural);
        let with = w.pick(&["with", "with", "that has"]);
        sentence = format!("{sentence} {with} {} {block}", height.words);
        clauses.push(has(&height, Objects::ANY));
    }
    (Meaning::Boxes(amount.number, clauses), sentence)
}

/// `There are only two towers that has the same base color.`
fn same_end(w: &mut Words) -> Said {
    let (place, end) = end(w);
    let spelled = w.colour;
    let mut kind = Objects::ANY.at(place);
    let amount = match w.rng.below(3) {
        0 => w.just(2),
        1 => w.at_least(2),
        _ => w.plain(2),
    };
    let there = w.there(&amount);
    let mut sentence = match w.rng.below(5) {
        0 => format!("{there} towers with block of same {spelled} at {end}"),
        1 => format!("{there} towers that have the same {end} {spelled}"),
        2 => format!("{there} towers that has the same {end} {spelled}"),
        3 => format!("{there} towers with the same {end} {spelled}"),
        _ => capital(&format!(
            "{} of the three towers has the same {end} {spelled}",
            amount.words
        )),
    };
    if w.rng.percent(15) {
        let colour = w.a_colour();
        kind.colours = Colours::but(colour);
        sentence = format!("{sentence} that is not {colour}");
    }
    (Meaning::Shared(amount.number, kind), sentence)
}

/// `The second block from the base of a tower is black.`
fn nth_block(w: &mut Words) -> Said {
    let colour = w.a_colour();
    let level = 1 + w.rng.weighted(&[3, 1]);
    let nth = ["second", "third"][level - 1];
    let kind = Objects::of(colour).at(Place::Level(level));
    let (number, sentence) = match w.rng.below(6) {
        0 | 1 => (
            Number::AtLeast(1),
            format!("The {nth} block from the base of a tower is {colour}"),
        ),
        2 => (
            Number::AtLeast(1),
            format!("The {nth} block of a tower from the base is {colour}"),
        ),
        3 => (
            Number::AtLeast(1),
            format!("There is a tower which is the {nth} block from the base is {colour}"),
        ),
        4 => (
            Number::AtLeast(1),
            format!("There is a tower with {colour} {nth} block"),
        ),
        _ => {
            let amount = how_many(w);
            let tower = plural_of("tower", amount.plural);
            let block = plural_of("block", amount.plural);
            let a = if amount.plural { "" } else { "a " };
            let there = w.there(&amount);
            (
                amount.number,
                format!("{there} {tower} with {a}{colour} {block} as the {nth} level"),
            )
        }
    };
    (Meaning::Boxes(number, vec![some(kind)]), sentence)
}

/// `There is a yellow block between two black blocks.`
fn between(w: &mut Words) -> Said {
    let (colour, around) = (w.a_colour(), w.a_colour());
    let amount = w.some();
    let (place, words) = match w.rng.below(4) {
        0 => (
            Place::Between(Colours::one(around)),
            format!("between a {around} blocks"),
        ),
        1 => (
            Place::Between(Colours::one(around)),
            format!("in between two {around} blocks"),
        ),
        2 => (
            Place::Between(Colours::but(around)),
            format!("that is between the two blocks that is not {around}"),
        ),
        _ => (
            Place::Between(Colours::one(around)),
            format!("between two {around} blocks"),
        ),
    };
    (
        Meaning::Objects(amount.number, Objects::of(colour).at(place), Vec::new()),
        format!("{} {colour} block {words}", w.there(&amount)),
    )
}

/// `The base of the three towers are two blue and one yellow.`
fn ends(w: &mut Words) -> Said {
    let (a, b) = w.two_colours();
    let (place, end) = end(w);
    let of = |colour: Colour| vec![some(Objects::of(colour).at(place))];
    let exactly = |n, colour| Meaning::Boxes(Number::Exactly(n), of(colour));
    match w.rng.below(6) {
        0 => {
            let both = Objects {
                colours: Colours::one(a).and(Colours::one(b)),
                ..Objects::ANY
            };
            (
                Meaning::All(vec![
                    Meaning::Boxes(Number::Exactly(3), vec![some(both.at(place))]),
                    Meaning::Boxes(Number::AtLeast(1), of(a)),
                    Meaning::Boxes(Number::AtLeast(1), of(b)),
                ]),
                format!("The {end}s of the towers are {a} and {b} only"),
            )
        }
        1 => {
            let blocks = w.pick(&["", "blocks"]);
            let (two, one) = (w.n(2), w.n(1));
            (
                Meaning::All(vec![exactly(2, a), exactly(1, b)]),
                format!("The {end} of the three towers are {two} {a} and {one} {b} {blocks}"),
            )
        }
        2 => {
            let n = 2 + w.rng.below(3);
            let clauses = [vec![things(n)], of(a)].concat();
            (
                Meaning::Boxes(Number::AtLeast(1), clauses),
                format!("The {end} of a {} blocks tower is {a}", w.n(n)),
            )
        }
        3 => {
            let item = w.pick(&["item", "block"]);
            (
                Meaning::Boxes(
                    Number::AtLeast(1),
                    vec![some(Objects::of(a).at(Place::FromTop(0)))],
                ),
                format!("The {a} {item} is on top"),
            )
        }
        _ => {
            let n = 1 + w.rng.below(2);
            let verb = w.pick(&["has", "have"]);
            let number = capital(&w.n(n));
            (
                exactly(n, a),
                format!("{number} of the three towers {verb} a {a} {end}"),
            )
        }
    }
}

/// `There are exactly 2 yellow items touching the wall.`: the blocks at the base.
fn touching(w: &mut Words) -> Said {
    let kind = Objects::of(w.a_colour()).at(Place::Wall);
    w.item = "item";
    let amount = how_many(w);
    let phrase = w.phrase(&amount, &kind);
    let are = if amount.plural { "are" } else { "is" };
    match w.rng.below(5) {
        0 => {
            let noun = w.noun(&kind, false);
            (
                Meaning::Objects(Number::AtLeast(1), kind, Vec::new()),
                format!("The {noun} is touching the wall"),
            )
        }
        _ => (
            Meaning::Objects(amount.number, kind, Vec::new()),
            format!("There {are} {phrase} touching the wall"),
        ),
    }
}
