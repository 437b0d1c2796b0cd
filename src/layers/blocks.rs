//! How many rows make a task.
//!
//! Every output element is computed by one task from inputs alone, so where the cuts lie cannot
//! change a result.

use crate::parallel::for_each_chunk;
use crate::rows::{Rows, RowsMut, Tiling};

/// Elements of one task: large enough to pay for it (some microseconds of vector code against one
/// of handing over), small enough to spread a small activation.
const TASK: usize = 16_384;

/// Rows of one task where each takes `work` steps of vector loops over single elements.
pub(super) fn rows_per_task(work: usize) -> usize {
    (TASK / work.max(1)).max(1)
}

/// Calls `work(index of the block's first row, block)` for blocks of at most `block` whole rows of
/// `output`, in parallel.
pub(super) fn for_each_block<W>(output: RowsMut<'_>, block: usize, work: W)
where
    W: Fn(usize, RowsMut<'_>) + Sync,
{
    output.for_each_tile(Tiling::rows(block), |tile| work(tile.first_row, tile.rows));
}

/// [`for_each_block`] with the part of `others` that belongs to the block: they have an element for
/// each of `output`, without gaps.
pub(super) fn for_each_block_with<T, W>(
    output: RowsMut<'_>,
    others: &mut [T],
    block: usize,
    work: W,
) where
    T: Send,
    W: Fn(usize, RowsMut<'_>, &mut [T]) + Sync,
{
    let channels = output.channels();
    assert_eq!(others.len(), output.count() * channels, "one for each element");
    if others.is_empty() {
        return;
    }
    let (mut rest, mut blocks) = (output, Vec::new());
    for others in others.chunks_mut(block * channels) {
        let (rows, below) = rest.split_rows(others.len() / channels);
        blocks.push((rows, others));
        rest = below;
    }
    for_each_chunk(&mut blocks, 1, |index, blocks| {
        for (rows, others) in blocks {
            work(index * block, rows.reborrow(), others);
        }
    });
}

/// Channels that loops take at a time, in registers: a constant number of lanes needs no check
/// whether slices overlap before it is vectorised.
pub(super) const WIDE: usize = 32;
/// Of what is left, as many at a time; then one by one.
pub(super) const NARROW: usize = 8;

/// `N` values from `first` on. (Not `copy_from_slice`, which is a call where it is not inlined.)
#[inline(always)]
pub(super) fn lanes<const N: usize>(values: &[f32], first: usize) -> [f32; N] {
    match values[first..].first_chunk() {
        Some(lanes) => *lanes,
        None => panic!("{N} values from {first} on of {}", values.len()),
    }
}

/// Writes `N` values from `first` on.
#[inline(always)]
pub(super) fn set_lanes<const N: usize>(values: &mut [f32], first: usize, lanes: [f32; N]) {
    let len = values.len();
    match values[first..].first_chunk_mut() {
        Some(to) => *to = lanes,
        None => panic!("{N} values from {first} on of {len}"),
    }
}

/// All elements of rows in order, if there are no gaps between them.
pub(super) fn dense<'a>(rows: Rows<'a>) -> Option<&'a [f32]> {
    (rows.stride() == rows.channels()).then(|| rows.as_slice())
}

/// All elements of rows in order, if there are no gaps between them.
pub(super) fn dense_mut<'a>(rows: &'a mut RowsMut<'_>) -> Option<&'a mut [f32]> {
    let len = rows.count() * rows.channels();
    if rows.stride() != rows.channels() {
        return None;
    }
    // SAFETY: the rows are an exclusive borrow of `count * stride` consecutive elements from this
    // address on, all of them values of some row as there are no gaps; the result borrows `rows`.
    Some(unsafe { std::slice::from_raw_parts_mut(rows.as_mut_ptr(), len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_block() {
        for (count, block) in [(0, 3), (1, 3), (3, 3), (4, 3), (17, 1), (100, 7)] {
            let mut data = vec![0.0; count * 2];
            let (mut first_ones, mut others) = (vec![0.0; count * 3], vec![0; count * 2]);
            let rows = RowsMut::new(&mut first_ones, count, 2, 3);
            for_each_block_with(rows, &mut others, block, |first, mut rows, others| {
                assert!(rows.count() <= block && first.is_multiple_of(block));
                for (i, others) in others.chunks_mut(2).enumerate() {
                    rows.row_mut(i).iter_mut().for_each(|v| *v += (first + i) as f32);
                    others.iter_mut().for_each(|v| *v += first + i);
                }
            });
            assert!(others.iter().enumerate().all(|(i, &v)| v == i / 2));
            let row = |i: usize| if i % 3 < 2 { (i / 3) as f32 } else { 0.0 };
            assert!(first_ones.iter().enumerate().all(|(i, &v)| v == row(i)));
            for_each_block(RowsMut::dense(&mut data, 2), block, |first, mut rows| {
                assert!(rows.count() <= block && first.is_multiple_of(block));
                for i in 0..rows.count() {
                    rows.row_mut(i).iter_mut().for_each(|v| *v += (first + i) as f32);
                }
            });
            assert!(data.iter().enumerate().all(|(i, &v)| v == (i / 2) as f32));
        }
    }
}
