//! The splits, and which scenes belong to each.

use std::fmt;
use std::str::FromStr;

use super::scene::Scene;
use crate::Error;

/// Which part of the world a statement belongs to. No two splits share a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// For fitting weights: 70 % of the scenes.
    Train,
    /// For choosing between models: 15 % of the scenes.
    Validation,
    /// For the final figures: 15 % of the scenes.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    /// The name used on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }

    /// The number that keeps the random streams of the splits apart.
    pub(super) fn tag(self) -> u64 {
        match self {
            Split::Train => 1,
            Split::Validation => 2,
            Split::Test => 3,
        }
    }

    /// Whether a scene belongs to it, whatever the order of its boxes.
    pub fn has(self, scene: &Scene) -> bool {
        // The sum does not depend on the order.
        let sum = scene.boxes.iter().fold(0_u64, |sum, items| {
            // Nor does it depend on the order of the items in a box.
            let of_box = items.iter().fold(0_u64, |sum, object| {
                let parts = [
                    object.colour as u8,
                    object.shape as u8,
                    object.size as u8,
                    object.x,
                    object.y,
                ];
                let packed = parts
                    .iter()
                    .fold(1, |packed, &part| packed << 8 | u64::from(part));
                sum.wrapping_add(mixed(packed))
            });
            sum.wrapping_add(mixed(of_box))
        });
        let part = mixed(sum) >> 32;
        let split = match (part * 100) >> 32 {
            0..70 => Split::Train,
            70..85 => Split::Validation,
            _ => Split::Test,
        };
        self == split
    }
}

/// The finalizer of MurmurHash3: mixes all bits.
fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    z = (z ^ (z >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    z ^ (z >> 33)
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Split::ALL.into_iter().find(|split| split.name() == name);
        found.ok_or_else(|| Error::UnknownBoxesSplit(name.to_owned()))
    }
}
