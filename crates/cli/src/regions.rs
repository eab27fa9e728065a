//! Where a model that reads regions takes them from: a detector, or a file that a detector wrote before.

use crate::input::{Done, each, each_picture};
use crate::{Common, Outcome, models};
use anyhow::bail;
use clap::Args;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use vlm_data::image::{self, Image, Limits};
use vlm_tasks::{PictureRegions, RegionFiles, Vlm};

/// For models that read regions of pictures (oscar).
#[derive(Args)]
#[command(next_help_heading = "Regions, for models that read them")]
pub struct RegionArgs {
    /// Find the regions of pictures with this detector (vinvl)
    #[arg(long, value_name = "MODEL")]
    detector: Option<String>,
    /// Take the regions from this file; an IMAGE is then the name of a row, a pattern of names, or a picture's file
    #[arg(long, value_name = "TSV", conflicts_with = "detector")]
    regions: Option<PathBuf>,
    /// Take the object tags from this file instead
    #[arg(long, value_name = "TSV", requires = "regions")]
    tags: Option<PathBuf>,
}

/// A picture of a file of regions.
struct Row {
    name: String,
    /// Its file, where one was named.
    file: Option<PathBuf>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The rows that an argument names.
fn named(files: &RegionFiles, argument: &OsString) -> Vec<Result<Row, String>> {
    let text = argument.to_string_lossy();
    let row = |name: &str, file: Option<PathBuf>| {
        Ok(Row {
            name: name.to_owned(),
            file,
        })
    };
    if let Some(name) = files.row_of(&text) {
        let path = Path::new(argument);
        // a picture's file is named, and not the row itself
        let file = (name != text && path.is_file()).then(|| path.to_owned());
        return vec![row(name, file)];
    }
    if text.contains(['*', '?', '[']) {
        let pattern = match glob::Pattern::new(&text) {
            Ok(pattern) => pattern,
            Err(e) => return vec![Err(format!("{text}: no valid pattern: {e}"))],
        };
        let found = files.images().iter();
        let found: Vec<_> = found
            .filter(|name| pattern.matches(name))
            .map(|name| row(name, None))
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    let count = files.images().len();
    let first = files.images().first().map_or("none", String::as_str);
    vec![Err(format!(
        "{text}: expected the name of one of {count} rows, such as {first}"
    ))]
}

fn read(files: &RegionFiles, row: &Row) -> Result<PictureRegions, vlm_data::Error> {
    let size = match &row.file {
        None => None,
        Some(path) => {
            let image = image::read(path, &Limits::default())?;
            Some([image.width(), image.height()])
        }
    };
    files.read(&row.name, size)
}

impl RegionArgs {
    /// The model with its detector.
    ///
    /// A model that reads pixels takes neither detector nor file, one that reads regions needs one of them.
    pub fn complete(&self, vlm: Vlm) -> anyhow::Result<Vlm> {
        let flag = match (&self.detector, &self.regions) {
            (Some(_), _) => "--detector",
            (_, Some(_)) => "--regions",
            (None, None) if vlm.model().region_width().is_some() => bail!(
                "{}: reads regions of pictures: expected --detector MODEL or --regions TSV, found neither",
                vlm.name()
            ),
            (None, None) => {
                vlm.processor()?;
                return Ok(vlm);
            }
        };
        if vlm.model().region_width().is_none() {
            bail!(
                "{flag}: expected a model that reads regions (oscar), found {}, which reads pictures themselves",
                vlm.name()
            );
        }
        match &self.detector {
            Some(detector) => Ok(vlm.with_detector(models::load(detector, None)?)?),
            None => Ok(vlm),
        }
    }

    /// The files of regions and tags, if there are some.
    pub fn files(&self) -> anyhow::Result<Option<RegionFiles>> {
        let open = |regions: &PathBuf| RegionFiles::open(regions, self.tags.as_deref());
        Ok(self.regions.as_ref().map(open).transpose()?)
    }

    /// Does the one work on every picture or the other on the regions of every row that the arguments name, and hands
    /// the result to `emit`; what fails is complained about and counted.
    pub fn each<T>(
        &self,
        arguments: &[OsString],
        vlm: &Vlm,
        common: &Common,
        of_picture: impl FnMut(&Image) -> Result<T, vlm_tasks::Error>,
        of_regions: impl FnMut(&PictureRegions) -> Result<T, vlm_tasks::Error>,
        emit: impl FnMut(Done<T>) -> std::io::Result<()>,
    ) -> anyhow::Result<Outcome> {
        let Some(files) = self.files()? else {
            return each_picture(arguments, vlm.name(), common, of_picture, emit);
        };
        let rows: Vec<_> = arguments.iter().flat_map(|a| named(&files, a)).collect();
        each(rows, |row| read(&files, row), of_regions, emit)
    }

    /// The regions of rows of a file, one for each argument; none without a file.
    pub fn read(&self, arguments: &[OsString]) -> anyhow::Result<Option<Vec<PictureRegions>>> {
        let Some(files) = self.files()? else {
            return Ok(None);
        };
        let mut found = Vec::with_capacity(arguments.len());
        for argument in arguments {
            for row in named(&files, argument) {
                found.push(read(&files, &row.map_err(anyhow::Error::msg)?)?);
            }
        }
        if found.len() != arguments.len() {
            bail!(
                "IMAGE: expected the names of {} rows, found a pattern of {}",
                arguments.len(),
                found.len()
            );
        }
        Ok(Some(found))
    }
}

/// The pictures of files, all of which must be readable.
pub fn pictures(arguments: &[OsString]) -> anyhow::Result<Vec<Image>> {
    let limits = Limits::default();
    let read = |name: &OsString| image::read(Path::new(name), &limits);
    Ok(arguments.iter().map(read).collect::<Result<_, _>>()?)
}
