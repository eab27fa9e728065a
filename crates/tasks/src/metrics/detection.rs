//! Average precision of objects with boxes (Everingham et al., "The PASCAL visual object classes challenge", 2010), as
//! COCO's `pycocotools` computes it.

use super::MetricError;

/// An object that a picture is known to show, or that was found in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Located {
    /// The number of its class, from 0.
    pub class: usize,
    /// `x1, y1, x2, y2`.
    pub corners: [f64; 4],
    /// How sure one is of it; not looked at where it is known.
    pub score: f64,
}

/// What is known of a picture, and what was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocatedPicture {
    /// Known.
    pub truths: Vec<Located>,
    /// Found.
    pub found: Vec<Located>,
}

/// The scores of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassPrecision {
    /// Known objects.
    pub n: usize,
    /// Mean over the overlaps from 0.5 to 0.95, in 0..=1; none for a class that nowhere occurs.
    pub ap: Option<f64>,
    /// At an overlap of 0.5.
    pub ap50: Option<f64>,
}

/// The scores of pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectionScores {
    /// Pictures.
    pub n: usize,
    /// Average precision at overlaps from 0.5 to 0.95 in steps of 0.05, their mean and that over the classes that occur,
    /// in 0..=1; 0 if none does.
    pub ap: f64,
    /// The same at an overlap of 0.5.
    pub ap50: f64,
    /// Of each class.
    pub by_class: Vec<ClassPrecision>,
}

/// Overlaps from which on a box counts as found.
const OVERLAPS: usize = 10;
/// Shares of the objects at which precision is read.
const RECALLS: usize = 101;
/// Finds of one class in one picture that are looked at, best first.
const MOST: usize = 100;

fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |c: [f64; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let shared = width * height;
    shared / (area(a) + area(b) - shared)
}

/// Of each find of a class in a picture, best first, its score and whether it is right at each overlap.
fn judged(picture: &LocatedPicture, class: usize) -> Vec<(f64, [bool; OVERLAPS])> {
    let truths = picture.truths.iter().filter(|t| t.class == class);
    let truths: Vec<&Located> = truths.collect();
    let found = picture.found.iter().filter(|f| f.class == class);
    let mut found: Vec<&Located> = found.collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(MOST);
    let mut taken = vec![[false; OVERLAPS]; truths.len()];
    let mut judge = |find: &Located| {
        let overlaps: Vec<f64> = truths
            .iter()
            .map(|t| overlap(find.corners, t.corners))
            .collect();
        let mut right = |level: usize| {
            // as numpy spaces them
            let least = 0.5 + (0.95 - 0.5) / 9.0 * level as f64;
            let mut best = least.min(1.0 - 1e-10);
            let mut at = None;
            for (i, &overlap) in overlaps.iter().enumerate() {
                if !taken[i][level] && overlap >= best {
                    (best, at) = (overlap, Some(i));
                }
            }
            if let Some(at) = at {
                taken[at][level] = true;
            }
            at.is_some()
        };
        (find.score, std::array::from_fn(&mut right))
    };
    found.into_iter().map(&mut judge).collect()
}

/// The mean of the precision at shares of the objects from 0 to 1.
fn average_precision(right: impl Iterator<Item = bool>, objects: usize) -> f64 {
    let (mut recall, mut precision) = (Vec::new(), Vec::new());
    let mut hits = 0usize;
    for (i, right) in right.enumerate() {
        hits += usize::from(right);
        recall.push(hits as f64 / objects as f64);
        precision.push(hits as f64 / (i as f64 + 1.0));
    }
    for i in (1..precision.len()).rev() {
        precision[i - 1] = f64::max(precision[i - 1], precision[i]);
    }
    let at = |i: usize| {
        // as numpy spaces them, which is not the nearest number
        let share = i as f64 * (1.0 / (RECALLS - 1) as f64);
        let place = recall.partition_point(|&r| r < share);
        precision.get(place).copied().unwrap_or(0.0)
    };
    (0..RECALLS).map(at).sum::<f64>() / RECALLS as f64
}

