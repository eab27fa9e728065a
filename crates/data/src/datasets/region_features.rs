//! Regions of pictures that a detector has found before: the TSV files of VinVL and Oscar.
//!
//! A row belongs to one picture and begins with its name. Three kinds are read, told apart by their columns:
//!
//! ```text
//! NAME \t {"num_boxes": 2, "features": BASE64}                                        features.tsv
//! NAME \t 2 \t BASE64                                                                 features.tsv, older
//! NAME \t {"objects": [{"rect": [x1, y1, x2, y2], "class": "dog", "conf": 0.9,
//!                       "feature": BASE64, "attributes": [..], "attr_scores": [..]}]} predictions.tsv
//! NAME \t [{"class": "dog", "rect": [x1, y1, x2, y2], "conf": 0.9}]                   label.tsv
//! ```
//!
//! `BASE64` is the little-endian `f32` of all boxes, row by row. `image_w` and `image_h`, where they are there, are the
//! picture's size. A file `NAME.lineidx` beside `NAME.tsv` holds the offset of each row; where it is missing the rows are
//! found by reading.
//!
//! A row in error is told with file, line and field, and the next one is read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::error::one_line;

/// The longest row that is read, in bytes: 1,000 boxes of 2,054 numbers take 11 MiB.
const MAX_ROW: u64 = 64 << 20;
/// The most boxes of a picture.
const MAX_BOXES: usize = 1 << 16;
/// By how many pixels a box may leave its picture, because detectors round.
const SLACK: f32 = 1.0;

/// A box with what is known of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Region {
    /// `x1, y1, x2, y2` in pixels of the picture.
    pub rect: Option<[f32; 4]>,
    /// What is in it: the object tag.
    pub class: Option<String>,
    /// The probability of the class.
    pub score: Option<f32>,
    /// Attributes with their probabilities, where they are told.
    pub attributes: Vec<(String, Option<f32>)>,
}

/// The regions of one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRegions {
    /// The picture's name.
    pub image: String,
    /// Width and height of the picture in pixels, where the row tells them.
    pub size: Option<[u32; 2]>,
    /// One for each box.
    pub regions: Vec<Region>,
    /// Numbers of each box; 0 for a row without features.
    pub width: usize,
    /// `[boxes, width]`, row by row.
    pub features: Vec<f32>,
}

impl ImageRegions {
    /// The features of box `i`.
    ///
    /// # Panics
    /// If there is no such box.
    pub fn feature(&self, i: usize) -> &[f32] {
        &self.features[i * self.width..][..self.width]
    }

    /// The classes of the boxes in their order: the object tags of the picture.
    pub fn tags(&self) -> Vec<&str> {
        let classes = self.regions.iter().filter_map(|r| r.class.as_deref());
        classes.collect()
    }

    /// The row of a file of the third kind, `predictions.tsv`, without its line break: size, boxes, classes, attributes and
    /// features.
    ///
    /// # Errors
    /// A name that is no column: empty, or with a tab or a line break.
    pub fn to_row(&self) -> Result<String, Error> {
        let name = self.image.as_str();
        if name.trim() != name || name.is_empty() || name.contains(['\t', '\n', '\r']) {
            return Err(Error::Config {
                name: "regions".to_owned(),
                key: "name".to_owned(),
                expected: "a name without tabs, line breaks and spaces around it".to_owned(),
                found: one_line(&format!("{name:?}")),
            });
        }
        let objects = self.regions.iter().enumerate().map(|(i, region)| {
            let mut object = Map::new();
            let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
            if let Some(rect) = region.rect {
                put("rect", json!(rect));
            }
            if let Some(class) = &region.class {
                put("class", json!(class));
            }
            if let Some(score) = region.score {
                put("conf", json!(score));
            }
            if !region.attributes.is_empty() {
                let names: Vec<&String> = region.attributes.iter().map(|(name, _)| name).collect();
                let scores = region.attributes.iter().map(|(_, score)| *score);
                put("attributes", json!(names));
                put("attr_scores", json!(scores.collect::<Vec<_>>()));
            }
            if self.width > 0 {
                let bytes: Vec<u8> = (self.feature(i).iter())
                    .flat_map(|x| x.to_le_bytes())
                    .collect();
                put("feature", json!(STANDARD.encode(bytes)));
            }
            Value::Object(object)
        });
        let mut row = Map::new();
        if let Some([w, h]) = self.size {
            row.insert("image_h".to_owned(), json!(h));
            row.insert("image_w".to_owned(), json!(w));
        }
        row.insert("objects".to_owned(), objects.collect());
        Ok(format!("{name}\t{}", Value::Object(row)))
    }
}

