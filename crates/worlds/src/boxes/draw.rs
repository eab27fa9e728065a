//! Scenes as pictures, with NLVR's pixels.

use std::sync::LazyLock;

use tiny_skia::{FillRule, Mask, Path, PathBuilder, Rect, Transform};

use super::scene::{BOX, Colour, Object, Scene, Shape, Size};

/// Pixels in a row: three boxes and two gaps.
pub const WIDTH: u32 = 400;
/// Number of rows.
pub const HEIGHT: u32 = 100;
/// From the left edge of a box to that of the next.
const PITCH: usize = 150;

const BOX_GREY: u8 = 0xd3;
const GAP_GREY: u8 = 0x80;
/// Palette entries of the boxes and of what is between them; then those of each colour.
const BOX_INDEX: u8 = 0;
const GAP_INDEX: u8 = 1;
const FIRST_COLOUR: usize = 2;

/// A picture with a palette.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// [`HEIGHT`] rows of [`WIDTH`] entries of the palette.
    indices: Vec<u8>,
}

/// How much of each pixel the forms cover, as entries of `levels`, and the colours that come of it.
struct Sprites {
    /// For each form and size, rows from above.
    coverage: Vec<Vec<u8>>,
    /// Red, green and blue of each entry.
    palette: Vec<u8>,
    /// Entries for each colour; the first is full coverage, and the last none.
    levels: usize,
}

static SPRITES: LazyLock<Sprites> = LazyLock::new(|| {
    let kinds = || {
        let sizes = |shape| Size::ALL.into_iter().map(move |size| (shape, size));
        Shape::ALL.into_iter().flat_map(sizes)
    };
    let drawn: Vec<Vec<u8>> = kinds().map(|(shape, size)| covered(shape, size)).collect();
    let mut levels: Vec<u8> = drawn.iter().flatten().copied().filter(|&a| a > 0).collect();
    levels.sort_unstable_by(|a, b| b.cmp(a));
    levels.dedup();
    let entry = |alpha: &u8| levels.iter().position(|level| level == alpha);
    let coverage = drawn.iter().map(|sprite| {
        let entries = sprite
            .iter()
            .map(|alpha| entry(alpha).unwrap_or(levels.len()));
        entries.map(|entry| entry as u8).collect()
    });
    let mut palette = vec![BOX_GREY; 3];
    palette.extend([GAP_GREY; 3]);
    for colour in Colour::ALL {
        for &alpha in &levels {
            palette.extend(rgb(colour).map(|part| {
                let (part, alpha) = (u32::from(part), u32::from(alpha));
                ((part * alpha + u32::from(BOX_GREY) * (255 - alpha) + 127) / 255) as u8
            }));
        }
    }
    Sprites {
        coverage: coverage.collect(),
        palette,
        levels: levels.len(),
    }
});

/// Red, green and blue.
fn rgb(colour: Colour) -> [u8; 3] {
    match colour {
        Colour::Black => [0, 0, 0],
        Colour::Yellow => [255, 255, 0],
        Colour::Blue => [0, 153, 255],
    }
}

/// The coverage of a form's pixels from 0 to 255.
fn covered(shape: Shape, size: Size) -> Vec<u8> {
    let pixels = u32::from(size.pixels());
    let mut mask = Mask::new(pixels, pixels).expect("a form has a size");
    let outline = outline(shape, pixels as f32).expect("the forms are no lines");
    mask.fill_path(&outline, FillRule::Winding, true, Transform::identity());
    mask.data().to_vec()
}

fn outline(shape: Shape, side: f32) -> Option<Path> {
    match shape {
        Shape::Circle => PathBuilder::from_circle(side / 2.0, side / 2.0, side / 2.0),
        Shape::Square => Some(PathBuilder::from_rect(Rect::from_xywh(
            0.0, 0.0, side, side,
        )?)),
        Shape::Triangle => {
            let mut path = PathBuilder::new();
            path.move_to(side / 2.0, 0.0);
            path.line_to(side, side);
            path.line_to(0.0, side);
            path.close();
            path.finish()
        }
    }
}

impl Picture {
    /// The scene with its boxes in an order: the first from the left is `scene.boxes[order[0]]`.
    pub fn of(scene: &Scene, order: [usize; 3]) -> Picture {
        let width = WIDTH as usize;
        let side = usize::from(BOX);
        let mut row = vec![GAP_INDEX; width];
        for left in [0, PITCH, 2 * PITCH] {
            row[left..left + side].fill(BOX_INDEX);
        }
        let mut indices = row.repeat(HEIGHT as usize);
        for (place, which) in order.into_iter().enumerate() {
            for item in &scene.boxes[which] {
                draw(item, &mut indices, place * PITCH);
            }
        }
        Picture { indices }
    }

    /// Red, green and blue of each pixel.
    pub fn rgb(&self) -> Vec<u8> {
        let palette = &SPRITES.palette;
        let pixels = self.indices.iter();
        pixels
            .flat_map(|&i| palette[3 * usize::from(i)..][..3].iter().copied())
            .collect()
    }

    /// The picture as a PNG file with a palette, as NLVR's are; the same pixels always give the same bytes.
    pub fn to_png(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2048);
        let mut encoder = png::Encoder::new(&mut bytes, WIDTH, HEIGHT);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_palette(&SPRITES.palette[..]);
        encoder.set_compression(png::Compression::Fast);
        // most rows are the row above them
        encoder.set_filter(png::Filter::Up);
        let written = encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.indices));
        written.expect("a valid picture is always written to memory");
        bytes
    }
}

fn draw(item: &Object, indices: &mut [u8], left: usize) {
    let sprites = &*SPRITES;
    let side = usize::from(item.size.pixels());
    let sprite = &sprites.coverage[item.shape as usize * Size::ALL.len() + item.size as usize];
    let first = FIRST_COLOUR + item.colour as usize * sprites.levels;
    for (dy, covered) in sprite.chunks_exact(side).enumerate() {
        let start = (usize::from(item.y) + dy) * WIDTH as usize + left + usize::from(item.x);
        for (pixel, &level) in indices[start..start + side].iter_mut().zip(covered) {
            if usize::from(level) < sprites.levels {
                *pixel = (first + usize::from(level)) as u8;
            }
        }
    }
}
