//! A question alone must not give its answer away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use rayon::prelude::*;
use vlm_worlds::shapes::{
    Background, Colour, Config, Position, Qa, QuestionKind, Shape, Size, Split, Texture, generate,
};

type Votes = BTreeMap<String, usize>;

static ATTRIBUTE_WORDS: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    let mut words = BTreeSet::new();
    words.extend(Shape::ALL.iter().flat_map(|s| [s.word(), s.plural()]));
    words.extend(Colour::ALL.iter().map(|c| c.word()));
    words.extend(Size::ALL.iter().map(|s| s.word()));
    words.extend(Texture::ALL.iter().map(|t| t.word()));
    words.extend(Position::ALL.iter().flat_map(|p| p.word().split(' ')));
    words
});

/// The question with its attribute words masked, so that all questions of one form are equal.
fn template(question: &str) -> String {
    let words: Vec<&str> = question
        .trim_end_matches('?')
        .split(' ')
        .map(|word| {
            let word = word.trim_end_matches(',');
            match word {
                "an" => "a",
                _ if ATTRIBUTE_WORDS.contains(word) => "*",
                _ => word,
            }
        })
        .collect();
    words.join(" ")
}

fn majority(votes: &Votes) -> Option<&str> {
    votes
        .iter()
        .max_by_key(|&(_, n)| n)
        .map(|(answer, _)| answer.as_str())
}

/// What is asked for: the answers of one class are interchangeable.
fn class(qa: &Qa) -> String {
    let answers: &[(&str, bool)] = &[
        ("yes/no", matches!(qa.answer.as_str(), "yes" | "no")),
        ("colour", Colour::from_word(&qa.answer).is_some()),
        ("shape", Shape::from_word(&qa.answer).is_some()),
        ("texture", Texture::from_word(&qa.answer).is_some()),
        ("size", Size::from_word(&qa.answer).is_some()),
        ("background", Background::from_word(&qa.answer).is_some()),
    ];
    let class = answers
        .iter()
        .find(|(_, is)| *is)
        .map_or("number", |(name, _)| name);
    format!("{:?} {class}", qa.kind)
}

struct Guesser {
    by_question: BTreeMap<String, Votes>,
    by_template: BTreeMap<String, Votes>,
}

impl Guesser {
    fn fit(qa: &[Qa]) -> Guesser {
        let mut guesser = Guesser {
            by_question: BTreeMap::new(),
            by_template: BTreeMap::new(),
        };
        for Qa {
            question, answer, ..
        } in qa
        {
            for (table, key) in [
                (&mut guesser.by_question, question.clone()),
                (&mut guesser.by_template, template(question)),
            ] {
                *table
                    .entry(key)
                    .or_default()
                    .entry(answer.clone())
                    .or_default() += 1;
            }
        }
        guesser
    }

    fn guess(&self, question: &str) -> Option<&str> {
        self.by_question
            .get(question)
            .or_else(|| self.by_template.get(&template(question)))
            .and_then(majority)
    }
}

fn all_questions(split: Split, seed: u64, count: u64) -> Vec<Qa> {
    (0..count)
        .into_par_iter()
        .flat_map_iter(|index| generate(&Config::default(), split, seed, index).qa)
        .collect()
}

/// Accuracy of the guesser and number of answers, by class.
fn guessing_accuracy(train: &[Qa], test: &[Qa]) -> BTreeMap<String, (f64, usize, usize)> {
    let guesser = Guesser::fit(train);
    let mut tally: BTreeMap<String, (usize, usize, Votes)> = BTreeMap::new();
    for qa in test {
        let (right, all, answers) = tally.entry(class(qa)).or_default();
        *right += usize::from(guesser.guess(&qa.question) == Some(&qa.answer));
        *all += 1;
        *answers.entry(qa.answer.clone()).or_default() += 1;
    }
    tally
        .into_iter()
        .map(|(class, (right, all, answers))| {
            // Answers that hardly occur do not count as choices.
            let choices = answers.values().filter(|&&n| n * 50 >= all).count();
            (class, (right as f64 / all as f64, choices, all))
        })
        .collect()
}

#[test]
fn guessing_from_the_question_alone_is_near_chance() {
    let train = all_questions(Split::Train, 1, 6000);
    let test = all_questions(Split::Test, 2, 2000);
    let table = guessing_accuracy(&train, &test);
    let mut report = String::new();
    let mut worst = Vec::new();
    for (class, &(accuracy, choices, n)) in &table {
        report += &format!("{class}: {accuracy:.3} of {n}, {choices} answers\n");
        let limit = if class.ends_with("yes/no") {
            0.55
        } else {
            1.6 / choices as f64
        };
        if accuracy > limit {
            worst.push(class.clone());
        }
    }
    assert!(worst.is_empty(), "{worst:?}\n{report}");
    assert!(table.len() >= 9, "{report}");
}

#[test]
fn yes_and_no_are_equally_frequent_in_every_form_of_question() {
    let qa = all_questions(Split::Train, 3, 4000);
    let mut forms: BTreeMap<String, Votes> = BTreeMap::new();
    for Qa {
        question, answer, ..
    } in &qa
    {
        if matches!(answer.as_str(), "yes" | "no") {
            *forms
                .entry(template(question))
                .or_default()
                .entry(answer.clone())
                .or_default() += 1;
        }
    }
    let mut checked = 0;
    for (form, votes) in forms {
        let n: usize = votes.values().sum();
        if n >= 150 {
            let yes = votes.get("yes").copied().unwrap_or(0) as f64;
            // Four standard deviations of a fair coin.
            let tolerance = 2.0 / (n as f64).sqrt();
            assert!(
                (yes / n as f64 - 0.5).abs() < tolerance,
                "{form}: {votes:?}"
            );
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked}");
}

#[test]
fn every_kind_of_question_and_every_value_is_frequent() {
    let items: Vec<_> = (0..2000)
        .into_par_iter()
        .map(|index| generate(&Config::default(), Split::Train, 4, index))
        .collect();
    let (mut kinds, mut values, mut objects) = (BTreeMap::new(), BTreeMap::new(), 0);
    for item in &items {
        for qa in &item.qa {
            *kinds.entry(qa.kind).or_insert(0) += 1;
        }
        for o in &item.scene.objects {
            objects += 1;
            for word in [
                o.shape.word(),
                o.colour.word(),
                o.size.word(),
                o.texture.word(),
            ] {
                *values.entry(word).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(kinds.len(), 5);
    assert!(kinds[&QuestionKind::Relation] > 1500, "{kinds:?}");
    assert!(kinds.values().all(|&n| n > 1500), "{kinds:?}");
    assert_eq!(values.len(), 8 + 8 + 2 + 3);
    for (word, n) in values {
        assert!(n * 10 > objects, "{word}: {n} of {objects}");
    }
}
