//! Regions of a world's pictures, as a detector without errors would tell them.

use crate::Common;
use crate::world::{ShapesArgs, progress_bar};
use rayon::prelude::*;
use std::io;
use vlm_data::datasets::region_features::{ImageRegions, Region};
use vlm_data::files::write_atomically;
use vlm_data::image::Image;
use vlm_tasks::described;
use vlm_worlds::shapes::{self, Config, Object, Record};

/// The file beside `items.jsonl`.
const FILE_NAME: &str = "regions.tsv";
/// Pictures that are described between two reports of progress.
const CHUNK: u64 = 64;

/// Writes the regions of the pictures that were made, or takes away those of an earlier output.
pub fn replace(config: &Config, args: &ShapesArgs, common: &Common) -> anyhow::Result<()> {
    let path = args.out.join(FILE_NAME);
    if !args.regions {
        return match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                anyhow::bail!("{}: cannot remove: {e}", path.display())
            }
            _ => Ok(()),
        };
    }
    let bar = progress_bar(args.count, "pictures described", common.quiet);
    write_atomically(&path, |w| {
        let mut begin = 0;
        while begin < args.count {
            let end = (begin + CHUNK).min(args.count);
            let rows = (begin..end).into_par_iter().map(|index| {
                let item = shapes::generate(config, args.split, args.seed, index);
                let record = Record::new(&item, args.split, args.seed, index);
                let p = item.picture;
                let image = Image::from_rgb(p.width, p.height, p.rgb).map_err(io::Error::other)?;
                let regions = of_picture(&record, &image).map_err(io::Error::other)?;
                regions.to_row().map_err(io::Error::other)
            });
            for row in rows.collect::<io::Result<Vec<String>>>()? {
                writeln!(w, "{row}")?;
            }
            begin = end;
            bar.set_position(begin);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// The whole picture, called its background, and every object, called its shape.
fn of_picture(record: &Record, image: &Image) -> Result<ImageRegions, vlm_tasks::Error> {
    let whole = Region {
        rect: Some([0.0, 0.0, record.width as f32, record.height as f32]),
        class: Some("background".to_owned()),
        score: Some(1.0),
        attributes: vec![(record.background.word().to_owned(), Some(1.0))],
    };
    let region = |object: &Object| {
        let words = [
            object.colour.word(),
            object.size.word(),
            object.texture.word(),
        ];
        Region {
            rect: Some(object.bounds.map(|corner| corner as f32)),
            class: Some(object.shape.word().to_owned()),
            score: Some(1.0),
            attributes: words.map(|word| (word.to_owned(), Some(1.0))).to_vec(),
        }
    };
    let regions = std::iter::once(whole).chain(record.objects.iter().map(region));
    described(&record.image, image, regions.collect())
}
