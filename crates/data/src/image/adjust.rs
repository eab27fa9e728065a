//! Changes to pictures that augmentation and tests of robustness make: colour, sharpness, geometry.
//!
//! Each is a function of the picture and its parameters; which are drawn at random is the caller's business. Colours
//! follow Pillow's `ImageEnhance` and `ImageOps`, which torchvision's `ColorJitter` and the RandAugment of ALBEF's and
//! BLIP's authors follow too.

use super::Image;
use crate::Error;

/// The grey that geometry leaves where the picture had nothing, as in RandAugment.
pub const FILL: [u8; 3] = [128; 3];

fn to_byte(value: f32) -> u8 {
    // `as` saturates
    value.round() as u8
}

/// What Pillow makes of a blend, which it does not round.
fn blended(value: f32) -> u8 {
    value as u8
}

impl Image {
    fn mapped(mut self, map: impl Fn([u8; 3]) -> [u8; 3]) -> Self {
        for pixel in self.rgb.chunks_exact_mut(3) {
            pixel.copy_from_slice(&map([pixel[0], pixel[1], pixel[2]]));
        }
        self
    }

    /// Each channel through a table of its own.
    fn through(self, tables: &[[u8; 256]; 3]) -> Self {
        self.mapped(|[r, g, b]| {
            [
                tables[0][r as usize],
                tables[1][g as usize],
                tables[2][b as usize],
            ]
        })
    }

    /// How often each value of a channel occurs.
    fn histogram(&self, channel: usize) -> [u64; 256] {
        let mut counts = [0; 256];
        for pixel in self.rgb.chunks_exact(3) {
            counts[pixel[channel] as usize] += 1;
        }
        counts
    }

    /// Every value times `factor`; 1 changes nothing.
    #[must_use]
    pub fn with_brightness(self, factor: f32) -> Self {
        let table = std::array::from_fn(|v| blended(v as f32 * factor));
        self.through(&[table; 3])
    }

    /// Away from the mean grey (above 1) or towards it.
    #[must_use]
    pub fn with_contrast(self, factor: f32) -> Self {
        let sum: u64 = self.rgb.chunks_exact(3).map(|p| u64::from(luma(p))).sum();
        let mean = (sum as f32 / (self.rgb.len() / 3) as f32 + 0.5).floor();
        let table = std::array::from_fn(|v| blended(mean + (v as f32 - mean) * factor));
        self.through(&[table; 3])
    }

    /// Away from grey (above 1) or towards it; 0 leaves none of the colours.
    #[must_use]
    pub fn with_saturation(self, factor: f32) -> Self {
        self.mapped(|pixel| {
            let grey = f32::from(luma(&pixel));
            pixel.map(|v| blended(grey + (f32::from(v) - grey) * factor))
        })
    }

    /// Every hue further around the circle by `turns`, of which 1 is once around.
    #[must_use]
    pub fn with_hue(self, turns: f32) -> Self {
        self.mapped(|pixel| {
            let [h, s, v] = to_hsv(pixel);
            from_hsv([(h + turns).rem_euclid(1.0), s, v])
        })
    }

    /// The darkest value of each channel to 0 and the lightest to 255.
    #[must_use]
    pub fn with_auto_contrast(self) -> Self {
        let tables = [0, 1, 2].map(|channel| {
            let counts = self.histogram(channel);
            let low = counts.iter().position(|&n| n > 0).unwrap_or(0) as f32;
            let high = counts.iter().rposition(|&n| n > 0).unwrap_or(255) as f32;
            let scale = if high > low {
                255.0 / (high - low)
            } else {
                1.0
            };
            std::array::from_fn(|v| match high > low {
                true => ((v as f32 - low) * scale).clamp(0.0, 255.0) as u8,
                false => v as u8,
            })
        });
        self.through(&tables)
    }

