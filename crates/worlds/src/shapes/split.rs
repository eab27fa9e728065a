//! The four splits and the attribute pairs that only `compositional` contains.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::scene::{Colour, Shape, Texture};
use crate::Error;

/// Which part of the world a picture belongs to. No two splits share a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For fitting weights.
    Train,
    /// For choosing between models; distributed like `Train`.
    Validation,
    /// For the final figures; distributed like `Train`.
    Test,
    /// Every scene shows a pair of attributes that the other splits never show together.
    Compositional,
}

impl Split {
    /// All splits.
    pub const ALL: [Split; 4] = [
        Split::Train,
        Split::Validation,
        Split::Test,
        Split::Compositional,
    ];

    /// The name used on the command line and in `items.jsonl`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
            Split::Compositional => "compositional",
        }
    }

    /// The number that keeps the random streams of the splits apart.
    pub(crate) fn tag(self) -> u64 {
        match self {
            Split::Train => 1,
            Split::Validation => 2,
            Split::Test => 3,
            Split::Compositional => 4,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Split::ALL
            .into_iter()
            .find(|split| split.name() == name)
            .ok_or_else(|| Error::UnknownSplit(name.to_owned()))
    }
}

/// Colour and shape pairs kept for [`Split::Compositional`]: 8 of 64.
///
/// Each colour and each shape occurs in exactly one of them, so every single value stays equally frequent in
/// training.
pub const HELD_OUT_COLOUR_SHAPE: [(Colour, Shape); 8] = [
    (Colour::Red, Shape::Star),
    (Colour::Orange, Shape::Square),
    (Colour::Yellow, Shape::Heart),
    (Colour::Green, Shape::Circle),
    (Colour::Blue, Shape::Triangle),
    (Colour::Purple, Shape::Cross),
    (Colour::Pink, Shape::Diamond),
    (Colour::Brown, Shape::Ring),
];

/// Texture and shape pairs kept for [`Split::Compositional`]: 3 of 24, one of each texture.
pub const HELD_OUT_TEXTURE_SHAPE: [(Texture, Shape); 3] = [
    (Texture::Plain, Shape::Triangle),
    (Texture::Striped, Shape::Heart),
    (Texture::Dotted, Shape::Square),
];

/// Whether any two of the attributes form a held-out pair.
pub fn is_held_out(colour: Option<Colour>, texture: Option<Texture>, shape: Shape) -> bool {
    HELD_OUT_COLOUR_SHAPE
        .iter()
        .any(|&(c, s)| s == shape && Some(c) == colour)
        || HELD_OUT_TEXTURE_SHAPE
            .iter()
            .any(|&(t, s)| s == shape && Some(t) == texture)
}
