//! The `vlm` binary.
use std::sync::atomic::AtomicBool;
fn main() -> anyhow::Result<()> {
    vlm_kernels::memory::keep_freed_blocks();
    let args: Vec<String> = std::env::args().collect();
    let recipe = vlm_train::Recipe::read(args[2].as_ref())?;
    let options = vlm_train::Options {
        directory: args[3].clone().into(),
        resume: args.get(4).is_some(),
        quiet: false,
    };
    let outcome = vlm_train::train(recipe, &options, &AtomicBool::new(false))?;
    eprintln!("{outcome:?}");
    Ok(())
}
