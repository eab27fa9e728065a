//! Hand-written backward passes: each fused operation as one node of Burn's autodiff graph.

use super::backend::{
    AdamWStep, AttentionOptions, LinearOptions, Maybe, RopeOptions, VlmGrad, VlmOps, Window,
};
use burn::backend::autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::Shape;
use vlm_kernels::Activation;

impl<B: Backend, C: CheckpointStrategy> Maybe<Autodiff<B, C>> {
    /// Without its graph.
    pub(super) fn inner(&self) -> Maybe<B> {
        match self {
            Self::Some(t) => Maybe::Some(t.primitive().clone()),
            Self::None => Maybe::None,
        }
    }
}

#[derive(Debug)]
struct Linear;

#[derive(Clone, Debug)]
struct LinearState<B: Backend> {
    x: NodeId,
    w: NodeId,
    pre_activation: Maybe<B>,
    options: LinearOptions,
    /// A node has a fixed number of parents: where there is no bias or residual, `x` stands in for it.
    has_bias: bool,
    has_residual: bool,
}

impl<B: VlmGrad> Backward<B, 4> for Linear {
    type State = LinearState<B>;

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
        let d = B::linear_backward(dy, x, w, state.pre_activation, state.options, wanted);
        for (node, grad) in [(x_node, d.x), (w_node, d.w), (bias_node, d.bias)] {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct LayerNorm;

impl<B: VlmGrad> Backward<B, 3> for LayerNorm {
    type State = (NodeId, NodeId, f32);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, gamma, eps) = ops.state;
        let x = checkpointer.retrieve_node_output(x);
        let gamma = checkpointer.retrieve_node_output(gamma);
        let d = B::layer_norm_backward(dy, x, gamma, eps);
        for (node, grad) in ops.parents.into_iter().zip(d) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct SelfAttention;

impl<B: VlmGrad> Backward<B, 1> for SelfAttention {
    type State = (NodeId, [FloatTensor<B>; 2], AttentionOptions);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (qkv, saved, options) = ops.state;
        let qkv = checkpointer.retrieve_node_output(qkv);
        if let [Some(node)] = ops.parents {
            let d = B::self_attention_backward(dy, qkv, saved, options);
            grads.register::<B>(node.id, d);
        }
    }
}

#[derive(Debug)]
struct CrossAttention;

impl<B: VlmGrad> Backward<B, 2> for CrossAttention {
    type State = (NodeId, NodeId, [FloatTensor<B>; 2], AttentionOptions);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (q, kv, saved, options) = ops.state;
        let q = checkpointer.retrieve_node_output(q);
        let kv = checkpointer.retrieve_node_output(kv);
        let d = B::cross_attention_backward(dy, q, kv, saved, options);
        for (node, grad) in ops.parents.into_iter().zip(d) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct CrossEntropy;

impl<B: VlmGrad> Backward<B, 1> for CrossEntropy {
    type State = (NodeId, IntTensor<B>, f32);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dlosses = grads.consume::<B>(&ops.node);
        let (logits, targets, smoothing) = ops.state;
        let logits = checkpointer.retrieve_node_output(logits);
        if let [Some(node)] = ops.parents {
            let d = B::cross_entropy_backward(dlosses, logits, targets, smoothing);
            grads.register::<B>(node.id, d);
        }
    }
}

#[derive(Debug)]
struct Embedding;

impl<B: VlmGrad> Backward<B, 1> for Embedding {
    type State = (IntTensor<B>, Shape);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (ids, table) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::rows_backward(dy, ids, table));
        }
    }
}

#[derive(Debug)]
struct RmsNorm;

impl<B: VlmGrad> Backward<B, 2> for RmsNorm {
    type State = (NodeId, NodeId, f32);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, gamma, eps) = ops.state;
        let x = checkpointer.retrieve_node_output(x);
        let gamma = checkpointer.retrieve_node_output(gamma);
        let d = B::rms_norm_backward(dy, x, gamma, eps);
        for (node, grad) in ops.parents.into_iter().zip(d) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct Rope;

