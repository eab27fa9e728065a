//! What `vlm verify` compares: a model's outputs under the names that its reference implementation gives them.
//!
//! A golden file holds the arguments of the reference's forward pass and its results. [`Inputs`] are those arguments
//! by name; a family's [`Reference::outputs`] gives every result that they allow. The names are those of the class
//! that published the model (for example `image_embeds`, `logits_per_image`, `itm_score`, `last_hidden_state`), listed
//! in each family's file.

use crate::capability::Tokens;
use crate::error::{Error, expect};
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The numbers of an input or output.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// Compared within a tolerance.
    Floats(Vec<f32>),
    /// Compared exactly: token ids, sizes, masks, flags.
    Integers(Vec<i64>),
}

/// An input or output with its shape; `numbers` has as many elements as the shape says.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Empty for a single number.
    pub shape: Vec<usize>,
    /// In row-major order.
    pub numbers: Numbers,
}

impl Value {
    /// A tensor's values.
    pub fn floats<const D: usize>(tensor: Tensor<D>) -> Self {
        let shape = tensor.dims().to_vec();
        let data = tensor.into_data().convert::<f32>();
        let numbers = Numbers::Floats(data.try_to_vec().expect("f32"));
        Self { shape, numbers }
    }

    /// Rows of ids, which have one length.
    pub fn ids(rows: &[Vec<u32>]) -> Self {
        Self {
            shape: vec![rows.len(), rows.first().map_or(0, Vec::len)],
            numbers: Numbers::Integers(rows.iter().flatten().map(|&id| i64::from(id)).collect()),
        }
    }
}

/// A shape and as many integers as it says, in row-major order.
pub type Integers<const D: usize> = ([usize; D], Vec<i64>);

/// Arguments of a reference's forward pass; remembers which of them were asked for.
#[derive(Debug, Default)]
pub struct Inputs {
    values: BTreeMap<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl Inputs {
    /// Arguments by name, without the golden file's `in.`.
    pub fn new(values: BTreeMap<String, Value>) -> Self {
        Self {
            values,
            read: RefCell::default(),
        }
    }

    /// The argument `name`, which from now on counts as understood.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let (name, value) = self.values.get_key_value(name)?;
        self.read.borrow_mut().insert(name.clone());
        Some(value)
    }

    /// A tensor of floats; integers are converted.
    ///
    /// # Errors
    /// Another rank than `D`.
    pub fn floats<const D: usize>(
        &self,
        name: &str,
        device: &Device,
    ) -> Result<Option<Tensor<D>>, Error> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let shape = ranked::<D>(name, value)?;
        let numbers = match &value.numbers {
            Numbers::Floats(v) => v.clone(),
            Numbers::Integers(v) => v.iter().map(|&x| x as f32).collect(),
        };
        Ok(Some(Tensor::from_data(
            TensorData::new(numbers, shape),
            device,
        )))
    }

    /// A tensor of integers; floats must be whole.
    ///
    /// # Errors
    /// Another rank than `D`, or a fraction.
    pub fn integers<const D: usize>(&self, name: &str) -> Result<Option<Integers<D>>, Error> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let shape = ranked::<D>(name, value)?;
        Ok(Some((shape, whole(name, value)?)))
    }

    /// Token ids, checked against the vocabulary.
    ///
    /// # Shapes
    /// `[B, T]`.
    ///
    /// # Errors
    /// Another rank, or an id that is negative or not below `vocab_size`.
    pub fn ids(
        &self,
        name: &str,
        vocab_size: usize,
        device: &Device,
    ) -> Result<Option<Tensor<2, Int>>, Error> {
        let Some((shape, ids)) = self.integers::<2>(name)? else {
            return Ok(None);
        };
        let known = |id: &i64| usize::try_from(*id).is_ok_and(|id| id < vocab_size);
        if let Some(bad) = ids.iter().find(|id| !known(id)) {
            expect(
                false,
                name,
                format!("ids from 0 to {}", vocab_size - 1),
                bad,
            )?;
        }
        Ok(Some(Tensor::from_data(TensorData::new(ids, shape), device)))
    }

    /// Rows of integers.
    ///
    /// # Errors
    /// Another rank than two.
    pub fn rows(&self, name: &str) -> Result<Option<Vec<Vec<i64>>>, Error> {
        let rows = self.integers::<2>(name)?.map(|([_, t], values)| {
            let rows = values.chunks(t.max(1)).map(<[i64]>::to_vec);
            rows.collect()
        });
        Ok(rows)
    }

    /// Texts with their mask, the ids checked against the vocabulary; no mask means no padding.
    ///
    /// # Errors
    /// Another rank than two, an id that is negative or not below `vocab_size`, or a mask of another shape.
    pub fn tokens(
        &self,
        name: &str,
        mask: &str,
        vocab_size: usize,
    ) -> Result<Option<Tokens>, Error> {
        let Some(ids) = self.rows(name)? else {
            return Ok(None);
        };
        let known = |id: &&i64| !usize::try_from(**id).is_ok_and(|id| id < vocab_size);
        let bad = ids.iter().flatten().find(known);
        let expected = format!("ids below {vocab_size}");
        expect(bad.is_none(), name, expected, bad.unwrap_or(&0))?;
        let ids = ids
            .iter()
            .map(|row| row.iter().map(|&id| id as u32).collect());
        let seen = |row: &Vec<i64>| row.iter().map(|&x| x != 0).collect();
        let mask = self.rows(mask)?;
        let mask = mask.map(|mask| mask.iter().map(seen).collect());
        Tokens::new(ids.collect(), mask).map(Some)
    }

    /// A flag, given as any single number; `default` if it is not given.
    ///
    /// # Errors
    /// Not one number.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Error> {
        Ok(self.number(name)?.map_or(default, |x| x != 0))
    }

    /// A single integer.
    ///
    /// # Errors
    /// Not one whole number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Error> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let numbers = whole(name, value)?;
        expect(numbers.len() == 1, name, "one number", numbers.len())?;
        Ok(Some(numbers[0]))
    }

    /// Arguments that nobody asked for, which the family does not understand.
    pub fn unread(&self) -> Vec<&str> {
        let read = self.read.borrow();
        let names = self.values.keys().map(String::as_str);
        names.filter(|name| !read.contains(*name)).collect()
    }
}

