//! What a model's files hold, and what is wrong with them.

use crate::{Error, Layout, ModelFiles, Vlm, builtin};
use burn::tensor::Device;
use std::collections::BTreeMap;
use vlm_models::families::{Model, PictureSize, TextSize};
use vlm_nn::weights::{Checkpoint, Dtype};

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// The published name.
    pub name: String,
    /// Extents, slowest first.
    pub shape: Vec<usize>,
    /// Number type in the file.
    pub dtype: Dtype,
}

impl StoredTensor {
    /// Numbers.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// How many tensors and parameters something has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Tensors.
    pub tensors: usize,
    /// Their numbers.
    pub parameters: usize,
}

/// Bytes of all parameters in a kind of storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Four bytes each.
    pub f32: usize,
    /// Two bytes each.
    pub bf16: usize,
    /// One byte for each number of a matrix, four for the rest and for a scale of each row.
    pub int8: usize,
}

/// What is known of a model that could be loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// As in `model_type`.
    pub family: &'static str,
    /// What pictures must be.
    pub pictures: PictureSize,
    /// What texts must be.
    pub texts: TextSize,
    /// Commands that it works with, as far as the family goes.
    pub can: Vec<&'static str>,
    /// Parameters of the network; a checkpoint may hold more or repeat some.
    pub parameters: usize,
}

/// What a model's files hold, and what is wrong with them.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What the model is called.
    pub name: String,
    /// Who wrote the files.
    pub layout: Layout,
    /// The kind of file that holds the weights.
    pub format: &'static str,
    /// Every tensor of the checkpoint, in the order of names.
    pub tensors: Vec<StoredTensor>,
    /// The network, where it could be loaded.
    pub loaded: Option<Loaded>,
    /// Tensors that the config asks for and that are not there, each with its shape.
    pub missing: Vec<String>,
    /// Tensors that the model has no place for, each with its shape.
    pub unused: Vec<String>,
    /// Tensors of another shape than the config asks for, or with numbers that are none.
    pub different: Vec<String>,
    /// Whether there is a vocabulary.
    pub has_tokenizer: bool,
    /// Whether it is known what is done to pictures.
    pub has_processor: bool,
    /// What else is wrong, one message each.
    pub problems: Vec<String>,
}

/// Commands that a model works with, as far as its family goes.
pub fn abilities(model: &Model) -> Vec<&'static str> {
    let embeds = model.embed_image().is_ok() && model.embed_text().is_ok();
    let asks = model.captioner_answers()
        || model.answer_question().is_ok()
        || model.classify_answer().is_ok();
    let abilities = [
        ("caption", model.generate().is_ok()),
        ("ask", asks),
        ("classify", embeds),
        ("match", embeds || model.score_pair().is_ok()),
        ("judge", model.judge_text().is_ok()),
        (
            "embed",
            model.embed_image().is_ok() || model.embed_text().is_ok(),
        ),
        ("detect", model.detect().is_ok()),
        ("verify", model.reference().is_ok()),
    ];
    let able = abilities.iter().filter(|a| a.1);
    able.map(|a| a.0).collect()
}

impl Inspection {
    /// Looks into a model's files. What does not fit is part of the result.
    ///
    /// # Errors
    /// No weights, or a file of weights that cannot be read or is damaged.
    pub fn of_files(files: &ModelFiles) -> Result<Self, Error> {
        let checkpoint = files.checkpoint()?;
        let mut inspection = Self::of(files.name(), files.layout(), &checkpoint);
        match files.model(&Device::flex()) {
            Ok(model) => {
                let text = files.text(&model);
                let processor = files.processor(&model);
                inspection.has_tokenizer = matches!(text, Ok(Ok(_)));
                inspection.has_processor = matches!(processor, Ok(Ok(_)));
                let names = files.class_names(&model);
                let problems = [text.err(), processor.err(), names.err()];
                let problems = problems.iter().flatten().map(Error::to_string);
                inspection.problems.extend(problems);
                inspection.load(&model);
            }
            Err(error) => inspection.refuse(&error),
        }
        Ok(inspection)
    }

    /// Looks into the built-in model.
    ///
    /// # Errors
    /// None with the files that belong to this version of the program.
    pub fn of_builtin() -> Result<Self, Error> {
        let vlm = Vlm::builtin()?;
        let checkpoint = builtin::checkpoint()?;
        let mut inspection = Self::of(vlm.name(), Layout::HuggingFace, &checkpoint);
        inspection.has_tokenizer = true;
        inspection.has_processor = true;
        inspection.load(vlm.model());
        Ok(inspection)
    }

    fn of(name: &str, layout: Layout, checkpoint: &Checkpoint) -> Self {
        let tensors = checkpoint.tensors().map(|tensor| StoredTensor {
            name: tensor.name.to_owned(),
            shape: tensor.shape.to_vec(),
            dtype: tensor.dtype,
        });
        Self {
            name: name.to_owned(),
            layout,
            format: checkpoint.format().name(),
            tensors: tensors.collect(),
            loaded: None,
            missing: Vec::new(),
            unused: Vec::new(),
            different: Vec::new(),
            has_tokenizer: false,
            has_processor: false,
            problems: Vec::new(),
        }
    }

    fn load(&mut self, model: &Model) {
        self.loaded = Some(Loaded {
            family: model.family(),
            pictures: model.pictures(),
            texts: model.texts(),
            can: abilities(model),
            parameters: model.parameters(),
        });
    }

