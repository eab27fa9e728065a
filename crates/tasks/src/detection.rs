//! Objects in pictures, by their names.

use crate::metrics::{DetectionScores, Located, LocatedPicture, score_detections};
use crate::{Error, Vlm};
use burn::tensor::Tensor;
use std::path::Path;
use vlm_data::datasets::BoxedObject;
use vlm_data::image::Image;
use vlm_models::capability::{DetectOptions, Detection};
use vlm_models::families::Model;

/// Names of the files of a model's directory that name classes and attributes, one a line.
pub const LABELS: &str = "labels.txt";
/// See [`LABELS`].
pub const ATTRIBUTES: &str = "attributes.txt";

/// The categories of torchvision's published detectors, those of COCO with gaps, from 1 on.
const COCO: &str = "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign \
    parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie \
    suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket \
    bottle - wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake \
    chair couch potted_plant bed - dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven \
    toaster sink refrigerator - book clock vase scissors teddy_bear hair_drier toothbrush";

/// What a detector's classes and attributes are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassNames {
    classes: Vec<String>,
    attributes: Vec<String>,
}

/// The lines of a file of names, if there is one; of `count` things the first may be left out, which stands for none.
fn names(path: &Path, count: usize) -> Result<Option<Vec<String>>, Error> {
    let place = || path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(Error::Model {
                place: place(),
                expected: "names, one a line".to_owned(),
                found: e.to_string(),
            });
        }
    };
    let mut names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if names.len() + 1 == count {
        names.insert(0, "background".to_owned());
    }
    if names.len() != count {
        return Err(Error::Model {
            place: place(),
            expected: format!(
                "{count} names, as the model has classes, or {} without background",
                count.saturating_sub(1)
            ),
            found: names.len().to_string(),
        });
    }
    Ok(Some(names))
}

/// `id2label` of a config, for `count` classes.
fn of_config(config: &str, count: usize) -> Option<Vec<String>> {
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    let labels = config.get("id2label")?.as_object()?;
    let name = |i: usize| labels.get(&i.to_string())?.as_str().map(str::to_owned);
    (0..count).map(name).collect()
}

impl ClassNames {
    /// Names by number, the first of each for background and for none.
    pub fn new(classes: Vec<String>, attributes: Vec<String>) -> Self {
        Self {
            classes,
            attributes,
        }
    }

    /// The names in a model's directory: `labels.txt` and `attributes.txt`, or `id2label` of its config; for a detector
    /// with the classes of COCO theirs. A model that finds no objects has none.
    ///
    /// # Errors
    /// A file that cannot be read or holds another number of names.
    pub(crate) fn of(directory: &Path, config: Option<&str>, model: &Model) -> Result<Self, Error> {
        let Ok(detector) = model.detect() else {
            return Ok(Self::default());
        };
        let count = detector.num_classes();
        let mut classes = names(&directory.join(LABELS), count)?
            .or_else(|| config.and_then(|config| of_config(config, count)));
        if classes.is_none() && count == 91 {
            let coco = std::iter::once("background").chain(COCO.split_whitespace());
            classes = Some(coco.map(|name| name.replace('_', " ")).collect());
        }
        let attributes = match detector.num_attributes() {
            0 => None,
            count => names(&directory.join(ATTRIBUTES), count)?,
        };
        Ok(Self {
            classes: classes.unwrap_or_default(),
            attributes: attributes.unwrap_or_default(),
        })
    }

    /// What a class is called, if anybody told.
    pub fn known(&self, class: usize) -> Option<&str> {
        let name = self.classes.get(class).filter(|name| !name.is_empty());
        name.map(String::as_str)
    }

    /// What a class is called, by its number if nobody told.
    pub fn class(&self, class: usize) -> String {
        let name = self.known(class).map(str::to_owned);
        name.unwrap_or_else(|| format!("class {class}"))
    }

    /// What an attribute is called, by its number if nobody told.
    pub fn attribute(&self, attribute: usize) -> String {
        let name = self
            .attributes
            .get(attribute)
            .filter(|name| !name.is_empty());
        name.cloned()
            .unwrap_or_else(|| format!("attribute {attribute}"))
    }
}

