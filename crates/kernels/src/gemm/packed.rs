//! Weights in the order in which the inner kernels read them, packed once and kept.

use super::{Kernel, MatRef, blocked, with_kernel};
use crate::cpu_features::Precision;
use crate::scratch::AlignedFloats;

/// The weight of a linear layer, packed for [`linear_packed`](super::linear_packed).
///
/// *Memory*: 4 bytes per element in f32 and 2 in bfloat16, rows rounded up to 16 (with AMX to 32, and
/// columns likewise), beside whatever the caller keeps. [`Self::bytes`] says how much.
pub struct PackedWeights {
    kernel: Kernel,
    outputs: usize,
    inputs: usize,
    data: AlignedFloats,
}

impl PackedWeights {
    /// Packs `weight` `[outputs, inputs]` for products in `precision`. Where the processor multiplies
    /// no bfloat16, the result is f32.
    pub fn new(precision: Precision, weight: &[f32], outputs: usize, inputs: usize) -> Self {
        assert_eq!(
            weight.len(),
            outputs * inputs,
            "packed weights: weight is not [{outputs}, {inputs}]"
        );
        let kernel = Kernel::choose(precision);
        let mut data = AlignedFloats::zeros(0);
        if !weight.is_empty() {
            let weight = MatRef::row_major(weight, outputs, inputs).t();
            with_kernel!(kernel, kernel => {
                data = AlignedFloats::zeros(packed_len(kernel, inputs, outputs));
                blocked::pack_b(kernel, weight, data.as_mut_slice(), false);
            });
        }
        Self {
            kernel,
            outputs,
            inputs,
            data,
        }
    }

    /// Whether [`linear_packed`](super::linear_packed) on `rows` rows is faster than
    /// [`linear`](super::linear()), packing left out: for a few rows `f32` weights are read once as they lie.
    pub fn pay_off(precision: Precision, rows: usize) -> bool {
        rows > super::linear::FEW_ROWS || Kernel::choose(precision).halves_weights()
    }

    /// Output features: rows of the weight.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Input features: columns of the weight.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(self.data.as_slice())
    }

    /// `x w^T` and what follows it, for `x` without an extent of 0.
    pub(super) fn product(
        &self,
        x: MatRef,
        out: &mut [f32],
        finish: impl Fn(usize, usize, &mut [f32]) + Sync + Send,
    ) {
        let (packed, n) = (self.data.as_slice(), self.outputs);
        with_kernel!(self.kernel, kernel => {
            blocked::multiply_packed(kernel, x, packed, n, out, false, finish);
        });
    }

    /// What [`blocked::multiply_twice`] takes of a weight and what follows its product.
    fn layer<F>(&self, finish: F) -> blocked::Layer<'_, F> {
        blocked::Layer {
            packed: self.data.as_slice(),
            n: self.outputs,
            finish,
        }
    }

    /// The product of `x` with this weight and of that with `second`, packed for the same precision, and what follows
    /// each; no extent is 0.
    pub(super) fn product_twice(
        &self,
        x: MatRef,
        finish: impl Fn(usize, usize, &mut [f32]) + Sync + Send,
        second: &Self,
        finish_second: impl Fn(usize, usize, &mut [f32]) + Sync + Send,
        out: &mut [f32],
    ) {
        let kernel = |w: &Self| std::mem::discriminant(&w.kernel);
        assert!(
            self.outputs == second.inputs && kernel(self) == kernel(second),
            "{self:?} and {second:?} do not follow each other"
        );
        with_kernel!(self.kernel, kernel => {
            let (first, second) = (self.layer(finish), second.layer(finish_second));
            blocked::multiply_twice(kernel, x, first, second, out);
        });
    }
}

fn packed_len<K: blocked::BlockKernel>(_: K, k: usize, n: usize) -> usize {
    blocked::packed_len::<K>(k, n)
}

impl std::fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedWeights[{}, {}]", self.outputs, self.inputs)
    }
}
