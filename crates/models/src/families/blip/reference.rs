//! BLIP's results under the names of transformers' classes.
//!
//! | class | from | results |
//! |---|---|---|
//! | all | `pixel_values`, `interpolate_pos_encoding` | `last_hidden_state` and `hidden_states.I` of the pictures |
//! | `BlipForConditionalGeneration` | and `input_ids`, `attention_mask` | `image_embeds` (all states), `logits` |
//! | | and `labels` | `loss` |
//! | | and `max_new_tokens`, with or without `input_ids` | `generated_ids` |
//! | `BlipForQuestionAnswering` | and `input_ids`, `attention_mask` | `image_embeds`, `question_embeds` |
//! | | and `labels` or `decoder_input_ids`, `decoder_attention_mask` | `logits`, `loss` |
//! | | and `max_new_tokens` | `generated_ids` |
//! | `BlipForImageTextRetrieval` | and `input_ids`, `attention_mask`, `use_itm_head` | `itm_score`, `question_embeds` |
//! | `BlipModel` | and `input_ids`, `attention_mask`, `return_loss` | `image_embeds`, `text_embeds`, `logits_per_image`, `logits_per_text`, `loss`, `vision_model_output.*`, `text_model_output.*` |
//!
//! `num_beams` and `length_penalty` ask for beam search instead of greedy decoding.

use super::{Blip, BlipTask, Labels};
use crate::capability::{Pictures, Tokens};
use crate::decoders::BertDecoder;
use crate::error::{Error, expect};
use crate::generate::{Options, Strategy, generate};
use crate::reference::{Inputs, Numbers, Outputs, Reference, Value, put};
use burn::tensor::Tensor;
use vlm_nn::KeyMask;

impl Blip {
    /// Texts with their mask, checked.
    fn tokens(&self, inputs: &Inputs, name: &str, mask: &str) -> Result<Option<Tokens>, Error> {
        inputs.tokens(name, mask, self.config.text.vocab_size)
    }

    fn labels(&self, inputs: &Inputs) -> Result<Option<Labels>, Error> {
        Ok(inputs.rows("labels")?.map(|ids| Labels { ids }))
    }

    /// Logits, and the loss if there are labels.
    fn put_logits(
        &self,
        outputs: &mut Outputs,
        logits: Tensor<3>,
        labels: Option<&Labels>,
    ) -> Result<(), Error> {
        put(outputs, "logits", logits.clone());
        if let Some(labels) = labels {
            let loss = self.language_loss(logits, labels)?;
            put(outputs, "loss", loss);
        }
        Ok(())
    }

    /// Whole sequences, prompts first and padded behind what ended; the decoder reads `memory`, `[B, N, D]`.
    fn put_generated(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        decoder: &BertDecoder,
        memory: &Tensor<3>,
        prompts: &Tokens,
    ) -> Result<(), Error> {
        let Some(tokens) = inputs.number("max_new_tokens")? else {
            return Ok(());
        };
        self.check_rows(memory, prompts)?;
        self.ids(prompts)?;
        let beams = inputs.number("num_beams")?.unwrap_or(1);
        let (most, vocab) = (
            decoder.bert().config().max_position_embeddings,
            self.config.text.vocab_size,
        );
        let within =
            |x: i64, most: usize| usize::try_from(x).is_ok_and(|x| (1..=most).contains(&x));
        expect(
            within(tokens, most),
            "max_new_tokens",
            format!("1 to {most}"),
            tokens,
        )?;
        expect(
            within(beams, vocab),
            "num_beams",
            format!("1 to {vocab}"),
            beams,
        )?;
        let penalty = match inputs.get("length_penalty").map(|value| &value.numbers) {
            None => 1.0,
            Some(Numbers::Floats(x)) if x.len() == 1 => x[0],
            Some(Numbers::Integers(x)) if x.len() == 1 => x[0] as f32,
            Some(other) => {
                expect(false, "length_penalty", "one number", format!("{other:?}"))?;
                1.0
            }
        };
        let options = Options {
            strategy: if beams == 1 {
                Strategy::Greedy
            } else {
                Strategy::Beam {
                    width: beams as usize,
                    length_penalty: penalty,
                }
            },
            max_new_tokens: tokens as usize,
            eos: self.config.sep_token_id,
            banned: Vec::new(),
        };
        let start = |memory: Tensor<3>, mask: &[Vec<bool>]| {
            let memory = decoder.bert().memory(&[(memory, KeyMask::default())]);
            decoder.decode(memory).with_padding(mask)
        };
        let texts = if beams == 1 {
            let mut decoding = start(memory.clone(), prompts.mask());
            generate(&mut decoding, prompts.rows(), &options)
        } else {
            let one = |i: usize| {
                let row = if memory.dims()[0] > 1 { i } else { 0 };
                let mut decoding = start(memory.clone().narrow(0, row, 1), &prompts.mask()[i..=i]);
                generate(&mut decoding, &prompts.rows()[i..=i], &options)
            };
            (0..prompts.rows().len()).flat_map(one).collect()
        };
        let rows = prompts.rows().iter().zip(texts).map(|(prompt, text)| {
            let end = text.finished.then_some(self.config.sep_token_id);
            prompt.iter().copied().chain(text.ids).chain(end).collect()
        });
        let rows = Tokens::padded(&rows.collect::<Vec<_>>(), self.config.pad_token_id);
        outputs.insert("generated_ids".to_owned(), Value::ids(rows.rows()));
        Ok(())
    }

