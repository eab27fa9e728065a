//! `vlm world`

use crate::output::Output;
use crate::{Common, Outcome, world_regions};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use vlm_worlds::boxes;
use vlm_worlds::shapes::{self, Config, Split};

/// Make pictures with captions, questions or statements and exact ground truth
#[derive(Args)]
#[command(after_help = "\
Example:
  vlm world shapes --split test --count 100 --seed 7 --out data/test")]
pub struct WorldArgs {
    #[command(subcommand)]
    world: World,
}

#[derive(Subcommand)]
enum World {
    Shapes(ShapesArgs),
    Boxes(BoxesArgs),
}

/// Coloured shapes: pictures and items.jsonl; the same arguments give the same bytes everywhere
#[derive(Args)]
#[command(after_help = "\
With --json the line on stdout has data, world, split, count and seed.

Exit codes: 0 done; 2 wrong usage, or a directory that cannot be written or holds other files.

Example:
  vlm world shapes --split test --count 100 --seed 7 --out data/test
  vlm eval vqa --data data/test")]
pub struct ShapesArgs {
    /// train, validation, test or compositional (attribute pairs that the others never show together)
    #[arg(long)]
    pub split: Split,
    /// How many pictures
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub count: u64,
    /// Seed of the pictures
    #[arg(long)]
    pub seed: u64,
    /// Directory to write to: new, empty, or an earlier output, which is replaced
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Side of the pictures in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = Config::default().size,
          value_parser = clap::value_parser!(u32).range(32..=1024))]
    size: u32,
    /// From 0 (few objects, clean) to 1 (many objects, clutter, occlusion, noise)
    #[arg(long, value_name = "D", default_value_t = Config::default().difficulty)]
    difficulty: f32,
    /// Also write regions.tsv, for models that read regions: the true boxes and shapes with hand-crafted features
    #[arg(long)]
    pub regions: bool,
}

/// Statements about three boxes, true or false, in Cornell NLVR's format; the same arguments give the same bytes
#[derive(Args)]
#[command(after_help = "\
Statements come in pairs with one sentence, true of the one scene and false of the other. Written are examples.jsonl \
and the folder images. Of the scenes that a further statement is said of it is as often true as false, too.

With --json the line on stdout has data, world, split, count, seed and orders.

Exit codes: 0 done; 2 wrong usage, or a directory that cannot be written or holds other files.

Example:
  vlm world boxes --split train --count 50000 --seed 1 --out data/boxes
  vlm world boxes --split train --count 50000 --seed 2 --questions 8 --out data/boxes-asked
  vlm eval statements --data data/boxes --model runs/nlvr/model")]
struct BoxesArgs {
    /// train, validation or test; they share no scene
    #[arg(long)]
    split: boxes::Split,
    /// How many statements
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    count: u64,
    /// Seed of the statements
    #[arg(long)]
    seed: u64,
    /// Directory to write to: new, empty, or an earlier output, which is replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many pictures a statement has, each with another order of the boxes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=6))]
    orders: u8,
    /// How many questions about each scene stand beside its statement, in the field qa, which NLVR does not have
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=64))]
    questions: u8,
    /// How many further statements about each scene stand there, answered with true or false
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=64))]
    more_statements: u8,
}

#[derive(Serialize)]
struct Record<'a> {
    data: String,
    world: &'a str,
    split: &'a str,
    count: u64,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    orders: Option<u8>,
}

pub fn run(args: &WorldArgs, common: &Common) -> anyhow::Result<Outcome> {
    let record = match &args.world {
        World::Shapes(args) => write_shapes(args, common)?,
        World::Boxes(args) => write_boxes(args, common)?,
    };
    Output::new(common.json).result(&record, &record.data)?;
    Ok(Outcome::Done)
}

fn write_shapes(args: &ShapesArgs, common: &Common) -> anyhow::Result<Record<'static>> {
    let config = Config {
        size: args.size,
        difficulty: args.difficulty,
    };
    let bar = progress_bar(args.count, "pictures", common.quiet);
    let (split, seed, count) = (args.split, args.seed, args.count);
    let written = shapes::write(&config, split, seed, count, &args.out, |done| {
        bar.set_position(done);
    });
    bar.finish_and_clear();
    written?;
    world_regions::replace(&config, args, common)?;
    Ok(Record {
        data: args.out.display().to_string(),
        world: "shapes",
        split: split.name(),
        count,
        seed,
        orders: None,
    })
}

fn write_boxes(args: &BoxesArgs, common: &Common) -> anyhow::Result<Record<'static>> {
    let bar = progress_bar(args.count, "statements", common.quiet);
    let (split, seed, count) = (args.split, args.seed, args.count);
    let amount = boxes::Amount {
        statements: count,
        orders: args.orders.into(),
        questions: args.questions.into(),
        more_statements: args.more_statements.into(),
    };
    let written = boxes::write(split, seed, amount, &args.out, |done| {
        bar.set_position(done);
    });
    bar.finish_and_clear();
    written?;
    Ok(Record {
        data: args.out.display().to_string(),
        world: "boxes",
        split: split.name(),
        count,
        seed,
        orders: Some(args.orders),
    })
}

/// A bar on stderr if that is a terminal, else nothing.
pub fn progress_bar(total: u64, unit: &str, quiet: bool) -> ProgressBar {
    let target = if quiet {
        ProgressDrawTarget::hidden()
    } else {
        // hides itself where stderr is no terminal
        ProgressDrawTarget::stderr()
    };
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {unit}  {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("a valid template");
    let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
