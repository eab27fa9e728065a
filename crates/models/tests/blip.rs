//! BLIP, loaded as transformers wrote it and as its authors' code does, agrees with both (reference/models_blip.py and
//! reference/blip_original.py).

mod goldens;

use burn::tensor::{Device, Tensor};
use goldens::{Golden, Tensors, check_gradients, close, ten_steps, values};
use std::path::PathBuf;
use vlm_models::capability::{
    AnswerQuestion, EmbedImage, EmbedText, Generate, Pictures, ScorePair, Similarity, Tokens,
};
use vlm_models::families::Model;
use vlm_models::families::blip::{Blip, Labels};
use vlm_models::reference::{Inputs, Numbers, Reference, Value};
use vlm_nn::weights::Checkpoint;

fn path(name: &str) -> PathBuf {
    [
        env!("CARGO_MANIFEST_DIR"),
        "../../testdata/models/blip",
        name,
    ]
    .iter()
    .collect()
}

fn checkpoint(name: &str) -> Checkpoint {
    Checkpoint::open(&path(name)).unwrap()
}

fn read(name: &str) -> Golden {
    Golden::open(&path(&format!("{name}.golden.safetensors")))
}

fn edited(file: &str, edit: impl FnOnce(&mut Tensors)) -> Checkpoint {
    goldens::edited(checkpoint(file), edit)
}

fn config(name: &str) -> String {
    std::fs::read_to_string(path(name).join("config.json")).unwrap()
}

fn blip(name: &str, device: &Device) -> Blip {
    let weights = checkpoint(&format!("{name}/model.safetensors"));
    Blip::load(&config(name), weights, device).unwrap()
}

#[test]
fn every_class_matches_the_reference_at_every_named_tensor() {
    for (directory, goldens) in [
        (
            "captioning",
            &[
                "forward",
                "generate",
                "prompt",
                "padded_prompt",
                "unmasked_prompt",
                "left_prompt",
                "beam",
                "long_beam",
                "large",
                "small",
            ][..],
        ),
        ("variant", &["forward", "generate"]),
        (
            "question_answering",
            &["forward", "padded", "pad_labels", "generate"],
        ),
        ("retrieval", &["itm", "itc", "one_picture"]),
        ("contrastive", &["forward"]),
    ] {
        let weights = checkpoint(&format!("{directory}/model.safetensors"));
        let model = Model::load(&config(directory), weights, &Device::flex()).unwrap();
        for golden in goldens {
            let name = format!("{directory}/{golden}");
            read(&name).check(&name, model.reference().unwrap());
        }
    }
}

/// The training loss of a golden file's arguments.
fn loss(model: &Blip, golden: &Golden, device: &Device) -> Tensor<1> {
    let pictures = Pictures::Fixed(golden.floats("pixel_values", device));
    let texts = golden.tokens("input_ids", "attention_mask");
    let pictures = model.picture_states(&pictures).unwrap();
    if model.can_embed().is_ok() {
        let states = model.text_states(&texts, None).unwrap();
        let texts = model.text_vectors(&states).unwrap();
        return model.contrastive_loss(model.picture_vectors(&pictures).unwrap(), texts);
    }
    let labels = Labels {
        ids: golden.rows("labels"),
    };
    let logits = if model.can_caption().is_ok() {
        model.caption_logits(&pictures, &texts)
    } else {
        let answers = golden.tokens("labels", "");
        model.answer_logits(&pictures, &texts, &answers)
    };
    model.language_loss(logits.unwrap(), &labels).unwrap()
}

const TRAINED: [&str; 3] = ["captioning", "question_answering", "contrastive"];

