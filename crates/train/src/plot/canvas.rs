//! Where a picture is drawn: an SVG document, or pixels.

use super::svg::Svg;
use tiny_skia::{
    Color, FillRule, Paint, Path, PathBuilder, Pixmap, PremultipliedColorU8, Rect, Stroke,
    Transform,
};
use vlm_tasks::lettering;

/// Which point of a text is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// The few elements that a comparison is drawn of. Coordinates are pixels from the upper left corner; colours are
/// `#rrggbb`.
pub(super) trait Canvas {
    /// A line of text with its base line at `y`.
    fn text(&mut self, at: (f64, f64), text: &str, anchor: Anchor, colour: &str, size: u32);
    /// The same, bold.
    fn bold(&mut self, at: (f64, f64), text: &str, anchor: Anchor, colour: &str, size: u32);
    /// A straight line.
    fn stroke(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64);
    /// A filled rectangle.
    fn area(&mut self, corner: (f64, f64), size: (f64, f64), colour: &str);
    /// A dot, or a ring around white.
    fn mark(&mut self, at: (f64, f64), radius: f64, colour: &str, filled: bool);
}

impl Canvas for Svg {
    fn text(&mut self, (x, y): (f64, f64), text: &str, anchor: Anchor, colour: &str, size: u32) {
        Svg::text(self, x, y, text, anchor.name(), colour, size, false);
    }

    fn bold(&mut self, (x, y): (f64, f64), text: &str, anchor: Anchor, colour: &str, size: u32) {
        Svg::text(self, x, y, text, anchor.name(), colour, size, true);
    }

    fn stroke(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        self.strokes(&[vec![from, to]], colour, width, 1.0, "");
    }

    fn area(&mut self, corner: (f64, f64), size: (f64, f64), colour: &str) {
        self.filled(corner, size, colour);
    }

    fn mark(&mut self, at: (f64, f64), radius: f64, colour: &str, filled: bool) {
        self.dot(at, radius, colour, filled);
    }
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// Pixels on a white page.
pub(super) struct Raster {
    page: Pixmap,
    /// Pixels for each unit of the drawing.
    scale: f32,
}

impl Raster {
    /// A white page of `width x height` units; `None` if it has no pixels, or too many.
    pub(super) fn new(width: f64, height: f64, scale: f32) -> Option<Self> {
        let side = |extent: f64| (extent as f32 * scale).round().clamp(0.0, 16_384.0) as u32;
        let mut page = Pixmap::new(side(width), side(height))?;
        page.fill(Color::WHITE);
        Some(Self { page, scale })
    }

    /// Width, height, and red, green and blue of each pixel in rows.
    pub(super) fn into_rgb(self) -> (u32, u32, Vec<u8>) {
        let pixels = self.page.pixels().iter();
        let rgb = pixels.flat_map(|p| [p.red(), p.green(), p.blue()]);
        (self.page.width(), self.page.height(), rgb.collect())
    }

    fn fill(&mut self, path: Option<Path>, colour: &str) {
        if let Some(path) = path {
            let scaled = Transform::from_scale(self.scale, self.scale);
            let paint = paint(colour);
            self.page
                .fill_path(&path, &paint, FillRule::Winding, scaled, None);
        }
    }

    fn outline(&mut self, path: Option<Path>, colour: &str, width: f64) {
        if let Some(path) = path {
            let scaled = Transform::from_scale(self.scale, self.scale);
            let stroke = Stroke {
                width: width as f32,
                ..Stroke::default()
            };
            self.page
                .stroke_path(&path, &paint(colour), &stroke, scaled, None);
        }
    }

    fn letters(&mut self, x: f32, y: f32, text: &str, colour: &str, size: f32) {
        let extent = [self.page.width(), self.page.height()];
        let pixels = self.page.pixels_mut();
        let [r, g, b] = rgb(colour);
        lettering::write_plain(extent, text, [x, y], size, |place, coverage| {
            let pixel = &mut pixels[place];
            let mixed = |old: u8, new: u8| {
                (f32::from(old) * (1.0 - coverage) + f32::from(new) * coverage).round() as u8
            };
            let (r, g, b) = (
                mixed(pixel.red(), r),
                mixed(pixel.green(), g),
                mixed(pixel.blue(), b),
            );
            if let Some(opaque) = PremultipliedColorU8::from_rgba(r, g, b, 255) {
                *pixel = opaque;
            }
        });
    }

    fn write(
        &mut self,
        (x, y): (f64, f64),
        text: &str,
        anchor: Anchor,
        colour: &str,
        size: u32,
        weights: &[f32],
    ) {
        // the font's letters are smaller than those that a browser takes for the same size
        let size = size as f32 * 1.13 * self.scale;
        let wide = lettering::plain_width(text, size);
        let left = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => wide / 2.0,
            Anchor::End => wide,
        };
        let (x, y) = (x as f32 * self.scale - left, y as f32 * self.scale);
        for weight in weights {
            self.letters(x + weight * self.scale, y, text, colour, size);
        }
    }
}

/// Red, green and blue of `#rrggbb`; black of anything else.
fn rgb(colour: &str) -> [u8; 3] {
    let part = |i: usize| {
        let digits = colour.get(i..i + 2)?;
        u8::from_str_radix(digits, 16).ok()
    };
    [1, 3, 5].map(|i| part(i).unwrap_or(0))
}

fn paint(colour: &str) -> Paint<'static> {
    let [r, g, b] = rgb(colour);
    let mut paint = Paint::default();
    paint.set_color(Color::from_rgba8(r, g, b, 255));
    paint.anti_alias = true;
    paint
}

impl Canvas for Raster {
    fn text(&mut self, at: (f64, f64), text: &str, anchor: Anchor, colour: &str, size: u32) {
        // the font is a light one
        self.write(at, text, anchor, colour, size, &[0.0, 0.15]);
    }

    fn bold(&mut self, at: (f64, f64), text: &str, anchor: Anchor, colour: &str, size: u32) {
        self.write(at, text, anchor, colour, size, &[-0.3, 0.0, 0.3, 0.6]);
    }

    fn stroke(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let mut path = PathBuilder::new();
        path.move_to(from.0 as f32, from.1 as f32);
        path.line_to(to.0 as f32, to.1 as f32);
        self.outline(path.finish(), colour, width);
    }

    fn area(&mut self, corner: (f64, f64), size: (f64, f64), colour: &str) {
        let rect = Rect::from_xywh(
            corner.0 as f32,
            corner.1 as f32,
            size.0 as f32,
            size.1 as f32,
        );
        self.fill(rect.map(PathBuilder::from_rect), colour);
    }

    fn mark(&mut self, at: (f64, f64), radius: f64, colour: &str, filled: bool) {
        let circle = PathBuilder::from_circle(at.0 as f32, at.1 as f32, radius as f32);
        self.fill(circle.clone(), if filled { colour } else { "#ffffff" });
        self.outline(circle, colour, 1.6);
    }
}
