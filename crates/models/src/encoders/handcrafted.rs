//! Pictures described by formulas, as it was done before they were learned: colours, textures and edges.
//!
//! ```text
//!   pixels -> colour histogram ----+
//!          -> grey -> LBP histogram +-> one vector for each place of a grid
//!          -> gradients -> HOG ----+
//! ```
//!
//! Nothing here has parameters, and no gradient goes back to the pixels.
//!
//! Legend: `B` pictures, `H`, `W` height and width, `N` places, `D` numbers of a place.

use super::vit::check_size;
use crate::error::{Error, expect};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// What is computed of pictures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandcraftedConfig {
    /// Height and width of a picture, in pixels.
    pub image_size: usize,
    /// Places a side: a whole number of pairs of HOG cells.
    pub grid: usize,
    /// Bins of each colour channel; 0 for no histogram of colours.
    pub colour_bins: usize,
    /// Whether there are local binary patterns.
    pub lbp: bool,
    /// Directions of histograms of oriented gradients; 0 for none.
    pub orientations: usize,
}

/// Neighbours of a pixel in its local binary pattern.
const NEIGHBOURS: usize = 8;
/// Uniform patterns by their number of bright neighbours, and one for all others.
const PATTERNS: usize = NEIGHBOURS + 2;
/// HOG cells a side of a block.
const BLOCK: usize = 2;

impl HandcraftedConfig {
    /// # Errors
    /// The first field that is out of range or does not fit another.
    pub fn validate(&self) -> Result<(), Error> {
        check_size("vision.image_size", self.image_size, 1024)?;
        check_size("vision.grid", self.grid, 64)?;
        let places = self.grid * BLOCK;
        expect(
            self.image_size.is_multiple_of(places) && self.image_size >= 2 * places,
            "vision.image_size",
            format!(
                "a multiple of twice the grid, {places}, at least {}",
                2 * places
            ),
            self.image_size,
        )?;
        for (name, value, max) in [
            ("vision.colour_bins", self.colour_bins, 16),
            ("vision.orientations", self.orientations, 36),
        ] {
            expect(value <= max, name, format!("0 to {max}"), value)?;
        }
        let width = self.features();
        expect(
            width > 0,
            "vision",
            "colours, patterns or gradients",
            "none",
        )
    }

    /// Numbers `D` of a place.
    pub fn features(&self) -> usize {
        self.colour_bins.pow(3)
            + if self.lbp { PATTERNS } else { 0 }
            + self.orientations * BLOCK * BLOCK
    }

    /// What a picture's places look like.
    ///
    /// # Shapes
    /// `[B, 3, H, W]`, levels from 0 to 1; gives `[B, N, D]`, places in rows from top to bottom, in each the histogram
    /// of colours, that of patterns, and the block of gradients, all times the square root of how many there are, so
    /// that none drowns the others.
    ///
    /// # Errors
    /// Pictures of another size.
    pub fn describe(&self, pixels: &Tensor<4>) -> Result<Tensor<3>, Error> {
        let ([b, c, h, w], side) = (pixels.dims(), self.image_size);
        expect(
            [c, h, w] == [3, side, side],
            "pixel_values",
            format!("3 x {side} x {side}"),
            format!("{c} x {h} x {w}"),
        )?;
        let values = pixels.clone().into_data().convert::<f32>();
        let values: Vec<f32> = values.try_to_vec().expect("f32 pixels");
        let (n, d) = (self.grid * self.grid, self.features());
        let mut all = Vec::with_capacity(b * n * d);
        for picture in values.chunks(3 * side * side) {
            self.describe_one(&Planes::new(picture, side), &mut all);
        }
        Ok(Tensor::from_data(
            TensorData::new(all, [b, n, d]),
            &pixels.device(),
        ))
    }

