//! Time and memory of something done again and again.

use crate::doctor::kilobytes;
use std::time::{Duration, Instant};
use vlm_kernels::report;

/// What repetitions took.
pub struct Measured {
    /// Each repetition.
    pub times: Vec<Duration>,
    /// The processor time of a repetition on average, all threads together; unknown where the system does not say.
    pub processor: Option<Duration>,
    /// The most memory that the process held during them, in MB; unknown where the system does not say.
    pub peak_mb: Option<u64>,
}

/// Does `work` `warmup` times unmeasured and `repeat` times measured.
pub fn measure(warmup: u32, repeat: u32, mut work: impl FnMut()) -> Measured {
    for _ in 0..warmup {
        work();
    }
    forget_peak();
    let processor = ProcessorTime::start();
    let times = (0..repeat)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    Measured {
        times,
        processor: processor.per(repeat),
        peak_mb: peak_mb(),
    }
}

/// The processor time since some moment.
pub struct ProcessorTime(Option<Duration>);

impl ProcessorTime {
    pub fn start() -> Self {
        Self(report::processor_time())
    }

    /// The mean of `repeat` repetitions.
    pub fn per(&self, repeat: u32) -> Option<Duration> {
        let (start, now) = (self.0?, report::processor_time()?);
        Some(now.saturating_sub(start) / repeat.max(1))
    }
}

/// Lets the peak count from now on (Linux, Documentation/filesystems/proc.rst, `clear_refs`).
pub fn forget_peak() {
    // refused by some containers: the peak then counts from the start of the process
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most memory held since [`forget_peak`], in MB.
pub fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kilobytes(&status, "VmHWM").map(|kb| kb / 1024)
}

/// The middle of some durations, or the mean of the two in the middle; zero of none.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    match sorted.len() {
        0 => Duration::ZERO,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let ms = |values: &[u64]| -> Vec<Duration> {
            values.iter().map(|&v| Duration::from_millis(v)).collect()
        };
        assert_eq!(median(&ms(&[9, 1, 5])), Duration::from_millis(5));
        assert_eq!(median(&ms(&[9, 1, 5, 6])), Duration::from_micros(5500));
        assert_eq!(median(&[]), Duration::ZERO);
    }

    #[test]
    fn warm_up_is_done_and_not_measured() {
        let mut done = 0;
        let measured = measure(2, 3, || done += 1);
        assert_eq!((done, measured.times.len()), (5, 3));
    }
}
