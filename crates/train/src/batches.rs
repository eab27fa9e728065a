//! Batches of rendered scenes, made by a thread of their own ahead of the training loop.
//!
//! What a batch contains depends on the recipe and the batch's number only, so a resumed run sees what the
//! uninterrupted one would have seen.

use crate::Error;
use crate::patch_labels::{NEVER, PatchLabels, TOKEN_LABEL_CLASSES};
use crate::recipe::{DataRecipe, ShapesRecipe};
use crate::symbols::{EXTRA_TAGS, Substitution, Symbols};
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use vlm_data::image::{Image, ImageProcessor};
use vlm_data::text::Tokenizer;
use vlm_models::families::coca::{Batch, ORDERS_OF_COLOURS, TextBatch};
use vlm_nn::random::SplitMix64;
use vlm_tasks::prompt::{Example, SpecialIds};
use vlm_worlds::shapes::{self, Background, Colour, Qa, QuestionKind, Split};

/// Texts of a batch, padded, in host memory.
struct HostTexts {
    ids: Vec<i64>,
    targets: Vec<i64>,
    prompt_targets: Vec<i64>,
    /// Row, position and word of what training never says.
    never: Vec<[usize; 3]>,
    lengths: Vec<usize>,
    width: usize,
}

/// A text to learn, and where it never goes on with which word.
#[derive(Clone)]
struct Text {
    example: Example,
    never: Vec<(usize, u32)>,
}

/// A batch in host memory.
pub struct HostBatch {
    pixels: Vec<f32>,
    token_labels: PatchLabels,
    patch: usize,
    pictures: usize,
    side: usize,
    vocab_size: usize,
    captions: HostTexts,
    questions: Vec<HostTexts>,
    /// What the questions call the tags, `[pictures, C, C + EXTRA_TAGS]`; empty without substitution.
    substitution: Vec<f32>,
}

/// Makes batches.
#[derive(Clone)]
pub struct Batches {
    recipe: Arc<ShapesRecipe>,
    tokenizer: Arc<Tokenizer>,
    processor: ImageProcessor,
    special: SpecialIds,
    symbols: Symbols,
}

/// Batches that the questions of a picture are shared out to, by length.
const LENGTH_GROUPS: usize = 2;

/// Target of a position that has nothing to be learned.
pub(crate) const IGNORE: i64 = -1;

fn pad(texts: &[Text], pad: u32) -> HostTexts {
    let examples = || texts.iter().map(|t| &t.example);
    let width = examples().map(|e| e.ids.len()).max().unwrap_or(1);
    let (mut ids, mut targets, mut prompt_targets) = (Vec::new(), Vec::new(), Vec::new());
    for example in examples() {
        for i in 0..width {
            ids.push(i64::from(*example.ids.get(i).unwrap_or(&pad)));
            let next = example.ids.get(i + 1).map_or(IGNORE, |&id| i64::from(id));
            let in_prompt = i + 1 < example.prompt;
            targets.push(if in_prompt { IGNORE } else { next });
            prompt_targets.push(if in_prompt { next } else { IGNORE });
        }
    }
    let never = texts.iter().enumerate().flat_map(|(row, text)| {
        let words = text.never.iter();
        words.map(move |&(position, word)| [row, position, word as usize])
    });
    HostTexts {
        ids,
        targets,
        prompt_targets,
        never: never.collect(),
        lengths: examples().map(|e| e.ids.len()).collect(),
        width,
    }
}

impl HostTexts {
    fn to_device(&self, vocab_size: usize, device: &Device) -> TextBatch {
        let shape = [self.lengths.len(), self.width];
        let adjustment = (!self.never.is_empty()).then(|| {
            let mut values = vec![0.0; shape[0] * shape[1] * vocab_size];
            for [row, position, word] in &self.never {
                values[(row * self.width + position) * vocab_size + word] = NEVER;
            }
            Tensor::from_data(
                TensorData::new(values, [shape[0], shape[1], vocab_size]),
                device,
            )
        });
        let tensor =
            |v: &Vec<i64>| Tensor::<2, Int>::from_data(TensorData::new(v.clone(), shape), device);
        TextBatch {
            ids: tensor(&self.ids),
            targets: tensor(&self.targets),
            target_count: self.targets.iter().filter(|&&t| t >= 0).count(),
            prompt_targets: tensor(&self.prompt_targets),
            prompt_target_count: self.prompt_targets.iter().filter(|&&t| t >= 0).count(),
            adjustment,
            lengths: self.lengths.clone(),
        }
    }
}

