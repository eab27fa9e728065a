//! From grey levels to the numbers that a model was trained on.

/// Whose order of operations makes a float of a level. The last bit depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// `transformers` with Pillow and NumPy: `f32(f64(level) × factor)`, then `(value − mean) / std`.
    #[default]
    NumPy,
    /// `transformers` with torchvision: the factor goes into mean and deviation,
    /// `(level − mean / factor) / (std / factor)`, all in f32.
    Fused,
    /// torchvision's `ToTensor` and `Normalize`: `level / (1 / factor)`, then `(value − mean) / std`, all
    /// in f32.
    ToTensor,
}

/// The arithmetic from a level of 0 to 255 to a model's input, one channel after the other.
///
/// Only 256 values exist for each channel, so they are tabulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    table: Box<[[f32; 256]; 3]>,
}

impl Normalize {
    /// `rescale` is the factor (1/255 as a rule), `mean_std` the channel means and deviations.
    /// Either step is left out where `None`.
    pub fn new(
        rescale: Option<f64>,
        mean_std: Option<([f64; 3], [f64; 3])>,
        arithmetic: Arithmetic,
    ) -> Self {
        let mut table = Box::new([[0.0; 256]; 3]);
        for (channel, row) in table.iter_mut().enumerate() {
            for (level, value) in row.iter_mut().enumerate() {
                let rescaled = match (rescale, arithmetic) {
                    (None, _) => level as f32,
                    (Some(factor), Arithmetic::NumPy) => (level as f64 * factor) as f32,
                    (Some(factor), Arithmetic::Fused) => level as f32 * factor as f32,
                    (Some(factor), Arithmetic::ToTensor) => level as f32 / (1.0 / factor) as f32,
                };
                *value = match (mean_std, rescale, arithmetic) {
                    (None, ..) => rescaled,
                    (Some((mean, std)), Some(factor), Arithmetic::Fused) => {
                        let whole = (1.0 / factor) as f32;
                        (level as f32 - mean[channel] as f32 * whole)
                            / (std[channel] as f32 * whole)
                    }
                    (Some((mean, std)), ..) => {
                        (rescaled - mean[channel] as f32) / std[channel] as f32
                    }
                };
            }
        }
        Self { table }
    }

    /// The input value of `level` in `channel` (0 red, 1 green, 2 blue).
    ///
    /// # Panics
    /// Where `channel` is above 2.
    pub fn apply(&self, channel: usize, level: u8) -> f32 {
        self.table[channel][usize::from(level)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_can_be_left_out() {
        assert_eq!(
            Normalize::new(None, None, Arithmetic::NumPy).apply(1, 200),
            200.0
        );
        for arithmetic in [Arithmetic::NumPy, Arithmetic::Fused, Arithmetic::ToTensor] {
            let halves = Normalize::new(Some(1.0 / 255.0), Some(([0.5; 3], [0.5; 3])), arithmetic);
            assert_eq!(halves.apply(0, 255), 1.0);
            assert_eq!(halves.apply(2, 0), -1.0);
        }
        let unscaled = Normalize::new(None, Some(([1.0, 2.0, 3.0], [2.0; 3])), Arithmetic::Fused);
        assert_eq!(unscaled.apply(2, 5), 1.0);
    }
}
