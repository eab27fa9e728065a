//! The models that are part of the program, and what they are made for.

use crate::{Error, Files, Vlm};
use vlm_data::image::Image;
use vlm_nn::weights::Checkpoint;

/// The built-in model.
pub const VLM_TINY: &str = "vlm-tiny";

/// Names of the built-in models.
pub const NAMES: [&str; 1] = [VLM_TINY];

/// What the built-in models were trained on.
pub const TRAINED_ON: &str = "rendered scenes of the world `shapes`";

/// What a user is told about pictures that are none of these; see [`looks_rendered`]. It follows their names.
pub const NOTICE: &str = "apparently no rendered scene of coloured shapes, which is all that vlm-tiny was trained on: \
                          expect nonsense";

const WEIGHTS: &[u8] = include_bytes!("../../../models/vlm-tiny/model.safetensors");

/// Size of the weights in bytes.
pub const WEIGHTS_BYTES: u64 = WEIGHTS.len() as u64;

/// The tensors of the built-in model.
pub(crate) fn checkpoint() -> Result<Checkpoint, Error> {
    Ok(Checkpoint::parse(WEIGHTS, VLM_TINY).map_err(vlm_models::Error::from)?)
}

impl Vlm {
    /// The built-in model.
    ///
    /// # Errors
    /// None with the files that belong to this version of the program.
    pub fn builtin() -> Result<Self, Error> {
        let files = Files {
            config: include_str!("../../../models/vlm-tiny/config.json"),
            weights: WEIGHTS,
            tokenizer: include_bytes!("../../../models/vlm-tiny/tokenizer.json"),
            preprocessor: include_bytes!("../../../models/vlm-tiny/preprocessor_config.json"),
        };
        Self::from_files(VLM_TINY, files)
    }
}

/// Cells along each side of the coarse picture that [`looks_rendered`] works on.
const CELLS: usize = 32;

/// Colours behind the objects of the world `shapes`.
const BACKGROUNDS: [[f32; 3]; 6] = [
    [245.0, 245.0, 244.0],
    [140.0, 142.0, 146.0],
    [30.0, 30.0, 34.0],
    [226.0, 208.0, 176.0],
    [184.0, 226.0, 204.0],
    [206.0, 200.0, 238.0],
];

/// Hues of its objects in degrees, a little wider than they are drawn, because cells mix them with the background.
const HUES: [(f32, f32); 6] = [
    (-13.0, 40.0), // red, brown, orange
    (42.0, 64.0),  // yellow
    (110.0, 153.0),
    (204.0, 234.0),
    (264.0, 292.0),
    (318.0, 348.0),
];