#[test]
fn gradients_match_the_reference_for_every_parameter() {
    let device = Device::flex().autodiff();
    for directory in TRAINED {
        let model = blip(directory, &device);
        let golden = read(&format!("{directory}/forward"));
        let gradients = loss(&model, &golden, &device).backward();
        let mut published = checkpoint(&format!("{directory}/gradients.safetensors"));
        published.ignore("steps");
        let expected = model.translated(published);
        let without = check_gradients(directory, &model, &gradients, expected);
        // a text tower that no picture is shown to has no use for its cross-attention
        let unused = |name: &String| directory == "contrastive" && name.contains("cross");
        assert!(without.iter().all(unused), "{without:?}");
    }
}

#[test]
fn ten_steps_follow_the_reference_losses() {
    let device = Device::flex().autodiff();
    for directory in TRAINED {
        let golden = read(&format!("{directory}/forward"));
        let losses = ten_steps(blip(directory, &device), |model, _| {
            let loss = loss(&model, &golden, &device);
            (model, loss)
        });
        let expected = checkpoint(&format!("{directory}/gradients.safetensors"))
            .take("steps", &[10])
            .unwrap();
        // rounding is amplified by every step
        close(directory, &losses, &expected, 2e-3);
        assert!(losses[9] < 0.7 * losses[0], "{directory}: {losses:?}");
    }
}

fn original(name: &str, device: &Device) -> Blip {
    let checkpoint = checkpoint(&format!("original/{name}"));
    assert!(vlm_models::families::blip::recognised(&checkpoint));
    Blip::from_original(checkpoint, device).unwrap()
}

#[test]
fn the_authors_checkpoints_match_their_code_at_every_named_tensor() {
    for (file, goldens) in [
        ("captioning.pth", &["captioning", "captioning_generate"][..]),
        ("question_answering.safetensors", &["question_answering"]),
        ("retrieval.safetensors", &["retrieval", "retrieval_itc"]),
    ] {
        let model = original(file, &Device::flex());
        for golden in goldens {
            let name = format!("original/{golden}");
            read(&name).check(&name, &model);
        }
    }
}

#[test]
fn the_authors_answer_loss_weighs_answers_and_counts_pictures() {
    let device = Device::flex();
    let model = original("question_answering.safetensors", &device);
    let golden = read("original/question_answering");
    let pictures = Pictures::Fixed(golden.floats("pixel_values", &device));
    let logits = model
        .answer_logits(
            &model.picture_states(&pictures).unwrap(),
            &golden.tokens("input_ids", "attention_mask"),
            &golden.tokens("decoder_input_ids", "decoder_attention_mask"),
        )
        .unwrap();
    let labels = Labels {
        ids: golden.rows("labels"),
    };
    let weighted = read("original/question_answering_weighted");
    let weights = values(weighted.floats::<1>("weights", &device));
    let loss = model.weighted_answer_loss(logits, &labels, &weights, 2);
    let Numbers::Floats(expected) = &weighted.outputs["loss"].numbers else {
        panic!("a loss is a float");
    };
    close("loss", &values(loss.unwrap()), expected, 2e-5);
}

#[test]
fn what_only_training_needs_is_ignored_and_listed() {
    let mut all = checkpoint("original/retrieval.safetensors");
    let model = original("retrieval.safetensors", &Device::flex());
    let copies = [
        "visual_encoder_m.**",
        "text_encoder_m.**",
        "*_proj_m.*",
        "*_queue",
        "**.position_ids",
    ];
    let expected: usize = copies.iter().map(|pattern| all.ignore(pattern)).sum();
    let translated = model.translated(checkpoint("original/retrieval.safetensors"));
    let listed: Vec<&str> = translated.ignored().map(|t| t.name).collect();
    assert_eq!(listed.len(), expected, "{listed:?}");
    assert!(
        listed.contains(&"image_queue") && listed.contains(&"text_encoder.embeddings.position_ids")
    );
}

const WORDS: &str = "text_decoder.bert.embeddings.word_embeddings.weight";
const OUTPUT: &str = "text_decoder.cls.predictions.decoder.weight";
const BIAS: &str = "text_decoder.cls.predictions.bias";
const OUTPUT_BIAS: &str = "text_decoder.cls.predictions.decoder.bias";

