//! Attention and its gradients.

use crate::support::{Random, assert_close, dot, numeric_gradient};
use vlm_kernels::reference::{self, widen};
use vlm_kernels::*;

#[derive(Clone, Copy, Debug)]
enum MaskKind {
    None,
    Causal(usize),
    Additive { per_batch: bool, per_head: bool },
}

struct Case {
    shape: AttentionShape,
    kind: MaskKind,
    lengths: Option<Vec<u32>>,
    mask: Vec<f32>,
    strides: [usize; 2],
    scale: f32,
}

impl Case {
    fn new(
        random: &mut Random,
        [batch, q_len, k_len, heads, kv_heads, head_dim]: [usize; 6],
        kind: MaskKind,
        lengths: bool,
    ) -> Self {
        let shape = AttentionShape {
            batch,
            q_len,
            k_len,
            heads,
            kv_heads,
            head_dim,
        };
        let mut strides = [0, 0];
        let mut mask = Vec::new();
        if let MaskKind::Additive {
            per_batch,
            per_head,
        } = kind
        {
            let planes = if per_head { heads } else { 1 };
            strides = [
                if per_batch { planes * q_len * k_len } else { 0 },
                if per_head { q_len * k_len } else { 0 },
            ];
            mask = random.floats(
                if per_batch { batch } else { 1 } * planes * q_len * k_len,
                1.0,
            );
            for value in &mut mask {
                if random.below(4) == 0 {
                    *value = f32::NEG_INFINITY;
                }
            }
            // The first query sees nothing.
            mask[..k_len].fill(f32::NEG_INFINITY);
        }
        // Zero keys, some keys, and more than there are.
        let lengths = lengths.then(|| (0..batch).map(|_| random.below(k_len + 3) as u32).collect());
        Self {
            shape,
            kind,
            lengths,
            mask,
            strides,
            scale: 1.0 / (head_dim as f32).sqrt(),
        }
    }

    fn mask(&self) -> Mask<'_> {
        match self.kind {
            MaskKind::None => Mask::None,
            MaskKind::Causal(past) => Mask::Causal { past },
            MaskKind::Additive { .. } => Mask::Additive {
                values: &self.mask,
                batch_stride: self.strides[0],
                head_stride: self.strides[1],
            },
        }
    }

    fn added(&self) -> impl Fn(usize, usize, usize, usize) -> f64 {
        move |b, h, i, j| {
            let length = self.lengths.as_ref().map_or(usize::MAX, |l| l[b] as usize);
            let hidden = j >= length || matches!(self.kind, MaskKind::Causal(past) if j > i + past);
            if hidden {
                return f64::NEG_INFINITY;
            }
            match self.kind {
                MaskKind::Additive { .. } => {
                    let at = b * self.strides[0] + h * self.strides[1];
                    self.mask[at + i * self.shape.k_len + j].into()
                }
                _ => 0.0,
            }
        }
    }

    fn sizes(&self) -> [usize; 2] {
        let s = self.shape;
        [
            s.batch * s.q_len * s.heads * s.head_dim,
            s.batch * s.k_len * s.kv_heads * s.head_dim,
        ]
    }
}

