//! Speed of products with quantized weights: `cargo run --release -p vlm-kernels --example bench_quant`.
//!
//! Decoding is limited by reading the weights: its lines give the bytes of weights read per second
//! and their fraction of what a plain sum over as much memory reaches. Prompts and the 8-bit linear
//! layer give operations per second. Each line is the best and the median of many runs; an argument
//! (`read`, `decode`, `prompt`, `round`, `int8`, `f32`, `model`) picks one part. `VLM_CPU` bounds the instruction
//! set, `RAYON_NUM_THREADS` the threads.
#![allow(clippy::print_stdout)]

use rayon::prelude::*;
use std::time::Instant;
use vlm_kernels::quant::quantize;
use vlm_kernels::*;

/// The shortest and the median time of `run` in seconds.
fn time(mut run: impl FnMut()) -> [f64; 2] {
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 7 || (start.elapsed().as_secs_f64() < 0.5 && times.len() < 500) {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    [times[0], times[times.len() / 2]]
}

fn numbers(len: usize) -> Vec<f32> {
    let fraction = |i: usize| (i.wrapping_mul(2_654_435_761) >> 8) % 1000;
    (0..len).map(|i| fraction(i) as f32 / 500.0 - 1.0).collect()
}

/// Bytes per second that all threads read from memory, at best.
fn read_bandwidth() -> f64 {
    let data = vec![1_u64; 32 << 20];
    let [best, median] = time(|| {
        let sum: u64 = data
            .par_chunks(1 << 15)
            .map(|chunk| chunk.iter().fold(0, |sum: u64, x| sum.wrapping_add(*x)))
            .sum();
        assert_eq!(sum, data.len() as u64);
    });
    let bytes = 8.0 * data.len() as f64;
    println!(
        "memory read: {:.1} GB/s at best, {:.1} median",
        bytes / best / 1e9,
        bytes / median / 1e9
    );
    bytes / best
}

fn packed(format: BlockFormat, rows: usize, cols: usize) -> PackedMatrix {
    let data = quantize(format, &numbers(rows * cols)).expect("whole blocks");
    let matrix = QuantizedMatrix::new(format, rows, cols, data).expect("whole blocks");
    matrix.pack().expect("a quantized format")
}

fn quantized() -> impl Iterator<Item = BlockFormat> {
    BlockFormat::ALL.into_iter().filter(|f| f.is_quantized())
}

/// Rows of `x` times a matrix that does not fit the caches, and one that does: what remains when nothing waits for memory.
fn bench_decode(bandwidth: f64) {
    let cols = 1024;
    for (format, rows) in quantized().flat_map(|f| [(f, 128 * 1024), (f, 256)]) {
        let matrix = packed(format, rows, cols);
        for m in [1, 4] {
            let (x, mut out) = (numbers(m * cols), vec![0.0; m * rows]);
            let [best, median] = in_team(|| time(|| matrix.matmul(&x, m, &mut out)));
            let rate = |seconds: f64| matrix.bytes() as f64 / seconds;
            println!(
                "decode {:<5} {m}x{cols}x{rows}: {:>6.1} GB/s at best ({:.2} of memory), {:.1} median",
                format.name(),
                rate(best) / 1e9,
                rate(best) / bandwidth,
                rate(median) / 1e9
            );
        }
    }
}

fn report(name: &str, [best, median]: [f64; 2], m: usize, k: usize, n: usize) {
    let work = 2.0 * (m * k * n) as f64;
    println!(
        "{name} {m}x{k}x{n}: {:.1} Gop/s at best, {:.1} median ({:.2} ms)",
        work / best / 1e9,
        work / median / 1e9,
        median * 1e3
    );
}

fn bench_prompt() {
    for format in quantized() {
        for (m, k, n) in [(512, 1024, 2048), (16, 1024, 2048)] {
            let matrix = packed(format, n, k);
            let (x, mut out) = (numbers(m * k), vec![0.0; m * n]);
            let seconds = time(|| matrix.matmul(&x, m, &mut out));
            report(&format!("prompt {:<5}", format.name()), seconds, m, k, n);
        }
    }
}

/// Products with so few columns that rounding the activations is most of the work.
fn bench_round() {
    let (m, k, n) = (512, 4096, 16);
    for format in quantized() {
        let matrix = packed(format, n, k);
        let (x, mut out) = (numbers(m * k), vec![0.0; m * n]);
        let [best, median] = time(|| matrix.matmul(&x, m, &mut out));
        let each = |seconds: f64| seconds / (m * k) as f64 * 1e9;
        println!(
            "round {:<5} {m}x{k}x{n}: {:.2} ns for an activation at best, {:.2} median",
            format.name(),
            each(best),
            each(median)
        );
    }
}

const LINEAR: [(usize, usize, usize); 4] = [
    (1, 768, 3072),
    (197, 768, 3072),
    (3136, 768, 3072),
    (3136, 3072, 768),
];

fn bench_int8() {
    for (m, k, n) in LINEAR {
        let weights = Int8Weights::quantize(&numbers(n * k), n, k);
        let (x, mut out) = (numbers(m * k), vec![0.0; m * n]);
        let seconds = time(|| linear_int8(&x, &weights, m, Epilogue::NONE, &mut out));
        report("int8", seconds, m, k, n);
    }
}

fn bench_f32() {
    for (m, k, n) in LINEAR {
        let (x, w, mut out) = (numbers(m * k), numbers(n * k), vec![0.0; m * n]);
        for precision in [Precision::F32, Precision::Bf16] {
            let seconds = time(|| linear(precision, &x, &w, m, k, n, Epilogue::NONE, &mut out));
            report(&format!("{precision:?}"), seconds, m, k, n);
        }
    }
}

/// The products of a model of Qwen2 0.5B's shape, quantized as its Q4_K_M files are: rows of 896 do
/// not consist of blocks of 256, so most matrices are Q5_0 and the logits Q8_0.
fn bench_model(bandwidth: f64) {
    use BlockFormat::*;
    let (width, inner, kv, vocabulary, layers) = (896, 4864, 128, 151_936, 24);
    let blocks: Vec<[PackedMatrix; 7]> = (0..layers)
        .map(|layer| {
            // Half of the layers keep these two in more bits.
            let (value, down) = if layer % 2 == 0 {
                (Q8_0, Q6K)
            } else {
                (Q5_0, Q4K)
            };
            [
                packed(Q5_0, width, width),
                packed(Q5_0, kv, width),
                packed(value, kv, width),
                packed(Q5_0, width, width),
                packed(Q5_0, inner, width),
                packed(Q5_0, inner, width),
                packed(down, width, inner),
            ]
        })
        .collect();
    let logits = packed(Q8_0, vocabulary, width);
    let bytes: usize = blocks
        .iter()
        .flatten()
        .map(PackedMatrix::bytes)
        .sum::<usize>()
        + logits.bytes();
    for m in [1, 512] {
        let (x, h) = (numbers(m * width), numbers(m * inner));
        let buffer = |n: usize| vec![0.0; m * n];
        let (mut q, mut k, mut v) = (buffer(width), buffer(kv), buffer(kv));
        let (mut gate, mut up, mut out) = (buffer(inner), buffer(inner), buffer(width));
        let mut scores = vec![0.0; vocabulary];
        let once = || {
            for [wq, wk, wv, wo, wgate, wup, wdown] in &blocks {
                matmul_shared(&x, m, &mut [(wq, &mut q), (wk, &mut k), (wv, &mut v)]);
                wo.matmul(&x, m, &mut out);
                matmul_shared(&x, m, &mut [(wgate, &mut gate), (wup, &mut up)]);
                wdown.matmul(&h, m, &mut out);
            }
            logits.matvec(&x[..width], &mut scores);
        };
        let [best, median] = in_team(|| time(once));
        println!(
            "qwen2-0.5b products, {m} tokens: {:.0} tok/s at best, {:.0} median; {:.0} MB of weights{}",
            m as f64 / best,
            m as f64 / median,
            bytes as f64 / 1e6,
            if m == 1 {
                format!(", {:.2} of memory", bytes as f64 / best / bandwidth)
            } else {
                String::new()
            }
        );
    }
}

fn main() {
    println!(
        "{:?}, amx int8 {}, {} threads",
        cpu_features::integer_isa(),
        cpu_features::has_amx_int8(),
        rayon::current_num_threads()
    );
    let only = std::env::args().nth(1).unwrap_or_default();
    let bandwidth = read_bandwidth();
    if "decode".contains(&only) {
        bench_decode(bandwidth);
    }
    if "prompt".contains(&only) {
        bench_prompt();
    }
    if "round".contains(&only) {
        bench_round();
    }
    if "int8".contains(&only) {
        bench_int8();
    }
    if "f32".contains(&only) {
        bench_f32();
    }
    if "model".contains(&only) {
        bench_model(bandwidth);
    }
}
