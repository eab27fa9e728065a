//! Sums of activations in place.

use crate::parallel;

/// `x += y`, elementwise.
pub fn add_to(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "add: x and y differ in length");
    let chunk = parallel::elements_per_task();
    parallel::for_each_chunk(x, chunk, |i, x| add(x, &y[i * chunk..][..x.len()]));
}

/// `x += row` for every row of `x` `[m, row.len()]`.
pub fn add_to_rows(x: &mut [f32], row: &[f32]) {
    if x.is_empty() {
        return;
    }
    assert!(
        !row.is_empty() && x.len().is_multiple_of(row.len()),
        "add: x is not made of rows of {}",
        row.len()
    );
    let chunk = parallel::rows_per_task(row.len()) * row.len();
    parallel::for_each_chunk(x, chunk, |_, x| {
        x.chunks_exact_mut(row.len()).for_each(|x| add(x, row));
    });
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
