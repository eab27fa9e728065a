//! Curves of a training run as one SVG picture, without dependencies.
//!
//! Panels stand one above the other over a common axis of steps: the loss, and where given the
//! validation metrics and the learning rate. Values that cannot be drawn (not finite, beyond
//! ±10³⁰, or not positive on a logarithmic scale) leave a gap in their line.
//!
//! ```
//! use vlm_train::plot::{Panel, Plot, Series};
//! let loss = Series::new("train", (1..=200).map(|step| (step, 3.0 / step as f64)));
//! let plot = Plot {
//!     title: "vlm-tiny".to_owned(),
//!     x_label: "step".to_owned(),
//!     panels: vec![Panel::loss(vec![loss]).log_scale()],
//! };
//! assert!(plot.to_svg().starts_with("<svg "));
//! ```

mod canvas;
mod comparison;
mod scale;
mod svg;

pub use comparison::{Comparison, ComparisonColumn, ComparisonRow};

use scale::{Axis, Kind};
use svg::{Svg, text_width};

/// A curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Steps and values; drawn in the order of steps.
    pub points: Vec<(u64, f64)>,
}

impl Series {
    /// A curve of these points.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (u64, f64)>) -> Self {
        Self {
            name: name.into(),
            points: points.into_iter().collect(),
        }
    }
}

/// How values are laid out along the vertical axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// Evenly.
    #[default]
    Linear,
    /// By their logarithm.
    Log,
    /// Evenly, with 1 written as 100 %.
    Percent,
}

/// One diagram.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What the vertical axis shows.
    pub y_label: String,
    /// The curves.
    pub series: Vec<Series>,
    /// The vertical axis.
    pub scale: Scale,
    /// Whether to draw a moving average over the faint values themselves.
    pub smooth: bool,
    /// Height of the drawing area in pixels.
    pub height: u32,
}

impl Panel {
    /// Losses: linear, smoothed.
    pub fn loss(series: Vec<Series>) -> Self {
        Self {
            y_label: "loss".to_owned(),
            series,
            scale: Scale::Linear,
            smooth: true,
            height: 300,
        }
    }

    /// Validation metrics in 0..=1, such as an accuracy, in percent.
    pub fn percent(y_label: impl Into<String>, series: Vec<Series>) -> Self {
        Self {
            y_label: y_label.into(),
            series,
            scale: Scale::Percent,
            smooth: false,
            height: 220,
        }
    }

    /// The learning rate.
    pub fn learning_rate(series: Series) -> Self {
        Self {
            y_label: "learning rate".to_owned(),
            series: vec![series],
            scale: Scale::Linear,
            smooth: false,
            height: 90,
        }
    }

    /// The same panel on a logarithmic scale.
    #[must_use]
    pub fn log_scale(mut self) -> Self {
        self.scale = Scale::Log;
        self
    }
}

/// A picture of panels.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// Above all panels.
    pub title: String,
    /// Below the last panel.
    pub x_label: String,
    /// From top to bottom.
    pub panels: Vec<Panel>,
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 34.0;
/// Room for the title.
const TOP: f64 = 48.0;
/// Room for the numbers and the label below a panel.
const BELOW: f64 = 26.0;
const X_LABEL: f64 = 12.0;
/// A line of the legend, which stands above its panel.
const LEGEND_LINE: f64 = 20.0;
const BETWEEN: f64 = 12.0;
/// Curves with at most this many points get a mark at each and are not smoothed.
const MARKED_POINTS: usize = 40;
/// The moving average looks back over about this share of the curve.
const SMOOTHING: f64 = 1.0 / 100.0;

const INK: &str = "#24292f";
const MUTED: &str = "#6a737d";
const GRID: &str = "#e4e7eb";
const FRAME: &str = "#b6bdc6";
/// Okabe and Ito's colours, which most colour-blind people can tell apart, without the yellow.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555",
];