impl<B: VlmGrad> Backward<B, 1> for Rope {
    type State = RopeOptions;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::rope_backward(dy, ops.state));
        }
    }
}

#[derive(Debug)]
struct Gated;

impl<B: VlmGrad> Backward<B, 1> for Gated {
    type State = (NodeId, Activation);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (gate_up, activation) = ops.state;
        let gate_up = checkpointer.retrieve_node_output(gate_up);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::gated_backward(dy, gate_up, activation));
        }
    }
}

#[derive(Debug)]
struct Unfold;

impl<B: VlmGrad> Backward<B, 1> for Unfold {
    type State = (Window, Shape);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (window, input) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::unfold_backward(dy, window, input));
        }
    }
}

#[derive(Debug)]
struct Patchify;

impl<B: VlmGrad> Backward<B, 1> for Patchify {
    type State = (usize, Shape);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (patch, input) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::patchify_backward(dy, patch, input));
        }
    }
}

impl<B: VlmGrad, C: CheckpointStrategy> VlmOps for Autodiff<B, C> {
    /// Gradients need what is between the layers, so that these are two operations where any is asked for.
    fn vlm_mlp(
        x: FloatTensor<Self>,
        w1: FloatTensor<Self>,
        bias1: Maybe<Self>,
        w2: FloatTensor<Self>,
        bias2: Maybe<Self>,
        residual: Maybe<Self>,
        options: [LinearOptions; 2],
    ) -> FloatTensor<Self> {
        let node_or_x = |t: &Maybe<Self>| match t {
            Maybe::Some(t) => t.node(),
            Maybe::None => x.node(),
        };
        let of_layers = [(&w1, &bias1), (&w2, &bias2)];
        let recorded = of_layers.into_iter().any(|(w, bias)| {
            let parents = [x.node(), w.node(), node_or_x(bias), node_or_x(&residual)];
            let prepared = Backward::<B, 4>::prepare::<C>(Linear, parents).compute_bound();
            matches!(prepared.stateful(), OpsKind::Tracked(_))
        });
        if recorded {
            let [first, second] = options;
            let hidden = Self::vlm_linear(x, w1, bias1, Maybe::None, first);
            return Self::vlm_linear(hidden, w2, bias2, residual, second);
        }
        Self::from_inner(B::vlm_mlp(
            x.into_primitive(),
            w1.into_primitive(),
            bias1.inner(),
            w2.into_primitive(),
            bias2.inner(),
            residual.inner(),
            options,
        ))
    }

