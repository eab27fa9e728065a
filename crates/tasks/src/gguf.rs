//! Language models from GGUF files.

use crate::Error;
use std::collections::BTreeSet;
use std::path::Path;
use vlm_data::gguf::Gguf;
use vlm_models::decoders::matrix::{BlockFormat, Matrix, Precision};
use vlm_models::decoders::tensors::Tensors;
use vlm_models::families::qwen2::{Qwen2, Qwen2Config, RopeLayout, gguf_name};

/// Loads the language model of a file; weights that are floats are multiplied in `precision`.
///
/// # Errors
/// A file that cannot be read or is damaged, an architecture other than `qwen2` and `llama`, a storage type without a
/// kernel, a tensor that is missing, of another shape, or that the model has no use for.
pub fn load(path: &Path, precision: Precision) -> Result<Qwen2, Error> {
    let mut file = Gguf::open(path)?;
    let config = config(&file)?;
    let mut source = Source {
        unused: file.tensors().keys().cloned().collect(),
        file: &mut file,
        precision,
        error: None,
    };
    let model = Qwen2::new(&mut source, &config, precision);
    // an error of the file says more than what the model makes of it
    if let Some(error) = source.error {
        return Err(error);
    }
    let model = model.map_err(|source| Error::InFile {
        path: path.to_owned(),
        source,
    })?;
    if let Some(name) = source.unused.first() {
        let found = format!("{} it has no use for, {name} first", source.unused.len());
        return Err(wrong(&file, "only tensors of the model", found));
    }
    Ok(model)
}

fn wrong(file: &Gguf, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Model {
        place: file.name().to_owned(),
        expected: expected.into(),
        found: found.into(),
    }
}

/// The keys of the specification, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
fn config(file: &Gguf) -> Result<Qwen2Config, Error> {
    let architecture = file.string("general.architecture")?.to_owned();
    let (rope_layout, attention_bias) = match architecture.as_str() {
        "qwen2" => (RopeLayout::Halves, true),
        "llama" => (RopeLayout::Pairs, false),
        other => {
            return Err(wrong(
                file,
                "the architecture qwen2 or llama",
                format!("{other:?}"),
            ));
        }
    };
    let key = |name: &str| format!("{architecture}.{name}");
    if let Ok(scaling) = file.string(&key("rope.scaling.type"))
        && scaling != "none"
    {
        return Err(wrong(
            file,
            "positions without scaling",
            format!("{scaling:?}"),
        ));
    }
    let size = |name: &str, default| file.size(&key(name), default);
    let hidden_size = size("embedding_length", None)?;
    let num_attention_heads = size("attention.head_count", None)?;
    let Some(embedding) = file.tensors().get("token_embd.weight") else {
        return Err(wrong(file, "a tensor token_embd.weight", "none"));
    };
    let config = Qwen2Config {
        vocab_size: embedding.shape[0],
        hidden_size,
        intermediate_size: size("feed_forward_length", None)?,
        num_hidden_layers: size("block_count", None)?,
        num_attention_heads,
        num_key_value_heads: size("attention.head_count_kv", Some(num_attention_heads))?,
        head_dim: size(
            "attention.key_length",
            Some(hidden_size / num_attention_heads.max(1)),
        )?,
        max_position_embeddings: size("context_length", None)?,
        rms_norm_eps: file.number(&key("attention.layer_norm_rms_epsilon"), None)?,
        rope_theta: file.number(&key("rope.freq_base"), Some(10_000.0))?,
        rope_layout,
        attention_bias,
        tie_word_embeddings: !file.tensors().contains_key("output.weight"),
    };
    config.validate().map_err(|source| Error::InFile {
        path: file.name().into(),
        source,
    })?;
    Ok(config)
}

struct Source<'a> {
    file: &'a mut Gguf,
    precision: Precision,
    unused: BTreeSet<String>,
    error: Option<Error>,
}

type Stored = (BlockFormat, Vec<u8>);

impl Source<'_> {
    /// The bytes of a tensor whose shape is checked.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Stored, vlm_models::Error> {
        let name = gguf_name(name);
        let refuse = |expected: String, found: String| vlm_models::Error::Config {
            place: name.clone(),
            expected,
            found,
        };
        let Some(info) = self.file.tensors().get(&name) else {
            return Err(refuse(format!("a tensor {shape:?}"), "none".to_owned()));
        };
        if info.shape != shape {
            return Err(refuse(format!("{shape:?}"), format!("{:?}", info.shape)));
        }
        let Some(format) = BlockFormat::from_ggml_type(info.ggml_type) else {
            let known: Vec<&str> = BlockFormat::ALL.iter().map(|f| f.name()).collect();
            let found = format!("storage type {}", info.ggml_type);
            return Err(refuse(known.join(", "), found));
        };
        self.unused.remove(&name);
        match self.file.tensor(&name) {
            Ok(bytes) => Ok((format, bytes)),
            Err(error) => {
                let refused = refuse("its bytes".to_owned(), error.to_string());
                self.error = Some(error.into());
                Err(refused)
            }
        }
    }
}

impl Tensors for Source<'_> {
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, vlm_models::Error> {
        let (format, data) = self.take(name, &[len])?;
        Matrix::numbers(name, format, 1, len, data)
    }

    fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix, vlm_models::Error> {
        let (format, data) = self.take(name, &[rows, cols])?;
        Matrix::stored(name, format, rows, cols, data, self.precision)
    }
}
