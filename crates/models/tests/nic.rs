//! Captioners of a CNN and an RNN agree with plain PyTorch (reference/models_nic.py).

mod common;

use burn::tensor::{Device, Tensor};
use common::{AdamW, Case, gradients};
use std::collections::BTreeMap;
use vlm_models::capability::{Attend, Generate, Pictures, Tokens};
use vlm_models::families::Model;
use vlm_models::families::nic::{self, Nic};
use vlm_models::generate::{Options, Strategy, generate};
use vlm_models::reference::{Inputs, Numbers, Value};
use vlm_nn::Statistics;
use vlm_nn::weights::collect;

const CASES: [&str; 4] = [
    "show_and_tell",
    "show_and_tell_gru",
    "show_attend_and_tell",
    "show_attend_and_tell_gru",
];

fn open(name: &str) -> Case {
    Case::open(&format!("nic/{name}")).larger("decoder.", 4.0)
}

fn captioner(case: &Case, device: &Device) -> Nic {
    match case.load(device) {
        Model::Nic(model) => *model,
        other => panic!("{} is no captioner", other.family()),
    }
}

#[test]
fn both_layouts_and_both_kinds_of_cells_match_the_reference_at_every_output() {
    for name in CASES {
        let case = open(name);
        case.compare(&case.load(&Device::flex()));
    }
}

fn number(value: f32) -> Value {
    Value {
        shape: Vec::new(),
        numbers: Numbers::Floats(vec![value]),
    }
}

#[test]
fn greedy_and_beam_search_write_what_the_reference_writes() {
    for name in CASES {
        let case = open(name);
        let model = case.load(&Device::flex());
        let expected = case.numbers("ids.");
        for (file, beams, penalty) in [
            ("greedy", None, None),
            ("beam_3_1.0", Some(3.0), None),
            ("beam_2_0.0", Some(2.0), Some(0.0)),
        ] {
            let mut inputs = case.inputs();
            inputs.insert("max_new_tokens".to_owned(), number(9.0));
            let more = [("num_beams", beams), ("length_penalty", penalty)];
            for (key, value) in more {
                if let Some(value) = value {
                    inputs.insert(key.to_owned(), number(value));
                }
            }
            let inputs = Inputs::new(inputs);
            let found = model.reference().unwrap().outputs(&inputs).unwrap();
            assert_eq!(found["generated_ids"], expected[file], "{name}: {file}");
        }
    }
}

fn batch(case: &Case, device: &Device) -> (Pictures, Tokens) {
    let inputs = Inputs::new(case.inputs());
    let pixels = inputs.floats::<4>("pixel_values", device).unwrap().unwrap();
    let texts = inputs.tokens("input_ids", "", 20).unwrap().unwrap();
    let (_, lengths) = inputs.integers::<1>("caption_lengths").unwrap().unwrap();
    let t = texts.rows()[0].len();
    let mask = lengths
        .iter()
        .map(|&l| (0..t).map(|i| (i as i64) < l).collect());
    let texts = Tokens::new(texts.rows().to_vec(), Some(mask.collect())).unwrap();
    (Pictures::Fixed(pixels), texts)
}

#[test]
fn all_have_the_reference_gradients_statistics_and_ten_losses() {
    let device = Device::flex().autodiff();
    for name in CASES {
        let case = open(name);
        let (pictures, texts) = batch(&case, &device);
        let mut model = captioner(&case, &device).with_statistics(Statistics::Batch);
        let mut optimizer = AdamW::default();
        let mut losses = Vec::new();
        for step in 0..10 {
            let loss = model.loss(&pictures, &texts).unwrap().total;
            losses.push(loss.clone().into_scalar::<f32>());
            let grads = gradients(&model, &loss.backward());
            if step == 0 {
                let found: usize = grads.values().map(Vec::len).sum();
                assert_eq!(
                    found,
                    case.load(&device).parameters(),
                    "{name}: all parameters"
                );
                case.compare_gradients(&grads, nic::translated);
                let values = collect(&model).into_iter().map(|(k, (_, v))| (k, v));
                let values: BTreeMap<_, _> = values.collect();
                case.compare_statistics(&values, nic::translated);
            }
            model = optimizer.step(model, grads);
        }
        case.compare_losses(&losses);
    }
}

