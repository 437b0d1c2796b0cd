//! Functions of single elements, over slices of any shape.
//!
//! Slices are cut into chunks of a fixed size, one task each; no element depends on another, so
//! the cut cannot change a result.

use rayon::prelude::*;

/// Elements of one task: large enough to pay for it, small enough to spread a small activation.
const CHUNK: usize = 16_384;

/// `f` of each element.
pub(super) fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut result = vec![0.0; x.len()];
    result.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(result, x)| {
        for (r, &x) in result.iter_mut().zip(x) {
            *r = f(x);
        }
    });
    result
}

/// `f` of each pair of elements.
pub(super) fn zip(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    assert_eq!(x.len(), y.len(), "slices of one length");
    let mut result = vec![0.0; x.len()];
    result.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK))).for_each(
        |(result, (x, y))| {
            for (r, (&x, &y)) in result.iter_mut().zip(x.iter().zip(y)) {
                *r = f(x, y);
            }
        },
    );
    result
}

/// `f` of each element and its index.
pub(super) fn map_indexed(x: &[f32], f: impl Fn(u64, f32) -> f32 + Sync) -> Vec<f32> {
    let mut result = vec![0.0; x.len()];
    result.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).enumerate().for_each(
        |(chunk, (result, x))| {
            for (index, (r, &x)) in ((chunk * CHUNK) as u64..).zip(result.iter_mut().zip(x)) {
                *r = f(index, x);
            }
        },
    );
    result
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
            assert_eq!(zip(&x, &x, |a, b| a + b), double);
            assert_eq!(map_indexed(&x, |i, v| i as f32 + v), double);
        }
    }
}
