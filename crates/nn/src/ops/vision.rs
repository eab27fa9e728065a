//! A second backend extension, of what pictures need: convolution in bands of the picture, in groups, with what follows
//! it; and RoIAlign. As in [`super::backend`] and [`super::autodiff`], for Burn's Flex backend and its autodiff; other
//! devices take [`super::composed`].

use super::backend::Maybe;
use super::flex::{contiguous, dims, f32s, tensor};
use super::{Activation, Precision, Window};
use burn::backend::autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::Shape;
use std::sync::Arc;
use vlm_kernels as kernels;
use vlm_kernels::memory::unfilled;
use vlm_kernels::{BatchNorm, ConvShape, Epilogue, PackedWeights, Roi, RoiAlignShape};

/// What a convolution does besides the product.
#[derive(Clone, Copy, Debug)]
pub struct ConvOptions {
    /// The sliding window.
    pub window: Window,
    /// Groups of channels that are convolved each by itself.
    pub groups: usize,
    /// Applied after the bias, before the residual is added.
    pub activation: Activation,
    /// Arithmetic of the product; sums are always f32.
    pub precision: Precision,
}

/// Boxes, and how they are sampled.
#[derive(Clone, Debug)]
pub struct RoiAlignOptions {
    /// The boxes, of pictures of the batch.
    pub rois: Arc<[Roi]>,
    /// Cells of the result and samples of each.
    pub shape: RoiAlignShape,
}

/// What a batch norm does besides.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormOptions {
    /// Added to the variance.
    pub eps: f32,
    /// Whether what is below 0 becomes 0.
    pub relu: bool,
}

/// Operations on pictures, dispatched at run time to the device's backend.
#[backend_extension(Flex, Autodiff)]
pub trait VisionOps: Backend {
    /// `activation(conv(x, w) + bias) + residual`; `x: [B, H, W, C]`, `w: [O, KH * KW * C / G]`, `bias: [O]`, `residual`
    /// and the result `[B, OH, OW, O]`.
    fn vlm_conv2d(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        #[extension_type] bias: Maybe<Self>,
        #[extension_type] residual: Maybe<Self>,
        options: ConvOptions,
    ) -> FloatTensor<Self>;
    /// `x: [B, H, W, C]` sampled in boxes: `[R, PH, PW, C]`.
    fn vlm_roi_align(x: FloatTensor<Self>, options: RoiAlignOptions) -> FloatTensor<Self>;
    /// The columns of `x: [R, C]`, normalised by their own mean and variance, which come with them and have no gradient.
    fn vlm_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        options: BatchNormOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Kernels that the backward passes need; never dispatched.
pub trait VisionGrad: VisionOps {
    /// Like `vlm_conv2d`, and the pre-activation where the backward pass needs it.
    fn conv2d_train(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        options: ConvOptions,
    ) -> (FloatTensor<Self>, Maybe<Self>);
    /// Gradients by `x`, `w` and `bias`, where wanted.
    fn conv2d_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        pre_activation: Maybe<Self>,
        options: ConvOptions,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3];
    fn roi_align_backward(
        dy: FloatTensor<Self>,
        options: RoiAlignOptions,
        input: Shape,
    ) -> FloatTensor<Self>;
    /// Gradients by `x`, `gamma` and `beta`; mean and variance are those of `x`.
    fn batch_norm_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        parameters: [FloatTensor<Self>; 2],
        statistics: [FloatTensor<Self>; 2],
        options: BatchNormOptions,
    ) -> [FloatTensor<Self>; 3];
}

fn batch_norm<'a>(
    [gamma, beta]: [&'a FlexTensor; 2],
    mean: &'a [f32],
    variance: &'a [f32],
    options: BatchNormOptions,
) -> BatchNorm<'a> {
    BatchNorm {
        mean,
        variance,
        gamma: f32s(gamma),
        beta: f32s(beta),
        eps: options.eps,
        relu: options.relu,
    }
}

fn over(options: &ConvOptions, x: &FlexTensor) -> ConvShape {
    options.window.over(dims(x))
}

fn conv2d_flex(
    x: FlexTensor,
    w: FlexTensor,
    bias: Maybe<Flex>,
    residual: Maybe<Flex>,
    options: ConvOptions,
    train: bool,
) -> (FlexTensor, Maybe<Flex>) {
    let (x, w) = (x.to_contiguous(), w.to_contiguous());
    let (bias, residual) = (contiguous(bias), contiguous(residual));
    let s = over(&options, &x);
    let [outputs, window] = dims(&w);
    let shape = Shape::from([s.batch, s.out_height(), s.out_width(), outputs]);
    let mut y = unfilled(shape.num_elements());
    let activates = options.activation != Activation::None;
    let mut pre = (train && activates).then(|| unfilled(shape.num_elements()));
    let each = outputs / options.groups;
    let packed: Vec<PackedWeights> = f32s(&w)
        .chunks_exact((each * window).max(1))
        .map(|w| PackedWeights::new(options.precision, w, each, window))
        .collect();
    let epilogue = Epilogue {
        bias: bias.as_ref().map(f32s),
        activation: options.activation,
        residual: residual.as_ref().map(f32s),
        pre_activation: pre.as_deref_mut(),
    };
    kernels::conv2d_grouped(f32s(&x), &packed, s, epilogue, &mut y);
    let pre = match pre {
        Some(pre) => Maybe::Some(tensor(pre, shape.clone())),
        None => Maybe::None,
    };
    (tensor(y, shape), pre)
}

