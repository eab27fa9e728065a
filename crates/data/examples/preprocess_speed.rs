//! Milliseconds to decode a picture and to bring it to CLIP's 224×224.
//!
//! `cargo run --release -p vlm-data --example preprocess_speed -- PICTURE`
#![allow(clippy::print_stdout)]

use std::time::Instant;

use vlm_data::image::{self, ImageProcessor, Limits, PreprocessorConfig, ProcessorKind};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("expected the path of a picture")?;
    let bytes = std::fs::read(&path)?;
    let processor = ImageProcessor::from_config(PreprocessorConfig::defaults(ProcessorKind::Clip));
    let (mut decoding, mut processing) = (f64::MAX, f64::MAX);
    for _ in 0..7 {
        let start = Instant::now();
        let picture = image::decode(&bytes, &path, &Limits::default())?;
        decoding = decoding.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        processor.process(&picture)?;
        processing = processing.min(start.elapsed().as_secs_f64());
    }
    println!(
        "{path}: best of 7: decode {:.1} ms, preprocess {:.1} ms",
        decoding * 1e3,
        processing * 1e3
    );
    Ok(())
}
