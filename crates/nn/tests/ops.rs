//! Every fused operation against the same one composed of Burn's operations: values and all gradients.

use burn::tensor::{Device, Int, Tensor};
use std::cell::RefCell;
use std::sync::Arc;
use vlm_nn::ops::{
    self, Activation, AttentionOptions, MlpLayer, PackedWeight, Roi, RoiAlignShape, RopeLayout,
    RopeOptions, Rotation, Window, composed, inverse_frequencies,
};
use vlm_nn::random::SplitMix64;

fn device() -> Device {
    Device::flex().autodiff()
}

thread_local! {
    /// The same numbers in every run: each test has a thread of its own.
    static RANDOM: RefCell<SplitMix64> = RefCell::new(SplitMix64::new(0));
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    random_on(&device(), shape)
}

fn random_on<const D: usize>(device: &Device, shape: [usize; D]) -> Tensor<D> {
    RANDOM.with_borrow_mut(|random| random.normal_tensor(shape, device))
}

fn leaf<const D: usize>(t: &Tensor<D>) -> Tensor<D> {
    t.clone().detach().require_grad()
}

/// Largest difference relative to the largest reference value.
fn distance<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    let scale = b.clone().abs().max().into_scalar::<f32>().max(1e-6);
    (a - b).abs().max().into_scalar::<f32>() / scale
}

/// f32 sums in another order.
const TOLERANCE: f32 = 2e-5;

fn same<const D: usize>(what: &str, fused: Tensor<D>, reference: Tensor<D>) {
    assert_eq!(fused.dims(), reference.dims(), "{what}");
    let d = distance(fused, reference);
    assert!(d < TOLERANCE, "{what}: differs by {d:e}");
}

/// Compares outputs and the gradients of the inputs under a random cotangent.
macro_rules! compare {
    ($what:expr, [$($x:ident),+], $fused:expr, $reference:expr) => {{
        let what: String = $what.to_string();
        let run = |cotangent: Option<Tensor<_>>, which: bool| {
            let ($($x,)+) = ($(leaf(&$x),)+);
            let leaves = ($($x.clone(),)+);
            let y = if which { $fused } else { $reference };
            let cotangent = cotangent.unwrap_or_else(|| random(y.dims()));
            let grads = (y.clone() * cotangent.clone()).sum().backward();
            let ($($x,)+) = leaves;
            let grads = [$($x.grad(&grads).map(|g| g.flatten::<1>(0, $x.dims().len() - 1))),+];
            (y.detach(), cotangent, grads)
        };
        let (fused, cotangent, fused_grads) = run(None, true);
        let (reference, _, grads) = run(Some(cotangent), false);
        same(&what, fused, reference);
        let names = [$(stringify!($x)),+];
        for ((fused, reference), name) in fused_grads.into_iter().zip(grads).zip(names) {
            let fused = fused.unwrap_or_else(|| panic!("{what}: no gradient of {name}"));
            let reference = reference.expect("reference gradient");
            same(&format!("{what}: gradient of {name}"), fused, reference);
        }
    }};
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::None,
    Activation::Relu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Silu,
];

#[test]
fn linear_equals_composed_with_all_gradients() {
    for activation in ACTIVATIONS {
        for (b, t, k, n) in [
            (2, 7, 12, 9),
            (1, 1, 33, 65),
            (3, 17, 64, 48),
            (2, 65, 100, 3),
        ] {
            let (x, w) = (random([b, t, k]), random([n, k]));
            let (bias, residual) = (random([n]), random([b, t, n]));
            compare!(
                format!("linear {activation:?} {b}x{t}x{k} to {n}"),
                [x, w, bias, residual],
                ops::linear(x, w, Some(bias), Some(residual), activation),
                composed::linear(x, w, Some(bias), Some(residual), activation)
            );
        }
    }
}

#[test]
fn linear_without_bias_and_residual_equals_composed() {
    let (x, w) = (random([2, 5, 8]), random([6, 8]));
    compare!(
        "bare linear",
        [x, w],
        ops::linear(x, w, None, None, Activation::None),
        composed::linear(x, w, None, None, Activation::None)
    );
}

