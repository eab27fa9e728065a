//! What anchors and proposals are to become while a detector is trained: the object that each overlaps, and a balanced
//! sample of them.

use super::Corners;
use crate::error::{Error, expect};
use burn::tensor::Tensor;
use vlm_nn::ops::{BoxExtent, Roi, box_iou};
use vlm_nn::random::SplitMix64;

/// An object that a picture is known to show.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownObject {
    /// `x1, y1, x2, y2` in pixels.
    pub corners: Corners,
    /// Its class, from 1 on.
    pub class: usize,
    /// Its attributes, from 1 on; a detector that tells none does not look at them.
    pub attributes: Vec<usize>,
}

impl KnownObject {
    /// Checks an object of a picture of `[height, width]` pixels against a detector of so many classes, background
    /// included, and attributes, that of none included.
    ///
    /// # Errors
    /// A box without an area or outside the picture, or a class or an attribute that there is not; `place` is named.
    pub fn validate(
        &self,
        place: &str,
        [height, width]: [usize; 2],
        classes: usize,
        attributes: usize,
    ) -> Result<(), Error> {
        let [x1, y1, x2, y2] = self.corners;
        let found = format!("{:?}", self.corners);
        let finite = self.corners.iter().all(|c| c.is_finite());
        expect(
            finite && x1 < x2 && y1 < y2,
            &format!("{place}: box"),
            "x1 < x2 and y1 < y2",
            &found,
        )?;
        let inside = x1 >= 0.0 && y1 >= 0.0 && x2 <= width as f32 && y2 <= height as f32;
        let within = format!("a box within the picture of {width} x {height} pixels");
        expect(inside, &format!("{place}: box"), within, found)?;
        let known = (1..classes).contains(&self.class);
        let expected = format!("1 to {}", classes.saturating_sub(1));
        expect(known, &format!("{place}: class"), expected, self.class)?;
        let unknown = self
            .attributes
            .iter()
            .find(|a| !(1..attributes).contains(*a));
        match unknown.filter(|_| attributes > 0) {
            None => Ok(()),
            Some(found) => {
                let expected = format!("1 to {}", attributes - 1);
                expect(false, &format!("{place}: attribute"), expected, found)
            }
        }
    }
}

/// Checks that there is a list of objects for each of some pictures, and each object as [`KnownObject::validate`] does.
///
/// # Shapes
/// `pictures: [3, H, W]` each.
///
/// # Errors
/// Another number of lists, no picture at all, or the first object that does not fit.
pub fn validate_objects(
    pictures: &[Tensor<3>],
    objects: &[Vec<KnownObject>],
    classes: usize,
    attributes: usize,
) -> Result<(), Error> {
    expect(
        !pictures.is_empty() && pictures.len() == objects.len(),
        "objects",
        format!("a list for each of {} pictures", pictures.len()),
        objects.len(),
    )?;
    for (i, (picture, objects)) in pictures.iter().zip(objects).enumerate() {
        let [_, h, w] = picture.dims();
        for (j, object) in objects.iter().enumerate() {
            object.validate(&format!("objects[{i}][{j}]"), [h, w], classes, attributes)?;
        }
    }
    Ok(())
}

/// What a box is learned as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The object with this number.
    Object(usize),
    /// Nothing.
    Background,
    /// Neither one nor the other: it is not learned from.
    Ignored,
}

/// Which boxes are learned as objects and which as background, and how many of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matching {
    /// The overlap from which on a box is learned as an object.
    pub fg_iou_thresh: f32,
    /// The overlap below which it is learned as background.
    pub bg_iou_thresh: f32,
    /// Whether the boxes that an object overlaps most are learned as objects, however small the overlap.
    pub low_quality_matches: bool,
    /// How many boxes of a picture are learned from.
    pub batch_size_per_image: usize,
    /// The share of objects among them, if there are so many.
    pub positive_fraction: f64,
}

/// Numbers of the boxes that are learned from, each list in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Learned as objects.
    pub positives: Vec<usize>,
    /// Learned as background.
    pub negatives: Vec<usize>,
}

impl Matching {
    /// # Errors
    /// The first field that is out of range; `prefix` begins its name and `thresh` ends it, as the family's config has
    /// them.
    pub fn validate(&self, prefix: &str, thresh: &str) -> Result<(), Error> {
        let share = |name: &str, value: f64| {
            let place = format!("{prefix}{name}");
            expect((0.0..=1.0).contains(&value), &place, "0 to 1", value)
        };
        share(&format!("fg_iou_{thresh}"), f64::from(self.fg_iou_thresh))?;
        share(&format!("bg_iou_{thresh}"), f64::from(self.bg_iou_thresh))?;
        share("positive_fraction", self.positive_fraction)?;
        expect(
            self.bg_iou_thresh <= self.fg_iou_thresh,
            &format!("{prefix}bg_iou_{thresh}"),
            format!("at most {prefix}fg_iou_{thresh}, {}", self.fg_iou_thresh),
            self.bg_iou_thresh,
        )?;
        let count = self.batch_size_per_image;
        expect(
            (1..=1 << 20).contains(&count),
            &format!("{prefix}batch_size_per_image"),
            format!("1 to {}", 1 << 20),
            count,
        )
    }

