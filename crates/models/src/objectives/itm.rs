use crate::error::{Error, expect};
use burn::tensor::{Int, Tensor, TensorData};
use vlm_nn::ops;
use vlm_nn::random::SplitMix64;

/// Image-text matching loss: cross-entropy of "does not belong" and "belongs", the second class.
///
/// # Shapes
/// `logits: [R, 2]`, whether each pair belongs together; gives `[1]`.
pub fn itm(logits: Tensor<2>, belongs: &[bool]) -> Tensor<1> {
    let targets: Vec<i64> = belongs.iter().map(|&b| i64::from(b)).collect();
    let targets = TensorData::new(targets, [belongs.len()]);
    let targets = Tensor::<1, Int>::from_data(targets, &logits.device());
    ops::cross_entropy(logits, targets, 0.0).mean()
}

/// For each row of a batch another one, drawn by the softmax of its similarities to them (Li et al., "Align before
/// fuse", 2021): what is alike is hard to tell apart. What counts as the same, itself at least, is never drawn.
///
/// One seed and one matrix give one choice.
///
/// # Shapes
/// `similarities: [B, B]`, scaled as for the contrastive loss.
///
/// # Errors
/// A row that is the same as all others, or a number that is none.
pub fn hard_negatives(
    similarities: &Tensor<2>,
    same: impl Fn(usize, usize) -> bool,
    seed: u64,
) -> Result<Vec<usize>, Error> {
    let [b, columns] = similarities.dims();
    let logits = similarities.clone().into_data().convert::<f32>();
    let logits: Vec<f32> = logits.try_to_vec().expect("f32");
    let mut rng = SplitMix64::new(seed);
    let draw = |(i, row): (usize, &[f32])| {
        let others = (0..b.min(columns)).filter(|&j| j != i && !same(i, j));
        let others: Vec<usize> = others.collect();
        expect(
            !others.is_empty(),
            "batch",
            "another picture and text for each pair",
            format!("none for pair {i} of {b}"),
        )?;
        let highest = others.iter().fold(f32::NEG_INFINITY, |m, &j| m.max(row[j]));
        let weights = others.iter().map(|&j| f64::from(row[j] - highest).exp());
        let weights: Vec<f64> = weights.collect();
        let sum: f64 = weights.iter().sum();
        expect(sum.is_finite(), "similarities", "numbers", sum)?;
        let mut left = rng.uniform() * sum;
        for (&j, weight) in others.iter().zip(weights) {
            left -= weight;
            if left < 0.0 {
                return Ok(j);
            }
        }
        Ok(others[others.len() - 1])
    };
    logits.chunks(columns).enumerate().map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn matrix(values: &[f32], b: usize) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [b, b]), &Device::flex())
    }

    #[test]
    fn negatives_follow_the_softmax_of_what_is_not_the_same() {
        // 1 is three times as probable as 2 for 0; 3 is the same as 0
        let mut rows = vec![0.0; 16];
        rows[1] = 3f32.ln();
        rows[3] = 50.0;
        let similarities = matrix(&rows, 4);
        let same = |i: usize, j: usize| i % 3 == j % 3;
        let draws = (0..4000).map(|seed| hard_negatives(&similarities, same, seed).unwrap());
        let draws: Vec<Vec<usize>> = draws.collect();
        assert!(draws.iter().all(|d| d[0] == 1 || d[0] == 2));
        assert!(
            draws
                .iter()
                .all(|d| d[1] != 1 && d[2] != 2 && d[3] != 0 && d[3] != 3)
        );
        let ones = draws.iter().filter(|d| d[0] == 1).count() as f64;
        // 0.75 within four standard deviations of 4000 draws
        assert!((ones / 4000.0 - 0.75).abs() < 0.028, "{ones}");
        assert_eq!(draws[7], hard_negatives(&similarities, same, 7).unwrap());
    }

    #[test]
    fn a_batch_without_another_pair_and_similarities_that_are_no_numbers_are_refused() {
        let error = hard_negatives(&matrix(&[1.0], 1), |_, _| false, 0).unwrap_err();
        assert!(
            error.to_string().contains("none for pair 0 of 1"),
            "{error}"
        );
        let all_same = hard_negatives(&matrix(&[1.0; 4], 2), |_, _| true, 0);
        assert!(all_same.is_err());
        let nan = hard_negatives(&matrix(&[f32::NAN; 4], 2), |_, _| false, 0);
        assert!(nan.is_err());
    }
}
