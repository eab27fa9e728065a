//! From grey levels to the numbers that a model was trained on.

/// The arithmetic from a level of 0 to 255 to a model's input, one channel after the other.
///
/// `transformers` computes `f32(f64(level) × factor)` and then, in f32, `(value − mean) / std`.
/// Only 256 values exist for each channel, so they are tabulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    table: Box<[[f32; 256]; 3]>,
}

impl Normalize {
    /// `rescale` is the factor (1/255 as a rule), `mean_std` the channel means and deviations.
    /// Either step is left out where `None`.
    pub fn new(rescale: Option<f64>, mean_std: Option<([f64; 3], [f64; 3])>) -> Self {
        let mut table = Box::new([[0.0; 256]; 3]);
        for (channel, row) in table.iter_mut().enumerate() {
            for (level, value) in row.iter_mut().enumerate() {
                let scaled = match rescale {
                    Some(factor) => (level as f64 * factor) as f32,
                    None => level as f32,
                };
                *value = match mean_std {
                    Some((mean, std)) => (scaled - mean[channel] as f32) / std[channel] as f32,
                    None => scaled,
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
        assert_eq!(Normalize::new(None, None).apply(1, 200), 200.0);
        let halves = Normalize::new(Some(1.0 / 255.0), Some(([0.5; 3], [0.5; 3])));
        assert_eq!(halves.apply(0, 255), 1.0);
        assert_eq!(halves.apply(2, 0), -1.0);
        let unscaled = Normalize::new(None, Some(([1.0, 2.0, 3.0], [2.0; 3])));
        assert_eq!(unscaled.apply(2, 5), 1.0);
    }
}
