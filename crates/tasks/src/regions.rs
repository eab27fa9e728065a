//! Pictures for models that read regions (Oscar): what a detector finds in them now, or has found before.
//!
//! Such a model reads of each region a vector that ends with the region's place, `x1, y1, x2, y2, width, height` as
//! shares of the picture's width and height, and of all regions the names of their classes, the object tags.

use crate::{Error, Missing, Vlm};
use vlm_data::datasets::region_features::{ImageRegions, Region};
use vlm_data::image::Image;
use vlm_models::capability::{DetectOptions, Pictures, Regions, Tokens};

/// Numbers of a region's place.
const PLACE: usize = 6;

/// What a task can be about.
pub trait Subject {
    /// Subjects as the model takes them.
    ///
    /// # Errors
    /// What cannot be prepared, or a model that does not take it.
    fn pictures(vlm: &Vlm, subjects: &[&Self]) -> Result<Pictures, Error>;
}

impl Subject for Image {
    fn pictures(vlm: &Vlm, images: &[&Self]) -> Result<Pictures, Error> {
        vlm.pictures(images)
    }
}

/// The regions of one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureRegions {
    /// Boxes with their features.
    pub regions: ImageRegions,
    /// Object tags; those of the regions if not given.
    pub tags: Option<Vec<String>>,
}

impl Subject for PictureRegions {
    fn pictures(vlm: &Vlm, pictures: &[&Self]) -> Result<Pictures, Error> {
        let Some(width) = vlm.model().region_width() else {
            return Err(Error::Model {
                place: "pictures".to_owned(),
                expected: format!("pixels for {}", vlm.model().family()),
                found: "regions".to_owned(),
            });
        };
        let text = vlm.text()?;
        let (mut features, mut tags) = (Vec::new(), Vec::new());
        for picture in pictures {
            features.push(rows(&picture.regions, width)?);
            tags.push(match &picture.tags {
                Some(tags) => text.tags(tags.iter().map(String::as_str))?,
                None => text.tags(picture.regions.tags())?,
            });
        }
        Ok(Pictures::Regions {
            regions: Regions::padded(&features, vlm.device())?,
            tags: Tokens::padded(&tags, text.pad()),
        })
    }
}

/// The vectors of a picture's regions with their places, `width` numbers each.
fn rows(picture: &ImageRegions, width: usize) -> Result<Vec<Vec<f32>>, Error> {
    let refuse = |expected: String, found: String| Error::Model {
        place: format!("regions of {}", picture.image),
        expected,
        found,
    };
    let count = picture.regions.len();
    if count == 0 {
        return Err(refuse("at least one".to_owned(), "none".to_owned()));
    }
    if picture.width == width {
        return Ok((0..count).map(|i| picture.feature(i).to_vec()).collect());
    }
    if picture.width + PLACE != width {
        return Err(refuse(
            format!(
                "{width} numbers each, or {} and a place",
                width.saturating_sub(PLACE)
            ),
            picture.width.to_string(),
        ));
    }
    let Some([w, h]) = picture.size.map(|size| size.map(|side| side as f32)) else {
        return Err(refuse(
            "the picture's size beside features without places (image_w, image_h)".to_owned(),
            "none".to_owned(),
        ));
    };
    let row = |(i, region): (usize, &Region)| {
        let Some([x1, y1, x2, y2]) = region.rect else {
            return Err(refuse(
                format!("a box beside the features of region {i} (rect)"),
                "none".to_owned(),
            ));
        };
        let place = [x1 / w, y1 / h, x2 / w, y2 / h, (x2 - x1) / w, (y2 - y1) / h];
        Ok([picture.feature(i), &place].concat())
    };
    picture.regions.iter().enumerate().map(row).collect()
}

impl Vlm {
    /// Lets a detector find the regions that the model reads.
    ///
    /// # Errors
    /// A model that reads pixels, or a detector that finds no objects.
    pub fn with_detector(mut self, detector: Self) -> Result<Self, Error> {
        detector.model().detect()?;
        if self.model().region_width().is_none() {
            return Err(Error::Model {
                place: self.name().to_owned(),
                expected: "a model that reads regions for the detector".to_owned(),
                found: format!("{}, which reads pictures themselves", self.model().family()),
            });
        }
        self.detector = Some(Box::new(detector));
        Ok(self)
    }

