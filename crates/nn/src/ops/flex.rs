//! The fused operations on Burn's Flex (CPU) backend, by `vlm-kernels`.

use super::backend::{
    AdamWStep, AttentionOptions, LinearGrads, LinearOptions, Maybe, RopeOptions, VlmGrad, VlmOps,
    Window,
};
use super::packed::{Kept, WeightFormat};
use super::precision;
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Bytes, DType, Shape};
use vlm_kernels as kernels;
use vlm_kernels::memory::unfilled;
use vlm_kernels::{
    Activation, AttentionShape, Epilogue, HeadsMut, HeadsRef, Mask, MatRef, PackedWeights, Saved,
};

pub(super) fn f32s(t: &FlexTensor) -> &[f32] {
    t.as_slice().expect("contiguous f32 tensor")
}

/// Ids as i64, whatever integer type the device uses.
fn ids(t: &FlexTensor) -> Vec<i64> {
    let t = t.to_contiguous();
    match t.dtype() {
        DType::I64 => t.as_slice::<i64>().expect("contiguous ids").to_vec(),
        DType::I32 => t
            .as_slice::<i32>()
            .expect("contiguous ids")
            .iter()
            .map(|&x| i64::from(x))
            .collect(),
        other => panic!("ids: expected i32 or i64, found {other:?}"),
    }
}

pub(super) fn tensor(data: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let shape = shape.into();
    debug_assert_eq!(data.len(), shape.num_elements());
    FlexTensor::new(
        Bytes::from_elems(data),
        Layout::contiguous(shape),
        DType::F32,
    )
}

fn last(shape: &Shape) -> usize {
    *shape.to_vec().last().expect("at least one dimension")
}

fn with_last(shape: &Shape, last: usize) -> Shape {
    let mut dims = shape.to_vec();
    *dims.last_mut().expect("at least one dimension") = last;
    Shape::from(dims)
}

pub(super) fn dims<const D: usize>(t: &FlexTensor) -> [usize; D] {
    t.shape()
        .to_vec()
        .try_into()
        .expect("rank checked by the tensor-level wrapper")
}

pub(super) fn contiguous(t: Maybe<Flex>) -> Option<FlexTensor> {
    match t {
        Maybe::Some(t) => Some(t.to_contiguous()),
        Maybe::None => None,
    }
}

fn linear_flex(
    x: FlexTensor,
    w: FlexTensor,
    bias: Maybe<Flex>,
    residual: Maybe<Flex>,
    options: LinearOptions,
    train: bool,
) -> (FlexTensor, Maybe<Flex>) {
    let x = x.to_contiguous();
    let [n, k] = dims(&w);
    let m = x.shape().num_elements() / k.max(1);
    let shape = with_last(&x.shape(), n);
    let (bias, residual) = (contiguous(bias), contiguous(residual));
    let mut y = unfilled(m * n);
    let mut pre = (train && options.activation != Activation::None).then(|| unfilled(m * n));
    let epilogue = Epilogue {
        bias: bias.as_ref().map(f32s),
        activation: options.activation,
        residual: residual.as_ref().map(f32s),
        pre_activation: pre.as_deref_mut(),
    };
    let products = options.precision;
    match &options.packed {
        Some(kept)
            if !train
                && (options.weights != WeightFormat::Float
                    || PackedWeights::pay_off(products, m)) =>
        {
            match &*kept.get(&w, products, options.weights) {
                Kept::Float(w) => kernels::linear_packed(f32s(&x), w, m, epilogue, &mut y),
                Kept::Int8(w) => {
                    kernels::quant::linear_int8(f32s(&x), w, m, epilogue, &mut y);
                }
                Kept::Blocks(w) => {
                    w.matmul(f32s(&x), m, &mut y);
                    kernels::gemm::linear::finish_rows(epilogue, n, &mut y);
                }
            }
        }
        _ => {
            if let (Some(kept), true) = (&options.packed, train) {
                kept.clear();
            }
            let w = w.to_contiguous();
            kernels::linear(products, f32s(&x), f32s(&w), m, k, n, epilogue, &mut y);
        }
    }
    let pre = match pre {
        Some(pre) => Maybe::Some(tensor(pre, shape.clone())),
        None => Maybe::None,
    };
    (tensor(y, shape), pre)
}

