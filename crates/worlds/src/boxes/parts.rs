//! Conditions on a box that may hold a tower or scattered items: how many things, and of which colours.

use super::frames::Condition;
use super::meaning::{Alike, Clause, Number, Objects};
use super::scene::{Colour, Colours};
use super::words::{Words, has, plural_of, some, things};

/// The two.
fn both(a: Colour, b: Colour) -> Colours {
    Colours::one(a).and(Colours::one(b))
}

/// `exactly two black items`
pub(super) fn counted(w: &mut Words) -> Condition {
    let colour = w.a_colour();
    let n = 1 + w.rng.weighted(&[5, 6, 3, 1]);
    let amount = match w.rng.below(8) {
        0 | 1 => w.at_least(n),
        2 => w.just(n),
        3 if n < 3 => w.just(n),
        4 if n == 1 => w.some(),
        5 if w.rng.percent(15) => w.no(),
        _ => w.plain(n),
    };
    let kind = Objects::of(colour);
    (vec![has(&amount, kind)], w.phrase(&amount, &kind))
}

/// `exactly four items`
pub(super) fn number(w: &mut Words) -> Condition {
    let n = 1 + w.rng.weighted(&[5, 6, 5, 5, 1, 1]);
    let amount = match w.rng.below(10) {
        0 | 1 => w.at_least(n),
        2 => w.at_most(n),
        3..=6 => w.just(n),
        _ => w.plain(n),
    };
    (
        vec![has(&amount, Objects::ANY)],
        w.phrase(&amount, &Objects::ANY),
    )
}

/// `two yellow and two blue items`
pub(super) fn several(w: &mut Words) -> Condition {
    let mut colours = Colour::ALL;
    w.rng.shuffle(&mut colours);
    if w.rng.percent(12) {
        return and_others(w, colours[0]);
    }
    let count = if w.rng.percent(15) { 3 } else { 2 };
    let (mut clauses, mut phrases) = (Vec::new(), Vec::new());
    let short = w.rng.percent(35);
    for (i, &colour) in colours[..count].iter().enumerate() {
        let n = 1 + w.rng.weighted(&[6, 5, 2]);
        let amount = match w.rng.below(8) {
            0 => w.at_least(n),
            1 => w.just(n),
            2 if n == 1 => w.some(),
            _ => w.plain(n),
        };
        clauses.push(has(&amount, Objects::of(colour)));
        phrases.push(if short && i + 1 < count {
            format!("{} {colour}", amount.words)
        } else {
            w.phrase(&amount, &Objects::of(colour))
        });
    }
    let last = phrases.pop().unwrap_or_default();
    let comma = w.pick(&[", ", " , ", " and "]);
    (clauses, format!("{} and {last}", phrases.join(comma)))
}

/// `only one blue item and at least 3 items of another color`
fn and_others(w: &mut Words, colour: Colour) -> Condition {
    let n = 1 + w.rng.below(3);
    let first = match w.rng.below(2) {
        0 => w.just(n),
        _ => w.plain(n),
    };
    let n = 1 + w.rng.below(4);
    let second = match w.rng.below(3) {
        0 => w.at_least(n),
        _ => w.plain(n),
    };
    let kind = Objects::of(colour);
    let other = Objects {
        colours: Colours::but(colour),
        ..Objects::ANY
    };
    let (items, spelled) = (w.item(second.plural), w.colour);
    let others = match w.rng.below(2) {
        0 => format!("{} other {items}", second.words),
        _ => format!("{} {items} of another {spelled}", second.words),
    };
    (
        vec![has(&first, kind), has(&second, other)],
        format!("{} and {others}", w.phrase(&first, &kind)),
    )
}