    /// What each box is learned as: the object that it overlaps most, the first of several, if the overlap is large
    /// enough (torchvision's and maskrcnn-benchmark's `Matcher`).
    ///
    /// With `low_quality_matches` an object that overlaps nothing makes every box that it does not overlap one of objects;
    /// this is the references' way.
    pub fn matches(
        &self,
        boxes: &[Corners],
        objects: &[KnownObject],
        extent: BoxExtent,
    ) -> Vec<Match> {
        if objects.is_empty() {
            return vec![Match::Background; boxes.len()];
        }
        let iou =
            |object: usize, corners: Corners| box_iou(objects[object].corners, corners, extent);
        let mut most_of_object = vec![f32::NEG_INFINITY; objects.len()];
        let best = |corners: &Corners| {
            let mut best = (0, f32::NEG_INFINITY);
            for (object, most) in most_of_object.iter_mut().enumerate() {
                let overlap = iou(object, *corners);
                *most = most.max(overlap);
                if overlap > best.1 {
                    best = (object, overlap);
                }
            }
            best
        };
        let best: Vec<(usize, f32)> = boxes.iter().map(best).collect();
        let of_box = |(corners, &(object, overlap)): (&Corners, &(usize, f32))| {
            let is_most = |(other, &most): (usize, &f32)| iou(other, *corners) == most;
            if overlap >= self.fg_iou_thresh
                || self.low_quality_matches && most_of_object.iter().enumerate().any(is_most)
            {
                Match::Object(object)
            } else if overlap < self.bg_iou_thresh {
                Match::Background
            } else {
                Match::Ignored
            }
        };
        boxes.iter().zip(&best).map(of_box).collect()
    }

    /// At most `batch_size_per_image` boxes, of which at most the share `positive_fraction` is learned as objects.
    pub fn sample(&self, matches: &[Match], rng: &mut SplitMix64) -> Sample {
        let of = |wanted: fn(&Match) -> bool| -> Vec<usize> {
            let places = matches.iter().enumerate();
            places.filter(|(_, m)| wanted(m)).map(|(i, _)| i).collect()
        };
        let most = (self.batch_size_per_image as f64 * self.positive_fraction) as usize;
        let positives = some(of(|m| matches!(m, Match::Object(_))), most, rng);
        let most = self.batch_size_per_image - positives.len();
        let negatives = some(of(|m| *m == Match::Background), most, rng);
        Sample {
            positives,
            negatives,
        }
    }
}

/// `count` of `places`, each as likely as any other, in their order; all of them if there are no more.
fn some(mut places: Vec<usize>, count: usize, rng: &mut SplitMix64) -> Vec<usize> {
    if places.len() <= count {
        return places;
    }
    for i in 0..count {
        let left = (places.len() - i) as u64;
        places.swap(i, i + (rng.bits() % left) as usize);
    }
    places.truncate(count);
    places.sort_unstable();
    places
}

/// The random numbers of one picture of a batch for one of the detector's stages: a function of these alone.
pub fn draws(seed: u64, picture: usize, stage: u64) -> SplitMix64 {
    let mut mixed = SplitMix64::new(seed ^ stage.wrapping_mul(0xa24b_aed4_963e_e407));
    SplitMix64::new(mixed.bits() ^ (picture as u64).wrapping_mul(0x9fb2_1c65_1e98_df25))
}

/// A proposal that is learned from.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedRegion {
    /// The number of its picture in the batch.
    pub picture: usize,
    /// Where it is.
    pub corners: Corners,
    /// The number of the object of its picture that it is learned as; none for background.
    pub object: Option<usize>,
}

impl LearnedRegion {
    /// Where its features are.
    pub fn roi(&self) -> Roi {
        Roi {
            picture: self.picture,
            corners: self.corners,
        }
    }
}

