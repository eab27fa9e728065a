//! `vlm classify`

use crate::models::ModelArg;
use crate::output::{Output, complain, rounded};
use crate::{Common, Outcome, input};
use anyhow::{anyhow, bail};
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;
use vlm_models::capability::Similarity;

/// Sort pictures by labels that no one trained for
#[derive(Args)]
#[command(after_help = "\
A model with a softmax spreads one probability over the labels; one with a sigmoid (SigLIP) judges each by itself.

With --json each line has image, label, probability, top (label and probability of the best), model and ms.

Exit codes: 0 done; 1 some pictures failed, the others are sorted; 2 wrong usage or unusable model.

Example:
  vlm classify examples/pictures/*.png --labels circle,star,heart
  vlm classify photos --model clip-vit-base-patch32 --labels-file labels.txt \\
    --template 'a photo of a {}.' --template 'a drawing of a {}.'")]
pub struct ClassifyArgs {
    /// Pictures: files, directories, patterns, or - for stdin
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<OsString>,
    /// Labels to choose from
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    labels: Vec<String>,
    /// A file of more labels, one a line
    #[arg(long, value_name = "FILE")]
    labels_file: Option<PathBuf>,
    /// A sentence with {} for the label, several for their mean; the family's usual one if not given
    #[arg(long, value_name = "TEXT")]
    template: Vec<String>,
    /// How many labels to tell of each picture, best first
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    #[command(flatten)]
    model: ModelArg,
}

#[derive(Serialize)]
struct Record<'a> {
    image: &'a str,
    label: &'a str,
    probability: f64,
    top: &'a [Choice<'a>],
    model: &'a str,
    ms: f64,
}

#[derive(Serialize)]
struct Choice<'a> {
    label: &'a str,
    probability: f64,
}

pub fn run(args: &ClassifyArgs, common: &Common) -> anyhow::Result<Outcome> {
    let labels = labels(args)?;
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let templates: Vec<&str> = args.template.iter().map(String::as_str).collect();
    let vlm = args.model.load(common)?;
    vlm.model().embed_image()?;
    vlm.model().embed_text()?;
    vlm.processor()?;
    let candidates = vlm.labels(&labels, &templates)?;
    if !common.quiet {
        let one = labels.len() == 1;
        if one && matches!(candidates.similarity(), Similarity::Softmax { .. }) {
            complain(format_args!(
                "note: --labels: one label alone always has probability 1"
            ));
        }
        tell_unknown_words(&vlm, "--labels", &labels)?;
    }
    let mut output = Output::new(common.json);
    input::each_picture(
        &args.images,
        vlm.name(),
        common,
        |image| {
            let vector = vlm.embed_images(&[image])?.swap_remove(0);
            Ok(candidates.probabilities(&candidates.cosines(&vector)))
        },
        |done| {
            let mut order: Vec<usize> = (0..labels.len()).collect();
            order.sort_by(|&a, &b| done.result[b].total_cmp(&done.result[a]));
            order.truncate(args.top.try_into().unwrap_or(usize::MAX));
            let top: Vec<Choice> = order
                .iter()
                .map(|&i| Choice {
                    label: labels[i],
                    probability: rounded(done.result[i]),
                })
                .collect();
            let text: Vec<String> = top
                .iter()
                .map(|c| format!("{} {:.1} %", c.label, 100.0 * c.probability))
                .collect();
            let record = Record {
                image: done.image,
                label: top[0].label,
                probability: top[0].probability,
                top: &top,
                model: vlm.name(),
                ms: done.ms,
            };
            output.result(&record, &done.line(&text.join(", ")))
        },
    )
}

/// The labels of both options.
fn labels(args: &ClassifyArgs) -> anyhow::Result<Vec<String>> {
    let mut labels = args.labels.clone();
    if let Some(path) = &args.labels_file {
        let text = std::fs::read_to_string(path)
            .map_err(|e| anyhow!("{}: cannot read: {e}", path.display()))?;
        labels.extend(text.lines().map(str::to_owned));
    }
    let mut labels: Vec<String> = labels.iter().map(|l| l.trim().to_owned()).collect();
    labels.retain(|label| !label.is_empty());
    if labels.is_empty() {
        bail!("--labels: expected labels, found none; give --labels A,B,C or --labels-file FILE");
    }
    Ok(labels)
}

/// Notes the words that a small vocabulary lacks.
pub fn tell_unknown_words(
    vlm: &vlm_tasks::Vlm,
    option: &str,
    texts: &[&str],
) -> anyhow::Result<()> {
    let unknown = vlm.text()?.unknown_words(&texts.join(" "))?;
    if !unknown.is_empty() {
        complain(format_args!(
            "note: {option}: {} does not know: {}",
            vlm.name(),
            unknown.join(", ")
        ));
    }
    Ok(())
}