/// A file of regions.
#[derive(Debug)]
pub struct RegionFile {
    path: PathBuf,
    reader: BufReader<File>,
    width: Option<usize>,
    line: usize,
    done: bool,
}

impl RegionFile {
    /// Opens a file whose boxes have `width` numbers each, or any number that is the same for all.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be opened. The iterator gives [`Error::Record`] for a row that is not as described
    /// above, for one that the end of the file cuts off included, and goes on with the next.
    pub fn open(path: &Path, width: Option<usize>) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::io(path, "read", e))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::with_capacity(1 << 20, file),
            width,
            line: 0,
            done: false,
        })
    }

    /// Where each picture's row is.
    ///
    /// # Errors
    /// A file that cannot be read, a picture with two rows, or an index (`.lineidx`) that does not fit the file.
    pub fn index(path: &Path) -> Result<RegionIndex, Error> {
        RegionIndex::read(path)
    }

    fn wrong(&self, field: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Record {
            name: self.path.display().to_string(),
            line: self.line,
            field: field.to_owned(),
            expected: expected.into(),
            found: one_line(&found.into()),
        }
    }

    /// The next line without its end, and whether it has one; none at the end of the file.
    fn row(&mut self) -> Result<Option<(Vec<u8>, bool)>, Error> {
        let mut bytes = Vec::new();
        let read = self
            .reader
            .by_ref()
            .take(MAX_ROW + 1)
            .read_until(b'\n', &mut bytes);
        self.line += 1;
        let count = read.map_err(|e| {
            self.done = true;
            Error::io(&self.path, "read", e)
        })?;
        if count == 0 {
            self.done = true;
            return Ok(None);
        }
        if bytes.len() as u64 > MAX_ROW {
            self.done = true;
            return Err(self.wrong("row", "at most 64 MiB", "a longer one"));
        }
        let ended = bytes.ends_with(b"\n");
        if ended {
            bytes.pop();
        }
        Ok(Some((bytes, ended)))
    }

    fn parse(&mut self, row: &[u8], ended: bool) -> Result<ImageRegions, Error> {
        let found = match self.columns(row) {
            Ok(regions) => self.checked(regions),
            Err(error) => Err(error),
        };
        if ended || found.is_ok() {
            return found;
        }
        // the last row alone lacks its end: someone stopped writing
        Err(self.wrong(
            "row",
            "a whole row that ends with a line break",
            format!("the end of the file after {} bytes of it", row.len()),
        ))
    }

    fn columns(&self, row: &[u8]) -> Result<ImageRegions, Error> {
        let text = std::str::from_utf8(row);
        let text = text.map_err(|e| self.wrong("row", "UTF-8", e.to_string()))?;
        let columns: Vec<&str> = text.split('\t').map(str::trim).collect();
        let (image, rest) = match columns.as_slice() {
            [image, rest @ ..] if !image.is_empty() && !rest.is_empty() => (*image, rest),
            _ => {
                let found = format!("{} column", columns.len());
                return Err(self.wrong("row", "a name, a tab and regions", found));
            }
        };
        let mut regions = ImageRegions {
            image: image.to_owned(),
            size: None,
            regions: Vec::new(),
            width: 0,
            features: Vec::new(),
        };
        if let [count, features] = rest
            && count.bytes().all(|b| b.is_ascii_digit())
        {
            let count = count.parse().ok();
            self.put_features("features", count, features, &mut regions)?;
            return Ok(regions);
        }
        let [json] = rest else {
            let found = format!("{} columns", columns.len());
            return Err(self.wrong("row", "two columns, or three with a number of boxes", found));
        };
        match serde_json::from_str(json) {
            Ok(Value::Object(object)) => self.object(object, &mut regions)?,
            Ok(Value::Array(objects)) => self.put_objects(objects, &mut regions)?,
            Ok(other) => {
                return Err(self.wrong("regions", "a JSON object or list", other.to_string()));
            }
            Err(e) => {
                return Err(self.wrong("regions", "a JSON object or list", e.to_string()));
            }
        }
        Ok(regions)
    }

    fn object(
        &self,
        mut object: Map<String, Value>,
        regions: &mut ImageRegions,
    ) -> Result<(), Error> {
        let side = |name: &str, value: Option<Value>| match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(x) if (1.0..=f64::from(1u32 << 24)).contains(&x) => Ok(Some(x as u32)),
                _ => Err(self.wrong(name, "pixels", value.to_string())),
            },
        };
        let width = side("image_w", object.shift_remove("image_w"))?;
        let height = side("image_h", object.shift_remove("image_h"))?;
        regions.size = width.zip(height).map(|(w, h)| [w, h]);
        if let Some(Value::Array(objects)) = object.shift_remove("objects") {
            self.put_objects(objects, regions)?;
        }
        if let Some(features) = object.shift_remove("features") {
            let count = object.shift_remove("num_boxes");
            let count = count.as_ref().and_then(Value::as_u64);
            let count = count.and_then(|n| usize::try_from(n).ok());
            let Value::String(features) = features else {
                return Err(self.wrong("features", "base64", features.to_string()));
            };
            return self.put_features("features", count, &features, regions);
        }
        if regions.regions.is_empty() && object.contains_key("num_boxes") {
            let found = "no features";
            return Err(self.wrong("regions", "features or objects", found));
        }
        Ok(())
    }

    fn put_features(
        &self,
        field: &str,
        count: Option<usize>,
        features: &str,
        regions: &mut ImageRegions,
    ) -> Result<(), Error> {
        let count = count.filter(|&n| n <= MAX_BOXES).ok_or_else(|| {
            self.wrong(
                "num_boxes",
                format!("a number up to {MAX_BOXES}"),
                "something else",
            )
        })?;
        let told = regions.regions.len();
        if told > 0 && told != count {
            let found = count.to_string();
            return Err(self.wrong("num_boxes", format!("{told}, as there are objects"), found));
        }
        let numbers = self.numbers(field, features)?;
        if count == 0 || !numbers.len().is_multiple_of(count) || numbers.is_empty() {
            if count == 0 && numbers.is_empty() {
                return Ok(());
            }
            let found = format!("{} numbers", numbers.len());
            return Err(self.wrong(
                field,
                format!("as many numbers for each of {count} boxes"),
                found,
            ));
        }
        regions.width = numbers.len() / count;
        regions.features = numbers;
        regions.regions.resize(count, Region::default());
        Ok(())
    }

    /// Little-endian `f32`, all finite.
    fn numbers(&self, field: &str, base64: &str) -> Result<Vec<f32>, Error> {
        let bytes = STANDARD.decode(base64.as_bytes());
        let bytes = bytes.map_err(|e| self.wrong(field, "base64", e.to_string()))?;
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            let found = format!("{} bytes", bytes.len());
            return Err(self.wrong(field, "numbers of 4 bytes", found));
        }
        let numbers: Vec<f32> = words.iter().map(|w| f32::from_le_bytes(*w)).collect();
        match numbers.iter().find(|x| !x.is_finite()) {
            None => Ok(numbers),
            Some(odd) => Err(self.wrong(field, "finite numbers", odd.to_string())),
        }
    }

    fn put_objects(&self, objects: Vec<Value>, regions: &mut ImageRegions) -> Result<(), Error> {
        if objects.len() > MAX_BOXES {
            let found = objects.len().to_string();
            return Err(self.wrong("objects", format!("at most {MAX_BOXES}"), found));
        }
        for (i, object) in objects.into_iter().enumerate() {
            let place = |name: &str| format!("objects[{i}].{name}");
            let Value::Object(object) = object else {
                return Err(self.wrong(&format!("objects[{i}]"), "an object", object.to_string()));
            };
            let mut region = Region {
                class: object
                    .get("class")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                score: object.get("conf").and_then(Value::as_f64).map(|x| x as f32),
                ..Region::default()
            };
            if let Some(rect) = object.get("rect") {
                let corners = rect.as_array().and_then(|list| {
                    let each = list.iter().map(|x| x.as_f64().map(|x| x as f32));
                    each.collect::<Option<Vec<f32>>>()?.try_into().ok()
                });
                let corners: [f32; 4] = corners
                    .ok_or_else(|| self.wrong(&place("rect"), "four numbers", rect.to_string()))?;
                region.rect = Some(corners);
            }
            if let Some(names) = object.get("attributes").and_then(Value::as_array) {
                let scores = object.get("attr_scores").and_then(Value::as_array);
                let score = |i: usize| Some(scores?.get(i)?.as_f64()? as f32);
                let each = names.iter().enumerate();
                region.attributes = each
                    .filter_map(|(i, name)| Some((name.as_str()?.to_owned(), score(i))))
                    .collect();
            }
            if let Some(feature) = object.get("feature") {
                let field = place("feature");
                let Some(text) = feature.as_str() else {
                    return Err(self.wrong(&field, "base64", feature.to_string()));
                };
                let numbers = self.numbers(&field, text)?;
                if numbers.is_empty() || i > 0 && numbers.len() != regions.width {
                    let expected = format!("{} numbers, as the boxes before", regions.width);
                    return Err(self.wrong(&field, expected, numbers.len().to_string()));
                }
                regions.width = numbers.len();
                regions.features.extend(numbers);
            } else if regions.width > 0 {
                return Err(self.wrong(&place("feature"), "one, as the boxes before", "none"));
            }
            regions.regions.push(region);
        }
        Ok(())
    }

    /// The same width for all rows, and boxes within their picture.
    fn checked(&mut self, regions: ImageRegions) -> Result<ImageRegions, Error> {
        if regions.width > 0 {
            let expected = *self.width.get_or_insert(regions.width);
            if regions.width != expected {
                let found = format!("{}", regions.width);
                return Err(self.wrong("features", format!("{expected} numbers a box"), found));
            }
        }
        for (i, region) in regions.regions.iter().enumerate() {
            if let Some(rect) = region.rect {
                self.check_rect(i, rect, regions.size)?;
            }
        }
        Ok(regions)
    }

    fn check_rect(&self, i: usize, rect: [f32; 4], size: Option<[u32; 2]>) -> Result<(), Error> {
        let [x1, y1, x2, y2] = rect;
        let [w, h] = size.map_or([f32::MAX; 2], |size| size.map(|side| side as f32));
        // written so that NaN is outside
        let ordered = x1 <= x2 && y1 <= y2;
        let inside = x1 >= -SLACK && y1 >= -SLACK && x2 <= w + SLACK && y2 <= h + SLACK;
        if ordered && inside {
            return Ok(());
        }
        let expected = match size {
            None => "x1 <= x2 and y1 <= y2, from 0".to_owned(),
            Some([w, h]) => format!("a box within the picture of {w} x {h}"),
        };
        Err(self.wrong(&format!("objects[{i}].rect"), expected, format!("{rect:?}")))
    }
}

