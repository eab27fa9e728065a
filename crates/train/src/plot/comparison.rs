//! Scores of several models beside each other, with their intervals, as one picture.

use super::canvas::{Anchor, Canvas, Raster};
use super::scale::{Axis, Kind};
use super::svg::Svg;
use super::{COLOURS, GRID, INK, MUTED, shorten};
use vlm_tasks::metrics::Interval;
use vlm_worlds::shapes::Picture;

/// Models in rows, scores in columns; each score is known of up to two sets of pictures.
///
/// ```
/// use vlm_tasks::metrics::Interval;
/// use vlm_train::plot::{Comparison, ComparisonColumn, ComparisonRow};
/// let accuracy = Interval { estimate: 0.7, low: 0.65, high: 0.75 };
/// let comparison = Comparison {
///     title: "two models".to_owned(),
///     sets: vec!["test".to_owned(), "compositional".to_owned()],
///     note: String::new(),
///     columns: vec![ComparisonColumn { title: "VQA accuracy".to_owned(), percent: true }],
///     facts: vec!["parameters".to_owned()],
///     rows: vec![ComparisonRow {
///         name: "clip".to_owned(),
///         group: "generations".to_owned(),
///         scores: vec![[Some(accuracy), None]],
///         facts: vec!["0.3 M".to_owned()],
///     }],
/// };
/// assert!(comparison.to_svg().starts_with("<svg "));
/// assert!(comparison.to_png().starts_with(b"\x89PNG"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Above everything.
    pub title: String,
    /// What the sets of pictures are called, two at most.
    pub sets: Vec<String>,
    /// Said of the whole, such as what the intervals are.
    pub note: String,
    /// The scores that are drawn.
    pub columns: Vec<ComparisonColumn>,
    /// Titles of what is written behind them.
    pub facts: Vec<String>,
    /// From top to bottom; rows of one group stand together under its name.
    pub rows: Vec<ComparisonRow>,
}

/// A score.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparisonColumn {
    /// Its name.
    pub title: String,
    /// Whether 1 is written as 100 %.
    pub percent: bool,
}

/// A model.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparisonRow {
    /// Its name.
    pub name: String,
    /// What it stands with.
    pub group: String,
    /// For each column the score on each set; none for what the model cannot do.
    pub scores: Vec<[Option<Interval>; 2]>,
    /// For each title of [`Comparison::facts`] what is written.
    pub facts: Vec<String>,
}

const MARGIN: f64 = 28.0;
/// Room for the names of the models.
const NAMES: f64 = 168.0;
/// Width of a score's diagram, and what is between two.
const PANEL: f64 = 160.0;
const BETWEEN: f64 = 40.0;
/// Width of a written fact.
const FACT: f64 = 86.0;
const TITLE: f64 = 74.0;
/// Room for the names of the columns.
const HEAD: f64 = 26.0;
const ROW: f64 = 27.0;
const GROUP: f64 = 34.0;
/// Room for the numbers of the axes.
const BELOW: f64 = 34.0;
const STRIPE: &str = "#f6f8fa";
/// Pixels of the PNG for each of the SVG.
const DENSITY: f32 = 2.0;

impl Comparison {
    /// The picture as an SVG document.
    pub fn to_svg(&self) -> String {
        let (width, height) = self.extent();
        let mut svg = Svg::new(width, height, &self.title);
        self.draw(&mut svg);
        svg.finish()
    }

    /// The picture as a PNG file, with twice the SVG's pixels a side.
    pub fn to_png(&self) -> Vec<u8> {
        let (width, height) = self.extent();
        let Some(mut raster) = Raster::new(width, height, DENSITY) else {
            return Vec::new();
        };
        self.draw(&mut raster);
        let (width, height, rgb) = raster.into_rgb();
        let picture = Picture { width, height, rgb };
        picture.to_png()
    }

    fn extent(&self) -> (f64, f64) {
        let width = 2.0 * MARGIN
            + NAMES
            + self.columns.len() as f64 * (PANEL + BETWEEN)
            + self.facts.len() as f64 * FACT;
        let rows = self.rows.len() as f64 * ROW + self.groups() as f64 * GROUP;
        (width.max(480.0), TITLE + HEAD + rows + BELOW)
    }

