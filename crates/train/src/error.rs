use std::path::PathBuf;

/// What can go wrong in training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe is unreadable or asks for what is not understood.
    #[error("{}: {reason}", path.display())]
    Recipe {
        /// The recipe.
        path: PathBuf,
        /// Place, expected, found.
        reason: String,
    },
    /// A file or directory of the run.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried, and what happened.
        reason: String,
    },
    /// The loss is no number any more.
    #[error(
        "step {step}: expected a finite loss, found {loss}; the last checkpoint is kept, lower the learning rate"
    )]
    Diverged {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f64,
    },
    /// The training data.
    #[error(transparent)]
    World(#[from] vlm_worlds::Error),
    /// Preparing data.
    #[error(transparent)]
    Data(#[from] vlm_data::Error),
    /// The model.
    #[error(transparent)]
    Model(#[from] vlm_models::Error),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] vlm_nn::weights::Error),
    /// Evaluation.
    #[error(transparent)]
    Task(#[from] vlm_tasks::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            reason: reason.into(),
        }
    }
}