#[test]
fn an_output_layer_is_tied_unless_the_checkpoint_holds_another_one() {
    let device = Device::flex();
    let golden = read("captioning/forward");
    let file = "captioning/model.safetensors";
    let load = |checkpoint| Blip::load(&config("captioning"), checkpoint, &device).unwrap();
    // as older versions and PyTorch files have them: the same twice, with buffers
    let both = load(edited(file, |t| {
        t.insert(OUTPUT.into(), t[WORDS].clone());
        t.insert(OUTPUT_BIAS.into(), t[BIAS].clone());
        let ids = (vec![1, 16], (0..16u8).map(f32::from).collect());
        t.insert("text_decoder.bert.embeddings.position_ids".into(), ids);
    }));
    golden.check("both", &both);
    // only the output layer is stored
    let swapped = load(edited(file, |t| {
        let words = t.remove(WORDS).unwrap();
        t.insert(OUTPUT.into(), words);
        let bias = t.remove(BIAS).unwrap();
        t.insert(OUTPUT_BIAS.into(), bias);
    }));
    golden.check("swapped", &swapped);
    // the two were trained apart
    let apart = load(edited(file, |t| {
        let (shape, values) = t[WORDS].clone();
        t.insert(
            OUTPUT.into(),
            (shape, values.iter().map(|x| 2.0 * x).collect()),
        );
    }));
    let logits = |model: &Blip| {
        let pictures = Pictures::Fixed(golden.floats("pixel_values", &device));
        let pictures = model.picture_states(&pictures).unwrap();
        let texts = golden.tokens("input_ids", "attention_mask");
        values(model.caption_logits(&pictures, &texts).unwrap())
    };
    let bias = checkpoint(file).take(BIAS, &[20]).unwrap();
    let expected: Vec<f32> = logits(&both)
        .chunks(20)
        .flat_map(|row| row.iter().zip(&bias).map(|(x, b)| 2.0 * (x - b) + b))
        .collect();
    close("apart", &logits(&apart), &expected, 2e-5);
}

/// transformers' names as the authors'.
fn authors_names(tensors: &mut Tensors) {
    for (name, tensor) in std::mem::take(tensors) {
        let name = name
            .replace(
                "vision_model.embeddings.class_embedding",
                "visual_encoder.cls_token",
            )
            .replace(
                "vision_model.embeddings.position_embedding",
                "visual_encoder.pos_embed",
            )
            .replace(
                "vision_model.embeddings.patch_embedding",
                "visual_encoder.patch_embed.proj",
            )
            .replace("vision_model.encoder.layers", "visual_encoder.blocks")
            .replace("vision_model.post_layernorm", "visual_encoder.norm")
            .replace("layer_norm", "norm")
            .replace("self_attn.projection", "attn.proj")
            .replace("self_attn", "attn");
        tensors.insert(name, tensor);
    }
}

#[test]
fn a_config_beside_the_authors_names_says_what_their_tensors_do_not() {
    for (directory, goldens) in [
        ("captioning", &["forward", "generate", "prompt"][..]),
        ("retrieval", &["itm", "itc"]),
    ] {
        let weights = edited(&format!("{directory}/model.safetensors"), authors_names);
        // three heads of four channels each
        let model = Model::load(&config(directory), weights, &Device::flex()).unwrap();
        for golden in goldens {
            let name = format!("{directory}/{golden}");
            read(&name).check(&name, model.reference().unwrap());
        }
    }
}