    fn begins_group(&self, row: usize) -> bool {
        row == 0 || self.rows[row].group != self.rows[row - 1].group
    }

    fn groups(&self) -> usize {
        let rows = 0..self.rows.len();
        rows.filter(|&i| self.begins_group(i)).count()
    }

    /// Left end of a score's diagram.
    fn left(column: usize) -> f64 {
        MARGIN + NAMES + column as f64 * (PANEL + BETWEEN)
    }

    fn draw(&self, canvas: &mut impl Canvas) {
        canvas.bold(
            (MARGIN, 32.0),
            &shorten(&self.title, 90),
            Anchor::Start,
            INK,
            17,
        );
        let mut x = MARGIN + 5.0;
        for (set, filled) in self.sets.iter().zip([true, false]) {
            canvas.mark((x, 50.0), 4.0, INK, filled);
            canvas.text((x + 10.0, 54.0), set, Anchor::Start, INK, 12);
            x += 34.0 + 7.0 * set.chars().count() as f64;
        }
        canvas.text((x, 54.0), &self.note, Anchor::Start, MUTED, 12);

        let head = TITLE + HEAD - 8.0;
        for (i, column) in self.columns.iter().enumerate() {
            let at = (Self::left(i), head);
            canvas.bold(at, &shorten(&column.title, 24), Anchor::Start, INK, 13);
        }
        for (i, title) in self.facts.iter().enumerate() {
            let at = (self.right_of_fact(i), head);
            canvas.bold(at, &shorten(title, 14), Anchor::End, INK, 13);
        }
        let axes: Vec<Axis> = (0..self.columns.len()).map(|i| self.axis(i)).collect();
        let (width, height) = self.extent();
        let (top, bottom) = (TITLE + HEAD, height - BELOW);
        let places = self.places();
        for (i, place) in places.iter().enumerate() {
            if i % 2 == 0 {
                let corner = (MARGIN - 8.0, place - ROW / 2.0);
                canvas.area(corner, (width - 2.0 * MARGIN + 16.0, ROW), STRIPE);
            }
        }
        for axis in &axes {
            for (value, label) in axis.ticks() {
                let x = axis.place(value);
                canvas.stroke((x, top), (x, bottom), GRID, 1.0);
                canvas.text((x, bottom + 17.0), &label, Anchor::Middle, MUTED, 11);
            }
        }
        let mut group = 0;
        for (i, (row, &y)) in self.rows.iter().zip(&places).enumerate() {
            if self.begins_group(i) {
                group += usize::from(i > 0);
                let at = (MARGIN, y - ROW / 2.0 - 8.0);
                canvas.bold(at, &shorten(&row.group, 60), Anchor::Start, MUTED, 12);
            }
            let colour = COLOURS[group % COLOURS.len()];
            let at = (MARGIN, y + 4.5);
            canvas.text(at, &shorten(&row.name, 24), Anchor::Start, INK, 13);
            for (scores, axis) in row.scores.iter().zip(&axes) {
                draw_scores(canvas, scores, axis, y, colour);
            }
            for (k, fact) in row.facts.iter().enumerate() {
                let at = (self.right_of_fact(k), y + 4.5);
                canvas.text(at, &shorten(fact, 16), Anchor::End, INK, 12);
            }
        }
    }

    fn right_of_fact(&self, fact: usize) -> f64 {
        Self::left(self.columns.len()) - BETWEEN + (fact + 1) as f64 * FACT
    }

    /// The middle of each row.
    fn places(&self) -> Vec<f64> {
        let mut y = TITLE + HEAD;
        let rows = (0..self.rows.len()).map(|i| {
            if self.begins_group(i) {
                y += GROUP;
            }
            y += ROW;
            y - ROW / 2.0
        });
        rows.collect()
    }

    /// From nothing to the highest score with its interval.
    fn axis(&self, column: usize) -> Axis {
        let percent = self.columns[column].percent;
        let scores = self.rows.iter().filter_map(|row| row.scores.get(column));
        let most = scores.flatten().flatten().map(|score| {
            let high = score.high.max(score.estimate);
            if percent { high.min(1.0) } else { high }
        });
        let most = most.filter(|x| x.is_finite()).fold(0.0, f64::max);
        // a scale of its own for what is nowhere above nothing
        let most = if most > 0.0 { most } else { 1.0 };
        let kind = if percent { Kind::Percent } else { Kind::Linear };
        let left = Self::left(column);
        Axis::new(kind, [0.0, most], left, left + PANEL)
    }
}

