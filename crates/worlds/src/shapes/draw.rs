//! From a layout to pixels.
//!
//! `tiny-skia` turns outlines into coverage; shading and blending are done here in plain `f32` arithmetic. All lengths
//! are in pixels of the 128-pixel grid and are scaled to the picture.

use tiny_skia::{FillRule, LineJoin, PathBuilder, Stroke};

use super::Picture;
use super::geometry::{Point, coverage, rotate};
use super::layout::{GRID, Placed};
use super::scene::{Background, Colour, Shape, Size, Texture};
use crate::rng::Rng;

type Rgb = [f32; 3];

/// The range of hue (degrees), saturation and value that a colour's name covers.
///
/// Any two names stay at least 25 CIELAB units apart (ΔE*76) over their whole ranges, before shading and noise of the
/// picture; a test measures it.
pub(crate) fn hsv_range(colour: Colour) -> [(f32, f32); 3] {
    match colour {
        Colour::Red => [(-5.0, 3.0), (0.82, 0.95), (0.80, 0.95)],
        Colour::Orange => [(26.0, 32.0), (0.88, 1.0), (0.95, 1.0)],
        Colour::Yellow => [(50.0, 56.0), (0.78, 0.95), (0.94, 1.0)],
        Colour::Green => [(118.0, 145.0), (0.62, 0.85), (0.55, 0.75)],
        Colour::Blue => [(211.0, 221.0), (0.75, 0.92), (0.78, 0.95)],
        Colour::Purple => [(276.0, 287.0), (0.60, 0.78), (0.56, 0.72)],
        Colour::Pink => [(326.0, 340.0), (0.36, 0.50), (0.97, 1.0)],
        Colour::Brown => [(20.0, 27.0), (0.62, 0.76), (0.40, 0.50)],
    }
}

fn background_rgb(background: Background) -> Rgb {
    match background {
        Background::White => [245.0, 245.0, 244.0],
        Background::Grey => [140.0, 142.0, 146.0],
        Background::Black => [30.0, 30.0, 34.0],
        Background::Beige => [226.0, 208.0, 176.0],
        Background::Mint => [184.0, 226.0, 204.0],
        Background::Lavender => [206.0, 200.0, 238.0],
    }
}

