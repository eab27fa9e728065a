//! The momentum model: copies of the encoders that follow them slowly, and queues of what they made of earlier batches.

use super::{Albef, AlbefConfig, AlbefTask, names};
use crate::error::{Error, expect};
use crate::objectives::{l2_normalize, momentum_update, plain};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use vlm_nn::weights::{Checkpoint, Init, Rule, Weights};

/// Vectors of earlier batches, a ring.
#[derive(Module, Debug)]
struct Queue {
    /// `[Q, E]`, unit vectors.
    image: Param<Tensor<2>>,
    /// `[Q, E]`.
    text: Param<Tensor<2>>,
    /// `[Q]`: whose picture it was, where a picture may come with several texts.
    index: Option<Param<Tensor<1>>>,
    /// `[1]`: the place of the next vector.
    next: Param<Tensor<1>>,
}

impl Queue {
    fn new(w: &mut Weights, c: &AlbefConfig) -> Self {
        let shape = [c.queue_size, c.embed_dim];
        Self {
            image: w.param("image", shape, Init::Normal(1.0)),
            text: w.param("text", shape, Init::Normal(1.0)),
            index: (c.task == AlbefTask::Retrieval)
                .then(|| w.param("index", [c.queue_size], Init::Constant(-100.0))),
            next: w.param("next", [1], Init::Zeros),
        }
    }
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.try_to_vec().expect("f32")
}

/// What a batch puts into the queues: unit vectors of the momentum model, without a graph.
#[derive(Clone, Debug)]
pub struct Features {
    /// `[B, E]`.
    pub image: Tensor<2>,
    /// `[B, E]`.
    pub text: Tensor<2>,
    /// Whose picture each is, where that is asked for.
    pub ids: Option<Vec<i64>>,
}

/// A model that follows another, and its queues. A training step is
///
/// ```text
/// momentum = momentum.updated(&model)                       before the forward pass, as the authors do it
/// loss     = model.loss(&batch, Some(&momentum), alpha)?
/// model    = optimizer step
/// momentum = momentum.enqueued(&loss.features)              where there are some
/// ```
///
/// All that it holds are parameters: what `collect` finds in it, [`Self::restored`] takes back.
#[derive(Module, Debug)]
pub struct Momentum {
    model: Albef,
    queue: Option<Queue>,
}

impl Momentum {
    /// A copy of a model, with queues of random unit vectors. It lies on the model's device, without gradients.
    pub fn of(model: &Albef, seed: u64) -> Self {
        let c = model.config();
        let device = model.device().inner();
        let queue = queued(c).then(|| {
            let queue = Queue::new(&mut Weights::random(seed, &device), c);
            let unit = |param: Param<Tensor<2>>| param.map(l2_normalize);
            Queue {
                image: unit(queue.image),
                text: unit(queue.text),
                ..queue
            }
        });
        let model = Albef {
            match_head: None,
            temperature: None,
            ..model.valid()
        };
        Self { model, queue }.no_grad()
    }

