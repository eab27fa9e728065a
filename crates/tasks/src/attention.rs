//! Where a captioner looked, word by word: maps, and a picture of them that people can read.

use crate::captioning::{Caption, CaptionOptions};
use crate::{Error, Vlm, lettering};
use ab_glyph::FontRef;
use vlm_data::image::{Filter, Image, PreprocessorConfig, Resampler, Size, resize};
use vlm_models::capability::Tokens;
use vlm_models::generate::generate;

/// A word of a caption with where the model looked when it chose it.
#[derive(Clone, Debug, PartialEq)]
pub struct WordMap {
    /// The word.
    pub word: String,
    /// The share of the attention that each place had, in rows from top to bottom; of several tokens their mean.
    pub weights: Vec<f32>,
}

/// A caption with where the model looked.
#[derive(Clone, Debug, PartialEq)]
pub struct AttendedCaption {
    /// The caption.
    pub caption: Caption,
    /// Its words.
    pub words: Vec<WordMap>,
    /// Rows and columns of the places.
    pub grid: [usize; 2],
}

impl Vlm {
    /// A caption, and where the model looked at each word.
    ///
    /// # Errors
    /// As [`Self::caption_from`]; a model that does not tell where it looked.
    pub fn caption_attended(
        &self,
        beginning: Option<&str>,
        image: &Image,
        options: &CaptionOptions,
    ) -> Result<AttendedCaption, Error> {
        let (model, text) = (self.model().attend()?, self.text()?);
        let prompt = text.caption_prompt(beginning)?;
        let writing = text.writing(options.strategy, options.max_new_tokens);
        let memory = model.encode(&self.pictures(&[image])?)?;
        let mut decoding = model.decode(memory.clone());
        let prompts = std::slice::from_ref(&prompt);
        let mut written = generate(&mut *decoding, prompts, &writing);
        let written = written.swap_remove(0);
        let mut words: Vec<WordMap> = Vec::new();
        let mut grid = [1, 1];
        if let Some((_, read)) = written.ids.split_last() {
            let ids = prompt.iter().chain(read).copied().collect();
            let maps = model.attend(memory, &Tokens::padded(&[ids], 0))?;
            grid = maps.grid;
            let data = maps.weights.into_data().convert::<f32>();
            let weights: Vec<f32> = data.try_to_vec().expect("f32");
            // the token behind the prompt was chosen at the prompt's last
            let rows = weights.chunks(grid[0] * grid[1]).skip(prompt.len() - 1);
            let mut tokens = 0.0;
            for (&id, weights) in written.ids.iter().zip(rows) {
                let token = text.tokenizer().id_to_token(id).unwrap_or_default();
                match (token.strip_prefix("##"), words.last_mut()) {
                    (Some(rest), Some(word)) => {
                        word.word += rest;
                        tokens += 1.0;
                        for (mean, new) in word.weights.iter_mut().zip(weights) {
                            *mean += (new - *mean) / tokens;
                        }
                    }
                    _ => {
                        tokens = 1.0;
                        words.push(WordMap {
                            word: token,
                            weights: weights.to_vec(),
                        });
                    }
                }
            }
        }
        Ok(AttendedCaption {
            caption: Caption {
                text: text.decode(&written.ids)?,
                log_probability: written.log_probability,
            },
            words,
            grid,
        })
    }

    /// A sheet of the picture and of each word's map over it.
    ///
    /// # Errors
    /// A model without a picture processor, or a picture that cannot be resized.
    pub fn attention_sheet(
        &self,
        image: &Image,
        attended: &AttendedCaption,
    ) -> Result<Image, Error> {
        let seen = seen(image, self.processor()?.config())?;
        sheet(&seen, attended)
    }
}

