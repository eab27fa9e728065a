//! Which objects a scene has.
//!
//! Counting questions are balanced here: the question and its answer are chosen first, and then objects that make the
//! answer true.

use super::scene::{Attributes, Colour, Kind, Shape, Size, Texture};
use super::split::{HELD_OUT_COLOUR_SHAPE, HELD_OUT_TEXTURE_SHAPE, Split, is_held_out};
use crate::rng::Rng;

/// The objects of a scene before they have places.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) objects: Vec<Attributes>,
    /// Kinds of object to count, each with its answer.
    pub(crate) counts: Vec<(Kind, usize)>,
    /// In `compositional` the object with the held-out pair, and what of it the pair is.
    pub(crate) focus: Option<(usize, Kind)>,
}

/// How often each count is asked for; chosen so that the scenes do not all become crowded.
const COUNT_WEIGHTS: [usize; 6] = [20, 20, 19, 16, 13, 12];
/// How often a scene has 1, 2, ... objects, before the planned count is known.
const OBJECT_WEIGHTS: [usize; 7] = [14, 13, 12, 11, 9, 8, 7];
/// How often each second count is asked for among those that fit the number of objects.
const SECOND_COUNT_WEIGHTS: [usize; 6] = [6, 7, 8, 10, 12, 14];
/// More large objects than this do not fit well.
const MOST_LARGE: usize = 4;

/// The largest number of objects at this difficulty: 3 at 0, 5 at 0.5, 7 at 1.
pub(crate) fn most_objects(difficulty: f32) -> usize {
    (3.5 + 4.0 * difficulty) as usize
}

/// Attributes drawn from the world's distribution. Texture and colour follow the shape, so that held-out pairs are
/// avoided without making any shape rarer.
pub(crate) fn random_attributes(rng: &mut Rng, held_out_too: bool) -> Attributes {
    let shape = rng.pick(Shape::ALL);
    let size = rng.pick(Size::ALL);
    loop {
        let colour = rng.pick(Colour::ALL);
        let texture = rng.pick(Texture::ALL);
        if held_out_too || !is_held_out(Some(colour), Some(texture), shape) {
            return Attributes {
                shape,
                colour,
                size,
                texture,
            };
        }
    }
}

pub(crate) fn plan(rng: &mut Rng, split: Split, difficulty: f32) -> Plan {
    loop {
        let Some(mut plan) = try_plan(rng, split, difficulty) else {
            continue;
        };
        if split == Split::Compositional {
            put_in_held_out_pair(rng, &mut plan);
        }
        return plan;
    }
}

fn try_plan(rng: &mut Rng, split: Split, difficulty: f32) -> Option<Plan> {
    let most = most_objects(difficulty);
    let first = first_kind(rng);
    let first_count = rng.weighted(&COUNT_WEIGHTS[..=most.min(5)]);
    let fewest = first_count.max(1);
    let n = fewest + rng.weighted(&OBJECT_WEIGHTS[fewest - 1..most]);
    let second = second_kind(rng, first);
    let second_most = match second.size {
        Some(Size::Large) => n.min(MOST_LARGE),
        _ => n.min(5),
    };
    let second_count = rng.weighted(&SECOND_COUNT_WEIGHTS[..=second_most]);

    let mut in_first: Vec<bool> = (0..n).map(|i| i < first_count).collect();
    let mut in_second: Vec<bool> = (0..n).map(|i| i < second_count).collect();
    rng.shuffle(&mut in_first);
    rng.shuffle(&mut in_second);

    // A few favoured values make objects share attributes, so that comparisons have something to compare.
    let colours: Vec<Colour> = (0..3).map(|_| rng.pick(Colour::ALL)).collect();
    let shapes: Vec<Shape> = (0..3).map(|_| rng.pick(Shape::ALL)).collect();
    let mut large = 0;
    let mut objects = Vec::with_capacity(n);
    for i in 0..n {
        let object = (0..300).find_map(|_| {
            let mut a = random_attributes(rng, true);
            if rng.percent(45) {
                a.colour = rng.pick(&colours);
            }
            if rng.percent(45) {
                a.shape = rng.pick(&shapes);
            }
            for (kind, member) in [(&first, in_first[i]), (&second, in_second[i])] {
                if member {
                    a.shape = kind.shape.unwrap_or(a.shape);
                    a.colour = kind.colour.unwrap_or(a.colour);
                    a.size = kind.size.unwrap_or(a.size);
                    a.texture = kind.texture.unwrap_or(a.texture);
                }
            }
            let fits = split == Split::Compositional
                || !is_held_out(Some(a.colour), Some(a.texture), a.shape);
            let crowded = a.size == Size::Large && large >= MOST_LARGE && second.size.is_none();
            (fits
                && !crowded
                && first.includes(&a) == in_first[i]
                && second.includes(&a) == in_second[i])
                .then_some(a)
        })?;
        large += usize::from(object.size == Size::Large);
        objects.push(object);
    }
    Some(Plan {
        objects,
        counts: vec![(first, first_count), (second, second_count)],
        focus: None,
    })
}