#[test]
fn a_checkpoint_can_be_asked_for_what_its_class_does_and_says_who_does_the_rest() {
    let device = Device::flex();
    for (directory, able) in [
        ("captioning", [true, false, false, false]),
        ("question_answering", [false, true, false, false]),
        ("retrieval", [false, false, true, true]),
        ("contrastive", [false, false, false, true]),
    ] {
        let weights = checkpoint(&format!("{directory}/model.safetensors"));
        let model = Model::load(&config(directory), weights, &device).unwrap();
        let asked = [
            ("BlipForConditionalGeneration", model.generate().err()),
            ("BlipForQuestionAnswering", model.answer_question().err()),
            ("BlipForImageTextRetrieval", model.score_pair().err()),
            (
                "BlipForImageTextRetrieval and BlipModel",
                model.embed_text().err(),
            ),
        ];
        for ((class, error), able) in asked.into_iter().zip(able) {
            match error {
                None => assert!(able, "{directory}: {class}"),
                Some(error) => {
                    let error = error.to_string();
                    assert!(
                        !able && error.ends_with(&format!("; {class} can")),
                        "{error}"
                    );
                }
            }
        }
        assert_eq!(model.embed_image().is_ok(), model.embed_text().is_ok());
    }
}

#[test]
fn capabilities_give_what_the_references_scores_are_made_of() {
    let device = Device::flex();
    let golden = read("retrieval/itm");
    let pictures = Pictures::Fixed(golden.floats("pixel_values", &device));
    let texts = golden.tokens("input_ids", "attention_mask");
    let floats = |golden: &Golden, name: &str| match &golden.outputs[name].numbers {
        Numbers::Floats(values) => values.clone(),
        Numbers::Integers(_) => panic!("{name}: floats"),
    };
    let model = blip("retrieval", &device);
    let scores = floats(&golden, "itm_score");
    let expected: Vec<f32> = scores
        .chunks(2)
        .map(|row| 1.0 / (1.0 + (row[0] - row[1]).exp()))
        .collect();
    let found = model.score_pair(&pictures, &texts).unwrap();
    close("match", &found, &expected, 1e-5);

    let (image, text) = (
        model.embed_image(&pictures).unwrap(),
        model.embed_text(&texts).unwrap(),
    );
    let products = values(image.matmul(text.transpose()));
    let expected = floats(&read("retrieval/itc"), "itm_score");
    close("cosine", &products, &expected, 2e-5);
    let Similarity::Softmax { scale } = model.similarity() else {
        panic!("BLIP's contrast is a softmax");
    };
    assert!((scale - 1.0 / 0.07).abs() < 0.01, "{scale}");
    // the authors' file has a temperature of its own
    let trained = original("retrieval.safetensors", &device);
    let Similarity::Softmax { scale } = trained.similarity() else {
        panic!("BLIP's contrast is a softmax");
    };
    assert!((scale - 1.0 / 0.05).abs() < 1e-3, "{scale}");

    // a question begins with the token that the authors' model was trained with, whatever the tokenizer put there
    let model = original("question_answering.safetensors", &device);
    let golden = read("original/question_answering");
    let pictures = Pictures::Fixed(golden.floats("pixel_values", &device));
    let mut rows = golden.tokens("input_ids", "").rows().to_vec();
    let mut first = |id: u32| {
        rows.iter_mut().for_each(|row| row[0] = id);
        let questions = Tokens::new(rows.clone(), None).unwrap();
        model
            .answer(&pictures, &questions)
            .unwrap()
            .feed(&[vec![18], vec![18]])
    };
    assert_eq!(first(1), first(19));
}

