//! Boxes that a network tells as changes of other boxes.

use vlm_nn::ops::{BoxExtent, nms};

/// `x1, y1, x2, y2` in pixels.
pub type Corners = [f32; 4];

/// A box is told by how the centre of another one moves and by the logarithm of how its sides grow (Girshick et al., "Rich
/// feature hierarchies", 2014).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxCoder {
    /// What the network's numbers are divided by: of the centre's x and y, of the width and the height.
    pub weights: [f32; 4],
    /// Whether the last pixel belongs to a box.
    pub extent: BoxExtent,
}

impl BoxCoder {
    /// No side grows by more than this factor, 1000 / 16.
    const MOST: f32 = 4.135_166_6;

    /// The change that makes `corners` of `anchor`, what [`Self::decode`] undoes.
    pub fn encode(&self, corners: Corners, anchor: Corners) -> [f32; 4] {
        let added = self.extent.added();
        let sides = |c: Corners| [c[2] - c[0] + added, c[3] - c[1] + added];
        let ([width, height], [to_width, to_height]) = (sides(anchor), sides(corners));
        let [x, y] = [anchor[0] + 0.5 * width, anchor[1] + 0.5 * height];
        let [to_x, to_y] = [corners[0] + 0.5 * to_width, corners[1] + 0.5 * to_height];
        [
            self.weights[0] * (to_x - x) / width,
            self.weights[1] * (to_y - y) / height,
            self.weights[2] * (to_width / width).ln(),
            self.weights[3] * (to_height / height).ln(),
        ]
    }

    /// The box that `change` makes of `anchor`.
    pub fn decode(&self, change: [f32; 4], anchor: Corners) -> Corners {
        let added = self.extent.added();
        let [width, height] = [anchor[2] - anchor[0] + added, anchor[3] - anchor[1] + added];
        let [x, y] = [anchor[0] + 0.5 * width, anchor[1] + 0.5 * height];
        let change: [f32; 4] = std::array::from_fn(|i| change[i] / self.weights[i]);
        let (x, y) = (change[0] * width + x, change[1] * height + y);
        let width = change[2].min(Self::MOST).exp() * width;
        let height = change[3].min(Self::MOST).exp() * height;
        [
            x - 0.5 * width,
            y - 0.5 * height,
            x + 0.5 * width - added,
            y + 0.5 * height - added,
        ]
    }
}

/// A box within a picture of `[height, width]` pixels. What is no number becomes the picture's corner.
pub fn clipped(corners: Corners, [height, width]: [usize; 2], extent: BoxExtent) -> Corners {
    let within = |value: f32, most: usize| {
        let most = (most as f32 - extent.added()).max(0.0);
        // not `clamp`, which keeps NaN
        value.max(0.0).min(most)
    };
    [
        within(corners[0], width),
        within(corners[1], height),
        within(corners[2], width),
        within(corners[3], height),
    ]
}

/// Whether both sides have at least this length.
pub fn is_large(corners: Corners, least: f32, extent: BoxExtent) -> bool {
    let added = extent.added();
    corners[2] - corners[0] + added >= least && corners[3] - corners[1] + added >= least
}