/// Kinds of mask, block and vector remainders, grouped heads, one query, long sequences.
fn cases(random: &mut Random) -> Vec<Case> {
    let additive = |per_batch, per_head| MaskKind::Additive {
        per_batch,
        per_head,
    };
    let mut cases = Vec::new();
    for (sizes, kinds) in [
        (
            [1, 1, 1, 1, 1, 1],
            vec![MaskKind::None, MaskKind::Causal(0)],
        ),
        (
            [2, 3, 5, 2, 1, 3],
            vec![MaskKind::None, additive(true, true)],
        ),
        (
            [2, 5, 5, 3, 3, 8],
            vec![MaskKind::Causal(0), additive(false, true)],
        ),
        (
            [3, 17, 33, 4, 2, 16],
            vec![MaskKind::None, additive(true, false)],
        ),
        (
            [2, 16, 16, 6, 6, 32],
            vec![MaskKind::None, MaskKind::Causal(0)],
        ),
        (
            [1, 40, 47, 2, 2, 20],
            vec![MaskKind::Causal(7), additive(false, false)],
        ),
        (
            [2, 70, 70, 2, 1, 24],
            vec![MaskKind::Causal(0), MaskKind::None],
        ),
        (
            [1, 197, 197, 2, 2, 32],
            vec![MaskKind::None, MaskKind::Causal(0)],
        ),
        ([1, 300, 20, 1, 1, 64], vec![MaskKind::None]),
        (
            [2, 1, 37, 6, 3, 32],
            vec![MaskKind::None, MaskKind::Causal(36)],
        ),
        ([1, 2, 9, 2, 2, 40], vec![MaskKind::Causal(7)]),
        // Several blocks of keys, forward (384) and backward (1024).
        (
            [2, 33, 600, 2, 1, 16],
            vec![MaskKind::None, additive(true, true)],
        ),
        (
            [1, 45, 1101, 2, 1, 8],
            vec![MaskKind::Causal(1056), additive(false, false)],
        ),
        ([1, 1030, 1030, 1, 1, 4], vec![MaskKind::Causal(0)]),
        ([1, 3, 2048, 2, 2, 20], vec![MaskKind::None]),
        // Few queries, several parts of keys.
        (
            [2, 1, 700, 6, 2, 20],
            vec![
                MaskKind::None,
                MaskKind::Causal(699),
                additive(true, true),
                additive(false, false),
            ],
        ),
        (
            [2, 3, 530, 7, 1, 33],
            vec![MaskKind::Causal(527), additive(true, true)],
        ),
        // Large enough for bfloat16 to be used.
        (
            [2, 97, 131, 2, 1, 50],
            vec![MaskKind::None, MaskKind::Causal(34), additive(true, false)],
        ),
        ([1, 100, 1101, 1, 1, 64], vec![MaskKind::Causal(1001)]),
    ] {
        for kind in kinds {
            for lengths in [false, true] {
                cases.push(Case::new(random, sizes, kind, lengths));
            }
        }
    }
    cases
}

/// Output and logarithms of sums of exponentials.
fn run(precision: Precision, case: &Case, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let s = case.shape;
    let (width, kv_width) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
    let mut out = vec![f32::NAN; q.len()];
    let mut log_sum_exp = vec![f32::NAN; s.batch * s.heads * s.q_len];
    attention_saving(
        precision,
        s,
        HeadsRef::contiguous(q, s.q_len, width),
        HeadsRef::contiguous(k, s.k_len, kv_width),
        HeadsRef::contiguous(v, s.k_len, kv_width),
        case.mask(),
        case.lengths.as_deref(),
        case.scale,
        HeadsMut::contiguous(&mut out, s.q_len, width),
        &mut log_sum_exp,
    );
    (out, log_sum_exp)
}

