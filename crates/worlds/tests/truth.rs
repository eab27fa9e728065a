//! Questions, captions and boxes agree with the truth in the record.
//!
//! The oracle here reads the question's words and looks at the record alone; it shares no code with the generator.

use std::sync::LazyLock;

use rayon::prelude::*;
use vlm_worlds::shapes::facts::{self, FactCounts};
use vlm_worlds::shapes::{
    Colour, Config, HELD_OUT_COLOUR_SHAPE, HELD_OUT_TEXTURE_SHAPE, MAX_CAPTION_WORDS, Object, Qa,
    Record, Relation, Shape, Size, Split, Texture, generate, generate_asking, tokens, vocabulary,
};

fn records(split: Split, difficulty: f32, seed: u64, count: u64) -> Vec<Record> {
    let config = Config {
        difficulty,
        ..Config::default()
    };
    (0..count)
        .into_par_iter()
        .map(|index| Record::new(&generate(&config, split, seed, index), split, seed, index))
        .collect()
}

/// Some records of every split and difficulty.
static MIXED_RECORDS: LazyLock<Vec<Record>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for (seed, difficulty) in [0.0, 0.5, 1.0].into_iter().enumerate() {
        for split in Split::ALL {
            all.extend(records(split, difficulty, seed as u64, 300));
        }
    }
    all
});

/// Reads one question, word by word.
struct Oracle<'a> {
    record: &'a Record,
    words: Vec<&'a str>,
    at: usize,
}

/// The objects that a phrase fits, and whether it began with "the".
struct Found {
    objects: Vec<usize>,
    definite: bool,
}

impl<'a> Oracle<'a> {
    fn answer(record: &'a Record, question: &'a str) -> String {
        let words = question
            .strip_suffix('?')
            .expect("questions end with a question mark")
            .split(' ')
            .map(|word| word.trim_end_matches(','))
            .collect();
        let mut oracle = Oracle {
            record,
            words,
            at: 0,
        };
        let answer = oracle.read();
        assert_eq!(
            oracle.at,
            oracle.words.len(),
            "not read to its end: {question}"
        );
        answer
    }

    fn take(&mut self, phrase: &str) -> bool {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        let matches = self.words[self.at..].starts_with(&phrase);
        if matches {
            self.at += phrase.len();
        }
        matches
    }

