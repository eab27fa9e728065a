use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Int, Tensor};
use vlm_nn::ops;

/// Cross-entropy of each row against a distribution.
///
/// # Shapes
/// `logits, targets: [M, V]`, rows of `targets` sum to 1; gives `[M]`.
pub fn soft_cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let m = logits.dims()[0];
    let losses = (log_softmax(logits, 1) * targets).sum_dim(1); // [M, 1]
    -losses.reshape([m])
}

/// Momentum distillation (Li et al., "Align before fuse", 2021, section 3.3): `1 - alpha` times the cross-entropy
/// against the target and `alpha` times that against what a teacher holds probable; 0 where the target is negative.
///
/// # Shapes
/// `logits: [M, V]`; `targets: [M]`; `teacher: [M, V]`, logits without a graph. Gives `[M]`.
pub fn distilled_cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    teacher: Option<Tensor<2>>,
    alpha: f32,
) -> Tensor<1> {
    let hard = ops::cross_entropy(logits.clone(), targets.clone(), 0.0);
    match teacher {
        Some(teacher) if alpha > 0.0 => {
            let learned = targets.greater_equal_elem(0).float(); // [M]
            let soft = soft_cross_entropy(logits, softmax(teacher, 1)) * learned;
            hard * (1.0 - alpha) + soft * alpha
        }
        _ => hard,
    }
}

/// The weight of distillation at a step: it grows linearly through the first `steps`, an epoch in the authors' code, and
/// stays at `alpha`.
pub fn alpha_ramp(alpha: f32, step: u64, steps: u64) -> f32 {
    if step >= steps {
        return alpha;
    }
    alpha * (step as f64 / steps as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn rows(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    #[test]
    fn half_a_target_and_half_a_teacher_by_hand_and_nothing_without_a_target() {
        // both logits zero: the loss is ln 2 whatever the distribution
        let logits = rows(&[0.0, 0.0, 0.0, 2f32.ln(), 5.0, 6.0], [3, 2]);
        let teacher = rows(&[1.0, 4.0, 0.0, 3f32.ln(), 1.0, 1.0], [3, 2]);
        let data = TensorData::new(vec![1i64, 0, -100], [3]);
        let targets = Tensor::<1, Int>::from_data(data, &Device::flex());
        let losses = distilled_cross_entropy(logits, targets, Some(teacher), 0.5);
        let losses: Vec<f32> = losses.into_data().try_to_vec().expect("f32");
        assert!((losses[0] - 2f32.ln()).abs() < 1e-6, "{losses:?}");
        // the model says 1/3, 2/3; the target is the first, the teacher says 1/4, 3/4
        let soft = 0.25 * 3f32.ln() + 0.75 * 1.5f32.ln();
        assert!((losses[1] - 0.5 * (3f32.ln() + soft)).abs() < 1e-6);
        assert_eq!(losses[2], 0.0);
    }

    #[test]
    fn alpha_grows_through_the_first_epoch() {
        let at = |step| alpha_ramp(0.4, step, 100);
        assert_eq!([at(0), at(50), at(100), at(1000)], [0.0, 0.2, 0.4, 0.4]);
        assert_eq!(alpha_ramp(0.4, 0, 0), 0.4);
    }
}