/// `f32` tolerance, or that of operands rounded to 8 bits where the processor multiplies such.
fn tolerance(precision: Precision, f32: f64) -> f64 {
    if precision == Precision::Bf16 && cpu_features::has_avx512_bf16() {
        3e-2
    } else {
        f32
    }
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Scaled and masked scores of every `(batch, head, query)`.
fn scores(case: &Case, q: &[f32], k: &[f32]) -> Vec<Vec<f64>> {
    let (s, added) = (case.shape, case.added());
    let group = s.heads / s.kv_heads;
    let mut rows = Vec::new();
    for at in 0..s.batch * s.heads * s.q_len {
        let (b, h, i) = (at / s.q_len / s.heads, at / s.q_len % s.heads, at % s.q_len);
        let q = &q[((b * s.q_len + i) * s.heads + h) * s.head_dim..][..s.head_dim];
        let row = (0..s.k_len).map(|j| {
            let k = &k[((b * s.k_len + j) * s.kv_heads + h / group) * s.head_dim..];
            let dot: f64 = q
                .iter()
                .zip(k)
                .map(|(&q, &k)| f64::from(q) * f64::from(k))
                .sum();
            dot * f64::from(case.scale) + added(b, h, i, j)
        });
        rows.push(row.collect());
    }
    rows
}

#[test]
fn attention_under_every_mask_matches_the_reference() {
    let mut random = Random::new(31);
    for case in cases(&mut random) {
        let [q_size, kv_size] = case.sizes();
        let (q, k, v) = (
            random.floats(q_size, 2.0),
            random.floats(kv_size, 2.0),
            random.floats(kv_size, 1.0),
        );
        let expected = reference::attention(
            case.shape,
            &widen(&q),
            &widen(&k),
            &widen(&v),
            &case.added(),
            case.scale.into(),
        );
        let what = format!("{:?} {:?} {:?}", case.shape, case.kind, case.lengths);
        for precision in PRECISIONS {
            let (out, log_sum_exp) = run(precision, &case, &q, &k, &v);
            let tolerance = tolerance(precision, 3e-6);
            assert_close(&format!("{precision:?} {what}"), &out, &expected, tolerance);
            for (at, (found, row)) in log_sum_exp.iter().zip(scores(&case, &q, &k)).enumerate() {
                let sum: f64 = row.into_iter().map(f64::exp).sum();
                if sum == 0.0 {
                    assert_eq!(*found, f32::INFINITY, "{what}");
                } else {
                    let what = format!("log-sum-exp {at} {precision:?} {what}");
                    assert_close(&what, &[*found], &[sum.ln()], tolerance);
                }
            }
        }
    }
}

#[test]
fn attention_gradients_under_every_mask_match_the_reference() {
    let mut random = Random::new(32);
    for case in cases(&mut random) {
        let s = case.shape;
        let [q_size, kv_size] = case.sizes();
        let (q, k, v, dout) = (
            random.floats(q_size, 2.0),
            random.floats(kv_size, 2.0),
            random.floats(kv_size, 1.0),
            random.floats(q_size, 1.0),
        );
        let (width, kv_width) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        let expected = reference::attention_backward(
            s,
            &widen(&dout),
            &widen(&q),
            &widen(&k),
            &widen(&v),
            &case.added(),
            case.scale.into(),
        );
        for (precision, is_saved) in [
            (Precision::F32, false),
            (Precision::F32, true),
            (Precision::Bf16, false),
            (Precision::Bf16, true),
        ] {
            let (out, log_sum_exp) = run(precision, &case, &q, &k, &v);
            let saved = Saved {
                out: HeadsRef::contiguous(&out, s.q_len, width),
                log_sum_exp: &log_sum_exp,
            };
            let [mut dq, mut dk, mut dv] =
                [q_size, kv_size, kv_size].map(|len| vec![f32::NAN; len]);
            attention_backward(
                precision,
                s,
                HeadsRef::contiguous(&dout, s.q_len, width),
                HeadsRef::contiguous(&q, s.q_len, width),
                HeadsRef::contiguous(&k, s.k_len, kv_width),
                HeadsRef::contiguous(&v, s.k_len, kv_width),
                case.mask(),
                case.lengths.as_deref(),
                case.scale,
                is_saved.then_some(saved),
                HeadsMut::contiguous(&mut dq, s.q_len, width),
                HeadsMut::contiguous(&mut dk, s.k_len, kv_width),
                HeadsMut::contiguous(&mut dv, s.k_len, kv_width),
            );
            let what = format!("{precision:?} {s:?} {:?} {:?}", case.kind, case.lengths);
            let tolerance = tolerance(precision, 1e-5);
            for (name, found, expected) in [
                ("dq", dq, &expected[0]),
                ("dk", dk, &expected[1]),
                ("dv", dv, &expected[2]),
            ] {
                assert_close(&format!("{name} {what}"), &found, expected, tolerance);
            }
        }
    }
}

#[test]
fn the_reference_gradients_match_finite_differences() {
    let mut random = Random::new(33);
    for kind in [MaskKind::Causal(1), MaskKind::None] {
        let case = Case::new(&mut random, [2, 3, 4, 4, 2, 3], kind, false);
        let s = case.shape;
        let [q_size, kv_size] = case.sizes();
        let [q, k, v, dout] =
            [q_size, kv_size, kv_size, q_size].map(|len| widen(&random.floats(len, 1.0)));
        let added = case.added();
        let loss = |q: &[f64], k: &[f64], v: &[f64]| {
            dot(&reference::attention(s, q, k, v, &added, 0.7), &dout)
        };
        let found = reference::attention_backward(s, &dout, &q, &k, &v, &added, 0.7);
        let numeric = [
            numeric_gradient(&q, |q| loss(q, &k, &v)),
            numeric_gradient(&k, |k| loss(&q, k, &v)),
            numeric_gradient(&v, |v| loss(&q, &k, v)),
        ];
        for (found, numeric) in found.iter().zip(&numeric) {
            for (found, numeric) in found.iter().zip(numeric) {
                assert!((found - numeric).abs() < 1e-8, "{found} {numeric}");
            }
        }
    }
}

/// Copies `[batch, len, width]` into part `part` of `[batch, len, parts, width]`.
fn pack(part_data: &[f32], width: usize, parts: usize, part: usize, packed: &mut [f32]) {
    for (row, data) in part_data.chunks_exact(width).enumerate() {
        packed[(row * parts + part) * width..][..width].copy_from_slice(data);
    }
}

#[test]
fn packed_projections_give_the_same_as_separate_ones() {
    let mut random = Random::new(34);
    let case = Case::new(
        &mut random,
        [3, 21, 21, 4, 4, 16],
        MaskKind::Causal(0),
        true,
    );
    let s = case.shape;
    let width = s.heads * s.head_dim;
    let size = case.sizes()[0];
    let parts: Vec<Vec<f32>> = (0..3).map(|_| random.floats(size, 1.0)).collect();
    let dout = random.floats(size, 1.0);
    let plain = |data| HeadsRef::contiguous(data, s.q_len, width);
    let lengths = case.lengths.as_deref();

    let mut qkv = vec![0.0; 3 * size];
    for (part, data) in parts.iter().enumerate() {
        pack(data, width, 3, part, &mut qkv);
    }
    let mut kv = vec![0.0; 2 * size];
    pack(&parts[1], width, 2, 0, &mut kv);
    pack(&parts[2], width, 2, 1, &mut kv);

    let (expected, _) = run(Precision::F32, &case, &parts[0], &parts[1], &parts[2]);
    let mut out = vec![f32::NAN; size];
    let view = |part| HeadsRef::packed(&qkv, s.q_len, width, 3, part);
    attention(
        Precision::F32,
        s,
        view(0),
        view(1),
        view(2),
        case.mask(),
        lengths,
        case.scale,
        HeadsMut::contiguous(&mut out, s.q_len, width),
    );
    assert_eq!(out, expected);

    let mut gradients: Vec<Vec<f32>> = (0..3).map(|_| vec![f32::NAN; size]).collect();
    let [dq, dk, dv] = &mut gradients[..] else {
        unreachable!("there are three")
    };
    attention_backward(
        Precision::F32,
        s,
        plain(&dout),
        plain(&parts[0]),
        plain(&parts[1]),
        plain(&parts[2]),
        case.mask(),
        lengths,
        case.scale,
        None,
        HeadsMut::contiguous(dq, s.q_len, width),
        HeadsMut::contiguous(dk, s.q_len, width),
        HeadsMut::contiguous(dv, s.q_len, width),
    );
    let mut expected = vec![f32::NAN; 3 * size];
    for (part, gradient) in gradients.iter().enumerate() {
        pack(gradient, width, 3, part, &mut expected);
    }
    let mut dqkv = vec![f32::NAN; 3 * size];
    attention_backward_packed(
        Precision::F32,
        s,
        plain(&dout),
        &qkv,
        case.mask(),
        lengths,
        case.scale,
        None,
        &mut dqkv,
    );
    assert_eq!(dqkv, expected);

    let mut expected = vec![f32::NAN; 2 * size];
    pack(&gradients[1], width, 2, 0, &mut expected);
    pack(&gradients[2], width, 2, 1, &mut expected);
    let (mut dq, mut dkv) = (vec![f32::NAN; size], vec![f32::NAN; 2 * size]);
    attention_backward_packed_kv(
        Precision::F32,
        s,
        plain(&dout),
        plain(&parts[0]),
        &kv,
        case.mask(),
        lengths,
        case.scale,
        None,
        HeadsMut::contiguous(&mut dq, s.q_len, width),
        &mut dkv,
    );
    assert_eq!(dq, gradients[0]);
    assert_eq!(dkv, expected);
}

/// `[batch, len, heads, head_dim]` as `[batch, heads, room, head_dim]`.
fn by_head(x: &[f32], s: AttentionShape, room: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; s.batch * s.kv_heads * room * s.head_dim];
    for (i, row) in x.chunks_exact(s.head_dim).enumerate() {
        let (b, t, h) = (
            i / s.kv_heads / s.k_len,
            i / s.kv_heads % s.k_len,
            i % s.kv_heads,
        );
        let at = (b * s.kv_heads + h) * room + t;
        out[at * s.head_dim..][..s.head_dim].copy_from_slice(row);
    }
    out
}

