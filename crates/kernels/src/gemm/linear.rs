//! The linear layer: a product with a transposed weight and what follows it.

use super::blocked::pays_twice;
use super::small::load;
use super::{Kernel, MatRef, PackedWeights, product, with_kernel};
use crate::activation::{Activation, Function, with_function};
use crate::cpu_features::Precision;
use crate::element::Element;
use crate::parallel::{self, SharedMut};
use crate::scratch::with_scratch;
use crate::simd::{Simd, each, simd_dispatch};
use rayon::prelude::*;

/// What follows the product of a [`linear`] layer.
pub struct Epilogue<'a> {
    /// Added to every row, `[n]`.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Activation,
    /// Added after the activation, `[m, n]`.
    pub residual: Option<&'a [f32]>,
    /// Receives the input of the activation, `x w^T + bias`, `[m, n]`.
    pub pre_activation: Option<&'a mut [f32]>,
}

impl Epilogue<'_> {
    /// Nothing follows.
    pub const NONE: Epilogue<'static> = Epilogue {
        bias: None,
        activation: Activation::None,
        residual: None,
        pre_activation: None,
    };

    pub(crate) fn check(&self, m: usize, n: usize) {
        assert!(
            self.bias.is_none_or(|b| b.len() == n),
            "linear: bias is not [{n}]"
        );
        assert!(
            self.residual.is_none_or(|r| r.len() == m * n),
            "linear: residual is not [{m}, {n}]"
        );
        assert!(
            self.pre_activation
                .as_ref()
                .is_none_or(|p| p.len() == m * n),
            "linear: pre_activation is not [{m}, {n}]"
        );
    }

    pub(crate) fn is_none(&self) -> bool {
        self.bias.is_none()
            && self.activation == Activation::None
            && self.residual.is_none()
            && self.pre_activation.is_none()
    }
}

/// The epilogue of a segment of one row.
pub(crate) struct Segment<'a> {
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) activation: Activation,
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) pre_activation: Option<&'a mut [f32]>,
}

#[inline(always)]
fn finish_segment<S: Simd>(s: S, y: &mut [f32], e: Segment) {
    let activation = e.activation;
    with_function!(activation, finish_segment_with(s, y, e));
}

/// One pass over the segment, a vector at a time.
#[inline(always)]
fn finish_segment_with<S: Simd, F: Function>(s: S, y: &mut [f32], mut e: Segment) {
    for at in (0..y.len()).step_by(S::LANES) {
        let y = &mut y[at..];
        let mut v = s.load(y);
        if let Some(bias) = e.bias {
            v = s.add(v, s.load(&bias[at..]));
        }
        if let Some(pre_activation) = &mut e.pre_activation {
            s.store(&mut pre_activation[at..], v);
        }
        v = F::value(s, v);
        if let Some(residual) = e.residual {
            v = s.add(v, s.load(&residual[at..]));
        }
        s.store(y, v);
    }
}

simd_dispatch! {
    /// Applies the epilogue to a segment of a row that holds the product.
    pub(crate) fn finish(y: &mut [f32], epilogue: Segment) = finish_segment;
}

/// Rows up to which the weight is read once, straight from memory.
pub(super) const FEW_ROWS: usize = 8;

/// `out[m, n] = activation(x[m, k] weight[n, k]^T + bias) + residual`.
///
/// The weight is `[out_features, in_features]`, as PyTorch stores it.
pub fn linear(
    precision: Precision,
    x: &[f32],
    weight: &[f32],
    m: usize,
    k: usize,
    n: usize,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    assert_eq!(x.len(), m * k, "linear: x is not [{m}, {k}]");
    assert_eq!(weight.len(), n * k, "linear: weight is not [{n}, {k}]");
    assert_eq!(out.len(), m * n, "linear: out is not [{m}, {n}]");
    epilogue.check(m, n);
    if m == 0 || n == 0 {
        return;
    }
    if m <= FEW_ROWS {
        few_rows(x, weight, [m, k, n], epilogue, out);
    } else {
        many_rows(precision, x, weight, [m, k, n], epilogue, out);
    }
}