/// Non-maximum suppression within each class by itself, as torchvision's `batched_nms` has it: up to a thousand boxes are
/// moved apart, class by class, and suppressed at once, which rounds their corners; beyond that each class is done for
/// itself. Highest score first.
pub fn class_wise_nms(
    boxes: &[Corners],
    scores: &[f32],
    classes: &[usize],
    threshold: f32,
) -> Vec<usize> {
    const TOGETHER: usize = 1000;
    let extent = BoxExtent::Edges;
    if boxes.len() <= TOGETHER {
        let largest = boxes.iter().flatten().copied().fold(0.0, f32::max);
        let moved = |(corners, &class): (&Corners, &usize)| {
            let by = class as f32 * (largest + 1.0);
            corners.map(|c| c + by)
        };
        let moved: Vec<Corners> = boxes.iter().zip(classes).map(moved).collect();
        return nms(&moved, scores, threshold, extent, usize::MAX);
    }
    let mut by_class: std::collections::BTreeMap<usize, Vec<usize>> = Default::default();
    for (i, &class) in classes.iter().enumerate() {
        by_class.entry(class).or_default().push(i);
    }
    let mut kept = Vec::new();
    for members in by_class.values() {
        let corners: Vec<Corners> = members.iter().map(|&i| boxes[i]).collect();
        let own: Vec<f32> = members.iter().map(|&i| scores[i]).collect();
        let remaining = nms(&corners, &own, threshold, extent, usize::MAX);
        kept.extend(remaining.into_iter().map(|i| members[i]));
    }
    // as they stand where scores are equal
    kept.sort_unstable();
    kept.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_change_is_the_same_box_and_changes_are_of_centre_and_size() {
        for extent in [BoxExtent::Edges, BoxExtent::Pixels] {
            let coder = BoxCoder {
                weights: [10.0, 10.0, 5.0, 5.0],
                extent,
            };
            let anchor = [10.0, 20.0, 30.0, 60.0];
            assert_eq!(coder.decode([0.0; 4], anchor), anchor);
        }
        let coder = BoxCoder {
            weights: [1.0, 1.0, 1.0, 1.0],
            extent: BoxExtent::Edges,
        };
        let moved = coder.decode([0.5, -0.25, 2f32.ln(), 0.0], [0.0, 0.0, 10.0, 20.0]);
        let expected = [0.0, -5.0, 20.0, 15.0];
        for (a, b) in moved.iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{moved:?}");
        }
        for extent in [BoxExtent::Edges, BoxExtent::Pixels] {
            let weights = [10.0, 10.0, 5.0, 5.0];
            let coder = BoxCoder { weights, extent };
            let (anchor, other) = ([10.0, 20.0, 30.0, 60.0], [13.0, 11.0, 24.0, 70.0]);
            let back = coder.decode(coder.encode(other, anchor), anchor);
            for (a, b) in back.iter().zip(other) {
                assert!((a - b).abs() < 1e-4, "{back:?}");
            }
        }
        let huge = coder.decode([0.0, 0.0, 100.0, 100.0], [0.0, 0.0, 16.0, 16.0]);
        assert!((huge[2] - huge[0] - 1000.0).abs() < 0.1, "{huge:?}");
    }

    #[test]
    fn boxes_are_clipped_and_nothing_is_left_that_is_no_number() {
        let size = [30, 40];
        let clipped_to = |extent| clipped([-5.0, f32::NAN, 90.0, f32::INFINITY], size, extent);
        assert_eq!(clipped_to(BoxExtent::Edges), [0.0, 0.0, 40.0, 30.0]);
        assert_eq!(clipped_to(BoxExtent::Pixels), [0.0, 0.0, 39.0, 29.0]);
        assert!(is_large([1.0, 1.0, 1.0, 1.0], 1.0, BoxExtent::Pixels));
        assert!(!is_large([1.0, 1.0, 1.0, 1.0], 1e-3, BoxExtent::Edges));
    }

    #[test]
    fn boxes_of_other_classes_are_not_suppressed_however_many_there_are() {
        for copies in [1, 400] {
            let mut boxes = Vec::new();
            let (mut scores, mut classes) = (Vec::new(), Vec::new());
            for i in 0..copies {
                let x = 20.0 * i as f32;
                for (class, score) in [(1, 0.9), (1, 0.8), (2, 0.7)] {
                    boxes.push([x, 0.0, x + 10.0, 10.0]);
                    scores.push(score - 1e-4 * i as f32);
                    classes.push(class);
                }
            }
            let kept = class_wise_nms(&boxes, &scores, &classes, 0.5);
            assert_eq!(kept.len(), 2 * copies);
            assert!(kept.is_sorted_by(|&a, &b| scores[a] >= scores[b]));
            assert!(kept.iter().all(|i| i % 3 != 1));
        }
        assert_eq!(class_wise_nms(&[], &[], &[], 0.5), [0usize; 0]);
    }
}
