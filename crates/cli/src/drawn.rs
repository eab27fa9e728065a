//! Pictures that a command draws, in a directory, each under the name of the picture that it is about.

use anyhow::anyhow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use vlm_data::image::Image;

/// A directory of drawn pictures.
pub struct Drawn {
    /// The option that named it, for errors.
    flag: &'static str,
    directory: PathBuf,
    written: HashSet<PathBuf>,
}

impl Drawn {
    /// Makes the directory that the option `flag` names.
    pub fn to(flag: &'static str, directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .map_err(|e| anyhow!("{flag}: {}: cannot create: {e}", directory.display()))?;
        Ok(Self {
            flag,
            directory: directory.to_owned(),
            written: HashSet::new(),
        })
    }

    /// Writes what was drawn about `image` as PNG, under a name that no other picture of this run has.
    pub fn write(&mut self, image: &str, picture: &Image) -> anyhow::Result<PathBuf> {
        let stem = match Path::new(image).file_stem() {
            _ if image == "-" => "stdin".to_owned(),
            Some(stem) => stem.to_string_lossy().into_owned(),
            None => "picture".to_owned(),
        };
        let name = |n: usize| match n {
            1 => self.directory.join(format!("{stem}.png")),
            n => self.directory.join(format!("{stem}-{n}.png")),
        };
        let path = (1..).map(name).find(|path| !self.written.contains(path));
        let path = path.expect("a number that is free");
        let png = vlm_worlds::shapes::Picture {
            width: picture.width(),
            height: picture.height(),
            rgb: picture.rgb().to_vec(),
        };
        vlm_data::files::write_atomically(&path, |file| file.write_all(&png.to_png()))
            .map_err(|e| anyhow!("{}: {e}", self.flag))?;
        self.written.insert(path.clone());
        Ok(path)
    }
}