#[test]
fn cached_decoding_equals_full_decoding_and_rows_can_be_dropped_and_doubled() {
    let device = Device::flex();
    let model = blip("captioning", &device);
    let golden = read("captioning/forward");
    let pictures = Pictures::Fixed(golden.floats("pixel_values", &device));
    let ids: Vec<Vec<u32>> = golden.tokens("input_ids", "").rows().to_vec();
    let memory = model.encode(&pictures).unwrap();
    let texts = Tokens::new(ids.clone(), None).unwrap();
    let full = values(model.caption_logits(&memory, &texts).unwrap());
    let at = |row: usize, position: usize| &full[(row * 6 + position) * 20..][..20];
    for cuts in [vec![6], vec![1; 6], vec![2, 1, 3]] {
        let mut decoding = model.decode(memory.clone());
        let mut begin = 0;
        for len in cuts {
            let piece: Vec<_> = ids
                .iter()
                .map(|row| row[begin..begin + len].to_vec())
                .collect();
            begin += len;
            for (row, logits) in decoding.feed(&piece).iter().enumerate() {
                close("piece", logits, at(row, begin - 1), 2e-5);
            }
            assert_eq!(decoding.positions(), begin);
        }
    }
    let mut decoding = model.decode(memory);
    decoding.feed(&[ids[0][..3].to_vec(), ids[1][..3].to_vec()]);
    decoding.select(&[1, 1, 0]);
    let rest: Vec<_> = [1, 1, 0].map(|row| ids[row][3..].to_vec()).into();
    for (logits, row) in decoding.feed(&rest).iter().zip([1, 1, 0]) {
        close("selected", logits, at(row, 5), 2e-5);
    }
}

#[test]
fn configs_that_are_not_understood_are_refused_by_field() {
    let device = Device::flex();
    let base: serde_json::Value = serde_json::from_str(&config("captioning")).unwrap();
    let refused = |edit: &dyn Fn(&mut serde_json::Value), expected: &str| {
        let mut json = base.clone();
        edit(&mut json);
        let weights = checkpoint("captioning/model.safetensors");
        let error = Blip::load(&json.to_string(), weights, &device).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(expected), "{error} without {expected}");
    };
    for (part, field, value, expected) in [
        (
            "text_config",
            "hidden_act",
            "\"mish\"",
            "text_config.hidden_act",
        ),
        (
            "text_config",
            "hidden_size",
            "10",
            "text_config.num_attention_heads",
        ),
        (
            "text_config",
            "vocab_size",
            "12",
            "text_config.bos_token_id",
        ),
        (
            "text_config",
            "is_decoder",
            "false",
            "text_config.is_decoder",
        ),
        (
            "text_config",
            "label_smoothing",
            "1.5",
            "text_config.label_smoothing",
        ),
        (
            "text_config",
            "position_embedding_type",
            "\"relative_key\"",
            "position_embedding_type",
        ),
        ("text_config", "rotary_dim", "4", "text_config.rotary_dim"),
        (
            "text_config",
            "num_hidden_layers",
            "1e99",
            "text_config.num_hidden_layers",
        ),
        (
            "text_config",
            "num_hidden_layers",
            "4000000000",
            "text_config.num_hidden_layers",
        ),
        (
            "vision_config",
            "image_size",
            "[8, 8]",
            "vision_config.image_size",
        ),
        (
            "vision_config",
            "patch_size",
            "0",
            "vision_config.patch_size",
        ),
        (
            "vision_config",
            "num_channels",
            "4",
            "vision_config.num_channels",
        ),
        (
            "vision_config",
            "use_rel_pos",
            "true",
            "vision_config.use_rel_pos",
        ),
        (
            "vision_config",
            "num_attention_heads",
            "3",
            "vision_config.num_attention_heads",
        ),
    ] {
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        refused(&|json| json[part][field] = value.clone(), expected);
    }
    refused(
        &|json| json["architectures"] = vec!["BlipForNothing"].into(),
        "architectures: expected BlipForConditionalGeneration",
    );
    // of another depth: the differences are listed by name
    refused(
        &|json| json["text_config"]["num_hidden_layers"] = 3.into(),
        "- decoder.bert.layers.2.attn.qkv.weight [36, 12]",
    );
    refused(
        &|json| json["architectures"] = vec!["BlipForImageTextRetrieval"].into(),
        "+ decoder.bert.token.weight [20, 12]",
    );
    // without `architectures`, the tensors tell the class
    let mut json = base.clone();
    json.as_object_mut().unwrap().remove("architectures");
    let weights = checkpoint("captioning/model.safetensors");
    let model = Blip::load(&json.to_string(), weights, &device).unwrap();
    assert!(model.can_caption().is_ok());
    let mut json: serde_json::Value = serde_json::from_str(&config("question_answering")).unwrap();
    json["text_config"]["hidden_size"] = 12.into();
    let weights = checkpoint("question_answering/model.safetensors");
    let error = Blip::load(&json.to_string(), weights, &device).unwrap_err();
    assert!(
        error.to_string().contains("vision_config.hidden_size 8"),
        "{error}"
    );
}

