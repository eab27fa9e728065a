//! Visual question answering: a picture and a question in, an answer out.

use crate::{Error, Subject, Vlm};
use burn::tensor::{Int, Tensor, TensorData};
use std::collections::BTreeMap;
use vlm_models::capability::{ClassifyAnswer, Pictures, Regions, Tokens};
use vlm_models::generate::{Autoregressive, Strategy, generate};

/// A generated answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The answer's words.
    pub text: String,
    /// The model's probability of what it wrote: the answer, and its working where it writes one.
    pub confidence: f64,
}

/// The most tokens of an answer.
const MAX_ANSWER: usize = 12;

/// Questions that go through a classifier of answers at once.
const QUESTION_BATCH: usize = 256;

impl Vlm {
    /// An answer to each question; a question names its picture by its place in `images`.
    ///
    /// # Errors
    /// An empty or overlong question, a picture that cannot be prepared, or a model that does not answer.
    pub fn answer<S: Subject>(
        &self,
        images: &[&S],
        questions: &[(usize, &str)],
    ) -> Result<Vec<Answer>, Error> {
        if let Ok(model) = self.model().classify_answer() {
            return self.classified(model, images, questions);
        }
        let text = self.text()?;
        let options = text.writing(Strategy::Greedy, MAX_ANSWER);
        let mut answers = vec![None; questions.len()];
        self.each_group(images, questions, |rows, decoding, prompts| {
            for (&row, written) in rows.iter().zip(generate(decoding, prompts, &options)) {
                let (_, answer) = self.working_and_answer(&written.ids);
                answers[row] = Some(Answer {
                    text: text.decode(answer)?,
                    confidence: written.log_probability.exp(),
                });
            }
            Ok(())
        })?;
        Ok(answers
            .into_iter()
            .map(|a| a.expect("every row was fed"))
            .collect())
    }

    /// The model's log-probability of each choice as the answer to a question, its end included, as ALBEF's authors rank
    /// answers; after the working, where the model writes one.
    ///
    /// # Errors
    /// As [`Self::answer`]; no choices, or one that cannot be tokenized or is too long.
    pub fn rank_answers<S: Subject>(
        &self,
        image: &S,
        question: &str,
        choices: &[&str],
    ) -> Result<Vec<f64>, Error> {
        let text = self.text()?;
        if let Ok(model) = self.model().classify_answer() {
            let known = model.known_answers();
            let place = |choice: &&str| {
                let place = known.iter().position(|known| known == choice.trim());
                place.ok_or_else(|| Error::Model {
                    place: "choices".to_owned(),
                    expected: format!("answers that the model knows, such as {}", some(known)),
                    found: format!("{choice:?}"),
                })
            };
            let places: Vec<usize> = choices.iter().map(place).collect::<Result<_, _>>()?;
            let questions = Tokens::new(vec![text.question(question)?], None)?;
            let pictures = S::pictures(self, &[image])?;
            let answers = model.classify_answer(&pictures, &[0], &questions)?;
            let of = |&place: &usize| f64::from(answers[0][place]).ln();
            return Ok(places.iter().map(of).collect());
        }
        if let Ok(model) = self.model().rank_answers() {
            let begin = |choice: &&str| -> Result<Vec<u32>, Error> {
                Ok([text.answer_prompt(), text.answer(choice)?].concat())
            };
            let answers: Vec<Vec<u32>> = choices.iter().map(begin).collect::<Result<_, _>>()?;
            let answers = Tokens::padded(&answers, text.pad());
            let questions = Tokens::new(vec![text.question(question)?], None)?;
            let pictures = S::pictures(self, &[image])?;
            let ranked = model.rank_answers(&pictures, &questions, &answers)?;
            let mut logs = vec![f64::NEG_INFINITY; choices.len()];
            for &(place, probability) in ranked.iter().flatten() {
                logs[place] = f64::from(probability).ln();
            }
            return Ok(logs);
        }
        let choices: Vec<Vec<u32>> = choices
            .iter()
            .map(|choice| text.answer(choice))
            .collect::<Result<_, _>>()?;
        let mut working = Vec::new();
        if self.model().working_before_answers() {
            let options = text.writing(Strategy::Greedy, MAX_ANSWER);
            self.each_group(&[image], &[(0, question)], |_, decoding, prompts| {
                for written in generate(decoding, prompts, &options) {
                    working.extend_from_slice(self.working_and_answer(&written.ids).0);
                }
                Ok(())
            })?;
        }
        let mut ranked = Vec::new();
        self.each_group(&[image], &[(0, question)], |_, decoding, prompts| {
            let prompts: Vec<Vec<u32>> = prompts
                .iter()
                .map(|prompt| [prompt.as_slice(), &working].concat())
                .collect();
            ranked = log_probabilities(decoding, &prompts, &choices)?;
            Ok(())
        })?;
        Ok(ranked)
    }