    fn take_any(&mut self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.take(phrase))
    }

    fn read(&mut self) -> String {
        let yes = |is: bool| (if is { "yes" } else { "no" }).to_owned();
        if self.take_any(&[
            "is there",
            "are there any",
            "can you see",
            "does the picture show",
        ]) {
            let found = self.phrase();
            self.take("in the picture");
            return yes(!found.objects.is_empty());
        }
        if self.take_any(&["how many", "what is the number of"]) {
            let found = self.phrase();
            self.take_any(&["are there", "are in the picture", "can you see"]);
            return number(found.objects.len());
        }
        if self.take_any(&[
            "what colour is the background",
            "what is the colour of the background",
        ]) {
            return self.record.background.word().to_owned();
        }
        if self.take("are there as many") {
            let a = self.phrase();
            assert!(self.take("as"));
            let b = self.phrase();
            return yes(a.objects.len() == b.objects.len());
        }
        for (words, more) in [("are there more", true), ("are there fewer", false)] {
            if self.take(words) {
                let a = self.phrase().objects.len();
                assert!(self.take("than"));
                let b = self.phrase().objects.len();
                return yes(if more { a > b } else { a < b });
            }
        }
        for attribute in ["colour", "shape", "texture", "size"] {
            for form in [
                "what A is",
                "what is the A of",
                "which A does",
                "what A does",
            ] {
                if self.take(&form.replace('A', attribute)) {
                    let object = if let Some(relation) = self.relation() {
                        let anchor = self.one();
                        self.only_one_related(relation, anchor)
                    } else {
                        self.one()
                    };
                    self.take("have");
                    return value(&self.record.objects[object], attribute).to_owned();
                }
            }
        }
        if self.take_any(&["do", "does"]) {
            let a = self.one();
            let joined = self.take("and");
            let b = joined.then(|| self.one());
            assert!(self.take("have the same"));
            let attribute = self.words[self.at];
            self.at += 1;
            let b = b.unwrap_or_else(|| {
                assert!(self.take("as"));
                self.one()
            });
            let of = |i: usize| value(&self.record.objects[i], attribute);
            return yes(of(a) == of(b));
        }
        assert!(self.take("is"), "unknown question: {:?}", self.words);
        let a = self.one();
        let object = &self.record.objects[a];
        if self.take("plain striped or dotted") {
            return object.texture.word().to_owned();
        }
        if self.take_any(&["large or small", "small or large"]) {
            return object.size.word().to_owned();
        }
        for (words, larger) in [("larger than", true), ("smaller than", false)] {
            if self.take(words) {
                let b = self.one();
                let extent = |i: usize| {
                    let [x0, y0, x1, y1] = self.record.objects[i].bounds;
                    (x1 - x0).max(y1 - y0) as f32
                };
                let ratio = extent(a) / extent(b);
                assert!(!(0.75..1.33).contains(&ratio), "sizes too close: {ratio}");
                return yes((ratio > 1.0) == larger);
            }
        }
        if let Some(relation) = self.relation() {
            let b = self.one();
            return yes(self.is_related(a, relation, b));
        }
        let word = self.words[self.at];
        self.at += 1;
        yes(["colour", "shape", "texture", "size"]
            .iter()
            .any(|attribute| value(object, attribute) == word))
    }

    fn relation(&mut self) -> Option<Relation> {
        self.take("to the");
        Relation::ALL
            .iter()
            .copied()
            .find(|relation| self.take(relation.word()))
    }

    /// A phrase that must fit exactly one object.
    fn one(&mut self) -> usize {
        let found = self.phrase();
        assert!(found.definite);
        assert_eq!(found.objects.len(), 1, "ambiguous in {:?}", self.words);
        found.objects[0]
    }

    fn phrase(&mut self) -> Found {
        let definite = self.take("the");
        let _ = definite || self.take_any(&["an", "a"]);
        let mut objects: Vec<usize> = (0..self.record.objects.len()).collect();
        loop {
            let word = self.words[self.at];
            self.at += 1;
            if matches!(word, "object" | "objects" | "thing" | "things") {
                break;
            }
            let shape = Shape::ALL
                .iter()
                .find(|s| s.word() == word || s.plural() == word);
            objects.retain(|&i| {
                let o = &self.record.objects[i];
                shape.map_or(
                    word == o.size.word() || word == o.texture.word() || word == o.colour.word(),
                    |&shape| shape == o.shape,
                )
            });
            if shape.is_some() {
                return Found { objects, definite };
            }
        }
        let before = self.at;
        if self.take_any(&["in the", "at the", "on the"]) {
            for name in [
                "top left",
                "top right",
                "bottom left",
                "bottom right",
                "top",
                "bottom",
                "left",
                "right",
                "centre",
            ] {
                if self.take(name) {
                    objects.retain(|&i| self.position(i) == name);
                    return Found { objects, definite };
                }
            }
            self.at = before;
        }
        // "the object left of the star", but not "is the red object left of the star?"
        if matches!(self.words[0], "what" | "which")
            && self.at < self.words.len()
            && let Some(relation) = self.relation()
        {
            let anchor = self.one();
            objects.retain(|&i| i != anchor && self.is_related_or_not(i, relation, anchor));
        }
        Found { objects, definite }
    }

    fn centre(&self, i: usize) -> [f32; 2] {
        let [x0, y0, x1, y1] = self.record.objects[i].bounds;
        let side = self.record.width as f32;
        [(x0 + x1) as f32 / 2.0 / side, (y0 + y1) as f32 / 2.0 / side]
    }

    /// From the box, not from the record's word.
    fn position(&self, i: usize) -> String {
        let [x, y] = self.centre(i);
        let column = ["left", "", "right"][(x * 3.0) as usize];
        let row = ["top", "", "bottom"][(y * 3.0) as usize];
        match (row, column) {
            ("", "") => "centre".to_owned(),
            _ => format!("{row} {column}").trim().to_owned(),
        }
    }

    fn in_contact(&self, a: usize, relation: Relation, b: usize) -> bool {
        self.record
            .relations
            .iter()
            .any(|r| (r.subject, r.relation, r.object) == (a, relation, b))
    }

    /// The relation, by the centres of the boxes; the question is not fair if it is a close call.
    fn is_related(&self, a: usize, relation: Relation, b: usize) -> bool {
        let (p, q) = (self.centre(a), self.centre(b));
        let (dx, dy) = (p[0] - q[0], p[1] - q[1]);
        let clear = |along: f32, across: f32, negative: bool| {
            assert!(
                along.abs() > 0.165 && along.abs() > 1.3 * across.abs(),
                "close call: {along} {across}"
            );
            (along < 0.0) == negative
        };
        match relation {
            Relation::LeftOf => clear(dx, dy, true),
            Relation::RightOf => clear(dx, dy, false),
            Relation::Above => clear(dy, dx, true),
            Relation::Below => clear(dy, dx, false),
            Relation::Touching | Relation::Inside => self.in_contact(a, relation, b),
        }
    }

    /// As a description of an object: any object that might be meant counts.
    fn is_related_or_not(&self, a: usize, relation: Relation, b: usize) -> bool {
        let (p, q) = (self.centre(a), self.centre(b));
        match relation {
            Relation::LeftOf => p[0] - q[0] < 0.05,
            Relation::RightOf => q[0] - p[0] < 0.05,
            Relation::Above => p[1] - q[1] < 0.05,
            Relation::Below => q[1] - p[1] < 0.05,
            Relation::Touching | Relation::Inside => self.in_contact(a, relation, b),
        }
    }

    fn only_one_related(&self, relation: Relation, anchor: usize) -> usize {
        let objects: Vec<usize> = (0..self.record.objects.len())
            .filter(|&i| i != anchor && self.is_related_or_not(i, relation, anchor))
            .collect();
        assert_eq!(objects.len(), 1, "ambiguous in {:?}", self.words);
        objects[0]
    }
}

