//! Axes: from values to pixels, and the numbers beside them.

/// Values beyond this are gaps: no loss is that large, and differences must not overflow.
const LARGEST: f64 = 1e30;

/// What an axis shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole steps, along the horizontal axis.
    Steps,
    /// Any values.
    Linear,
    /// Positive values by their logarithm.
    Log,
    /// Shares, written in percent.
    Percent,
}

impl Kind {
    /// Whether a value has a place on the axis.
    pub(super) fn can_show(self, value: f64) -> bool {
        match self {
            Self::Log => (1.0 / LARGEST..=LARGEST).contains(&value),
            // Also false for NaN.
            _ => value.abs() <= LARGEST,
        }
    }
}

/// One axis of a panel.
#[derive(Debug)]
pub(super) struct Axis {
    kind: Kind,
    /// The ends of the axis, as logarithms to base 10 for [`Kind::Log`]; `None` if no value has a
    /// place on it. The upper end is above the lower.
    range: Option<(f64, f64)>,
    /// Pixels of the two ends.
    from: f64,
    to: f64,
}

impl Axis {
    pub(super) fn new(
        kind: Kind,
        values: impl IntoIterator<Item = f64>,
        from: f64,
        to: f64,
    ) -> Self {
        let range = values
            .into_iter()
            .filter(|value| kind.can_show(*value))
            .map(|value| {
                if kind == Kind::Log {
                    value.log10()
                } else {
                    value
                }
            })
            .fold(None, |range: Option<(f64, f64)>, value| match range {
                None => Some((value, value)),
                Some((low, high)) => Some((low.min(value), high.max(value))),
            })
            .map(|(low, high)| widen(kind, low, high));
        Self {
            kind,
            range,
            from,
            to,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn is_empty(&self) -> bool {
        self.range.is_none()
    }

    /// The pixel of a value that the axis can show.
    pub(super) fn place(&self, value: f64) -> f64 {
        let (low, high) = self.range.unwrap_or((0.0, 1.0));
        let value = match self.kind {
            Kind::Log => value.log10(),
            _ => value,
        };
        self.from + (value - low) / (high - low) * (self.to - self.from)
    }

    /// Round values along the axis, with their text.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let Some((low, high)) = self.range else {
            return Vec::new();
        };
        let length = (self.to - self.from).abs();
        match self.kind {
            Kind::Log => log_ticks(low, high, length),
            kind => {
                let room = if kind == Kind::Steps { 95.0 } else { 42.0 };
                linear_ticks(kind, low, high, (length / room).clamp(3.0, 10.0))
            }
        }
    }
}

