//! What a sentence says, and whether it is true of a scene.

use super::scene::{BOX, Colour, Colours, Object, Scene, Shape, Size};

/// A condition on a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Number {
    /// This many, no more and no less.
    Exactly(usize),
    /// This many or more.
    AtLeast(usize),
    /// This many or fewer.
    AtMost(usize),
}

impl Number {
    /// Whether a number satisfies it.
    pub fn holds(self, n: usize) -> bool {
        match self {
            Number::Exactly(expected) => n == expected,
            Number::AtLeast(least) => n >= least,
            Number::AtMost(most) => n <= most,
        }
    }
}

/// Where an item is in its box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Touches any wall.
    Wall,
    /// Touches no wall.
    NoWall,
    /// Touches the left or right wall.
    Side,
    /// Touches the left wall.
    Left,
    /// Touches the right wall.
    Right,
    /// Touches the upper wall.
    Roof,
    /// Touches the lower wall.
    Bottom,
    /// Touches two walls.
    Corner,
    /// Has at most [`NEAR`] pixels to two walls.
    NearCorner,
    /// Touches the right and the lower wall.
    BottomRight,
    /// The block at this height of a tower, the base being 0.
    Level(usize),
    /// The block this far below the top, which is 0.
    FromTop(usize),
    /// Neither the base nor the top.
    Middle,
    /// Right above a block of these colours.
    On(Colours),
    /// Right below a block of these colours.
    Under(Colours),
    /// Right above or right below a block of these colours.
    Beside(Colours),
    /// Right above one block and right below another of these colours.
    Between(Colours),
    /// Right above one block and right below another of the same colour as that.
    BetweenAlike,
}

/// Of items this near to a corner it is said that they closely touch it.
pub const NEAR: u8 = 4;

/// A kind of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Objects {
    /// Its colours.
    pub colours: Colours,
    /// Its form, if that matters.
    pub shape: Option<Shape>,
    /// Its size, if that matters.
    pub size: Option<Size>,
    /// Where it is, if that matters.
    pub place: Option<Place>,
}

impl Objects {
    /// All items.
    pub const ANY: Objects = Objects {
        colours: Colours::ANY,
        shape: None,
        size: None,
        place: None,
    };

    /// Objects of a colour.
    pub fn of(colour: Colour) -> Objects {
        Objects {
            colours: Colours::one(colour),
            ..Objects::ANY
        }
    }

    /// The same at a place.
    pub fn at(self, place: Place) -> Objects {
        Objects {
            place: Some(place),
            ..self
        }
    }

    /// How many there are in a box.
    pub fn count(&self, items: &[Object]) -> usize {
        (0..items.len()).filter(|&i| self.matches(items, i)).count()
    }

    /// Whether the item at a place in the list is one.
    fn matches(&self, items: &[Object], i: usize) -> bool {
        let item = &items[i];
        self.colours.has(item.colour)
            && self.shape.is_none_or(|shape| shape == item.shape)
            && self.size.is_none_or(|size| size == item.size)
            && self.place.is_none_or(|place| place.holds(items, i))
    }
}

impl Place {
    fn holds(self, items: &[Object], i: usize) -> bool {
        let item = &items[i];
        let (left, right) = (item.x == 0, item.right() == BOX);
        let (roof, bottom) = (item.y == 0, item.bottom() == BOX);
        let colour = |i: usize| items[i].colour;
        let last = items.len() - 1;
        match self {
            Place::Wall => left || right || roof || bottom,
            Place::NoWall => !(left || right || roof || bottom),
            Place::Side => left || right,
            Place::Left => left,
            Place::Right => right,
            Place::Roof => roof,
            Place::Bottom => bottom,
            Place::Corner => (left || right) && (roof || bottom),
            Place::NearCorner => {
                let across = item.x.min(BOX - item.right());
                let down = item.y.min(BOX - item.bottom());
                across.max(down) <= NEAR
            }
            Place::BottomRight => right && bottom,
            Place::Level(level) => i == level,
            Place::FromTop(n) => i + n == last,
            Place::Middle => i > 0 && i < last,
            Place::On(colours) => i > 0 && colours.has(colour(i - 1)),
            Place::Under(colours) => i < last && colours.has(colour(i + 1)),
            Place::Beside(colours) => {
                (i > 0 && colours.has(colour(i - 1))) || (i < last && colours.has(colour(i + 1)))
            }
            Place::Between(colours) => {
                i > 0 && i < last && colours.has(colour(i - 1)) && colours.has(colour(i + 1))
            }
            Place::BetweenAlike => i > 0 && i < last && colour(i - 1) == colour(i + 1),
        }
    }
}

