//! A picture with the objects that were found in it drawn on top.

use crate::detection::Object;
use ab_glyph::{Font, FontRef, PxScale, ScaleFont};
use tiny_skia::{
    Color, FillRule, Paint, Path, PathBuilder, Pixmap, PremultipliedColorU8, Rect, Stroke,
    Transform,
};
use vlm_data::image::Image;

/// Colours of classes, told apart by people who see red and green alike (after Okabe & Ito, "Color universal design",
/// 2008; a little darker where white text must be read on them).
const COLOURS: [[u8; 3]; 8] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 128, 96],
    [168, 76, 130],
    [60, 130, 180],
    [176, 116, 0],
    [110, 84, 190],
    [184, 44, 72],
];

/// Sizes that grow with the picture.
struct Sizes {
    line: f32,
    text: f32,
    padding: f32,
    round: f32,
}

impl Sizes {
    fn of(image: &Image) -> Self {
        let side = image.width().min(image.height()) as f32;
        let text = (side / 30.0).clamp(11.0, 48.0);
        Self {
            line: (side / 220.0).clamp(1.5, 8.0),
            text,
            padding: text * 0.32,
            round: (side / 120.0).clamp(2.0, 12.0),
        }
    }
}

/// A rectangle with round corners, kept within a picture.
fn rounded(rect: Rect, radius: f32) -> Option<Path> {
    // how far the handles of a quarter of a circle reach
    const QUARTER: f32 = 0.552_285;
    let r = radius.min(rect.width() / 2.0).min(rect.height() / 2.0);
    let (l, t, right, b) = (rect.left(), rect.top(), rect.right(), rect.bottom());
    let k = r * (1.0 - QUARTER);
    let mut path = PathBuilder::new();
    path.move_to(l + r, t);
    path.line_to(right - r, t);
    path.cubic_to(right - k, t, right, t + k, right, t + r);
    path.line_to(right, b - r);
    path.cubic_to(right, b - k, right - k, b, right - r, b);
    path.line_to(l + r, b);
    path.cubic_to(l + k, b, l, b - k, l, b - r);
    path.line_to(l, t + r);
    path.cubic_to(l, t + k, l + k, t, l + r, t);
    path.close();
    path.finish()
}

fn paint([r, g, b]: [u8; 3], opacity: u8) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color(Color::from_rgba8(r, g, b, opacity));
    paint.anti_alias = true;
    paint
}

/// The font's width of a line of text.
fn width(font: &FontRef, text: &str, size: f32) -> f32 {
    let scaled = font.as_scaled(PxScale::from(size));
    let advance = |c| scaled.h_advance(scaled.glyph_id(c));
    text.chars().map(advance).sum()
}

/// Writes white text; `x`, `y` are the left end of its base line.
fn write(canvas: &mut Pixmap, font: &FontRef, text: &str, [mut x, y]: [f32; 2], size: f32) {
    let scaled = font.as_scaled(PxScale::from(size));
    let (columns, rows) = (canvas.width() as i32, canvas.height() as i32);
    for c in text.chars() {
        let id = scaled.glyph_id(c);
        let mut glyph = scaled.scaled_glyph(c);
        glyph.position = ab_glyph::point(x, y);
        x += scaled.h_advance(id);
        let Some(outline) = font.outline_glyph(glyph) else {
            continue;
        };
        let corner = outline.px_bounds().min;
        let pixels = canvas.pixels_mut();
        outline.draw(|dx, dy, coverage| {
            let (px, py) = (corner.x as i32 + dx as i32, corner.y as i32 + dy as i32);
            if !(0..columns).contains(&px) || !(0..rows).contains(&py) {
                return;
            }
            let pixel = &mut pixels[(py * columns + px) as usize];
            let coverage = coverage.clamp(0.0, 1.0);
            let mixed =
                |old: u8| (f32::from(old) * (1.0 - coverage) + 255.0 * coverage).round() as u8;
            let (r, g, b) = (pixel.red(), pixel.green(), pixel.blue());
            let white = PremultipliedColorU8::from_rgba(mixed(r), mixed(g), mixed(b), 255);
            if let Some(white) = white {
                *pixel = white;
            }
        });
    }
}