    /// About as many pixels of each value, in each channel.
    #[must_use]
    pub fn equalized(self) -> Self {
        let tables = [0, 1, 2].map(|channel| {
            let counts = self.histogram(channel);
            let last = counts.iter().rev().find(|&&n| n > 0).copied();
            let step = (counts.iter().sum::<u64>() - last.unwrap_or(0)) / 255;
            let mut below = step / 2;
            std::array::from_fn(|v| {
                if step == 0 {
                    return v as u8;
                }
                let value = (below / step).min(255) as u8;
                below += counts[v];
                value
            })
        });
        self.through(&tables)
    }

    /// Away from the smoothed picture (above 1) or towards it. The outermost pixels stay, as in Pillow.
    #[must_use]
    pub fn with_sharpness(self, factor: f32) -> Self {
        let (w, h) = (self.width as usize, self.height as usize);
        if w < 3 || h < 3 {
            return self;
        }
        let old = self.rgb.clone();
        let mut new = self;
        for y in 1..h - 1 {
            for x in 1..w - 1 {
                for c in 0..3 {
                    let at = |x: usize, y: usize| f32::from(old[(y * w + x) * 3 + c]);
                    let around: f32 = (y - 1..=y + 1)
                        .flat_map(|y| (x - 1..=x + 1).map(move |x| (x, y)))
                        .map(|(x, y)| at(x, y))
                        .sum();
                    let smooth = ((around + 4.0 * at(x, y)) / 13.0).round();
                    let value = smooth + factor * (at(x, y) - smooth);
                    new.rgb[(y * w + x) * 3 + c] = blended(value);
                }
            }
        }
        new
    }

    /// Smoothed by a Gaussian of this deviation in pixels; what lies outside is as the edge.
    #[must_use]
    pub fn blurred(self, deviation: f32) -> Self {
        if !deviation.is_finite() || deviation <= 0.0 {
            return self;
        }
        let radius = ((3.0 * deviation).ceil() as i64).min(512);
        let weights: Vec<f32> = (-radius..=radius)
            .map(|i| (-((i * i) as f32) / (2.0 * deviation * deviation)).exp())
            .collect();
        let sum: f32 = weights.iter().sum();
        let (w, h) = (self.width as usize, self.height as usize);
        let pass = |from: &[f32], dx: i64, dy: i64| {
            let mut to = vec![0.0; from.len()];
            for y in 0..h as i64 {
                for x in 0..w as i64 {
                    for (i, weight) in (-radius..=radius).zip(&weights) {
                        let sx = (x + i * dx).clamp(0, w as i64 - 1) as usize;
                        let sy = (y + i * dy).clamp(0, h as i64 - 1) as usize;
                        for c in 0..3 {
                            to[(y as usize * w + x as usize) * 3 + c] +=
                                weight / sum * from[(sy * w + sx) * 3 + c];
                        }
                    }
                }
            }
            to
        };
        let values: Vec<f32> = self.rgb.iter().map(|&v| f32::from(v)).collect();
        let values = pass(&pass(&values, 1, 0), 0, 1);
        Self {
            rgb: values.into_iter().map(to_byte).collect(),
            ..self
        }
    }

    /// A part of the picture.
    ///
    /// # Errors
    /// [`Error::Resize`] where a side is 0 or the part lies outside.
    pub fn cropped(&self, left: u32, top: u32, width: u32, height: u32) -> Result<Self, Error> {
        let fits = |begin: u32, size: u32, whole: u32| {
            size > 0 && begin.checked_add(size).is_some_and(|end| end <= whole)
        };
        if !fits(left, width, self.width) || !fits(top, height, self.height) {
            return Err(Error::Resize {
                from_width: self.width,
                from_height: self.height,
                width: width.into(),
                height: height.into(),
                reason: format!("the part at column {left}, row {top} is empty or lies outside"),
            });
        }
        let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
        for y in top..top + height {
            let begin = (y as usize * self.width as usize + left as usize) * 3;
            rgb.extend_from_slice(&self.rgb[begin..begin + width as usize * 3]);
        }
        Self::from_rgb(width, height, rgb)
    }