    /// Pictures through the detector.
    pub(crate) fn detected(&self, images: &[&Image]) -> Result<Pictures, Error> {
        let detector = self.detector.as_ref().ok_or_else(|| Missing {
            model: self.name().to_owned(),
            part: "regions of pictures",
            files: "a detector",
            hint: "name one with --detector, or a file of regions with --regions",
        })?;
        let found: Vec<PictureRegions> = images
            .iter()
            .map(|image| detector.regions(image))
            .collect::<Result<_, _>>()?;
        PictureRegions::pictures(self, &found.iter().collect::<Vec<_>>())
    }

    /// What a detector gives to models that read regions: its boxes with their features and classes.
    ///
    /// # Errors
    /// A model that finds no objects or keeps their features to itself, or a picture that its processor refuses.
    pub fn regions(&self, image: &Image) -> Result<PictureRegions, Error> {
        let detector = self.model().detect()?;
        let pictures = self.pictures(&[image])?;
        let [_, _, h, w] = pictures.fixed(3)?.dims();
        let mut found = detector.detect(&pictures, &DetectOptions::default())?;
        let found = found.swap_remove(0);
        let features = found.features.ok_or_else(|| Error::Model {
            place: self.name().to_owned(),
            expected: "a detector that gives features of its regions, such as vinvl".to_owned(),
            found: self.model().family().to_owned(),
        })?;
        let width = features.dims()[1];
        let features = features.into_data().convert::<f32>();
        let region = |object: &vlm_models::capability::Detection| Region {
            rect: Some(object.corners),
            class: self.class_names().known(object.class).map(str::to_owned),
            score: Some(object.score),
            attributes: Vec::new(),
        };
        Ok(PictureRegions {
            regions: ImageRegions {
                image: "the picture".to_owned(),
                size: Some([w as u32, h as u32]),
                regions: found.objects.iter().map(region).collect(),
                width,
                features: features.try_to_vec().expect("f32 features"),
            },
            tags: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, rects: &[Option<[f32; 4]>], size: Option<[u32; 2]>) -> ImageRegions {
        ImageRegions {
            image: "dog".to_owned(),
            size,
            regions: rects
                .iter()
                .map(|&rect| Region {
                    rect,
                    ..Region::default()
                })
                .collect(),
            width,
            features: (0..rects.len() * width).map(|i| i as f32).collect(),
        }
    }

    #[test]
    fn places_are_shares_of_the_picture_behind_the_features() {
        let regions = picture(2, &[Some([10.0, 5.0, 30.0, 20.0])], Some([40, 20]));
        let expected = [0.0, 1.0, 0.25, 0.25, 0.75, 1.0, 0.5, 0.75];
        assert_eq!(rows(&regions, 8).unwrap(), [expected]);
        // features that have them already stay as they are
        assert_eq!(rows(&regions, 2).unwrap(), [[0.0, 1.0]]);
    }

    #[test]
    fn what_lacks_a_place_a_size_or_the_right_width_is_told() {
        let rect = Some([0.0, 0.0, 1.0, 1.0]);
        let told = |regions: ImageRegions, width| rows(&regions, width).unwrap_err().to_string();
        let error = told(picture(2, &[rect, None], Some([4, 4])), 8);
        assert!(
            error.contains("a box beside the features of region 1"),
            "{error}"
        );
        let error = told(picture(2, &[rect], None), 8);
        assert!(error.contains("image_w, image_h"), "{error}");
        let error = told(picture(3, &[rect], Some([4, 4])), 8);
        assert!(
            error.contains("expected 8 numbers each, or 2 and a place, found 3"),
            "{error}"
        );
        let error = told(picture(2, &[], None), 8);
        assert!(
            error.contains("regions of dog: expected at least one"),
            "{error}"
        );
    }
}
