//! Gradients of the weights and the bias.
//!
//! The weight gradient is `columns^T * grad_output`, a sum over all pixels of the batch. Splitting
//! that sum needs one full gradient per part, which is cheap where the weights are few and the
//! pixels many (first layers). Elsewhere the *rows* of the gradient are split: a task owns one
//! kernel tap and a range of input channels, gathers just those columns block by block, and
//! accumulates its part in pixel order. Nothing is computed twice, and the order of every sum is
//! fixed by the geometry.

use std::ops::Range;

use rayon::prelude::*;

use super::backward_depthwise;
use super::columns::{gather, gather_tap};
use super::geometry::Conv2d;
use crate::gemm::{MatMut, MatRef, gemm};

/// Output pixels per product; the gathered block and the gradient block stay in L2.
const PIXELS: usize = 512;
/// Input channels of one task: a few vector widths, so that even a 1x1 layer makes several tasks.
const CHANNELS: usize = 64;

/// Largest weight gradient, in floats, of which every part of the pixels gets a copy of its own.
const SMALL: usize = 16 * 1024;
/// Number of those parts: fixed, so that the order of the sum is.
const PARTS: usize = 16;

/// Gradient of the weights, `(kh, kw, C / groups, O)`.
pub fn backward_weight(conv: &Conv2d, input: &[f32], grad_output: &[f32]) -> Vec<f32> {
    conv.assert_lengths(input.len(), conv.weight_len(), grad_output.len());
    if conv.weight_len() == 0 || grad_output.is_empty() {
        return vec![0.0; conv.weight_len()];
    }
    match conv.weight_len() <= SMALL {
        _ if backward_depthwise::applies(conv) => {
            backward_depthwise::weight(conv, input, grad_output)
        }
        true => split_pixels(conv, input, grad_output),
        false => split_rows(conv, input, grad_output),
    }
}

/// Many pixels, few weights, as in first layers: each task sums over its share of the pixels, with
/// all taps gathered at once, and the shares are added in order.
fn split_pixels(conv: &Conv2d, input: &[f32], grad_output: &[f32]) -> Vec<f32> {
    let total = conv.output_pixels();
    let share = total.div_ceil(PARTS).next_multiple_of(16);
    let starts: Vec<usize> = (0..total).step_by(share).collect();
    let parts: Vec<Vec<f32>> = starts
        .into_par_iter()
        .map(|start| {
            let mut sum = vec![0.0; conv.weight_len()];
            let mut columns = Vec::new();
            for first in (start..(start + share).min(total)).step_by(PIXELS) {
                let pixels = first..(first + PIXELS).min(start + share).min(total);
                for group in 0..conv.groups {
                    columns.resize(pixels.len() * conv.depth(), 0.0);
                    gather(conv, group, input, pixels.clone(), &mut columns);
                    let columns = MatRef::new(&columns, pixels.len(), conv.depth(), conv.depth());
                    accumulate(conv, group, columns, grad_output, pixels.clone(), &mut sum);
                }
            }
            sum
        })
        .collect();
    parts
        .into_iter()
        .reduce(|mut total, part| {
            total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
            total
        })
        .unwrap_or_default()
}

/// Many weights: each task owns one kernel tap and a range of input channels.
fn split_rows(conv: &Conv2d, input: &[f32], grad_output: &[f32]) -> Vec<f32> {
    let mut grad_weight = vec![0.0; conv.weight_len()];
    let group_in = conv.group_in();
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
                    accumulate(conv, group, lhs, grad_output, pixels.clone(), rows);
                }
            }
        });
    grad_weight
}

/// `rows[:, group] += columns^T * grad_output[pixels, group]`.
fn accumulate(
    conv: &Conv2d,
    group: usize,
    columns: MatRef<'_>,
    grad_output: &[f32],
    pixels: Range<usize>,
    rows: &mut [f32],
) {
    let first = group * conv.group_out();
    let count = rows.len() / conv.out_channels;
    let grad = &grad_output[pixels.start * conv.out_channels + first..];
    gemm(
        MatMut::new(&mut rows[first..], count, conv.group_out(), conv.out_channels),
        true,
        columns.t(),
        MatRef::new(grad, pixels.len(), conv.group_out(), conv.out_channels),
    );
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
