//! The names of attributes as symbols: which words mean which patch labels, what training never says, and symbol
//! substitution.
//!
//! Training shows a part of all pairs of attributes. From that alone a decoder may learn the pairs it has seen one by
//! one, instead of "the patches that match both words". *Symbol substitution* takes that way out: for some of the
//! pictures the colours, shapes or textures get other names, drawn anew for each picture, in the questions and in the
//! object tags alike, so that there are far more pairs than could be learned by heart. The substitutes are words and
//! tags of their own, which the finished model does without; the pairs that are held out stay unseen. (Akin to
//! Andreas, "Good-enough compositional data augmentation", 2020, but with new symbols instead of known ones.)

use crate::Error;
use crate::patch_labels::TOKEN_LABEL_CLASSES;
use std::collections::{HashMap, HashSet};
use vlm_data::text::Tokenizer;
use vlm_nn::random::SplitMix64;
use vlm_tasks::prompt::Example;
use vlm_worlds::shapes::{Colour, Shape, Texture, is_held_out};

/// Substitutes of shapes, colours and textures, the first three groups of patch labels.
const SUBSTITUTES: [usize; 3] = [24, 24, 9];
/// Chance of each of the three to be substituted, for a picture with substitution.
const SUBSTITUTED: f32 = 0.67;

/// Object tags that only training has.
pub const EXTRA_TAGS: usize = SUBSTITUTES[0] + SUBSTITUTES[1] + SUBSTITUTES[2];

/// Words that only training has; their ids follow those of the world's words.
pub fn extra_words() -> Vec<String> {
    let [shapes, colours, textures] = SUBSTITUTES;
    let shapes = (1..=shapes).flat_map(|i| [format!("shape{i}"), format!("shape{i}s")]);
    let colours = (1..=colours).map(|i| format!("colour{i}"));
    let textures = (1..=textures).map(|i| format!("texture{i}"));
    shapes.chain(colours).chain(textures).collect()
}

/// What a word means.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meaning {
    Shape(Shape),
    Colour(Colour),
    Texture(Texture),
    Size,
}

/// Ids of the words for attributes.
#[derive(Clone, Debug)]
pub(crate) struct Symbols {
    meaning: HashMap<u32, Meaning>,
    /// For shapes, colours and textures: the words of each value, singular and plural where they differ.
    words: [Vec<Vec<u32>>; 3],
    /// The same for the substitutes; empty without them.
    substitutes: [Vec<Vec<u32>>; 3],
}

/// Other names for some attributes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Substitution {
    words: HashMap<u32, u32>,
    /// Tags and what they become.
    tags: Vec<(usize, usize)>,
}

impl Substitution {
    /// Whether every attribute keeps its name.
    pub(crate) fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// Puts the other names into a text.
    pub(crate) fn apply(&self, example: &mut Example) {
        for id in &mut example.ids {
            *id = *self.words.get(id).unwrap_or(id);
        }
    }

    /// Appends the matrix that turns tags into tags with substitutes.
    ///
    /// # Shapes
    /// `[C, C + EXTRA_TAGS]`, `C` classes of patch labels.
    pub(crate) fn matrix(&self, to: &mut Vec<f32>) {
        let classes: usize = TOKEN_LABEL_CLASSES.iter().sum();
        let (from, width) = (to.len(), classes + EXTRA_TAGS);
        to.resize(from + classes * width, 0.0);
        let mut place: Vec<usize> = (0..classes).collect();
        for &(tag, substitute) in &self.tags {
            place[tag] = substitute;
        }
        for (row, column) in place.into_iter().enumerate() {
            to[from + row * width + column] = 1.0;
        }
    }
}

