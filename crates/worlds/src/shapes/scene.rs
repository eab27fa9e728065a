//! What a scene contains, in words: the exact ground truth of a picture.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An attribute: an enum whose values are words of the closed vocabulary.
macro_rules! attribute {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[doc = concat!("`", $word, "`")] #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The value's word (for some positions and relations: words) in captions and in `items.jsonl`.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// The value with this word.
            pub fn from_word(word: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|value| value.word() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

attribute!(
    /// The outline of an object.
    Shape {
        Circle = "circle",
        Square = "square",
        Triangle = "triangle",
        Star = "star",
        Heart = "heart",
        Cross = "cross",
        Ring = "ring",
        Diamond = "diamond",
    }
);

attribute!(
    /// The main colour of an object.
    Colour {
        Red = "red",
        Orange = "orange",
        Yellow = "yellow",
        Green = "green",
        Blue = "blue",
        Purple = "purple",
        Pink = "pink",
        Brown = "brown",
    }
);

attribute!(
    /// The size of an object: the longer side of its box in parts of the picture's side.
    Size {
        /// 14 to 19 %.
        Small = "small",
        /// 28 to 38 %.
        Large = "large",
    }
);

attribute!(
    /// What covers the inside of an object.
    Texture {
        Plain = "plain",
        Striped = "striped",
        Dotted = "dotted",
    }
);

attribute!(
    /// The ninth of the picture in which the centre of an object's box lies.
    Position {
        TopLeft = "top left",
        Top = "top",
        TopRight = "top right",
        Left = "left",
        Centre = "centre",
        Right = "right",
        BottomLeft = "bottom left",
        Bottom = "bottom",
        BottomRight = "bottom right",
    }
);

attribute!(
    /// The colour behind the objects; no object has it.
    Background {
        White = "white",
        Grey = "grey",
        Black = "black",
        Beige = "beige",
        Mint = "mint",
        Lavender = "lavender",
    }
);

attribute!(
    /// How one object lies to another.
    ///
    /// The four directions hold when the centres of the boxes differ by at least 18 % of the picture's side in that
    /// direction and by at least 1.5 times as much as across it. `Touching` objects overlap a little, and all others
    /// keep a gap of at least 3 % of the side. `Inside` means wholly inside a ring's hole or a larger plain shape; such
    /// a pair is not `Touching`.
    Relation {
        LeftOf = "left of",
        RightOf = "right of",
        Above = "above",
        Below = "below",
        Touching = "touching",
        Inside = "inside",
    }
);

impl Shape {
    /// The word for several of them.
    pub fn plural(self) -> &'static str {
        match self {
            Shape::Circle => "circles",
            Shape::Square => "squares",
            Shape::Triangle => "triangles",
            Shape::Star => "stars",
            Shape::Heart => "hearts",
            Shape::Cross => "crosses",
            Shape::Ring => "rings",
            Shape::Diamond => "diamonds",
        }
    }
}

impl Relation {
    /// The relation with subject and object exchanged; `Inside` has none.
    pub fn reversed(self) -> Option<Relation> {
        match self {
            Relation::LeftOf => Some(Relation::RightOf),
            Relation::RightOf => Some(Relation::LeftOf),
            Relation::Above => Some(Relation::Below),
            Relation::Below => Some(Relation::Above),
            Relation::Touching => Some(Relation::Touching),
            Relation::Inside => None,
        }
    }
}

/// One object of a scene.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its outline.
    pub shape: Shape,
    /// Its main colour.
    pub colour: Colour,
    /// Its size.
    pub size: Size,
    /// What covers it.
    pub texture: Texture,
    /// Where its centre is.
    pub position: Position,
    /// The tight box of the whole shape, hidden parts included: left, top, right, bottom in pixels; right and bottom
    /// are exclusive.
    #[serde(rename = "box")]
    pub bounds: [u32; 4],
}

/// A true statement about two objects, given by their places in [`Scene::objects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationFact {
    /// The object the statement is about.
    pub subject: usize,
    /// What is said.
    pub relation: Relation,
    /// The object it is compared with.
    pub object: usize,
}

/// The exact truth about a picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// The colour behind the objects.
    pub background: Background,
    /// The objects from back to front.
    pub objects: Vec<Object>,
    /// Every relation that clearly holds; a pair of objects that is a close call has none.
    pub relations: Vec<RelationFact>,
}

impl Scene {
    /// Whether the relation clearly holds between two objects.
    pub fn holds(&self, subject: usize, relation: Relation, object: usize) -> bool {
        self.relations.contains(&RelationFact {
            subject,
            relation,
            object,
        })
    }
}

/// Some of an object's attributes: a kind of object, such as "small red ring" or "striped object".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) size: Option<Size>,
    pub(crate) texture: Option<Texture>,
    pub(crate) colour: Option<Colour>,
    pub(crate) shape: Option<Shape>,
}

impl Kind {
    /// Whether objects with these attributes are of this kind.
    pub(crate) fn includes(&self, a: &Attributes) -> bool {
        self.size.is_none_or(|x| x == a.size)
            && self.texture.is_none_or(|x| x == a.texture)
            && self.colour.is_none_or(|x| x == a.colour)
            && self.shape.is_none_or(|x| x == a.shape)
    }

    /// Its words, size first, with `noun` where the shape is left open.
    pub(crate) fn phrase(&self, plural: bool, noun: &str) -> String {
        let mut words = Vec::with_capacity(4);
        words.extend(self.size.map(Size::word));
        words.extend(self.texture.map(Texture::word));
        words.extend(self.colour.map(Colour::word));
        words.push(match self.shape {
            Some(shape) if plural => shape.plural(),
            Some(shape) => shape.word(),
            None => noun,
        });
        words.join(" ")
    }
}

/// The four attributes that are chosen before an object is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) shape: Shape,
    pub(crate) colour: Colour,
    pub(crate) size: Size,
    pub(crate) texture: Texture,
}

impl Object {
    pub(crate) fn attributes(&self) -> Attributes {
        Attributes {
            shape: self.shape,
            colour: self.colour,
            size: self.size,
            texture: self.texture,
        }
    }
}

/// The phrase with the article it needs: "an orange circle".
pub(crate) fn with_article(phrase: &str) -> String {
    let article = if phrase.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {phrase}")
}

/// Numbers from zero to seven, the largest count a scene can need.
pub(crate) const NUMBERS: [&str; 8] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven",
];
