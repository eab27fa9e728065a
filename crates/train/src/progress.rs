//! How far the training is: a bar on a terminal, plain lines elsewhere.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is shown of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// Loss of the step, possibly smoothed.
    pub loss: f64,
    /// Training samples per second.
    pub samples_per_second: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Time left, if it can be told.
    pub remaining: Option<Duration>,
}

impl StepReport {
    /// What stands behind the bar: all but the step.
    fn figures(&self) -> String {
        let left = match self.remaining {
            Some(remaining) => format_duration(remaining),
            None => "?".to_owned(),
        };
        let rate = self.samples_per_second;
        let decimals = if rate < 10.0 { 1 } else { 0 };
        format!(
            "loss {:.4}  {rate:.decimals$} samples/s  lr {:.2e}  {left} left",
            self.loss, self.learning_rate
        )
    }
}

/// The report as a plain line: `step 120/20000  loss 2.3457  512 samples/s  lr 3.00e-4  1 h 02 min
/// left`.
impl fmt::Display for StepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}/{}  {}", self.step, self.total, self.figures())
    }
}

/// A duration in at most two units: `45 s`, `3 min 20 s`, `1 h 02 min`, `2 d 03 h`.
pub fn format_duration(duration: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    // Rounded, so that 59.9 s is a minute.
    let half_up = u64::from(duration.subsec_millis() >= 500);
    let seconds = duration.as_secs().saturating_add(half_up);
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min {:02} s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{} h {:02} min", seconds / HOUR, seconds % HOUR / MINUTE),
        _ => format!("{} d {:02} h", seconds / DAY, seconds % DAY / HOUR),
    }
}

/// Speed of the recent steps, as a moving average.
///
/// Only steps of this run are to be counted: what was done before a resume took its own time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Throughput {
    /// Total weight of the averages, approaching 1.
    weight: f64,
    seconds: f64,
    samples: f64,
}

impl Throughput {
    /// Weight of what came before against one new step.
    const MEMORY: f64 = 0.95;

    /// Counts a step of `samples` samples that took `time`.
    pub fn record(&mut self, samples: usize, time: Duration) {
        let average = |old: f64, new: f64| Self::MEMORY * old + (1.0 - Self::MEMORY) * new;
        self.weight = average(self.weight, 1.0);
        self.seconds = average(self.seconds, time.as_secs_f64());
        self.samples = average(self.samples, samples as f64);
    }

    /// Samples per second; 0 before the first step.
    pub fn samples_per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.samples / self.seconds
        } else {
            0.0
        }
    }

    /// Time that `steps` more steps take; `None` before the first step.
    pub fn remaining(&self, steps: u64) -> Option<Duration> {
        let seconds = self.seconds / self.weight * steps as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// Shows the training's progress on stderr. What cannot be written is not shown: a closed stderr
/// does not end a training.
pub struct TrainingProgress {
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines(Lines<io::Stderr>),
    Nothing,
}

impl TrainingProgress {
    /// A bar if stderr is a terminal, else a line every `line_interval`; nothing if `quiet`.
    pub fn new(total: u64, line_interval: Duration, quiet: bool) -> Self {
        let shown = if quiet {
            Shown::Nothing
        } else if io::stderr().is_terminal() {
            Shown::Bar(bar(total, ProgressDrawTarget::stderr()))
        } else {
            Shown::Lines(Lines::new(io::stderr(), line_interval))
        };
        Self { shown }
    }

    /// Shows a finished step; call it after each.
    pub fn step(&mut self, report: &StepReport) {
        match &mut self.shown {
            Shown::Bar(bar) => show_on_bar(bar, report),
            Shown::Lines(lines) => lines.step(report, Instant::now()),
            Shown::Nothing => {}
        }
    }

    /// Shows a line of its own, such as a validation result, above the bar.
    pub fn note(&mut self, text: &str) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.println(text),
            Shown::Lines(lines) => lines.write(text),
            Shown::Nothing => {}
        }
    }

    /// Leaves the last state on the screen and ends the line.
    pub fn finish(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.abandon();
        }
    }
}

fn bar(total: u64, target: ProgressDrawTarget) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("##-");
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}

