//! The few SVG elements that a plot needs.

use std::fmt::Write;

const FONT: &str = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";

/// An SVG document in the making. Coordinates are pixels from the upper left corner.
pub(super) struct Svg {
    text: String,
}

impl Svg {
    /// A white page. `title` is what a reader that cannot see is told.
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        let mut svg = Self {
            text: String::new(),
        };
        svg.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"{FONT}\" role=\"img\">\n\
             <title>{}</title>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>",
            escape(title)
        ));
        svg
    }

    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    /// Text with its baseline at `y` and its `anchor` (start, middle, end) at `x`.
    #[expect(
        clippy::too_many_arguments,
        reason = "the attributes of the element, private"
    )]
    pub(super) fn text(
        &mut self,
        x: f64,
        y: f64,
        text: &str,
        anchor: &str,
        colour: &str,
        size: u32,
        bold: bool,
    ) {
        let weight = if bold { " font-weight=\"600\"" } else { "" };
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\" \
             font-size=\"{size}\"{weight}>{}</text>",
            escape(text)
        ));
    }

    /// A hairline.
    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
        self.put(format_args!(
            "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{colour}\"/>"
        ));
    }

    /// A rectangle without filling.
    pub(super) fn frame(&mut self, left: f64, top: f64, right: f64, bottom: f64, colour: &str) {
        let (width, height) = (right - left, bottom - top);
        self.put(format_args!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"none\" stroke=\"{colour}\"/>"
        ));
    }

    /// Lines through points. A stroke of one point is drawn as a dot.
    pub(super) fn strokes(
        &mut self,
        strokes: &[Vec<(f64, f64)>],
        colour: &str,
        width: f64,
        opacity: f64,
        dash: &str,
    ) {
        let mut path = String::new();
        for stroke in strokes {
            for (index, (x, y)) in stroke.iter().enumerate() {
                let command = if index == 0 { 'M' } else { 'L' };
                // Writing to a string does not fail.
                let _ = write!(path, "{command}{x:.1} {y:.1}");
            }
            if stroke.len() == 1 {
                path.push_str("h0");
            }
        }
        if path.is_empty() {
            return;
        }
        let dash = if dash.is_empty() {
            String::new()
        } else {
            format!(" stroke-dasharray=\"{dash}\"")
        };
        self.put(format_args!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
             stroke-opacity=\"{opacity}\" stroke-linejoin=\"round\" stroke-linecap=\"round\"{dash}/>"
        ));
    }

    /// A dot at each point.
    pub(super) fn marks(&mut self, strokes: &[Vec<(f64, f64)>], colour: &str) {
        for (x, y) in strokes.iter().flatten() {
            self.put(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.8\" fill=\"{colour}\"/>"
            ));
        }
    }

    /// A rectangle without a line around it.
    pub(super) fn filled(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
        self.put(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        ));
    }

    /// A dot, or a ring around white.
    pub(super) fn dot(&mut self, (x, y): (f64, f64), radius: f64, colour: &str, filled: bool) {
        let fill = if filled { colour } else { "#ffffff" };
        self.put(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{fill}\" stroke=\"{colour}\" \
             stroke-width=\"1.6\"/>"
        ));
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{element}");
    }
}

/// About how wide a text is drawn, in pixels.
pub(super) fn text_width(text: &str, size: u32) -> f64 {
    text.chars().count() as f64 * f64::from(size) * 0.56
}

/// Text as XML holds it. Characters that XML cannot hold at all become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            c => escaped.push(c),
        }
    }
    escaped
}