impl VisionOps for Flex {
    fn vlm_conv2d(
        x: FlexTensor,
        w: FlexTensor,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        options: ConvOptions,
    ) -> FlexTensor {
        conv2d_flex(x, w, bias, residual, options, false).0
    }

    fn vlm_roi_align(x: FlexTensor, options: RoiAlignOptions) -> FlexTensor {
        let x = x.to_contiguous();
        let [rows, columns] = options.shape.output;
        let shape = Shape::from([options.rois.len(), rows, columns, x.shape()[3]]);
        let mut out = unfilled(shape.num_elements());
        kernels::roi_align(f32s(&x), dims(&x), &options.rois, options.shape, &mut out);
        tensor(out, shape)
    }

    fn vlm_batch_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        options: BatchNormOptions,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [x, gamma, beta] = [x, gamma, beta].map(|t| t.to_contiguous());
        let [width] = dims(&gamma);
        let (mut mean, mut variance) = (unfilled(width), unfilled(width));
        kernels::batch_statistics(f32s(&x), &mut mean, &mut variance);
        let mut y = unfilled(x.shape().num_elements());
        let norm = batch_norm([&gamma, &beta], &mean, &variance, options);
        kernels::batch_norm(f32s(&x), norm, &mut y);
        (
            tensor(y, x.shape()),
            tensor(mean, [width]),
            tensor(variance, [width]),
        )
    }
}

impl VisionGrad for Flex {
    fn conv2d_train(
        x: FlexTensor,
        w: FlexTensor,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        options: ConvOptions,
    ) -> (FlexTensor, Maybe<Self>) {
        conv2d_flex(x, w, bias, residual, options, true)
    }

    fn conv2d_backward(
        dy: FlexTensor,
        x: FlexTensor,
        w: FlexTensor,
        pre_activation: Maybe<Self>,
        options: ConvOptions,
        [want_x, want_w, want_bias]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let mut dy = dy.to_contiguous();
        let (x, w) = (x.to_contiguous(), w.to_contiguous());
        if let Maybe::Some(pre) = pre_activation {
            let mut d = unfilled(dy.shape().num_elements());
            kernels::activation_backward(options.activation, f32s(&pre), f32s(&dy), &mut d);
            dy = tensor(d, dy.shape());
        }
        let (s, groups, precision) = (over(&options, &x), options.groups, options.precision);
        let dx = want_x.then(|| {
            let mut dx = unfilled(x.shape().num_elements());
            kernels::conv2d_grouped_input_gradient(
                precision,
                f32s(&dy),
                f32s(&w),
                s,
                groups,
                &mut dx,
            );
            tensor(dx, x.shape())
        });
        let dw = want_w.then(|| {
            let mut dw = unfilled(w.shape().num_elements());
            kernels::conv2d_grouped_weight_gradient(
                precision,
                f32s(&dy),
                f32s(&x),
                s,
                groups,
                &mut dw,
            );
            tensor(dw, w.shape())
        });
        let db = want_bias.then(|| {
            let [outputs, _] = dims(&w);
            let mut db = unfilled(outputs);
            kernels::column_sum(f32s(&dy), outputs, &mut db);
            tensor(db, [outputs])
        });
        [dx, dw, db]
    }

    fn roi_align_backward(dy: FlexTensor, options: RoiAlignOptions, input: Shape) -> FlexTensor {
        let dy = dy.to_contiguous();
        let mut dx = unfilled(input.num_elements());
        let input_dims = [input[0], input[1], input[2], input[3]];
        kernels::roi_align_backward(f32s(&dy), input_dims, &options.rois, options.shape, &mut dx);
        tensor(dx, input)
    }

    fn batch_norm_backward(
        dy: FlexTensor,
        x: FlexTensor,
        parameters: [FlexTensor; 2],
        [mean, variance]: [FlexTensor; 2],
        options: BatchNormOptions,
    ) -> [FlexTensor; 3] {
        let [dy, x] = [dy, x].map(|t| t.to_contiguous());
        let [gamma, beta] = parameters.map(|t| t.to_contiguous());
        let [width] = dims(&gamma);
        let mut dx = unfilled(x.shape().num_elements());
        let (mut dgamma, mut dbeta) = (unfilled(width), unfilled(width));
        let norm = batch_norm([&gamma, &beta], f32s(&mean), f32s(&variance), options);
        kernels::batch_norm_backward(f32s(&dy), f32s(&x), norm, &mut dx, &mut dgamma, &mut dbeta);
        [
            tensor(dx, x.shape()),
            tensor(dgamma, [width]),
            tensor(dbeta, [width]),
        ]
    }
}

