//! Outlines of the shapes, as polygons, and their coverage on a grid of pixels.
//!
//! Everything is a polygon because `tiny-skia` rasterises those with plain arithmetic alone, so that the coverage is
//! the same on every platform; sines and cosines come from the `libm` crate for the same reason.

use tiny_skia::{FillRule, Mask, Path, PathBuilder, Transform};

use super::scene::{Shape, Size};
use crate::rng::Rng;

pub(crate) type Point = [f32; 2];

const TAU: f32 = std::f32::consts::TAU;

/// A point turned around the origin.
pub(crate) fn rotate([x, y]: Point, angle: f32) -> Point {
    let (sin, cos) = libm::sincosf(angle);
    [x * cos - y * sin, x * sin + y * cos]
}

/// One drawn variant of a shape: its box is centred on the origin and its longer side is 1.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    /// One closed polygon, or for a ring the outer and the inner one.
    pub(crate) polygons: Vec<Vec<Point>>,
    /// Width and height of the box.
    pub(crate) extent: Point,
    /// The turn that was applied, in radians.
    pub(crate) angle: f32,
    /// Thickness of a ring's band or of a cross's arms; 0 for other shapes.
    pub(crate) thickness: f32,
}

impl Outline {
    /// A random variant: turned a little, stretched a little, arms thicker or thinner.
    pub(crate) fn random(rng: &mut Rng, shape: Shape, size: Size) -> Outline {
        let turn = rng.between(-1.0, 1.0);
        let stretch = rng.between(-1.0, 1.0);
        let variant = rng.unit();
        let lerp = |low: f32, high: f32| low + (high - low) * variant;
        let (mut polygons, max_turn, aspect, thickness) = match shape {
            Shape::Circle => (vec![ellipse(0.5)], 0.0, 1.0 + 0.05 * stretch, 0.0),
            Shape::Ring => {
                let band = match size {
                    Size::Small => lerp(0.26, 0.3),
                    Size::Large => lerp(0.15, 0.2),
                };
                let polygons = vec![ellipse(0.5), ellipse(0.5 - band)];
                (polygons, 0.0, 1.0 + 0.04 * stretch, band)
            }
            Shape::Square => {
                let square = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]];
                (vec![square.to_vec()], 11.0, 1.0 + 0.06 * stretch, 0.0)
            }
            Shape::Diamond => {
                let diamond = [[0.0, -0.5], [0.5, 0.0], [0.0, 0.5], [-0.5, 0.0]];
                (vec![diamond.to_vec()], 6.0, 0.76 + 0.07 * stretch, 0.0)
            }
            Shape::Triangle => {
                let triangle = [[0.0, -0.5], [0.5, 0.5], [-0.5, 0.5]];
                (vec![triangle.to_vec()], 13.0, 1.08 + 0.08 * stretch, 0.0)
            }
            Shape::Star => (
                vec![star(lerp(0.42, 0.48))],
                16.0,
                1.0 + 0.05 * stretch,
                0.0,
            ),
            Shape::Heart => (vec![heart()], 13.0, 1.0 + 0.06 * stretch, 0.0),
            Shape::Cross => {
                let arm = lerp(0.32, 0.38);
                (vec![cross(arm / 2.0)], 11.0, 1.0 + 0.05 * stretch, arm)
            }
        };
        let angle = turn * max_turn * TAU / 360.0;
        for point in polygons.iter_mut().flatten() {
            *point = rotate([point[0] * aspect, point[1]], angle);
        }
        let extent = centre_and_normalise(&mut polygons);
        Outline {
            polygons,
            extent,
            angle,
            thickness,
        }
    }

    /// The polygons in pixels, `diameter` long and centred on `centre`.
    pub(crate) fn path(&self, diameter: f32, centre: Point) -> Option<Path> {
        path_of(&self.polygons, diameter, centre)
    }

    /// The outermost polygon alone: for a ring the disc that it would be without its hole.
    pub(crate) fn hull_path(&self, diameter: f32, centre: Point) -> Option<Path> {
        path_of(&self.polygons[..1], diameter, centre)
    }
}

fn path_of(polygons: &[Vec<Point>], diameter: f32, centre: Point) -> Option<Path> {
    let mut path = PathBuilder::new();
    for polygon in polygons {
        for (i, point) in polygon.iter().enumerate() {
            let (x, y) = (
                point[0] * diameter + centre[0],
                point[1] * diameter + centre[1],
            );
            if i == 0 {
                path.move_to(x, y);
            } else {
                path.line_to(x, y);
            }
        }
        path.close();
    }
    path.finish()
}

/// Moves the box's centre to the origin, scales its longer side to 1 and returns its width and height.
fn centre_and_normalise(polygons: &mut [Vec<Point>]) -> Point {
    let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
    for point in polygons.iter().flatten() {
        for axis in 0..2 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    let span = [high[0] - low[0], high[1] - low[1]];
    let longer = span[0].max(span[1]);
    for point in polygons.iter_mut().flatten() {
        for axis in 0..2 {
            point[axis] = (point[axis] - (low[axis] + high[axis]) / 2.0) / longer;
        }
    }
    [span[0] / longer, span[1] / longer]
}

fn ellipse(radius: f32) -> Vec<Point> {
    (0..64)
        .map(|i| rotate([radius, 0.0], TAU * i as f32 / 64.0))
        .collect()
}

fn star(inner: f32) -> Vec<Point> {
    (0..10)
        .map(|i| {
            let radius = if i % 2 == 0 { 0.5 } else { 0.5 * inner };
            rotate([0.0, -radius], TAU * i as f32 / 10.0)
        })
        .collect()
}

/// The classic curve x = 16 sin³t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, upright.
fn heart() -> Vec<Point> {
    (0..64)
        .map(|i| {
            let t = TAU * i as f32 / 64.0;
            let (sin, cos) = libm::sincosf(t);
            let y = 13.0 * cos
                - 5.0 * libm::cosf(2.0 * t)
                - 2.0 * libm::cosf(3.0 * t)
                - libm::cosf(4.0 * t);
            [16.0 * sin * sin * sin, -y]
        })
        .collect()
}

fn cross(half_arm: f32) -> Vec<Point> {
    let (a, b) = (half_arm, 0.5);
    vec![
        [-a, -b],
        [a, -b],
        [a, -a],
        [b, -a],
        [b, a],
        [a, a],
        [a, b],
        [-a, b],
        [-a, a],
        [-b, a],
        [-b, -a],
        [-a, -a],
    ]
}

/// How much of each pixel a path covers, from 0 to 255, in a rectangle of pixels; empty if it has no area.
pub(crate) fn coverage(path: Option<&Path>, width: u32, height: u32, rule: FillRule) -> Vec<u8> {
    let Some(mut mask) = Mask::new(width, height) else {
        return Vec::new();
    };
    if let Some(path) = path {
        mask.fill_path(path, rule, true, Transform::identity());
    }
    mask.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outline_is_centred_with_a_longer_side_of_one() {
        let mut rng = Rng::from_key(&[1]);
        for &shape in Shape::ALL {
            for &size in Size::ALL {
                for _ in 0..50 {
                    let outline = Outline::random(&mut rng, shape, size);
                    let longer = outline.extent[0].max(outline.extent[1]);
                    assert!((longer - 1.0).abs() < 1e-6, "{shape}");
                    // A shape much thinner than long would look smaller than its size says.
                    let shorter = outline.extent[0].min(outline.extent[1]);
                    assert!(shorter > 0.66, "{shape} {shorter}");
                }
            }
        }
    }
}