#[test]
fn halves_and_heads_in_other_places_give_the_same_bits() {
    let mut random = Random::new(36);
    for case in cases(&mut random) {
        let s = case.shape;
        let [q_size, kv_size] = case.sizes();
        let q = random.floats(q_size, 2.0);
        let room = s.k_len + 3;
        let mut halves = [vec![], vec![]];
        let mut floats = [random.floats(kv_size, 2.0), random.floats(kv_size, 1.0)];
        for (floats, halves) in floats.iter_mut().zip(&mut halves) {
            *halves = vec![f16::NAN; kv_size];
            f16::round(floats, halves);
            *floats = halves.iter().map(|x| x.to_f32()).collect();
            // what lies between the heads must not be read
            *halves = by_head(floats, s, room)
                .into_iter()
                .map(f16::from_f32)
                .collect();
        }
        let heads = |data| HeadsRef::by_head(data, s.kv_heads, room, s.head_dim);
        let width = s.heads * s.head_dim;
        for precision in PRECISIONS {
            let (expected, _) = run(precision, &case, &q, &floats[0], &floats[1]);
            let mut out = vec![f32::NAN; q.len()];
            attention(
                precision,
                s,
                HeadsRef::contiguous(&q, s.q_len, width),
                heads(&halves[0][..]),
                heads(&halves[1][..]),
                case.mask(),
                case.lengths.as_deref(),
                case.scale,
                HeadsMut::contiguous(&mut out, s.q_len, width),
            );
            assert_eq!(out, expected, "{precision:?} {s:?} {:?}", case.kind);
        }
    }
}