fn number(n: usize) -> String {
    [
        "zero", "one", "two", "three", "four", "five", "six", "seven",
    ][n]
        .to_owned()
}

fn value<'a>(object: &Object, attribute: &'a str) -> &'a str {
    match attribute {
        "colour" => object.colour.word(),
        "shape" => object.shape.word(),
        "texture" => object.texture.word(),
        "size" => object.size.word(),
        _ => panic!("no attribute {attribute}"),
    }
}

#[test]
fn every_answer_follows_from_the_record() {
    let mut checked = 0;
    for record in MIXED_RECORDS.iter() {
        for Qa {
            question, answer, ..
        } in &record.qa
        {
            let expected = Oracle::answer(record, question);
            assert_eq!(
                *answer, expected,
                "{question} ({} {} {})",
                record.split, record.seed, record.index
            );
            checked += 1;
        }
        assert!(record.qa.len() <= 12);
    }
    assert!(checked > 30_000, "{checked}");
}

#[test]
fn further_sets_of_questions_are_new_and_right() {
    let (config, split, seed) = (Config::default(), Split::Train, 9);
    const NUMBERS: [&str; 10] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    ];
    let (mut further, mut worked) = (0, 0);
    for index in 0..300 {
        let once = generate(&config, split, seed, index);
        let asked = generate_asking(&config, split, seed, index, 3);
        assert_eq!(asked.qa[..once.qa.len()], once.qa[..]);
        further += asked.qa.len() - once.qa.len();
        let record = Record::new(&asked, split, seed, index);
        for (i, qa) in asked.qa.iter().enumerate() {
            let is_same = |other: &Qa| other.question == qa.question;
            assert!(!asked.qa[..i].iter().any(is_same), "{qa:?}");
            assert_eq!(qa.answer, Oracle::answer(&record, &qa.question), "{qa:?}");
            let Some(working) = &qa.working else {
                continue;
            };
            worked += 1;
            // the answer follows from the two words alone
            let (first, second) = working.split_once(' ').expect("two words");
            let number = |word: &str| NUMBERS.iter().position(|&n| n == word).expect("a number");
            let yes = if qa.question.contains(" more ") {
                number(first) > number(second)
            } else if qa.question.contains(" fewer ") {
                number(first) < number(second)
            } else {
                first == second
            };
            assert_eq!(qa.answer, if yes { "yes" } else { "no" }, "{qa:?}");
        }
    }
    assert!(further > 3000 && worked > 1000, "{further} {worked}");
}