fn show_on_bar(bar: &ProgressBar, report: &StepReport) {
    bar.set_length(report.total);
    bar.set_message(report.figures());
    bar.set_position(report.step);
}

/// Progress as lines: the first step, the last, and one every `interval` between.
struct Lines<W> {
    out: W,
    interval: Duration,
    last: Option<Instant>,
}

impl<W: Write> Lines<W> {
    fn new(out: W, interval: Duration) -> Self {
        Self {
            out,
            interval,
            last: None,
        }
    }

    fn step(&mut self, report: &StepReport, now: Instant) {
        let due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= self.interval);
        if due || report.step >= report.total {
            self.write(&report.to_string());
            self.last = Some(now);
        }
    }

    fn write(&mut self, line: &str) {
        // In one write, so that lines of several processes do not mix.
        let _ = self.out.write_all(format!("{line}\n").as_bytes());
        let _ = self.out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: u64) -> StepReport {
        StepReport {
            step,
            total: 20_000,
            loss: 2.345_67,
            samples_per_second: 512.4,
            learning_rate: 3e-4,
            remaining: Some(Duration::from_secs(3_725)),
        }
    }

    #[test]
    fn a_report_is_one_line() {
        assert_eq!(
            report(120).to_string(),
            "step 120/20000  loss 2.3457  512 samples/s  lr 3.00e-4  1 h 02 min left"
        );
        let diverged = StepReport {
            loss: f64::NAN,
            samples_per_second: 0.25,
            remaining: None,
            ..report(1)
        };
        assert_eq!(
            diverged.to_string(),
            "step 1/20000  loss NaN  0.2 samples/s  lr 3.00e-4  ? left"
        );
    }

    #[test]
    fn durations_have_at_most_two_units() {
        let cases = [
            (0.0, "0 s"),
            (59.4, "59 s"),
            (59.6, "1 min 00 s"),
            (200.0, "3 min 20 s"),
            (3_599.9, "1 h 00 min"),
            (3_725.0, "1 h 02 min"),
            (183_700.0, "2 d 03 h"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(format_duration(Duration::from_secs_f64(seconds)), expected);
        }
        assert!(format_duration(Duration::MAX).ends_with(" h"));
    }

    #[test]
    fn throughput_is_exact_for_even_steps_and_follows_a_change() {
        let mut throughput = Throughput::default();
        assert_eq!(throughput.samples_per_second(), 0.0);
        assert_eq!(throughput.remaining(10), None);
        for _ in 0..3 {
            throughput.record(64, Duration::from_millis(500));
            assert!((throughput.samples_per_second() - 128.0).abs() < 1e-9);
            let remaining = throughput.remaining(10).unwrap().as_secs_f64();
            assert!((remaining - 5.0).abs() < 1e-6);
        }
        for _ in 0..200 {
            throughput.record(64, Duration::from_millis(250));
        }
        assert!((throughput.samples_per_second() - 256.0).abs() < 0.1);
        assert!(throughput.remaining(u64::MAX).is_some());
    }

    #[test]
    fn lines_come_first_at_intervals_and_last() {
        let mut lines = Lines::new(Vec::new(), Duration::from_secs(10));
        let start = Instant::now();
        for step in 1..=25 {
            let now = start + Duration::from_secs(step);
            let report = StepReport {
                total: 25,
                ..report(step)
            };
            lines.step(&report, now);
        }
        lines.write("done");
        let text = String::from_utf8(lines.out).unwrap();
        let starts: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split("  ").next())
            .collect();
        assert_eq!(
            starts,
            [
                "step 1/25",
                "step 11/25",
                "step 21/25",
                "step 25/25",
                "done"
            ]
        );
    }

    #[test]
    fn a_closed_stderr_does_not_end_a_training() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut lines = Lines::new(Closed, Duration::ZERO);
        lines.step(&report(1), Instant::now());
        assert!(lines.last.is_some());
    }

    #[test]
    fn the_bar_takes_position_length_and_message_from_the_report() {
        let bar = bar(5, ProgressDrawTarget::hidden());
        show_on_bar(&bar, &report(120));
        assert_eq!((bar.position(), bar.length()), (120, Some(20_000)));
        assert_eq!(bar.message(), report(120).figures());
    }
}
