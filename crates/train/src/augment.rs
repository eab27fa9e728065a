//! What is done to pictures and texts while training, drawn from a seed and a counter.

use crate::Error;
use crate::recipe::check;
use serde::{Deserialize, Serialize};
use vlm_data::datasets::BoxedObject;
use vlm_data::image::{FILL, Image};
use vlm_nn::random::SplitMix64;

/// Augmentation in the order in which it is applied; what is not given is not done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Random resized crop (Szegedy et al., 2015): the crop's share of the picture's area, from and to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_scale: Option<[f32; 2]>,
    /// Width over height of the crop, from and to; 3/4 to 4/3 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_ratio: Option<[f32; 2]>,
    /// Chance that left and right are exchanged; not for signs, or texts that say left or right.
    #[serde(skip_serializing_if = "is_zero")]
    pub flip: f32,
    /// Turned by up to so many degrees either way.
    #[serde(skip_serializing_if = "is_zero")]
    pub rotate: f32,
    /// Shifted by up to this share of the side, in either direction.
    #[serde(skip_serializing_if = "is_zero")]
    pub shift: f32,
    /// How many operations of RandAugment (Cubuk et al., 2020) and how strong, from 0 to 10, with the ten operations and
    /// the chance of one half that ALBEF and BLIP have: `[2, 7]` for ALBEF, `[2, 5]` for BLIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<[u32; 2]>,
    /// Colour jitter: most change of brightness, contrast, saturation and hue, in random order (torchvision).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colour_jitter: Option<[f32; 4]>,
    /// Chance that colours become grey.
    #[serde(skip_serializing_if = "is_zero")]
    pub greyscale: f32,
    /// Chance of a Gaussian blur, and its deviation in pixels, from and to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blur: Option<[f32; 3]>,
    /// Chance of each word of a text to be left out; one always stays.
    #[serde(skip_serializing_if = "is_zero")]
    pub word_dropout: f32,
}

fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

fn within(rng: &mut SplitMix64, [low, high]: [f32; 2]) -> f32 {
    low + (high - low) * rng.uniform_f32()
}

fn either_way(rng: &mut SplitMix64, most: f32) -> f32 {
    within(rng, [-most, most])
}

/// A whole number below `count`.
pub(crate) fn below(rng: &mut SplitMix64, count: usize) -> usize {
    (rng.bits() % count.max(1) as u64) as usize
}

impl Augment {
    pub(crate) fn validate(&self) -> Result<(), String> {
        for (place, chance) in [
            ("data.augment.flip", self.flip),
            ("data.augment.greyscale", self.greyscale),
            ("data.augment.word_dropout", self.word_dropout),
            ("data.augment.shift", self.shift),
            ("data.augment.blur", self.blur.map_or(0.0, |b| b[0])),
        ] {
            let inside = (0.0..=1.0).contains(&chance);
            check(inside, place, "0 to 1", &chance.to_string())?;
        }
        let degrees = self.rotate;
        let inside = (0.0..=180.0).contains(&degrees);
        check(
            inside,
            "data.augment.rotate",
            "0 to 180",
            &degrees.to_string(),
        )?;
        for (place, range, most) in [
            ("data.augment.crop_scale", self.crop_scale, 1.0),
            ("data.augment.crop_ratio", self.crop_ratio, 100.0),
            (
                "data.augment.blur",
                self.blur.map(|[_, low, high]| [low, high]),
                64.0,
            ),
        ] {
            let [low, high] = range.unwrap_or([0.5, 0.5]);
            check(
                low > 0.0 && low <= high && high <= most,
                place,
                &format!("from and to, above 0 and at most {most}"),
                &format!("[{low}, {high}]"),
            )?;
        }
        let [operations, strength] = self.rand_augment.unwrap_or_default();
        check(
            operations <= 16 && strength <= 10,
            "data.augment.rand_augment",
            "at most 16 operations with a strength of 0 to 10",
            &format!("[{operations}, {strength}]"),
        )?;
        for (i, change) in self.colour_jitter.unwrap_or_default().iter().enumerate() {
            let most = if i == 3 { 0.5 } else { 1.0 };
            check(
                (0.0..=most).contains(change),
                "data.augment.colour_jitter",
                "brightness, contrast and saturation of 0 to 1, hue of 0 to 0.5",
                &change.to_string(),
            )?;
        }
        Ok(())
    }