#[test]
fn relations_and_positions_agree_with_the_boxes() {
    for record in MIXED_RECORDS.iter() {
        let oracle = Oracle {
            record,
            words: Vec::new(),
            at: 0,
        };
        for (i, object) in record.objects.iter().enumerate() {
            assert_eq!(oracle.position(i), object.position.word());
            let [x0, y0, x1, y1] = object.bounds;
            let longer = (x1 - x0).max(y1 - y0) as f32 / record.width as f32;
            // One pixel either way for the rounding of boxes.
            let allowed = match object.size {
                Size::Small => 0.13..0.20,
                Size::Large => 0.27..0.39,
            };
            assert!(allowed.contains(&longer), "{object:?}");
        }
        for fact in &record.relations {
            assert!(oracle.is_related(fact.subject, fact.relation, fact.object));
            let [a, b] = [fact.subject, fact.object].map(|i| record.objects[i].bounds);
            match fact.relation {
                Relation::Inside => {
                    assert!(a[0] > b[0] && a[1] > b[1] && a[2] < b[2] && a[3] < b[3]);
                }
                Relation::Touching => {
                    assert!(a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]);
                }
                _ => {}
            }
            if let Some(reversed) = fact.relation.reversed() {
                assert!(record.scene().holds(fact.object, reversed, fact.subject));
            }
        }
    }
}

#[test]
fn captions_state_true_facts_only_and_every_object() {
    let (mut total, mut captions) = (FactCounts::default(), 0);
    for record in MIXED_RECORDS.iter() {
        assert_eq!(record.captions.len(), 4);
        for caption in &record.captions {
            let counts = facts::score(caption, &record.scene());
            assert_eq!(counts.true_stated, counts.stated, "{caption}\n{record:?}");
            assert_eq!(counts.recalled, counts.required, "{caption}\n{record:?}");
            assert!(caption.split_whitespace().count() <= MAX_CAPTION_WORDS);
            assert!(!caption.contains("a orange") && !caption.contains("one "));
            total += counts;
            captions += 1;
        }
    }
    // Details beyond the objects are stated often enough to matter.
    assert!(total.stated > total.required + captions, "{total:?}");
    assert_eq!(
        (total.precision(), total.recall(), total.f1()),
        (1.0, 1.0, 1.0)
    );
}

#[test]
fn captions_of_an_item_differ_in_wording() {
    let records = records(Split::Train, 0.5, 8, 300);
    let distinct: usize = records
        .iter()
        .map(|record| {
            let mut captions = record.captions.clone();
            captions.sort();
            captions.dedup();
            captions.len()
        })
        .sum();
    assert_eq!(distinct, 4 * records.len());
}

#[test]
fn a_false_caption_loses_precision_and_recall() {
    for record in records(Split::Test, 0.5, 5, 200) {
        let scene = record.scene();
        let wrong = facts::score("a picture of nothing", &scene);
        assert_eq!((wrong.stated, wrong.recalled), (0, 0));
        let missing_colour = Colour::ALL
            .iter()
            .find(|&&c| scene.objects.iter().all(|o| o.colour != c));
        let Some(colour) = missing_colour else {
            continue;
        };
        let caption = format!("two large {colour} stars at the top");
        let counts = facts::score(&caption, &scene);
        assert_eq!(
            (counts.true_stated, counts.stated, counts.recalled),
            (0, 6, 0)
        );
        let wrong_total = facts::score("seven objects: a cat", &scene);
        assert_eq!((wrong_total.true_stated, wrong_total.stated), (0, 1));
    }
}