    /// Left and right exchanged.
    #[must_use]
    pub fn mirrored(mut self) -> Self {
        for row in self.rgb.chunks_exact_mut(self.width as usize * 3) {
            let pixels = row.len() / 3;
            for x in 0..pixels / 2 {
                for c in 0..3 {
                    row.swap(x * 3 + c, (pixels - 1 - x) * 3 + c);
                }
            }
        }
        self
    }

    /// The picture of the same size whose pixel at `(x, y)` is that of the old one at
    /// `(m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5])`, between pixels linearly, and `fill` outside.
    #[must_use]
    pub fn warped(&self, m: [f32; 6], fill: [u8; 3]) -> Self {
        let (w, h) = (self.width as i64, self.height as i64);
        let at = |x: i64, y: i64| {
            if (0..w).contains(&x) && (0..h).contains(&y) {
                self.pixel(x as u32, y as u32)
            } else {
                fill
            }
        };
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for y in 0..h {
            for x in 0..w {
                let sx = m[0] * x as f32 + m[1] * y as f32 + m[2];
                let sy = m[3] * x as f32 + m[4] * y as f32 + m[5];
                let (x0, y0) = (sx.floor(), sy.floor());
                let (fx, fy) = (sx - x0, sy - y0);
                let (x0, y0) = (x0 as i64, y0 as i64);
                let corners = [
                    (at(x0, y0), (1.0 - fx) * (1.0 - fy)),
                    (at(x0.saturating_add(1), y0), fx * (1.0 - fy)),
                    (at(x0, y0.saturating_add(1)), (1.0 - fx) * fy),
                    (at(x0.saturating_add(1), y0.saturating_add(1)), fx * fy),
                ];
                for c in 0..3 {
                    let parts = corners.iter().map(|(p, weight)| f32::from(p[c]) * weight);
                    rgb.push(to_byte(parts.sum()));
                }
            }
        }
        Self { rgb, ..*self }
    }

    /// Turned about its centre, counter-clockwise for positive degrees, as OpenCV does.
    #[must_use]
    pub fn rotated(&self, degrees: f32, fill: [u8; 3]) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (cx, cy) = (self.width as f32 / 2.0, self.height as f32 / 2.0);
        // the inverse of the turn: where each new pixel comes from
        let m = [
            cos,
            -sin,
            cx - cos * cx + sin * cy,
            sin,
            cos,
            cy - sin * cx - cos * cy,
        ];
        self.warped(m, fill)
    }

    /// Grey in place of every colour.
    #[must_use]
    pub fn greyscale(self) -> Self {
        self.mapped(|pixel| [luma(&pixel); 3])
    }
}

/// ITU-R BT.601 in Pillow's arithmetic.
fn luma(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
}

/// Hue, saturation and value, each from 0 to 1.
fn to_hsv(pixel: [u8; 3]) -> [f32; 3] {
    let [r, g, b] = pixel.map(|v| f32::from(v) / 255.0);
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    let range = high - low;
    if range == 0.0 {
        return [0.0, 0.0, high];
    }
    let sixth = if high == r {
        ((g - b) / range).rem_euclid(6.0)
    } else if high == g {
        (b - r) / range + 2.0
    } else {
        (r - g) / range + 4.0
    };
    [sixth / 6.0, range / high, high]
}