impl AttentionOptions {
    /// What is added to the scores of `[B, Tq, Tk]`, where keys are hidden one by one.
    fn added(&self, batch: usize, q_len: usize, k_len: usize) -> Option<Vec<f32>> {
        let seen = self.key_mask.as_deref()?;
        let by_pair = seen.len() == batch * q_len * k_len;
        assert!(
            by_pair || seen.len() == batch * k_len,
            "attention: key_mask is neither [{batch}, {k_len}] nor [{batch}, {q_len}, {k_len}]"
        );
        let mut values = vec![f32::NEG_INFINITY; batch * q_len * k_len];
        for (row, values) in values.chunks_mut(k_len.max(1)).enumerate() {
            let (b, i) = (row / q_len, row % q_len);
            let until = if self.causal {
                k_len.min(i + self.past + 1)
            } else {
                k_len
            };
            let of = if by_pair { row } else { b };
            let seen = &seen[of * k_len..][..until];
            for (value, _) in values.iter_mut().zip(seen).filter(|(_, seen)| **seen) {
                *value = 0.0;
            }
        }
        Some(values)
    }

    /// The mask for the kernels; `added` is from [`Self::added`].
    fn mask<'a>(&self, added: Option<&'a [f32]>, q_len: usize, k_len: usize) -> Mask<'a> {
        match added {
            Some(values) => Mask::Additive {
                values,
                batch_stride: q_len * k_len,
                head_stride: 0,
            },
            None if self.causal => Mask::Causal { past: self.past },
            None => Mask::None,
        }
    }

    fn shape(&self, batch: usize, q_len: usize, k_len: usize, width: usize) -> AttentionShape {
        AttentionShape {
            batch,
            q_len,
            k_len,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: width / self.heads,
        }
    }
}

/// The output of an attention, and (to `save` for the backward pass) the logarithms of its sums of exponentials.
fn attend(
    [q, k, v]: [HeadsRef; 3],
    shape: AttentionShape,
    options: &AttentionOptions,
    save: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let (b, tq, tk) = (shape.batch, shape.q_len, shape.k_len);
    let d = shape.heads * shape.head_dim;
    let added = options.added(b, tq, tk);
    let mask = options.mask(added.as_deref(), tq, tk);
    let lengths = options.key_lengths.as_deref();
    let mut out = unfilled(b * tq * d);
    let to = HeadsMut::contiguous(&mut out, tq, d);
    let (products, scale) = (precision(), options.scale);
    let log_sum_exp = if save {
        let mut logs = unfilled(b * shape.heads * tq);
        kernels::attention_saving(
            products, shape, q, k, v, mask, lengths, scale, to, &mut logs,
        );
        Some(tensor(logs, [b, shape.heads, tq]))
    } else {
        kernels::attention(products, shape, q, k, v, mask, lengths, scale, to);
        None
    };
    (tensor(out, [b, tq, d]), log_sum_exp)
}

fn self_attention(
    qkv: FlexTensor,
    options: &AttentionOptions,
    save: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let qkv = qkv.to_contiguous();
    let [b, t, packed] = dims(&qkv);
    let d = packed / 3;
    let parts = [0, 1, 2].map(|i| HeadsRef::packed(f32s(&qkv), t, d, 3, i));
    attend(parts, options.shape(b, t, t, d), options, save)
}

fn cross_attention(
    q: FlexTensor,
    kv: FlexTensor,
    options: &AttentionOptions,
    save: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let (q, kv) = (q.to_contiguous(), kv.to_contiguous());
    let [b, tq, d] = dims(&q);
    let [_, tk, _] = dims(&kv);
    let parts = [
        HeadsRef::contiguous(f32s(&q), tq, d),
        HeadsRef::packed(f32s(&kv), tk, d, 2, 0),
        HeadsRef::packed(f32s(&kv), tk, d, 2, 1),
    ];
    attend(parts, options.shape(b, tq, tk, d), options, save)
}