/// A label's words: attributes before the name, as they are spoken, and the probability.
fn label(object: &Object) -> String {
    let attributes = object.attributes.iter().take(2);
    let mut words: Vec<&str> = attributes.map(|(name, _)| name.as_str()).collect();
    words.push(&object.class);
    let words: String = words.join(" ");
    let printable: String = words.chars().filter(|c| !c.is_control()).take(40).collect();
    format!("{printable} {:.0} %", 100.0 * object.score)
}

/// Whether two rectangles share some area.
fn overlap(a: &Rect, b: &Rect) -> bool {
    a.left() < b.right() && b.left() < a.right() && a.top() < b.bottom() && b.top() < a.bottom()
}

/// Where a label goes: above its box, within it, or below, wherever no other label is and the picture reaches.
fn place(corners: [f32; 4], [w, h]: [f32; 2], size: [f32; 2], taken: &[Rect]) -> Option<Rect> {
    let [x1, y1, x2, y2] = corners;
    let left = x1.min(size[0] - w).max(0.0);
    let right = (x2 - w).min(size[0] - w).max(0.0);
    let mut places = vec![
        [left, y1 - h],
        [left, y1],
        [left, y2],
        [right, y1 - h],
        [right, y1],
    ];
    // then down along the box
    places.extend((1..8).map(|i| [left, y1 + i as f32 * h]));
    let rects = places.into_iter().filter_map(|[x, y]| {
        let inside = y >= 0.0 && y + h <= size[1];
        inside.then(|| Rect::from_xywh(x, y, w, h)).flatten()
    });
    let rects: Vec<Rect> = rects.collect();
    let free = rects.iter().find(|r| !taken.iter().any(|t| overlap(r, t)));
    let fallback = || Rect::from_xywh(left, y1.min(size[1] - h).max(0.0), w, h);
    free.or(rects.first()).copied().or_else(fallback)
}

/// The picture with a box around each object and its label; the best object is drawn last.
pub fn annotated(image: &Image, objects: &[Object]) -> Image {
    let font = FontRef::try_from_slice(epaint_default_fonts::HACK_REGULAR);
    let sizes = Sizes::of(image);
    let Some(mut canvas) = Pixmap::new(image.width(), image.height()) else {
        return image.clone();
    };
    for (pixel, rgb) in canvas
        .pixels_mut()
        .iter_mut()
        .zip(image.rgb().as_chunks::<3>().0)
    {
        let [r, g, b] = *rgb;
        if let Some(opaque) = PremultipliedColorU8::from_rgba(r, g, b, 255) {
            *pixel = opaque;
        }
    }
    let size = [image.width() as f32, image.height() as f32];
    let half = sizes.line / 2.0;
    let boxes: Vec<([f32; 4], [u8; 3])> = objects
        .iter()
        .map(|o| {
            // the line lies within the picture
            let within = |i: usize| o.corners[i].clamp(half, (size[i % 2] - half).max(half));
            (
                std::array::from_fn(within),
                COLOURS[o.label % COLOURS.len()],
            )
        })
        .collect();
    for (corners, colour) in boxes.iter().rev() {
        let [x1, y1, x2, y2] = *corners;
        let rect = Rect::from_ltrb(x1, y1, x2.max(x1 + 1.0), y2.max(y1 + 1.0));
        let Some(path) = rect.and_then(|rect| rounded(rect, sizes.round)) else {
            continue;
        };
        let around = |width: f32| Stroke {
            width,
            ..Stroke::default()
        };
        let still = Transform::identity();
        canvas.fill_path(&path, &paint(*colour, 18), FillRule::Winding, still, None);
        // a light edge keeps the line visible on dark and on equal colours
        let edge = around(sizes.line + 1.5);
        canvas.stroke_path(&path, &paint([255; 3], 150), &edge, still, None);
        canvas.stroke_path(
            &path,
            &paint(*colour, 255),
            &around(sizes.line),
            still,
            None,
        );
    }
    let Ok(font) = font else {
        return image_of(image, &canvas);
    };
    let mut taken = Vec::new();
    for (object, (corners, colour)) in objects.iter().zip(&boxes) {
        let text = label(object);
        // a label is never wider than the picture
        let mut text_size = sizes.text;
        let wide = |text_size: f32| width(&font, &text, text_size) + 2.0 * sizes.padding;
        if wide(text_size) > size[0] {
            text_size *= (size[0] / wide(text_size)).max(0.4);
        }
        let height = (text_size + sizes.padding).min(size[1]);
        let Some(rect) = place(
            *corners,
            [wide(text_size).min(size[0]), height],
            size,
            &taken,
        ) else {
            continue;
        };
        if let Some(path) = rounded(rect, sizes.round) {
            let back = paint(*colour, 235);
            let still = Transform::identity();
            canvas.fill_path(&path, &back, FillRule::Winding, still, None);
        }
        let base = rect.bottom() - 0.5 * sizes.padding - 0.22 * text_size;
        let at = [rect.left() + sizes.padding, base];
        write(&mut canvas, &font, &text, at, text_size);
        taken.push(rect);
    }
    image_of(image, &canvas)
}