    /// What moves pixels in a way that boxes cannot follow, if it is asked for.
    pub(crate) fn without_boxes(&self) -> Option<&'static str> {
        let moving = [
            ("data.augment.rotate", self.rotate > 0.0),
            ("data.augment.shift", self.shift > 0.0),
            ("data.augment.rand_augment", self.rand_augment.is_some()),
        ];
        moving.iter().find(|(_, asked)| *asked).map(|(key, _)| *key)
    }

    /// A picture with what is drawn, and its objects, whose boxes go along; those whose middle is cut off are left out (as in Liu et
    /// al., "SSD: single shot multibox detector", 2016).
    ///
    /// # Errors
    /// A crop that cannot be made.
    pub(crate) fn located(
        &self,
        mut image: Image,
        objects: &mut Vec<BoxedObject>,
        rng: &mut SplitMix64,
    ) -> Result<Image, Error> {
        if let Some(scale) = self.crop_scale {
            let ratio = self.crop_ratio.unwrap_or([3.0 / 4.0, 4.0 / 3.0]);
            let [left, top, w, h] = random_crop(&image, scale, ratio, rng);
            image = image.cropped(left, top, w, h)?;
            let (left, top, w, h) = (left as f32, top as f32, w as f32, h as f32);
            objects.retain_mut(|object| {
                let [x1, y1, x2, y2] = object.corners;
                let moved = [x1 - left, y1 - top, x2 - left, y2 - top];
                let middle = [(moved[0] + moved[2]) / 2.0, (moved[1] + moved[3]) / 2.0];
                object.corners = std::array::from_fn(|i| moved[i].clamp(0.0, [w, h][i % 2]));
                (0.0..w).contains(&middle[0]) && (0.0..h).contains(&middle[1])
            });
        }
        if self.flip > 0.0 && rng.uniform_f32() < self.flip {
            let width = image.width() as f32;
            image = image.mirrored();
            for object in objects.iter_mut() {
                let [x1, y1, x2, y2] = object.corners;
                object.corners = [width - x2, y1, width - x1, y2];
            }
        }
        if self.rotate > 0.0 {
            image = image.rotated(either_way(rng, self.rotate), FILL);
        }
        if self.shift > 0.0 {
            let [dx, dy] = [image.width(), image.height()]
                .map(|side| either_way(rng, self.shift) * side as f32);
            image = image.warped([1.0, 0.0, dx, 0.0, 1.0, dy], FILL);
        }
        if let Some([operations, strength]) = self.rand_augment {
            for _ in 0..operations {
                image = rand_augment(image, strength as f32 / 10.0, rng);
            }
        }
        if let Some(changes) = self.colour_jitter {
            image = colour_jitter(image, changes, rng);
        }
        if self.greyscale > 0.0 && rng.uniform_f32() < self.greyscale {
            image = image.greyscale();
        }
        if let Some([chance, low, high]) = self.blur
            && rng.uniform_f32() < chance
        {
            image = image.blurred(within(rng, [low, high]));
        }
        Ok(image)
    }

    /// A text with what is drawn.
    pub(crate) fn text(&self, text: &str, rng: &mut SplitMix64) -> String {
        if self.word_dropout == 0.0 {
            return text.to_owned();
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let kept: Vec<&str> = words
            .iter()
            .copied()
            .filter(|_| rng.uniform_f32() >= self.word_dropout)
            .collect();
        if kept.is_empty() && !words.is_empty() {
            return words[below(rng, words.len())].to_owned();
        }
        kept.join(" ")
    }
}

/// torchvision's `RandomResizedCrop`, without its resize, which the model's own processor does: left, top, width, height.
fn random_crop(image: &Image, scale: [f32; 2], ratio: [f32; 2], rng: &mut SplitMix64) -> [u32; 4] {
    let (width, height) = (image.width(), image.height());
    let area = width as f32 * height as f32;
    for _ in 0..10 {
        let target = area * within(rng, scale);
        let aspect = within(rng, ratio.map(f32::ln)).exp();
        let w = (target * aspect).sqrt().round() as u32;
        let h = (target / aspect).sqrt().round() as u32;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = below(rng, (height - h + 1) as usize) as u32;
            let left = below(rng, (width - w + 1) as usize) as u32;
            return [left, top, w, h];
        }
    }
    // the largest crop in the middle with the nearest ratio
    let aspect = (width as f32 / height as f32).clamp(ratio[0], ratio[1]);
    let w = ((height as f32 * aspect).round() as u32).clamp(1, width);
    let h = ((width as f32 / aspect).round() as u32).clamp(1, height);
    [(width - w) / 2, (height - h) / 2, w, h]
}

/// One operation of `strength` 0 to 1, or with a chance of one half none, as `RandomAugment` of ALBEF's authors.
fn rand_augment(image: Image, strength: f32, rng: &mut SplitMix64) -> Image {
    const OPERATIONS: usize = 10;
    let (operation, done) = (below(rng, OPERATIONS), rng.uniform_f32() >= 0.5);
    let sign = if rng.uniform_f32() < 0.5 { -1.0 } else { 1.0 };
    if !done {
        return image;
    }
    let enhance = strength * 1.8 + 0.1;
    let shear = sign * strength * 0.3;
    let shift = sign * strength * 10.0;
    match operation {
        0 => image,
        1 => image.with_auto_contrast(),
        2 => image.equalized(),
        3 => image.with_brightness(enhance),
        4 => image.with_sharpness(enhance),
        5 => image.warped([1.0, -shear, 0.0, 0.0, 1.0, 0.0], FILL),
        6 => image.warped([1.0, 0.0, 0.0, -shear, 1.0, 0.0], FILL),
        7 => image.warped([1.0, 0.0, shift, 0.0, 1.0, 0.0], FILL),
        8 => image.warped([1.0, 0.0, 0.0, 0.0, 1.0, shift], FILL),
        _ => image.rotated(sign * strength * 30.0, FILL),
    }
}