#[test]
fn the_authors_tensors_of_impossible_shapes_are_errors_and_no_panic() {
    let device = Device::flex();
    let names: Vec<String> = checkpoint("original/retrieval.safetensors")
        .tensors()
        .map(|t| t.name.to_owned())
        .filter(|name| !name.contains("_m.") && !name.contains("queue"))
        .collect();
    for name in names {
        if name.ends_with("position_ids") {
            continue;
        }
        for shape in [vec![], vec![0], vec![1], vec![3, 1], vec![1, 2, 0, 5]] {
            let mut file = checkpoint("original/retrieval.safetensors");
            if file.shape(&name) == Some(&shape[..]) {
                continue;
            }
            let count = shape.iter().product();
            file.insert(&name, &shape, vec![0.5; count]);
            let loaded = Model::recognise(file, &device);
            // a scalar stands for one number
            let scalar = name == "temp" && count == 1;
            assert!(loaded.is_err() || scalar, "{name} {shape:?}");
        }
        let mut file = checkpoint("original/retrieval.safetensors");
        assert_eq!(file.ignore(&name), 1);
        let without = Model::recognise(file, &device);
        assert!(without.is_err() || name == "temp", "{name}");
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let device = Device::flex();
    let model = blip("captioning", &device);
    let golden = read("captioning/forward");
    let refused = |name: &str, shape: &[usize], numbers: Numbers, expected: &str| {
        let mut inputs = golden.inputs.clone();
        let shape = shape.to_vec();
        inputs.insert(name.to_owned(), Value { shape, numbers });
        let error = model.outputs(&Inputs::new(inputs)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} without {expected}");
    };
    let zeros = |count| Numbers::Floats(vec![0.0; count]);
    let ids = |count, id| Numbers::Integers(vec![id; count]);
    refused(
        "pixel_values",
        &[2, 3, 12, 8],
        zeros(576),
        "8 x 8 pixels, found 12 x 8",
    );
    refused(
        "pixel_values",
        &[2, 1, 8, 8],
        zeros(128),
        "3 channels, found 1",
    );
    refused("pixel_values", &[2, 8, 8], zeros(128), "4 dimensions");
    refused("input_ids", &[2, 6], ids(12, 20), "ids below 20, found 20");
    refused("input_ids", &[2, 6], ids(12, -1), "ids below 20, found -1");
    refused("input_ids", &[2, 17], ids(34, 1), "rows of 17, found 6");
    refused(
        "input_ids",
        &[3, 6],
        ids(18, 1),
        "attention_mask: expected 3 rows",
    );
    refused(
        "attention_mask",
        &[2, 5],
        ids(10, 1),
        "attention_mask: expected rows of 6",
    );
    refused(
        "labels",
        &[2, 5],
        ids(10, 1),
        "labels: expected 2 rows of 6",
    );
    refused(
        "labels",
        &[2, 6],
        ids(12, 20),
        "labels: expected ids below 20",
    );
    refused(
        "max_new_tokens",
        &[],
        ids(1, -3),
        "max_new_tokens: expected 1 to 16",
    );
    // more tokens than positions
    let long = Tokens::new(vec![vec![1; 17]], None).unwrap();
    let pictures = Pictures::Fixed(golden.floats("pixel_values", &device));
    let memory = model.picture_states(&pictures).unwrap();
    let error = model
        .caption_logits(&memory.narrow(0, 0, 1), &long)
        .unwrap_err();
    assert!(error.to_string().contains("at most 16 tokens"), "{error}");
}
