//! Questions about boxes: answers read from the scene by other means, and what stands in the file.

mod common;

use common::{Scratch, names};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use vlm_worlds::Error;
use vlm_worlds::boxes::{
    Amount, BOX, Kind, Object, Question, Scene, Shape, Size, Split, generate, questions,
    statements, write,
};

/// Whether the item at a place of its box is what the words say.
fn is(items: &[Object], i: usize, words: &[&str]) -> bool {
    let item = &items[i];
    let (mut before, mut behind) = (words, &words[words.len()..]);
    for (place, word) in words.iter().enumerate() {
        let noun = word.trim_end_matches('s');
        if ["block", "item", "circle", "square", "triangle"].contains(&noun) {
            (before, behind) = (&words[..place], &words[place + 1..]);
            let shape = match noun {
                "circle" => item.shape == Shape::Circle,
                "square" => item.shape == Shape::Square,
                "triangle" => item.shape == Shape::Triangle,
                _ => true,
            };
            if !shape {
                return false;
            }
            break;
        }
    }
    let adjectives = before.iter().all(|&word| match word {
        "small" => item.size == Size::Small,
        "medium" => item.size == Size::Medium,
        "big" => item.size == Size::Large,
        colour => item.colour.word() == colour,
    });
    let [left, top] = [item.x == 0, item.y == 0];
    let [right, bottom] = [item.right() == BOX, item.bottom() == BOX];
    adjectives
        && match behind.join(" ").as_str() {
            "" => true,
            "touching a wall" => left || right || top || bottom,
            "touching a side" => left || right,
            "touching the top" => top,
            "touching the bottom" => bottom,
            "at the base" => i == 0,
            "at the top" => i + 1 == items.len(),
            "in the middle" => i > 0 && i + 1 < items.len(),
            other => panic!("no place: {other:?}"),
        }
}

/// The answer, of the words alone.
fn answered(question: &Question, scene: &Scene) -> String {
    let text = question.question.strip_suffix('?').expect("a question");
    let words: Vec<&str> = text.split(' ').collect();
    let counts = |words: &[&str]| {
        let count = |items: &Vec<Object>| (0..items.len()).filter(|&i| is(items, i, words)).count();
        scene.boxes.iter().map(count).collect::<Vec<_>>()
    };
    match &words[..] {
        ["is", "there", article, what @ ..] => {
            assert_eq!(
                *article,
                if what[0] == "item" { "an" } else { "a" },
                "{text}"
            );
            let there = counts(what).iter().any(|&n| n > 0);
            if there { "yes" } else { "no" }.to_owned()
        }
        [
            "how",
            "many",
            place @ ("boxes" | "towers"),
            "have",
            _,
            what @ ..,
        ] => {
            assert_eq!(*place == "towers", scene.kind == Kind::Towers);
            counts(what).iter().filter(|&&n| n > 0).count().to_string()
        }
        ["how", "many", what @ .., "are", "there"] => {
            counts(what).iter().sum::<usize>().to_string()
        }
        _ => panic!("no question: {text}"),
    }
}

#[test]
fn answers_are_what_the_scene_says_and_none_is_a_safe_guess() {
    let mut of_kind: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for number in 0..1500 {
        let scene = generate(Split::Train, 3, number).scene;
        let asked = questions(Split::Train, 3, number, &scene, 8);
        assert_eq!(asked, questions(Split::Train, 3, number, &scene, 8));
        assert_eq!(asked.len(), 8);
        let different: BTreeSet<&str> = asked.iter().map(|q| q.question.as_str()).collect();
        assert_eq!(different.len(), 8);
        for question in asked {
            assert_eq!(question.answer, answered(&question, &scene), "{question:?}");
            let answers = of_kind.entry(question.kind).or_default();
            *answers.entry(question.answer).or_default() += 1;
        }
    }
    assert_eq!(
        of_kind.keys().collect::<Vec<_>>(),
        ["boxes", "count", "existence"]
    );
    for (kind, answers) in of_kind {
        let all: usize = answers.values().sum();
        let most = answers.values().max().copied().unwrap_or(all);
        assert!(
            most * 100 < all * if kind == "existence" { 85 } else { 50 },
            "{kind}: {answers:?}"
        );
    }
}

/// That a statement's meaning is what its words say, and whether it holds, tests/boxes.rs has.
#[test]
fn further_statements_are_as_often_true_as_false_and_the_words_tell_nothing() {
    let mut truths: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for number in 0..3000 {
        let scene = generate(Split::Train, 4, number).scene;
        let said = statements(Split::Train, 4, number, &scene, 6);
        assert_eq!(said, statements(Split::Train, 4, number, &scene, 6));
        assert_eq!(said.len(), 6);
        let different: BTreeSet<&str> = said.iter().map(|s| s.question.as_str()).collect();
        assert_eq!(different.len(), said.len());
        for statement in said {
            assert_eq!(statement.kind, "statement");
            let truth = statement.answer.parse::<bool>().unwrap();
            let counts = truths.entry(statement.question.to_lowercase()).or_default();
            counts[usize::from(truth)] += 1;
        }
    }
    let all: usize = truths.values().flatten().sum();
    let true_ones: usize = truths.values().map(|counts| counts[1]).sum();
    assert!(
        (2 * true_ones).abs_diff(all) * 25 < all,
        "{true_ones} of {all}"
    );
    // the commoner truth of each sentence that is common, of which with n coins half and 0.4 sqrt(n) more would be right
    let common = || truths.values().filter(|counts| counts[0] + counts[1] >= 10);
    let guessed: usize = common().map(|counts| counts[0].max(counts[1])).sum();
    let by_chance = common().map(|counts| {
        let n = (counts[0] + counts[1]) as f64;
        0.5 * n + 0.4 * n.sqrt()
    });
    let by_chance: f64 = by_chance.sum();
    assert!(
        by_chance > 400.0 && (guessed as f64) < 1.1 * by_chance,
        "{guessed}, {by_chance}"
    );
}

#[test]
fn questions_stand_beside_the_statement_and_change_nothing_else() {
    let scratch = Scratch::new("asked");
    let lines = |questions| {
        let amount = Amount {
            statements: 4,
            orders: 1,
            questions,
            more_statements: questions / 3,
        };
        write(Split::Test, 2, amount, &scratch.0, |_| {}).map(|()| {
            let list = fs::read_to_string(scratch.0.join("examples.jsonl")).unwrap();
            let lines = list.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.collect::<Vec<serde_json::Value>>()
        })
    };
    let (with, without) = (lines(3).unwrap(), lines(0).unwrap());
    for (number, (mut with, without)) in with.into_iter().zip(without).enumerate() {
        let qa = with.as_object_mut().unwrap().remove("qa").unwrap();
        let asked: Vec<Question> = serde_json::from_value(qa).unwrap();
        let scene = generate(Split::Test, 2, number as u64).scene;
        let mut expected = questions(Split::Test, 2, number as u64, &scene, 3);
        expected.extend(statements(Split::Test, 2, number as u64, &scene, 1));
        assert_eq!(asked, expected);
        assert_eq!(with, without);
    }
    assert_eq!(names(&scratch.0), ["examples.jsonl", "images"]);
    let error = lines(65).unwrap_err();
    assert!(matches!(error, Error::Questions(65)), "{error}");
}
