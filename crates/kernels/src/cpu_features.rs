//! What this processor can do, found once per process.
//!
//! The environment variable `VLM_CPU` (`portable`, `neon`, `avx2`, `avx-vnni`, `avx512`, `avx512-bf16` or `amx`) is an
//! upper bound on what is used: it masks features off and never claims one that is missing.

use std::sync::OnceLock;

/// The vector instruction set that the `f32` kernels run on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Isa {
    /// What every processor of the target architecture has.
    Portable,
    /// NEON of 64-bit ARM: 4 lanes.
    Neon,
    /// AVX2, FMA and F16C: 8 lanes.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: 16 lanes.
    Avx512,
}

/// The number format that products are computed in; sums are always `f32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// Operands rounded to bfloat16 where the hardware multiplies them faster; else (also for a few
    /// rows of a weight that is not packed, where reading it takes the time) as [`Self::F32`].
    Bf16,
}

/// The instructions that multiply 8-bit integers and add the products in 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IntegerIsa {
    /// What every processor of the target architecture has.
    Portable,
    /// AVX2 without a dot product instruction.
    Avx2,
    /// The 256-bit dot products of AVX-VNNI.
    AvxVnni,
    /// The 512-bit dot products of AVX-512 VNNI.
    Avx512Vnni,
    /// The dot products of ARMv8.2 (`FEAT_DotProd`).
    NeonDot,
}

/// What kernels may use, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Level {
    Portable,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// As `Avx2`, and AVX-VNNI where it is found.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

/// The instruction set in use.
#[inline]
pub fn isa() -> Isa {
    match level() {
        Level::Portable => Isa::Portable,
        #[cfg(target_arch = "aarch64")]
        Level::Neon => Isa::Neon,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => Isa::Avx2,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx => Isa::Avx512,
    }
}

/// Whether the AVX-512 dot product of bfloat16 pairs may be used.
#[inline]
pub fn has_avx512_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return level() >= Level::Avx512Bf16;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether AMX bfloat16 tiles may be used: the processor has them and Linux granted the tile state
/// to this process.
#[inline]
pub fn has_amx_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return level() >= Level::Amx;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether AMX tiles of 8-bit integers may be used.
#[inline]
pub fn has_amx_int8() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    // Integer tiles are only reported together with what their packing needs.
    *FOUND.get_or_init(|| {
        has_amx_bf16() && integer_isa() == IntegerIsa::Avx512Vnni && detect_amx_int8()
    })
}

/// The instructions in use for products of 8-bit integers.
#[inline]
pub fn integer_isa() -> IntegerIsa {
    static FOUND: OnceLock<IntegerIsa> = OnceLock::new();
    *FOUND.get_or_init(detect_integer_isa)
}

#[cfg(target_arch = "x86_64")]
fn detect_integer_isa() -> IntegerIsa {
    let level = level();
    if level < Level::Avx2 {
        IntegerIsa::Portable
    } else if level >= Level::Avx512 && is_x86_feature_detected!("avx512vnni") {
        IntegerIsa::Avx512Vnni
    } else if level >= Level::AvxVnni && is_x86_feature_detected!("avxvnni") {
        IntegerIsa::AvxVnni
    } else {
        IntegerIsa::Avx2
    }
}

#[cfg(target_arch = "aarch64")]
fn detect_integer_isa() -> IntegerIsa {
    let portable = std::env::var("VLM_CPU").is_ok_and(|bound| bound == "portable");
    if !portable && std::arch::is_aarch64_feature_detected!("dotprod") {
        IntegerIsa::NeonDot
    } else {
        IntegerIsa::Portable
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect_integer_isa() -> IntegerIsa {
    IntegerIsa::Portable
}

/// CPUID leaf 7 names AMX-INT8 (Intel SDM volume 2, CPUID).
#[cfg(target_arch = "x86_64")]
pub(crate) fn detect_amx_int8() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const AMX_INT8: u32 = 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & AMX_INT8 != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn detect_amx_int8() -> bool {
    false
}

#[inline]
fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let bound = std::env::var("VLM_CPU").ok();
        bounded(detect(), bound.as_deref())
    })
}

/// The level of a name on this architecture.
fn named(bound: &str) -> Option<Level> {
    Some(match bound {
        "portable" => Level::Portable,
        #[cfg(target_arch = "aarch64")]
        "neon" => Level::Neon,
        #[cfg(target_arch = "x86_64")]
        "avx2" => Level::Avx2,
        #[cfg(target_arch = "x86_64")]
        "avx-vnni" => Level::AvxVnni,
        #[cfg(target_arch = "x86_64")]
        "avx512" => Level::Avx512,
        #[cfg(target_arch = "x86_64")]
        "avx512-bf16" => Level::Avx512Bf16,
        _ => return None,
    })
}

/// An unknown name bounds nothing: a misspelt variable must not slow a program down silently.
fn bounded(found: Level, bound: Option<&str>) -> Level {
    bound
        .and_then(named)
        .map_or(found, |bound| found.min(bound))
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    if !avx2 {
        return Level::Portable;
    }
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    if !avx512 {
        Level::AvxVnni
    } else if !is_x86_feature_detected!("avx512bf16") {
        Level::Avx512
    } else if !amx_granted() {
        Level::Avx512Bf16
    } else {
        Level::Amx
    }
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Level {
    if std::arch::is_aarch64_feature_detected!("neon") {
        Level::Neon
    } else {
        Level::Portable
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Level {
    Level::Portable
}

/// CPUID leaf 7 names AMX-TILE and AMX-BF16; Linux hands out the 8 KiB tile state on request only
/// (`arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`, Documentation/arch/x86/xstate.rst).
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) fn amx_granted() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    if __cpuid(0).eax < 7 {
        return false;
    }
    let edx = __cpuid_count(7, 0).edx;
    if edx & AMX_BF16 == 0 || edx & AMX_TILE == 0 {
        return false;
    }
    // SAFETY: the call takes two integers, touches no memory of ours and fails on old kernels.
    unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        ) == 0
    }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_granted() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_masks_features_off_and_never_adds_one() {
        let best = detect();
        assert_eq!(bounded(best, None), best);
        assert_eq!(bounded(best, Some("misspelt")), best);
        assert_eq!(bounded(best, Some("portable")), Level::Portable);
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(bounded(Level::Amx, Some("avx2")), Level::Avx2);
            assert_eq!(bounded(Level::Avx2, Some("avx512-bf16")), Level::Avx2);
            assert_eq!(bounded(Level::Avx2, Some("amx")), Level::Avx2);
            assert_eq!(bounded(Level::Avx512, Some("neon")), Level::Avx512);
        }
        #[cfg(target_arch = "aarch64")]
        assert_eq!(bounded(Level::Neon, Some("avx2")), Level::Neon);
    }
}
