//! `vlm match`

use crate::classify::tell_unknown_words;
use crate::models::ModelArg;
use crate::output::{Output, rounded};
use crate::regions::RegionArgs;
use crate::{Common, Outcome};
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use vlm_models::capability::Similarity;

/// Say how well texts fit a picture
#[derive(Args)]
#[command(after_help = "\
With --json there is a line for each picture and text: image, text, similarity (cosine of the two vectors), \
probability (of this text among those given for a softmax, of the pair by itself for a sigmoid), matching (probability \
by the model's matching head), model and ms of all texts of the picture; what the model cannot tell is null.

Exit codes: 0 done; 1 some pictures failed, the others are matched; 2 wrong usage or unusable model.

Example:
  vlm match examples/pictures/five-hearts.png 'a picture of five hearts' 'a picture of a ring'")]
pub struct MatchArgs {
    /// Picture: a file, a directory, a pattern in quotes, or - for stdin
    image: OsString,
    /// Texts
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<String>,
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    regions: RegionArgs,
}

#[derive(Serialize)]
struct Record<'a> {
    image: &'a str,
    text: &'a str,
    similarity: Option<f64>,
    probability: Option<f64>,
    matching: Option<f64>,
    model: &'a str,
    ms: f64,
}

pub fn run(args: &MatchArgs, common: &Common) -> anyhow::Result<Outcome> {
    let vlm = args.regions.complete(args.model.load(common)?)?;
    let texts: Vec<&str> = args.texts.iter().map(String::as_str).collect();
    let has_head = vlm.model().score_pair().is_ok();
    // a family may have the one, the other, or both
    let (image, text) = (vlm.model().embed_image(), vlm.model().embed_text());
    let candidates = match (image.and(text), has_head) {
        (Err(_), true) => None,
        (Err(cannot), false) => return Err(cannot.into()),
        (Ok(_), _) => Some(vlm.candidates(&texts)?),
    };
    if !common.quiet {
        tell_unknown_words(&vlm, "TEXT", &texts)?;
    }
    let mut output = Output::new(common.json);
    args.regions.each(
        std::slice::from_ref(&args.image),
        &vlm,
        common,
        |image| {
            let similarity = match &candidates {
                Some(candidates) => {
                    let vector = vlm.embed_images(&[image])?.swap_remove(0);
                    Some(candidates.cosines(&vector))
                }
                None => None,
            };
            let matching = match has_head {
                true => Some(vlm.matching_scores(image, &texts)?),
                false => None,
            };
            Ok((similarity, matching))
        },
        |regions| Ok((None, Some(vlm.matching_scores(regions, &texts)?))),
        |done| {
            let (similarity, matching) = &done.result;
            let probability = candidates.as_ref().zip(similarity.as_ref());
            // a softmax over one text says nothing
            let probability = probability
                .filter(|(c, _)| {
                    texts.len() > 1 || matches!(c.similarity(), Similarity::Sigmoid { .. })
                })
                .map(|(c, similarity)| c.probabilities(similarity));
            for (i, text) in texts.iter().enumerate() {
                let at = |v: &Option<Vec<f32>>| v.as_ref().map(|v| rounded(v[i]));
                let record = Record {
                    image: done.image,
                    text,
                    similarity: at(similarity),
                    probability: at(&probability),
                    matching: at(matching),
                    model: vlm.name(),
                    ms: done.ms,
                };
                let percent =
                    |name: &str, p: Option<f64>| p.map(|p| format!("{name} {:.1} %", 100.0 * p));
                let scores = [
                    record.similarity.map(|s| format!("similarity {s:.3}")),
                    percent("probability", record.probability),
                    percent("matching", record.matching),
                ];
                let scores: Vec<String> = scores.into_iter().flatten().collect();
                output.result(
                    &record,
                    &done.line(&format!("{text}: {}", scores.join(", "))),
                )?;
            }
            Ok(())
        },
    )
}