#[test]
fn the_vocabulary_is_closed_and_small() {
    let vocabulary = vocabulary();
    assert!(vocabulary.len() < 200, "{}", vocabulary.len());
    assert!(vocabulary.is_sorted());
    let mut used = std::collections::BTreeSet::new();
    for record in MIXED_RECORDS.iter() {
        let texts = record
            .captions
            .iter()
            .chain(record.qa.iter().flat_map(|qa| [&qa.question, &qa.answer]));
        for text in texts {
            for word in tokens(text) {
                assert!(
                    vocabulary.binary_search(&word).is_ok(),
                    "{word:?} in {text}"
                );
                used.insert(word.to_owned());
            }
        }
        assert!(record.qa.iter().all(|qa| !qa.answer.contains(' ')));
    }
    let unused: Vec<_> = vocabulary.iter().filter(|w| !used.contains(**w)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// Whether the words hold a held-out pair in one phrase, as "dotted red square" or "is the red object a ..." would.
fn names_held_out_pair(text: &str) -> bool {
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty())
        .collect();
    let shape_of = |word: &str| {
        Shape::ALL
            .iter()
            .copied()
            .find(|s| s.word() == word || s.plural() == word)
    };
    let held_out = |word: &str, shape: Shape| {
        HELD_OUT_COLOUR_SHAPE
            .iter()
            .any(|&(c, s)| s == shape && c.word() == word)
            || HELD_OUT_TEXTURE_SHAPE
                .iter()
                .any(|&(t, s)| s == shape && t.word() == word)
    };
    let is_adjective = |word: &str| {
        Colour::from_word(word).is_some()
            || Texture::from_word(word).is_some()
            || Size::from_word(word).is_some()
    };
    let noun_phrases = (0..words.len()).any(|at| {
        shape_of(words[at]).is_some_and(|shape| {
            words[..at]
                .iter()
                .rev()
                .take_while(|word| is_adjective(word))
                .any(|word| held_out(word, shape))
        })
    });
    // "is the striped star red", "is the star plain, striped or dotted": one shape, and words said of it.
    let shapes: Vec<Shape> = words.iter().filter_map(|word| shape_of(word)).collect();
    let said_of_it = words.starts_with(&["is", "the"])
        && shapes.len() == 1
        && (held_out(words[words.len() - 1], shapes[0])
            || text.contains("plain, striped or dotted")
                && HELD_OUT_TEXTURE_SHAPE
                    .iter()
                    .any(|pair| pair.1 == shapes[0]));
    noun_phrases || said_of_it
}

#[test]
fn held_out_pairs_appear_only_in_the_compositional_split() {
    let is_held_out = |o: &Object| {
        HELD_OUT_COLOUR_SHAPE.contains(&(o.colour, o.shape))
            || HELD_OUT_TEXTURE_SHAPE.contains(&(o.texture, o.shape))
    };
    assert!(names_held_out_pair("is there a large red star?"));
    assert!(names_held_out_pair("is the circle green?"));
    assert!(names_held_out_pair(
        "is the large square plain, striped or dotted?"
    ));
    assert!(!names_held_out_pair("is the red circle touching the star?"));
    for record in MIXED_RECORDS.iter() {
        let texts = record
            .captions
            .iter()
            .chain(record.qa.iter().map(|qa| &qa.question));
        let has_pair = record.objects.iter().any(is_held_out);
        if record.split == Split::Compositional {
            assert!(has_pair);
            for caption in &record.captions {
                assert!(names_held_out_pair(caption), "{caption}");
            }
        } else {
            assert!(!has_pair, "{:?}", record.objects);
            for text in texts {
                assert!(!names_held_out_pair(text), "{text}");
            }
        }
    }
}

#[test]
fn splits_seeds_and_indices_give_different_pictures() {
    let config = Config::default();
    let mut pictures = Vec::new();
    for split in Split::ALL {
        for seed in [0, 1] {
            for index in [0, 1] {
                pictures.push(generate(&config, split, seed, index).picture.rgb);
            }
        }
    }
    let all = pictures.len();
    pictures.sort();
    pictures.dedup();
    assert_eq!(pictures.len(), all);
}

#[test]
fn a_scene_has_the_same_truth_at_every_size() {
    let small = Config::default();
    for size in [32, 75, 224, 600] {
        let large = Config { size, ..small };
        for index in 0..6 {
            let (a, b) = (
                generate(&small, Split::Test, 3, index),
                generate(&large, Split::Test, 3, index),
            );
            assert_eq!((a.captions, a.qa), (b.captions, b.qa));
            assert_eq!(b.picture.rgb.len(), (size * size * 3) as usize);
            for (x, y) in a.scene.objects.iter().zip(&b.scene.objects) {
                for (p, q) in x.bounds.iter().zip(y.bounds) {
                    let scaled = *p as f32 * size as f32 / 128.0;
                    assert!((scaled - q as f32).abs() <= 2.0 * (size as f32 / 128.0).max(1.0));
                }
            }
        }
    }
}

#[test]
fn the_number_of_objects_follows_the_difficulty() {
    for (difficulty, most) in [(0.0, 3), (0.5, 5), (1.0, 7)] {
        let records = records(Split::Train, difficulty, 6, 600);
        let counts: Vec<usize> = records.iter().map(|r| r.objects.len()).collect();
        assert_eq!(counts.iter().max(), Some(&most));
        assert_eq!(counts.iter().min(), Some(&1));
    }
}
