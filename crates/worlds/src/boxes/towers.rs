//! Sentences about towers.

use super::meaning::{Clause, Meaning, Number, Objects, Place};
use super::scene::Colours;
use super::words::{Amount, Words, plural_of};

type Said = (Meaning, String);
/// A form of sentences and how often it is used.
pub(super) type Form = (usize, fn(&mut Words) -> Said);

pub(super) const FORMS: [Form; 14] = [
    (110, as_base),
    (130, tower_with_end),
    (35, count_blocks),
    (60, block_on),
    (40, tower_with_on),
    (40, tower_with_blocks),
    (30, height),
    (25, the_tower),
    (45, colours_of_tower),
    (20, same_base),
    (15, every_tower),
    (15, second_block),
    (8, between),
    (10, bases),
];

fn has(amount: &Amount, items: Objects) -> Clause {
    Clause::Has(amount.number, items)
}

fn some(items: Objects) -> Clause {
    Clause::Has(Number::AtLeast(1), items)
}

fn high(n: usize) -> Clause {
    Clause::Has(Number::Exactly(n), Objects::ANY)
}

/// `with at least two blocks`, and what it says.
fn of_height(w: &mut Words) -> (Clause, String) {
    let amount = match w.rng.below(8) {
        0 | 1 => {
            let n = 2 + w.rng.below(2);
            w.at_least(n)
        }
        2 => {
            let n = 2 + w.rng.below(2);
            w.at_most(n)
        }
        3 => {
            let n = 2 + w.rng.below(2);
            w.just(n)
        }
        _ => {
            let n = 2 + w.rng.weighted(&[1, 1, 3]);
            w.plain(n)
        }
    };
    let words = format!("with {} blocks", amount.words);
    (has(&amount, Objects::ANY), words)
}

/// How many towers.
fn towers(w: &mut Words) -> Amount {
    w.how_many(&[55, 40, 5])
}

/// `base` or `top`.
fn end(w: &mut Words) -> (Place, &'static str) {
    if w.rng.percent(60) {
        (Place::Level(0), "base")
    } else {
        (Place::FromTop(0), "top")
    }
}

