//! Local response normalisation: each channel of a pixel divided by a power of what its neighbours
//! among the channels amount to.
//!
//! ```text
//! y[c] = x[c] / D[c]^beta,   D[c] = k + alpha / n * sum of x[c']^2 over the window of c
//! ```
//!
//! The window of c is `c - n / 2 ..= c + (n - 1) / 2`, cut off at the first and last channel without
//! changing n. Forward, a pixel is worked on in blocks of channels whose sums stay in registers:
//! one addition a neighbour, as vector loops over the block. Powers that square roots make
//! (`beta` of 3/4, 1/2 and 1) are vector code too. Backward, with `D` computed again from the input,
//!
//! ```text
//! dx[c] = g[c] / D[c]^beta - 2 alpha beta / n * x[c] * sum of g[c'] x[c'] / D[c']^(beta + 1)
//! ```
//!
//! over all c' whose window has c in it.

use super::blocks::{for_each_block, rows_per_task};
use super::elementwise::assert_shape;
use crate::isa;
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

/// Channels whose sums are computed together.
const BLOCK: usize = 64;

/// `d^beta`, where it takes less than the general function.
enum Power {
    ThreeQuarters,
    Half,
    One,
    Other(f32),
}

/// The constants of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResponseNorm {
    size: usize,
    alpha: f64,
    beta: f64,
    k: f64,
}

impl ResponseNorm {
    /// Windows of `size` channels.
    pub fn new(size: usize, alpha: f64, beta: f64, k: f64) -> Result<Self> {
        match size {
            0 => Err(Error::value("size", "at least 1", "0")),
            _ => Ok(ResponseNorm { size, alpha, beta, k }),
        }
    }

    /// Output of pixels of `channels` channels.
    pub fn forward(&self, channels: usize, input: &[f32]) -> Vec<f32> {
        let mut output = vec![0.0; input.len()];
        self.forward_into(Rows::dense(input, channels), RowsMut::dense(&mut output, channels));
        output
    }

    /// [`forward`](Self::forward) of rows with gaps.
    pub fn forward_into(&self, input: Rows<'_>, output: RowsMut<'_>) {
        assert_shape(input, &output);
        // One loop a power: a choice inside it would keep it from being vectorised.
        match self.power() {
            Power::ThreeQuarters => self.divide(input, output, three_quarters),
            Power::Half => self.divide(input, output, f32::sqrt),
            Power::One => self.divide(input, output, |d| d),
            Power::Other(beta) => self.divide(input, output, |d| d.powf(beta)),
        }
    }

    /// Gradient of the input.
    pub fn backward(&self, channels: usize, input: &[f32], grad_output: &[f32]) -> Vec<f32> {
        assert_eq!(input.len(), grad_output.len(), "slices of one length");
        let mut grad_input = vec![0.0; input.len()];
        let (x, g) = (Rows::dense(input, channels), Rows::dense(grad_output, channels));
        let output = RowsMut::dense(&mut grad_input, channels);
        match self.power() {
            Power::ThreeQuarters => self.differentiate(x, g, output, three_quarters),
            Power::Half => self.differentiate(x, g, output, f32::sqrt),
            Power::One => self.differentiate(x, g, output, |d| d),
            Power::Other(beta) => self.differentiate(x, g, output, |d| d.powf(beta)),
        }
        grad_input
    }

    fn power(&self) -> Power {
        match self.beta {
            0.75 => Power::ThreeQuarters,
            0.5 => Power::Half,
            1.0 => Power::One,
            beta => Power::Other(beta as f32),
        }
    }

    fn divide(&self, input: Rows<'_>, output: RowsMut<'_>, power: impl Fn(f32) -> f32 + Sync) {
        for_each_block(output, self.rows_per_task(input.channels()), |first, mut output| {
            isa::vectorize(
                #[inline(always)]
                || {
                    for index in 0..output.count() {
                        let (x, y) = (input.row(first + index), output.row_mut(index));
                        for (block, y) in y.chunks_mut(BLOCK).enumerate() {
                            let first = block * BLOCK;
                            let mut sums = [0.0; BLOCK];
                            let sums = &mut sums[..y.len()];
                            add_windows(x, first, self.reach(), |x| x * x, sums);
                            for ((y, &x), &sum) in y.iter_mut().zip(&x[first..]).zip(&*sums) {
                                *y = x / power(self.bracket(sum));
                            }
                        }
                    }
                },
            );
        });
    }

