//! Position tables at another resolution, as PyTorch's `F.interpolate(…, align_corners=False)` gives them.
//!
//! Interpolation is linear in the table, and along rows and columns apart. So each axis is a small matrix of weights:
//! loading applies one after the other ([`interpolate`]), and a forward pass whose gradient must reach the table
//! multiplies by their Kronecker product ([`interpolation_matrix`]).
//!
//! One thing is not as PyTorch 2.15 has it on a CPU, because it is a mistake there: a table that is antialiased to a grid
//! of one column and several rows, other than it had, gets its first row's value in all of them.

/// How values between the places of a table are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Straight lines between neighbours.
    Bilinear,
    /// Cubic convolution (Keys, "Cubic convolution interpolation for digital image processing", 1981) over four
    /// neighbours; with `a = -0.75`, or `a = -0.5` with antialiasing, as PyTorch has it.
    Bicubic,
}

impl Interpolation {
    /// The weight of a place at distance `x` and the distance from which on it is zero.
    fn kernel(self, a: f64) -> (impl Fn(f64) -> f64, f64) {
        let support = match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        };
        let weight = move |x: f64| {
            let x = x.abs();
            match self {
                Self::Bilinear => (1.0 - x).max(0.0),
                Self::Bicubic if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
                Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
                Self::Bicubic => 0.0,
            }
        };
        (weight, support)
    }
}

/// Weights of one axis, `[to, from]`.
fn axis(from: usize, to: usize, mode: Interpolation, antialias: bool) -> Vec<f64> {
    let mut weights = vec![0.0; to * from];
    let scale = from as f64 / to as f64;
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        if antialias {
            // the kernel grows with the distance of the places that it stands for, and is cut at the borders
            let (weight, support) = mode.kernel(-0.5);
            let stretch = scale.max(1.0);
            let center = scale * (i as f64 + 0.5);
            let begin = (center - support * stretch + 0.5).max(0.0) as usize;
            let end = ((center + support * stretch + 0.5) as usize).min(from);
            for (j, w) in row.iter_mut().enumerate().take(end).skip(begin) {
                *w = weight((j as f64 - center + 0.5) / stretch);
            }
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|w| *w /= sum);
        } else {
            // places beyond the border repeat the outermost one
            let (weight, support) = mode.kernel(-0.75);
            let center = scale * (i as f64 + 0.5) - 0.5;
            let center = match mode {
                Interpolation::Bilinear => center.max(0.0),
                Interpolation::Bicubic => center,
            };
            let first = center.floor() - support + 1.0;
            for j in 0..2 * support as usize {
                let place = first + j as f64;
                let inside = place.clamp(0.0, (from - 1) as f64) as usize;
                row[inside] += weight(place - center);
            }
        }
    }
    weights
}

/// The matrix `[to.0 * to.1, from.0 * from.1]` that takes a table of one grid, row by row, to one of another:
/// `matrix @ table`. Rows sum to 1.
///
/// It has as many entries as both grids' sizes multiplied: 5 MB from 24 x 24 to 48 x 48.
///
/// # Panics
/// If a grid is empty.
pub fn interpolation_matrix(
    from: (usize, usize),
    to: (usize, usize),
    mode: Interpolation,
    antialias: bool,
) -> Vec<f32> {
    assert!(from.0 * from.1 * to.0 * to.1 > 0, "{from:?} to {to:?}");
    let rows = axis(from.0, to.0, mode, antialias);
    let columns = axis(from.1, to.1, mode, antialias);
    let mut matrix = Vec::with_capacity(to.0 * to.1 * from.0 * from.1);
    for row in rows.chunks_exact(from.0) {
        for column in columns.chunks_exact(from.1) {
            for r in row {
                matrix.extend(column.iter().map(|c| (r * c) as f32));
            }
        }
    }
    matrix
}

/// A table of `kept` leading rows (class tokens, which stay) and a grid, with the grid at another size.
///
/// # Shapes
/// `table: [kept + from.0 * from.1, width]`; gives `[kept + to.0 * to.1, width]`.
///
/// # Panics
/// If the table has another size or a grid is empty.
pub fn interpolate(
    table: &[f32],
    width: usize,
    kept: usize,
    from: (usize, usize),
    to: (usize, usize),
    mode: Interpolation,
    antialias: bool,
) -> Vec<f32> {
    assert!(from.0 * from.1 * to.0 * to.1 > 0, "{from:?} to {to:?}");
    assert_eq!(table.len(), (kept + from.0 * from.1) * width, "{from:?}");
    let (class, grid) = table.split_at(kept * width);
    let mut out = class.to_vec();
    if from == to {
        out.extend_from_slice(grid);
        return out;
    }
    let rows = axis(from.0, to.0, mode, antialias);
    let columns = axis(from.1, to.1, mode, antialias);
    let mut line = vec![0.0; from.1 * width];
    for weights in rows.chunks_exact(from.0) {
        // one new row over the old columns
        line.fill(0.0);
        for (&weight, old) in weights.iter().zip(grid.chunks_exact(from.1 * width)) {
            if weight != 0.0 {
                let places = line.iter_mut().zip(old);
                places.for_each(|(new, &old)| *new += weight * f64::from(old));
            }
        }
        for weights in columns.chunks_exact(from.1) {
            for d in 0..width {
                let old = line.iter().skip(d).step_by(width);
                let sum: f64 = weights.iter().zip(old).map(|(w, x)| w * x).sum();
                out.push(sum as f32);
            }
        }
    }
    out
}