#[test]
fn a_kept_packed_weight_follows_every_change_of_the_weight() {
    let device = Device::flex();
    let random = |shape: [usize; 2]| random_on(&device, shape);
    let (kept, x) = (PackedWeight::default(), random([20, 33]));
    let mut w = random([33, 33]);
    let check = |what: &str, w: &Tensor<2>| {
        let none = Activation::None;
        let found = ops::linear_kept(x.clone(), w.clone(), &kept, None, None, none);
        let expected = ops::linear(x.clone(), w.clone(), None, None, none);
        assert_eq!(found.into_data(), expected.into_data(), "{what}");
    };
    check("first", &w);
    check("again", &w);
    for step in 1..=3 {
        // The only tensor of its storage: the optimizer writes in place.
        let zeros = w.zeros_like();
        let hp = ops::AdamWStep {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.1,
            step,
        };
        (w, _, _) = ops::adamw(w, random([33, 33]), zeros.clone(), zeros, hp);
        check("after a step of the optimizer", &w);
        w = w * 2.0;
        check("after arithmetic in place", &w);
    }
    // The same storage read in another order.
    check("transposed", &w.clone().transpose());
    check("as before", &w);
    // Dropped and made anew, likely at the same address.
    for _ in 0..5 {
        drop(w);
        w = random([33, 33]);
        check("replaced", &w);
    }
}

#[test]
fn a_kept_weight_has_the_gradients_of_any_other() {
    let kept = PackedWeight::default();
    let (x, w) = (random([2, 17, 8]), random([6, 8]));
    for _ in 0..2 {
        compare!(
            "kept linear",
            [x, w],
            ops::linear_kept(x, w, &kept, None, None, Activation::Gelu),
            composed::linear(x, w, None, None, Activation::Gelu)
        );
    }
}

/// An MLP of 20 inputs, 33 between and 12 outputs.
struct MlpWeights {
    w: [Tensor<2>; 2],
    bias: [Tensor<1>; 2],
    packed: [PackedWeight; 2],
}

impl MlpWeights {
    fn random() -> Self {
        Self {
            w: [random([33, 20]), random([12, 33])],
            bias: [random([33]), random([12])],
            packed: Default::default(),
        }
    }

    fn mlp(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let layer = |i: usize, activation| MlpLayer {
            weight: self.w[i].clone(),
            packed: &self.packed[i],
            bias: Some(self.bias[i].clone()),
            activation,
        };
        let layers = [layer(0, Activation::Gelu), layer(1, Activation::None)];
        ops::mlp(x, layers, Some(residual))
    }

    fn composed(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let ([w1, w2], [b1, b2]) = (self.w.clone(), self.bias.clone());
        let hidden = composed::linear(x, w1, Some(b1), None, Activation::Gelu);
        composed::linear(hidden, w2, Some(b2), Some(residual), Activation::None)
    }
}

#[test]
fn an_mlp_equals_composed_with_all_gradients() {
    let MlpWeights { w, bias, .. } = MlpWeights::random();
    let ([w1, w2], [b1, b2]) = (w, bias);
    let with = |w1, w2, b1, b2| MlpWeights {
        w: [w1, w2],
        bias: [b1, b2],
        packed: Default::default(),
    };
    // So many rows that what is between the layers would stay in the caches, and few.
    for (b, t) in [(9, 131), (2, 5)] {
        let (x, residual) = (random([b, t, 20]), random([b, t, 12]));
        compare!(
            format!("mlp {b}x{t}"),
            [x, w1, b1, w2, b2, residual],
            with(w1, w2, b1, b2).mlp(x, residual),
            with(w1, w2, b1, b2).composed(x, residual)
        );
    }
}

/// Each operand alone makes the operation one that is recorded.
#[test]
fn an_mlp_has_each_gradient_by_itself() {
    let (b, t) = (9, 131);
    let (x, residual) = (random([b, t, 20]), random([b, t, 12]));
    let MlpWeights { w, bias, .. } = MlpWeights::random();
    let cotangent = random([b, t, 12]);
    for asked in 0..6 {
        let gradient = |fused: bool| {
            fn own<const D: usize>(t: &Tensor<D>, asked: bool) -> Tensor<D> {
                if asked { leaf(t) } else { t.clone() }
            }
            let (x, residual) = (own(&x, asked == 0), own(&residual, asked == 5));
            let weights = MlpWeights {
                w: [own(&w[0], asked == 1), own(&w[1], asked == 2)],
                bias: [own(&bias[0], asked == 3), own(&bias[1], asked == 4)],
                packed: Default::default(),
            };
            let y = match fused {
                true => weights.mlp(x.clone(), residual.clone()),
                false => weights.composed(x.clone(), residual.clone()),
            };
            let grads = (y * cotangent.clone()).sum().backward();
            let flat = match asked {
                0 => x.grad(&grads).map(|g| g.flatten::<1>(0, 2)),
                5 => residual.grad(&grads).map(|g| g.flatten::<1>(0, 2)),
                1 | 2 => weights.w[asked - 1].grad(&grads).map(|g| g.flatten(0, 1)),
                _ => weights.bias[asked - 3].grad(&grads),
            };
            flat.unwrap_or_else(|| panic!("no gradient of operand {asked}"))
        };
        same(&format!("operand {asked}"), gradient(true), gradient(false));
    }
}

