//! Every kernel against its naive `f64` reference, on every instruction set that this machine has.

mod attention;
mod conv;
mod determinism;
mod elementwise;
mod gemm;
mod layout;
mod quant;
mod regions;
mod rope;
mod support;

/// The suite above runs on the best instruction set; this runs it again on each lesser one.
#[test]
fn every_lesser_instruction_set_passes_the_same_tests() {
    if std::env::var_os("VLM_CPU").is_some() {
        return;
    }
    let program = std::env::current_exe().expect("the test binary's own path");
    let bounds: &[&str] = if cfg!(target_arch = "x86_64") {
        &["portable", "avx2", "avx-vnni", "avx512", "avx512-bf16"]
    } else {
        &["portable"]
    };
    for bound in bounds {
        let run = std::process::Command::new(&program)
            .args(["--skip", "every_lesser_instruction_set", "--test-threads=2"])
            .env("VLM_CPU", bound)
            .output()
            .expect("the test binary starts again");
        assert!(
            run.status.success(),
            "with VLM_CPU={bound}:\n{}",
            String::from_utf8_lossy(&run.stdout)
        );
    }
}
