//! Average pooling, sliding or adaptive.
//!
//! Forward, a task takes a block of output pixels and sums the pixels under each window channel by
//! channel, those of large windows in float64 so that the mean of a plane keeps its digits. Backward, a task owns an input row
//! and collects its share from every window over it, in window order.

use super::windows::{Pool2d, Taps, Window, WindowKernel, touching};
use crate::isa;
use crate::parallel::for_each_chunk;
use crate::rows::{Rows, RowsMut};

/// Pixels of a window up to which they are added in float32.
const SMALL: usize = 16;

/// What the sum under a window is divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Divisor {
    /// The window with its padding, without what `ceil_mode` hangs over the padding.
    PaddedWindow,
    /// The pixels under the window.
    Pixels,
    /// A number of the caller's.
    Fixed(f64),
}

impl Divisor {
    fn of(self, rows: Window, cols: Window) -> f64 {
        match self {
            Divisor::PaddedWindow => rows.extent() as f64 * cols.extent() as f64,
            Divisor::Pixels => rows.taps as f64 * cols.taps as f64,
            Divisor::Fixed(divisor) => divisor,
        }
    }
}

/// Mean under each window, `(N, H_out, W_out, C)`.
pub fn forward(pool: &Pool2d, divisor: Divisor, input: &[f32]) -> Vec<f32> {
    pool.assert_lengths(input.len(), pool.output_len());
    let mut output = vec![0.0; pool.output_len()];
    if !output.is_empty() {
        let output = RowsMut::dense(&mut output, pool.channels);
        forward_into(pool, divisor, Rows::dense(input, pool.channels), output);
    }
    output
}

/// [`forward`] of rows with gaps. The batch is that of the rows, whatever `pool` says.
pub fn forward_into(pool: &Pool2d, divisor: Divisor, input: Rows<'_>, output: RowsMut<'_>) {
    pool.for_each_window(input, output, &Mean(divisor));
}

struct Mean(Divisor);

impl WindowKernel for Mean {
    #[inline(always)]
    fn window(&self, taps: &Taps<'_>, output: &mut [f32]) {
        let divisor = self.0.of(taps.rows, taps.cols);
        if taps.rows.taps * taps.cols.taps <= SMALL {
            let factor = (1.0 / divisor) as f32;
            return taps.fold_channels::<f32, 32>(
                output,
                0.0,
                |sum, v| sum + v,
                |sum| sum * factor,
            );
        }
        let add = |sum, v| sum + f64::from(v);
        taps.fold_channels::<f64, 32>(output, 0.0, add, |sum| (sum / divisor) as f32);
    }
}

/// Gradient of the input: each window's gradient divided evenly over its pixels.
pub fn backward(pool: &Pool2d, divisor: Divisor, grad_output: &[f32]) -> Vec<f32> {
    pool.assert_lengths(pool.input_len(), grad_output.len());
    let mut grad_input = vec![0.0; pool.input_len()];
    backward_into(pool, divisor, grad_output, &mut grad_input);
    grad_input
}

/// [`backward`] into given memory, which is overwritten. The batch is that of the slices.
pub fn backward_into(pool: &Pool2d, divisor: Divisor, grad_output: &[f32], grad_input: &mut [f32]) {
    for_each_chunk(grad_input, pool.input_row(), |row, grad_row| {
        isa::vectorize(|| spread(pool, divisor, grad_output, row, grad_row));
    });
}

