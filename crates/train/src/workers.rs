//! Micro-batches side by side.
//!
//! The batches of one optimizer step do not depend on each other, so each is computed by a worker with its own
//! replica of the model and its own few threads. Small models gain much: an operation on a whole batch that is
//! shared by all threads spends a quarter of its time on waking them and waiting for the last. Gradients are added in the
//! order of the batches, so the number of threads does not change the result.

use crate::Error;
use crate::batches::HostBatch;
use crate::optimizer::Accumulated;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use rayon::ThreadPool;
use rayon::ThreadPoolBuilder;
use vlm_models::families::coca::Coca;

/// The parts of a loss, averaged over the batches of a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossParts {
    /// The weighted sum, which is minimised.
    pub total: f64,
    /// Language modelling of captions.
    pub caption: f64,
    /// Language modelling of answers.
    pub answer: Option<f64>,
    /// Language modelling of questions.
    pub question: Option<f64>,
    /// Image-text contrast.
    pub itc: f64,
    /// Patch labels.
    pub token_label: Option<f64>,
}

/// Threads that compute the gradients of a step.
pub struct Workers {
    pools: Vec<ThreadPool>,
}

/// Gives every parameter a leaf of its own in the autodiff graph, over the same values.
struct Replicate;

impl ModuleMapper for Replicate {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let leaf = Tensor::from_inner(tensor.inner()).require_grad();
        Param::from_mapped_value(id, leaf, mapper)
    }
}

impl Workers {
    /// Workers for steps of `batches` batches, which share out the threads of the process.
    ///
    /// # Errors
    /// Threads that the system refuses.
    pub fn new(batches: usize) -> Result<Self, Error> {
        let threads = rayon::current_num_threads();
        let workers = batches.min(threads).max(1);
        let pools = (0..workers)
            .map(|_| {
                ThreadPoolBuilder::new()
                    .num_threads(threads / workers)
                    .build()
                    .map_err(|e| Error::file("threads", format!("cannot be started: {e}")))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { pools })
    }

    /// The mean loss of the batches, and the sum of their gradients.
    pub fn gradients(
        &self,
        model: &Coca,
        batches: &[HostBatch],
        device: &Device,
    ) -> (LossParts, Accumulated) {
        let mut results: Vec<Option<(LossParts, Accumulated)>> = Vec::new();
        results.resize_with(batches.len(), || None);
        let shares = results.chunks_mut(batches.len().div_ceil(self.pools.len()).max(1));
        let inputs = batches.chunks(batches.len().div_ceil(self.pools.len()).max(1));
        std::thread::scope(|scope| {
            for ((pool, results), batches) in self.pools.iter().zip(shares).zip(inputs) {
                let replica = model.clone().map(&mut Replicate);
                scope.spawn(move || {
                    pool.install(|| {
                        for (result, batch) in results.iter_mut().zip(batches) {
                            *result = Some(one(&replica, batch, device));
                        }
                    });
                });
            }
        });
        let share = 1.0 / batches.len() as f64;
        let (mut parts, mut sum) = (LossParts::default(), Accumulated::default());
        for (loss, grads) in results.into_iter().flatten() {
            parts.add(&loss, share);
            sum.merge(grads);
        }
        (parts, sum)
    }
}

impl LossParts {
    fn add(&mut self, other: &Self, share: f64) {
        let add = |sum: &mut Option<f64>, value: Option<f64>| {
            if let Some(value) = value {
                *sum = Some(sum.unwrap_or(0.0) + share * value);
            }
        };
        self.total += share * other.total;
        self.caption += share * other.caption;
        self.itc += share * other.itc;
        add(&mut self.answer, other.answer);
        add(&mut self.question, other.question);
        add(&mut self.token_label, other.token_label);
    }
}

fn one(model: &Coca, batch: &HostBatch, device: &Device) -> (LossParts, Accumulated) {
    let losses = model.loss(batch.to_device(device));
    let scalar = |t: &Tensor<1>| f64::from(t.clone().into_scalar::<f32>());
    let parts = LossParts {
        total: scalar(&losses.total),
        caption: scalar(&losses.caption),
        answer: losses.answer.as_ref().map(scalar),
        question: losses.question.as_ref().map(scalar),
        itc: scalar(&losses.itc),
        token_label: losses.token_label.as_ref().map(scalar),
    };
    let mut grads = Accumulated::default();
    grads.add(model, &losses.total.backward());
    (parts, grads)
}
