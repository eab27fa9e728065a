//! NIC's results under names of the published code.
//!
//! | from | results |
//! |---|---|
//! | `pixel_values` | `features`: `[B, E]`, or with attention the map `[B, rows, columns, D]` |
//! | and `input_ids`, begun and ended, with `attention_mask` or `caption_lengths` | `hiddens`, `logits`, with attention `alphas`, all zero behind a text; `loss` |
//! | and `max_new_tokens`; with or without `num_beams`, `length_penalty` | `generated_ids` |

use super::Nic;
use crate::capability::{Generate, Pictures, Tokens};
use crate::encoders::cnn::CHANNELS;
use crate::error::{Error, expect};
use crate::reference::{Generation, Inputs, Outputs, Reference, Value};
use burn::tensor::Tensor;

impl Nic {
    fn texts(&self, inputs: &Inputs) -> Result<Option<Tokens>, Error> {
        let Some(texts) = inputs.tokens("input_ids", "attention_mask", self.config.vocab_size)?
        else {
            return Ok(None);
        };
        let Some((_, lengths)) = inputs.integers::<1>("caption_lengths")? else {
            return Ok(Some(texts));
        };
        let (r, t) = (texts.rows().len(), texts.rows().first().map_or(0, Vec::len));
        expect(
            lengths.len() == r,
            "caption_lengths",
            format!("{r}"),
            lengths.len(),
        )?;
        let bad = lengths.iter().find(|&&l| !(2..=t as i64).contains(&l));
        expect(
            bad.is_none(),
            "caption_lengths",
            format!("2 to {t}"),
            bad.unwrap_or(&0),
        )?;
        let mask = lengths
            .iter()
            .map(|&l| (0..t).map(|i| (i as i64) < l).collect());
        Tokens::new(texts.rows().to_vec(), Some(mask.collect())).map(Some)
    }
}

impl Reference for Nic {
    fn outputs(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        let Some(pixels) = inputs.floats::<4>("pixel_values", &self.device())? else {
            return Ok(outputs);
        };
        let pictures = Pictures::Fixed(Pictures::Fixed(pixels).fixed(CHANNELS)?);
        let memory = self.picture_states(&pictures)?;
        let [b, n, d] = memory.dims();
        let features = match &self.config.attention {
            Some(a) => Value::floats(memory.clone().reshape([b, a.map_size, a.map_size, d])),
            None => Value::floats(memory.clone().reshape([b, n * d])),
        };
        outputs.insert("features".to_owned(), features);
        if let Some(texts) = self.texts(inputs)? {
            let pass = self.pass(&memory, &texts)?;
            let masked = |x: &Tensor<3>| Value::floats(x.clone() * pass.mask.clone());
            outputs.insert("hiddens".to_owned(), masked(&pass.states));
            if let Some(weights) = &pass.weights {
                outputs.insert("alphas".to_owned(), masked(weights));
            }
            let logits = self.head(pass.states.clone());
            outputs.insert("logits".to_owned(), masked(&logits));
            let losses = self.losses(pass, logits);
            outputs.insert("loss".to_owned(), Value::floats(losses.total));
        }
        let generation = Generation {
            most_tokens: self.config.max_length,
            vocab_size: self.config.vocab_size,
            eos: self.config.eos_token_id,
            pad: self.config.pad_token_id,
        };
        let prompts = vec![vec![self.config.bos_token_id]; b];
        let ids = generation.run(inputs, &prompts, |rows| {
            let one = |i: usize| memory.clone().narrow(0, i, 1);
            self.decode(rows.map_or_else(|| memory.clone(), one))
        })?;
        if let Some(ids) = ids {
            outputs.insert("generated_ids".to_owned(), ids);
        }
        Ok(outputs)
    }
}
