//! `vlm bench`

mod architectures;
mod gemm;
mod generate;
mod measure;

use crate::output::Output;
use crate::precision::{PrecisionArg, set_precision};
use crate::{Common, Outcome};
use anyhow::{anyhow, bail};
use architectures::{ENCODE, TRAIN};
use burn::tensor::{Device, Distribution, Tensor};
use clap::{Args, Subcommand};
use generate::Quantization;
use measure::{Measured, measure, median};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;
use vlm_models::capability::{Pictures, Tokens};
use vlm_models::encoders::VisionTower;
use vlm_models::families::dual_encoder::DualEncoder;
use vlm_nn::ops;
use vlm_nn::weights::Weights;
use vlm_train::Groups;
use vlm_train::optimizer::{Accumulated, Optimizer};

/// Time a model of a known architecture with random weights
#[derive(Args)]
#[command(after_help = "\
With --json the line has work, arch, batch, threads, precision (auto is printed as what it chose), median_ms, min_ms, \
cpu_ms (processor time of a repetition on average, all threads together) and peak_mb (the most memory that the process held during the measured repetitions); generate adds prefill_tok_s and \
decode_tok_s.

Exit codes: 0 done; 2 wrong usage.

Example:
  vlm bench encode --arch clip-vit-b-32 --batch 16 --threads 4
  vlm bench train --arch vit-s-16+text-6 --batch 32 --precision bf16 --json")]
pub struct BenchArgs {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    Encode(EncodeArgs),
    Generate(GenerateArgs),
    Train(TrainArgs),
    Gemm(GemmArgs),
}

/// How often, and in which arithmetic.
#[derive(Args)]
struct Measurement {
    /// Arithmetic of matrix products; auto takes bf16 where the processor has it in hardware
    #[arg(long, value_enum, default_value_t = PrecisionArg::Auto)]
    precision: PrecisionArg,
    /// Measured repetitions
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=10000))]
    repeat: u32,
    /// Repetitions before those
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=10000))]
    warmup: u32,
}

/// Pictures to vectors
///
/// Times one forward pass of a picture encoder, from normalised pixels to the vectors of its pictures.
#[derive(Args)]
#[command(after_help = "\
Example:
  vlm bench encode --arch vit-b-16 --batch 16 --threads 4 --precision f32")]
struct EncodeArgs {
    /// The architecture
    #[arg(long, value_name = "NAME", help = format!("One of {}", ENCODE.join(", ")))]
    arch: String,
    /// Pictures at once
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    #[command(flatten)]
    measurement: Measurement,
}

/// Prompts to tokens
///
/// Times a language model on a prompt and on the tokens that follow it, each chosen as the most probable.
#[derive(Args)]
#[command(after_help = "\
Without --quant, --precision int8 stands for q8_0, int4 and auto for q4_k_m, f32 and bf16 for dense weights. The \
weights of a file are multiplied as they are stored.

Example:
  vlm bench generate --arch qwen2-0.5b --quant q4_k_m --prompt-tokens 512 --tokens 64 --threads 4
  vlm bench generate --arch model.gguf --json")]
struct GenerateArgs {
    /// The architecture, or a GGUF file
    #[arg(long, value_name = "NAME|FILE", help = format!("One of {}, or a GGUF file", generate::NAMES.join(", ")))]
    arch: String,
    /// How random weights are stored
    #[arg(long, value_enum)]
    quant: Option<Quantization>,
    /// Texts at once
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prompt_tokens: u32,
    /// New tokens
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tokens: u32,
    #[command(flatten)]
    measurement: Measurement,
}

/// A contrastive training step
///
/// Times forward pass, backward pass and AdamW update of a dual encoder with the loss of CLIP.
#[derive(Args)]
#[command(after_help = "\
Example:
  vlm bench train --arch vit-s-16+text-6 --batch 32 --threads 4")]
struct TrainArgs {
    /// The architecture
    #[arg(long, value_name = "NAME", help = format!("One of {}", TRAIN.join(", ")))]
    arch: String,
    /// Pairs at once
    #[arg(long, value_name = "B", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    #[command(flatten)]
    measurement: Measurement,
}

/// One matrix product
///
/// Times the product of a linear layer whose weight is packed already: x [M, K] with a weight [N, K].
#[derive(Args)]
#[command(after_help = "\
Example:
  vlm bench gemm --arch 3136x768x3072 --threads 4")]