/// Whether a picture may be a scene of the world that the built-in models know: much of it, and nearly all of its rim,
/// is one of the world's background colours, evenly lit, and enough of the rest has the hue of an object.
///
/// It is a matter of statistics on a picture of 32 x 32 cells. With these limits 99 in 100 generated pictures of 32 to
/// 1024 pixels and every difficulty pass, 1 in 700 photographs of everyday scenes, and about 1 in 100 photographs of
/// cut-out objects, cartoons and pictograms. A drawing in the manner of the world passes, as it should.
pub fn looks_rendered(image: &Image) -> bool {
    let cells = coarse(image);
    let on_background = |base: &[f32; 3]| -> Vec<bool> {
        cells
            .iter()
            .map(|cell| {
                // light moves all channels alike
                let mut shift = [0, 1, 2].map(|c| cell[c] - base[c]);
                let by_channel = shift;
                shift.sort_by(f32::total_cmp);
                let light = shift[1].clamp(-50.0, 50.0);
                by_channel.iter().all(|d| (d - light).abs() <= 14.0)
            })
            .collect()
    };
    let count = |mask: &[bool]| mask.iter().filter(|&&m| m).count();
    let masks = BACKGROUNDS.map(|base| on_background(&base));
    let Some((base, mask)) = BACKGROUNDS
        .iter()
        .zip(&masks)
        .max_by_key(|(_, mask)| count(mask))
    else {
        return false;
    };
    let total = cells.len() as f32;
    let background: Vec<&[f32; 3]> = cells
        .iter()
        .zip(mask)
        .filter(|c| *c.1)
        .map(|c| c.0)
        .collect();
    let share = background.len() as f32 / total;
    // an empty picture is no scene, and one without a background neither
    if !(0.55..=0.995).contains(&share) {
        return false;
    }
    let is_rim = |i: usize| {
        let inner = 2..CELLS - 2;
        !(inner.contains(&(i / CELLS)) && inner.contains(&(i % CELLS)))
    };
    let rim: Vec<bool> = (0..cells.len())
        .filter(|&i| is_rim(i))
        .map(|i| mask[i])
        .collect();
    let at_percentile = |mut values: Vec<f32>, percent: usize| {
        values.sort_by(f32::total_cmp);
        values[(values.len() - 1) * percent / 100]
    };
    let light: Vec<f32> = background
        .iter()
        .map(|c| c.iter().sum::<f32>() / 3.0)
        .collect();
    let spread = at_percentile(light.clone(), 95) - at_percentile(light, 5);
    let typical =
        [0, 1, 2].map(|c| at_percentile(background.iter().map(|cell| cell[c]).collect(), 50));
    let off = (0..3)
        .map(|c| (typical[c] - base[c]).abs())
        .fold(0.0, f32::max);
    // the paper white of cut-outs, which the world's lit backgrounds seldom reach
    let paper = background
        .iter()
        .filter(|c| c.iter().all(|&v| v >= 253.5))
        .count();

    let objects = cells.iter().zip(mask).filter(|c| !*c.1).map(|c| c.0);
    let coloured = objects.filter(|cell| has_object_hue(cell)).count();
    let coloured_share = coloured as f32 / (total - background.len() as f32);

    count(&rim) as f32 >= 0.85 * rim.len() as f32
        && spread <= 47.0
        && off <= 18.0
        && paper as f32 <= 0.45 * background.len() as f32
        // a single small object is all edges, which mix its colour with the background
        && (coloured_share >= 0.08 || share > 0.94)
}

fn has_object_hue(&[r, g, b]: &[f32; 3]) -> bool {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = max - min;
    if chroma <= 60.0 {
        return false;
    }
    let sextant = if max == r {
        (g - b) / chroma
    } else if max == g {
        (b - r) / chroma + 2.0
    } else {
        (r - g) / chroma + 4.0
    };
    let hue = (60.0 * sextant).rem_euclid(360.0);
    HUES.iter()
        .any(|&(low, high)| (hue - low).rem_euclid(360.0) <= high - low)
}