    fn differentiate(
        &self,
        x: Rows<'_>,
        g: Rows<'_>,
        output: RowsMut<'_>,
        power: impl Fn(f32) -> f32 + Sync,
    ) {
        let (channels, (below, above)) = (x.channels(), self.reach());
        let factor = (2.0 * self.alpha * self.beta / self.size as f64) as f32;
        for_each_block(output, self.rows_per_task(2 * channels), |first, mut output| {
            let (mut sums, mut shares) = (vec![0.0; channels], vec![0.0; channels]);
            isa::vectorize(
                #[inline(always)]
                || {
                    for index in 0..output.count() {
                        let (x, g) = (x.row(first + index), g.row(first + index));
                        let dx = output.row_mut(index);
                        sums.fill(0.0);
                        add_windows(x, 0, (below, above), |x| x * x, &mut sums);
                        let inputs = x.iter().zip(g).zip(&sums);
                        let outputs = dx.iter_mut().zip(&mut shares);
                        for ((dx, share), ((&x, &g), &sum)) in outputs.zip(inputs) {
                            let bracket = self.bracket(sum);
                            *dx = g / power(bracket);
                            *share = *dx * x / bracket;
                        }
                        sums.fill(0.0);
                        add_windows(&shares, 0, (above, below), |share| share, &mut sums);
                        for ((dx, &x), &sum) in dx.iter_mut().zip(x).zip(&sums) {
                            *dx -= factor * x * sum;
                        }
                    }
                },
            );
        });
    }

    /// How many channels a window reaches below and above its own.
    fn reach(&self) -> (usize, usize) {
        (self.size / 2, (self.size - 1) / 2)
    }

    #[inline(always)]
    fn bracket(&self, sum: f32) -> f32 {
        self.k as f32 + (self.alpha / self.size as f64) as f32 * sum
    }

    fn rows_per_task(&self, channels: usize) -> usize {
        let window = self.size.min(2 * channels);
        rows_per_task(channels.saturating_mul(window.saturating_add(8)))
    }
}

/// `d^(3/4)`; a number below 0 gives NaN, as for any power.
#[inline(always)]
fn three_quarters(d: f32) -> f32 {
    let root = d.sqrt();
    root * root.sqrt()
}

