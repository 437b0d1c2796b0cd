//! Simple changes of many arrays in place.

use super::{Arrays, CHUNK, Step, for_each_element};
use crate::isa;
use crate::parallel::for_each_chunk;

/// Multiplies all elements by `factor`.
pub fn scale(arrays: Vec<&mut [f32]>, factor: f32) {
    in_place(arrays, |x| x * factor);
}

/// Brings all elements into `-limit .. limit`; NaN stays.
pub fn clamp(arrays: Vec<&mut [f32]>, limit: f32) {
    in_place(arrays, |x| {
        let x = if x < -limit { -limit } else { x };
        if x > limit { limit } else { x }
    });
}

/// Moves the elements of each first array by `share` of the way to those of the second.
pub fn average(arrays: Vec<Arrays<'_, 1>>, share: f32) {
    for_each_element(arrays, &Average { share });
}

/// Adds the elements of each second array to those of the first.
pub fn add(arrays: Vec<Arrays<'_, 1>>) {
    for_each_element(arrays, &Add);
}

struct Average {
    share: f32,
}

impl Step<1> for Average {
    #[inline(always)]
    fn apply(&self, [average]: [f32; 1], value: f32) -> [f32; 1] {
        [average + self.share * (value - average)]
    }
}

struct Add;

impl Step<1> for Add {
    #[inline(always)]
    fn apply(&self, [sum]: [f32; 1], value: f32) -> [f32; 1] {
        [sum + value]
    }
}

fn in_place(arrays: Vec<&mut [f32]>, change: impl Fn(f32) -> f32 + Sync) {
    let mut chunks: Vec<_> = arrays.into_iter().flat_map(|array| array.chunks_mut(CHUNK)).collect();
    for_each_chunk(&mut chunks, 1, |_, chunks| {
        for chunk in chunks {
            isa::vectorize(|| chunk.iter_mut().for_each(|x| *x = change(*x)));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn every_element_is_changed() {
        check(|arrays| average(arrays, 0.25), |[a], x| [a + 0.25 * (x - a)]);
        check(add, |[sum], x| [sum + x]);
        for len in [0, 1, CHUNK, CHUNK + 1] {
            let (mut x, mut y) = (vec![3.0; len], vec![-5.0; 3]);
            scale(vec![&mut x, &mut y], 0.5);
            assert!(x.iter().all(|&v| v == 1.5) && y.iter().all(|&v| v == -2.5));
            clamp(vec![&mut x, &mut y], 2.0);
            assert!(x.iter().all(|&v| v == 1.5) && y.iter().all(|&v| v == -2.0));
        }
        let mut x = [f32::NAN, f32::INFINITY];
        clamp(vec![&mut x], 1.0);
        assert!(x[0].is_nan() && x[1] == 1.0);
    }
}