/// Average precision of pictures with objects of so many classes.
///
/// # Errors
/// [`MetricError::NoItems`] for an empty list.
pub fn score_detections(
    pictures: &[LocatedPicture],
    classes: usize,
) -> Result<DetectionScores, MetricError> {
    if pictures.is_empty() {
        return Err(MetricError::NoItems);
    }
    let of_class = |class: usize| {
        let own = |p: &LocatedPicture| p.truths.iter().filter(|t| t.class == class).count();
        let n: usize = pictures.iter().map(own).sum();
        let mut finds: Vec<_> = pictures.iter().flat_map(|p| judged(p, class)).collect();
        finds.sort_by(|a, b| b.0.total_cmp(&a.0));
        let level = |level: usize| average_precision(finds.iter().map(|f| f.1[level]), n);
        let each: Option<Vec<f64>> = (n > 0).then(|| (0..OVERLAPS).map(level).collect());
        ClassPrecision {
            n,
            ap: each
                .as_ref()
                .map(|e| e.iter().sum::<f64>() / OVERLAPS as f64),
            ap50: each.as_ref().map(|e| e[0]),
        }
    };
    let by_class: Vec<ClassPrecision> = (0..classes).map(of_class).collect();
    let mean = |of: fn(&ClassPrecision) -> Option<f64>| {
        let some: Vec<f64> = by_class.iter().filter_map(of).collect();
        some.iter().sum::<f64>() / some.len().max(1) as f64
    };
    Ok(DetectionScores {
        n: pictures.len(),
        ap: mean(|c| c.ap),
        ap50: mean(|c| c.ap50),
        by_class,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn located(value: &Value) -> Located {
        let numbers: Vec<f64> = serde_json::from_value(value.clone()).unwrap();
        Located {
            class: numbers[0] as usize,
            corners: std::array::from_fn(|i| numbers[1 + i]),
            score: numbers.get(5).copied().unwrap_or(1.0),
        }
    }

    #[test]
    fn average_precision_is_that_of_pycocotools() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/metrics/detection.json"
        );
        let cases: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let cases = cases.as_array().unwrap();
        assert_eq!(cases.len(), 3);
        for case in cases {
            let list = |value: &Value| value.as_array().unwrap().iter().map(located).collect();
            let pictures = case["pictures"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| LocatedPicture {
                    truths: list(&p["truths"]),
                    found: list(&p["found"]),
                });
            let pictures: Vec<LocatedPicture> = pictures.collect();
            let classes = case["classes"].as_u64().unwrap() as usize;
            let scores = score_detections(&pictures, classes).unwrap();
            let close = |found: Option<f64>, expected: &Value, what: &str| {
                let expected = expected.as_f64();
                let same = match (found, expected) {
                    (Some(a), Some(b)) => (a - b).abs() < 1e-12,
                    (a, b) => a == b,
                };
                assert!(same, "{what}: {found:?} is not {expected:?}");
            };
            close(Some(scores.ap), &case["ap"], "ap");
            close(Some(scores.ap50), &case["ap50"], "ap50");
            for (i, (found, expected)) in scores
                .by_class
                .iter()
                .zip(case["by_class"].as_array().unwrap())
                .enumerate()
            {
                close(found.ap, &expected["ap"], &format!("class {i}"));
                close(found.ap50, &expected["ap50"], &format!("class {i} at 0.5"));
            }
        }
    }

    #[test]
    fn nothing_and_everything() {
        assert_eq!(score_detections(&[], 3), Err(MetricError::NoItems));
        let object = Located {
            class: 1,
            corners: [0.0, 0.0, 10.0, 10.0],
            score: 0.5,
        };
        let mut picture = LocatedPicture {
            truths: vec![object],
            found: vec![object],
        };
        let scores = score_detections(&[picture.clone()], 3).unwrap();
        assert_eq!(
            (scores.ap, scores.ap50, scores.by_class[0].ap),
            (1.0, 1.0, None)
        );
        // a second find of the same object is wrong
        picture.found.insert(
            0,
            Located {
                score: 0.9,
                ..object
            },
        );
        picture.found[1].corners[2] = 9.0;
        assert_eq!(score_detections(&[picture.clone()], 3).unwrap().ap, 1.0);
        picture.found[0].class = 0;
        picture.found[1].score = f64::NAN;
        let scores = score_detections(&[picture], 3).unwrap();
        assert!(scores.ap50 == 1.0 && scores.ap < 1.0, "{scores:?}");
    }
}
