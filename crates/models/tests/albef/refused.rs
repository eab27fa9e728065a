//! Checkpoints, configs and inputs that ALBEF refuses, and what it says then.

use super::*;

/// The tensors of a checkpoint after some change.
fn edited(task: &str, edit: impl FnOnce(&mut Tensors)) -> Checkpoint {
    let mut checkpoint = released(task);
    for integers in ["**.position_ids", "idx_queue", "queue_ptr"] {
        checkpoint.ignore(integers);
    }
    goldens::edited(checkpoint, edit)
}

#[test]
fn checkpoints_of_another_size_or_head_are_refused_with_their_differences() {
    let refused = |edit: &dyn Fn(&mut serde_json::Value), expected: &[&str]| {
        let mut json: serde_json::Value = serde_json::from_str(&config_json()).unwrap();
        edit(&mut json);
        let error = configured(&json.to_string()).unwrap_err().to_string();
        for expected in expected {
            assert!(error.contains(expected), "{error} without {expected}");
        }
    };
    refused(
        &|json| json["bert_config"]["num_hidden_layers"] = 4.into(),
        &["- text.layers.3.attn.qkv.weight [36, 12]"],
    );
    refused(
        &|json| json["bert_config"]["fusion_layer"] = 2.into(),
        &["+ text.layers.1.cross.kv.weight [24, 8]"],
    );
    refused(
        &|json| json["task"] = "ve".into(),
        &[
            "- class_head.output.weight [3, 12]",
            "+ match_head.weight [2, 12]",
        ],
    );
    refused(
        &|json| json["embed_dim"] = 7.into(),
        &["! vision_projection.weight: expected [7, 8], found [6, 8]"],
    );
    // a layer of a pair that was trained apart
    let device = Device::flex();
    let name = "text_encoder.encoder.layer.2.crossattention.self.key.bias";
    let apart = edited("nlvr", |tensors| tensors.get_mut(name).unwrap().1[0] += 1.0);
    let error = Albef::from_original(apart, &device)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("+ text.layers.2.cross.kv.bias [16]"),
        "{error}"
    );
    let nan = edited("ve", |tensors| {
        tensors.get_mut("cls_head.0.bias").unwrap().1[2] = f32::NAN;
    });
    let error = Albef::from_original(nan, &device).unwrap_err().to_string();
    assert!(error.contains("! class_head.hidden.bias"), "{error}");
    // no momentum model in it
    let config = AlbefConfig::of_original(&released("pretrain_nlvr")).unwrap();
    let error = Momentum::from_original(&config, released("pretrain_nlvr"), &device).unwrap_err();
    assert!(error.to_string().contains("- vision.class [8]"), "{error}");
}