    /// The working and the answer of what was written.
    fn working_and_answer<'a>(&self, written: &'a [u32]) -> (&'a [u32], &'a [u32]) {
        let working = match self.model().working_before_answers() {
            true => written.len().saturating_sub(1),
            false => 0,
        };
        written.split_at(working)
    }

    /// Checks that a question can be put to the model.
    ///
    /// # Errors
    /// A model that does not answer; an empty or overlong question.
    pub fn check_question(&self, question: &str) -> Result<(), Error> {
        if !self.answers_questions() {
            self.model().answer_question()?;
        }
        self.text()?.question(question).map(drop)
    }

    /// Whether the model answers questions, as far as its family goes.
    pub fn answers_questions(&self) -> bool {
        let model = self.model();
        // a family may write answers with the decoder that writes captions
        model.classify_answer().is_ok()
            || model.answer_question().is_ok()
            || model.captioner_answers()
    }

    /// The likeliest of the answers that the model knows to each question.
    fn classified<S: Subject>(
        &self,
        model: &dyn ClassifyAnswer,
        images: &[&S],
        questions: &[(usize, &str)],
    ) -> Result<Vec<Answer>, Error> {
        let (text, mut answers) = (self.text()?, Vec::with_capacity(questions.len()));
        if questions.is_empty() {
            return Ok(answers);
        }
        let pictures = S::pictures(self, images)?;
        for some in questions.chunks(QUESTION_BATCH) {
            let rows = some.iter().map(|(_, question)| text.question(question));
            let rows: Vec<Vec<u32>> = rows.collect::<Result<_, _>>()?;
            let of: Vec<usize> = some.iter().map(|(picture, _)| *picture).collect();
            let tokens = Tokens::padded(&rows, text.pad());
            for row in model.classify_answer(&pictures, &of, &tokens)? {
                let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
                let best = best.unwrap_or(0);
                answers.push(Answer {
                    text: model.known_answers()[best].clone(),
                    confidence: f64::from(row[best]),
                });
            }
        }
        Ok(answers)
    }

    /// Starts the answers to questions, those with the same number of tokens at once, and hands `work` their places among
    /// the questions, what decodes them, and what each answer is the continuation of.
    fn each_group<S: Subject>(
        &self,
        images: &[&S],
        questions: &[(usize, &str)],
        mut work: impl FnMut(&[usize], &mut dyn Autoregressive, &[Vec<u32>]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if questions.is_empty() {
            return Ok(());
        }
        // rows that are fed together have the same number of tokens
        let mut by_length: BTreeMap<usize, (Vec<usize>, Vec<Vec<u32>>)> = BTreeMap::new();
        let text = self.text()?;
        for (i, (_, question)) in questions.iter().enumerate() {
            let ids = text.question(question)?;
            let (rows, texts) = by_length.entry(ids.len()).or_default();
            rows.push(i);
            texts.push(ids);
        }
        let images_of = |rows: &[usize]| rows.iter().map(|&i| questions[i].0).collect::<Vec<_>>();
        let pictures = S::pictures(self, images)?;
        if let Ok(model) = self.model().answer_question() {
            for (rows, ids) in by_length.into_values() {
                let pictures = select(&pictures, &images_of(&rows));
                let mut decoding = model.answer(&pictures, &Tokens::new(ids, None)?)?;
                let prompts = vec![text.answer_prompt(); rows.len()];
                work(&rows, &mut *decoding, &prompts)?;
            }
            return Ok(());
        }
        if !self.model().captioner_answers() {
            self.model().answer_question()?;
        }
        let model = self.model().generate()?;
        let memory = model.encode(&pictures)?; // [B, N, D]
        for (rows, prompts) in by_length.into_values() {
            let places = places(&images_of(&rows), &memory.device());
            let mut decoding = model.decode(memory.clone().select(0, places));
            work(&rows, &mut *decoding, &prompts)?;
        }
        Ok(())
    }
}

/// The first words of a list.
fn some(words: &[String]) -> String {
    let first: Vec<&str> = words.iter().take(5).map(String::as_str).collect();
    first.join(", ")
}

fn places(rows: &[usize], device: &burn::tensor::Device) -> Tensor<1, Int> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), device)
}

/// Pictures at the given places, some of them more than once.
pub(crate) fn select(pictures: &Pictures, rows: &[usize]) -> Pictures {
    match pictures {
        Pictures::Fixed(pixels) => {
            let places = places(rows, &pixels.device());
            Pictures::Fixed(pixels.clone().select(0, places))
        }
        Pictures::Patches {
            pixel_values,
            spatial_shapes,
        } => Pictures::Patches {
            pixel_values: pixel_values
                .clone()
                .select(0, places(rows, &pixel_values.device())),
            spatial_shapes: rows.iter().map(|&row| spatial_shapes[row]).collect(),
        },
        Pictures::Regions { regions, tags } => {
            let of = |all: &[Vec<bool>]| rows.iter().map(|&row| all[row].clone()).collect();
            let ids = rows.iter().map(|&row| tags.rows()[row].clone()).collect();
            Pictures::Regions {
                regions: Regions {
                    features: regions
                        .features
                        .clone()
                        .select(0, places(rows, &regions.features.device())),
                    mask: of(&regions.mask),
                },
                tags: Tokens::new(ids, Some(of(tags.mask()))).expect("rows of one length"),
            }
        }
    }
}

