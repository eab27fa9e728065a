//! Where parameters come from: a seed, or a checkpoint taken strictly by name.

mod checkpoint;
mod files;
mod names;
mod pickle;
mod pytorch;
mod safetensors;
mod tensor;
mod zip;

pub use self::checkpoint::{Checkpoint, Format, TensorInfo};
pub use self::files::weights_file;
pub use self::names::{Rule, name_fits};
pub use self::safetensors::{StoreDtype, to_bytes};
pub use self::tensor::Dtype;

use crate::random::SplitMix64;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use std::collections::BTreeMap;

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is of no known format, damaged, or asks for what a checkpoint has no need of.
    #[error("{name}: {reason}")]
    Format {
        /// The file, or whatever the caller named the bytes.
        name: String,
        /// Expected and found.
        reason: String,
    },
    /// A file cannot be opened or mapped.
    #[error("{name}: cannot be read: {source}")]
    Io {
        /// The file.
        name: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A directory holds no weights.
    #[error("{directory}: expected weights, found none of {}", looked_for.join(", "))]
    NoWeights {
        /// The directory.
        directory: String,
        /// File names, in the order in which they were looked for.
        looked_for: Vec<String>,
    },
    /// Names or shapes differ from what the model's config asks for.
    #[error("{name}: weights do not match the config\n{}", differences.join("\n"))]
    Mismatch {
        /// The file, or whatever the caller named the bytes.
        name: String,
        /// One line each: `-` asked for and not there, `+` there and not asked for, `!` there and different.
        differences: Vec<String>,
    },
}

fn format_error(name: &str, reason: impl Into<String>) -> Error {
    Error::Format {
        name: name.to_owned(),
        reason: reason.into(),
    }
}

/// How a parameter starts when a model is trained from scratch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All this value.
    Constant(f32),
    /// Normal with this standard deviation, cut at two deviations.
    Normal(f32),
}

impl Init {
    /// The transformer's usual initialisation, deviation 0.02.
    pub const NORMAL: Self = Self::Normal(0.02);

    /// Deviation `inputs^-0.5`, which keeps the variance of what goes through a linear layer.
    pub fn fan_in(inputs: usize) -> Self {
        Self::Normal((inputs as f32).powf(-0.5))
    }
}

enum Source {
    Seed(u64),
    Checkpoint {
        checkpoint: Box<Checkpoint>,
        differences: Vec<String>,
    },
}

/// Hands out the parameters of a model, one by one and by name, as its layers are built.
pub struct Weights {
    device: Device,
    path: Vec<String>,
    source: Source,
}

impl Weights {
    /// Parameters drawn from a seed. Each depends on the seed and its own name only.
    pub fn random(seed: u64, device: &Device) -> Self {
        Self {
            device: device.clone(),
            path: Vec::new(),
            source: Source::Seed(seed),
        }
    }

    /// Parameters of a checkpoint. What does not match is reported by [`Self::finish`].
    pub fn from_checkpoint(checkpoint: Checkpoint, device: &Device) -> Self {
        Self {
            device: device.clone(),
            path: Vec::new(),
            source: Source::Checkpoint {
                checkpoint: Box::new(checkpoint),
                differences: Vec::new(),
            },
        }
    }

    /// Builds a part of the model whose parameter names start with `name.`.
    pub fn scope<T>(&mut self, name: &str, build: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(name.to_owned());
        let part = build(self);
        self.path.pop();
        part
    }

    /// The parameter `name` of the current scope.
    pub fn param<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Param<Tensor<D>> {
        self.path.push(name.to_owned());
        let full = self.path.join(".");
        self.path.pop();
        let (values, shape) = match &mut self.source {
            Source::Seed(seed) => (draw(*seed, &full, shape.iter().product(), init), shape),
            Source::Checkpoint {
                checkpoint,
                differences,
            } => match checkpoint.take(&full, &shape) {
                Ok(values) => (values, shape),
                Err(difference) => {
                    differences.push(difference);
                    // never used, because `finish` refuses the model; empty, because a config may ask for anything
                    (Vec::new(), [0; D])
                }
            },
        };
        Param::from_tensor(Tensor::from_data(
            TensorData::new(values, shape),
            &self.device,
        ))
    }

    /// Ends the building of a model.
    ///
    /// # Errors
    /// Every missing, unused and differently shaped tensor of the checkpoint.
    pub fn finish(self) -> Result<(), Error> {
        let Source::Checkpoint {
            checkpoint,
            mut differences,
        } = self.source
        else {
            return Ok(());
        };
        differences.extend(checkpoint.unused());
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::Mismatch {
            name: checkpoint.name().to_owned(),
            differences,
        })
    }
}

/// FNV-1a, to give each parameter a stream of its own.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn draw(seed: u64, name: &str, count: usize, init: Init) -> Vec<f32> {
    let deviation = match init {
        Init::Zeros => return vec![0.0; count],
        Init::Ones => return vec![1.0; count],
        Init::Constant(value) => return vec![value; count],
        Init::Normal(deviation) => deviation,
    };
    let mut rng = SplitMix64::new(seed ^ hash(name));
    (0..count)
        .map(|_| {
            loop {
                let z = rng.normal();
                if z.abs() <= 2.0 {
                    break z as f32 * deviation;
                }
            }
        })
        .collect()
}

/// Collects the parameters of a module under their full names.
struct Collect<F> {
    path: Vec<String>,
    each: F,
}

impl<F: FnMut(String, Vec<usize>, TensorData)> ModuleVisitor for Collect<F> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        (self.each)(
            self.path.join("."),
            tensor.dims().to_vec(),
            tensor.into_data(),
        );
    }
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
}

/// All parameters of a module by name, as f32.
pub fn collect<M: Module>(module: &M) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut all = BTreeMap::new();
    let mut visitor = Collect {
        path: Vec::new(),
        each: |name, shape, data: TensorData| {
            let values = data.convert::<f32>().try_to_vec().expect("f32 parameter");
            all.insert(name, (shape, values));
        },
    };
    module.visit(&mut visitor);
    all
}

/// The number of parameters of a module; the running statistics of batch norms are none.
pub fn count<M: Module>(module: &M) -> usize {
    struct Count {
        name: String,
        total: usize,
    }
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !self.name.starts_with("running_") {
                self.total += param.val().dims().iter().product::<usize>();
            }
        }
        fn enter_module(&mut self, name: &str, _container: &str) {
            name.clone_into(&mut self.name);
        }
    }
    let mut count = Count {
        name: String::new(),
        total: 0,
    };
    module.visit(&mut count);
    count.total
}
