//! Max pooling, sliding or adaptive.
//!
//! ```text
//! for each output pixel:                                   (a task takes a block of them)
//!     for each block of channels:
//!         for each pixel under the window:
//!             best = the larger, channel by channel        (in registers)
//! ```
//!
//! The first maximum in row-major order wins, a NaN wins over every number. Training also records
//! where each maximum was found, as `row * W + column`, and the backward pass adds each gradient
//! there: a task owns a block of input rows and looks through the output rows that can reach it,
//! so no two tasks write one pixel and the order of every sum is fixed.

use rayon::prelude::*;

use super::windows::{Pool2d, Taps, WindowKernel, touching};
use crate::rows::{Rows, RowsMut};

/// Index of a window without pixels (possible under dilation); its value is minus infinity.
pub const NOWHERE: i32 = -1;

/// Maximum under each window, `(N, H_out, W_out, C)`.
pub fn forward(pool: &Pool2d, input: &[f32]) -> Vec<f32> {
    pool.assert_lengths(input.len(), pool.output_len());
    let mut output = vec![0.0; pool.output_len()];
    if !output.is_empty() {
        let output = RowsMut::dense(&mut output, pool.channels);
        forward_into(pool, Rows::dense(input, pool.channels), output);
    }
    output
}

/// [`forward`] of rows with gaps. The batch is that of the rows, whatever `pool` says.
pub fn forward_into(pool: &Pool2d, input: Rows<'_>, output: RowsMut<'_>) {
    pool.for_each_window(input, output, &Maximum);
}

struct Maximum;

impl WindowKernel for Maximum {
    #[inline(always)]
    fn window(&self, taps: &Taps<'_>, output: &mut [f32]) {
        let larger = |best, v| if wins(v, best) { v } else { best };
        taps.fold_channels::<f32, 32>(output, f32::NEG_INFINITY, larger, |best| best);
    }
}

/// [`forward`], and the index `row * W + column` of each maximum.
pub fn forward_with_indices(pool: &Pool2d, input: &[f32]) -> (Vec<f32>, Vec<i32>) {
    pool.assert_lengths(input.len(), pool.output_len());
    let mut output = vec![f32::NEG_INFINITY; pool.output_len()];
    let mut indices = vec![NOWHERE; pool.output_len()];
    if output.is_empty() {
        return (output, indices);
    }
    output
        .par_chunks_mut(pool.output_row())
        .zip(indices.par_chunks_mut(pool.output_row()))
        .enumerate()
        .for_each(|(row, (out, indices))| {
            for_each_tap(pool, input, row, |col, tap, at, pixel| {
                let best = &mut out[col * pool.channels..][..pool.channels];
                let index = &mut indices[col * pool.channels..][..pool.channels];
                if tap == 0 {
                    best.copy_from_slice(pixel);
                    index.fill(at);
                    return;
                }
                for ((b, i), &v) in best.iter_mut().zip(index).zip(pixel) {
                    let take = wins(v, *b);
                    *b = if take { v } else { *b };
                    *i = if take { at } else { *i };
                }
            });
        });
    (output, indices)
}

#[inline(always)]
fn wins(challenger: f32, best: f32) -> bool {
    challenger > best || challenger.is_nan()
}

/// Calls `visit(output column, number of the tap, row * W + column, pixel)` for the pixels under
/// each window of one output row of the batch, in row-major order.
fn for_each_tap(
    pool: &Pool2d,
    input: &[f32],
    row: usize,
    mut visit: impl FnMut(usize, usize, i32, &[f32]),
) {
    let image = pool.image(input, row / pool.rows.len());
    let window = pool.rows[row % pool.rows.len()];
    for (col, &across) in pool.cols.iter().enumerate() {
        let mut tap = 0;
        for y in window.positions() {
            for x in across.positions() {
                let at = y * pool.input.1 + x;
                visit(col, tap, at as i32, &image[at * pool.channels..][..pool.channels]);
                tap += 1;
            }
        }
    }
}

/// Gradient of the input from the gradient of the output and the recorded indices.
pub fn backward(pool: &Pool2d, grad_output: &[f32], indices: &[i32]) -> Vec<f32> {
    pool.assert_lengths(pool.input_len(), grad_output.len());
    assert_eq!(indices.len(), grad_output.len(), "one index for each gradient");
    let mut grad_input = vec![0.0; pool.input_len()];
    if grad_input.is_empty() || grad_output.is_empty() {
        return grad_input;
    }
    // An output row is read by every task its windows reach, so tasks should not be thin.
    let rows_per_task = (32_768 / pool.input_row()).max(8);
    grad_input
        .par_chunks_mut(pool.input.0 * pool.input_row())
        .enumerate()
        .flat_map(|(image, pixels)| {
            pixels
                .par_chunks_mut(rows_per_task * pool.input_row())
                .enumerate()
                .map(move |(task, rows)| (image, task * rows_per_task, rows))
        })
        .for_each(|(image, first, rows)| {
            let start = first * pool.input.1;
            let pixels = rows.len() / pool.channels;
            for out_row in touching(&pool.rows, first..first + rows.len() / pool.input_row()) {
                let at = (image * pool.rows.len() + out_row) * pool.output_row();
                let span = at..at + pool.output_row();
                let gradients = grad_output[span.clone()].chunks_exact(pool.channels);
                let places = indices[span].chunks_exact(pool.channels);
                for (gradients, places) in gradients.zip(places) {
                    for (channel, (&g, &place)) in gradients.iter().zip(places).enumerate() {
                        // Wraps to a huge number where the maximum lies above this block.
                        let pixel = (place as usize).wrapping_sub(start);
                        if pixel < pixels {
                            rows[pixel * pool.channels + channel] += g;
                        }
                    }
                }
            }
        });
    grad_input
}