fn ranked<const D: usize>(name: &str, value: &Value) -> Result<[usize; D], Error> {
    let shape = <[usize; D]>::try_from(value.shape.as_slice()).ok();
    shape.ok_or_else(|| Error::Config {
        place: name.to_owned(),
        expected: format!("{D} dimensions"),
        found: format!("{:?}", value.shape),
    })
}

fn whole(name: &str, value: &Value) -> Result<Vec<i64>, Error> {
    match &value.numbers {
        Numbers::Integers(v) => Ok(v.clone()),
        Numbers::Floats(v) => {
            if let Some(bad) = v.iter().find(|x| x.fract() != 0.0 || !x.is_finite()) {
                expect(false, name, "whole numbers", bad)?;
            }
            Ok(v.iter().map(|&x| x as i64).collect())
        }
    }
}

/// Results by name, without the golden file's `out.`.
pub type Outputs = BTreeMap<String, Value>;

/// Adds a result.
pub(crate) fn put<const D: usize>(outputs: &mut Outputs, name: &str, tensor: Tensor<D>) {
    outputs.insert(name.to_owned(), Value::floats(tensor));
}

/// A model that gives its results under the names of its reference implementation.
pub trait Reference {
    /// Every result that the inputs allow.
    ///
    /// # Errors
    /// Inputs whose shapes or values do not fit the model.
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        let value = |shape: &[usize], numbers| Value {
            shape: shape.to_vec(),
            numbers,
        };
        Inputs::new(BTreeMap::from([
            (
                "input_ids".into(),
                value(&[1, 2], Numbers::Floats(vec![1.0, 7.0])),
            ),
            ("return_loss".into(), value(&[], Numbers::Integers(vec![1]))),
            ("other".into(), value(&[1], Numbers::Floats(vec![0.5]))),
        ]))
    }

    #[test]
    fn what_was_not_asked_for_is_unread() {
        let inputs = inputs();
        assert!(inputs.flag("return_loss", false).unwrap());
        assert!(inputs.flag("absent", true).unwrap());
        assert_eq!(inputs.unread(), ["input_ids", "other"]);
    }

    #[test]
    fn ids_out_of_the_vocabulary_wrong_ranks_and_fractions_are_refused() {
        let (inputs, device) = (inputs(), Device::flex());
        assert!(inputs.ids("input_ids", 8, &device).unwrap().is_some());
        let error = inputs.ids("input_ids", 7, &device).unwrap_err().to_string();
        assert!(error.contains("ids from 0 to 6, found 7"), "{error}");
        let error = inputs.floats::<3>("input_ids", &device).unwrap_err();
        assert!(error.to_string().contains("3 dimensions"), "{error}");
        let error = inputs.number("other").unwrap_err().to_string();
        assert!(error.contains("whole numbers, found 0.5"), "{error}");
    }
}