#[test]
fn inference_of_an_mlp_equals_its_layers() {
    let weights = MlpWeights::random();
    let (packed, activations) = (&weights.packed, [Activation::Gelu, Activation::None]);
    for (b, t) in [(9, 131), (2, 5), (1, 1), (0, 4)] {
        let (x, residual) = (random([b, t, 20]), random([b, t, 12]));
        let layer = |i: usize, x: Tensor<3>, residual| {
            let (w, bias) = (weights.w[i].clone(), Some(weights.bias[i].clone()));
            ops::linear_kept(x, w, &packed[i], bias, residual, activations[i])
        };
        let expected = layer(1, layer(0, x.clone(), None), Some(residual.clone()));
        let found = weights.mlp(x, residual);
        let numbers = |t: Tensor<3>| t.into_data().try_into_vec::<f32>().expect("floats");
        assert_eq!(numbers(found), numbers(expected), "{b}x{t}");
    }
}

#[test]
fn layer_norm_equals_composed_with_all_gradients() {
    for width in [5, 32, 100, 192] {
        let (x, gamma, beta) = (random([3, 11, width]), random([width]), random([width]));
        compare!(
            format!("layer norm {width}"),
            [x, gamma, beta],
            ops::layer_norm(x, gamma, beta, 1e-5),
            composed::layer_norm(x, gamma, beta, 1e-5)
        );
    }
}

#[test]
fn batch_norm_equals_composed_with_all_gradients() {
    for (rows, width) in [(2, 5), (37, 32), (3000, 12)] {
        let (x, gamma, beta) = (random([rows, width]), random([width]), random([width]));
        for relu in [false, true] {
            let what = format!("batch norm {rows} x {width}, {relu}");
            let [fused, reference] = [ops::batch_norm, composed::batch_norm]
                .map(|norm| norm(x.clone(), gamma.clone(), beta.clone(), 1e-3, relu));
            same(&format!("{what}: mean"), fused.1, reference.1);
            same(&format!("{what}: variance"), fused.2, reference.2);
            compare!(
                what,
                [x, gamma, beta],
                ops::batch_norm(x, gamma, beta, 1e-3, relu).0,
                composed::batch_norm(x, gamma, beta, 1e-3, relu).0
            );
        }
    }
}

fn options(heads: usize, causal: bool, past: usize, lengths: Option<&[u32]>) -> AttentionOptions {
    AttentionOptions {
        heads,
        causal,
        past,
        scale: 0.3,
        key_lengths: lengths.map(Into::into),
        key_mask: None,
    }
}

#[test]
fn self_attention_equals_composed_with_all_gradients() {
    for (t, heads, width, causal) in [
        (1, 1, 4, true),
        (9, 2, 10, true),
        (50, 3, 96, false),
        (70, 2, 64, true),
    ] {
        for lengths in [None, Some(&[1u32, 1][..])] {
            let qkv = random([2, t, 3 * width]);
            let o = options(heads, causal, 0, lengths);
            compare!(
                format!("self-attention {t} {heads} {width} {causal}"),
                [qkv],
                ops::self_attention(qkv, o.clone()),
                composed::self_attention(qkv, o.clone())
            );
        }
    }
}

#[test]
fn cross_attention_equals_composed_with_all_gradients() {
    for (tq, tk, heads, width) in [(1, 5, 1, 3), (7, 64, 2, 32), (40, 9, 6, 48)] {
        for lengths in [None, Some(&[3u32, 5][..])] {
            let (q, kv) = (random([2, tq, width]), random([2, tk, 2 * width]));
            let o = options(heads, false, 0, lengths);
            compare!(
                format!("cross-attention {tq} {tk} {heads} {width}"),
                [q, kv],
                ops::cross_attention(q, kv, o.clone()),
                composed::cross_attention(q, kv, o.clone())
            );
        }
    }
}

#[test]
fn causal_attention_over_a_cache_equals_composed() {
    let (q, kv) = (random([2, 3, 8]), random([2, 10, 16]));
    let o = options(2, true, 7, None);
    compare!(
        "cached attention",
        [q, kv],
        ops::cross_attention(q, kv, o.clone()),
        composed::cross_attention(q, kv, o.clone())
    );
}

