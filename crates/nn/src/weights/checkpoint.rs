//! The tensors of a checkpoint, by name, each of which can be taken once.

use super::Error;
use super::names;
use super::tensor::{Dtype, Tensor, elements};
use crate::position::{Interpolation, interpolate, square_side};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};

/// How a checkpoint was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// <https://github.com/huggingface/safetensors>, one file or shards.
    Safetensors,
    /// `torch.save` since PyTorch 1.6: a zip archive.
    PyTorch,
    /// `torch.save` before PyTorch 1.6: pickles and numbers one after the other.
    PyTorchLegacy,
    /// `torch.jit.save`: a zip archive of modules with their code, which is not run.
    TorchScript,
}

impl Format {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::PyTorch => "PyTorch",
            Self::PyTorchLegacy => "PyTorch (before 1.6)",
            Self::TorchScript => "TorchScript",
        }
    }
}

/// What is known of a tensor without reading its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorInfo<'a> {
    /// The name, translated if the checkpoint is.
    pub name: &'a str,
    /// Extents, slowest first; none for a scalar.
    pub shape: &'a [usize],
    /// Number type in the file.
    pub dtype: Dtype,
    /// Size in the file, if its numbers are stored for it alone.
    pub bytes: usize,
}

/// The tensors of a checkpoint, each of which can be taken once.
///
/// Opening one reads its names and shapes. The numbers stay where they are, in the mapped file, and are converted to
/// `f32` when a tensor is taken: loading a model needs the file's pages, which the system may drop again, and the
/// model's parameters, and nothing else.
#[derive(Clone)]
pub struct Checkpoint {
    pub(super) name: String,
    pub(super) format: Format,
    pub(super) tensors: BTreeMap<String, Tensor>,
    pub(super) ignored: BTreeMap<String, Tensor>,
    pub(super) metadata: HashMap<String, String>,
    pub(super) extra: Map<String, Value>,
}

fn info<'a>((name, tensor): (&'a String, &'a Tensor)) -> TensorInfo<'a> {
    TensorInfo {
        name,
        shape: &tensor.shape,
        dtype: tensor.dtype(),
        bytes: tensor.count() * tensor.dtype().size(),
    }
}

impl Checkpoint {
    pub(super) fn new(name: &str, format: Format, tensors: BTreeMap<String, Tensor>) -> Self {
        Self {
            name: name.to_owned(),
            format,
            tensors,
            ignored: BTreeMap::new(),
            metadata: HashMap::new(),
            extra: Map::new(),
        }
    }

    /// Adds the tensors of another file of the same model.
    pub(super) fn join(&mut self, other: Self) -> Result<(), Error> {
        for (name, tensor) in other.tensors {
            if self.tensors.contains_key(&name) {
                return Err(Error::Format {
                    name: other.name,
                    reason: format!("{name}: expected in one shard, found in two"),
                });
            }
            self.tensors.insert(name, tensor);
        }
        self.metadata.extend(other.metadata);
        self.extra.extend(other.extra);
        Ok(())
    }

    /// With the tensors of another file of the same model.
    ///
    /// # Errors
    /// A name that both have.
    pub fn joined(mut self, other: Self) -> Result<Self, Error> {
        self.join(other)?;
        Ok(self)
    }

    /// What the checkpoint is called in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the file is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The string map of a safetensors file's header.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// What a PyTorch checkpoint holds beside tensors, such as `epoch` or `config`; objects are given by their class or
    /// their fields, and what is too large is left out.
    pub fn extra(&self) -> &Map<String, Value> {
        &self.extra
    }

