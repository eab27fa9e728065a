//! Speed of the hot kernels on this machine: `cargo run --release -p vlm-kernels --example bench_kernels`.
//!
//! Each line gives the median and, in brackets, the best of many runs. `VLM_CPU` bounds the instruction set, `RAYON_NUM_THREADS`
//! the threads. An argument (`linear`, `encoder`, `mlp`, `attention`, `elementwise`) picks a part.
//!
//! The first lines give the peak of one core: a loop of independent multiply-adds that touches no memory.
#![allow(clippy::print_stdout)]
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::time::Instant;
use vlm_kernels::*;

/// Seconds on a clock. With one thread it is the process's CPU time, which other programs disturb less.
fn now() -> f64 {
    if rayon::current_num_threads() == 1
        && let Some(time) = report::processor_time()
    {
        return time.as_secs_f64();
    }
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// The shortest and the median time of `run` in seconds.
fn time(mut run: impl FnMut()) -> [f64; 2] {
    let mut times = Vec::new();
    let start = now();
    while times.len() < 15 || (now() - start < 0.4 && times.len() < 2000) {
        let start = now();
        run();
        times.push(now() - start);
    }
    times.sort_by(f64::total_cmp);
    [times[0], times[times.len() / 2]]
}

fn numbers(len: usize) -> Vec<f32> {
    let fraction = |i: usize| (i.wrapping_mul(2_654_435_761) >> 8) % 1000;
    (0..len).map(|i| fraction(i) as f32 / 500.0 - 1.0).collect()
}

fn print(name: &str, [best, median]: [f64; 2], amount: f64, unit: &str) {
    let rate = |seconds: f64| amount / seconds / 1e9;
    println!(
        "{name:<44} {:>9.1} us {:>8.1} {unit} (best {:.1})",
        median * 1e6,
        rate(median),
        rate(best)
    );
}

fn bench_linear(precision: Precision) {
    for (m, k, n) in [
        (1, 192, 768),
        (4, 192, 768),
        (32, 192, 768),
        (2048, 192, 576),
        (2048, 192, 768),
        (2048, 768, 192),
        (4608, 192, 768),
        (3136, 768, 3072),
    ] {
        let (x, w, bias) = (numbers(m * k), numbers(n * k), numbers(n));
        let (mut out, mut pre) = (vec![0.0; m * n], vec![0.0; m * n]);
        let flops = 2.0 * (m * k * n) as f64;
        let seconds = time(|| {
            linear(precision, &x, &w, m, k, n, Epilogue::NONE, &mut out);
        });
        print(
            &format!("linear {precision:?} {m}x{k}x{n}"),
            seconds,
            flops,
            "GFLOP/s",
        );
        let seconds = time(|| {
            let epilogue = Epilogue {
                bias: Some(&bias),
                activation: Activation::Gelu,
                residual: None,
                pre_activation: Some(&mut pre),
            };
            linear(precision, &x, &w, m, k, n, epilogue, &mut out);
        });
        let name = format!("linear {precision:?} {m}x{k}x{n} bias gelu pre");
        print(&name, seconds, flops, "GFLOP/s");
        if m < 1000 {
            continue;
        }
        // The products of the backward pass: dX = dY W, dW = dY^T X.
        let (mut dx, mut dw) = (vec![0.0; m * k], vec![0.0; n * k]);
        let dy = MatRef::row_major(&pre, m, n);
        let seconds = time(|| {
            matmul(precision, dy, MatRef::row_major(&w, n, k), &mut dx);
        });
        print(
            &format!("  dX {precision:?} {m}x{k}x{n}"),
            seconds,
            flops,
            "GFLOP/s",
        );
        let seconds = time(|| {
            matmul(precision, dy.t(), MatRef::row_major(&x, m, k), &mut dw);
        });
        print(
            &format!("  dW {precision:?} {m}x{k}x{n}"),
            seconds,
            flops,
            "GFLOP/s",
        );
    }
}

/// The linear layers of ViT-B/16 at batch 1 and 16, weights packed.
fn bench_encoder(precision: Precision) {
    for m in [1, 197, 16 * 197] {
        for (k, n) in [(768, 768), (768, 2304), (768, 3072), (3072, 768)] {
            let (x, w, bias) = (numbers(m * k), numbers(n * k), numbers(n));
            let residual = numbers(m * n);
            let mut out = vec![0.0; m * n];
            let flops = 2.0 * (m * k * n) as f64;
            let packed = PackedWeights::new(precision, &w, n, k);
            let mut bench = |what: &str, activation, residual| {
                let seconds = time(|| {
                    let epilogue = Epilogue {
                        bias: Some(&bias),
                        activation,
                        residual,
                        pre_activation: None,
                    };
                    linear_packed(&x, &packed, m, epilogue, &mut out);
                });
                let name = format!("{precision:?} {m}x{k}x{n} packed, bias{what}");
                print(&name, seconds, flops, "GFLOP/s");
            };
            bench("", Activation::None, None);
            if n == 3072 {
                bench(" gelu", Activation::Gelu, None);
            }
            if n == 768 {
                bench(" residual", Activation::None, Some(&residual));
            }
        }
    }
}

/// An MLP of ViT-B/16 and of ViT-S/16 at batch 16: layer after layer, and with what is between them in the cache.
fn bench_mlp(precision: Precision) {
    for width in [768, 384] {
        let (m, hidden) = (16 * 197, 4 * width);
        let (x, residual) = (numbers(m * width), numbers(m * width));
        let biases = [numbers(hidden), numbers(width)];
        let first = PackedWeights::new(precision, &numbers(hidden * width), hidden, width);
        let second = PackedWeights::new(precision, &numbers(width * hidden), width, hidden);
        let epilogues = || {
            [
                Epilogue {
                    bias: Some(&biases[0]),
                    activation: Activation::Gelu,
                    ..Epilogue::NONE
                },
                Epilogue {
                    bias: Some(&biases[1]),
                    residual: Some(&residual),
                    ..Epilogue::NONE
                },
            ]
        };
        let (mut between, mut out) = (vec![0.0; m * hidden], vec![0.0; m * width]);
        let flops = 4.0 * (m * width * hidden) as f64;
        for _ in 0..3 {
            let seconds = time(|| {
                let [e1, e2] = epilogues();
                linear_packed(&x, &first, m, e1, &mut between);
                linear_packed(&between, &second, m, e2, &mut out);
            });
            let name = format!("{precision:?} {m}x{width} mlp, two layers");
            print(&name, seconds, flops, "GFLOP/s");
            let seconds = time(|| mlp_packed(&x, [&first, &second], m, epilogues(), &mut out));
            let name = format!("{precision:?} {m}x{width} mlp at once");
            print(&name, seconds, flops, "GFLOP/s");
        }
    }
}

/// GFLOP/s of one core on registers alone, by name.
#[cfg(target_arch = "x86_64")]
fn peaks() -> Vec<(&'static str, f64)> {
    use std::arch::x86_64::*;
    const STEPS: usize = 1 << 16;
    macro_rules! peak {
        ($name:ident, $features:literal, $register:ident, $start:expr, |$sum:ident| $step:expr) => {
            #[target_feature(enable = $features)]
            fn $name() {
                let mut sums = [$start; 12];
                for _ in 0..STEPS {
                    for $sum in &mut sums {
                        *$sum = $step;
                        // SAFETY: an empty block; it keeps the compiler from folding the loop.
                        unsafe {
                            std::arch::asm!(
                                "/* {0} */",
                                inout($register) * $sum,
                                options(nomem, nostack, preserves_flags)
                            );
                        }
                    }
                }
            }
        };
    }
    peak!(f32_256, "avx2,fma", ymm_reg, _mm256_setzero_ps(), |sum| {
        _mm256_fmadd_ps(*sum, *sum, *sum)
    });
    peak!(f32_512, "avx512f", zmm_reg, _mm512_setzero_ps(), |sum| {
        _mm512_fmadd_ps(*sum, *sum, *sum)
    });
    peak!(
        bf16,
        "avx512f,avx512bf16",
        zmm_reg,
        _mm512_setzero_ps(),
        |sum| {
            // SAFETY: both are 64 bytes without invalid values.
            let halves = unsafe { std::mem::transmute::<__m512, __m512bh>(*sum) };
            _mm512_dpbf16_ps(*sum, halves, halves)
        }
    );
    let rate = |run: &dyn Fn(), flops: f64| flops * 12.0 * STEPS as f64 / time(run)[0] / 1e9;
    let mut found = Vec::new();
    let isa = cpu_features::isa();
    if isa >= Isa::Avx2 {
        // SAFETY: detected.
        found.push(("AVX2 f32", rate(&|| unsafe { f32_256() }, 16.0)));
    }
    if isa == Isa::Avx512 {
        // SAFETY: detected.
        found.push(("AVX-512 f32", rate(&|| unsafe { f32_512() }, 32.0)));
    }
    if cpu_features::has_avx512_bf16() {
        // SAFETY: detected.
        found.push(("AVX-512 bf16", rate(&|| unsafe { bf16() }, 64.0)));
    }
    found
}

#[cfg(not(target_arch = "x86_64"))]
fn peaks() -> Vec<(&'static str, f64)> {
    Vec::new()
}

fn bench_attention(
    precision: Precision,
    batch: usize,
    heads: usize,
    q_len: usize,
    k_len: usize,
    head_dim: usize,
) {
    let shape = AttentionShape {
        batch,
        q_len,
        k_len,
        heads,
        kv_heads: heads,
        head_dim,
    };
    let width = heads * head_dim;
    let (q, dout) = (
        numbers(batch * q_len * width),
        numbers(batch * q_len * width),
    );
    let kv = numbers(batch * k_len * 2 * width);
    let mut out = vec![0.0; q.len()];
    let mut dkv = vec![0.0; kv.len()];
    let q = HeadsRef::contiguous(&q, q_len, width);
    let k = HeadsRef::packed(&kv, k_len, width, 2, 0);
    let v = HeadsRef::packed(&kv, k_len, width, 2, 1);
    let dout = HeadsRef::contiguous(&dout, q_len, width);
    let name = format!("{precision:?} B={batch} H={heads} Tq={q_len} Tk={k_len} hd={head_dim}");
    let product = 2.0 * (batch * q_len * k_len * width) as f64;
    let seconds = time(|| {
        let out = HeadsMut::contiguous(&mut out, q_len, width);
        attention(precision, shape, q, k, v, Mask::None, None, 0.2, out);
    });
    print(
        &format!("attention {name}"),
        seconds,
        2.0 * product,
        "GFLOP/s",
    );
    let seconds = time(|| {
        let dq = HeadsMut::contiguous(&mut out, q_len, width);
        let none = Mask::None;
        attention_backward_packed_kv(
            precision, shape, dout, q, &kv, none, None, 0.2, None, dq, &mut dkv,
        );
    });
    print(
        &format!("  backward {name}"),
        seconds,
        5.0 * product,
        "GFLOP/s",
    );
}

/// A token's attention to the cache of a text, whose keys and values have `[kv_heads, k_len, head_dim]`, by what it reads.
fn bench_decoding<T: Element>(
    name: &str,
    number: fn(f32) -> T,
    [heads, kv_heads, k_len]: [usize; 3],
) {
    let head_dim = 64;
    let shape = AttentionShape {
        batch: 1,
        q_len: 1,
        k_len,
        heads,
        kv_heads,
        head_dim,
    };
    // more than caches hold, as a model's layers
    let layers = 24;
    let len = kv_heads * k_len * head_dim;
    let kv: Vec<T> = numbers(2 * layers * len).into_iter().map(number).collect();
    let q = numbers(heads * head_dim);
    let mut out = vec![0.0; q.len()];
    let cached = |at: usize| HeadsRef::by_head(&kv[at * len..][..len], kv_heads, k_len, head_dim);
    let q = HeadsRef::contiguous(&q, 1, heads * head_dim);
    let seconds = time(|| {
        for layer in 0..layers {
            let (k, v) = (cached(2 * layer), cached(2 * layer + 1));
            let out = HeadsMut::contiguous(&mut out, 1, heads * head_dim);
            attention(Precision::F32, shape, q, k, v, Mask::None, None, 0.1, out);
        }
    });
    print(
        &format!("  a token's, {name} H={heads}/{kv_heads} Tk={k_len} x {layers}"),
        seconds,
        size_of_val(&kv[..]) as f64,
        "GB/s",
    );
}

fn bench_elementwise() {
    const ADAMW: AdamW = AdamW {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        step: 7,
    };
    for len in [1 << 20, 10 << 20] {
        let (mut p, g) = (numbers(len), numbers(len));
        let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
        let seconds = time(|| adamw(&mut p, &g, &mut m, &mut v, ADAMW));
        // Four arrays read, three written.
        print(&format!("AdamW {len}"), seconds, 28.0 * len as f64, "GB/s");
    }
    let (rows, width) = (2048, 192);
    let (x, dy, gamma) = (numbers(rows * width), numbers(rows * width), numbers(width));
    let (mut y, mut dg) = (vec![0.0; x.len()], vec![0.0; width]);
    let bytes = 4.0 * x.len() as f64;
    let seconds = time(|| layer_norm(&x, &gamma, Some(&gamma), 1e-5, &mut y));
    print("layer_norm 2048x192", seconds, 2.0 * bytes, "GB/s");
    let seconds = time(|| layer_norm_backward(&dy, &x, &gamma, 1e-5, &mut y, &mut dg, None));
    print("layer_norm_backward 2048x192", seconds, 3.0 * bytes, "GB/s");
    for (name, activation) in [
        ("gelu", Activation::Gelu),
        ("quick gelu", Activation::QuickGelu),
    ] {
        let seconds = time(|| activation_forward(activation, &x, &mut y));
        print(&format!("{name} 2048x192"), seconds, 2.0 * bytes, "GB/s");
    }
    let seconds = time(|| activation_backward(Activation::Gelu, &x, &dy, &mut y));
    print("gelu backward 2048x192", seconds, 3.0 * bytes, "GB/s");
    let targets: Vec<i64> = (0..512).map(|i| i % 700).collect();
    let logits = numbers(512 * 2000);
    let (dlosses, mut dlogits) = (numbers(512), vec![0.0; logits.len()]);
    let seconds = time(|| {
        cross_entropy_backward(&dlosses, &logits, &targets, 0.1, &mut dlogits);
    });
    print(
        "cross_entropy_backward 512x2000",
        seconds,
        8.0 * logits.len() as f64,
        "GB/s",
    );
}

fn main() {
    println!(
        "{:?}, bf16 {}, amx {}, {} threads",
        cpu_features::isa(),
        cpu_features::has_avx512_bf16(),
        cpu_features::has_amx_bf16(),
        rayon::current_num_threads()
    );
    for (name, peak) in peaks() {
        println!("peak of one core, {name}: {peak:.0} GFLOP/s");
    }
    let only = std::env::args().nth(1).unwrap_or_default();
    if "linear".contains(&only) {
        bench_linear(Precision::F32);
        bench_linear(Precision::Bf16);
    }
    if "encoder".contains(&only) {
        bench_encoder(Precision::F32);
        bench_encoder(Precision::Bf16);
    }
    if "mlp".contains(&only) {
        bench_mlp(Precision::F32);
        bench_mlp(Precision::Bf16);
    }
    if "attention".contains(&only) {
        for precision in [Precision::F32, Precision::Bf16] {
            bench_attention(precision, 32, 6, 64, 64, 32);
            bench_attention(precision, 32, 6, 24, 64, 32);
            bench_attention(precision, 4, 12, 197, 197, 64);
            bench_attention(precision, 1, 6, 1, 64, 32);
            bench_attention(precision, 1, 12, 577, 577, 64);
            bench_attention(precision, 1, 4, 2048, 2048, 64);
        }
        for sizes in [[16, 4, 512], [14, 2, 2048]] {
            bench_decoding("f32", |x| x, sizes);
            bench_decoding("f16", f16::from_f32, sizes);
        }
    }
    if "elementwise".contains(&only) {
        bench_elementwise();
    }
}
