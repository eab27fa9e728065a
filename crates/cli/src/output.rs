//! What leaves the program: results on stdout, everything else on stderr.

use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal, StdoutLock, Write};

/// Stdout, as text or as JSON lines. Every result is flushed: someone may be waiting for it.
pub struct Output {
    stdout: StdoutLock<'static>,
    json: bool,
}

impl Output {
    /// Takes stdout.
    pub fn new(json: bool) -> Self {
        Self {
            stdout: io::stdout().lock(),
            json,
        }
    }

    /// Writes a result: `record` as one line of JSON, or `text` with its line break.
    ///
    /// # Errors
    /// One that names stdout, of the same kind as the system's.
    pub fn result(&mut self, record: &impl Serialize, text: &str) -> io::Result<()> {
        self.write(record, text)
            .map_err(|e| io::Error::new(e.kind(), format!("<stdout>: cannot write: {e}")))
    }

    fn write(&mut self, record: &impl Serialize, text: &str) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.stdout, record)?;
            writeln!(self.stdout)?;
        } else {
            let line_break = if text.ends_with('\n') { "" } else { "\n" };
            write!(self.stdout, "{text}{line_break}")?;
        }
        self.stdout.flush()
    }

    /// Whether a person reads it, so that titles may be bold.
    pub fn is_terminal(&self) -> bool {
        self.stdout.is_terminal()
    }
}

/// An error as one line on stderr: `vlm: FILE: what, expected, found`.
pub fn complain(what: fmt::Arguments) {
    // without a stderr there is no one to tell
    let _ = writeln!(io::stderr(), "vlm: {}", one_line(&what.to_string()));
}

/// The first lines of a long message, such as the differences of a checkpoint, joined into one.
fn one_line(message: &str) -> String {
    const SHOWN: usize = 4;
    let lines: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let mut line = lines[..lines.len().min(SHOWN)].join("; ");
    if lines.len() > SHOWN {
        line += &format!("; and {} more", lines.len() - SHOWN);
    }
    line.replace(|c: char| c.is_control(), " ")
}

/// Whether the reader of stdout went away, as `head` does.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// A share or cosine with as many digits as mean something.
pub fn rounded(number: f32) -> f64 {
    (f64::from(number) * 1e6).round() / 1e6
}

/// Milliseconds to a tenth.
pub fn milliseconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_many_lines_become_one() {
        assert_eq!(one_line("a\n  b\n\nc"), "a; b; c");
        assert_eq!(one_line("0\n1\n2\n3\n4\n5"), "0; 1; 2; 3; and 2 more");
        assert_eq!(
            one_line("bell\u{7} and \u{1b}[31mred"),
            "bell  and  [31mred"
        );
        assert_eq!(one_line(""), "");
    }
}
