//! Boxes, what is sampled in them, and convolution in groups.

use crate::support::{Random, assert_close, numeric_gradient};
use vlm_kernels::reference::{self, widen};
use vlm_kernels::*;

/// Boxes of all kinds in and around a picture of 40 x 30 pixels.
fn boxes(random: &mut Random, count: usize) -> Vec<[f32; 4]> {
    let mut boxes: Vec<[f32; 4]> = (0..count)
        .map(|_| {
            let f = random.floats(4, 1.0);
            let (x, y) = (20.0 + 22.0 * f[0], 15.0 + 18.0 * f[1]);
            let (w, h) = (12.0 * f[2].abs(), 12.0 * f[3].abs());
            [x, y, x + w, y + h]
        })
        .collect();
    boxes.extend([
        [0.0, 0.0, 40.0, 30.0],
        [3.0, 4.0, 3.0, 4.0],
        [39.0, 29.0, 80.0, 90.0],
        [-30.0, -30.0, -20.0, -20.0],
        [-4.0, -4.0, 44.0, 34.0],
    ]);
    boxes
}

fn shapes() -> Vec<RoiAlignShape> {
    let mut shapes = Vec::new();
    for (output, scale) in [([7, 7], 0.25), ([2, 3], 1.0), ([1, 1], 0.5)] {
        for sampling_ratio in [0, 1, 2] {
            for aligned in [false, true] {
                shapes.push(RoiAlignShape {
                    output,
                    scale,
                    sampling_ratio,
                    aligned,
                });
            }
        }
    }
    shapes
}

fn channel(x: &[f32], dims: [usize; 4], picture: usize, c: usize) -> Vec<f64> {
    let pixels = dims[1] * dims[2];
    let at = |i: usize| f64::from(x[(picture * pixels + i) * dims[3] + c]);
    (0..pixels).map(at).collect()
}

#[test]
fn samples_of_boxes_match_the_definition() {
    let mut random = Random::new(301);
    for s in shapes() {
        for channels in [1, 5, 32] {
            let dims = [
                2,
                (30.0 * s.scale) as usize,
                (40.0 * s.scale) as usize,
                channels,
            ];
            let x = random.floats(dims.iter().product(), 1.0);
            let rois = boxes(&mut random, 20).into_iter().enumerate();
            let rois: Vec<Roi> = rois
                .map(|(i, corners)| Roi {
                    picture: i % 2,
                    corners,
                })
                .collect();
            let cells = s.output[0] * s.output[1];
            let mut found = vec![f32::NAN; rois.len() * cells * channels];
            roi_align(&x, dims, &rois, s, &mut found);
            let mut expected = vec![0.0; found.len()];
            for (r, roi) in rois.iter().enumerate() {
                for c in 0..channels {
                    let x = channel(&x, dims, roi.picture, c);
                    let corners = roi.corners.map(f64::from);
                    let values = reference::roi_align(&x, [dims[1], dims[2]], corners, s);
                    for (cell, value) in values.into_iter().enumerate() {
                        expected[(r * cells + cell) * channels + c] = value;
                    }
                }
            }
            // places of samples are f32 of up to 90, and a cell's value changes by 2 from one to the next
            assert_close(&format!("{s:?}"), &found, &expected, 5e-5);
            // the same as sums of terms
            let terms = roi_align_terms(dims, &rois, s);
            for (cell, terms) in terms.iter().enumerate() {
                let sum = terms.iter().map(|(at, w)| x[at * channels] * w);
                let error = (sum.sum::<f32>() - found[cell * channels]).abs();
                assert!(error < 1e-5, "{s:?}, cell {cell}: {error}");
            }
        }
    }
}

#[test]
fn gradients_of_samples_match_finite_differences() {
    let mut random = Random::new(302);
    for s in shapes() {
        let dims = [2, (30.0 * s.scale) as usize, (40.0 * s.scale) as usize, 2];
        let rois: Vec<Roi> = boxes(&mut random, 6)
            .into_iter()
            .enumerate()
            .map(|(i, corners)| Roi {
                picture: i % 2,
                corners,
            })
            .collect();
        let cells = s.output[0] * s.output[1];
        let dy = random.floats(rois.len() * cells * 2, 1.0);
        let mut found = vec![f32::NAN; dims.iter().product()];
        roi_align_backward(&dy, dims, &rois, s, &mut found);
        let pixels = dims[1] * dims[2];
        let mut expected = vec![0.0; found.len()];
        for picture in 0..2 {
            for c in 0..2 {
                let loss = |x: &[f64]| {
                    let of = |(r, roi): (usize, &Roi)| {
                        let corners = roi.corners.map(f64::from);
                        let y = reference::roi_align(x, [dims[1], dims[2]], corners, s);
                        let dy = |cell: usize| f64::from(dy[(r * cells + cell) * 2 + c]);
                        y.iter().enumerate().map(|(i, y)| y * dy(i)).sum::<f64>()
                    };
                    let own = rois.iter().enumerate();
                    own.filter(|(_, roi)| roi.picture == picture).map(of).sum()
                };
                // linear in x, so that any step will do; the large pictures are tested above
                if pixels > 400 {
                    continue;
                }
                let gradient = numeric_gradient(&vec![0.0; pixels], loss);
                for (i, value) in gradient.into_iter().enumerate() {
                    expected[(picture * pixels + i) * 2 + c] = value;
                }
            }
        }
        if pixels <= 400 {
            assert_close(&format!("{s:?}"), &found, &expected, 1e-4);
        } else {
            // the transpose: <dy, A x> = <A^t dy, x>
            let x = random.floats(found.len(), 1.0);
            let mut y = vec![f32::NAN; dy.len()];
            roi_align(&x, dims, &rois, s, &mut y);
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                let terms = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
                terms.sum()
            };
            let (forward, backward) = (dot(&dy, &y), dot(&found, &x));
            let error = (forward - backward).abs();
            assert!(error < 1e-3, "{s:?}: {forward} and {backward}");
        }
    }
}

