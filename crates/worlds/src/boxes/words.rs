//! Wording: the choices that a sentence makes once and keeps, and the phrases that all forms share.

use super::meaning::{Clause, Number, Objects};
use super::scene::{Colour, Shape, Size};
use crate::rng::Rng;

const NUMBERS: [&str; 10] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
];

/// A condition that so many of these are in a box.
pub(super) fn has(amount: &Amount, kind: Objects) -> Clause {
    Clause::Has(amount.number, kind)
}

/// A condition that there is one of these in a box.
pub(super) fn some(kind: Objects) -> Clause {
    Clause::Has(Number::AtLeast(1), kind)
}

/// A condition that there are so many things in a box.
pub(super) fn things(n: usize) -> Clause {
    Clause::Has(Number::Exactly(n), Objects::ANY)
}

/// How one sentence is worded.
pub(super) struct Words<'a> {
    pub(super) rng: &'a mut Rng,
    /// Numbers as digits.
    digits: bool,
    /// `item`, `object` or `block`.
    pub(super) item: &'static str,
    /// `color` or `colour`.
    pub(super) colour: &'static str,
}

/// A number with its words, such as `exactly two`.
#[derive(Clone, Debug)]
pub(super) struct Amount {
    pub(super) number: Number,
    pub(super) words: String,
    pub(super) plural: bool,
}

impl Amount {
    fn singular(mut self) -> Amount {
        self.plural = false;
        self
    }
}

impl<'a> Words<'a> {
    pub(super) fn new(rng: &'a mut Rng) -> Self {
        let digits = rng.percent(42);
        let item = if rng.percent(88) { "item" } else { "object" };
        let colour = if rng.percent(75) { "color" } else { "colour" };
        Words {
            rng,
            digits,
            item,
            colour,
        }
    }

