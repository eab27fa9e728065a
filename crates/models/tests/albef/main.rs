//! ALBEF, loaded from every kind of checkpoint that its authors released, computes and learns what the reference does
//! (reference/models_albef.py).

#[path = "../goldens/mod.rs"]
mod goldens;
mod refused;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use goldens::{Golden, Tensors, check_gradients, close, ten_steps, values};
use std::path::PathBuf;
use vlm_models::capability::{
    AnswerQuestion, EmbedImage, EmbedText, JudgeText, Pictures, RankAnswers, ScorePair, Similarity,
    Tokens,
};
use vlm_models::families::albef::{
    Albef, AlbefBatch, AlbefConfig, AlbefTask, AnswerBatch, AssignmentBatch, Assignments, Features,
    Momentum, Negatives, PairBatch, StatementBatch,
};
use vlm_models::families::{Model, blip};
use vlm_models::generate::{Options, Strategy, generate};
use vlm_models::objectives::{MaskedTokens, alpha_ramp};
use vlm_models::reference::{Inputs, Numbers, Reference, Value};
use vlm_nn::weights::{Checkpoint, Rule, StoreDtype, Weights, collect, to_bytes};

const TASKS: [&str; 6] = [
    "pretrain",
    "retrieval",
    "vqa",
    "pretrain_nlvr",
    "nlvr",
    "ve",
];

fn path(name: &str) -> PathBuf {
    [
        env!("CARGO_MANIFEST_DIR"),
        "../../testdata/models/albef",
        name,
    ]
    .iter()
    .collect()
}

fn read(name: &str) -> Golden {
    Golden::open(&path(&format!("{name}.golden.safetensors")))
}

fn released(task: &str) -> Checkpoint {
    let file = match task {
        "retrieval" => "original/retrieval.pth".to_owned(),
        task => format!("original/{task}.safetensors"),
    };
    Checkpoint::open(&path(&file)).unwrap()
}

fn albef(task: &str, device: &Device) -> Albef {
    Albef::from_original(released(task), device).unwrap()
}

fn config_json() -> String {
    std::fs::read_to_string(path("config/config.json")).unwrap()
}

fn configured(json: &str) -> Result<Model, vlm_models::Error> {
    let weights = Checkpoint::open(&path("config/model.safetensors")).unwrap();
    Model::load(json, weights, &Device::flex())
}

#[test]
fn every_released_layout_matches_the_reference_at_every_named_tensor() {
    let more = ["vqa_generate", "vqa_rank"];
    for name in TASKS.iter().chain(&more) {
        let task = name.split("_g").next().unwrap().split("_r").next().unwrap();
        let model = Model::recognise(released(task), &Device::flex()).unwrap();
        assert_eq!(model.family(), "albef");
        let name = format!("original/{name}");
        read(&name).check(&name, model.reference().unwrap());
    }
}

#[test]
fn a_config_says_what_tensors_do_not_and_positions_follow_its_resolution() {
    let model = configured(&config_json()).unwrap();
    assert_eq!(model.pictures().image_size, Some([12; 2]));
    read("config/forward").check("config", model.reference().unwrap());
}

#[test]
fn pictures_need_not_be_square() {
    let config = config_json().replace("\"image_res\": 12", "\"image_res\": [8, 20]");
    let model = configured(&config).unwrap();
    assert_eq!(model.pictures().image_size, Some([8, 20]));
    let embeds = model.embed_image().unwrap();
    let of = |size: [usize; 2]| {
        let pixels = Tensor::<4>::ones([1, 3, size[0], size[1]], &Device::flex());
        embeds.embed_image(&Pictures::Fixed(pixels))
    };
    assert_eq!(of([8, 20]).unwrap().dims(), [1, 6]);
    let error = of([20, 8]).unwrap_err().to_string();
    assert!(
        error.contains("expected 8 x 20 pixels, found 20 x 8"),
        "{error}"
    );
    for wrong in ["[8, 20, 8]", "[8, 2.5]", "[2, 20]", "[8, 4000000000]"] {
        let wrong = config.replace("[8, 20]", wrong);
        let error = configured(&wrong).unwrap_err().to_string();
        assert!(
            error.contains("image_") || error.contains("patch_size"),
            "{error}"
        );
    }
}