#[test]
fn suppression_matches_the_definition_for_every_threshold() {
    let mut random = Random::new(303);
    for count in [0, 1, 7, 60] {
        for (extent, added) in [(BoxExtent::Edges, 0.0), (BoxExtent::Pixels, 1.0)] {
            let boxes = boxes(&mut random, count);
            let scores = random.floats(boxes.len(), 1.0);
            let wide: Vec<[f64; 4]> = boxes.iter().map(|b| b.map(f64::from)).collect();
            for threshold in [0.0, 0.1, 0.5, 0.7, 1.0] {
                let expected = reference::nms(&wide, &widen(&scores), threshold, added);
                let found = nms(&boxes, &scores, threshold as f32, extent, usize::MAX);
                assert_eq!(found, expected, "{count} {threshold} {extent:?}");
                let some = nms(&boxes, &scores, threshold as f32, extent, 3);
                assert_eq!(some, expected[..expected.len().min(3)]);
            }
        }
    }
}

#[test]
fn equal_scores_keep_their_order_and_nan_comes_last() {
    let scores = [0.5, f32::NAN, 0.7, 0.5, f32::NEG_INFINITY];
    assert_eq!(by_score(&scores)[..3], [2, 0, 3]);
    let one = [0.0, 0.0, 10.0, 10.0];
    let kept = nms(&[one; 5], &scores, 0.5, BoxExtent::Edges, usize::MAX);
    assert_eq!(kept, [2]);
    // boxes without an area overlap nothing
    let kept = nms(&[[1.0; 4]; 3], &[0.1, 0.2, 0.3], 0.5, BoxExtent::Edges, 9);
    assert_eq!(kept, [2, 1, 0]);
}

#[test]
fn convolution_in_groups_and_its_gradients_match_the_definition() {
    let mut random = Random::new(304);
    for (groups, channels, outputs, kernel, stride) in [
        (1, 3, 4, 3, 1),
        (2, 4, 6, 3, 2),
        (4, 12, 8, 3, 1),
        (32, 64, 64, 3, 2),
        (5, 5, 10, 1, 1),
    ] {
        for batch in [0, 2] {
            let s = ConvShape {
                batch,
                height: 9,
                width: 7,
                channels,
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: [kernel / 2; 2],
            };
            let window = kernel * kernel * channels / groups;
            let pixels = batch * s.out_height() * s.out_width();
            let x = random.floats(batch * 63 * channels, 1.0);
            let weight = random.floats(outputs * window, 0.3);
            let bias = random.floats(outputs, 1.0);
            let residual = random.floats(pixels * outputs, 1.0);
            let dy = random.floats(pixels * outputs, 1.0);
            let dense = reference::ungrouped(&widen(&weight), outputs, channels, groups);
            let sums = reference::conv2d(&widen(&x), &dense, outputs, s);
            let expected: Vec<f64> = sums
                .iter()
                .enumerate()
                .map(|(i, y)| (y + f64::from(bias[i % outputs])).max(0.0) + f64::from(residual[i]))
                .collect();
            let precision = Precision::F32;
            let packed: Vec<PackedWeights> = weight
                .chunks_exact(weight.len() / groups)
                .map(|w| PackedWeights::new(precision, w, outputs / groups, window))
                .collect();
            let mut out = vec![f32::NAN; pixels * outputs];
            let epilogue = Epilogue {
                bias: Some(&bias),
                activation: Activation::Relu,
                residual: Some(&residual),
                pre_activation: None,
            };
            conv2d_grouped(&x, &packed, s, epilogue, &mut out);
            let what = format!("{groups} groups, batch {batch}");
            assert_close(&what, &out, &expected, 5e-5);

            let [by_x, by_weight] =
                reference::conv2d_backward(&widen(&dy), &widen(&x), &dense, outputs, s);
            let (mut dx, mut dw) = (vec![f32::NAN; x.len()], vec![f32::NAN; weight.len()]);
            conv2d_grouped_input_gradient(precision, &dy, &weight, s, groups, &mut dx);
            conv2d_grouped_weight_gradient(precision, &dy, &x, s, groups, &mut dw);
            assert_close(&format!("dx, {what}"), &dx, &by_x, 5e-5);
            // which entry of the dense weight each stands for
            let numbered: Vec<f64> = (1..=weight.len()).map(|i| i as f64).collect();
            let places = reference::ungrouped(&numbered, outputs, channels, groups);
            let mut expected = vec![0.0; weight.len()];
            for (place, gradient) in places.iter().zip(by_weight) {
                if *place > 0.0 {
                    expected[*place as usize - 1] = gradient;
                }
            }
            assert_close(&format!("dw, {what}"), &dw, &expected, 2e-4);
        }
    }
}