/// `only blue and yellow items`
pub(super) fn only(w: &mut Words) -> Condition {
    let (a, b) = w.two_colours();
    let (items, spelled) = (w.item(true), w.colour);
    match w.rng.below(12) {
        0..=5 => (
            vec![Clause::Palette(both(a, b))],
            format!("only {a} and {b} {items}"),
        ),
        6 => (
            vec![Clause::Palette(both(a, b))],
            format!("{items} of only {a} and {b} {spelled}"),
        ),
        7 => {
            let n = 2 + w.rng.below(3);
            let words = match w.rng.below(5) {
                0 => format!("{} {items} of only {a} and {b} {spelled}", w.n(n)),
                1 => format!("{} {items} with only {a} and {b} {spelled}", w.n(n)),
                2 => format!("only {} {items} of {a} and {b} {spelled}", w.n(n)),
                3 => format!("only {} {a} and {b} {items}", w.n(n)),
                _ => format!("{} {items} of {a} and {b} {spelled}", w.n(n)),
            };
            (vec![things(n), Clause::Palette(both(a, b))], words)
        }
        8..=10 => (
            vec![Clause::Only(Objects::of(a))],
            match w.rng.below(4) {
                0 => format!("only {a} {spelled} {items}"),
                _ => format!("only {a} {items}"),
            },
        ),
        _ => {
            // one of them and how many
            let amount = match w.rng.below(2) {
                0 => w.plain(1),
                _ => w.plain(2),
            };
            let verb = if amount.plural { "are" } else { "is" };
            (
                vec![Clause::Palette(both(a, b)), has(&amount, Objects::of(a))],
                format!(
                    "only {a} and {b} {items} of which {} {verb} {a}",
                    amount.words
                ),
            )
        }
    }
}

/// `items of 2 different colors`
pub(super) fn variety(w: &mut Words) -> Condition {
    let n = 1 + w.rng.weighted(&[2, 4, 5]);
    let (items, spelled) = (w.item(true), w.colour);
    let colours = plural_of(spelled, n > 1 && !w.rng.percent(15));
    let mut clauses = vec![Clause::Variety(Number::Exactly(n))];
    if n == 1 {
        let words = match w.rng.below(5) {
            0 => format!("a single {spelled}"),
            1 | 2 => format!("only {} {spelled}", w.n(1)),
            _ => {
                let m = 2 + w.rng.below(2);
                clauses.push(things(m));
                let how = w.pick(&["", "exactly ", "only "]);
                format!("{how}{} {items} of the same {spelled}", w.n(m))
            }
        };
        return (clauses, words);
    }
    let kinds = match w.rng.below(5) {
        0 if n == 3 => format!("all {} different {colours}", w.n(n)),
        1 if n == 3 => format!("all {} {colours}", w.n(n)),
        0 if n == 2 => format!("only {} different {colours}", w.n(n)),
        1 => format!("{} {colours}", w.n(n)),
        _ => format!("{} different {colours}", w.n(n)),
    };
    match w.rng.below(10) {
        0..=4 => (clauses, format!("{items} of {kinds}")),
        5..=8 => {
            let m = n + w.rng.below(5 - n);
            let amount = match w.rng.below(8) {
                0 => w.at_most(m),
                1 => w.just(m),
                _ => w.plain(m),
            };
            clauses.push(has(&amount, Objects::ANY));
            let of = w.pick(&["of", "of", "of", "having items of"]);
            let of = of.replace("items", &items);
            (clauses, format!("{} {items} {of} {kinds}", amount.words))
        }
        _ => {
            let m = 3 + w.rng.below(2);
            let clauses = vec![things(m), Clause::Variety(Number::AtMost(2))];
            (
                clauses,
                format!(
                    "{} {items} but not all {} different {spelled}s",
                    w.n(m),
                    w.n(3)
                ),
            )
        }
    }
}

/// `3 items of which 2 are black`
pub(super) fn of_which(w: &mut Words) -> Condition {
    let colour = w.a_colour();
    let all = 2 + w.rng.weighted(&[2, 3, 3]);
    let part = 1 + w.rng.below(all - 1);
    let (total, said) = match w.rng.below(10) {
        0 => (Number::AtLeast(2), "multiple".to_owned()),
        i => {
            let amount = match i {
                1 => w.at_most(all),
                2 => w.just(all),
                3 => w.at_least(all),
                _ => w.plain(all),
            };
            (amount.number, amount.words)
        }
    };
    let of_them = match w.rng.below(5) {
        0 => w.at_least(part),
        _ => w.plain(part),
    };
    let verb = if of_them.plural { "are" } else { "is" };
    let (items, part) = (w.item(true), &of_them.words);
    let words = match w.rng.below(9) {
        _ if said.starts_with("at most") && w.rng.coin() => {
            let n = said.trim_start_matches("at most ");
            format!("{n} {items} at most of which {part} {verb} {colour}")
        }
        0 => format!("{said} {items} and {part} {verb} {colour}"),
        8 => {
            let spelled = w.colour;
            format!("{said} {items} and the {part} {items} {verb} {colour} in {spelled}")
        }
        1 => format!("{said} {items} and the {part} {verb} {colour}"),
        2 => {
            let kind = w.noun(&Objects::of(colour), of_them.plural);
            format!("{said} {items} of which {part} {verb} {kind}")
        }
        _ => format!("{said} {items} of which {part} {verb} {colour}"),
    };
    (
        vec![
            Clause::Has(total, Objects::ANY),
            has(&of_them, Objects::of(colour)),
        ],
        words,
    )
}