#[test]
fn a_checkpoint_of_one_family_is_not_taken_for_the_other() {
    for task in TASKS {
        assert!(vlm_models::families::albef::recognised(&released(task)));
    }
    for file in ["question_answering.safetensors", "retrieval.safetensors"] {
        let file = path(&format!("../blip/original/{file}"));
        let checkpoint = Checkpoint::open(&file).unwrap();
        assert!(blip::recognised(&checkpoint));
        assert!(!vlm_models::families::albef::recognised(&checkpoint));
    }
}

#[test]
fn what_only_training_needs_is_ignored_and_listed() {
    for task in TASKS {
        let model = albef(task, &Device::flex());
        let mut all = released(task);
        let before = all.tensors().count();
        let copies = ["*_m.**", "*_queue", "queue_ptr", "**.position_ids"];
        let copies: usize = copies.iter().map(|pattern| all.ignore(pattern)).sum();
        let translated = model.translated(released(task)).unwrap();
        let ignored: Vec<&str> = translated.ignored().map(|t| t.name).collect();
        let tied = ["mlm_head.decoder.", "decoder.head.decoder.", ".cross.kv."];
        let tied = |name: &&&str| tied.iter().any(|part| name.contains(part));
        let tied = ignored.iter().filter(tied).count();
        let expected = match task {
            "pretrain" | "vqa" => 2,
            // a weight and a bias of the first layer of each of two pairs
            "nlvr" | "pretrain_nlvr" => 4,
            _ => 0,
        };
        assert_eq!(tied, expected, "{task}: {ignored:?}");
        assert_eq!(ignored.len(), copies + expected, "{task}: {ignored:?}");
        assert!(before > copies + expected);
    }
}

/// A golden file's batch for a task.
fn batch(task: &str, golden: &Golden, device: &Device) -> AlbefBatch {
    let pictures = Pictures::Fixed(golden.floats("pixel_values", device));
    let texts = golden.tokens("input_ids", "attention_mask");
    match task {
        "pretrain" | "retrieval" => AlbefBatch::Pairs(PairBatch {
            pictures,
            ids: (task == "retrieval")
                .then(|| golden.list("idx").into_iter().map(|x| x as i64).collect()),
            negatives: Negatives::Given {
                images: golden.list("neg_image"),
                texts: golden.list("neg_text"),
            },
            masked: (task == "pretrain").then(|| MaskedTokens {
                texts: golden.tokens("masked_input_ids", "attention_mask"),
                labels: golden.rows("labels"),
            }),
            texts,
        }),
        "vqa" => AlbefBatch::Answers(AnswerBatch {
            pictures,
            places: (0..texts.rows().len()).collect(),
            questions: texts,
            answers: golden.tokens("answer_ids", "answer_attention_mask"),
            counts: golden.list("k"),
            weights: values(golden.floats::<1>("weights", &Device::flex())),
        }),
        "pretrain_nlvr" => AlbefBatch::Assignments(AssignmentBatch {
            pictures,
            texts,
            assignments: Assignments::Given {
                first: golden.list("first"),
                second: golden.list("second"),
                labels: golden.list("targets"),
            },
        }),
        _ => AlbefBatch::Statements(StatementBatch {
            pictures,
            texts,
            labels: golden.list("targets"),
        }),
    }
}

fn training(task: &str) -> (Golden, Checkpoint) {
    let file = path(&format!("original/{task}.train.safetensors"));
    (Golden::open(&file), Checkpoint::open(&file).unwrap())
}

fn momentum(task: &str, model: &Albef, device: &Device) -> Option<Momentum> {
    (task != "pretrain_nlvr")
        .then(|| Momentum::from_original(model.config(), released(task), device).unwrap())
}

#[test]
fn losses_and_gradients_match_the_reference_for_every_parameter_of_every_task() {
    let device = Device::flex().autodiff();
    for task in TASKS {
        let model = albef(task, &device);
        let (golden, stored) = training(task);
        let momentum = momentum(task, &model, &device).map(|m| m.updated(&model));
        let alpha = if momentum.is_some() { 0.4 } else { 0.0 };
        let batch = batch(task, &golden, &device);
        let loss = model.loss(&batch, momentum.as_ref(), alpha).unwrap();
        for (name, part) in &loss.parts {
            let expected = golden.output(match *name {
                "itc" => "loss_ita",
                "itm" => "loss_itm",
                "mlm" => "loss_mlm",
                _ => "loss",
            });
            close(
                &format!("{task}: {name}"),
                &values(part.clone()),
                &expected,
                2e-5,
            );
        }
        assert_eq!(loss.parts.len(), golden.outputs.len());
        let gradients = stored.translated(&[Rule::Name("grad.**", "**"), Rule::Ignore("**")]);
        let expected = model.translated(gradients).unwrap();
        let without = check_gradients(task, &model, &loss.total.backward(), expected);
        // texts are put into no shared space there, and pictures only to choose among them
        let unused = |name: &String| {
            task == "pretrain_nlvr" && (name.contains("projection") || name == "temperature")
        };
        assert!(without.iter().all(unused), "{task}: {without:?}");
    }
}