#[test]
fn halves_are_the_nearest_ones_and_finite() {
    let mut random = Random::new(37);
    for len in [0, 1, 7, 16, 33] {
        let mut x = random.floats(len, 1e-6);
        x.extend(random.floats(len, 1.0));
        x.extend([
            0.0,
            -0.0,
            1.0 + f32::EPSILON,
            65_504.0,
            -65_519.0,
            1e-8,
            f32::MIN_POSITIVE,
        ]);
        // ties
        x.extend([
            1.0 + 1.0 / 2048.0,
            1.0 + 3.0 / 2048.0,
            1.5 / (1 << 24) as f32,
        ]);
        let expected: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
        let mut halves = vec![f16::NAN; x.len()];
        f16::round(&x, &mut halves);
        let bits = |x: &[f16]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&halves), bits(&expected));
        // what was rounded stays as it is
        let floats: Vec<f32> = halves.iter().map(|x| x.to_f32()).collect();
        f16::round(&floats, &mut halves);
        assert_eq!(bits(&halves), bits(&expected));
    }
    let x = [65_520.0, -1e30, f32::INFINITY, f32::NAN];
    let mut halves = [f16::ZERO; 4];
    f16::round(&x, &mut halves);
    assert_eq!(halves[..3], [f16::MAX, f16::MIN, f16::MAX]);
    assert!(halves[3].is_nan());
}

#[test]
fn empty_extents_give_zeros_or_nothing() {
    let shape = AttentionShape {
        batch: 1,
        q_len: 2,
        k_len: 0,
        heads: 1,
        kv_heads: 1,
        head_dim: 3,
    };
    let q = [1.0; 6];
    let mut out = [f32::NAN; 6];
    let empty = HeadsRef::contiguous(&[], 0, 3);
    let full = HeadsRef::contiguous(&q, 2, 3);
    let heads = HeadsMut::contiguous(&mut out, 2, 3);
    attention(
        Precision::F32,
        shape,
        full,
        empty,
        empty,
        Mask::None,
        None,
        1.0,
        heads,
    );
    assert_eq!(out, [0.0; 6]);
    let none = AttentionShape { batch: 0, ..shape };
    let heads = HeadsMut::contiguous(&mut [], 2, 3);
    attention(
        Precision::F32,
        none,
        empty,
        empty,
        empty,
        Mask::None,
        None,
        1.0,
        heads,
    );
}

#[test]
#[should_panic(expected = "k [2, 5, 8] at 0 with strides 40, 8 does not fit 79 elements")]
fn a_buffer_that_is_too_short_is_named() {
    let shape = AttentionShape {
        batch: 2,
        q_len: 1,
        k_len: 5,
        heads: 2,
        kv_heads: 2,
        head_dim: 4,
    };
    let (q, k) = ([0.0; 16], [0.0; 79]);
    let q = HeadsRef::contiguous(&q, 1, 8);
    let k = HeadsRef::contiguous(&k, 5, 8);
    let mut out = [0.0; 16];
    let out = HeadsMut::contiguous(&mut out, 1, 8);
    attention(Precision::F32, shape, q, k, k, Mask::None, None, 1.0, out);
}

#[test]
fn nan_in_a_query_reaches_every_output_of_its_head() {
    for (q_len, k_len) in [(5, 1), (5, 3), (5, 16), (5, 40), (1, 1), (2, 40), (3, 600)] {
        let shape = AttentionShape {
            batch: 1,
            q_len,
            k_len,
            heads: 1,
            kv_heads: 1,
            head_dim: 4,
        };
        let (q, kv) = (vec![f32::NAN; 4 * q_len], vec![1.0; 4 * k_len]);
        let mut out = vec![0.0; 4 * q_len];
        let kv = HeadsRef::contiguous(&kv, k_len, 4);
        attention(
            Precision::F32,
            shape,
            HeadsRef::contiguous(&q, q_len, 4),
            kv,
            kv,
            Mask::Causal { past: 0 },
            None,
            0.5,
            HeadsMut::contiguous(&mut out, q_len, 4),
        );
        assert!(out.iter().all(|x| x.is_nan()), "{k_len} keys: {out:?}");
    }
}