struct GemmArgs {
    /// The extents
    #[arg(long, value_name = "MxKxN", default_value = "3136x768x3072")]
    arch: String,
    #[command(flatten)]
    measurement: Measurement,
}

#[derive(Serialize)]
struct Record<'a> {
    work: &'static str,
    arch: &'a str,
    batch: u16,
    threads: usize,
    precision: &'static str,
    median_ms: f64,
    min_ms: f64,
    cpu_ms: Option<f64>,
    peak_mb: Option<u64>,
    #[serde(flatten)]
    rates: Option<Rates>,
}

/// Tokens a second.
#[derive(Serialize)]
struct Rates {
    prefill_tok_s: f64,
    decode_tok_s: f64,
}

/// Milliseconds to a thousandth, and never 0 for something that was done.
fn microseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).ceil() / 1e3
}

impl<'a> Record<'a> {
    fn new(
        work: &'static str,
        arch: &'a str,
        batch: u16,
        precision: &'static str,
        measured: &Measured,
    ) -> Self {
        let least = measured.times.iter().min().copied().unwrap_or_default();
        Self {
            work,
            arch,
            batch,
            threads: rayon::current_num_threads(),
            precision,
            median_ms: microseconds(median(&measured.times)),
            min_ms: microseconds(least),
            cpu_ms: measured.processor.map(microseconds),
            peak_mb: measured.peak_mb,
            rates: None,
        }
    }

    fn describe(&self) -> String {
        let peak = self
            .peak_mb
            .map_or("unknown".to_owned(), |mb| format!("{mb} MB"));
        let mut lines = vec![
            ("work", format!("{} {}", self.work, self.arch)),
            ("batch", self.batch.to_string()),
            ("threads", self.threads.to_string()),
            ("precision", self.precision.to_owned()),
            ("median", format!("{} ms", self.median_ms)),
            ("min", format!("{} ms", self.min_ms)),
            (
                "cpu",
                self.cpu_ms
                    .map_or("unknown".to_owned(), |ms| format!("{ms} ms")),
            ),
            ("peak", peak),
        ];
        if let Some(rates) = &self.rates {
            lines.push(("prompt", format!("{} tokens/s", rates.prefill_tok_s)));
            lines.push(("decoding", format!("{} tokens/s", rates.decode_tok_s)));
        }
        let line = |(name, value)| format!("{name:<9} {value}\n");
        lines.into_iter().map(line).collect()
    }
}

pub fn run(args: &BenchArgs, common: &Common) -> anyhow::Result<Outcome> {
    match &args.work {
        Work::Encode(args) => encode(args, common),
        Work::Generate(args) => generate(args, common),
        Work::Train(args) => train(args, common),
        Work::Gemm(args) => gemm(args, common),
    }
}

fn encode(args: &EncodeArgs, common: &Common) -> anyhow::Result<Outcome> {
    let config = architectures::vision(&args.arch)?;
    let precision = set_precision(args.measurement.precision, common);
    let device = Device::flex();
    let mut weights = Weights::random(0, &device);
    let tower = VisionTower::new(&mut weights, &config);
    weights.finish()?;
    let pixels = pictures(args.batch, config.image_size, &device);
    let m = &args.measurement;
    let measured = measure(m.warmup, m.repeat, || {
        std::hint::black_box(tower.forward(pixels.clone()).into_data());
    });
    finish(
        "encode", &args.arch, args.batch, precision, &measured, common,
    )
}