#[test]
fn ten_steps_follow_the_reference_with_its_momentum_model_and_queues() {
    let device = Device::flex().autodiff();
    for task in TASKS {
        let model = albef(task, &device);
        let (golden, stored) = training(task);
        let mut teacher = momentum(task, &model, &device);
        let batch = batch(task, &golden, &device);
        let losses = ten_steps(model, |model, step| {
            let model = model.with_clamped_temperature();
            let alpha = teacher.as_ref().map_or(0.0, |_| alpha_ramp(0.4, step, 5));
            teacher = teacher.take().map(|m| match alpha {
                // the reference moves it only where it asks it
                0.0 if !matches!(task, "pretrain" | "retrieval") => m,
                _ => m.updated(&model),
            });
            let loss = model.loss(&batch, teacher.as_ref(), alpha).unwrap();
            if let Some(features) = &loss.features {
                teacher = teacher.take().map(|m| m.enqueued(features).unwrap());
            }
            (model, loss.total)
        });
        let steps = stored.clone().take("steps", &[10]).unwrap();
        // rounding is amplified by every step
        close(task, &losses, &steps, 2e-3);
        assert!(losses[9] < losses[0], "{task}: {losses:?}");
        let Some(teacher) = teacher else { continue };
        let config = teacher.model().config().clone();
        let after = stored.translated(&[Rule::Name("after.**", "**"), Rule::Ignore("**")]);
        let expected = after_ten_steps(after, &config);
        let found = collect(&teacher);
        assert!(expected.len() >= 2, "{task}");
        for (name, expected) in expected {
            let (_, found) = &found[&name];
            close(&format!("{task}: {name}"), found, &expected, 5e-3);
        }
    }
}

/// Parameters of the reference's momentum model by the names of ours.
fn after_ten_steps(after: Checkpoint, config: &AlbefConfig) -> Vec<(String, Vec<f32>)> {
    let rules = [
        Rule::Squeeze("visual_encoder_m.pos_embed", "model.vision.position"),
        Rule::Name(
            "text_encoder_m.embeddings.LayerNorm.weight",
            "model.text.norm.weight",
        ),
        Rule::Transpose("image_queue", "queue.image"),
        Rule::Transpose("text_queue", "queue.text"),
    ];
    let mut after = after.translated(&rules);
    let integers = [("idx_queue", "queue.index"), ("queue_ptr", "queue.next")];
    let mut all = Vec::new();
    for (from, to) in integers {
        if let Ok((_, values)) = after.take_integers(from) {
            let values = values.into_iter().map(|x| x as f32).collect();
            all.push((to.to_owned(), values));
        }
    }
    let names: Vec<String> = after.tensors().map(|t| t.name.to_owned()).collect();
    for name in names {
        let (_, values) = after.take_any(&name).unwrap();
        assert!(!name.starts_with("queue") || config.queue_size == 6);
        all.push((name, values));
    }
    all
}

#[test]
fn a_momentum_model_comes_back_as_it_was_saved() {
    let device = Device::flex().autodiff();
    for task in ["pretrain", "retrieval", "vqa"] {
        let model = albef(task, &device);
        let momentum = Momentum::of(&model, 5).updated(&model);
        let saved = collect(&momentum);
        let bytes = to_bytes(&saved, StoreDtype::F32, None).unwrap();
        let checkpoint = Checkpoint::parse(&bytes, "momentum").unwrap();
        let restored = Momentum::restored(model.config(), checkpoint, &device).unwrap();
        assert_eq!(collect(&restored), saved, "{task}");
        if let Some(queues) = restored.queues() {
            for queue in queues {
                let lengths = values(queue.powi_scalar(2).sum_dim(1));
                assert!(
                    lengths.iter().all(|l| (l - 1.0).abs() < 1e-5),
                    "{lengths:?}"
                );
            }
        }
    }
}

