//! Functions of single elements, over rows with gaps or slices of any shape.
//!
//! Rows are cut into blocks, one task each; no element depends on another, so the cut cannot
//! change a result. Where neither side has gaps, a block is one long slice.

use super::blocks::{dense, dense_mut, for_each_block, rows_per_task};
use crate::isa::{self, Isa, Simd};
use crate::parallel;
use crate::rows::{Rows, RowsMut};

/// Elements of one task of [`map_indexed`].
const CHUNK: usize = 16_384;

/// Writes `f` of each element of `x` to the same place of `output`.
pub(super) fn map_into(x: Rows<'_>, output: RowsMut<'_>, f: impl Fn(f32) -> f32 + Sync) {
    assert_shape(x, &output);
    for_each_block(output, rows_per_task(x.channels()), |first, output| {
        let x = x.rows(first, output.count());
        isa::dispatch(Isa::active(), Map { x, output, f: &f });
    });
}

/// Writes `f` of each pair of elements of `x` and `y` to the same place of `output`.
pub(super) fn zip_into(
    x: Rows<'_>,
    y: Rows<'_>,
    output: RowsMut<'_>,
    f: impl Fn(f32, f32) -> f32 + Sync,
) {
    assert_shape(x, &output);
    assert_shape(y, &output);
    for_each_block(output, rows_per_task(x.channels()), |first, output| {
        let (x, y) = (x.rows(first, output.count()), y.rows(first, output.count()));
        isa::dispatch(Isa::active(), Zip { x, y, output, f: &f });
    });
}

/// The loops of [`map_into`], compiled for the vectors of the CPU.
struct Map<'a, F> {
    x: Rows<'a>,
    output: RowsMut<'a>,
    f: &'a F,
}

impl<F: Fn(f32) -> f32> isa::Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let each = |x: &[f32], y: &mut [f32]| {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (self.f)(x);
            }
        };
        if let (Some(x), Some(y)) = (dense(self.x), dense_mut(&mut self.output)) {
            return each(x, y);
        }
        for i in 0..self.x.count() {
            each(self.x.row(i), self.output.row_mut(i));
        }
    }
}

/// The loops of [`zip_into`], compiled for the vectors of the CPU.
struct Zip<'a, F> {
    x: Rows<'a>,
    y: Rows<'a>,
    output: RowsMut<'a>,
    f: &'a F,
}

impl<F: Fn(f32, f32) -> f32> isa::Kernel for Zip<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let each = |x: &[f32], y: &[f32], z: &mut [f32]| {
            for (z, (&x, &y)) in z.iter_mut().zip(x.iter().zip(y)) {
                *z = (self.f)(x, y);
            }
        };
        let output = dense_mut(&mut self.output);
        if let (Some(x), Some(y), Some(z)) = (dense(self.x), dense(self.y), output) {
            return each(x, y, z);
        }
        for i in 0..self.x.count() {
            each(self.x.row(i), self.y.row(i), self.output.row_mut(i));
        }
    }
}

/// A mismatch is a mistake of the caller in this crate, hence a panic.
pub(super) fn assert_shape(input: Rows<'_>, output: &RowsMut<'_>) {
    assert_eq!(
        (input.count(), input.channels()),
        (output.count(), output.channels()),
        "rows of one shape"
    );
}

/// `f` of each element.
pub(super) fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut result = vec![0.0; x.len()];
    map_into(Rows::dense(x, 1), RowsMut::dense(&mut result, 1), f);
    result
}

/// `f` of each element and its index.
pub(super) fn map_indexed(x: &[f32], f: impl Fn(u64, f32) -> f32 + Sync) -> Vec<f32> {
    let mut result = x.to_vec();
    map_indexed_in_place(&mut result, f);
    result
}

/// [`map_indexed`] where the elements are.
pub(super) fn map_indexed_in_place(x: &mut [f32], f: impl Fn(u64, f32) -> f32 + Sync) {
    parallel::for_each_chunk(x, CHUNK, |chunk, x| {
        for (index, x) in ((chunk * CHUNK) as u64..).zip(x) {
            *x = f(index, *x);
        }
    });
}

/// `to = f(to, from)` for each element.
pub(super) fn zip_assign(to: &mut [f32], from: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    assert_eq!(to.len(), from.len(), "lengths");
    parallel::for_each_chunk(to, CHUNK, |chunk, to| {
        let from = &from[chunk * CHUNK..][..to.len()];
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = f(*to, from));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_of_every_chunk_is_visited_once() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let double: Vec<f32> = x.iter().map(|v| 2.0 * v).collect();
            assert_eq!(map(&x, |v| 2.0 * v), double);
            let mut zipped = vec![f32::NAN; len];
            let rows = Rows::dense(&x, 1);
            zip_into(rows, rows, RowsMut::dense(&mut zipped, 1), |a, b| a + b);
            assert_eq!(zipped, double);
            assert_eq!(map_indexed(&x, |i, v| i as f32 + v), double);
        }
    }

    #[test]
    fn gaps_between_rows_are_neither_read_nor_written() {
        let (count, channels) = (4000, 5);
        let x: Vec<f32> = (0..count * 8).map(|i| i as f32).collect();
        let rows = Rows::new(&x, count, channels, 8);
        let mut mapped = vec![-1.0; count * 7];
        map_into(rows, RowsMut::new(&mut mapped, count, channels, 7), |v| v + 1.0);
        let mut zipped = vec![-1.0; count * 7];
        zip_into(rows, rows, RowsMut::new(&mut zipped, count, channels, 7), |a, b| a + b);
        for (i, (&m, &z)) in mapped.iter().zip(&zipped).enumerate() {
            let x = (i / 7 * 8 + i % 7) as f32;
            let expected = if i % 7 < channels { (x + 1.0, 2.0 * x) } else { (-1.0, -1.0) };
            assert_eq!((m, z), expected, "element {i}");
        }
    }
}
