//! Which pictures a command works on, and going through them so that a bad one does not stop the others.

use crate::output::{complain, milliseconds};
use crate::{Common, Outcome};
use anyhow::bail;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vlm_data::image::{self, Image, Limits};
use vlm_tasks::builtin;

/// Endings of the files of a directory that are taken for pictures.
const EXTENSIONS: [&str; 8] = ["bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// Where a picture comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    File(PathBuf),
    Stdin,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdin => write!(f, "-"),
        }
    }
}

impl Input {
    fn read(&self, limits: &Limits) -> Result<Image, vlm_data::Error> {
        match self {
            Self::File(path) => image::read(path, limits),
            Self::Stdin => {
                let mut bytes = Vec::new();
                // one byte more than allowed is enough for `decode` to refuse it
                std::io::stdin()
                    .lock()
                    .take(limits.max_bytes.saturating_add(1))
                    .read_to_end(&mut bytes)
                    .map_err(|source| vlm_data::Error::Io {
                        name: "<stdin>".to_owned(),
                        action: "read",
                        source,
                    })?;
                image::decode(&bytes, "<stdin>", limits)
            }
        }
    }
}

/// The inputs that the arguments name, in their order; what names none is a message.
///
/// `-` is stdin, a directory is its picture files in the order of their names, and a pattern that the shell has left
/// alone is expanded.
fn expand(arguments: &[OsString]) -> anyhow::Result<Vec<Result<Input, String>>> {
    let mut inputs = Vec::new();
    for argument in arguments {
        let path = Path::new(argument);
        if argument == "-" {
            if inputs.contains(&Ok(Input::Stdin)) {
                bail!("-: expected once, found twice; stdin holds one picture");
            }
            inputs.push(Ok(Input::Stdin));
        } else if path.is_dir() {
            match pictures_in(path) {
                Ok(found) => inputs.extend(found.into_iter().map(|p| Ok(Input::File(p)))),
                Err(message) => inputs.push(Err(message)),
            }
        } else {
            match argument.to_str() {
                Some(pattern) if !path.exists() && pattern.contains(['*', '?', '[']) => {
                    match matches_of(pattern) {
                        Ok(found) => inputs.extend(found.into_iter().map(|p| Ok(Input::File(p)))),
                        Err(message) => inputs.push(Err(message)),
                    }
                }
                _ => inputs.push(Ok(Input::File(path.to_owned()))),
            }
        }
    }
    Ok(inputs)
}

/// The picture files of a directory, in the order of their names.
pub fn pictures_in(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |e: std::io::Error| format!("{}: cannot read: {e}", directory.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_picture = path.extension().is_some_and(|e| {
            let extension = e.to_string_lossy().to_lowercase();
            EXTENSIONS.contains(&extension.as_str())
        });
        if is_picture && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(format!(
            "{}: expected pictures ({}), found none",
            directory.display(),
            EXTENSIONS.join(", ")
        ));
    }
    Ok(found)
}

fn matches_of(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        require_literal_separator: true,
        case_sensitive: true,
    };
    let paths = glob::glob_with(pattern, options)
        .map_err(|e| format!("{pattern}: no valid pattern: {e}"))?;
    // a directory that cannot be listed hides nothing that could be named
    let found: Vec<PathBuf> = paths.flatten().filter(|path| !path.is_dir()).collect();
    if found.is_empty() {
        return Err(format!("{pattern}: expected files that match, found none"));
    }
    Ok(found)
}

/// A picture's result on its way out.
pub struct Done<'a, T> {
    /// The picture as it was named.
    pub image: &'a str,
    /// What the model said.
    pub result: T,
    /// Milliseconds from opening the file to the result.
    pub ms: f64,
    several: bool,
}

impl<T> Done<'_, T> {
    /// A result of one line, which says whose it is where there is more than one picture.
    pub fn line(&self, text: &str) -> String {
        if self.several {
            format!("{}: {text}", self.image)
        } else {
            text.to_owned()
        }
    }
}

/// Does `work` on every picture that the arguments name and hands the result to `emit`. A picture that fails is
/// complained about and counted.
pub fn each_picture<T>(
    arguments: &[OsString],
    model: &str,
    common: &Common,
    mut work: impl FnMut(&Image) -> Result<T, vlm_tasks::Error>,
    mut emit: impl FnMut(Done<T>) -> std::io::Result<()>,
) -> anyhow::Result<Outcome> {
    let (limits, mut foreign) = (Limits::default(), Vec::new());
    let builtin = builtin::NAMES.contains(&model);
    let outcome = each(
        expand(arguments)?,
        |input| input.read(&limits),
        |image| Ok((work(image)?, builtin && !builtin::looks_rendered(image))),
        |done| {
            let (result, is_foreign) = done.result;
            if is_foreign {
                foreign.push(done.image.to_owned());
            }
            emit(Done {
                image: done.image,
                result,
                ms: done.ms,
                several: done.several,
            })
        },
    )?;
    if let (Some(first), false) = (foreign.first(), common.quiet) {
        let which = match foreign.len() {
            1 => first.clone(),
            n => format!("{n} pictures ({first}, ...)"),
        };
        complain(format_args!("note: {which}: {}", builtin::NOTICE));
    }
    Ok(outcome)
}

/// Reads every input, does `work` on it and hands the result to `emit`. What fails is complained about and counted.
pub fn each<I: fmt::Display, S, T>(
    inputs: Vec<Result<I, String>>,
    read: impl Fn(&I) -> Result<S, vlm_data::Error>,
    mut work: impl FnMut(&S) -> Result<T, vlm_tasks::Error>,
    mut emit: impl FnMut(Done<T>) -> std::io::Result<()>,
) -> anyhow::Result<Outcome> {
    let several = inputs.len() > 1;
    let mut outcome = Outcome::Done;
    for input in inputs {
        let begun = Instant::now();
        let result = input.and_then(|input| {
            let subject = read(&input).map_err(|error| error.to_string())?;
            let name = input.to_string();
            match work(&subject) {
                Ok(result) => Ok((name, result)),
                Err(error) => Err(format!("{name}: {error}")),
            }
        });
        match result {
            Ok((name, result)) => emit(Done {
                image: &name,
                result,
                ms: milliseconds(begun.elapsed()),
                several,
            })?,
            Err(message) => {
                complain(format_args!("{message}"));
                outcome = Outcome::SomeInputsFailed;
            }
        }
    }
    Ok(outcome)
}