    fn refuse(&mut self, error: &Error) {
        use vlm_nn::weights::Error as Weights;
        let Error::Capability(vlm_models::Error::Weights(Weights::Mismatch {
            differences, ..
        })) = error
        else {
            self.problems.push(error.to_string());
            return;
        };
        for line in differences {
            let (list, rest) = match line.split_at_checked(2) {
                Some(("- ", rest)) => (&mut self.missing, rest),
                Some(("+ ", rest)) => (&mut self.unused, rest),
                Some(("! ", rest)) => (&mut self.different, rest),
                _ => (&mut self.problems, line.as_str()),
            };
            list.push(rest.to_owned());
        }
    }

    /// Whether the model can be used.
    pub fn is_sound(&self) -> bool {
        self.loaded.is_some() && self.problems.is_empty()
    }

    /// Tensors of each part and the floats in them: the first part of the names in which they differ.
    pub fn parts(&self) -> BTreeMap<&str, Share> {
        let first = |name: &str| name.split('.').next().map_or(0, str::len);
        // `model.` or `module.` around everything says nothing
        let mut skip = 0;
        while let Some(tensor) = self.tensors.first() {
            let rest = &tensor.name[skip..];
            let end = skip + first(rest) + 1;
            let common = tensor.name.get(..end);
            let shared =
                |t: &StoredTensor| t.name.get(..end) == common && t.name[end..].contains('.');
            if common.is_none() || !self.tensors.iter().all(shared) {
                break;
            }
            skip = end;
        }
        let mut parts: BTreeMap<&str, Share> = BTreeMap::new();
        for tensor in &self.tensors {
            let rest = &tensor.name[skip..];
            let part = parts.entry(&rest[..first(rest)]).or_default();
            part.tensors += 1;
            if !tensor.dtype.is_integer() {
                part.parameters += tensor.count();
            }
        }
        parts
    }

    /// Tensors and numbers of each number type.
    pub fn dtypes(&self) -> BTreeMap<&'static str, Share> {
        let mut dtypes: BTreeMap<&str, Share> = BTreeMap::new();
        for tensor in &self.tensors {
            dtypes.entry(tensor.dtype.name()).or_default().add(tensor);
        }
        dtypes
    }

    /// All tensors that hold floats.
    pub fn total(&self) -> Share {
        let mut total = Share::default();
        let floats = self.tensors.iter().filter(|t| !t.dtype.is_integer());
        floats.for_each(|tensor| total.add(tensor));
        total
    }

    /// Bytes that the checkpoint's parameters take in memory.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for tensor in self.tensors.iter().filter(|t| !t.dtype.is_integer()) {
            let count = tensor.count();
            memory.f32 += 4 * count;
            memory.bf16 += 2 * count;
            memory.int8 += match tensor.shape.as_slice() {
                [rows, _, ..] => count + 4 * rows,
                _ => 4 * count,
            };
        }
        memory
    }
}

impl Share {
    fn add(&mut self, tensor: &StoredTensor) {
        self.tensors += 1;
        self.parameters += tensor.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspection(names: &[(&str, &[usize])]) -> Inspection {
        let mut inspection = Inspection::of_builtin().unwrap();
        inspection.tensors = names
            .iter()
            .map(|(name, shape)| StoredTensor {
                name: (*name).to_owned(),
                shape: shape.to_vec(),
                dtype: Dtype::F32,
            })
            .collect();
        inspection
    }

    #[test]
    fn parts_are_where_names_first_differ() {
        let sizes = |names: &[(&str, &[usize])]| {
            let inspection = inspection(names);
            let parts = inspection.parts();
            let size = |(name, share): (&&str, &Share)| (name.to_string(), share.parameters);
            parts.iter().map(size).collect::<Vec<_>>()
        };
        let all = |names: &[(&str, usize)]| {
            let owned = names.iter().map(|(name, size)| (name.to_string(), *size));
            owned.collect::<Vec<_>>()
        };
        assert_eq!(
            sizes(&[("m.v.a", &[2]), ("m.v.b", &[2, 3]), ("m.t.a", &[1])]),
            all(&[("t", 1), ("v", 8)])
        );
        assert_eq!(
            sizes(&[("v.a", &[2]), ("scale", &[])]),
            all(&[("scale", 1), ("v", 2)])
        );
        assert_eq!(sizes(&[("v.a", &[2])]), all(&[("v", 2)]));
        assert_eq!(sizes(&[("été", &[2])]), all(&[("été", 2)]));
        assert_eq!(sizes(&[]), []);
    }

    #[test]
    fn memory_of_integers_has_a_scale_for_each_row() {
        let inspection = inspection(&[("w", &[2, 10]), ("b", &[2])]);
        let memory = inspection.memory();
        assert_eq!((memory.f32, memory.bf16), (88, 44));
        assert_eq!(memory.int8, 20 + 2 * 4 + 2 * 4);
    }

    #[test]
    fn the_built_in_model_is_sound() {
        let inspection = Inspection::of_builtin().unwrap();
        assert!(inspection.is_sound());
        let loaded = inspection.loaded.as_ref().unwrap();
        assert_eq!(loaded.parameters, inspection.total().parameters);
        assert!(loaded.can.contains(&"classify"));
    }
}
