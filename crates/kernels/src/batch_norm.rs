//! Batch normalisation (Ioffe and Szegedy 2015) with the statistics of the batch, channels last: rows have the width of
//! `gamma`, and every column is normalised by itself.

use crate::gemm::linear::add_rows;
use crate::parallel;
use crate::simd::{Simd, simd_dispatch};

/// Adds the squared distances of the rows of `x` from `mean`.
#[inline(always)]
fn square_kernel<S: Simd>(s: S, x: &[f32], mean: &[f32], sums: &mut [f32]) {
    let width = sums.len();
    for x in x.chunks_exact(width) {
        for at in (0..width).step_by(S::LANES) {
            let centred = s.sub(s.load(&x[at..]), s.load(&mean[at..]));
            let sums = &mut sums[at..];
            s.store(sums, s.mul_add(centred, centred, s.load(sums)));
        }
    }
}

#[inline(always)]
fn apply_kernel<S: Simd, const RELU: bool>(
    s: S,
    x: &[f32],
    mean: &[f32],
    scale: &[f32],
    beta: &[f32],
    out: &mut [f32],
) {
    let width = mean.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        for at in (0..width).step_by(S::LANES) {
            let centred = s.sub(s.load(&x[at..]), s.load(&mean[at..]));
            let y = s.mul_add(centred, s.load(&scale[at..]), s.load(&beta[at..]));
            s.store(&mut out[at..], if RELU { s.max(y, s.zero()) } else { y });
        }
    }
}

/// What reaches the norm through the ReLU behind it.
#[inline(always)]
fn through<S: Simd, const RELU: bool>(
    s: S,
    dy: S::V,
    centred: S::V,
    scale: S::V,
    beta: S::V,
) -> S::V {
    if !RELU {
        return dy;
    }
    let y = s.mul_add(centred, scale, beta);
    s.select_less(s.zero(), y, dy, s.zero())
}

/// Adds to `sums` the columns of `dy`, then those of `dy` times the centred `x`.
#[inline(always)]
fn gradient_kernel<S: Simd, const RELU: bool>(
    s: S,
    dy: &[f32],
    x: &[f32],
    mean: &[f32],
    scale: &[f32],
    beta: &[f32],
    sums: &mut [f32],
) {
    let width = mean.len();
    let (plain, weighted) = sums.split_at_mut(width);
    for (dy, x) in dy.chunks_exact(width).zip(x.chunks_exact(width)) {
        for at in (0..width).step_by(S::LANES) {
            let centred = s.sub(s.load(&x[at..]), s.load(&mean[at..]));
            let (scale, beta) = (s.load(&scale[at..]), s.load(&beta[at..]));
            let dy = through::<S, RELU>(s, s.load(&dy[at..]), centred, scale, beta);
            let (plain, weighted) = (&mut plain[at..], &mut weighted[at..]);
            s.store(plain, s.add(s.load(plain), dy));
            s.store(weighted, s.mul_add(dy, centred, s.load(weighted)));
        }
    }
}

/// `dx = scale * (dy - plain - weighted * centred x)`.
#[inline(always)]
fn spread_kernel<S: Simd, const RELU: bool>(
    s: S,
    dy: &[f32],
    x: &[f32],
    mean: &[f32],
    scale: &[f32],
    beta: &[f32],
    means: &[f32],
    dx: &mut [f32],
) {
    let width = mean.len();
    let (plain, weighted) = means.split_at(width);
    let rows = dy.chunks_exact(width).zip(x.chunks_exact(width));
    for ((dy, x), dx) in rows.zip(dx.chunks_exact_mut(width)) {
        for at in (0..width).step_by(S::LANES) {
            let centred = s.sub(s.load(&x[at..]), s.load(&mean[at..]));
            let (scale, beta) = (s.load(&scale[at..]), s.load(&beta[at..]));
            let dy = through::<S, RELU>(s, s.load(&dy[at..]), centred, scale, beta);
            let dy = s.sub(dy, s.load(&plain[at..]));
            let dy = s.neg_mul_add(centred, s.load(&weighted[at..]), dy);
            s.store(&mut dx[at..], s.mul(dy, scale));
        }
    }
}

simd_dispatch! {
    fn squares(x: &[f32], mean: &[f32], sums: &mut [f32]) = square_kernel;
}
simd_dispatch! {
    fn apply(x: &[f32], mean: &[f32], scale: &[f32], beta: &[f32], out: &mut [f32]) = apply_kernel::<_, false>;
}
simd_dispatch! {
    fn apply_relu(x: &[f32], mean: &[f32], scale: &[f32], beta: &[f32], out: &mut [f32]) = apply_kernel::<_, true>;
}
simd_dispatch! {
    fn gradient(dy: &[f32], x: &[f32], mean: &[f32], scale: &[f32], beta: &[f32], sums: &mut [f32])
        = gradient_kernel::<_, false>;
}
simd_dispatch! {
    fn gradient_relu(dy: &[f32], x: &[f32], mean: &[f32], scale: &[f32], beta: &[f32], sums: &mut [f32])
        = gradient_kernel::<_, true>;
}
simd_dispatch! {
    fn spread(
        dy: &[f32], x: &[f32], mean: &[f32], scale: &[f32], beta: &[f32], means: &[f32], dx: &mut [f32],
    ) = spread_kernel::<_, false>;
}
simd_dispatch! {
    fn spread_relu(
        dy: &[f32], x: &[f32], mean: &[f32], scale: &[f32], beta: &[f32], means: &[f32], dx: &mut [f32],
    ) = spread_kernel::<_, true>;
}