/// An object in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// `x1, y1, x2, y2` in pixels of the picture, within it.
    pub corners: [f32; 4],
    /// What it is called.
    pub class: String,
    /// The number of its class.
    pub label: usize,
    /// The probability of the class.
    pub score: f32,
    /// Its attributes with their probabilities, best first.
    pub attributes: Vec<(String, f32)>,
}

/// Average precision of a detector: of each picture in turn its objects, by their classes' names, against what is known.
/// `classes` are the names that are known; what is called otherwise is no find.
///
/// # Errors
/// As [`Vlm::detect`], or no picture.
pub fn score(
    vlm: &Vlm,
    options: &DetectOptions,
    classes: &[String],
    pictures: impl Iterator<Item = (Image, Vec<Located>)>,
) -> Result<DetectionScores, Error> {
    let mut all = Vec::new();
    for (image, truths) in pictures {
        let found = located(&vlm.detect(&image, options)?, classes);
        all.push(LocatedPicture { truths, found });
    }
    Ok(score_detections(&all, classes.len())?)
}

/// What is known of a picture as the score takes it; objects of none of the classes are left out.
pub fn truths(objects: &[BoxedObject], classes: &[String]) -> Vec<Located> {
    let one = |object: &BoxedObject| {
        Some(Located {
            class: classes.iter().position(|name| *name == object.name)?,
            corners: object.corners.map(f64::from),
            score: 1.0,
        })
    };
    objects.iter().filter_map(one).collect()
}

/// Objects as the score takes them.
pub fn located(objects: &[Object], classes: &[String]) -> Vec<Located> {
    let one = |object: &Object| {
        let class = classes.iter().position(|name| *name == object.class)?;
        Some(Located {
            class,
            corners: object.corners.map(f64::from),
            score: f64::from(object.score),
        })
    };
    objects.iter().filter_map(one).collect()
}

/// What is known of the attributes in a picture, each for itself with the box of its object; others than `names` are left
/// out.
pub fn attribute_truths(objects: &[BoxedObject], names: &[String]) -> Vec<Located> {
    let of = |object: &BoxedObject| {
        let numbers = names.iter().enumerate();
        let own = numbers.filter(|(_, name)| object.attributes.contains(name));
        let each = own.map(|(class, _)| Located {
            class,
            corners: object.corners.map(f64::from),
            score: 1.0,
        });
        each.collect::<Vec<_>>()
    };
    objects.iter().flat_map(of).collect()
}

/// The attributes of objects as the score takes them: as sure as the object and its attribute together.
pub fn located_attributes(objects: &[Object], names: &[String]) -> Vec<Located> {
    let of = |object: &Object| {
        let own = object.attributes.iter().filter_map(|(attribute, p)| {
            Some(Located {
                class: names.iter().position(|name| name == attribute)?,
                corners: object.corners.map(f64::from),
                score: f64::from(object.score * p),
            })
        });
        own.collect::<Vec<_>>()
    };
    objects.iter().flat_map(of).collect()
}

impl Vlm {
    /// The objects in a picture, best first.
    ///
    /// # Errors
    /// A model that finds no objects, or a picture that its processor refuses.
    pub fn detect(&self, image: &Image, options: &DetectOptions) -> Result<Vec<Object>, Error> {
        Ok(self.found(image, options)?.0)
    }

    /// The objects in a picture and what the detector gives of their features.
    pub(crate) fn found(
        &self,
        image: &Image,
        options: &DetectOptions,
    ) -> Result<(Vec<Object>, Option<Tensor<2>>), Error> {
        let detector = self.model().detect()?;
        let pictures = self.pictures(&[image])?;
        let [_, _, height, width] = pictures.fixed(3)?.dims();
        let found = detector.detect(&pictures, options)?.swap_remove(0);
        // the processor may have resized the picture
        let scale = [
            image.width() as f32 / width as f32,
            image.height() as f32 / height as f32,
        ];
        let objects = found.objects.iter();
        let objects = objects.map(|o| self.named(o, scale, image)).collect();
        Ok((objects, found.features))
    }