/// Output and logarithms, of which there are some because they were asked for.
fn both((out, log_sum_exp): (FlexTensor, Option<FlexTensor>)) -> [FlexTensor; 2] {
    [out, log_sum_exp.expect("asked for")]
}

/// What the backward pass of `[B, T, D]` reads of it.
fn saved<'a>([out, log_sum_exp]: &'a [FlexTensor; 2]) -> Saved<'a> {
    let [_, t, d] = dims(out);
    Saved {
        out: HeadsRef::contiguous(f32s(out), t, d),
        log_sum_exp: f32s(log_sum_exp),
    }
}

/// The gradient of a bias `[n]` added to all rows.
fn bias_gradient(dy: &FlexTensor, n: usize) -> FlexTensor {
    let mut db = unfilled(n);
    kernels::column_sum(f32s(dy), n, &mut db);
    tensor(db, [n])
}

/// A copy of `x` `[B, T, D]` with its heads turned by `turn`.
fn turned(
    x: FlexTensor,
    options: &RopeOptions,
    turn: impl Fn(HeadsMut, [usize; 4], kernels::RopeLayout, &kernels::Rotation),
) -> FlexTensor {
    let x = x.to_contiguous();
    let [b, t, d] = dims(&x);
    let mut y = f32s(&x).to_vec();
    let size = [b, t, options.heads, d / options.heads];
    let heads = HeadsMut::contiguous(&mut y, t, d);
    turn(heads, size, options.layout, &options.rotation);
    tensor(y, [b, t, d])
}

/// [`VlmOps::vlm_mlp`] where both weights are kept as floats.
fn mlp_flex(
    x: &FlexTensor,
    [w1, w2]: [&PackedWeights; 2],
    [bias1, bias2, residual]: [Maybe<Flex>; 3],
    [first, second]: [&LinearOptions; 2],
) -> FlexTensor {
    let x = x.to_contiguous();
    let m = x.shape().num_elements() / w1.inputs().max(1);
    let [bias1, bias2, residual] = [bias1, bias2, residual].map(contiguous);
    let hidden = Epilogue {
        bias: bias1.as_ref().map(f32s),
        activation: first.activation,
        ..Epilogue::NONE
    };
    let last = Epilogue {
        bias: bias2.as_ref().map(f32s),
        activation: second.activation,
        residual: residual.as_ref().map(f32s),
        pre_activation: None,
    };
    let mut y = unfilled(m * w2.outputs());
    kernels::mlp_packed(f32s(&x), [w1, w2], m, [hidden, last], &mut y);
    tensor(y, with_last(&x.shape(), w2.outputs()))
}

impl VlmOps for Flex {
    fn vlm_mlp(
        x: FlexTensor,
        w1: FlexTensor,
        bias1: Maybe<Self>,
        w2: FlexTensor,
        bias2: Maybe<Self>,
        residual: Maybe<Self>,
        options: [LinearOptions; 2],
    ) -> FlexTensor {
        let ([hidden, k], [n, _]) = (dims(&w1), dims(&w2));
        let m = x.shape().num_elements() / k.max(1);
        let kept = |w: &FlexTensor, options: &LinearOptions| {
            let packed = options.packed.as_ref()?;
            let pays = options.weights == WeightFormat::Float
                && kernels::mlp_pays(options.precision, [m, k, hidden, n]);
            pays.then(|| packed.get(w, options.precision, options.weights))
        };
        let [first, second] = &options;
        let weights = kept(&w1, first).zip(kept(&w2, second));
        if let Some((w1, w2)) = &weights
            && let (Kept::Float(w1), Kept::Float(w2)) = (&**w1, &**w2)
        {
            return mlp_flex(&x, [w1, w2], [bias1, bias2, residual], [first, second]);
        }
        let [first, second] = options;
        let hidden = Self::vlm_linear(x, w1, bias1, Maybe::None, first);
        Self::vlm_linear(hidden, w2, bias2, residual, second)
    }

    fn vlm_linear(
        x: FlexTensor,
        w: FlexTensor,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        options: LinearOptions,
    ) -> FlexTensor {
        linear_flex(x, w, bias, residual, options, false).0
    }