    /// One of the phrases.
    pub(super) fn pick(&mut self, phrases: &[&'static str]) -> &'static str {
        self.rng.pick(phrases)
    }

    pub(super) fn a_colour(&mut self) -> Colour {
        self.rng.pick(&Colour::ALL)
    }

    pub(super) fn a_shape(&mut self) -> Shape {
        Shape::ALL[self.rng.weighted(&[5, 4, 3])]
    }

    /// Two that differ.
    pub(super) fn two_colours(&mut self) -> (Colour, Colour) {
        let mut colours = Colour::ALL;
        self.rng.shuffle(&mut colours);
        (colours[0], colours[1])
    }

    pub(super) fn n(&self, n: usize) -> String {
        if self.digits || n >= NUMBERS.len() {
            n.to_string()
        } else {
            NUMBERS[n].to_owned()
        }
    }

    fn amount(&self, number: Number, words: String) -> Amount {
        let plural = match number {
            Number::Exactly(n) | Number::AtLeast(n) | Number::AtMost(n) => n != 1,
        };
        Amount {
            number,
            words,
            plural,
        }
    }

    /// One or more: `a` or `at least one`.
    pub(super) fn some(&mut self) -> Amount {
        let words = if self.rng.percent(86) {
            "a".to_owned()
        } else {
            format!("at least {}", self.n(1))
        };
        self.amount(Number::AtLeast(1), words)
    }

    /// One or more: `a`.
    pub(super) fn some_plain(&mut self) -> Amount {
        self.amount(Number::AtLeast(1), "a".to_owned())
    }

    /// So many and no more, said with `exactly` or `only`.
    pub(super) fn just(&mut self, n: usize) -> Amount {
        let how = self.pick(&["exactly", "exactly", "exactly", "only"]);
        let words = format!("{how} {}", self.n(n));
        self.amount(Number::Exactly(n), words)
    }

    /// So many and no more, without any word for it.
    pub(super) fn plain(&mut self, n: usize) -> Amount {
        let words = self.n(n);
        self.amount(Number::Exactly(n), words)
    }

    /// So many or more.
    pub(super) fn at_least(&mut self, n: usize) -> Amount {
        let words = if n > 1 && self.rng.percent(12) {
            format!("more than {}", self.n(n - 1))
        } else {
            format!("at least {}", self.n(n))
        };
        let mut amount = self.amount(Number::AtLeast(n), words);
        amount.plural |= n > 1;
        amount
    }

    pub(super) fn at_most(&mut self, n: usize) -> Amount {
        let words = if n > 1 && self.rng.percent(25) {
            format!("less than {}", self.n(n + 1))
        } else {
            format!("at most {}", self.n(n))
        };
        self.amount(Number::AtMost(n), words)
    }

    /// None.
    pub(super) fn no(&mut self) -> Amount {
        self.amount(Number::Exactly(0), "no".to_owned()).singular()
    }

    /// What `There is` is followed by; the number is 1 or, as likely as its weight, more.
    pub(super) fn how_many(&mut self, weights: &[usize]) -> Amount {
        let n = 1 + self.rng.weighted(weights);
        match self.rng.below(100) {
            0..=53 => self.some(),
            54..=71 => self.just(n),
            72..=86 => self.plain(n),
            87..=93 => self.at_least(n),
            _ => self.no(),
        }
    }

    /// `There is a` or `There are exactly two`.
    pub(super) fn there(&mut self, amount: &Amount) -> String {
        let verb = if amount.plural { "are" } else { "is" };
        format!("There {verb} {}", amount.words)
    }

    /// `item`, `items`, `object`, `objects`.
    pub(super) fn item(&self, plural: bool) -> String {
        plural_of(self.item, plural)
    }

    /// Objects with a form, or any.
    pub(super) fn kind(&mut self, coloured: usize, formed: usize, sized: usize) -> Objects {
        let mut items = Objects::ANY;
        if self.rng.percent(coloured) {
            items = Objects::of(self.a_colour());
        }
        if self.rng.percent(formed) {
            items.shape = Some(self.a_shape());
        }
        if self.rng.percent(sized) {
            items.size = Some(self.rng.pick(&Size::ALL));
        }
        items
    }

    /// `small yellow circles`; the place is not said.
    pub(super) fn noun(&mut self, items: &Objects, plural: bool) -> String {
        let mut words = String::new();
        if let Some(size) = items.size {
            words += match size {
                Size::Small => "small ",
                Size::Medium => "",
                Size::Large => self.pick(&["big ", "large "]),
            };
        }
        if items.colours.count() == 1 {
            for colour in Colour::ALL {
                if items.colours.has(colour) {
                    words += colour.word();
                    words += " ";
                }
            }
        }
        words += &match items.shape {
            Some(shape) => plural_of(shape.word(), plural),
            None => self.item(plural),
        };
        if items.size == Some(Size::Medium) {
            words += " of medium size";
        }
        words
    }

    /// An amount of items: `exactly two blue circles`.
    pub(super) fn phrase(&mut self, amount: &Amount, items: &Objects) -> String {
        let noun = self.noun(items, amount.plural);
        format!("{} {noun}", amount.words)
    }

    /// The last touches: article, capital, full stop and slips of the pen.
    pub(super) fn finish(&mut self, sentence: &str) -> String {
        let mut words: Vec<&str> = sentence
            .split(' ')
            .filter(|word| !word.is_empty())
            .collect();
        for i in 1..words.len() {
            let vowel = words[i].starts_with("item") || words[i].starts_with("object");
            match words[i - 1] {
                "a" if vowel => words[i - 1] = "an",
                "A" if vowel => words[i - 1] = "An",
                _ => {}
            }
        }
        let mut sentence = words.join(" ");
        if self.rng.percent(5) {
            let (right, slip) = self.rng.pick(&SLIPS);
            sentence = sentence.replacen(right, slip, 1);
        }
        if self.rng.percent(30) {
            let first = sentence.remove(0).to_ascii_lowercase();
            sentence.insert(0, first);
        }
        if self.rng.percent(52) {
            sentence.push('.');
        }
        sentence
    }
}

/// How annotators slip.
const SLIPS: [(&str, &str); 12] = [
    ("at least", "atleast"),
    ("at least", "t least"),
    ("At least", "t least"),
    ("There is a ", "There is "),
    ("There is a ", "There isa "),
    ("There is a ", "There is as "),
    (" a blue", " ablue"),
    ("All", "ll"),
    ("The ", ""),
    (" the edge", " an edge"),
    ("yellow", "yelow"),
    ("with a ", "with "),
];

pub(super) fn plural_of(noun: &str, plural: bool) -> String {
    match (noun, plural) {
        (_, false) => noun.to_owned(),
        (_, true) if noun.ends_with("box") => format!("{noun}es"),
        (_, true) => format!("{noun}s"),
    }
}

/// With a capital at its beginning.
pub(super) fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    match letters.next() {
        Some(first) => first.to_ascii_uppercase().to_string() + letters.as_str(),
        None => String::new(),
    }
}
