//! Regions in the TSV files of VinVL, whole and damaged.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::PathBuf;
use vlm_data::datasets::region_features::{ImageRegions, Region, RegionFile};

/// A scratch file of one test, and its index beside it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str, text: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("vlm-regions-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("features.tsv");
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn with_index(self, offsets: &str) -> Self {
        std::fs::write(self.0.with_extension("lineidx"), offsets).unwrap();
        self
    }

    /// Every row, good and bad.
    fn rows(&self, width: Option<usize>) -> Vec<Result<ImageRegions, String>> {
        let file = RegionFile::open(&self.0, width).unwrap();
        file.map(|row| row.map_err(|e| e.to_string())).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

fn base64(numbers: &[f32]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

fn counting(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32 / 4.0).collect()
}

#[test]
fn every_kind_of_row_is_read() {
    let numbers = counting(6);
    let features = base64(&numbers);
    let object = |class: &str, part: &[f32]| {
        let feature = base64(part);
        format!(
            r#"{{"rect": [1, 2.5, 30, 40], "class": "{class}", "conf": 0.75, "feature": "{feature}",
                "attributes": ["red", "big"], "attr_scores": [0.5]}}"#
        )
        .replace('\n', " ")
    };
    let text = [
        format!("a\t{{\"num_boxes\": 2, \"features\": \"{features}\"}}"),
        format!("b\t2\t{features}\r"),
        format!(
            "c\t{{\"image_w\": 64, \"image_h\": 48, \"objects\": [{}, {}]}}",
            object("dog", &numbers[..3]),
            object("cat", &numbers[3..])
        ),
        String::new(),
        "d\t[{\"class\": \"tree\", \"rect\": [0, 0, 9, 9], \"conf\": 1}]".to_owned(),
        "e\t0\t".to_owned(),
    ];
    let file = Scratch::new("kinds", &(text.join("\n") + "\n"));
    let rows: Vec<ImageRegions> = file.rows(Some(3)).into_iter().map(Result::unwrap).collect();
    let names: Vec<&str> = rows.iter().map(|r| r.image.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    for row in &rows[..3] {
        assert_eq!((row.width, row.regions.len()), (3, 2), "{}", row.image);
        assert_eq!(row.features, numbers, "{}", row.image);
        assert_eq!(row.feature(1), &numbers[3..]);
    }
    assert_eq!(rows[2].size, Some([64, 48]));
    assert_eq!(rows[2].tags(), ["dog", "cat"]);
    let region = &rows[2].regions[0];
    assert_eq!(region.rect, Some([1.0, 2.5, 30.0, 40.0]));
    assert_eq!(region.score, Some(0.75));
    let attributes = [("red".to_owned(), Some(0.5)), ("big".to_owned(), None)];
    assert_eq!(region.attributes, attributes);
    assert_eq!((rows[3].width, rows[3].tags()), (0, vec!["tree"]));
    assert!(rows[4].regions.is_empty());
}

#[test]
fn a_bad_row_names_its_line_and_field_and_the_others_are_read() {
    let good = |name: &str| format!("{name}\t1\t{}", base64(&counting(4)));
    for (bad, expected) in [
        ("x".to_owned(), "row: expected a name, a tab and regions"),
        ("\t1\tAAAA".to_owned(), "row: expected a name"),
        ("x\t1\t%%%%".to_owned(), "features: expected base64"),
        (
            "x\t1\tAAAA".to_owned(),
            "features: expected numbers of 4 bytes, found 3 bytes",
        ),
        (
            format!("x\t1\t{}", base64(&counting(5))),
            "features: expected 4 numbers a box, found 5",
        ),
        (
            format!("x\t3\t{}", base64(&counting(4))),
            "features: expected as many numbers for each of 3 boxes, found 4 numbers",
        ),
        (
            format!("x\t0\t{}", base64(&counting(4))),
            "features: expected as many numbers for each of 0 boxes, found 4 numbers",
        ),
        (
            format!("x\t1\t{}", base64(&[1.0, f32::NAN, 0.0, 0.0])),
            "features: expected finite numbers",
        ),
        (
            "x\t99999999\tAAAAAA==".to_owned(),
            "num_boxes: expected a number up to 65536",
        ),
        ("x\t1\t2\t3".to_owned(), "row: expected two columns"),
        (
            "x\t{\"num_boxes\": 1".to_owned(),
            "regions: expected a JSON object or list",
        ),
        (
            "x\t{\"num_boxes\": 1}".to_owned(),
            "regions: expected features or objects",
        ),
        ("x\t[1]".to_owned(), "objects[0]: expected an object"),
        (
            "x\t[{\"rect\": [1, 2, 3]}]".to_owned(),
            "objects[0].rect: expected four numbers",
        ),
        (
            "x\t[{\"rect\": [9, 2, 3, 4]}]".to_owned(),
            "objects[0].rect: expected x1 <= x2",
        ),
        (
            "x\t{\"image_w\": 10, \"image_h\": 10, \"objects\": [{\"rect\": [1, 1, 5, 14]}]}"
                .to_owned(),
            "objects[0].rect: expected a box within the picture of 10 x 10, found [1.0, 1.0, 5.0, 14.0]",
        ),
        (
            format!("x\t[{{\"feature\": \"{}\"}}, {{}}]", base64(&counting(4))),
            "objects[1].feature: expected one, as the boxes before, found none",
        ),
    ] {
        let text = [good("a"), bad.clone(), good("b")].join("\n") + "\n";
        let file = Scratch::new("bad", &text);
        let rows = file.rows(None);
        assert_eq!(rows.len(), 3, "{bad}");
        let error = rows[1].as_ref().unwrap_err();
        let place = format!("features.tsv:2: {expected}");
        assert!(error.contains(&place), "{bad}: {error}");
        for (row, name) in [(0, "a"), (2, "b")] {
            assert_eq!(rows[row].as_ref().unwrap().image, name, "{bad}");
        }
    }
}

