//! Says what is in the pictures that are named on the command line.
#![allow(clippy::print_stdout)]

use vlm_data::image::{self, Limits};
use vlm_tasks::{CaptionOptions, Vlm};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vlm = Vlm::builtin()?;
    for path in std::env::args_os().skip(1) {
        let picture = image::read(path.as_ref(), &Limits::default())?;
        let captions = vlm.caption(&[&picture], &CaptionOptions::default())?;
        println!("{}", captions[0].text);
    }
    Ok(())
}