/// The canvas, which is opaque, as a picture of the same size.
fn image_of(image: &Image, canvas: &Pixmap) -> Image {
    let pixels = canvas.pixels().iter();
    let rgb = pixels
        .flat_map(|p| [p.red(), p.green(), p.blue()])
        .collect();
    Image::from_rgb(image.width(), image.height(), rgb).unwrap_or_else(|_| image.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(corners: [f32; 4], class: &str, label: usize) -> Object {
        Object {
            corners,
            class: class.to_owned(),
            label,
            score: 0.87,
            attributes: vec![("red".to_owned(), 0.5)],
        }
    }

    fn grey(width: u32, height: u32) -> Image {
        let rgb = vec![128; (width * height * 3) as usize];
        Image::from_rgb(width, height, rgb).unwrap()
    }

    #[test]
    fn boxes_and_labels_are_drawn_and_what_is_far_from_them_stays() {
        let image = grey(320, 240);
        let drawn = annotated(&image, &[object([60.0, 80.0, 160.0, 200.0], "dog", 1)]);
        assert_eq!((drawn.width(), drawn.height()), (320, 240));
        let colour = COLOURS[1];
        let near = |found: [u8; 3]| found.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 12);
        assert!(near(drawn.pixel(60, 150)), "{:?}", drawn.pixel(60, 150));
        assert!(near(drawn.pixel(110, 200)), "{:?}", drawn.pixel(110, 200));
        assert_eq!(drawn.pixel(300, 20), [128; 3]);
        // white letters above the box
        let letters = (62..180).flat_map(|x| (60..80).map(move |y| (x, y)));
        let white = letters.filter(|&(x, y)| drawn.pixel(x, y).iter().all(|&c| c > 240));
        assert!(white.count() > 20);
    }

    #[test]
    fn labels_stay_within_the_picture_and_apart_from_each_other() {
        let mut taken: Vec<Rect> = Vec::new();
        for i in 0..6 {
            let y = 3.0 + i as f32;
            let rect = place(
                [180.0, y, 199.0, 90.0],
                [80.0, 14.0],
                [200.0, 100.0],
                &taken,
            );
            let rect = rect.unwrap();
            assert!(rect.left() >= 0.0 && rect.right() <= 200.0, "{rect:?}");
            assert!(rect.top() >= 0.0 && rect.bottom() <= 100.0, "{rect:?}");
            assert!(
                !taken.iter().any(|t| overlap(&rect, t)),
                "{rect:?} {taken:?}"
            );
            taken.push(rect);
        }
    }

    #[test]
    fn odd_boxes_names_and_pictures_do_no_harm() {
        let boxes = [
            [0.0; 4],
            [-50.0, -50.0, 900.0, 900.0],
            [f32::NAN; 4],
            [5.0, 5.0, 5.0, 5.0],
        ];
        for (width, height) in [(1, 1), (3, 200), (200, 3), (64, 48)] {
            let objects: Vec<Object> = boxes
                .iter()
                .enumerate()
                .map(|(i, &corners)| object(corners, &"näme \u{7} 猫 ".repeat(20), i))
                .collect();
            let drawn = annotated(&grey(width, height), &objects);
            assert_eq!((drawn.width(), drawn.height()), (width, height));
        }
    }
}