/// `There is a black block as the base of a tower with four blocks.`
fn as_base(w: &mut Words) -> Said {
    let (amount, colour) = (towers(w), w.a_colour());
    let (place, end) = end(w);
    let kind = Objects::of(colour).at(place);
    if w.rng.percent(10) {
        // how many towers, not blocks
        let there = w.there(&amount);
        let said = towers_of(w);
        let tower = plural_of("tower", said.plural);
        let _ = (amount, there);
        return (
            Meaning::Boxes(said.number, vec![some(kind)]),
            format!(
                "There is a {colour} block as the {end} of {} {tower}",
                said.words
            ),
        );
    }
    let (mut within, mut suffix) = (Vec::new(), String::new());
    if w.rng.percent(55) {
        let (clause, words) = of_height(w);
        within.push(clause);
        suffix = words;
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

/// `at least two`, `exactly one`, `two`.
fn towers_of(w: &mut Words) -> Amount {
    let n = 1 + w.rng.below(2);
    match w.rng.below(3) {
        0 => w.at_least(n),
        1 => w.just(n),
        _ => w.plain(2),
    }
}

/// `There is exactly one tower with a black block at the base`
fn tower_with_end(w: &mut Words) -> Said {
    let colour = w.a_colour();
    let (place, end) = end(w);
    let end = if end == "base" && w.rng.percent(12) {
        "bottom"
    } else {
        end
    };
    let kind = Objects::of(colour).at(place);
    let mut clauses = vec![some(kind)];
    let mut with = match w.rng.below(12) {
        0 => format!("with a {colour} {end}"),
        1 => format!("with {colour} {end}"),
        2 => format!("with {colour} block at the {end}"),
        3 => format!("with {} {colour} block at the {end}", w.n(1)),
        4 => format!("which has a {colour} block at the {end}"),
        5 => format!("that has a {colour} block at the {end}"),
        6 => format!("with a {colour} block at {end}"),
        7 => format!("with a {colour} block on the {end}"),
        _ => format!("with a {colour} block at the {end}"),
    };
    if w.rng.percent(8) {
        let (other, opposite) = match place {
            Place::Level(0) => (Place::FromTop(0), "top"),
            _ => (Place::Level(0), "base"),
        };
        let second = w.a_colour();
        with = format!("{with} and a {second} block at the {opposite}");
        clauses.push(some(Objects::of(second).at(other)));
    }
    if w.rng.percent(8) {
        let n = 2 + w.rng.below(3);
        let how = w.pick(&["", "exactly "]);
        with = format!("with {how}{} blocks {with}", w.n(n));
        clauses.insert(0, high(n));
    }
    if w.rng.percent(10) {
        let intro = w.pick(&[
            "One tower",
            "One of the towers",
            "One of the tower",
            "One of the three towers",
        ]);
        let with = with.replacen("with a", "has a", 1);
        return (
            Meaning::Boxes(Number::Exactly(1), clauses),
            format!("{intro} {with}"),
        );
    }
    let amount = towers(w);
    let tower = plural_of("tower", amount.plural);
    (
        Meaning::Boxes(amount.number, clauses),
        format!("{} {tower} {with}", w.there(&amount)),
    )
}

/// `There are 3 yellow blocks`
fn count_blocks(w: &mut Words) -> Said {
    let n = 1 + w.rng.weighted(&[1, 3, 3, 2, 1]);
    let amount = match w.rng.below(6) {
        0 => w.at_least(n),
        1 => w.just(n),
        _ => w.plain(n),
    };
    let colour = w.a_colour();
    let block = plural_of("block", amount.plural);
    let kind = Objects::of(colour);
    (
        Meaning::Objects(amount.number, kind, Vec::new()),
        format!("{} {colour} {block}", w.there(&amount)),
    )
}

/// Two colours, of which the first is right above or below the second.
fn stacked(w: &mut Words) -> (Objects, String) {
    let (first, second) = (w.a_colour(), w.a_colour());
    let a = w.pick(&["a", "a", "a", "the"]);
    let below = w.rng.percent(12);
    let word = if below {
        w.pick(&["below", "bellow", "under"])
    } else {
        w.pick(&["on", "on", "above", "above", "over", "on top of"])
    };
    let near = Colours::one(second);
    let place = if below {
        Place::Under(near)
    } else {
        Place::On(near)
    };
    (
        Objects::of(first).at(place),
        format!("{first} block {word} {a} {second} block"),
    )
}

/// `There is a black block on a blue block.`
fn block_on(w: &mut Words) -> Said {
    let (kind, words) = stacked(w);
    let amount = match w.rng.below(10) {
        0..=7 => w.some(),
        8 => w.just(1),
        _ => Amount {
            number: Number::Exactly(0),
            words: "no".to_owned(),
            plural: false,
        },
    };
    let sentence = format!("{} {words}", w.there(&amount));
    (Meaning::Objects(amount.number, kind, Vec::new()), sentence)
}

/// `there are two towers with a black block over a yellow block`
fn tower_with_on(w: &mut Words) -> Said {
    let (kind, words) = stacked(w);
    let mut clauses = vec![some(kind)];
    if w.rng.percent(20) {
        let n = 2 + w.rng.weighted(&[1, 2, 3]);
        clauses.insert(0, high(n));
        let intro = w.pick(&["There is a tower", "The tower", "One of the tower"]);
        let has = if intro == "There is a tower" {
            "having"
        } else {
            "has"
        };
        return (
            Meaning::Boxes(Number::AtLeast(1), clauses),
            format!("{intro} with {} blocks {has} a {words}", w.n(n)),
        );
    }
    if w.rng.percent(12) {
        let intro = w.pick(&["One of the tower", "One of the towers", "One tower"]);
        return (
            Meaning::Boxes(Number::Exactly(1), clauses),
            format!("{intro} has a {words}"),
        );
    }
    let amount = towers(w);
    let tower = plural_of("tower", amount.plural);
    let with = if amount.plural {
        w.pick(&["with", "with", "which have"])
    } else {
        w.pick(&["with", "with", "which has"])
    };
    (
        Meaning::Boxes(amount.number, clauses),
        format!("{} {tower} {with} a {words}", w.there(&amount)),
    )
}

/// `There is 1 tower with 2 blue blocks stacked together`
fn tower_with_blocks(w: &mut Words) -> Said {
    let amount = towers(w);
    let tower = plural_of("tower", amount.plural);
    let colour = w.a_colour();
    let (clauses, words) = match w.rng.below(8) {
        0 | 1 => {
            let how = w.pick(&[
                "stacked together",
                "stacked together",
                "attached with each other",
            ]);
            (
                vec![Clause::Run(2, Colours::one(colour))],
                format!("{} {colour} blocks {how}", w.n(2)),
            )
        }
        2 | 3 => {
            let second = w.a_colour();
            let (first, next) = (w.plain(1), w.plain(1));
            if second == colour {
                let two = w.just(2);
                (
                    vec![has(&two, Objects::of(colour))],
                    format!("{} {colour} blocks", two.words),
                )
            } else {
                let n = 1 + w.rng.below(2);
                let first = if n == 1 { first } else { w.plain(n) };
                let block = plural_of("block", first.plural);
                (
                    vec![
                        has(&first, Objects::of(colour)),
                        has(&next, Objects::of(second)),
                    ],
                    format!(
                        "{} {colour} {block} and {} {second} block",
                        first.words, next.words
                    ),
                )
            }
        }
        _ => {
            let n = 1 + w.rng.weighted(&[3, 4, 1]);
            let number = match w.rng.below(4) {
                0 => w.at_least(n),
                1 => w.just(n),
                _ => w.plain(n),
            };
            let block = plural_of("block", number.plural);
            (
                vec![has(&number, Objects::of(colour))],
                format!("{} {colour} {block}", number.words),
            )
        }
    };
    if w.rng.percent(12) {
        let verb = w.pick(&["has", "contains"]);
        return (
            Meaning::Boxes(Number::Exactly(1), clauses),
            format!("One tower {verb} {words}"),
        );
    }
    let with = w.pick(&[
        "with",
        "with",
        "with",
        "that contains",
        "which has",
        "that has",
    ]);
    (
        Meaning::Boxes(amount.number, clauses),
        format!("{} {tower} {with} {words}", w.there(&amount)),
    )
}

/// `There is a tower with exactly two blocks.`
fn height(w: &mut Words) -> Said {
    let n = 1 + w.rng.weighted(&[3, 3, 3, 4]);
    let amount = towers(w);
    let tower = plural_of("tower", amount.plural);
    let block = plural_of("block", n > 1);
    if w.rng.percent(12) && n > 1 {
        return (
            Meaning::Boxes(amount.number, vec![high(n)]),
            format!("{} {} blocks {tower}", w.there(&amount), w.n(n)),
        );
    }
    let number = match w.rng.below(5) {
        0 => w.at_least(n.clamp(2, 4)),
        1 => w.plain(n),
        _ => w.just(n),
    };
    let block = if number.plural {
        "blocks".to_owned()
    } else {
        block
    };
    let (mut clauses, mut words) = (
        vec![has(&number, Objects::ANY)],
        format!("{} {block}", number.words),
    );
    if number.number == Number::Exactly(1) {
        words = match w.rng.below(4) {
            0 => "a single block".to_owned(),
            _ => words,
        };
        if w.rng.percent(30) {
            let colour = w.a_colour();
            words = match w.rng.below(3) {
                0 => format!("{words} which is of {colour} {}", w.colour),
                1 => format!("{words} and the {} is {colour}", w.colour),
                _ => format!("{words} that is {colour}"),
            };
            clauses.push(Clause::Only(Objects::of(colour)));
        }
    } else if number.plural && w.rng.percent(12) && amount.plural {
        words = format!("{words} each");
    }
    let with = if amount.plural {
        w.pick(&["with", "with", "that have"])
    } else {
        w.pick(&["with", "with", "with", "that has", "which has"])
    };
    (
        Meaning::Boxes(amount.number, clauses),
        format!("{} {tower} {with} {words}", w.there(&amount)),
    )
}

/// `the tower with four blocks has a blue block at the top`
fn the_tower(w: &mut Words) -> Said {
    let n = 2 + w.rng.weighted(&[1, 3, 4]);
    let colour = w.a_colour();
    let how = w.pick(&["", "", "exactly "]);
    let (place, words) = match w.rng.below(6) {
        0 | 1 => (Place::Level(0), "at the base"),
        2 | 3 => (Place::FromTop(0), "at the top"),
        4 if n == 3 => (Place::Level(1), "as a middle block"),
        _ => (Place::FromTop(1), "below the top block"),
    };
    let clause = some(Objects::of(colour).at(place));
    let with = format!("with {how}{} blocks", w.n(n));
    let sentence = match w.rng.below(6) {
        0 => format!("There is a tower {with} having a {colour} block {words}"),
        1 => format!("One of the tower {with} has a {colour} block {words}"),
        2 => format!("There is a tower {with} with a {colour} block {words}"),
        _ => format!("The tower {with} has a {colour} block {words}"),
    };
    (
        Meaning::Boxes(Number::AtLeast(1), vec![high(n), clause]),
        sentence,
    )
}

/// `There is a tower with only blue and black blocks.`
fn colours_of_tower(w: &mut Words) -> Said {
    let amount = towers(w);
    let tower = plural_of("tower", amount.plural);
    let there = w.there(&amount);
    let colour = w.a_colour();
    let spelled = w.colour;
    let with = if amount.plural {
        "with"
    } else {
        w.pick(&["with", "which has", "that has"])
    };
    let (clauses, sentence) = match w.rng.below(10) {
        0..=2 => {
            let mut clauses = vec![Clause::Only(Objects::of(colour))];
            let mut sentence = format!("{there} {colour} {tower}");
            if w.rng.percent(50) {
                let n = 1 + w.rng.below(3);
                let number = match w.rng.below(3) {
                    0 if n > 1 => w.at_least(n),
                    _ => w.just(n),
                };
                let block = plural_of("block", number.plural);
                sentence = format!("{sentence} {with} {} {block}", number.words);
                clauses.push(has(&number, Objects::ANY));
            }
            (clauses, sentence)
        }
        3 | 4 => (
            vec![Clause::Only(Objects::of(colour))],
            match w.rng.below(2) {
                0 => format!("{there} {tower} {with} only {colour} blocks"),
                _ => format!("{there} {tower} {with} only {colour} {spelled} blocks"),
            },
        ),
        5 | 6 => {
            let (a, b) = w.two_colours();
            (
                vec![Clause::Palette(Colours::one(a).and(Colours::one(b)))],
                format!("{there} {tower} {with} only {a} and {b} blocks"),
            )
        }
        7 => (
            vec![Clause::Variety(Number::Exactly(1))],
            match w.rng.below(2) {
                0 => format!("{there} {tower} {with} only one {spelled}"),
                _ => format!("{there} {tower} {with} a single {spelled}"),
            },
        ),
        _ => {
            let n = 2 + w.rng.below(2);
            let mut clauses = vec![Clause::Variety(Number::Exactly(n))];
            let mut sentence = match w.rng.below(3) {
                0 if n == 3 => format!("blocks of all {} {spelled}s", w.n(n)),
                1 => format!("blocks of {} {spelled}s", w.n(n)),
                _ => format!("blocks of {} different {spelled}s", w.n(n)),
            };
            if w.rng.percent(40) {
                let m = n + w.rng.below(5 - n);
                clauses.push(high(m));
                sentence = format!("{} blocks having {sentence}", w.n(m));
            }
            (clauses, format!("{there} {tower} with {sentence}"))
        }
    };
    (Meaning::Boxes(amount.number, clauses), sentence)
}

/// `There are only two towers that has the same base color.`
fn same_base(w: &mut Words) -> Said {
    let (place, end) = end(w);
    let spelled = w.colour;
    let mut kind = Objects::ANY.at(place);
    let amount = match w.rng.below(3) {
        0 => w.just(2),
        1 => w.at_least(2),
        _ => w.plain(2),
    };
    let mut sentence = match w.rng.below(4) {
        0 => format!(
            "{} towers with block of same {spelled} at {end}",
            w.there(&amount)
        ),
        1 => format!(
            "{} towers that have the same {end} {spelled}",
            w.there(&amount)
        ),
        2 => format!(
            "{} towers that has the same {end} {spelled}",
            w.there(&amount)
        ),
        _ => format!(
            "{} of the three towers has the same {end} {spelled}",
            amount.words
        ),
    };
    if w.rng.percent(15) {
        let colour = w.a_colour();
        kind.colours = Colours::but(colour);
        sentence = format!("{sentence} that is not {colour}");
    }
    (Meaning::Shared(amount.number, kind), capital(&sentence))
}

/// `There is at least 1 black block in each tower`
fn every_tower(w: &mut Words) -> Said {
    let colour = w.a_colour();
    let kind = Objects::of(colour);
    let (clause, sentence) = match w.rng.below(6) {
        0 => {
            let amount = w.at_least(1);
            (
                has(&amount, kind),
                format!("There is {} {colour} block in each tower", amount.words),
            )
        }
        1 => (some(kind), format!("All the towers have a {colour} block")),
        2 => (some(kind), format!("All the towers has a {colour} block")),
        3 => {
            let amount = w.exactly(1);
            (
                has(&amount, kind),
                format!("Each tower has {} {colour} block", amount.words),
            )
        }
        _ => {
            let (place, end) = end(w);
            let who = w.pick(&["All the towers have", "All towers have", "Each tower has"]);
            (
                some(kind.at(place)),
                format!("{who} a {colour} block at the {end}"),
            )
        }
    };
    (Meaning::Boxes(Number::Exactly(3), vec![clause]), sentence)
}

/// `The second block from the base of a tower is black.`
fn second_block(w: &mut Words) -> Said {
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
            let amount = towers(w);
            let tower = plural_of("tower", amount.plural);
            let block = plural_of("block", amount.plural);
            let a = if amount.plural { "" } else { "a " };
            (
                amount.number,
                format!(
                    "{} {tower} with {a}{colour} {block} as the {nth} level",
                    w.there(&amount)
                ),
            )
        }
    };
    (Meaning::Boxes(number, vec![some(kind)]), sentence)
}

