//! `vlm completions`

use crate::Outcome;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;

/// Print a script that completes commands in a shell
#[derive(Args)]
#[command(after_help = "\
Example:
  vlm completions bash > ~/.local/share/bash-completion/completions/vlm")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub fn run<C: CommandFactory>(args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    // into memory first: the generator does not survive a closed pipe
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "vlm", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Outcome::Done)
}
