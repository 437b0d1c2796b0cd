//! Norms over all gradients of a network.

use super::CHUNK;
use crate::isa;
use crate::parallel::for_each_chunk;

/// Elements added in one lane each before they meet.
const LANES: usize = 16;

/// Sum of the squares of all elements, in float64.
pub fn sum_of_squares(arrays: &[&[f32]]) -> f64 {
    reduce(arrays, |chunk| isa::vectorize(|| squares(chunk))).into_iter().sum()
}

#[inline(always)]
fn squares(chunk: &[f32]) -> f64 {
    let mut sums = [0.0_f64; LANES];
    let (blocks, rest) = chunk.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for block in blocks.iter().chain([&last]) {
        for i in 0..LANES {
            sums[i] += f64::from(block[i]) * f64::from(block[i]);
        }
    }
    sums.iter().sum()
}

/// The largest magnitude of an element: 0 if there is none, NaN if one is NaN.
pub fn largest(arrays: &[&[f32]]) -> f32 {
    let largest = reduce(arrays, |chunk| isa::vectorize(|| magnitude(chunk)));
    largest.into_iter().fold(0.0, larger)
}

#[inline(always)]
fn magnitude(chunk: &[f32]) -> f32 {
    let mut largest = [0.0_f32; LANES];
    let (blocks, rest) = chunk.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            largest[i] = larger(largest[i], block[i].abs());
        }
    }
    let rest = rest.iter().fold(0.0, |largest, x| larger(largest, x.abs()));
    largest.into_iter().fold(rest, larger)
}

/// The larger of two numbers; a NaN wins.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// A number for each chunk of all arrays, in order.
fn reduce<T: Copy + Default + Send>(arrays: &[&[f32]], of: impl Fn(&[f32]) -> T + Sync) -> Vec<T> {
    let chunks = || arrays.iter().flat_map(|array| array.chunks(CHUNK));
    let mut results: Vec<_> = chunks().map(|chunk| (chunk, T::default())).collect();
    for_each_chunk(&mut results, 1, |_, results| {
        results.iter_mut().for_each(|(chunk, result)| *result = of(chunk));
    });
    results.into_iter().map(|(_, result)| result).collect()
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