/// A shape, a colour, or sometimes both.
fn first_kind(rng: &mut Rng) -> Kind {
    loop {
        let which = rng.weighted(&[40, 40, 20]);
        let kind = Kind {
            shape: (which != 1).then(|| rng.pick(Shape::ALL)),
            colour: (which != 0).then(|| rng.pick(Colour::ALL)),
            ..Kind::default()
        };
        if kind
            .shape
            .is_none_or(|shape| !is_held_out(kind.colour, None, shape))
        {
            return kind;
        }
    }
}

/// A texture or a size that can go together with the first kind.
fn second_kind(rng: &mut Rng, first: Kind) -> Kind {
    if rng.percent(35) {
        return Kind {
            size: Some(rng.pick(Size::ALL)),
            ..Kind::default()
        };
    }
    loop {
        let texture = Some(rng.pick(Texture::ALL));
        if first
            .shape
            .is_none_or(|shape| !is_held_out(None, texture, shape))
        {
            return Kind {
                texture,
                ..Kind::default()
            };
        }
    }
}

/// Gives one object a held-out pair and makes the counts true again.
fn put_in_held_out_pair(rng: &mut Rng, plan: &mut Plan) {
    let pair = if rng.percent(75) {
        let (colour, shape) = rng.pick(&HELD_OUT_COLOUR_SHAPE);
        Kind {
            colour: Some(colour),
            shape: Some(shape),
            ..Kind::default()
        }
    } else {
        let (texture, shape) = rng.pick(&HELD_OUT_TEXTURE_SHAPE);
        Kind {
            texture: Some(texture),
            shape: Some(shape),
            ..Kind::default()
        }
    };
    let index = rng.below(plan.objects.len());
    // Groups of the pair itself make counting it meaningful.
    for (i, object) in plan.objects.iter_mut().enumerate() {
        if i == index || rng.percent(12) {
            object.shape = pair.shape.unwrap_or(object.shape);
            object.colour = pair.colour.unwrap_or(object.colour);
            object.texture = pair.texture.unwrap_or(object.texture);
        }
    }
    plan.focus = Some((index, pair));
    // The first question counts the pair, or the shape in it; now and then another pair that is missing.
    plan.counts[0].0 = match rng.below(4) {
        0 => Kind {
            shape: pair.shape,
            ..Kind::default()
        },
        1 => {
            let (colour, shape) = rng.pick(&HELD_OUT_COLOUR_SHAPE);
            Kind {
                colour: Some(colour),
                shape: Some(shape),
                ..Kind::default()
            }
        }
        _ => pair,
    };
    for (kind, count) in &mut plan.counts {
        *count = plan
            .objects
            .iter()
            .filter(|object| kind.includes(object))
            .count();
    }
}