impl Plot {
    /// The picture as an SVG document. It is a valid picture whatever the values are; a panel with
    /// nothing to draw says so.
    pub fn to_svg(&self) -> String {
        let legends: Vec<Vec<LegendEntry>> = self.panels.iter().map(legend).collect();
        let height = TOP
            + self
                .panels
                .iter()
                .zip(&legends)
                .map(|(panel, legend)| {
                    legend_height(legend) + drawn_height(panel) + BELOW + BETWEEN
                })
                .sum::<f64>()
            + X_LABEL;
        let height = if self.panels.is_empty() {
            height + 100.0
        } else {
            height
        };

        let mut svg = Svg::new(WIDTH, height, &self.title);
        svg.text(
            LEFT,
            30.0,
            &shorten(&self.title, 90),
            "start",
            INK,
            17,
            true,
        );
        if self.panels.is_empty() {
            svg.text(
                WIDTH / 2.0,
                TOP + 50.0,
                "nothing to plot",
                "middle",
                MUTED,
                14,
                false,
            );
        }
        let x_axis = self.x_axis();
        let mut top = TOP;
        for (panel, legend) in self.panels.iter().zip(&legends) {
            top += legend_height(legend);
            panel.draw(&mut svg, top, &x_axis, legend);
            top += drawn_height(panel) + BELOW + BETWEEN;
        }
        if !self.panels.is_empty() {
            let middle = (LEFT + WIDTH - RIGHT) / 2.0;
            let label = shorten(&self.x_label, 90);
            svg.text(
                middle,
                top - BETWEEN + 8.0,
                &label,
                "middle",
                INK,
                12,
                false,
            );
        }
        svg.finish()
    }

    /// The steps of everything that is drawn in any panel.
    fn x_axis(&self) -> Axis {
        let steps = self.panels.iter().flat_map(|panel| {
            let series = panel.series.iter().flat_map(|series| &series.points);
            series
                .filter(|(_, value)| panel.y_kind().can_show(*value))
                .map(|(step, _)| *step as f64)
        });
        Axis::new(Kind::Steps, steps, LEFT, WIDTH - RIGHT)
    }
}

impl Panel {
    fn y_kind(&self) -> Kind {
        match self.scale {
            Scale::Linear => Kind::Linear,
            Scale::Log => Kind::Log,
            Scale::Percent => Kind::Percent,
        }
    }

    /// Draws the panel with its upper edge at `top`; the legend goes above.
    fn draw(&self, svg: &mut Svg, top: f64, x_axis: &Axis, legend: &[LegendEntry]) {
        let bottom = top + drawn_height(self);
        let right = WIDTH - RIGHT;
        let values = self.series.iter().flat_map(|series| &series.points);
        let y_axis = Axis::new(self.y_kind(), values.map(|(_, value)| *value), bottom, top);

        let label = shorten(&self.y_label, 40);
        let label_line = top - legend_height(legend) + 14.0;
        svg.text(LEFT, label_line, &label, "start", INK, 13, true);

        if x_axis.is_empty() || y_axis.is_empty() {
            svg.frame(LEFT, top, right, bottom, FRAME);
            let (x, y) = ((LEFT + right) / 2.0, (top + bottom) / 2.0 + 5.0);
            svg.text(x, y, "no values to plot yet", "middle", MUTED, 14, false);
            return;
        }
        for (value, label) in y_axis.ticks() {
            let y = y_axis.place(value);
            svg.line((LEFT, y), (right, y), GRID);
            svg.text(LEFT - 8.0, y + 4.0, &label, "end", MUTED, 11, false);
        }
        for (step, label) in x_axis.ticks() {
            let x = x_axis.place(step);
            svg.line((x, top), (x, bottom), GRID);
            svg.text(x, bottom + 17.0, &label, "middle", MUTED, 11, false);
        }
        svg.frame(LEFT, top, right, bottom, FRAME);

        for (index, series) in self.series.iter().enumerate() {
            let (colour, dash) = style(index);
            let mut points = series.points.clone();
            points.sort_by_key(|(step, _)| *step);
            let raw = Strokes::new(&points, x_axis, &y_axis);
            let count = raw.points();
            if self.smooth && count > MARKED_POINTS {
                svg.strokes(&raw.strokes, colour, 1.0, 0.28, dash);
                let smoothed =
                    Strokes::new(&moving_average(&points, y_axis.kind()), x_axis, &y_axis);
                svg.strokes(&smoothed.strokes, colour, 2.0, 1.0, dash);
            } else {
                svg.strokes(&raw.strokes, colour, 1.8, 1.0, dash);
                if count <= MARKED_POINTS {
                    svg.marks(&raw.strokes, colour);
                }
            }
        }
        for entry in legend {
            let y = top - legend_height(legend) + 14.0 + entry.line as f64 * LEGEND_LINE;
            let (colour, dash) = style(entry.series);
            let swatch = [vec![(entry.x, y - 4.0), (entry.x + 20.0, y - 4.0)]];
            svg.strokes(&swatch, colour, 2.5, 1.0, dash);
            svg.text(entry.x + 26.0, y, &entry.text, "start", INK, 12, false);
        }
    }
}

