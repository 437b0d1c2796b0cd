//! Gradient of the input: a convolution of the gradient of the output.
//!
//! Output row `i` reads input row `y = i * stride + u * dilation - padding` through tap `u`. Seen from
//! the input, `y` receives from the rows `i = (y + padding - u * dilation) / stride` that are whole:
//! with stride 1 a convolution with the taps in reverse order and input and output channels
//! exchanged. With a stride, input rows with the same remainder (a phase) receive through the same
//! taps, and each phase is such a convolution with its own part of the kernel:
//!
//! ```text
//! stride 2, kernel 3, padding 1:   even rows  y = 2 t:      i = t        through u = 1
//!                                  odd rows   y = 2 t + 1:  i = t, t + 1 through u = 2, 0
//! ```
//!
//! So this file only finds the phases and turns the weights around; the forward pass does the rest.

use super::backward_depthwise;
use super::epilogue::Epilogue;
use super::forward::forward_from;
use super::geometry::{Axis, Conv2d, Padding};
use super::options::Precision;
use crate::gemm::{Source, transpose};
use crate::isa::Isa;
use crate::memory::Scratch;
use crate::parallel;
use crate::rows::{Rows, RowsMut};

/// Floats of a task that copies.
const LINES: usize = 64 * 1024;

/// Gradient of the input from the gradient of the output, both channels-last.
pub fn backward_data(
    conv: &Conv2d,
    grad_output: &[f32],
    weight: &[f32],
    precision: Precision,
) -> Vec<f32> {
    let mut grad_input = vec![0.0; conv.input_len()];
    backward_data_into(conv, grad_output, weight, precision, &mut grad_input);
    grad_input
}

/// [`backward_data`] into memory of the caller's, all of which is written.
pub fn backward_data_into(
    conv: &Conv2d,
    grad_output: &[f32],
    weight: &[f32],
    precision: Precision,
    grad_input: &mut [f32],
) {
    conv.assert_lengths(grad_input.len(), weight.len(), grad_output.len());
    if grad_input.is_empty() || grad_output.is_empty() {
        return grad_input.fill(0.0);
    }
    if backward_depthwise::applies(conv) {
        return backward_depthwise::data(conv, grad_output, weight, grad_input);
    }
    let (rows, cols) = (phases(conv, Axis::Rows), phases(conv, Axis::Cols));
    parallel::assemble(|| {
        if let ((1, 1), [row], [col]) = (conv.stride, &rows[..], &cols[..]) {
            return gradient(conv, (row, col), grad_output, weight, precision, grad_input);
        }
        let count = |phases: &[Phase]| phases.iter().map(|phase| phase.count).sum::<usize>();
        if (count(&rows), count(&cols)) != conv.input {
            // Where no tap leads, zero remains.
            parallel::for_each_chunk(grad_input, LINES, |_, part| part.fill(0.0));
        }
        for row in &rows {
            for col in &cols {
                let mut part = Scratch::new(conv.batch * row.count * col.count * conv.in_channels);
                gradient(conv, (row, col), grad_output, weight, precision, &mut part);
                spread(conv, (row, col), &part, grad_input);
            }
        }
    });
}

/// Input rows (or columns) `first`, `first + stride`, ... and what reaches them.
#[derive(Debug)]
struct Phase {
    first: usize,
    count: usize,
    /// Taps of the kernel, the last one first.
    taps: Vec<usize>,
    /// Output rows between those that neighbouring taps lead to.
    dilation: usize,
    /// Which output rows are read, the first of them by the first tap: some may be missing.
    read: std::ops::Range<isize>,
}

