//! The `vlm` binary: pictures and text in, words out.
#![forbid(unsafe_code)]

mod ask;
mod bench;
mod caption;
mod classify;
mod completions;
mod detect;
mod doctor;
mod drawn;
mod embed;
mod eval;
mod input;
mod inspect;
mod judge;
mod matching;
mod models;
mod output;
mod precision;
#[cfg(feature = "hub")]
mod pull;
mod regions;
mod train;
mod verify;
mod world;
mod world_regions;

use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

/// Describes pictures, answers questions about them, and trains and measures the models that do.
#[derive(Parser)]
#[command(
    name = "vlm",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes:
  0  done
  1  some inputs failed; the others are done and printed
  2  nothing could be done: wrong usage, or a model, recipe, data or output directory that cannot be used

Example:
  vlm caption examples/pictures/*.png"
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args)]
#[command(next_help_heading = "Common options")]
struct Common {
    /// Print one JSON object a line instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Threads to compute with; 0 takes all
    #[arg(long, global = true, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(..=1024))]
    threads: u16,
    /// Print results and errors only: no notes, no progress
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    Caption(caption::CaptionArgs),
    Ask(ask::AskArgs),
    Classify(classify::ClassifyArgs),
    Match(matching::MatchArgs),
    Judge(judge::JudgeArgs),
    Embed(embed::EmbedArgs),
    Detect(detect::DetectArgs),
    World(world::WorldArgs),
    Train(train::TrainArgs),
    Eval(eval::EvalArgs),
    Models(models::ModelsArgs),
    #[cfg(feature = "hub")]
    Pull(pull::PullArgs),
    Inspect(inspect::InspectArgs),
    Verify(verify::VerifyArgs),
    Bench(bench::BenchArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
}

/// How a command ended that could do its work.
enum Outcome {
    Done,
    SomeInputsFailed,
    Interrupted,
}

fn main() -> ExitCode {
    // A bug is reported like any other trouble: in one line.
    std::panic::set_hook(Box::new(|panic| {
        output::complain(format_args!("internal error, please report it: {panic}"));
    }));
    vlm_kernels::memory::keep_freed_blocks();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeInputsFailed) => ExitCode::from(1),
        // what a shell reports of a command that Ctrl-C ended
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        // whoever read our output has seen enough
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(format_args!("{error}"));
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Outcome> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(cli.common.threads.into())
        .build_global()?;
    match &cli.command {
        Command::Caption(args) => caption::run(args, &cli.common),
        Command::Ask(args) => ask::run(args, &cli.common),
        Command::Classify(args) => classify::run(args, &cli.common),
        Command::Match(args) => matching::run(args, &cli.common),
        Command::Judge(args) => judge::run(args, &cli.common),
        Command::Embed(args) => embed::run(args, &cli.common),
        Command::Detect(args) => detect::run(args, &cli.common),
        Command::World(args) => world::run(args, &cli.common),
        Command::Train(args) => train::run(args, &cli.common),
        Command::Eval(args) => eval::run(args, &cli.common),
        Command::Models(args) => models::run(args, &cli.common),
        #[cfg(feature = "hub")]
        Command::Pull(args) => pull::run(args, &cli.common),
        Command::Inspect(args) => inspect::run(args, &cli.common),
        Command::Verify(args) => verify::run(args, &cli.common),
        Command::Bench(args) => bench::run(args, &cli.common),
        Command::Doctor(args) => doctor::run(args, &cli.common),
        Command::Completions(args) => completions::run::<Cli>(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