/// The side of a square grid of so many places, if there is one.
pub fn square_side(places: usize) -> Option<usize> {
    let side = places.isqrt();
    (side * side == places).then_some(side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Checkpoint;

    const MODES: [(&str, Interpolation, bool); 4] = [
        ("bilinear", Interpolation::Bilinear, false),
        ("bicubic", Interpolation::Bicubic, false),
        ("bilinear_antialias", Interpolation::Bilinear, true),
        ("bicubic_antialias", Interpolation::Bicubic, true),
    ];

    fn golden() -> Checkpoint {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/nn/position_interpolation.safetensors"
        );
        Checkpoint::open(path.as_ref()).expect("golden")
    }

    /// Both are rounded to f32 at most once at each step; PyTorch's weights are f32.
    #[track_caller]
    fn close(found: &[f32], expected: &[f32], place: &str) {
        assert_eq!(found.len(), expected.len(), "{place}");
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= 3e-6, "{place}, {i}: {a} is not {b}");
        }
    }

    #[test]
    fn tables_match_the_reference_in_every_mode_up_and_down() {
        const WIDTH: usize = 3;
        let mut golden = golden();
        let grids = [(2, 2), (4, 4), (7, 7), (3, 5), (1, 6), (1, 1)];
        for from in grids {
            let name = format!("in.{}x{}", from.0, from.1);
            let table = golden
                .take(&name, &[from.0 * from.1, WIDTH])
                .expect("table");
            for to in [(1, 1), (2, 3), (4, 4), (5, 2), (7, 7), (9, 11), (1, 16)] {
                let places = to.0 * to.1;
                for (mode, filter, antialias) in MODES {
                    let name = format!("out.{mode}.{}x{}.{}x{}", from.0, from.1, to.0, to.1);
                    let expected = golden.take(&name, &[places, WIDTH]).expect("golden");
                    let found = interpolate(&table, WIDTH, 0, from, to, filter, antialias);
                    close(&found, &expected, &name);
                    let matrix = interpolation_matrix(from, to, filter, antialias);
                    let product: Vec<f32> = matrix
                        .chunks_exact(from.0 * from.1)
                        .flat_map(|row| {
                            let table = &table;
                            (0..WIDTH).map(move |d| {
                                let column = table.iter().skip(d).step_by(WIDTH);
                                row.iter().zip(column).map(|(w, x)| w * x).sum()
                            })
                        })
                        .collect();
                    close(&product, &expected, &name);
                }
            }
        }
        golden.ignore("model.**");
        assert_eq!(golden.unused().collect::<Vec<_>>(), [""; 0]);
    }

    /// Each model's own code: class tokens stay, HF's CLIP and SigLIP are bicubic, open_clip is antialiased, SigLIP 2
    /// bilinear and antialiased, text bilinear along one axis.
    #[test]
    fn models_tables_match_their_own_interpolation() {
        use Interpolation::{Bicubic, Bilinear};
        let mut golden = golden();
        for (model, kept, from, to, mode, antialias) in [
            ("clip", 1, (3, 3), (4, 6), Bicubic, false),
            ("siglip", 0, (3, 3), (5, 2), Bicubic, false),
            ("blip", 1, (3, 3), (5, 5), Bicubic, false),
            ("open_clip", 1, (3, 3), (2, 4), Bicubic, true),
            ("siglip2", 0, (4, 4), (3, 5), Bilinear, true),
            ("open_clip_text", 0, (9, 1), (5, 1), Bilinear, false),
        ] {
            let (name, width) = (format!("model.{model}"), 4);
            let rows = |(h, w): (usize, usize)| kept + h * w;
            let mut table =
                |part: &str, rows| golden.take(&format!("{name}.{part}"), &[rows, width]);
            let (before, after) = (table("in", rows(from)), table("out", rows(to)));
            let (before, after) = (before.expect("golden"), after.expect("golden"));
            let found = interpolate(&before, width, kept, from, to, mode, antialias);
            close(&found, &after, model);
        }
    }

    #[test]
    fn the_same_grid_stays_as_it_is_and_constant_tables_stay_constant() {
        for (_, mode, antialias) in MODES {
            let identity = interpolation_matrix((3, 2), (3, 2), mode, antialias);
            for (i, w) in identity.iter().enumerate() {
                assert_eq!(*w, f32::from(i / 6 == i % 6), "{mode:?} {antialias} {i}");
            }
            for row in interpolation_matrix((5, 3), (2, 7), mode, antialias).chunks(15) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn only_squares_have_a_side() {
        let sides: Vec<_> = [0, 1, 2, 195, 196, 197].map(square_side).into();
        assert_eq!(sides, [Some(0), Some(1), None, None, Some(14), None]);
    }
}