/// As [`linear`] with a weight that was packed once; the precision is the one it was packed for.
pub fn linear_packed(
    x: &[f32],
    weight: &PackedWeights,
    m: usize,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    let (k, n) = (weight.inputs(), weight.outputs());
    assert_eq!(x.len(), m * k, "linear: x is not [{m}, {k}]");
    assert_eq!(out.len(), m * n, "linear: out is not [{m}, {n}]");
    epilogue.check(m, n);
    if m == 0 || n == 0 {
        return;
    }
    let finish = Finish::new(epilogue, n);
    if k == 0 {
        out.fill(0.0);
        for (row, y) in out.chunks_exact_mut(n).enumerate() {
            finish.segment(row, 0, y);
        }
        return;
    }
    let x = MatRef::row_major(x, m, k);
    weight.product(x, out, |row, first, y| finish.segment(row, first, y));
}

/// Whether [`mlp_packed`] is faster than [`linear_packed`] twice, from `x` `[m, k]` through `[m, hidden]` to `[m, n]`.
pub fn mlp_pays(precision: Precision, [m, k, hidden, n]: [usize; 4]) -> bool {
    if [m, k, hidden, n].contains(&0) {
        return false;
    }
    with_kernel!(Kernel::choose(precision), kernel => pays_twice(kernel, [m, k, hidden, n]))
}

/// Two packed layers one after the other, an MLP: `second(first(x))`, `first` of `[hidden, k]` and `second` of
/// `[n, hidden]`, packed for the same precision. The bits are those of [`linear_packed`] twice; what is between the layers
/// stays in the caches.
///
/// # Panics
/// `hidden` has a residual or asks for the input of its activation, which would be as large as what is not kept.
pub fn mlp_packed(
    x: &[f32],
    [first, second]: [&PackedWeights; 2],
    m: usize,
    [hidden, last]: [Epilogue; 2],
    out: &mut [f32],
) {
    let (k, n) = (first.inputs(), second.outputs());
    assert_eq!(x.len(), m * k, "mlp: x is not [{m}, {k}]");
    assert_eq!(out.len(), m * n, "mlp: out is not [{m}, {n}]");
    assert!(
        hidden.residual.is_none() && hidden.pre_activation.is_none(),
        "mlp: only a bias and an activation follow the first layer"
    );
    hidden.check(m, first.outputs());
    last.check(m, n);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 || first.outputs() == 0 {
        let mut between = vec![0.0; m * first.outputs()];
        linear_packed(x, first, m, hidden, &mut between);
        return linear_packed(&between, second, m, last, out);
    }
    let (hidden, last) = (Finish::new(hidden, first.outputs()), Finish::new(last, n));
    first.product_twice(
        MatRef::row_major(x, m, k),
        |row, at, y| hidden.segment(row, at, y),
        second,
        |row, at, y| last.segment(row, at, y),
        out,
    );
}

/// Applies what follows the product of a linear layer to `out` `[m, n]`, which holds the product.
pub fn finish_rows(epilogue: Epilogue, n: usize, out: &mut [f32]) {
    if epilogue.is_none() || out.is_empty() {
        return;
    }
    epilogue.check(out.len() / n, n);
    let finish = Finish::new(epilogue, n);
    let rows = parallel::rows_per_task(n);
    parallel::for_each_chunk(out, rows * n, |task, chunk| {
        for (i, y) in chunk.chunks_exact_mut(n).enumerate() {
            finish.segment(task * rows + i, 0, y);
        }
    });
}

/// The epilogue of a product `[m, n]`, applied segment by segment.
struct Finish<'a> {
    n: usize,
    nothing: bool,
    bias: Option<&'a [f32]>,
    activation: Activation,
    residual: Option<&'a [f32]>,
    pre_activation: Option<SharedMut>,
}