#[test]
fn attention_with_hidden_keys_equals_composed_with_all_gradients() {
    // padding in front of one row, between and behind in the other; every query sees a key
    let seen = |first: &[usize], second: &[usize], k: usize| {
        let row = |shown: &[usize]| (0..k).map(|i| shown.contains(&i)).collect::<Vec<_>>();
        Some([row(first), row(second)].concat().into())
    };
    for (causal, past) in [(false, 0), (true, 3)] {
        let (q, kv) = (random([2, 4, 12]), random([2, 7, 24]));
        let mut o = options(3, causal, past, None);
        o.key_mask = seen(&[2, 3, 4, 5, 6], &[0, 1, 3], 7);
        compare!(
            format!("hidden keys, causal {causal}"),
            [q, kv],
            ops::cross_attention(q, kv, o.clone()),
            composed::cross_attention(q, kv, o.clone())
        );
    }
    // each query another view: a prefix that all see, and what comes before it
    let (q, kv) = (random([2, 4, 12]), random([2, 7, 24]));
    let mut o = options(3, false, 0, None);
    let pairs = (0..2 * 4 * 7).map(|i| i % 7 < 2 + i / 28 || i % 7 == 3 + i / 7 % 4);
    o.key_mask = Some(pairs.collect::<Vec<_>>().into());
    compare!(
        "hidden pairs",
        [q, kv],
        ops::cross_attention(q, kv, o.clone()),
        composed::cross_attention(q, kv, o.clone())
    );
    let qkv = random([2, 5, 24]);
    let mut o = options(2, false, 0, None);
    o.key_mask = seen(&[1, 2], &[0, 4], 5);
    compare!(
        "hidden keys in self-attention",
        [qkv],
        ops::self_attention(qkv, o.clone()),
        composed::self_attention(qkv, o.clone())
    );
}

#[test]
fn cross_entropy_equals_composed_and_ignores_negative_targets() {
    let targets = Tensor::<1, Int>::from_ints([3, -1, 0, 6, -1, 2], &device());
    for smoothing in [0.0, 0.1] {
        let logits = random([6, 7]);
        compare!(
            format!("cross-entropy, smoothing {smoothing}"),
            [logits],
            ops::cross_entropy(logits, targets.clone(), smoothing),
            composed::cross_entropy(logits, targets.clone(), smoothing)
        );
    }
}

#[test]
fn embedding_equals_composed_with_repeated_ids() {
    let ids = Tensor::<2, Int>::from_ints([[0, 4, 4], [2, 0, 4]], &device());
    let table = random([5, 9]);
    compare!(
        "embedding",
        [table],
        ops::embedding(table, ids.clone()),
        composed::embedding(table, ids.clone())
    );
}

#[test]
fn unfold_and_patchify_equal_composed() {
    for (h, w, kernel, stride, padding) in [
        (8, 8, [3, 3], [2, 2], [1, 1]),
        (7, 9, [3, 3], [2, 2], [1, 1]),
        (6, 5, [1, 1], [1, 1], [0, 0]),
        (9, 12, [5, 3], [2, 3], [2, 0]),
    ] {
        let x = random([2, h, w, 3]);
        let window = Window {
            kernel,
            stride,
            padding,
        };
        compare!(
            format!("unfold {window:?}"),
            [x],
            ops::unfold(x, window),
            composed::unfold(x, window)
        );
    }
    let x = random([2, 3, 8, 12]);
    compare!(
        "patchify",
        [x],
        ops::patchify(x, 4),
        composed::patchify(x, 4)
    );
}

#[test]
fn rms_norm_equals_composed_with_all_gradients() {
    for width in [5, 32, 100, 192] {
        let (x, gamma) = (random([3, 11, width]), random([width]));
        compare!(
            format!("RMS norm {width}"),
            [x, gamma],
            ops::rms_norm(x, gamma, 1e-5),
            composed::rms_norm(x, gamma, 1e-5)
        );
    }
}

#[test]
fn rope_equals_composed_with_its_gradient() {
    for layout in [RopeLayout::Halves, RopeLayout::Pairs] {
        // all of a head or its first elements; positions of each sequence or of all
        for (heads, head, turned, own) in [(1, 2, 2, false), (3, 16, 16, true), (2, 12, 8, true)] {
            let (b, t) = (2, 7);
            let count = if own { b * t } else { t };
            let positions: Vec<u32> = (0..count as u32).map(|i| i * 5 % 31).collect();
            let rotation = Rotation::new(&positions, &inverse_frequencies(turned, 1e4));
            let o = RopeOptions {
                heads,
                layout,
                rotation: Arc::new(rotation),
            };
            let x = random([b, t, heads * head]);
            compare!(
                format!("rope {layout:?} {heads} x {head}, {turned} turned"),
                [x],
                ops::rope(x, o.clone()),
                composed::rope(x, o.clone())
            );
        }
    }
}