fn from_hsv([h, s, v]: [f32; 3]) -> [u8; 3] {
    let channel = |n: f32| {
        let k = (n + h * 6.0).rem_euclid(6.0);
        let share = k.min(4.0 - k).clamp(0.0, 1.0);
        to_byte(255.0 * (v - v * s * share))
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u32, rgb: &[u8]) -> Image {
        let height = rgb.len() as u32 / 3 / width;
        Image::from_rgb(width, height, rgb.to_vec()).unwrap()
    }

    #[test]
    fn colours_change_as_in_pillow() {
        // values of PIL.ImageEnhance and PIL.ImageOps (Pillow 12) for these two pixels
        let two = image(2, &[10, 100, 200, 30, 60, 90]);
        assert_eq!(
            two.clone().with_brightness(1.5).rgb(),
            [15, 150, 255, 45, 90, 135]
        );
        let grey = two.clone().with_saturation(0.0);
        assert_eq!(grey.rgb(), [84, 84, 84, 54, 54, 54]);
        let vivid = two.clone().with_saturation(1.5);
        assert_eq!(vivid.rgb(), [0, 108, 255, 18, 63, 108]);
        assert_eq!(grey, two.clone().greyscale());
        assert_eq!(two.clone().with_contrast(0.0).rgb(), [69; 6]);
        assert_eq!(
            two.clone().with_contrast(1.5).rgb(),
            [0, 115, 255, 10, 55, 100]
        );
        assert_eq!(
            two.clone().with_auto_contrast().rgb(),
            [0, 255, 255, 255, 0, 0]
        );
        for unchanged in [
            two.clone().with_brightness(1.0),
            two.clone().with_contrast(1.0),
            two.clone().with_saturation(1.0),
            two.clone().with_hue(0.0),
            two.clone().with_hue(1.0),
            two.clone().blurred(0.0),
            two.rotated(0.0, FILL),
        ] {
            assert_eq!(unchanged, two);
        }
        let red = image(1, &[200, 0, 0]);
        assert_eq!(red.clone().with_hue(1.0 / 3.0).rgb(), [0, 200, 0]);
        assert_eq!(red.with_hue(-1.0 / 3.0).rgb(), [0, 0, 200]);
    }

    #[test]
    fn equal_shares_of_values_become_equally_far_apart() {
        let ramp: Vec<u8> = (0..510u32)
            .flat_map(|i| [(i / 255 * 10) as u8; 3])
            .collect();
        let equal = image(510, &ramp).equalized();
        // 255 pixels of each of two values: one step of a pixel, as in PIL.ImageOps.equalize
        assert_eq!((equal.pixel(0, 0), equal.pixel(509, 0)), ([0; 3], [255; 3]));
        let flat = image(2, &[7; 6]);
        assert_eq!(flat.clone().equalized(), flat);
    }

    #[test]
    fn geometry_moves_pixels_to_where_it_says() {
        let square = image(2, &[1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
        assert_eq!(
            square.clone().mirrored().rgb(),
            [2, 2, 2, 1, 1, 1, 4, 4, 4, 3, 3, 3]
        );
        let shifted = square.warped([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], [9; 3]);
        assert_eq!(shifted.rgb(), [2, 2, 2, 9, 9, 9, 4, 4, 4, 9, 9, 9]);
        let half = square.warped([1.0, 0.0, 0.5, 0.0, 1.0, 0.0], [0; 3]);
        assert_eq!(half.pixel(0, 1), [4; 3], "3.5 rounded");
        // a quarter turn about the centre brings the right edge to the top
        let line = image(
            5,
            &[[0u8; 3], [0; 3], [0; 3], [0; 3], [200; 3]]
                .concat()
                .repeat(5),
        );
        let turned = line.rotated(90.0, [0; 3]);
        assert!((0..5).all(|y| turned.pixel(2, y)[0] < 200 || y < 2));
        assert!(turned.pixel(2, 1)[0] > 150 || turned.pixel(2, 0)[0] > 150);
    }

    #[test]
    fn blurring_keeps_the_sum_and_sharpening_nothing_flat() {
        let mut rgb = vec![0u8; 9 * 9 * 3];
        rgb[(4 * 9 + 4) * 3..][..3].fill(250);
        let blurred = image(9, &rgb).blurred(0.8);
        let sum: u32 = blurred.rgb().iter().step_by(3).map(|&v| u32::from(v)).sum();
        assert!((235..=265).contains(&sum), "{sum}");
        assert!(blurred.pixel(4, 4)[0] < 80 && blurred.pixel(3, 4)[0] > 10);
        let flat = image(9, &[77; 243]);
        assert_eq!(flat.clone().with_sharpness(1.9), flat);
        assert_eq!(flat.clone().blurred(2.0), flat);
    }
}