/// The part of a picture that the model looks at: without what a crop around the centre leaves out.
fn seen(image: &Image, config: &PreprocessorConfig) -> Result<Image, Error> {
    let (Some(Size::ShortestEdge(edge)), Some((height, width))) =
        (config.resize, config.center_crop)
    else {
        return Ok(image.clone());
    };
    let (w, h) = (image.width(), image.height());
    let side = |crop: u32, length: u32| {
        let crop = u64::from(crop) * u64::from(w.min(h)) / u64::from(edge);
        (crop as u32).clamp(1, length)
    };
    let (width, height) = (side(width, w), side(height, h));
    let (left, top) = ((w - width) / 2, (h - height) / 2);
    let mut rgb = Vec::with_capacity((width * height * 3) as usize);
    for y in top..top + height {
        let begin = ((y * w + left) * 3) as usize;
        rgb.extend_from_slice(&image.rgb()[begin..begin + (width * 3) as usize]);
    }
    Ok(Image::from_rgb(width, height, rgb)?)
}

/// Pixels of a tile's longer side.
const TILE: u32 = 224;
/// Pixels between tiles.
const GAP: u32 = 14;
/// Pixels below a tile for its word.
const LABEL: u32 = 30;
/// Tiles in a row.
const COLUMNS: u32 = 5;
const PAPER: [u8; 3] = [250, 250, 248];
const INK: [u8; 3] = [38, 42, 48];
/// The colour of light on what is looked at.
const LIGHT: [f32; 3] = [255.0, 196.0, 92.0];

/// Tiles of the picture itself and of each word: what was looked at is in the light, the rest in the shade.
fn sheet(image: &Image, attended: &AttendedCaption) -> Result<Image, Error> {
    let longer = image.width().max(image.height());
    let scaled = |side: u32| (side * TILE).div_ceil(longer).max(24);
    let (w, h) = (scaled(image.width()), scaled(image.height()));
    let small = resize(image, w, h, Filter::Bicubic, Resampler::Pillow)?;
    let tiles = attended.words.len() as u32 + 1;
    let columns = tiles.min(COLUMNS);
    let (width, height) = (
        GAP + columns * (w + GAP),
        GAP + tiles.div_ceil(columns) * (h + LABEL + GAP),
    );
    let mut canvas = Canvas {
        width,
        rgb: PAPER.repeat((width * height) as usize),
    };
    let place = |i: u32| {
        let (column, row) = (i % columns, i / columns);
        [GAP + column * (w + GAP), GAP + row * (h + LABEL + GAP)]
    };
    canvas.tile(place(0), &small);
    for (i, word) in (1..).zip(&attended.words) {
        let [x, y] = place(i);
        canvas.tile([x, y], &lit(&small, word, attended.grid)?);
        canvas.write(&word.word, [x, y + h], w);
    }
    Ok(Image::from_rgb(width, height, canvas.rgb)?)
}

/// The picture with light where the word's attention is, smooth between the places.
fn lit(image: &Image, word: &WordMap, [rows, columns]: [usize; 2]) -> Result<Image, Error> {
    let most = word.weights.iter().copied().fold(0f32, f32::max);
    let least = word.weights.iter().copied().fold(f32::INFINITY, f32::min);
    let range = (most - least).max(f32::MIN_POSITIVE);
    // an attention that is the same everywhere lights nothing in particular
    let contrast = (1.0 - least / most.max(f32::MIN_POSITIVE)).clamp(0.0, 1.0);
    let level = |&x: &f32| {
        let level = (255.0 * contrast * (x - least) / range).round() as u8;
        [level; 3]
    };
    let map = word.weights.iter().flat_map(level).collect();
    let map = Image::from_rgb(columns as u32, rows as u32, map)?;
    let (w, h) = (image.width(), image.height());
    let map = resize(&map, w, h, Filter::Bicubic, Resampler::Pillow)?;
    let pixels = image.rgb().as_chunks::<3>().0.iter();
    let levels = map.rgb().as_chunks::<3>().0.iter();
    let rgb = pixels.zip(levels).flat_map(|(&pixel, &[level, ..])| {
        let a = (f32::from(level) / 255.0).powf(0.8);
        let [r, g, b] = pixel.map(f32::from);
        let grey = 0.299 * r + 0.587 * g + 0.114 * b;
        let channel = |c: usize| {
            let own = [r, g, b][c];
            // in the shade colours fade, in the light they are warm
            let shade = 0.34 * (0.45 * own + 0.55 * grey) + 12.0;
            let light = 0.84 * own + 0.16 * LIGHT[c];
            (shade + (light - shade) * a).round().clamp(0.0, 255.0) as u8
        };
        [channel(0), channel(1), channel(2)]
    });
    Ok(Image::from_rgb(w, h, rgb.collect())?)
}