    fn describe_one(&self, picture: &Planes, all: &mut Vec<f32>) {
        let (grid, side) = (self.grid, picture.side);
        let place = side / grid;
        let patterns = self
            .lbp
            .then(|| local_binary_patterns(&picture.grey(), side));
        let cell = place / BLOCK;
        let blocks = (self.orientations > 0).then(|| {
            let channels: Vec<&[f64]> = picture.levels.iter().map(Vec::as_slice).collect();
            hog(&channels, side, self.orientations, cell, BLOCK)
        });
        let across = side / cell + 1 - BLOCK;
        let share = |numbers: usize| (numbers as f32).sqrt();
        for row in 0..grid {
            for column in 0..grid {
                let inside = (row * place..(row + 1) * place).flat_map(|y| {
                    (column * place..(column + 1) * place).map(move |x| y * side + x)
                });
                let count = (place * place) as f32;
                let mut histogram = |bins: usize, bin: &dyn Fn(usize) -> usize| {
                    let begin = all.len();
                    all.resize(begin + bins, 0.0);
                    for pixel in inside.clone() {
                        all[begin + bin(pixel)] += share(bins) / count;
                    }
                };
                if self.colour_bins > 0 {
                    let bins = self.colour_bins;
                    let bin = |pixel: usize| picture.colour_bin(pixel, bins);
                    histogram(bins.pow(3), &bin);
                }
                if let Some(patterns) = &patterns {
                    histogram(PATTERNS, &|pixel| patterns[pixel].into());
                }
                if let Some(blocks) = &blocks {
                    // blocks overlap; every second one is a place's own
                    let numbers = self.orientations * BLOCK * BLOCK;
                    let block = (row * across + column) * BLOCK;
                    let block = &blocks[block * numbers..][..numbers];
                    all.extend(block.iter().map(|&x| x as f32 * share(numbers)));
                }
            }
        }
    }
}

/// The channels of a square picture.
struct Planes {
    side: usize,
    /// Red, green and blue from 0 to 1.
    levels: [Vec<f64>; 3],
}

impl Planes {
    fn new(values: &[f32], side: usize) -> Self {
        let plane = |c: usize| {
            let plane = values[c * side * side..][..side * side].iter();
            // one of 256 levels, so that channels that are equally bright in the file are equal here
            plane
                .map(|&x| (255.0 * f64::from(x)).round() / 255.0)
                .collect()
        };
        Self {
            side,
            levels: [plane(0), plane(1), plane(2)],
        }
    }

    /// The bin of a pixel's colour, red slowest; levels beyond 0 to 1 belong to the outermost bins.
    fn colour_bin(&self, pixel: usize, bins: usize) -> usize {
        let bin = |c: usize| ((self.levels[c][pixel] * bins as f64) as usize).min(bins - 1);
        (bin(0) * bins + bin(1)) * bins + bin(2)
    }

    /// Brightness in 256 levels, as Pillow's `L` (ITU-R 601).
    fn grey(&self) -> Vec<u8> {
        let level =
            |c: usize, i: usize| (255.0 * self.levels[c][i]).round().clamp(0.0, 255.0) as u32;
        (0..self.side * self.side)
            .map(|i| {
                let sum = 19595 * level(0, i) + 38470 * level(1, i) + 7471 * level(2, i);
                ((sum + 0x8000) >> 16) as u8
            })
            .collect()
    }
}

/// Local binary patterns (Ojala et al., "Multiresolution gray-scale and rotation invariant texture classification",
/// 2002) of 8 neighbours at a distance of one pixel, as scikit-image's `local_binary_pattern(.., 8, 1, "uniform")`:
/// neighbours between pixels are interpolated, beyond the border they are black, and a pattern of at most two changes
/// counts its bright neighbours, every other one is 9.
///
/// # Shapes
/// `grey`: rows of `width` pixels; gives as many.
///
/// # Panics
/// Without a whole number of rows.
pub fn local_binary_patterns(grey: &[u8], width: usize) -> Vec<u8> {
    assert!(
        width > 0 && grey.len().is_multiple_of(width),
        "rows of {width} pixels, found {}",
        grey.len()
    );
    let height = grey.len() / width;
    let round = |x: f64| (x * 1e5).round() / 1e5;
    let neighbours: [[f64; 2]; NEIGHBOURS] = std::array::from_fn(|i| {
        let angle = std::f64::consts::TAU * i as f64 / NEIGHBOURS as f64;
        [round(-angle.sin()), round(angle.cos())]
    });
    let at = |row: f64, column: f64| {
        let inside = (0.0..height as f64).contains(&row) && (0.0..width as f64).contains(&column);
        match inside {
            true => f64::from(grey[row as usize * width + column as usize]),
            false => 0.0,
        }
    };
    let between = |row: f64, column: f64| {
        let (top, left) = (row.floor(), column.floor());
        let (bottom, right) = (row.ceil(), column.ceil());
        let (dr, dc) = (row - top, column - left);
        let upper = (1.0 - dc) * at(top, left) + dc * at(top, right);
        let lower = (1.0 - dc) * at(bottom, left) + dc * at(bottom, right);
        (1.0 - dr) * upper + dr * lower
    };
    let pattern = |i: usize| {
        let (row, column) = ((i / width) as f64, (i % width) as f64);
        let centre = f64::from(grey[i]);
        let bright = neighbours.map(|[r, c]| between(row + r, column + c) - centre >= 0.0);
        let changes = bright.windows(2).filter(|pair| pair[0] != pair[1]).count();
        match changes {
            0..=2 => bright.iter().filter(|b| **b).count() as u8,
            _ => NEIGHBOURS as u8 + 1,
        }
    };
    (0..grey.len()).map(pattern).collect()
}