impl Symbols {
    /// The symbols of a tokenizer for the world's words, with substitutes if it has their words.
    ///
    /// # Errors
    /// A tokenizer without one of the words.
    pub(crate) fn of(tokenizer: &Tokenizer, substitutes: bool) -> Result<Self, Error> {
        let id = |word: &str| {
            let id = tokenizer.token_to_id(word);
            id.ok_or_else(|| {
                Error::file(
                    "tokenizer",
                    format!("expected the word {word:?}, found none"),
                )
            })
        };
        let mut meaning = HashMap::new();
        let mut words = [const { Vec::new() }; 3];
        for shape in Shape::ALL {
            let ids = vec![id(shape.word())?, id(shape.plural())?];
            meaning.extend(ids.iter().map(|&id| (id, Meaning::Shape(*shape))));
            words[0].push(ids);
        }
        for colour in Colour::ALL {
            meaning.insert(id(colour.word())?, Meaning::Colour(*colour));
            words[1].push(vec![id(colour.word())?]);
        }
        for texture in Texture::ALL {
            meaning.insert(id(texture.word())?, Meaning::Texture(*texture));
            words[2].push(vec![id(texture.word())?]);
        }
        for size in vlm_worlds::shapes::Size::ALL {
            meaning.insert(id(size.word())?, Meaning::Size);
        }
        let mut extra = [const { Vec::new() }; 3];
        if substitutes {
            let ids = extra_words()
                .iter()
                .map(|w| id(w))
                .collect::<Result<Vec<_>, _>>()?;
            let (shapes, rest) = ids.split_at(2 * SUBSTITUTES[0]);
            let (colours, textures) = rest.split_at(SUBSTITUTES[1]);
            extra[0] = shapes.chunks(2).map(<[u32]>::to_vec).collect();
            extra[1] = colours.iter().map(|&id| vec![id]).collect();
            extra[2] = textures.iter().map(|&id| vec![id]).collect();
        }
        Ok(Self {
            meaning,
            words,
            substitutes: extra,
        })
    }

    /// Other names for some of the attributes, drawn anew.
    pub(crate) fn substitution(&self, rng: &mut SplitMix64) -> Substitution {
        let mut substitution = Substitution::default();
        let classes: usize = TOKEN_LABEL_CLASSES.iter().sum();
        let (mut first_tag, mut first_extra) = (0, classes);
        for (group, (words, substitutes)) in self.words.iter().zip(&self.substitutes).enumerate() {
            if rng.uniform_f32() < SUBSTITUTED {
                let mut order: Vec<usize> = (0..substitutes.len()).collect();
                for (value, words) in words.iter().enumerate() {
                    let rest = (order.len() - value) as u64;
                    order.swap(value, value + (rng.bits() % rest) as usize);
                    let chosen = order[value];
                    let pairs = words.iter().zip(&substitutes[chosen]);
                    substitution.words.extend(pairs.map(|(&a, &b)| (a, b)));
                    substitution
                        .tags
                        .push((first_tag + value, first_extra + chosen));
                }
            }
            first_tag += TOKEN_LABEL_CLASSES[group];
            first_extra += SUBSTITUTES[group];
        }
        substitution
    }

    /// Where a text's next word could be, but in training never is, the name of a value: position and word. That a
    /// pair of attributes is held out must not be learned as "after this word never that one", so these words are left
    /// out of the softmax there, as classes of patch labels are (logit adjustment, see
    /// [`vlm_models::objectives::token_labeling`]).
    ///
    /// `about_attribute` says that the answer is an attribute of the object that the question names.
    pub(crate) fn never(&self, example: &Example, about_attribute: bool) -> Vec<(usize, u32)> {
        let mut never = Vec::new();
        for (position, target) in example.ids.iter().skip(1).enumerate() {
            let Some(&meaning) = self.meaning.get(target) else {
                continue;
            };
            let before = &example.ids[..=position];
            // adjectives right before a shape, or the whole question before its answer
            let named: HashSet<u32> = if position + 1 >= example.prompt && about_attribute {
                before.iter().copied().collect()
            } else {
                let adjectives = before.iter().rev().copied();
                adjectives
                    .take_while(|id| self.meaning.contains_key(id))
                    .collect()
            };
            let named: Vec<Meaning> = named
                .iter()
                .filter_map(|id| self.meaning.get(id))
                .copied()
                .collect();
            let held_out = |m: &Meaning| named.iter().any(|n| never_together(n, m));
            let same_kind =
                |m: &Meaning| std::mem::discriminant(m) == std::mem::discriminant(&meaning);
            let words = self.meaning.iter();
            let out = words.filter(|(id, m)| *id != target && same_kind(m) && held_out(m));
            never.extend(out.map(|(&id, _)| (position, id)));
        }
        never.sort_unstable();
        never
    }
}