/// The mean colours of [`CELLS`] x [`CELLS`] cells, each from at most 8 x 8 of its pixels: a large photograph costs no
/// more than a small one.
fn coarse(image: &Image) -> Vec<[f32; 3]> {
    const SAMPLES: usize = 8;
    let along = |cell: usize, length: u32| {
        let length = length as usize;
        let from = cell * length / CELLS;
        let size = ((cell + 1) * length / CELLS).max(from + 1) - from;
        let samples = size.min(SAMPLES);
        (0..samples).map(move |i| (from + (2 * i + 1) * size / (2 * samples)) as u32)
    };
    let mut cells = Vec::with_capacity(CELLS * CELLS);
    for row in 0..CELLS {
        for column in 0..CELLS {
            let (mut sum, mut n) = ([0.0; 3], 0.0);
            for y in along(row, image.height()) {
                for x in along(column, image.width()) {
                    let pixel = image.pixel(x, y);
                    sum = [0, 1, 2].map(|c| sum[c] + f32::from(pixel[c]));
                    n += 1.0;
                }
            }
            cells.push(sum.map(|s| s / n));
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use vlm_worlds::shapes::{Config, Split, generate};

    fn image(width: u32, height: u32, colour: impl Fn(u32, u32) -> [u8; 3]) -> Image {
        let at = |i| colour(i % width, i / width);
        let rgb = (0..width * height).flat_map(at).collect();
        Image::from_rgb(width, height, rgb).unwrap()
    }

    fn noise(x: u32, y: u32, channel: u32) -> u32 {
        let mut h =
            (x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca6b)).wrapping_add(channel);
        h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
        h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
        h ^ (h >> 15)
    }

    #[test]
    fn scenes_of_every_size_and_difficulty_are_recognised() {
        let mut missed = Vec::new();
        let mut n: u64 = 0;
        for split in [Split::Test, Split::Compositional] {
            for size in [32, 48, 96, 128, 224] {
                for difficulty in [0.0, 0.25, 0.5, 0.75, 1.0] {
                    let config = Config { size, difficulty };
                    for _ in 0..8 {
                        let picture = generate(&config, split, 31, n).picture;
                        let scene =
                            Image::from_rgb(picture.width, picture.height, picture.rgb).unwrap();
                        n += 1;
                        if !looks_rendered(&scene) {
                            missed.push((split, size, difficulty, n));
                        }
                    }
                }
            }
        }
        assert_eq!(n, 400);
        assert!(missed.len() as u64 * 100 <= n, "{missed:?}");
    }

    #[test]
    fn what_a_camera_or_a_draughtsman_makes_is_not_taken_for_a_scene() {
        let gradient = image(200, 150, |x, y| [x as u8, y as u8, 90]);
        let static_noise = image(160, 120, |x, y| {
            [0, 1, 2].map(|c| (noise(x, y, c) >> 24) as u8)
        });
        // bright sky above dark ground, with grain
        let landscape = image(320, 240, |x, y| {
            let grain = (noise(x, y, 0) % 24) as u8;
            let leaf = noise(x / 9, y / 9, 1) % 80;
            if y < 100 {
                [120 + grain, 160 + grain, 210 + grain]
            } else {
                [40 + leaf as u8, 70 + grain + leaf as u8 / 2, 30 + grain]
            }
        });
        let blank = image(128, 128, |_, _| [245, 245, 244]);
        // a red disc, but on the white of paper
        let pictogram = image(128, 128, |x, y| {
            let (dx, dy) = (x.abs_diff(64), y.abs_diff(64));
            if dx * dx + dy * dy < 900 {
                [220, 30, 30]
            } else {
                [255; 3]
            }
        });
        let page = image(300, 400, |x, y| {
            let ink = y % 16 < 8 && noise(x / 3, y / 8, 0).is_multiple_of(2);
            if ink { [20; 3] } else { [250; 3] }
        });
        let cases = [
            ("gradient", gradient),
            ("noise", static_noise),
            ("landscape", landscape),
            ("blank", blank),
            ("pictogram", pictogram),
            ("page", page),
            ("one pixel", image(1, 1, |_, _| [226, 208, 176])),
            ("one row", image(4000, 1, |x, _| [(x % 251) as u8, 100, 50])),
        ];
        for (name, picture) in cases {
            assert!(!looks_rendered(&picture), "{name}");
        }
    }

    #[test]
    fn the_built_in_model_loads_captions_and_answers() {
        let vlm = Vlm::builtin().unwrap();
        assert_eq!(vlm.name(), VLM_TINY);
        let picture = generate(&Config::default(), Split::Test, 7, 0).picture;
        let scene = Image::from_rgb(picture.width, picture.height, picture.rgb).unwrap();
        let caption = vlm
            .caption(&[&scene], &crate::CaptionOptions::default())
            .unwrap();
        assert_eq!(caption.len(), 1);
        assert!(caption[0].log_probability <= 0.0);
        let answer = vlm
            .answer(&[&scene], &[(0, "is there a red circle?")])
            .unwrap();
        assert!((0.0..=1.0).contains(&answer[0].confidence));
    }
}
