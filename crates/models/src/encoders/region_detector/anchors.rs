//! Boxes of fixed sizes around every cell of a map of features, which the network changes.

use super::Corners;

/// How the boxes around the first cell are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorLayout {
    /// torchvision: around the corner of the cell, half a side in each direction, rounded.
    Cornered,
    /// Caffe's Faster R-CNN and maskrcnn-benchmark: around the middle of the cell's pixels, sides rounded for each
    /// aspect ratio before they are scaled, the last pixel belonging to the box.
    Centred,
}

/// The boxes around the first cell, those of one aspect ratio (height to width) after the other.
pub fn around_first_cell(
    layout: AnchorLayout,
    sizes: &[f32],
    aspect_ratios: &[f32],
    stride: usize,
) -> Vec<Corners> {
    let ratios = aspect_ratios.iter();
    match layout {
        AnchorLayout::Cornered => ratios
            .flat_map(|ratio| {
                let tall = ratio.sqrt();
                let wide = 1.0 / tall;
                sizes.iter().map(move |size| {
                    let (w, h) = (wide * size, tall * size);
                    [-w, -h, w, h].map(|side| (side / 2.0).round_ties_even())
                })
            })
            .collect(),
        AnchorLayout::Centred => {
            let base = stride as f64;
            let centre = 0.5 * (base - 1.0);
            ratios
                .flat_map(|&ratio| {
                    let ratio = f64::from(ratio);
                    let width = (base * base / ratio).sqrt().round_ties_even();
                    let height = (width * ratio).round_ties_even();
                    sizes.iter().map(move |&size| {
                        let scale = f64::from(size) / base;
                        let half = |side: f64| 0.5 * (side * scale - 1.0);
                        let (w, h) = (half(width), half(height));
                        [centre - w, centre - h, centre + w, centre + h].map(|c| c as f32)
                    })
                })
                .collect()
        }
    }
}

/// The anchor with number `i` of a map with `columns` columns: rows of cells, in each all boxes.
pub fn anchor(cell: &[Corners], i: usize, columns: usize, stride: [usize; 2]) -> Corners {
    let (at, kind) = (i / cell.len(), i % cell.len());
    let y = (at / columns * stride[0]) as f32;
    let x = (at % columns * stride[1]) as f32;
    let [x1, y1, x2, y2] = cell[kind];
    [x1 + x, y1 + y, x2 + x, y2 + y]
}

/// Every anchor of a map of `[rows, columns]` cells, in the order of `anchor`.
pub fn anchors(cell: &[Corners], [rows, columns]: [usize; 2], stride: [usize; 2]) -> Vec<Corners> {
    let count = rows * columns * cell.len();
    (0..count)
        .map(|i| anchor(cell, i, columns, stride))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boxes_of_the_published_detectors() {
        let cell = around_first_cell(AnchorLayout::Cornered, &[32.0], &[0.5, 1.0, 2.0], 4);
        let expected = [
            [-23.0, -11.0, 23.0, 11.0],
            [-16.0, -16.0, 16.0, 16.0],
            [-11.0, -23.0, 11.0, 23.0],
        ];
        assert_eq!(cell, expected);
        // the table in the comments of Ren et al.'s Matlab code
        let sizes = [128.0, 256.0, 512.0];
        let cell = around_first_cell(AnchorLayout::Centred, &sizes, &[0.5, 1.0, 2.0], 16);
        let expected = [
            [-84.0, -40.0, 99.0, 55.0],
            [-176.0, -88.0, 191.0, 103.0],
            [-360.0, -184.0, 375.0, 199.0],
            [-56.0, -56.0, 71.0, 71.0],
            [-120.0, -120.0, 135.0, 135.0],
            [-248.0, -248.0, 263.0, 263.0],
            [-36.0, -80.0, 51.0, 95.0],
            [-80.0, -168.0, 95.0, 183.0],
            [-168.0, -344.0, 183.0, 359.0],
        ];
        assert_eq!(cell, expected);
        assert_eq!(
            anchor(&cell, 9 * 5 + 3, 4, [16, 16]),
            [-40.0, -40.0, 87.0, 87.0]
        );
    }
}
