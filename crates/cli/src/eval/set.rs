//! Data sets of other descriptions than `items.jsonl`: which records are measured, and how their pictures are read.

use clap::{Args, ValueEnum};
use std::path::Path;
use vlm_data::datasets::items::{self, QuestionAnswer};
use vlm_data::datasets::{Part, Record, Set, Split};
use vlm_data::image::{Image, Limits};
use vlm_tasks::{RegionFiles, Shown};
use vlm_train::SetData;

/// Which records of a data set, and what is done to their pictures
#[derive(Args, Clone, Debug)]
pub struct SetArgs {
    /// Only what a recipe with this data.held_out holds out
    #[arg(long, value_name = "SHARE")]
    held_out: Option<f64>,
    /// The recipe's data.split_seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    split_seed: u64,
    /// Only this part, where the data have parts, such as test
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
    /// Change pictures before they are prepared, to see how much the model depends on their style
    #[arg(long, value_enum)]
    style: Option<Style>,
}

/// A change of pictures that keeps what they show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// Gaussian blur, its deviation a fortieth of the picture's width
    Blurred,
    /// Every hue a third of the circle further
    Recoloured,
    /// Turned by 20 degrees on white
    Rotated,
    /// Grey in place of colours
    Grey,
}

impl Style {
    fn of(self, image: Image) -> Image {
        match self {
            Self::Blurred => {
                let deviation = image.width() as f32 / 40.0;
                image.blurred(deviation)
            }
            Self::Recoloured => image.with_hue(1.0 / 3.0),
            Self::Rotated => image.rotated(20.0, [255; 3]),
            Self::Grey => image.greyscale(),
        }
    }
}

/// Records to measure on.
pub struct Chosen {
    set: Set,
    places: Vec<usize>,
    style: Option<Style>,
    limits: Limits,
}

impl SetArgs {
    /// Whether anything was asked for.
    pub fn is_given(&self) -> bool {
        self.held_out.is_some() || self.part.is_some() || self.style.is_some()
    }

    /// Whether nothing of what is chosen is learned from by those who learn of `data` from the same set, which has parts
    /// or has none.
    pub fn is_apart_from(&self, data: &SetData, has_parts: bool) -> bool {
        let learned = data.part.as_deref().or(has_parts.then_some("train"));
        let chosen = self.part.as_deref();
        let another = has_parts && chosen.is_some() && chosen != learned;
        let same_split = self.held_out == data.held_out && self.split_seed == data.split_seed;
        // the same records are divided only where both take the same part
        another || (data.held_out.is_some() && same_split && chosen == learned)
    }

    /// The choice in words.
    pub fn describe(&self) -> String {
        let part = self.part.iter().map(|part| format!(", part {part}"));
        let held_out = self.held_out.iter();
        let held_out = held_out.map(|s| format!(", held out {s} by seed {}", self.split_seed));
        let style = self.style.iter().map(|s| format!(", {s:?}").to_lowercase());
        part.chain(held_out).chain(style).collect()
    }

    /// Refuses changes of pictures whose regions were found before.
    ///
    /// # Errors
    /// Both.
    pub fn check_regions(&self, regions: Option<&RegionFiles>) -> anyhow::Result<()> {
        if regions.is_some() && self.style.is_some() {
            anyhow::bail!("--style: expected none beside --regions, found one");
        }
        Ok(())
    }

    /// Opens a data set that is not a directory with `items.jsonl`, or one of directories for classes; `None` for those.
    ///
    /// # Errors
    /// A set that cannot be read, or has none of the records asked for.
    pub fn open(&self, path: &Path) -> anyhow::Result<Option<Chosen>> {
        // what is not there is reported by what reads directories
        let plain = !path.is_file()
            && (!path.exists()
                || path.join(items::FILE_NAME).is_file()
                || matches!(Set::open(path), Err(vlm_data::Error::Missing { .. })));
        if plain && !self.is_given() {
            return Ok(None);
        }
        self.chosen(path).map(Some)
    }

    /// Opens a data set of any description.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn chosen(&self, path: &Path) -> anyhow::Result<Chosen> {
        let set = Set::open(path)?;
        let records = set.records();
        let of_part = |i: &usize| match &self.part {
            Some(part) => records[*i].part == *part,
            None => true,
        };
        let mut places: Vec<usize> = (0..records.len()).filter(of_part).collect();
        if let Some(fraction) = self.held_out {
            if !(fraction > 0.0 && fraction < 1.0) {
                anyhow::bail!("--held-out: expected a share between 0 and 1, found {fraction}");
            }
            let some: Vec<Record> = places.iter().map(|&i| records[i].clone()).collect();
            let seed = self.split_seed;
            let held_out = Split { fraction, seed }.part(&some, Part::HeldOut);
            places = held_out.into_iter().map(|i| places[i]).collect();
        }
        if places.is_empty() {
            anyhow::bail!(
                "{}: expected records of the part, found none",
                path.display()
            );
        }
        Ok(Chosen {
            set,
            places,
            style: self.style,
            limits: Limits::default(),
        })
    }
}

/// A picture, or the regions of the row of its name.
///
/// # Errors
/// No such row, or one of another picture.
pub fn shown(
    image: Image,
    name: &str,
    regions: Option<&RegionFiles>,
) -> Result<Shown, vlm_data::Error> {
    match regions {
        None => Ok(Shown::Pixels(image)),
        Some(files) => {
            let size = [image.width(), image.height()];
            Ok(Shown::Regions(files.read(name, Some(size))?))
        }
    }
}

impl Chosen {
    /// How many records.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// A record by its place among those chosen.
    pub fn record(&self, i: usize) -> &Record {
        &self.set.records()[self.places[i]]
    }

    /// The set.
    pub fn set(&self) -> &Set {
        &self.set
    }

    /// The name of a record's first picture.
    pub fn name(&self, i: usize) -> String {
        let name = self.record(i).pictures.first();
        self.set.archive().place(name.map_or("", String::as_str))
    }

    fn read(&self, name: &str) -> Result<Image, vlm_data::Error> {
        let image = self.set.picture(name, &self.limits)?;
        Ok(match self.style {
            Some(style) => style.of(image),
            None => image,
        })
    }

    /// The first picture of a record.
    ///
    /// # Errors
    /// A file that is missing or no picture.
    pub fn picture(&self, i: usize) -> Result<Image, vlm_data::Error> {
        self.read(&self.record(i).pictures[0])
    }

    /// The pictures of a record from a place on, again from the first where it has fewer; their regions, where there are
    /// files of them.
    ///
    /// # Errors
    /// A file that is missing or no picture, or regions that are missing or not those of the picture.
    pub fn shown(
        &self,
        i: usize,
        first: usize,
        count: usize,
        regions: Option<&RegionFiles>,
    ) -> Result<Vec<Shown>, vlm_data::Error> {
        let names = self.record(i).pictures.iter();
        let names = names.cycle().skip(first).take(count);
        names
            .map(|name| shown(self.read(name)?, name, regions))
            .collect()
    }

    /// What is asked about a record; a statement is answered with `true` or `false`.
    pub fn questions(&self, i: usize) -> Vec<QuestionAnswer> {
        let record = self.record(i);
        let statement = record.statement.iter().map(|s| QuestionAnswer {
            question: s.text.clone(),
            answer: s.truth.to_string(),
            kind: "statement".to_owned(),
        });
        record.questions.iter().cloned().chain(statement).collect()
    }
}