impl<'a> Finish<'a> {
    /// The epilogue has been checked.
    fn new(epilogue: Epilogue<'a>, n: usize) -> Self {
        Self {
            n,
            nothing: epilogue.is_none(),
            bias: epilogue.bias,
            activation: epilogue.activation,
            residual: epilogue.residual,
            pre_activation: epilogue.pre_activation.map(SharedMut::new),
        }
    }

    /// `y` is the segment of the product from column `first` of `row`; each segment comes once.
    fn segment(&self, row: usize, first: usize, y: &mut [f32]) {
        if self.nothing {
            return;
        }
        let (at, len) = (row * self.n + first, y.len());
        let segment = Segment {
            bias: self.bias.map(|b| &b[first..][..len]),
            activation: self.activation,
            residual: self.residual.map(|r| &r[at..][..len]),
            // SAFETY: `pre_activation` was checked to be as large as the product, whose segments
            // come once each.
            pre_activation: self
                .pre_activation
                .map(|p| unsafe { std::slice::from_raw_parts_mut(p.ptr().add(at), len) }),
        };
        finish(y, segment);
    }
}

fn many_rows(
    precision: Precision,
    x: &[f32],
    weight: &[f32],
    [m, k, n]: [usize; 3],
    epilogue: Epilogue,
    out: &mut [f32],
) {
    let weight = MatRef::row_major(weight, n, k).t();
    let x = MatRef::row_major(x, m, k);
    let finish = Finish::new(epilogue, n);
    product(precision, x, weight, out, |row, first, y| {
        finish.segment(row, first, y);
    });
}

/// Weight rows (output columns) that one task of [`few_rows`] computes.
fn columns_per_task(m: usize, k: usize) -> usize {
    const TASK_WORK: usize = 1 << 18;
    (TASK_WORK / (m * k).max(1)).max(16).next_multiple_of(16)
}

fn few_rows(x: &[f32], weight: &[f32], [m, k, n]: [usize; 3], epilogue: Epilogue, out: &mut [f32]) {
    let columns = columns_per_task(m, k);
    let out = SharedMut::new(out);
    let finish = Finish::new(epilogue, n);
    parallel::for_each_task(n.div_ceil(columns), |task| {
        let first = task * columns;
        let count = columns.min(n - first);
        let weight = &weight[first * k..][..count * k];
        with_scratch(m * count, |products| {
            rows_times_weight(x, (weight, k), k, products);
            for i in 0..m {
                // SAFETY: columns first .. first + count of each row belong to this task alone, and
                // only one segment of them is borrowed at a time.
                let y =
                    unsafe { std::slice::from_raw_parts_mut(out.ptr().add(i * n + first), count) };
                y.copy_from_slice(&products[i * count..][..count]);
                finish.segment(i, first, y);
            }
        });
    });
}

