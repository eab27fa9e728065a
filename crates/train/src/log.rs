//! The training log: one JSON object a line, each with the step it belongs to.
//!
//! ```json
//! {"step":100,"loss":2.31,"lr":0.0003,"samples_per_s":512.0}
//! {"step":500,"val":{"accuracy":0.81}}
//! ```
//!
//! A number that is not finite is written as `null`, for JSON has no other way, and read back as
//! NaN. Lines are appended whole, so that a crash leaves at most one torn line, the last.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

/// Longest line that is read, in bytes; anything longer is not a training log.
const MAX_LINE: usize = 1 << 20;

/// Why a log cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system said no.
    #[error("{}: cannot {action} the training log: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A line is not a record.
    #[error("{}:{line}: expected {expected}, found {found}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What a log has there.
        expected: &'static str,
        /// What this one has.
        found: String,
    },
    /// What should be logged is not a JSON object.
    #[error("training log: expected a record with named fields, found {found}")]
    Record {
        /// What was given instead.
        found: String,
    },
}

/// Appends records to a log file, each complete on disk (as far as the operating system goes)
/// when [`LogWriter::append`] returns.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
}

impl LogWriter {
    /// Starts a new log, replacing what was there.
    ///
    /// # Errors
    /// [`LogError::Io`] if the file cannot be created.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, LogError> {
        let path = path.into();
        // Append mode does not go with truncation in one call.
        File::create(&path).map_err(io_error(&path, "create"))?;
        Self::open(path)
    }

    /// Goes on with the log of an interrupted run from a checkpoint taken after `step`: a torn
    /// last line and the lines of later steps, which are about to be repeated, are dropped. The
    /// shortened log replaces the old one in one piece. A missing log is started anew.
    ///
    /// # Errors
    /// [`LogError::Io`], or [`LogError::Line`] for a line that is no record; the log is then as it
    /// was.
    pub fn resume(path: impl Into<PathBuf>, step: u64) -> Result<Self, LogError> {
        let path = path.into();
        if !path.try_exists().map_err(io_error(&path, "find"))? {
            return Self::create(path);
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let shortened = PathBuf::from(name);
        let replaced = copy_until(&path, &shortened, step)
            .and_then(|()| std::fs::rename(&shortened, &path).map_err(io_error(&path, "replace")));
        if let Err(error) = replaced {
            // The first error is the one to report.
            let _ = std::fs::remove_file(&shortened);
            return Err(error);
        }
        Self::open(path)
    }

    fn open(path: PathBuf) -> Result<Self, LogError> {
        let file = File::options()
            .append(true)
            .open(&path)
            .map_err(io_error(&path, "open"))?;
        Ok(Self { path, file })
    }

    /// Appends `{"step":step, ...fields}` as a line. A field of that name in `fields` is
    /// overruled.
    ///
    /// # Errors
    /// [`LogError::Record`] if `fields` is not a struct or map, [`LogError::Io`] if it cannot be
    /// written, such as on a full disk; the log then ends after the line before.
    pub fn append(&mut self, step: u64, fields: &impl Serialize) -> Result<(), LogError> {
        let fields = match serde_json::to_value(fields) {
            Ok(Value::Object(fields)) => fields,
            Ok(other) => {
                return Err(LogError::Record {
                    found: kind_of(&other).to_owned(),
                });
            }
            Err(error) => {
                return Err(LogError::Record {
                    found: error.to_string(),
                });
            }
        };
        let mut record = Map::new();
        record.insert("step".to_owned(), step.into());
        record.extend(fields.into_iter().filter(|(name, _)| name != "step"));
        let line = format!("{}\n", Value::Object(record));

        let written = self.file.metadata().and_then(|before| {
            self.file.write_all(line.as_bytes()).inspect_err(|_| {
                // Half a line in the middle would spoil the log; the first error is reported.
                let _ = self.file.set_len(before.len());
            })
        });
        written.map_err(io_error(&self.path, "append to"))
    }
}

/// The records of a log, in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Log {
    records: Vec<(u64, Map<String, Value>)>,
}

