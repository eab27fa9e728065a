//! Captions: several wordings of what a scene shows.
//!
//! Every caption names every object with colour and shape; equal ones may be grouped ("two red circles"). Sizes,
//! textures, positions, one relation, the number of objects and the background are added at random while the caption
//! stays short.

use super::scene::{Kind, NUMBERS, Object, Position, Relation, Scene, Size, Texture, with_article};
use crate::rng::Rng;

/// Captions of each item.
pub(crate) const CAPTIONS: usize = 4;
/// Most words in a caption.
pub const MAX_CAPTION_WORDS: usize = 45;

const OPENINGS: [&str; 9] = [
    "",
    "",
    "",
    "there",
    "a picture of",
    "a picture with",
    "an image of",
    "this picture shows",
    "we see",
];

/// Which details a caption gives.
#[derive(Clone, Copy, Default)]
struct Details {
    size: bool,
    texture: bool,
    /// Say "plain" too where the texture is given.
    plain: bool,
    position: bool,
    relation: bool,
    count: bool,
    background: bool,
}

impl Details {
    fn random(rng: &mut Rng, objects: usize) -> Details {
        Details {
            size: rng.percent(35),
            texture: rng.percent(40),
            plain: rng.percent(35),
            position: rng.percent(if objects <= 4 { 30 } else { 10 }),
            relation: rng.percent(35),
            count: rng.percent(15),
            background: rng.percent(30),
        }
    }
}

/// Where a position is, as a phrase.
pub(crate) fn position_phrase(position: Position) -> &'static str {
    match position {
        Position::TopLeft => "in the top left",
        Position::Top => "at the top",
        Position::TopRight => "in the top right",
        Position::Left => "on the left",
        Position::Centre => "in the centre",
        Position::Right => "on the right",
        Position::BottomLeft => "in the bottom left",
        Position::Bottom => "at the bottom",
        Position::BottomRight => "in the bottom right",
    }
}

fn relation_phrase(rng: &mut Rng, relation: Relation) -> &'static str {
    match relation {
        Relation::LeftOf => rng.pick(&["left of", "to the left of"]),
        Relation::RightOf => rng.pick(&["right of", "to the right of"]),
        Relation::Above => "above",
        Relation::Below => rng.pick(&["below", "under"]),
        Relation::Touching => "touching",
        Relation::Inside => "inside",
    }
}

/// Different captions of a scene. `texture_of` names an object whose texture each of them must give.
pub(crate) fn captions(rng: &mut Rng, scene: &Scene, texture_of: Option<usize>) -> Vec<String> {
    let mut captions: Vec<String> = Vec::with_capacity(CAPTIONS);
    let mut attempts = 0;
    while captions.len() < CAPTIONS {
        attempts += 1;
        let details = if attempts < 40 {
            Details::random(rng, scene.objects.len())
        } else {
            Details::default()
        };
        let caption = caption(rng, scene, details, texture_of);
        let short = caption.split_whitespace().count() <= MAX_CAPTION_WORDS;
        // A scene of few words may run out of wordings; better a repeated one than none.
        if short && (attempts > 60 || !captions.contains(&caption)) {
            captions.push(caption);
        }
    }
    captions
}

/// Objects that one phrase names together.
struct Group {
    members: Vec<usize>,
    kind: Kind,
    position: Option<Position>,
}

impl Group {
    fn phrase(&self) -> String {
        let mut phrase = match self.members.len() {
            1 => with_article(&self.kind.phrase(false, "object")),
            n => format!("{} {}", NUMBERS[n], self.kind.phrase(true, "objects")),
        };
        if let Some(position) = self.position {
            phrase.push(' ');
            phrase.push_str(position_phrase(position));
        }
        phrase
    }
}

