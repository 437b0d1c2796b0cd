//! Gradients of the weights and the bias.
//!
//! The weight gradient is `columns^T * grad_output`, a sum over all pixels of the batch. Splitting
//! that sum over threads would need one full gradient per thread; instead its *rows* are split: a
//! task owns one kernel tap and a range of input channels, gathers just those columns block by
//! block, and accumulates its part in pixel order. Nothing is computed twice, nothing is reduced
//! across tasks, and the order of the sum is fixed.

use rayon::prelude::*;

use super::columns::gather_tap;
use super::geometry::Conv2d;
use crate::gemm::{MatMut, MatRef, gemm};

/// Output pixels per product; the gathered block and the gradient block stay in L2.
const PIXELS: usize = 512;
/// Input channels of one task: a few vector widths, so that even a 1x1 layer makes several tasks.
const CHANNELS: usize = 64;

/// Gradient of the weights, `(kh, kw, C / groups, O)`.
pub fn backward_weight(conv: &Conv2d, input: &[f32], grad_output: &[f32]) -> Vec<f32> {
    conv.assert_lengths(input.len(), conv.weight_len(), grad_output.len());
    let mut grad_weight = vec![0.0; conv.weight_len()];
    if grad_weight.is_empty() {
        return grad_weight;
    }
    let (group_in, group_out) = (conv.group_in(), conv.group_out());
    grad_weight
        .par_chunks_mut(group_in * conv.out_channels)
        .enumerate()
        .flat_map(|(tap, rows)| {
            rows.par_chunks_mut(CHANNELS * conv.out_channels)
                .enumerate()
                .map(move |(part, rows)| (tap, part * CHANNELS, rows))
        })
        .for_each_init(Vec::new, |columns, (tap, first, rows)| {
            let tap = (tap / conv.kernel.1, tap % conv.kernel.1);
            let channels = rows.len() / conv.out_channels;
            let total = conv.output_pixels();
            for start in (0..total).step_by(PIXELS) {
                let pixels = start..(start + PIXELS).min(total);
                for group in 0..conv.groups {
                    let from = group * group_in + first;
                    let lhs = if conv.is_pointwise() {
                        let at = start * conv.in_channels + from;
                        MatRef::new(&input[at..], pixels.len(), channels, conv.in_channels)
                    } else {
                        columns.resize(pixels.len() * channels, 0.0);
                        let range = from..from + channels;
                        gather_tap(conv, input, pixels.clone(), tap, range, columns);
                        MatRef::new(columns, pixels.len(), channels, channels)
                    };
                    let first_out = group * group_out;
                    gemm(
                        MatMut::new(&mut rows[first_out..], channels, group_out, conv.out_channels),
                        true,
                        lhs.t(),
                        MatRef::new(
                            &grad_output[start * conv.out_channels + first_out..],
                            pixels.len(),
                            group_out,
                            conv.out_channels,
                        ),
                    );
                }
            }
        });
    grad_weight
}

/// Gradient of the bias, `(O,)`: the sum of `grad_output` over all pixels, in float64.
pub fn backward_bias(out_channels: usize, grad_output: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0_f64; out_channels];
    if out_channels > 0 {
        for pixel in grad_output.chunks_exact(out_channels) {
            for (sum, &g) in sums.iter_mut().zip(pixel) {
                *sum += f64::from(g);
            }
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::super::reference::{self, cases, close, values};
    use super::*;

    #[test]
    fn agrees_with_the_naive_sum() {
        for conv in cases() {
            let input = values(conv.input_len(), 1);
            let grad = values(conv.output_len(), 2);
            let (weight, bias) = reference::backward_weight(&conv, &input, &grad);
            assert!(close(&backward_weight(&conv, &input, &grad), &weight, 1e-5), "{conv:?}");
            assert!(close(&backward_bias(conv.out_channels, &grad), &bias, 1e-5), "{conv:?}");
        }
    }
}