    fn vlm_layer_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, eps: f32) -> FlexTensor {
        let (x, gamma, beta) = (
            x.to_contiguous(),
            gamma.to_contiguous(),
            beta.to_contiguous(),
        );
        let mut y = unfilled(x.shape().num_elements());
        kernels::layer_norm(f32s(&x), f32s(&gamma), Some(f32s(&beta)), eps, &mut y);
        tensor(y, x.shape())
    }

    fn vlm_self_attention(qkv: FlexTensor, options: AttentionOptions) -> FlexTensor {
        self_attention(qkv, &options, false).0
    }

    fn vlm_cross_attention(q: FlexTensor, kv: FlexTensor, options: AttentionOptions) -> FlexTensor {
        cross_attention(q, kv, &options, false).0
    }

    fn vlm_rms_norm(x: FlexTensor, gamma: FlexTensor, eps: f32) -> FlexTensor {
        let (x, gamma) = (x.to_contiguous(), gamma.to_contiguous());
        let mut y = unfilled(x.shape().num_elements());
        kernels::rms_norm(f32s(&x), f32s(&gamma), eps, &mut y);
        tensor(y, x.shape())
    }

    fn vlm_rope(x: FlexTensor, options: RopeOptions) -> FlexTensor {
        turned(x, &options, kernels::rope)
    }

    fn vlm_gated(gate_up: FlexTensor, activation: Activation) -> FlexTensor {
        let gate_up = gate_up.to_contiguous();
        let shape = gate_up.shape();
        let width = last(&shape) / 2;
        let mut y = unfilled(shape.num_elements() / 2);
        kernels::gated(activation, f32s(&gate_up), width, &mut y);
        tensor(y, with_last(&shape, width))
    }

    fn vlm_cross_entropy(
        logits: FlexTensor,
        targets: FlexTensor,
        label_smoothing: f32,
    ) -> FlexTensor {
        let logits = logits.to_contiguous();
        let [m, _] = dims(&logits);
        let mut losses = unfilled(m);
        kernels::cross_entropy(f32s(&logits), &ids(&targets), label_smoothing, &mut losses);
        tensor(losses, [m])
    }

    fn vlm_embedding(table: FlexTensor, tokens: FlexTensor) -> FlexTensor {
        let table = table.to_contiguous();
        let [_, d] = dims(&table);
        let [b, t] = dims(&tokens);
        let mut out = unfilled(b * t * d);
        kernels::gather_rows(f32s(&table), d, &ids(&tokens), &mut out);
        tensor(out, [b, t, d])
    }

    fn vlm_unfold(x: FlexTensor, window: Window) -> FlexTensor {
        let x = x.to_contiguous();
        let shape = window.over(dims(&x));
        let (oh, ow) = (shape.out_height(), shape.out_width());
        let row = window.kernel[0] * window.kernel[1] * shape.channels;
        let mut out = unfilled(shape.batch * oh * ow * row);
        let batch = shape.batch;
        kernels::unfold(f32s(&x), shape, &mut out);
        tensor(out, [batch, oh, ow, row])
    }

    fn vlm_patchify(x: FlexTensor, patch: usize) -> FlexTensor {
        let x = x.to_contiguous();
        let [b, c, h, w] = dims(&x);
        let mut out = unfilled(b * c * h * w);
        kernels::patchify(f32s(&x), [b, c, h, w], patch, &mut out);
        tensor(out, [b, (h / patch) * (w / patch), c * patch * patch])
    }

    fn vlm_adamw(
        param: FlexTensor,
        grad: FlexTensor,
        m: FlexTensor,
        v: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let grad = grad.to_contiguous();
        // `storage_mut` copies a shared buffer; a view into a larger buffer is made whole first.
        let own = |t: FlexTensor| {
            let whole = t
                .as_slice::<f32>()
                .is_some_and(|s| s.len() * 4 == t.bytes().len());
            if whole { t } else { t.to_contiguous() }
        };
        let (mut param, mut m, mut v) = (own(param), own(m), own(v));
        kernels::adamw(
            param.storage_mut(),
            f32s(&grad),
            m.storage_mut(),
            v.storage_mut(),
            step,
        );
        (param, m, v)
    }
}