/// `There is a yellow block between two black blocks.`
fn between(w: &mut Words) -> Said {
    let (colour, around) = (w.a_colour(), w.a_colour());
    let amount = w.some();
    let words = match w.rng.below(3) {
        0 => format!("between a {around} blocks"),
        1 => format!("between two {around} blocks"),
        _ => format!("in between two {around} blocks"),
    };
    let kind = Objects::of(colour).at(Place::Between(Colours::one(around)));
    (
        Meaning::Objects(amount.number, kind, Vec::new()),
        format!("{} {colour} block {words}", w.there(&amount)),
    )
}

/// `The base of the three towers are two blue and one yellow.`
fn bases(w: &mut Words) -> Said {
    let (a, b) = w.two_colours();
    let (place, end) = end(w);
    let of = |colour| vec![some(Objects::of(colour).at(place))];
    let exactly = |n, colour| Meaning::Boxes(Number::Exactly(n), of(colour));
    match w.rng.below(3) {
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
        1 => (
            Meaning::All(vec![exactly(2, a), exactly(1, b)]),
            format!(
                "The {end} of the three towers are {} {a} and {} {b}",
                w.n(2),
                w.n(1)
            ),
        ),
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

pub(super) fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    match letters.next() {
        Some(first) => first.to_ascii_uppercase().to_string() + letters.as_str(),
        None => String::new(),
    }
}