impl Iterator for RegionFile {
    type Item = Result<ImageRegions, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            match self.row() {
                Err(error) => return Some(Err(error)),
                Ok(None) => {}
                Ok(Some((row, _))) if row.trim_ascii().is_empty() => {}
                Ok(Some((row, ended))) => return Some(self.parse(&row, ended)),
            }
        }
        None
    }
}

/// Where the rows of a [`RegionFile`] are, by picture.
#[derive(Debug)]
pub struct RegionIndex {
    path: PathBuf,
    /// Offset and line, from 1, of each row.
    rows: HashMap<String, (u64, usize)>,
    order: Vec<String>,
}

impl RegionIndex {
    fn read(path: &Path) -> Result<Self, Error> {
        let mut file = RegionFile::open(path, None)?;
        let mut index = Self {
            path: path.to_owned(),
            rows: HashMap::new(),
            order: Vec::new(),
        };
        let offsets = lineidx(path)?;
        let mut at = 0;
        while !file.done {
            let begin = match &offsets {
                None => at,
                Some(offsets) => match offsets.get(file.line) {
                    None => break,
                    Some(&offset) => {
                        check_offset(path, &mut file, offset)?;
                        offset
                    }
                },
            };
            let name = match name_of_row(&mut file)? {
                None => break,
                Some((name, length)) => {
                    at += length;
                    name
                }
            };
            if name.is_empty() {
                continue;
            }
            if index
                .rows
                .insert(name.clone(), (begin, file.line))
                .is_some()
            {
                return Err(file.wrong("name", "one row for each picture", name));
            }
            index.order.push(name);
        }
        Ok(index)
    }

