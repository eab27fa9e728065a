use super::*;
use burn::tensor::Device;
use std::path::Path;
use vlm_nn::weights::Checkpoint;

/// A model of reference/models_oscar.py, with the numbers of its special tokens in the config, and its golden file.
fn case(name: &str, more: serde_json::Value) -> (Oscar, Checkpoint) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models/oscar");
    let folder = root.join(name);
    let text = std::fs::read_to_string(folder.join("config.json")).expect("a config");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (field, id) in [
        ("cls_token_id", 2),
        ("sep_token_id", 3),
        ("mask_token_id", 4),
    ] {
        config[field] = id.into();
    }
    for (field, value) in more.as_object().expect("fields") {
        config[field] = value.clone();
    }
    let open = |file: &str| Checkpoint::open(&folder.join(file)).expect(file);
    let weights = open("model.safetensors");
    let model = Oscar::load(&config.to_string(), weights, &Device::flex()).expect("a model");
    (model, open("golden.safetensors"))
}

fn integers(golden: &Checkpoint, name: &str) -> Vec<Vec<i64>> {
    let (shape, values) = golden.clone().take_integers(name).expect(name);
    let width = shape.last().copied().unwrap_or(1);
    values.chunks(width).map(<[i64]>::to_vec).collect()
}

fn number(golden: &Checkpoint, name: &str) -> f32 {
    golden.clone().take_any(name).expect(name).1[0]
}

/// Three regions of the first picture and two of the second.
fn regions(golden: &Checkpoint) -> Regions {
    let (shape, values) = golden.clone().take_any("in.img_feats").expect("regions");
    Regions {
        features: Tensor::from_data(TensorData::new(values, shape), &Device::flex()),
        mask: vec![vec![true, true, true], vec![true, true, false]],
    }
}

fn unsigned(rows: Vec<Vec<i64>>) -> Vec<Vec<u32>> {
    let row = |row: Vec<i64>| row.into_iter().map(|id| id as u32).collect();
    rows.into_iter().map(row).collect()
}

#[track_caller]
fn same(found: Tensor<1>, expected: f32) {
    let found = found.into_scalar::<f32>();
    // sums of the same products in another order
    assert!(
        (found - expected).abs() < 2e-5 * expected,
        "{found} is not {expected}"
    );
}

#[test]
fn losses_of_what_is_hidden_exchanged_and_answered_are_those_of_the_reference() {
    let (model, golden) = case("pretraining", serde_json::json!({}));
    let ids = unsigned(integers(&golden, "in.input_ids"));
    let seen = integers(&golden, "in.attention_mask").into_iter();
    let seen = seen.map(|row| row[..8].iter().map(|&s| s == 1).collect());
    let texts = OscarTexts {
        tokens: Tokens::new(ids, Some(seen.collect())).expect("rows"),
        segments: unsigned(integers(&golden, "in.token_type_ids")),
        positions: None,
    };
    let labels = integers(&golden, "in.masked_lm_labels");
    let classes = integers(&golden, "in.next_sentence_label").concat();
    let losses = model.triplet_losses(&texts, &regions(&golden), &labels, &classes);
    let [words, contrast] = losses.expect("losses");
    same(words.clone(), number(&golden, "out.masked_lm_loss"));
    same(words + contrast, number(&golden, "out.loss"));

    let (model, golden) = case("captioning", serde_json::json!({}));
    let ids = unsigned(integers(&golden, "in.input_ids"));
    let of = |from: usize, to: usize, lengths: [usize; 2]| {
        let rows = ids.iter().map(|row| row[from..to].to_vec()).collect();
        let mask = lengths.map(|length| (0..to - from).map(|i| i < length).collect());
        Tokens::new(rows, Some(mask.to_vec())).expect("rows")
    };
    let mut words = integers(&golden, "in.masked_ids").concat().into_iter();
    let mut words = std::iter::from_fn(|| words.find(|&id| id != 0));
    let masked = integers(&golden, "in.masked_pos");
    let labels = masked.iter().map(|row| {
        let row = row[..6].iter();
        row.map(|&hidden| {
            if hidden == 1 {
                words.next().expect("a word")
            } else {
                -1
            }
        })
        .collect()
    });
    let captions = MaskedTokens {
        labels: labels.collect(),
        texts: of(0, 6, [5, 6]),
    };
    let loss = model.hidden_words_loss(&captions, &of(6, 10, [3, 2]), 6, &regions(&golden));
    same(loss.expect("a loss"), number(&golden, "out.loss"));

    let (model, golden) = case("vqa", serde_json::json!({}));
    let mut batch = batch(&golden);
    batch.targets = OscarTargets::Answers(vec![vec![(3, 1.0), (5, 0.3)], vec![(1, 0.6)]]);
    let loss = model.batch_loss(&batch).expect("a loss");
    same(loss.total, number(&golden, "out.loss"));
    assert_eq!(loss.parts[0].0, "answers");
    batch.targets = OscarTargets::Answers(vec![vec![(7, 1.0)], vec![]]);
    let error = model
        .batch_loss(&batch)
        .expect_err("eight answers")
        .to_string();
    assert!(
        error.contains("answers: expected below 7, found 7"),
        "{error}"
    );
    batch.targets = OscarTargets::Truths(vec![true, false]);
    let error = model
        .batch_loss(&batch)
        .expect_err("no statements")
        .to_string();
    assert!(
        error.contains("targets") && error.contains("truths"),
        "{error}"
    );
}