pub(crate) fn hsv_to_rgb([hue, saturation, value]: [f32; 3]) -> Rgb {
    // f(n) = v - v s max(0, min(k, 4 - k, 1)) with k = (n + h/60) mod 6
    let channel = |n: f32| {
        let mut k = n + hue / 60.0;
        while k >= 6.0 {
            k -= 6.0;
        }
        while k < 0.0 {
            k += 6.0;
        }
        let part = k.min(4.0 - k).clamp(0.0, 1.0);
        255.0 * (value - value * saturation * part)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    [0, 1, 2].map(|c| a[c] + (b[c] - a[c]) * share)
}

/// The picture while it is painted: RGB rows in `f32`, 0 to 255.
struct Canvas {
    side: i32,
    /// Picture pixels per grid pixel.
    scale: f32,
    pixels: Vec<Rgb>,
}

/// Coverage of a rectangle of the canvas; parts may lie outside.
struct Stain {
    left: i32,
    top: i32,
    width: i32,
    height: i32,
    coverage: Vec<u8>,
}

impl Canvas {
    /// Blends a stain into the picture, with the colour that `paint` gives for each of its pixels (by place in the
    /// stain).
    fn blend(&mut self, stain: &Stain, strength: f32, paint: impl Fn(i32, i32) -> Rgb) {
        for y in 0.max(-stain.top)..stain.height.min(self.side - stain.top) {
            for x in 0.max(-stain.left)..stain.width.min(self.side - stain.left) {
                let covered = stain.coverage[(y * stain.width + x) as usize];
                if covered > 0 {
                    let at = (y + stain.top) * self.side + x + stain.left;
                    let pixel = &mut self.pixels[at as usize];
                    *pixel = mix(*pixel, paint(x, y), f32::from(covered) / 255.0 * strength);
                }
            }
        }
    }

    /// Fills a polygon given in grid pixels.
    fn fill(&mut self, polygon: &[Point], colour: Rgb, strength: f32) {
        let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
        for point in polygon {
            for axis in 0..2 {
                low[axis] = low[axis].min(point[axis] * self.scale);
                high[axis] = high[axis].max(point[axis] * self.scale);
            }
        }
        let [left, top] = low.map(|v| libm::floorf(v.max(0.0)) as i32);
        let [right, bottom] = high.map(|v| libm::ceilf(v.min(self.side as f32)) as i32);
        let (width, height) = (right - left, bottom - top);
        if width <= 0 || height <= 0 {
            return;
        }
        let mut path = PathBuilder::new();
        for (i, point) in polygon.iter().enumerate() {
            let x = point[0] * self.scale - left as f32;
            let y = point[1] * self.scale - top as f32;
            if i == 0 {
                path.move_to(x, y);
            } else {
                path.line_to(x, y);
            }
        }
        path.close();
        let stain = Stain {
            left,
            top,
            width,
            height,
            coverage: coverage(
                path.finish().as_ref(),
                width as u32,
                height as u32,
                FillRule::Winding,
            ),
        };
        self.blend(&stain, strength, |_, _| colour);
    }
}

/// The look of one object, drawn at random within what its attributes allow.
struct Style {
    base: Rgb,
    ink: Rgb,
    /// Colour of the outline, if it has one.
    outline: Option<Rgb>,
    /// Brightening of the top and darkening of the bottom.
    shade: f32,
    angle: f32,
    phase: Point,
    /// Distance of stripes or dots in grid pixels.
    period: f32,
    /// Part of a stripe's period that is ink.
    duty: f32,
    /// Share of the edge that is blurred.
    softness: f32,
}

impl Style {
    fn random(rng: &mut Rng, object: &Placed, difficulty: f32) -> Style {
        let ranges = hsv_range(object.attributes.colour);
        // At difficulty 0 the jitter covers a third of each range, from 0.6 on all of it.
        let spread = (0.33 + 1.1 * difficulty).min(1.0);
        let hsv = ranges.map(|(low, high)| {
            (low + high) / 2.0 + (high - low) / 2.0 * spread * rng.between(-1.0, 1.0)
        });
        let base = hsv_to_rgb(hsv);
        let white = mix(base, [255.0; 3], rng.between(0.82, 0.95));
        let dark = mix(base, [12.0, 12.0, 16.0], rng.between(0.74, 0.86));
        let ink = match object.attributes.colour {
            Colour::Yellow | Colour::Pink => dark,
            Colour::Orange | Colour::Red if rng.coin() => dark,
            _ => white,
        };
        let outlined = rng.percent(45);
        let outline_tone = rng.between(0.4, 0.6);
        let (period, duty) = match object.attributes.size {
            // Thin limbs: finer stripes, so that several cross each of them.
            Size::Small if has_thin_limbs(object) => (rng.between(4.0, 4.7), 0.48),
            Size::Small => (rng.between(4.8, 5.8), rng.between(0.42, 0.5)),
            Size::Large => (rng.between(6.2, 8.6), rng.between(0.40, 0.52)),
        };
        Style {
            base,
            ink,
            outline: outlined.then(|| mix(base, [0.0; 3], outline_tone)),
            shade: rng.between(0.0, 0.10),
            angle: rng.between(0.0, std::f32::consts::PI),
            phase: [rng.unit(), rng.unit()],
            period,
            duty,
            softness: 0.6 * difficulty * rng.unit(),
        }
    }
}

fn has_thin_limbs(object: &Placed) -> bool {
    matches!(
        object.attributes.shape,
        Shape::Star | Shape::Cross | Shape::Ring | Shape::Diamond
    ) && object.attributes.texture == Texture::Striped
}

/// Paints the scene at `side` × `side` pixels and returns it with the tight box of every object.
pub(crate) fn draw(
    rng: &mut Rng,
    background: Background,
    objects: &[Placed],
    side: u32,
    difficulty: f32,
) -> (Picture, Vec<[u32; 4]>) {
    let mut canvas = backdrop(rng, background, side, difficulty);
    clutter(rng, &mut canvas, background, difficulty);
    let boxes = objects
        .iter()
        .map(|object| {
            let style = Style::random(rng, object, difficulty);
            draw_object(&mut canvas, object, &style)
        })
        .collect();
    let picture = develop(rng, &canvas, difficulty);
    (picture, boxes)
}

/// A soft gradient with faint blotches.
fn backdrop(rng: &mut Rng, background: Background, side: u32, difficulty: f32) -> Canvas {
    let (bright, tint) = (3.0 + 9.0 * difficulty, 1.0 + 3.0 * difficulty);
    let brighter = rng.between(-bright, bright);
    let base = background_rgb(background).map(|c| c + brighter + rng.between(-tint, tint));
    let tilt = rotate(
        [rng.between(0.0, 5.0 + 14.0 * difficulty), 0.0],
        rng.between(0.0, std::f32::consts::TAU),
    );
    const CELLS: usize = 8;
    let amplitude = rng.unit() * 9.0 * difficulty;
    let mut blotches = [[0.0_f32; CELLS + 2]; CELLS + 2];
    for blotch in blotches.iter_mut().flatten() {
        *blotch = rng.between(-amplitude, amplitude);
    }
    let mut pixels = Vec::with_capacity((side * side) as usize);
    for y in 0..side {
        let v = (y as f32 + 0.5) / side as f32;
        let row = (v * CELLS as f32) as usize;
        let down = v * CELLS as f32 - row as f32;
        for x in 0..side {
            let u = (x as f32 + 0.5) / side as f32;
            let column = (u * CELLS as f32) as usize;
            let across = u * CELLS as f32 - column as f32;
            let along = |row: usize| {
                blotches[row][column] * (1.0 - across) + blotches[row][column + 1] * across
            };
            let blotch = along(row) * (1.0 - down) + along(row + 1) * down;
            let light = blotch + tilt[0] * (u - 0.5) + tilt[1] * (v - 0.5);
            pixels.push(base.map(|c| c + light));
        }
    }
    Canvas {
        side: side as i32,
        scale: side as f32 / GRID as f32,
        pixels,
    }
}

/// Thin faint lines and specks, behind all objects.
fn clutter(rng: &mut Rng, canvas: &mut Canvas, background: Background, difficulty: f32) {
    let base = background_rgb(background);
    let grid = GRID as f32;
    let faint = |rng: &mut Rng| {
        let amount = rng.between(20.0, 20.0 + 30.0 * difficulty);
        let darker = match background {
            Background::White => true,
            Background::Black => false,
            _ => rng.coin(),
        };
        base.map(|c| (c + if darker { -amount } else { amount }).clamp(0.0, 255.0))
    };
    for _ in 0..rng.below(1 + (6.0 * difficulty) as usize) {
        let [from, to] = [(); 2].map(|()| [rng.between(0.0, grid), rng.between(0.0, grid)]);
        let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
        let length = libm::sqrtf(dx * dx + dy * dy).max(1.0);
        let half = rng.between(0.3, 0.6);
        let side = [-dy / length * half, dx / length * half];
        let colour = faint(rng);
        let line = [
            [from[0] + side[0], from[1] + side[1]],
            [to[0] + side[0], to[1] + side[1]],
            [to[0] - side[0], to[1] - side[1]],
            [from[0] - side[0], from[1] - side[1]],
        ];
        canvas.fill(&line, colour, 0.8);
    }
    for _ in 0..rng.below(1 + (24.0 * difficulty) as usize) {
        let centre = [rng.between(0.0, grid), rng.between(0.0, grid)];
        let radius = rng.between(0.5, 1.1);
        let colour = faint(rng);
        let speck: Vec<Point> = (0..6)
            .map(|i| {
                let [x, y] = rotate([radius, 0.0], i as f32 * std::f32::consts::TAU / 6.0);
                [centre[0] + x, centre[1] + y]
            })
            .collect();
        canvas.fill(&speck, colour, 0.9);
    }
}

/// Paints one object and returns its tight box.
fn draw_object(canvas: &mut Canvas, object: &Placed, style: &Style) -> [u32; 4] {
    let scale = canvas.scale;
    let diameter = object.diameter * scale;
    let centre = object.centre.map(|c| c * scale);
    let reach = libm::ceilf(diameter / 2.0) as i32 + 2;
    let (left, top) = (
        libm::floorf(centre[0]) as i32 - reach,
        libm::floorf(centre[1]) as i32 - reach,
    );
    let side = 2 * reach + 1;
    let local = [centre[0] - left as f32, centre[1] - top as f32];
    let path = object.outline.path(diameter, local);
    let rasterise =
        |path: Option<&tiny_skia::Path>, rule| coverage(path, side as u32, side as u32, rule);
    let sharp = rasterise(path.as_ref(), FillRule::EvenOdd);
    let bounds = tight_box(&sharp, side, left, top, canvas.side);

    // The band along the edge that texture leaves free; without it white stripes would eat into a white background.
    let textured = object.attributes.texture != Texture::Plain;
    let band_width = match object.attributes.size {
        Size::Small if has_thin_limbs(object) => 0.6,
        Size::Small => 1.0,
        Size::Large => 1.5,
    };
    let band = if textured || style.outline.is_some() {
        let stroke = Stroke {
            width: 2.0 * band_width * scale,
            line_join: LineJoin::Bevel,
            ..Stroke::default()
        };
        let stroked = path.as_ref().and_then(|path| path.stroke(&stroke, 1.0));
        rasterise(stroked.as_ref(), FillRule::Winding)
    } else {
        vec![0; (side * side) as usize]
    };
    let ink = match object.attributes.texture {
        Texture::Plain => vec![0.0; (side * side) as usize],
        Texture::Striped => stripes(side, local, style, scale),
        Texture::Dotted => dots(side, local, object, style, scale, &sharp),
    };

    let stain = Stain {
        left,
        top,
        width: side,
        height: side,
        coverage: softened(&sharp, side, style.softness),
    };
    canvas.blend(&stain, 1.0, |x, y| {
        let at = (y * side + x) as usize;
        let height = (y as f32 + 0.5 - local[1]) / diameter;
        let base = style.base.map(|c| c * (1.0 - style.shade * height));
        let edge = f32::from(band[at]) / 255.0;
        let filled = mix(base, style.ink, ink[at] * (1.0 - edge));
        mix(filled, style.outline.unwrap_or(base), edge)
    });
    bounds
}

/// The box of the pixels that are covered by at least a quarter, within the picture.
fn tight_box(coverage: &[u8], width: i32, left: i32, top: i32, side: i32) -> [u32; 4] {
    let mut bounds = [side, side, 0, 0];
    for (at, &covered) in coverage.iter().enumerate() {
        if covered >= 64 {
            let (x, y) = (at as i32 % width + left, at as i32 / width + top);
            bounds[0] = bounds[0].min(x);
            bounds[1] = bounds[1].min(y);
            bounds[2] = bounds[2].max(x + 1);
            bounds[3] = bounds[3].max(y + 1);
        }
    }
    bounds.map(|v| v.clamp(0, side) as u32)
}

/// The coverage mixed with its 3 × 3 mean.
fn softened(coverage: &[u8], side: i32, share: f32) -> Vec<u8> {
    if share <= 0.0 {
        return coverage.to_vec();
    }
    let mut out = coverage.to_vec();
    for y in 1..side - 1 {
        for x in 1..side - 1 {
            let at = (y * side + x) as usize;
            let mut sum = 0;
            for row in [at - side as usize, at, at + side as usize] {
                sum += coverage[row - 1..=row + 1]
                    .iter()
                    .map(|&c| u32::from(c))
                    .sum::<u32>();
            }
            let own = f32::from(coverage[at]);
            out[at] = (own + (sum as f32 / 9.0 - own) * share + 0.5) as u8;
        }
    }
    out
}

/// Amount of ink in each pixel, 0 to 1.
fn stripes(side: i32, centre: Point, style: &Style, scale: f32) -> Vec<f32> {
    let (sin, cos) = libm::sincosf(style.angle);
    let period = style.period * scale;
    let mut ink = Vec::with_capacity((side * side) as usize);
    for y in 0..side {
        for x in 0..side {
            let (dx, dy) = (x as f32 + 0.5 - centre[0], y as f32 + 0.5 - centre[1]);
            let at = (dx * cos + dy * sin) / period + style.phase[0];
            let from_middle = (at - libm::floorf(at) - 0.5).abs();
            ink.push(((style.duty / 2.0 - from_middle) * period + 0.5).clamp(0.0, 1.0));
        }
    }
    ink
}

/// Amount of ink in each pixel, 0 to 1.
fn dots(
    side: i32,
    centre: Point,
    object: &Placed,
    style: &Style,
    scale: f32,
    coverage: &[u8],
) -> Vec<f32> {
    let mut period = style.period * scale;
    let mut places = dot_places(object, style, period, scale);
    let inside = |places: Vec<Point>, radius: f32| -> Vec<Point> {
        places
            .into_iter()
            .map(|[x, y]| [x + centre[0], y + centre[1]])
            .filter(|&[x, y]| {
                [(0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)]
                    .iter()
                    .all(|(dx, dy)| {
                        let at = |v: f32| (libm::floorf(v) as i32).clamp(0, side - 1);
                        let (x, y) = (at(x + dx * radius), at(y + dy * radius));
                        coverage[(y * side + x) as usize] > 200
                    })
            })
            .collect()
    };
    let mut kept = inside(std::mem::take(&mut places), 0.27 * period);
    for _ in 0..6 {
        if kept.len() >= 4 {
            break;
        }
        period *= 0.93;
        kept = inside(dot_places(object, style, period, scale), 0.27 * period);
    }
    let radius = (0.29 * period).max(1.25 * scale);
    let mut ink = vec![0.0_f32; (side * side) as usize];
    for [x, y] in kept {
        let reach = libm::ceilf(radius) as i32 + 1;
        let (column, row) = (libm::floorf(x) as i32, libm::floorf(y) as i32);
        for py in (row - reach).max(0)..=(row + reach).min(side - 1) {
            for px in (column - reach).max(0)..=(column + reach).min(side - 1) {
                let (dx, dy) = (px as f32 + 0.5 - x, py as f32 + 0.5 - y);
                let covered = (radius - libm::sqrtf(dx * dx + dy * dy) + 0.5).clamp(0.0, 1.0);
                let pixel = &mut ink[(py * side + px) as usize];
                *pixel = pixel.max(covered);
            }
        }
    }
    ink
}

/// Centres of dots relative to the object's centre: along the band of a ring and the arms of a cross, where a lattice
/// would miss them, and on a lattice elsewhere.
fn dot_places(object: &Placed, style: &Style, period: f32, scale: f32) -> Vec<Point> {
    let diameter = object.diameter * scale;
    let outline = &object.outline;
    let mut places = Vec::new();
    match object.attributes.shape {
        Shape::Ring => {
            let radius = diameter * (0.5 - outline.thickness / 2.0);
            let n = (std::f32::consts::TAU * radius / period) as usize;
            for i in 0..n {
                let angle = style.angle + std::f32::consts::TAU * i as f32 / n as f32;
                let [x, y] = rotate([radius, 0.0], angle);
                places.push([x * outline.extent[0], y * outline.extent[1]]);
            }
        }
        Shape::Cross => {
            places.push([0.0, 0.0]);
            let n = ((diameter / 2.0 - period / 3.0) / period) as usize;
            for i in 1..=n {
                let along = i as f32 * period;
                for arm in [[along, 0.0], [-along, 0.0], [0.0, along], [0.0, -along]] {
                    places.push(rotate(arm, outline.angle));
                }
            }
        }
        shape => {
            // Small shapes have a dot in the middle, large ones any offset.
            let phase = match object.attributes.size {
                Size::Small => [0.0; 2],
                Size::Large => style.phase.map(|p| p - 0.5),
            };
            // The mass of these lies below or above the middle of their box.
            let shift = match shape {
                Shape::Triangle => 0.14 * diameter,
                Shape::Heart => -0.06 * diameter,
                _ => 0.0,
            };
            let n = (diameter / period) as i32 + 1;
            for row in -n..=n {
                for column in -n..=n {
                    let at = [
                        (column as f32 + phase[0]) * period,
                        (row as f32 + phase[1]) * period,
                    ];
                    let [x, y] = rotate(at, style.angle);
                    places.push([x, y + shift]);
                }
            }
        }
    }
    places
}

/// Light falling from one side, noise, and rounding to bytes.
fn develop(rng: &mut Rng, canvas: &Canvas, difficulty: f32) -> Picture {
    let light = rotate(
        [rng.unit() * (0.04 + 0.14 * difficulty), 0.0],
        rng.between(0.0, std::f32::consts::TAU),
    );
    let noise = rng.unit() * 9.0 * difficulty;
    let side = canvas.side as f32;
    let mut rgb = Vec::with_capacity(canvas.pixels.len() * 3);
    let mut pixels = canvas.pixels.iter();
    for y in 0..canvas.side {
        let v = (y as f32 + 0.5) / side - 0.5;
        for x in 0..canvas.side {
            let u = (x as f32 + 0.5) / side - 0.5;
            let factor = 1.0 + light[0] * u + light[1] * v;
            let pixel = pixels.next().expect("the canvas has side * side pixels");
            // Seven numbers of nine bits: two triangular ones shared by the channels, one of each channel.
            let bits = rng.bits64();
            let part = |i: u32| ((bits >> (9 * i)) & 511) as f32 / 511.0 - 0.5;
            let shared = part(0) + part(1) + part(2);
            for (channel, value) in pixel.iter().enumerate() {
                let own = part(3 + channel as u32);
                let value = value * factor + noise * (1.2 * shared + 1.2 * own);
                rgb.push((value + 0.5).clamp(0.0, 255.0) as u8);
            }
        }
    }
    Picture {
        width: canvas.side as u32,
        height: canvas.side as u32,
        rgb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::Split;
    use crate::shapes::layout::{self, Layout};
    use crate::shapes::plan::plan;

    fn layouts(difficulty: f32, count: u64) -> impl Iterator<Item = Layout> {
        (0..count).map(move |i| {
            let mut rng = Rng::from_key(&[i]);
            let plan = plan(&mut rng, Split::Train, difficulty);
            layout::place(&mut rng, &plan, difficulty)
        })
    }

    /// The object alone, in white on black, without outline, texture or blur.
    fn silhouette(object: &Placed, side: u32) -> (Vec<f32>, [u32; 4]) {
        let mut canvas = Canvas {
            side: side as i32,
            scale: side as f32 / GRID as f32,
            pixels: vec![[0.0; 3]; (side * side) as usize],
        };
        let style = Style {
            base: [255.0; 3],
            ink: [255.0; 3],
            outline: None,
            shade: 0.0,
            angle: 0.0,
            phase: [0.0; 2],
            period: 6.0,
            duty: 0.5,
            softness: 0.0,
        };
        let bounds = draw_object(&mut canvas, object, &style);
        let grey = canvas.pixels.iter().map(|p| p[0] / 255.0).collect();
        (grey, bounds)
    }

    #[test]
    fn boxes_are_tight_around_the_object_drawn_alone() {
        for layout in layouts(0.5, 60) {
            for object in &layout.objects {
                for side in [64, 128, 200] {
                    let (grey, bounds) = silhouette(object, side);
                    let (mut low, mut high) = ([side; 2], [0; 2]);
                    for y in 0..side {
                        for x in 0..side {
                            if grey[(y * side + x) as usize] >= 0.25 {
                                low = [low[0].min(x), low[1].min(y)];
                                high = [high[0].max(x + 1), high[1].max(y + 1)];
                            }
                        }
                    }
                    assert_eq!(bounds, [low[0], low[1], high[0], high[1]]);
                }
            }
        }
    }

    #[test]
    fn at_most_a_quarter_of_any_object_is_hidden_by_objects_it_touches() {
        for difficulty in [0.0, 0.5, 1.0] {
            let mut most_hidden = 0.0_f32;
            for layout in layouts(difficulty, 300) {
                let shapes: Vec<Vec<f32>> = layout
                    .objects
                    .iter()
                    .map(|object| silhouette(object, 128).0)
                    .collect();
                for (i, own) in shapes.iter().enumerate() {
                    let (mut area, mut hidden) = (0.0, 0.0);
                    for (at, covered) in own.iter().enumerate() {
                        let over = shapes[i + 1..].iter().map(|s| s[at]).fold(0.0, f32::max);
                        area += covered;
                        hidden += covered * over;
                    }
                    most_hidden = most_hidden.max(hidden / area);
                }
            }
            assert!(most_hidden <= 0.27, "{most_hidden} at {difficulty}");
            assert!(most_hidden > 0.02);
        }
    }

    #[test]
    fn objects_that_do_not_touch_keep_a_gap() {
        use crate::shapes::Relation::{Inside, Touching};
        for layout in layouts(1.0, 200) {
            let pixels: Vec<Vec<[i32; 2]>> = layout
                .objects
                .iter()
                .map(|object| {
                    let grey = silhouette(object, 128).0;
                    (0..128 * 128)
                        .filter(|&at| grey[at as usize] >= 0.5)
                        .map(|at| [at % 128, at / 128])
                        .collect()
                })
                .collect();
            for (i, a) in pixels.iter().enumerate() {
                for (j, b) in pixels.iter().enumerate().skip(i + 1) {
                    let in_contact = layout.relations.iter().any(|fact| {
                        matches!(fact.relation, Touching | Inside)
                            && ((fact.subject, fact.object) == (i, j)
                                || (fact.subject, fact.object) == (j, i))
                    });
                    let gap = a
                        .iter()
                        .flat_map(|p| {
                            b.iter()
                                .map(|q| (p[0] - q[0]).abs().max((p[1] - q[1]).abs()) - 1)
                        })
                        .min();
                    let gap = gap.expect("objects have pixels");
                    assert!(in_contact || gap >= 3, "gap {gap}");
                }
            }
        }
    }

    /// CIELAB (D65) of an sRGB colour.
    fn lab(rgb: Rgb) -> [f32; 3] {
        let [r, g, b] = rgb.map(|c| {
            let c = c / 255.0;
            if c <= 0.04045 {
                c / 12.92
            } else {
                ((c + 0.055) / 1.055).powf(2.4)
            }
        });
        let xyz = [
            (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
            0.2126 * r + 0.7152 * g + 0.0722 * b,
            (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
        ];
        let [x, y, z] = xyz.map(|t| {
            if t > 0.008_856 {
                t.cbrt()
            } else {
                7.787 * t + 16.0 / 116.0
            }
        });
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    fn range_of(colour: Colour) -> Vec<[f32; 3]> {
        let steps = |(low, high): (f32, f32)| [0.0, 0.5, 1.0].map(|t| low + (high - low) * t);
        let [h, s, v] = hsv_range(colour).map(steps);
        h.iter()
            .flat_map(|&h| s.iter().map(move |&s| (h, s)))
            .flat_map(|(h, s)| v.iter().map(move |&v| lab(hsv_to_rgb([h, s, v]))))
            .collect()
    }

    fn least_distance(a: &[[f32; 3]], b: &[[f32; 3]]) -> f32 {
        let mut least = f32::MAX;
        for p in a {
            for q in b {
                let square: f32 = (0..3).map(|c| (p[c] - q[c]) * (p[c] - q[c])).sum();
                least = least.min(square.sqrt());
            }
        }
        least
    }

    #[test]
    fn colour_names_stay_apart_over_their_whole_ranges() {
        for (i, &a) in Colour::ALL.iter().enumerate() {
            for &b in &Colour::ALL[i + 1..] {
                let distance = least_distance(&range_of(a), &range_of(b));
                assert!(distance >= 25.0, "{a} {b} {distance}");
            }
            for &background in Background::ALL {
                let behind = [lab(background_rgb(background))];
                let distance = least_distance(&range_of(a), &behind);
                assert!(distance >= 25.0, "{a} {background} {distance}");
            }
        }
    }
}
