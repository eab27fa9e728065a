use std::collections::BTreeMap;

use super::set::Record;

/// Which records of a set are held out of training to measure on.
///
/// Whole groups are held out, so that no near-copy of what is measured on is learned from. Of every label the same share
/// of groups is: `fraction` of them, rounded, at least one and never all. Which ones is a function of the seed and the
/// group's name alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// Of the groups of each label.
    pub fraction: f64,
    /// Draws the groups.
    pub seed: u64,
}

/// One side of a [`Split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// To learn from.
    Train,
    /// To measure on.
    HeldOut,
}

/// The places of each group's records, in the order that the seed draws.
type Groups<'a> = BTreeMap<(u64, &'a str), Vec<usize>>;

impl Split {
    /// The places of the records of one side, in order.
    pub fn part(&self, records: &[Record], part: Part) -> Vec<usize> {
        let mut labels: BTreeMap<Option<&str>, Groups> = BTreeMap::new();
        for (place, record) in records.iter().enumerate() {
            let group = (drawn(self.seed, &record.group), record.group.as_str());
            let of_label = labels.entry(record.label.as_deref()).or_default();
            of_label.entry(group).or_default().push(place);
        }
        let mut places = Vec::new();
        for of_label in labels.into_values() {
            let count = of_label.len();
            let most = count.saturating_sub(1);
            let held = ((count as f64 * self.fraction).round() as usize).clamp(1.min(most), most);
            let some = of_label.into_values().enumerate();
            let some = some.filter(|(i, _)| (*i < held) == (part == Part::HeldOut));
            places.extend(some.flat_map(|(_, places)| places));
        }
        places.sort_unstable();
        places
    }
}

/// FNV-1a of the name, mixed with the seed (SplitMix64's finaliser).
fn drawn(seed: u64, name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut z = hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