/// A sample of a picture's proposals, to which the boxes of its objects belong as well.
pub fn learned_regions(
    picture: usize,
    mut proposals: Vec<Corners>,
    objects: &[KnownObject],
    matching: &Matching,
    extent: BoxExtent,
    rng: &mut SplitMix64,
) -> Vec<LearnedRegion> {
    proposals.extend(objects.iter().map(|o| o.corners));
    let matches = matching.matches(&proposals, objects, extent);
    let sample = matching.sample(&matches, rng);
    let mut places = [sample.positives, sample.negatives].concat();
    places.sort_unstable();
    let region = |at: usize| LearnedRegion {
        picture,
        corners: proposals[at],
        object: match matches[at] {
            Match::Object(object) => Some(object),
            _ => None,
        },
    };
    places.into_iter().map(region).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(corners: Corners) -> KnownObject {
        KnownObject {
            corners,
            class: 1,
            attributes: Vec::new(),
        }
    }

    fn matching(low_quality_matches: bool) -> Matching {
        Matching {
            fg_iou_thresh: 0.7,
            bg_iou_thresh: 0.3,
            low_quality_matches,
            batch_size_per_image: 8,
            positive_fraction: 0.25,
        }
    }

    #[test]
    fn boxes_are_matched_as_torchvisions_matcher_does() {
        // overlaps with the first object 1, 0.75, 0.5, 0.25, 0 and with the second one 0, 0, 0, 0, 0.2
        let boxes = [
            [0.0, 0.0, 8.0, 8.0],
            [0.0, 0.0, 6.0, 8.0],
            [0.0, 0.0, 4.0, 8.0],
            [0.0, 0.0, 2.0, 8.0],
            [20.0, 0.0, 30.0, 10.0],
        ];
        let objects = [object([0.0, 0.0, 8.0, 8.0]), object([20.0, 0.0, 25.0, 4.0])];
        use Match::{Background, Ignored, Object};
        let found = matching(false).matches(&boxes, &objects, BoxExtent::Edges);
        assert_eq!(
            found,
            [Object(0), Object(0), Ignored, Background, Background]
        );
        let found = matching(true).matches(&boxes, &objects, BoxExtent::Edges);
        assert_eq!(
            found,
            [Object(0), Object(0), Ignored, Background, Object(1)]
        );
        let none = matching(true).matches(&boxes, &[], BoxExtent::Edges);
        assert_eq!(none, [Background; 5]);
        // all boxes with the largest overlap count, and each goes to the object that it overlaps most
        let two = [[0.0, 0.0, 4.0, 8.0], [4.0, 0.0, 8.0, 8.0]];
        let found = matching(true).matches(&two, &objects[..1], BoxExtent::Edges);
        assert_eq!(found, [Object(0), Object(0)]);
    }

    #[test]
    fn samples_are_balanced_a_function_of_the_seed_and_fair() {
        let mut matches = vec![Match::Background; 40];
        for i in 0..10 {
            matches[4 * i] = Match::Object(i);
            matches[4 * i + 1] = Match::Ignored;
        }
        let drawn = |picture| matching(false).sample(&matches, &mut draws(5, picture, 0));
        assert_eq!(drawn(3), drawn(3));
        assert_ne!(drawn(3), drawn(4));
        let mut counts = vec![0usize; 40];
        for picture in 0..4000 {
            let sample = drawn(picture);
            assert_eq!((sample.positives.len(), sample.negatives.len()), (2, 6));
            for i in sample.positives.iter().chain(&sample.negatives) {
                counts[*i] += 1;
            }
        }
        for (m, count) in matches.iter().zip(counts) {
            let expected = match m {
                Match::Object(_) => 800.0,
                Match::Background => 1200.0,
                Match::Ignored => 0.0,
            };
            // four deviations of a binomial
            assert!(
                (count as f64 - expected).abs() <= 4.0 * f64::sqrt(expected),
                "{count} of {expected}"
            );
        }
        // all there are, where there are fewer
        let few = [Match::Background, Match::Object(0), Match::Ignored];
        let sample = matching(false).sample(&few, &mut draws(0, 0, 0));
        assert_eq!((sample.positives, sample.negatives), (vec![1], vec![0]));
    }

    #[test]
    fn objects_that_cannot_be_learned_are_refused_by_name() {
        let good = KnownObject {
            corners: [1.0, 2.0, 30.0, 20.0],
            class: 3,
            attributes: vec![1, 2],
        };
        let check = |object: &KnownObject| object.validate("a.png: objects[2]", [20, 30], 4, 3);
        check(&good).unwrap();
        type Change = fn(&mut KnownObject);
        let cases: [(Change, &str); 7] = [
            (|o| o.corners[2] = 31.0, "within the picture of 30 x 20"),
            (|o| o.corners[1] = -1.0, "within the picture"),
            (|o| o.corners[3] = 2.0, "x1 < x2 and y1 < y2"),
            (|o| o.corners[0] = f32::NAN, "x1 < x2"),
            (|o| o.class = 0, "class: expected 1 to 3, found 0"),
            (|o| o.class = 4, "class: expected 1 to 3, found 4"),
            (
                |o| o.attributes.push(3),
                "attribute: expected 1 to 2, found 3",
            ),
        ];
        for (change, expected) in cases {
            let mut bad = good.clone();
            change(&mut bad);
            let error = check(&bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("a.png: objects[2]: "), "{error}");
        }
        // a detector that tells no attributes does not look at them
        good.validate("", [20, 30], 4, 0).unwrap();
    }
}