impl Log {
    /// Reads a log, also one that is being written: a torn last line is left out.
    ///
    /// # Errors
    /// [`LogError::Io`], or [`LogError::Line`] for any other line that is no record.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, LogError> {
        let mut records = Vec::new();
        for_each_record(path.as_ref(), |step, record, _| {
            records.push((step, record));
            Ok(())
        })?;
        Ok(Self { records })
    }

    /// The records with their steps; each record also has its `step` field.
    pub fn records(&self) -> &[(u64, Map<String, Value>)] {
        &self.records
    }

    /// All values of a numeric field over the steps, for plotting; `null` is NaN, and records
    /// without the field, or with something else there, are skipped. `key` may lead into nested
    /// objects: `val.accuracy`.
    pub fn series(&self, key: &str) -> Vec<(u64, f64)> {
        let value = |record: &Map<String, Value>| {
            let mut path = key.split('.');
            let first = record.get(path.next()?)?;
            let value = path.try_fold(first, |value, name| value.get(name))?;
            if value.is_null() {
                Some(f64::NAN)
            } else {
                value.as_f64()
            }
        };
        let points = self.records.iter();
        points
            .filter_map(|(step, record)| Some((*step, value(record)?)))
            .collect()
    }
}

/// Writes those lines of `from` that belong to steps up to `step` to `to`, byte for byte.
fn copy_until(from: &Path, to: &Path, step: u64) -> Result<(), LogError> {
    let file = File::create(to).map_err(io_error(to, "create"))?;
    let mut writer = BufWriter::new(file);
    for_each_record(from, |line_step, _, line| {
        if line_step > step {
            return Ok(());
        }
        writer
            .write_all(line)
            .and_then(|()| writer.write_all(b"\n"))
            .map_err(io_error(to, "write"))
    })?;
    let file = writer
        .into_inner()
        .map_err(|error| io_error(to, "write")(error.into_error()))?;
    file.sync_all().map_err(io_error(to, "write"))
}