    fn named(&self, object: &Detection, scale: [f32; 2], image: &Image) -> Object {
        let size = [image.width() as f32, image.height() as f32];
        let corner = |i: usize| (object.corners[i] * scale[i % 2]).clamp(0.0, size[i % 2]);
        let names = self.class_names();
        let attributes = object.attributes.iter();
        Object {
            corners: std::array::from_fn(corner),
            class: names.class(object.class),
            label: object.class,
            score: object.score,
            attributes: attributes.map(|&(i, p)| (names.attribute(i), p)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_where_an_object_that_has_it_is() {
        let names = ["red", "striped"].map(str::to_owned);
        let known = |name: &str, attributes: &[&str], corners| BoxedObject {
            name: name.to_owned(),
            attributes: attributes.iter().map(|&a| a.to_owned()).collect(),
            corners,
        };
        let [left, right] = [[0.0, 0.0, 9.0, 9.0], [20.0, 0.0, 30.0, 9.0]];
        let truths = attribute_truths(
            &[
                known("ring", &["striped", "red"], left),
                known("star", &["blue", "red"], right),
            ],
            &names,
        );
        let of = |class| truths.iter().filter(move |t| t.class == class).count();
        assert_eq!([of(0), of(1)], [2, 1]);
        // the left one is taken for something else, and of the right one nothing is said
        let object = |corners, attributes: &[(&str, f32)]| Object {
            corners,
            class: "heart".to_owned(),
            label: 3,
            score: 0.5,
            attributes: attributes.iter().map(|&(a, p)| (a.to_owned(), p)).collect(),
        };
        let found = located_attributes(
            &[
                object(left, &[("red", 0.8), ("green", 0.7), ("striped", 0.5)]),
                object(right, &[]),
            ],
            &names,
        );
        let scores: Vec<f64> = found.iter().map(|f| f.score).collect();
        assert!(
            (scores[0] - 0.4).abs() < 1e-6 && (scores[1] - 0.25).abs() < 1e-6 && scores.len() == 2
        );
        let scores = score_detections(&[LocatedPicture { truths, found }], 2).unwrap();
        // one of two red ones: precision 1 up to a recall of one half, 51 of 101 points
        assert!((scores.by_class[0].ap50.unwrap() - 51.0 / 101.0).abs() < 1e-9);
        assert_eq!(scores.by_class[1].ap50, Some(1.0));
    }

    #[test]
    fn coco_has_ninety_names_with_the_gaps_of_the_published_labels() {
        let names: Vec<&str> = COCO.split_whitespace().collect();
        assert_eq!(names.len(), 90);
        for (label, name) in [
            (1, "person"),
            (12, "-"),
            (18, "dog"),
            (44, "bottle"),
            (90, "toothbrush"),
        ] {
            assert_eq!(names[label - 1], name);
        }
        assert_eq!(names.iter().filter(|name| **name != "-").count(), 80);
    }

    #[test]
    fn files_of_names_may_leave_out_background_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LABELS);
        assert_eq!(names(&path, 3).unwrap(), None);
        std::fs::write(&path, "cat\ndog\n").unwrap();
        let found = names(&path, 3).unwrap().unwrap();
        assert_eq!(found, ["background", "cat", "dog"]);
        assert_eq!(names(&path, 2).unwrap().unwrap(), ["cat", "dog"]);
        let error = names(&path, 5).unwrap_err().to_string();
        assert!(error.contains("labels.txt: expected 5 names"), "{error}");
        assert!(error.ends_with("found 2"), "{error}");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(names(&path, 5).is_err());
    }

    #[test]
    fn names_of_a_config_count_only_if_all_are_there() {
        let config = r#"{"id2label": {"0": "none", "1": "cat"}}"#;
        assert_eq!(of_config(config, 2).unwrap(), ["none", "cat"]);
        assert_eq!(of_config(config, 3), None);
        assert_eq!(of_config("[]", 2), None);
        let names = ClassNames {
            classes: of_config(config, 2).unwrap(),
            attributes: Vec::new(),
        };
        assert_eq!(
            (names.class(1), names.class(7)),
            ("cat".into(), "class 7".into())
        );
        assert_eq!(names.attribute(3), "attribute 3");
    }
}
