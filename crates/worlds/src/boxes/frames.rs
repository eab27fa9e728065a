//! What is said of boxes as a whole: a condition on a box, and how many satisfy it.

use super::meaning::{Clause, Meaning, Number, Objects};
use super::words::{Amount, Words, plural_of, things};

/// What a form gives: what is meant, and how it is said.
pub(super) type Said = (Meaning, String);
/// A form of sentences and how often it is used.
pub(super) type Form = (usize, fn(&mut Words) -> Said);
/// A condition on a box, with what follows `with` or `has`.
pub(super) type Condition = (Vec<Clause>, String);
/// A form of conditions and how often it is used.
pub(super) type Part = (usize, fn(&mut Words) -> Condition);

/// What a box is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noun {
    Tower,
    Box,
    GreyBox,
}

/// A sentence about how many boxes satisfy a condition.
pub(super) fn boxes(w: &mut Words, noun: Noun, parts: &[Part]) -> Said {
    w.item = match noun {
        Noun::Tower => w.pick(&["block", "block", "block", "block", "block", "block", "item"]),
        Noun::Box => w.pick(&["item", "item", "item", "item", "item", "object"]),
        Noun::GreyBox => "object",
    };
    let weights: Vec<usize> = parts.iter().map(|part| part.0).collect();
    let part = parts[w.rng.weighted(&weights)].1;
    let (clauses, words) = part(w);
    match noun {
        Noun::Tower => of_towers(w, clauses, &words),
        Noun::Box => of_boxes(w, clauses, &words),
        Noun::GreyBox => of_grey_boxes(w, clauses, &words),
    }
}

/// `with`, `which has`, ...
fn with(w: &mut Words, plural: bool) -> &'static str {
    match (w.rng.below(15), plural) {
        (0, true) => w.pick(&["which have", "that have", "that contain"]),
        (1, true) => w.pick(&["which has", "that has"]),
        (0, false) => w.pick(&["which has", "that contains"]),
        (1, false) => w.pick(&["which has", "that has", "having"]),
        _ => "with",
    }
}

fn there(w: &mut Words, amount: &Amount, noun: &str, clauses: Vec<Clause>, words: &str) -> Said {
    let noun = plural_of(noun, amount.plural);
    let with = with(w, amount.plural);
    (
        Meaning::Boxes(amount.number, clauses),
        format!("{} {noun} {with} {words}", w.there(amount)),
    )
}

fn of_towers(w: &mut Words, mut clauses: Vec<Clause>, words: &str) -> Said {
    let exactly = |n, clauses| Meaning::Boxes(Number::Exactly(n), clauses);
    match w.rng.below(100) {
        0..=85 => {
            let amount = w.how_many(&[55, 40, 5]);
            let each = amount.plural && counts_all(&clauses) && w.rng.percent(25);
            let words = if each {
                format!("{words} each")
            } else {
                words.to_owned()
            };
            there(w, &amount, "tower", clauses, &words)
        }
        86 | 87 => {
            let has = w.pick(&["has", "contains", "with"]);
            (exactly(1, clauses), format!("One tower {has} {words}"))
        }
        88..=90 => {
            let towers = w.pick(&["towers", "tower", "three towers"]);
            (
                exactly(1, clauses),
                format!("One of the {towers} has {words}"),
            )
        }
        91 => {
            let has = w.pick(&["has", "have"]);
            (
                exactly(2, clauses),
                format!("Two of the three towers {has} {words}"),
            )
        }
        92 | 93 => {
            if let Some(said) = in_each(w, "tower", &clauses, words) {
                return said;
            }
            let all = w.pick(&[
                "All the towers have",
                "All the towers has",
                "All towers have",
                "Each tower has",
                "All the three towers have",
            ]);
            (exactly(3, clauses), format!("{all} {words}"))
        }
        94 => {
            let none = w.pick(&[
                "None of the towers have",
                "None of the towers has",
                "No tower has",
            ]);
            (exactly(0, clauses), format!("{none} {words}"))
        }
        _ => {
            let n = 2 + w.rng.weighted(&[1, 3, 4]);
            clauses.insert(0, things(n));
            let how = w.pick(&["", "", "exactly "]);
            let who = w.pick(&["The tower", "The tower", "The tower", "One of the tower"]);
            (
                Meaning::Boxes(Number::AtLeast(1), clauses),
                format!("{who} with {how}{} blocks has {words}", w.n(n)),
            )
        }
    }
}

/// Whether it is only said how many things there are.
fn counts_all(clauses: &[Clause]) -> bool {
    matches!(clauses, [Clause::Has(_, kind)] if *kind == Objects::ANY)
}

/// `There is at least 1 blue item in each box`, if a number is said, and now and then.
fn in_each(w: &mut Words, noun: &str, clauses: &[Clause], words: &str) -> Option<Said> {
    let [Clause::Has(_, _)] = clauses else {
        return None;
    };
    let are = if words.ends_with('s') { "are" } else { "is" };
    w.rng.coin().then(|| {
        (
            Meaning::Boxes(Number::Exactly(3), clauses.to_vec()),
            format!("There {are} {words} in each {noun}"),
        )
    })
}

fn of_boxes(w: &mut Words, clauses: Vec<Clause>, words: &str) -> Said {
    let exactly = |n, clauses| Meaning::Boxes(Number::Exactly(n), clauses);
    let amount = match w.rng.below(100) {
        0..=59 => w.some(),
        60..=71 => w.plain(1),
        72..=80 => w.plain(2),
        81..=86 => w.just(1),
        87 => w.just(2),
        88 => w.at_least(2),
        89..=91 => w.some(),
        92 | 93 => w.no(),
        94..=96 => {
            let has = w.pick(&["has", "has", "contains"]);
            return (exactly(1, clauses), format!("One box {has} {words}"));
        }
        97 => {
            let has = w.pick(&["Two boxes have", "Two of the boxes have"]);
            return (exactly(2, clauses), format!("{has} {words}"));
        }
        _ => {
            if let Some(said) = in_each(w, "box", &clauses, words) {
                return said;
            }
            let has = w.pick(&["Each box has", "Each box has", "All the boxes have"]);
            return (exactly(3, clauses), format!("{has} {words}"));
        }
    };
    let within = w.pick(&["", "", "", "", "", "", "", "", "", "", "", "in it"]);
    there(w, &amount, "box", clauses, &format!("{words} {within}"))
}

fn of_grey_boxes(w: &mut Words, clauses: Vec<Clause>, words: &str) -> Said {
    let grey = w.pick(&["grey box", "grey box", "grey box", "grey square"]);
    let has = w.pick(&["has", "contains"]);
    match w.rng.below(100) {
        0..=54 => (
            Meaning::Boxes(Number::Exactly(1), clauses),
            format!("One of the {grey} {has} {words}"),
        ),
        55..=74 => (
            Meaning::Boxes(Number::AtLeast(1), clauses),
            format!("At least one {grey} {has} {words}"),
        ),
        75..=94 => {
            let amount = match w.rng.below(5) {
                0 => w.plain(1),
                1 => w.plain(2),
                _ => w.some(),
            };
            there(w, &amount, grey, clauses, words)
        }
        _ => (
            Meaning::Boxes(Number::Exactly(3), clauses),
            format!("Each {grey} has {words}"),
        ),
    }
}