fn generate(args: &GenerateArgs, common: &Common) -> anyhow::Result<Outcome> {
    let asked = args.measurement.precision;
    let is_file = generate::is_file(&args.arch);
    let quantization = match (args.quant, asked) {
        (Some(_), _) if is_file => bail!("--quant: expected random weights, found those of a file"),
        (None, PrecisionArg::Int8 | PrecisionArg::Int4) if is_file => bail!(
            "--precision: expected auto, f32 or bf16 for a file, found {}",
            asked.name()
        ),
        (Some(quant), PrecisionArg::Int8 | PrecisionArg::Int4)
            if quant.precision() != Some(asked.name()) =>
        {
            bail!(
                "--precision: expected what --quant says, found {}",
                asked.name()
            )
        }
        (Some(quant), _) => quant,
        (None, PrecisionArg::Int8) => Quantization::Q8_0,
        (None, PrecisionArg::F32 | PrecisionArg::Bf16) => Quantization::Dense,
        (None, PrecisionArg::Auto | PrecisionArg::Int4) => Quantization::Q4KM,
    };
    let float = match asked {
        PrecisionArg::Int8 | PrecisionArg::Int4 => PrecisionArg::Auto,
        asked => asked,
    };
    let float = set_precision(float, common);
    let model = generate::model(&args.arch, quantization, ops::precision())?;
    let precision = if is_file {
        model
            .integer_bits()
            .map(|bits| if bits > 4 { "int8" } else { "int4" })
    } else {
        quantization.precision()
    };
    let m = &args.measurement;
    let generated = generate::measure(
        &model,
        args.batch.into(),
        [args.prompt_tokens as usize, args.tokens as usize],
        [m.warmup, m.repeat],
    )?;
    let precision = precision.unwrap_or(float);
    let mut record = Record::new(
        "generate",
        &args.arch,
        args.batch,
        precision,
        &generated.whole,
    );
    record.rates = Some(Rates {
        prefill_tok_s: generated.prefill_tok_s,
        decode_tok_s: generated.decode_tok_s,
    });
    Output::new(common.json).result(&record, &record.describe())?;
    Ok(Outcome::Done)
}

fn train(args: &TrainArgs, common: &Common) -> anyhow::Result<Outcome> {
    let config = architectures::dual_encoder(&args.arch)?;
    let asked = args.measurement.precision;
    refuse_integers(asked, "training")?;
    let precision = set_precision(args.measurement.precision, common);
    let device = Device::flex().autodiff();
    let mut weights = Weights::random(0, &device);
    let mut model = Some(DualEncoder::new(&mut weights, &config));
    weights.finish()?;
    let mut optimizer = Optimizer::new(0.01, [0.9, 0.999], Groups::default());
    let (size, text) = architectures::sizes(&config);
    let pixels = Pictures::Fixed(pictures(args.batch, size, &device));
    let (b, t) = (usize::from(args.batch), text.max_position_embeddings);
    let ids = (0..b * t).map(|i| (i * 7919 % text.vocab_size) as u32);
    let ids: Vec<u32> = ids.collect();
    let texts = Tokens::new(ids.chunks(t).map(<[u32]>::to_vec).collect(), None)?;
    let m = &args.measurement;
    let measured = measure(m.warmup, m.repeat, || {
        let before = model.take().expect("given back after every step");
        let loss = before
            .loss(&pixels, &texts)
            .expect("inputs of the model's sizes");
        let mut grads = Accumulated::default();
        grads.add(&before, &loss.backward(), &BTreeSet::new());
        model = Some(optimizer.step(before, grads, 1e-4));
    });
    finish(
        "train", &args.arch, args.batch, precision, &measured, common,
    )
}

fn gemm(args: &GemmArgs, common: &Common) -> anyhow::Result<Outcome> {
    let shape = args
        .arch
        .parse()
        .map_err(|e| anyhow!("--arch: {e}, found {:?}", args.arch))?;
    let asked = args.measurement.precision;
    refuse_integers(asked, "a single product")?;
    let precision = set_precision(asked, common);
    let mut product = gemm::Product::new(shape, ops::precision());
    let m = &args.measurement;
    let measured = measure(m.warmup, m.repeat, || product.run());
    finish("gemm", &args.arch, 1, precision, &measured, common)
}

/// Weights are kept as integers for inference alone.
fn refuse_integers(asked: PrecisionArg, work: &str) -> anyhow::Result<()> {
    if let PrecisionArg::Int8 | PrecisionArg::Int4 = asked {
        bail!(
            "--precision: expected auto, f32 or bf16 for {work}, found {}",
            asked.name()
        );
    }
    Ok(())
}

/// `[B, 3, size, size]` of normally distributed pixels.
fn pictures(batch: u16, [height, width]: [usize; 2], device: &Device) -> Tensor<4> {
    let shape = [usize::from(batch), 3, height, width];
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn finish(
    work: &'static str,
    arch: &str,
    batch: u16,
    precision: &'static str,
    measured: &Measured,
    common: &Common,
) -> anyhow::Result<Outcome> {
    let record = Record::new(work, arch, batch, precision, measured);
    Output::new(common.json).result(&record, &record.describe())?;
    Ok(Outcome::Done)
}
