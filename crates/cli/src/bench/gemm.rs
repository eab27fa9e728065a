//! One matrix product with a weight that was packed before, as a linear layer has it.

use vlm_kernels::{Epilogue, PackedWeights, Precision, linear_packed};

/// Extents of a product: rows, inputs and outputs of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub m: usize,
    pub k: usize,
    pub n: usize,
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let extents: Option<Vec<usize>> = text
            .split('x')
            .map(|part| part.parse().ok().filter(|n| (1..=16384).contains(n)))
            .collect();
        match extents.as_deref() {
            Some(&[m, k, n]) => Ok(Self { m, k, n }),
            _ => Err("expected MxKxN with numbers from 1 to 16384".to_owned()),
        }
    }
}

/// Operands of a product of a shape.
pub struct Product {
    shape: Shape,
    x: Vec<f32>,
    weight: PackedWeights,
    out: Vec<f32>,
}

impl Product {
    pub fn new(shape: Shape, precision: Precision) -> Self {
        let Shape { m, k, n } = shape;
        let values = |len: usize| -> Vec<f32> {
            (0..len)
                .map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0)
                .collect()
        };
        Self {
            shape,
            x: values(m * k),
            weight: PackedWeights::new(precision, &values(n * k), n, k),
            out: vec![0.0; m * n],
        }
    }

    pub fn run(&mut self) {
        let (m, out) = (self.shape.m, &mut self.out);
        linear_packed(&self.x, &self.weight, m, Epilogue::NONE, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_three_numbers() {
        let shape = Shape { m: 3, k: 4, n: 5 };
        assert_eq!("3x4x5".parse(), Ok(shape));
        for bad in ["", "3x4", "3x4x0", "3x4x5x6", "ax4x5", "3x4x99999"] {
            assert!(bad.parse::<Shape>().is_err(), "{bad}");
        }
    }
}