    /// The pictures, in the order of their rows.
    pub fn images(&self) -> &[String] {
        &self.order
    }

    /// Whether a picture has a row.
    pub fn contains(&self, image: &str) -> bool {
        self.rows.contains_key(image)
    }

    /// The name of a picture's row: its own, that of its file, or that without its ending.
    pub fn row_of(&self, picture: &str) -> Option<&str> {
        let path = Path::new(picture);
        let names = [path.file_name(), path.file_stem()];
        let names = names.iter().flatten().filter_map(|name| name.to_str());
        let mut names = std::iter::once(picture).chain(names);
        let row = names.find_map(|name| self.rows.get_key_value(name));
        row.map(|(name, _)| name.as_str())
    }

    /// Checks that every one of certain pictures has a row.
    ///
    /// # Errors
    /// How many pictures have none, and how many rows belong to none of the pictures, the first of each by name.
    pub fn check_images<'a>(&self, images: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        let images: std::collections::HashSet<&str> = images.into_iter().collect();
        let mut without: Vec<&str> = images
            .iter()
            .filter(|i| self.row_of(i).is_none())
            .copied()
            .collect();
        if without.is_empty() {
            return Ok(());
        }
        without.sort_unstable();
        let own: std::collections::HashSet<&str> =
            images.iter().filter_map(|i| self.row_of(i)).collect();
        let foreign = self.order.iter().map(String::as_str);
        let foreign: Vec<&str> = foreign.filter(|name| !own.contains(name)).collect();
        let named = |list: &[&str], what: &str| match list {
            [] => String::new(),
            [first, ..] => format!("{} {what} ({first} first)", list.len()),
        };
        let parts = [
            named(&without, "pictures without regions"),
            named(&foreign, "rows without a picture"),
        ];
        let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        Err(Error::Record {
            name: self.path.display().to_string(),
            line: foreign.first().map_or(0, |name| self.rows[*name].1),
            field: "name".to_owned(),
            expected: format!("the regions of {} pictures", images.len()),
            found: parts.join(" and "),
        })
    }

    /// The regions of one picture; boxes have `width` numbers, if that is given, and lie within a picture of `size`
    /// (width and height), if that is known.
    ///
    /// # Errors
    /// A picture without a row, or a row in error.
    pub fn regions(
        &self,
        image: &str,
        width: Option<usize>,
        size: Option<[u32; 2]>,
    ) -> Result<ImageRegions, Error> {
        let mut file = RegionFile::open(&self.path, width)?;
        let Some(&(offset, line)) = self.rows.get(image) else {
            return Err(file.wrong("name", format!("a row for {image}"), "none"));
        };
        let seek = file.reader.seek(SeekFrom::Start(offset));
        seek.map_err(|e| Error::io(&self.path, "read", e))?;
        file.line = line - 1;
        let Some((row, ended)) = file.row()? else {
            return Err(file.wrong("row", "a row", "the end of the file"));
        };
        let mut regions = file.parse(&row, ended)?;
        if let (Some(told), Some(size)) = (regions.size, size)
            && told != size
        {
            let [w, h] = told;
            let expected = format!("{} x {}, as {image} is", size[0], size[1]);
            return Err(file.wrong("image_w", expected, format!("{w} x {h}")));
        }
        regions.size = regions.size.or(size);
        for (i, region) in regions.regions.iter().enumerate() {
            if let Some(rect) = region.rect {
                file.check_rect(i, rect, regions.size)?;
            }
        }
        Ok(regions)
    }
}

