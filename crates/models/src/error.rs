/// What can be wrong with a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config is unreadable or asks for what is not understood.
    #[error("config: {place}: expected {expected}, found {found}")]
    Config {
        /// The field.
        place: String,
        /// What would do.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The config is no JSON of the right shape.
    #[error("config: {0}")]
    Json(#[from] serde_json::Error),
    /// The weights do not fill the model.
    #[error(transparent)]
    Weights(#[from] vlm_nn::weights::Error),
    /// The family cannot do this.
    #[error("{family} cannot {task}; {able} can")]
    Unsupported {
        /// The family's name.
        family: &'static str,
        /// What was asked for.
        task: &'static str,
        /// Families that can.
        able: &'static str,
    },
}

/// A config error unless `ok`.
pub(crate) fn expect(
    ok: bool,
    place: &str,
    expected: impl Into<String>,
    found: impl ToString,
) -> Result<(), Error> {
    if ok {
        return Ok(());
    }
    Err(Error::Config {
        place: place.to_owned(),
        expected: expected.into(),
        found: found.to_string(),
    })
}

/// A config error unless all numbers are from 0 to less than `count`.
pub(crate) fn below<'a, T>(
    place: &str,
    numbers: impl IntoIterator<Item = &'a T>,
    count: T,
) -> Result<(), Error>
where
    T: Copy + Default + PartialOrd + ToString + 'a,
{
    let mut numbers = numbers.into_iter();
    let odd = numbers.find(|&&x| x < T::default() || x >= count);
    match odd {
        None => Ok(()),
        Some(odd) => {
            let expected = format!("below {}", count.to_string());
            expect(false, place, expected, odd.to_string())
        }
    }
}
