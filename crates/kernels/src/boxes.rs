//! Boxes `[x1, y1, x2, y2]` and which of them say the same.

/// Width and height of boxes whose right and lower edges are lines between pixels (`Edges`) or pixels of the box
/// (`Pixels`): Caffe's and maskrcnn-benchmark's boxes are one pixel wider than the difference of their coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxExtent {
    /// `x2 - x1`.
    Edges,
    /// `x2 - x1 + 1`.
    Pixels,
}

impl BoxExtent {
    /// What is added to a difference of coordinates.
    pub fn added(self) -> f32 {
        match self {
            Self::Edges => 0.0,
            Self::Pixels => 1.0,
        }
    }
}

/// The area of a box.
pub fn box_area([x1, y1, x2, y2]: [f32; 4], extent: BoxExtent) -> f32 {
    (x2 - x1 + extent.added()) * (y2 - y1 + extent.added())
}

/// Intersection over union of two boxes; NaN for two boxes without an area.
pub fn box_iou(a: [f32; 4], b: [f32; 4], extent: BoxExtent) -> f32 {
    iou(a, box_area(a, extent), b, box_area(b, extent), extent)
}

#[inline]
fn iou(a: [f32; 4], area_a: f32, b: [f32; 4], area_b: f32, extent: BoxExtent) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0]) + extent.added()).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1]) + extent.added()).max(0.0);
    let shared = width * height;
    shared / (area_a + area_b - shared)
}

/// The order of scores, highest first, equal ones in the order in which they stand, NaN last.
pub fn by_score(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let key = |i: usize| {
        if scores[i].is_nan() {
            f32::NEG_INFINITY
        } else {
            scores[i]
        }
    };
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    order
}

/// Non-maximum suppression: the boxes that remain, highest score first, after each has removed those of lower score that
/// it overlaps by more than `threshold` (intersection over union).
///
/// At most `most` are kept. Time grows with the number of boxes times the number kept.
pub fn nms(
    boxes: &[[f32; 4]],
    scores: &[f32],
    threshold: f32,
    extent: BoxExtent,
    most: usize,
) -> Vec<usize> {
    assert_eq!(boxes.len(), scores.len(), "nms: a score for each box");
    let order = by_score(scores);
    let areas: Vec<f32> = boxes.iter().map(|&b| box_area(b, extent)).collect();
    let mut kept: Vec<usize> = Vec::new();
    let mut removed = vec![false; boxes.len()];
    for (at, &i) in order.iter().enumerate() {
        if kept.len() == most {
            break;
        }
        if removed[i] {
            continue;
        }
        kept.push(i);
        for &j in &order[at + 1..] {
            if !removed[j] && iou(boxes[i], areas[i], boxes[j], areas[j], extent) > threshold {
                removed[j] = true;
            }
        }
    }
    kept
}