/// One input row of [`backward_into`], number `row` of the batch.
#[inline(always)]
fn spread(pool: &Pool2d, divisor: Divisor, grad_output: &[f32], row: usize, grad_row: &mut [f32]) {
    grad_row.fill(0.0);
    let (image, y) = (row / pool.input.0, row % pool.input.0);
    for out_row in touching(&pool.rows, y..y + 1) {
        let window = pool.rows[out_row];
        let at = (image * pool.rows.len() + out_row) * pool.output_row();
        let gradients = grad_output[at..at + pool.output_row()].chunks_exact(pool.channels);
        for (&across, gradient) in pool.cols.iter().zip(gradients) {
            let share = (1.0 / divisor.of(window, across)) as f32;
            for x in across.positions() {
                let pixel = &mut grad_row[x * pool.channels..][..pool.channels];
                for (sum, &g) in pixel.iter_mut().zip(gradient) {
                    *sum += g * share;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::same_for_any_thread_count;
    use super::super::windows::{Sliding, cases};
    use super::*;
    use crate::conv::reference::{close, values};

    const DIVISORS: [Divisor; 3] = [Divisor::PaddedWindow, Divisor::Pixels, Divisor::Fixed(-3.0)];

    /// Every (input, output, share) of the layer, element by element.
    fn shares(pool: &Pool2d, divisor: Divisor) -> Vec<(usize, usize, f64)> {
        let (batch, rows, cols, channels) = pool.output_shape();
        let mut shares = Vec::new();
        for out in 0..batch * rows * cols * channels {
            let (pixel, c) = (out / channels, out % channels);
            let (n, i, j) = (pixel / (rows * cols), pixel / cols % rows, pixel % cols);
            for y in pool.rows[i].positions() {
                for x in pool.cols[j].positions() {
                    let at = ((n * pool.input.0 + y) * pool.input.1 + x) * channels + c;
                    shares.push((at, out, 1.0 / divisor.of(pool.rows[i], pool.cols[j])));
                }
            }
        }
        shares
    }

    /// Layers whose taps are dense: average pooling has no dilation.
    fn dense_cases() -> impl Iterator<Item = Pool2d> {
        cases().into_iter().filter(|p| p.rows.iter().chain(&p.cols).all(|w| w.step == 1))
    }

    #[test]
    fn agrees_with_the_naive_sums() {
        for pool in dense_cases() {
            for divisor in DIVISORS {
                let input = values(pool.input_len(), 1);
                let grad = values(pool.output_len(), 2);
                let mut output = vec![0.0_f64; pool.output_len()];
                let mut grad_input = vec![0.0_f64; pool.input_len()];
                for (i, o, share) in shares(&pool, divisor) {
                    output[o] += f64::from(input[i]) * share;
                    grad_input[i] += f64::from(grad[o]) * share;
                }
                let f32s = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<_>>();
                let case = format!("{divisor:?} {pool:?}");
                assert!(close(&forward(&pool, divisor, &input), &f32s(output), 1e-6), "{case}");
                let got = backward(&pool, divisor, &grad);
                assert!(close(&got, &f32s(grad_input), 1e-6), "{case}");
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        for pool in dense_cases() {
            let (input, grad) = (values(pool.input_len(), 1), values(pool.output_len(), 2));
            same_for_any_thread_count(|| {
                let d = Divisor::Pixels;
                (forward(&pool, d, &input), backward(&pool, d, &grad))
            });
        }
    }

    fn counting(n: usize) -> Vec<f32> {
        (0..n).map(|v| v as f32).collect()
    }

    fn pool(size: usize, stride: usize, padding: usize, ceil_mode: bool) -> Pool2d {
        let sliding = Sliding {
            kernel: (3, 3),
            stride: (stride, stride),
            padding: (padding, padding),
            dilation: (1, 1),
            ceil_mode,
        };
        Pool2d::sliding((1, size, size, 1), sliding).unwrap()
    }

    #[test]
    fn known_values() {
        use Divisor::{PaddedWindow, Pixels};
        let table: &[(Pool2d, Divisor, &[f32])] = &[
            (
                pool(3, 1, 1, false),
                PaddedWindow,
                &[0.888889, 1.666667, 1.333333, 2.333333, 4.0, 3.0, 2.222222, 3.666667, 2.666667],
            ),
            (pool(3, 1, 1, false), Pixels, &[2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0]),
            (pool(4, 2, 0, true), PaddedWindow, &[5.0, 6.5, 11.0, 12.5]),
            (
                pool(4, 2, 1, true),
                PaddedWindow,
                &[1.111111, 2.666667, 1.666667, 5.666667, 10.0, 5.5, 4.166667, 7.0, 3.75],
            ),
            (pool(4, 2, 1, true), Pixels, &[2.5, 4.0, 5.0, 8.5, 10.0, 11.0, 12.5, 14.0, 15.0]),
        ];
        for (pool, divisor, expected) in table {
            let got = forward(pool, *divisor, &counting(pool.input_len()));
            assert!(close(&got, expected, 1e-6), "{pool:?}: {got:?}");
        }
    }

    #[test]
    fn known_adaptive_values() {
        let table: &[(usize, usize, &[f32])] = &[
            (5, 3, &[0.5, 2.0, 3.5]),
            (14, 4, &[1.5, 4.5, 8.5, 11.5]),
            (6, 7, &[0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.0]),
        ];
        for &(size, out, expected) in table {
            let pool = Pool2d::adaptive((1, 1, size, 1), (1, out)).unwrap();
            assert_eq!(forward(&pool, Divisor::Pixels, &counting(size)), expected);
        }
        // Windows of five at a step of three are something else than fourteen adapted to four.
        let sliding = Sliding {
            kernel: (1, 5),
            stride: (1, 3),
            padding: (0, 0),
            dilation: (1, 1),
            ceil_mode: false,
        };
        let pool = Pool2d::sliding((1, 1, 14, 1), sliding).unwrap();
        assert_eq!(forward(&pool, Divisor::Pixels, &counting(14)), [2.0, 5.0, 8.0, 11.0]);
    }
}
