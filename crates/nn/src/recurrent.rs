use crate::linear::Linear;
use crate::ops::Activation;
use crate::weights::{Init, Weights};
use burn::module::Module;
use burn::tensor::activation::{sigmoid, tanh};
use burn::tensor::{Int, Tensor};

/// What a recurrent layer remembers by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RnnKind {
    /// Long short-term memory (Hochreiter & Schmidhuber, 1997), as `torch.nn.LSTM`: gates in the order input, forget,
    /// cell, output.
    Lstm,
    /// Gated recurrent unit (Cho et al., 2014), as `torch.nn.GRU`: gates in the order reset, update, new, and the reset
    /// gate on the product with the state, bias included.
    Gru,
}

impl RnnKind {
    /// Rows of the weights for each unit.
    pub fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }
}

/// What a recurrent layer remembers of each row.
#[derive(Clone, Debug)]
pub struct RnnState {
    /// `[B, H]`: the state, which is also the output.
    pub hidden: Tensor<2>,
    /// `[B, H]`: the cell of an LSTM.
    pub cell: Option<Tensor<2>>,
}

impl RnnState {
    /// Keeps the given rows, in this order; a row may be given more than once.
    #[must_use]
    pub fn select(self, rows: &Tensor<1, Int>) -> Self {
        let select = |t: Tensor<2>| t.select(0, rows.clone());
        Self {
            hidden: select(self.hidden),
            cell: self.cell.map(select),
        }
    }
}

/// One step of a recurrent layer (`torch.nn.LSTMCell`, `torch.nn.GRUCell`); parameters `ih` and `hh`, each with a weight
/// `[gates * H, ..]` and a bias, which PyTorch calls `weight_ih`, `bias_ih`, `weight_hh` and `bias_hh`.
#[derive(Module, Debug)]
pub struct RnnCell {
    ih: Linear,
    hh: Linear,
    hidden: usize,
    #[module(skip)]
    kind: RnnKind,
}

impl RnnCell {
    /// A cell from `inputs` to `hidden` units.
    pub fn new(w: &mut Weights, kind: RnnKind, inputs: usize, hidden: usize) -> Self {
        // the variance of PyTorch's uniform distribution
        let init = Init::Normal((3.0 * hidden as f32).powf(-0.5));
        let rows = kind.gates() * hidden;
        Self {
            ih: w.scope("ih", |w| Linear::new(w, inputs, rows, true, init)),
            hh: w.scope("hh", |w| Linear::new(w, hidden, rows, true, init)),
            hidden,
            kind,
        }
    }

    /// Nothing remembered.
    ///
    /// # Shapes
    /// `like: [B, ..]`, from which the number of rows and the device are taken.
    pub fn zeros<const D: usize>(&self, like: &Tensor<D>) -> RnnState {
        let zeros = || Tensor::zeros([like.dims()[0], self.hidden], &like.device());
        RnnState {
            hidden: zeros(),
            cell: (self.kind == RnnKind::Lstm).then(zeros),
        }
    }

    /// The part of the gates that the inputs give, for as many steps as there are.
    ///
    /// # Shapes
    /// `x: [.., D]`; gives `[.., gates * H]`.
    fn inputs<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.ih.forward(x)
    }

    /// # Shapes
    /// `x: [B, D]`, the state `[B, H]`.
    pub fn forward(&self, x: Tensor<2>, state: RnnState) -> RnnState {
        self.step(self.inputs(x), state)
    }

    /// `gates: [B, gates * H]` from [`Self::inputs`].
    fn step(&self, gates: Tensor<2>, state: RnnState) -> RnnState {
        let h = self.hidden;
        let part = |gates: &Tensor<2>, i: usize| gates.clone().narrow(1, i * h, h); // [B, H]
        match self.kind {
            RnnKind::Lstm => {
                let gates = self.hh.fused(state.hidden, Activation::None, Some(gates)); // [B, 4H]
                let cell = state.cell.expect("an LSTM's state has a cell");
                let new = sigmoid(part(&gates, 0)) * tanh(part(&gates, 2));
                let cell = sigmoid(part(&gates, 1)) * cell + new;
                RnnState {
                    hidden: sigmoid(part(&gates, 3)) * tanh(cell.clone()),
                    cell: Some(cell),
                }
            }
            RnnKind::Gru => {
                let from_state = self.hh.forward(state.hidden.clone()); // [B, 3H]
                let both = |i| part(&gates, i) + part(&from_state, i);
                let (reset, update) = (sigmoid(both(0)), sigmoid(both(1)));
                let new = tanh(part(&gates, 2) + reset * part(&from_state, 2));
                RnnState {
                    hidden: new.clone() + update * (state.hidden - new),
                    cell: None,
                }
            }
        }
    }
}

/// Recurrent layers over a sequence, one on top of the other (`torch.nn.LSTM`, `torch.nn.GRU` with `batch_first`);
/// parameters `layers.I.ih` and `layers.I.hh`, which PyTorch calls `weight_ih_lI`, `bias_ih_lI` and so on.
#[derive(Module, Debug)]
pub struct Rnn {
    layers: Vec<RnnCell>,
}

impl Rnn {
    /// `layers` layers of `hidden` units, the first of which reads `inputs` numbers.
    pub fn new(
        w: &mut Weights,
        kind: RnnKind,
        inputs: usize,
        hidden: usize,
        layers: usize,
    ) -> Self {
        let layer = |i: usize| {
            let inputs = if i == 0 { inputs } else { hidden };
            let name = format!("layers.{i}");
            w.scope(&name, |w| RnnCell::new(w, kind, inputs, hidden))
        };
        Self {
            layers: (0..layers).map(layer).collect(),
        }
    }

    /// # Shapes
    /// `x: [B, T, D]`; gives `[B, T, H]`, and what each layer remembers after the last step. No `states` means that
    /// nothing is remembered at the beginning.
    pub fn forward(
        &self,
        mut x: Tensor<3>,
        states: Option<Vec<RnnState>>,
    ) -> (Tensor<3>, Vec<RnnState>) {
        let t = x.dims()[1];
        let zeros = || self.layers.iter().map(|layer| layer.zeros(&x)).collect();
        let mut states: Vec<RnnState> = states.unwrap_or_else(zeros);
        for (layer, state) in self.layers.iter().zip(&mut states) {
            let gates = layer.inputs(x); // [B, T, gates * H], all steps in one product
            let [b, _, g] = gates.dims();
            let mut outputs = Vec::with_capacity(t);
            for step in 0..t {
                let gates = gates.clone().narrow(1, step, 1).reshape([b, g]);
                *state = layer.step(gates, state.clone());
                outputs.push(state.hidden.clone());
            }
            x = Tensor::stack(outputs, 1); // [B, T, H]
        }
        (x, states)
    }
}