/// The first set above, the second below the middle of the row.
fn draw_scores(
    canvas: &mut impl Canvas,
    scores: &[Option<Interval>; 2],
    axis: &Axis,
    y: f64,
    colour: &str,
) {
    let alone = scores.iter().flatten().count() == 1;
    for (set, score) in scores.iter().enumerate() {
        let Some(score) = score.filter(|s| axis.kind().can_show(s.estimate)) else {
            continue;
        };
        let y = match (alone, set) {
            (true, _) => y,
            (_, 0) => y - 5.0,
            _ => y + 5.0,
        };
        // the interval goes no further than scores do
        let most = if axis.kind() == Kind::Percent {
            1.0
        } else {
            f64::INFINITY
        };
        let (low, high) = (score.low.max(0.0), score.high.min(most));
        if low < high && axis.kind().can_show(high) {
            canvas.stroke((axis.place(low), y), (axis.place(high), y), colour, 1.4);
        }
        canvas.mark((axis.place(score.estimate), y), 3.6, colour, set == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(scores: Vec<[Option<Interval>; 2]>) -> Comparison {
        Comparison {
            title: "a & b".to_owned(),
            sets: vec!["test".to_owned(), "other".to_owned()],
            note: "whiskers".to_owned(),
            columns: vec![
                ComparisonColumn {
                    title: "accuracy".to_owned(),
                    percent: true,
                },
                ComparisonColumn {
                    title: "CIDEr-D".to_owned(),
                    percent: false,
                },
            ],
            facts: vec!["seconds".to_owned()],
            rows: vec![ComparisonRow {
                name: "<model>".to_owned(),
                group: "group".to_owned(),
                scores,
                facts: vec!["12".to_owned()],
            }],
        }
    }

    fn score(estimate: f64, half: f64) -> Option<Interval> {
        Some(Interval {
            estimate,
            low: estimate - half,
            high: estimate + half,
        })
    }

    #[test]
    fn each_known_score_has_a_mark_and_intervals_stay_within_the_diagram() {
        let scores = vec![[score(0.9, 0.4), score(0.1, 0.4)], [None, score(2.0, 0.0)]];
        let svg = comparison(scores).to_svg();
        // two in the legend, three scores
        assert_eq!(svg.matches("<circle").count(), 5);
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;model&gt;"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        let (left, right) = (Comparison::left(0), Comparison::left(0) + PANEL);
        let whiskers = svg
            .lines()
            .filter(|line| line.contains("stroke-width=\"1.4\""));
        let mut count = 0;
        for line in whiskers {
            let ends = line.split(['M', 'L']).skip(1).take(2);
            for end in ends {
                let x: f64 = end.split(' ').next().unwrap().parse().unwrap();
                assert!((left - 0.1..=right + 0.1).contains(&x), "{line}");
            }
            count += 1;
        }
        assert_eq!(count, 2);
    }

    #[test]
    fn the_png_shows_what_the_svg_does() {
        let png = comparison(vec![[score(0.5, 0.1), None], [None, None]]).to_png();
        let (width, height) = comparison(Vec::new()).extent();
        let pixels = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        // width and height of the header
        assert_eq!(f64::from(pixels(&png[16..20])), 2.0 * width);
        assert_eq!(f64::from(pixels(&png[20..24])), 2.0 * height);
        let empty = comparison(vec![[None, None], [None, None]]).to_png();
        assert!(png != empty);
    }

    #[test]
    fn nothing_to_compare_and_odd_values_are_still_a_picture() {
        let odd = [score(f64::NAN, 1.0), score(f64::INFINITY, 1.0)];
        let svg = comparison(vec![odd, [None, None]]).to_svg();
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"));
        let mut none = comparison(Vec::new());
        none.rows.clear();
        assert!(none.to_png().starts_with(b"\x89PNG"));
        none.columns.clear();
        assert!(none.to_svg().ends_with("</svg>\n"));
    }
}