    fn captioning(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        pictures: &Tensor<3>,
    ) -> Result<(), Error> {
        put(outputs, "image_embeds", pictures.clone());
        let texts = self.tokens(inputs, "input_ids", "attention_mask")?;
        let labels = self.labels(inputs)?;
        if let Some(texts) = &texts {
            let logits = self.caption_logits(pictures, texts)?;
            self.put_logits(outputs, logits, labels.as_ref())?;
        }
        let prompts = match &texts {
            None => Tokens::padded(&vec![vec![self.config.bos_token_id]; pictures.dims()[0]], 0),
            Some(texts) => self.prompts(texts, inputs.get("attention_mask").is_some())?,
        };
        self.put_generated(outputs, inputs, self.captioner()?, pictures, &prompts)
    }

    /// Prompts as transformers makes them of tokenized texts: the first token becomes the decoder's first, the last one,
    /// which ends a text, is dropped. Where no mask is given, padding is what looks like padding.
    fn prompts(&self, texts: &Tokens, masked: bool) -> Result<Tokens, Error> {
        let t = texts.rows().first().map_or(0, Vec::len);
        let pad = self.config.pad_token_id;
        let mut rows = texts.rows().to_vec();
        for row in rows.iter_mut().filter(|row| !row.is_empty()) {
            row[0] = self.config.bos_token_id;
            row.truncate(t - 1);
        }
        let mask = if masked || pad == self.config.sep_token_id {
            let cut = |row: &Vec<bool>| row[..t.saturating_sub(1)].to_vec();
            texts.mask().iter().map(cut).collect()
        } else {
            let seen = |row: &Vec<u32>| row.iter().map(|&id| id != pad).collect();
            rows.iter().map(seen).collect()
        };
        Tokens::new(rows, Some(mask))
    }

    fn question_answering(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        pictures: &Tensor<3>,
    ) -> Result<(), Error> {
        put(outputs, "image_embeds", pictures.clone());
        let Some(questions) = self.tokens(inputs, "input_ids", "attention_mask")? else {
            return Ok(());
        };
        let states = self.text_states(&questions, Some(pictures))?;
        put(outputs, "question_embeds", states.clone());
        let labels = self.labels(inputs)?;
        let given = inputs.get("decoder_input_ids").is_some();
        let name = if given { "decoder_input_ids" } else { "labels" };
        let (_, decoder) = self.answerer()?;
        if let Some(answers) = self.tokens(inputs, name, "decoder_attention_mask")? {
            let keys = self.question_keys(&questions);
            let logits = self.decoded(decoder, &answers, &states, keys)?;
            self.put_logits(outputs, logits, labels.as_ref())?;
        }
        let begin = vec![vec![self.config.bos_token_id]; states.dims()[0]];
        let begin = Tokens::padded(&begin, 0);
        self.put_generated(outputs, inputs, decoder, &states, &begin)
    }

