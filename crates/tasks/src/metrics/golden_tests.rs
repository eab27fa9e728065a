//! Agreement with scores computed by other people's code (see `reference/metrics_*.py`).

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::*;

fn golden<T: DeserializeOwned>(name: &str) -> T {
    let path = format!(
        "{}/../../testdata/metrics/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[derive(Deserialize)]
struct Corpora {
    corpora: Vec<Corpus>,
}

#[derive(Deserialize)]
struct Corpus {
    name: String,
    scores: CaptionScores,
    items: Vec<ScoredItem>,
}

#[derive(Deserialize)]
struct ScoredItem {
    case: String,
    hypothesis: String,
    references: Vec<String>,
    tokenised: String,
    scores: CaptionScores,
}

#[track_caller]
fn assert_scores(found: &CaptionScores, expected: &CaptionScores, place: &str) {
    let values = |scores: &CaptionScores| {
        let [b1, b2, b3, b4] = scores.bleu;
        [b1, b2, b3, b4, scores.rouge_l, scores.cider_d]
    };
    for (found, expected) in values(found).into_iter().zip(values(expected)) {
        // The same formulas in f64: only the order of sums and the library's powers may differ.
        let tolerance = 1e-12 + 1e-10 * expected.abs();
        assert!(
            (found - expected).abs() <= tolerance,
            "{place}: expected {expected}, found {found}"
        );
    }
}

#[test]
fn caption_scores_match_the_original_scorers_on_every_corpus_and_item() {
    let golden: Corpora = golden("captions_golden.json");
    assert!(golden.corpora.len() >= 6);
    for corpus in &golden.corpora {
        let items: Vec<(String, Vec<String>)> = corpus
            .items
            .iter()
            .map(|item| (item.hypothesis.clone(), item.references.clone()))
            .collect();
        let (scores, per_item) = score_captions_per_item(&items).unwrap();
        assert_scores(&scores, &corpus.scores, &corpus.name);
        assert_eq!(per_item.len(), corpus.items.len());
        for (found, item) in per_item.iter().zip(&corpus.items) {
            let place = format!("{}: {}", corpus.name, item.case);
            assert_eq!(tokenise(&item.hypothesis), item.tokenised, "{place}");
            assert_scores(found, &item.scores, &place);
        }
    }
}

#[test]
fn accented_letters_stay_within_their_word() {
    // Five words, four of which, and two of whose four bigrams, are in the references.
    let references = ["Test en français.", "Le test en français."].map(str::to_owned);
    let item = ("Le test est en français.".to_owned(), references.to_vec());
    let scores = score_captions(&[item]).unwrap();
    assert!((scores.bleu[0] - 0.8).abs() < 1e-6);
    assert!((scores.bleu[1] - (0.8_f64 * 0.5).sqrt()).abs() < 1e-6);
    // Precision 4/5, recall 1.
    assert!((scores.rouge_l - 2.44 * 0.8 / (1.0 + 1.44 * 0.8)).abs() < 1e-12);
    assert_eq!(scores.cider_d, 0.0);
}

#[test]
fn captions_without_items_or_references_are_errors() {
    assert_eq!(score_captions(&[]), Err(MetricError::NoItems));
    let items = [
        ("a".to_owned(), vec!["a".to_owned()]),
        ("b".to_owned(), Vec::new()),
    ];
    let error = score_captions(&items).unwrap_err();
    assert_eq!(error, MetricError::NoReferences { index: 1 });
    assert_eq!(
        error.to_string(),
        "metrics: item 1: expected at least one reference caption, found none"
    );
}

#[derive(Deserialize)]
struct BootstrapCases {
    cases: Vec<BootstrapCase>,
}

#[derive(Deserialize)]
struct BootstrapCase {
    statistic: String,
    seed: u64,
    resamples: usize,
    confidence: f64,
    items: serde_json::Value,
    expected: Interval,
}

#[test]
fn bootstrap_intervals_match_numpy_percentiles_of_the_same_draws() {
    let golden: BootstrapCases = golden("bootstrap_golden.json");
    assert_eq!(golden.cases.len(), 3);
    for case in golden.cases {
        let bootstrap = Bootstrap {
            resamples: case.resamples,
            confidence: case.confidence,
            seed: case.seed,
        };
        let found = if case.statistic == "fact_f1" {
            let rows: Vec<[u32; 4]> = serde_json::from_value(case.items).unwrap();
            let counts: Vec<FactCounts> = rows
                .into_iter()
                .map(|[correct, stated, recalled, required]| FactCounts {
                    correct,
                    stated,
                    recalled,
                    required,
                })
                .collect();
            score_facts(&counts, &bootstrap).unwrap().f1
        } else {
            let values: Vec<f64> = serde_json::from_value(case.items).unwrap();
            bootstrap.mean(&values).unwrap()
        };
        let pairs = [
            (found.estimate, case.expected.estimate),
            (found.low, case.expected.low),
            (found.high, case.expected.high),
        ];
        for (found, expected) in pairs {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }
}