/// A condition on a box.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Clause {
    /// It has so many of these.
    Has(Number, Objects),
    /// Whatever it has is one of these.
    Only(Objects),
    /// It has these colours, all of them and no other.
    Palette(Colours),
    /// It has so many colours.
    Variety(Number),
    /// So many of these agree in something.
    Alike(Number, Alike, Objects),
    /// Blocks of one colour, so many in a row, among these colours.
    Run(usize, Colours),
    /// One of the first and one of the second touch.
    Touch(Objects, Objects),
}

/// In what items may agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alike {
    /// In colour.
    Colour,
    /// In form.
    Shape,
    /// In size.
    Size,
}

/// Pixels between two things that are said to touch each other, at most; blocks of a tower have one.
const TOUCHING: i32 = 2;

impl Clause {
    /// Whether it is true of a box.
    pub fn holds(&self, items: &[Object]) -> bool {
        match self {
            Clause::Has(number, kind) => number.holds(kind.count(items)),
            Clause::Only(kind) => kind.count(items) == items.len(),
            Clause::Palette(colours) => palette(items) == *colours,
            Clause::Variety(number) => number.holds(palette(items).count()),
            Clause::Alike(number, alike, kind) => {
                let same = |a: &Object, b: &Object| match alike {
                    Alike::Colour => a.colour == b.colour,
                    Alike::Shape => a.shape == b.shape,
                    Alike::Size => a.size == b.size,
                };
                let chosen = (0..items.len()).filter(|&i| kind.matches(items, i));
                let chosen: Vec<&Object> = chosen.map(|i| &items[i]).collect();
                let count = |a: &Object| chosen.iter().filter(|b| same(a, b)).count();
                chosen.iter().any(|item| number.holds(count(item)))
            }
            Clause::Run(length, colours) => items.windows(*length).any(|run| {
                let colour = run[0].colour;
                colours.has(colour) && run.iter().all(|block| block.colour == colour)
            }),
            Clause::Touch(first, second) => (0..items.len()).any(|i| {
                first.matches(items, i)
                    && (0..items.len()).any(|j| {
                        i != j && second.matches(items, j) && items[i].gap(&items[j]) <= TOUCHING
                    })
            }),
        }
    }
}

fn palette(items: &[Object]) -> Colours {
    items.iter().fold(Colours::NONE, |set, item| {
        set.and(Colours::one(item.colour))
    })
}

/// What a sentence says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// So many of these are in the boxes that satisfy all conditions.
    Objects(Number, Objects, Vec<Clause>),
    /// So many boxes satisfy all conditions.
    Boxes(Number, Vec<Clause>),
    /// Some colour is the one of so many boxes' items of this kind.
    Shared(Number, Objects),
    /// So many boxes have the same number of items.
    SameCount(Number),
    /// All of them.
    All(Vec<Meaning>),
}

impl Meaning {
    /// Whether it is true of a scene.
    pub fn holds(&self, scene: &Scene) -> bool {
        let boxes = scene.boxes.iter();
        let all = |items: &[Object], clauses: &[Clause]| clauses.iter().all(|c| c.holds(items));
        match self {
            Meaning::Objects(number, kind, within) => {
                let within = boxes.filter(|items| all(items, within));
                number.holds(within.map(|items| kind.count(items)).sum())
            }
            Meaning::Boxes(number, clauses) => {
                number.holds(boxes.filter(|items| all(items, clauses)).count())
            }
            Meaning::Shared(number, kind) => Colour::ALL.into_iter().any(|colour| {
                let of = Objects {
                    colours: Colours::one(colour),
                    ..*kind
                };
                kind.colours.has(colour)
                    && number.holds(boxes.clone().filter(|items| of.count(items) > 0).count())
            }),
            Meaning::SameCount(number) => boxes
                .clone()
                .any(|a| number.holds(boxes.clone().filter(|b| a.len() == b.len()).count())),
            Meaning::All(meanings) => meanings.iter().all(|meaning| meaning.holds(scene)),
        }
    }
}