/// The phases that any tap reaches; one, if the stride is 1.
fn phases(conv: &Conv2d, axis: Axis) -> Vec<Phase> {
    let (kernel, stride, dilation, padding, size) = match axis {
        Axis::Rows => {
            (conv.kernel.0, conv.stride.0, conv.dilation.0, conv.padding.top, conv.input.0)
        }
        Axis::Cols => {
            (conv.kernel.1, conv.stride.1, conv.dilation.1, conv.padding.left, conv.input.1)
        }
    };
    let phase = |first: usize| {
        // Where tap `u` leads from row `first`, in strides.
        let distance = |u: usize| (first + padding) as isize - (u * dilation) as isize;
        let leads = |u: &usize| distance(*u).rem_euclid(stride as isize) == 0;
        let taps: Vec<usize> = (0..kernel).rev().filter(leads).collect();
        let row = |u: usize| distance(u) / stride as isize;
        let (low, high) = (row(*taps.first()?), row(*taps.last()?));
        let count = (size - first).div_ceil(stride);
        let dilation = if taps.len() > 1 { (row(taps[1]) - low) as usize } else { 1 };
        Some(Phase { first, count, taps, dilation, read: low..high + count as isize })
    };
    (0..stride.min(size)).filter_map(phase).collect()
}

/// The gradient of the input rows and columns of two phases, dense.
fn gradient(
    conv: &Conv2d,
    (row, col): (&Phase, &Phase),
    grad_output: &[f32],
    weight: &[f32],
    precision: Precision,
    to: &mut [f32],
) {
    let (height, width) = conv.output;
    // A padding larger than the kernel reaches leaves outputs that see no input.
    let (rows, cols) = (present(&row.read, height), present(&col.read, width));
    if rows.is_empty() || cols.is_empty() {
        return to.fill(0.0);
    }
    let cropped;
    let grad_output = match rows.len() == height && cols.len() == width {
        true => grad_output,
        false => {
            cropped = crop(conv, grad_output, &rows, &cols);
            &cropped
        }
    };
    let padding = Padding {
        top: missing(row.read.start, rows.start),
        bottom: missing(rows.end as isize, row.read.end as usize),
        left: missing(col.read.start, cols.start),
        right: missing(cols.end as isize, col.read.end as usize),
    };
    let around = Conv2d {
        batch: conv.batch,
        input: (rows.len(), cols.len()),
        in_channels: conv.out_channels,
        out_channels: conv.in_channels,
        kernel: (row.taps.len(), col.taps.len()),
        stride: (1, 1),
        padding,
        dilation: (row.dilation, col.dilation),
        groups: conv.groups,
        output: (row.count, col.count),
    };
    let taps: Vec<usize> =
        row.taps.iter().flat_map(|u| col.taps.iter().map(move |v| u * conv.kernel.1 + v)).collect();
    let source = |k: usize, c: usize, rows: RowsMut<'_>| turn(conv, &taps, weight, (k, c), rows);
    let grad_output = Rows::dense(grad_output, conv.out_channels);
    let to = RowsMut::dense(to, conv.in_channels);
    let weight = (weight, &source as &Source<'_>);
    forward_from(&around, grad_output, weight, None, Epilogue::NONE, precision, to);
}

/// The weights of the convolution that leads back, which has the given taps, `O / groups` input
/// channels a group and C output channels: terms `first..` of the channels `channel..`.
fn turn(
    conv: &Conv2d,
    taps: &[usize],
    weight: &[f32],
    (first, mut channel): (usize, usize),
    mut rows: RowsMut<'_>,
) {
    let (isa, out) = (Isa::active(), conv.out_channels);
    let (group_in, group_out) = (conv.group_in(), conv.group_out());
    // One group after the other, and in it one tap.
    while rows.channels() > 0 {
        let (group, c) = (channel / group_in, channel % group_in);
        let (mut part, rest) = {
            let count = rows.channels().min(group_in - c);
            rows.split_columns(count)
        };
        let (mut term, count) = (first, part.channels());
        while part.count() > 0 {
            let (tap, o) = (taps[term / group_out], term % group_out);
            let terms = part.count().min(group_out - o);
            let (to, below) = part.split_rows(terms);
            let from = &weight[(tap * group_in + c) * out + group * group_out + o..];
            transpose(isa, Rows::new(from, count, terms, out), to);
            (part, term) = (below, term + terms);
        }
        (rows, channel) = (rest, channel + count);
    }
}

/// The part of `read` that exists among `len` rows.
fn present(read: &std::ops::Range<isize>, len: usize) -> std::ops::Range<usize> {
    read.start.max(0) as usize..(read.end.max(0) as usize).min(len)
}

/// How many rows lie from `from` to `to`.
fn missing(from: isize, to: usize) -> usize {
    (to as isize - from) as usize
}

/// Some rows and columns of the gradient.
fn crop(
    conv: &Conv2d,
    grad_output: &[f32],
    rows: &std::ops::Range<usize>,
    cols: &std::ops::Range<usize>,
) -> Vec<f32> {
    let channels = conv.out_channels;
    let line = conv.output.1 * channels;
    let mut cropped = Vec::with_capacity(conv.batch * rows.len() * cols.len() * channels);
    for image in grad_output.chunks_exact(conv.output.0 * line) {
        for line in image[rows.start * line..rows.end * line].chunks_exact(line) {
            cropped.extend_from_slice(&line[cols.start * channels..cols.end * channels]);
        }
    }
    cropped
}

/// Writes the gradient of two phases to their places.
fn spread(conv: &Conv2d, (row, col): (&Phase, &Phase), part: &[f32], grad_input: &mut [f32]) {
    let channels = conv.in_channels;
    let line = conv.input.1 * channels;
    let lines = (LINES / line).max(1);
    parallel::for_each_chunk(grad_input, lines * line, |index, to| {
        for (to, y) in to.chunks_exact_mut(line).zip(index * lines..) {
            let (image, y) = (y / conv.input.0, y % conv.input.0);
            let Some(distance) = y.checked_sub(row.first) else { continue };
            if !distance.is_multiple_of(conv.stride.0) {
                continue;
            }
            let from = (image * row.count + distance / conv.stride.0) * col.count * channels;
            let from = part[from..][..col.count * channels].chunks_exact(channels);
            let to = to.chunks_exact_mut(channels).skip(col.first).step_by(conv.stride.1);
            to.zip(from).for_each(|(to, from)| to.copy_from_slice(from));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::reference::{self, cases, close, values, winograd_cases};
    use super::*;

    #[test]
    fn phases_of_strides_dilations_and_paddings_agree_with_the_naive_sum() {
        for stride in [1, 2, 3, 5] {
            for dilation in [1, 2, 3, 4] {
                for (padding, kernel) in [(0, 1), (0, 3), (1, 3), (2, 2), (5, 3), (7, 1)] {
                    let pad = Padding { top: padding, bottom: 0, left: 1, right: padding };
                    let (x, w) = ((2, 9, 8, 4), (kernel, 2, 2, 6));
                    let spread = (dilation, 1);
                    let Ok(conv) = Conv2d::new(x, w, (stride, 2), pad, spread, 2) else { continue };
                    let grad = values(conv.output_len(), 1);
                    let weight = values(conv.weight_len(), 2);
                    let expected = reference::backward_data(&conv, &grad, &weight);
                    let got = backward_data(&conv, &grad, &weight, Precision::Direct);
                    assert!(close(&got, &expected, 1e-5), "{conv:?}");
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_naive_sum() {
        for conv in cases() {
            let grad = values(conv.output_len(), 1);
            let weight = values(conv.weight_len(), 2);
            let expected = reference::backward_data(&conv, &grad, &weight);
            let got = backward_data(&conv, &grad, &weight, Precision::Direct);
            assert!(close(&got, &expected, 1e-5), "{conv:?}");
        }
    }

    #[test]
    fn in_either_precision_and_with_any_number_of_threads() {
        for conv in cases().into_iter().chain(winograd_cases()) {
            let grad = values(conv.output_len(), 1);
            let weight = values(conv.weight_len(), 2);
            let expected = reference::backward_data(&conv, &grad, &weight);
            for precision in [Precision::Direct, Precision::Winograd] {
                let run = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    pool.unwrap().install(|| backward_data(&conv, &grad, &weight, precision))
                };
                let one = run(1);
                assert!(close(&one, &expected, 5e-5), "{precision:?} {conv:?}");
                for threads in [2, 3, 8] {
                    assert!(one == run(threads), "{threads} threads, {precision:?} {conv:?}");
                }
            }
        }
    }
}
