//! Micro-batches side by side.
//!
//! The batches of one optimizer step do not depend on each other, so each is computed by a worker with its own
//! replica of the model and its own few threads. Small models gain much: an operation on a whole batch that is
//! shared by all threads spends a quarter of its time on waking them and waiting for the last. Gradients are added in the
//! order of the batches, so the number of threads does not change the result.
//!
//! With *gradient caching* (Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", 2021)
//! the batches of a step are one batch of a contrastive loss: their vectors are computed without a graph, then the loss of
//! them all and its gradient for each vector, then batch by batch once more with a graph, which these gradients go
//! into. The gradient is that of the large batch; the memory is that of a small one.

use crate::Error;
use crate::learner::{Contrastive, Learner, Losses};
use crate::optimizer::Accumulated;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use rayon::ThreadPool;
use rayon::ThreadPoolBuilder;
use std::collections::BTreeSet;

/// The parts of a loss, averaged over the batches of a step.
#[derive(Clone, Debug, Default)]
pub struct LossParts {
    /// The weighted sum, which is minimised.
    pub total: f64,
    /// The parts by name, in the order of the family.
    pub parts: Vec<(&'static str, Option<f64>)>,
}

/// Threads that compute the gradients of a step.
pub struct Workers {
    pools: Vec<ThreadPool>,
}

/// Gives every parameter that is to be learned a leaf of its own in the autodiff graph, over the same values.
struct Replicate<'a> {
    path: Vec<String>,
    frozen: &'a BTreeSet<String>,
}

impl ModuleMapper for Replicate<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let leaf = Tensor::from_inner(tensor.inner());
        let leaf = match self.frozen.contains(&self.path.join(".")) {
            true => leaf,
            false => leaf.require_grad(),
        };
        Param::from_mapped_value(id, leaf, mapper)
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

fn replica<M: Module>(model: &M, frozen: &BTreeSet<String>) -> M {
    model.clone().map(&mut Replicate {
        path: Vec::new(),
        frozen,
    })
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

    /// What `work` makes of each item, in their order, by all workers; each has a replica of the model.
    fn each<M: Module, T: Sync, R: Send>(
        &self,
        replicas: impl Fn() -> M,
        items: &[T],
        work: impl Fn(&M, usize, &T) -> Result<R, Error> + Sync,
    ) -> Result<Vec<R>, Error> {
        let mut results: Vec<Option<Result<R, Error>>> = Vec::new();
        results.resize_with(items.len(), || None);
        let share = items.len().div_ceil(self.pools.len()).max(1);
        let shares = results.chunks_mut(share).zip(items.chunks(share));
        std::thread::scope(|scope| {
            for (i, (pool, (results, items))) in self.pools.iter().zip(shares).enumerate() {
                let (model, work) = (replicas(), &work);
                scope.spawn(move || {
                    pool.install(move || {
                        for (j, (result, item)) in results.iter_mut().zip(items).enumerate() {
                            *result = Some(work(&model, i * share + j, item));
                        }
                    });
                });
            }
        });
        results.into_iter().flatten().collect()
    }

    /// The mean loss of the batches, and the sum of their gradients.
    pub fn gradients<L: Learner>(
        &self,
        learner: &L,
        model: &L::Model,
        frozen: &BTreeSet<String>,
        batches: &[L::Batch],
        device: &Device,
    ) -> Result<(LossParts, Accumulated), Error> {
        let results = self.each(
            || replica(model, frozen),
            batches,
            |replica, _, batch| {
                let losses = learner.loss(replica, batch, device)?;
                let mut grads = Accumulated::default();
                grads.add(replica, &losses.total.backward(), frozen);
                Ok((LossParts::of(&losses), grads))
            },
        )?;
        let share = 1.0 / batches.len() as f64;
        let (mut parts, mut sum) = (LossParts::default(), Accumulated::default());
        for (loss, grads) in results {
            parts.add(&loss, share);
            sum.merge(grads);
        }
        Ok((parts, sum))
    }

    /// The contrastive loss of all batches as one, and its gradient.
    pub fn cached_gradients<L: Learner>(
        &self,
        contrastive: &dyn Contrastive<L::Model, L::Batch>,
        model: &L::Model,
        frozen: &BTreeSet<String>,
        batches: &[L::Batch],
        device: &Device,
    ) -> Result<(LossParts, Accumulated), Error> {
        let inner = device.clone().inner();
        let vectors = self.each(
            || model.valid(),
            batches,
            |model, _, batch| contrastive.vectors(model, batch, &inner),
        )?;
        let kinds = vectors.first().map_or(0, Vec::len);
        let leaves: Vec<Tensor<2>> = (0..kinds)
            .map(|kind| {
                let rows = vectors.iter().map(|v| v[kind].clone()).collect();
                Tensor::from_inner(Tensor::cat(rows, 0)).require_grad()
            })
            .collect();
        // what the loss itself has parameters for, such as the temperature
        let whole = replica(model, frozen);
        let losses = contrastive.contrast(&whole, leaves.clone())?;
        let parts = LossParts::of(&losses);
        let grads = losses.total.backward();
        let mut sum = Accumulated::default();
        sum.add(&whole, &grads, frozen);
        let gradients: Vec<Tensor<2>> = leaves
            .iter()
            .map(|leaf| leaf.grad(&grads).expect("the loss depends on each vector"))
            .collect();
        let mut begins = vec![0];
        for rows in vectors.iter().map(|v| v[0].dims()[0]) {
            begins.push(begins[begins.len() - 1] + rows);
        }
        let results = self.each(
            || replica(model, frozen),
            batches,
            |replica, i, batch| {
                let vectors = contrastive.vectors(replica, batch, device)?;
                let (begin, rows) = (begins[i], begins[i + 1] - begins[i]);
                let products = vectors.into_iter().zip(&gradients).map(|(v, gradient)| {
                    let gradient = gradient.clone().narrow(0, begin, rows);
                    (v * Tensor::from_inner(gradient)).sum()
                });
                let surrogate = products.reduce(|a, b| a + b).expect("one vector or more");
                let mut grads = Accumulated::default();
                grads.add(replica, &surrogate.backward(), frozen);
                Ok(grads)
            },
        )?;
        for grads in results {
            sum.merge(grads);
        }
        Ok((parts, sum))
    }
}

impl LossParts {
    fn of(losses: &Losses) -> Self {
        let scalar = |t: &Tensor<1>| f64::from(t.clone().into_scalar::<f32>());
        let parts = losses.parts.iter();
        Self {
            total: scalar(&losses.total),
            parts: parts
                .map(|(name, part)| (*name, part.as_ref().map(scalar)))
                .collect(),
        }
    }

    fn add(&mut self, other: &Self, share: f64) {
        self.total += share * other.total;
        for &(name, value) in &other.parts {
            let value = value.map(|value| share * value);
            match self.parts.iter_mut().find(|(known, _)| *known == name) {
                None => self.parts.push((name, value)),
                Some((_, sum)) => {
                    if let Some(value) = value {
                        *sum = Some(sum.unwrap_or(0.0) + value);
                    }
                }
            }
        }
    }
}
