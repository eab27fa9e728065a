//! Pictures for models that read regions (Oscar): what a detector finds in them now, or has found before.
//!
//! Such a model reads of each region a vector that ends with the region's place, `x1, y1, x2, y2, width, height` as
//! shares of the picture's width and height, and of all regions the names of their classes, the object tags.

use crate::detection::Object;
use crate::{Error, Missing, TextSide, Vlm};
use burn::tensor::{Device, Tensor, TensorData};
use std::path::Path;
use vlm_data::datasets::region_features::{ImageRegions, Region, RegionFile, RegionIndex};
use vlm_data::image::{Filter, Image, Resampler, resize};
use vlm_models::capability::{DetectOptions, Pictures, Regions, Tokens};
use vlm_models::encoders::handcrafted::HandcraftedConfig;
use vlm_models::families::Model;

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
        Self::prepared(pictures, width, vlm.text()?, vlm.device())
    }
}

impl PictureRegions {
    /// What a detector finds in a picture; `name` is for errors.
    ///
    /// # Errors
    /// As [`Vlm::regions`].
    pub fn detected(detector: &Vlm, name: &str, image: &Image) -> Result<Self, Error> {
        let (_, regions) = detector.regions(name, image, &DetectOptions::default())?;
        Ok(Self {
            regions,
            tags: None,
        })
    }

    /// The object tags.
    pub fn tags(&self) -> Vec<&str> {
        match &self.tags {
            Some(tags) => tags.iter().map(String::as_str).collect(),
            None => self.regions.tags(),
        }
    }

    /// How many numbers a region has for a model: its features, and its place where the row tells it beside them.
    pub fn width(&self) -> usize {
        let placed =
            self.regions.size.is_some() && self.regions.regions.iter().all(|r| r.rect.is_some());
        self.regions.width + if placed { PLACE } else { 0 }
    }

    /// Pictures as a model takes them that reads `width` numbers of a region.
    ///
    /// # Errors
    /// Regions of another width, or none of a picture; tags that cannot be tokenized.
    pub fn prepared(
        pictures: &[&Self],
        width: usize,
        text: &TextSide,
        device: &Device,
    ) -> Result<Pictures, Error> {
        let (mut features, mut tags) = (Vec::new(), Vec::new());
        for picture in pictures {
            features.push(rows(&picture.regions, width)?);
            tags.push(text.tags(picture.tags())?);
        }
        Ok(Pictures::Regions {
            regions: Regions::padded(&features, device)?,
            tags: Tokens::padded(&tags, text.pad()),
        })
    }
}

/// A picture by its pixels, or by what a detector has found in it.
#[derive(Clone, Debug)]
pub enum Shown {
    /// The picture itself.
    Pixels(Image),
    /// What is in it.
    Regions(PictureRegions),
}

impl Shown {
    /// The picture itself.
    pub fn pixels(&self) -> Option<&Image> {
        match self {
            Self::Pixels(image) => Some(image),
            Self::Regions(_) => None,
        }
    }
}

impl Subject for Shown {
    fn pictures(vlm: &Vlm, subjects: &[&Self]) -> Result<Pictures, Error> {
        let pixels: Vec<&Image> = subjects.iter().filter_map(|s| s.pixels()).collect();
        if pixels.len() == subjects.len() {
            return Image::pictures(vlm, &pixels);
        }
        let regions = subjects.iter().filter_map(|subject| match subject {
            Self::Pixels(_) => None,
            Self::Regions(regions) => Some(regions),
        });
        let regions: Vec<&PictureRegions> = regions.collect();
        if regions.len() == subjects.len() {
            return PictureRegions::pictures(vlm, &regions);
        }
        Err(Error::Model {
            place: "pictures".to_owned(),
            expected: "pixels of all or regions of all".to_owned(),
            found: format!("regions of {} of {}", regions.len(), subjects.len()),
        })
    }
}

/// A file of regions, and perhaps one of tags beside it.
#[derive(Debug)]
pub struct RegionFiles {
    regions: RegionIndex,
    tags: Option<RegionIndex>,
}

impl RegionFiles {
    /// Opens them.
    ///
    /// # Errors
    /// A file that cannot be read, or has two rows of one picture.
    pub fn open(regions: &Path, tags: Option<&Path>) -> Result<Self, vlm_data::Error> {
        Ok(Self {
            regions: RegionFile::index(regions)?,
            tags: tags.map(RegionFile::index).transpose()?,
        })
    }

    /// The names of the rows, in their order.
    pub fn images(&self) -> &[String] {
        self.regions.images()
    }

    /// The name of a picture's row.
    pub fn row_of(&self, picture: &str) -> Option<&str> {
        self.regions.row_of(picture)
    }

    /// Checks that every picture has a row in each file.
    ///
    /// # Errors
    /// The pictures that have none, the first by its name.
    pub fn check<'a>(
        &self,
        pictures: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Result<(), vlm_data::Error> {
        self.regions.check_images(pictures.clone())?;
        match &self.tags {
            Some(tags) => tags.check_images(pictures),
            None => Ok(()),
        }
    }