#[test]
fn queues_are_rings() {
    let model = albef("retrieval", &Device::flex());
    let device = Device::flex();
    let row = |rows: &[f32]| {
        let rows: Vec<[f32; 6]> = rows.iter().map(|&x| [x; 6]).collect();
        let data = burn::tensor::TensorData::new(rows.concat(), [rows.len(), 6]);
        Tensor::<2>::from_data(data, &device)
    };
    let features = |values: &[f32]| Features {
        image: row(values),
        text: row(values) * 2.0,
        ids: Some(values.iter().map(|&x| x as i64).collect()),
    };
    let first = |momentum: &Momentum| {
        let [image, text] = momentum.queues().unwrap();
        let (image, text) = (values(image), values(text));
        let image: Vec<f32> = image.iter().step_by(6).copied().collect();
        let text: Vec<f32> = text.iter().step_by(6).map(|x| x / 2.0).collect();
        assert_eq!(image, text);
        let ids: Vec<f32> = momentum.ids().unwrap().iter().map(|&x| x as f32).collect();
        assert_eq!(image, ids);
        image
    };
    let momentum = Momentum::of(&model, 1);
    let momentum = momentum.enqueued(&features(&[1., 2., 3., 4.])).unwrap();
    let momentum = momentum.enqueued(&features(&[5., 6., 7., 8.])).unwrap();
    assert_eq!(first(&momentum), [7., 8., 3., 4., 5., 6.]);
    // more than it holds: the last stay
    let momentum = momentum
        .enqueued(&features(&[1., 2., 3., 4., 5., 6., 7., 8.]))
        .unwrap();
    assert_eq!(first(&momentum), [7., 8., 3., 4., 5., 6.]);
    let mut without = features(&[1.0]);
    without.ids = None;
    let error = momentum.clone().enqueued(&without).unwrap_err();
    assert!(error.to_string().contains("ids: expected one"), "{error}");
    without.ids = Some(vec![1 << 25]);
    assert!(momentum.enqueued(&without).is_err());
}

#[test]
fn drawn_negatives_and_assignments_are_those_of_their_seed() {
    let device = Device::flex();
    for task in ["pretrain", "retrieval", "pretrain_nlvr"] {
        let model = albef(task, &device);
        let (golden, _) = training(task);
        let loss = |seed: u64| {
            let mut batch = batch(task, &golden, &device);
            match &mut batch {
                AlbefBatch::Pairs(pairs) => pairs.negatives = Negatives::Drawn(seed),
                AlbefBatch::Assignments(a) => a.assignments = Assignments::Drawn(seed),
                _ => unreachable!(),
            }
            values(model.loss(&batch, None, 0.0).unwrap().total)[0]
        };
        let losses: Vec<f32> = (0..12).map(loss).collect();
        assert_eq!(losses, (0..12).map(loss).collect::<Vec<_>>());
        assert!(
            losses.iter().any(|l| *l != losses[0]) || task == "retrieval",
            "{losses:?}"
        );
    }
}