#[test]
fn a_file_that_is_cut_in_the_middle_of_a_row_says_so() {
    let row = |name: &str| {
        format!(
            "{name}\t{{\"num_boxes\": 1, \"features\": \"{}\"}}\n",
            base64(&counting(4))
        )
    };
    let text = row("a") + &row("b");
    for cut in [1, 4, 12, 30] {
        let file = Scratch::new("cut", &text[..text.len() - cut]);
        let rows = file.rows(Some(4));
        assert_eq!(rows.len(), 2);
        assert!(rows[0].is_ok());
        if cut == 1 {
            // only the line break is gone
            assert!(rows[1].is_ok());
            continue;
        }
        let error = rows[1].as_ref().unwrap_err();
        let expected = "features.tsv:2: row: expected a whole row that ends with a line break, found the end of the file";
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn rows_are_found_by_picture_with_and_without_an_index() {
    let row = |name: &str, first: f32| format!("{name}\t1\t{}", base64(&[first, 0.0]));
    let text = [row("a", 1.0), row("b", 2.0), row("c", 3.0)].join("\r\n") + "\r\n";
    let second = text.find('b').unwrap();
    let third = text.find('c').unwrap();
    for offsets in [None, Some(format!("0\n{second}\n{third}\n"))] {
        let mut file = Scratch::new("index", &text);
        if let Some(offsets) = &offsets {
            file = file.with_index(offsets);
        }
        let index = RegionFile::index(&file.0).unwrap();
        assert_eq!(index.images(), ["a", "b", "c"]);
        for (name, first) in [("c", 3.0), ("a", 1.0), ("b", 2.0)] {
            let regions = index.regions(name, Some(2), None).unwrap();
            assert_eq!((regions.image.as_str(), regions.features[0]), (name, first));
        }
        let error = index.regions("d", None, None).unwrap_err().to_string();
        assert!(error.contains("expected a row for d"), "{error}");
        let error = index
            .regions("b", Some(2054), None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("features.tsv:2: features: expected 2054 numbers a box, found 2"),
            "{error}"
        );
        index.check_images(["a", "b", "c"]).unwrap();
        // rows of other pictures do no harm, and a picture may be named by its file
        index.check_images(["photos/a.jpg", "b"]).unwrap();
        assert_eq!(index.row_of("photos/a.jpg"), Some("a"));
        assert_eq!(index.row_of("photos/d.jpg"), None);
        let error = index
            .check_images(["a", "b", "x", "y"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(
                "2 pictures without regions (x first) and 1 rows without a picture (c first)"
            ),
            "{error}"
        );
    }
    for (offsets, expected) in [
        (
            "0\n3\n",
            "features.lineidx:2: offset: expected the begin of a row",
        ),
        ("0\n99999\n", "beyond the end of the file"),
        (
            "0\nx\n",
            "features.lineidx:2: offset: expected a number, found x",
        ),
    ] {
        let file = Scratch::new("bad-index", &text).with_index(offsets);
        let error = RegionFile::index(&file.0).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let file = Scratch::new("twice", &[row("a", 1.0), row("a", 2.0)].join("\n"));
    let error = RegionFile::index(&file.0).unwrap_err().to_string();
    assert!(
        error.contains(":2: name: expected one row for each picture, found a"),
        "{error}"
    );
}

#[test]
fn boxes_are_checked_against_the_picture_that_they_are_used_with() {
    let row = "a\t{\"image_w\": 20, \"image_h\": 20, \"objects\": [{\"rect\": [0, 0, 20.4, 20]}]}\n\
               b\t[{\"rect\": [0, 0, 30, 20]}]\n";
    let file = Scratch::new("sizes", row);
    let index = RegionFile::index(&file.0).unwrap();
    let regions = index.regions("a", None, Some([20, 20])).unwrap();
    assert_eq!(regions.size, Some([20, 20]));
    let error = index
        .regions("a", None, Some([40, 20]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("image_w: expected 40 x 20, as a is, found 20 x 20"),
        "{error}"
    );
    let regions = index.regions("b", None, Some([40, 20])).unwrap();
    assert_eq!(regions.size, Some([40, 20]));
    let error = index
        .regions("b", None, Some([20, 20]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a box within the picture of 20 x 20"),
        "{error}"
    );
}

#[test]
fn what_is_written_is_read_again() {
    let region = |class: Option<&str>, score| Region {
        rect: Some([1.0, 2.5, 30.0, 40.1]),
        class: class.map(str::to_owned),
        score,
        attributes: Vec::new(),
    };
    let mut dog = region(Some("hot dog"), Some(0.75));
    dog.attributes = vec![
        ("red \"hot\"".to_owned(), Some(0.5)),
        ("long".to_owned(), None),
    ];
    let mut written = ImageRegions {
        image: "a b.jpg".to_owned(),
        size: Some([64, 48]),
        regions: vec![dog, region(None, None)],
        width: 3,
        features: vec![0.1, -2.0, 1e-30, 3.5, 0.0, f32::MAX],
    };
    let row = written.to_row().unwrap();
    let file = Scratch::new("written", &format!("{row}\n"));
    assert_eq!(file.rows(Some(3)), [Ok(written.clone())]);
    for name in ["", "a\tb", "a\nb", " a"] {
        written.image = name.to_owned();
        let error = written.to_row().unwrap_err().to_string();
        assert!(error.contains("expected a name without tabs"), "{error}");
    }
}