    fn vlm_linear(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: Maybe<Self>,
        residual: Maybe<Self>,
        options: LinearOptions,
    ) -> FloatTensor<Self> {
        let (bias_inner, residual_inner) = (bias.inner(), residual.inner());
        let node_or_x = |t: &Maybe<Self>| match t {
            Maybe::Some(t) => t.node(),
            Maybe::None => x.node(),
        };
        let parents = [x.node(), w.node(), node_or_x(&bias), node_or_x(&residual)];
        let has_bias = matches!(bias, Maybe::Some(_));
        let has_residual = matches!(residual, Maybe::Some(_));
        match Linear.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (x_id, w_id) = (prep.checkpoint(&x), prep.checkpoint(&w));
                let (y, pre_activation) = B::linear_train(
                    x.into_primitive(),
                    w.into_primitive(),
                    bias_inner,
                    residual_inner,
                    options.clone(),
                );
                let state = LinearState {
                    x: x_id,
                    w: w_id,
                    pre_activation,
                    options,
                    has_bias,
                    has_residual,
                };
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::vlm_linear(
                x.into_primitive(),
                w.into_primitive(),
                bias_inner,
                residual_inner,
                options,
            )),
        }
    }

    fn vlm_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let parents = [x.node(), gamma.node(), beta.node()];
        match LayerNorm.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&gamma), eps);
                let (x, gamma, beta) = (
                    x.into_primitive(),
                    gamma.into_primitive(),
                    beta.into_primitive(),
                );
                prep.finish(state, B::vlm_layer_norm(x, gamma, beta, eps))
            }
            OpsKind::UnTracked(prep) => {
                let (x, gamma, beta) = (
                    x.into_primitive(),
                    gamma.into_primitive(),
                    beta.into_primitive(),
                );
                prep.finish(B::vlm_layer_norm(x, gamma, beta, eps))
            }
        }
    }

    fn vlm_self_attention(qkv: FloatTensor<Self>, options: AttentionOptions) -> FloatTensor<Self> {
        match SelfAttention
            .prepare::<C>([qkv.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let id = prep.checkpoint(&qkv);
                let saved = B::self_attention_train(qkv.into_primitive(), options.clone());
                let y = saved[0].clone();
                prep.finish((id, saved, options), y)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::vlm_self_attention(qkv.into_primitive(), options))
            }
        }
    }

    fn vlm_cross_attention(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        match CrossAttention
            .prepare::<C>([q.node(), kv.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let (q_id, kv_id) = (prep.checkpoint(&q), prep.checkpoint(&kv));
                let (q, kv) = (q.into_primitive(), kv.into_primitive());
                let saved = B::cross_attention_train(q, kv, options.clone());
                let y = saved[0].clone();
                prep.finish((q_id, kv_id, saved, options), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::vlm_cross_attention(
                q.into_primitive(),
                kv.into_primitive(),
                options,
            )),
        }
    }

    fn vlm_cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        label_smoothing: f32,
    ) -> FloatTensor<Self> {
        match CrossEntropy
            .prepare::<C>([logits.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&logits), targets.clone(), label_smoothing);
                let y = B::vlm_cross_entropy(logits.into_primitive(), targets, label_smoothing);
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::vlm_cross_entropy(
                logits.into_primitive(),
                targets,
                label_smoothing,
            )),
        }
    }

    fn vlm_embedding(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        match Embedding
            .prepare::<C>([table.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let state = (ids.clone(), table.shape());
                prep.finish(state, B::vlm_embedding(table.into_primitive(), ids))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::vlm_embedding(table.into_primitive(), ids)),
        }
    }

    fn vlm_rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let parents = [x.node(), gamma.node()];
        match RmsNorm.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&gamma), eps);
                let y = B::vlm_rms_norm(x.into_primitive(), gamma.into_primitive(), eps);
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => {
                let y = B::vlm_rms_norm(x.into_primitive(), gamma.into_primitive(), eps);
                prep.finish(y)
            }
        }
    }

    fn vlm_rope(x: FloatTensor<Self>, options: RopeOptions) -> FloatTensor<Self> {
        match Rope.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::vlm_rope(x.into_primitive(), options.clone());
                prep.finish(options, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::vlm_rope(x.into_primitive(), options)),
        }
    }

    fn vlm_gated(gate_up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        match Gated
            .prepare::<C>([gate_up.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&gate_up), activation);
                prep.finish(state, B::vlm_gated(gate_up.into_primitive(), activation))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::vlm_gated(gate_up.into_primitive(), activation))
            }
        }
    }

    fn vlm_unfold(x: FloatTensor<Self>, window: Window) -> FloatTensor<Self> {
        match Unfold.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (window, x.shape());
                prep.finish(state, B::vlm_unfold(x.into_primitive(), window))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::vlm_unfold(x.into_primitive(), window)),
        }
    }

    fn vlm_patchify(x: FloatTensor<Self>, patch: usize) -> FloatTensor<Self> {
        match Patchify.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (patch, x.shape());
                prep.finish(state, B::vlm_patchify(x.into_primitive(), patch))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::vlm_patchify(x.into_primitive(), patch)),
        }
    }

    fn vlm_adamw(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("the optimizer works on tensors without a graph")
    }
}