    /// The object tags of a picture, without its features where a file has the tags alone.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn tags(&self, picture: &str) -> Result<Vec<String>, vlm_data::Error> {
        let index = self.tags.as_ref().unwrap_or(&self.regions);
        let row = index.regions(index.row_of(picture).unwrap_or(picture), None, None)?;
        Ok(row.tags().into_iter().map(str::to_owned).collect())
    }

    /// The regions of a picture, which is of this width and height if that is known.
    ///
    /// # Errors
    /// A picture without a row, or a row in error.
    pub fn read(
        &self,
        picture: &str,
        size: Option<[u32; 2]>,
    ) -> Result<PictureRegions, vlm_data::Error> {
        let read = |index: &RegionIndex| {
            index.regions(index.row_of(picture).unwrap_or(picture), None, size)
        };
        let tags = self.tags.as_ref().map(read).transpose()?;
        Ok(PictureRegions {
            regions: read(&self.regions)?,
            tags: tags.map(|tags| tags.tags().into_iter().map(str::to_owned).collect()),
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
            .map(|image| PictureRegions::detected(detector, "the picture", image))
            .collect::<Result<_, Error>>()?;
        PictureRegions::pictures(self, &found.iter().collect::<Vec<_>>())
    }

    /// What a detector gives to models that read regions: its boxes with their features, classes and attributes. The row
    /// of a file is called `name`.
    ///
    /// # Errors
    /// A model that finds no objects or keeps their features to itself, or a picture that its processor refuses.
    pub fn regions(
        &self,
        name: &str,
        image: &Image,
        options: &DetectOptions,
    ) -> Result<(Vec<Object>, ImageRegions), Error> {
        self.gives_regions()?;
        let (objects, features) = self.found(image, options)?;
        let features = features.ok_or_else(|| self.keeps_features())?;
        let width = features.dims()[1];
        let features = features.into_data().convert::<f32>();
        let region = |object: &Object| Region {
            rect: Some(object.corners),
            class: self.class_names().known(object.label).map(str::to_owned),
            score: Some(object.score),
            attributes: (object.attributes.iter())
                .map(|(name, score)| (name.clone(), Some(*score)))
                .collect(),
        };
        let regions = ImageRegions {
            image: name.to_owned(),
            size: Some([image.width(), image.height()]),
            regions: objects.iter().map(region).collect(),
            width,
            features: features.try_to_vec().expect("f32 features"),
        };
        Ok((objects, regions))
    }

    /// Checks that the model finds objects and gives their features.
    ///
    /// # Errors
    /// A model that does not.
    pub fn gives_regions(&self) -> Result<(), Error> {
        self.model().detect()?;
        match self.model() {
            Model::Vinvl(_) => Ok(()),
            _ => Err(self.keeps_features()),
        }
    }

    fn keeps_features(&self) -> Error {
        Error::Model {
            place: self.name().to_owned(),
            expected: "a detector that gives features of its regions, such as vinvl".to_owned(),
            found: self.model().family().to_owned(),
        }
    }
}

/// Side in pixels that a box is brought to before it is described.
const DESCRIBED: u32 = 32;

/// Boxes of a picture with hand-crafted features, for models that read regions where there is no detector: colour
/// histogram, local binary patterns and oriented gradients of each quarter of a box.
///
/// # Errors
/// A box that lies outside the picture, or none at all.
pub fn described(name: &str, image: &Image, regions: Vec<Region>) -> Result<ImageRegions, Error> {
    let config = HandcraftedConfig {
        image_size: DESCRIBED as usize,
        grid: 2,
        colour_bins: 3,
        lbp: true,
        orientations: 9,
    };
    let mut pixels = Vec::new();
    for region in &regions {
        let corners = region.rect.map(|[x1, y1, x2, y2]| {
            let [left, top] = [x1, y1].map(|x| x.floor().max(0.0) as u32);
            let width = (x2.ceil().min(image.width() as f32) as u32).saturating_sub(left);
            let height = (y2.ceil().min(image.height() as f32) as u32).saturating_sub(top);
            [left, top, width, height]
        });
        let corners = corners.filter(|[_, _, width, height]| *width.min(height) > 0);
        let [left, top, width, height] = corners.ok_or_else(|| Error::Model {
            place: format!("regions of {name}"),
            expected: "boxes within the picture".to_owned(),
            found: format!("{:?}", region.rect),
        })?;
        let cut = image.cropped(left, top, width, height)?;
        let cut = resize(
            &cut,
            DESCRIBED,
            DESCRIBED,
            Filter::Bilinear,
            Resampler::Pillow,
        )?;
        let level = |channel: usize| {
            let levels = cut.rgb().iter().skip(channel).step_by(3);
            levels.map(|&level| f32::from(level) / 255.0)
        };
        pixels.extend((0..3).flat_map(level));
    }
    let side = DESCRIBED as usize;
    let data = TensorData::new(pixels, [regions.len(), 3, side, side]);
    let features = config.describe(&Tensor::from_data(data, &Device::flex()))?;
    let width = features.dims()[1..].iter().product();
    let features = features.into_data().convert::<f32>();
    Ok(ImageRegions {
        image: name.to_owned(),
        size: Some([image.width(), image.height()]),
        regions,
        width,
        features: features.try_to_vec().expect("f32 features"),
    })
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