/// As [`rows_times_weight`].
#[inline(always)]
fn rows_times_weight_kernel<S: Simd, T: Element>(
    s: S,
    x: &[f32],
    weight: (&[T], usize),
    k: usize,
    products: &mut [f32],
) {
    if k == 0 {
        return products.fill(0.0);
    }
    let mut rows = x.len() / k;
    let count = products.len() / rows.max(1);
    let (mut x, mut products) = (x, products);
    while rows > 0 {
        let step = match rows {
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let (these, rest) = x.split_at(step * k);
        let (out, rest_out) = products.split_at_mut(step * count);
        match (step, k % S::LANES) {
            (4, 0) => dot_products::<S, T, 4, false>(s, these, weight, k, out),
            (2, 0) => dot_products::<S, T, 2, false>(s, these, weight, k, out),
            (_, 0) => dot_products::<S, T, 1, false>(s, these, weight, k, out),
            (4, _) => dot_products::<S, T, 4, true>(s, these, weight, k, out),
            (2, _) => dot_products::<S, T, 2, true>(s, these, weight, k, out),
            (_, _) => dot_products::<S, T, 1, true>(s, these, weight, k, out),
        }
        (x, products) = (rest, rest_out);
        rows -= step;
    }
}

/// Rows of a weight that are multiplied at once.
const COLUMNS: usize = 4;

/// `products[r, j] = x[r] . weight[j]` for `R` rows of `x`, `[R, k]`, and those of a weight that are `stride` apart;
/// `TAIL` if `k` is no whole number of vectors.
#[inline(always)]
fn dot_products<S: Simd, T: Element, const R: usize, const TAIL: bool>(
    s: S,
    x: &[f32],
    (weight, stride): (&[T], usize),
    k: usize,
    products: &mut [f32],
) {
    let count = products.len() / R;
    assert!(x.len() == R * k && k > 0);
    let row = |j: usize| &weight[j * stride..][..k];
    let whole = k - k % S::LANES;
    let mut j = 0;
    while j + COLUMNS <= count {
        let weights: [*const T; COLUMNS] = each!(c in 4 => row(j + c).as_ptr());
        let mut sums = [[s.zero(); COLUMNS]; R];
        // in place, as arrays that are handed on do not stay in registers
        macro_rules! add {
            ($partial:literal, $at:expr) => {
                // SAFETY: `x` and the rows of the weight have `k` elements.
                unsafe {
                    let mut w = [s.zero(); COLUMNS];
                    for c in 0..COLUMNS {
                        w[c] = load::<S, T, $partial>(s, weights[c].add($at), k - $at);
                    }
                    for r in 0..R {
                        let x = x.as_ptr().add(r * k + $at);
                        let x = load::<S, f32, $partial>(s, x, k - $at);
                        for c in 0..COLUMNS {
                            sums[r][c] = s.mul_add(x, w[c], sums[r][c]);
                        }
                    }
                }
            };
        }
        for at in (0..whole).step_by(S::LANES) {
            add!(false, at);
        }
        if TAIL {
            add!(true, whole);
        }
        for r in 0..R {
            let products = products[r * count + j..].first_chunk_mut();
            *products.expect("as many as rows") = s.sums(sums[r]);
        }
        j += COLUMNS;
    }
    while j < count {
        for (r, x) in x.chunks_exact(k).enumerate() {
            let mut sum = s.zero();
            for (x, w) in x.chunks(S::LANES).zip(row(j).chunks(S::LANES)) {
                sum = s.mul_add(s.load(x), T::load(s, w), sum);
            }
            products[r * count + j] = s.sum(sum);
        }
        j += 1;
    }
}

simd_dispatch! {
    /// `products[i, j] = x[i] . weight[j]` for rows of `k`, those of the weight a distance apart; each of them is read
    /// once per four rows of `x`.
    pub(crate) fn rows_times_weight<T: Element>(
        x: &[f32], weight: (&[T], usize), k: usize, products: &mut [f32],
    ) = rows_times_weight_kernel;
}

#[inline(always)]
fn add_rows_kernel<S: Simd>(s: S, x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for (sum, x) in sums.chunks_mut(S::LANES).zip(row.chunks(S::LANES)) {
            s.store(sum, s.add(s.load(sum), s.load(x)));
        }
    }
}

simd_dispatch! {
    /// Adds the rows of `x` to `sums`.
    pub(crate) fn add_rows(x: &[f32], sums: &mut [f32]) = add_rows_kernel;
}

/// `out[j] = sum of x[i, j] over the rows i` of `x` `[m, n]`: the gradient of a bias.
pub fn column_sum(x: &[f32], n: usize, out: &mut [f32]) {
    assert_eq!(out.len(), n, "column_sum: out is not [{n}]");
    out.fill(0.0);
    if x.is_empty() || n == 0 {
        return;
    }
    assert!(
        x.len().is_multiple_of(n),
        "column_sum: x is not made of rows of {n}"
    );
    let chunk = parallel::rows_per_task(n).max(16) * n;
    if x.len() <= chunk {
        return add_rows(x, out);
    }
    let mut partial = vec![0.0; x.len().div_ceil(chunk) * n];
    partial
        .par_chunks_mut(n)
        .zip(x.par_chunks(chunk))
        .for_each(|(sums, x)| add_rows(x, sums));
    add_rows(&partial, out);
}