#[test]
fn capabilities_give_what_the_references_scores_are_made_of() {
    let device = Device::flex();
    let softmax = |logits: &[f32], classes: usize| -> Vec<Vec<f32>> {
        let row = |row: &[f32]| {
            let sum: f32 = row.iter().map(|x| x.exp()).sum();
            row.iter().map(|x| x.exp() / sum).collect()
        };
        logits.chunks(classes).map(row).collect()
    };
    let inputs = |golden: &Golden| {
        let pictures = Pictures::Fixed(golden.floats("pixel_values", &device));
        (pictures, golden.tokens("input_ids", "attention_mask"))
    };
    let golden = read("original/retrieval");
    let (pictures, texts) = inputs(&golden);
    let model = albef("retrieval", &device);
    let expected: Vec<f32> = softmax(&golden.output("itm_score"), 2)
        .iter()
        .map(|row| row[1])
        .collect();
    let found = model.score_pair(&pictures, &texts).unwrap();
    close("match", &found, &expected, 1e-5);
    let image = model.embed_image(&pictures).unwrap();
    close("image", &values(image), &golden.output("image_feat"), 2e-5);
    let text = model.embed_text(&texts).unwrap();
    close("text", &values(text), &golden.output("text_feat"), 2e-5);
    let Similarity::Softmax { scale } = model.similarity() else {
        panic!("ALBEF's contrast is a softmax");
    };
    assert!((scale - 1.0 / 0.09).abs() < 1e-3, "{scale}");

    for (task, pictures_per_text, classes) in [
        ("nlvr", 2, &["false", "true"][..]),
        ("ve", 1, &["contradiction", "neutral", "entailment"]),
    ] {
        let golden = read(&format!("original/{task}"));
        let (pictures, texts) = inputs(&golden);
        let model = albef(task, &device);
        assert_eq!(model.pictures_per_text(), pictures_per_text);
        assert_eq!(model.classes(), classes);
        let found = model.judge_text(&pictures, &texts).unwrap();
        let expected = softmax(&golden.output("prediction"), classes.len());
        close(task, &found.concat(), &expected.concat(), 1e-5);
    }

    let model = albef("vqa", &device);
    let golden = read("original/vqa_rank");
    let (pictures, questions) = inputs(&golden);
    let answers = golden.tokens("answer_ids", "answer_attention_mask");
    let ranked = model.rank_answers(&pictures, &questions, &answers).unwrap();
    for row in &ranked {
        let sum: f32 = row.iter().map(|(_, p)| p).sum();
        assert!(row.len() == 4 && (sum - 1.0).abs() < 1e-5, "{row:?}");
        assert!(row.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    }
    // the longest list is what it is; the first of the reference's three is the first here
    let Numbers::Integers(top) = &golden.outputs["topk_ids"].numbers else {
        panic!("places are integers");
    };
    let best: Vec<i64> = ranked.iter().map(|row| row[0].0 as i64).collect();
    assert_eq!(best, top.iter().step_by(3).copied().collect::<Vec<_>>());

    let golden = read("original/vqa_generate");
    let options = Options {
        strategy: Strategy::Greedy,
        max_new_tokens: 6,
        eos: 23,
        banned: Vec::new(),
    };
    let mut decoding = model.answer(&pictures, &questions).unwrap();
    let written = generate(&mut *decoding, &vec![vec![23]; 3], &options);
    let Numbers::Integers(ids) = &golden.outputs["generated_ids"].numbers else {
        panic!("ids are integers");
    };
    let t = golden.outputs["generated_ids"].shape[1];
    for (text, expected) in written.iter().zip(ids.chunks(t)) {
        let expected: Vec<u32> = expected[1..].iter().map(|&id| id as u32).collect();
        assert_eq!(text.ids[..], expected[..text.ids.len()]);
    }
}

#[test]
fn a_checkpoint_can_be_asked_for_what_its_task_does_and_says_who_does_the_rest() {
    let device = Device::flex();
    for task in TASKS {
        let model = Model::recognise(released(task), &device).unwrap();
        let shared = matches!(task, "pretrain" | "retrieval");
        for (able, error, who) in [
            (
                shared,
                model.embed_image().err(),
                "pre-training and for retrieval",
            ),
            (
                shared,
                model.embed_text().err(),
                "pre-training and for retrieval",
            ),
            (
                shared,
                model.score_pair().err(),
                "pre-training and for retrieval",
            ),
            (
                task == "vqa",
                model.answer_question().err(),
                "for question answering",
            ),
            (
                task == "vqa",
                model.rank_answers().err(),
                "for question answering",
            ),
            (
                matches!(task, "nlvr" | "ve"),
                model.judge_text().err(),
                "NLVR2 and visual entailment",
            ),
            (
                false,
                model.generate().err(),
                "blip, coca, nic, oscar and tree",
            ),
        ] {
            match error {
                None => assert!(able, "{task}: {who}"),
                Some(error) => {
                    let error = error.to_string();
                    assert!(!able && error.ends_with(&format!("{who} can")), "{error}");
                }
            }
        }
        assert!(model.reference().is_ok());
        assert_eq!(model.texts().vocab_size, 24);
        assert!(model.parameters() > 2000);
    }
}

#[test]
fn fine_tuning_starts_from_what_was_pre_trained() {
    let device = Device::flex();
    let pretrained = AlbefConfig::of_original(&released("pretrain")).unwrap();
    let golden = read("original/pretrain");
    let start = |from: &str, task| {
        let config = AlbefConfig::of_original(&released(from))
            .unwrap()
            .for_task(task);
        Albef::fine_tuned(&config, released(from), 9, &device).unwrap()
    };
    let outputs = |model: &Albef| {
        let mut inputs = golden.inputs.clone();
        inputs.remove("labels");
        model.outputs(&Inputs::new(inputs)).unwrap()
    };
    let floats = |value: &Value| match &value.numbers {
        Numbers::Floats(values) => values.clone(),
        Numbers::Integers(_) => panic!("floats"),
    };
    // the same encoders and, for retrieval, heads
    let found = outputs(&start("pretrain", AlbefTask::Retrieval));
    for name in ["itm_score", "sims_matrix"] {
        close(name, &floats(&found[name]), &golden.output(name), 2e-5);
    }
    for (task, name) in [
        (AlbefTask::QuestionAnswering, "question_states"),
        (AlbefTask::Entailment, "last_hidden_state"),
    ] {
        let model = start("pretrain", task);
        let found = outputs(&model);
        let expected = golden.output("last_hidden_state");
        close(name, &floats(&found[name]), &expected, 2e-5);
    }
    // the decoder is the upper half, reading states of questions instead of pictures
    let answerer = collect(&start("pretrain", AlbefTask::QuestionAnswering));
    let before = collect(&albef("pretrain", &device));
    for layer in 0..2 {
        for part in ["attn.qkv.weight", "cross.kv.bias", "mlp_norm.weight"] {
            let own = &answerer[&format!("decoder.bert.layers.{layer}.{part}")];
            assert_eq!(
                own,
                &before[&format!("text.layers.{}.{part}", layer + 2)],
                "{part}"
            );
        }
    }
    let head = "transform.weight";
    assert_eq!(
        answerer[&format!("decoder.head.{head}")],
        before[&format!("mlm_head.{head}")]
    );
    // doubled layers give one picture's states if both pictures are the same... twice through each layer
    let assigner = collect(&start("pretrain", AlbefTask::TextAssignment));
    for (to, from) in [(2, 2), (3, 2), (4, 3), (5, 3)] {
        let part = "cross.q.weight";
        let own = &assigner[&format!("text.layers.{to}.{part}")];
        assert_eq!(own, &before[&format!("text.layers.{from}.{part}")]);
    }
    // both pictures' keys and values are one parameter
    assert!(!assigner.contains_key("text.layers.2.cross.kv.weight"));
    assert!(assigner.contains_key("text.layers.3.cross.kv.weight"));
    let [a, b] = [9, 9].map(|_| collect(&start("pretrain_nlvr", AlbefTask::Nlvr)));
    assert_eq!(a, b);
    let original = collect(&albef("pretrain_nlvr", &device));
    assert_eq!(
        a["text.layers.5.cross.kv.weight"],
        original["text.layers.5.cross.kv.weight"]
    );
    assert_eq!(a["class_head.output.weight"].0, [2, 8]);
    // at a larger resolution
    let mut larger = pretrained.for_task(AlbefTask::Entailment);
    larger.vision.image_size = [16; 2];
    let model = Albef::fine_tuned(&larger, released("pretrain"), 9, &device).unwrap();
    assert_eq!(collect(&model)["vision.position"].0, [17, 8]);
}

#[test]
fn a_model_from_a_seed_has_the_names_of_a_loaded_one_and_learns() {
    let device = Device::flex().autodiff();
    for task in TASKS {
        let loaded = albef(task, &device);
        let fresh = Albef::new(&mut Weights::random(3, &device), loaded.config());
        let names = |model: &Albef| -> Vec<(String, Vec<usize>)> {
            let all = collect(model).into_iter();
            all.map(|(name, (shape, _))| (name, shape)).collect()
        };
        assert_eq!(names(&fresh), names(&loaded), "{task}");
        let (golden, _) = training(task);
        let mut teacher = (task != "pretrain_nlvr").then(|| Momentum::of(&fresh, 1));
        let batch = batch(task, &golden, &device);
        let losses = ten_steps(fresh, |model, _| {
            teacher = teacher.take().map(|m| m.updated(&model));
            let loss = model.loss(&batch, teacher.as_ref(), 0.0).unwrap();
            (model, loss.total)
        });
        assert!(losses[9] < losses[0], "{task}: {losses:?}");
    }
}

#[test]
fn pictures_and_texts_without_a_teacher_are_compared_with_each_other() {
    let device = Device::flex();
    let model = albef("pretrain", &device);
    let (golden, _) = training("pretrain");
    let batch = batch("pretrain", &golden, &device);
    let loss = model.loss(&batch, None, 0.0).unwrap();
    assert!(loss.features.is_none());
    let AlbefBatch::Pairs(pairs) = &batch else {
        unreachable!("pre-training is about pairs");
    };
    let image = model.embed_image(&pairs.pictures).unwrap();
    let text = model.embed_text(&pairs.texts).unwrap();
    let scale = Tensor::<1>::from_floats([(1f32 / 0.09).ln()], &device);
    let expected = values(vlm_models::objectives::itc(image, text, scale));
    close("itc", &values(loss.parts[0].1.clone()), &expected, 1e-5);
    let clamped = Albef::new(&mut Weights::random(1, &device), model.config());
    assert_eq!(clamped.num_params(), model.num_params());
}