impl VlmGrad for Flex {
    fn linear_train(
        x: FlexTensor,
        w: FlexTensor,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        options: LinearOptions,
    ) -> (FlexTensor, Maybe<Self>) {
        linear_flex(x, w, bias, residual, options, true)
    }

    fn linear_backward(
        dy: FlexTensor,
        x: FlexTensor,
        w: FlexTensor,
        pre_activation: Maybe<Self>,
        options: LinearOptions,
        [want_x, want_w, want_bias]: [bool; 3],
    ) -> LinearGrads<Self> {
        let mut dy = dy.to_contiguous();
        let (x, w) = (x.to_contiguous(), w.to_contiguous());
        let [n, k] = dims(&w);
        let m = dy.shape().num_elements() / n.max(1);
        let mut db = None;
        if let Maybe::Some(pre) = pre_activation {
            let (mut d, mut sums) = (unfilled(m * n), unfilled(n));
            let activation = options.activation;
            let (pre, by_output) = (f32s(&pre), f32s(&dy));
            if want_bias {
                kernels::activation_backward_summing(activation, pre, by_output, &mut d, &mut sums);
                db = Some(tensor(sums, [n]));
            } else {
                kernels::activation_backward(activation, pre, by_output, &mut d);
            }
            dy = tensor(d, dy.shape());
        }
        let dy_matrix = MatRef::row_major(f32s(&dy), m, n);
        let dx = want_x.then(|| {
            let mut dx = unfilled(m * k);
            let w = MatRef::row_major(f32s(&w), n, k);
            kernels::matmul(options.precision, dy_matrix, w, &mut dx);
            tensor(dx, x.shape())
        });
        let dw = want_w.then(|| {
            let mut dw = unfilled(n * k);
            let x = MatRef::row_major(f32s(&x), m, k);
            kernels::matmul(options.precision, dy_matrix.t(), x, &mut dw);
            tensor(dw, [n, k])
        });
        LinearGrads {
            x: dx,
            w: dw,
            bias: db.or_else(|| want_bias.then(|| bias_gradient(&dy, n))),
        }
    }

    fn layer_norm_backward(
        dy: FlexTensor,
        x: FlexTensor,
        gamma: FlexTensor,
        eps: f32,
    ) -> [FlexTensor; 3] {
        let (dy, x, gamma) = (dy.to_contiguous(), x.to_contiguous(), gamma.to_contiguous());
        let [d] = dims(&gamma);
        let mut dx = unfilled(x.shape().num_elements());
        let (mut dgamma, mut dbeta) = (unfilled(d), unfilled(d));
        kernels::layer_norm_backward(
            f32s(&dy),
            f32s(&x),
            f32s(&gamma),
            eps,
            &mut dx,
            &mut dgamma,
            Some(&mut dbeta),
        );
        [
            tensor(dx, x.shape()),
            tensor(dgamma, [d]),
            tensor(dbeta, [d]),
        ]
    }

    fn self_attention_train(qkv: FlexTensor, options: AttentionOptions) -> [FlexTensor; 2] {
        both(self_attention(qkv, &options, true))
    }

    fn self_attention_backward(
        dy: FlexTensor,
        qkv: FlexTensor,
        kept: [FlexTensor; 2],
        options: AttentionOptions,
    ) -> FlexTensor {
        let (dy, qkv) = (dy.to_contiguous(), qkv.to_contiguous());
        let [b, t, packed] = dims(&qkv);
        let d = packed / 3;
        let added = options.added(b, t, t);
        let mut dqkv = unfilled(b * t * packed);
        kernels::attention_backward_packed(
            precision(),
            options.shape(b, t, t, d),
            HeadsRef::contiguous(f32s(&dy), t, d),
            f32s(&qkv),
            options.mask(added.as_deref(), t, t),
            options.key_lengths.as_deref(),
            options.scale,
            Some(saved(&kept)),
            &mut dqkv,
        );
        tensor(dqkv, [b, t, packed])
    }

    fn cross_attention_train(
        q: FlexTensor,
        kv: FlexTensor,
        options: AttentionOptions,
    ) -> [FlexTensor; 2] {
        both(cross_attention(q, kv, &options, true))
    }