/// Histograms of oriented gradients (Dalal & Triggs, "Histograms of oriented gradients for human detection", 2005), as
/// scikit-image's `hog` with `L2-Hys`: at each pixel the channel with the largest gradient counts, directions are
/// unsigned and not interpolated, and blocks of `block x block` cells overlap but for one cell.
///
/// # Shapes
/// `channels`: rows of `width` pixels each; gives blocks from left to right and top to bottom, in each its cells in the
/// same order, in each cell its `orientations` directions.
///
/// # Panics
/// Channels of different sizes, or a picture that has no block.
pub fn hog(
    channels: &[&[f64]],
    width: usize,
    orientations: usize,
    cell: usize,
    block: usize,
) -> Vec<f64> {
    let height = channels[0].len() / width.max(1);
    let whole = channels.iter().all(|c| c.len() == width * height);
    let (rows, columns) = (height / cell, width / cell);
    assert!(
        whole && rows.min(columns) >= block,
        "blocks of {block} cells of {cell} in {width} x {height} pixels"
    );
    let mut cells = vec![0f64; rows * columns * orientations];
    for y in 0..rows * cell {
        for x in 0..columns * cell {
            let gradient = |channel: &[f64]| {
                let at = |y: usize, x: usize| channel[y * width + x];
                let down = match y {
                    _ if y == 0 || y + 1 == height => 0.0,
                    _ => at(y + 1, x) - at(y - 1, x),
                };
                let right = match x {
                    _ if x == 0 || x + 1 == width => 0.0,
                    _ => at(y, x + 1) - at(y, x - 1),
                };
                (down.hypot(right), down, right)
            };
            let mut largest = gradient(channels[0]);
            for channel in &channels[1..] {
                let found = gradient(channel);
                if found.0 > largest.0 {
                    largest = found;
                }
            }
            let (magnitude, down, right) = largest;
            let direction = down.atan2(right).to_degrees().rem_euclid(180.0);
            let bin = (direction * orientations as f64 / 180.0) as usize;
            let at = (y / cell * columns + x / cell) * orientations;
            // an angle just below 0 is rounded to 180, which is no direction of its own and counts nowhere
            if bin < orientations {
                cells[at + bin] += magnitude / (cell * cell) as f64;
            }
        }
    }
    let mut blocks = Vec::new();
    for y in 0..=rows - block {
        for x in 0..=columns - block {
            let begin = blocks.len();
            for row in y..y + block {
                let at = (row * columns + x) * orientations;
                blocks.extend_from_slice(&cells[at..at + block * orientations]);
            }
            normalise(&mut blocks[begin..]);
        }
    }
    blocks
}

/// To unit length, cut at 0.2, and to unit length again.
fn normalise(block: &mut [f64]) {
    const EPS: f64 = 1e-5;
    for most in [0.2, f64::INFINITY] {
        let length = (block.iter().map(|x| x * x).sum::<f64>() + EPS * EPS).sqrt();
        block.iter_mut().for_each(|x| *x = (*x / length).min(most));
    }
}
