//! What a picture shows.

use std::fmt;

/// The colours of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Colour {
    /// 0, 0, 0.
    Black,
    /// 255, 255, 0.
    Yellow,
    /// 0, 153, 255.
    Blue,
}

impl Colour {
    /// All colours.
    pub const ALL: [Colour; 3] = [Colour::Black, Colour::Yellow, Colour::Blue];

    /// Its name in sentences.
    pub fn word(self) -> &'static str {
        match self {
            Colour::Black => "black",
            Colour::Yellow => "yellow",
            Colour::Blue => "blue",
        }
    }
}

/// A set of colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Colours(u8);

impl Colours {
    /// No colour.
    pub const NONE: Colours = Colours(0);
    /// Every colour.
    pub const ANY: Colours = Colours(7);

    /// One colour.
    pub fn one(colour: Colour) -> Colours {
        Colours(1 << colour as u8)
    }

    /// Every colour but one.
    pub fn but(colour: Colour) -> Colours {
        Colours(7 & !(1 << colour as u8))
    }

    /// The colours of either set.
    pub fn and(self, other: Colours) -> Colours {
        Colours(self.0 | other.0)
    }

    /// Whether a colour is in it.
    pub fn has(self, colour: Colour) -> bool {
        self.0 & (1 << colour as u8) != 0
    }

    /// How many colours there are.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

/// The forms of items; towers are made of squares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// As wide as it is high.
    Circle,
    /// Upright.
    Square,
    /// Isosceles, its tip up; as wide as it is high.
    Triangle,
}

impl Shape {
    /// All forms.
    pub const ALL: [Shape; 3] = [Shape::Circle, Shape::Square, Shape::Triangle];

    /// Its name in sentences.
    pub fn word(self) -> &'static str {
        match self {
            Shape::Circle => "circle",
            Shape::Square => "square",
            Shape::Triangle => "triangle",
        }
    }
}

/// The sizes of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// 10 pixels.
    Small,
    /// 20 pixels, as the blocks of towers.
    Medium,
    /// 30 pixels.
    Large,
}

impl Size {
    /// All sizes.
    pub const ALL: [Size; 3] = [Size::Small, Size::Medium, Size::Large];

    /// Width and height in pixels.
    pub fn pixels(self) -> u8 {
        match self {
            Size::Small => 10,
            Size::Medium => 20,
            Size::Large => 30,
        }
    }
}

/// Side of a box in pixels.
pub const BOX: u8 = 100;

/// A thing in a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// Its colour.
    pub colour: Colour,
    /// Its form.
    pub shape: Shape,
    /// Its width and height.
    pub size: Size,
    /// Left edge, in pixels from the box's.
    pub x: u8,
    /// Upper edge, in pixels from the box's.
    pub y: u8,
}

impl Object {
    /// Block of a tower, `level` blocks above its base.
    pub fn block(colour: Colour, level: usize) -> Object {
        Object {
            colour,
            shape: Shape::Square,
            size: Size::Medium,
            x: 40,
            y: (80 - 21 * level) as u8,
        }
    }

    /// First column to its right.
    pub fn right(&self) -> u8 {
        self.x + self.size.pixels()
    }

    /// First row below it.
    pub fn bottom(&self) -> u8 {
        self.y + self.size.pixels()
    }

    /// Pixels between the squares around two items: 0 where they meet, negative where they overlap.
    pub fn gap(&self, other: &Object) -> i32 {
        let between = |a: u8, a_end: u8, b: u8, b_end: u8| {
            (i32::from(b) - i32::from(a_end)).max(i32::from(a) - i32::from(b_end))
        };
        let across = between(self.x, self.right(), other.x, other.right());
        let down = between(self.y, self.bottom(), other.y, other.bottom());
        across.max(down)
    }
}

/// The two kinds of scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// In each box a tower of one to four blocks.
    Towers,
    /// In each box one to seven items that do not touch.
    Scatter,
}

/// Most blocks of a tower.
pub const MAX_HEIGHT: usize = 4;
/// Most scattered items in a box.
pub const MAX_ITEMS: usize = 7;

/// Three boxes. Their order is no part of the truth: every sentence is true of all orders or of none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scene {
    /// What stands in the boxes.
    pub kind: Kind,
    /// The items of each box; those of a tower from its base to its top.
    pub boxes: [Vec<Object>; 3],
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