/// Calls `visit` with step, record and bytes (without the newline) of each line.
fn for_each_record(
    path: &Path,
    mut visit: impl FnMut(u64, Map<String, Value>, &[u8]) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let file = File::open(path).map_err(io_error(path, "open"))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let limited = &mut reader.by_ref().take(MAX_LINE as u64 + 1);
        let length = limited
            .read_until(b'\n', &mut line)
            .map_err(io_error(path, "read"))?;
        if length == 0 {
            break;
        }
        let complete = line.pop_if(|byte| *byte == b'\n').is_some();
        let problem = |expected, found| LogError::Line {
            path: path.to_owned(),
            line: number,
            expected,
            found,
        };
        if length > MAX_LINE {
            let found = format!("more than {MAX_LINE} bytes");
            return Err(problem("a line of a training log", found));
        }
        let record = match serde_json::from_slice(&line) {
            Ok(Value::Object(record)) => record,
            // No beginning of an object is an object, so what is torn does not parse.
            Err(_) if !complete => break,
            Ok(other) => return Err(problem("a JSON object", kind_of(&other).to_owned())),
            Err(error) => return Err(problem("a JSON object", error.to_string())),
        };
        let step = record.get("step");
        let Some(step_number) = step.and_then(Value::as_u64) else {
            let found = step.map_or("none".to_owned(), Value::to_string);
            return Err(problem("a whole number as `step`", found));
        };
        visit(step_number, record, &line)?;
    }
    Ok(())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn io_error(path: &Path, action: &'static str) -> impl Fn(io::Error) -> LogError {
    move |source| LogError::Io {
        path: path.to_owned(),
        action,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fields {
        loss: f64,
        lr: f64,
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn what_is_appended_is_read_back_as_series() {
        let directory = directory();
        let path = directory.path().join("log.jsonl");
        let mut log = LogWriter::create(&path).unwrap();
        log.append(1, &Fields { loss: 2.5, lr: 0.1 }).unwrap();
        let diverged = Fields {
            loss: f64::NAN,
            lr: 0.2,
        };
        log.append(2, &diverged).unwrap();
        let validation = serde_json::json!({"val": {"accuracy": 0.5, "by": "type"}, "step": 99});
        log.append(3, &validation).unwrap();

        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], r#"{"step":1,"loss":2.5,"lr":0.1}"#);
        assert_eq!(lines[1], r#"{"step":2,"loss":null,"lr":0.2}"#);

        // Readable while it is open for writing.
        let read = Log::read(&path).unwrap();
        assert_eq!(read.records().len(), 3);
        assert_eq!(read.series("lr"), [(1, 0.1), (2, 0.2)]);
        assert_eq!(read.series("val.accuracy"), [(3, 0.5)]);
        let loss = read.series("loss");
        assert_eq!(loss[0], (1, 2.5));
        assert!(loss[1].0 == 2 && loss[1].1.is_nan() && loss.len() == 2);
        for absent in ["", "val", "val.by", "val.accuracy.x", "missing"] {
            assert_eq!(read.series(absent), [], "{absent:?}");
        }
    }

    #[test]
    fn resuming_drops_a_torn_line_and_later_steps_and_keeps_the_rest_to_the_byte() {
        let directory = directory();
        let path = directory.path().join("log.jsonl");
        let kept = "{\"step\":1, \"loss\": 1.50}\n{\"step\":2,\"é\":1}\n";
        let later = "{\"step\":3}\n{\"step\":2,\"val\":1}\n{\"step\":4}\n";
        std::fs::write(&path, format!("{kept}{later}{{\"step\":5,\"lo")).unwrap();
        let mut log = LogWriter::resume(&path, 2).unwrap();
        log.append(3, &serde_json::json!({"loss": 1})).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{kept}{{\"step\":2,\"val\":1}}\n{{\"step\":3,\"loss\":1}}\n")
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn resuming_keeps_a_whole_last_line_that_only_lacks_its_newline() {
        let directory = directory();
        let path = directory.path().join("log.jsonl");
        std::fs::write(&path, "{\"step\":1}\n{\"step\":2}").unwrap();
        let mut log = LogWriter::resume(&path, 9).unwrap();
        log.append(10, &serde_json::json!({})).unwrap();
        let steps: Vec<u64> = Log::read(&path)
            .unwrap()
            .records()
            .iter()
            .map(|r| r.0)
            .collect();
        assert_eq!(steps, [1, 2, 10]);
    }

    #[test]
    fn resuming_without_a_log_starts_one_and_creating_replaces_one() {
        let directory = directory();
        let path = directory.path().join("log.jsonl");
        let mut log = LogWriter::resume(&path, 5).unwrap();
        log.append(6, &serde_json::json!({})).unwrap();
        assert_eq!(Log::read(&path).unwrap().records().len(), 1);
        LogWriter::create(&path).unwrap();
        assert_eq!(Log::read(&path).unwrap(), Log::default());
    }

    #[test]
    fn lines_that_are_no_records_are_named_and_leave_the_log_alone() {
        let directory = directory();
        let path = directory.path().join("log.jsonl");
        let long = format!("{{\"step\":1,\"x\":\"{}\"}}\n", "x".repeat(MAX_LINE));
        let cases = [
            (
                "{\"step\":1}\nnot json\n",
                ":2: expected a JSON object, found expected",
            ),
            ("[1]\n", ":1: expected a JSON object, found a list"),
            (
                "{\"step\":1}\n\n{\"step\":2}\n",
                ":2: expected a JSON object, found EOF",
            ),
            (
                "{\"loss\":1}\n",
                ":1: expected a whole number as `step`, found none",
            ),
            (
                "{\"step\":-1}\n",
                ":1: expected a whole number as `step`, found -1",
            ),
            (
                &long,
                ":1: expected a line of a training log, found more than",
            ),
        ];
        for (text, message) in cases {
            std::fs::write(&path, text).unwrap();
            let read = Log::read(&path).unwrap_err().to_string();
            assert!(read.contains(message), "{read}");
            let resumed = LogWriter::resume(&path, 1).unwrap_err().to_string();
            assert_eq!(read, resumed);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn errors_name_the_file_and_what_was_tried() {
        let directory = directory();
        let path = directory.path().join("missing").join("log.jsonl");
        for error in [
            LogWriter::create(&path).unwrap_err(),
            Log::read(&path).unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(message.contains("log.jsonl: cannot "), "{message}");
        }
        let mut log = LogWriter::create(directory.path().join("log.jsonl")).unwrap();
        let error = log.append(1, &[1, 2]).unwrap_err();
        assert!(error.to_string().ends_with("found a list"), "{error}");
    }
}