/// The log-probability of each continuation of one prompt.
fn log_probabilities(
    decoding: &mut dyn Autoregressive,
    prompts: &[Vec<u32>],
    continuations: &[Vec<u32>],
) -> Result<Vec<f64>, Error> {
    let longest = continuations.iter().map(Vec::len).max().unwrap_or(0);
    let prompt = prompts.first().map_or(0, Vec::len);
    if prompt + longest > decoding.max_positions() {
        return Err(Error::TooLong {
            expected: decoding.max_positions().saturating_sub(prompt),
            found: longest,
        });
    }
    let mut sums = vec![0.0; continuations.len()];
    let mut logits = decoding.feed(prompts);
    let first = logits.swap_remove(0);
    decoding.select(&vec![0; continuations.len()]);
    logits = vec![first; continuations.len()];
    for step in 0..longest {
        let rows = continuations.iter().zip(&logits).zip(&mut sums);
        for ((continuation, logits), sum) in rows {
            if let Some(&token) = continuation.get(step) {
                *sum += log_softmax(logits, token);
            }
        }
        if step + 1 < longest {
            // a row that has ended is fed its end again; nothing looks at what follows
            let next = |c: &Vec<u32>| vec![c[step.min(c.len() - 1)]];
            let next: Vec<Vec<u32>> = continuations.iter().map(next).collect();
            logits = decoding.feed(&next);
        }
    }
    Ok(sums)
}

fn log_softmax(logits: &[f32], token: u32) -> f64 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&l| f64::from(l - highest).exp())
        .sum::<f64>();
    let logit = logits.get(token as usize).copied();
    logit.map_or(f64::NEG_INFINITY, |l| f64::from(l - highest) - sum.ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use vlm_data::image::Image;
    use vlm_models::families::Model;
    use vlm_models::families::coca::{Coca, CocaConfig};
    use vlm_nn::weights::Weights;
    use vlm_worlds::shapes;

    #[test]
    fn the_greedy_answer_ranks_first_with_its_own_probability() {
        let vlm = Vlm::builtin().unwrap();
        let item = shapes::generate(&shapes::Config::default(), shapes::Split::Test, 3, 1);
        let p = item.picture;
        let image = Image::from_rgb(p.width, p.height, p.rgb).unwrap();
        let question = "how many objects are there?";
        let answer = vlm.answer(&[&image], &[(0, question)]).unwrap().remove(0);
        let choices = ["one", "red circle on the left", answer.text.as_str(), "yes"];
        let ranked = vlm.rank_answers(&image, question, &choices).unwrap();
        let best = (0..choices.len()).max_by(|&a, &b| ranked[a].total_cmp(&ranked[b]));
        assert_eq!(best, Some(2), "{ranked:?}");
        let difference = ranked[2].exp() - answer.confidence;
        assert!(difference.abs() < 1e-3, "{ranked:?} {answer:?}");
    }

    /// A model with random weights, which writes one word after another.
    fn random(working_before_answers: bool) -> Vlm {
        let builtin = Vlm::builtin().unwrap();
        let Model::Coca(coca) = builtin.model() else {
            panic!("expected a CoCa");
        };
        let config = CocaConfig {
            working_before_answers,
            ..coca.config().clone()
        };
        let model = Coca::new(&mut Weights::random(5, &Device::flex()), &config);
        let tokenizer = builtin.text().unwrap().tokenizer().clone();
        let processor = builtin.processor().unwrap().clone();
        Vlm::from_parts("random", Model::Coca(model), tokenizer, processor).unwrap()
    }

    #[test]
    fn after_its_working_the_last_word_is_the_answer_and_choices_follow_the_working() {
        let image = Image::from_rgb(8, 8, vec![90; 8 * 8 * 3]).unwrap();
        let question = "are there more stars than rings?";
        let ask = |vlm: &Vlm| {
            vlm.answer(&[&image], &[(0, question)])
                .unwrap()
                .remove(0)
                .text
        };
        let (plain, working) = (random(false), random(true));
        let written = ask(&plain);
        let words: Vec<&str> = written.split_whitespace().collect();
        assert!(words.len() > 1, "{written:?}");
        assert_eq!(ask(&working), words[words.len() - 1]);
        // choices are ranked after the working
        let choices = [words[words.len() - 1], "yes"];
        let rank = |vlm: &Vlm| vlm.rank_answers(&image, question, &choices).unwrap();
        assert_ne!(rank(&plain), rank(&working));
    }
}