/// The first column of the next row and the row's length; the rest is skipped.
fn name_of_row(file: &mut RegionFile) -> Result<Option<(String, u64)>, Error> {
    let Some((row, ended)) = file.row()? else {
        return Ok(None);
    };
    let end = row.iter().position(|&b| b == b'\t').unwrap_or(row.len());
    let name = String::from_utf8_lossy(&row[..end]).trim().to_owned();
    Ok(Some((name, row.len() as u64 + u64::from(ended))))
}

/// The offsets of `NAME.lineidx`, if there is one.
fn lineidx(path: &Path) -> Result<Option<Vec<u64>>, Error> {
    let index = path.with_extension("lineidx");
    let text = match std::fs::read_to_string(&index) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(&index, "read", e)),
    };
    let number = |(i, line): (usize, &str)| {
        line.trim().parse::<u64>().map_err(|_| Error::Record {
            name: index.display().to_string(),
            line: i + 1,
            field: "offset".to_owned(),
            expected: "a number".to_owned(),
            found: one_line(line),
        })
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .enumerate()
        .map(number)
        .collect::<Result<_, _>>()
        .map(Some)
}

/// An offset is right if it is the file's begin or behind a line break.
fn check_offset(path: &Path, file: &mut RegionFile, offset: u64) -> Result<(), Error> {
    let failed = |e| Error::io(path, "read", e);
    let wrong = |found: &str| Error::Record {
        name: path.with_extension("lineidx").display().to_string(),
        line: file.line + 1,
        field: "offset".to_owned(),
        expected: format!("the begin of a row of {}", path.display()),
        found: format!("{offset}, {found}"),
    };
    let length = file.reader.get_ref().metadata().map_err(failed)?.len();
    if offset >= length {
        return Err(wrong("beyond the end of the file"));
    }
    if offset > 0 {
        let mut before = [0];
        let seek = file.reader.seek(SeekFrom::Start(offset - 1));
        seek.map_err(failed)?;
        file.reader.read_exact(&mut before).map_err(failed)?;
        if before != *b"\n" {
            return Err(wrong("within a row"));
        }
    } else {
        file.reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    }
    Ok(())
}