    /// The momentum model of a released checkpoint.
    ///
    /// # Errors
    /// Tensors that the model of this config does not have, or that it lacks.
    pub fn from_original(
        config: &AlbefConfig,
        checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<Self, Error> {
        let (checkpoint, tied) = names::translated(names::momentum(checkpoint), config)?;
        Self::filled(config, checkpoint, tied, device)
    }

    /// A momentum model as it was saved, by the names of its parameters.
    ///
    /// # Errors
    /// As [`Self::from_original`].
    pub fn restored(
        config: &AlbefConfig,
        checkpoint: Checkpoint,
        device: &Device,
    ) -> Result<Self, Error> {
        let checkpoint = checkpoint.translated(&[Rule::Name("model.**", "**")]);
        let outputs = ["mlm_head.decoder.weight", "decoder.head.decoder.weight"];
        let tied = !outputs.iter().any(|name| checkpoint.contains(name));
        Self::filled(config, checkpoint, tied, device)
    }

    fn filled(
        c: &AlbefConfig,
        checkpoint: Checkpoint,
        tied: bool,
        device: &Device,
    ) -> Result<Self, Error> {
        let mut w = Weights::from_checkpoint(checkpoint, &device.clone().inner());
        let momentum = Self {
            model: Albef::parts(&mut w, c, tied, true),
            queue: queued(c).then(|| w.scope("queue", |w| Queue::new(w, c))),
        };
        w.finish()?;
        Ok(momentum.no_grad())
    }

    /// The model that follows.
    pub fn model(&self) -> &Albef {
        &self.model
    }

    /// One step towards the model, by the config's `momentum`.
    #[must_use]
    pub fn updated(self, model: &Albef) -> Self {
        let momentum = model.config().momentum;
        Self {
            model: momentum_update(self.model, model, momentum),
            ..self
        }
    }

    /// Vectors of earlier batches: pictures and texts, `[Q, E]` each.
    pub fn queues(&self) -> Option<[Tensor<2>; 2]> {
        let queue = self.queue.as_ref()?;
        Some([queue.image.val(), queue.text.val()])
    }

    /// Whose picture each vector in the queues is, where that is known.
    pub fn ids(&self) -> Option<Vec<i64>> {
        let index = self.queue.as_ref()?.index.as_ref()?;
        Some(numbers(index.val()).into_iter().map(|x| x as i64).collect())
    }

    /// Puts a batch's vectors in the place of the oldest ones.
    ///
    /// # Errors
    /// Ids that are missing for queues that keep them, or that are no whole numbers up to 2^24, which is what a queue can
    /// keep.
    pub fn enqueued(mut self, features: &Features) -> Result<Self, Error> {
        let Some(queue) = self.queue.take() else {
            return Ok(self);
        };
        let [size, e] = queue.image.val().dims();
        let b = features.image.dims()[0];
        // of a batch larger than the queue the last stay
        let (skipped, b) = (b.saturating_sub(size), b.min(size));
        let next = numbers(queue.next.val())[0] as usize % size;
        // a ring: what reaches beyond its end goes on at its beginning
        let first = b.min(size - next);
        let parts = [(next, 0, first), (0, first, b - first)];
        let write = |ring: Param<Tensor<2>>, new: &Tensor<2>| {
            let new = plain(new.clone());
            ring.map(|ring| {
                parts
                    .iter()
                    .fold(ring, |ring, &(at, from, count)| match count {
                        0 => ring,
                        _ => {
                            let new = new.clone().narrow(0, skipped + from, count);
                            ring.slice_assign([at..at + count, 0..e], new)
                        }
                    })
            })
        };
        let device = queue.next.val().device();
        let index = match (queue.index, &features.ids) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(Error::Config {
                    place: "ids".to_owned(),
                    expected: "one for each picture".to_owned(),
                    found: "none".to_owned(),
                });
            }
            (Some(ring), Some(ids)) => {
                let most = 1 << 24;
                let bad = ids.iter().find(|id| !(-most..=most).contains(*id));
                expect(bad.is_none(), "ids", "at most 2^24", bad.unwrap_or(&0))?;
                expect(
                    ids.len() == b + skipped,
                    "ids",
                    (b + skipped).to_string(),
                    ids.len(),
                )?;
                let mut kept = numbers(ring.val());
                for (at, from, count) in parts {
                    for i in 0..count {
                        kept[at + i] = ids[skipped + from + i] as f32;
                    }
                }
                let kept = Tensor::from_data(TensorData::new(kept, [size]), &device);
                Some(ring.map(|_| kept))
            }
        };
        let next = Tensor::from_floats([((next + b) % size) as f32], &device);
        self.queue = Some(Queue {
            image: write(queue.image, &features.image),
            text: write(queue.text, &features.text),
            index,
            next: queue.next.map(|_| next),
        });
        Ok(self)
    }
}

/// Whether a model is trained with queues.
fn queued(c: &AlbefConfig) -> bool {
    c.task.matches_pairs() && c.queue_size > 0
}