#[test]
fn a_statement_is_judged_beside_both_of_its_pictures_as_the_reference_does() {
    let (model, _) = case("nlvr2", serde_json::json!({}));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models/oscar");
    let golden = Checkpoint::open(&root.join("nlvr2/statements.safetensors")).expect("numbers");
    let (shape, values) = golden.clone().take_any("in.img_feats").expect("regions");
    let [r, choices, n, width] = shape[..] else {
        panic!("{shape:?}");
    };
    let of_statements =
        Tensor::<4>::from_data(TensorData::new(values, shape.clone()), &Device::flex());
    // the first pictures of both statements, and then the second ones
    let features = of_statements
        .swap_dims(0, 1)
        .reshape([r * choices, n, width]);
    let mask = [
        [true; 3],
        [true; 3],
        [true, true, false],
        [true, false, false],
    ];
    let tags = [vec![20, 21, 3], vec![22, 3], vec![23, 3], vec![20, 22, 3]];
    let mut batch = OscarBatch {
        pictures: Pictures::Regions {
            regions: Regions {
                features,
                mask: mask.map(|row| row.to_vec()).to_vec(),
            },
            tags: Tokens::padded(&tags, 0),
        },
        texts: Tokens::padded(&[vec![2, 7, 8, 9, 3], vec![2, 11, 12, 3]], 0),
        of: vec![0, 1],
        targets: OscarTargets::Truths(vec![true, false]),
        seed: 0,
    };
    let loss = model.batch_loss(&batch).expect("a loss");
    assert_eq!(loss.parts[0].0, "statements");
    same(loss.total, number(&golden, "out.loss"));
    batch.targets = OscarTargets::Truths(vec![false, true]);
    let other = model.batch_loss(&batch).expect("a loss").total;
    assert!((other.into_scalar::<f32>() - number(&golden, "out.loss")).abs() > 1e-3);
}

/// The texts, tags and regions of the golden files.
fn batch(golden: &Checkpoint) -> OscarBatch {
    OscarBatch {
        pictures: Pictures::Regions {
            regions: regions(golden),
            tags: Tokens::padded(&[vec![20, 21, 3], vec![22, 3]], 0),
        },
        texts: Tokens::padded(&[vec![2, 7, 8, 9, 3], vec![2, 11, 12, 3]], 0),
        of: vec![0, 1],
        targets: OscarTargets::Belong,
        seed: 0,
    }
}

#[test]
fn half_of_the_triplets_are_exchanged_and_what_belongs_is_never_called_wrong() {
    let (model, golden) = case("pretraining", serde_json::json!({}));
    assert_eq!(model.config().texta_false_prob, 0.25);
    let mut batch = batch(&golden);
    // a third text, which the first picture has, too
    batch.texts = Tokens::padded(
        &[vec![2, 7, 8, 9, 3], vec![2, 11, 12, 3], vec![2, 11, 12, 3]],
        0,
    );
    batch.of = vec![0, 1, 0];
    let mut counts = [0.0; 3];
    for seed in 0..2000 {
        batch.seed = seed;
        let triplets = model.triplets(&batch).expect("triplets");
        assert_eq!(triplets, model.triplets(&batch).expect("the same"));
        for (row, t) in triplets.iter().enumerate() {
            assert_eq!(t.picture, batch.of[row]);
            assert_eq!(t.class == 1, t.tags != t.picture, "{t:?}");
            assert_eq!(t.class == 2, t.text != row, "{t:?}");
            // the second and the third text say the same
            assert!(t.class != 2 || row == 0 && t.text == 1 || row == 1 && t.text == 0);
        }
        counts[triplets[0].class as usize] += 1.0 / 2000.0;
    }
    for (found, expected) in counts.iter().zip([0.5, 0.25, 0.25f64]) {
        // four standard deviations
        assert!((found - expected).abs() < 0.045, "{counts:?}");
    }
    let loss = model.batch_loss(&batch).expect("a loss");
    let names: Vec<&str> = loss.parts.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["mlm", "contrast"]);
    // pictures alike, one text: nothing to exchange, and nothing called so
    batch.texts = Tokens::padded(&vec![vec![2, 7, 3]; 3], 0);
    let Pictures::Regions { tags, .. } = &mut batch.pictures else {
        panic!("regions");
    };
    *tags = Tokens::padded(&vec![vec![20, 3]; 2], 0);
    let triplets = model.triplets(&batch).expect("triplets");
    assert!(triplets.iter().all(|t| t.class == 0), "{triplets:?}");
    model.batch_loss(&batch).expect("a loss");
}