#[test]
fn gated_activations_equal_composed_with_their_gradient() {
    for activation in ACTIVATIONS {
        for width in [1, 24, 65] {
            let gate_up = random([2, 5, 2 * width]);
            compare!(
                format!("gated {activation:?} {width}"),
                [gate_up],
                ops::gated(gate_up, activation),
                composed::gated(gate_up, activation)
            );
        }
    }
}

#[test]
fn convolutions_in_groups_equal_composed_with_all_gradients() {
    for (groups, inputs, outputs) in [(1, 5, 7), (2, 4, 6), (8, 16, 8)] {
        for activation in ACTIVATIONS {
            let window = Window {
                kernel: [3, 3],
                stride: [2, 2],
                padding: [1, 1],
            };
            let (x, w) = (
                random([2, 7, 6, inputs]),
                random([outputs, 9 * inputs / groups]),
            );
            let (bias, residual) = (random([outputs]), random([2, 4, 3, outputs]));
            let conv = ops::conv2d;
            compare!(
                format!("{groups} groups, {activation:?}"),
                [x, w, bias, residual],
                conv(x, w, Some(bias), Some(residual), window, groups, activation),
                composed::conv2d(x, w, Some(bias), Some(residual), window, groups, activation)
            );
        }
        let one = Window {
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0, 0],
        };
        let (x, w) = (
            random([1, 3, 4, inputs]),
            random([outputs, inputs / groups]),
        );
        compare!(
            format!("{groups} groups of single pixels"),
            [x, w],
            ops::conv2d(x, w, None, None, one, groups, Activation::None),
            composed::conv2d(x, w, None, None, one, groups, Activation::None)
        );
    }
}

#[test]
fn attention_to_more_keys_than_one_block_equals_composed() {
    let (q, kv) = (random([1, 5, 8]), random([1, 1100, 16]));
    let o = options(1, false, 0, Some(&[1090]));
    compare!(
        "long attention",
        [q, kv],
        ops::cross_attention(q, kv, o.clone()),
        composed::cross_attention(q, kv, o.clone())
    );
}

#[test]
fn samples_of_boxes_equal_composed_with_their_gradient() {
    let rois = [
        (0, [1.0, 2.0, 20.0, 13.0]),
        (1, [-5.0, 0.0, 40.0, 9.0]),
        (1, [3.3, 3.1, 3.4, 3.2]),
        (0, [28.0, 20.0, 35.0, 31.0]),
    ];
    let rois = rois.map(|(picture, corners)| Roi { picture, corners });
    for sampling_ratio in [0, 2] {
        for aligned in [false, true] {
            let shape = RoiAlignShape {
                output: [3, 2],
                scale: 0.25,
                sampling_ratio,
                aligned,
            };
            let x = random([2, 7, 8, 5]);
            compare!(
                format!("{shape:?}"),
                [x],
                ops::roi_align(x, &rois, shape),
                composed::roi_align(x, &rois, shape)
            );
        }
    }
    let shape = RoiAlignShape {
        output: [2, 2],
        scale: 1.0,
        sampling_ratio: 1,
        aligned: false,
    };
    assert_eq!(
        ops::roi_align(random([1, 2, 2, 3]), &[], shape).dims(),
        [0, 2, 2, 3]
    );
}

#[test]
fn adamw_equals_composed_over_several_steps() {
    let device = Device::flex();
    let random = || random_on(&device, [301]);
    let start = random();
    let zeros = start.zeros_like();
    let mut fused = (start.clone(), zeros.clone(), zeros.clone());
    let mut reference = fused.clone();
    for step in 1..=5 {
        let grad = random();
        let hp = ops::AdamWStep {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            weight_decay: 0.1,
            step,
        };
        fused = ops::adamw(fused.0, grad.clone(), fused.1, fused.2, hp);
        reference = composed::adamw(reference.0, grad, reference.1, reference.2, hp);
    }
    same("parameter", fused.0, reference.0);
    same("first moment", fused.1, reference.1);
    same("second moment", fused.2, reference.2);
    let untouched = (start - zeros).abs().sum().into_scalar::<f32>();
    assert!(
        untouched > 0.0,
        "the shared starting buffers are not written in place"
    );
}