fn caption(rng: &mut Rng, scene: &Scene, details: Details, texture_of: Option<usize>) -> String {
    let objects = &scene.objects;
    let order = order(rng, objects);
    let mut groups: Vec<Group> = Vec::new();
    for &index in &order {
        let object = &objects[index];
        let with_texture = (details.texture && (details.plain || object.texture != Texture::Plain))
            || texture_of == Some(index);
        let kind = Kind {
            size: details.size.then_some(object.size),
            texture: with_texture.then_some(object.texture),
            colour: Some(object.colour),
            shape: Some(object.shape),
        };
        let position = details.position.then_some(object.position);
        match groups
            .iter_mut()
            .find(|group| group.kind == kind && group.position == position)
        {
            Some(group) => group.members.push(index),
            None => groups.push(Group {
                members: vec![index],
                kind,
                position,
            }),
        }
    }
    let mut related = String::new();
    if details.relation
        && let Some((subject, relation, object)) = pick_relation(rng, scene, &groups)
    {
        groups[subject].position = None;
        groups[object].position = None;
        let alone = groups.len() == 2;
        let verb = if alone && rng.coin() { "is " } else { "" };
        related = format!(
            "{} {verb}{} {}",
            groups[subject].phrase(),
            relation_phrase(rng, relation),
            groups[object].phrase()
        );
        if alone {
            let background = if details.background {
                background_phrase(rng, scene)
            } else {
                String::new()
            };
            return related + &background;
        }
        let (first, last) = (subject.min(object), subject.max(object));
        groups.remove(last);
        groups.remove(first);
    }

    let mut phrases: Vec<String> = groups.iter().map(Group::phrase).collect();
    let first_is_plural = groups.first().is_some_and(|group| group.members.len() > 1);
    if !related.is_empty() {
        phrases.push(related);
    }
    let list = join(&phrases);
    let mut text = if details.count && objects.len() > 1 {
        format!("{} objects: {list}", NUMBERS[objects.len()])
    } else {
        match rng.pick(&OPENINGS) {
            "" => list,
            "there" if first_is_plural => format!("there are {list}"),
            "there" => format!("there is {list}"),
            opening => format!("{opening} {list}"),
        }
    };
    if details.background {
        text += &background_phrase(rng, scene);
    }
    text
}

fn background_phrase(rng: &mut Rng, scene: &Scene) -> String {
    let background = scene.background.word();
    match rng.below(3) {
        0 => format!(" on a {background} background"),
        1 => format!(" against a {background} background"),
        _ => format!(", the background is {background}"),
    }
}

/// In half of the captions objects follow one another like words on a page; else large ones come first, or any order.
fn order(rng: &mut Rng, objects: &[Object]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..objects.len()).collect();
    match rng.weighted(&[50, 25, 25]) {
        0 => order.sort_by_key(|&i| {
            let [left, _, right, _] = objects[i].bounds;
            (objects[i].position as usize / 3, left + right)
        }),
        1 => order.sort_by_key(|&i| {
            let [left, _, right, _] = objects[i].bounds;
            (objects[i].size == Size::Small, left + right)
        }),
        _ => rng.shuffle(&mut order),
    }
    order
}

/// A relation between two groups of one object each, whose colour and shape no other object has.
fn pick_relation(
    rng: &mut Rng,
    scene: &Scene,
    groups: &[Group],
) -> Option<(usize, Relation, usize)> {
    let group_of = |index: usize| {
        let object = &scene.objects[index];
        let alone = scene
            .objects
            .iter()
            .filter(|other| (other.colour, other.shape) == (object.colour, object.shape))
            .count()
            == 1;
        groups
            .iter()
            .position(|group| alone && group.members == [index])
    };
    let choices: Vec<(usize, Relation, usize)> = scene
        .relations
        .iter()
        .filter_map(|fact| {
            Some((
                group_of(fact.subject)?,
                fact.relation,
                group_of(fact.object)?,
            ))
        })
        .collect();
    // Contact is rarer than direction and says more.
    let contacts: Vec<_> = choices
        .iter()
        .copied()
        .filter(|choice| matches!(choice.1, Relation::Inside | Relation::Touching))
        .collect();
    if choices.is_empty() {
        None
    } else if !contacts.is_empty() && rng.percent(60) {
        Some(rng.pick(&contacts))
    } else {
        Some(rng.pick(&choices))
    }
}

fn join(phrases: &[String]) -> String {
    match phrases {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
