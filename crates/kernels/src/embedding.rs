//! Table look-up and its gradient.

use crate::parallel;

fn checked(id: i64, at: usize, rows: usize) -> usize {
    usize::try_from(id)
        .ok()
        .filter(|&id| id < rows)
        .unwrap_or_else(|| panic!("embedding: id {id} at index {at} is outside 0..{rows}"))
}

/// `out[i] = table[ids[i]]` with rows of `width` elements.
pub fn gather_rows(table: &[f32], width: usize, ids: &[i64], out: &mut [f32]) {
    assert_eq!(
        out.len(),
        ids.len() * width,
        "embedding: out is not [ids, width]"
    );
    if out.is_empty() {
        return;
    }
    let rows = table.len() / width;
    let per_task = parallel::rows_per_task(width);
    parallel::for_each_chunk(out, per_task * width, |task, out| {
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            let at = task * per_task + i;
            let id = checked(ids[at], at, rows);
            out.copy_from_slice(&table[id * width..][..width]);
        }
    });
}

/// `dtable[ids[i]] += dy[i]` with rows of `width` elements: adds to what `dtable` holds.
///
/// Runs on one thread: ids repeat, and the sums must come out in one order.
pub fn scatter_add_rows(dy: &[f32], width: usize, ids: &[i64], dtable: &mut [f32]) {
    assert_eq!(
        dy.len(),
        ids.len() * width,
        "embedding: dy is not [ids, width]"
    );
    if dy.is_empty() {
        return;
    }
    let rows = dtable.len() / width;
    for (at, (&id, dy)) in ids.iter().zip(dy.chunks_exact(width)).enumerate() {
        let id = checked(id, at, rows);
        for (sum, dy) in dtable[id * width..][..width].iter_mut().zip(dy) {
            *sum += dy;
        }
    }
}