#[derive(Debug)]
struct Conv2d;

#[derive(Clone, Debug)]
struct ConvState<B: Backend> {
    x: NodeId,
    w: NodeId,
    pre_activation: Maybe<B>,
    options: ConvOptions,
    /// A node has a fixed number of parents: where there is no bias or residual, `x` stands in for it.
    has_bias: bool,
    has_residual: bool,
}

impl<B: VisionGrad> Backward<B, 4> for Conv2d {
    type State = ConvState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, w_node, bias_node, residual_node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let state = ops.state;
        // Retrieved even where unused: each retrieval counts down the uses of a checkpoint.
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(state.x);
        let w: FloatTensor<B> = checkpointer.retrieve_node_output(state.w);
        if let (true, Some(node)) = (state.has_residual, &residual_node) {
            grads.register::<B>(node.id, dy.clone());
        }
        let wanted = [
            x_node.is_some(),
            w_node.is_some(),
            state.has_bias && bias_node.is_some(),
        ];
        let found = B::conv2d_backward(dy, x, w, state.pre_activation, state.options, wanted);
        for (node, grad) in [x_node, w_node, bias_node].into_iter().zip(found) {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct RoiAlign;

impl<B: VisionGrad> Backward<B, 1> for RoiAlign {
    type State = (RoiAlignOptions, Shape);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (options, input) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::roi_align_backward(dy, options, input));
        }
    }
}

#[derive(Debug)]
struct BatchNormed;

/// `x`, `gamma` and `beta`, and mean and variance.
type BatchNormState<B> = ([NodeId; 3], [FloatTensor<B>; 2], BatchNormOptions);

impl<B: VisionGrad> Backward<B, 3> for BatchNormed {
    type State = BatchNormState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (saved, statistics, options) = ops.state;
        let [x, gamma, beta] = saved.map(|id| checkpointer.retrieve_node_output(id));
        let found = B::batch_norm_backward(dy, x, [gamma, beta], statistics, options);
        for (node, grad) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: VisionGrad, C: CheckpointStrategy> VisionOps for Autodiff<B, C> {
    fn vlm_conv2d(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        options: ConvOptions,
    ) -> FloatTensor<Self> {
        let (bias_inner, residual_inner) = (bias.inner(), residual.inner());
        let node_or_x = |t: &Maybe<Self>| match t {
            Maybe::Some(t) => t.node(),
            Maybe::None => x.node(),
        };
        let parents = [x.node(), w.node(), node_or_x(&bias), node_or_x(&residual)];
        let has_bias = matches!(bias, Maybe::Some(_));
        let has_residual = matches!(residual, Maybe::Some(_));
        match Conv2d.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (x_id, w_id) = (prep.checkpoint(&x), prep.checkpoint(&w));
                let (y, pre_activation) = B::conv2d_train(
                    x.into_primitive(),
                    w.into_primitive(),
                    bias_inner,
                    residual_inner,
                    options,
                );
                let state = ConvState {
                    x: x_id,
                    w: w_id,
                    pre_activation,
                    options,
                    has_bias,
                    has_residual,
                };
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::vlm_conv2d(
                x.into_primitive(),
                w.into_primitive(),
                bias_inner,
                residual_inner,
                options,
            )),
        }
    }

    fn vlm_roi_align(x: FloatTensor<Self>, options: RoiAlignOptions) -> FloatTensor<Self> {
        match RoiAlign.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (options.clone(), x.shape());
                prep.finish(state, B::vlm_roi_align(x.into_primitive(), options))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::vlm_roi_align(x.into_primitive(), options)),
        }
    }

    fn vlm_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        options: BatchNormOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let parents = [x.node(), gamma.node(), beta.node()];
        let compute = |x: FloatTensor<Self>, gamma: FloatTensor<Self>, beta: FloatTensor<Self>| {
            let (gamma, beta) = (gamma.into_primitive(), beta.into_primitive());
            B::vlm_batch_norm(x.into_primitive(), gamma, beta, options)
        };
        let without_graph = <Self as AutodiffBackend>::from_inner;
        let (y, mean, variance) = match BatchNormed.prepare::<C>(parents).compute_bound().stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let saved = [&x, &gamma, &beta].map(|t| prep.checkpoint(t));
                let (y, mean, variance) = compute(x, gamma, beta);
                let statistics = [mean.clone(), variance.clone()];
                (prep.finish((saved, statistics, options), y), mean, variance)
            }
            OpsKind::UnTracked(prep) => {
                let (y, mean, variance) = compute(x, gamma, beta);
                (prep.finish(y), mean, variance)
            }
        };
        (y, without_graph(mean), without_graph(variance))
    }
}