impl HostBatch {
    /// The batch as a model takes it.
    pub fn to_device(&self, device: &Device) -> Batch {
        let shape = [self.pictures, 3, self.side, self.side];
        let patches = (self.side / self.patch).pow(2);
        let texts = self.questions.iter();
        let questions = texts.map(|q| q.to_device(self.vocab_size, device));
        Batch {
            token_labels: Some(
                self.token_labels
                    .to_device([self.pictures, patches], device),
            ),
            pixel_values: Tensor::from_data(TensorData::new(self.pixels.clone(), shape), device),
            captions: self.captions.to_device(self.vocab_size, device),
            questions: questions.collect(),
            substitution: (!self.substitution.is_empty()).then(|| {
                let classes: usize = TOKEN_LABEL_CLASSES.iter().sum();
                let shape = [self.pictures, classes, classes + EXTRA_TAGS];
                Tensor::from_data(TensorData::new(self.substitution.clone(), shape), device)
            }),
        }
    }
}

/// Every pixel's luma (ITU-R BT.601) in place of its red, green and blue.
fn greyscale(rgb: &mut [u8]) {
    for pixel in rgb.chunks_exact_mut(3) {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        pixel.fill(((299 * r + 587 * g + 114 * b + 500) / 1000) as u8);
    }
}

/// Every pixel's red, green and blue in another order.
fn reorder(rgb: &mut [u8], order: [usize; 3]) {
    for pixel in rgb.chunks_exact_mut(3) {
        let old = [pixel[0], pixel[1], pixel[2]];
        pixel.copy_from_slice(&order.map(|channel| old[channel]));
    }
}

/// Whether a question or its answer speaks of colours.
fn of_colour(qa: &Qa) -> bool {
    let word = |w: &str| {
        let colour = Colour::from_word(w).is_some() || Background::from_word(w).is_some();
        colour || ["colour", "background"].contains(&w)
    };
    shapes::tokens(&qa.question).any(word) || word(&qa.answer)
}

/// `count` of `items`, each once while they last, then again from the first.
fn some<'a, T>(rng: &mut SplitMix64, items: &'a [T], count: usize) -> Vec<&'a T> {
    let mut order: Vec<&T> = items.iter().collect();
    for last in (1..order.len()).rev() {
        order.swap(last, (rng.bits() % (last as u64 + 1)) as usize);
    }
    (0..count).map(|i| order[i % order.len()]).collect()
}

/// The questions of a picture that are learned.
fn questions_to_learn<'a>(rng: &mut SplitMix64, asked: &'a [Qa], data: &DataRecipe) -> Vec<&'a Qa> {
    let weights = &data.question_weights;
    if weights.is_empty() {
        return some(rng, asked, data.questions_per_picture);
    }
    // sampling without replacement: the least of exponential variables (Efraimidis and Spirakis, 2006)
    let keys = asked.iter().map(|qa| {
        let fits = |of: &str| of == qa.kind.name() || qa.question.contains(of);
        let fitting = weights.iter().filter(|(of, _)| fits(of));
        let weight: f32 = fitting.map(|(_, weight)| weight).product();
        (-(1.0 - rng.uniform_f32()).ln() / weight, qa)
    });
    let mut keys: Vec<(f32, &Qa)> = keys.collect();
    keys.sort_by(|a, b| a.0.total_cmp(&b.0));
    (0..data.questions_per_picture)
        .map(|i| keys[i % keys.len()].1)
        .collect()
}

/// Scenes in which a phrase is looked for; the rarest kind of question is in one of twenty.
const SEARCHED: u64 = 400;

/// Checks that every weight is that of a kind of question, or of a phrase that some question has.
fn check_weights(data: &DataRecipe) -> Result<(), Error> {
    let mut unseen: Vec<&String> = data.question_weights.keys().collect();
    let mut strike = |qa: &Qa| {
        unseen.retain(|of| *of != qa.kind.name() && !qa.question.contains(of.as_str()));
        unseen.is_empty()
    };
    let config = shapes::Config {
        difficulty: data.difficulty[0],
        ..shapes::Config::default()
    };
    let found = data.question_weights.is_empty()
        || (0..SEARCHED).any(|i| {
            let item = shapes::generate(&config, Split::Train, data.seed, i);
            item.qa.iter().any(&mut strike)
        });
    if found {
        return Ok(());
    }
    let reason = format!(
        "data.question_weights: expected kinds of questions (existence, count, attribute, comparison, relation) or \
         phrases of them, found {:?}, which no question of {SEARCHED} scenes has",
        unseen[0]
    );
    Err(Error::file("recipe", reason))
}

