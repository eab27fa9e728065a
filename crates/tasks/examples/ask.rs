//! Answers questions about a picture: `ask PICTURE QUESTION...`
#![allow(clippy::print_stdout)]

use vlm_data::image::{self, Limits};
use vlm_tasks::Vlm;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((path, questions)) = arguments.split_first() else {
        return Err("usage: ask PICTURE QUESTION...".into());
    };
    let picture = image::read(path.as_ref(), &Limits::default())?;
    // all questions at once: the picture is looked at once
    let questions: Vec<(usize, &str)> = questions.iter().map(|q| (0, q.as_str())).collect();
    for answer in Vlm::builtin()?.answer(&[&picture], &questions)? {
        println!("{} ({:.0} %)", answer.text, 100.0 * answer.confidence);
    }
    Ok(())
}
