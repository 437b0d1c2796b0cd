//! Gradients of a convolution with one input channel a group.
//!
//! There is no matrix product in it: each output channel meets one input channel. Both passes are
//! loops over the pixels of two lines, the taps outside, the channels of a pixel inside:
//!
//! ```text
//! gradient of the input:    for each tap, for each j:  grad_input[x(j)] += grad_output[j] * weight[tap]
//! gradient of the weights:  for each tap, for each j:  grad_weight[tap] += grad_output[j] * input[x(j)]
//! ```
//!
//! A task of the first owns an input line, one of the second a fixed share of the output lines.

use std::ops::Range;

use super::geometry::{Axis, Conv2d};
use crate::isa::vectorize;
use crate::memory::Scratch;
use crate::parallel;

/// Parts into which the sum over all output lines is split: fixed, so that its order is.
const PARTS: usize = 16;

/// Whether these passes are for `conv`.
pub(super) fn applies(conv: &Conv2d) -> bool {
    conv.groups > 1 && conv.group_in() == 1
}

/// Output columns whose tap `v` lies in the image.
fn columns(conv: &Conv2d, v: usize) -> Range<usize> {
    let (tap, left) = (v * conv.dilation.1, conv.padding.left);
    let below = |end: usize| end.saturating_sub(tap).div_ceil(conv.stride.1).min(conv.output.1);
    below(left)..below(left + conv.input.1)
}

/// Gradient of the input; both gradients are channels-last and not empty.
pub(super) fn data(conv: &Conv2d, grad_output: &[f32], weight: &[f32], grad_input: &mut [f32]) {
    let (height, width) = conv.input;
    let out_line = conv.output.1 * conv.out_channels;
    parallel::for_each_chunk(grad_input, width * conv.in_channels, |line, target| {
        target.fill(0.0);
        let (image, y) = (line / height, line % height + conv.padding.top);
        for u in 0..conv.kernel.0 {
            // The output line that sees this one through kernel row `u`.
            let Some(distance) = y.checked_sub(u * conv.dilation.0) else { break };
            let i = distance / conv.stride.0;
            if !distance.is_multiple_of(conv.stride.0) || i >= conv.output.0 {
                continue;
            }
            let grad = &grad_output[(image * conv.output.0 + i) * out_line..][..out_line];
            let taps = u * conv.kernel.1 * conv.out_channels;
            let weight = &weight[taps..][..conv.kernel.1 * conv.out_channels];
            vectorize(
                #[inline(always)]
                || add_to_input(conv, target, grad, weight),
            );
        }
    });
}

/// Adds to a line of the input's gradient what reaches it from a line of the output's.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "one index into slices of one length: vectors")]
fn add_to_input(conv: &Conv2d, target: &mut [f32], grad: &[f32], weight: &[f32]) {
    let (channels, out, each) = (conv.in_channels, conv.out_channels, conv.group_out());
    for v in 0..conv.kernel.1 {
        let weight = &weight[v * out..][..out];
        for j in columns(conv, v) {
            let x = j * conv.stride.1 + v * conv.dilation.1 - conv.padding.left;
            let target = &mut target[x * channels..][..channels];
            let grad = &grad[j * out..][..out];
            if each == 1 {
                let (grad, weight) = (&grad[..channels], &weight[..channels]);
                for c in 0..channels {
                    target[c] += grad[c] * weight[c];
                }
            } else {
                for o in 0..out {
                    target[o / each] += grad[o] * weight[o];
                }
            }
        }
    }
}

/// Gradient of the weights; input and gradient are channels-last and not empty.
pub(super) fn weight(conv: &Conv2d, input: &[f32], grad_output: &[f32], grad_weight: &mut [f32]) {
    let total = conv.batch * conv.output.0;
    let (share, len) = (total.div_ceil(PARTS), conv.weight_len());
    let mut sums = Scratch::new(total.div_ceil(share) * len);
    parallel::for_each_chunk(&mut sums, len, |index, sum| {
        sum.fill(0.0);
        // Sums of one line first, then of lines: shorter sums have smaller rounding errors.
        let mut of_line = vec![0.0; conv.kernel.1 * conv.out_channels];
        for line in index * share..((index + 1) * share).min(total) {
            add_line(conv, input, grad_output, line, &mut of_line, sum);
        }
    });
    grad_weight.fill(0.0);
    for sum in sums.chunks(len) {
        grad_weight.iter_mut().zip(sum).for_each(|(t, p)| *t += p);
    }
}

/// Adds to the weights' gradient the products of output line `line`, counted through the batch.
fn add_line(
    conv: &Conv2d,
    input: &[f32],
    grad_output: &[f32],
    line: usize,
    of_line: &mut [f32],
    sum: &mut [f32],
) {
    let (image, i) = (line / conv.output.0, line % conv.output.0);
    let (in_line, out_line) = (conv.input.1 * conv.in_channels, conv.output.1 * conv.out_channels);
    let grad = &grad_output[line * out_line..][..out_line];
    for (u, sum) in sum.chunks_exact_mut(of_line.len()).enumerate() {
        if let Some(y) = conv.input_coordinate(Axis::Rows, i, u) {
            let input = &input[(image * conv.input.0 + y) * in_line..][..in_line];
            vectorize(
                #[inline(always)]
                || add_to_weights(conv, of_line, grad, input, sum),
            );
        }
    }
}

/// Adds the products of an output line and an input line to the gradient of a kernel row.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "one index into slices of one length: vectors")]
fn add_to_weights(
    conv: &Conv2d,
    of_line: &mut [f32],
    grad: &[f32],
    input: &[f32],
    sum: &mut [f32],
) {
    let (channels, out, each) = (conv.in_channels, conv.out_channels, conv.group_out());
    of_line.fill(0.0);
    for v in 0..conv.kernel.1 {
        let target = &mut of_line[v * out..][..out];
        for j in columns(conv, v) {
            let x = j * conv.stride.1 + v * conv.dilation.1 - conv.padding.left;
            let input = &input[x * channels..][..channels];
            let grad = &grad[j * out..][..out];
            if each == 1 {
                let (target, grad) = (&mut target[..channels], &grad[..channels]);
                for c in 0..channels {
                    target[c] += grad[c] * input[c];
                }
            } else {
                for o in 0..out {
                    target[o] += grad[o] * input[o / each];
                }
            }
        }
    }
    for (sum, of_line) in sum.iter_mut().zip(of_line) {
        *sum += *of_line;
    }
}