/// Some air around the values, and a range of its own for a single one.
fn widen(kind: Kind, low: f64, high: f64) -> (f64, f64) {
    let span = high - low;
    if kind == Kind::Steps {
        // From the very start if that is near.
        let low = if low <= 0.1 * high { 0.0 } else { low };
        // Steps beyond 2^53 are not all told apart.
        let air = (1e-9 * high).max(1.0);
        return if high - low >= air {
            (low, high)
        } else {
            (low - air, high + air)
        };
    }
    let thousandth = low.abs().max(high.abs()) * 1e-3;
    let least = match kind {
        // About a sixth of a decade; two percent; thousandths of the value.
        Kind::Log => 0.15,
        Kind::Percent => thousandth.max(0.02),
        _ => thousandth.max(1e-9),
    };
    let air = (0.05 * span).max((least - span) / 2.0);
    let (mut bottom, mut top) = (low - air, high + air);
    if kind == Kind::Linear && low >= 0.0 && low <= 0.35 * high {
        bottom = 0.0;
    }
    if kind == Kind::Percent {
        // Shares stay within 0 and 100 %, unless they do not.
        bottom = if low >= 0.0 { bottom.max(0.0) } else { bottom };
        top = if high <= 1.0 { top.min(1.004) } else { top };
    }
    if bottom < top {
        (bottom, top)
    } else {
        (low - 0.5, high + 0.5)
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, about `count` of them or fewer.
fn linear_ticks(kind: Kind, low: f64, high: f64, count: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / count;
    let power = 10_f64.powf(rough.log10().floor());
    let mut step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * 0.9)
        .unwrap_or(10.0 * power);
    if kind == Kind::Steps {
        step = step.max(1.0);
    }
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    // Near the limits of f64 the steps may not move the value; there are never more than 30 ticks.
    (0..30)
        .map(|index| first + f64::from(index))
        .take_while(|multiple| *multiple <= last)
        .map(|multiple| {
            // Not -0.
            let value = multiple * step + 0.0;
            (
                value,
                tick_text(kind, value, step, low.abs().max(high.abs())),
            )
        })
        .collect()
}

/// Powers of ten, with 2 and 5 times them where there is room; evenly spaced round numbers where
/// the axis spans too little for those.
fn log_ticks(low: f64, high: f64, length: f64) -> Vec<(f64, String)> {
    let decade = length / (high - low);
    // Powers that come too close are left out regularly.
    let stride = (22.0 / decade).ceil().max(1.0) as i32;
    let factors: &[f64] = if decade > 90.0 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let (first, last) = (low.floor() as i32, high.ceil() as i32);
    let ticks: Vec<(f64, String)> = (first..=last)
        .filter(|power| power.rem_euclid(stride) == 0)
        .flat_map(|power| {
            factors
                .iter()
                .map(move |factor| factor * 10_f64.powi(power))
        })
        .filter(|value| (low - 1e-9..=high + 1e-9).contains(&value.log10()))
        .map(|value| {
            let text = if (0.9e-3..1.1e5).contains(&value) {
                trim_zeros(grouped(value, 3))
            } else {
                scientific(value)
            };
            (value, text)
        })
        .collect();
    if ticks.len() >= 3 {
        return ticks;
    }
    let count = (length / 45.0).clamp(2.0, 8.0);
    linear_ticks(Kind::Linear, 10_f64.powf(low), 10_f64.powf(high), count)
}

fn tick_text(kind: Kind, value: f64, step: f64, largest: f64) -> String {
    let decimals = |step: f64| (-(step * 1.001).log10().floor()).clamp(0.0, 12.0) as usize;
    match kind {
        Kind::Percent => format!("{} %", grouped(100.0 * value, decimals(100.0 * step))),
        Kind::Steps => grouped(value, 0),
        _ if value == 0.0 => "0".to_owned(),
        _ if !(2e-3..1e6).contains(&largest) => scientific(value),
        _ => grouped(value, decimals(step)),
    }
}

/// Fixed decimals, with a comma between thousands.
fn grouped(value: f64, decimals: usize) -> String {
    let plain = format!("{value:.decimals$}");
    let digits = plain.find('.').unwrap_or(plain.len());
    let start = usize::from(plain.starts_with('-'));
    let mut text = String::new();
    for (index, c) in plain.char_indices() {
        if index > start && index < digits && (digits - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// Like `3e-4`, with up to three more digits where they are needed.
fn scientific(value: f64) -> String {
    let text = format!("{value:.3e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{}e{exponent}", trim_zeros(mantissa.to_owned())),
        None => text,
    }
}

fn trim_zeros(text: String) -> String {
    if text.contains('.') {
        let shorter = text.trim_end_matches('0').trim_end_matches('.');
        return shorter.to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick_texts(kind: Kind, values: [f64; 2], length: f64) -> Vec<String> {
        let axis = Axis::new(kind, values, 0.0, length);
        axis.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let cases: [(Kind, [f64; 2], f64, &[&str]); 9] = [
            (
                Kind::Steps,
                [1.0, 20_000.0],
                500.0,
                &["0", "5,000", "10,000", "15,000", "20,000"],
            ),
            (Kind::Steps, [1.0, 3.0], 800.0, &["1", "2", "3"]),
            (Kind::Linear, [0.1, 4.0], 300.0, &["0", "1", "2", "3", "4"]),
            (
                Kind::Linear,
                [2.11, 2.19],
                200.0,
                &["2.12", "2.14", "2.16", "2.18"],
            ),
            (
                Kind::Linear,
                [0.0, 3e-4],
                90.0,
                &["0", "1e-4", "2e-4", "3e-4"],
            ),
            (
                Kind::Linear,
                [-1e6, 1e6],
                200.0,
                &["-1e6", "-5e5", "0", "5e5", "1e6"],
            ),
            (Kind::Percent, [0.5, 0.97], 180.0, &["60 %", "80 %"]),
            (
                Kind::Log,
                [0.02, 9.0],
                300.0,
                &["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10"],
            ),
            (Kind::Log, [2.0, 2.4], 200.0, &["2.0", "2.2", "2.4", "2.6"]),
        ];
        for (kind, values, length, expected) in cases {
            assert_eq!(
                tick_texts(kind, values, length),
                expected,
                "{kind:?} {values:?}"
            );
        }
    }

    #[test]
    fn every_range_has_ticks_within_the_axis() {
        let values: [f64; 12] = [
            0.0,
            1e-30,
            1e-9,
            0.3,
            0.300_000_1,
            1.0,
            7.0,
            1e6,
            1e15,
            1e30,
            -1.0,
            -1e30,
        ];
        for kind in [Kind::Steps, Kind::Linear, Kind::Log, Kind::Percent] {
            for low in values {
                for high in values {
                    if kind == Kind::Steps && low.min(high) < 0.0 {
                        continue;
                    }
                    let axis = Axis::new(kind, [low, high], 100.0, 400.0);
                    let ticks = axis.ticks();
                    assert_eq!(ticks.is_empty(), axis.is_empty(), "{kind:?} {low} {high}");
                    assert!(ticks.len() <= 30, "{kind:?} {low} {high}");
                    for (value, text) in ticks {
                        let place = axis.place(value);
                        assert!(
                            (99.9..400.1).contains(&place),
                            "{kind:?} {low} {high} {text}"
                        );
                    }
                    for value in [low, high] {
                        let inside = (99.9..400.1).contains(&axis.place(value));
                        assert!(inside || !kind.can_show(value), "{kind:?} {low} {high}");
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_are_written_briefly() {
        assert_eq!(grouped(-1_234_567.5, 1), "-1,234,567.5");
        assert_eq!(grouped(-123.0, 0), "-123");
        assert_eq!(scientific(3e-4), "3e-4");
        assert_eq!(scientific(-1.25e9), "-1.25e9");
    }
}