    /// Every tensor that nobody took or ignored, in the order of names.
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.tensors.iter().map(info)
    }

    /// Every tensor that is of no use to the model, in the order of names.
    pub fn ignored(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.ignored.iter().map(info)
    }

    /// Whether there is such a tensor that nobody took.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The extents of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    /// Takes a tensor out; the error is one line of the difference to what the model asks for.
    ///
    /// # Errors
    /// It is not there, has another shape or is no float, or a number of it is not finite.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        match self.tensors.get(name) {
            None => return Err(format!("- {name} {shape:?}")),
            Some(found) if found.shape != shape => {
                let found = self.tensors.remove(name).expect("just found").shape;
                return Err(format!("! {name}: expected {shape:?}, found {found:?}"));
            }
            Some(_) => {}
        }
        self.take_any(name).map(|(_, values)| values)
    }

    /// [`Self::take`] whatever the shape, which comes with the values.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_any(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>), String> {
        self.taken(name, Tensor::floats)
    }

    /// Takes a tensor of integers or flags.
    ///
    /// # Errors
    /// It is not there or holds no integers.
    pub fn take_integers(&mut self, name: &str) -> Result<(Vec<usize>, Vec<i64>), String> {
        self.taken(name, Tensor::integers)
    }

    /// Takes a tensor of `U8`, such as the bytes of a file.
    ///
    /// # Errors
    /// It is not there or holds something else.
    pub fn take_bytes(&mut self, name: &str) -> Result<Vec<u8>, String> {
        self.taken(name, Tensor::bytes).map(|(_, bytes)| bytes)
    }

    fn taken<T>(
        &mut self,
        name: &str,
        read: impl Fn(&Tensor) -> Result<Vec<T>, String>,
    ) -> Result<(Vec<usize>, Vec<T>), String> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(format!("- {name}"));
        };
        match read(&tensor) {
            Ok(values) => Ok((tensor.shape, values)),
            Err(reason) => Err(format!("! {name}: {reason}")),
        }
    }

    /// Puts a tensor in, or another in its place: an interpolated table for the stored one.
    ///
    /// # Panics
    /// If there are not as many values as the shape has places.
    pub fn insert(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        assert_eq!(elements(shape), Some(values.len()), "{name} {shape:?}");
        let tensor = Tensor::computed(shape.to_vec(), values);
        self.tensors.insert(name.to_owned(), tensor);
    }

    /// Sets tensors aside that the model has no use for, such as `**.position_ids`, and tells how many.
    ///
    /// In the pattern `*` stands for any part of a name between dots, or for some of its letters, and `**` for any
    /// number of parts, none included.
    pub fn ignore(&mut self, pattern: &str) -> usize {
        let fits = |name: &String, _: &mut Tensor| names::captures(pattern, name).is_some();
        let before = self.ignored.len();
        self.ignored.extend(self.tensors.extract_if(.., fits));
        self.ignored.len() - before
    }

    /// Sets a tensor aside if it repeats another, as a tied output projection repeats the embedding; tells whether it
    /// was.
    ///
    /// That both are the same is looked up, not assumed: a copy that was trained further stays, to be reported as unused.
    pub fn ignore_copy(&mut self, name: &str, of: &str) -> bool {
        let (Some(a), Some(b)) = (self.tensors.get(name), self.tensors.get(of)) else {
            return false;
        };
        let equal = || matches!((a.floats(), b.floats()), (Ok(a), Ok(b)) if a == b);
        let same = a.shape == b.shape && (a.same_place(b) || equal());
        if same && let Some((name, tensor)) = self.tensors.remove_entry(name) {
            self.ignored.insert(name, tensor);
        }
        same
    }

    /// Takes a prefix off every name, if all have it: `module.` of data-parallel training. Tells whether they had.
    pub fn strip_prefix(&mut self, prefix: &str) -> bool {
        let all = |names: &BTreeMap<String, Tensor>| names.keys().all(|n| n.starts_with(prefix));
        if self.tensors.is_empty() || !all(&self.tensors) {
            return false;
        }
        let old = std::mem::take(&mut self.tensors);
        let stripped = old
            .into_iter()
            .map(|(n, t)| (n[prefix.len()..].to_owned(), t));
        self.tensors = stripped.collect();
        true
    }

    /// Brings a table of learned positions to another grid of patches, as the originals do when they load a checkpoint of
    /// another resolution; tells whether it had to. A table that is not there is left to be reported as missing.
    ///
    /// # Shapes
    /// `[kept + side * side, D]`, or with leading ones, to `[kept + grid.0 * grid.1, D]`, of which the `kept` first rows
    /// (class tokens) stay as they are.
    ///
    /// # Errors
    /// A table whose places are no square, or a grid beyond 2^20 places.
    pub fn interpolate_positions(
        &mut self,
        name: &str,
        kept: usize,
        grid: (usize, usize),
        mode: Interpolation,
        antialias: bool,
    ) -> Result<bool, Error> {
        let mismatch = |difference: String| Error::Mismatch {
            name: self.name.clone(),
            differences: vec![difference],
        };
        let Some(tensor) = self.tensors.get(name) else {
            return Ok(false);
        };
        let mut shape = tensor.shape.clone();
        let wrong = || {
            mismatch(format!(
                "! {name}: expected {kept} rows and a square of others for a grid of {} x {}, found {:?}",
                grid.0, grid.1, tensor.shape
            ))
        };
        let places = grid.0.checked_mul(grid.1);
        let places = places
            .filter(|p| (1..=1 << 20).contains(p))
            .ok_or_else(wrong)?;
        let (&mut [.., ref mut rows, width], true) = (&mut shape[..], tensor.shape.len() >= 2)
        else {
            return Err(wrong());
        };
        // as the originals decide it: so many rows fit, whatever grid they were trained on
        if *rows == kept + places {
            return Ok(false);
        }
        let leading = tensor.count() == *rows * width;
        let side = rows.checked_sub(kept).and_then(square_side);
        let side = side.filter(|&side| side > 0 && leading).ok_or_else(wrong)?;
        *rows = kept + places;
        let values = tensor
            .floats()
            .map_err(|e| mismatch(format!("! {name}: {e}")))?;
        let values = interpolate(&values, width, kept, (side, side), grid, mode, antialias);
        self.insert(name, &shape, values);
        Ok(true)
    }

    /// One line for each tensor that nobody took.
    pub fn unused(&self) -> impl Iterator<Item = String> {
        self.tensors
            .iter()
            .map(|(name, tensor)| format!("+ {name} {:?}", tensor.shape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{StoreDtype, to_bytes};
    use Interpolation::Bilinear;

    fn positions(shape: &[usize]) -> Checkpoint {
        let values = (0..shape.iter().product::<usize>()).map(|i| i as f32);
        let table = (shape.to_vec(), values.collect());
        let bytes = to_bytes(&[("p".to_owned(), table)].into(), StoreDtype::F32, None);
        Checkpoint::parse(&bytes.unwrap(), "x").unwrap()
    }

    #[test]
    fn a_position_table_follows_the_resolution_and_keeps_class_tokens_and_leading_ones() {
        for (leading, kept) in [(&[][..], 0), (&[1][..], 1)] {
            let shape = |rows: usize| [leading, &[kept + rows, 2]].concat();
            let mut c = positions(&shape(4));
            let same = c.interpolate_positions("p", kept, (2, 2), Bilinear, false);
            assert!(!same.unwrap());
            let other = c.interpolate_positions("p", kept, (1, 3), Bilinear, false);
            assert!(other.unwrap());
            let values = c.take("p", &shape(3)).unwrap();
            let begin = 2.0 * kept as f32;
            assert_eq!(values[..2 * kept], [0.0, 1.0][..2 * kept]);
            // the mean of both rows at the first, both and the last column
            assert_eq!(values[2 * kept], begin + 2.0);
            assert_eq!(values[2 * kept + 2], begin + 3.0);
            assert_eq!(values[2 * kept + 4], begin + 4.0);
        }
    }

    #[test]
    fn tables_that_are_no_square_and_absurd_grids_are_refused_by_name() {
        for (shape, grid) in [
            (&[5, 2][..], (3, 3)),
            (&[4][..], (3, 3)),
            (&[2, 4, 2][..], (3, 3)),
            (&[0, 2][..], (3, 3)),
            (&[4, 2][..], (1 << 40, 1 << 40)),
            (&[4, 2][..], (0, 3)),
        ] {
            let found = positions(shape).interpolate_positions("p", 0, grid, Bilinear, false);
            let error = found.expect_err("refused").to_string();
            assert!(
                error.contains("! p: expected 0 rows and a square"),
                "{error}"
            );
        }
        let mut c = positions(&[4, 2]);
        assert!(
            !c.interpolate_positions("q", 0, (3, 3), Bilinear, false)
                .unwrap()
        );
    }
}