struct Canvas {
    width: u32,
    rgb: Vec<u8>,
}

impl Canvas {
    fn tile(&mut self, [x, y]: [u32; 2], image: &Image) {
        let row = (image.width() * 3) as usize;
        for (i, pixels) in (0..).zip(image.rgb().chunks(row)) {
            let at = (((y + i) * self.width + x) * 3) as usize;
            self.rgb[at..at + row].copy_from_slice(pixels);
        }
    }

    /// A word in the middle below a tile, smaller where it would be wider than that.
    fn write(&mut self, word: &str, [left, top]: [u32; 2], width: u32) {
        let Ok(font) = FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT) else {
            return;
        };
        let word: String = word.chars().filter(|c| !c.is_control()).take(40).collect();
        let advance = |size: f32| lettering::width(&font, &word, size);
        let size = (20.0 * (width as f32 / advance(20.0).max(1.0)).min(1.0)).max(7.0);
        let x = left as f32 + (width as f32 - advance(size)).max(0.0) / 2.0;
        let base = top as f32 + 21.0;
        let rows = self.rgb.len() as u32 / 3 / self.width;
        let extent = [self.width, rows];
        lettering::write(extent, &font, &word, [x, base], size, |place, coverage| {
            for (old, ink) in self.rgb[3 * place..][..3].iter_mut().zip(INK) {
                let mixed = f32::from(*old) + (f32::from(ink) - f32::from(*old)) * coverage;
                *old = mixed.round().clamp(0.0, 255.0) as u8;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attended(weights: &[f32], grid: [usize; 2], words: &[&str]) -> AttendedCaption {
        let word = |word: &&str| WordMap {
            word: (*word).to_owned(),
            weights: weights.to_vec(),
        };
        AttendedCaption {
            caption: Caption {
                text: words.join(" "),
                log_probability: 0.0,
            },
            words: words.iter().map(word).collect(),
            grid,
        }
    }

    #[test]
    fn light_is_where_the_attention_is() {
        let image = Image::from_rgb(64, 64, vec![200; 64 * 64 * 3]).unwrap();
        let attended = attended(&[1.0, 0.0, 0.0, 0.0], [2, 2], &["dog"]);
        let lit = lit(&image, &attended.words[0], attended.grid).unwrap();
        let brightness = |x, y| lit.pixel(x, y).iter().map(|&v| u32::from(v)).sum::<u32>();
        assert!(brightness(8, 8) > 2 * brightness(56, 8));
        assert_eq!(brightness(56, 8), brightness(8, 56));
    }

    #[test]
    fn sheets_have_a_tile_for_the_picture_and_one_for_each_word() {
        let words = ["a", "red", "circle", "left", "of", "a", "star"];
        for (width, height) in [(640, 480), (3, 900), (900, 3), (1, 1)] {
            let rgb = vec![90; width as usize * height as usize * 3];
            let image = Image::from_rgb(width, height, rgb).unwrap();
            let sheet = sheet(&image, &attended(&[0.25; 4], [2, 2], &words)).unwrap();
            assert!(sheet.width() > 100 && sheet.height() > 100);
            assert!(sheet.width() < 1300 && sheet.height() < 700);
            // two rows of at most five
            assert_eq!(sheet.pixel(0, 0), PAPER);
        }
    }

    #[test]
    fn words_are_written_below_their_tiles_whatever_they_are() {
        let image = Image::from_rgb(64, 64, vec![128; 64 * 64 * 3]).unwrap();
        let long = "näme \u{7} 猫 ".repeat(30);
        let sheet = sheet(&image, &attended(&[1.0], [1, 1], &["dog", &long])).unwrap();
        let below = |x: u32, y: u32| y > GAP + TILE && y < GAP + TILE + LABEL && x > GAP + TILE;
        let dark = (0..sheet.height())
            .flat_map(|y| (0..sheet.width()).map(move |x| (x, y)))
            .filter(|&(x, y)| below(x, y) && sheet.pixel(x, y)[0] < 100);
        assert!(dark.count() > 40);
    }
}
