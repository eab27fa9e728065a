//! What was found and chosen, for people: the source of `vlm doctor`.

use crate::cpu_features::{self, IntegerIsa, Isa, Precision};
use crate::gemm::kernel_name;
use std::time::Duration;

/// An extension of the instruction set that some kernel is written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Its name, as `VLM_CPU` spells it where it has one there.
    pub name: &'static str,
    /// Whether the processor has it.
    pub found: bool,
    /// Whether kernels use it: it is found, the system allows it, and `VLM_CPU` does not mask it.
    pub used: bool,
}

/// What became of AMX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amx {
    /// The processor has none.
    Missing,
    /// The processor has it, `VLM_CPU` masks it.
    Masked,
    /// The processor has it, the system did not grant the tile registers.
    Refused,
    /// A first product came out wrong.
    SelfCheckFailed,
    /// It computes.
    Used,
}

/// Which kernel computes an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The operation.
    pub operation: &'static str,
    /// The precision asked for.
    pub precision: &'static str,
    /// The instruction set of its kernel.
    pub kernel: &'static str,
}

/// The processor time that this process has used, all threads together; unknown where the system does not say.
pub fn processor_time() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: all zero bits are a time.
        let mut time: libc::timespec = unsafe { std::mem::zeroed() };
        // SAFETY: the call writes to the time it is given.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
        let seconds = u64::try_from(time.tv_sec).ok()?;
        let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
        (failed == 0).then(|| Duration::new(seconds, nanoseconds))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The bound that the environment variable `VLM_CPU` asks for, if it is set.
pub fn bound() -> Option<String> {
    std::env::var("VLM_CPU").ok()
}

/// The extensions that kernels are written for, weakest first. Empty where all kernels are portable.
pub fn features() -> Vec<Feature> {
    #[cfg(target_arch = "x86_64")]
    {
        let isa = cpu_features::isa();
        let feature = |name, found, used| Feature { name, found, used };
        vec![
            feature(
                "avx2",
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
                isa >= Isa::Avx2,
            ),
            feature(
                "avx512",
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl"),
                isa >= Isa::Avx512,
            ),
            feature(
                "avx-vnni",
                is_x86_feature_detected!("avxvnni"),
                cpu_features::integer_isa() == IntegerIsa::AvxVnni,
            ),
            feature(
                "avx512-vnni",
                is_x86_feature_detected!("avx512vnni"),
                cpu_features::integer_isa() == IntegerIsa::Avx512Vnni,
            ),
            feature(
                "avx512-bf16",
                is_x86_feature_detected!("avx512bf16"),
                cpu_features::has_avx512_bf16(),
            ),
            feature("amx-bf16", processor_has_amx(), amx() == Amx::Used),
        ]
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// Whether the processor itself has AMX bfloat16 tiles, whoever may use them.
#[cfg(target_arch = "x86_64")]
fn processor_has_amx() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const AMX_BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & AMX_BF16_AND_TILE == AMX_BF16_AND_TILE
}

#[cfg(not(target_arch = "x86_64"))]
fn processor_has_amx() -> bool {
    false
}

/// What became of AMX; runs its self-check if it has not run yet.
pub fn amx() -> Amx {
    let masked = ["portable", "avx2", "avx-vnni", "avx512", "avx512-bf16"];
    if !processor_has_amx() {
        Amx::Missing
    } else if bound().is_some_and(|bound| masked.contains(&bound.as_str())) {
        Amx::Masked
    } else if !cpu_features::has_amx_bf16() {
        Amx::Refused
    } else if kernel_name(Precision::Bf16) != "amx-bf16" {
        Amx::SelfCheckFailed
    } else {
        Amx::Used
    }
}

/// The kernel of every operation and precision on this processor.
pub fn choices() -> Vec<Choice> {
    let vectors = match cpu_features::isa() {
        Isa::Portable => "portable",
        Isa::Neon => "neon",
        Isa::Avx2 => "avx2",
        Isa::Avx512 => "avx512",
    };
    let integers = match cpu_features::integer_isa() {
        IntegerIsa::Portable => "portable",
        IntegerIsa::Avx2 => "avx2",
        IntegerIsa::AvxVnni => "avx-vnni",
        IntegerIsa::Avx512Vnni => "avx512-vnni",
        IntegerIsa::NeonDot => "neon-dotprod",
    };
    let on_tiles = |available| if available { "amx-int8" } else { integers };
    let eight_bits = on_tiles(crate::quant::int8_runs_on_amx());
    let blocks = on_tiles(crate::quant::blocks_run_on_amx());
    let choice = |operation, precision, kernel| Choice {
        operation,
        precision,
        kernel,
    };
    vec![
        choice("matrix product", "f32", kernel_name(Precision::F32)),
        choice("matrix product", "bf16", kernel_name(Precision::Bf16)),
        choice("matrix product", "int8", eight_bits),
        choice("matrix product", "int4", blocks),
        choice("blocks of GGUF files, one row", "int8", integers),
        choice("blocks of GGUF files, many rows", "int8", blocks),
        choice("attention", "f32", vectors),
        choice("attention", "bf16", kernel_name(Precision::Bf16)),
        choice("norms, softmax, activations", "f32", vectors),
        choice("rotary, embedding, AdamW", "f32", vectors),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn processor_time_grows_with_work() {
        let before = processor_time().expect("Linux says it");
        let mut x = 1_u64;
        while processor_time().is_some_and(|now| now == before) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(processor_time().is_some_and(|now| now > before));
    }

    #[test]
    fn a_feature_is_used_only_where_it_is_found() {
        for feature in features() {
            assert!(feature.found || !feature.used, "{feature:?}");
        }
        let bf16 = choices()[1];
        assert_eq!((bf16.operation, bf16.precision), ("matrix product", "bf16"));
        assert_eq!(bf16.kernel == "amx-bf16", amx() == Amx::Used);
    }
}