fn drawn_height(panel: &Panel) -> f64 {
    f64::from(panel.height.clamp(40, 4_000))
}

/// Colours in turn; when all are used, dashed.
fn style(index: usize) -> (&'static str, &'static str) {
    const DASHES: [&str; 3] = ["", "6 3", "2 3"];
    let dash = DASHES[index / COLOURS.len() % DASHES.len()];
    (COLOURS[index % COLOURS.len()], dash)
}

/// The moving average, corrected for its start as Adam's is. A gap stays a gap and is not averaged.
fn moving_average(points: &[(u64, f64)], kind: Kind) -> Vec<(u64, f64)> {
    let window = (points.len() as f64 * SMOOTHING).max(2.0);
    let memory = 1.0 - 1.0 / window;
    let (mut average, mut weight) = (0.0, 0.0);
    let smooth = |&(step, value): &(u64, f64)| {
        if !kind.can_show(value) {
            return (step, f64::NAN);
        }
        average = memory * average + (1.0 - memory) * value;
        weight = memory * weight + (1.0 - memory);
        (step, average / weight)
    };
    points.iter().map(smooth).collect()
}

/// A curve in pixels, broken at its gaps.
struct Strokes {
    strokes: Vec<Vec<(f64, f64)>>,
}

impl Strokes {
    /// However many points there are, each column of pixels gets four at most: where the curve
    /// enters, its lowest and its highest point, and where it leaves.
    fn new(points: &[(u64, f64)], x_axis: &Axis, y_axis: &Axis) -> Self {
        let mut strokes = Vec::new();
        let drawable = |&(_, value): &(u64, f64)| y_axis.kind().can_show(value);
        for run in points.split(|point| !drawable(point)) {
            let mut stroke: Vec<(f64, f64)> = Vec::new();
            let place =
                |&(step, value): &(u64, f64)| (x_axis.place(step as f64), y_axis.place(value));
            let run: Vec<(f64, f64)> = run.iter().map(place).collect();
            for column in run.chunk_by(|a, b| a.0.floor() == b.0.floor()) {
                if column.len() <= 4 {
                    stroke.extend(column);
                    continue;
                }
                let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
                let low = column.iter().min_by(by_height).copied();
                let high = column.iter().max_by(by_height).copied();
                let mut inner: Vec<(f64, f64)> = low.into_iter().chain(high).collect();
                inner.sort_by(|a, b| a.0.total_cmp(&b.0));
                stroke.extend(column.first());
                stroke.extend(inner);
                stroke.extend(column.last());
            }
            if !stroke.is_empty() {
                strokes.push(stroke);
            }
        }
        Self { strokes }
    }

    fn points(&self) -> usize {
        self.strokes.iter().map(Vec::len).sum()
    }
}

struct LegendEntry {
    series: usize,
    text: String,
    line: usize,
    x: f64,
}

/// Names, of metrics with their last values, set from the left after the panel's label, in as many lines as needed.
fn legend(panel: &Panel) -> Vec<LegendEntry> {
    const SWATCH: f64 = 26.0;
    const GAP: f64 = 18.0;
    let start = LEFT + 24.0 + text_width(&shorten(&panel.y_label, 40), 13) * 1.1;
    let (mut x, mut line) = (start, 0);
    let mut entries = Vec::new();
    for (index, series) in panel.series.iter().enumerate() {
        let kind = panel.y_kind();
        let last = series
            .points
            .iter()
            .filter(|(_, value)| kind.can_show(*value))
            .max_by_key(|(step, _)| *step);
        let name = shorten(&series.name, 32);
        let text = match last {
            // A metric's last value is its result; that of a noisy loss says little.
            Some((_, value)) if kind == Kind::Percent => format!("{name} {:.1} %", 100.0 * value),
            Some(_) => name,
            None => format!("{name} (no values)"),
        };
        let width = SWATCH + text_width(&text, 12) + GAP;
        if x + width > WIDTH - RIGHT + GAP && x > start {
            line += 1;
            x = start;
        }
        entries.push(LegendEntry {
            series: index,
            text,
            line,
            x,
        });
        x += width;
    }
    entries
}

fn legend_height(legend: &[LegendEntry]) -> f64 {
    let lines = legend.last().map_or(1, |entry| entry.line + 1);
    lines as f64 * LEGEND_LINE + 2.0
}

/// At most `length` characters, the last of which is then an ellipsis.
fn shorten(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let start: String = text.chars().take(length.saturating_sub(1)).collect();
    format!("{}\u{2026}", start.trim_end())
}

#[cfg(test)]
mod tests;
