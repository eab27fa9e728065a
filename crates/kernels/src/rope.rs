//! Rotary position embedding (Su et al. 2021): pairs of a head's elements turned by angles that grow with the position.

use crate::attention::HeadsMut;
use crate::parallel;
use crate::simd::{Simd, simd_dispatch};

/// Which elements of a head form a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RopeLayout {
    /// `j` and `j + rotary_dim / 2`: GPT-NeoX, Hugging Face.
    Halves,
    /// `2 j` and `2 j + 1`: GPT-J, the paper, GGUF files of Llama.
    Pairs,
}

/// `theta^(-2 j / rotary_dim)` for every pair `j`: radians per position.
pub fn inverse_frequencies(rotary_dim: usize, theta: f64) -> Vec<f32> {
    (0..rotary_dim / 2)
        .map(|j| theta.powf(-2.0 * j as f64 / rotary_dim as f64) as f32)
        .collect()
}

/// Cosines and sines of the angles of every token, `[tokens, pairs]` each.
#[derive(Clone, Debug)]
pub struct Rotation {
    tokens: usize,
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotation {
    /// Token `t` turned by `positions[t] * inverse_frequencies[j]`.
    pub fn new(positions: &[u32], inverse_frequencies: &[f32]) -> Self {
        Self::with(positions.len(), inverse_frequencies, |t, _| positions[t])
    }

    /// Positions in time, height and width (M-RoPE, Wang et al. 2024, Qwen2-VL): the first `sections[0]` pairs follow
    /// `positions[0]`, the next `sections[1]` `positions[1]`, the last `sections[2]` `positions[2]`.
    pub fn sectioned(
        positions: [&[u32]; 3],
        sections: [usize; 3],
        inverse_frequencies: &[f32],
    ) -> Self {
        let pairs = inverse_frequencies.len();
        assert_eq!(
            sections.iter().sum::<usize>(),
            pairs,
            "rope: sections {sections:?} are not {pairs} pairs"
        );
        let tokens = positions[0].len();
        assert!(
            positions.iter().all(|p| p.len() == tokens),
            "rope: the three axes differ in their number of positions"
        );
        Self::with(tokens, inverse_frequencies, |t, j| {
            let axis = usize::from(j >= sections[0]) + usize::from(j >= sections[0] + sections[1]);
            positions[axis][t]
        })
    }

    fn with(
        tokens: usize,
        inverse_frequencies: &[f32],
        position: impl Fn(usize, usize) -> u32,
    ) -> Self {
        let pairs = inverse_frequencies.len();
        let mut cos = Vec::with_capacity(tokens * pairs);
        let mut sin = Vec::with_capacity(tokens * pairs);
        for t in 0..tokens {
            for (j, &frequency) in inverse_frequencies.iter().enumerate() {
                let angle = f64::from(position(t, j)) * f64::from(frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        Self {
            tokens,
            pairs,
            cos,
            sin,
        }
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The cosines, `[tokens, rotary_dim / 2]`.
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// The sines, `[tokens, rotary_dim / 2]`.
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }

    /// Elements of a head that are turned; those after them stay.
    pub fn rotary_dim(&self) -> usize {
        2 * self.pairs
    }
}

/// Turns the heads `x` of `size` `[batch, len, heads, head_dim]` in place; `rotation` has `batch * len` tokens, or
/// `len` that all sequences share, and at most `head_dim` rotary elements.
pub fn rope(x: HeadsMut, size: [usize; 4], layout: RopeLayout, rotation: &Rotation) {
    turn(x, size, layout, rotation, 1.0);
}

/// The gradient of [`rope`], in place on the gradient by its result: the opposite turn.
pub fn rope_backward(dx: HeadsMut, size: [usize; 4], layout: RopeLayout, rotation: &Rotation) {
    turn(dx, size, layout, rotation, -1.0);
}

fn turn(
    x: HeadsMut,
    [batch, len, heads, head_dim]: [usize; 4],
    layout: RopeLayout,
    rotation: &Rotation,
    sign: f32,
) {
    let rotary_dim = rotation.rotary_dim();
    assert!(
        rotary_dim <= head_dim,
        "rope: {rotary_dim} rotary elements in heads of {head_dim}"
    );
    assert!(
        rotation.tokens == batch * len || rotation.tokens == len,
        "rope: expected {batch} x {len} or {len} positions, found {}",
        rotation.tokens
    );
    let width = heads * head_dim;
    let x = x.checked("x", batch, len, width);
    if width == 0 || rotary_dim == 0 {
        return;
    }
    let per_task = parallel::rows_per_task(width);
    parallel::for_each_task((batch * len).div_ceil(per_task), |task| {
        for row in task * per_task..((task + 1) * per_task).min(batch * len) {
            // SAFETY: the row was checked to exist and belongs to this task alone.
            let row_data =
                unsafe { std::slice::from_raw_parts_mut(x.ptr(row / len, row % len, 0), width) };
            let angles = row % rotation.tokens * rotation.pairs;
            let cos = &rotation.cos[angles..][..rotation.pairs];
            let sin = &rotation.sin[angles..][..rotation.pairs];
            turn_row(row_data, head_dim, layout, cos, sin, sign);
        }
    });
}

#[inline(always)]
fn turn_row_kernel<S: Simd>(
    s: S,
    row: &mut [f32],
    head_dim: usize,
    layout: RopeLayout,
    cos: &[f32],
    sin: &[f32],
    sign: f32,
) {
    for head in row.chunks_exact_mut(head_dim) {
        match layout {
            RopeLayout::Halves => {
                let (first, second) = head[..2 * cos.len()].split_at_mut(cos.len());
                let pairs = first.chunks_mut(S::LANES).zip(second.chunks_mut(S::LANES));
                let angles = cos.chunks(S::LANES).zip(sin.chunks(S::LANES));
                for ((first, second), (cos, sin)) in pairs.zip(angles) {
                    let (a, b) = (s.load(first), s.load(second));
                    let (cos, sin) = (s.load(cos), s.mul(s.load(sin), s.splat(sign)));
                    s.store(first, s.neg_mul_add(b, sin, s.mul(a, cos)));
                    s.store(second, s.mul_add(a, sin, s.mul(b, cos)));
                }
            }
            RopeLayout::Pairs => {
                for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                    let (a, b, sin) = (pair[0], pair[1], sin * sign);
                    pair[0] = a * cos - b * sin;
                    pair[1] = b * cos + a * sin;
                }
            }
        }
    }
}

simd_dispatch! {
    fn turn_row(
        row: &mut [f32], head_dim: usize, layout: RopeLayout, cos: &[f32], sin: &[f32], sign: f32,
    ) = turn_row_kernel;
}