fn never_together(a: &Meaning, b: &Meaning) -> bool {
    match (a, b) {
        (Meaning::Colour(c), Meaning::Shape(s)) | (Meaning::Shape(s), Meaning::Colour(c)) => {
            is_held_out(Some(*c), None, *s)
        }
        (Meaning::Texture(t), Meaning::Shape(s)) | (Meaning::Shape(s), Meaning::Texture(t)) => {
            is_held_out(None, Some(*t), *s)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vlm_data::text::word_level;
    use vlm_tasks::prompt::{SPECIALS, SpecialIds};
    use vlm_worlds::shapes;

    fn tokenizer() -> Tokenizer {
        let mut words: Vec<String> = shapes::vocabulary()
            .into_iter()
            .map(str::to_owned)
            .collect();
        words.extend(extra_words());
        word_level(&words, &SPECIALS).expect("the words")
    }

    fn symbols() -> Symbols {
        Symbols::of(&tokenizer(), true).expect("the words")
    }

    #[test]
    fn a_substitution_renames_words_and_tags_alike() {
        let (symbols, t) = (symbols(), tokenizer());
        let special = SpecialIds::of(&t).expect("special tokens");
        let mut rng = SplitMix64::new(5);
        let mut renamed = 0;
        for _ in 0..50 {
            let substitution = symbols.substitution(&mut rng);
            let mut example = special
                .answer_example(&t, "how many red stars are there?", "two")
                .expect("known words");
            let before = example.ids.clone();
            substitution.apply(&mut example);
            let mut matrix = Vec::new();
            substitution.matrix(&mut matrix);
            let classes: usize = TOKEN_LABEL_CLASSES.iter().sum();
            let becomes = |tag: usize| {
                let row = &matrix[tag * (classes + EXTRA_TAGS)..][..classes + EXTRA_TAGS];
                assert_eq!(row.iter().sum::<f32>(), 1.0);
                row.iter().position(|&x| x == 1.0).expect("a one")
            };
            let words: Vec<String> = extra_words();
            let word = |id: u32| {
                let known = t.vocab_size() - words.len();
                words.get((id as usize).wrapping_sub(known)).cloned()
            };
            // red is the first colour, star the fourth shape
            let (red, star) = (becomes(9), becomes(3));
            let colour = (red != 9).then(|| format!("colour{}", red - classes - 24 + 1));
            let shape = (star != 3).then(|| format!("shape{}s", star - classes + 1));
            assert_eq!(
                (word(example.ids[3]), word(example.ids[4])),
                (colour, shape)
            );
            renamed += usize::from(example.ids != before);
            assert_eq!(example.ids[..3], before[..3]);
        }
        assert!((25..50).contains(&renamed), "{renamed}");
    }

    #[test]
    fn what_training_never_says_is_left_out_of_the_softmax() {
        let (symbols, t) = (symbols(), tokenizer());
        let special = SpecialIds::of(&t).expect("special tokens");
        let id = |word: &str| t.token_to_id(word).expect("a word");
        let ask = |question: &str, answer: &str| {
            let example = special
                .answer_example(&t, question, answer)
                .expect("known words");
            symbols.never(&example, true)
        };
        // <question> what shape is the red thing ? <answer> circle
        let never = ask("what shape is the red thing?", "circle");
        let mut stars = [(8, id("star")), (8, id("stars"))];
        stars.sort_unstable();
        assert_eq!(never, stars);
        let never = ask("what colour is the large square?", "red");
        assert_eq!(never, [(8, id("orange"))]);
        // inside of the question: after "red" never "star"
        let never = ask("is the red circle large?", "yes");
        let mut stars = [(3, id("star")), (3, id("stars"))];
        stars.sort_unstable();
        assert_eq!(never, stars);
        let example = special
            .caption_example(&t, "a small dotted heart")
            .expect("known words");
        let mut squares = [(3, id("square")), (3, id("squares"))];
        squares.sort_unstable();
        assert_eq!(symbols.never(&example, false), squares);
    }
}