/// `only one item that is not blue`
pub(super) fn single(w: &mut Words) -> Condition {
    let colour = w.a_colour();
    let not = w.rng.percent(30);
    let kind = if not {
        Objects {
            colours: Colours::but(colour),
            ..Objects::ANY
        }
    } else {
        Objects::of(colour)
    };
    let not = if not { "not " } else { "" };
    let one = match w.rng.below(5) {
        0 => "a single".to_owned(),
        1 => format!("exactly {}", w.n(1)),
        2 => w.n(1),
        _ => format!("only {}", w.n(1)),
    };
    let (item, spelled) = (w.item(false), w.colour);
    let words = match w.rng.below(7) {
        0 if not.is_empty() => format!("{one} {item} which is of {colour} {spelled}"),
        1 if not.is_empty() => format!("{one} {item} and the {spelled} is {colour}"),
        2 if not.is_empty() => format!("{one} {item} of {colour} {spelled}"),
        3 => format!("{one} {item} and it is {not}{colour}"),
        4 => format!("{one} {item} which is {not}{colour}"),
        _ => format!("{one} {item} that is {not}{colour}"),
    };
    (vec![things(1), Clause::Only(kind)], words)
}

/// `3 items of the same colour`, whatever else there is.
pub(super) fn alike(w: &mut Words) -> Condition {
    let n = 2 + w.rng.below(2);
    let amount = match w.rng.below(2) {
        0 => w.at_least(n),
        _ => w.plain(n),
    };
    let (items, spelled) = (w.item(true), w.colour);
    (
        vec![Clause::Alike(amount.number, Alike::Colour, Objects::ANY)],
        format!("{} {items} of same {spelled}", amount.words),
    )
}

/// Used by both kinds of scenes: all of a condition's things are of a kind.
pub(super) fn all_of(w: &mut Words, kind: Objects) -> Condition {
    let n = 1 + w.rng.weighted(&[3, 4, 1]);
    let amount = w.just(n);
    let item = w.item(amount.plural);
    let noun = w.noun(&kind, amount.plural);
    let is = match (amount.plural, w.rng.below(3)) {
        _ if kind.shape.is_none() && w.rng.percent(80) => {
            let verb = if amount.plural { "are" } else { "is" };
            let colour = noun.split(' ').next().unwrap_or_default();
            return (
                vec![things(n), Clause::Only(kind)],
                format!("{} {item} which {verb} {colour}", amount.words),
            );
        }
        (false, 0) => "which is a",
        (false, _) => "and it is a",
        (true, 0) => "which are",
        (true, _) => "and they are",
    };
    (
        vec![things(n), Clause::Only(kind)],
        format!("{} {item} {is} {noun}", amount.words),
    )
}

/// One of so many things is of a kind.
pub(super) fn one_of(w: &mut Words, kind: Objects) -> Condition {
    let n = 2 + w.rng.below(4);
    let amount = match w.rng.below(5) {
        0 => w.at_most(n),
        1 => w.plain(n),
        _ => w.just(n),
    };
    let (items, noun) = (w.item(true), w.noun(&kind, false));
    let (clause, words) = match w.rng.below(4) {
        0 => (
            Clause::Has(Number::Exactly(1), kind),
            format!("{} {items} of which {} is a {noun}", amount.words, w.n(1)),
        ),
        1 => {
            let nouns = w.noun(&kind, true);
            (
                some(kind),
                format!("{} {items} including {nouns}", amount.words),
            )
        }
        _ => (
            some(kind),
            format!("{} {items} {} of which is a {noun}", amount.words, w.n(1)),
        ),
    };
    (vec![has(&amount, Objects::ANY), clause], words)
}
