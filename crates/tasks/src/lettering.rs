//! Words on pictures.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont};

fn plain() -> Option<FontRef<'static>> {
    FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT).ok()
}

/// How wide a line of text is that [`write_plain`] writes at a size in pixels.
pub fn plain_width(text: &str, size: f32) -> f32 {
    plain().map_or(0.0, |font| width(&font, text, size))
}

/// Writes a line of plain text onto a canvas of `columns x rows` pixels; `x`, `y` are the left end of its base line.
/// `ink` gets the place of each pixel that a letter touches, counted in rows, and how much of it the letter covers, from 0
/// to 1.
pub fn write_plain(
    extent: [u32; 2],
    text: &str,
    at: [f32; 2],
    size: f32,
    ink: impl FnMut(usize, f32),
) {
    if let Some(font) = plain() {
        write(extent, &font, text, at, size, ink);
    }
}

/// The font's width of a line of text.
pub(crate) fn width(font: &FontRef, text: &str, size: f32) -> f32 {
    let scaled = font.as_scaled(PxScale::from(size));
    let advance = |c| scaled.h_advance(scaled.glyph_id(c));
    text.chars().map(advance).sum()
}

/// Writes a line of text onto a canvas of `columns x rows` pixels; `x`, `y` are the left end of its base line. `ink` gets
/// the place of each pixel that a letter touches, counted in rows, and how much of it the letter covers, from 0 to 1.
pub(crate) fn write(
    [columns, rows]: [u32; 2],
    font: &FontRef,
    text: &str,
    [mut x, y]: [f32; 2],
    size: f32,
    mut ink: impl FnMut(usize, f32),
) {
    let scaled = font.as_scaled(PxScale::from(size));
    let (columns, rows) = (columns as i32, rows as i32);
    for c in text.chars() {
        let mut glyph = scaled.scaled_glyph(c);
        glyph.position = ab_glyph::point(x, y);
        x += scaled.h_advance(glyph.id);
        let Some(outline) = font.outline_glyph(glyph) else {
            continue;
        };
        let corner = outline.px_bounds().min;
        outline.draw(|dx, dy, coverage| {
            let (px, py) = (corner.x as i32 + dx as i32, corner.y as i32 + dy as i32);
            if (0..columns).contains(&px) && (0..rows).contains(&py) {
                ink((py * columns + px) as usize, coverage.clamp(0.0, 1.0));
            }
        });
    }
}