    fn cross_attention_backward(
        dy: FlexTensor,
        q: FlexTensor,
        kv: FlexTensor,
        kept: [FlexTensor; 2],
        options: AttentionOptions,
    ) -> [FlexTensor; 2] {
        let (dy, q, kv) = (dy.to_contiguous(), q.to_contiguous(), kv.to_contiguous());
        let [b, tq, d] = dims(&q);
        let [_, tk, _] = dims(&kv);
        let added = options.added(b, tq, tk);
        let (mut dq, mut dkv) = (unfilled(b * tq * d), unfilled(b * tk * 2 * d));
        kernels::attention_backward_packed_kv(
            precision(),
            options.shape(b, tq, tk, d),
            HeadsRef::contiguous(f32s(&dy), tq, d),
            HeadsRef::contiguous(f32s(&q), tq, d),
            f32s(&kv),
            options.mask(added.as_deref(), tq, tk),
            options.key_lengths.as_deref(),
            options.scale,
            Some(saved(&kept)),
            HeadsMut::contiguous(&mut dq, tq, d),
            &mut dkv,
        );
        [tensor(dq, [b, tq, d]), tensor(dkv, [b, tk, 2 * d])]
    }

    fn rms_norm_backward(
        dy: FlexTensor,
        x: FlexTensor,
        gamma: FlexTensor,
        eps: f32,
    ) -> [FlexTensor; 2] {
        let (dy, x, gamma) = (dy.to_contiguous(), x.to_contiguous(), gamma.to_contiguous());
        let [d] = dims(&gamma);
        let (mut dx, mut dgamma) = (unfilled(x.shape().num_elements()), unfilled(d));
        kernels::rms_norm_backward(f32s(&dy), f32s(&x), f32s(&gamma), eps, &mut dx, &mut dgamma);
        [tensor(dx, x.shape()), tensor(dgamma, [d])]
    }

    fn rope_backward(dy: FlexTensor, options: RopeOptions) -> FlexTensor {
        turned(dy, &options, kernels::rope_backward)
    }

    fn gated_backward(dy: FlexTensor, gate_up: FlexTensor, activation: Activation) -> FlexTensor {
        let (dy, gate_up) = (dy.to_contiguous(), gate_up.to_contiguous());
        let shape = gate_up.shape();
        let width = last(&shape) / 2;
        let mut d = unfilled(shape.num_elements());
        kernels::gated_backward(activation, f32s(&gate_up), f32s(&dy), width, &mut d);
        tensor(d, shape)
    }

    fn cross_entropy_backward(
        dlosses: FlexTensor,
        logits: FlexTensor,
        targets: FlexTensor,
        label_smoothing: f32,
    ) -> FlexTensor {
        let (dlosses, logits) = (dlosses.to_contiguous(), logits.to_contiguous());
        let mut dlogits = unfilled(logits.shape().num_elements());
        kernels::cross_entropy_backward(
            f32s(&dlosses),
            f32s(&logits),
            &ids(&targets),
            label_smoothing,
            &mut dlogits,
        );
        tensor(dlogits, logits.shape())
    }

    fn rows_backward(dy: FlexTensor, tokens: FlexTensor, table: Shape) -> FlexTensor {
        let dy = dy.to_contiguous();
        let mut dtable = vec![0f32; table.num_elements()];
        kernels::scatter_add_rows(f32s(&dy), table[1], &ids(&tokens), &mut dtable);
        tensor(dtable, table)
    }

    fn unfold_backward(dy: FlexTensor, window: Window, input: Shape) -> FlexTensor {
        let dy = dy.to_contiguous();
        let mut dx = unfilled(input.num_elements());
        let shape = window.over([input[0], input[1], input[2], input[3]]);
        kernels::fold(f32s(&dy), shape, &mut dx);
        tensor(dx, input)
    }

    fn patchify_backward(dy: FlexTensor, patch: usize, input: Shape) -> FlexTensor {
        let dy = dy.to_contiguous();
        let mut dx = unfilled(input.num_elements());
        kernels::unpatchify(
            f32s(&dy),
            [input[0], input[1], input[2], input[3]],
            patch,
            &mut dx,
        );
        tensor(dx, input)
    }
}
