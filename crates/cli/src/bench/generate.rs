//! Tokens of a language model, with random weights or those of a GGUF file.

use super::measure::{Measured, ProcessorTime, forget_peak, median, peak_mb};
use anyhow::{bail, ensure};
use rayon::prelude::*;
use std::path::Path;
use std::time::{Duration, Instant};
use vlm_kernels::quant::quantize;
use vlm_models::decoders::matrix::{BlockFormat, Matrix, Precision};
use vlm_models::decoders::tensors::Tensors;
use vlm_models::families::qwen2::{Qwen2, Qwen2Config, RopeLayout};
use vlm_models::generate::Autoregressive;
use vlm_nn::random::SplitMix64;

/// Architectures with random weights.
pub const NAMES: [&str; 2] = ["qwen2-0.5b", "qwen2-tiny"];

/// How the weights of a model are stored, by llama.cpp's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Quantization {
    #[value(name = "q4_k_m")]
    Q4KM,
    #[value(name = "q5_k_m")]
    Q5KM,
    #[value(name = "q6_k")]
    Q6K,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q5_0")]
    Q5_0,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "dense")]
    Dense,
}

impl Quantization {
    /// The precision that it is printed as.
    pub fn precision(self) -> Option<&'static str> {
        match self {
            Self::Q4KM | Self::Q4_0 => Some("int4"),
            Self::Q5KM | Self::Q6K | Self::Q8_0 | Self::Q5_0 => Some("int8"),
            Self::Dense => None,
        }
    }

    /// How llama.cpp's quantization (`llama_tensor_get_type`) stores a matrix of layer `layer` of `layers`: some of the
    /// value and down projections, and an embedding that is the head too, get more bits.
    fn format(self, name: &str, layers: usize) -> BlockFormat {
        let layer = name.split('.').find_map(|part| part.parse::<usize>().ok());
        let more_bits = |i: usize| {
            let eighth = layers / 8;
            i < eighth || i >= 7 * layers / 8 || (i - eighth) % 3 == 2
        };
        let sensitive = match layer {
            None => true,
            Some(i) => (name.contains("v_proj") || name.contains("down_proj")) && more_bits(i),
        };
        match self {
            Self::Q4KM | Self::Q5KM if sensitive => BlockFormat::Q6K,
            Self::Q4KM => BlockFormat::Q4K,
            Self::Q5KM => BlockFormat::Q5K,
            Self::Q6K => BlockFormat::Q6K,
            Self::Q8_0 => BlockFormat::Q8_0,
            Self::Q5_0 | Self::Q4_0 if layer.is_none() => BlockFormat::Q6K,
            Self::Q5_0 => BlockFormat::Q5_0,
            Self::Q4_0 => BlockFormat::Q4_0,
            Self::Dense => BlockFormat::F32,
        }
    }
}

/// Half a billion parameters in Qwen2's shape, with widths that are whole blocks of 256, as the published 896 is not.
fn config(name: &str) -> Option<Qwen2Config> {
    let base = Qwen2Config {
        vocab_size: 151_936,
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 24,
        num_attention_heads: 16,
        num_key_value_heads: 4,
        head_dim: 64,
        max_position_embeddings: 4096,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        rope_layout: RopeLayout::Halves,
        attention_bias: true,
        tie_word_embeddings: true,
    };
    match name {
        "qwen2-0.5b" => Some(base),
        "qwen2-tiny" => Some(Qwen2Config {
            vocab_size: 1000,
            hidden_size: 256,
            intermediate_size: 512,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            ..base
        }),
        _ => None,
    }
}

/// Uniform weights of deviation 0.02, each matrix and row from a seed of its own.
struct Random {
    quantization: Quantization,
    layers: usize,
    precision: Precision,
}

impl Tensors for Random {
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, vlm_models::Error> {
        let value = if name.ends_with("bias") { 0.0 } else { 1.0 };
        Ok(vec![value; len])
    }

    fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix, vlm_models::Error> {
        let seed = name.bytes().fold(0, |seed: u64, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        });
        let format = self.quantization.format(name, self.layers);
        let rows_of_bytes: Vec<Vec<u8>> = (0..rows)
            .into_par_iter()
            .map(|row| {
                let mut rng = SplitMix64::new(seed ^ (row as u64) << 32);
                let width = 0.02 * 12f32.sqrt();
                let values: Vec<f32> = (0..cols)
                    .map(|_| width * (rng.uniform_f32() - 0.5))
                    .collect();
                quantize(format, &values)
            })
            .collect::<Result<_, _>>()
            .map_err(|e| vlm_models::Error::Config {
                place: name.to_owned(),
                expected: format!("rows that {} can store", format.name()),
                found: e.to_string(),
            })?;
        let data = rows_of_bytes.concat();
        Matrix::stored(name, format, rows, cols, data, self.precision)
    }
}

/// The model of a name with random weights, or of a GGUF file.
pub fn model(
    arch: &str,
    quantization: Quantization,
    precision: Precision,
) -> anyhow::Result<Qwen2> {
    if let Some(config) = config(arch) {
        let mut source = Random {
            quantization,
            layers: config.num_hidden_layers,
            precision,
        };
        return Ok(Qwen2::new(&mut source, &config, precision)?);
    }
    if !is_file(arch) {
        bail!(
            "--arch: expected {} or a GGUF file, found {arch:?}",
            NAMES.join(", ")
        );
    }
    Ok(vlm_tasks::gguf::load(Path::new(arch), precision)?)
}

/// Whether an architecture is the path of a file.
pub fn is_file(arch: &str) -> bool {
    let path = Path::new(arch);
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
        || path.is_file()
}

/// What generating took.
pub struct Generated {
    /// Prompt and new tokens together.
    pub whole: Measured,
    /// Tokens of prompts a second.
    pub prefill_tok_s: f64,
    /// New tokens a second, all texts together.
    pub decode_tok_s: f64,
}

/// Feeds `batch` prompts and then token after token, again and again.
pub fn measure(
    model: &Qwen2,
    batch: usize,
    [prompt_tokens, tokens]: [usize; 2],
    [warmup, repeat]: [u32; 2],
) -> anyhow::Result<Generated> {
    let config = model.config();
    ensure!(
        prompt_tokens + tokens <= config.max_position_embeddings,
        "--prompt-tokens and --tokens: expected at most {} together, found {}",
        config.max_position_embeddings,
        prompt_tokens + tokens
    );
    let id = |i: usize| (i * 7919 % config.vocab_size) as u32;
    let prompts: Vec<Vec<u32>> = (0..batch)
        .map(|row| (0..prompt_tokens).map(|i| id(i + row)).collect())
        .collect();
    let mut decoding = model.decode();
    let mut processor = ProcessorTime::start();
    let (mut prefill, mut decode, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..warmup + repeat {
        if repetition == warmup {
            forget_peak();
            processor = ProcessorTime::start();
            prefill.clear();
            decode.clear();
            whole.clear();
        }
        decoding.clear();
        let begun = Instant::now();
        let mut logits = decoding.feed(&prompts);
        let prompted = begun.elapsed();
        for _ in 0..tokens {
            let next: Vec<Vec<u32>> = logits.iter().map(|row| vec![largest(row)]).collect();
            logits = decoding.feed(&next);
        }
        std::hint::black_box(logits);
        whole.push(begun.elapsed());
        prefill.push(prompted);
        decode.push(begun.elapsed().saturating_sub(prompted));
    }
    let per_second = |tokens: usize, time: Duration| {
        let rate = (batch * tokens) as f64 / time.as_secs_f64().max(1e-9);
        (rate * 10.0).round() / 10.0
    };
    Ok(Generated {
        prefill_tok_s: per_second(prompt_tokens, median(&prefill)),
        decode_tok_s: per_second(tokens, median(&decode)),
        whole: Measured {
            times: whole,
            processor: processor.per(repeat),
            peak_mb: peak_mb(),
        },
    })
}

/// The id of the largest logit.
fn largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_k_m_model_mixes_formats_as_llama_cpp_does() {
        let format = |name: &str| Quantization::Q4KM.format(name, 24);
        assert_eq!(format("model.embed_tokens.weight"), BlockFormat::Q6K);
        let more: Vec<usize> = (0..24)
            .filter(|i| {
                let name = format!("model.layers.{i}.mlp.down_proj.weight");
                format(&name) == BlockFormat::Q6K
            })
            .collect();
        assert_eq!(more, [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]);
        let q = format("model.layers.0.self_attn.q_proj.weight");
        assert_eq!(q, BlockFormat::Q4K);
    }
}