#[test]
fn configs_that_are_not_understood_are_refused_by_field() {
    for (place, value, expected) in [
        (
            "task",
            "\"caption\"",
            "task: expected pretrain, retrieval, vqa",
        ),
        ("image_res", "0", "vision_config.image_size"),
        ("image_res", "4000000000", "vision_config.image_size"),
        ("image_res", "\"12\"", "image_res"),
        ("vision_width", "16", "vision_width"),
        ("embed_dim", "0", "embed_dim"),
        ("embed_dim", "1e99", "embed_dim"),
        ("queue_size", "100000000000", "queue_size"),
        ("momentum", "1.5", "momentum"),
        ("temp", "0", "temp"),
        ("alpha", "-1", "alpha"),
        ("mlm_probability", "2", "mlm_probability"),
        ("k_test", "0", "k_test"),
        ("eos", "\"</s>\"", "eos"),
        ("num_experts", "8", "num_experts"),
        (
            "bert_config.hidden_act",
            "\"mish\"",
            "bert_config.hidden_act",
        ),
        (
            "bert_config.hidden_size",
            "10",
            "bert_config.num_attention_heads",
        ),
        (
            "bert_config.num_hidden_layers",
            "4000000000",
            "bert_config.num_hidden_layers",
        ),
        ("bert_config.fusion_layer", "3", "bert_config.fusion_layer"),
        (
            "bert_config.encoder_width",
            "9",
            "bert_config.encoder_width",
        ),
        ("bert_config.pad_token_id", "24", "bert_config.pad_token_id"),
        (
            "bert_config.vocab_size",
            "4294967297",
            "bert_config.vocab_size",
        ),
        (
            "bert_config.position_embedding_type",
            "\"relative_key\"",
            "position_embedding_type",
        ),
        ("bert_config.rotary_dim", "4", "bert_config.rotary_dim"),
        ("vision_config.patch_size", "0", "vision_config.patch_size"),
        ("vision_config.mlp_ratio", "1e30", "vision_config.mlp_ratio"),
        ("vision_config.mlp_ratio", "-1", "vision_config.mlp_ratio"),
        (
            "vision_config.num_heads",
            "3",
            "vision_config.num_attention_heads",
        ),
        (
            "vision_config.depth",
            "1000000",
            "vision_config.num_hidden_layers",
        ),
        ("vision_config.qkv_bias", "true", "vision_config.qkv_bias"),
    ] {
        let mut json: serde_json::Value = serde_json::from_str(&config_json()).unwrap();
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        match place.split_once('.') {
            Some((part, field)) => json[part][field] = value,
            None => json[place] = value,
        }
        let error = configured(&json.to_string()).unwrap_err().to_string();
        assert!(error.contains(expected), "{place}: {error}");
    }
    // without `task`, the tensors tell it; without tensors, it must be there
    let mut json: serde_json::Value = serde_json::from_str(&config_json()).unwrap();
    json.as_object_mut().unwrap().remove("task");
    assert!(configured(&json.to_string()).unwrap().score_pair().is_ok());
    assert!(AlbefConfig::parse(&json.to_string(), None).is_err());
    // the authors name a file there, whose released content is the default
    let yaml = r#"{"model_type": "albef", "task": "vqa", "bert_config": "configs/config_bert.json",
        "image_res": 384, "batch_size_train": 32, "k_test": 128, "alpha": 0.4, "distill": true, "warm_up": true,
        "optimizer": {"opt": "adamW", "lr": 2e-5}, "schedular": {"epochs": 8}, "eos": "[SEP]",
        "vqa_root": "data", "train_file": ["a.json"]}"#;
    let config = AlbefConfig::parse(yaml, None).unwrap();
    assert_eq!(config.task, AlbefTask::QuestionAnswering);
    assert_eq!(
        (config.fusion_layer(), config.decoder().num_hidden_layers),
        (6, 6)
    );
    assert_eq!(
        [
            config.cls_token_id,
            config.sep_token_id,
            config.mask_token_id
        ],
        [101, 102, 103]
    );
    assert_eq!(config.for_task(AlbefTask::Nlvr).text.num_hidden_layers, 18);
    let back = config
        .for_task(AlbefTask::Nlvr)
        .for_task(AlbefTask::QuestionAnswering);
    assert_eq!(back, config);
}