#[test]
fn a_text_fed_in_pieces_gives_the_logits_of_the_whole() {
    let device = Device::flex();
    for name in CASES {
        let case = open(name);
        let model = captioner(&case, &device);
        let (pictures, texts) = batch(&case, &device);
        let memory = model.encode(&pictures).unwrap();
        let fed = |cuts: &[usize]| {
            let mut decoding = model.decode(memory.clone());
            let (mut begin, mut last) = (0, Vec::new());
            for &len in cuts {
                let piece = |row: &Vec<u32>| row[begin..begin + len].to_vec();
                let piece: Vec<Vec<u32>> = texts.rows().iter().map(piece).collect();
                last = decoding.feed(&piece);
                begin += len;
            }
            assert_eq!(decoding.positions(), begin);
            last
        };
        let whole = fed(&[4]);
        for cuts in [&[1, 1, 1, 1][..], &[3, 1]] {
            for (a, b) in fed(cuts).iter().flatten().zip(whole.iter().flatten()) {
                assert!((a - b).abs() < 1e-5, "{name}: {a} is not {b}");
            }
        }
        // rows dropped and doubled
        let mut decoding = model.decode(memory.clone());
        let piece = |rows: &[usize], t: std::ops::Range<usize>| -> Vec<Vec<u32>> {
            let row = |&i: &usize| texts.rows()[i][t.clone()].to_vec();
            rows.iter().map(row).collect()
        };
        decoding.feed(&piece(&[0, 1, 2, 3], 0..2));
        decoding.select(&[2, 2, 0]);
        let found = decoding.feed(&piece(&[2, 2, 0], 2..4));
        for (found, row) in found.iter().zip([2, 2, 0]) {
            for (a, b) in found.iter().zip(&whole[row]) {
                assert!((a - b).abs() < 1e-5, "{name}: {a} is not {b}");
            }
        }
    }
}

#[test]
fn attention_is_a_distribution_over_the_places_of_the_map() {
    let device = Device::flex();
    let case = open("show_attend_and_tell");
    let model = captioner(&case, &device);
    let (pictures, texts) = batch(&case, &device);
    let maps = model
        .attend(model.encode(&pictures).unwrap(), &texts)
        .unwrap();
    assert_eq!((maps.weights.dims(), maps.grid), ([4, 6, 196], [14, 14]));
    let sums: Vec<f32> = maps.weights.sum_dim(2).into_data().try_to_vec().unwrap();
    assert!(sums.iter().all(|s| (s - 1.0).abs() < 1e-5), "{sums:?}");
    let plain = open("show_and_tell").load(&device);
    let error = plain.attend().err().expect("refused").to_string();
    assert!(error.contains("with attention can"), "{error}");
}

#[test]
fn texts_end_at_the_longest_that_the_model_writes() {
    let device = Device::flex();
    let model = captioner(&open("show_and_tell_gru"), &device);
    let pixels = Tensor::ones([1, 3, 64, 64], &device);
    let memory = model.encode(&Pictures::Fixed(pixels)).unwrap();
    let options = Options {
        strategy: Strategy::Greedy,
        max_new_tokens: 500,
        eos: 19,
        banned: vec![19],
    };
    let texts = generate(&mut *model.decode(memory), &[vec![1]], &options);
    assert_eq!(texts[0].ids.len(), model.config().max_length - 1);
}

#[test]
fn configs_that_do_not_fit_their_weights_are_refused_by_name() {
    let case = open("show_attend_and_tell_gru");
    let config = case.config().unwrap();
    let device = Device::flex();
    for (from, to, expected) in [
        ("\"gru\"", "\"lstm\"", "- attention.init_c.weight [15, 8]"),
        (
            "\"vocab_size\": 20",
            "\"vocab_size\": 21",
            "! attention.embed.weight: expected [21, 14]",
        ),
        (
            "\"eos_token_id\": 19",
            "\"eos_token_id\": 20",
            "eos_token_id: expected at most 19",
        ),
        (
            "\"map_size\": 5",
            "\"map_size\": 0",
            "attention.map_size: expected 1 to 64",
        ),
        ("\"map_size\": 5", "\"hard\": true", "hard"),
        (
            "\"image_size\": 64",
            "\"num_layers\": 2",
            "1 with attention, found 2",
        ),
    ] {
        assert!(config.contains(from), "{config}");
        let loaded = Model::load(&config.replace(from, to), case.checkpoint(), &device);
        let error = loaded.expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}