#[test]
fn every_caption_of_retrieval_stands_beside_one_that_does_not_belong() {
    let (model, golden) = case("retrieval", serde_json::json!({}));
    let mut batch = batch(&golden);
    let mut other_texts = 0;
    for seed in 0..400 {
        batch.seed = seed;
        let pairs = model.pairs(&batch).expect("pairs");
        assert_eq!((pairs[0], pairs[2]), ((0, 0, true), (1, 1, true)));
        for (own, other) in [(0, pairs[1]), (1, pairs[3])] {
            assert!(other == (1 - own, own, false) || other == (own, 1 - own, false));
            other_texts += usize::from(other.1 == own);
        }
    }
    // half of 800 within four standard deviations
    assert!((344..=456).contains(&other_texts), "{other_texts}");
    assert!(model.batch_loss(&batch).is_ok());
    batch.of = vec![0, 2];
    let error = model
        .batch_loss(&batch)
        .expect_err("two pictures")
        .to_string();
    assert!(
        error.contains("pictures: expected below 2, found 2"),
        "{error}"
    );
}

#[test]
fn some_words_of_every_caption_are_hidden_its_end_among_them_and_never_its_beginning() {
    let fields = serde_json::json!({"mask_prob": 0.2, "max_masked_tokens": 3});
    let (model, _) = case("captioning", fields);
    let row = |length: u32| [vec![2], (5..3 + length).collect(), vec![3]].concat();
    let captions = Tokens::padded(&[row(20), row(10), row(3)], 0);
    let (mut ends, mut kept, mut hidden) = (0, 0, 0);
    for seed in 0..500 {
        let masked = model.hide_words(&captions, seed);
        assert_eq!(masked, model.hide_words(&captions, seed));
        let counts = masked
            .labels
            .iter()
            .map(|l| l.iter().filter(|&&x| x >= 0).count());
        // a fifth of 20 is more than the most, of 3 less than one
        assert_eq!(counts.collect::<Vec<_>>(), [3, 2, 1]);
        for (row, labels) in masked.labels.iter().enumerate() {
            assert_eq!(labels[0], -1);
            for (i, &label) in labels.iter().enumerate() {
                let (before, after) = (captions.rows()[row][i], masked.texts.rows()[row][i]);
                if label < 0 {
                    assert_eq!(before, after);
                    continue;
                }
                assert_eq!(label, i64::from(before));
                hidden += usize::from(after == 4);
                kept += usize::from(after == before);
                ends += usize::from(before == 3);
            }
        }
    }
    // of 3000 four fifths and, but for random words that are the same, a tenth
    assert!((2310..=2490).contains(&hidden), "{hidden}");
    assert!((240..=390).contains(&kept), "{kept}");
    // 3 of 19, 2 of 9 and 1 of 2 of 500 each
    assert!((370..=510).contains(&ends), "{ends}");
}

#[test]
fn a_config_says_what_a_model_is_made_of_or_its_checkpoint_does() {
    use crate::families::oscar::{OscarClassifier, OscarConfig};
    let empty =
        vlm_nn::weights::to_bytes(&Default::default(), vlm_nn::weights::StoreDtype::F32, None);
    let empty = Checkpoint::parse(&empty.expect("bytes"), "nothing").expect("a checkpoint");
    let parse = |text: &str| OscarConfig::parse(text, &empty);
    let sizes = r#""max_position_embeddings": 64, "img_feature_dim": 10"#;
    let vqa = parse(&format!(
        r#"{{"model_type": "oscar", "task": "vqa", "num_labels": 2, "answers": ["no", "yes"], "classifier": "mlp",
            {sizes}}}"#
    ));
    let vqa = vqa.expect("a config");
    assert_eq!(
        (vqa.task, vqa.loss),
        (OscarTask::Classification, OscarLoss::Binary)
    );
    assert_eq!(vqa.answers, ["no", "yes"]);
    assert!(matches!(
        vqa.classifier,
        OscarClassifier::Mlp {
            scale: 2,
            norm: false
        }
    ));
    let captioning = parse(&format!(r#"{{"task": "captioning", {sizes}}}"#)).expect("a config");
    assert!(captioning.tie_weights && !captioning.bert.pooler);
    for (fields, expected) in [
        (
            r#""task": "chat""#,
            "task: expected pretrain, captioning, vqa, retrieval or nlvr, found \"chat\"",
        ),
        (
            r#""task": "vqa", "num_labels": 3, "answers": ["no"]"#,
            "answers: expected 3 texts",
        ),
        (
            r#""task": "vqa", "classifier": "deep""#,
            "classifier: expected \"linear\" or \"mlp\"",
        ),
        (
            r#""task": "pretrain", "num_contrast_classes": 1"#,
            "num_contrast_classes: expected 2 or 3",
        ),
        (
            r#""task": "pretrain", "texta_false_prob": 0.7"#,
            "texta_false_prob: expected 0 to 0.5",
        ),
        (
            r#""task": "captioning", "mask_prob": 0"#,
            "mask_prob: expected above 0",
        ),
        (
            r#""num_labels": 3"#,
            "nothing: expected tensors named classifier",
        ),
    ] {
        let error = parse(&format!("{{{fields}, {sizes}}}"))
            .expect_err(fields)
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}