/// Adds to sum i the values of the channels from `first + i - below` to `first + i + above` that
/// exist.
#[inline(always)]
fn add_windows(
    x: &[f32],
    first: usize,
    (below, above): (usize, usize),
    value: impl Fn(f32) -> f32,
    sums: &mut [f32],
) {
    if sums.is_empty() {
        return;
    }
    let below = below.min(first + sums.len() - 1);
    let above = above.min(x.len() - 1 - first);
    for step in first..=first + below + above {
        // Sum i takes channel `step + i - below`, of which the first may not exist.
        let skipped = below.saturating_sub(step);
        for (sum, &x) in sums[skipped..].iter_mut().zip(&x[step + skipped - below..]) {
            *sum += value(x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{numeric_gradient, same_for_any_thread_count};
    use super::*;
    use crate::conv::reference::{close, values};

    fn naive(norm: &ResponseNorm, x: &[f64]) -> Vec<f64> {
        (0..x.len())
            .map(|c| {
                let window = c.saturating_sub(norm.size / 2)..(c + (norm.size - 1) / 2 + 1);
                let window = window.start..window.end.min(x.len());
                let sum: f64 = x[window].iter().map(|v| v * v).sum();
                x[c] / (norm.k + norm.alpha / norm.size as f64 * sum).powf(norm.beta)
            })
            .collect()
    }

    #[test]
    fn values_and_gradients_agree_with_float64() {
        for size in [1, 2, 3, 4, 5, 8, 63, 200] {
            for channels in [1, 2, 3, 7, 63, 64, 65, 130] {
                for beta in [0.75, 0.5, 1.0, 1.3] {
                    let norm = ResponseNorm::new(size, 0.7, beta, 1.5).unwrap();
                    let x: Vec<f32> = values(3 * channels, 1).iter().map(|v| 3.0 * v).collect();
                    let g = values(x.len(), 2);
                    let (y, dx) = (norm.forward(channels, &x), norm.backward(channels, &x, &g));
                    let case = format!("{norm:?} of {channels} channels");
                    for row in 0..3 {
                        let span = row * channels..(row + 1) * channels;
                        let wide: Vec<f64> = x[span.clone()].iter().map(|&v| v.into()).collect();
                        let expected: Vec<f32> =
                            naive(&norm, &wide).into_iter().map(|v| v as f32).collect();
                        assert!(close(&y[span.clone()], &expected, 2e-6), "{case}");
                        if channels > 8 && size != 5 {
                            continue;
                        }
                        let loss = |x: &[f64]| {
                            let terms = naive(&norm, x).into_iter().zip(&g[span.clone()]);
                            terms.map(|(y, &g)| y * f64::from(g)).sum()
                        };
                        let expected = numeric_gradient(&x[span.clone()], loss);
                        assert!(close(&dx[span.clone()], &expected, 1e-5), "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn known_values() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let y = ResponseNorm::new(5, 1.0, 0.75, 2.0).unwrap().forward(7, &x);
        let expected = [0.308368, 0.420448, 0.438191, 0.422948, 0.400103, 0.503761, 0.645564];
        assert!(close(&y, &expected, 2e-6), "{y:?}");
        let y = ResponseNorm::new(5, 5e-4, 0.75, 2.0).unwrap().forward(7, &x.map(|v| 10.0 * v));
        let expected = [5.651837, 10.70864, 14.86675, 17.99954, 20.19233, 24.73079, 29.96241];
        assert!(close(&y, &expected, 2e-6), "{y:?}");
    }

    #[test]
    fn infinities_and_nan_go_as_far_as_their_windows() {
        for beta in [0.75, 0.6] {
            let norm = ResponseNorm::new(3, 1.0, beta, 1.0).unwrap();
            let y = norm.forward(5, &[1.0, 1.0, f32::INFINITY, 1.0, 1.0]);
            assert!(y[2].is_nan() && y[1] == 0.0 && y[3] == 0.0 && y[0] > 0.0 && y[4] > 0.0);
            let y = norm.forward(5, &[1.0, 1.0, f32::NAN, 1.0, 1.0]);
            assert_eq!(
                y.iter().map(|v| v.is_nan()).collect::<Vec<_>>(),
                [false, true, true, true, false]
            );
            let norm = ResponseNorm::new(3, 1.0, beta, -2.0).unwrap();
            assert!(norm.forward(1, &[1.0])[0].is_nan());
        }
    }

    #[test]
    fn rows_with_gaps_are_left_alone_between() {
        let norm = ResponseNorm::new(3, 1.0, 0.75, 1.0).unwrap();
        let x = values(10, 1);
        let mut y = vec![9.0; 8];
        norm.forward_into(Rows::new(&x, 2, 3, 5), RowsMut::new(&mut y, 2, 3, 4));
        assert_eq!(y[..3], norm.forward(3, &x[..3]));
        assert_eq!(y[4..7], norm.forward(3, &x[5..8]));
        assert_eq!((y[3], y[7]), (9.0, 9.0));
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let norm = ResponseNorm::new(5, 1e-4, 0.75, 2.0).unwrap();
        let (x, g) = (values(96 * 700, 1), values(96 * 700, 2));
        same_for_any_thread_count(|| (norm.forward(96, &x), norm.backward(96, &x, &g)));
        assert!(norm.forward(0, &[]).is_empty());
        assert!(ResponseNorm::new(0, 1.0, 1.0, 1.0).is_err());
    }
}
