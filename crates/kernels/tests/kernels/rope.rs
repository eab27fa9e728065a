//! Rotary embedding and gated activations.

use crate::support::{Random, assert_close, dot, numeric_gradient};
use vlm_kernels::reference::{self, widen};
use vlm_kernels::*;

const LAYOUTS: [RopeLayout; 2] = [RopeLayout::Halves, RopeLayout::Pairs];

#[test]
fn rope_turns_every_pair_of_both_layouts_by_its_angle() {
    let mut random = Random::new(61);
    for [batch, len, heads, head_dim, rotary_dim] in [
        [1, 1, 1, 2, 2],
        [2, 5, 3, 8, 8],
        [1, 17, 2, 64, 64],
        [3, 70, 4, 80, 32],
        [2, 3, 1, 7, 6],
        [2, 3, 2, 5, 0],
        [0, 3, 2, 8, 8],
    ] {
        let frequencies = inverse_frequencies(rotary_dim, 10_000.0);
        for shared in [false, true] {
            let tokens = if shared { len } else { batch * len };
            let positions: Vec<u32> = (0..tokens).map(|_| random.below(3000) as u32).collect();
            let rotation = Rotation::new(&positions, &frequencies);
            for layout in LAYOUTS {
                // The middle part of a joint projection: its neighbours must not change.
                let width = heads * head_dim;
                let x = random.floats(batch * len * 3 * width, 1.0);
                let mut expected = widen(&x);
                for row in 0..batch * len {
                    let position = f64::from(positions[row % tokens]);
                    let angles: Vec<f64> = frequencies
                        .iter()
                        .map(|&f| position * f64::from(f))
                        .collect();
                    for h in 0..heads {
                        let at = (row * 3 + 1) * width + h * head_dim;
                        let turned = reference::rope(&expected[at..][..head_dim], layout, &angles);
                        expected[at..][..head_dim].copy_from_slice(&turned);
                    }
                }
                let mut found = x.clone();
                let size = [batch, len, heads, head_dim];
                let part = HeadsMut::packed(&mut found, len, width, 3, 1);
                rope(part, size, layout, &rotation);
                let what = format!("{layout:?} {size:?}");
                assert_close(&what, &found, &expected, 1e-6);
                // The turn is orthogonal: its gradient turns back.
                let part = HeadsMut::packed(&mut found, len, width, 3, 1);
                rope_backward(part, size, layout, &rotation);
                assert_close(&what, &found, &widen(&x), 1e-6);
            }
        }
    }
}

#[test]
fn sections_follow_the_positions_of_their_axis() {
    let frequencies = inverse_frequencies(12, 100.0);
    let axes: [&[u32]; 3] = [&[4, 9], &[1, 7], &[2, 30]];
    let rotation = Rotation::sectioned(axes, [1, 2, 3], &frequencies);
    assert_eq!([rotation.tokens(), rotation.rotary_dim()], [2, 12]);
    let x: Vec<f32> = (0..24).map(|i| i as f32 / 10.0).collect();
    let mut found = x.clone();
    let heads = HeadsMut::contiguous(&mut found, 2, 12);
    rope(heads, [1, 2, 1, 12], RopeLayout::Halves, &rotation);
    for t in 0..2 {
        let angles: Vec<f64> = [0, 1, 1, 2, 2, 2]
            .iter()
            .zip(&frequencies)
            .map(|(&axis, &f): (&usize, _)| f64::from(axes[axis][t]) * f64::from(f))
            .collect();
        let expected = reference::rope(&widen(&x[12 * t..][..12]), RopeLayout::Halves, &angles);
        assert_close("sectioned", &found[12 * t..][..12], &expected, 1e-6);
    }
}

#[test]
fn scores_of_turned_heads_depend_on_the_distance_alone() {
    let mut random = Random::new(62);
    let (q, k) = (random.floats(64, 1.0), random.floats(64, 1.0));
    let frequencies = inverse_frequencies(64, 10_000.0);
    let score = |layout, at: [u32; 2]| -> f64 {
        let [q, k] = [(&q, at[0]), (&k, at[1])].map(|(x, position)| {
            let mut x = x.clone();
            let rotation = Rotation::new(&[position], &frequencies);
            rope(
                HeadsMut::contiguous(&mut x, 1, 64),
                [1, 1, 1, 64],
                layout,
                &rotation,
            );
            widen(&x)
        });
        dot(&q, &k)
    };
    for layout in LAYOUTS {
        let (near, far) = (score(layout, [5, 2]), score(layout, [1005, 1002]));
        assert!((near - far).abs() < 1e-4, "{near} {far}");
    }
}

#[test]
#[should_panic(expected = "rope: expected 2 x 3 or 3 positions, found 4")]
fn a_wrong_number_of_positions_is_named() {
    let rotation = Rotation::new(&[0, 1, 2, 3], &[1.0]);
    let mut x = [0.0; 12];
    let heads = HeadsMut::contiguous(&mut x, 3, 2);
    rope(heads, [2, 3, 1, 2], RopeLayout::Pairs, &rotation);
}

#[test]
fn gated_activations_and_their_gradients_match_the_definition() {
    let mut random = Random::new(63);
    for activation in [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::None,
    ] {
        for (m, width) in [(0, 3), (1, 1), (3, 17), (5, 64), (40, 700)] {
            let gate_up = random.floats(2 * m * width, 4.0);
            let mut out = vec![f32::NAN; m * width];
            gated(activation, &gate_up, width, &mut out);
            let by_definition = |x: &[f64]| -> Vec<f64> {
                let rows = x.chunks_exact(2 * width);
                let row = |x: &[f64]| -> Vec<f64> {
                    let value = |j| reference::activation(activation, x[j]) * x[width + j];
                    (0..width).map(value).collect()
                };
                rows.flat_map(row).collect()
            };
            let what = format!("{activation:?} {m}x{width}");
            assert_close(&what, &out, &by_definition(&widen(&gate_up)), 4e-6);
            let apart = |part: usize| -> Vec<f32> {
                let rows = gate_up.chunks_exact(2 * width);
                rows.flat_map(|row| &row[part * width..][..width])
                    .copied()
                    .collect()
            };
            let mut up = apart(1);
            gate_in_place(activation, &apart(0), &mut up);
            assert_eq!(up, out, "{what}: gate and up apart");
            if m * width > 200 {
                continue;
            }
            let dout = random.floats(m * width, 1.0);
            let mut d = vec![f32::NAN; 2 * m * width];
            gated_backward(activation, &gate_up, &dout, width, &mut d);
            let expected =
                numeric_gradient(&widen(&gate_up), |x| dot(&by_definition(x), &widen(&dout)));
            assert_close(&format!("{what} gradient"), &d, &expected, 1e-5);
        }
    }
}