#[test]
fn released_tensors_of_impossible_shapes_are_errors_and_no_panic() {
    let device = Device::flex();
    for task in ["vqa", "nlvr", "retrieval"] {
        let names: Vec<String> = released(task)
            .tensors()
            .map(|t| t.name.to_owned())
            .filter(|name| !name.contains("_m.") && !name.contains("queue"))
            .filter(|name| !name.ends_with("position_ids"))
            // of several layers of a kind the first
            .filter(|name| {
                ![".layer.1.", ".layer.4.", ".layer.5."]
                    .iter()
                    .any(|l| name.contains(l))
            })
            .collect();
        assert!(names.len() > 50);
        for name in names {
            for shape in [vec![], vec![0], vec![1], vec![3, 1], vec![1, 2, 0, 5]] {
                let mut file = released(task);
                let count = shape.iter().product();
                file.insert(&name, &shape, vec![0.5; count]);
                let loaded = Model::recognise(file, &device);
                // a scalar stands for one number
                let scalar = name == "temp" && count == 1;
                assert!(loaded.is_err() || scalar, "{task}: {name} {shape:?}");
            }
            let mut file = released(task);
            assert_eq!(file.ignore(&name), 1);
            // the output layer of a head is there twice
            let copy = name.contains("predictions.decoder.");
            let loaded = Model::recognise(file, &device);
            assert!(loaded.is_err() != copy, "{task}: {name}");
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let device = Device::flex();
    let refused = |task: &str, name: &str, shape: &[usize], numbers: Numbers, expected: &str| {
        let model = albef(task, &device);
        let mut inputs = read(&format!("original/{task}")).inputs;
        let shape = shape.to_vec();
        inputs.insert(name.to_owned(), Value { shape, numbers });
        let error = model.outputs(&Inputs::new(inputs)).unwrap_err().to_string();
        assert!(
            error.contains(expected),
            "{task}: {error} without {expected}"
        );
    };
    let zeros = |count| Numbers::Floats(vec![0.0; count]);
    let ids = |count, id| Numbers::Integers(vec![id; count]);
    let pixels = "pixel_values";
    refused(
        "ve",
        pixels,
        &[3, 3, 12, 8],
        zeros(864),
        "8 x 8 pixels, found 12 x 8",
    );
    refused(
        "ve",
        pixels,
        &[3, 1, 8, 8],
        zeros(192),
        "3 channels, found 1",
    );
    refused(
        "ve",
        pixels,
        &[2, 3, 8, 8],
        zeros(384),
        "a text for each of 2 pictures",
    );
    refused(
        "nlvr",
        pixels,
        &[3, 3, 8, 8],
        zeros(576),
        "two pictures for each text",
    );
    refused(
        "ve",
        "input_ids",
        &[3, 5],
        ids(15, 24),
        "ids below 24, found 24",
    );
    refused(
        "ve",
        "input_ids",
        &[3, 5],
        ids(15, -1),
        "ids below 24, found -1",
    );
    refused(
        "ve",
        "attention_mask",
        &[3, 4],
        ids(12, 1),
        "attention_mask: expected rows of 5",
    );
    refused(
        "ve",
        "targets",
        &[3],
        ids(3, 3),
        "labels: expected below 3, found 3",
    );
    refused(
        "ve",
        "targets",
        &[2],
        ids(2, 1),
        "labels: expected 3, found 2",
    );
    refused(
        "pretrain",
        "labels",
        &[3, 4],
        ids(12, 1),
        "labels: expected 3 rows of 5",
    );
    refused(
        "pretrain",
        "labels",
        &[3, 5],
        ids(15, 24),
        "labels: expected ids below 24",
    );
    refused("vqa", "k", &[3], ids(3, 1), "answers: expected 3, found 4");
    refused("vqa", "k", &[3], ids(3, i64::MAX), "answers");
    refused(
        "vqa",
        "weights",
        &[2],
        zeros(2),
        "weights: expected 4, found 2",
    );
    refused("vqa", "k_test", &[], ids(1, 5), "k_test: expected 1 to 4");
    refused(
        "vqa",
        "max_new_tokens",
        &[],
        ids(1, -3),
        "max_new_tokens: expected 1 to 12",
    );
    let long = Tokens::new(vec![vec![1; 13]; 3], None).unwrap();
    let error = albef("ve", &device).text_states(&long).unwrap_err();
    assert!(error.to_string().contains("at most 12 tokens"), "{error}");

    // losses
    let model = albef("retrieval", &device);
    let (golden, _) = training("retrieval");
    let AlbefBatch::Pairs(pairs) = batch("retrieval", &golden, &device) else {
        unreachable!("retrieval is about pairs");
    };
    let teacher = Momentum::of(&model, 1);
    let refused = |edit: &dyn Fn(&mut PairBatch), alpha: f32, taught: bool, expected: &str| {
        let mut pairs = pairs.clone();
        edit(&mut pairs);
        let batch = AlbefBatch::Pairs(pairs);
        let loss = model.loss(&batch, taught.then_some(&teacher), alpha);
        let error = loss.unwrap_err().to_string();
        assert!(error.contains(expected), "{error} without {expected}");
    };
    refused(&|_| {}, 0.4, false, "0 without a momentum model");
    refused(&|_| {}, f32::NAN, true, "alpha");
    refused(
        &|p| p.ids = None,
        0.0,
        true,
        "ids: expected whose picture each is",
    );
    refused(
        &|p| p.ids = Some(vec![1]),
        0.0,
        true,
        "ids: expected 3, found 1",
    );
    let far = Negatives::Given {
        images: vec![0, 1, 3],
        texts: vec![0; 3],
    };
    refused(
        &|p| p.negatives = far.clone(),
        0.0,
        true,
        "negatives: expected below 3, found 3",
    );
    let same = |p: &mut PairBatch| {
        p.ids = Some(vec![4; 3]);
        p.negatives = Negatives::Drawn(1);
    };
    refused(&same, 0.0, true, "another picture and text for each pair");
    let masked = |p: &mut PairBatch| {
        p.masked = Some(MaskedTokens {
            texts: p.texts.clone(),
            labels: vec![vec![-100; 5]; 3],
        });
    };
    refused(&masked, 0.0, true, "cannot fill masks");
    let statements = StatementBatch {
        pictures: pairs.pictures.clone(),
        texts: pairs.texts.clone(),
        labels: vec![0; 3],
    };
    let wrong = model.loss(&AlbefBatch::Statements(statements), None, 0.0);
    let error = wrong.unwrap_err().to_string();
    assert!(error.contains("cannot judge statements"), "{error}");
}
