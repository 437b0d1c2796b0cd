//! Steps of optimisers, and what else is done to all parameters or gradients of a network at once.
//!
//! A step reads and writes each array once: everything that a formula needs of an element is done
//! while it is in registers. Arrays are cut into chunks, a task each, whatever array they are of;
//! elements do not depend on each other, and sums are added chunk by chunk, so no result depends on
//! the number of threads. Arithmetic is float32 in the order of the formulas, never fused.
//!
//! | file | what it holds |
//! |---|---|
//! | `sgd`, `adam`, `rmsprop` | the steps |
//! | `norm` | the norm of all gradients |
//! | `change` | adding, averaging, scaling, clamping |

mod adam;
mod change;
mod norm;
mod rmsprop;
mod sgd;

pub use adam::Adam;
pub use change::{add, average, clamp, scale};
pub use norm::{largest, sum_of_squares};
pub use rmsprop::RmsProp;
pub use sgd::Sgd;

use crate::isa;
use crate::parallel::for_each_chunk;

/// Elements of a task.
const CHUNK: usize = 32_768;

/// One parameter's arrays, all of one length: `N` that a step changes, the parameter first, and one
/// that it reads.
#[derive(Debug)]
pub struct Arrays<'a, const N: usize> {
    /// The parameter, and what the optimiser keeps for it.
    pub changed: [&'a mut [f32]; N],
    /// The gradient.
    pub read: &'a [f32],
}

/// What is done to every element of arrays.
///
/// Implementations mark `apply` as `#[inline(always)]`, so that it is compiled for the vectors of
/// the CPU.
trait Step<const N: usize>: Sync {
    /// The elements of the arrays to change, from what they were and the one to read.
    fn apply(&self, elements: [f32; N], read: f32) -> [f32; N];
}

/// Elements that lie between memory and registers at a time: a loop over arrays of its own needs no
/// check whether they overlap before it is vectorised.
const BLOCK: usize = 256;

/// Takes a step for every element of all arrays.
///
/// # Panics
/// If arrays of one parameter differ in length: bindings check that.
fn for_each_element<const N: usize>(arrays: Vec<Arrays<'_, N>>, step: &impl Step<N>) {
    let mut chunks = Vec::new();
    for Arrays { changed, read } in arrays {
        assert!(changed.iter().all(|array| array.len() == read.len()), "arrays of one length");
        let mut changed = changed.map(|array| array.chunks_mut(CHUNK));
        chunks.extend(read.chunks(CHUNK).map(|read| {
            let changed = changed.each_mut().map(|chunks| chunks.next().unwrap_or_default());
            Arrays { changed, read }
        }));
    }
    for_each_chunk(&mut chunks, 1, |_, chunks| {
        for Arrays { changed, read } in chunks {
            isa::vectorize(|| over(changed, read, step));
        }
    });
}

#[inline(always)]
fn over<const N: usize>(changed: &mut [&mut [f32]; N], read: &[f32], step: &impl Step<N>) {
    let (mut elements, mut values) = ([[0.0; BLOCK]; N], [0.0; BLOCK]);
    for (index, read) in read.chunks(BLOCK).enumerate() {
        let span = index * BLOCK..index * BLOCK + read.len();
        values[..read.len()].copy_from_slice(read);
        for (elements, array) in elements.iter_mut().zip(&*changed) {
            elements[..read.len()].copy_from_slice(&array[span.clone()]);
        }
        for i in 0..BLOCK {
            let mut element = [0.0; N];
            for n in 0..N {
                element[n] = elements[n][i];
            }
            element = step.apply(element, values[i]);
            for n in 0..N {
                elements[n][i] = element[n];
            }
        }
        for (elements, array) in elements.iter().zip(&mut *changed) {
            array[span.clone()].copy_from_slice(&elements[..read.len()]);
        }
    }
}

/// The gradient with its sign, and a part of the parameter added.
#[inline(always)]
fn direction(grad: f32, parameter: f32, weight_decay: f32, maximize: bool) -> f32 {
    let grad = if maximize { -grad } else { grad };
    if weight_decay == 0.0 { grad } else { grad + weight_decay * parameter }
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::conv::reference::values;
    use crate::layers::testing::same_for_any_thread_count;

    /// Runs `step` on arrays of lengths around the chunks, with any number of threads, and compares
    /// every element with `exact(elements, gradient)` in float64.
    pub(super) fn check<const N: usize>(
        step: impl Fn(Vec<Arrays<'_, N>>) + Sync,
        exact: impl Fn([f64; N], f64) -> [f64; N],
    ) {
        let lengths = [0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 33];
        let reads = lengths.map(|len| values(len, 1));
        let start = lengths.map(|len| {
            // Averages of squares are not negative.
            std::array::from_fn(|n| values(len, n as u64 + 2).iter().map(|v| v.abs()).collect())
        });
        let run = || {
            let mut arrays: [[Vec<f32>; N]; 7] = start.clone();
            let parts = arrays.iter_mut().zip(&reads).map(|(changed, read)| Arrays {
                changed: changed.each_mut().map(|array| &mut array[..]),
                read,
            });
            step(parts.collect());
            arrays
        };
        same_for_any_thread_count(run);
        for ((got, start), read) in run().iter().zip(&start).zip(&reads) {
            for (i, &g) in read.iter().enumerate() {
                let expected = exact(start.each_ref().map(|a| f64::from(a[i])), f64::from(g));
                for n in 0..N {
                    let (got, expected) = (f64::from(got[n][i]), expected[n]);
                    let error = (got - expected).abs() / expected.abs().max(1e-2);
                    assert!(error < 1e-5, "array {n}, element {i}: {got}, expected {expected}");
                }
            }
        }
    }
}
