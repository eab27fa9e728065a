use super::distilled_cross_entropy;
use crate::capability::Tokens;
use burn::tensor::{Int, Tensor, TensorData};
use vlm_nn::random::SplitMix64;

/// How tokens are masked (Devlin et al., "BERT", 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MlmMasking {
    /// The share of tokens that are to be predicted, 0.15 in the papers.
    pub probability: f64,
    /// Tokens `V`, of which a random one may stand in for another.
    pub vocab_size: usize,
    /// `[MASK]`.
    pub mask_token_id: u32,
    /// `[PAD]`, which is never predicted.
    pub pad_token_id: u32,
    /// `[CLS]`, which is never predicted.
    pub cls_token_id: u32,
    /// `[SEP]`, where it is never predicted.
    pub sep_token_id: Option<u32>,
}

/// Texts with some tokens hidden, and what was there.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskedTokens {
    /// What the model reads.
    pub texts: Tokens,
    /// The token at each position that is to be predicted, -100 at all others.
    pub labels: Vec<Vec<i64>>,
}

/// Chooses tokens to be predicted and hides four fifths of them behind the mask token, a tenth behind a random one, and
/// leaves a tenth as it is. One seed and one batch give one choice.
pub fn mask_tokens(texts: &Tokens, masking: &MlmMasking, seed: u64) -> MaskedTokens {
    let mut rng = SplitMix64::new(seed);
    let (mut rows, mut labels) = (texts.rows().to_vec(), Vec::new());
    for (row, seen) in rows.iter_mut().zip(texts.mask()) {
        let mut targets = vec![-100; row.len()];
        for ((id, &seen), target) in row.iter_mut().zip(seen).zip(&mut targets) {
            // as many numbers for every token, so that one text's length does not shift another's choices
            let [chosen, kind, word] = [rng.uniform(), rng.uniform(), rng.uniform()];
            let special = [masking.pad_token_id, masking.cls_token_id].contains(id)
                || masking.sep_token_id == Some(*id);
            if special || !seen || chosen >= masking.probability {
                continue;
            }
            *target = i64::from(*id);
            if kind < 0.8 {
                *id = masking.mask_token_id;
            } else if kind < 0.9 {
                *id = (word * masking.vocab_size as f64) as u32;
            }
        }
        labels.push(targets);
    }
    let texts = Tokens::new(rows, Some(texts.mask().to_vec()));
    MaskedTokens {
        texts: texts.expect("rows of the same lengths"),
        labels,
    }
}

/// Masked-language-modelling loss: the mean over the hidden tokens of the cross-entropy, or of its mixture with what a
/// teacher says.
///
/// # Shapes
/// `logits, teacher: [R, T, V]`; `labels` a row of `T` for each text, negative where nothing is to be predicted. Gives
/// `[1]`.
///
/// # Panics
/// If `labels` has another shape.
pub fn mlm(
    logits: Tensor<3>,
    labels: &[Vec<i64>],
    teacher: Option<Tensor<3>>,
    alpha: f32,
) -> Tensor<1> {
    let [r, t, v] = logits.dims();
    let targets = labels.concat();
    let count = targets.iter().filter(|&&id| id >= 0).count();
    assert_eq!(targets.len(), r * t, "labels");
    let targets = TensorData::new(targets, [r * t]);
    let targets = Tensor::<1, Int>::from_data(targets, &logits.device());
    let flat = |x: Tensor<3>| x.reshape([r * t, v]);
    let losses = distilled_cross_entropy(flat(logits), targets, teacher.map(flat), alpha);
    losses.sum() / count.max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_masked_in_the_papers_shares_and_never_specials_or_padding() {
        let masking = MlmMasking {
            probability: 0.15,
            vocab_size: 1000,
            mask_token_id: 4,
            pad_token_id: 0,
            cls_token_id: 1,
            sep_token_id: None,
        };
        let row = |length: usize| {
            let words = (1..length).map(|i| 100 + (i % 800) as u32);
            std::iter::once(1).chain(words).collect::<Vec<u32>>()
        };
        let texts = Tokens::padded(&[row(40_000), row(20_000)], 0);
        let masked = mask_tokens(&texts, &masking, 3);
        let (mut chosen, mut hidden, mut random) = (0.0, 0.0, 0.0);
        for (i, labels) in masked.labels.iter().enumerate() {
            assert_eq!(labels[0], -100);
            for (j, &label) in labels.iter().enumerate() {
                let (before, after) = (texts.rows()[i][j], masked.texts.rows()[i][j]);
                if label < 0 {
                    assert_eq!(before, after);
                    continue;
                }
                assert_eq!(label, i64::from(before));
                chosen += 1.0;
                hidden += f64::from(u8::from(after == 4));
                random += f64::from(u8::from(after != 4 && after != before));
            }
            assert!(labels[row(20_000).len()..].iter().all(|&l| i == 0 || l < 0));
        }
        // within four standard deviations
        assert!((chosen / 60_000.0 - 0.15f64).abs() < 0.006, "{chosen}");
        assert!((hidden / chosen - 0.8f64).abs() < 0.018, "{hidden}");
        assert!((random / chosen - 0.1f64).abs() < 0.014, "{random}");
        assert_eq!(masked, mask_tokens(&texts, &masking, 3));
        assert_ne!(masked, mask_tokens(&texts, &masking, 4));
    }
}