/// A norm of one batch: its statistics and its parameters, each of one length.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// Of each column.
    pub mean: &'a [f32],
    /// Of each column, of the population.
    pub variance: &'a [f32],
    /// Factors.
    pub gamma: &'a [f32],
    /// Summands.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
    /// Whether what is below 0 becomes 0.
    pub relu: bool,
}

impl BatchNorm<'_> {
    fn check(&self, x: usize, other: usize) -> usize {
        let width = self.gamma.len();
        assert!(width > 0, "batch norm: gamma is empty");
        let all = [self.mean.len(), self.variance.len(), self.beta.len()];
        assert_eq!(
            all, [width; 3],
            "batch norm: columns and gamma differ in length"
        );
        assert_eq!(
            x % width,
            0,
            "batch norm: x is not made of rows of gamma's width"
        );
        assert_eq!(x, other, "batch norm: input and output differ in length");
        width
    }

    /// The reciprocal of each column's standard deviation, and the same times gamma.
    fn scales(&self) -> [Vec<f32>; 2] {
        let reciprocal = self.variance.iter().map(|v| 1.0 / (v + self.eps).sqrt());
        let reciprocal: Vec<f32> = reciprocal.collect();
        let scale = reciprocal
            .iter()
            .zip(self.gamma)
            .map(|(r, g)| r * g)
            .collect();
        [reciprocal, scale]
    }
}

/// Elements of so many whole rows.
fn chunk(width: usize) -> usize {
    parallel::rows_per_task(width).max(16) * width
}

/// Mean and variance (of the population) of each column of `x: [rows, mean.len()]`; 0 without a row.
pub fn batch_statistics(x: &[f32], mean: &mut [f32], variance: &mut [f32]) {
    let width = mean.len();
    assert!(
        width > 0 && variance.len() == width,
        "batch norm: mean and variance differ in length"
    );
    assert_eq!(
        x.len() % width,
        0,
        "batch norm: x is not made of rows of mean's width"
    );
    let (rows, chunk) = (x.len() / width, chunk(width));
    let chunks = x.len().div_ceil(chunk);
    // of each chunk its own mean, and the squared distances from that, so that nothing cancels
    let mut parts = vec![0.0; chunks * 2 * width];
    parallel::for_each_chunk(&mut parts, 2 * width, |i, part| {
        let x = &x[i * chunk..x.len().min((i + 1) * chunk)];
        let (mean, distances) = part.split_at_mut(width);
        add_rows(x, mean);
        let count = (x.len() / width) as f32;
        mean.iter_mut().for_each(|m| *m /= count);
        squares(x, mean, distances);
    });
    for column in 0..width {
        let (mut count, mut of_mean, mut distance) = (0.0, 0.0, 0.0);
        for (i, part) in parts.chunks_exact(2 * width).enumerate() {
            let added = (chunk.min(x.len() - i * chunk) / width) as f64;
            let difference = f64::from(part[column]) - of_mean;
            let total: f64 = count + added;
            distance +=
                f64::from(part[width + column]) + difference * difference * count * added / total;
            of_mean += difference * added / total;
            count = total;
        }
        mean[column] = of_mean as f32;
        variance[column] = (distance / rows.max(1) as f64) as f32;
    }
}

/// `out = (x - mean) / sqrt(variance + eps) * gamma + beta`, column by column.
pub fn batch_norm(x: &[f32], norm: BatchNorm<'_>, out: &mut [f32]) {
    let chunk = chunk(norm.check(x.len(), out.len()));
    let [_, scale] = norm.scales();
    let apply = if norm.relu { apply_relu } else { apply };
    parallel::for_each_chunk(out, chunk, |i, out| {
        apply(
            &x[i * chunk..][..out.len()],
            norm.mean,
            &scale,
            norm.beta,
            out,
        );
    });
}

/// Gradients of [`batch_norm`] whose mean and variance are those of `x`; all outputs are overwritten.
pub fn batch_norm_backward(
    dy: &[f32],
    x: &[f32],
    norm: BatchNorm<'_>,
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    let width = norm.check(x.len(), dx.len());
    assert_eq!(
        x.len(),
        dy.len(),
        "batch norm: input and gradient differ in length"
    );
    assert_eq!(
        [dgamma.len(), dbeta.len()],
        [width; 2],
        "batch norm: gradients of another width"
    );
    let (rows, chunk) = ((x.len() / width).max(1) as f64, chunk(width));
    let [reciprocal, scale] = norm.scales();
    let gradient = if norm.relu { gradient_relu } else { gradient };
    let mut parts = vec![0.0; x.len().div_ceil(chunk) * 2 * width];
    parallel::for_each_chunk(&mut parts, 2 * width, |i, sums| {
        let part = i * chunk..x.len().min((i + 1) * chunk);
        gradient(
            &dy[part.clone()],
            &x[part],
            norm.mean,
            &scale,
            norm.beta,
            sums,
        );
    });
    let mut totals = vec![0.0f64; 2 * width];
    for part in parts.chunks_exact(2 * width) {
        for (total, part) in totals.iter_mut().zip(part) {
            *total += f64::from(*part);
        }
    }
    let mut means = vec![0.0; 2 * width];
    for column in 0..width {
        let r = f64::from(reciprocal[column]);
        let (plain, weighted) = (totals[column], totals[width + column]);
        dbeta[column] = plain as f32;
        dgamma[column] = (weighted * r) as f32;
        means[column] = (plain / rows) as f32;
        means[width + column] = (weighted * r * r / rows) as f32;
    }
    let spread = if norm.relu { spread_relu } else { spread };
    parallel::for_each_chunk(dx, chunk, |i, dx| {
        let part = i * chunk..i * chunk + dx.len();
        spread(
            &dy[part.clone()],
            &x[part],
            norm.mean,
            &scale,
            norm.beta,
            &means,
            dx,
        );
    });
}