    fn retrieval(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        pictures: &Tensor<3>,
    ) -> Result<(), Error> {
        let Some(texts) = self.tokens(inputs, "input_ids", "attention_mask")? else {
            return Ok(());
        };
        if inputs.flag("use_itm_head", true)? {
            let states = self.text_states(&texts, Some(pictures))?;
            put(outputs, "itm_score", self.match_scores(&states)?);
            put(outputs, "question_embeds", states);
        } else {
            let states = self.text_states(&texts, None)?;
            let texts = self.text_vectors(&states)?;
            let products = self.picture_vectors(pictures)?.matmul(texts.transpose()); // [B, R]
            put(outputs, "itm_score", products);
            put(outputs, "question_embeds", states);
        }
        Ok(())
    }

    fn contrastive(
        &self,
        outputs: &mut Outputs,
        inputs: &Inputs,
        pictures: &Tensor<3>,
    ) -> Result<(), Error> {
        put(
            outputs,
            "vision_model_output.last_hidden_state",
            pictures.clone(),
        );
        put(
            outputs,
            "vision_model_output.pooler_output",
            self.pooled_picture(pictures),
        );
        let image = self.picture_vectors(pictures)?;
        put(outputs, "image_embeds", image.clone());
        let Some(texts) = self.tokens(inputs, "input_ids", "attention_mask")? else {
            return Ok(());
        };
        let states = self.text_states(&texts, None)?;
        put(
            outputs,
            "text_model_output.last_hidden_state",
            states.clone(),
        );
        if let Some(pooled) = self.text.as_ref().and_then(|text| text.pooled(&states)) {
            put(outputs, "text_model_output.pooler_output", pooled);
        }
        let text = self.text_vectors(&states)?;
        put(outputs, "text_embeds", text.clone());
        let scale = self.log_scale().exp();
        let products = text.clone().matmul(image.clone().transpose()) * scale.unsqueeze(); // [R, B]
        put(outputs, "logits_per_text", products.clone());
        put(outputs, "logits_per_image", products.transpose());
        if inputs.flag("return_loss", false)? {
            let (b, r) = (image.dims()[0], text.dims()[0]);
            expect(
                b == r,
                "return_loss",
                "as many texts as pictures",
                format!("{r} and {b}"),
            )?;
            put(outputs, "loss", self.contrastive_loss(image, text));
        }
        Ok(())
    }
}

impl Reference for Blip {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        // these change what a class returns, not its numbers
        for flag in ["output_hidden_states", "output_attentions", "return_dict"] {
            inputs.get(flag);
        }
        let Some(pixels) = inputs.floats::<4>("pixel_values", &self.device())? else {
            let task = self.config.task;
            if matches!(task, BlipTask::Retrieval | BlipTask::Contrastive)
                && let Some(texts) = self.tokens(inputs, "input_ids", "attention_mask")?
            {
                let states = self.text_states(&texts, None)?;
                put(&mut outputs, "text_embeds", self.text_vectors(&states)?);
            }
            return Ok(outputs);
        };
        let interpolate = inputs.flag("interpolate_pos_encoding", false)?;
        let mut states = Vec::new();
        let pictures = Pictures::Fixed(pixels);
        let pictures = self.traced_picture_states(&pictures, interpolate, Some(&mut states))?;
        for (i, state) in states.into_iter().enumerate() {
            put(&mut outputs, &format!("hidden_states.{i}"), state);
        }
        put(&mut outputs, "last_hidden_state", pictures.clone());
        match self.config.task {
            BlipTask::Captioning => self.captioning(&mut outputs, inputs, &pictures)?,
            BlipTask::QuestionAnswering => {
                self.question_answering(&mut outputs, inputs, &pictures)?;
            }
            BlipTask::Retrieval => self.retrieval(&mut outputs, inputs, &pictures)?,
            BlipTask::Contrastive => self.contrastive(&mut outputs, inputs, &pictures)?,
            // the captioner's names are the decoder's, the retrieval model's the encoder's: no two are the same
            BlipTask::Pretraining => {
                self.captioning(&mut outputs, inputs, &pictures)?;
                self.retrieval(&mut outputs, inputs, &pictures)?;
            }
        }
        Ok(outputs)
    }
}