fn colour_jitter(mut image: Image, changes: [f32; 4], rng: &mut SplitMix64) -> Image {
    let mut order = [0, 1, 2, 3];
    for last in (1..4).rev() {
        order.swap(last, below(rng, last + 1));
    }
    for kind in order {
        let change = changes[kind];
        if change == 0.0 {
            continue;
        }
        let factor = 1.0 + either_way(rng, change);
        image = match kind {
            0 => image.with_brightness(factor),
            1 => image.with_contrast(factor),
            2 => image.with_saturation(factor),
            _ => image.with_hue(factor - 1.0),
        };
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Augment {
        Augment {
            crop_scale: Some([0.3, 0.9]),
            flip: 0.5,
            rotate: 20.0,
            shift: 0.1,
            rand_augment: Some([2, 7]),
            colour_jitter: Some([0.4, 0.4, 0.4, 0.1]),
            greyscale: 0.2,
            blur: Some([0.5, 0.1, 1.0]),
            word_dropout: 0.3,
            ..Augment::default()
        }
    }

    fn picture() -> Image {
        let rgb = (0..20 * 12 * 3).map(|i| (i * 7 % 251) as u8).collect();
        Image::from_rgb(20, 12, rgb).unwrap()
    }

    #[test]
    fn what_is_drawn_is_a_function_of_the_seed() {
        let augment = all();
        augment.validate().unwrap();
        let made = |seed| {
            let mut rng = SplitMix64::new(seed);
            let image = augment
                .located(picture(), &mut Vec::new(), &mut rng)
                .unwrap();
            (image, augment.text("one two three four five", &mut rng))
        };
        assert_eq!(made(3), made(3));
        let several: Vec<_> = (0..20).map(made).collect();
        assert!(several.iter().skip(1).any(|other| other != &several[0]));
        assert!(several.iter().all(|(_, text)| !text.is_empty()));
        for (image, _) in several {
            let area = image.width() * image.height();
            assert!((60..=220).contains(&area), "{area}");
        }
    }

    #[test]
    fn boxes_go_along_with_what_they_hold() {
        // one bright rectangle on black, which its box holds wherever it goes
        let mut rgb = vec![0u8; 20 * 12 * 3];
        for y in 3..9 {
            for x in 4..9 {
                rgb[(y * 20 + x) * 3] = 255;
            }
        }
        let image = Image::from_rgb(20, 12, rgb).unwrap();
        let augment = Augment {
            crop_scale: Some([0.3, 1.0]),
            flip: 0.5,
            ..Augment::default()
        };
        assert_eq!(augment.without_boxes(), None);
        assert_eq!(all().without_boxes(), Some("data.augment.rotate"));
        let (mut kept, mut flipped) = (0, 0);
        for seed in 0..200 {
            let mut objects = vec![BoxedObject {
                name: "a".to_owned(),
                attributes: Vec::new(),
                corners: [4.0, 3.0, 9.0, 9.0],
            }];
            let mut rng = SplitMix64::new(seed);
            let image = augment
                .located(image.clone(), &mut objects, &mut rng)
                .unwrap();
            let bright = (0..image.width() * image.height())
                .map(|i| (i % image.width(), i / image.width()))
                .filter(|&(x, y)| image.pixel(x, y)[0] == 255);
            let bright: Vec<(u32, u32)> = bright.collect();
            let Some(object) = objects.first() else {
                continue;
            };
            kept += 1;
            let [x1, y1, x2, y2] = object.corners.map(|c| c as u32);
            assert_eq!((x2 - x1) * (y2 - y1), bright.len() as u32, "{object:?}");
            for (x, y) in bright {
                assert!((x1..x2).contains(&x) && (y1..y2).contains(&y), "{object:?}");
            }
            // what is not mirrored begins at 4 or before
            flipped += u32::from(x1 > 4);
        }
        assert!(kept > 100 && flipped > 10, "{kept}, {flipped}");
    }

    #[test]
    fn nothing_is_done_unless_it_is_asked_for() {
        let mut rng = SplitMix64::new(1);
        let none = Augment::default();
        assert_eq!(
            none.located(picture(), &mut Vec::new(), &mut rng).unwrap(),
            picture()
        );
        assert_eq!(none.text("a  b", &mut rng), "a  b");
        assert_eq!(rng.bits(), SplitMix64::new(1).bits());
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_its_key() {
        type Change = fn(&mut Augment);
        let cases: [(&str, Change); 6] = [
            ("flip", |a| a.flip = 1.5),
            ("crop_scale", |a| a.crop_scale = Some([0.0, 1.0])),
            ("crop_ratio", |a| a.crop_ratio = Some([2.0, 1.0])),
            ("rand_augment", |a| a.rand_augment = Some([2, 11])),
            ("colour_jitter", |a| {
                a.colour_jitter = Some([0.0, 0.0, 0.0, 0.6]);
            }),
            ("blur", |a| a.blur = Some([0.5, f32::NAN, 1.0])),
        ];
        for (key, change) in cases {
            let mut augment = all();
            change(&mut augment);
            let error = augment.validate().unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }
}