#[cfg(test)]
mod tests {
    use super::super::testing::same_for_any_thread_count;
    use super::super::windows::{Sliding, cases};
    use super::*;
    use crate::conv::reference::{close, values};

    /// Maximum and its index, element by element.
    fn naive(pool: &Pool2d, input: &[f32]) -> (Vec<f32>, Vec<i32>) {
        let (batch, rows, cols, channels) = pool.output_shape();
        let (mut output, mut indices) = (Vec::new(), Vec::new());
        for (n, i, j, c) in (0..batch * rows * cols * channels).map(|e| {
            let pixel = e / channels;
            (pixel / (rows * cols), pixel / cols % rows, pixel % cols, e % channels)
        }) {
            let (mut best, mut index) = (f32::NEG_INFINITY, NOWHERE);
            for y in pool.rows[i].positions() {
                for x in pool.cols[j].positions() {
                    let at = y * pool.input.1 + x;
                    let v = input[(n * pool.input.0 * pool.input.1 + at) * channels + c];
                    if index == NOWHERE || v > best || v.is_nan() {
                        (best, index) = (v, at as i32);
                    }
                }
            }
            output.push(best);
            indices.push(index);
        }
        (output, indices)
    }

    #[test]
    fn agrees_with_the_naive_search() {
        for pool in cases() {
            let input = values(pool.input_len(), 1);
            let (expected, expected_indices) = naive(&pool, &input);
            let (got, indices) = forward_with_indices(&pool, &input);
            assert_eq!(got, expected, "{pool:?}");
            assert_eq!(indices, expected_indices, "{pool:?}");
            assert_eq!(forward(&pool, &input), expected, "{pool:?}");
        }
    }

    #[test]
    fn the_gradient_lands_on_the_recorded_pixel() {
        for pool in cases() {
            let input = values(pool.input_len(), 1);
            let grad = values(pool.output_len(), 2);
            let (_, indices) = forward_with_indices(&pool, &input);
            let mut expected = vec![0.0; pool.input_len()];
            let per_image = pool.rows.len() * pool.output_row();
            for (e, (&g, &at)) in grad.iter().zip(&indices).enumerate() {
                if at != NOWHERE {
                    let plane = e / per_image * pool.input.0 * pool.input.1;
                    expected[(plane + at as usize) * pool.channels + e % pool.channels] += g;
                }
            }
            assert!(close(&backward(&pool, &grad, &indices), &expected, 1e-6), "{pool:?}");
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        for pool in cases() {
            let input = values(pool.input_len(), 1);
            let grad = values(pool.output_len(), 2);
            same_for_any_thread_count(|| {
                let (output, indices) = forward_with_indices(&pool, &input);
                (backward(&pool, &grad, &indices), output, indices)
            });
        }
    }

    fn pool(size: usize, kernel: usize, padding: usize, ceil_mode: bool) -> Pool2d {
        let (kernel, padding) = ((kernel, kernel), (padding, padding));
        let sliding = Sliding { kernel, stride: (2, 2), padding, dilation: (1, 1), ceil_mode };
        Pool2d::sliding((1, size, size, 1), sliding).unwrap()
    }

    #[test]
    fn known_values() {
        let counting = |n: usize| (0..n).map(|v| v as f32).collect::<Vec<_>>();
        assert_eq!(forward(&pool(5, 3, 0, false), &counting(25)), [12., 14., 22., 24.]);
        assert_eq!(forward(&pool(6, 3, 0, false), &counting(36)), [14., 16., 26., 28.]);
        assert_eq!(
            forward(&pool(6, 3, 0, true), &counting(36)),
            [14., 16., 17., 26., 28., 29., 32., 34., 35.]
        );
        assert_eq!(
            forward(&pool(6, 3, 1, false), &counting(36)),
            [7., 9., 11., 19., 21., 23., 31., 33., 35.]
        );
    }

    #[test]
    fn the_first_of_equal_values_and_any_nan_win() {
        let pool = pool(2, 2, 0, false);
        let (_, indices) = forward_with_indices(&pool, &[5.0; 4]);
        assert_eq!(backward(&pool, &[3.0], &indices), [3.0, 0.0, 0.0, 0.0]);
        assert_eq!(forward_with_indices(&pool, &[f32::NEG_INFINITY; 4]).1, [0]);
        let (value, index) = forward_with_indices(&pool, &[1.0, f32::NAN, 9.0, 0.0]);
        assert!(value[0].is_nan() && index == [1]);
    }
}