impl Batches {
    /// Batches of a recipe.
    ///
    /// # Errors
    /// A tokenizer that lacks words of the world, or weights of questions that the world does not ask.
    pub fn new(
        recipe: Arc<ShapesRecipe>,
        tokenizer: Arc<Tokenizer>,
        processor: ImageProcessor,
        special: SpecialIds,
    ) -> Result<Self, Error> {
        check_weights(&recipe.data)?;
        let symbols = Symbols::of(&tokenizer, recipe.data.symbol_substitution > 0.0)?;
        Ok(Self {
            recipe,
            tokenizer,
            processor,
            special,
            symbols,
        })
    }

    /// Batch number `number`, from 0.
    ///
    /// # Errors
    /// Text that cannot be tokenized or does not fit the model.
    pub fn make(&self, number: u64) -> Result<HostBatch, Error> {
        let (data, pictures) = (&self.recipe.data, self.recipe.train.batch_size);
        let mut pixels = Vec::new();
        let patch = self.recipe.model.vision_config.patch_size;
        let [low, high] = data.difficulty;
        let step = number / self.recipe.train.accumulate as u64;
        let ramp = step as f32 / data.difficulty_ramp_steps.max(1) as f32;
        let high = low + (high - low) * ramp.min(1.0);
        let mut token_labels = PatchLabels::default();
        let mut substitution = Vec::new();
        let mut captions = Vec::new();
        let mut questions = vec![Vec::new(); LENGTH_GROUPS.min(data.questions_per_picture)];
        for i in 0..pictures as u64 {
            let index = number * pictures as u64 + i;
            let mut rng = SplitMix64::new(data.seed ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93));
            let config = shapes::Config {
                size: data.size,
                difficulty: low + (high - low) * rng.uniform_f32(),
            };
            let sets = data.question_sets;
            let item = shapes::generate_asking(&config, Split::Train, data.seed, index, sets);
            token_labels.add(&item.scene, data.size as usize, patch);
            let mut picture = item.picture;
            // every picture has as many questions
            let mut colourless = item.qa.clone();
            colourless.retain(|qa| !of_colour(qa));
            let share = data.greyscale + data.recolour;
            let drawn = if share > 0.0 { rng.uniform_f32() } else { 1.0 };
            let not_its_own = drawn < share && !colourless.is_empty();
            if not_its_own {
                if drawn < data.greyscale {
                    greyscale(&mut picture.rgb);
                } else {
                    let others = &ORDERS_OF_COLOURS[1..];
                    let order = others[(rng.bits() % others.len() as u64) as usize];
                    reorder(&mut picture.rgb, order);
                }
                token_labels.forget_colours((data.size as usize / patch).pow(2));
            }
            let image = Image::from_rgb(picture.width, picture.height, picture.rgb)?;
            pixels.extend(self.processor.process(&image)?.data);
            for caption in some(&mut rng, &item.captions, data.captions_per_picture) {
                let mut example = self.special.caption_example(&self.tokenizer, caption)?;
                if not_its_own {
                    // captions speak of colours: nothing of them is learned
                    example.prompt = example.ids.len();
                }
                let never = self.never(&example, false);
                captions.push(Text { example, never });
            }
            let mut examples = Vec::new();
            let asked = if not_its_own { &colourless } else { &item.qa };
            for qa in questions_to_learn(&mut rng, asked, data) {
                let answer = match &qa.working {
                    Some(working) if self.recipe.model.working_before_answers => {
                        &format!("{working} {}", qa.answer)
                    }
                    _ => &qa.answer,
                };
                let example = self
                    .special
                    .answer_example(&self.tokenizer, &qa.question, answer)?;
                let never = self.never(&example, qa.kind == QuestionKind::Attribute);
                examples.push(Text { example, never });
            }
            if data.symbol_substitution > 0.0 {
                let names = if rng.uniform_f32() < data.symbol_substitution {
                    self.symbols.substitution(&mut rng)
                } else {
                    Substitution::default()
                };
                names.matrix(&mut substitution);
                if !names.is_empty() {
                    for text in &mut examples {
                        names.apply(&mut text.example);
                        text.never.clear();
                    }
                }
            }
            // the shortest questions of every picture go together, so that less is padded
            examples.sort_by_key(|e| e.example.ids.len());
            let size = examples.len().div_ceil(questions.len());
            for (group, some) in questions.iter_mut().zip(examples.chunks(size)) {
                group.extend_from_slice(some);
            }
        }
        let most = self.recipe.model.text_config.max_position_embeddings;
        if let Some(long) = captions
            .iter()
            .chain(questions.iter().flatten())
            .map(|t| &t.example)
            .find(|e| e.ids.len() > most)
        {
            return Err(vlm_tasks::Error::TooLong {
                expected: most,
                found: long.ids.len(),
            }
            .into());
        }
        Ok(HostBatch {
            pixels,
            token_labels,
            patch,
            pictures,
            side: data.size as usize,
            vocab_size: self.recipe.model.text_config.vocab_size,
            substitution,
            captions: pad(&captions, self.special.pad),
            questions: questions
                .iter()
                .map(|group| pad(group, self.special.pad))
                .collect(),
        })
    }

    fn never(&self, example: &Example, about_attribute: bool) -> Vec<(usize, u32)> {
        if self.recipe.data.adjust_text {
            self.symbols.never(example, about_attribute)
        } else {
            Vec::new()
        }
    }

    /// Batches from number `first` on, made ahead by another thread until the receiver is dropped.
    pub fn stream(self, first: u64) -> Receiver<Result<HostBatch, Error>> {
        let (sender, receiver) = sync_channel(8);
        std::thread::spawn(move || {
            for number in first.. {
                let batch = self.make(number);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        });
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vlm_data::image::{PreprocessorConfig, ProcessorKind};
    use vlm_data::text::word_level;
    use vlm_tasks::prompt::SPECIALS;

    fn batches() -> Batches {
        let text = include_str!("../../../recipes/vlm-tiny.toml");
        let mut recipe: ShapesRecipe = toml::from_str(text).expect("the shipped recipe");
        recipe.train.batch_size = 3;
        let words: Vec<String> = shapes::vocabulary()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let tokenizer = word_level(&words, &SPECIALS).expect("the world's words");
        let special = SpecialIds::of(&tokenizer).expect("special tokens");
        let json = br#"{"do_resize": false, "do_rescale": true, "do_normalize": false}"#;
        let config =
            PreprocessorConfig::from_json(json, "test", ProcessorKind::Vit).expect("a processor");
        let processor = ImageProcessor::from_config(config);
        Batches::new(Arc::new(recipe), Arc::new(tokenizer), processor, special).expect("its words")
    }

    #[test]
    fn a_batch_depends_on_its_number_only() {
        let b = batches();
        let stream = b.clone().stream(5);
        let streamed = stream.recv().expect("a batch").expect("no error");
        let made = b.make(5).expect("no error");
        assert_eq!(streamed.pixels, made.pixels);
        assert_eq!(streamed.captions.ids, made.captions.ids);
        assert_eq!(streamed.questions[1].targets, made.questions[1].targets);
        assert_ne!(b.make(6).expect("no error").pixels, made.pixels);
    }

    #[test]
    fn nothing_of_colours_is_learned_of_a_picture_without_its_own() {
        let mut b = batches();
        let mut recipe = (*b.recipe).clone();
        let plain = b.make(3).expect("no error");
        recipe.data.recolour = 1.0;
        b.recipe = Arc::new(recipe.clone());
        let recoloured = b.make(3).expect("no error");
        assert_ne!(plain.pixels, recoloured.pixels);
        let sum = |batch: &HostBatch| batch.pixels.iter().map(|&x| f64::from(x)).sum::<f64>();
        assert!((sum(&plain) - sum(&recoloured)).abs() < 1e-3);
        assert!(recoloured.captions.targets.iter().all(|&t| t == IGNORE));
        (recipe.data.greyscale, recipe.data.recolour) = (1.0, 0.0);
        b.recipe = Arc::new(recipe);
        let batch = b.make(3).expect("no error");
        let colours = Colour::ALL.iter().map(|c| c.word());
        let colours = colours.chain(Background::ALL.iter().map(|c| c.word()));
        let colours: Vec<i64> = colours
            .map(|w| i64::from(b.tokenizer.token_to_id(w).expect("a word")))
            .collect();
        assert!(batch.captions.targets.iter().all(|&t| t == IGNORE));
        assert!(batch.questions.iter().any(|q| !q.lengths.is_empty()));
        for texts in &batch.questions {
            assert!(texts.ids.iter().all(|id| !colours.contains(id)));
        }
        let plane = 128 * 128;
        assert_eq!(batch.pixels[..plane], batch.pixels[plane..2 * plane]);
    }

    #[test]
    fn only_the_answer_and_the_end_are_learned_of_a_question() {
        let b = batches();
        let batch = b.make(0).expect("no error");
        for texts in &batch.questions {
            for (row, length) in texts.lengths.iter().enumerate() {
                let span = row * texts.width..(row + 1) * texts.width;
                let (ids, targets) = (&texts.ids[span.clone()], &texts.targets[span]);
                let answer = ids.iter().position(|&id| id == i64::from(b.special.answer));
                let answer = answer.expect("an answer token");
                for i in 0..texts.width {
                    let learned = (answer..length - 1).contains(&i);
                    assert_eq!(targets[i], if learned { ids[i + 1] } else { IGNORE });
                }
                assert_eq!(ids[length - 1], i64::from(b.special.eos));
                assert_eq!(targets[length - 2], i64::from(b.special.eos));
            }
        }
    }
}
