//! Norms over all gradients of a network.

use super::CHUNK;
use crate::isa;
use crate::parallel::for_each_chunk;

/// Elements added in one lane each before they meet.
const LANES: usize = 16;

/// Sum of the squares of all elements, in float64.
pub fn sum_of_squares(arrays: &[&[f32]]) -> f64 {
    reduce(arrays, |chunk| {
        let mut sums = [0.0_f64; LANES];
        let (blocks, rest) = chunk.as_chunks::<LANES>();
        let blocks = blocks.iter().copied();
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        for block in blocks.chain([last]) {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        sums.iter().sum()
    })
    .into_iter()
    .sum()
}

/// The largest magnitude of an element: 0 if there is none, NaN if one is NaN.
pub fn largest(arrays: &[&[f32]]) -> f32 {
    let worst = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    let largest = reduce(arrays, |chunk| {
        let mut largest = [0.0_f32; LANES];
        let (blocks, rest) = chunk.as_chunks::<LANES>();
        for block in blocks {
            for (largest, x) in largest.iter_mut().zip(block) {
                *largest = worst(x.abs(), *largest);
            }
        }
        let rest = rest.iter().fold(0.0, |largest, x| worst(x.abs(), largest));
        f64::from(largest.into_iter().fold(rest, worst))
    });
    largest.into_iter().fold(0.0, |a, b| worst(b as f32, a))
}

/// A number for each chunk of all arrays, in order.
fn reduce(arrays: &[&[f32]], of: impl Fn(&[f32]) -> f64 + Sync) -> Vec<f64> {
    let mut chunks: Vec<_> =
        arrays.iter().flat_map(|array| array.chunks(CHUNK)).map(|chunk| (chunk, 0.0)).collect();
    for_each_chunk(&mut chunks, 1, |_, chunks| {
        for (chunk, result) in chunks {
            *result = isa::vectorize(|| of(chunk));
        }
    });
    chunks.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::reference::values;
    use crate::layers::testing::same_for_any_thread_count;

    #[test]
    fn agree_with_one_loop_in_float64() {
        for len in [0, 1, LANES - 1, LANES, LANES + 1, CHUNK, CHUNK + 5, 3 * CHUNK + 1] {
            let (x, y) = (values(len, 1), values(77, 2));
            let arrays = [&x[..], &[], &y];
            let all = || x.iter().chain(&y).map(|&v| f64::from(v));
            let expected: f64 = all().map(|v| v * v).sum();
            let got = sum_of_squares(&arrays);
            assert!((got - expected).abs() <= 1e-12 * expected, "{len}: {got}, not {expected}");
            let most = all().fold(0.0, |a: f64, b| a.max(b.abs()));
            assert_eq!(f64::from(largest(&arrays)), most, "{len}");
            same_for_any_thread_count(|| (sum_of_squares(&arrays), largest(&arrays)));
        }
        assert_eq!((sum_of_squares(&[]), largest(&[])), (0.0, 0.0));
    }

    #[test]
    fn a_nan_anywhere_comes_out() {
        for place in [0, 5, LANES, CHUNK, 2 * CHUNK] {
            let mut x = vec![1.0; 2 * CHUNK + 3];
            x[place] = f32::NAN;
            assert!(largest(&[&x]).is_nan() && sum_of_squares(&[&x]).is_nan(), "{place}");
        }
    }
}
